/* The relay: events of the two streams of an exchange.
 *
 * Request content goes front -> (kept in `body` for a replay) -> back; credit goes back to the
 * front when bytes have left for the server. Response content goes back -> front, never stored,
 * unless a response is held for a verdict. */
#include "proxy/exchange/exchange_priv.h"

#include "kit/clock.h"
#include "model/classify.h"
#include "proxy/http/stream.h"

#include <stdio.h>

/* ---- the front ---- */

static void on_front_head(void *arg, struct stream *s, struct head *h, bool is_end)
{
    struct exchange *x = arg;

    (void)s;
    x->req = h;
    x->req_ended = is_end;
    exchange_run(x);
}

static bool relay_check_done(struct exchange *x);

static void on_front_body(void *arg, struct stream *s, slice_t bytes, bool is_end)
{
    struct exchange *x = arg;

    (void)s;
    limits_touch(x);
    if (x->mirrors != NULL)
        mirror_feed(x, bytes, is_end);
    if (!body_take(x, bytes, is_end)) {
        if (x->resp_started)
            exchange_cut(x, CODE_MEMORY);
        else
            exchange_answer(x, CODE_MEMORY, DELIVERED_UNKNOWN, SLICE_LIT(""));
        return;
    }
    if (x->is_tunnel)
        (void)relay_check_done(x);
    else if (is_end)
        limits_on_sent(x);
}

/* Names of the mesh in trailers are as little the application's as in heads. */
static void strip_trailers(struct field *fields, size_t n)
{
    struct head h = {.fields = fields, .n_fields = n};

    edit_strip_mesh(&h);
}

static void on_front_trailers(void *arg, struct stream *s, struct field *fields, size_t n)
{
    struct exchange *x = arg;

    (void)s;
    limits_touch(x);
    if (x->has_orig_proto)
        edit_read_trailers_case(x, x->fs->arena, &fields, &n);
    strip_trailers(fields, n);
    if (x->mirrors != NULL)
        mirror_feed(x, slice(NULL, 0), true);
    body_take_trailers(x, fields, n);
    limits_on_sent(x);
}

static void on_front_sent(void *arg, struct stream *s, size_t n)
{
    struct exchange *x = arg;

    limits_touch(x);
    x->resp_gone += n;
    if (x->bs != NULL) {
        x->bs->is_throttled = s->is_crowded;
        x->bs->ops->credit(x->bs, n);
    }
    if (x->is_cutting && x->resp_gone >= x->resp_passed)
        exchange_cut_now(x);
}

static void on_front_failed(void *arg, struct stream *s, const struct stream_failure *f)
{
    struct exchange *x = arg;

    (void)s, (void)f;
    x->fs = NULL;
    exchange_tally_end(x, x->resp_started ? x->status : 0, false, CODE_CLIENT_GONE);
    exchange_end(x);
}

const struct stream_events exchange_front_events = {
    .on_head = on_front_head,
    .on_body = on_front_body,
    .on_trailers = on_front_trailers,
    .on_sent = on_front_sent,
    .on_failed = on_front_failed,
};

/* ---- response ---- */

static void note_first_byte(struct exchange *x)
{
    if (!x->first_byte_seen) {
        x->first_byte_seen = true;
        x->first_byte_us = clock_now_us();
    }
}

/* The exchange is over when the response is; a tunnel when both directions are. True: x is
 * gone. */
static bool relay_check_done(struct exchange *x)
{
    if (!x->resp_ended || (x->is_tunnel && !x->req_ended))
        return false;
    note_first_byte(x);
    x->is_success = again_is_success(x);
    exchange_tally_end(x, x->status, x->is_success, x->peer_code);
    exchange_end(x);
    return true;
}

int16_t relay_read_grpc_status(const struct field *fields, size_t n)
{
    uint32_t status;

    for (size_t i = 0; i < n; i++)
        if (fields[i].token == FIELD_GRPC_STATUS && !fields[i].is_removed)
            return classify_parse_grpc(fields[i].value, &status) && status < GRPC_STATUSES
                       ? (int16_t)status
                       : GRPC_UNKNOWN;
    return -1;
}

