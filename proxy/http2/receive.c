/* What comes in on an HTTP/2 connection: nghttp2's callbacks. They deliver to the exchange and
 * queue; none calls into nghttp2_session_mem_send or _recv. A callback that finds the
 * connection ended stops the rest of the input with NGHTTP2_ERR_CALLBACK_FAILURE. */
#include "proxy/http2/session.h"

#include "kit/clock.h"

#include <string.h>

#define STOP NGHTTP2_ERR_CALLBACK_FAILURE

static bool is_over(const struct h2_session *x)
{
    return x->is_terminating || x->is_gone || conn_is_closing(x->conn);
}

/* ---- every frame ---- */

/* DATA or HEADERS of a peer on a stream that it has ended itself, or skipped (H2-21). Late
 * frames on a stream that we have reset are legal and the library's to ignore. */
static bool is_on_closed_stream(struct h2_session *x, const nghttp2_frame_hd *hd)
{
    uint32_t code;

    if (!x->is_server || (hd->type != NGHTTP2_DATA && hd->type != NGHTTP2_HEADERS) ||
        hd->stream_id % 2 == 0 || hd->stream_id > x->last_id ||
        nghttp2_session_find_stream(x->ng, hd->stream_id) != NULL)
        return false;
    switch (h2_recent_get(x, hd->stream_id)) {
    case H2_RECENT_ENDED:
        code = NGHTTP2_STREAM_CLOSED;
        break;
    case H2_RECENT_NEVER:
        code = NGHTTP2_PROTOCOL_ERROR;
        break;
    case H2_RECENT_OPENED:
    case H2_RECENT_UNKNOWN:
    default:
        return false;
    }
    h2_terminate(x, code, CLOSE_BAD_PROTOCOL);
    return true;
}

static int on_verdict(struct h2_session *x, enum flood_verdict verdict)
{
    switch (verdict) {
    case FLOOD_FINE:
        break;
    case FLOOD_SOFT:
        if (x->is_server)
            h2_leave(x);
        else {
            http_back_set_retired(&x->back);
            h2_dirty(x);
        }
        break;
    case FLOOD_OVER:
        h2_terminate(x, NGHTTP2_ENHANCE_YOUR_CALM, CLOSE_FLOOD);
        return STOP;
    }
    return is_over(x) ? STOP : 0;
}

bool h2_on_frame_header(struct h2_session *x, const nghttp2_frame_hd *hd)
{
    bool has_ack = hd->type == NGHTTP2_SETTINGS || hd->type == NGHTTP2_PING;
    bool has_end = hd->type == NGHTTP2_DATA || hd->type == NGHTTP2_HEADERS;
    bool is_end = has_end && (hd->flags & NGHTTP2_FLAG_END_STREAM) != 0;

    if (hd->type != NGHTTP2_CONTINUATION)
        x->block = NULL; /* a block is never interrupted: it was complete, or was refused */
    if (is_over(x) || is_on_closed_stream(x, hd))
        return false;
    if ((is_end && hd->type == NGHTTP2_DATA) || hd->type == NGHTTP2_RST_STREAM)
        h2_recent_end(x, hd->stream_id);
    return on_verdict(x, flood_on_frame(&x->flood, hd->type, (uint32_t)hd->length,
                                        has_ack && (hd->flags & NGHTTP2_FLAG_ACK) != 0, is_end,
                                        clock_now_ms())) == 0;
}

/* ---- header blocks ---- */

static int begin_block(struct h2_session *x, struct h2_stream *st)
{
    x->block = st;
    x->block_since_ms = clock_now_ms();
    x->block_bytes = 0;
    if (st == NULL || (!st->is_held && (!st->s.is_front || st->in.has_head)))
        return 0; /* nobody listens: decoded and dropped */
    st->in.head = arena_alloc(st->s.arena, sizeof(*st->in.head));
    st->in.refused = st->in.head == NULL ? REFUSED_NO_MEMORY : REFUSED_NOTHING;
    st->in.bytes = st->in.cookies = 0;
    st->in.host = slice(NULL, 0);
    if (st->in.head != NULL) {
        head_init(st->in.head);
        st->in.head->scheme = slice(NULL, 0);
        st->in.head->version = HTTP_2;
    }
    return 0;
}

