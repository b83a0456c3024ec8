/* An HTTP/2 connection: start, flush, timers, end. See session.h. */
#include "proxy/http2/session.h"

#include "kit/clock.h"
#include "proxy/http2/memory.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#define SESSION_MAGIC 0x68327373u
#define OUT_QUEUE_MAX                                                                          \
    1000 /* control frames that wait for the peer to read (hardening.md 2.2) */
#define ENCODER_TABLE_MAX 4096
#define TICK_MS           1000
#define NOTICE_MS         1000 /* a drain's notice waits at most this long for its PING */

struct h2_session *h2_session_from(void *arg)
{
    struct h2_session *x = arg;

    BUG_ON(x == NULL || x->magic != SESSION_MAGIC);
    return x;
}

/* ---- streams that were ---- */

void h2_recent_open(struct h2_session *x, int32_t id)
{
    int32_t from = x->last_id;

    if (id <= from)
        return;
    /* What lies between was skipped and can never be used any more (RFC 9113 5.1.1). */
    if (id - from > 2 * H2_RECENT)
        from = id - 2 * H2_RECENT;
    for (int32_t i = from / 2 + 1; i < id / 2; i++)
        x->recent[i % H2_RECENT] = H2_RECENT_NEVER;
    x->recent[id / 2 % H2_RECENT] = H2_RECENT_OPENED;
    x->last_id = id;
}

enum h2_recent h2_recent_get(const struct h2_session *x, int32_t id)
{
    if (id > x->last_id || (x->last_id - id) / 2 >= H2_RECENT)
        return H2_RECENT_UNKNOWN;
    return (enum h2_recent)x->recent[id / 2 % H2_RECENT];
}

void h2_recent_end(struct h2_session *x, int32_t id)
{
    if (id % 2 == 1 && h2_recent_get(x, id) == H2_RECENT_OPENED)
        x->recent[id / 2 % H2_RECENT] = H2_RECENT_ENDED;
}

/* ---- out ---- */

void h2_dirty(struct h2_session *x)
{
    if (x->is_dirty || x->is_gone)
        return;
    x->is_dirty = true;
    event_active(&x->flush, EV_TIMEOUT, 0);
}

void h2_terminate(struct h2_session *x, uint32_t http2_error, enum close_reason why)
{
    if (x->is_terminating)
        return;
    x->is_terminating = true;
    x->close_why = why;
    (void)nghttp2_session_terminate_session(
        x->ng, http2_error); /* without memory: closed all the same */
    h2_dirty(x);
}

void h2_leave(struct h2_session *x)
{
    if (x->leaving == H2_LEAVING)
        return;
    x->leaving = H2_LEAVING;
    (void)nghttp2_submit_goaway(x->ng, NGHTTP2_FLAG_NONE,
                                nghttp2_session_get_last_proc_stream_id(x->ng),
                                NGHTTP2_NO_ERROR, NULL, 0);
    h2_dirty(x);
}

static int before_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct h2_session *x = h2_session_from(arg);
    struct h2_stream *st = frame->hd.type == NGHTTP2_HEADERS
                               ? nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id)
                               : NULL;

    if (st != NULL && !st->out.head_handed) {
        st->out.head_handed = true;
        st->out.head_at = x->handed;
    }
    return 0;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct h2_session *x = h2_session_from(arg);
    bool ends = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
                (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    struct h2_stream *st;

    if (frame->hd.type == NGHTTP2_DATA)
        x->flood.data_sent++;
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR &&
        !x->is_terminating) {
        /* The library's own decision. */
        x->is_terminating = true;
        x->close_why = frame->goaway.error_code == NGHTTP2_ENHANCE_YOUR_CALM
                           ? CLOSE_FLOOD
                           : CLOSE_BAD_PROTOCOL;
    }
    st = ends || frame->hd.type == NGHTTP2_HEADERS
             ? nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id)
             : NULL;
    if (st != NULL && st->out.heads_queued > 0 && frame->hd.type == NGHTTP2_HEADERS)
        st->out.heads_queued--;
    if (st != NULL && st->out.is_cut_behind_head && st->out.heads_queued == 0 && !ends) {
        st->out.is_cut_behind_head = false;
        (void)nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, st->id, st->out.cut_code);
    }
    if (st != NULL && ends) {
        st->out.is_finished = true;
        /* The answer is out and nobody wants the rest of the request (RFC 9113 8.1). */
        if (st->s.is_front && !st->is_held && !st->in.is_ended)
            (void)nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_NO_ERROR);
    }
    return 0;
}

