/* weft-telemetry: the pod's numbers for everybody who asks: /metrics, /ready, /live, and the
 * feed.
 *
 * ANSWERS   telemetry.sock: series, event, state from the pod's other processes.
 *           admin port: GET /live, /ready, /metrics.
 *           the feed (to settings.collector): metrics and events that somebody has subscribed
 *           to.
 * HOLDS     the last cumulative value of every series, states, the process table, events nobody
 *           heard yet.
 * NEEDS     its mailbox, the inherited admin listeners, one TCP connection to the collector,
 *           STATE_DIR to read link.key, /proc to read the memory and CPU time of the pod's
 *           processes. Writes no file.
 * IF IT DIES  nothing is lost: on its return every process sends its cumulative values again.
 *           Events that waited for a subscriber are gone.
 * IF SLOW   its peers' queues fill up and they send later: values are cumulative. No request
 *           waits for it.
 */
#include "telemetry/admin.h"
#include "telemetry/book.h"
#include "telemetry/feed.h"
#include "telemetry/metrics.h"
#include "telemetry/status.h"
#include "telemetry/usage.h"

#include "kit/actor.h"
#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "kit/timer.h"
#include "wire/dispatch.h"

#include <inttypes.h>
#include <stdlib.h>

#define SERIES_MAX  8192u
#define TICK_MS     1000u
#define USAGE_TICKS 5u /* /proc is read every so many ticks */
#define FILES_MAX   256u
#define LAST_MS     150u /* for the last numbers to leave the process */

struct telemetry {
    struct actor *actor;
    struct mailbox *in;
    struct wire_desk desk;
    struct book *book;
    struct status status;
    struct feed *feed;
    struct admin *admin;
    struct metrics_own own;
    struct metrics_source source;
    struct timer tick, drained;
    unsigned ticks;
};

/* ---- the others' messages ---- */

static void answer_series(void *arg, const struct wire_call *call)
{
    struct telemetry *t = arg;
    const struct wire_series *msg = &call->msg->body.series;
    bool is_stranger;

    book_take(t->book, msg, clock_now_ms(), &is_stranger);
    if (is_stranger) { /* we were started after it: it believes that we know the rest */
        struct wire_series_all all = {.since_ms = t->own.start_wall_ms};
        err_t err = WIRE_SEND(t->in, call->mail->from, series_all, &all);

        log_debug("all series asked for", "process=%.*s result=%s", SLICE_FMT(msg->process),
                  err == OK ? "OK" : err->name);
    }
}

static void answer_event(void *arg, const struct wire_call *call)
{
    struct telemetry *t = arg;

    feed_event(t->feed, &call->msg->body.event);
}

static void answer_state(void *arg, const struct wire_call *call)
{
    struct telemetry *t = arg;

    status_take_state(&t->status, &call->msg->body.state);
}

static const struct wire_permit permits[] = {
    {WIRE_series, answer_series, false},
    {WIRE_event, answer_event, false},
    {WIRE_state, answer_state, false},
};

static void on_msg(void *arg, const struct mailbox_msg *m)
{
    struct telemetry *t = arg;

    if (wire_dispatch(&t->desk, m, NULL, t) != OK)
        return; /* counted and logged by the desk */
}

/* A process that came back is news for operators; the supervisor's line is how it gets known. */
static void on_line(struct actor *a, slice_t line)
{
    struct telemetry *t = a->state;
    bool has_restarted;
    const char *name = "";

    if (!status_take_line(&t->status, line, "weft-telemetry", &has_restarted, &name)) {
        log_warn("lifeline line not understood", "bytes=%zu", line.n);
        return;
    }
    if (has_restarted)
        feed_event(t->feed, &(struct wire_event){.at_ms = (int64_t)clock_wall_ms(),
                                                 .kind = SLICE_LIT("PROCESS_RESTARTED"),
                                                 .object = slice_str(name),
                                                 .message = line});
}

/* ---- once a second ---- */

static void refresh_own(void *arg)
{
    struct telemetry *t = arg;
    struct feed_counters feed;

    feed_count(t->feed, &feed);
    t->own.feed_sent = feed.sent;
    t->own.events_dropped = feed.events_dropped;
    t->own.feed_is_up = feed.is_up;
    t->own.messages_refused = wire_desk_refused(&t->desk);
}

static void on_tick(void *arg)
{
    struct telemetry *t = arg;

    if (t->ticks++ % USAGE_TICKS == 0)
        usage_read(&t->status);
    feed_tick(t->feed);
}

/* ---- life ---- */

