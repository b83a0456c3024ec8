/* One-shot and repeating timers on a loop, embedded in their owner.
 *
 * All timers of a loop share one timer of libevent's and are kept in a pairing heap through
 * their own links (Fredman et al., The Pairing Heap, 1986). So arming never allocates and
 * cannot fail, whatever the number, and a limit that is pushed out with every byte costs two
 * stores: an armed timer that is armed for later keeps its place in the heap, and goes to its
 * new one when the old time has come.
 *
 * Times are of the monotonic clock even when a test has frozen kit/clock. */
#ifndef KIT_TIMER_H
#define KIT_TIMER_H

#include <event2/event.h>
#include <event2/event_struct.h>

#include <stdbool.h>
#include <stdint.h>

struct event_base;

struct timer {
    void (*fn)(void *arg);
    void *arg;
    uint64_t every_ms; /* 0 = once */
    /* Private. */
    struct event_base *base; /* NULL: never initialised */
    struct timers *set;      /* NULL: not armed */
    uint64_t at_us;          /* when it is due */
    uint64_t key_us;         /* its place in the heap: at most at_us */
    struct timer *child, *next,
        **link; /* link: what points here, the root's or a sibling's or the parent's child */
};

void timer_init(struct timer *t, struct event_base *base, void (*fn)(void *arg), void *arg);
/* (Re)arms; replaces what was armed. fn runs once from the loop, never before this returns. */
void timer_once(struct timer *t, uint64_t ms);
void timer_every(struct timer *t, uint64_t ms); /* first run after ms */
void timer_stop(struct timer *t);               /* also fine when never armed */
bool timer_is_armed(const struct timer *t);

#endif
