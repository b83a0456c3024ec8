#include "link/view.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "link/session.h"
#include "model/name.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define IDLE_MS 60000u

/* ---- table ---- */

struct view *view_find(struct link *l, slice_t topic)
{
    struct view *v = NULL;
    HASH_FIND(hh, l->views, topic.p, topic.n, v);
    return v;
}

struct view *view_by_hash(struct link *l, uint64_t hash)
{
    struct view *v = NULL;
    HASH_FIND(by_hash, l->views_by_hash, &hash, sizeof hash, v);
    return v;
}

static void view_free(struct link *l, struct view *v)
{
    LIST_EACH_SAFE (it, &v->interests) {
        list_del(it);
        free(CONTAINER_OF(it, struct interest, link));
    }
    HASH_DEL(l->views, v);
    HASH_DELETE(by_hash, l->views_by_hash, v);
    l->bytes -= v->n_payload;
    free(v->payload);
    free(v);
}

void view_drop(struct link *l, struct view *v)
{
    session_unwatch(l, v);
    view_free(l, v);
    l->is_snapshot_dirty = true;
    session_ack_soon(l);
}

void view_free_all(struct link *l)
{
    struct view *v, *next;
    HASH_ITER(hh, l->views, v, next)
    view_free(l, v);
}

static bool make_room(struct link *l)
{
    struct view *v, *next, *oldest = NULL;
    if (HASH_COUNT(l->views) < LINK_MAX_VIEWS && l->bytes < LINK_MAX_BYTES)
        return true;
    HASH_ITER(hh, l->views, v, next)
    if (v->idle_since_ms != 0 && (oldest == NULL || v->idle_since_ms < oldest->idle_since_ms))
        oldest = v;
    if (oldest == NULL)
        return false;
    view_drop(l, oldest);
    return true;
}

err_t view_get(struct link *l, slice_t topic, struct view **out)
{
    *out = view_find(l, topic);
    if (*out != NULL)
        return OK;
    if (!make_room(l))
        return ERR_OF(LINK_FULL);
    struct view *v = calloc(1, sizeof *v);
    if (v == NULL || !slice_to_cstr(topic, v->topic, sizeof v->topic)) {
        free(v);
        return v != NULL ? ERR_OF(TOO_BIG) : ERR_OF(NOMEM);
    }
    v->hash = wire_topic_hash(topic);
    v->idle_since_ms = clock_now_ms();
    list_init(&v->interests);
    HASH_ADD(hh, l->views, topic[0], topic.n, v);
    HASH_ADD(by_hash, l->views_by_hash, hash, sizeof v->hash, v);
    *out = v;
    return OK;
}

bool view_topic_of(const struct link *l, slice_t target, char topic[WIRE_TOPIC_MAX + 1])
{
    struct name_target t;
    char text[NAME_TARGET_TEXT];
    if (name_target_parse(target, slice_str(l->set->namespace), 0, &t) != OK)
        return false;
    name_target_format(&t, text);
    int n = snprintf(topic, WIRE_TOPIC_MAX + 1, "dst/%s/%s", l->set->namespace, text);
    return n > 0 && n <= WIRE_TOPIC_MAX;
}

/* ---- payloads ---- */

static enum wire_code code_of(const struct view *v)
{
    if (strcmp(v->topic, "trust") == 0)
        return WIRE_trust;
    return strncmp(v->topic, "pod/", 4) == 0 ? WIRE_ports : WIRE_destination;
}

/* The payload is a message from the link to a local process; it is read as that process would.
 */
static err_t decode(const struct view *v, slice_t payload, struct wire_msg *out)
{
    TRY(wire_decode(payload, WIRE_ROLE_LINK, WIRE_ROLE_PROXY | WIRE_ROLE_TLS, out));
    if (out->code == code_of(v))
        return OK;
    wire_msg_done(out);
    return ERR_OF(MALFORMED);
}

err_t view_take(struct link *l, struct view *v, uint64_t revision, slice_t payload)
{
    struct wire_msg msg;
    if (decode(v, payload, &msg) != OK) {
        l->count.bad_payloads++;
        log_warn("payload refused", "topic=%s at=%s", v->topic, msg.at != NULL ? msg.at : "");
        return ERR_OF(MALFORMED);
    }
    wire_msg_done(&msg);
    bool is_same = v->payload != NULL && slice_is(payload, slice(v->payload, v->n_payload));
    if (!is_same) {
        uint8_t *copy = malloc(payload.n);
        if (copy == NULL)
            return ERR_OF(NOMEM);
        memcpy(copy, payload.p, payload.n);
        l->bytes += payload.n;
        l->bytes -= v->n_payload;
        free(v->payload);
        v->payload = copy;
        v->n_payload = payload.n;
    }
    v->revision = revision;
    l->is_snapshot_dirty = true;
    return OK;
}

/* ---- users ---- */

static struct interest *interest_find(struct view *v, slice_t route, const char *target)
{
    LIST_EACH (it, &v->interests) {
        struct interest *i = CONTAINER_OF(it, struct interest, link);
        if (slice_is(route, slice(i->route, i->n_route)) && strcmp(i->target, target) == 0)
            return i;
    }
    return NULL;
}

struct interest *view_add_interest(struct link *l, struct view *v, slice_t route,
                                   const char *target)
{
    unsigned n = 0;
    (void)l;
    struct interest *i = interest_find(v, route, target);
    if (i != NULL)
        return i;
    LIST_EACH (it, &v->interests)
        n++;
    if (n >= LINK_MAX_INTERESTS || route.n > LINK_MAX_ROUTE)
        return NULL;
    i = calloc(1, sizeof *i);
    if (i == NULL)
        return NULL;
    i->n_route = route.n;
    memcpy(i->route, route.p, route.n);
    (void)snprintf(i->target, sizeof i->target, "%s", target);
    i->must_apply = code_of(v) != WIRE_ports;
    list_push(&v->interests, &i->link);
    v->idle_since_ms = 0;
    return i;
}

