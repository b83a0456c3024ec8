/* Limits of time: which there are, what starts and stops them, and what happens when one is
 * met.
 *
 *   limit      begins                                   ends                       in force
 *   request    the head was read and its rule found     the response has ended     always
 *   backend    the attempt's head was given to its      the response has ended     in RELAY
 *              connection
 *   head       the attempt's request has left, whole    a final head came          in RELAY
 *   per try    likewise; not for the last attempt       likewise                   in RELAY
 *   idle       the last byte in either direction        the response has ended     in RELAY
 *
 * `request` is the soonest of several: the rule's own (timeouts.request), grpc-timeout, the
 * deadline that a proxy of the mesh sent along (weft-deadline, inbound), and what is left to
 * the inbound request of the same trace (outbound). Waiting for an endpoint, a connection, a
 * backoff or an injected delay counts. Met before a response head was passed on it is an answer
 * with a code of its own that names the rule; afterwards the response is cut (gRPC: trailers).
 * A tunnel has no limit but `idle`: what is said there is no request any more.
 *
 * One timer per exchange, for the soonest. Without limits it is never armed. */
#include "proxy/exchange/exchange_priv.h"

#include "kit/clock.h"
#include "proxy/http/stream.h"
#include "proxy/limit/deadline.h"
#include "proxy/limit/shared.h"

#include <stdio.h>

#define PEER_CUT_MS 5 /* how much sooner than we a peer may find that the time is over */

enum key_kind { KEY_TRACE = 16 };

/* ---- when ---- */

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a == 0 ? b : b == 0 || a < b ? a : b;
}

/* The limits of an attempt run while there is one: an answer that waits for a verdict, a
 * backoff and the search for another connection have limits of their own. */
static uint64_t while_relaying(const struct exchange *x, uint64_t at)
{
    return x->state == EXCHANGE_RELAY ? at : 0;
}

static uint64_t idle_at(const struct exchange *x)
{
    return x->rule != NULL && x->rule->idle_ms > 0 && !x->is_cutting && x->last_ms != 0
               ? while_relaying(x, x->last_ms + x->rule->idle_ms)
               : 0;
}

void limits_arm(struct exchange *x)
{
    uint64_t attempt_at =
        while_relaying(x, sooner(sooner(x->attempt_at, x->head_at), x->try_at));
    uint64_t at = sooner(sooner(x->request_at, attempt_at), sooner(x->wait_at, idle_at(x)));
    uint64_t hedge_at = while_relaying(x, x->hedge_at);
    uint64_t now;

    at = sooner(at, hedge_at);
    if (at == 0) {
        if (x->timer_is_on)
            timer_stop(&x->timer);
        x->timer_is_on = false;
        return;
    }
    now = clock_now_ms();
    timer_once(&x->timer, at > now ? at - now : 0);
    x->timer_is_on = true;
}

void limits_touch(struct exchange *x)
{
    if (x->rule != NULL && x->rule->idle_ms > 0)
        x->last_ms = clock_now_ms();
}

/* ---- the exchange's deadline ---- */

static void bound(struct exchange *x, uint64_t at, enum deadline_from from, uint64_t ms)
{
    if (x->request_at != 0 && at >= x->request_at)
        return;
    x->request_at = at == 0 ? 1 : at;
    x->deadline_from = from;
    x->deadline_ms = ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

/* What the client says of its own patience. Implementations differ about malformed ones (a
 * server may take them for none, or refuse): we take them for none and pass them on. */
static void bound_by_grpc(struct exchange *x, uint64_t now)
{
    const struct field *f = head_find(x->req, FIELD_GRPC_TIMEOUT);
    uint64_t us = 0;

    if (f == NULL)
        return;
    if (!deadline_parse_grpc(f->value, &us)) {
        tally_bad_input(x->worker->tallies, "grpc_timeout");
        return;
    }
    bound(x, now + (us + 999) / 1000, DEADLINE_GRPC, (us + 999) / 1000);
}

/* True: the request is a part of a trace; its key. */
static bool trace_key(const struct exchange *x, uint64_t *key)
{
    static const struct {
        enum field_token token;
        enum deadline_trace kind;
    } fields[] = {{FIELD_TRACEPARENT, DEADLINE_TRACEPARENT},
                  {FIELD_B3, DEADLINE_B3},
                  {FIELD_X_B3_TRACEID, DEADLINE_B3_TRACEID}};
    uint8_t id[16];

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        const struct field *f = head_find(x->req, fields[i].token);

        if (f == NULL || !deadline_parse_trace(fields[i].kind, f->value, id))
            continue;
        *key = limit_shared_key(x->worker->limit_shared, KEY_TRACE, slice(id, sizeof(id)),
                                SLICE_LIT(""));
        return true;
    }
    return false;
}

