/* Frames that carry no content: SETTINGS, PING, GOAWAY, RST_STREAM, WINDOW_UPDATE, PRIORITY,
 * and unknown ones (RFC 9113 6.3 to 6.9). Lengths and stream ids were checked with the frame's
 * header. */
#include "proxy/http2/session.h"

#include "kit/clock.h"

/* ---- streams that are not there ---- */

/* Servers open none: every even id is idle for ever. */
static bool is_idle(const struct h2_session *x, uint32_t id)
{
    return id > x->last_id || id % 2 == 0;
}

bool h2_may_ignore(struct h2_session *x, uint32_t id)
{
    if (is_idle(x, id)) {
        h2_terminate(x, H2_PROTOCOL_ERROR, CLOSE_BAD_PROTOCOL);
        return false;
    }
    switch (h2_recent_get(x, id)) {
    case H2_RECENT_ENDED:
        h2_terminate(x, H2_STREAM_CLOSED, CLOSE_BAD_PROTOCOL);
        return false;
    case H2_RECENT_NEVER:
        h2_terminate(x, H2_PROTOCOL_ERROR, CLOSE_BAD_PROTOCOL);
        return false;
    case H2_RECENT_OPENED: /* what we have reset may still be on its way */
    case H2_RECENT_UNKNOWN:
    default:
        return true;
    }
}

/* ---- SETTINGS ---- */

/* RFC 9113 6.9.2: all streams' windows move with it. */
static void on_initial_window(struct h2_session *x, uint32_t value)
{
    int64_t by = (int64_t)value - x->peer.window;

    if (by == 0)
        return;
    if (x->peer.has_come &&
        !h2_obey(x, flood_spend(&x->flood, FLOOD_INITIAL_WINDOW, clock_now_ms())))
        return; /* H2-18 */
    x->peer.window = value;
    LIST_EACH (node, &x->streams) {
        struct h2_stream *st = CONTAINER_OF(node, struct h2_stream, node);

        if (st->state == H2_IDLE || st->state == H2_CLOSED)
            continue;
        st->out.window += by;
        if (st->out.window > H2_WINDOW_MAX) {
            h2_terminate(x, H2_FLOW_CONTROL_ERROR, CLOSE_BAD_PROTOCOL);
            return;
        }
        h2_want_send(st);
    }
}

static void on_setting(struct h2_session *x, uint16_t id, uint32_t value)
{
    enum h2_error wrong = h2_setting_check(id, value);

    if (id == H2_SET_ENABLE_PUSH && !x->is_server && value != 0)
        wrong = H2_PROTOCOL_ERROR; /* RFC 9113 6.5.2: a server must not */
    if (wrong != H2_NO_ERROR) {
        h2_terminate(x, wrong, CLOSE_BAD_PROTOCOL);
        return;
    }
    switch (id) {
    case H2_SET_HEADER_TABLE_SIZE:
        hpack_encoder_resize(&x->encoder, value);
        break;
    case H2_SET_MAX_CONCURRENT_STREAMS:
        x->peer.streams_max = value;
        break;
    case H2_SET_INITIAL_WINDOW_SIZE:
        on_initial_window(x, value);
        break;
    default: /* our frames are of the least size that every peer takes; the rest is advice or
                unknown */
        break;
    }
}

static void on_settings(struct h2_session *x, const struct h2_frame *f, slice_t payload)
{
    if (h2_frame_has(f, H2_FLAG_ACK))
        return;
    if (payload.n > H2_SETTINGS_LENGTH_MAX) {
        h2_flooded(x, "SETTINGS");
        return;
    }
    for (; payload.n > 0 && !x->is_terminating; payload = slice_skip(payload, H2_SETTING_LEN))
        on_setting(x, (uint16_t)(payload.p[0] << 8 | payload.p[1]), h2_get_u32(payload.p + 2));
    if (x->is_terminating)
        return;
    h2_write_control(x, H2_SETTINGS, H2_FLAG_ACK, 0, NULL, 0);
    x->peer.has_come = true;
    if (!x->is_server && x->back.conf.on_ready != NULL && !x->back.is_retired)
        x->back.conf.on_ready(x->back.conf.arg, &x->back);
}

/* ---- PING, GOAWAY ---- */

static void on_ping(struct h2_session *x, const struct h2_frame *f, slice_t payload)
{
    if (!h2_frame_has(f, H2_FLAG_ACK)) {
        h2_write_control(x, H2_PING, H2_FLAG_ACK, 0, payload.p, payload.n);
        return;
    }
    x->ping_sent_ms = 0;
    if (h2_path_on_ack(x, payload))
        return;
    if (x->leaving == H2_NOTICE)
        h2_leave(x);
}

