#include "broker/control/sessions.h"

#include "broker/control/attached.h"
#include "broker/control/keys.h"
#include "broker/control/learned.h"
#include "broker/control/objects.h"
#include "broker/control/topics.h"
#include "kit/clock.h"
#include "kit/log.h"
#include "model/name.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define NORMAL_WEIGHT  10000u /* as wire: endpoint.weight */
#define SKEW_EVENT_MS  30000
#define NOTES_PER_TICK 5000u

/* ---- the one function that changes the state ---- */

static void session_state(struct session *s, enum session_state next)
{
    BUG_ON(s->state == SESSION_ENDED);
    s->state = next;
    if (next != SESSION_LIVE)
        s->n_route = 0;
}

static void lease_renew(struct control *c, struct session *s, uint64_t extra_ms)
{
    s->heard_ms = clock_now_ms();
    s->lease_ends_ms = s->heard_ms + c->set->lease + extra_ms;
}

/* ---- checks ---- */

static bool is_short_text(slice_t s, size_t max)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x20 || s.p[i] == 0x7f)
            return false;
    return s.n <= max;
}

err_t sessions_check_hello(const struct wire_hello *h, const char **why)
{
    const struct {
        bool is_good;
        const char *field;
    } checks[] = {
        {name_is_label(h->namespace), "namespace"},
        {name_is_host(h->pod), "pod"},
        {h->workload.n == 0 || name_is_host(h->workload), "workload"},
        {name_is_host(h->service_account), "service_account"},
        {is_short_text(h->zone, 63), "zone"},
        {is_short_text(h->version, 32), "version"},
        {is_short_text(h->app_version, 128), "app_version"},
        {h->n_addresses >= 1 && h->n_addresses <= CONTROL_MAX_ADDRESSES, "addresses"},
        {h->n_serves <= CONTROL_MAX_SERVED, "serves"},
    };
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        *why = checks[i].field;
        if (!checks[i].is_good)
            return ERR_OF(BAD_HELLO);
    }
    *why = "addresses";
    for (size_t i = 0; i < h->n_addresses; i++)
        if (!name_is_ip(h->addresses[i].ip))
            return ERR_OF(BAD_HELLO);
    *why = "serves";
    for (size_t i = 0; i < h->n_serves; i++)
        if (h->serves[i].port == 0 || h->serves[i].protocol > 4 ||
            (h->serves[i].service.n != 0 && !name_is_label(h->serves[i].service)))
            return ERR_OF(BAD_HELLO);
    *why = NULL;
    return OK;
}

/* ---- hello -> struct session ---- */

static void fill_text(struct control *c, struct session *s, const struct link_key *key,
                      const struct wire_hello *h)
{
    (void)snprintf(s->name, sizeof s->name, "%s/%s", key->ns, key->pod);
    (void)snprintf(s->ns, sizeof s->ns, "%s", key->ns);
    (void)snprintf(s->pod, sizeof s->pod, "%s", key->pod);
    (void)snprintf(s->service_account, sizeof s->service_account, "%s", key->service_account);
    (void)snprintf(s->public_key, sizeof s->public_key, "%s", key->public_key);
    (void)slice_to_cstr(h->workload, s->workload, sizeof s->workload);
    (void)slice_to_cstr(h->zone, s->zone, sizeof s->zone);
    (void)slice_to_cstr(h->version, s->version, sizeof s->version);
    (void)slice_to_cstr(h->app_version, s->app_version, sizeof s->app_version);
    const struct name_identity who = {.service_account = slice_str(key->service_account),
                                      .namespace = slice_str(key->ns),
                                      .control_namespace = slice_str(c->set->control_namespace),
                                      .trust_domain = slice_str(c->set->trust_domain)};
    if (name_identity_make(&who, s->identity) != OK)
        s->identity[0] = '\0'; /* too long for a certificate: such a pod stays unmeshed */
}

static err_t fill(struct control *c, struct session *s, const struct link_key *key,
                  const struct wire_hello *h)
{
    fill_text(c, s, key, h);
    s->incarnation = h->incarnation;
    s->inbound_port = h->inbound_port;
    s->processes = h->processes;
    s->weight = h->weight != 0 ? h->weight : NORMAL_WEIGHT;
    s->is_serving = h->is_serving;
    s->n_addresses = (unsigned)h->n_addresses;
    for (unsigned i = 0; i < s->n_addresses; i++)
        (void)slice_to_cstr(h->addresses[i].ip, s->addresses[i], sizeof s->addresses[i]);
    s->n_serves = (unsigned)h->n_serves;
    s->serves = calloc(h->n_serves + 1, sizeof *s->serves);
    if (s->serves == NULL)
        return ERR_OF(NOMEM);
    for (unsigned i = 0; i < s->n_serves; i++) {
        (void)slice_to_cstr(h->serves[i].service, s->serves[i].service,
                            sizeof s->serves[i].service);
        s->serves[i].port = h->serves[i].port;
        s->serves[i].protocol = h->serves[i].protocol;
    }
    return OK;
}

