/* The session with the broker.
 *
 *   DOWN --connected--> HELLO --welcome--> SYNC --every watched topic answered--> LIVE
 *    ^                    |                  |                                      |
 *    '---- connection lost, refused, key to be changed, silence of the broker ------'
 *
 *   DOWN   no connection; the mailboxes try by themselves (100 ms to 5 s). A link that has not
 * joined yet tries the token's key and its own in turns, since a refused key looks like an
 * absent broker HELLO  hello is sent; it is repeated after a pause that grows to 30 s with
 * jitter when it is refused SYNC   epoch and lease are known; watch was sent with the revisions
 * held LIVE   what is held is what the broker has, as far as hints and digests tell enter() is
 * the one function that changes the state. In every state local processes are answered from
 * what is held; is_stale tells them if it was not heard in this session.
 */
#include "link/session.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/random.h"
#include "link/creds.h"
#include "link/snapshot.h"
#include "link/view.h"
#include "wire/dispatch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIVE_MS        2000u
#define TICK_MS         200u
#define CALM_TICK_MS    1000u /* while the session is live and nobody waits for anything */
#define CONNECT_MS      4000u /* before another key is tried */
#define WELCOME_MS      3000u
#define PAUSE_MIN_MS    500u
#define PAUSE_MAX_MS    30000u
#define FETCH_AGAIN_MS  1000u
#define SILENCE_DIGESTS 5u /* digests missing in a row: the feed is opened anew */
#define SIGN_MS         20000u
#define SIGN_HOLD_MS    6000u /* below weft-tls's own patience */
#define BYE_MS          150u /* for serving{false} and bye to leave the process */
#define SKEW_MS         30000
#define WATCH_LIST      256u /* as wire: watch.topics */

static const slice_t nobody = {NULL, 0};

const char *session_state_name(enum link_state s)
{
    static const char *const names[] = {"down", "hello", "sync", "live"};
    return names[s];
}

void session_tell_state(struct link *l)
{
    const struct wire_state out = {.key = SLICE_LIT("broker"),
                                   .is_good = l->state == LINK_LIVE,
                                   .text = slice_str(session_state_name(l->state)),
                                   .value = (int64_t)l->mesh_revision};
    /* Ready is also who can go on without the broker. */
    const struct wire_state held = {.key = SLICE_LIT("snapshot"),
                                    .is_good = l->bytes > 0,
                                    .text = l->bytes > 0 ? SLICE_LIT("the last view is held")
                                                         : SLICE_LIT("nothing is held")};
    LINK_TELL(l->telemetry, nobody, state, &out);
    LINK_TELL(l->telemetry, nobody, state, &held);
    actor_note(l->actor, "broker", "%s", session_state_name(l->state));
}

static void enter(struct link *l, enum link_state next)
{
    if (l->state == next)
        return;
    log_info("session", "state=%s before=%s epoch=%016" PRIx64 " revision=%" PRIu64,
             session_state_name(next), session_state_name(l->state), l->epoch,
             l->mesh_revision);
    l->state = next;
    l->state_since_ms = clock_now_ms();
    if (next <= LINK_HELLO) {
        struct view *v, *after;
        l->was_acked = false;
        HASH_ITER(hh, l->views, v, after)
        v->is_watched = false;
    }
    session_hurry(l);
    session_tell_state(l);
}

/* ---- connections ---- */

static void close_both(struct link *l)
{
    if (l->broker != NULL)
        mailbox_close(&l->broker);
    if (l->updates != NULL)
        mailbox_close(&l->updates);
}

static void send_held(struct link *l);
static void say_learned(struct link *l, const struct spoken_port *p);
static void on_broker(void *arg, const struct mailbox_msg *m);
static void on_update(void *arg, const struct mailbox_msg *m);
static void on_broker_link(void *arg, bool is_up);

