/* Failed attempts: is there another one? The proxy knows whether it can be made (the content
 * was kept), the server's side knows whether it is safe (delivered), weft-retry decides. */
#include "proxy/exchange/exchange_priv.h"

#include "kit/clock.h"
#include "proxy/http/stream.h"

void again_count_refusal(struct exchange *x, slice_t reason)
{
    struct tallies *t = x->worker->tallies;
    slice_t route = x->rule != NULL ? x->rule->route : SLICE_LIT("");
    char text[33];

    if (!slice_to_cstr(reason, text, sizeof(text)))
        (void)strcpy(text, "UNKNOWN");
    tally_retry_refused(t, x->parent, route, text);
    if (slice_is_str(reason, "LIMIT"))
        tally_retry(t, SERIES_RETRY_LIMIT, x->parent, route);
    else if (slice_is_str(reason, "BUDGET") || slice_is_str(reason, "NOT_READY"))
        tally_retry(t, SERIES_RETRY_OVERFLOW, x->parent, route);
}

/* No further attempt: the held response, or an answer of our own. */
static void give_in(struct exchange *x, slice_t reason)
{
    if (reason.n > 0)
        again_count_refusal(x, reason);
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
    exchange_enter(x, EXCHANGE_ROUTE); /* the rule stays; the backend and its faults are new */
    exchange_run(x);
}

/* ---- the verdict ---- */

/* Whether an endpoint is ready for another attempt: an answer that is here is not given up for a wait. */
static bool has_ready(const struct exchange *x)
{
    for (size_t i = 0; i < x->rule->n_backends; i++) {
        const struct wire_weighted *share = &x->rule->backends[i];

        if (share->weight > 0 && share->backend < x->dest->n_backends &&
            backend_has_ready(x->dest->backends[share->backend]))
            return true;
    }
    return false;
}

static void on_go(struct ask *a, uint32_t after_ms)
{
    struct exchange *x = CONTAINER_OF(a, struct exchange, ask);

    if (x->held != NULL && !has_ready(x)) {
        give_in(x, SLICE_LIT("NOT_READY"));
        return;
    }
    if (x->held != NULL) {
        exchange_tally_end(x, x->status, false, x->peer_code);
        relay_drop_back(x, STREAM_CANCELLED);
        relay_drop_held(x);
    }
    limits_end_attempt(x);
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

void again_note_request(struct exchange *x)
{
    if (x->is_noted || x->parent == NULL)
        return;
    x->is_noted = true;
    asks_note(x->worker->asks, x->parent, true, false);
}

err_t again_send_question(struct exchange *x, struct ask *a, const struct attempt_failure *f,
                          unsigned attempt, bool is_replayable)
{
    uint64_t now = clock_now_ms();
    struct wire_retry_policy terms;
    struct wire_retry_ask q = {
        .service = slice_str(x->parent->key),
        .route = x->rule->route,
        .attempt = attempt > 255 ? 255 : (uint8_t)attempt,
        .delivered = (uint8_t)f->delivered,
        .cause = (uint8_t)f->cause,
        .status = f->status,
        .is_replayable = is_replayable,
        .left_ms = x->request_at == 0    ? UINT32_MAX
                   : x->request_at > now ? (uint32_t)(x->request_at - now)
                                         : 0,
    };

    if (again_terms(x, &terms)) {
        q.policy = &terms;
        q.n_policy = 1;
    }
    again_note_request(x);
    return asks_ask(x->worker->asks, a, &q);
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

    x->ask.go = on_go;
    x->ask.stop = on_stop;
    if (why[0] == 0 &&
        again_send_question(x, &x->ask, f, x->failures, again_is_replayable(x, f)) != OK)
        why = "NO_VERDICT";
    if (why[0] != 0) {
        again_count_refusal(x, slice_str(why));
        return false;
    }
    exchange_enter(x, EXCHANGE_ASK);
    x->wait_at = clock_now_ms() + x->worker->settings->retry_ask_timeout;
    limits_on_head(x);
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
    limits_end_attempt(x);
    x->hedge_at = 0;
    if (x->hedges != NULL && hedge_take_over(x))
        return WAIT;
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
    x->hedge_at = 0;
    if (x->hedges != NULL) {
        if (hedge_is_running(x)) {
            exchange_tally_end(x, x->status, false, x->peer_code);
            relay_drop_back(x, STREAM_CANCELLED);
            relay_drop_held(x);
        }
        if (hedge_take_over(x))
            return;
    }
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
