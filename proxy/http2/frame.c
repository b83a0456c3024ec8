/* What can be said about a frame without knowing the connection: see frame.h. */
#include "proxy/http2/frame.h"

static bool is_length_wrong(const struct h2_frame *f)
{
    switch (f->type) {
    case H2_PRIORITY:
        return f->length != 5;
    case H2_RST_STREAM:
    case H2_WINDOW_UPDATE:
        return f->length != 4;
    case H2_SETTINGS:
        return h2_frame_has(f, H2_FLAG_ACK) ? f->length != 0 : f->length % H2_SETTING_LEN != 0;
    case H2_PING:
        return f->length != H2_PING_LEN;
    case H2_GOAWAY:
        return f->length < 8;
    default:
        return false;
    }
}

/* Whether frames of a type belong to a stream (1), to the connection (0) or to either (-1). */
static int belongs_to_stream(uint8_t type)
{
    switch (type) {
    case H2_DATA:
    case H2_HEADERS:
    case H2_PRIORITY:
    case H2_RST_STREAM:
    case H2_PUSH_PROMISE:
    case H2_CONTINUATION:
        return 1;
    case H2_SETTINGS:
    case H2_PING:
    case H2_GOAWAY:
        return 0;
    default:
        return -1;
    }
}

enum h2_error h2_frame_check(const struct h2_frame *f, bool *is_stream_error)
{
    int wants_stream = belongs_to_stream(f->type);

    *is_stream_error = false;
    if (f->length > H2_FRAME_MAX)
        return H2_FRAME_SIZE_ERROR;
    if (wants_stream >= 0 && (f->id != 0) != (wants_stream == 1))
        return H2_PROTOCOL_ERROR;
    if (!is_length_wrong(f))
        return H2_NO_ERROR;
    *is_stream_error = f->type == H2_PRIORITY; /* RFC 9113 6.3 */
    return H2_FRAME_SIZE_ERROR;
}

enum h2_error h2_frame_unpad(const struct h2_frame *f, slice_t *payload, uint32_t *depends_on)
{
    slice_t s = *payload;
    size_t pad = 0;

    *depends_on = 0;
    if (h2_frame_has(f, H2_FLAG_PADDED)) {
        if (s.n < 1)
            return H2_FRAME_SIZE_ERROR;
        pad = s.p[0];
        s = slice_skip(s, 1);
    }
    if (h2_frame_has(f, H2_FLAG_PRIORITY)) {
        if (s.n < 5)
            return H2_FRAME_SIZE_ERROR;
        *depends_on = h2_get_u32(s.p) & H2_STREAM_ID_MAX;
        s = slice_skip(s, 5);
    }
    if (pad > s.n)
        return H2_PROTOCOL_ERROR;
    s.n -= pad;
    *payload = s;
    return H2_NO_ERROR;
}

enum h2_error h2_setting_check(uint16_t id, uint32_t value)
{
    switch (id) {
    case H2_SET_ENABLE_PUSH:
        return value > 1 ? H2_PROTOCOL_ERROR : H2_NO_ERROR;
    case H2_SET_INITIAL_WINDOW_SIZE:
        return value > H2_WINDOW_MAX ? H2_FLOW_CONTROL_ERROR : H2_NO_ERROR;
    case H2_SET_MAX_FRAME_SIZE:
        return value < 16384 || value > 16777215 ? H2_PROTOCOL_ERROR : H2_NO_ERROR;
    default:
        return H2_NO_ERROR;
    }
}
