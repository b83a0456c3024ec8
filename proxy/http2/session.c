/* An HTTP/2 connection: start, the end of a turn, timers, end. See session.h. */
#include "proxy/http2/session.h"

#include "kit/clock.h"
#include "kit/log.h"

#include <stdlib.h>
#include <string.h>

#define SESSION_MAGIC 0x68327373u
#define TICK_MS       1000
#define NOTICE_MS     1000 /* a drain's notice waits at most this long for its PING */
#define BLOCK_MS      5000 /* a header block that has begun is complete by then (hardening.md 2.2) \
                            */
#define PEER_STREAMS 100 /* what a server is assumed to take before its SETTINGS */

struct h2_session *h2_session_from(void *arg)
{
    struct h2_session *x = arg;

    BUG_ON(x == NULL || x->magic != SESSION_MAGIC);
    return x;
}

/* ---- streams that were ---- */

void h2_recent_open(struct h2_session *x, uint32_t id)
{
    uint32_t from = x->last_id;

    if (id <= from)
        return;
    /* What lies between was skipped and can never be used any more (RFC 9113 5.1.1). */
    if (id - from > 2 * H2_RECENT)
        from = id - 2 * H2_RECENT;
    for (uint32_t i = from / 2 + (from % 2); i < id / 2; i++)
        x->recent[i % H2_RECENT] = H2_RECENT_NEVER;
    x->recent[id / 2 % H2_RECENT] = H2_RECENT_OPENED;
    x->last_id = id;
}

enum h2_recent h2_recent_get(const struct h2_session *x, uint32_t id)
{
    if (id > x->last_id || (x->last_id - id) / 2 >= H2_RECENT)
        return H2_RECENT_UNKNOWN;
    return (enum h2_recent)x->recent[id / 2 % H2_RECENT];
}

void h2_recent_end(struct h2_session *x, uint32_t id)
{
    if (id % 2 == 1 && h2_recent_get(x, id) == H2_RECENT_OPENED)
        x->recent[id / 2 % H2_RECENT] = H2_RECENT_ENDED;
}

/* ---- the end, said ---- */

void h2_terminate(struct h2_session *x, enum h2_error code, enum close_reason why)
{
    if (x->is_terminating || x->is_gone)
        return;
    h2_write_goaway(x, x->is_server ? x->last_id : 0, code);
    x->is_terminating = true;
    x->close_why = why;
    log_debug("http2 connection is ended", "reason=%s error=%d%s%s", close_name(why), (int)code,
              x->flood.over != NULL ? " over=" : "",
              x->flood.over != NULL ? x->flood.over : "");
    h2_dirty(x);
}

void h2_flooded(struct h2_session *x, const char *over)
{
    if (x->flood.over == NULL)
        x->flood.over = over;
    h2_terminate(x, H2_ENHANCE_YOUR_CALM, CLOSE_FLOOD);
}

bool h2_obey(struct h2_session *x, enum flood_verdict verdict)
{
    switch (verdict) {
    case FLOOD_FINE:
        break;
    case FLOOD_SOFT:
        if (x->is_server) {
            h2_notice(x);
        } else {
            http_back_set_retired(&x->back);
            h2_dirty(x);
        }
        break;
    case FLOOD_OVER:
        h2_flooded(x, x->flood.over);
        return false;
    }
    return !h2_is_over(x);
}

void h2_notice(struct h2_session *x)
{
    static const uint8_t ping[H2_PING_LEN] = {0};

    if (x->leaving != H2_SERVING || x->is_terminating)
        return;
    x->leaving = H2_NOTICE;
    x->notice_ms = clock_now_ms();
    h2_write_goaway(x, H2_STREAM_ID_MAX, H2_NO_ERROR);
    h2_write_control(x, H2_PING, 0, 0, ping, sizeof(ping));
    h2_watch(x);
    h2_dirty(x);
}

void h2_leave(struct h2_session *x)
{
    if (x->leaving == H2_LEAVING || x->is_terminating)
        return;
    x->leaving = H2_LEAVING;
    h2_write_goaway(x, x->last_id, H2_NO_ERROR);
    h2_dirty(x);
}

/* A retired client connection without streams takes its leave. */
static bool says_bye(struct h2_session *x)
{
    if (x->is_server || !x->back.is_retired || x->running > 0)
        return false;
    if (!x->has_said_bye && !x->is_terminating)
        h2_write_goaway(x, 0, H2_NO_ERROR);
    x->has_said_bye = true;
    return true;
}

/* ---- the end of a turn ---- */

