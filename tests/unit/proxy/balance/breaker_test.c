/* The breaker's state machine over a clock of the test's. */
#include "proxy/balance/breaker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define S 1000000ull /* a second in us */

static struct breaker_conf conf_of(struct wire_breaker w)
{
    struct breaker_conf c;

    w.max_ejected_permille = w.max_ejected_permille == 0 ? 1000 : w.max_ejected_permille;
    breaker_conf_read(&w, 0, &c);
    return c;
}

static void test_defaults(void **state)
{
    struct wire_breaker w = {.consecutive = 7};
    struct breaker_conf c;

    (void)state;
    breaker_conf_read(&w, 0, &c);
    assert_int_equal(c.min_penalty_ms, 1000);
    assert_int_equal(c.max_penalty_ms, 60000);
    assert_int_equal(c.window_ms, 10000);
    assert_int_equal(c.min_requests, 5);
    assert_int_equal(c.retry_after_max_ms, 300000);
    assert_int_equal(c.jitter_permille, 0); /* as written */
    assert_int_equal(breaker_may_eject(&c, 10), 0);
    w = (struct wire_breaker){.min_penalty_ms = 5000,
                              .max_penalty_ms = 2000,
                              .success_permille = 4000,
                              .window_ms = 3,
                              .max_ejected_permille = 99999};
    breaker_conf_read(&w, 7, &c);
    assert_int_equal(c.max_penalty_ms, 5000);
    assert_int_equal(c.success_permille, 1000);
    assert_int_equal(c.window_ms, BREAKER_BUCKETS);
    assert_int_equal(c.retry_after_max_ms, 7);
    assert_int_equal(breaker_may_eject(&c, 10), 10);
}

static void test_floor_rounds_down(void **state)
{
    static const struct {
        uint32_t permille;
        size_t n, may;
    } t[] = {{500, 1, 0}, {500, 2, 1},  {500, 3, 1},      {340, 3, 1},
             {330, 3, 0}, {1000, 1, 1}, {100, 4096, 409}, {0, 100, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct breaker_conf c = {.max_ejected_permille = t[i].permille};

        assert_int_equal(breaker_may_eject(&c, t[i].n), t[i].may);
    }
}

/* A row of results: s success, f failure, l limited. Returns how many it took to trip, 0:
 * never. */
static size_t run(struct breaker *b, const struct breaker_conf *c, const char *results,
                  uint64_t now_us)
{
    for (size_t i = 0; results[i] != 0; i++) {
        enum breaker_result r = results[i] == 's'   ? BREAKER_SUCCESS
                                : results[i] == 'f' ? BREAKER_FAILURE
                                                    : BREAKER_LIMITED;

        if (breaker_note(b, c, r, now_us, now_us) == BREAKER_TRIP)
            return i + 1;
    }
    return 0;
}

static void test_consecutive(void **state)
{
    static const struct {
        const char *results;
        size_t trips;
    } t[] = {{"fff", 3},    {"ffsff", 0}, {"ffsfff", 6}, {"", 0},
             {"llllll", 0}, {"flflf", 5}, {"ffllf", 5},  {"ffsls", 0}};
    struct breaker_conf c = conf_of((struct wire_breaker){.consecutive = 3});

    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct breaker b = {.state = BREAKER_CLOSED};

        assert_int_equal(run(&b, &c, t[i].results, 5 * S), t[i].trips);
        if (t[i].trips > 0)
            assert_int_equal(b.reason, BREAKER_BY_CONSECUTIVE);
    }
}

static void test_success_rate(void **state)
{
    static const struct {
        const char *results;
        size_t trips;
    } t[] = {{"ffff", 0},  /* too few */
             {"fffff", 5}, /* enough */
             {"sssss", 0},
             {"ssssf", 0}, /* 80 %: not below */
             {"sssff", 5},
             {"llllll", 5},          /* what is limited counts here */
             {"ssssssssssfffs", 13}, /* 10 of 13 is below 80 % */
             {"sssssssssssssssffffs", 19}};
    struct breaker_conf c = conf_of((struct wire_breaker){.success_permille = 800});

    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct breaker b = {.state = BREAKER_CLOSED};

        assert_int_equal(run(&b, &c, t[i].results, 5 * S), t[i].trips);
        if (t[i].trips > 0)
            assert_int_equal(b.reason, BREAKER_BY_SUCCESS_RATE);
    }
}

