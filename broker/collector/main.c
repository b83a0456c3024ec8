/* weft-collector: takes all pods' feeds, forwards them to subscribers, writes rollups.
 *
 * ANSWERS   tcp PODS_PORT (XSUB): frames of pods, admitted by their link's key. A frame whose
 *           topic or body speaks for another pod than the key's owner is dropped and counted.
 *           tcp FEED_PORT (XPUB): subscribers, admitted by a key that `weft feed-key` made.
 *           Their subscriptions travel to the pods, frames come back unchanged.
 * HOLDS     last cumulative values and waiting sums (ledger.h), in memory and in
 *           STATE/collector/telemetry.db, which it alone writes, every 2 s.
 * NEEDS     STATE/broker/curve.key (its server key pair), STATE/broker/mesh.db to read (whose
 *           key is it), STATE/collector to write, its two TCP ports. Starts nothing, connects
 *           nowhere.
 * IF IT DIES  pods go on and keep cumulative values: what happened meanwhile is in the first
 *           difference after its return. Subscribers reconnect by themselves.
 * IF SLOW   pods' frames are dropped at its queues, which the next cumulative value makes good;
 *           subscribers that are slow lose frames (they see it in `seq`) and slow nobody.
 */
#include "broker/collector/ledger.h"
#include "broker/collector/owners.h"
#include "broker/collector/parse.h"

#include "kit/actor.h"
#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "kit/timer.h"
#include "store/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FLUSH_MS 2000u
#define TRIM_FLUSHES                                                                           \
    15u /* trimming begins every so many flushes, and goes on while there is more */
#define TRIM_ROWS     2000u
#define NOTE_FLUSHES  5u
#define SERIES_MAX    1000000u
#define PREFIX_MAX    1024u
#define PREFIXES_MAX  4096u
#define FORGET_MS     86400000
#define FEED_HWM      10000u
#define PROCESSES_MAX 8u

struct collector {
    struct actor *actor;
    struct telemetry *db;
    struct keys *keys; /* NULL until the broker has made its database */
    struct owners *owners;
    struct ledger *ledger;
    struct mailbox *pods, *feed;
    struct timer flush, wait;
    char broker_dir[512], collector_dir[512]; /* named by the confinement */
    unsigned flushes;
    bool has_more_to_trim;
    size_t prefixes; /* subscribed by somebody else than us */
    struct {
        uint64_t frames, foreign, malformed, prefixes_refused;
    } count;
    bool was_failing;
    struct {
        char name[33];
        uint64_t restarts;
    } processes[PROCESSES_MAX]; /* of the control plane, as the supervisor tells */
    unsigned n_processes;
};

/* ---- pods' frames ---- */

static bool is_of_sender(const struct collector *c, const struct mailbox_msg *m, slice_t ns,
                         slice_t pod)
{
    return owners_is_pod(c->owners, m->user, ns, pod);
}

/* To whom it may concern; what a slow subscriber loses is its own affair. */
static void forward(struct collector *c, const struct mailbox_msg *m)
{
    err_t err = mailbox_send(c->feed, m->topic, m->body);

    if (err != OK)
        log_debug("frame not forwarded", "reason=%s", err->name);
}

/* metrics/NS/WORKLOAD/POD. The body has to say the same. */
static err_t take_metrics(struct collector *c, const struct mailbox_msg *m)
{
    struct feed_metrics metrics;
    slice_t topic[4];

    if (!parse_topic(m->topic, topic, 4) || !is_of_sender(c, m, topic[1], topic[3]))
        return ERR_OF(NOT_ALLOWED);
    TRY(parse_metrics(m->body, &metrics));
    if (!slice_is(metrics.ns, topic[1]) || !slice_is(metrics.pod, topic[3]))
        return ERR_OF(NOT_ALLOWED);
    forward(c, m);
    return ledger_take(c->ledger, &metrics, (int64_t)clock_wall_ms());
}

/* event/KIND/NS/POD */
static err_t take_event(struct collector *c, const struct mailbox_msg *m)
{
    struct feed_event event;
    slice_t topic[4];

    if (!parse_topic(m->topic, topic, 4) || !is_of_sender(c, m, topic[2], topic[3]))
        return ERR_OF(NOT_ALLOWED);
    TRY(parse_event(m->body, &event));
    if (!slice_is(event.ns, topic[2]) || !slice_is(event.pod, topic[3]) ||
        !slice_is(event.kind, topic[1]))
        return ERR_OF(NOT_ALLOWED);
    forward(c, m);
    ledger_event(c->ledger, &event, (int64_t)clock_wall_ms());
    return OK;
}