static const char *first_of(const char *a, const char *b, const char *c)
{
    return a[0] != '\0' ? a : b[0] != '\0' ? b : c[0] != '\0' ? c : "-";
}

static err_t make_feed(struct telemetry *t)
{
    const struct settings *s = &t->actor->settings;
    struct feed_conf conf = {
        .base = t->actor->base,
        .collector = s->collector,
        .server_key = s->broker_key,
        .state_dir = s->state_dir,
        .who = {.ns = s->namespace,
                .pod = first_of(s->pod, "", ""),
                .workload = first_of(s->workload, s->service_account, s->pod),
                .service_account = s->service_account,
                .serves = s->serves},
        .book = t->book,
        .status = &t->status};

    (void)slice_to_u64(slice_str(getenv("WEFT_INCARNATION")), &conf.who.incarnation);
    return feed_new(&conf, &t->feed);
}

static err_t make_admin(struct telemetry *t)
{
    t->source = (struct metrics_source){.book = t->book, .status = &t->status, .own = &t->own};
    TRY(admin_new(t->actor->base, &t->source, refresh_own, t, &t->admin));
    for (unsigned i = 0; actor_fd(t->actor, "admin", i) >= 0; i++)
        TRY(admin_listen(t->admin, actor_fd(t->actor, "admin", i)));
    return OK;
}

static err_t open_mailbox(struct telemetry *t)
{
    char endpoint[128];

    TRY(actor_ipc(t->actor, "telemetry", endpoint));
    return mailbox_open(t->actor->base,
                        &(struct mailbox_conf){.kind = MAILBOX_ROUTER,
                                               .name = "telemetry",
                                               .endpoint = endpoint,
                                               .bind = true,
                                               .allow = mailbox_allow_same_uid,
                                               .on_msg = on_msg,
                                               .arg = t},
                        &t->in);
}

static void on_drained(void *arg)
{
    actor_drained(arg);
}

static err_t start(struct actor *a)
{
    struct telemetry *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return ERR_OF(NOMEM);
    a->state = t;
    t->actor = a;
    t->own.start_wall_ms = (int64_t)clock_wall_ms();
    t->desk = (struct wire_desk){.name = "telemetry",
                                 .me = WIRE_ROLE_TELEMETRY,
                                 .from = WIRE_ROLE_ANY,
                                 .permits = permits,
                                 .n_permits = sizeof(permits) / sizeof(permits[0])};
    TRY(book_new(SERIES_MAX, &t->book));
    TRY(make_feed(t));
    TRY(make_admin(t));
    TRY(open_mailbox(t));
    timer_init(&t->drained, a->base, on_drained, a);
    timer_init(&t->tick, a->base, on_tick, t);
    timer_every(&t->tick, TICK_MS);
    return OK;
}

/* A collector given by name needs a resolver; one given by address does not. */
static bool is_address(const char *host)
{
    return host[0] == '\0' || host[0] == '[' || (host[0] >= '0' && host[0] <= '9');
}

static void confine(struct actor *a, struct confine_spec *out)
{
    out->needs = CONFINE_UNIX | CONFINE_TCP_ACCEPT | CONFINE_FILES;
    if (a->settings.collector[0] != '\0')
        out->needs |= CONFINE_TCP_CONNECT;
    if (!is_address(a->settings.collector))
        out->needs |= CONFINE_NAMES;
    out->read_paths[0] = "/proc";
    if (a->settings.collector[0] != '\0')
        out->read_paths[1] = a->settings.state_dir;
    out->max_files = FILES_MAX;
}

static void drain(struct actor *a, uint64_t ms)
{
    struct telemetry *t = a->state;

    feed_tick(t->feed); /* the last numbers of the pod's life */
    timer_once(&t->drained, ms < LAST_MS ? ms : LAST_MS);
}

static void stop(struct actor *a)
{
    struct telemetry *t = a->state;

    if (t == NULL)
        return;
    timer_stop(&t->tick);
    timer_stop(&t->drained);
    log_info("telemetry ends", "messages=%" PRIu64 " refused=%" PRIu64, t->desk.accepted,
             wire_desk_refused(&t->desk));
    mailbox_close(&t->in);
    admin_free(&t->admin);
    feed_free(&t->feed);
    book_free(&t->book);
    free(t);
    a->state = NULL;
}

int main(int argc, char **argv)
{
    static const struct actor_spec spec = {.name = "weft-telemetry",
                                           .page = "metrics, readiness and the feed of a pod",
                                           .start = start,
                                           .confine = confine,
                                           .drain = drain,
                                           .line = on_line,
                                           .stop = stop};

    return actor_run(&spec, argc, argv);
}
