/* Frames out, and the windows both ways (RFC 9113 5.2). Everything is written where the conn's
 * output lies; the conn writes once per turn. */
#include "proxy/http2/session.h"

#define DIRECT_MAX                                                                             \
    (32 * 1024) /* content of a stream that may go past the queue in a turn, while others run  \
                 */

/* ---- frames ---- */

/* Room for a frame; NULL: the conn takes nothing any more, and what would have been said does
 * not matter. */
static uint8_t *begin(struct h2_session *x, size_t n)
{
    return conn_reserve(x->conn, H2_FRAME_HEADER + n);
}

static void commit(struct h2_session *x, size_t n)
{
    conn_commit(x->conn, n);
    x->handed += n;
}

/* A peer that makes us say things and does not read them fills the queue with them. */
static void count_control(struct h2_session *x)
{
    if (x->left >= x->control.mark) { /* what was before the mark has gone */
        x->control.before = x->control.behind;
        x->control.behind = 0;
        x->control.mark = x->handed;
    }
    x->control.behind++;
    if (h2_control_is_full(x))
        h2_dirty(x);
}

bool h2_control_is_full(struct h2_session *x)
{
    return (x->left < x->control.mark &&
            x->control.before + x->control.behind > H2_CONTROL_MAX) ||
           x->control.behind > H2_CONTROL_MAX || conn_out_len(x->conn) > H2_OUT_MAX;
}

void h2_write_control(struct h2_session *x, uint8_t type, uint8_t flags, uint32_t id,
                      const void *payload, size_t n)
{
    uint8_t *p = begin(x, n);

    if (p == NULL)
        return;
    p = h2_frame_write(p, (uint32_t)n, type, flags, id);
    if (n > 0)
        memcpy(p, payload, n);
    commit(x, H2_FRAME_HEADER + n);
    count_control(x);
}

void h2_write_u32(struct h2_session *x, uint8_t type, uint32_t id, uint32_t value)
{
    uint8_t payload[4];

    (void)h2_put_u32(payload, value);
    h2_write_control(x, type, 0, id, payload, sizeof(payload));
}

void h2_write_goaway(struct h2_session *x, uint32_t last_id, enum h2_error code)
{
    uint8_t payload[8];

    (void)h2_put_u32(h2_put_u32(payload, last_id), code);
    h2_write_control(x, H2_GOAWAY, 0, 0, payload, sizeof(payload));
}

/* The block lies at p, behind room for the header of its first frame. Makes room for those of
 * CONTINUATION frames, from the end, and writes all of them. Returns the bytes of all frames.
 */
static size_t frame_block(uint8_t *p, size_t n, uint32_t id, bool is_end)
{
    size_t frames = n == 0 ? 1 : (n + H2_FRAME_MAX - 1) / H2_FRAME_MAX;
    uint8_t end = is_end ? H2_FLAG_END_STREAM : 0;

    for (size_t i = frames; i-- > 0;) {
        size_t from = i * H2_FRAME_MAX;
        size_t len = i + 1 == frames ? n - from : H2_FRAME_MAX;
        uint8_t *to = p + from + i * H2_FRAME_HEADER;
        uint8_t flags = i + 1 == frames ? H2_FLAG_END_HEADERS : 0;

        if (i > 0)
            memmove(to + H2_FRAME_HEADER, p + H2_FRAME_HEADER + from, len);
        (void)h2_frame_write(to, (uint32_t)len, i == 0 ? H2_HEADERS : H2_CONTINUATION,
                             (uint8_t)(flags | (i == 0 ? end : 0)), id);
    }
    return n + frames * H2_FRAME_HEADER;
}