/* Does a row of the topology have to change for this hello? */
static bool is_same(const struct session *a, const struct session *b)
{
    bool is_like = a->incarnation == b->incarnation && a->inbound_port == b->inbound_port &&
                   a->processes == b->processes && a->weight == b->weight &&
                   a->is_serving == b->is_serving &&
                   a->n_addresses == b->n_addresses && a->n_serves == b->n_serves &&
                   strcmp(a->workload, b->workload) == 0 && strcmp(a->zone, b->zone) == 0 &&
                   strcmp(a->version, b->version) == 0 &&
                   strcmp(a->app_version, b->app_version) == 0 &&
                   strcmp(a->service_account, b->service_account) == 0 &&
                   strcmp(a->public_key, b->public_key) == 0;
    for (unsigned i = 0; is_like && i < a->n_addresses; i++)
        is_like = strcmp(a->addresses[i], b->addresses[i]) == 0;
    for (unsigned i = 0; is_like && i < a->n_serves; i++)
        is_like = a->serves[i].port == b->serves[i].port &&
                  a->serves[i].protocol == b->serves[i].protocol &&
                  strcmp(a->serves[i].service, b->serves[i].service) == 0;
    return is_like;
}

/* ---- storing ---- */

static err_t store_endpoints(struct control *c, const struct session *s)
{
    TRY(mesh_drop_endpoints_of_pod(c->mesh, slice_str(s->name)));
    for (unsigned i = 0; i < s->n_serves; i++) {
        if (s->serves[i].service[0] == '\0')
            continue;
        for (unsigned a = 0; a < s->n_addresses; a++) {
            const struct mesh_endpoint row = {.ns = slice_str(s->ns),
                                              .service = slice_str(s->serves[i].service),
                                              .port = s->serves[i].port,
                                              .ip = slice_str(s->addresses[a]),
                                              .target_port = s->serves[i].port,
                                              .source = SLICE_LIT("session"),
                                              .protocol = s->serves[i].protocol,
                                              .identity = slice_str(s->identity),
                                              .pod = slice_str(s->name),
                                              .zone = slice_str(s->zone),
                                              .is_ready = s->is_serving};
            TRY(mesh_put_endpoint(c->mesh, &row));
        }
    }
    return OK;
}

static err_t store_session(struct control *c, const struct session *s)
{
    char addresses[CONTROL_MAX_ADDRESSES * 47] = "";
    char serves[CONTROL_MAX_SERVED * 72] = "";
    size_t at = 0;
    for (unsigned i = 0; i < s->n_addresses; i++)
        at += (size_t)snprintf(addresses + at, sizeof addresses - at, "%s%s", i != 0 ? "," : "",
                               s->addresses[i]);
    at = 0;
    for (unsigned i = 0; i < s->n_serves; i++)
        at += (size_t)snprintf(serves + at, sizeof serves - at, "%s%s:%u/%u", i != 0 ? "," : "",
                               s->serves[i].service, s->serves[i].port, s->serves[i].protocol);
    const struct mesh_session row = {.ns = slice_str(s->ns),
                                     .pod = slice_str(s->pod),
                                     .workload = slice_str(s->workload),
                                     .service_account = slice_str(s->service_account),
                                     .identity = slice_str(s->identity),
                                     .zone = slice_str(s->zone),
                                     .version = slice_str(s->version),
                                     .app_version = slice_str(s->app_version),
                                     .incarnation = s->incarnation,
                                     .addresses = slice_str(addresses),
                                     .serves = slice_str(serves),
                                     .public_key = slice_str(s->public_key),
                                     .inbound_port = s->inbound_port,
                                     .processes = s->processes,
                                     .weight = s->weight,
                                     .is_serving = s->is_serving,
                                     .opened_ms = s->opened_ms,
                                     .skew_ms = s->skew_ms,
                                     .acked = s->acked};
    TRY(mesh_put_session(c->mesh, &row));
    return store_endpoints(c, s);
}