static err_t open_updates(struct link *l, const struct creds_pair *pair)
{
    char endpoint[160];
    (void)snprintf(endpoint, sizeof endpoint, "tcp://%s", l->set->broker_updates);
    const struct mailbox_conf conf = {.kind = MAILBOX_SUB,
                                      .name = "updates",
                                      .endpoint = endpoint,
                                      .secret_key = pair->secret_key,
                                      .public_key = pair->public_key,
                                      .server_key = l->set->broker_key,
                                      .on_msg = on_update,
                                      .arg = l};
    TRY(mailbox_open(l->base, &conf, &l->updates));
    TRY(mailbox_subscribe(l->updates, SLICE_LIT("digest")));
    struct view *v, *next;
    HASH_ITER(hh, l->views, v, next)
    TRY(mailbox_subscribe(l->updates, slice_str(v->topic)));
    return OK;
}

static err_t open_both(struct link *l)
{
    char endpoint[160];
    struct creds_pair pair;
    creds_choose(l, l->failures, &pair);
    l->is_by_token = pair.is_token;
    (void)snprintf(endpoint, sizeof endpoint, "tcp://%s", l->set->broker);
    const struct mailbox_conf conf = {.kind = MAILBOX_DEALER,
                                      .name = "broker",
                                      .endpoint = endpoint,
                                      .secret_key = pair.secret_key,
                                      .public_key = pair.public_key,
                                      .server_key = l->set->broker_key,
                                      .on_msg = on_broker,
                                      .on_link = on_broker_link,
                                      .arg = l};
    err_t e = mailbox_open(l->base, &conf, &l->broker);
    if (e == OK && !pair.is_token)
        e = open_updates(l, &pair);
    explicit_bzero(&pair, sizeof pair);
    if (e != OK)
        close_both(l);
    return e;
}

/* Down, and anew after a pause (0: with the next tick). */
static void begin_again(struct link *l, uint64_t pause_ms)
{
    close_both(l);
    enter(l, LINK_DOWN);
    l->state_since_ms = clock_now_ms();
    l->next_try_ms = clock_now_ms() + pause_ms;
    l->count.reconnects++;
}

static uint64_t pause_of(unsigned failures)
{
    uint64_t ms = PAUSE_MIN_MS << (failures < 6 ? failures : 6);
    ms = ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS;
    return ms / 2 + (uint64_t)((double)(ms / 2) * random_unit());
}

static void connect_now(struct link *l)
{
    err_t e = open_both(l);
    l->state_since_ms = clock_now_ms();
    if (e == OK)
        return;
    log_error("broker not reachable", "broker=%s error=%s", l->set->broker, e->name);
    l->failures++;
    l->next_try_ms = clock_now_ms() + pause_of(l->failures);
}

/* ---- asking ---- */

static void say_hello(struct link *l)
{
    const struct wire_hello hello = {.id = l->hello_id = ++l->next_id,
                                     .version = slice_str(l->version),
                                     .namespace = slice_str(l->set->namespace),
                                     .pod = slice_str(l->set->pod),
                                     .workload = slice_str(l->set->workload),
                                     .service_account = slice_str(l->set->service_account),
                                     .zone = slice_str(l->set->zone),
                                     .incarnation = l->incarnation,
                                     .link_key = slice_str(l->public_key),
                                     .n_addresses = l->n_addresses,
                                     .addresses = l->addresses,
                                     .inbound_port = (uint16_t)l->set->inbound_port,
                                     .n_serves = l->n_serves,
                                     .serves = l->serves,
                                     .is_serving = l->is_serving && !l->is_draining,
                                     .wall_ms = (int64_t)clock_wall_ms(),
                                     .processes = 5,
                                     .app_version = slice_str(l->set->app_version),
                                     .weight = (uint32_t)l->set->weight};
    err_t e = LINK_SEND(l->broker, nobody, hello, &hello);
    l->said_serving = hello.is_serving;
    if (e != OK)
        log_warn("hello not sent", "error=%s", e->name);
    l->next_try_ms = clock_now_ms() + WELCOME_MS;
}

