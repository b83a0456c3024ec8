/* One-shot and repeating timers on the actor's loop, embedded in their owner. */
#ifndef KIT_TIMER_H
#define KIT_TIMER_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>

struct timer {
    struct event ev;
    void (*fn)(void *arg);
    void *arg;
    uint64_t every_ms; /* 0 = once */
};

void timer_init(struct timer *t, struct event_base *base, void (*fn)(void *arg), void *arg);
void timer_once(struct timer *t, uint64_t ms);  /* (re)arms; replaces what was armed */
void timer_every(struct timer *t, uint64_t ms); /* first run after ms */
void timer_stop(struct timer *t);               /* also fine when never armed */
bool timer_is_armed(const struct timer *t);

#endif
