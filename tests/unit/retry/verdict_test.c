/* Every rule of a verdict as rows, and the tally that counts them. */
#include "retry/tally.h"
#include "retry/verdict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NO  0
#define YES 1
#define UNK 2
#define INF 0xffffffffu

static struct wire_retry_policy some = {.limit = 3};
static struct wire_retry_policy none = {.limit = 0};
static struct wire_retry_policy slow = {.limit = 200, .backoff_min_ms = 1000, .backoff_max_ms = 60000};

static void test_rules(void **state)
{
    static const struct {
        const char *name;
        struct wire_retry_policy *policy;
        uint8_t attempt, delivered;
        bool is_replayable;
        uint32_t left_ms;
        enum verdict want;
        uint32_t most_ms; /* upper bound of the wait, reached with jitter 0.999... */
    } cases[] = {
        {"not delivered, no policy", NULL, 1, NO, false, INF, VERDICT_GO, 25},
        {"not delivered, second", NULL, 2, NO, false, INF, VERDICT_GO, 50},
        {"not delivered, third", NULL, 3, NO, false, INF, VERDICT_LIMIT, 0},
        {"not delivered, policy without limit", &none, 2, NO, false, INF, VERDICT_GO, 50},
        {"not delivered, policy's limit counts", &some, 3, NO, false, INF, VERDICT_GO, 100},
        {"not delivered, beyond it", &some, 4, NO, false, INF, VERDICT_LIMIT, 0},
        {"delivered, no policy", NULL, 1, YES, true, INF, VERDICT_NOT_RETRYABLE, 0},
        {"delivered, policy without limit", &none, 1, YES, true, INF, VERDICT_NOT_RETRYABLE, 0},
        {"delivered, not replayable", &some, 1, YES, false, INF, VERDICT_DELIVERED, 0},
        {"delivered, replayable", &some, 1, YES, true, INF, VERDICT_GO, 25},
        {"delivered, last", &some, 3, YES, true, INF, VERDICT_GO, 100},
        {"delivered, over", &some, 4, YES, true, INF, VERDICT_LIMIT, 0},
        {"unknown is like delivered", &some, 1, UNK, false, INF, VERDICT_DELIVERED, 0},
        {"unknown, replayable", &some, 1, UNK, true, INF, VERDICT_GO, 25},
        {"unknown, no policy", NULL, 1, UNK, true, INF, VERDICT_NOT_RETRYABLE, 0},
        {"no time left", NULL, 1, NO, false, 0, VERDICT_DEADLINE, 0},
        {"wait ends with the deadline", NULL, 1, NO, false, 25, VERDICT_DEADLINE, 0},
        {"wait ends before it", NULL, 1, NO, false, 26, VERDICT_GO, 25},
        {"backoff is capped", &slow, 200, NO, false, INF, VERDICT_GO, 60000},
        {"backoff doubles", &slow, 4, NO, false, INF, VERDICT_GO, 8000},
        {"attempt 0 makes no sense", &some, 0, NO, true, INF, VERDICT_NOT_RETRYABLE, 0},
        {"delivered 3 makes no sense", &some, 1, 3, true, INF, VERDICT_NOT_RETRYABLE, 0},
        {"delivered 255 makes no sense", &some, 1, 255, true, INF, VERDICT_NOT_RETRYABLE, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire_retry_ask ask = {.service = SLICE_LIT("ns/web:80"),
                                     .attempt = cases[i].attempt,
                                     .delivered = cases[i].delivered,
                                     .is_replayable = cases[i].is_replayable,
                                     .left_ms = cases[i].left_ms,
                                     .n_policy = cases[i].policy != NULL,
                                     .policy = cases[i].policy};
        struct budgets *b = NULL;
        uint32_t after_ms = 77;
        enum verdict v;

        assert_ptr_equal(budgets_new(2, &b), OK);
        v = verdict_decide(b, &ask, 1000, 0.9999999, &after_ms);
        if (v != cases[i].want || after_ms != cases[i].most_ms)
            fail_msg("%s: %s after %u ms", cases[i].name, verdict_name(v), after_ms);
        if (v == VERDICT_GO) {
            assert_int_equal(verdict_decide(b, &ask, 1000, 0.0, &after_ms), VERDICT_GO);
            assert_int_equal(after_ms, 0);
        }
        budgets_free(&b);
    }
}

/* What may be repeated (GET, Idempotency-Key) and was lost without an answer needs nobody's permission. */
static void test_lost_without_policy(void **state)
{
    enum { CONNECT, RESET, STATUS, PER_TRY, REFUSED, TLS };
    static const struct {
        uint8_t cause, delivered, attempt;
        bool is_replayable;
        enum verdict want;
    } cases[] = {
        {RESET, UNK, 1, true, VERDICT_GO},           {RESET, YES, 1, true, VERDICT_GO},
        {REFUSED, YES, 2, true, VERDICT_GO},         {REFUSED, UNK, 3, true, VERDICT_LIMIT},
        {RESET, UNK, 1, false, VERDICT_DELIVERED},   {REFUSED, YES, 1, false, VERDICT_DELIVERED},
        {STATUS, YES, 1, true, VERDICT_NOT_RETRYABLE}, {PER_TRY, UNK, 1, true, VERDICT_NOT_RETRYABLE},
        {CONNECT, UNK, 1, true, VERDICT_NOT_RETRYABLE}, {TLS, UNK, 1, true, VERDICT_NOT_RETRYABLE},
        {77, YES, 1, true, VERDICT_NOT_RETRYABLE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire_retry_ask ask = {.service = SLICE_LIT("ns/web:80"),
                                     .attempt = cases[i].attempt,
                                     .cause = cases[i].cause,
                                     .delivered = cases[i].delivered,
                                     .is_replayable = cases[i].is_replayable,
                                     .left_ms = INF};
        struct budgets *b = NULL;
        uint32_t after_ms;

        assert_ptr_equal(budgets_new(2, &b), OK);
        if (verdict_decide(b, &ask, 1000, 0, &after_ms) != cases[i].want)
            fail_msg("case %zu", i);
        ask.policy = &none; /* a route that allows no attempts is obeyed */
        ask.n_policy = 1;
        assert_int_equal(verdict_decide(b, &ask, 1000, 0, &after_ms), VERDICT_NOT_RETRYABLE);
        budgets_free(&b);
    }
}

/* A hedge needs a policy that has hedges, a request that may run twice, and the budget; it does not wait. */
static void test_hedges(void **state)
{
    static const struct wire_retry_policy hedges = {.hedge_ms = 20, .backoff_min_ms = 1000, .budget_ttl_ms = 1000,
                                                    .budget_min_per_s = 1};
    static const struct {
        bool has_hedges, is_replayable;
        uint8_t attempt;
        uint32_t left_ms;
        enum verdict want;
    } cases[] = {
        {true, true, 1, INF, VERDICT_GO},          {true, true, 16, INF, VERDICT_GO},
        {true, true, 17, INF, VERDICT_LIMIT},      {true, false, 1, INF, VERDICT_DELIVERED},
        {false, true, 1, INF, VERDICT_NOT_RETRYABLE}, {true, true, 1, 0, VERDICT_DEADLINE},
        {true, true, 1, 1, VERDICT_GO},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire_retry_policy policy = hedges;
        struct wire_retry_ask ask = {.service = SLICE_LIT("ns/web:80"),
                                     .attempt = cases[i].attempt,
                                     .cause = 6,
                                     .delivered = UNK,
                                     .is_replayable = cases[i].is_replayable,
                                     .left_ms = cases[i].left_ms,
                                     .policy = &policy,
                                     .n_policy = 1};
        struct budgets *b = NULL;
        uint32_t after_ms;

        if (!cases[i].has_hedges)
            policy.hedge_ms = 0;
        assert_ptr_equal(budgets_new(2, &b), OK);
        if (verdict_decide(b, &ask, 1000, 0.99, &after_ms) != cases[i].want)
            fail_msg("case %zu", i);
        assert_int_equal(after_ms, 0);
        if (cases[i].want == VERDICT_GO) /* it came out of the budget */
            assert_int_equal(verdict_decide(b, &ask, 1000, 0.99, &after_ms), VERDICT_BUDGET);
        budgets_free(&b);
    }
}

/* The server's side has said that it takes no further attempts for a while. */
static void test_held(void **state)
{
    struct wire_retry_ask ask = {.service = SLICE_LIT("ns/web:80"), .attempt = 1, .left_ms = INF};
    struct budgets *b = NULL;
    uint32_t after_ms;

    (void)state;
    assert_ptr_equal(budgets_new(2, &b), OK);
    budgets_hold(b, ask.service, 5000, 1000);
    assert_int_equal(verdict_decide(b, &ask, 5000, 0, &after_ms), VERDICT_PRESSURE);
    assert_int_equal(verdict_decide(b, &ask, 5999, 0, &after_ms), VERDICT_PRESSURE);
    assert_int_equal(verdict_decide(b, &ask, 6000, 0, &after_ms), VERDICT_GO);
    budgets_hold(b, ask.service, 7000, UINT32_MAX); /* as much as is believed */
    budgets_hold(b, ask.service, 7000, 1);          /* never shorter */
    assert_int_equal(verdict_decide(b, &ask, 7000 + BUDGET_HOLD_MAX_MS - 1, 0, &after_ms), VERDICT_PRESSURE);
    assert_int_equal(verdict_decide(b, &ask, 7000 + BUDGET_HOLD_MAX_MS, 0, &after_ms), VERDICT_GO);
    ask.service = SLICE_LIT("ns/other:80");
    assert_int_equal(verdict_decide(b, &ask, 7000, 0, &after_ms), VERDICT_GO);
    budgets_free(&b);
}

/* A refusal for another reason leaves the budget alone; an empty budget says so. */
static void test_budget(void **state)
{
    struct wire_retry_policy policy = {.limit = 1, .budget_min_per_s = 1, .budget_ttl_ms = 2000};
    struct wire_retry_ask ask = {.service = SLICE_LIT("ns/web:80"),
                                 .attempt = 1,
                                 .left_ms = INF,
                                 .n_policy = 1,
                                 .policy = &policy};
    struct budgets *b = NULL;
    uint32_t after_ms;

    (void)state;
    assert_ptr_equal(budgets_new(2, &b), OK);
    ask.attempt = 2;
    for (int i = 0; i < 10; i++)
        assert_int_equal(verdict_decide(b, &ask, 9000, 0, &after_ms), VERDICT_LIMIT);
    ask.attempt = 1;
    assert_int_equal(verdict_decide(b, &ask, 9000, 0, &after_ms), VERDICT_GO);
    assert_int_equal(verdict_decide(b, &ask, 9000, 0, &after_ms), VERDICT_GO);
    assert_int_equal(verdict_decide(b, &ask, 9000, 0, &after_ms), VERDICT_BUDGET);
    assert_int_equal(verdict_decide(b, &ask, 11000, 0, &after_ms), VERDICT_GO);
    budgets_free(&b);
}

static bool has_series(const struct wire_series *msg, const char *labels, uint64_t value)
{
    for (size_t i = 0; i < msg->n_series; i++)
        if (slice_is_str(msg->series[i].labels, labels))
            return msg->series[i].values[0].v == value;
    return false;
}

static void test_tally(void **state)
{
    struct wire_series msg = {0};
    struct tally *t = NULL;
    struct arena arena;

    (void)state;
    arena_init(&arena, 0);
    assert_ptr_equal(tally_new(2, &t), OK);
    assert_false(tally_collect(t, false, &arena, &msg));
    tally_count(t, SLICE_LIT("ns/a:80"), VERDICT_GO);
    tally_count(t, SLICE_LIT("ns/a:80"), VERDICT_GO);
    tally_count(t, SLICE_LIT("ns/\"b\\"), VERDICT_BUDGET);
    tally_count(t, SLICE_LIT("ns/c:80"), VERDICT_LIMIT); /* a third service: other */
    tally_count(t, (slice_t){0}, VERDICT_LIMIT);
    assert_true(tally_collect(t, false, &arena, &msg));
    assert_int_equal(msg.n_series, 3);
    assert_true(has_series(&msg, "service=\"ns/a:80\",verdict=\"go\"", 2));
    assert_true(has_series(&msg, "service=\"ns/\\\"b\\\\\",verdict=\"stop\",reason=\"BUDGET\"", 1));
    assert_true(has_series(&msg, "service=\"other\",verdict=\"stop\",reason=\"LIMIT\"", 2));
    /* Not sent: it comes again. Sent: only what has changed since. */
    assert_true(tally_collect(t, false, &arena, &msg));
    assert_int_equal(msg.n_series, 3);
    tally_mark_sent(t);
    assert_false(tally_collect(t, false, &arena, &msg));
    tally_count(t, SLICE_LIT("ns/a:80"), VERDICT_GO);
    assert_true(tally_collect(t, false, &arena, &msg));
    assert_int_equal(msg.n_series, 1);
    assert_true(has_series(&msg, "service=\"ns/a:80\",verdict=\"go\"", 3));
    tally_mark_sent(t);
    assert_true(tally_collect(t, true, &arena, &msg));
    assert_int_equal(msg.n_series, 3);
    tally_free(&t);
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_lost_without_policy),
        cmocka_unit_test(test_hedges),
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_tally),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