/* Tells the broker what has changed since it was told last: before the welcome nothing, the welcome
 * comes here again (a hello that is on its way says what was true when it was sent). */
static void say_serving(struct link *l)
{
    const struct wire_serving out = {.is_serving = l->is_serving && !l->is_draining};
    if (l->state < LINK_SYNC || out.is_serving == l->said_serving)
        return;
    l->said_serving = out.is_serving;
    LINK_TELL(l->broker, nobody, serving, &out);
}

/* One message of at most WATCH_LIST topics of the wanted sort. */
static void send_watches(struct link *l)
{
    struct wire_topic_state list[WATCH_LIST];
    struct wire_watch watch = {.topics = list};
    struct view *v, *next;
    HASH_ITER(hh, l->views, v, next)
    {
        if (v->is_watched)
            continue;
        v->is_watched = true;
        v->asked_ms = clock_now_ms();
        v->wanted = 0;
        list[watch.n_topics++] =
            (struct wire_topic_state){.topic = slice_str(v->topic), .revision = v->revision};
        if (watch.n_topics == WATCH_LIST) {
            LINK_TELL(l->broker, nobody, watch, &watch);
            watch.n_topics = 0;
        }
    }
    if (watch.n_topics != 0)
        LINK_TELL(l->broker, nobody, watch, &watch);
}

/* `wanted`: the revision that is known to exist; 0 any. Not twice within a second for the same.
 */
static void fetch(struct link *l, struct view *v, uint64_t wanted)
{
    uint64_t now = clock_now_ms();
    if (v->wanted >= wanted && v->wanted != 0 && now - v->asked_ms < FETCH_AGAIN_MS)
        return;
    v->wanted = wanted;
    v->asked_ms = now;
    l->count.fetches++;
    struct wire_topic_state one = {.topic = slice_str(v->topic), .revision = v->revision};
    const struct wire_fetch out = {.n_topics = 1, .topics = &one};
    LINK_TELL(l->broker, nobody, fetch, &out);
}

void session_watch(struct link *l, struct view *v)
{
    if (l->updates != NULL && mailbox_subscribe(l->updates, slice_str(v->topic)) != OK)
        log_warn("not subscribed", "topic=%s", v->topic); /* digests still tell */
    if (l->state >= LINK_SYNC)
        send_watches(l);
}

void session_unwatch(struct link *l, struct view *v)
{
    if (l->updates != NULL && mailbox_unsubscribe(l->updates, slice_str(v->topic)) != OK)
        log_debug("not unsubscribed", "topic=%s", v->topic);
    if (!v->is_watched)
        return;
    v->is_watched = false;
    struct wire_topic_state one = {.topic = slice_str(v->topic)};
    const struct wire_unwatch out = {.n_topics = 1, .topics = &one};
    LINK_TELL(l->broker, nobody, unwatch, &out);
}

/* ---- acknowledging ---- */

static void on_ack_turn(void *arg)
{
    struct link *l = arg;
    uint64_t sum = view_sum(l);
    if (l->state < LINK_SYNC || (l->was_acked && sum == l->acked_sum))
        return;
    const struct wire_ack ack = {
        .epoch = l->epoch, .revision = l->mesh_revision, .applied = sum};
    if (LINK_SEND(l->broker, nobody, ack, &ack) != OK)
        return; /* with the next tick */
    l->acked_sum = sum;
    l->was_acked = true;
}

void session_ack_soon(struct link *l)
{
    if (!timer_is_armed(&l->ack_turn))
        timer_once(&l->ack_turn, 0);
}

/* ---- what the broker says ---- */

