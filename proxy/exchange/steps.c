/* The steps before the relay. Each decides one thing. */
#include "proxy/exchange/exchange_priv.h"

#include "kit/clock.h"
#include "kit/random.h"
#include "proxy/exchange/admit.h"
#include "proxy/http/stream.h"
#include "proxy/limit/limit.h"

#include <stdio.h>

/* ---- authorise: what the peer may say, and who it is ---- */

static err_t set_client_id(struct exchange *x)
{
    const char *id = x->front->client_id;

    return id == NULL
               ? OK
               : head_add(x->req, x->fs->arena, SLICE_LIT("l5d-client-id"), slice_str(id));
}

/* Which attempt it is for the client's proxy. */
static void read_attempt(struct exchange *x)
{
    const struct field *f = head_find(x->req, FIELD_WEFT_ATTEMPT);
    uint64_t n;

    if (f != NULL && slice_to_u64(f->value, &n) && n > 1)
        x->asked_as = n < UINT8_MAX ? (uint8_t)n : UINT8_MAX;
}

/* The application may be told, if the pod says so. */
static err_t keep_attempt(struct exchange *x)
{
    char text[12];

    if (x->asked_as == 0 || !x->worker->settings->keep_attempt)
        return OK;
    (void)snprintf(text, sizeof(text), "%u", x->asked_as);
    return head_add(x->req, x->fs->arena, SLICE_LIT("weft-attempt"), arena_copy(x->fs->arena, slice_str(text)));
}

enum next step_authorise(struct exchange *x)
{
    struct head *h = x->req;
    bool is_inbound = x->front->direction == DIRECTION_INBOUND;

    /* From a proxy of the mesh the version the client spoke and its deadline are believed; nothing
     * else is, from nobody. */
    if (is_inbound && x->front->is_mesh) {
        x->has_orig_proto = edit_read_orig_proto(x, h);
        limits_read_peer(x);
        read_attempt(x);
    }
    if (!is_inbound && x->worker->settings->allow_request_fields)
        again_read_asked(x);
    edit_strip_mesh(h);
    if (is_inbound && (set_client_id(x) != OK || keep_attempt(x) != OK)) {
        exchange_answer(x, CODE_MEMORY, DELIVERED_NO, SLICE_LIT(""));
        return END;
    }
    x->is_grpc = h->is_grpc && x->fs->version == HTTP_2;
    if (is_inbound && !admit_take(x->worker->admit, x->front->app->port, x->asked_as, clock_now_ms())) {
        char text[40];

        (void)snprintf(text, sizeof(text), "attempt %u", x->asked_as);
        exchange_answer(x, CODE_ATTEMPT_REFUSED, DELIVERED_NO, slice_str(text));
        return END;
    }
    x->is_tunnel_wanted = h->is_connect || h->upgrade.n > 0;
    if (is_inbound) {
        if (!limits_begin(x))
            return END;
        if (x->front->limit != NULL && x->front->limit->rate != NULL && !rate_admit(x))
            return END;
    }
    exchange_enter(x, EXCHANGE_ROUTE);
    return NEXT;
}

/* ---- route ---- */

static bool find_header(void *arg, slice_t name, size_t nth, slice_t *value)
{
    const struct head *h = arg;

    for (size_t i = 0; i < h->n_fields; i++) {
        const struct field *f = &h->fields[i];

        if (f->is_removed || !slice_is_nocase(f->name, name) || nth-- > 0)
            continue;
        *value = f->value;
        return true;
    }
    return false;
}

static void make_route_request(struct exchange *x, struct route_request *out)
{
    slice_t path = edit_path_only(x->req->path);

    *out = (struct route_request){.host = x->req->authority,
                                  .path = path,
                                  .method = x->req->method,
                                  .header = find_header,
                                  .arg = x->req};
    if (path.n < x->req->path.n)
        out->query = slice_skip(x->req->path, path.n + 1);
}

