/* weft sql: one read-only statement over both databases. */
#include "cli/command.h"
#include "cli/sheet.h"

#include <stdio.h>
#include <string.h>

static const char list_views[] =
    "select name as view,trim(substr(sql,instr(sql,'/*')+2,instr(sql,'*/')-instr(sql,'/*')-2)) "
    "as "
    "meaning from (select name,sql from main.sqlite_master where type='view' union all "
    "select name,sql from telemetry.sqlite_master where type='view') order by name";

int command_sql(const struct command *self, int argc, char **argv)
{
    const char *run = NULL, *output = NULL;
    bool views = false;
    const struct opt table[] = {
        {OPT_FLAG, 0, "views", NULL, "list the published views instead", &views},
        OPT_OUTPUT(&output),
        OPT_RUN(&run),
        OPT_TABLE_END,
    };
    int code;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, views ? 0 : 1, views ? 0 : 1);
    if (code != 0)
        return code;
    return sheet_command(command_run_dir(run), views ? list_views : argv[1], output, NULL);
}