static void begin_tunnel(struct exchange *x)
{
    x->is_tunnel = true;
    x->req_ended = x->req_end_sent = false;
    limits_begin_tunnel(x); /* they are of requests, not of what is said in the tunnel */
}

/* The final head goes to the front: from here there is no other attempt. */
static bool pass_head(struct exchange *x, struct head *h, bool is_end)
{
    if (edit_response(x, h) != OK) {
        relay_drop_back(x, STREAM_INTERNAL);
        exchange_answer(x, CODE_MEMORY, DELIVERED_YES, SLICE_LIT(""));
        return false;
    }
    if (x->hedges != NULL || x->hedge_at != 0)
        hedge_end_all(x);
    relay_stop_keeping(x, NULL);
    x->resp_started = true;
    limits_on_head(x);
    x->fs->ops->send_head(x->fs, h, is_end);
    if (h->status == 101 || (x->req->is_connect && h->status < 300))
        begin_tunnel(x);
    if (is_end)
        x->resp_ended = true;
    return true;
}

static void pass_body(struct exchange *x, slice_t bytes, bool is_end)
{
    note_first_byte(x);
    x->resp_passed += bytes.n;
    x->fs->ops->send_body(x->fs, bytes, is_end);
    if (x->bs != NULL)
        x->bs->is_throttled = x->fs->is_crowded;
    if (is_end)
        x->resp_ended = true;
}

static void pass_trailers(struct exchange *x, struct field *fields, size_t n)
{
    if (x->fs->version != HTTP_2 && endpoint_is_meshed(x->endpoint))
        edit_read_trailers_case(x, &x->arena, &fields, &n);
    strip_trailers(fields, n);
    if (x->has_orig_case)
        (void)edit_send_trailers_case(&x->arena, &fields, &n); /* no memory: in lower case */
    x->fs->ops->send_trailers(x->fs, fields, n);
    x->resp_ended = true;
}

void relay_unhold(struct exchange *x)
{
    struct head *h = x->held;
    slice_t body = buf_slice(&x->held_body);

    x->held = NULL;
    x->holds_for_grpc = false;
    if (x->state == EXCHANGE_ASK)
        exchange_enter(x, EXCHANGE_RELAY);
    if (!pass_head(x, h, x->held_ended && body.n == 0 && x->held_trailers == NULL))
        return;
    if (body.n > 0)
        pass_body(x, body, x->held_ended && x->held_trailers == NULL);
    buf_consume(&x->held_body, buf_len(&x->held_body));
    if (x->held_trailers != NULL)
        pass_trailers(x, x->held_trailers, x->n_held_trailers);
    if (!relay_check_done(x))
        limits_arm(x);
}

static void hold(struct exchange *x, struct head *h, bool is_end)
{
    x->held = h;
    x->held_ended = is_end;
}

void relay_drop_held(struct exchange *x)
{
    x->held = NULL;
    x->held_ended = x->holds_for_grpc = false;
    x->held_trailers = NULL;
    x->n_held_trailers = 0;
    buf_consume(&x->held_body, buf_len(&x->held_body));
}

static void pass_informational(struct exchange *x, struct head *h)
{
    /* 100 and 103 mean the same behind us; the codec bounds their number. */
    if (edit_response(x, h) == OK)
        x->fs->ops->send_head(x->fs, h, false);
}

#define HOLD_MS 1000 /* no further attempts after the server's side refused one */

enum code relay_read_peer(struct exchange *x, const struct endpoint *ep, const struct head *h, enum delivered *out)
{
    const struct field *verdict, *name;
    enum code code;

    if (!endpoint_is_meshed(ep))
        return CODE_NONE;
    verdict = head_find(h, FIELD_WEFT_DELIVERED);
    if (verdict == NULL || !delivered_parse(verdict->value, out))
        return CODE_NONE;
    name = head_find(h, FIELD_WEFT_CODE);
    code = name != NULL ? code_find(name->value) : CODE_NONE;
    if (code == CODE_ATTEMPT_REFUSED && x->parent != NULL)
        asks_hold(x->worker->asks, x->parent, HOLD_MS);
    return code != CODE_NONE ? code : CODE_INTERNAL; /* of a newer version: its own by all means */
}

/* What the application's answer says of its port. */
static enum evidence evidence_of(const struct exchange *x, const struct stream *s, const struct head *h)
{
    struct field *type;