static enum next redirect(struct exchange *x, const struct wire_filter *f,
                          const struct route_request *rr)
{
    struct buf out;
    bool is_same = false;
    enum next next = END;
    slice_t location;

    buf_init(&out, 64 * 1024);
    if (route_redirect_location(f, x->match, rr, x->req->scheme, &out, &is_same) != OK) {
        exchange_answer(x, CODE_BAD_REDIRECT, DELIVERED_NO, x->rule->route);
    } else if (is_same) {
        next = NEXT;
    } else {
        location = arena_copy(x->fs->arena, buf_slice(&out));
        exchange_answer_redirect(x, f->status, location);
    }
    buf_done(&out);
    return next;
}

static enum next apply_filter(struct exchange *x, const struct wire_filter *f,
                              const struct route_request *rr)
{
    switch (f->kind) {
    case ROUTE_FILTER_REQUEST_HEADERS:
        if (edit_apply(f, x->req, x->fs->arena) == OK)
            return NEXT;
        exchange_answer(x, CODE_MEMORY, DELIVERED_NO, SLICE_LIT(""));
        return END;
    case ROUTE_FILTER_REDIRECT:
        return redirect(x, f, rr);
    case ROUTE_FILTER_REWRITE: {
        struct buf path;
        err_t why;

        buf_init(&path, 64 * 1024);
        why = route_rewrite_path(f, x->match, rr->path, &path);
        if (why == OK && x->req->path.n > rr->path.n)
            why = buf_add_slice(&path, slice_skip(x->req->path, rr->path.n));
        if (why == OK && f->path_kind != ROUTE_REWRITE_NOTHING)
            x->req->path = arena_copy(x->fs->arena, buf_slice(&path));
        buf_done(&path);
        if (why != OK || !http_is_path(x->req->path)) {
            exchange_answer(x, CODE_BAD_REDIRECT, DELIVERED_NO, x->rule->route);
            return END;
        }
        if (f->host.n > 0)
            x->req->authority = f->host;
        return NEXT;
    }
    case ROUTE_FILTER_FAIL:
        return fault_fail(x, f) ? END : NEXT;
    case ROUTE_FILTER_DELAY:
        return fault_delay(x, f) ? WAIT : NEXT;
    case ROUTE_FILTER_MIRROR:
        mirror_begin(x, f);
        return NEXT;
    default: /* response headers: later. Others were refused with the view */
        return NEXT;
    }
}

/* Goes on behind the filter that the request waited for. */
static enum next apply_filters(struct exchange *x, const struct route_request *rr)
{
    enum next next = NEXT;

    while (next == NEXT && x->filter_at < x->rule->n_filters)
        next = apply_filter(x, &x->rule->filters[x->filter_at++], rr);
    return next;
}

/* A rule without alternatives, for every host: nothing to match. */
static const struct wire_rule *only_rule(const struct wire_destination *v)
{
    return v->n_rules == 1 && v->rules[0].n_matches == 0 && v->rules[0].n_hosts == 0
               ? &v->rules[0]
               : NULL;
}

/* Which rule it is. False: none; x is answered and gone. */
static bool find_rule(struct exchange *x, const struct route_request *rr)
{
    struct target *t = x->front->target;
    struct route_found found;

    if (t->now == NULL) {
        exchange_answer(x, CODE_BROKER_AWAY, DELIVERED_NO, slice_str(t->text));
        return false;
    }
    x->dest = t->now;
    destination_ref(x->dest);
    if (x->dest->n_backends > 0)
        x->parent = x->dest->backends[0];
    x->rule = only_rule(x->dest->view);
    if (x->rule == NULL) {
        if (!route_match(x->dest->routes, rr, &found)) {
            exchange_answer(x,
                            x->dest->view->n_rules == 0 && x->parent == NULL
                                ? CODE_UNKNOWN_TARGET
                                : CODE_NO_ROUTE,
                            DELIVERED_NO, slice_str(t->text));
            return false;
        }
        x->rule = found.rule;
        x->match = found.match;
    }
    if (x->own_policy != NULL)
        again_begin(x);
    return true;
}