static void new_epoch(struct link *l, uint64_t epoch)
{
    struct view *v, *next;
    if (l->epoch != 0) {
        l->count.epochs++;
        log_warn("new epoch", "before=%016" PRIx64 " now=%016" PRIx64, l->epoch, epoch);
    }
    /* What is held stays in force until it was fetched again, but its revisions mean nothing
     * now. */
    HASH_ITER(hh, l->views, v, next)
    {
        v->revision = 0;
        v->in_force = 0;
        v->is_fresh = false;
        LIST_EACH (it, &v->interests)
            CONTAINER_OF(it, struct interest, link)->applied = 0;
    }
    l->epoch = epoch;
    l->mesh_revision = 0;
    l->is_snapshot_dirty = true;
}

static void look_if_live(struct link *l)
{
    struct view *v, *next;
    if (l->state != LINK_SYNC)
        return;
    HASH_ITER(hh, l->views, v, next)
    if (!v->is_fresh)
        return;
    enter(l, LINK_LIVE);
}

static void saw_revision(struct link *l, uint64_t revision)
{
    if (revision > l->mesh_revision)
        l->mesh_revision = revision;
}

static void note_clock(struct link *l, int64_t broker_ms)
{
    l->skew_ms = (int64_t)clock_wall_ms() - (broker_ms > 0 ? broker_ms : 0);
    if (l->skew_ms > SKEW_MS || l->skew_ms < -SKEW_MS) {
        log_warn("clock differs from the broker's", "ms=%" PRId64, l->skew_ms);
        actor_note(l->actor, "clock_skew_ms", "%" PRId64, l->skew_ms);
    }
}

static void on_welcome(void *arg, const struct wire_call *call)
{
    struct link *l = arg;
    const struct wire_welcome *w = WIRE_GOT(welcome, call);
    if (w->id != l->hello_id || l->state != LINK_HELLO)
        return;
    creds_joined(l);
    l->failures = 0;
    if (w->use_own_key) {
        begin_again(l, 0);
        return;
    }
    note_clock(l, w->wall_ms);
    if (w->epoch != l->epoch)
        new_epoch(l, w->epoch);
    saw_revision(l, w->revision);
    l->digest_heard_ms = clock_now_ms();
    struct view *v, *next;
    HASH_ITER(hh, l->views, v, next)
    v->is_fresh = false;
    l->has_had_session = true;
    enter(l, LINK_SYNC);
    say_serving(l);
    for (unsigned i = 0; i < l->n_spoken; i++)
        say_learned(l, &l->spoken[i]);
    send_watches(l);
    send_held(l);
}

static void on_refused(void *arg, const struct wire_call *call)
{
    struct link *l = arg;
    const struct wire_refused *r = WIRE_GOT(refused, call);
    log_warn("refused by the broker", "code=%.*s why=\"%.*s\"", SLICE_FMT(r->code),
             SLICE_FMT(r->why));
    if (l->state == LINK_HELLO && r->id == l->hello_id) {
        l->failures++;
        actor_note(l->actor, "broker", "refused %.*s", SLICE_FMT(r->code));
        if (l->is_by_token || !l->has_joined)
            begin_again(l, pause_of(l->failures));
        else
            l->next_try_ms = clock_now_ms() + pause_of(l->failures);
    } else if (slice_is_str(r->code, "HELLO_FIRST") && l->state >= LINK_SYNC) {
        enter(l, LINK_HELLO); /* the broker has started anew, or our lease has ended */
        say_hello(l);
    }
}

static void on_topic(void *arg, const struct wire_call *call)
{
    struct link *l = arg;
    const struct wire_topic *t = WIRE_GOT(topic, call);
    struct view *v = view_find(l, t->topic);
    if (v == NULL || t->epoch != l->epoch || (v->is_fresh && t->revision < v->revision))
        return;
    /* Equal revisions of one epoch have equal payloads: this is the answer to a fetch that was
     * late. */
    bool is_known = v->is_fresh && t->revision == v->revision;
    saw_revision(l, t->mesh_revision);
    if (is_known || view_take(l, v, t->revision, t->payload) != OK)
        return;
    v->is_fresh = true;
    view_tell_all(l, v);
    view_settle(l, v);
    look_if_live(l);
    session_ack_soon(l);
}

