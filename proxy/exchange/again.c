/* Failed attempts: is there another one? The proxy knows whether it can be made (the content
 * was kept), the server's side knows whether it is safe (delivered), weft-retry decides. */
#include "proxy/exchange/exchange_priv.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "model/classify.h"
#include "proxy/http/stream.h"

#include <stdio.h>

const struct wire_retry_policy *again_policy(const struct exchange *x)
{
    return x->rule != NULL && x->rule->has_retry && x->rule->n_retry > 0 ? &x->rule->retry[0]
                                                                         : NULL;
}

bool again_is_last(const struct exchange *x)
{
    const struct wire_retry_policy *p = again_policy(x);

    return p == NULL || x->failures >= p->limit;
}

bool again_wants_status(const struct exchange *x, uint16_t status)
{
    const struct wire_retry_policy *p = again_policy(x);

    if (p == NULL)
        return false;
    for (size_t i = 0; i < p->n_statuses; i++)
        if (status >= p->statuses[i].low && status <= p->statuses[i].high)
            return true;
    return false;
}

bool again_wants_grpc(const struct exchange *x, uint32_t status)
{
    const struct wire_retry_policy *p = again_policy(x);

    return p != NULL && status < 32 && (p->grpc_statuses >> status & 1) != 0;
}

/* Whether repeating is allowed even if the application may have seen the request. */
static bool is_replayable(const struct exchange *x, const struct attempt_failure *f)
{
    const struct wire_retry_policy *p = again_policy(x);

    if (x->req->is_idempotent)
        return true;
    if (p == NULL)
        return false;
    if (f->status >= 1000)
        return again_wants_grpc(x, f->status - 1000u);
    if (f->cause == CAUSE_PER_TRY)
        return p->per_try_ms > 0;
    return again_wants_status(x, f->status != 0 ? f->status : code_info(f->code)->http);
}

static void count_refusal(struct exchange *x, slice_t reason)
{
    char text[33];

    if (!slice_to_cstr(reason, text, sizeof(text)))
        (void)strcpy(text, "UNKNOWN");
    tally_retry_refused(x->worker->tallies, text);
    if (slice_is_str(reason, "LIMIT"))
        tally_retry(x->worker->tallies, SERIES_RETRY_LIMIT, x->parent, x->rule->route);
    else if (slice_is_str(reason, "BUDGET"))
        tally_retry(x->worker->tallies, SERIES_RETRY_OVERFLOW, x->parent, x->rule->route);
}

/* No further attempt: the held response, or an answer of our own. */
static void give_in(struct exchange *x, slice_t reason)
{
    if (reason.n > 0)
        count_refusal(x, reason);
    if (x->held != NULL)
        relay_unhold(x);
    else
        exchange_answer(x, x->fail_code, x->fail_delivered, slice_str(x->fail_details));
}

static void next_attempt(struct exchange *x)
{
    if (!x->keeps) {
        /* Content went over the limit while we waited. */
        x->fail_code = CODE_REPLAY_REFUSED;
        give_in(x, slice_str(x->not_kept != NULL ? x->not_kept : "TOO_LARGE"));
        return;
    }
    x->backend = NULL; /* backends are chosen anew, too */
    x->share = NULL;
    x->picks = 0;
    content_rewind(&x->content);
    exchange_enter(x, EXCHANGE_BALANCE);
    exchange_run(x);
}

/* ---- the verdict ---- */

static void on_go(struct ask *a, uint32_t after_ms)
{
    struct exchange *x = CONTAINER_OF(a, struct exchange, ask);

    if (x->held != NULL) {
        exchange_tally_end(x, x->status, false, x->peer_code);
        relay_drop_back(x, STREAM_CANCELLED);
        relay_drop_held(x);
    }
    x->attempt_at = x->try_at = 0; /* of the attempt that is over */
    exchange_enter(x, EXCHANGE_PAUSE);
    if (after_ms == 0) {
        next_attempt(x);
        return;
    }
    x->wait_at = clock_now_ms() + after_ms;
    limits_arm(x);
}