/* Everything a new or changed session means, in one change. */
static err_t store_all(struct control *c, const struct session *s, bool is_new)
{
    TRY(control_begin(c, slice_str(s->name), SLICE_LIT("session")));
    err_t e = store_session(c, s);
    for (unsigned i = 0; e == OK && i < s->n_serves; i++)
        if (s->serves[i].service[0] != '\0')
            e = objects_ensure_served(c, s->ns, &s->serves[i]);
    if (e == OK)
        e = mesh_touch_link_key(c->mesh, slice_str(s->public_key), (int64_t)clock_wall_ms());
    if (e == OK && is_new)
        e = mesh_add_event(c->mesh, (int64_t)clock_wall_ms(), SLICE_LIT("SESSION_OPENED"),
                           slice_str(s->name), slice_str(s->identity));
    if (e != OK) {
        mesh_rollback(c->mesh);
        objects_abandon(c);
        return e;
    }
    e = control_commit(c);
    if (e == OK)
        objects_accept(c);
    else
        objects_abandon(c);
    return e;
}

static void mark_topics(struct control *c, const struct session *s)
{
    char own[321];
    for (unsigned i = 0; i < s->n_serves; i++)
        topics_mark_text(c, s->serves[i].service);
    for (unsigned i = 0; i < s->n_addresses; i++)
        topics_mark_text(c, s->addresses[i]);
    if (snprintf(own, sizeof own, "pod/%s", s->name) < (int)sizeof own)
        topics_mark(c, own);
}

/* ---- life ---- */

static void session_free(struct control *c, struct session *s)
{
    struct link_key *key = keys_find(c, s->public_key);
    topics_unwatch_all(c, s);
    if (key != NULL && key->session == s)
        key->session = NULL;
    free(s->serves);
    free(s);
}

static struct session *session_find(struct control *c, const char *name)
{
    struct session *s;
    HASH_FIND_STR(c->sessions, name, s);
    return s;
}

/* Moves what the connection and the watches are from `old` to `s`, which takes its place. */
static void take_place(struct control *c, struct session *old, struct session *s)
{
    s->opened_ms = old->opened_ms;
    if (old->is_serving && old->incarnation == s->incarnation)
        s->ready_ms = old->ready_ms; /* it went on serving */
    s->skew_ms = old->skew_ms;
    s->acked = old->acked;
    attached_drop_session(c, old);
    HASH_DEL(c->sessions, old);
    session_free(c, old);
}

static void bind_route(struct control *c, struct session *s, struct link_key *key,
                       slice_t route)
{
    session_state(s, SESSION_LIVE);
    topics_unwatch_all(c, s);
    s->have = 0;
    s->n_route = route.n <= sizeof s->route ? route.n : 0;
    memcpy(s->route, route.p, s->n_route);
    key->session = s;
    lease_renew(c, s, 0);
}

err_t sessions_hello(struct control *c, struct link_key *key, slice_t route,
                     const struct wire_hello *hello, struct session **out, const char **why)
{
    TRY(sessions_check_hello(hello, why));
    if (!slice_is_str(hello->namespace, key->ns) || !slice_is_str(hello->pod, key->pod) ||
        !slice_is_str(hello->service_account, key->service_account))
        return ERR_OF(WRONG_NAME);
    struct session *s = calloc(1, sizeof *s);
    if (s == NULL)
        return ERR_OF(NOMEM);
    list_init(&s->watches);
    s->opened_ms = (int64_t)clock_wall_ms();
    s->ready_ms = s->opened_ms;
    err_t e = fill(c, s, key, hello);
    struct session *old = e == OK ? session_find(c, s->name) : NULL;
    if (e == OK && old == NULL && HASH_COUNT(c->sessions) >= CONTROL_MAX_SESSIONS)
        e = ERR_OF(TOO_MANY_SESSIONS);
    if (e == OK && old != NULL && is_same(old, s)) {
        session_free(c, s); /* resumed as it was: nothing to store */
        s = old;
    } else if (e == OK) {
        bool is_new = old == NULL || old->incarnation != s->incarnation;
        if (!is_new)
            s->opened_ms = old->opened_ms;
        e = store_all(c, s, is_new);
        if (e == OK) {
            c->count.sessions_opened += is_new ? 1 : 0;
            mark_topics(c, s);
            if (old != NULL) {
                mark_topics(c, old);
                take_place(c, old, s);
            }
            HASH_ADD_STR(c->sessions, name, s);
            attached_add_session(c, s);
            learned_expire(c, s);
        }
    }
    if (e != OK) {
        session_free(c, s);
        return e;
    }
    bind_route(c, s, key, route);
    topics_settle(c);
    *out = s;
    return OK;
}

