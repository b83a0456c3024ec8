/* HTTP/2 streams: their states, what the exchange may do with one (struct stream_ops), and
 * their end. See session.h for who calls whom. */
#include "proxy/http2/session.h"

#include "kit/clock.h"

#include <stdlib.h>
#include <string.h>

#define ARENA_MAX (256 * 1024)
#define SPARES_MAX                                                                             \
    (512 * 1024) /* bytes of streams that wait, per connection; given back when it is idle */
#define KEEP_MAX (32 * 1024) /* of a spare's buffers */

/* ---- states ---- */

static struct h2_stream **slot_of(struct h2_session *x, uint32_t id)
{
    return &x->slots[id / 2 % H2_SLOTS];
}

struct h2_stream *h2_stream_find(const struct h2_session *x, uint32_t id)
{
    struct h2_stream *st = x->slots[id / 2 % H2_SLOTS];

    while (st != NULL && st->id != id)
        st = st->next_in_slot;
    return st;
}

static void leave_slot(struct h2_stream *st)
{
    struct h2_stream **at = slot_of(st->of, st->id);

    while (*at != NULL && *at != st)
        at = &(*at)->next_in_slot;
    if (*at == st)
        *at = st->next_in_slot;
}

void h2_stream_enter(struct h2_stream *st, enum h2_state next)
{
    static const uint8_t may_follow[] = {
        /* by the state it comes from: bits of those that may follow */
        [H2_IDLE] = 1 << H2_OPEN | 1 << H2_CLOSED,
        [H2_OPEN] = 1 << H2_HALF_LOCAL | 1 << H2_HALF_REMOTE | 1 << H2_CLOSED,
        [H2_HALF_LOCAL] = 1 << H2_CLOSED,
        [H2_HALF_REMOTE] = 1 << H2_CLOSED,
        [H2_CLOSED] = 0,
    };
    struct h2_session *x = st->of;

    BUG_ON((may_follow[st->state] & 1u << next) == 0);
    if (next == H2_OPEN) {
        struct h2_stream **at = slot_of(x, st->id);

        st->next_in_slot = *at;
        *at = st;
    } else if (next == H2_CLOSED && st->state != H2_IDLE) {
        leave_slot(st);
        list_del(&st->send_node);
        if (x->data.st == st)
            x->data.st = NULL;
        if (x->block.st == st)
            x->block.st = NULL;
    }
    st->state = next;
}

void h2_stream_open(struct h2_stream *st, uint32_t id)
{
    st->id = id;
    st->in.window = st->in.size = STREAM_WINDOW;
    st->out.window = st->of->peer.window;
    h2_stream_enter(st, H2_OPEN);
}

static bool is_live(const struct h2_stream *st)
{
    return st->state == H2_OPEN || st->state == H2_HALF_LOCAL || st->state == H2_HALF_REMOTE;
}

/* ---- life ---- */

/* What a spare holds. */
static size_t footprint(const struct h2_stream *st)
{
    return sizeof(*st) + st->out.bytes.cap + st->out.trailers.cap + arena_held(&st->own);
}

struct h2_stream *h2_stream_new(struct h2_session *x)
{
    struct list *node = list_pop(&x->spare);
    struct h2_stream *st;

    if (node != NULL) {
        st = CONTAINER_OF(node, struct h2_stream, node);
        x->spare_bytes -= st->weight;
        st->weight = 0;
    } else {
        st = calloc(1, sizeof(*st));
        if (st == NULL)
            return NULL;
        arena_init(&st->own, ARENA_MAX);
        buf_init(&st->out.bytes, 0);
        buf_init(&st->out.trailers, 0);
        list_init(&st->send_node);
        list_init(&st->sent_node);
        list_init(&st->doom_node);
    }
    st->of = x;
    st->opened_ms = clock_now_ms();
    st->in.expected = -1;
    st->s = (struct stream){.ops = &h2_stream_ops,
                            .conn = x->conn,
                            .arena = &st->own,
                            .version = HTTP_2,
                            .is_front = x->is_server,
                            .is_crowded = h2_is_crowded(x)};
    list_push(&x->streams, &st->node);
    x->running++;
    h2_watch(x);
    return st;
}