/* A request that the library will not send any more: GOAWAY came, or ids ran out. */
static int on_frame_not_send(nghttp2_session *ng, const nghttp2_frame *frame, int error,
                             void *arg)
{
    struct h2_session *x = h2_session_from(arg);

    (void)error;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    LIST_EACH (node, &x->streams) {
        struct h2_stream *st = CONTAINER_OF(node, struct h2_stream, node);

        if (st->id != frame->hd.stream_id)
            continue;
        /* The library has opened the stream and closes it behind this: by then it is not ours. */
        (void)nghttp2_session_set_stream_user_data(ng, st->id, NULL);
        st->is_open = false;
        if (st->is_held)
            h2_stream_doom(st, STREAM_REFUSED);
        else
            h2_stream_let_go(st);
        break;
    }
    return 0;
}

static void session_free(struct h2_session *x)
{
    (void)event_del(&x->flush);
    timer_stop(&x->tick);
    h2_stream_free_spares(x);
    /* nghttp2 1.52 aborts in its destructor when an allocation has failed while it made a
     * frame. What it holds is then given up instead: the process and its other connections
     * live. */
    if (!x->is_broken)
        nghttp2_session_del(x->ng);
    x->magic = 0;
    free(x);
}

/* Hands frames to the conn. False: the session has ended. */
static bool hand_over(struct h2_session *x)
{
    while (!conn_is_full(x->conn)) {
        const uint8_t *p;
        ssize_t n = nghttp2_session_mem_send(x->ng, &p);

        if (n == 0 || x->is_gone)
            break;
        if (n < 0) {
            x->is_broken = n == NGHTTP2_ERR_NOMEM;
            conn_close(x->conn, n == NGHTTP2_ERR_NOMEM ? CLOSE_LIMIT : CLOSE_INTERNAL);
            return false;
        }
        x->handed += (uint64_t)n;
        conn_write(x->conn, slice(p, (size_t)n));
    }
    return !x->is_gone;
}

/* A retired client connection without streams takes its leave. */
static void say_bye(struct h2_session *x)
{
    if (x->is_server || !x->back.is_retired || x->running > 0 || x->has_said_bye)
        return;
    x->has_said_bye = true;
    (void)nghttp2_session_terminate_session(x->ng, NGHTTP2_NO_ERROR);
}

static void flush(struct h2_session *x)
{
    h2_stream_fail_doomed(x);
    say_bye(x);
    if (x->is_gone || conn_is_closing(x->conn) || !hand_over(x))
        return;
    h2_stream_report_sent(x);
    if (x->is_gone || conn_is_closing(x->conn))
        return;
    if (nghttp2_session_want_write(x->ng) != 0 && !conn_is_full(x->conn))
        h2_dirty(x);
    else if (nghttp2_session_want_read(x->ng) == 0 && nghttp2_session_want_write(x->ng) == 0 &&
             x->leaving != H2_NOTICE)
        conn_close_gently(x->conn, x->close_why);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
    struct h2_session *x = h2_session_from(arg);

    (void)fd, (void)what;
    x->is_dirty = false;
    x->depth++;
    flush(x);
    if (--x->depth == 0 && x->is_gone)
        session_free(x);
}

/* ---- in ---- */

/* How many of the bytes may go to the library together: up to the end of the next frame. Looks
 * at the frame's header first. 0: the connection is being ended. */
static size_t next_piece(struct h2_session *x, slice_t in)
{
    nghttp2_frame_hd hd = {0};
    const uint8_t *h = x->frame.header;
    size_t n = sizeof(x->frame.header) - x->frame.have;

    if (x->frame.preface_left > 0) {
        n = in.n < x->frame.preface_left ? in.n : x->frame.preface_left;
        x->frame.preface_left -= (uint32_t)n;
        return n;
    }
    if (x->frame.payload_left == 0) {
        n = in.n < n ? in.n : n;
        memcpy(x->frame.header + x->frame.have, in.p, n);
        x->frame.have += (unsigned)n;
        if (x->frame.have < sizeof(x->frame.header))
            return n;
        x->frame.have = 0;
        hd.length = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2];
        hd.type = h[3];
        hd.flags = h[4];
        hd.stream_id = (int32_t)(((uint32_t)h[5] << 24 | (uint32_t)h[6] << 16 |
                                  (uint32_t)h[7] << 8 | h[8]) &
                                 0x7fffffff);
        if (!h2_on_frame_header(x, &hd))
            return 0;
        x->frame.payload_left = (uint32_t)hd.length;
    } else {
        n = 0;
    }
    in = slice_skip(in, n);
    if (in.n > x->frame.payload_left)
        in.n = x->frame.payload_left;
    x->frame.payload_left -= (uint32_t)in.n;
    return n + in.n;
}

