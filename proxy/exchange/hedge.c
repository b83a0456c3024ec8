#include "proxy/exchange/hedge.h"

#include "proxy/exchange/exchange_priv.h"

#include "kit/clock.h"
#include "proxy/http/stream.h"

#include <stdlib.h>

#define HEDGES_DEFAULT 2u /* attempts at once */
#define HEDGES_MAX     8u

enum hedge_state { HEDGE_ASKED, HEDGE_LENDING, HEDGE_SENT };

struct hedge {
    struct hedge *next; /* x->hedges */
    struct exchange *x;
    enum hedge_state state;
    struct ask ask;
    struct lend lend;
    struct endpoint *endpoint; /* a reference */
    struct http_back *back;
    struct stream *bs; /* SENT */
    struct arena arena;
    struct http_tally *tally;
    uint64_t sent_us, attempt_at;
    size_t gone; /* content that has left */
};

static void count(struct exchange *x, const char *result)
{
    tally_hedge(x->worker->tallies, x->parent, x->rule->route, result);
}

static void refuse(struct exchange *x, const char *reason)
{
    tally_retry_refused(x->worker->tallies, x->parent, x->rule->route, reason);
}

static void unlink_hedge(struct hedge *h)
{
    struct hedge **at = &h->x->hedges;

    while (*at != h)
        at = &(*at)->next;
    *at = h->next;
}

/* Of a hedge that is in nobody's list and has no stream any more. */
static void hedge_free(struct hedge *h)
{
    endpoint_unref(&h->endpoint);
    arena_done(&h->arena);
    free(h);
}

/* Its request is counted: an attempt that we gave up ourselves is neither success nor failure. */
static void tally_sent(struct hedge *h, uint16_t status, bool is_ours)
{
    struct tally_end end = {.status = status,
                            .grpc_status = -1,
                            .is_abandoned = is_ours,
                            .error = "",
                            .latency_us = UINT64_MAX};

    tally_response(h->x->worker->tallies, h->tally, &end);
}

/* Given up or failed; status: of the answer that did not win, 0 none. */
static void hedge_end(struct hedge *h, const char *result, uint16_t status)
{
    uint64_t took;

    unlink_hedge(h);
    ask_cancel(&h->ask);
    lend_cancel(&h->lend);
    if (h->state == HEDGE_SENT) {
        took = clock_now_us() - h->sent_us;
        if (status != 0 || (double)took > h->endpoint->rtt_us)
            endpoint_sample(h->endpoint, took);
        endpoint_end(h->endpoint);
        tally_sent(h, status, status == 0 && h->bs != NULL);
        count(h->x, result);
    }
    if (h->endpoint != NULL)
        backend_unpick(h->x->backend, h->endpoint); /* who lost says nothing to the breaker */
    if (h->bs != NULL)
        h->bs->ops->reset(h->bs, STREAM_CANCELLED);
    hedge_free(h);
}

void hedge_end_all(struct exchange *x)
{
    x->hedge_at = 0;
    while (x->hedges != NULL)
        hedge_end(x->hedges, "lost", 0);
}

/* ---- it leads ---- */

/* The former leader is gone. */
static void lead(struct hedge *h)
{
    struct exchange *x = h->x;
    struct arena arena = x->arena;

    unlink_hedge(h);
    lend_cancel(&x->lend);
    pick_wait_cancel(&x->pick);
    if (x->state != EXCHANGE_RELAY)
        exchange_enter(x, EXCHANGE_RELAY);
    x->arena = h->arena;
    h->arena = arena;
    x->bs = h->bs;
    x->bs->arena = &x->arena;
    x->bs->events = &exchange_back_events;
    x->bs->arg = x;
    x->back = h->back;
    x->endpoint = h->endpoint;
    h->endpoint = NULL;
    memcpy(x->hop, x->endpoint->text, sizeof(x->hop));
    x->is_begun = x->is_tallied = true;
    x->tally = h->tally;
    x->sent_us = h->sent_us;
    x->is_hedge = true;
    x->status = 0;
    x->grpc_status = -1;
    content_gave(&x->content, content_left(&x->content));
    x->body_out = content_len(&x->content);
    x->back_gone = h->gone;
    x->req_end_sent = true;
    body_on_sent(x, 0);
    limits_end_attempt(x);
    x->attempt_at = h->attempt_at;
    limits_arm(x);
    hedge_free(h);
}

static struct hedge *sent_one(const struct exchange *x)
{
    struct hedge *h = x->hedges;