static void forget(struct h2_stream *st)
{
    struct buf bytes = st->out.bytes, trailers = st->out.trailers;
    struct arena own = st->own;

    buf_consume(&bytes, buf_len(&bytes));
    buf_consume(&trailers, buf_len(&trailers));
    if (bytes.cap > KEEP_MAX)
        buf_done(&bytes);
    if (trailers.cap > KEEP_MAX)
        buf_done(&trailers);
    arena_reset(&own);
    memset(st, 0, sizeof(*st));
    st->out.bytes = bytes;
    st->out.trailers = trailers;
    st->own = own;
    list_init(&st->node);
    list_init(&st->send_node);
    list_init(&st->sent_node);
    list_init(&st->doom_node);
}

static void stream_free(struct h2_stream *st)
{
    buf_done(&st->out.bytes);
    buf_done(&st->out.trailers);
    arena_done(&st->own);
    free(st);
}

void h2_stream_free_spares(struct h2_session *x)
{
    struct list *node;

    while ((node = list_pop(&x->spare)) != NULL)
        stream_free(CONTAINER_OF(node, struct h2_stream, node));
    x->spare_bytes = 0;
}

void h2_stream_let_go(struct h2_stream *st)
{
    struct h2_session *x = st->of;
    size_t weight;

    if (is_live(st) || st->is_held || st->depth > 0)
        return;
    list_del(&st->node);
    list_del(&st->send_node);
    list_del(&st->sent_node);
    list_del(&st->doom_node);
    x->running--;
    x->back.running = x->running;
    h2_drop_waiting(st, buf_len(&st->out.bytes));
    forget(st);
    weight = footprint(st);
    if (!x->is_gone && x->spare_bytes + weight <= SPARES_MAX) {
        list_push_front(&x->spare, &st->node);
        st->weight = weight;
        x->spare_bytes += weight;
    } else {
        stream_free(st);
    }
    if (x->is_gone)
        return;
    if (!x->is_server && x->back.is_retired && x->running == 0)
        h2_dirty(x); /* the end of the turn says good-bye */
    else if (!x->is_server && !x->back.is_retired && x->back.conf.on_ready != NULL)
        x->back.conf.on_ready(x->back.conf.arg, &x->back);
    else if (x->is_server && x->leaving == H2_LEAVING && x->running == 0)
        h2_dirty(x);
}

/* Content that was delivered and will not be credited any more: its room in the connection's
 * window. */
static void give_back_window(struct h2_stream *st)
{
    size_t n = st->in.outstanding;

    st->in.outstanding = 0;
    if (n > 0)
        h2_credit(st->of, n);
}

/* The exchange is gone; the stream may have things to say. */
static void detach(struct h2_stream *st)
{
    struct h2_session *x = st->of;

    st->is_held = false;
    list_del(&st->sent_node);
    list_del(&st->doom_node);
    if (x->data.st == st)
        x->data.st = NULL;
    give_back_window(st);
    st->s.arena = &st->own; /* a borrowed one is the exchange's again */
    st->in.head = NULL;
    st->in.room_n = 0;
}

/* ---- ends ---- */

void h2_stream_fail(struct h2_stream *st, enum stream_error error, uint32_t http2_error,
                    const char *code, const char *text)
{
    struct stream_failure f = {
        .error = error,
        .http2_error = http2_error,
        .code = code,
        .text = text,
        .any_sent = st->id != 0 && st->out.has_head && st->of->left > st->out.head_at,
        .any_received = st->in.any,
        .was_idle_conn = st->began_used,
    };

    if (!st->is_held)
        return;
    detach(st);
    st->depth++;
    st->s.events->on_failed(st->s.arg, &st->s, &f);
    st->depth--;
    h2_stream_let_go(st);
}

