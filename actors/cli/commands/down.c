/* weft down: ends an embedded mesh and whatever a crash left of one. */
#include "cli/command.h"
#include "cli/control.h"
#include "cli/files.h"

#include <stdio.h>
#include <unistd.h>

struct down_args {
    const char *run, *state, *net, *bridge;
    bool purge, is_quiet;
};

static err_t down_find(struct mesh *m, const struct down_args *a, struct trouble *why)
{
    err_t e = mesh_load(m, command_run_dir(a->run), why);

    if (e == OK)
        return OK;
    /* No record, or a damaged one: leftovers are found by the names that the options give. */
    TRY(mesh_set_dirs(m, command_run_dir(a->run), a->state, why));
    (void)snprintf(m->net, sizeof m->net, "%s", a->net);
    return plan_parse(&m->plan, a->net, a->bridge, why);
}

/* With the mesh's lock, so that no pod is begun while this removes what it would stand on: a
 * weft run that began before is told to end, one that comes later finds no mesh. */
static err_t down_all(struct mesh *m, const struct down_args *a, struct trouble *why)
{
    char path[FILES_PATH_MAX];
    int lock = -1;
    err_t e = OK;

    files_path(path, "%s/mesh.json", m->run);
    if (files_exists(path)) /* else leftovers, and perhaps a directory that is not ours */
        e = mesh_lock(m->run, &lock, why);
    if (e == OK || e == ERR_OF(NO_MESH)) /* gone: another weft down was quicker */
        e = down_find(m, a, why);
    if (e == OK)
        e = control_down(m, a->purge, why);
    if (lock >= 0)
        close(lock);
    return e;
}

int command_down(const struct command *self, int argc, char **argv)
{
    struct down_args a = {
        .state = COMMAND_DEFAULT_STATE, .net = PLAN_DEFAULT_NET, .bridge = PLAN_DEFAULT_BRIDGE};
    struct trouble why = {{0}};
    struct mesh m = {.run = ""};
    const struct opt table[] = {
        {OPT_FLAG, 0, "purge", NULL, "remove the state directory too", &a.purge},
        {OPT_TEXT, 0, "state", "DIR", "state directory, if the run directory is gone",
         &a.state},
        {OPT_TEXT, 0, "net", "NET/P", "network, if the run directory is gone", &a.net},
        {OPT_TEXT, 0, "bridge", "NAME", "bridge, if the run directory is gone (weft0)",
         &a.bridge},
        {OPT_FLAG, 'q', "quiet", NULL, "say nothing when all is well", &a.is_quiet},
        OPT_RUN(&a.run),
        OPT_TABLE_END,
    };
    int code;
    err_t e;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 0, 0);
    if (code != 0)
        return code;
    e = mesh_need_root("weft down", &why);
    if (e == OK)
        e = down_find(&m, &a, &why);
    if (e == OK)
        e = down_all(&m, &a, &why);
    if (e == OK && !a.is_quiet)
        printf("Down: %s%s.\n", m.run, a.purge ? ", state removed" : "");
    return trouble_exit(&why, e);
}
