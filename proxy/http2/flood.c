/* Flood accounts: see flood.h and tbl/floods.h. */
#include "proxy/http2/flood.h"

#include "kit/err.h"

#include <stddef.h>

#define EMPTY_IN_A_ROW_MAX 10
#define OVERHEAD_FREE      (1024 * 1024) /* bytes before the ratio counts */
#define OVERHEAD_RATIO     8
#define FRAME_HEADER       9

static const struct {
    const char *name;
    int64_t burst, per_second;
} limits[FLOOD_KINDS] = {
#define FLOOD(kind, burst, per_second, what) {#kind, burst, per_second},
#include "proxy/http2/tbl/floods.h"
#undef FLOOD
};

void flood_init(struct flood *f, uint64_t now_ms)
{
    *f = (struct flood){0};
    for (int k = 0; k < FLOOD_KINDS; k++) {
        f->bucket[k].milli = limits[k].burst * 1000;
        f->bucket[k].at_ms = now_ms;
    }
}

const char *flood_name(enum flood_kind kind)
{
    BUG_ON((unsigned)kind >= FLOOD_KINDS);
    return limits[kind].name;
}

static enum flood_verdict over(struct flood *f, const char *name)
{
    if (f->over == NULL)
        f->over = name;
    return FLOOD_OVER;
}

static enum flood_verdict soft(struct flood *f)
{
    if (f->said_soft)
        return FLOOD_FINE;
    f->said_soft = true;
    return FLOOD_SOFT;
}

enum flood_verdict flood_spend(struct flood *f, enum flood_kind kind, uint64_t now_ms)
{
    int64_t full = limits[kind].burst * 1000;
    uint64_t passed = now_ms - f->bucket[kind].at_ms;
    int64_t left = f->bucket[kind].milli;

    if (passed > 3600 * 1000)
        passed = 3600 * 1000;
    left += (int64_t)passed * limits[kind].per_second;
    if (left > full)
        left = full;
    left -= 1000;
    f->bucket[kind].milli = left;
    f->bucket[kind].at_ms = now_ms;
    if (left < 0)
        return over(f, limits[kind].name);
    return left < full / 4 ? soft(f) : FLOOD_FINE;
}

void flood_give_back(struct flood *f, enum flood_kind kind)
{
    if (f->bucket[kind].milli < (limits[kind].burst - 1) * 1000)
        f->bucket[kind].milli += 1000;
}

static enum flood_verdict on_data(struct flood *f, uint32_t length, bool is_end,
                                  uint64_t now_ms)
{
    f->payload_bytes += length;
    if (length > 0 || is_end) {
        f->empty_in_a_row = 0;
        return FLOOD_FINE;
    }
    if (++f->empty_in_a_row > EMPTY_IN_A_ROW_MAX)
        return over(f, limits[FLOOD_EMPTY_DATA].name);
    return flood_spend(f, FLOOD_EMPTY_DATA, now_ms);
}

/* Envoy's formula: a peer needs about one update per two DATA frames; ten for each is generous.
 */
static enum flood_verdict on_window_update(struct flood *f)
{
    if (++f->window_updates > 5 + 2 * (f->streams + 10 * f->data_sent))
        return over(f, "WINDOW_UPDATE");
    return FLOOD_FINE;
}

/* gRPC libraries measure the path with a PING behind the first DATA of each round trip. */
static enum flood_verdict on_ping(struct flood *f, uint64_t now_ms)
{
    if (f->data_sent == f->data_measured)
        return flood_spend(f, FLOOD_PING, now_ms);
    f->data_measured = f->data_sent;
    return FLOOD_FINE;
}

static enum flood_verdict by_type(struct flood *f, uint8_t type, uint32_t length, bool is_ack,
                                  bool is_end, uint64_t now_ms)
{
    switch (type) {
    case 0: /* DATA */
        return on_data(f, length, is_end, now_ms);
    case 1: /* HEADERS */
    case 9: /* CONTINUATION: counted per block */
        f->payload_bytes += length;
        return FLOOD_FINE;
    case 2: /* PRIORITY */
        return flood_spend(f, FLOOD_PRIORITY, now_ms);
    case 3: /* RST_STREAM: early ones are counted where the stream is known */
        return flood_spend(f, FLOOD_RESET, now_ms);
    case 4: /* SETTINGS */
        return is_ack ? FLOOD_FINE : flood_spend(f, FLOOD_SETTINGS, now_ms);
    case 5: /* PUSH_PROMISE: a connection error */
        return FLOOD_FINE;
    case 6: /* PING */
        return is_ack ? FLOOD_FINE : on_ping(f, now_ms);
    case 7: /* GOAWAY */
        return flood_spend(f, FLOOD_GOAWAY, now_ms);
    case 8: /* WINDOW_UPDATE */
        return on_window_update(f);
    default:
        return flood_spend(f, FLOOD_UNKNOWN, now_ms);
    }
}

enum flood_verdict flood_on_frame(struct flood *f, uint8_t type, uint32_t length, bool is_ack,
                                  bool is_end, uint64_t now_ms)
{
    f->wire_bytes += length + FRAME_HEADER;
    if (f->wire_bytes / OVERHEAD_RATIO > f->payload_bytes + OVERHEAD_FREE)
        return over(f, "OVERHEAD");
    return by_type(f, type, length, is_ack, is_end, now_ms);
}
