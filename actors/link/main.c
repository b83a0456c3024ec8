/* weft-link: the pod's line to the control plane.
 *
 *   FOR       asks the broker for what the pod uses, keeps it current, answers the pod's
 * processes from it ANSWERS   link.sock: proxies (resolve, forget, applied, serving, listen),
 * tls (certify, listen, applied) HOLDS     the pod's view of the mesh, in memory and in
 * STATE_DIR/snapshot; its CURVE key NEEDS     the broker, for anything new; nothing for what is
 * known IF IT DIES proxies go on with the views they have; new targets wait for the restart
 * (milliseconds), which serves from the snapshot; proxies resend what they resolve IF SLOW new
 * targets and changes come late; no request waits for it otherwise
 */
#include "kit/clock.h"
#include "kit/log.h"
#include "link/creds.h"
#include "link/link.h"
#include "link/local.h"
#include "link/pod.h"
#include "link/session.h"
#include "link/snapshot.h"
#include "link/view.h"

#include <stdlib.h>

#define SAVE_TICK_MS 1000u

struct process {
    struct link link;
    struct timer save;
};

static void on_save(void *arg)
{
    snapshot_save(arg, false);
}

/* The topics every pod uses: they stay as long as the link. */
static err_t watch_permanent(struct link *l, slice_t topic)
{
    struct view *v = NULL;
    TRY(view_get(l, topic, &v));
    v->is_permanent = true;
    return OK;
}

static err_t start(struct actor *a)
{
    struct process *p = calloc(1, sizeof *p);
    if (p == NULL)
        return ERR_OF(NOMEM);
    struct link *l = &p->link;
    a->state = p;
    l->actor = a;
    l->base = a->base;
    l->set = &a->settings;
    TRY(pod_load(l));
    TRY(creds_load(l));
    err_t e = snapshot_load(l);
    if (e != OK)
        log_warn("snapshot not used", "error=%s", e->name);
    TRY(watch_permanent(l, SLICE_LIT("trust")));
    TRY(watch_permanent(l, slice_str(l->own_topic)));
    TRY(local_open(l));
    session_start(l);
    timer_init(&p->save, l->base, on_save, l);
    timer_every(&p->save, SAVE_TICK_MS);
    return OK;
}

static void confine(struct actor *a, struct confine_spec *out)
{
    out->needs = CONFINE_UNIX | CONFINE_TCP_CONNECT | CONFINE_FILES;
    out->write_paths[0] = a->settings.state_dir;
    out->write_paths[1] = a->settings.run_dir;
    out->max_files = 1024;
    out->max_memory = 1ull << 30;
}

static void drain(struct actor *a, uint64_t ms)
{
    struct process *p = a->state;
    session_drain(&p->link, ms);
}

static void stop(struct actor *a)
{
    struct process *p = a->state;
    if (p == NULL)
        return;
    timer_stop(&p->save);
    snapshot_save(&p->link, true);
    session_stop(&p->link);
    local_close(&p->link);
    view_free_all(&p->link);
    explicit_bzero(p->link.secret_key, sizeof p->link.secret_key);
    mailbox_shutdown();
    free(p);
    a->state = NULL;
}

int main(int argc, char **argv)
{
    static const struct actor_spec spec = {
        .name = "weft-link", .start = start, .confine = confine, .drain = drain, .stop = stop};
    return actor_run(&spec, argc, argv);
}
