/* weft edges: who talks to whom. */
#include "cli/command.h"
#include "cli/sheet.h"

#include <inttypes.h>
#include <stdio.h>

static bool edges_is_bad(const json_t *row)
{
    const json_t *mtls = json_object_get(row, "mtls_share");

    return json_is_real(mtls) && json_real_value(mtls) < 1.0;
}

int command_edges(const struct command *self, int argc, char **argv)
{
    const char *run = NULL, *output = NULL;
    uint64_t window_ms = 60000;
    const struct opt table[] = {
        {OPT_MS, 'w', "window", "TIME", "look back so far (1m, at most 1h)", &window_ms},
        OPT_OUTPUT(&output),
        OPT_RUN(&run),
        OPT_TABLE_END,
    };
    char sql[1200];
    int code;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 0, 0);
    if (code != 0)
        return code;
    (void)snprintf(
        sql, sizeof sql,
        "select source_namespace,source,namespace,service,"
        "round(1.0*sum(successes)/nullif(sum(successes)+sum(failures),0),4) as success_rate,"
        "round(sum(requests)*1000.0/%" PRIu64 ",2) as rps,"
        "round(case when sum(requests)>0 then 1.0*sum(mtls_requests)/sum(requests) "
        "else 1.0*sum(mtls_connections)/nullif(sum(connections),0) end,4) as mtls_share,"
        "sum(retries) as retries,sum(mesh_errors) as mesh_errors,sum(connections) as "
        "connections,"
        "sum(bytes_in) as bytes_in,sum(bytes_out) as bytes_out "
        "from mesh_edges where width_s=10 and direction='outbound' and "
        "start_ms>=(select max(start_ms) from mesh_edges where width_s=10)-%" PRIu64
        " group by 1,2,3,4 order by 1,2,3,4",
        window_ms, window_ms);
    return sheet_command(command_run_dir(run), sql, output, edges_is_bad);
}