static void end_for(struct h2_session *x, ssize_t error)
{
    struct conn *c = x->conn;

    switch (error) {
    case NGHTTP2_ERR_FLOODED:
        conn_close_gently(c, CLOSE_FLOOD);
        break;
    case NGHTTP2_ERR_NOMEM:
        x->is_broken = true;
        conn_close_gently(c, CLOSE_LIMIT);
        break;
    default: /* the preface was wrong, or a block could not be decoded */
        conn_close_gently(c, CLOSE_BAD_PROTOCOL);
        break;
    }
}

static size_t on_bytes(struct conn *c, slice_t bytes)
{
    struct h2_session *x = h2_session_from(conn_owner(c));
    slice_t in = bytes;

    x->last_in_ms = clock_now_ms();
    x->ping_sent_ms = 0; /* whatever came shows that the peer lives */
    while (in.n > 0 && !x->is_terminating && !conn_is_closing(c)) {
        size_t piece = next_piece(x, in);
        ssize_t n = piece > 0 ? nghttp2_session_mem_recv(x->ng, in.p, piece) : 0;

        if (n < 0 && !x->is_terminating && !conn_is_closing(c))
            end_for(x, n);
        in = slice_skip(in, piece);
    }
    if (conn_is_closing(c))
        return bytes.n;
    if (nghttp2_session_get_outbound_queue_size(x->ng) > OUT_QUEUE_MAX + x->running) {
        x->flood.over = "OUTPUT";
        conn_close_gently(c, CLOSE_FLOOD);
        return bytes.n;
    }
    if (nghttp2_session_want_write(x->ng) != 0 || nghttp2_session_want_read(x->ng) == 0)
        h2_dirty(x);
    return bytes.n;
}

static void on_eof(struct conn *c, bool is_clean)
{
    struct h2_session *x = h2_session_from(conn_owner(c));

    conn_close(c, is_clean || x->running == 0 ? CLOSE_PEER_CLOSED : CLOSE_PEER_TRUNCATED);
}

static void on_drained(struct conn *c)
{
    h2_dirty(h2_session_from(conn_owner(c)));
}

static void on_sent(struct conn *c, size_t n)
{
    h2_session_from(conn_owner(c))->left += n;
}

static void fail_streams(struct h2_session *x, enum close_reason why)
{
    bool is_peer = why == CLOSE_PEER_CLOSED || why == CLOSE_PEER_RESET;

    LIST_EACH_SAFE (node, &x->streams) {
        struct h2_stream *st = CONTAINER_OF(node, struct h2_stream, node);

        st->is_open = false;
        if (st->is_held)
            h2_stream_fail(st, x->is_server && is_peer ? STREAM_CANCELLED : STREAM_LOST, 0,
                           NULL, close_name(why));
        else
            h2_stream_let_go(st);
    }
}

static void on_closed(struct conn *c, enum close_reason why)
{
    struct h2_session *x = h2_session_from(conn_owner(c));

    x->is_gone = true;
    x->back.is_retired = true;
    timer_stop(&x->tick);
    fail_streams(x, why);
    if (x->is_server && x->front.on_closed != NULL)
        x->front.on_closed(x->front.arg, c, (int)why);
    if (!x->is_server && x->back.conf.on_closed != NULL)
        x->back.conf.on_closed(x->back.conf.arg, &x->back, (int)why);
    if (x->depth == 0)
        session_free(x);
}

static const struct conn_events events = {
    .on_bytes = on_bytes,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_sent = on_sent,
    .on_closed = on_closed,
};

/* ---- time ---- */

void h2_watch(struct h2_session *x)
{
    if (!timer_is_armed(&x->tick))
        timer_once(&x->tick, x->tick_ms);
}