    if (s->version != HTTP_2)
        return EVIDENCE_HTTP1;
    if (!x->is_grpc)
        return EVIDENCE_HTTP2;
    type = head_find(h, FIELD_CONTENT_TYPE);
    return type != NULL && slice_starts(type->value, SLICE_LIT("application/grpc"))
               ? EVIDENCE_GRPC
               : EVIDENCE_HTTP2;
}

static void on_back_head(void *arg, struct stream *s, struct head *h, bool is_end)
{
    struct exchange *x = arg;
    struct attempt_failure f = {.cause = CAUSE_STATUS, .status = h->status};

    (void)s;
    limits_touch(x);
    if (h->status < 200 && h->status != 101) {
        pass_informational(x, h);
        return;
    }
    endpoint_sample(x->endpoint, clock_now_us() - x->sent_us);
    x->status = h->status;
    limits_on_head(x);
    if (x->front->direction == DIRECTION_INBOUND)
        front_answered(x->front, evidence_of(x, s, h));
    if (x->is_grpc)
        x->grpc_status = relay_read_grpc_status(h->fields, h->n_fields);
    picks_on_head(x, h);
    x->peer_code = relay_read_peer(x, x->endpoint, h, &f.delivered);
    if ((x->peer_code == CODE_DEADLINE || x->grpc_status == GRPC_DEADLINE_EXCEEDED) &&
        limits_is_peers_cut(x)) {
        x->held_ended = is_end;
        limits_expire(x); /* the deadline that we had told: we know whose it was */
        return;
    }
    if (x->peer_code != CODE_NONE) {
        f.cause = CAUSE_REFUSED;
        hold(x, h, is_end);
        again_ask_held(x, &f);
        return;
    }
    f.delivered = DELIVERED_YES;
    switch (again_look_at_head(x, is_end)) {
    case AGAIN_PASS:
        break;
    case AGAIN_WANTED:
        f.status = again_failure_status(x);
        hold(x, h, is_end);
        again_ask_held(x, &f);
        return;
    case AGAIN_AFTER_TRAILERS:
        hold(x, h, false);
        x->holds_for_grpc = true;
        return;
    }
    if (pass_head(x, h, is_end) && !relay_check_done(x) && x->timer_is_on)
        limits_arm(x);
}

static void on_back_body(void *arg, struct stream *s, slice_t bytes, bool is_end)
{
    struct exchange *x = arg;

    (void)s;
    limits_touch(x);
    if (x->holds_for_grpc) {
        struct head *h = x->held;

        x->held = NULL;
        x->holds_for_grpc = false;
        if (!pass_head(x, h, false))
            return;
    }
    if (x->held != NULL) {
        /* Without credit there is at most a window of it. */
        if (buf_add_slice(&x->held_body, bytes) != OK) {
            exchange_answer(x, CODE_MEMORY, DELIVERED_YES, SLICE_LIT(""));
            return;
        }
        x->held_ended = x->held_ended || is_end;
        return;
    }
    pass_body(x, bytes, is_end);
    if (is_end)
        (void)relay_check_done(x);
}

static void on_back_trailers(void *arg, struct stream *s, struct field *fields, size_t n)
{
    struct exchange *x = arg;

    (void)s;
    limits_touch(x);
    if (x->is_grpc)
        x->grpc_status = relay_read_grpc_status(fields, n);
    picks_on_trailers(x, fields, n);
    if (x->grpc_status == GRPC_DEADLINE_EXCEEDED && limits_is_peers_cut(x)) {
        x->held_ended = true;
        limits_expire(x);
        return;
    }
    if (x->held != NULL) {
        x->held_ended = true;
        x->held_trailers = fields;
        x->n_held_trailers = n;
        if (x->holds_for_grpc) {
            struct attempt_failure f = {.cause = CAUSE_STATUS,
                                        .delivered = DELIVERED_YES,
                                        .status = again_failure_status(x)};

            x->holds_for_grpc = false;
            if (again_wants_trailers(x))
                again_ask_held(x, &f);
            else
                relay_unhold(x);
        }
        return;
    }
    pass_trailers(x, fields, n);
    (void)relay_check_done(x);
}

