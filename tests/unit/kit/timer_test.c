/* Timers: order, re-arming, stopping from within, many of them, and that nothing allocates. */
#include "kit/timer.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MANY 2000

static struct event_base *base;
static unsigned runs, order[MANY], fired[MANY];
static struct timer many[MANY];

static void count(void *arg)
{
    (void)arg;
    runs++;
}

static void note(void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;

    fired[i]++;
    order[runs++] = i;
}

static void run_until_idle(void)
{
    assert_true(event_base_dispatch(base) >= 0); /* returns when no event is left */
}

static int up(void **state)
{
    (void)state;
    runs = 0;
    memset(fired, 0, sizeof fired);
    base = event_base_new();
    return base == NULL;
}

static int down(void **state)
{
    (void)state;
    event_base_free(base);
    return 0;
}

static void test_in_order(void **state)
{
    static const uint64_t ms[] = {9, 3, 7, 1, 5};
    struct timer t[5];

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        timer_init(&t[i], base, note, (void *)(uintptr_t)i);
        assert_false(timer_is_armed(&t[i]));
        timer_once(&t[i], ms[i]);
        assert_true(timer_is_armed(&t[i]));
    }
    run_until_idle();
    assert_int_equal(runs, 5);
    for (unsigned i = 1; i < 5; i++)
        assert_true(ms[order[i - 1]] < ms[order[i]]);
    assert_false(timer_is_armed(&t[0]));
}

static void test_later_and_earlier(void **state)
{
    struct timer a, b, c;

    (void)state;
    timer_init(&a, base, note, (void *)0);
    timer_init(&b, base, note, (void *)1);
    timer_init(&c, base, note, (void *)2);
    timer_once(&a, 1); /* later: keeps its place until then */
    timer_once(&b, 5);
    timer_once(&c, 50000); /* earlier: moves at once */
    timer_once(&a, 9);
    timer_once(&c, 2);
    run_until_idle();
    assert_int_equal(runs, 3);
    assert_int_equal(order[0], 2);
    assert_int_equal(order[1], 1);
    assert_int_equal(order[2], 0);
}

static struct timer *victim;
static void stop_victim(void *arg)
{
    (void)arg;
    runs++;
    timer_stop(victim);
}

static void test_stop_from_within(void **state)
{
    struct timer a, b;

    (void)state;
    timer_init(&a, base, stop_victim, NULL);
    timer_init(&b, base, note, (void *)1);
    victim = &b;
    timer_once(&a, 0);
    timer_once(&b, 0);
    run_until_idle();
    assert_int_equal(runs, 1);
    assert_int_equal(fired[1], 0);
    timer_stop(&b); /* again */
}

static void again(void *arg)
{
    struct timer *t = arg;

    if (++runs < 50)
        timer_once(t, 0); /* not within the same run: the loop would never get out */
}

static void test_zero_lets_others_in(void **state)
{
    struct timer a;

    (void)state;
    timer_init(&a, base, again, &a);
    timer_once(&a, 0);
    assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
    assert_in_range(runs, 1, 2);
    run_until_idle();
    assert_int_equal(runs, 50);
}

static void stop_after_five(void *arg)
{
    if (++runs == 5)
        timer_stop(arg);
}

static void test_every(void **state)
{
    struct timer a;

    (void)state;
    timer_init(&a, base, stop_after_five, &a);
    timer_every(&a, 1);
    run_until_idle();
    assert_int_equal(runs, 5);
}

static void free_owner(void *arg)
{
    runs++;
    timer_stop(arg);
    free(arg);
}

static void test_owner_goes_in_callback(void **state)
{
    struct timer *t = malloc(sizeof *t);

    (void)state;
    assert_non_null(t);
    timer_init(t, base, free_owner, t);
    timer_every(t, 1);
    run_until_idle();
    assert_int_equal(runs, 1);
}

static void test_never_initialised(void **state)
{
    struct timer t = {0};

    (void)state;
    timer_stop(&t);
    assert_false(timer_is_armed(&t));
}

static void test_many(void **state)
{
    unsigned stopped = 0;
    uint64_t x = 88172645463325252u;

    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        timer_init(&many[i], base, note, (void *)(uintptr_t)i);
        timer_once(&many[i], i % 10);
    }
    for (unsigned k = 0; k < 3 * MANY; k++) { /* xorshift: the same each time */
        unsigned i;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        i = (unsigned)(x % MANY);
        if (x >> 60 == 0 && timer_is_armed(&many[i])) {
            timer_stop(&many[i]);
            stopped++;
        } else if (timer_is_armed(&many[i])) {
            timer_once(&many[i], x >> 32 & 15);
        }
    }
    assert_true(stopped > 0);
    run_until_idle();
    assert_int_equal(runs, MANY - stopped);
    for (unsigned i = 0; i < MANY; i++)
        assert_true(fired[i] <= 1 && !timer_is_armed(&many[i]));
}

static void test_another_loop_at_the_same_address(void **state)
{
    struct timer a;

    (void)state;
    for (int i = 0; i < 3; i++) {
        timer_init(&a, base, count, NULL);
        timer_once(&a, 60000);
        timer_stop(&a);
        event_base_free(base);
        base = event_base_new();
        timer_init(&a, base, count, NULL);
        timer_once(&a, 1);
        run_until_idle();
        assert_int_equal(runs, (unsigned)i + 1);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, up, down)
    const struct CMUnitTest tests[] = {
        T(test_in_order),
        T(test_later_and_earlier),
        T(test_stop_from_within),
        T(test_zero_lets_others_in),
        T(test_every),
        T(test_owner_goes_in_callback),
        T(test_never_initialised),
        T(test_many),
        T(test_another_loop_at_the_same_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