void h2_stream_doom(struct h2_stream *st, enum stream_error error)
{
    st->doom = error;
    list_del(&st->doom_node);
    list_push(&st->of->doomed, &st->doom_node);
    h2_dirty(st->of);
}

void h2_stream_fail_doomed(struct h2_session *x)
{
    struct list *node;

    while ((node = list_pop(&x->doomed)) != NULL) {
        struct h2_stream *st = CONTAINER_OF(node, struct h2_stream, doom_node);

        h2_stream_fail(st, st->doom, 0, NULL, "the request was not put on the connection");
    }
}

/* RST_STREAM from us; what waited is dropped. */
static void cut(struct h2_stream *st, uint32_t code)
{
    h2_drop_waiting(st, buf_len(&st->out.bytes));
    h2_write_u32(st->of, H2_RST_STREAM, st->id, code);
    h2_stream_enter(st, H2_CLOSED);
}

void h2_stream_give_up(struct h2_stream *st)
{
    if (is_live(st))
        cut(st, H2_INTERNAL_ERROR);
    h2_stream_doom(st, STREAM_INTERNAL);
}

/* Resets before any answer are what rapid reset is made of (H2-01, H2-02). */
static void account_end(struct h2_stream *st)
{
    struct h2_session *x = st->of;
    uint64_t now = clock_now_ms();

    if (st->out.has_head && st->out.is_finished)
        flood_give_back(&x->flood, FLOOD_EARLY_RESET);
    else if (x->is_server && !st->out.has_head && now - st->opened_ms < 1000 &&
             (st->got_reset || st->broken != REFUSED_NOTHING))
        (void)h2_obey(x, flood_spend(&x->flood, FLOOD_EARLY_RESET, now));
}

static void close_when_ended(struct h2_stream *st, enum h2_state half)
{
    h2_stream_enter(st, st->state == H2_OPEN ? half : H2_CLOSED);
    if (st->state != H2_CLOSED)
        return;
    account_end(st);
    h2_stream_let_go(st);
}

void h2_stream_end_local(struct h2_stream *st)
{
    bool is_enough = st->s.is_front && !st->is_held && !st->in.is_ended;

    if (is_enough) { /* the answer is out and nobody wants the rest of the request (RFC
                        9113 8.1) */
        st->depth++;
        cut(st, H2_NO_ERROR);
        account_end(st);
        st->depth--;
        h2_stream_let_go(st);
        return;
    }
    close_when_ended(st, H2_HALF_LOCAL);
}

void h2_stream_end_remote(struct h2_stream *st)
{
    st->in.is_ended = true;
    close_when_ended(st, H2_HALF_REMOTE);
}

void h2_stream_break(struct h2_stream *st, enum refusal why, enum h2_error code)
{
    struct h2_session *x = st->of;

    if (!is_live(st))
        return;
    st->broken = why;
    st->depth++;
    cut(st, code);
    if (st->s.is_front && !st->in.has_head && x->front.on_refused != NULL)
        x->front.on_refused(x->front.arg, x->conn, refusal_code(why, false)->name);
    account_end(st);
    st->depth--;
    if (st->is_held)
        h2_stream_fail(st, why == REFUSED_NO_MEMORY ? STREAM_INTERNAL : STREAM_MALFORMED, code,
                       refusal_code(why, !st->s.is_front)->name, refusal_text(why));
    else
        h2_stream_let_go(st);
}

void h2_stream_cut_slow(struct h2_stream *st)
{
    cut(st, H2_ENHANCE_YOUR_CALM);
    h2_stream_fail(st, STREAM_TOO_LATE, H2_ENHANCE_YOUR_CALM, NULL,
                   "the request's content comes too slowly");
}

/* What an RST_STREAM of the peer means. */
static enum stream_error meaning_of(uint32_t code)
{
    switch (code) {
    case H2_CANCEL:
    case H2_NO_ERROR:
        return STREAM_CANCELLED;
    case H2_REFUSED_STREAM:
        return STREAM_REFUSED;
    default:
        return STREAM_PROTOCOL;
    }
}

