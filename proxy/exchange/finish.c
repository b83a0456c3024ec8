/* Answers of the mesh, limits of time, and what is counted at the end. */
#include "proxy/exchange/exchange_priv.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "proxy/http/stream.h"

#include <stdio.h>

#define CUT_WAIT_MS 2000 /* longest wait for a slow client before its response is cut */

/* ---- answers ---- */

static void send_answer(struct exchange *x, struct answer *a)
{
    struct head h;
    const struct code_info *info = code_info(a->code);
    bool is_inbound = x->front->direction == DIRECTION_INBOUND;

    a->direction = x->front->direction;
    a->is_grpc = x->is_grpc;
    a->next_hop = slice_str(x->hop);
    a->tells_delivered = is_inbound && x->front->is_mesh;
    tally_mesh_answer(x->worker->tallies, a->direction, info->id);
    if (x->fs == NULL) {
        exchange_end(x);
        return;
    }
    if (x->attempt == 0 && !x->raced) {
        /* Nothing was tried, so nothing has counted this request yet. */
        x->tally = is_inbound
                       ? x->front->tally
                       : tally_outbound(x->worker->tallies, x->parent, x->backend, NULL,
                                        x->rule != NULL ? x->rule->route : SLICE_LIT(""));
        tally_request(x->tally);
        x->is_tallied = true;
        exchange_tally_end(x, a->status != 0 ? a->status : info->http, info->http < 500,
                           a->code);
    }
    if (answer_build(a, x->fs->arena, &h) != OK ||
        (x->has_orig_proto && head_add(&h, x->fs->arena, SLICE_LIT("l5d-orig-proto"),
                                       SLICE_LIT("HTTP/1.1")) != OK)) {
        struct stream *fs = x->fs;

        x->fs = NULL;
        fs->ops->reset(fs, STREAM_INTERNAL);
        exchange_end(x);
        return;
    }
    log_debug("answered by the mesh", "direction=%s code=%s status=%u attempts=%u",
              direction_name(a->direction), info->name, h.status, x->attempt);
    x->resp_started = true;
    x->fs->ops->send_head(x->fs, &h, true);
    x->resp_ended = true;
    exchange_end(x);
}

void exchange_answer(struct exchange *x, enum code code, enum delivered delivered,
                     slice_t details)
{
    struct answer a = {.code = code, .delivered = delivered, .details = details};

    BUG_ON(x->resp_started);
    relay_drop_back(x, STREAM_CANCELLED);
    send_answer(x, &a);
}

void exchange_answer_redirect(struct exchange *x, uint16_t status, slice_t location)
{
    struct answer a = {.code = CODE_REDIRECT,
                       .status = status,
                       .location = location,
                       .details = x->rule->route};

    send_answer(x, &a);
}

void exchange_answer_injected(struct exchange *x, uint16_t status)
{
    struct answer a = {.code = CODE_INJECTED, .status = status, .details = x->rule->route};

    send_answer(x, &a);
}

void exchange_cut_now(struct exchange *x)
{
    struct stream *fs = x->fs;
    struct field trailers[2];
    size_t n;

    if (fs != NULL && x->is_grpc &&
        (n = answer_grpc_trailers(x->cut_code, fs->arena, trailers)) > 0) {
        fs->ops->send_trailers(fs, trailers,
                               n); /* the stream ends as gRPC clients understand it */
    } else if (fs != NULL) {
        x->fs = NULL;
        fs->ops->reset(fs, STREAM_LOST);
    }
    exchange_end(x);
}

void exchange_cut(struct exchange *x, enum code code)
{
    exchange_tally_end(x, x->status, false, code);
    tally_mesh_answer(x->worker->tallies, x->front->direction, code_info(code)->id);
    x->cut_code = code;
    relay_drop_back(x, STREAM_CANCELLED);
    if (x->fs == NULL || x->is_tunnel || x->resp_gone >= x->resp_passed) {
        exchange_cut_now(x);
        return;
    }
    /* A reset overtakes what is queued: first the client gets what came. */
    x->is_cutting = true;
    x->request_at = x->attempt_at = x->try_at = 0;
    x->wait_at = clock_now_ms() + CUT_WAIT_MS;
    limits_arm(x);
}