/* A backend that is there and has somebody ready, or one whose absence is to be told. */
static bool may_use(void *arg, uint16_t i)
{
    struct exchange *x = arg;

    return i < x->dest->n_backends &&
           (x->dest->backends[i]->is_missing || backend_has_ready(x->dest->backends[i]));
}

static bool choose_backend(struct exchange *x)
{
    const struct wire_rule *r = x->rule;

    if (r->n_backends == 1 && r->backends[0].weight > 0) {
        x->share = &r->backends[0];
    } else {
        uint64_t random = (uint64_t)random_below(UINT32_MAX) << 32 | random_below(UINT32_MAX);

        x->share = route_pick(r, random, may_use, x);
        if (x->share == NULL)
            x->share =
                route_pick(r, random, NULL, NULL); /* nobody is ready: wait for one of them */
    }
    x->backend = x->share != NULL && x->share->backend < x->dest->n_backends
                     ? x->dest->backends[x->share->backend]
                     : NULL;
    return x->backend != NULL;
}

/* The faults of the backend that was chosen, for every attempt that it gets. filter_at goes on behind
 * the rule's own filters. Its other filters: at the relay (headers). */
static enum next apply_share_faults(struct exchange *x)
{
    const struct wire_weighted *share = x->share;
    enum next next = NEXT;

    while (next == NEXT && x->filter_at - x->rule->n_filters < share->n_filters) {
        const struct wire_filter *f = &share->filters[x->filter_at++ - x->rule->n_filters];

        if (f->kind == ROUTE_FILTER_FAIL)
            next = fault_fail(x, f) ? END : NEXT;
        else if (f->kind == ROUTE_FILTER_DELAY)
            next = fault_delay(x, f) ? WAIT : NEXT;
    }
    return next;
}

static enum next route_outbound(struct exchange *x)
{
    struct route_request rr;
    enum next next;

    make_route_request(x, &rr);
    if (x->rule == NULL && (!find_rule(x, &rr) || !limits_begin(x)))
        return END;
    if (x->filter_at < x->rule->n_filters) {
        next = apply_filters(x, &rr);
        if (next != NEXT)
            return next;
    }
    /* Chosen once per attempt: who waits, waits for that backend. */
    if (x->backend == NULL) {
        if (!choose_backend(x)) {
            exchange_answer(x, CODE_NO_BACKENDS, DELIVERED_NO, x->rule->route);
            return END;
        }
        x->filter_at = x->rule->n_filters;
    }
    return apply_share_faults(x);
}

enum next step_route(struct exchange *x)
{
    enum next next = x->front->direction == DIRECTION_OUTBOUND ? route_outbound(x) : NEXT;

    if (next == NEXT)
        exchange_enter(x, EXCHANGE_BALANCE);
    return next;
}

/* ---- balance ---- */

static void on_wake(struct pick_wait *w)
{
    exchange_run(CONTAINER_OF(w, struct exchange, pick));
}

static enum next wait_for_endpoint(struct exchange *x)
{
    const struct settings *s = x->worker->settings;
    char text[BACKEND_TEXT];

    if (backend_is_failfast(x->backend)) {
        backend_describe(x->backend, text);
        exchange_answer(x, CODE_FAILFAST, DELIVERED_NO, slice_str(text));
        return END;
    }
    x->pick.wake = on_wake;
    if (backend_wait(x->backend, &x->pick) != OK) {
        backend_describe(x->backend, text);
        exchange_answer(x, CODE_QUEUE_FULL, DELIVERED_NO, slice_str(text));
        return END;
    }
    if (x->wait_at == 0)
        x->wait_at = clock_now_ms() + s->failfast_timeout;
    limits_arm(x);
    return WAIT;
}

static void take_endpoint(struct exchange *x, struct endpoint *ep)
{
    endpoint_ref(ep);
    x->endpoint = ep;
    x->picks++;
    memcpy(x->hop, ep->text, sizeof(x->hop));
}

enum next step_balance(struct exchange *x)
{
    struct endpoint *ep;