void sessions_heard(struct control *c, struct session *s)
{
    lease_renew(c, s, 0);
    s->is_dirty_note = true;
}

void sessions_note_clock(struct control *c, struct session *s, int64_t wall_ms)
{
    int64_t now = (int64_t)clock_wall_ms();
    wall_ms = wall_ms > 0 ? wall_ms : 0; /* from a peer: the difference must not overflow */
    int64_t skew = wall_ms > now ? (wall_ms - now > INT32_MAX ? INT32_MAX : wall_ms - now)
                                 : (now - wall_ms > INT32_MAX ? -INT32_MAX : wall_ms - now);
    bool was_off = s->skew_ms > SKEW_EVENT_MS || s->skew_ms < -SKEW_EVENT_MS;
    bool is_off = skew > SKEW_EVENT_MS || skew < -SKEW_EVENT_MS;
    s->skew_ms = skew;
    if (is_off && !was_off)
        control_event(c, "CLOCK_SKEW", s->name, "the pod's clock is %" PRId64 " s off",
                      skew / 1000);
}

err_t sessions_set_serving(struct control *c, struct session *s, bool is_serving)
{
    if (s->is_serving == is_serving)
        return OK;
    s->is_serving = is_serving;
    if (is_serving)
        s->ready_ms = (int64_t)clock_wall_ms();
    err_t e = store_all(c, s, false);
    if (e != OK) {
        s->is_serving = !is_serving;
        return e;
    }
    mark_topics(c, s);
    topics_settle(c);
    return OK;
}

void sessions_lost_route(struct session *s)
{
    if (s->state == SESSION_LIVE)
        session_state(s, SESSION_RESUMABLE);
}

static err_t store_end(struct control *c, const struct session *s, const char *why)
{
    TRY(control_begin(c, slice_str(s->name), slice_str(why)));
    err_t e = mesh_drop_endpoints_of_pod(c->mesh, slice_str(s->name));
    if (e == OK)
        e = mesh_end_session(c->mesh, slice_str(s->ns), slice_str(s->pod), slice_str(why));
    if (e == OK)
        e = mesh_add_event(
            c->mesh, (int64_t)clock_wall_ms(),
            slice_str(strcmp(why, "bye") == 0 ? "SESSION_ENDED" : "SESSION_LOST"),
            slice_str(s->name), slice_str(why));
    if (e == OK)
        return control_commit(c);
    mesh_rollback(c->mesh);
    return e;
}

void sessions_end(struct control *c, struct session *s, const char *why)
{
    if (store_end(c, s, why) != OK) {
        sessions_lost_route(s);
        return;
    }
    log_info("session ended", "pod=%s reason=%s", s->name, why);
    c->count.sessions_lost += strcmp(why, "bye") != 0 ? 1 : 0;
    attached_drop_session(c, s);
    HASH_DEL(c->sessions, s);
    mark_topics(c, s);
    learned_expire(c, s);
    session_state(s, SESSION_ENDED);
    session_free(c, s);
    topics_settle(c);
}

/* ---- after a restart ---- */

static void load_serves(struct session *s, slice_t text)
{
    s->serves = calloc(CONTROL_MAX_SERVED, sizeof *s->serves);
    while (s->serves != NULL && text.n != 0 && s->n_serves < CONTROL_MAX_SERVED) {
        const uint8_t *comma = memchr(text.p, ',', text.n);
        slice_t one = slice(text.p, comma != NULL ? (size_t)(comma - text.p) : text.n);
        const uint8_t *colon = memchr(one.p, ':', one.n);
        struct served_port *p = &s->serves[s->n_serves];
        unsigned port = 0, protocol = 0;
        char numbers[24];
        if (colon != NULL &&
            slice_to_cstr(slice(one.p, (size_t)(colon - one.p)), p->service,
                          sizeof p->service) &&
            slice_to_cstr(slice_skip(one, (size_t)(colon - one.p) + 1), numbers,
                          sizeof numbers) &&
            sscanf(numbers, "%5u/%1u", &port, &protocol) == 2 && port <= 65535) {
            p->port = (uint16_t)port;
            p->protocol = (uint8_t)protocol;
            s->n_serves++;
        }
        text = slice_skip(text, one.n + 1);
    }
}

