/* weft-proxy: every connection of the application, and nothing else.
 *
 * FOR      The data plane of a pod: takes the connections that the kernel redirects (outbound:
 * of the application to others; inbound: of others to the application), finds out what they
 * speak, routes, balances, encrypts towards other pods, relays, counts. One loop, one thread;
 * WEFT_WORKERS of it may run. ANSWERS  Only its connections. It asks: weft-tls once per TLS
 * handshake, weft-retry once per failed attempt, weft-link once per unknown target; it tells
 * weft-telemetry once a second what changed. HOLDS    Sockets, traffic secrets of live
 * connections, the view of targets in use, counters (in shared memory made by the supervisor,
 * so that they outlive it). No key, no file. NEEDS    The listening sockets "outbound" and
 * "inbound" (inherited), TCP accept and connect, the pod's mailboxes. IF IT DIES  Its
 * connections end. New ones wait in the kernel's queue for the next generation (milliseconds);
 *          counters go on from where they were.
 * IF SLOW  Accepting is bounded per turn and in number; every queue has a limit and an answer
 * that says which. Others of the pod never wait for it.
 *
 * Where to read on: worker.h (rooms), front.h (an accepted connection),
 * exchange/exchange_priv.h (a request), docs/internals/life-of-a-request.md. */
#include "kit/actor.h"
#include "kit/log.h"
#include "model/name.h"
#include "proxy/limit/shared.h"
#include "proxy/record/record.h"
#include "proxy/worker.h"

#include <stdio.h>
#include <stdlib.h>

struct proxy {
    struct worker *worker;
    char tls[128], link[128], retry[128], telemetry[128];
    char identity[NAME_MAX_HOST + 1];
    char process[32];
};

static void on_drained(void *arg)
{
    actor_drained(arg);
}

/* Shown in the supervisor's table, and by weft check. */
static void on_app_waiting(void *arg, uint16_t port)
{
    if (port != 0)
        actor_note(arg, "app", "waiting:%u", port);
    else
        actor_note(arg, "app", "listens");
}

/* Without a service account (run by hand) there is no identity, and everything is plain text.
 */
static err_t make_identity(const struct settings *s, char out[NAME_MAX_HOST + 1])
{
    struct name_identity parts = {.service_account = slice_str(s->service_account),
                                  .namespace = slice_str(s->namespace),
                                  .control_namespace = slice_str(s->control_namespace),
                                  .trust_domain = slice_str(s->trust_domain)};

    if (s->service_account[0] != 0)
        return name_identity_make(&parts, out);
    out[0] = 0;
    return OK;
}

static uint64_t incarnation(void)
{
    const char *text = getenv("WEFT_INCARNATION");
    uint64_t n = 0;

    return slice_to_u64(slice_str(text), &n) ? n : 0;
}

/* 0 for one that was started by hand. */
static unsigned worker_index(const char *text)
{
    uint64_t n = 0;

    return slice_to_u64(slice_str(text), &n) && n < LIMIT_WORKERS_MAX ? (unsigned)n : 0;
}

static err_t proxy_start(struct actor *a)
{
    struct proxy *p = calloc(1, sizeof(*p));
    const char *index = getenv("WEFT_WORKER");
    struct worker_conf conf = {.base = a->base,
                               .settings = &a->settings,
                               .incarnation = incarnation(),
                               .series_fd = actor_fd(a, "series", 0),
                               .limits_fd = actor_fd(a, "limits", 0),
                               .index = worker_index(index),
                               .drained = on_drained,
                               .waiting = on_app_waiting,
                               .arg = a};

    if (p == NULL)
        return ERR_OF(NOMEM);
    a->state = p;
    TRY(make_identity(&a->settings, p->identity));
    TRY(actor_ipc(a, "tls", p->tls));
    TRY(actor_ipc(a, "link", p->link));
    TRY(actor_ipc(a, "retry", p->retry));
    TRY(actor_ipc(a, "telemetry", p->telemetry));
    (void)snprintf(p->process, sizeof(p->process), "weft-proxy-%.8s",
                   index != NULL ? index : "0");
    conf.identity = p->identity;
    conf.process = p->process;
    conf.tls = p->tls;
    conf.link = p->link;
    conf.retry = p->retry;
    conf.telemetry = p->telemetry;
    if (p->identity[0] != '\0')
        TRY(record_start());
    TRY(worker_new(&conf, &p->worker));
    log_info("proxy made", "identity=%s outbound=%s inbound=%s",
             p->identity[0] != 0 ? p->identity : "(none)", a->settings.outbound_only_for,
             a->settings.inbound_only_for);
    return OK;
}

static void proxy_confine(struct actor *a, struct confine_spec *out)
{
    (void)a;
    out->needs = CONFINE_TCP_ACCEPT | CONFINE_TCP_CONNECT | CONFINE_UNIX;
}

static err_t listen_on(struct actor *a, const char *name, enum direction direction, unsigned *n)
{
    struct proxy *p = a->state;

    for (unsigned i = 0; i < 4; i++) {
        int fd = actor_fd(a, name, i);

        if (fd < 0)
            return OK;
        TRY(worker_listen(p->worker, fd, direction));
        (*n)++;
    }
    return OK;
}

static err_t proxy_confined(struct actor *a)
{
    unsigned n = 0;

    TRY(listen_on(a, "outbound", DIRECTION_OUTBOUND, &n));
    TRY(listen_on(a, "inbound", DIRECTION_INBOUND, &n));
    if (n == 0) {
        log_error("no listening socket was handed down", "expected=%s",
                  "WEFT_FDS=outbound=N,inbound=N");
        return ERR_OF(BAD_SETTING);
    }
    actor_ready(a);
    return OK;
}

static void proxy_drain(struct actor *a, uint64_t ms)
{
    struct proxy *p = a->state;

    worker_drain(p->worker, ms);
}

static void proxy_stop(struct actor *a)
{
    struct proxy *p = a->state;

    if (p == NULL)
        return;
    worker_free(&p->worker);
    free(p);
    a->state = NULL;
}

static const struct actor_spec spec = {
    .name = "weft-proxy",
    .start = proxy_start,
    .confine = proxy_confine,
    .confined = proxy_confined,
    .drain = proxy_drain,
    .stop = proxy_stop,
};

int main(int argc, char **argv)
{
    return actor_run(&spec, argc, argv);
}
