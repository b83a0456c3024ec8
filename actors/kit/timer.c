/* Timers: libevent's, with the re-arming of repeating ones in one place. */
#include "kit/timer.h"

#include "kit/err.h"

static void timer_arm(struct timer *t, uint64_t ms)
{
    struct timeval tv = {(time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000)};

    BUG_ON(t->ev.ev_base == NULL); /* timer_init was forgotten */
    BUG_ON(evtimer_add(&t->ev, &tv) != 0);
}

static void timer_on_time(evutil_socket_t fd, short what, void *arg)
{
    struct timer *t = arg;

    (void)fd, (void)what;
    /* Armed again before the call, so that fn may stop or change it, or free its owner. */
    if (t->every_ms != 0)
        timer_arm(t, t->every_ms);
    t->fn(t->arg);
}

void timer_init(struct timer *t, struct event_base *base, void (*fn)(void *arg), void *arg)
{
    *t = (struct timer){.fn = fn, .arg = arg};
    BUG_ON(evtimer_assign(&t->ev, base, timer_on_time, t) != 0);
}

void timer_once(struct timer *t, uint64_t ms)
{
    t->every_ms = 0;
    timer_arm(t, ms);
}

void timer_every(struct timer *t, uint64_t ms)
{
    t->every_ms = ms != 0 ? ms : 1;
    timer_arm(t, t->every_ms);
}

void timer_stop(struct timer *t)
{
    if (t->ev.ev_base == NULL) /* zeroed and never initialised: half-built owners */
        return;
    t->every_ms = 0;
    (void)evtimer_del(&t->ev);
}

bool timer_is_armed(const struct timer *t)
{
    return t->ev.ev_base != NULL && evtimer_pending(&t->ev, NULL) != 0;
}
