/* HTTP/2 streams: what the exchange may do with one (struct stream_ops), their content on its
 * way out, and their end. See session.h for who calls whom. */
#include "proxy/http2/session.h"

#include "kit/clock.h"

#include <stdlib.h>
#include <string.h>

#define ARENA_MAX  (256 * 1024)
#define SPARES_MAX 32          /* per connection, given back when it is idle */
#define KEEP_MAX   (32 * 1024) /* of a spare's buffers */

/* ---- life ---- */

struct h2_stream *h2_stream_new(struct h2_session *x)
{
    struct list *node = list_pop(&x->spare);
    struct h2_stream *st;

    if (node != NULL) {
        st = CONTAINER_OF(node, struct h2_stream, node);
        x->n_spare--;
    } else {
        st = calloc(1, sizeof(*st));
        if (st == NULL)
            return NULL;
        arena_init(&st->own, ARENA_MAX);
        buf_init(&st->out.bytes, 0);
        buf_init(&st->out.trailers, 0);
        list_init(&st->sent_node);
        list_init(&st->doom_node);
    }
    st->of = x;
    st->id = -1;
    st->opened_ms = clock_now_ms();
    st->s = (struct stream){.ops = &h2_stream_ops,
                            .conn = x->conn,
                            .arena = &st->own,
                            .version = HTTP_2,
                            .is_front = x->is_server};
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
    arena_reset(&own);
    memset(st, 0, sizeof(*st));
    st->out.bytes = bytes;
    st->out.trailers = trailers;
    st->own = own;
    list_init(&st->node);
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
    x->n_spare = 0;
}

void h2_stream_let_go(struct h2_stream *st)
{
    struct h2_session *x = st->of;

    if (st->is_open || st->is_held || st->depth > 0)
        return;
    list_del(&st->node);
    list_del(&st->sent_node);
    list_del(&st->doom_node);
    if (x->block == st)
        x->block = NULL;
    x->running--;
    x->back.running = x->running;
    forget(st);
    if (x->n_spare < SPARES_MAX && !x->is_gone) {
        list_push_front(&x->spare, &st->node);
        x->n_spare++;
    } else {
        stream_free(st);
    }
    if (x->is_gone)
        return;
    if (!x->is_server && x->back.is_retired && x->running == 0)
        h2_dirty(x); /* the flush says good-bye */
    else if (!x->is_server && !x->back.is_retired && x->back.conf.on_ready != NULL)
        x->back.conf.on_ready(x->back.conf.arg, &x->back);
}

struct h2_stream *h2_stream_find(struct h2_session *x, int32_t id)
{
    return nghttp2_session_get_stream_user_data(x->ng, id);
}

/* Content that was delivered and will not be credited any more: its room in the connection's
 * window. */
static void give_back_window(struct h2_stream *st)
{
    size_t n = st->in.outstanding;

    st->in.outstanding = 0;
    if (n > 0 && !st->of->is_gone) {
        (void)nghttp2_session_consume_connection(st->of->ng,
                                                 n); /* fails for lack of memory only */
        h2_dirty(st->of);
    }
}