static void on_topic_same(void *arg, const struct wire_call *call)
{
    struct link *l = arg;
    const struct wire_topic_same *m = WIRE_GOT(topic_same, call);
    if (m->epoch != l->epoch)
        return;
    saw_revision(l, m->mesh_revision);
    for (size_t i = 0; i < m->n_topics; i++) {
        struct view *v = view_find(l, m->topics[i].topic);
        if (v == NULL || v->payload == NULL || v->revision != m->topics[i].revision ||
            v->is_fresh)
            continue;
        v->is_fresh = true;
        view_tell_all(l, v); /* not stale any more */
        view_settle(l, v);
    }
    look_if_live(l);
    session_ack_soon(l);
}

/* ---- the update feed ---- */

void session_on_hint(struct link *l, const struct wire_hint *h)
{
    l->count.hints++;
    struct view *v = view_find(l, h->topic);
    if (v == NULL || l->state < LINK_SYNC)
        return; /* a longer topic that begins like one of ours, or too early */
    if (h->epoch != l->epoch || h->revision <= v->revision) {
        l->count.hints_old++;
        return; /* another epoch: the digest or the lost session will say so */
    }
    fetch(l, v, h->revision);
}

static void compare(struct link *l, const struct wire_topic_digest *d)
{
    struct view *v = view_by_hash(l, d->hash);
    if (v == NULL)
        return;
    v->digest_round = l->digest_round;
    if (!v->is_watched || d->revision <= v->revision)
        return; /* smaller: the digest was made before the topic that we have */
    l->count.repaired++;
    fetch(l, v, d->revision);
}

/* After all parts of one digest: what we watch and the broker did not name, it has forgotten.
 */
static void watch_forgotten(struct link *l)
{
    struct view *v, *next;
    uint64_t now = clock_now_ms();
    bool is_any = false;
    HASH_ITER(hh, l->views, v, next)
    {
        if (!v->is_watched || v->digest_round == l->digest_round ||
            now - v->asked_ms < FETCH_AGAIN_MS)
            continue;
        v->is_watched = false;
        is_any = true;
        l->count.repaired++;
    }
    if (is_any)
        send_watches(l);
}

void session_on_digest(struct link *l, const struct wire_digest *d)
{
    l->count.digests++;
    l->digest_heard_ms = clock_now_ms();
    if (l->state < LINK_SYNC)
        return;
    if (d->epoch != l->epoch) {
        enter(l, LINK_HELLO); /* the mesh's state was made anew: welcome tells its epoch */
        say_hello(l);
        return;
    }
    if (d->part == 0) {
        l->digest_round++;
        l->is_digest_whole = true;
    } else if (d->part != l->digest_part) {
        l->is_digest_whole =
            false; /* a part was lost: nothing follows from what is not named */
    }
    l->digest_part = (uint16_t)(d->part + 1);
    for (size_t i = 0; i < d->n_topics; i++)
        compare(l, &d->topics[i]);
    if (l->digest_part >= d->parts && l->is_digest_whole)
        watch_forgotten(l);
    saw_revision(l, d->mesh_revision);
    session_ack_soon(l);
}

static void on_hint(void *arg, const struct wire_call *call)
{
    session_on_hint(arg, WIRE_GOT(hint, call));
}

static void on_digest(void *arg, const struct wire_call *call)
{
    session_on_digest(arg, WIRE_GOT(digest, call));
}

/* ---- certificates ---- */

static void answer_certify(struct link *l, slice_t route, uint64_t id, slice_t code,
                           slice_t why, slice_t chain)
{
    const struct wire_certificate out = {.id = id, .code = code, .why = why, .chain = chain};
    LINK_TELL(l->local, route, certificate, &out);
}

