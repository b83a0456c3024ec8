/* The rate itself: bursts, even pace, waits, changes of the rate, nonsense in the cell. */
#include "proxy/limit/gcra.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define S GCRA_SECOND

static unsigned burst(_Atomic uint64_t *tat, uint32_t per_s, uint64_t now)
{
    unsigned n = 0;
    uint64_t wait = 0;

    while (n < 100000 && gcra_take(tat, gcra_interval(per_s), now, &wait))
        n++;
    assert_true(wait > 0 || n == 100000);
    return n;
}

static void test_burst_is_one_second(void **state)
{
    static const uint32_t rates[] = {1, 2, 3, 7, 10, 100, 999, 1000, 12345};

    (void)state;
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        _Atomic uint64_t tat = 0;

        assert_int_equal(burst(&tat, rates[i], 5 * S), rates[i]);
        assert_int_equal(burst(&tat, rates[i], 5 * S), 0);
        /* A second later the bucket is as good as new. */
        assert_int_equal(burst(&tat, rates[i], 6 * S), rates[i]);
    }
}

static void test_even_pace(void **state)
{
    _Atomic uint64_t tat = 0;
    uint64_t wait = 0, now = 7 * S;

    (void)state;
    assert_int_equal(burst(&tat, 10, now), 10);
    for (unsigned i = 0; i < 100; i++) {
        assert_false(gcra_take(&tat, gcra_interval(10), now + S / 10 - 1, &wait));
        assert_int_equal(wait, 1);
        now += S / 10;
        assert_true(gcra_would_take(&tat, gcra_interval(10), now, &wait));
        assert_true(gcra_take(&tat, gcra_interval(10), now, &wait));
        assert_false(gcra_take(&tat, gcra_interval(10), now, &wait));
        assert_int_equal(wait, S / 10);
    }
}

static void test_refusals_cost_nothing(void **state)
{
    _Atomic uint64_t tat = 0;
    uint64_t wait;

    (void)state;
    assert_int_equal(burst(&tat, 5, S), 5);
    for (unsigned i = 0; i < 1000; i++)
        assert_false(gcra_take(&tat, gcra_interval(5), S + 1, &wait));
    assert_true(gcra_take(&tat, gcra_interval(5), S + S / 5, &wait));
}

static void test_change_of_the_rate(void **state)
{
    _Atomic uint64_t tat = 0;
    uint64_t wait;

    (void)state;
    /* An empty bucket stays empty when the rate grows, and is refilled at the new pace. */
    assert_int_equal(burst(&tat, 2, 10 * S), 2);
    assert_int_equal(burst(&tat, 100, 10 * S), 0);
    assert_int_equal(burst(&tat, 100, 10 * S + S / 10), 10);
    /* A smaller one begins where the larger one was. */
    assert_false(gcra_take(&tat, gcra_interval(1), 10 * S + S / 10, &wait));
    assert_true(gcra_take(&tat, gcra_interval(1), 11 * S + S / 10, &wait));
}

static void test_nonsense_heals(void **state)
{
    static const uint64_t bad[] = {UINT64_MAX, UINT64_MAX - 1, 1ull << 63, 1000 * S};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        _Atomic uint64_t tat = bad[i];
        uint64_t wait = 0;

        assert_false(gcra_take(&tat, gcra_interval(4), 20 * S, &wait));
        assert_int_equal(wait, S / 4); /* as from a bucket that is empty */
        atomic_store(&tat, 21 * S);
        assert_int_equal(burst(&tat, 4, 21 * S), 4);
    }
}

static void test_long_ago_and_zero(void **state)
{
    _Atomic uint64_t tat = 1;
    uint64_t wait;

    (void)state;
    assert_int_equal(burst(&tat, 3, 1ull << 60), 3);
    atomic_store(&tat, 0);
    assert_true(gcra_take(&tat, gcra_interval(1), 0, &wait));
    assert_false(gcra_take(&tat, gcra_interval(1), 0, &wait));
    assert_int_equal(wait, S);
}

static void test_rates_beyond_the_clock(void **state)
{
    _Atomic uint64_t tat = 0;
    uint64_t wait;

    (void)state;
    for (unsigned i = 0; i < 1000; i++)
        assert_true(gcra_take(&tat, gcra_interval(UINT32_MAX), S, &wait));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_burst_is_one_second),
        cmocka_unit_test(test_even_pace),
        cmocka_unit_test(test_refusals_cost_nothing),
        cmocka_unit_test(test_change_of_the_rate),
        cmocka_unit_test(test_nonsense_heals),
        cmocka_unit_test(test_long_ago_and_zero),
        cmocka_unit_test(test_rates_beyond_the_clock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