void exchange_tally_end(struct exchange *x, uint16_t status, bool is_success, enum code code)
{
    struct tally_end end = {.status = status,
                            .grpc_status = x->grpc_status,
                            .is_success = is_success,
                            .error = code == CODE_NONE ? "" : code_info(code)->id,
                            .latency_us = UINT64_MAX};

    if (!x->is_tallied)
        return;
    x->is_tallied = false;
    if (x->first_byte_seen)
        end.latency_us = x->first_byte_us - (x->failures > 0 ? x->sent_us : x->begun_us);
    tally_response(x->worker->tallies, x->tally, &end);
    if (!is_success || x->parent == NULL)
        return;
    asks_note(x->worker->asks, x->parent, false, true);
    if (x->failures > 0)
        tally_retry(x->worker->tallies, SERIES_RETRY_SUCCESSES, x->parent, x->rule->route);
}

/* ---- limits ---- */

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a == 0 ? b : b == 0 || a < b ? a : b;
}

static uint64_t idle_at(const struct exchange *x)
{
    return x->rule != NULL && x->rule->idle_ms > 0 && !x->is_cutting
               ? x->last_ms + x->rule->idle_ms
               : 0;
}

/* The limits of an attempt run while there is one: an answer that waits for a verdict, a backoff and
 * the search for another connection have limits of their own. */
static uint64_t while_relaying(const struct exchange *x, uint64_t at)
{
    return x->state == EXCHANGE_RELAY ? at : 0;
}

void limits_arm(struct exchange *x)
{
    uint64_t attempt_at = while_relaying(x, sooner(x->attempt_at, x->try_at));
    uint64_t at = sooner(sooner(x->request_at, attempt_at), sooner(x->wait_at, idle_at(x)));
    uint64_t now;

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

/* The rule whose limit cut the request, by name. */
static void print_limit(const struct exchange *x, const char *what, uint32_t ms, char out[160])
{
    if (x->rule->route.n > 0)
        (void)snprintf(out, 160, "%s limit of %u ms of %.*s", what, ms,
                       x->rule->route.n > 100 ? 100 : (int)x->rule->route.n,
                       (const char *)x->rule->route.p);
    else
        (void)snprintf(out, 160, "%s limit of %u ms of %s", what, ms,
                       x->parent != NULL ? x->parent->key : "?");
}

static enum delivered delivered_so_far(const struct exchange *x)
{
    return x->attempt == 0 ? DELIVERED_NO : DELIVERED_UNKNOWN;
}

static void on_final_limit(struct exchange *x, enum code code, const char *what, uint32_t ms)
{
    char text[160];

    if (x->resp_started) {
        exchange_cut(x, code);
        return;
    }
    print_limit(x, what, ms, text);
    exchange_tally_end(x, 0, false, code);
    exchange_answer(x, code, delivered_so_far(x), slice_str(text));
}

static void on_attempt_limit(struct exchange *x, enum code code, const char *what, uint32_t ms)
{
    char text[160];
    struct attempt_failure f = {
        .cause = CAUSE_PER_TRY, .code = code, .delivered = DELIVERED_UNKNOWN};

    if (x->resp_started) {
        exchange_cut(x, code);
        return;
    }
    print_limit(x, what, ms, text);
    f.details = slice_str(text);
    (void)again_or_answer(x, &f);
}

static void on_wait_end(struct exchange *x)
{
    x->wait_at = 0;
    switch (x->state) {
    case EXCHANGE_BALANCE:
        exchange_answer(x, CODE_NO_ENDPOINT, DELIVERED_NO, slice_str(x->backend->key));
        break;
    case EXCHANGE_LEND:
        exchange_answer(x, CODE_QUEUE_FULL, DELIVERED_NO,
                        SLICE_LIT("no free slot on a connection to the endpoint"));
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
    case EXCHANGE_ROUTE:
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
        on_final_limit(x, CODE_REQUEST_TIMEOUT, "request", x->rule->request_ms);
    else if (is_due(while_relaying(x, x->try_at), now))
        on_attempt_limit(x, CODE_PER_TRY_TIMEOUT, "per-try", x->rule->retry[0].per_try_ms);
    else if (is_due(while_relaying(x, x->attempt_at), now))
        on_attempt_limit(x, CODE_BACKEND_TIMEOUT, "backend request", x->rule->backend_ms);
    else if (is_due(x->wait_at, now))
        on_wait_end(x);
    else if (is_due(idle_at(x), now))
        on_final_limit(x, CODE_IDLE_TIMEOUT, "idle", x->rule->idle_ms);
    else
        limits_arm(x);
}
