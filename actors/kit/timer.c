/* Timers: a pairing heap per loop, driven by one timer of libevent's.
 *
 * A set exists while a timer of its loop is armed, so a loop may go (and another come at its
 * address) when all its timers are stopped. Always true: in a heap no key is above those of its
 * children; the event of a set is armed for wake_us, and wake_us is at most the smallest key.
 */
#include "kit/timer.h"

#include "kit/err.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stddef.h>
#include <time.h>

#define TIMERS_LOOPS                                                                           \
    16 /* loops with armed timers in one process; programs have one, tests a few */

struct timers {
    struct event_base *base; /* NULL: free */
    struct timer *root;
    struct event ev;
    uint64_t wake_us;  /* 0: the event is not armed */
    uint64_t floor_us; /* while timers are run: what is armed meanwhile is due in a later run */
    bool is_running;
};

static struct timers sets[TIMERS_LOOPS];

static uint64_t now_us(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail for this clock */
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* ---- the heap ---- */

/* Of two roots the one with the smaller key; it takes the other as its first child. */
static struct timer *join(struct timer *a, struct timer *b)
{
    if (a == NULL || b == NULL)
        return a != NULL ? a : b;
    if (b->key_us < a->key_us) {
        struct timer *swap = a;

        a = b;
        b = swap;
    }
    b->next = a->child;
    if (b->next != NULL)
        b->next->link = &b->next;
    b->link = &a->child;
    a->child = b;
    a->next = NULL;
    return a;
}

/* The children of a removed node as one heap: joined in pairs from the left, the pairs from the
 * right. */
static struct timer *join_children(struct timer *list)
{
    struct timer *pairs = NULL, *heap = NULL;

    while (list != NULL) {
        struct timer *a = list, *b = a->next, *pair;

        list = b != NULL ? b->next : NULL;
        a->next = NULL;
        if (b != NULL)
            b->next = NULL;
        pair = join(a, b);
        pair->next = pairs;
        pairs = pair;
    }
    while (pairs != NULL) {
        struct timer *pair = pairs;

        pairs = pair->next;
        pair->next = NULL;
        heap = join(heap, pair);
    }
    return heap;
}

static void set_root(struct timers *s, struct timer *root)
{
    s->root = root;
    if (root != NULL) {
        root->link = &s->root;
        root->next = NULL;
    }
}

static void heap_add(struct timers *s, struct timer *t)
{
    t->child = t->next = NULL;
    set_root(s, join(s->root, t));
}

static void heap_remove(struct timers *s, struct timer *t)
{
    struct timer *below = join_children(t->child);

    *t->link = t->next; /* out of its siblings, or the root is NULL now */
    if (t->next != NULL)
        t->next->link = t->link;
    t->child = t->next = NULL;
    t->link = NULL;
    set_root(s, join(s->root, below));
}

/* ---- sets ---- */

static void on_time(evutil_socket_t fd, short what, void *arg);

static struct timers *set_of(struct event_base *base)
{
    struct timers *free_one = NULL;

    for (size_t i = 0; i < TIMERS_LOOPS; i++) {
        if (sets[i].base == base)
            return &sets[i];
        if (sets[i].base == NULL && free_one == NULL)
            free_one = &sets[i];
    }
    BUG_ON(free_one == NULL);
    *free_one = (struct timers){.base = base};
    BUG_ON(evtimer_assign(&free_one->ev, base, on_time, free_one) != 0);
    return free_one;
}

static void set_check_empty(struct timers *s)
{
    if (s->root != NULL || s->is_running)
        return;
    (void)evtimer_del(&s->ev);
    *s = (struct timers){0};
}

/* The event is armed for the smallest key; an earlier wake-up finds nothing and comes here
 * again. */
static void set_wake(struct timers *s, uint64_t now)
{
    struct timeval tv;
    uint64_t wait;

    if (s->is_running || s->root == NULL || (s->wake_us != 0 && s->wake_us <= s->root->key_us))
        return;
    wait = s->root->key_us > now ? s->root->key_us - now : 0;
    tv = (struct timeval){(time_t)(wait / 1000000), (suseconds_t)(wait % 1000000)};
    s->wake_us = s->root->key_us;
    /* libevent's own heap has room for this one after the first time; there is nothing left to
     * run without. */
    BUG_ON(evtimer_add(&s->ev, &tv) != 0);
}

static void arm(struct timer *t, uint64_t ms)
{
    uint64_t now = now_us(), at;

    BUG_ON(t->base == NULL); /* timer_init was forgotten */
    at = ms < UINT64_MAX / 2000 ? now + ms * 1000 : UINT64_MAX / 2;
    if (t->set != NULL && at >= t->key_us) {
        t->at_us = at;
        return;
    }
    if (t->set != NULL)
        heap_remove(t->set, t);
    else
        t->set = set_of(t->base);
    if (t->set->is_running && at < t->set->floor_us)
        at = t->set->floor_us;
    t->at_us = t->key_us = at;
    heap_add(t->set, t);
    set_wake(t->set, now);
}

static void run_one(struct timers *s, struct timer *t)
{
    heap_remove(s, t);
    if (t->at_us >= s->floor_us) { /* it was pushed out meanwhile */
        t->key_us = t->at_us;
        heap_add(s, t);
        return;
    }
    t->set = NULL;
    /* Armed again before the call, so that fn may stop or change it, or free its owner. */
    if (t->every_ms != 0)
        arm(t, t->every_ms);
    t->fn(t->arg);
}

static void on_time(evutil_socket_t fd, short what, void *arg)
{
    struct timers *s = arg;
    uint64_t now = now_us();

    (void)fd, (void)what;
    s->wake_us = 0;
    s->floor_us = now + 1;
    s->is_running = true;
    while (s->root != NULL && s->root->key_us <= now)
        run_one(s, s->root);
    s->is_running = false;
    set_wake(s, now_us());
    set_check_empty(s);
}

/* ---- */

void timer_init(struct timer *t, struct event_base *base, void (*fn)(void *arg), void *arg)
{
    *t = (struct timer){.fn = fn, .arg = arg, .base = base};
}

void timer_once(struct timer *t, uint64_t ms)
{
    t->every_ms = 0;
    arm(t, ms);
}

void timer_every(struct timer *t, uint64_t ms)
{
    t->every_ms = ms != 0 ? ms : 1;
    arm(t, t->every_ms);
}

void timer_stop(struct timer *t)
{
    struct timers *s = t->set;

    t->every_ms = 0;
    if (s == NULL)
        return;
    heap_remove(s, t);
    t->set = NULL;
    set_check_empty(s);
}

bool timer_is_armed(const struct timer *t)
{
    return t->set != NULL;
}