static int refuse_new(struct h2_session *x, int32_t id)
{
    enum flood_verdict v = flood_spend(&x->flood, FLOOD_EARLY_RESET, clock_now_ms());

    (void)nghttp2_submit_rst_stream(x->ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
    return on_verdict(x, v) != 0 ? STOP : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* Streams of one connection belong to unrelated requests: they take turns, whatever the peer
 * wishes (H2-07). The library's default would send one answer after the other. */
static void share_fairly(struct h2_session *x, int32_t id)
{
    const nghttp2_extpri turns = {.urgency = NGHTTP2_EXTPRI_DEFAULT_URGENCY, .inc = 1};

    (void)nghttp2_session_change_extpri_stream_priority(x->ng, id, &turns,
                                                        1); /* or it stays as it is */
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct h2_session *x = h2_session_from(arg);
    struct h2_stream *st;

    if (is_over(x))
        return STOP;
    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    if (!x->is_server || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return begin_block(x, h2_stream_find(x, frame->hd.stream_id));
    h2_recent_open(x, frame->hd.stream_id);
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
        h2_recent_end(x, frame->hd.stream_id);
    x->flood.streams++;
    if (x->running >= x->limits.streams_max) /* H2-17: also before our SETTINGS were seen */
        return refuse_new(x, frame->hd.stream_id);
    st = h2_stream_new(x);
    if (st == NULL)
        return refuse_new(x, frame->hd.stream_id);
    st->id = frame->hd.stream_id;
    st->is_open = true;
    if (nghttp2_session_set_stream_user_data(ng, st->id, st) != 0) {
        st->is_open = false;
        h2_stream_let_go(st);
        return STOP;
    }
    share_fairly(x, st->id);
    return begin_block(x, st);
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                     size_t nn, const uint8_t *value, size_t vn, uint8_t flags, void *arg)
{
    struct h2_session *x = h2_session_from(arg);
    struct h2_stream *st = h2_stream_find(x, frame->hd.stream_id);

    (void)ng, (void)flags;
    if (is_over(x))
        return STOP;
    x->block_bytes += nn + vn + 32;
    if (x->block_bytes > x->limits.head_max + x->limits.head_max / 2) {
        /* H2-12, H2-15: decoding on would only serve the sender. */
        x->flood.over = flood_name(FLOOD_HUGE_HEAD);
        h2_terminate(x, NGHTTP2_ENHANCE_YOUR_CALM, CLOSE_FLOOD);
        return STOP;
    }
    if (st == NULL || st->in.head == NULL || st->in.refused != REFUSED_NOTHING)
        return 0;
    st->in.refused = h2_take_field(st, slice(name, nn), slice(value, vn));
    return 0;
}

/* The library would drop the field and go on (hardening.md section 0, fact 6). */
static int on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame,
                             const uint8_t *name, size_t nn, const uint8_t *value, size_t vn,
                             uint8_t flags, void *arg)
{
    struct h2_session *x = h2_session_from(arg);
    struct h2_stream *st = h2_stream_find(x, frame->hd.stream_id);

    (void)name, (void)nn, (void)value, (void)vn, (void)flags;
    if (st != NULL) {
        st->broken = REFUSED_FIELD;
        if (st->s.is_front && !st->in.has_head && x->front.on_refused != NULL)
            x->front.on_refused(x->front.arg, x->conn, refusal_code(st->broken, false)->name);
    }
    (void)nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                    NGHTTP2_PROTOCOL_ERROR);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* The library answers with RST_STREAM or GOAWAY by itself; we name it. */
static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *frame, int error,
                            void *arg)
{
    struct h2_session *x = h2_session_from(arg);
    struct h2_stream *st = h2_stream_find(x, frame->hd.stream_id);

    (void)ng, (void)error;
    if (st == NULL || st->broken != REFUSED_NOTHING)
        return 0;
    st->broken = frame->hd.type == NGHTTP2_HEADERS ? REFUSED_PSEUDO : REFUSED_BODY;
    if (st->s.is_front && !st->in.has_head && x->front.on_refused != NULL)
        x->front.on_refused(x->front.arg, x->conn, refusal_code(st->broken, false)->name);
    return 0;
}

/* ---- complete heads ---- */

static void rst(struct h2_stream *st, uint32_t code)
{
    (void)nghttp2_submit_rst_stream(st->of->ng, NGHTTP2_FLAG_NONE, st->id, code);
    h2_dirty(st->of);
}

/* The codec's own answer to a request that did not become one. */
static void answer_refusal(struct h2_stream *st, enum refusal why)
{
    struct head h;
    struct h2_nv nv;

    head_init(&h);
    if (refusal_fill(why, &st->own, &h) == OK && h2_print_head(&h, false, &nv) &&
        nghttp2_submit_response(st->of->ng, st->id, nv.nv, nv.n, NULL) == 0) {
        st->out.has_head = st->out.is_ended = true;
        h2_dirty(st->of);
    } else {
        rst(st, NGHTTP2_INTERNAL_ERROR);
    }
}

/* Limits and meaning are answered; what is malformed is reset (RFC 9113 8.1.1). */
static bool is_answered(enum refusal why)
{
    return refusal_code(why, false)->http != 400 || why == REFUSED_HOST;
}

static int refuse_request(struct h2_session *x, struct h2_stream *st, enum refusal why)
{
    if (x->front.on_refused != NULL)
        x->front.on_refused(x->front.arg, x->conn, refusal_code(why, false)->name);
    st->broken = why;
    st->in.head = NULL;
    st->in.has_head = true;
    if (is_answered(why))
        answer_refusal(st, why);
    else
        rst(st, NGHTTP2_PROTOCOL_ERROR);
    if (refusal_code(why, false)->http == 431)
        return on_verdict(x, flood_spend(&x->flood, FLOOD_HUGE_HEAD, clock_now_ms()));
    return 0;
}

static void deliver_head(struct h2_stream *st, bool is_end)
{
    struct head *h = st->in.head;

    st->in.head = NULL;
    st->depth++;
    st->s.events->on_head(st->s.arg, &st->s, h, is_end);
    st->depth--;
    h2_stream_let_go(st);
}

static int request_complete(struct h2_session *x, struct h2_stream *st, bool is_end)
{
    enum refusal why =
        st->in.refused != REFUSED_NOTHING ? st->in.refused : h2_finish_request(st);

    st->in.is_ended = is_end;
    if (why != REFUSED_NOTHING)
        return refuse_request(x, st, why);
    st->in.has_head = true;
    st->is_held = true;
    st->s.events = NULL;
    x->front.on_stream(x->front.arg, &st->s);
    BUG_ON(st->s.events == NULL);
    deliver_head(st, is_end);
    return 0;
}

/* The peer broke a stream that the exchange has. */
static void break_stream(struct h2_stream *st, enum refusal why)
{
    st->broken = why;
    rst(st, NGHTTP2_PROTOCOL_ERROR);
    h2_stream_fail(st, why == REFUSED_NO_MEMORY ? STREAM_INTERNAL : STREAM_MALFORMED, 0,
                   refusal_code(why, !st->s.is_front)->name, refusal_text(why));
}

static int response_complete(struct h2_stream *st, bool is_end)
{
    enum refusal why =
        st->in.refused != REFUSED_NOTHING ? st->in.refused : h2_finish_response(st);

    if (why == REFUSED_NOTHING && st->in.head->status < 200 &&
        ++st->in.interims > H2_INTERIM_MAX)
        why = REFUSED_INTERIM; /* H1-32 */
    if (why != REFUSED_NOTHING) {
        break_stream(st, why);
        return 0;
    }
    st->in.has_head = st->in.head->status >= 200;
    st->in.is_ended = is_end;
    deliver_head(st, is_end);
    return 0;
}

static void trailers_complete(struct h2_stream *st)
{
    struct head *t = st->in.head;

    st->in.is_ended = true;
    if (st->in.refused != REFUSED_NOTHING) {
        break_stream(st, st->in.refused);
        return;
    }
    for (size_t i = 0; i < t->n_fields; i++)
        if ((field_flags(t->fields[i].token) & FIELD_NOT_TRAILER) != 0)
            t->fields[i].is_removed = true;
    st->in.head = NULL;
    st->depth++;
    st->s.events->on_trailers(st->s.arg, &st->s, t->fields, t->n_fields);
    st->depth--;
    h2_stream_let_go(st);
}

static int on_block(struct h2_session *x, struct h2_stream *st, bool is_end)
{
    x->block = NULL;
    if (st == NULL)
        return 0;
    st->in.any = true;
    if (is_end)
        h2_recent_end(x, st->id);
    if (st->in.head == NULL && st->in.refused == REFUSED_NOTHING) {
        st->in.is_ended = st->in.is_ended || is_end; /* nobody listens */
        return 0;
    }
    if (x->is_server && !st->in.has_head)
        return request_complete(x, st, is_end);
    if (!x->is_server && !st->in.has_head)
        return response_complete(st, is_end);
    trailers_complete(st);
    return 0;
}

/* ---- content ---- */

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *arg)
{
    struct h2_session *x = h2_session_from(arg);
    struct h2_stream *st = h2_stream_find(x, id);

    (void)flags;
    if (is_over(x))
        return STOP;
    if (st == NULL || !st->is_held) {
        (void)nghttp2_session_consume(ng, id, n); /* dropped */
        return 0;
    }
    st->in.outstanding += n;
    st->depth++;
    st->s.events->on_body(st->s.arg, &st->s, slice(p, n), false);
    st->depth--;
    h2_stream_let_go(st);
    return 0;
}