static struct errand_sign *sign_slot(struct link *l, uint64_t id)
{
    for (size_t i = 0; i < LINK_SIGNS_MAX; i++)
        if (l->signs[i].id == id)
            return &l->signs[i];
    return NULL;
}

static void sign_free(struct errand_sign *s)
{
    free(s->held);
    s->held = NULL;
    s->id = 0;
}

/* A new pod asks for its certificate, with its join token, before its first session is there,
 * which takes a moment: that is no failure, and the request is kept so long. For a renewal and
 * later on an absent broker is one, and is told at once. */
static err_t sign_hold(const struct link *l, struct errand_sign *s, const struct wire_sign *m)
{
    struct buf b;
    err_t e;

    if (l->has_had_session || l->is_draining || m->token_id.n == 0)
        return ERR_OF(PEER_GONE);
    buf_init(&b, WIRE_MESSAGE_MAX);
    e = WIRE_ENCODE(sign, m, &b);
    if (e == OK) {
        s->n_held = buf_len(&b);
        s->held = malloc(s->n_held);
        if (s->held == NULL)
            e = ERR_OF(NOMEM);
        else
            memcpy(s->held, buf_slice(&b).p, s->n_held);
    }
    buf_done(&b);
    return e;
}

static void send_held(struct link *l)
{
    for (size_t i = 0; i < LINK_SIGNS_MAX; i++) {
        struct errand_sign *s = &l->signs[i];
        if (s->id == 0 || s->held == NULL ||
            mailbox_send(l->broker, nobody, slice(s->held, s->n_held)) != OK)
            continue; /* it expires */
        free(s->held);
        s->held = NULL;
        s->ends_ms = clock_now_ms() + SIGN_MS;
    }
}

void session_certify(struct link *l, slice_t route, const struct wire_certify *ask)
{
    struct errand_sign *s = sign_slot(l, 0);
    bool is_held = l->state < LINK_SYNC;
    const struct wire_sign out = {.id = ++l->next_id,
                                  .csr = ask->csr,
                                  .token_id = ask->token_id,
                                  .token_mac = ask->token_mac,
                                  .old_cert = ask->old_cert,
                                  .signature = ask->signature};
    if (s == NULL || route.n > LINK_MAX_ROUTE ||
        (is_held ? sign_hold(l, s, &out) : LINK_SEND(l->broker, nobody, sign, &out)) != OK) {
        answer_certify(l, route, ask->id, SLICE_LIT("UNAVAILABLE"),
                       s == NULL ? SLICE_LIT("too many certificate requests are waiting")
                                 : SLICE_LIT("the broker is away"),
                       nobody);
        return;
    }
    s->id = out.id;
    s->asked_id = ask->id;
    s->ends_ms = clock_now_ms() + (is_held ? SIGN_HOLD_MS : SIGN_MS);
    s->n_route = route.n;
    memcpy(s->route, route.p, route.n);
    session_hurry(l);
}

static void on_signed(void *arg, const struct wire_call *call)
{
    struct link *l = arg;
    const struct wire_signed_ *m = WIRE_GOT(signed_, call);
    struct errand_sign *s = m->id != 0 ? sign_slot(l, m->id) : NULL;
    if (s == NULL)
        return;
    answer_certify(l, slice(s->route, s->n_route), s->asked_id, m->code, m->why, m->chain);
    sign_free(s);
    if (m->code.n == 0)
        creds_forget_token(l);
}

static void expire_signs(struct link *l)
{
    for (size_t i = 0; i < LINK_SIGNS_MAX; i++) {
        struct errand_sign *s = &l->signs[i];
        if (s->id == 0 || clock_now_ms() < s->ends_ms)
            continue;
        answer_certify(l, slice(s->route, s->n_route), s->asked_id, SLICE_LIT("UNAVAILABLE"),
                       s->held != NULL ? SLICE_LIT("the broker is away")
                                       : SLICE_LIT("no answer in time"),
                       nobody);
        sign_free(s);
    }
}

