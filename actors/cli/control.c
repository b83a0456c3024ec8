/* Making and unmaking. Everything made here is removed by control_down() from the record alone.
 */
#include "cli/control.h"

#include "cli/client.h"
#include "cli/files.h"
#include "cli/launch.h"
#include "cli/netns.h"
#include "cli/pod.h"
#include "cli/status.h"
#include "cli/tool.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SUPERVISOR_GRACE_MS 8000
#define RUN_GRACE_MS        10000 /* weft run: its program, then its pod's drain */

static uint64_t control_now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static err_t control_dirs(const struct mesh *m, struct trouble *why)
{
    static const struct {
        const char *below;
        bool in_state;
        mode_t mode;
        uid_t uid;
    } dirs[] = {
        {"/control", false, 0700, MESH_CONTROL_UID},
        {"/pods", false, 0711, 0},
        {"/owners", false, 0700, 0},
        {"", true, 0711, MESH_CONTROL_UID},
        {"/pods", true, 0711, 0},
        {"/log", true, 0700, 0},
    };
    char path[FILES_PATH_MAX];

    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        if (!files_path(path, "%s%s", dirs[i].in_state ? m->state : m->run, dirs[i].below))
            return trouble_set(why, ERR_OF(TOO_BIG), "a path is too long");
        TRY(files_mkdir(path, dirs[i].mode, dirs[i].uid, why));
    }
    files_path(path, "%s/.weft", m->state);
    return files_write(path, "state of a Weft mesh\n", 21, 0644, (uid_t)-1, why);
}

static err_t control_supervisor(const struct mesh *m, struct trouble *why)
{
    struct launch *l = calloc(1, sizeof *l);
    char program[512], log[FILES_PATH_MAX], pid_file[FILES_PATH_MAX];
    char bridge[PLAN_ADDRESS_TEXT], services[PLAN_ADDRESS_TEXT];
    struct proc_id id;
    err_t e;

    if (l == NULL)
        return trouble_set(why, ERR_OF(NOMEM), "out of memory");
    files_path(log, "%s/log/control.log", m->state);
    files_path(pid_file, "%s/supervisor.pid", m->run);
    plan_bridge(&m->plan, bridge);
    plan_services(&m->plan, services);
    l->program = program;
    l->argument = "control";
    l->uid = MESH_CONTROL_UID;
    l->log = log;
    l->pid_file = pid_file;
    e = tool_own("weft-supervisor", program, why);
    if (e == OK)
        e = launch_env(l, why, "WEFT_RUN_DIR", "%s/control", m->run);
    if (e == OK)
        e = launch_env(l, why, "WEFT_STATE_DIR", "%s", m->state);
    if (e == OK)
        e = launch_env(l, why, "WEFT_LISTEN_ADDRESS", "%s", bridge);
    if (e == OK)
        e = launch_env(l, why, "WEFT_SERVICE_CIDR", "%s", services);
    if (e == OK)
        e = launch_env(l, why, "WEFT_CONTROL_NAMESPACE", "%s", m->control_namespace);
    if (e == OK)
        e = launch_env(l, why, "WEFT_TRUST_DOMAIN", "%s", m->trust_domain);
    if (e == OK)
        e = launch_start(l, &id, why);
    free(l);
    return e;
}

err_t control_up(const struct mesh *m, struct trouble *why)
{
    TRY(mesh_store(m, why));
    TRY(control_dirs(m, why));
    TRY(netns_bridge_up(&m->plan, m->ipv6, why));
    return control_supervisor(m, why);
}

/* What is still missing, or NULL. */
static const char *control_missing(const struct mesh *m, struct client *c, struct trouble *why)
{
    char dir[FILES_PATH_MAX];
    struct wire_status_ask ask = {0};
    const struct wire_msg *answer;
    struct status s;

    files_path(dir, "%s/control", m->run);
    if (!status_read(dir, &s))
        return "weft-supervisor";
    for (size_t i = 0; i < s.n; i++) {
        if (!s.at[i].is_ready) {
            (void)trouble_set(why, OK, "%s (%s)", s.at[i].name, s.at[i].state);
            return why->text;
        }
    }
    if (client_ask(c, WIRE_status_ask, &ask, WIRE_status, 1000, &answer, why) != OK)
        return "weft-broker's answer";
    return answer->body.status.has_authority ? NULL : "weft-authority";
}

static err_t control_late(const struct mesh *m, const char *what, struct trouble *why)
{
    char log[FILES_PATH_MAX], tail[400], missing[100];

    (void)snprintf(missing, sizeof missing, "%s", what);
    files_path(log, "%s/log/control.log", m->state);
    launch_log_tail(log, tail, sizeof tail);
    return trouble_set(why, ERR_OF(NOT_READY),
                       "the control plane is not ready: %s. End of %s:\n%s", missing, log,
                       tail);
}