static void on_back_sent(void *arg, struct stream *s, size_t n)
{
    struct exchange *x = arg;

    (void)s;
    limits_touch(x);
    body_on_sent(x, n);
    limits_on_sent(x);
}

static void describe(const struct stream_failure *f, enum http_version version,
                     struct attempt_failure *out)
{
    out->cause = CAUSE_RESET;
    out->details = slice_str(f->text != NULL ? f->text : "");
    out->delivered = !f->any_sent      ? DELIVERED_NO
                     : f->any_received ? DELIVERED_YES
                                       : DELIVERED_UNKNOWN;
    switch (f->error) {
    case STREAM_REFUSED:
        out->cause = CAUSE_REFUSED;
        out->code = CODE_STREAM_RESET;
        out->delivered = DELIVERED_NO;
        break;
    case STREAM_MALFORMED:
        out->code = CODE_BAD_RESPONSE;
        break;
    case STREAM_CANCELLED:
    case STREAM_PROTOCOL:
        out->code = CODE_STREAM_RESET;
        break;
    case STREAM_LOST:
    case STREAM_TOO_LATE:
        out->code = f->was_idle_conn && !f->any_received && f->any_sent && version != HTTP_2
                        ? CODE_IDLE_RACE
                        : CODE_CLOSED_EARLY;
        break;
    case STREAM_INTERNAL:
        out->code = CODE_INTERNAL;
        break;
    }
}

/* An HTTP/2 connection that was going away when the request came (RFC 9113 6.8): not processed, says its GOAWAY, whatever
 * left. Servers that end their connections after a while or a number of requests do this all the time, to everything that is
 * under way at once; a REFUSED_STREAM is another matter: who sends it has too much to do. */
static bool is_left_behind(const struct stream_failure *f)
{
    return f->error == STREAM_REFUSED && f->http2_error == 0 && !f->any_received;
}

/* The server closed an idle connection just as it was used again (RFC 9112 9.3.1). What was provably not read goes to
 * another connection, however often (the pool may hold several that ended together; each is tried once); what may have
 * been read only once, if it may be repeated at all. */
static bool is_idle_race(const struct exchange *x, const struct stream_failure *f,
                         enum http_version version)
{
    if (is_left_behind(f))
        return x->keeps && x->races < EXCHANGE_RACES_MAX;
    if (version == HTTP_2 || !f->was_idle_conn || f->any_received || f->error != STREAM_LOST || !x->keeps)
        return false;
    return f->any_sent ? x->req->is_idempotent && !x->risked : x->races < EXCHANGE_RACES_MAX;
}

static void on_back_failed(void *arg, struct stream *s, const struct stream_failure *f)
{
    struct exchange *x = arg;
    struct attempt_failure failure = {.status = 0};
    enum http_version version = s->version;

    x->bs = NULL;
    describe(f, version, &failure);
    if (x->resp_started) {
        if (x->is_tunnel && x->resp_ended && x->req_ended)
            (void)relay_check_done(x);
        else
            limits_cut(x, CODE_RESPONSE_CUT);
        return;
    }
    ask_cancel(&x->ask); /* about a held response that is not complete now */
    relay_drop_held(x);
    if (x->state == EXCHANGE_ASK)
        exchange_enter(x, EXCHANGE_RELAY);
    if (is_idle_race(x, f, version)) {
        x->raced = true;
        x->risked = x->risked || (f->any_sent && !is_left_behind(f));
        x->races++;
        x->attempt--;
        x->is_excused = true;
        if (is_left_behind(f) && x->is_tallied) { /* nobody's failure */
            picks_on_end(x, 0, false, failure.code);
            exchange_tally_abandoned(x);
        }
        exchange_tally_end(x, 0, false, failure.code);
        x->is_excused = false;
        if (x->is_begun)
            endpoint_end(x->endpoint);
        x->is_begun = false;
        content_rewind(&x->content);
        exchange_enter(x, EXCHANGE_LEND);
        exchange_run(x);
        return;
    }
    (void)again_or_answer(x, &failure);
}

const struct stream_events exchange_back_events = {
    .on_head = on_back_head,
    .on_body = on_back_body,
    .on_trailers = on_back_trailers,
    .on_sent = on_back_sent,
    .on_failed = on_back_failed,
};