static void on_turn(struct conn *c)
{
    struct h2_session *x = h2_session_from(conn_owner(c));

    x->turn++;
    x->new_in_turn = x->small_in_turn = 0;
    if (x->is_held_up)
        h2_take_held_up(x);
    h2_stream_fail_doomed(x);
    if (!x->is_terminating) {
        h2_pump(x);
        h2_stream_report_sent(x);
    }
    if (conn_is_closing(c))
        return;
    if (h2_control_is_full(x))
        h2_flooded(x, "OUTPUT");
    if (x->is_terminating || says_bye(x) || (x->leaving == H2_LEAVING && x->running == 0))
        conn_close_gently(c, x->close_why);
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

/* ---- gone ---- */

static void session_free(struct h2_session *x)
{
    timer_stop(&x->tick);
    h2_path_done(x);
    h2_stream_free_spares(x);
    hpack_decoder_done(&x->decoder);
    hpack_encoder_done(&x->encoder);
    buf_done(&x->in.part);
    buf_done(&x->block.bytes);
    x->magic = 0;
    free(x);
}

static void fail_streams(struct h2_session *x, enum close_reason why)
{
    bool is_peer = why == CLOSE_PEER_CLOSED || why == CLOSE_PEER_RESET;
    struct list *node;

    while ((node = list_pop(&x->streams)) != NULL) {
        struct h2_stream *st = CONTAINER_OF(node, struct h2_stream, node);

        if (st->state != H2_CLOSED)
            h2_stream_enter(st, H2_CLOSED);
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
    session_free(x);
}

static const struct conn_events events = {
    .on_bytes = h2_on_bytes,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_sent = on_sent,
    .on_turn = on_turn,
    .on_closed = on_closed,
};

/* ---- time ---- */

void h2_watch(struct h2_session *x)
{
    if (x->is_watching)
        return;
    x->is_watching = true;
    timer_once(&x->tick, x->tick_ms);
}

static uint64_t block_limit(const struct h2_session *x)
{
    return x->limits.header_timeout_ms < BLOCK_MS ? x->limits.header_timeout_ms : BLOCK_MS;
}

static void on_tick(void *arg)
{
    struct h2_session *x = h2_session_from(arg);
    uint64_t now = clock_now_ms();

    x->is_watching = false;
    if (x->block.is_open && now - x->block.since_ms >= block_limit(x))
        h2_terminate(x, H2_ENHANCE_YOUR_CALM, CLOSE_HEAD_TIMEOUT);
    else if (!x->peer.has_come && now - x->started_ms >= x->limits.header_timeout_ms)
        h2_terminate(x, H2_SETTINGS_TIMEOUT, CLOSE_HEAD_TIMEOUT);
    else if (x->leaving == H2_NOTICE && now - x->notice_ms >= NOTICE_MS)
        h2_leave(x);
    else if (!x->is_terminating)
        h2_look_for_stalls(x, now);
    if (x->running == 0) {
        h2_stream_free_spares(x);
        hpack_decoder_release(&x->decoder);
        h2_path_forget(x);
    }
    if (!x->is_server)
        h2_client_tick(x, now); /* may end the connection: the last thing but arming */
    else if (x->running > 0 || x->block.is_open || !x->peer.has_come || x->leaving == H2_NOTICE)
        h2_watch(x);
}

/* ---- life ---- */

static void say_settings(struct h2_session *x)
{
    const struct {
        uint16_t id;
        uint32_t value;
    } say[] = {
        {H2_SET_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
        {H2_SET_MAX_HEADER_LIST_SIZE, x->limits.head_max},
        {x->is_server ? H2_SET_MAX_CONCURRENT_STREAMS : H2_SET_ENABLE_PUSH,
         x->is_server ? x->limits.streams_max : 0},
        {H2_SET_NO_RFC7540_PRIORITIES,
         1}, /* streams take turns, whatever the peer wishes (H2-07) */
    };
    size_t n = x->is_server ? 4 : 3;
    uint8_t payload[4 * H2_SETTING_LEN], *p = payload;

    for (size_t i = 0; i < n; i++) {
        *p++ = (uint8_t)(say[i].id >> 8);
        *p++ = (uint8_t)say[i].id;
        p = h2_put_u32(p, say[i].value);
    }
    x->handed = conn_owed(x->conn); /* a transport header is on its way, too */
    if (!x->is_server) {
        conn_write(x->conn, SLICE_LIT(H2_PREFACE));
        x->handed += H2_PREFACE_LEN;
    }
    h2_write_control(x, H2_SETTINGS, 0, 0, payload, n * H2_SETTING_LEN);
    h2_write_u32(x, H2_WINDOW_UPDATE, 0, H2_CONN_WINDOW - H2_WINDOW_DEFAULT);
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
    x->in.preface_left = x->is_server ? H2_PREFACE_LEN : 0;
    x->started_ms = x->last_in_ms = now;
    x->tick_ms = tick_for(x->limits.header_timeout_ms);
    if (!x->is_server && tick_for(x->ping_wait_ms) < x->tick_ms)
        x->tick_ms = tick_for(x->ping_wait_ms);
    if (x->limits.stall_ms != 0 && tick_for(x->limits.stall_ms) < x->tick_ms)
        x->tick_ms = tick_for(x->limits.stall_ms);
    x->window.left = x->window.size = x->window.goal = H2_CONN_WINDOW;
    x->window.stream_size = STREAM_WINDOW;
    x->out_window = x->peer.window = H2_WINDOW_DEFAULT;
    x->peer.streams_max = PEER_STREAMS;
    x->peer_last_id = H2_STREAM_ID_MAX;
    flood_init(&x->flood, now);
    hpack_decoder_init(&x->decoder, HPACK_TABLE_MAX);
    hpack_encoder_init(&x->encoder);
    buf_init(&x->in.part, 0);
    buf_init(&x->block.bytes, 0);
    list_init(&x->streams);
    list_init(&x->spare);
    list_init(&x->sending);
    list_init(&x->sent);
    list_init(&x->doomed);
    timer_init(&x->tick, net_base(conn_net(c)), on_tick, x);
    conn_own(c, &events, x);
    say_settings(x);
    h2_watch(x);
    return OK;
}