static void on_stop(struct ask *a, slice_t reason)
{
    give_in(CONTAINER_OF(a, struct exchange, ask), reason);
}

static err_t send_question(struct exchange *x, const struct attempt_failure *f)
{
    const struct wire_retry_policy *p = again_policy(x);
    uint64_t now = clock_now_ms();
    struct wire_retry_policy copy;
    struct wire_retry_ask q = {
        .service = slice_str(x->parent->key),
        .route = x->rule->route,
        .attempt = x->failures > 255 ? 255 : (uint8_t)x->failures,
        .delivered = (uint8_t)f->delivered,
        .cause = (uint8_t)f->cause,
        .status = f->status,
        .is_replayable = is_replayable(x, f),
        .left_ms = x->request_at == 0    ? UINT32_MAX
                   : x->request_at > now ? (uint32_t)(x->request_at - now)
                                         : 0,
    };

    if (p != NULL) {
        copy = *p;
        q.policy = &copy;
        q.n_policy = 1;
    }
    x->ask.go = on_go;
    x->ask.stop = on_stop;
    return asks_ask(x->worker->asks, &x->ask, &q);
}

/* Why there is no point in asking; empty: there is. */
static const char *hopeless(const struct exchange *x, const struct attempt_failure *f)
{
    if (x->parent == NULL || x->rule == NULL)
        return "NO_SERVICE";
    if (!x->keeps)
        return x->not_kept != NULL ? x->not_kept : "TOO_LARGE";
    if (f->delivered != DELIVERED_NO && x->is_tunnel_wanted)
        return "STREAMING";
    return "";
}

/* True: the question is on its way. */
static bool ask(struct exchange *x, const struct attempt_failure *f)
{
    const char *why = hopeless(x, f);

    if (why[0] == 0 && send_question(x, f) != OK)
        why = "NO_VERDICT";
    if (why[0] != 0) {
        tally_retry_refused(x->worker->tallies, why);
        return false;
    }
    exchange_enter(x, EXCHANGE_ASK);
    x->wait_at = clock_now_ms() + x->worker->settings->retry_ask_timeout;
    x->try_at = 0;
    limits_arm(x);
    return true;
}

static void remember(struct exchange *x, const struct attempt_failure *f)
{
    x->failures++;
    x->avoid = x->endpoint;
    x->fail_code = f->code;
    x->fail_delivered = f->delivered;
    if (!slice_to_cstr(slice(f->details.p, f->details.n < 159 ? f->details.n : 159),
                       x->fail_details, sizeof(x->fail_details)))
        x->fail_details[0] = 0;
}

enum next again_or_answer(struct exchange *x, const struct attempt_failure *f)
{
    remember(x, f);
    exchange_tally_end(x, 0, false, f->code);
    relay_drop_back(x, STREAM_CANCELLED);
    x->attempt_at = x->try_at = 0;
    /* The side of the server only tells what it knows; the side of the client decides. */
    if (x->front->direction == DIRECTION_OUTBOUND && ask(x, f))
        return WAIT;
    give_in(x, SLICE_LIT(""));
    return END;
}

void again_ask_held(struct exchange *x, const struct attempt_failure *f)
{
    x->failures++;
    x->avoid = x->endpoint;
    x->fail_code = CODE_STREAM_RESET;
    x->fail_delivered = f->delivered;
    if (x->front->direction == DIRECTION_OUTBOUND && ask(x, f))
        return;
    relay_unhold(x);
}

/* The wait in ASK or PAUSE is over. */
void again_on_wait_end(struct exchange *x)
{
    if (x->state == EXCHANGE_PAUSE) {
        next_attempt(x);
        return;
    }
    ask_cancel(&x->ask);
    give_in(x, SLICE_LIT("NO_VERDICT"));
}
