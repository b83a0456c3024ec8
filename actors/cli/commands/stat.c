/* weft stat: the golden signals of every service. */
#include "cli/command.h"
#include "cli/golden.h"

#include <poll.h>
#include <stdio.h>

struct stat_args {
    const char *run, *output, *ns;
    uint64_t window_ms;
    bool is_watch;
};

static bool stat_is_bad(const json_t *row)
{
    const json_t *rate = json_object_get(row, "success_rate");
    const json_t *mtls = json_object_get(row, "mtls_share");

    return (json_is_real(rate) && json_real_value(rate) < 0.99) ||
           (json_is_real(mtls) && json_real_value(mtls) < 1.0);
}

static err_t stat_once(const struct mesh *m, const struct stat_args *a,
                       enum sheet_format format, struct trouble *why)
{
    struct sheet s;
    err_t e;

    sheet_init(&s);
    e = golden_read(&s, m->state, a->ns, a->window_ms, why);
    if (e == OK) {
        if (a->is_watch && sheet_is_terminal(stdout))
            fputs("\033[H\033[2J", stdout);
        sheet_print(&s, format, stat_is_bad, stdout);
        (void)fflush(stdout);
    }
    sheet_done(&s);
    return e;
}

int command_stat(const struct command *self, int argc, char **argv)
{
    struct stat_args a = {.window_ms = 60000};
    const struct opt table[] = {
        {OPT_MS, 'w', "window", "TIME", "look back so far (1m, at most 1h)", &a.window_ms},
        {OPT_TEXT, 'n', "namespace", "NS", "only this namespace", &a.ns},
        {OPT_FLAG, 0, "watch", NULL, "again every second until Ctrl-C", &a.is_watch},
        OPT_OUTPUT(&a.output),
        OPT_RUN(&a.run),
        OPT_TABLE_END,
    };
    enum sheet_format format;
    struct trouble why = {{0}};
    struct mesh m;
    int code;
    err_t e;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 0, 0);
    if (code != 0)
        return code;
    if (a.window_ms < 1000 || a.window_ms > 3600000)
        return command_usage(self, "--window: from 1s to 1h");
    if (sheet_format_parse(a.output, &format, &why) != OK)
        return command_usage(self, "%s", why.text);
    e = mesh_load(&m, command_run_dir(a.run), &why);
    while (e == OK) {
        e = stat_once(&m, &a, format, &why);
        if (!a.is_watch)
            break;
        (void)poll(NULL, 0, 1000);
    }
    return trouble_exit(&why, e);
}