static void interest_free(struct link *l, struct view *v, struct interest *i)
{
    list_del(&i->link);
    free(i);
    if (list_is_empty(&v->interests)) {
        v->idle_since_ms = clock_now_ms();
        v->waits_until_ms = 0;
    }
    view_settle(l, v);
}

void view_remove_interest(struct link *l, struct view *v, slice_t route, const char *target)
{
    struct interest *i = interest_find(v, route, target);
    if (i != NULL)
        interest_free(l, v, i);
}

void view_forget_route(struct link *l, slice_t route)
{
    struct view *v, *next;
    HASH_ITER(hh, l->views, v, next)
    LIST_EACH_SAFE (it, &v->interests) {
        struct interest *i = CONTAINER_OF(it, struct interest, link);
        if (slice_is(route, slice(i->route, i->n_route)))
            interest_free(l, v, i);
    }
}

/* The decoded payload with what is of this moment and this user filled in. */
static err_t send_view(struct link *l, const struct view *v, const struct interest *i,
                       struct wire_msg *msg)
{
    slice_t to = slice(i->route, i->n_route);
    switch ((unsigned)msg->code) {
    case WIRE_destination:
        msg->body.destination.id = i->id;
        msg->body.destination.target = slice_str(i->target);
        msg->body.destination.revision = v->revision;
        msg->body.destination.is_stale = !v->is_fresh;
        return LINK_SEND(l->local, to, destination, &msg->body.destination);
    case WIRE_trust:
        msg->body.trust.revision = v->revision;
        return LINK_SEND(l->local, to, trust, &msg->body.trust);
    default:
        return LINK_SEND(l->local, to, ports, &msg->body.ports);
    }
}

void view_tell(struct link *l, struct view *v, struct interest *i)
{
    struct wire_msg msg;
    if (v->payload == NULL || decode(v, slice(v->payload, v->n_payload), &msg) != OK)
        return;
    err_t e = send_view(l, v, i, &msg);
    wire_msg_done(&msg);
    if (e == OK)
        i->id = 0;
    else
        log_warn("view not sent", "topic=%s error=%s", v->topic, e->name);
    if (e == ERR_OF(PEER_GONE)) {
        uint8_t route[LINK_MAX_ROUTE];
        size_t n = i->n_route;
        memcpy(route, i->route, n);
        view_forget_route(l, slice(route, n)); /* i is gone from here on */
    }
}

static struct interest *next_untold(struct view *v, uint32_t round)
{
    LIST_EACH (it, &v->interests) {
        struct interest *i = CONTAINER_OF(it, struct interest, link);
        if (i->round != round)
            return i;
    }
    return NULL;
}

void view_tell_all(struct link *l, struct view *v)
{
    uint32_t round = ++l->tell_round;
    v->waits_until_ms = 0;
    /* Searched from the start each time: a process that is gone takes all its users of the view
     * along. */
    for (struct interest *i = next_untold(v, round); i != NULL; i = next_untold(v, round)) {
        i->round = round;
        view_tell(l, v, i);
    }
}

/* ---- in force ---- */

void view_settle(struct link *l, struct view *v)
{
    if (v->payload == NULL || !v->is_fresh)
        return;
    LIST_EACH (it, &v->interests) {
        const struct interest *i = CONTAINER_OF(it, struct interest, link);
        if (i->must_apply && i->applied < v->revision)
            return;
    }
    if (v->in_force != v->revision) {
        v->in_force = v->revision;
        session_ack_soon(l);
    }
}

void view_applied(struct link *l, struct view *v, slice_t route, const char *target,
                  uint64_t revision)
{
    struct interest *i = interest_find(v, route, target);
    if (i == NULL || revision > v->revision)
        return;
    i->applied = revision;
    view_settle(l, v);
}

uint64_t view_sum(struct link *l)
{
    uint64_t sum = 0;
    struct view *v, *next;
    HASH_ITER(hh, l->views, v, next)
    if (v->is_watched && v->is_fresh)
        sum += wire_topic_mix(v->hash, v->in_force);
    return sum;
}

/* ---- time ---- */

static void give_up(struct link *l, struct view *v)
{
    v->waits_until_ms = 0;
    if (v->payload != NULL) { /* of before: better than nothing, and marked as such */
        view_tell_all(l, v);
        return;
    }
    LIST_EACH_SAFE (it, &v->interests) {
        struct interest *i = CONTAINER_OF(it, struct interest, link);
        if (i->id == 0)
            continue;
        const struct wire_unresolved out = {
            .id = i->id,
            .target = slice_str(i->target),
            .why = l->state >= LINK_SYNC
                       ? SLICE_LIT("the broker has not answered in time")
                       : SLICE_LIT("the broker is away and nothing is known")};
        l->count.unresolved++;
        LINK_TELL(l->local, slice(i->route, i->n_route), unresolved, &out);
        i->id = 0; /* it stays interested: the answer is sent when it comes */
    }
}

void view_tick(struct link *l)
{
    uint64_t now = clock_now_ms();
    struct view *v, *next;
    HASH_ITER(hh, l->views, v, next)
    {
        if (v->waits_until_ms != 0 && now >= v->waits_until_ms)
            give_up(l, v);
        if (!v->is_permanent && v->idle_since_ms != 0 && now - v->idle_since_ms >= IDLE_MS &&
            (l->state == LINK_LIVE || v->payload == NULL))
            view_drop(l, v);
    }
}
