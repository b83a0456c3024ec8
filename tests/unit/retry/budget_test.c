/* Budgets in a clock of the test's own: windows, ratios, minimum, forgetting. */
#include "retry/budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WEB SLICE_LIT("default/web:80")

static unsigned take_all(struct budgets *b, uint64_t now_ms, const struct budget_terms *terms)
{
    unsigned n = 0;

    while (n < 100000 && budgets_take(b, WEB, now_ms, terms))
        n++;
    return n;
}

static void test_rows(void **state)
{
    static const struct {
        const char *name;
        uint32_t requests;
        struct budget_terms terms;
        unsigned want;
    } cases[] = {
        {"minimum only", 0, {200, 10, 10000}, 100},
        {"ratio on top", 1000, {200, 10, 10000}, 300},
        {"ratio alone", 1000, {200, 0, 10000}, 200},
        {"rounds down", 4, {200, 0, 10000}, 0},
        {"just one", 5, {200, 0, 10000}, 1},
        {"no ttl is a second", 0, {200, 7, 0}, 7},
        {"part of a second", 0, {200, 7, 1}, 7},
        {"ttl is capped at a minute", 0, {0, 1, 3600000}, 60},
        {"more than all", 10, {2000, 0, 1000}, 20},
        {"nothing", 0, {0, 0, 1000}, 0},
        {"no overflow", UINT32_MAX, {0, 1, 1000}, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct budgets *b = NULL;
        unsigned got;

        assert_ptr_equal(budgets_new(4, &b), OK);
        budgets_feed(b, WEB, 500000, cases[i].requests);
        got = take_all(b, 500000, &cases[i].terms);
        if (got != cases[i].want)
            fail_msg("%s: %u retries, want %u", cases[i].name, got, cases[i].want);
        budgets_free(&b);
    }
}

static void test_window_slides(void **state)
{
    const struct budget_terms terms = {500, 0, 3000};
    struct budgets *b = NULL;

    (void)state;
    assert_ptr_equal(budgets_new(4, &b), OK);
    budgets_feed(b, WEB, 10000, 10);
    assert_int_equal(take_all(b, 11000, &terms), 5);
    budgets_feed(b, WEB, 12000, 4);
    assert_int_equal(take_all(b, 12000, &terms), 2);
    /* The 10 requests of second 10 have left the window, the 5 retries of second 11 not yet. */
    assert_int_equal(take_all(b, 13000, &terms), 0);
    /* Second 11 has left too: 4 requests and the 2 retries they paid for remain. */
    assert_int_equal(take_all(b, 14000, &terms), 0);
    budgets_feed(b, WEB, 14000, 2);
    assert_int_equal(take_all(b, 14000, &terms), 1);
    /* Much later all is forgotten; a clock that steps back does no harm. */
    assert_int_equal(take_all(b, 9000000, &terms), 0);
    assert_int_equal(take_all(b, 1000, &terms), 0);
    budgets_free(&b);
}

static void test_services_do_not_share(void **state)
{
    const struct budget_terms terms = {0, 1, 1000};
    struct budgets *b = NULL;

    (void)state;
    assert_ptr_equal(budgets_new(4, &b), OK);
    assert_true(budgets_take(b, WEB, 5000, &terms));
    assert_false(budgets_take(b, WEB, 5000, &terms));
    assert_true(budgets_take(b, SLICE_LIT("default/web:81"), 5000, &terms));
    budgets_free(&b);
}

static void test_longest_unused_is_forgotten(void **state)
{
    const struct budget_terms terms = {0, 1, 60000};
    struct budgets *b = NULL;
    char name[32];

    (void)state;
    assert_ptr_equal(budgets_new(3, &b), OK);
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), "ns/s%d:80", i);
        for (int k = 0; k < 60; k++)
            assert_true(budgets_take(b, slice_str(name), 70000, &terms));
    }
    assert_false(budgets_take(b, SLICE_LIT("ns/s0:80"), 70000, &terms)); /* now used last */
    assert_true(budgets_take(b, SLICE_LIT("ns/s3:80"), 70000, &terms));  /* s1 is forgotten */
    assert_int_equal(budgets_count(b), 3);
    assert_false(budgets_take(b, SLICE_LIT("ns/s0:80"), 70000, &terms));
    assert_true(budgets_take(b, SLICE_LIT("ns/s1:80"), 70000, &terms));
    for (int i = 0; i < 100000; i++) {
        snprintf(name, sizeof(name), "ns/many%d:80", i);
        budgets_feed(b, slice_str(name), 70000, 1);
    }
    assert_int_equal(budgets_count(b), 3);
    budgets_free(&b);
    assert_null(b);
}

static void test_bad_names(void **state)
{
    const struct budget_terms terms = {0, 1, 1000};
    static char big[BUDGET_NAME_MAX + 1];
    struct budgets *b = NULL;

    (void)state;
    memset(big, 'x', sizeof(big));
    assert_ptr_equal(budgets_new(3, &b), OK);
    assert_false(budgets_take(b, slice(big, sizeof(big)), 1000, &terms));
    assert_false(budgets_take(b, (slice_t){0}, 1000, &terms));
    budgets_feed(b, slice(big, sizeof(big)), 1000, 5);
    assert_int_equal(budgets_count(b), 0);
    assert_true(budgets_take(b, slice(big, BUDGET_NAME_MAX), 1000, &terms));
    budgets_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_window_slides),
        cmocka_unit_test(test_services_do_not_share),
        cmocka_unit_test(test_longest_unused_is_forgotten),
        cmocka_unit_test(test_bad_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