/* request/NS/WORKLOAD/POD: for subscribers only. */
static err_t take_request(struct collector *c, const struct mailbox_msg *m)
{
    slice_t topic[4];

    if (!parse_topic(m->topic, topic, 4) || !is_of_sender(c, m, topic[1], topic[3]))
        return ERR_OF(NOT_ALLOWED);
    forward(c, m);
    return OK;
}

static void on_frame(void *arg, const struct mailbox_msg *m)
{
    struct collector *c = arg;
    err_t err = ERR_OF(MALFORMED);

    c->count.frames++;
    if (slice_starts(m->topic, SLICE_LIT("metrics/")))
        err = take_metrics(c, m);
    else if (slice_starts(m->topic, SLICE_LIT("event/")))
        err = take_event(c, m);
    else if (slice_starts(m->topic, SLICE_LIT("request/")))
        err = take_request(c, m);
    if (err == OK)
        return;
    if (err == ERR_OF(NOT_ALLOWED))
        c->count.foreign++;
    else
        c->count.malformed++;
    log_warn("frame dropped", "reason=%s topic=\"%.*s\" bytes=%zu from=%.8s", err->name,
             (int)(m->topic.n < 80 ? m->topic.n : 80), (const char *)m->topic.p, m->body.n,
             m->user);
}

/* ---- subscriptions ---- */

static bool prefix_is_useful(slice_t prefix)
{
    static const char *const kinds[] = {"metrics/", "event/", "request/"};

    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (slice_starts(prefix, slice_str(kinds[i])) ||
            slice_starts(slice_str(kinds[i]), prefix))
            return true;
    return false;
}

static void on_subscription(void *arg, const struct mailbox_msg *m)
{
    struct collector *c = arg;
    slice_t prefix = slice_skip(m->body, 1);
    bool is_start;

    if (m->body.n == 0 || m->body.p[0] > 1)
        return;
    is_start = m->body.p[0] == 1;
    if (prefix.n > PREFIX_MAX || !prefix_is_useful(prefix) ||
        (is_start && c->prefixes >= PREFIXES_MAX)) {
        c->count.prefixes_refused++;
        return; /* never forwarded: nothing will come of it */
    }
    if (is_start)
        c->prefixes++;
    else if (c->prefixes > 0)
        c->prefixes--;
    if (mailbox_send(c->pods, (slice_t){0}, m->body) != OK)
        log_warn("subscription not forwarded", "bytes=%zu", m->body.n);
}

static err_t subscribe_ourselves(struct collector *c)
{
    TRY(mailbox_send(c->pods, (slice_t){0}, SLICE_LIT("\1metrics/")));
    return mailbox_send(c->pods, (slice_t){0}, SLICE_LIT("\1event/"));
}

/* ---- sockets ---- */

/* curve.key: two lines, public and secret key in Z85; mode 0600, ours. */
static bool read_curve_key(const char *state_dir, char secret[MAILBOX_KEY_TEXT])
{
    char path[512], text[128];
    char derived[MAILBOX_KEY_TEXT];
    struct stat st;
    ssize_t n = -1;
    int fd;
    bool is_good;

    if (snprintf(path, sizeof(path), "%s/broker/curve.key", state_dir) >= (int)sizeof(path))
        return false;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false; /* not made yet */
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077) == 0)
        n = read(fd, text, sizeof(text));
    (void)close(fd);
    is_good = n >= 81 && text[40] == '\n' && slice_to_cstr(slice(text + 41, 40), secret, 41) &&
              mailbox_public_of(secret, derived) == OK && memcmp(derived, text, 40) == 0;
    explicit_bzero(text, sizeof(text));
    if (!is_good)
        log_error("curve.key not usable", "path=%s bytes=%zd", path, n);
    return is_good;
}

static bool allow_pod(void *arg, const struct mailbox_peer *peer, char user[64])
{
    struct collector *c = arg;

    return owners_allow_pod(c->owners, peer, user);
}

static bool allow_subscriber(void *arg, const struct mailbox_peer *peer, char user[64])
{
    struct collector *c = arg;

    return owners_allow_subscriber(c->owners, peer, user);
}

static err_t open_one(struct collector *c, enum mailbox_kind kind, const char *name,
                      uint32_t port, const char *secret, mailbox_allow_fn *allow,
                      void (*on_msg)(void *, const struct mailbox_msg *), struct mailbox **out)
{
    const char *host = c->actor->settings.listen_address;
    bool has_brackets = strchr(host, ':') != NULL && host[0] != '[';
    char endpoint[300];

    if (snprintf(endpoint, sizeof(endpoint), "tcp://%s%s%s:%" PRIu32, has_brackets ? "[" : "",
                 host, has_brackets ? "]" : "", port) >= (int)sizeof(endpoint))
        return ERR_OF(BAD_SETTING);
    return mailbox_open(c->actor->base,
                        &(struct mailbox_conf){.kind = kind,
                                               .name = name,
                                               .endpoint = endpoint,
                                               .bind = true,
                                               .hwm = FEED_HWM,
                                               .secret_key = secret,
                                               .allow = allow,
                                               .on_msg = on_msg,
                                               .arg = c},
                        out);
}