static void end_of_data(struct h2_stream *st)
{
    st->in.is_ended = true;
    if (!st->is_held)
        return;
    st->depth++;
    st->s.events->on_body(st->s.arg, &st->s, slice(NULL, 0), true);
    st->depth--;
    h2_stream_let_go(st);
}

/* ---- the rest ---- */

static void on_goaway(struct h2_session *x)
{
    if (!x->is_server) {
        http_back_set_retired(&x->back);
        h2_dirty(x); /* without streams it closes */
    }
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct h2_session *x = h2_session_from(arg);
    struct h2_stream *st = h2_stream_find(x, frame->hd.stream_id);
    bool is_end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

    (void)ng;
    if (is_over(x))
        return STOP;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        return on_block(x, st, is_end);
    case NGHTTP2_DATA:
        if (is_end && st != NULL)
            end_of_data(st);
        break;
    case NGHTTP2_RST_STREAM:
        if (st != NULL) {
            st->got_reset = true;
            st->reset_code = frame->rst_stream.error_code;
        }
        break;
    case NGHTTP2_SETTINGS:
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
            x->got_settings = true;
            if (!x->is_server && x->back.conf.on_ready != NULL && !x->back.is_retired)
                x->back.conf.on_ready(x->back.conf.arg, &x->back);
        }
        break;
    case NGHTTP2_PING:
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
            x->ping_sent_ms = 0;
            if (x->leaving == H2_NOTICE)
                h2_leave(x);
        }
        break;
    case NGHTTP2_GOAWAY:
        on_goaway(x);
        break;
    default:
        break;
    }
    return is_over(x) ? STOP : 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t http2_error, void *arg)
{
    struct h2_session *x = h2_session_from(arg);
    struct h2_stream *st = h2_stream_find(x, id);

    (void)ng;
    if (st != NULL)
        h2_stream_on_close(st, http2_error);
    return 0;
}

void h2_receive_callbacks(nghttp2_session_callbacks *cb)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(cb, on_invalid_header);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
}
