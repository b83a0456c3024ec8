/* weft apply: resources from files. */
#include "cli/changes.h"
#include "cli/command.h"

#include <stdio.h>

int command_apply(const struct command *self, int argc, char **argv)
{
    const char *run = NULL;
    struct changes_conf conf = {.reason = "", .ns = "default", .wait_ms = 30000};
    struct opt_list files = {.n = 0};
    const struct opt table[] = {
        {OPT_MANY, 'f', "file", "FILE", "YAML or JSON, \"-\" for standard input", &files},
        {OPT_FLAG, 0, "wait", NULL, "return when every live pod has applied it", &conf.is_wait},
        {OPT_MS, 0, "timeout", "TIME", "longest wait (30s); then exit code 3 and the laggards",
         &conf.wait_ms},
        {OPT_TEXT, 0, "reason", "TEXT", "why, for the mesh's history", &conf.reason},
        {OPT_FLAG, 0, "dry-run", NULL, "only check", &conf.is_dry},
        {OPT_TEXT, 'n', "namespace", "NS", "for objects that name none (default)", &conf.ns},
        {OPT_FLAG, 'q', "quiet", NULL, "only say what went wrong", &conf.is_quiet},
        OPT_RUN(&run),
        OPT_TABLE_END,
    };
    struct trouble why = {{0}};
    json_t *objects;
    size_t bad = 0;
    int code;
    err_t e = OK;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 0, 0);
    if (code != 0)
        return code;
    if (files.n == 0)
        return command_usage(self, "-f is missing");
    if (conf.wait_ms > 3600000)
        return command_usage(self, "--timeout: at most 1h");
    objects = json_array();
    for (size_t i = 0; i < files.n && e == OK; i++)
        e = changes_read(files.at[i], &conf, objects, &bad, &why);
    if (e == OK && json_array_size(objects) + bad == 0)
        e = trouble_set(&why, ERR_OF(MALFORMED), "there is no object in it");
    if (e == OK)
        e = changes_send(command_run_dir(run), &conf, objects, bad, &why);
    json_decref(objects);
    return trouble_exit(&why, e);
}
