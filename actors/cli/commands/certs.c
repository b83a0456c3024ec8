/* weft certs: the certificates in force, those that end first at the top. */
#include "cli/command.h"
#include "cli/sheet.h"

static bool certs_is_bad(const json_t *row)
{
    return json_integer_value(json_object_get(row, "left_s")) < 3600;
}

int command_certs(const struct command *self, int argc, char **argv)
{
    const char *run = NULL, *output = NULL;
    bool all = false;
    const struct opt table[] = {
        {OPT_FLAG, 0, "all", NULL, "also those that were replaced", &all},
        OPT_OUTPUT(&output),
        OPT_RUN(&run),
        OPT_TABLE_END,
    };
    int code;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 0, 0);
    if (code != 0)
        return code;
    return sheet_command(
        command_run_dir(run),
        all ? "select namespace,pod,identity,serial,not_before,not_after,"
              "not_after_ms/1000-unixepoch() as left_s,current from mesh_certificates "
              "order by not_after_ms"
            : "select namespace,pod,identity,serial,not_before,not_after,"
              "not_after_ms/1000-unixepoch() as left_s from mesh_certificates where current "
              "order by not_after_ms",
        output, certs_is_bad);
}