void h2_stream_on_reset(struct h2_stream *st, uint32_t code)
{
    struct h2_session *x = st->of;

    st->got_reset = true;
    st->reset_code = code;
    h2_recent_end(x, st->id);
    h2_stream_enter(st, H2_CLOSED);
    account_end(st);
    if (!st->is_held) {
        h2_stream_let_go(st);
    } else if (!st->s.is_front && st->in.is_ended) {
        /* The answer is complete and the server wants no more of the request (RFC 9113 8.1). */
        st->out.is_dead = true;
        st->out.unreported += buf_len(&st->out.bytes);
        h2_drop_waiting(st, buf_len(&st->out.bytes));
        if (st->out.unreported > 0 && list_is_empty(&st->sent_node))
            list_push(&x->sent, &st->sent_node);
        h2_dirty(x);
    } else {
        h2_stream_fail(st, meaning_of(code), code, NULL, "the peer reset the stream");
    }
}

void h2_stream_report_sent(struct h2_session *x)
{
    struct list now = LIST_INIT(now);
    struct list *node;

    /* Those of this pass only: what the exchange sends in answer is for the next. */
    while ((node = list_pop(&x->sent)) != NULL)
        list_push(&now, node);
    while ((node = list_pop(&now)) != NULL) {
        struct h2_stream *st = CONTAINER_OF(node, struct h2_stream, sent_node);
        size_t n = st->out.unreported;

        st->out.unreported = 0;
        if (!st->is_held || n == 0)
            continue;
        st->s.is_crowded = h2_is_crowded(x);
        st->depth++;
        st->s.events->on_sent(st->s.arg, &st->s, n);
        st->depth--;
        h2_stream_let_go(st);
    }
}

/* ---- ops ---- */

static struct h2_stream *stream_of(struct stream *s)
{
    struct h2_stream *st = CONTAINER_OF(s, struct h2_stream, s);

    BUG_ON(!st->is_held); /* an op after release, reset or on_failed */
    return st;
}

static void send_answer_head(struct h2_stream *st, const struct head *h, bool is_end)
{
    if (h->status == 101 ||
        !h2_write_head(st, h, false, is_end)) { /* there is no 101 in HTTP/2 */
        h2_stream_give_up(st);
        return;
    }
    if (h->status < 200)
        return;
    st->out.has_head = true;
    if (is_end) {
        st->out.is_ended = st->out.is_finished = true;
        h2_stream_end_local(st);
    }
}

static void send_request_head(struct h2_stream *st, const struct head *h, bool is_end)
{
    struct h2_session *x = st->of;
    uint32_t id = x->last_id == 0 ? 1 : x->last_id + 2;

    st->out.has_head = true;
    st->out.is_head_request = slice_is(h->method, SLICE_LIT("HEAD"));
    st->out.is_connect_request = h->is_connect;
    st->out.head_at = x->handed;
    if (h2_is_over(x) || id > x->peer_last_id) { /* nothing was sent */
        h2_stream_doom(st, STREAM_REFUSED);
        return;
    }
    st->id = id;
    if (!h2_write_head(st, h, true, is_end)) {
        st->id = 0;
        h2_stream_doom(st, STREAM_INTERNAL);
        return;
    }
    h2_recent_open(x, id);
    h2_stream_open(st, id);
    x->flood.streams++;
    if (is_end) {
        st->out.is_ended = st->out.is_finished = true;
        h2_stream_end_local(st);
    }
}

static void stream_send_head(struct stream *s, const struct head *h, bool is_end)
{
    struct h2_stream *st = stream_of(s);

    if (!s->is_front)
        send_request_head(st, h, is_end);
    else if (is_live(st))
        send_answer_head(st, h, is_end);
}