static void test_consecutive_is_looked_at_first(void **state)
{
    struct breaker_conf c =
        conf_of((struct wire_breaker){.consecutive = 5, .success_permille = 800});
    struct breaker b = {.state = BREAKER_CLOSED};

    (void)state;
    assert_int_equal(run(&b, &c, "fffff", S), 5);
    assert_int_equal(b.reason, BREAKER_BY_CONSECUTIVE);
}

/* Ten buckets of a second: what is older than the window does not count, bucket by bucket. */
static void test_window_slides(void **state)
{
    struct breaker_conf c = conf_of((struct wire_breaker){.success_permille = 500});
    struct breaker b = {.state = BREAKER_CLOSED};
    uint32_t all, good;

    (void)state;
    for (uint64_t s = 0; s < 10; s++)
        assert_int_equal(run(&b, &c, "s", (100 + s) * S), 0);
    breaker_window(&b, &c, 109 * S, &all, &good);
    assert_int_equal(all, 10);
    breaker_window(&b, &c, 112 * S, &all, &good);
    assert_int_equal(all, 7);
    assert_int_equal(good, 7);
    breaker_window(&b, &c, 119 * S, &all, &good);
    assert_int_equal(all, 0);
    breaker_window(&b, &c, 1000000 * S, &all, &good);
    assert_int_equal(all, 0);
    /* Old successes do not save it: only the last two of them count now. */
    assert_int_equal(run(&b, &c, "ffff", 117 * S + S / 2), 3);
}

static void test_time_out_doubles(void **state)
{
    struct breaker_conf c = conf_of((struct wire_breaker){
        .consecutive = 1, .min_penalty_ms = 1000, .max_penalty_ms = 6000});
    static const uint32_t out[] = {1000, 2000, 4000, 6000, 6000, 6000};
    struct breaker b = {.state = BREAKER_CLOSED};
    uint64_t now = 100 * S;

    (void)state;
    assert_int_equal(run(&b, &c, "f", now), 1);
    for (size_t i = 0; i < sizeof(out) / sizeof(out[0]); i++) {
        assert_int_equal(breaker_open(&b, &c, 0, 0.99, now), out[i]);
        assert_int_equal(b.state, BREAKER_OPEN);
        breaker_expire(&b);
        assert_int_equal(b.state, BREAKER_PROBATION);
        now += S;
        breaker_probe(&b, now);
        assert_int_equal(
            breaker_note(&b, &c, i % 2 ? BREAKER_FAILURE : BREAKER_LIMITED, now, now + 10),
            BREAKER_TRIP);
        assert_int_equal(b.reason, BREAKER_BY_PROBE_FAILED);
    }
    breaker_open(&b, &c, 0, 0, now);
    breaker_expire(&b);
    breaker_probe(&b, now + S);
    assert_int_equal(breaker_note(&b, &c, BREAKER_SUCCESS, now + S, now + S), BREAKER_RETURN);
    assert_int_equal(b.state, BREAKER_CLOSED);
    assert_int_equal(run(&b, &c, "f", now + 2 * S), 1);
    assert_int_equal(breaker_open(&b, &c, 0, 0, now), 1000); /* forgiven */
}

static void test_jitter(void **state)
{
    struct breaker_conf c = conf_of((struct wire_breaker){
        .consecutive = 1, .min_penalty_ms = 1000, .jitter_permille = 500});
    struct breaker a = {.state = BREAKER_CLOSED}, b = a;

    (void)state;
    assert_int_equal(breaker_open(&a, &c, 0, 0.0, S), 1000);
    assert_in_range(breaker_open(&b, &c, 0, 0.999, S), 1490, 1500);
    c.jitter_permille = 100000; /* 100.0, Linkerd's largest */
    b = (struct breaker){.state = BREAKER_CLOSED};
    assert_in_range(breaker_open(&b, &c, 0, 0.5, S), 50000, 52000);
}