static void on_tick(void *arg)
{
    struct h2_session *x = h2_session_from(arg);
    uint64_t now = clock_now_ms();

    if (!x->is_terminating && x->block != NULL &&
        now - x->block_since_ms >= x->limits.header_timeout_ms)
        h2_terminate(x, NGHTTP2_ENHANCE_YOUR_CALM, CLOSE_HEAD_TIMEOUT);
    else if (!x->got_settings && now - x->started_ms >= x->limits.header_timeout_ms)
        h2_terminate(x, NGHTTP2_SETTINGS_TIMEOUT, CLOSE_HEAD_TIMEOUT);
    else if (x->leaving == H2_NOTICE && now - x->notice_ms >= NOTICE_MS)
        h2_leave(x);
    if (x->running == 0)
        h2_stream_free_spares(x);
    if (!x->is_server)
        h2_client_tick(x, now); /* may end the connection: the last thing but arming */
    else if (x->running > 0 || x->block != NULL || !x->got_settings || x->leaving == H2_NOTICE)
        h2_watch(x);
}

/* ---- life ---- */

static int make_session(struct h2_session *x)
{
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *opt = NULL;
    int rv = nghttp2_session_callbacks_new(&cb);

    if (rv == 0)
        rv = nghttp2_option_new(&opt);
    if (rv == 0) {
        h2_receive_callbacks(cb);
        nghttp2_session_callbacks_set_before_frame_send_callback(cb, before_frame_send);
        nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
        nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_frame_not_send);
        nghttp2_session_callbacks_set_send_data_callback(cb, h2_stream_send_data);
        nghttp2_option_set_no_auto_window_update(opt, 1);
        nghttp2_option_set_no_closed_streams(opt, 1);
        nghttp2_option_set_max_deflate_dynamic_table_size(opt, ENCODER_TABLE_MAX);
        nghttp2_option_set_peer_max_concurrent_streams(opt, 100);
        nghttp2_option_set_max_outbound_ack(opt, OUT_QUEUE_MAX);
        rv = x->is_server ? nghttp2_session_server_new3(&x->ng, cb, x, opt, h2_memory())
                          : nghttp2_session_client_new3(&x->ng, cb, x, opt, h2_memory());
    }
    nghttp2_option_del(opt);
    nghttp2_session_callbacks_del(cb);
    return rv;
}

static int say_settings(struct h2_session *x)
{
    nghttp2_settings_entry s[4] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, x->limits.head_max},
        {x->is_server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
         x->is_server ? x->limits.streams_max : 0},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}, /* server: see share_fairly in receive.c */
    };
    int rv = nghttp2_submit_settings(x->ng, NGHTTP2_FLAG_NONE, s, x->is_server ? 4 : 3);

    return rv != 0 ? rv
                   : nghttp2_session_set_local_window_size(x->ng, NGHTTP2_FLAG_NONE, 0,
                                                           H2_CONN_WINDOW);
}

static uint64_t tick_for(uint64_t limit_ms)
{
    uint64_t ms = limit_ms / 2;

    return ms < 5 ? 5 : ms > TICK_MS ? TICK_MS : ms;
}

err_t h2_session_start(struct h2_session *x, struct conn *c)
{
    uint64_t now = clock_now_ms();

    x->magic = SESSION_MAGIC;
    x->conn = c;
    x->close_why = CLOSE_DONE;
    x->frame.preface_left = x->is_server ? NGHTTP2_CLIENT_MAGIC_LEN : 0;
    x->started_ms = x->last_in_ms = now;
    x->tick_ms = tick_for(x->limits.header_timeout_ms);
    if (!x->is_server && tick_for(x->ping_wait_ms) < x->tick_ms)
        x->tick_ms = tick_for(x->ping_wait_ms);
    flood_init(&x->flood, now);
    list_init(&x->streams);
    list_init(&x->spare);
    list_init(&x->sent);
    list_init(&x->doomed);
    timer_init(&x->tick, net_base(conn_net(c)), on_tick, x);
    if (event_assign(&x->flush, net_base(conn_net(c)), -1, 0, on_flush, x) != 0)
        return ERR_OF(NOMEM);
    if (make_session(x) != 0)
        return ERR_OF(NOMEM);
    if (say_settings(x) != 0) {
        nghttp2_session_del(x->ng);
        return ERR_OF(NOMEM);
    }
    conn_own(c, &events, x);
    h2_watch(x);
    h2_dirty(x);
    return OK;
}
