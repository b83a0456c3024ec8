/* GCRA, the generic cell rate algorithm (ITU-T I.371), in integers: a rate of N per second with
 * a burst of one second's worth, and one 64-bit number of state.
 *
 * The state is the "theoretical arrival time" (TAT): when the next event would be due if they
 * came evenly. An event is let in while TAT + interval is at most one second ahead of now, and
 * moves TAT on by the interval. Zero is a bucket that nobody has used. Several processes may
 * take from one cell in shared memory; a cell that holds nonsense lets at most one second's
 * worth through or refuses for at most one second, then it is right again. */
#ifndef PROXY_LIMIT_GCRA_H
#define PROXY_LIMIT_GCRA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define GCRA_SECOND 1000000000ull

/* Nanoseconds between two events of a rate; per_s > 0. Rounded down: a rate is never less than
 * what was asked for (and above 10^9 per second there is no limit to speak of). */
static inline uint64_t gcra_interval(uint32_t per_s)
{
    return GCRA_SECOND / per_s;
}

/* Takes one event at `now` (ns, monotonic). False: *wait_ns is the time until one would be let
 * in (> 0); the state is as it was. */
bool gcra_take(_Atomic uint64_t *tat, uint64_t interval_ns, uint64_t now, uint64_t *wait_ns);

/* The same without taking. */
bool gcra_would_take(_Atomic uint64_t *tat, uint64_t interval_ns, uint64_t now,
                     uint64_t *wait_ns);

#endif
