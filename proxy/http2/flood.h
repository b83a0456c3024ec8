/* The accounts that end a connection whose peer only makes work. One per HTTP/2 connection,
 * either role. */
#ifndef PROXY_HTTP2_FLOOD_H
#define PROXY_HTTP2_FLOOD_H

#include <stdbool.h>
#include <stdint.h>

enum flood_kind {
#define FLOOD(kind, burst, per_second, what) FLOOD_##kind,
#include "proxy/http2/tbl/floods.h"
#undef FLOOD
    FLOOD_KINDS
};

enum flood_verdict {
    FLOOD_FINE,
    FLOOD_SOFT, /* said once per connection: ask the peer to leave */
    FLOOD_OVER  /* close */
};

struct flood {
    struct {
        int64_t milli; /* tokens left, in thousandths */
        uint64_t at_ms;
    } bucket[FLOOD_KINDS];
    unsigned empty_in_a_row;
    uint64_t window_updates, streams, data_sent; /* for the WINDOW_UPDATE formula */
    uint64_t data_measured;                      /* data_sent when a PING was last free */
    uint64_t wire_bytes, payload_bytes;          /* for the overhead ratio */
    bool said_soft;
    const char *over; /* the name of what ran out; NULL: nothing did */
};

void flood_init(struct flood *f, uint64_t now_ms);
const char *flood_name(enum flood_kind kind);

/* One event of that kind. */
enum flood_verdict flood_spend(struct flood *f, enum flood_kind kind, uint64_t now_ms);
void flood_give_back(struct flood *f, enum flood_kind kind);

/* A frame header arrived. `type` is RFC 9113 section 6's; is_ack and is_end are its flags. */
enum flood_verdict flood_on_frame(struct flood *f, uint8_t type, uint32_t length, bool is_ack,
                                  bool is_end, uint64_t now_ms);

#endif
