/* HTTP/2 frames as bytes (RFC 9113 sections 4 and 6): pure functions, no state, nothing
 * allocated. What a frame means for a stream or a connection is session.c's and receive.c's. */
#ifndef PROXY_HTTP2_FRAME_H
#define PROXY_HTTP2_FRAME_H

#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define H2_PREFACE             "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define H2_PREFACE_LEN         24
#define H2_FRAME_HEADER        9
#define H2_FRAME_MAX           16384 /* SETTINGS_MAX_FRAME_SIZE: what we take and what we send */
#define H2_WINDOW_MAX          0x7fffffff
#define H2_WINDOW_DEFAULT      65535
#define H2_SETTING_LEN         6
#define H2_PING_LEN            8
#define H2_STREAM_ID_MAX       0x7fffffffu
#define H2_SETTINGS_LENGTH_MAX (32 * H2_SETTING_LEN)

enum h2_frame_type {
    H2_DATA,
    H2_HEADERS,
    H2_PRIORITY,
    H2_RST_STREAM,
    H2_SETTINGS,
    H2_PUSH_PROMISE,
    H2_PING,
    H2_GOAWAY,
    H2_WINDOW_UPDATE,
    H2_CONTINUATION,
    H2_FRAME_TYPES /* the first that is unknown */
};

enum h2_frame_flag {
    H2_FLAG_END_STREAM = 0x1,
    H2_FLAG_ACK = 0x1,
    H2_FLAG_END_HEADERS = 0x4,
    H2_FLAG_PADDED = 0x8,
    H2_FLAG_PRIORITY = 0x20
};

enum h2_setting {
    H2_SET_HEADER_TABLE_SIZE = 1,
    H2_SET_ENABLE_PUSH = 2,
    H2_SET_MAX_CONCURRENT_STREAMS = 3,
    H2_SET_INITIAL_WINDOW_SIZE = 4,
    H2_SET_MAX_FRAME_SIZE = 5,
    H2_SET_MAX_HEADER_LIST_SIZE = 6,
    H2_SET_NO_RFC7540_PRIORITIES = 9 /* RFC 9218 */
};

enum h2_error { /* RFC 9113 section 7 */
                H2_NO_ERROR,
                H2_PROTOCOL_ERROR,
                H2_INTERNAL_ERROR,
                H2_FLOW_CONTROL_ERROR,
                H2_SETTINGS_TIMEOUT,
                H2_STREAM_CLOSED,
                H2_FRAME_SIZE_ERROR,
                H2_REFUSED_STREAM,
                H2_CANCEL,
                H2_COMPRESSION_ERROR,
                H2_CONNECT_ERROR,
                H2_ENHANCE_YOUR_CALM
};

struct h2_frame {
    uint32_t length; /* of the payload */
    uint8_t type, flags;
    uint32_t id; /* without the reserved bit */
};

static inline uint32_t h2_get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint8_t *h2_put_u32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
    return p + 4;
}

/* Nine bytes. */
static inline struct h2_frame h2_frame_read(const uint8_t *p)
{
    return (struct h2_frame){.length = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2],
                             .type = p[3],
                             .flags = p[4],
                             .id = h2_get_u32(p + 5) & H2_STREAM_ID_MAX};
}

/* Writes the nine bytes; returns where the payload begins. */
static inline uint8_t *h2_frame_write(uint8_t *p, uint32_t length, uint8_t type, uint8_t flags,
                                      uint32_t id)
{
    p[0] = (uint8_t)(length >> 16);
    p[1] = (uint8_t)(length >> 8);
    p[2] = (uint8_t)length;
    p[3] = type;
    p[4] = flags;
    return h2_put_u32(p + 5, id);
}

static inline bool h2_frame_has(const struct h2_frame *f, enum h2_frame_flag flag)
{
    return (f->flags & (unsigned)flag) != 0;
}

/* What is wrong with a frame that its header alone shows: length and stream id against its type
 * (RFC 9113 4.2 and 6.1 to 6.10). H2_NO_ERROR if nothing is. *is_stream_error says that the
 * connection can go on (and the payload has to be skipped). Unknown types are fine up to the
 * frame size. */
enum h2_error h2_frame_check(const struct h2_frame *f, bool *is_stream_error);

/* Takes padding and the priority fields off a HEADERS payload. FRAME_SIZE_ERROR: too short for
 * what its flags announce; PROTOCOL_ERROR: the padding is longer than what is left. *depends_on
 * is 0 without priority fields. */
enum h2_error h2_frame_unpad(const struct h2_frame *f, slice_t *payload, uint32_t *depends_on);

/* One entry of a SETTINGS payload against RFC 9113 6.5.2. H2_NO_ERROR: fine, or unknown. */
enum h2_error h2_setting_check(uint16_t id, uint32_t value);

#endif