/* Requests behind the last id were not processed, so RFC 9113 6.8 says. */
static void on_goaway(struct h2_session *x, slice_t payload)
{
    uint32_t last = h2_get_u32(payload.p) & H2_STREAM_ID_MAX;

    if (x->is_server)
        return;
    /* It may not rise (RFC 9113 6.8), but nginx raises it when requests cross its GOAWAY: what was given up stays given up, and
     * what runs goes on. */
    if (last < x->peer_last_id)
        x->peer_last_id = last;
    last = x->peer_last_id;
    http_back_set_retired(&x->back);
    LIST_EACH_SAFE (node, &x->streams) {
        struct h2_stream *st = CONTAINER_OF(node, struct h2_stream, node);

        if (st->id <= last || st->state == H2_CLOSED)
            continue;
        h2_stream_enter(st, H2_CLOSED);
        if (st->is_held)
            h2_stream_doom(st, STREAM_REFUSED);
        else
            h2_stream_let_go(st);
    }
    h2_dirty(x); /* without streams it closes */
}

/* ---- RST_STREAM, WINDOW_UPDATE, PRIORITY ---- */

/* RST_STREAM and WINDOW_UPDATE may come on a closed stream, never on an idle one (RFC
 * 9113 5.1). */

static void on_rst_stream(struct h2_session *x, uint32_t id, slice_t payload)
{
    struct h2_stream *st = h2_stream_find(x, id);

    if (is_idle(x, id))
        h2_terminate(x, H2_PROTOCOL_ERROR, CLOSE_BAD_PROTOCOL);
    else if (st != NULL)
        h2_stream_on_reset(st, h2_get_u32(payload.p));
    else
        h2_recent_end(x, id);
}

static void on_window_update(struct h2_session *x, uint32_t id, slice_t payload)
{
    uint32_t by = h2_get_u32(payload.p) & H2_WINDOW_MAX;
    struct h2_stream *st = id != 0 ? h2_stream_find(x, id) : NULL;

    if (id != 0 && is_idle(x, id)) {
        h2_terminate(x, H2_PROTOCOL_ERROR, CLOSE_BAD_PROTOCOL);
    } else if (id == 0) {
        x->out_window += by;
        if (by == 0 || x->out_window > H2_WINDOW_MAX)
            h2_terminate(x, by == 0 ? H2_PROTOCOL_ERROR : H2_FLOW_CONTROL_ERROR,
                         CLOSE_BAD_PROTOCOL);
        else if (!list_is_empty(&x->sending))
            h2_dirty(x);
    } else if (st != NULL) {
        st->out.window += by;
        if (by == 0 || st->out.window > H2_WINDOW_MAX)
            h2_stream_break(st, REFUSED_FRAME,
                            by == 0 ? H2_PROTOCOL_ERROR : H2_FLOW_CONTROL_ERROR);
        else
            h2_want_send(st);
    }
}

/* Ignored, but for what cannot be (RFC 7540 5.3.1). One of a wrong length is an error of its
 * stream, which idle and closed ones do not have. */
static void on_priority(struct h2_session *x, const struct h2_frame *f, slice_t payload)
{
    struct h2_stream *st = h2_stream_find(x, f->id);
    enum h2_error wrong = payload.n != 5 ? H2_FRAME_SIZE_ERROR
                          : (h2_get_u32(payload.p) & H2_STREAM_ID_MAX) == f->id
                              ? H2_PROTOCOL_ERROR
                              : H2_NO_ERROR;

    if (wrong == H2_NO_ERROR)
        return;
    if (st != NULL)
        h2_stream_break(st, REFUSED_FRAME, wrong);
    else
        h2_terminate(x, wrong, CLOSE_BAD_PROTOCOL);
}

void h2_on_control(struct h2_session *x, const struct h2_frame *f, slice_t payload)
{
    switch (f->type) {
    case H2_PRIORITY:
        on_priority(x, f, payload);
        break;
    case H2_RST_STREAM:
        on_rst_stream(x, f->id, payload);
        break;
    case H2_SETTINGS:
        on_settings(x, f, payload);
        break;
    case H2_PING:
        on_ping(x, f, payload);
        break;
    case H2_GOAWAY:
        on_goaway(x, payload);
        break;
    case H2_WINDOW_UPDATE:
        on_window_update(x, f->id, payload);
        break;
    default: /* unknown: RFC 9113 4.1 */
        break;
    }
}