bool h2_write_block(struct h2_stream *st, struct hpack_out *fields, size_t n, size_t room,
                    bool is_end)
{
    struct h2_session *x = st->of;
    uint8_t *p = begin(x, room + (room / H2_FRAME_MAX + 1) * H2_FRAME_HEADER);
    size_t len;

    if (p == NULL)
        return false;
    len = hpack_encode(&x->encoder, fields, n, p + H2_FRAME_HEADER);
    commit(x, frame_block(p, len, st->id, is_end));
    if (UNLIKELY(conn_is_full(x->conn)) && h2_control_is_full(x))
        h2_dirty(x);
    return true;
}

/* ---- content ---- */

/* One DATA frame of what may go now; returns the content in it. Without content it is written
 * for its END_STREAM only. */
static size_t write_data(struct h2_stream *st, slice_t bytes, bool is_end)
{
    struct h2_session *x = st->of;
    int64_t may = x->out_window < st->out.window ? x->out_window : st->out.window;
    size_t n = bytes.n < H2_FRAME_MAX ? bytes.n : H2_FRAME_MAX;
    uint8_t *p;

    if (may < (int64_t)n)
        n = may > 0 ? (size_t)may : 0;
    if (n == 0 && bytes.n > 0)
        return 0;
    p = begin(x, n);
    if (p == NULL)
        return 0;
    is_end = is_end && n == bytes.n;
    p = h2_frame_write(p, (uint32_t)n, H2_DATA, is_end ? H2_FLAG_END_STREAM : 0, st->id);
    if (n > 0)
        memcpy(p, bytes.p, n);
    commit(x, H2_FRAME_HEADER + n);
    x->out_window -= (int64_t)n;
    st->out.window -= (int64_t)n;
    x->out_sent += n;
    x->flood.data_sent++;
    x->flood.payload_bytes += n;
    st->out.unreported += n;
    if (n > 0 && st->is_held && list_is_empty(&st->sent_node)) {
        list_push(&x->sent, &st->sent_node);
        h2_dirty(x);
    }
    if (is_end)
        st->out.is_finished = true;
    return n;
}

static void write_waiting_trailers(struct h2_stream *st)
{
    struct field fields[H2_TRAILERS_MAX];
    slice_t in = buf_slice(&st->out.trailers);
    size_t n = 0;

    while (in.n > 0 && n < H2_TRAILERS_MAX) {
        struct h2_pair pair;

        memcpy(&pair, in.p, sizeof(pair));
        in = slice_skip(in, sizeof(pair));
        fields[n] = (struct field){.name = slice(in.p, pair.name)};
        fields[n++].value = slice(in.p + pair.name, pair.value);
        in = slice_skip(in, (size_t)pair.name + pair.value);
    }
    if (!h2_write_trailers(st, fields, n))
        (void)write_data(st, slice(NULL, 0), true);
    st->out.is_finished = true;
}

/* What follows when nothing of the content waits any more. */
static void finish(struct h2_stream *st)
{
    if (!st->out.is_finished && st->out.has_trailers && buf_len(&st->out.trailers) > 0)
        write_waiting_trailers(st);
    else if (!st->out.is_finished)
        (void)write_data(st, slice(NULL, 0), true);
    if (st->out.is_finished)
        h2_stream_end_local(st);
}

static uint32_t direct_room(struct h2_stream *st)
{
    struct h2_session *x = st->of;

    if (x->running == 1)
        return UINT32_MAX;
    if (st->out.turn != x->turn) {
        st->out.turn = x->turn;
        st->out.direct = 0;
    }
    return st->out.direct < DIRECT_MAX ? DIRECT_MAX - st->out.direct : 0;
}

/* Past the queue, for as long as it may. */
static slice_t send_directly(struct h2_stream *st, slice_t bytes, bool is_end)
{
    uint32_t room = direct_room(st);

    while (bytes.n > 0 && room > 0 && !conn_is_full(st->of->conn)) {
        slice_t now = slice(bytes.p, bytes.n < room ? bytes.n : room);
        size_t n = write_data(st, now, is_end && now.n == bytes.n);

        if (n == 0)
            break;
        bytes = slice_skip(bytes, n);
        room -= (uint32_t)n;
        st->out.direct += (uint32_t)n;
    }
    return bytes;
}