static void test_retry_after(void **state)
{
    static const struct {
        bool honours;
        uint32_t asked, out;
    } t[] = {{true, 0, 1000},        {true, 500, 1000},          {true, 30000, 30000},
             {true, 400000, 300000}, {true, UINT32_MAX, 300000}, {false, 30000, 1000}};

    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct breaker_conf c = conf_of(
            (struct wire_breaker){.consecutive = 1, .honours_retry_after = t[i].honours});
        struct breaker b = {.state = BREAKER_CLOSED};

        assert_int_equal(breaker_open(&b, &c, t[i].asked, 0, S), t[i].out);
    }
}

/* Only the probe decides: not what was sent before it, nor what ends while it is out. */
static void test_only_the_probe_decides(void **state)
{
    struct breaker_conf c = conf_of((struct wire_breaker){.consecutive = 1});
    struct breaker b = {.state = BREAKER_CLOSED};

    (void)state;
    breaker_open(&b, &c, 0, 0, 10 * S);
    assert_int_equal(breaker_note(&b, &c, BREAKER_FAILURE, 11 * S, 11 * S), BREAKER_STAY);
    breaker_expire(&b);
    assert_int_equal(breaker_note(&b, &c, BREAKER_SUCCESS, 12 * S, 12 * S), BREAKER_STAY);
    assert_int_equal(b.state, BREAKER_PROBATION);
    breaker_probe(&b, 20 * S);
    assert_int_equal(breaker_note(&b, &c, BREAKER_SUCCESS, 9 * S, 21 * S), BREAKER_STAY);
    assert_int_equal(breaker_note(&b, &c, BREAKER_FAILURE, 9 * S, 21 * S), BREAKER_STAY);
    breaker_expire(&b); /* lost */
    assert_false(b.has_probe);
    assert_int_equal(b.state, BREAKER_PROBATION);
    breaker_probe(&b, 30 * S);
    assert_int_equal(breaker_note(&b, &c, BREAKER_SUCCESS, 30 * S, 31 * S), BREAKER_RETURN);
    /* What failed before its return says nothing about it now. */
    assert_int_equal(breaker_note(&b, &c, BREAKER_FAILURE, 29 * S, 31 * S), BREAKER_STAY);
    assert_int_equal(breaker_note(&b, &c, BREAKER_FAILURE, 31 * S, 31 * S), BREAKER_TRIP);
}

static void test_kept_begins_anew(void **state)
{
    struct breaker_conf c =
        conf_of((struct wire_breaker){.consecutive = 3, .success_permille = 900});
    struct breaker b = {.state = BREAKER_CLOSED};

    (void)state;
    assert_int_equal(run(&b, &c, "fff", S), 3);
    breaker_keep(&b);
    assert_int_equal(run(&b, &c, "ff", S), 0);
    assert_int_equal(run(&b, &c, "f", S), 1);
}

static void test_nothing_configured_never_trips(void **state)
{
    struct breaker_conf c = conf_of((struct wire_breaker){.consecutive = 0});
    struct breaker b = {.state = BREAKER_CLOSED};

    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(breaker_note(&b, &c, BREAKER_FAILURE, S, S), BREAKER_STAY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_floor_rounds_down),
        cmocka_unit_test(test_consecutive),
        cmocka_unit_test(test_success_rate),
        cmocka_unit_test(test_consecutive_is_looked_at_first),
        cmocka_unit_test(test_window_slides),
        cmocka_unit_test(test_time_out_doubles),
        cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_only_the_probe_decides),
        cmocka_unit_test(test_kept_begins_anew),
        cmocka_unit_test(test_nothing_configured_never_trips),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