    while (h != NULL && h->state != HEDGE_SENT)
        h = h->next;
    return h;
}

bool hedge_is_running(const struct exchange *x)
{
    return sent_one(x) != NULL;
}

bool hedge_take_over(struct exchange *x)
{
    struct hedge *h = sent_one(x);

    if (h == NULL) {
        hedge_end_all(x);
        return false;
    }
    count(x, "took_over");
    lead(h);
    return true;
}

/* ---- its stream ---- */

/* An answer that the leader's could still do better than. */
static bool is_no_good(const struct hedge *h, const struct head *head, bool is_end)
{
    struct exchange *x = h->x;
    uint16_t status = x->status;
    int16_t grpc = x->grpc_status;
    enum delivered delivered;
    enum again_look look;

    if (relay_read_peer(x, h->endpoint, head, &delivered) != CODE_NONE)
        return true;
    x->status = head->status;
    x->grpc_status = x->is_grpc ? relay_read_grpc_status(head->fields, head->n_fields) : -1;
    look = again_look_at_head(x, is_end);
    x->status = status;
    x->grpc_status = grpc;
    return look == AGAIN_WANTED;
}

static void on_head(void *arg, struct stream *s, struct head *head, bool is_end)
{
    struct hedge *h = arg;
    struct exchange *x = h->x;

    limits_touch(x);
    if (head->status < 200 && head->status != 101)
        return; /* of an attempt that may never be seen */
    if (is_no_good(h, head, is_end)) {
        hedge_end(h, "failed", head->status);
        return;
    }
    count(x, "won");
    exchange_tally_abandoned(x);
    relay_drop_held(x);
    relay_drop_back(x, STREAM_CANCELLED);
    lead(h);
    exchange_back_events.on_head(x, s, head, is_end);
}

static void on_body(void *arg, struct stream *s, slice_t bytes, bool is_end)
{
    (void)arg, (void)s, (void)bytes, (void)is_end; /* a head comes first, and the end of the hedge with it */
}

static void on_trailers(void *arg, struct stream *s, struct field *fields, size_t n)
{
    (void)arg, (void)s, (void)fields, (void)n;
}

static void on_sent(void *arg, struct stream *s, size_t n)
{
    struct hedge *h = arg;

    (void)s;
    h->gone += n;
}

static void on_failed(void *arg, struct stream *s, const struct stream_failure *f)
{
    struct hedge *h = arg;

    (void)s, (void)f;
    h->bs = NULL;
    hedge_end(h, "failed", 0);
}

static const struct stream_events hedge_events = {
    .on_head = on_head,
    .on_body = on_body,
    .on_trailers = on_trailers,
    .on_sent = on_sent,
    .on_failed = on_failed,
};

/* ---- the way there ---- */

static void hedge_send(struct hedge *h)
{
    struct exchange *x = h->x;
    struct tallies *t = x->worker->tallies;
    slice_t body = buf_slice(&x->content.mem);
    struct relay_sending sending = {.endpoint = h->endpoint,
                                    .arena = &h->arena,
                                    .number = x->failures + x->n_hedged + 2};
    struct head head;

    h->bs = http_back_open(h->back, &h->arena, &hedge_events, h);
    if (h->bs == NULL) {
        hedge_end(h, "failed", 0);
        return;
    }
    sending.bs = h->bs;
    if (relay_make_head(x, &sending, &head) != OK) {
        hedge_end(h, "failed", 0);
        return;
    }
    x->n_hedged++;
    h->state = HEDGE_SENT;
    h->sent_us = clock_now_us();
    h->attempt_at = x->rule->backend_ms > 0 ? clock_now_ms() + x->rule->backend_ms : 0;
    endpoint_begin(h->endpoint);
    h->tally = tally_outbound(t, x->parent, x->backend, h->endpoint, x->rule->route);
    tally_request(h->tally);
    count(x, "sent");
    h->bs->ops->send_head(h->bs, &head, body.n == 0);
    if (body.n > 0)
        h->bs->ops->send_body(h->bs, body, true);
}

static void on_lent(struct lend *l, struct http_back *back, const struct lend_failure *why)
{
    struct hedge *h = CONTAINER_OF(l, struct hedge, lend);

    (void)why;
    if (back == NULL) {
        hedge_end(h, "failed", 0);
        return;
    }
    h->back = back;
    hedge_send(h);
}

