/* When to ask for a certificate: pure arithmetic on times, no clock, no loop.
 *
 * A certificate is renewed at half of its lifetime. Retries back off from 1 s (first
 * certificate: 200 ms, for a pod waits for it) to 60 s (5 s), each with a jitter of +-25 %. It
 * is alarming when less than a quarter of the lifetime is left: with 24 h that is six hours and
 * some 360 tries before anything breaks.
 */
#ifndef TLS_RENEWAL_H
#define TLS_RENEWAL_H

#include <stdbool.h>
#include <stdint.h>

struct renewal {
    int64_t not_before_ms, not_after_ms; /* of what is held; 0, 0: nothing */
    unsigned failures;                   /* in a row */
};

/* Milliseconds until the next question, 0 = now. `unit` is a random number in [0, 1). At most
 * an hour: wall clocks jump, so whoever waits looks again. */
uint64_t renewal_wait_ms(const struct renewal *r, int64_t wall_ms, double unit);
/* Whether what is held is past half of its life (or nothing is held). */
bool renewal_is_due(const struct renewal *r, int64_t wall_ms);
/* Whether an operator must know: nothing is held, or less than a quarter of the life is left.
 */
bool renewal_is_alarming(const struct renewal *r, int64_t wall_ms);

#endif
