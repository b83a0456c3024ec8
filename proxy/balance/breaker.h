/* The circuit breaker of one endpoint of one backend: a pure state machine over a clock that is
 * given to it.
 *
 *   CLOSED --failures in a row, or a low success rate--> OPEN --its time is over--> PROBATION
 *     ^                                                    ^                          |
 *     |                                                    '--the probe failed: twice-'
 *     '----------------------the probe did not fail-----------------------------------'
 *
 *   CLOSED     chosen like any other; results are counted
 *   OPEN       not chosen; results of requests that were under way change nothing
 *   PROBATION  one request is let through (`has_probe`); its result decides. A probe of which
 *              nothing is heard is given up after breaker_probe_ms, and the next request is one
 *
 * breaker_enter is the only writer of the state. Who owns it asks the ejection floor before
 * breaker_open. */
#ifndef PROXY_BALANCE_BREAKER_H
#define PROXY_BALANCE_BREAKER_H

#include "wire/wire.h"

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_BUCKETS            10 /* of the window of the success rate */
#define BREAKER_MIN_PENALTY_MS     1000u
#define BREAKER_MAX_PENALTY_MS     60000u
#define BREAKER_WINDOW_MS          10000u
#define BREAKER_MIN_REQUESTS       5u
#define BREAKER_RETRY_AFTER_MAX_MS 300000u

struct breaker_conf {
    uint32_t consecutive; /* 0: not looked at */
    uint32_t min_penalty_ms, max_penalty_ms;
    uint32_t jitter_permille;
    uint32_t success_permille; /* 0: not looked at */
    uint32_t window_ms, min_requests;
    bool honours_retry_after;
    uint32_t retry_after_max_ms;
    uint32_t max_ejected_permille;
};

/* Fills in the defaults; nonsense (a maximum below the minimum) is put right. */
void breaker_conf_read(const struct wire_breaker *w, uint32_t retry_after_max_ms,
                       struct breaker_conf *out);
/* How many of n endpoints may be out at once. */
size_t breaker_may_eject(const struct breaker_conf *conf, size_t n);

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_PROBATION };

enum breaker_result {
    BREAKER_SUCCESS,
    BREAKER_FAILURE,
    BREAKER_LIMITED /* 429, RESOURCE_EXHAUSTED: counts against the success rate and fails a
                       probe, but is no failure in a row */
};

/* Why an endpoint was taken out; names are stable (events, metrics). */
#define BREAKER_REASONS(X)                                                                     \
    X(CONSECUTIVE)                                                                             \
    X(SUCCESS_RATE)                                                                            \
    X(PROBE_FAILED)
enum breaker_reason {
#define X(name) BREAKER_BY_##name,
    BREAKER_REASONS(X)
#undef X
        BREAKER_REASON_COUNT
};
const char *breaker_reason_name(enum breaker_reason r);

enum breaker_verdict {
    BREAKER_STAY,
    BREAKER_TRIP,  /* breaker_open or breaker_keep follows */
    BREAKER_RETURN /* it is closed again */
};

struct breaker {
    enum breaker_state state;
    bool has_probe;
    enum breaker_reason reason; /* of the last trip */
    uint32_t row;               /* failures in a row */
    uint32_t trips;             /* since it was closed last */
    uint32_t out_ms;            /* the present, or last, time out */
    uint64_t since_us;          /* results of requests sent before do not count */
    uint64_t bucket;            /* number of the newest bucket */
    struct {
        uint32_t all, good;
    } buckets[BREAKER_BUCKETS];
};

/* A request that was sent at sent_us has ended so. */
enum breaker_verdict breaker_note(struct breaker *b, const struct breaker_conf *conf,
                                  enum breaker_result result, uint64_t sent_us,
                                  uint64_t now_us);
/* After BREAKER_TRIP: out it goes. retry_after_ms: what the answer asked for, 0 nothing; unit:
 * random in [0, 1). Returns for how long (ms). */
uint32_t breaker_open(struct breaker *b, const struct breaker_conf *conf,
                      uint32_t retry_after_ms, double unit, uint64_t now_us);
/* After BREAKER_TRIP: it stays in, because the floor says so; counting begins anew. */
void breaker_keep(struct breaker *b);
/* The time out is over (OPEN), or the probe was lost (PROBATION). */
void breaker_expire(struct breaker *b);
/* The request chosen now is the probe. */
void breaker_probe(struct breaker *b, uint64_t now_us);
/* How long a probe may be silent. */
uint32_t breaker_probe_ms(const struct breaker *b, const struct breaker_conf *conf);
/* Requests and successes within the window. */
void breaker_window(const struct breaker *b, const struct breaker_conf *conf, uint64_t now_us,
                    uint32_t *all, uint32_t *good);

#endif
