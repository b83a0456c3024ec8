/* What all proxies of a pod count together: a memory file that the supervisor makes and hands to every
 * weft-proxy as fd "limits" (like "series"). It outlives each of them.
 *
 * Three tables of fixed size, all lock-free; memory full of zeros is an empty table, so nobody has to
 * make it ready and a worker may be killed at any instruction:
 *
 *   cells      a 64-bit number per key: the state of a rate (gcra.h). A set that is full gives
 *              up the cell that was due first: at worst somebody gets a second's worth anew.
 *   counters   how many of something there are now (connections), a column per worker. Only
 *              its owner writes a column. A worker that starts clears its own column (what its
 *              predecessor counted is gone with it), and the column of a worker that has not
 *              said limit_shared_tick for LIMIT_STALE_MS does not count.
 *   deadlines  until when requests of a trace may take (trace.h uses it).
 *
 * What is in the memory is written by other processes, each of which may be broken: nothing in
 * it is used as an index or a pointer, so nonsense in it makes limits wrong and nothing else.
 *
 * Without the descriptor (tests, run by hand) the memory is the process's own. */
#ifndef PROXY_LIMIT_SHARED_H
#define PROXY_LIMIT_SHARED_H

#include "kit/err.h"
#include "kit/slice.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LIMIT_SHARED_BYTES (1u << 20) /* size of the memfd; the supervisor's number, too */
#define LIMIT_WORKERS_MAX  64u
#define LIMIT_STALE_MS     5000u

struct limit_shared;
struct limit_counter;

/* Maps the memory. `fd` is the inherited memfd (borrowed; may be closed after the call) or -1.
 * `worker` is this process's column, below LIMIT_WORKERS_MAX. Memory of another layout (or
 * size) is left alone: the process gets memory of its own and says so in its log. OK | OS |
 * NOMEM. */
MUST_USE err_t limit_shared_open(int fd, unsigned worker, struct limit_shared **out);
void limit_shared_close(struct limit_shared **s); /* its column counts 0 from now on */
/* Once a second: this worker is alive. */
void limit_shared_tick(struct limit_shared *s);
/* Whether others see what is counted here. */
bool limit_shared_is_shared(const struct limit_shared *s);

/* A key of `kind` (a number of the caller's, to keep uses apart) and two texts; the same in
 * every worker of the pod, not to be foreseen from outside; never 0. */
uint64_t limit_shared_key(const struct limit_shared *s, unsigned kind, slice_t a, slice_t b);

/* ---- cells ---- */

/* The number of that key (0 when it is new). Never NULL. Not to be kept: the next call may give
 * the cell to another key. now_ns: monotonic; numbers are times in ns. */
_Atomic uint64_t *limit_shared_cell(struct limit_shared *s, uint64_t key, uint64_t now_ns);

/* ---- counters ---- */

/* The counter of that key, for the life of `s`; keep it. NULL: there are too many (512 in all,
 * 8 of one set): what is not counted is not limited. */
struct limit_counter *limit_shared_counter(struct limit_shared *s, uint64_t key);
/* One more, if all workers together stay at or below max. False: it is full, nothing changed.
 * (Two workers that ask for the last place in the same instant may both be refused.) c may be
 * NULL: true. */
bool limit_counter_take(struct limit_shared *s, struct limit_counter *c, uint32_t max);
/* One less: for each take that said true. c may be NULL. */
void limit_counter_give(struct limit_shared *s, struct limit_counter *c);
/* What this worker counts, by a number of its own instead of takes and gives. c may be NULL. */
void limit_counter_set(struct limit_shared *s, struct limit_counter *c, uint32_t n);
/* What this worker counts and the least that one of the other living workers does (UINT32_MAX: there is no other). c may
 * be NULL: 0, UINT32_MAX. */
uint32_t limit_counter_own(const struct limit_shared *s, const struct limit_counter *c, uint32_t *least);
/* Of all workers that are alive. c may be NULL: 0. */
uint32_t limit_counter_sum(const struct limit_shared *s, const struct limit_counter *c);

/* ---- deadlines of traces ---- */

struct limit_deadline { /* one running request's entry; opaque to others */
    _Atomic uint64_t key;
    _Atomic uint64_t until; /* ms << 8 | worker */
};
#define LIMIT_NO_DEADLINE (UINT64_MAX >> 8)

/* Notes that a request of the trace runs until `until_ms` (LIMIT_NO_DEADLINE: for ever). NULL:
 * no room; then another entry of the trace was made as long, if there is one. */
struct limit_deadline *limit_deadline_put(struct limit_shared *s, uint64_t key,
                                          uint64_t until_ms, uint64_t now_ms);
void limit_deadline_drop(struct limit_deadline **d, uint64_t key); /* *d may be NULL */
/* The latest deadline of the trace's requests; LIMIT_NO_DEADLINE: there is none to keep. */
uint64_t limit_deadline_get(const struct limit_shared *s, uint64_t key);
/* Whether any request with a deadline was ever noted: before that there is nothing to look up.
 */
bool limit_deadline_is_used(const struct limit_shared *s);

#endif