/* What the application asks of others while it works on an inbound request has no more time
 * than that request, if it carries the same trace. Of several inbound requests of a trace, the
 * one with the most time decides, so that nothing is cut that somebody still waits for. */
static void bound_by_trace(struct exchange *x, uint64_t now)
{
    struct limit_shared *s = x->worker->limit_shared;
    uint64_t key, until;

    if (!x->worker->settings->trace_deadlines || !limit_deadline_is_used(s) ||
        !trace_key(x, &key))
        return;
    until = limit_deadline_get(s, key);
    if (until != LIMIT_NO_DEADLINE)
        bound(x, until, DEADLINE_TRACE, until > now ? until - now : 0);
}

/* Requests without a deadline are noted, too, once there is a use for it: they lift the
 * others'. */
static void note_trace(struct exchange *x, uint64_t now)
{
    struct limit_shared *s = x->worker->limit_shared;

    if (!x->worker->settings->trace_deadlines ||
        (x->request_at == 0 && !limit_deadline_is_used(s)) || !trace_key(x, &x->trace_key))
        return;
    x->trace = limit_deadline_put(s, x->trace_key,
                                  x->request_at != 0 ? x->request_at : LIMIT_NO_DEADLINE, now);
}

void limits_read_peer(struct exchange *x)
{
    const struct field *f = head_find(x->req, FIELD_WEFT_DEADLINE);
    uint32_t ms = 0;

    if (f == NULL)
        return;
    if (deadline_parse_ms(f->value, &ms))
        bound(x, clock_now_ms() + ms, DEADLINE_PEER, ms);
    else
        tally_bad_input(x->worker->tallies, "weft_deadline");
}

bool limits_begin(struct exchange *x)
{
    uint64_t now = clock_now_ms();

    if (x->rule != NULL && x->rule->request_ms > 0)
        bound(x, now + x->rule->request_ms, DEADLINE_RULE, x->rule->request_ms);
    if (x->is_grpc)
        bound_by_grpc(x, now);
    if (x->front->direction == DIRECTION_OUTBOUND)
        bound_by_trace(x, now);
    else
        note_trace(x, now);
    if (x->request_at == 0)
        return true;
    if (x->request_at <= now) {
        limits_expire(x);
        return false;
    }
    limits_arm(x);
    return true;
}

err_t limits_write(struct exchange *x, bool to_mesh, struct head *h, struct arena *a)
{
    uint64_t now, left_ms;
    char room[DEADLINE_TEXT];
    slice_t text;

    if (x->request_at == 0)
        return OK;
    now = clock_now_us();
    left_ms = x->request_at > now / 1000 ? x->request_at - now / 1000 : 0;
    if (x->is_grpc) {
        uint64_t us = x->request_at * 1000 > now ? x->request_at * 1000 - now : 0;

        text = arena_copy(a, deadline_print_grpc(us, room));
        TRY(head_set(h, a, SLICE_LIT("grpc-timeout"), text));
    }
    if (!to_mesh)
        return OK;
    text = arena_copy(a, deadline_print_ms(left_ms, room));
    return head_add(h, a, SLICE_LIT("weft-deadline"), text);
}

void limits_done(struct exchange *x)
{
    limit_deadline_drop(&x->trace, x->trace_key);
}

/* ---- attempts ---- */

static bool is_sent(const struct exchange *x)
{
    return x->req_end_sent && x->back_gone >= x->body_out;
}

