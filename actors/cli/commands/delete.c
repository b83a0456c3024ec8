/* weft delete: resources by name or as in a file. */
#include "cli/changes.h"
#include "cli/command.h"
#include "model/resource.h"

#include <stdio.h>

static err_t delete_named(const struct changes_conf *conf, const char *kind, const char *name,
                          json_t *objects, struct trouble *why)
{
    enum resource_kind k;
    json_t *o;

    if (!resource_kind_find(slice_str(kind), &k))
        return trouble_set(why, ERR_OF(USAGE), "%s is no kind of resource", kind);
    o = json_pack("{s:s,s:{s:s,s:s}}", "kind", resource_kind_name(k), "metadata", "name", name,
                  "namespace", conf->ns);
    if (o == NULL || json_array_append_new(objects, o) != 0)
        return trouble_set(why, ERR_OF(USAGE), "%s is no name", name);
    return OK;
}

int command_delete(const struct command *self, int argc, char **argv)
{
    const char *run = NULL, *file = NULL;
    struct changes_conf conf = {
        .reason = "", .ns = "default", .wait_ms = 30000, .is_delete = true};
    const struct opt table[] = {
        {OPT_TEXT, 'f', "file", "FILE", "delete what is in it, \"-\" for standard input",
         &file},
        {OPT_TEXT, 'n', "namespace", "NS", "namespace (default)", &conf.ns},
        {OPT_FLAG, 0, "wait", NULL, "return when every live pod has applied it", &conf.is_wait},
        {OPT_MS, 0, "timeout", "TIME", "longest wait (30s)", &conf.wait_ms},
        {OPT_TEXT, 0, "reason", "TEXT", "why, for the mesh's history", &conf.reason},
        {OPT_FLAG, 'q', "quiet", NULL, "only say what went wrong", &conf.is_quiet},
        OPT_RUN(&run),
        OPT_TABLE_END,
    };
    struct trouble why = {{0}};
    json_t *objects;
    size_t bad = 0;
    int code;
    err_t e;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, file != NULL ? 0 : 2, file != NULL ? 0 : 2);
    if (code != 0)
        return code;
    if (conf.wait_ms > 3600000)
        return command_usage(self, "--timeout: at most 1h");
    objects = json_array();
    e = file != NULL ? changes_read(file, &conf, objects, &bad, &why)
                     : delete_named(&conf, argv[1], argv[2], objects, &why);
    if (e == OK)
        e = changes_send(command_run_dir(run), &conf, objects, bad, &why);
    json_decref(objects);
    return trouble_exit(&why, e);
}