/* ---- mailboxes ---- */

static const struct wire_permit broker_permits[] = {
    {WIRE_welcome, on_welcome, false}, {WIRE_refused, on_refused, false},
    {WIRE_topic, on_topic, false},     {WIRE_topic_same, on_topic_same, false},
    {WIRE_signed_, on_signed, false},
};
static const struct wire_permit update_permits[] = {
    {WIRE_hint, on_hint, false},
    {WIRE_digest, on_digest, false},
};
static struct wire_desk broker_desk = {.name = "broker",
                                       .me = WIRE_ROLE_LINK,
                                       .from = WIRE_ROLE_BROKER,
                                       .permits = broker_permits,
                                       .n_permits =
                                           sizeof broker_permits / sizeof broker_permits[0]};
static struct wire_desk update_desk = {.name = "updates",
                                       .me = WIRE_ROLE_LINK,
                                       .from = WIRE_ROLE_BROKER,
                                       .permits = update_permits,
                                       .n_permits =
                                           sizeof update_permits / sizeof update_permits[0]};

static void on_broker(void *arg, const struct mailbox_msg *m)
{
    struct link *l = arg;
    if (l->has_said_bye)
        return;
    l->heard_ms = clock_now_ms();
    if (wire_dispatch(&broker_desk, m, NULL, l) != OK)
        l->count.bad_messages++;
}

static void on_update(void *arg, const struct mailbox_msg *m)
{
    struct link *l = arg;
    if (l->has_said_bye)
        return;
    if (wire_dispatch(&update_desk, m, NULL, l) != OK)
        l->count.bad_messages++;
}

static void on_broker_link(void *arg, bool is_up)
{
    struct link *l = arg;
    if (l->has_said_bye)
        return;
    if (!is_up) {
        enter(l, LINK_DOWN); /* the mailbox connects again by itself */
        return;
    }
    enter(l, LINK_HELLO);
    say_hello(l);
}

/* ---- time ---- */

static void tick_down(struct link *l)
{
    uint64_t now = clock_now_ms();
    if (l->broker == NULL) {
        if (now >= l->next_try_ms)
            connect_now(l);
        return;
    }
    /* A refused key looks like an absent broker: with two keys they take turns. */
    if (creds_has_token(l) && now - l->state_since_ms >= CONNECT_MS) {
        l->failures++;
        begin_again(l, pause_of(0));
    }
}

static void tick_up(struct link *l)
{
    uint64_t silence = SILENCE_DIGESTS * l->set->digest_interval;
    if (clock_now_ms() - l->digest_heard_ms < silence)
        return;
    log_warn("update feed is silent", "ms=%" PRIu64, silence);
    begin_again(l, 0);
}

void session_tick(struct link *l)
{
    expire_signs(l);
    if (l->set->broker[0] == '\0')
        return;
    switch (l->state) {
    case LINK_DOWN:
        tick_down(l);
        break;
    case LINK_HELLO:
        if (clock_now_ms() >= l->next_try_ms)
            say_hello(l);
        break;
    case LINK_SYNC:
    case LINK_LIVE:
        tick_up(l);
        break;
    }
    if (l->state >= LINK_SYNC)
        session_ack_soon(l);
}

static void on_alive_tick(void *arg)
{
    struct link *l = arg;
    if (l->state < LINK_SYNC)
        return;
    const struct wire_alive alive = {.wall_ms = (int64_t)clock_wall_ms()};
    LINK_TELL(l->broker, nobody, alive, &alive);
}

static void say_learned(struct link *l, const struct spoken_port *p)
{
    const struct wire_learn out = {.port = p->port, .protocol = lesson_protocol(p->lesson)};
    if (l->state >= LINK_SYNC)
        LINK_TELL(l->broker, nobody, learn, &out);
}