void limits_on_sent(struct exchange *x)
{
    const struct wire_rule *r = x->rule;
    const struct wire_retry_policy *p;
    uint64_t now;

    if (r == NULL || (r->head_ms == 0 && again_policy(x) == NULL) || x->has_limits_of_head ||
        x->state != EXCHANGE_RELAY || x->resp_started || x->held != NULL || !is_sent(x))
        return;
    x->has_limits_of_head = true;
    now = clock_now_ms();
    if (r->head_ms > 0)
        x->head_at = now + r->head_ms;
    p = again_policy(x);
    if (p != NULL && p->per_try_ms > 0 && x->keeps && !again_is_last(x))
        x->try_at = now + p->per_try_ms;
    if (x->head_at != 0 || x->try_at != 0)
        limits_arm(x);
}

void limits_begin_attempt(struct exchange *x)
{
    const struct wire_rule *r = x->rule;

    x->wait_at = 0;
    limits_end_attempt(x);
    if (r != NULL && r->backend_ms > 0)
        x->attempt_at = clock_now_ms() + r->backend_ms;
    limits_touch(x);
    limits_on_sent(x);
    if (x->timer_is_on || x->attempt_at != 0 || idle_at(x) != 0)
        limits_arm(x);
}

void limits_on_head(struct exchange *x)
{
    x->head_at = x->try_at = 0;
}

void limits_end_attempt(struct exchange *x)
{
    x->attempt_at = x->head_at = x->try_at = 0;
    x->has_limits_of_head = false;
}

void limits_begin_tunnel(struct exchange *x)
{
    x->request_at = 0;
    limits_end_attempt(x);
    x->has_limits_of_head = true; /* never again */
}

/* ---- met ---- */

/* "HTTPRoute/default/web rule 0: timeouts.request 500ms" */
static void print_limit(const struct exchange *x, const char *what, uint32_t ms, char out[160])
{
    if (x->rule->route.n > 0)
        (void)snprintf(out, 160, "%.*s rule %u: %s %ums",
                       x->rule->route.n > 90 ? 90 : (int)x->rule->route.n,
                       (const char *)x->rule->route.p, x->rule->index, what, ms);
    else
        (void)snprintf(out, 160, "Service %.90s: %s %ums",
                       x->parent != NULL ? x->parent->key : "?", what, ms);
}

static void print_deadline(const struct exchange *x, char out[160])
{
    switch (x->deadline_from) {
    case DEADLINE_RULE:
        print_limit(x, "timeouts.request", x->deadline_ms, out);
        break;
    case DEADLINE_GRPC:
        (void)snprintf(out, 160, "grpc-timeout of the client, %ums", x->deadline_ms);
        break;
    case DEADLINE_PEER:
        (void)snprintf(out, 160, "the caller's deadline, %ums left when the request came",
                       x->deadline_ms);
        break;
    case DEADLINE_TRACE:
        (void)snprintf(out, 160, "deadline of the inbound request of the same trace, %ums left",
                       x->deadline_ms);
        break;
    }
}

static enum delivered delivered_so_far(const struct exchange *x)
{
    return x->attempt == 0 ? DELIVERED_NO : DELIVERED_UNKNOWN;
}

/* No other attempt can follow. */
static void meet_final(struct exchange *x, enum code code, const char *text)
{
    if (x->resp_started) {
        exchange_cut_named(x, code, text);
        return;
    }
    exchange_tally_end(x, 0, false, code);
    exchange_answer(x, code, delivered_so_far(x), slice_str(text));
}

void limits_expire(struct exchange *x)
{
    char text[160];

    print_deadline(x, text);
    meet_final(x, x->deadline_from == DEADLINE_RULE ? CODE_REQUEST_TIMEOUT : CODE_DEADLINE,
               text);
}

bool limits_is_peers_cut(const struct exchange *x)
{
    return x->request_at != 0 && !x->is_cutting &&
           clock_now_ms() + PEER_CUT_MS >= x->request_at;
}

void limits_cut(struct exchange *x, enum code code)
{
    if (limits_is_peers_cut(x))
        limits_expire(x);
    else
        exchange_cut(x, code);
}