static err_t open_sockets(struct collector *c, const char *secret)
{
    const struct settings *s = &c->actor->settings;

    TRY(open_one(c, MAILBOX_XPUB, "feed", s->feed_port, secret, allow_subscriber,
                 on_subscription, &c->feed));
    TRY(open_one(c, MAILBOX_XSUB, "pods", s->pods_port, secret, allow_pod, on_frame, &c->pods));
    return subscribe_ourselves(c);
}

static bool find_key(void *arg, const char *public_key, struct key_owner *out)
{
    struct collector *c = arg;

    return c->keys != NULL && keys_find(c->keys, public_key, out);
}

/* Serves as soon as the broker has made its key and its database, which may be after we were
 * started. */
static void on_wait(void *arg)
{
    struct collector *c = arg;
    const char *state_dir = c->actor->settings.state_dir;
    char secret[MAILBOX_KEY_TEXT];
    err_t err;

    if (c->keys == NULL && keys_open(state_dir, &c->keys) != OK)
        return;
    if (!read_curve_key(state_dir, secret))
        return;
    err = open_sockets(c, secret);
    explicit_bzero(secret, sizeof(secret));
    if (err != OK) {
        log_error("sockets not opened", "reason=%s", err->name);
        actor_fail(c->actor, 1); /* the supervisor tries again, with its own patience */
        return;
    }
    timer_stop(&c->wait);
    log_info("collector serves", "feed=%s pods=%s", mailbox_endpoint(c->feed),
             mailbox_endpoint(c->pods));
    actor_ready(c->actor);
}

/* ---- every 2 s ---- */

static void trim(struct collector *c)
{
    const struct settings *s = &c->actor->settings;
    const struct telemetry_keep keep = {.rollup_10s_ms = s->rollup_10s_keep,
                                        .rollup_1m_ms = s->rollup_1m_keep,
                                        .rollup_1h_ms = s->rollup_1h_keep};
    int64_t now_ms = (int64_t)clock_wall_ms();
    err_t err;

    if (!c->has_more_to_trim && c->flushes % TRIM_FLUSHES != 0)
        return;
    err = telemetry_trim(c->db, now_ms, &keep, TRIM_ROWS, &c->has_more_to_trim);
    if (err != OK)
        log_warn("rollups not trimmed", "reason=%s", err->name);
    if (!c->has_more_to_trim) {
        ledger_forget(c->ledger, now_ms - FORGET_MS);
        telemetry_checkpoint(c->db);
    }
}

static void note(struct collector *c)
{
    struct ledger_counters l;

    ledger_count(c->ledger, &l);
    actor_note(c->actor, "feed",
               "pods=%zu series=%zu frames=%" PRIu64 " foreign=%" PRIu64 " malformed=%" PRIu64
               " subscriptions=%zu",
               l.pods, l.known_series, c->count.frames, c->count.foreign, c->count.malformed,
               c->prefixes);
    actor_note(c->actor, "rollups",
               "flushes=%" PRIu64 " failed=%" PRIu64 " resets=%" PRIu64 " stale=%" PRIu64
               " no_room=%" PRIu64 " events=%" PRIu64 " events_dropped=%" PRIu64,
               l.flushes, l.failed_flushes, l.resets, l.stale, l.no_room, l.events,
               l.events_dropped);
}

static void on_flush(void *arg)
{
    struct collector *c = arg;
    err_t err = ledger_flush(c->ledger);
    bool is_failing = err != OK;

    if (is_failing)
        log_error("rollups not written", "reason=%s kept=\"in memory, tried again\"",
                  err->name);
    else if (c->was_failing)
        log_info("rollups written again", "%s", "");
    c->was_failing = is_failing;
    c->flushes++;
    trim(c);
    if (c->flushes % NOTE_FLUSHES == 0)
        note(c);
}

/* ---- the control plane's own processes ---- */

static slice_t word_next(slice_t *rest)
{
    slice_t word = *rest;
    const uint8_t *space = word.n != 0 ? memchr(word.p, ' ', word.n) : NULL;

    if (space != NULL)
        word.n = (size_t)(space - word.p);
    *rest = slice_skip(*rest, word.n + 1);
    return word;
}

