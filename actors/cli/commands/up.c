/* weft up: the control plane of an embedded mesh. */
#include "cli/command.h"
#include "cli/control.h"
#include "cli/files.h"
#include "cli/netns.h"
#include "kit/settings.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct up_args {
    const char *run, *state, *net, *bridge;
    uint64_t timeout_ms;
    bool is_quiet;
};

static void up_progress(const char *what)
{
    fprintf(stderr, "weft: waiting for %s\n", what);
}

static void up_quiet(const char *what)
{
    (void)what;
}

static err_t up_configure(struct mesh *m, const struct up_args *a, struct trouble *why)
{
    struct settings s;
    char said[200];

    TRY(mesh_set_dirs(m, command_run_dir(a->run), a->state, why));
    TRY(plan_parse(&m->plan, a->net, a->bridge, why));
    if (settings_load(&s, said) != OK)
        return trouble_set(why, ERR_OF(USAGE), "%s", said);
    if (strlen(s.control_namespace) >= sizeof m->control_namespace ||
        strlen(s.trust_domain) >= sizeof m->trust_domain)
        return trouble_set(why, ERR_OF(USAGE), "control namespace or trust domain is too long");
    (void)snprintf(m->net, sizeof m->net, "%s", a->net);
    (void)snprintf(m->control_namespace, sizeof m->control_namespace, "%s",
                   s.control_namespace);
    (void)snprintf(m->trust_domain, sizeof m->trust_domain, "%s", s.trust_domain);
    m->ipv6 = netns_machine_has_ipv6();
    return OK;
}

static err_t up_exists(const struct mesh *m, struct trouble *why)
{
    struct proc_id supervisor;

    if (!mesh_supervisor(m, &supervisor))
        return OK;
    return trouble_set(why, ERR_OF(MESH_EXISTS),
                       "a mesh runs already with %s (supervisor is process %d): weft down",
                       m->run, (int)supervisor.pid);
}

/* An earlier mesh in the same run directory: running is an error, dead is tidied away. */
static err_t up_earlier(const struct mesh *m, struct trouble *why)
{
    struct mesh old;
    int lock;
    err_t e = mesh_load(&old, m->run, why);

    if (e == ERR_OF(NO_MESH)) {
        if (!files_is_empty_dir(m->run))
            return trouble_set(why, ERR_OF(NOT_OURS),
                               "%s is not empty and is not a run directory of Weft", m->run);
        return OK;
    }
    if (e == OK)
        TRY(up_exists(&old, why));
    e = mesh_lock(m->run, &lock, why); /* another command may be at it: then it is done now */
    if (e == ERR_OF(NO_MESH))
        return OK;
    TRY(e);
    e = mesh_load(&old, m->run, why);
    if (e != OK) /* damaged record: what can be known is what this call would make */
        old = *m;
    e = up_exists(&old, why);
    if (e == OK) {
        fprintf(stderr, "weft: tidying what an earlier mesh left in %s\n", m->run);
        e = control_down(&old, false, why);
    }
    close(lock);
    return e;
}

/* Users of a machine may have the numbers that Linkerd's habit gives to us: then they are Weft.
 */
static void up_warn_users(void)
{
    static const uid_t ours[] = {MESH_CONTROL_UID, 2102};

    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        const struct passwd *pw = getpwuid(ours[i]);

        if (pw != NULL && strncmp(pw->pw_name, "weft", 4) != 0)
            fprintf(stderr,
                    "weft: warning: user %s has uid %u, as Weft's processes do: it can read "
                    "their keys\n",
                    pw->pw_name, (unsigned)ours[i]);
    }
}

/* The lock is ours. What this call has begun to make it also unmakes. */
static err_t up_make(const struct mesh *m, const struct up_args *a, struct trouble *why)
{
    struct trouble undo = {{0}};
    char path[FILES_PATH_MAX];
    err_t e;

    files_path(path, "%s/mesh.json", m->run);
    if (files_exists(path))
        return trouble_set(why, ERR_OF(MESH_EXISTS),
                           "another weft up was quicker with %s: weft check, weft down",
                           m->run);
    e = control_up(m, why);
    if (e == OK)
        e = control_wait(m, a->timeout_ms, a->is_quiet ? up_quiet : up_progress, why);
    if (e != OK && control_down(m, false, &undo) != OK)
        fprintf(stderr, "weft: %s\n", undo.text);
    return e;
}

static err_t up_start(struct mesh *m, const struct up_args *a, struct trouble *why)
{
    int lock;
    err_t e;

    TRY(up_earlier(m, why));
    if (netns_bridge_is_strange(&m->plan))
        return trouble_set(why, ERR_OF(NOT_OURS),
                           "there is an interface %s already, and it is not Weft's (--bridge)",
                           m->plan.bridge_name);
    up_warn_users();
    TRY(files_mkdir(m->run, 0755, (uid_t)-1, why));
    TRY(mesh_lock(m->run, &lock, why));
    e = up_make(m, a, why);
    close(lock);
    return e;
}

int command_up(const struct command *self, int argc, char **argv)
{
    struct up_args a = {.state = COMMAND_DEFAULT_STATE,
                        .net = PLAN_DEFAULT_NET,
                        .bridge = PLAN_DEFAULT_BRIDGE,
                        .timeout_ms = 30000};
    struct trouble why = {{0}};
    struct mesh m = {.run = ""};
    const struct opt table[] = {
        {OPT_TEXT, 0, "state", "DIR", "databases, keys, logs (/var/lib/weft)", &a.state},
        {OPT_TEXT, 0, "net", "NET/P", "addresses of pods and services (10.214.0.0/16)", &a.net},
        {OPT_TEXT, 0, "bridge", "NAME", "the bridge to make (weft0)", &a.bridge},
        {OPT_MS, 0, "timeout", "TIME", "longest wait until it serves (30s)", &a.timeout_ms},
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
    e = up_configure(&m, &a, &why);
    if (e == ERR_OF(USAGE))
        return command_usage(self, "%s", why.text);
    if (e == OK)
        e = mesh_need_root("weft up", &why);
    if (e != OK)
        return trouble_exit(&why, e);
    e = up_start(&m, &a, &why);
    if (e == OK && !a.is_quiet)
        printf("The control plane serves: run directory %s, state %s, bridge %s (%s).\n"
               "Next: weft run --as NAME --port P -- COMMAND, weft check, weft stat; weft down "
               "ends it.\n",
               m.run, m.state, m.plan.bridge_name, m.net);
    return trouble_exit(&why, e);
}
