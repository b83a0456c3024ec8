/* Options of a command: a table that parses and that prints its own help. */
#ifndef CLI_OPTS_H
#define CLI_OPTS_H

#include "cli/trouble.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define OPT_LIST_MAX 64

/* Texts given with an option that may be repeated; borrowed from argv. */
struct opt_list {
    const char *at[OPT_LIST_MAX];
    size_t n;
};

enum opt_kind {
    OPT_FLAG, /* bool, no value */
    OPT_TEXT, /* const char *, borrowed from argv */
    OPT_MANY, /* struct opt_list */
    OPT_MS,   /* uint64_t, "30s" */
    OPT_U32,  /* uint32_t */
    OPT_END   /* closes the table */
};

struct opt {
    enum opt_kind kind;
    char letter;       /* 0: none */
    const char *name;  /* without the dashes */
    const char *value; /* what help calls the value; NULL for flags */
    const char *help;
    void *into;
};

#define OPT_TABLE_END                                                                          \
    {                                                                                          \
        OPT_END, 0, NULL, NULL, NULL, NULL                                                     \
    }

/* Reads argv[1..]: "--name value", "--name=value", "-n value", "--" ends the options. What is
 * not an option moves to argv[1..*argc-1] in its order. What stands behind "--": with `rest` it
 * stays where it is and *rest is its first index (-1 without "--"); with rest == NULL it is
 * positional too. USAGE with a sentence; "--help" is not handled here. */
MUST_USE err_t opts_parse(const struct opt *table, int *argc, char **argv, int *rest,
                          struct trouble *why);

/* One line per option. */
void opts_print(const struct opt *table, FILE *to);

#endif