    if (x->front->direction == DIRECTION_INBOUND) {
        take_endpoint(x, x->front->app);
        exchange_enter(x, EXCHANGE_LEND);
        return NEXT;
    }
    if (x->backend->is_missing) {
        char text[160];

        (void)snprintf(text, sizeof(text), "%s of %.*s", x->backend->key,
                       SLICE_FMT(x->rule->route));
        exchange_answer(x, CODE_BACKEND_MISSING, DELIVERED_NO, slice_str(text));
        return END;
    }
    ep = picks_choose(x, x->avoid);
    /* A single address has no alternative: it is tried even while it backs off. */
    if (ep == NULL && x->backend->is_single && x->backend->n_set > 0)
        ep = x->backend->set[0];
    if (ep == NULL)
        return wait_for_endpoint(x);
    take_endpoint(x, ep);
    exchange_enter(x, EXCHANGE_LEND);
    return NEXT;
}

/* ---- lend ---- */

enum pool_kind exchange_pool_of(const struct exchange *x, const struct endpoint *ep)
{
    bool is_h2 = x->fs->version == HTTP_2;

    if (x->front->direction == DIRECTION_INBOUND)
        return is_h2 && !x->has_orig_proto ? POOL_HTTP2 : POOL_HTTP1;
    if (endpoint_is_meshed(ep))
        return x->is_tunnel_wanted && !is_h2 ? POOL_HTTP1 : POOL_HTTP2;
    return is_h2 ? POOL_HTTP2 : POOL_HTTP1;
}

static enum code lend_code(const struct exchange *x, const struct lend_failure *why)
{
    bool is_inbound = x->front->direction == DIRECTION_INBOUND;

    if (why->is_tls)
        return strcmp(why->code, "TLS_GONE") == 0 ? CODE_RESTARTING
                                                  : code_of_tls(slice_str(why->code));
    if (why->is_local)
        return CODE_TOO_MANY_CONNECTIONS;
    if (why->is_timeout)
        return is_inbound ? CODE_APP_TIMEOUT : CODE_CONNECT_TIMEOUT;
    return is_inbound ? CODE_APP_REFUSED : CODE_CONNECT_REFUSED;
}

/* Nothing was sent: another endpoint is tried at once, a few times, before it counts as a
 * failed attempt. */
static bool may_pick_again(const struct exchange *x, const struct lend_failure *why)
{
    return x->backend != NULL && !x->backend->is_single && !why->is_local &&
           x->picks < EXCHANGE_PICKS_MAX && backend_has_ready(x->backend);
}

static void on_lent(struct lend *l, struct http_back *back, const struct lend_failure *why)
{
    struct exchange *x = CONTAINER_OF(l, struct exchange, lend);

    if (back != NULL) {
        x->back = back;
        exchange_enter(x, EXCHANGE_RELAY);
        exchange_run(x);
        return;
    }
    if (may_pick_again(x, why)) {
        picks_unsent(x);
        endpoint_unref(&x->endpoint);
        exchange_enter(x, EXCHANGE_BALANCE);
        exchange_run(x);
        return;
    }
    {
        struct attempt_failure f = {.cause = why->is_tls ? CAUSE_TLS : CAUSE_CONNECT,
                                    .code = lend_code(x, why),
                                    .delivered = DELIVERED_NO,
                                    .details = slice_str(why->code)};

        (void)again_or_answer(x, &f);
    }
}

enum next step_lend(struct exchange *x)
{
    x->lend.done = on_lent;
    x->lend.is_once = !x->req->is_idempotent;
    switch (endpoint_lend(x->endpoint, exchange_pool_of(x, x->endpoint), &x->lend, &x->back)) {
    case STEP_DONE:
        exchange_enter(x, EXCHANGE_RELAY);
        return NEXT;
    case STEP_LATER:
        /* A dial has its own limit; a wait for a slot of a busy connection has this one. */
        x->wait_at = clock_now_ms() + x->worker->settings->failfast_timeout;
        limits_arm(x);
        return WAIT;
    case STEP_FAILED:
        break;
    }
    exchange_answer(x, CODE_MEMORY, DELIVERED_NO, SLICE_LIT(""));
    return END;
}