/* ---- an attempt ---- */

void relay_drop_back(struct exchange *x, enum stream_error why)
{
    struct stream *bs = x->bs;

    x->bs = NULL;
    x->back = NULL;
    if (x->is_begun) {
        uint64_t took = clock_now_us() - x->sent_us;

        /* No answer is no proof of speed: it counts only where it is worse than what is known.
         */
        if (x->status == 0 && (double)took > x->endpoint->rtt_us)
            endpoint_sample(x->endpoint, took);
        endpoint_end(x->endpoint);
    } else {
        picks_unsent(x);
    }
    x->is_begun = false;
    if (bs != NULL) {
        if (x->resp_ended || x->held_ended)
            bs->ops->release(bs);
        else
            bs->ops->reset(bs, why);
    }
    endpoint_unref(&x->endpoint);
}

err_t relay_make_head(struct exchange *x, const struct relay_sending *s, struct head *out)
{
    bool to_mesh = x->front->direction == DIRECTION_OUTBOUND && endpoint_is_meshed(s->endpoint);

    *out = *x->req;
    if (x->share != NULL && x->share->n_filters > 0) {
        TRY(head_copy(x->req, s->arena, out));
        for (size_t i = 0; i < x->share->n_filters; i++)
            if (x->share->filters[i].kind == ROUTE_FILTER_REQUEST_HEADERS)
                TRY(edit_apply(&x->share->filters[i], out, s->arena));
    }
    TRY(limits_write(x, to_mesh, out, s->arena));
    if (!to_mesh)
        return OK;
    if (x->fs->version != HTTP_2 && s->bs->version == HTTP_2) {
        TRY(edit_write_orig_proto(x, out, s->arena));
        if (out->authority.n == 0)
            out->authority = slice_str(x->front->dst_text); /* HTTP/1.0 without Host */
    }
    if (s->number > 1) {
        char text[12];
        slice_t n;

        (void)snprintf(text, sizeof(text), "%u", s->number);
        n = arena_copy(s->arena, slice_str(text));
        TRY(head_add(out, s->arena, SLICE_LIT("weft-attempt"), n));
    }
    return OK;
}

static void count_attempt(struct exchange *x)
{
    struct tallies *t = x->worker->tallies;

    if (x->front->direction == DIRECTION_INBOUND)
        x->tally = x->front->tally;
    else
        x->tally = tally_outbound(t, x->parent, x->backend, x->endpoint, x->rule->route);
    tally_request(x->tally);
    x->is_tallied = true;
    if (x->failures > 0)
        tally_retry(t, SERIES_RETRY_REQUESTS, x->parent, x->rule->route);
    again_note_request(x);
}

enum next relay_dispatch(struct exchange *x)
{
    struct relay_sending sending = {
        .endpoint = x->endpoint, .arena = &x->arena, .number = x->failures + x->n_hedged + 1};
    struct head h;
    bool is_end;

    arena_reset(&x->arena);
    x->bs = http_back_open(x->back, &x->arena, &exchange_back_events, x);
    if (x->bs == NULL) {
        /* The slot went to somebody else between the offer and now; more than a few times is no
         * accident. */
        if (++x->picks > 4 * EXCHANGE_PICKS_MAX) {
            exchange_answer(x, CODE_MEMORY, DELIVERED_NO, SLICE_LIT(""));
            return END;
        }
        exchange_enter(x, EXCHANGE_LEND);
        return NEXT;
    }
    x->bs->is_throttled = x->fs != NULL && x->fs->is_crowded;
    x->attempt++;
    x->status = 0;
    x->grpc_status = -1;
    x->is_hedge = false;
    sending.bs = x->bs;
    if (relay_make_head(x, &sending, &h) != OK) {
        exchange_answer(x, CODE_MEMORY, DELIVERED_NO, SLICE_LIT(""));
        return END;
    }
    endpoint_begin(x->endpoint);
    x->is_begun = true;
    x->sent_us = clock_now_us();
    count_attempt(x);
    is_end = body_begin(x);
    x->bs->ops->send_head(x->bs, &h, is_end);
    if (!is_end)
        body_pump(x);
    limits_begin_attempt(x);
    hedge_plan(x);
    return WAIT;
}
