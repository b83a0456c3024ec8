/* Questions to weft-retry: asked once per failed attempt, answered with go or stop. No answer
 * in time is the asker's affair (it has the timer); weft-retry being away is an answer at once.
 */
#ifndef PROXY_EXCHANGE_ASK_H
#define PROXY_EXCHANGE_ASK_H

#include "kit/err.h"
#include "kit/hash.h"
#include "wire/wire.h"

struct asks;
struct backend;
struct event_base;

struct ask {
    UT_hash_handle hh;
    struct asks *asks; /* while it waits */
    uint64_t id;
    void (*go)(struct ask *a, uint32_t after_ms);
    void (*stop)(struct ask *a, slice_t reason); /* the slice is valid during the call */
};

/* endpoint NULL: there is no weft-retry; every question is refused. */
MUST_USE err_t asks_new(struct event_base *base, const char *endpoint, struct asks **out);
void asks_free(struct asks **a);
bool asks_is_linked(const struct asks *a);

/* Sends the question (`q->id` is filled in). OK: go or stop comes from the loop, once, unless
 * cancelled. PEER_GONE, QUEUE_FULL: weft-retry is away or slow: no retry. */
MUST_USE err_t asks_ask(struct asks *a, struct ask *ask, struct wire_retry_ask *q);
/* Fine when not waiting. Tells weft-retry. */
void ask_cancel(struct ask *ask);

/* Notes an outcome for the budget of this service; sent once a second by asks_tick. */
void asks_note(struct asks *a, struct backend *service, bool is_first, bool is_success);
void asks_tick(struct asks *a);
/* No further attempts of this service for ms: its side has said so. Told at once. */
void asks_hold(struct asks *a, const struct backend *service, uint32_t ms);

#endif