static void load_addresses(struct session *s, slice_t text)
{
    while (text.n != 0 && s->n_addresses < CONTROL_MAX_ADDRESSES) {
        const uint8_t *comma = memchr(text.p, ',', text.n);
        slice_t one = slice(text.p, comma != NULL ? (size_t)(comma - text.p) : text.n);
        if (name_is_ip(one) &&
            slice_to_cstr(one, s->addresses[s->n_addresses], sizeof s->addresses[0]))
            s->n_addresses++;
        text = slice_skip(text, one.n + 1);
    }
}

static void load_one(void *arg, const struct mesh_session *row)
{
    struct control *c = arg;
    struct session *s = calloc(1, sizeof *s);
    if (s == NULL)
        return;
    list_init(&s->watches);
    bool is_good =
        slice_to_cstr(row->ns, s->ns, sizeof s->ns) &&
        slice_to_cstr(row->pod, s->pod, sizeof s->pod) &&
        slice_to_cstr(row->workload, s->workload, sizeof s->workload) &&
        slice_to_cstr(row->service_account, s->service_account, sizeof s->service_account) &&
        slice_to_cstr(row->identity, s->identity, sizeof s->identity) &&
        slice_to_cstr(row->zone, s->zone, sizeof s->zone) &&
        slice_to_cstr(row->version, s->version, sizeof s->version) &&
        slice_to_cstr(row->app_version, s->app_version, sizeof s->app_version) &&
        slice_to_cstr(row->public_key, s->public_key, sizeof s->public_key);
    (void)snprintf(s->name, sizeof s->name, "%s/%s", s->ns, s->pod);
    s->incarnation = row->incarnation;
    s->inbound_port = row->inbound_port;
    s->processes = row->processes;
    s->weight = row->weight;
    s->is_serving = row->is_serving;
    s->opened_ms = row->opened_ms;
    s->skew_ms = row->skew_ms;
    s->acked = row->acked;
    load_serves(s, row->serves);
    load_addresses(s, row->addresses);
    if (!is_good || s->serves == NULL || session_find(c, s->name) != NULL) {
        free(s->serves);
        free(s);
        return;
    }
    s->state = SESSION_RESUMABLE;
    lease_renew(c, s, SESSIONS_RESUME_EXTRA_MS);
    HASH_ADD_STR(c->sessions, name, s);
    attached_add_session(c, s);
}

err_t sessions_load(struct control *c)
{
    return mesh_each_session(c->mesh, load_one, c);
}

void sessions_free(struct control *c)
{
    struct session *s, *next;
    HASH_ITER(hh, c->sessions, s, next)
    {
        attached_drop_session(c, s);
        HASH_DEL(c->sessions, s);
        session_free(c, s);
    }
}

/* ---- every second ---- */

/* acked and heard of those that moved, in one transaction that makes no revision. */
static void write_notes(struct control *c)
{
    struct session *s, *next;
    unsigned n = 0;
    err_t e = control_begin(c, SLICE_LIT(""), SLICE_LIT(""));
    if (e != OK)
        return;
    int64_t to_wall = (int64_t)clock_wall_ms() - (int64_t)clock_now_ms();
    HASH_ITER(hh, c->sessions, s, next)
    {
        if (!s->is_dirty_note || n++ >= NOTES_PER_TICK || e != OK)
            continue;
        s->is_dirty_note = false;
        e = mesh_note_session(c->mesh, slice_str(s->ns), slice_str(s->pod), s->acked,
                              to_wall + (int64_t)s->heard_ms, s->skew_ms);
    }
    if (e == OK)
        e = control_commit(c);
    else
        mesh_rollback(c->mesh);
    if (e != OK)
        log_warn("notes of sessions not stored", "error=%s", e->name);
}

void sessions_tick(struct control *c)
{
    struct session *s, *next;
    bool has_notes = false;
    HASH_ITER(hh, c->sessions, s, next)
    {
        if (clock_now_ms() >= s->lease_ends_ms) {
            sessions_end(c, s, "lease");
            continue;
        }
        (void)topics_is_caught_up(c, s); /* also pods that no change has concerned move on */
        has_notes = s->is_dirty_note || has_notes;
    }
    if (has_notes && clock_now_ms() / 1000 % 5 == 0)
        write_notes(c);
}

unsigned sessions_live(const struct control *c)
{
    unsigned n = 0;
    struct session *s, *next;
    HASH_ITER(hh, c->sessions, s, next)
    n += s->state == SESSION_LIVE ? 1 : 0;
    return n;
}
