/* Two connections joined: what one says the other hears, bytes as they are.
 *
 *   BOTH --one side finished--> HALF --the other too--> gone (DONE)
 *   any --a side is reset, cut or truncated--> gone; the other side is reset (OTHER_SIDE): a
 * cut must not look like an end
 *
 * Half-close is passed on. A slow reader stops its writer: reading pauses while the other side
 * has more than CONN_OUT_HIGH queued, and goes on below CONN_OUT_LOW. */
#ifndef PROXY_OPAQUE_RELAY_H
#define PROXY_OPAQUE_RELAY_H

#include "kit/err.h"
#include "kit/timer.h"
#include "proxy/net/conn.h"

struct relay;

struct relay_conf {
    struct event_base *base;
    uint64_t idle_ms; /* without a byte in either direction; 0: for ever */
    /* Hears every byte before it is passed on, until it returns false. May be NULL. */
    bool (*on_said)(void *arg, bool is_back, slice_t bytes);
    /* Both conns are gone or about to go: do not use them. The relay's memory goes after it. */
    void (*on_end)(void *arg, enum close_reason why);
    void *arg;
};

/* Owns both conns. Bytes they keep are passed on from the loop. NOMEM leaves both as they were.
 */
MUST_USE err_t relay_start(struct conn *front, struct conn *back, const struct relay_conf *conf,
                           struct relay **out);
/* Closes both gently (drain limit, policy): on_end follows before this returns. */
void relay_end(struct relay *r, enum close_reason why);

#endif