static void stream_send_body(struct stream *s, slice_t bytes, bool is_end)
{
    struct h2_stream *st = stream_of(s);

    if (is_live(st) && !st->out.is_finished) {
        h2_send_content(st, bytes, is_end);
        return;
    }
    st->out.is_ended = st->out.is_ended || is_end;
    st->out.unreported += bytes.n;
    if (bytes.n > 0 && list_is_empty(&st->sent_node))
        list_push(&st->of->sent, &st->sent_node);
    h2_dirty(st->of);
}

/* Trailers that have to wait behind content, or of which some may not be sent. */
static bool keep_trailers(struct h2_stream *st, const struct field *fields, size_t n)
{
    bool is_ok = true;

    for (size_t i = 0; i < n && is_ok; i++) {
        const struct field *f = &fields[i];
        struct h2_pair pair = {(uint32_t)f->name.n, (uint32_t)f->value.n};

        if (f->is_removed ||
            (field_flags((enum field_token)f->token) & (FIELD_NOT_TRAILER | FIELD_IS_HOP)) !=
                0 ||
            !http_is_token(f->name) || !http_is_field_value(f->value))
            continue;
        is_ok = buf_add(&st->out.trailers, &pair, sizeof(pair)) == OK &&
                buf_add_slice(&st->out.trailers, f->name) == OK &&
                buf_add_slice(&st->out.trailers, f->value) == OK;
    }
    return is_ok;
}

static void stream_send_trailers(struct stream *s, const struct field *fields, size_t n)
{
    struct h2_stream *st = stream_of(s);

    if (is_live(st) && !st->out.is_finished) {
        if (buf_len(&st->out.bytes) == 0 && h2_write_trailers(st, fields, n)) {
            st->out.is_ended = st->out.is_finished = true;
            h2_stream_end_local(st);
            return;
        }
        if (!keep_trailers(st, fields, n)) {
            h2_stream_give_up(st);
            return;
        }
        st->out.has_trailers = true;
    }
    stream_send_body(s, slice(NULL, 0), true);
}

static void stream_credit(struct stream *s, size_t n)
{
    struct h2_stream *st = stream_of(s);

    if (n > st->in.outstanding)
        n = st->in.outstanding;
    st->in.outstanding -= n;
    if (n > 0)
        h2_stream_credit(st, n);
}

static uint32_t code_for(const struct stream *s, enum stream_error why)
{
    switch (why) {
    case STREAM_CANCELLED:
    case STREAM_TOO_LATE:
        return H2_CANCEL;
    case STREAM_REFUSED:
        return H2_REFUSED_STREAM;
    case STREAM_MALFORMED:
        return H2_PROTOCOL_ERROR;
    case STREAM_LOST:
        return s->is_front ? H2_INTERNAL_ERROR : H2_CANCEL;
    case STREAM_INTERNAL:
        return H2_INTERNAL_ERROR;
    case STREAM_PROTOCOL:
        return s->http2_error != 0 ? s->http2_error : H2_INTERNAL_ERROR;
    }
    return H2_INTERNAL_ERROR;
}

static void stream_reset(struct stream *s, enum stream_error why)
{
    struct h2_stream *st = stream_of(s);
    uint32_t code = code_for(s, why);

    detach(st);
    if (is_live(st))
        cut(st, code);
    h2_stream_let_go(st);
}

static void stream_release(struct stream *s)
{
    struct h2_stream *st = stream_of(s);
    bool is_told = st->out.has_head && st->out.is_ended;

    detach(st);
    /* Content may still be queued: it goes out first. A front that has answered and does not
     * want the rest of the request says so behind its answer (h2_stream_end_local); everything
     * else is given up now. */
    if (is_live(st) && (!is_told || (!s->is_front && !st->in.is_ended)))
        cut(st, H2_CANCEL);
    else if (st->state == H2_HALF_LOCAL && s->is_front)
        cut(st, H2_NO_ERROR);
    h2_stream_let_go(st);
}

const struct stream_ops h2_stream_ops = {
    .send_head = stream_send_head,
    .send_body = stream_send_body,
    .send_trailers = stream_send_trailers,
    .reset = stream_reset,
    .credit = stream_credit,
    .release = stream_release,
};
