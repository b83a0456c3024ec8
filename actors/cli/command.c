/* The table of commands and what they share. */
#include "cli/command.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct command commands[] = {
#define COMMAND(id, name, args, summary) {name, args, summary, command_##id},
#include "cli/tbl/commands.h"
#undef COMMAND
};

#define N_COMMANDS (sizeof commands / sizeof commands[0])

const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

void command_print_all(FILE *to)
{
    fprintf(to, "usage: weft COMMAND [options]\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\n\"weft COMMAND --help\" tells more. Exit codes: 0 ok, 1 failed, 2 wrong "
                "command line, "
                "3 not ready or not in time.\n");
}

static void command_print_usage(const struct command *self, FILE *to)
{
    fprintf(to, "usage: weft %s%s%s\n", self->name, self->args[0] != '\0' ? " " : "",
            self->args);
}

bool command_options(const struct command *self, const struct opt *table, int *argc,
                     char **argv, int *rest, int *exit_code)
{
    struct trouble why = {{0}};
    err_t e;

    for (int i = 1; i < *argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") != 0 && strcmp(argv[i], "-h") != 0)
            continue;
        command_print_usage(self, stdout);
        printf("\n%s\n\n", self->summary);
        opts_print(table, stdout);
        *exit_code = CLI_OK;
        return false;
    }
    e = opts_parse(table, argc, argv, rest, &why);
    if (e == OK)
        return true;
    *exit_code = command_usage(self, "%s", why.text);
    return false;
}

int command_usage(const struct command *self, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "weft %s: ", self->name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n");
    command_print_usage(self, stderr);
    fprintf(stderr, "\"weft %s --help\" lists the options.\n", self->name);
    return CLI_USAGE;
}

int command_positional(const struct command *self, int argc, int min, int max)
{
    if (argc - 1 < min)
        return command_usage(self, "something is missing");
    if (argc - 1 > max)
        return command_usage(self, "too many arguments");
    return 0;
}

const char *command_run_dir(const char *option)
{
    const char *env = getenv("WEFT_RUN");

    if (option != NULL)
        return option;
    return env != NULL && env[0] != '\0' ? env : COMMAND_DEFAULT_RUN;
}