static void on_go(struct ask *a, uint32_t after_ms)
{
    struct hedge *h = CONTAINER_OF(a, struct hedge, ask);

    (void)after_ms; /* it has waited long enough */
    h->state = HEDGE_LENDING;
    h->lend.done = on_lent;
    switch (endpoint_lend(h->endpoint, exchange_pool_of(h->x, h->endpoint), &h->lend, &h->back)) {
    case STEP_DONE:
        hedge_send(h);
        return;
    case STEP_LATER:
        return;
    case STEP_FAILED:
        break;
    }
    hedge_end(h, "failed", 0);
}

static void on_stop(struct ask *a, slice_t reason)
{
    struct hedge *h = CONTAINER_OF(a, struct hedge, ask);

    again_count_refusal(h->x, reason);
    h->x->hedge_at = 0; /* nor a further one */
    hedge_end(h, "failed", 0);
}

static err_t ask(struct hedge *h)
{
    struct exchange *x = h->x;
    struct attempt_failure f = {.cause = CAUSE_HEDGE, .delivered = DELIVERED_UNKNOWN};

    h->ask.go = on_go;
    h->ask.stop = on_stop;
    return again_send_question(x, &h->ask, &f, x->failures + x->n_hedged + 1, true);
}

/* ---- when ---- */

/* Whether the request may run twice at once: its method may be repeated, or the rule names the method beside its
 * hedge, or it is a profile's route that is said to be retryable. */
static bool is_allowed(const struct exchange *x)
{
    return x->front->direction == DIRECTION_OUTBOUND && !x->is_tunnel_wanted && x->backend != NULL &&
           (x->req->is_idempotent || (x->match != NULL && x->match->method.n > 0) || x->rule->retries_failures);
}

static unsigned most(const struct wire_retry_policy *p)
{
    unsigned n = p->hedge_max == 0 ? HEDGES_DEFAULT : p->hedge_max;

    return n < HEDGES_MAX ? n : HEDGES_MAX;
}

void hedge_plan(struct exchange *x)
{
    const struct wire_retry_policy *p = again_policy(x);

    x->hedge_at = 0;
    if (p == NULL || p->hedge_ms == 0 || most(p) < 2 || !is_allowed(x))
        return;
    x->hedge_at = clock_now_ms() + p->hedge_ms;
    limits_arm(x);
}

/* An endpoint where none of the attempts runs. */
static struct endpoint *choose(struct exchange *x)
{
    struct endpoint *ep = picks_choose(x, x->endpoint);

    if (ep == NULL || ep == x->endpoint)
        return NULL;
    for (const struct hedge *h = x->hedges; h != NULL; h = h->next)
        if (h->endpoint == ep)
            return NULL;
    return ep;
}

static unsigned running(const struct exchange *x)
{
    unsigned n = 1;

    for (const struct hedge *h = x->hedges; h != NULL; h = h->next)
        n++;
    return n;
}

/* "": another attempt was asked for. */
static const char *try_begin(struct exchange *x)
{
    struct endpoint *ep;
    struct hedge *h;

    if (!x->keeps || x->content.spilled > 0)
        return x->not_kept != NULL ? x->not_kept : "TOO_LARGE";
    if (x->req_trailers != NULL)
        return "STREAMING";
    ep = choose(x);
    if (ep == NULL)
        return "NOT_READY";
    h = calloc(1, sizeof(*h));
    if (h == NULL)
        return "BUFFERS_FULL";
    h->x = x;
    arena_init(&h->arena, EXCHANGE_ARENA_MAX);
    endpoint_ref(ep);
    h->endpoint = ep;
    h->next = x->hedges;
    x->hedges = h;
    if (ask(h) == OK)
        return "";
    hedge_end(h, "failed", 0);
    return "NO_VERDICT";
}

void hedge_begin(struct exchange *x)
{
    const struct wire_retry_policy *p = again_policy(x);
    const char *why;

    x->hedge_at = 0;
    if (x->state != EXCHANGE_RELAY || x->bs == NULL || x->status != 0 || x->resp_started)
        return;
    if (!x->req_ended && x->keeps) {
        x->hedge_at = clock_now_ms() + p->hedge_ms; /* not before all of the request is here */
    } else {
        why = try_begin(x);
        if (why[0] != 0 && !x->was_hedge_refused)
            refuse(x, why);
        x->was_hedge_refused = x->was_hedge_refused || why[0] != 0;
        /* An endpoint may come yet; the other reasons stay. */
        if ((why[0] == 0 && running(x) < most(p)) || strcmp(why, "NOT_READY") == 0)
            x->hedge_at = clock_now_ms() + p->hedge_ms;
    }
    limits_arm(x);
}