void session_spoken(struct link *l, uint16_t port, uint8_t protocol)
{
    enum lesson news;
    unsigned i = 0;
    if (!lesson_read(protocol, &news) || port == 0)
        return;
    while (i < l->n_spoken && l->spoken[i].port != port)
        i++;
    if (i == LINK_PORTS_MAX)
        return; /* more ports than are learned of */
    if (i == l->n_spoken)
        l->spoken[l->n_spoken++] = (struct spoken_port){.port = port};
    news = lesson_join(l->spoken[i].lesson, news);
    if (news == l->spoken[i].lesson)
        return;
    l->spoken[i].lesson = news;
    say_learned(l, &l->spoken[i]);
}

void session_serving(struct link *l, bool is_serving)
{
    if (l->is_serving == is_serving)
        return;
    l->is_serving = is_serving;
    l->is_snapshot_dirty = true;
    snapshot_save(l, true);
    say_serving(l);
}

static void on_drained(void *arg)
{
    struct link *l = arg;
    actor_drained(l->actor);
}

static void say_bye(void *arg)
{
    struct link *l = arg;
    const struct wire_bye bye = {0};
    if (l->state >= LINK_SYNC)
        LINK_TELL(l->broker, nobody, bye, &bye);
    /* A watch or an ack behind it would be answered "hello first", and we would open the session
     * again that we have just ended. */
    l->has_said_bye = true;
    timer_stop(&l->tick);
    timer_stop(&l->alive);
    enter(l, LINK_DOWN);
    timer_stop(&l->drained);
    timer_init(&l->drained, l->base, on_drained, l);
    timer_once(&l->drained, BYE_MS);
}

void session_drain(struct link *l, uint64_t ms)
{
    l->is_draining = true;
    say_serving(l);
    /* Between the two the others hear that this pod is leaving. */
    timer_init(&l->drained, l->base, say_bye, l);
    timer_once(&l->drained, ms < 2 * BYE_MS ? 0 : BYE_MS);
}

/* Nothing that has an end of its own is under way: what is left to look at (the feed's silence, views that nobody
 * wants any more) is a matter of seconds. An idle pod wakes up for this all its life. */
static bool is_calm(const struct link *l)
{
    const struct view *v;

    if (l->state != LINK_LIVE || l->is_draining)
        return false;
    for (size_t i = 0; i < LINK_SIGNS_MAX; i++) {
        if (l->signs[i].id != 0)
            return false;
    }
    for (v = l->views; v != NULL; v = v->hh.next) {
        if (v->waits_until_ms != 0)
            return false;
    }
    return true;
}

static void on_tick(void *arg)
{
    struct link *l = arg;

    session_tick(l);
    view_tick(l);
    l->is_calm = is_calm(l);
    timer_once(&l->tick, l->is_calm ? CALM_TICK_MS : TICK_MS);
}

void session_hurry(struct link *l)
{
    if (!l->is_calm || l->has_said_bye)
        return;
    l->is_calm = false;
    timer_once(&l->tick, TICK_MS);
}

void session_start(struct link *l)
{
    timer_init(&l->ack_turn, l->base, on_ack_turn, l);
    timer_init(&l->tick, l->base, on_tick, l);
    timer_init(&l->alive, l->base, on_alive_tick, l);
    timer_init(&l->drained, l->base, say_bye, l);
    timer_once(&l->tick, TICK_MS);
    timer_every(&l->alive, ALIVE_MS);
    l->state_since_ms = clock_now_ms();
    if (l->set->broker[0] != '\0')
        connect_now(l);
}

void session_stop(struct link *l)
{
    timer_stop(&l->ack_turn);
    timer_stop(&l->tick);
    timer_stop(&l->alive);
    timer_stop(&l->drained);
    for (size_t i = 0; i < LINK_SIGNS_MAX; i++)
        sign_free(&l->signs[i]);
    close_both(l);
}