/* Notes the number; true when a process that was known has been started again. */
static bool note_restarts(struct collector *c, slice_t name, uint64_t restarts)
{
    for (unsigned i = 0; i < c->n_processes; i++)
        if (slice_is_str(name, c->processes[i].name)) {
            bool is_more = restarts > c->processes[i].restarts;

            c->processes[i].restarts = restarts;
            return is_more;
        }
    if (c->n_processes < PROCESSES_MAX &&
        slice_to_cstr(name, c->processes[c->n_processes].name, sizeof(c->processes[0].name)))
        c->processes[c->n_processes++].restarts = restarts;
    /* The first line about ourselves tells of our own restart. */
    return restarts > 0 && slice_is_str(name, "weft-collector");
}

/* "process NAME PID RESTARTS STATE" */
static void on_line(struct actor *a, slice_t line)
{
    struct collector *c = a->state;
    slice_t rest = line, verb = word_next(&rest), name = word_next(&rest);
    slice_t pid = word_next(&rest), number = word_next(&rest);
    uint64_t restarts;
    int64_t now_ms = (int64_t)clock_wall_ms();

    if (!slice_is_str(verb, "process") || pid.n == 0 || !slice_to_u64(number, &restarts)) {
        log_warn("lifeline line not understood", "bytes=%zu", line.n);
        return;
    }
    if (note_restarts(c, name, restarts))
        ledger_event(c->ledger,
                     &(struct feed_event){.ns = slice_str(a->settings.control_namespace),
                                          .pod = SLICE_LIT("control"),
                                          .kind = SLICE_LIT("PROCESS_RESTARTED"),
                                          .object = name,
                                          .message = line,
                                          .at_ms = now_ms},
                     now_ms);
}

/* ---- life ---- */

/* Confinement names directories, and they have to be there by then. */
static err_t make_dir(const char *state_dir, const char *name, char *out, size_t cap)
{
    if (snprintf(out, cap, "%s/%s", state_dir, name) >= (int)cap)
        return ERR_OF(BAD_SETTING);
    if (mkdir(out, 0700) == 0 || errno == EEXIST)
        return OK;
    log_error("directory not made", "path=%s errno=%d", out, errno);
    return ERR_OF(OS);
}

static err_t start(struct actor *a)
{
    struct collector *c = calloc(1, sizeof(*c));
    bool was_fresh;

    if (c == NULL)
        return ERR_OF(NOMEM);
    a->state = c;
    c->actor = a;
    TRY(make_dir(a->settings.state_dir, "broker", c->broker_dir, sizeof(c->broker_dir)));
    TRY(make_dir(a->settings.state_dir, "collector", c->collector_dir,
                 sizeof(c->collector_dir)));
    TRY(telemetry_open(a->settings.state_dir, &c->db, &was_fresh));
    TRY(ledger_new(c->db, SERIES_MAX, &c->ledger));
    TRY(owners_new(find_key, c, &c->owners));
    if (keys_open(a->settings.state_dir, &c->keys) != OK)
        log_info("waiting for the broker", "%s", "its database is not there yet");
    timer_init(&c->flush, a->base, on_flush, c);
    timer_every(&c->flush, FLUSH_MS);
    timer_init(&c->wait, a->base, on_wait, c);
    timer_every(&c->wait, 200);
    return OK;
}

static void confine(struct actor *a, struct confine_spec *out)
{
    const struct collector *c = a->state;

    out->needs = CONFINE_TCP_BIND | CONFINE_FILES;
    out->write_paths[0] = c->collector_dir;
    out->write_paths[1] = c->broker_dir; /* the shared index of mesh.db's log */
}

static err_t confined(struct actor *a)
{
    on_wait(a->state);
    return OK;
}

static void stop(struct actor *a)
{
    struct collector *c = a->state;

    if (c == NULL)
        return;
    timer_stop(&c->flush);
    timer_stop(&c->wait);
    mailbox_close(&c->pods);
    mailbox_close(&c->feed);
    if (ledger_flush(c->ledger) != OK)
        log_warn("last rollups not written", "%s",
                 "the next start counts them by the difference");
    ledger_free(&c->ledger);
    owners_free(&c->owners);
    keys_close(&c->keys);
    telemetry_close(&c->db);
    free(c);
    a->state = NULL;
}

int main(int argc, char **argv)
{
    static const struct actor_spec spec = {
        .name = "weft-collector",
        .page = "takes the pods' feeds, forwards them, writes rollups",
        .start = start,
        .confine = confine,
        .confined = confined,
        .line = on_line,
        .stop = stop};

    return actor_run(&spec, argc, argv);
}