void h2_send_content(struct h2_stream *st, slice_t bytes, bool is_end)
{
    bool has_trailers = st->out.has_trailers && buf_len(&st->out.trailers) > 0;

    st->out.is_ended = st->out.is_ended || is_end;
    if (buf_len(&st->out.bytes) == 0)
        bytes = send_directly(st, bytes, st->out.is_ended && !has_trailers);
    if (bytes.n > 0) {
        st->of->waiting.bytes += bytes.n;
        if (buf_add_slice(&st->out.bytes, bytes) != OK) {
            st->of->waiting.bytes -= bytes.n;
            h2_stream_give_up(st);
            return;
        }
        h2_want_send(st);
        st->s.is_crowded = h2_is_crowded(st->of);
    } else if (st->out.is_ended && buf_len(&st->out.bytes) == 0) {
        finish(st);
    }
}

void h2_want_send(struct h2_stream *st)
{
    if (list_is_empty(&st->send_node) && buf_len(&st->out.bytes) > 0 && st->out.window > 0) {
        list_push(&st->of->sending, &st->send_node);
        h2_dirty(st->of);
    }
}

void h2_drop_waiting(struct h2_stream *st, size_t n)
{
    buf_consume(&st->out.bytes, n);
    st->of->waiting.bytes -= n;
}

/* One frame of one stream. False: the conn takes nothing any more. */
static bool pump_one(struct h2_stream *st)
{
    bool has_trailers = st->out.has_trailers && buf_len(&st->out.trailers) > 0;
    size_t n = write_data(st, buf_slice(&st->out.bytes), st->out.is_ended && !has_trailers);

    if (n == 0)
        return false;
    h2_drop_waiting(st, n);
    if (buf_len(&st->out.bytes) > 0)
        h2_want_send(st); /* to the end of the row */
    else if (st->out.is_ended)
        finish(st);
    return true;
}

void h2_pump(struct h2_session *x)
{
    struct list *node;

    while (x->out_window > 0 && !conn_is_full(x->conn) && !h2_is_over(x) &&
           (node = list_pop(&x->sending)) != NULL)
        if (!pump_one(CONTAINER_OF(node, struct h2_stream, send_node)))
            break;
}

/* ---- windows for the peer ---- */

/* How much of a window is owed before the peer is told. Where the path is measured it is told in quarters: between a PING
 * and its acknowledgement a window that holds content up is then seen three quarters full at least. */
static uint32_t tell_at(const struct h2_session *x, uint32_t size)
{
    return x->limits.windows != NULL && x->limits.windows->max > 0 ? size / 4 : size / 2;
}

void h2_credit(struct h2_session *x, size_t n)
{
    x->window.owed += (uint32_t)n;
    if (UNLIKELY(x->window.size > x->window.goal))
        h2_path_fit(x);
    if (x->window.owed < tell_at(x, x->window.size) || h2_is_over(x))
        return;
    h2_write_u32(x, H2_WINDOW_UPDATE, 0, x->window.owed);
    x->window.left += x->window.owed;
    x->window.owed = 0;
}

void h2_stream_credit(struct h2_stream *st, size_t n)
{
    struct h2_session *x = st->of;

    h2_credit(x, n);
    if (st->in.is_ended || (st->state != H2_OPEN && st->state != H2_HALF_LOCAL))
        return;
    st->in.owed += (uint32_t)n;
    if (UNLIKELY(st->in.size != STREAM_WINDOW || x->window.stream_size != STREAM_WINDOW))
        h2_path_fit_stream(st);
    if (st->in.owed < tell_at(x, st->in.size) || h2_is_over(x))
        return;
    h2_write_u32(x, H2_WINDOW_UPDATE, st->id, st->in.owed);
    st->in.window += st->in.owed;
    st->in.owed = 0;
}
