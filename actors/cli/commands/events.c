/* weft events: what the control plane and the pods reported. */
#include "cli/command.h"
#include "cli/sheet.h"

#include <stdio.h>

int command_events(const struct command *self, int argc, char **argv)
{
    const char *run = NULL, *output = NULL, *kind = NULL;
    uint32_t n = 50;
    const struct opt table[] = {
        {OPT_TEXT, 'k', "kind", "KIND", "only of this kind, e.g. NOT_PROTECTED", &kind},
        {OPT_U32, 'N', "last", "N", "how many (50)", &n},
        OPT_OUTPUT(&output),
        OPT_RUN(&run),
        OPT_TABLE_END,
    };
    char sql[900], where[160] = "", quoted[128];
    int code;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 0, 0);
    if (code != 0)
        return code;
    if (kind != NULL) {
        if (!sheet_quote(kind, quoted, sizeof quoted))
            return command_usage(self, "--kind is too long");
        (void)snprintf(where, sizeof where, " where kind=%s", quoted);
    }
    (void)snprintf(sql, sizeof sql,
                   "select at,source,kind,object,message from ("
                   "select at_ms,at,'broker' as source,kind,object,message from mesh_events "
                   "union all select at_ms,at,pod as source,kind,object,message from "
                   "mesh_pod_events)%s order by at_ms desc limit %u",
                   where, n);
    return sheet_command(command_run_dir(run), sql, output, NULL);
}