static void meet_idle(struct exchange *x)
{
    char text[160];

    print_limit(x, "timeout.linkerd.io/idle", x->rule->idle_ms, text);
    meet_final(x, CODE_IDLE_TIMEOUT, text);
}

static void meet_of_attempt(struct exchange *x, enum code code, const char *what, uint32_t ms)
{
    char text[160];
    struct attempt_failure f = {
        .cause = CAUSE_PER_TRY, .code = code, .delivered = DELIVERED_UNKNOWN};

    print_limit(x, what, ms, text);
    if (x->resp_started) {
        exchange_cut_named(x, code, text);
        return;
    }
    f.details = slice_str(text);
    (void)again_or_answer(x, &f);
}

static void meet_lend(struct exchange *x)
{
    char text[160];

    if (x->backend != NULL && backend_has_no_place(x->backend)) {
        (void)snprintf(text, sizeof(text), "limit.weft.io/max-connections %u of %.90s",
                       x->backend->connections_max, x->backend->key);
        exchange_answer(x, CODE_TOO_MANY_CONNECTIONS, DELIVERED_NO, slice_str(text));
        return;
    }
    if (endpoint_is_shaking(x->endpoint, x->lend.kind)) {
        /* TLS has more time than a request: the handshake goes on for who comes later. */
        exchange_answer(x, CODE_TLS_TIMEOUT, DELIVERED_NO,
                        SLICE_LIT("the handshake had not ended after WEFT_FAILFAST_TIMEOUT"));
        return;
    }
    if (!endpoint_app_is_full(x->endpoint)) {
        exchange_answer(x, CODE_QUEUE_FULL, DELIVERED_NO,
                        SLICE_LIT("no free slot on a connection to the endpoint"));
        return;
    }
    (void)snprintf(text, sizeof(text), "limit.weft.io/app-connections %u of port %u",
                   x->front->limit != NULL ? x->front->limit->connections_max : 0,
                   x->front->port);
    exchange_answer(x, CODE_APP_CONNECTIONS, DELIVERED_NO, slice_str(text));
}

static void on_wait_end(struct exchange *x)
{
    char text[BACKEND_TEXT];

    x->wait_at = 0;
    switch (x->state) {
    case EXCHANGE_ROUTE:
        exchange_run(x); /* an injected delay is over */
        break;
    case EXCHANGE_BALANCE:
        backend_describe(x->backend, text);
        exchange_answer(x, CODE_NO_ENDPOINT, DELIVERED_NO, slice_str(text));
        break;
    case EXCHANGE_LEND:
        meet_lend(x);
        break;
    case EXCHANGE_ASK:
    case EXCHANGE_PAUSE:
        again_on_wait_end(x);
        break;
    case EXCHANGE_RELAY:
        if (x->is_cutting)
            exchange_cut_now(x);
        break;
    case EXCHANGE_AUTHORISE:
    case EXCHANGE_STATES:
        break;
    }
}

static bool is_due(uint64_t at, uint64_t now)
{
    return at != 0 && now >= at;
}

void exchange_on_timer(void *arg)
{
    struct exchange *x = arg;
    uint64_t now = clock_now_ms();

    x->timer_is_on = false;
    if (is_due(x->request_at, now))
        limits_expire(x);
    else if (is_due(while_relaying(x, x->attempt_at), now))
        meet_of_attempt(x, CODE_BACKEND_TIMEOUT, "timeouts.backendRequest",
                        x->rule->backend_ms);
    else if (is_due(while_relaying(x, x->try_at), now))
        meet_of_attempt(x, CODE_PER_TRY_TIMEOUT, "retry.linkerd.io/timeout",
                        again_policy(x)->per_try_ms);
    else if (is_due(while_relaying(x, x->head_at), now))
        meet_of_attempt(x, CODE_RESPONSE_HEAD_TIMEOUT, "timeout.weft.io/response-headers",
                        x->rule->head_ms);
    else if (is_due(while_relaying(x, x->hedge_at), now))
        hedge_begin(x);
    else if (is_due(x->wait_at, now))
        on_wait_end(x);
    else if (is_due(idle_at(x), now))
        meet_idle(x);
    else
        limits_arm(x);
}