void h2_stream_fail(struct h2_stream *st, enum stream_error error, uint32_t http2_error,
                    const char *code, const char *text)
{
    struct stream_failure f = {
        .error = error,
        .http2_error = http2_error,
        .code = code,
        .text = text,
        .any_sent = st->out.head_handed && st->of->left > st->out.head_at,
        .any_received = st->in.any,
        .was_idle_conn = st->began_used,
    };

    if (!st->is_held)
        return;
    st->is_held = false;
    give_back_window(st);
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

/* What an RST_STREAM of the peer means. */
static enum stream_error meaning_of(uint32_t code)
{
    switch (code) {
    case NGHTTP2_CANCEL:
    case NGHTTP2_NO_ERROR:
        return STREAM_CANCELLED;
    case NGHTTP2_REFUSED_STREAM:
        return STREAM_REFUSED;
    default:
        return STREAM_PROTOCOL;
    }
}

/* Resets before any answer are what rapid reset is made of (H2-01, H2-02). */
static void account_end(struct h2_stream *st)
{
    struct h2_session *x = st->of;
    uint64_t now = clock_now_ms();

    if (st->out.has_head && st->out.is_finished)
        flood_give_back(&x->flood, FLOOD_EARLY_RESET);
    else if (x->is_server && !st->out.has_head && now - st->opened_ms < 1000 &&
             (st->got_reset || st->broken != REFUSED_NOTHING) &&
             flood_spend(&x->flood, FLOOD_EARLY_RESET, now) == FLOOD_OVER)
        h2_terminate(x, NGHTTP2_ENHANCE_YOUR_CALM, CLOSE_FLOOD);
}

void h2_stream_on_close(struct h2_stream *st, uint32_t http2_error)
{
    bool both_ended = st->in.is_ended && st->out.is_finished;

    st->is_open = false;
    account_end(st);
    if (!st->is_held || both_ended) {
        h2_stream_let_go(st);
        return;
    }
    if (!st->s.is_front && st->in.is_ended) {
        /* The answer is complete and the server wants no more of the request (RFC 9113 8.1). */
        st->out.is_dead = true;
        st->out.unreported += buf_len(&st->out.bytes);
        buf_consume(&st->out.bytes, buf_len(&st->out.bytes));
        if (st->out.unreported > 0 && list_is_empty(&st->sent_node))
            list_push(&st->of->sent, &st->sent_node);
        h2_dirty(st->of);
        return;
    }
    if (st->got_reset)
        h2_stream_fail(st, meaning_of(st->reset_code), st->reset_code, NULL,
                       "the peer reset the stream");
    else if (st->broken != REFUSED_NOTHING)
        h2_stream_fail(st, STREAM_MALFORMED, http2_error,
                       refusal_code(st->broken, !st->s.is_front)->name,
                       refusal_text(st->broken));
    else if (http2_error == NGHTTP2_REFUSED_STREAM)
        h2_stream_fail(st, STREAM_REFUSED, http2_error, NULL, "the peer goes away (GOAWAY)");
    else /* the library refused something, e.g. content that is not as long as was said */
        h2_stream_fail(st, STREAM_MALFORMED, http2_error,
                       refusal_code(REFUSED_BODY, !st->s.is_front)->name,
                       "content or trailers are not as the head said");
}

/* ---- content on its way out ---- */

static int submit_trailers(struct h2_stream *st)
{
    nghttp2_nv nv[H2_NV_MAX];
    slice_t in = buf_slice(&st->out.trailers);
    size_t n = 0;

    while (in.n > 0 && n < H2_NV_MAX) {
        struct h2_pair pair;
        uint8_t *p;

        memcpy(&pair, in.p, sizeof(pair));
        p = st->out.trailers.mem + (in.p - st->out.trailers.mem) + sizeof(pair);
        nv[n++] = (nghttp2_nv){
            .name = p, .value = p + pair.name, .namelen = pair.name, .valuelen = pair.value};
        in = slice_skip(in, sizeof(pair) + pair.name + pair.value);
    }
    return nghttp2_submit_trailer(st->of->ng, st->id, nv, n);
}

ssize_t h2_stream_read(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t n, uint32_t *flags,
                       nghttp2_data_source *source, void *arg)
{
    struct h2_stream *st = source->ptr;
    size_t have = buf_len(&st->out.bytes);

    (void)ng, (void)id, (void)buf, (void)arg;
    if (have == 0 && !st->out.is_ended)
        return NGHTTP2_ERR_DEFERRED;
    if (have > 0)
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (have > n || !st->out.is_ended)
        return (ssize_t)(have < n ? have : n);
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (st->out.has_trailers && buf_len(&st->out.trailers) > 0) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (submit_trailers(st) != 0)
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    return (ssize_t)have;
}

static void write_out(struct h2_session *x, slice_t bytes)
{
    x->handed += bytes.n;
    conn_write(x->conn, bytes);
}

int h2_stream_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *framehd,
                        size_t n, nghttp2_data_source *source, void *arg)
{
    struct h2_session *x = h2_session_from(arg);
    struct h2_stream *st = source->ptr;

    (void)ng, (void)frame;
    if (conn_is_full(x->conn))
        return NGHTTP2_ERR_WOULDBLOCK;
    BUG_ON(buf_len(&st->out.bytes) < n);
    write_out(x, slice(framehd, 9));
    write_out(x, slice(buf_slice(&st->out.bytes).p, n));
    buf_consume(&st->out.bytes, n);
    st->out.unreported += n;
    x->flood.payload_bytes += n;
    if (st->is_held && list_is_empty(&st->sent_node))
        list_push(&x->sent, &st->sent_node);
    return 0;
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

/* A front whose head cannot be written, or a submit that found no memory. */
static void give_up(struct h2_stream *st, uint32_t http2_error)
{
    if (st->id >= 0)
        (void)nghttp2_submit_rst_stream(st->of->ng, NGHTTP2_FLAG_NONE, st->id, http2_error);
    h2_stream_doom(st, STREAM_INTERNAL);
}

static void send_answer_head(struct h2_stream *st, const struct head *h, bool is_end)
{
    nghttp2_data_provider content = {.source.ptr = st, .read_callback = h2_stream_read};
    struct h2_nv nv;
    int rv;

    if (!h2_print_head(h, false, &nv)) {
        give_up(st, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    if (h->status < 200) {
        if (h->status == 101) /* there is no such thing in HTTP/2 */
            give_up(st, NGHTTP2_INTERNAL_ERROR);
        else if (nghttp2_submit_headers(st->of->ng, NGHTTP2_FLAG_NONE, st->id, NULL, nv.nv,
                                        nv.n, NULL) != 0)
            give_up(st, NGHTTP2_INTERNAL_ERROR);
        else
            st->out.heads_queued++;
        return;
    }
    st->out.has_head = true;
    st->out.is_ended = is_end;
    rv = nghttp2_submit_response(st->of->ng, st->id, nv.nv, nv.n, is_end ? NULL : &content);
    if (rv != 0)
        give_up(st, NGHTTP2_INTERNAL_ERROR);
    else
        st->out.heads_queued++;
}

static void send_request_head(struct h2_stream *st, const struct head *h, bool is_end)
{
    nghttp2_data_provider content = {.source.ptr = st, .read_callback = h2_stream_read};
    struct h2_nv nv;
    int32_t id;

    st->out.has_head = true;
    st->out.is_ended = is_end;
    if (!h2_print_head(h, true, &nv)) {
        h2_stream_doom(st, STREAM_INTERNAL);
        return;
    }
    id = nghttp2_submit_request(st->of->ng, NULL, nv.nv, nv.n, is_end ? NULL : &content, st);
    if (id < 0) {
        /* No stream id left, or no memory: nothing was sent. */
        h2_stream_doom(st, STREAM_REFUSED);
        return;
    }
    st->id = id;
    st->is_open = true;
    st->of->flood.streams++;
}

static void stream_send_head(struct stream *s, const struct head *h, bool is_end)
{
    struct h2_stream *st = stream_of(s);

    if (s->is_front && !st->is_open)
        return; /* the peer's reset is on its way to the exchange */
    if (s->is_front)
        send_answer_head(st, h, is_end);
    else
        send_request_head(st, h, is_end);
    h2_dirty(st->of);
}

static void stream_send_body(struct stream *s, slice_t bytes, bool is_end)
{
    struct h2_stream *st = stream_of(s);

    if (st->out.is_dead || !st->is_open) {
        st->out.unreported += bytes.n;
        if (bytes.n > 0 && list_is_empty(&st->sent_node))
            list_push(&st->of->sent, &st->sent_node);
    } else if (buf_add_slice(&st->out.bytes, bytes) != OK) {
        give_up(st, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    st->out.is_ended = st->out.is_ended || is_end;
    if (st->is_open && (bytes.n > 0 || is_end))
        (void)nghttp2_session_resume_data(st->of->ng,
                                          st->id); /* fails if it is not deferred: fine */
    h2_dirty(st->of);
}

static void stream_send_trailers(struct stream *s, const struct field *fields, size_t n)
{
    struct h2_stream *st = stream_of(s);
    bool is_ok = true;

    for (size_t i = 0; i < n && is_ok; i++) {
        const struct field *f = &fields[i];
        struct h2_pair pair = {(uint32_t)f->name.n, (uint32_t)f->value.n};

        if (f->is_removed ||
            (field_flags(f->token) & (FIELD_NOT_TRAILER | FIELD_IS_HOP)) != 0 ||
            !http_is_token(f->name) || !http_is_field_value(f->value))
            continue;
        is_ok = buf_add(&st->out.trailers, &pair, sizeof(pair)) == OK &&
                buf_add_slice(&st->out.trailers, f->name) == OK &&
                buf_add_slice(&st->out.trailers, f->value) == OK;
    }
    if (!is_ok) {
        give_up(st, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    st->out.has_trailers = true;
    stream_send_body(s, slice(NULL, 0), true);
}

static void stream_credit(struct stream *s, size_t n)
{
    struct h2_stream *st = stream_of(s);

    if (n > st->in.outstanding)
        n = st->in.outstanding;
    st->in.outstanding -= n;
    if (n == 0)
        return;
    (void)nghttp2_session_consume(st->of->ng, st->id, n); /* fails for lack of memory only */
    h2_dirty(st->of);
}

static uint32_t code_for(const struct stream *s, enum stream_error why)
{
    switch (why) {
    case STREAM_CANCELLED:
    case STREAM_TOO_LATE:
        return NGHTTP2_CANCEL;
    case STREAM_REFUSED:
        return NGHTTP2_REFUSED_STREAM;
    case STREAM_MALFORMED:
        return NGHTTP2_PROTOCOL_ERROR;
    case STREAM_LOST:
        return s->is_front ? NGHTTP2_INTERNAL_ERROR : NGHTTP2_CANCEL;
    case STREAM_INTERNAL:
        return NGHTTP2_INTERNAL_ERROR;
    case STREAM_PROTOCOL:
        return s->http2_error != 0 ? s->http2_error : NGHTTP2_INTERNAL_ERROR;
    }
    return NGHTTP2_INTERNAL_ERROR;
}

/* The exchange is gone; the stream lives on until nghttp2 has closed it. */
static void detach(struct h2_stream *st)
{
    st->is_held = false;
    list_del(&st->sent_node);
    list_del(&st->doom_node);
    give_back_window(st);
    st->s.arena = &st->own; /* a borrowed one is the exchange's again */
    st->in.head = NULL;
}

static void stream_reset(struct stream *s, enum stream_error why)
{
    struct h2_stream *st = stream_of(s);
    struct h2_session *x = st->of;
    uint32_t code = code_for(s, why);

    detach(st);
    if (st->is_open) {
        buf_consume(&st->out.bytes, buf_len(&st->out.bytes));
        /* The library would drop an answer's head that waits for the flush. */
        st->out.cut_code = code;
        st->out.is_cut_behind_head = st->out.has_head && st->out.heads_queued > 0;
        if (!st->out.is_cut_behind_head)
            (void)nghttp2_submit_rst_stream(x->ng, NGHTTP2_FLAG_NONE, st->id, code);
    }
    h2_dirty(x);
    h2_stream_let_go(st);
}

static void stream_release(struct stream *s)
{
    struct h2_stream *st = stream_of(s);
    struct h2_session *x = st->of;

    detach(st);
    if (st->is_open) {
        bool is_told = st->out.has_head && st->out.is_ended;

        /* Content may still be queued: it goes out first. A front that has answered and does
         * not want the rest of the request says so behind its answer (on_frame_send);
         * everything else is given up now. */
        if (!is_told || (!st->s.is_front && !st->in.is_ended))
            (void)nghttp2_submit_rst_stream(x->ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_CANCEL);
        else if (st->s.is_front && !st->in.is_ended && st->out.is_finished)
            (void)nghttp2_submit_rst_stream(x->ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_NO_ERROR);
        h2_dirty(x);
    }
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
