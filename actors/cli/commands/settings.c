/* weft settings: the table of settings with the values this environment gives. */
#include "kit/settings.h"
#include "cli/command.h"

#include <stdio.h>

static void settings_markdown(void)
{
    printf("# Settings\n\n"
           "Printed by `weft settings --markdown` from actors/kit/tbl/settings.h. Every "
           "process reads "
           "them from the\nenvironment; the supervisor passes them on. Times are a number with "
           "ms, s, "
           "m, h or d; sizes a number with\nKi, Mi or Gi. A value that does not parse stops "
           "the process "
           "with exit code 64.\n\n"
           "| name | type | default | meaning |\n|---|---|---|---|\n");
    for (unsigned i = 0; i < settings_rows_n; i++) {
        const struct setting_row *r = &settings_rows[i];
        const char *tick = r->fallback[0] != '\0' ? "`" : "";

        printf("| `%s` | %s | %s%s%s | %s |\n", r->env, r->type, tick, r->fallback, tick,
               r->doc);
    }
}

int command_settings(const struct command *self, int argc, char **argv)
{
    bool markdown = false;
    const struct opt table[] = {
        {OPT_FLAG, 0, "markdown", NULL, "as docs/settings.md has it", &markdown},
        OPT_TABLE_END,
    };
    struct settings s;
    struct trouble why = {{0}};
    char said[200];
    int code;
    err_t e;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    if (markdown) {
        settings_markdown();
        return CLI_OK;
    }
    e = settings_load(&s, said);
    if (e != OK)
        return trouble_exit(&why, trouble_set(&why, e, "%s", said));
    settings_print(&s, stdout);
    return CLI_OK;
}
