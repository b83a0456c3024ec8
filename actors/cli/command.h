/* The commands of weft: one file in commands/ and one line in tbl/commands.h each. */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include "cli/opts.h"
#include "cli/trouble.h"

#include <stdbool.h>

struct command {
    const char *name;
    const char *args;    /* what stands behind the name in its usage line */
    const char *summary; /* one line */
    int (*run)(const struct command *self, int argc, char **argv); /* argv[0] is the name */
};

/* The entry, or NULL. */
const struct command *command_find(const char *name);
void command_print_all(FILE *to);

/* Parses the options; prints help for --help and -h. True: go on; false: *exit_code says how to
 * end. */
bool command_options(const struct command *self, const struct opt *table, int *argc,
                     char **argv, int *rest, int *exit_code);

/* Prints "weft NAME: sentence, usage" and returns CLI_USAGE. */
int command_usage(const struct command *self, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* 0 if at most `max` positional arguments and at least `min` are there; else as command_usage.
 */
int command_positional(const struct command *self, int argc, int min, int max);

/* The directory of the mesh's run files: --run, else WEFT_RUN, else /run/weft. */
#define COMMAND_DEFAULT_RUN   "/run/weft"
#define COMMAND_DEFAULT_STATE "/var/lib/weft"
const char *command_run_dir(const char *option);

/* The option every command that talks to a mesh has. */
#define OPT_RUN(into)                                                                          \
    {                                                                                          \
        OPT_TEXT, 0, "run", "DIR",                                                             \
            "run directory of the mesh (default WEFT_RUN or /run/weft)", into                  \
    }
#define OPT_OUTPUT(into)                                                                       \
    {                                                                                          \
        OPT_TEXT, 'o', "output", "FORMAT", "table (default), json or yaml", into               \
    }

#define COMMAND(id, name, args, summary)                                                       \
    int command_##id(const struct command *self, int argc, char **argv);
#include "cli/tbl/commands.h"
#undef COMMAND

#endif