err_t control_wait(const struct mesh *m, uint64_t wait_ms, void (*progress)(const char *what),
                   struct trouble *why)
{
    uint64_t told = control_now_ms(), end = told + wait_ms;
    struct client *c = NULL;
    struct proc_id supervisor;
    err_t e = OK;

    for (;;) {
        const char *what;

        if (!mesh_supervisor(m, &supervisor)) {
            e = control_late(m, "weft-supervisor ended", why);
            break;
        }
        if (c == NULL && client_open(m, &c, why) != OK)
            c = NULL;
        what = c != NULL ? control_missing(m, c, why) : "broker.sock";
        if (what == NULL)
            break;
        if (control_now_ms() >= end) {
            e = control_late(m, what, why);
            break;
        }
        if (control_now_ms() >= told + 500) {
            progress(what);
            told = control_now_ms();
        }
        (void)poll(NULL, 0, 50);
    }
    client_close(&c);
    return e;
}

/* ---- down ---- */

struct control_downing {
    const struct mesh *mesh;
    struct proc_list *owners;
    struct trouble *why;
    err_t first;
};

static void control_note(struct control_downing *d, err_t e, const struct trouble *why)
{
    if (e != OK && d->first == OK) {
        d->first = e;
        *d->why = *why;
    }
}

static void control_on_owner(void *arg, const struct pod *p)
{
    struct control_downing *d = arg;
    char exe[64];

    proc_exe_name(p->owner.pid, exe);
    if (strcmp(exe, "weft") == 0 && proc_is_alive(&p->owner) && d->owners->n < PROCS_MAX)
        d->owners->at[d->owners->n++] = p->owner;
}

static void control_on_pod(void *arg, const struct pod *p)
{
    struct control_downing *d = arg;
    struct trouble why = {{0}};

    control_note(d, pod_remove(d->mesh, p, 0, &why), &why);
}

/* A namespace with our name and no record: made by a version that crashed before its record, or
 * the run directory was emptied by somebody. */
static void control_on_netns(void *arg, const char *netns)
{
    struct control_downing *d = arg;
    struct trouble why = {{0}};
    char path[300];

    if (!netns_is_ours(netns)) {
        fprintf(stderr, "weft: namespace %s has our prefix and is not ours: it stays\n", netns);
        return;
    }
    netns_path(netns, path);
    proc_in_netns(path, d->owners);
    (void)proc_end_all(d->owners, 0);
    control_note(d, netns_del(netns, &why), &why);
}

static void control_down_pods(struct control_downing *d)
{
    d->owners->n = 0;
    (void)pod_each(d->mesh, control_on_owner, d);
    (void)proc_end_all(d->owners, RUN_GRACE_MS);
    (void)pod_each(d->mesh, control_on_pod, d);
    (void)netns_each(&d->mesh->plan, control_on_netns, d);
}

static void control_down_processes(struct control_downing *d)
{
    struct proc_id supervisor;
    struct trouble why = {{0}};

    if (mesh_supervisor(d->mesh, &supervisor)) {
        d->owners->at[0] = supervisor;
        d->owners->n = 1;
        (void)proc_end_all(d->owners, SUPERVISOR_GRACE_MS);
    }
    /* Whoever is left: workers whose supervisor was killed, or one whose pid file is gone. */
    proc_of_run_dir(d->mesh->run, d->owners);
    if (d->owners->n > 0 && proc_end_all(d->owners, 1000) != 0)
        control_note(d, trouble_set(&why, ERR_OF(OS), "%zu processes do not end", d->owners->n),
                     &why);
}

static err_t control_purge(const struct mesh *m, struct trouble *why)
{
    char path[FILES_PATH_MAX];

    files_path(path, "%s/.weft", m->state);
    if (!files_exists(m->state))
        return OK;
    if (!files_exists(path))
        return trouble_set(why, ERR_OF(NOT_OURS),
                           "%s is not removed: %s is not there, so it may hold "
                           "something else",
                           m->state, path);
    return files_remove_tree(m->state, why);
}

err_t control_down(const struct mesh *m, bool purge, struct trouble *why)
{
    struct control_downing d = {.mesh = m, .why = why};
    char path[FILES_PATH_MAX];
    struct trouble next = {{0}};
    bool is_recorded;

    d.owners = calloc(1, sizeof *d.owners);
    if (d.owners == NULL)
        return trouble_set(why, ERR_OF(NOMEM), "out of memory");
    control_down_pods(&d);
    control_down_processes(&d);
    files_path(path, "%s/mesh.json", m->run);
    is_recorded = files_exists(path);
    control_note(&d, netns_bridge_down(&m->plan, is_recorded, &next), &next);
    if (purge)
        control_note(&d, control_purge(m, &next), &next);
    if (is_recorded && d.first == OK)
        control_note(&d, files_remove_tree(m->run, &next), &next);
    free(d.owners);
    return d.first;
}
