/* States, the process table, readiness, /proc text, and what an admin request asks for. */
#include "telemetry/admin.h"
#include "telemetry/status.h"

#include "kit/clock.h"
#include "telemetry/usage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void say(struct status *s, const char *key, bool is_good, const char *text)
{
    status_take_state(s, &(struct wire_state){.key = slice_str(key),
                                              .is_good = is_good,
                                              .text = slice_str(text),
                                              .value = 7});
}

static bool line(struct status *s, const char *text, bool *has_restarted)
{
    const char *name = "";

    return status_take_line(s, slice_str(text), "weft-telemetry", has_restarted, &name);
}

static void test_ready(void **state)
{
    struct status s = {0};
    bool x;
    struct buf why;

    (void)state;
    buf_init(&why, 0);
    assert_false(status_is_ready(&s, &why));
    assert_non_null(memmem(buf_slice(&why).p, buf_len(&why), "certificate: ", 13));
    assert_non_null(memmem(buf_slice(&why).p, buf_len(&why), "proxy: ", 7));
    say(&s, "certificate", true, "");
    assert_false(status_is_ready(&s, NULL));
    say(&s, "broker", true, "");
    assert_false(status_is_ready(&s, NULL));
    assert_true(line(&s, "process weft-proxy-0 12 0 starting", &x));
    assert_false(status_is_ready(&s, NULL));
    assert_true(line(&s, "process weft-proxy-0 12 0 ready", &x));
    assert_true(status_is_ready(&s, NULL));
    say(&s, "broker", false, "gone\r\nX: y");
    buf_consume(&why, buf_len(&why));
    assert_false(status_is_ready(&s, &why));
    assert_true(slice_ends(buf_slice(&why), SLICE_LIT(": gone  X: y\n")));
    say(&s, "snapshot", true, "");
    assert_true(status_is_ready(&s, NULL));
    assert_true(line(&s, "process weft-proxy-0 0 0 killed", &x));
    assert_false(status_is_ready(&s, NULL));
    buf_done(&why);
}

/* A certificate whose renewal fails serves until it ends. */
static void test_ready_while_renewal_fails(void **state)
{
    struct wire_state m = {.key = SLICE_LIT("certificate"), .text = SLICE_LIT("its renewal fails"),
                           .value = 1800000000001};
    struct status s = {0};

    (void)state;
    clock_test_freeze(1000, 1800000000000);
    say(&s, "broker", true, "");
    say(&s, "proxy", true, "");
    status_take_state(&s, &m);
    assert_true(status_is_ready(&s, NULL));
    clock_test_freeze(1000, 1800000000001);
    assert_false(status_is_ready(&s, NULL));
    m.value = 0;
    status_take_state(&s, &m);
    assert_false(status_is_ready(&s, NULL));
    clock_test_thaw();
}

static void test_states_are_bounded(void **state)
{
    struct status s = {0};
    char key[20];

    (void)state;
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof(key), "key-%d", i);
        say(&s, key, true, "");
    }
    assert_int_equal(s.n_states, STATUS_KEYS_MAX);
    assert_int_equal(s.refused, 100 - STATUS_KEYS_MAX);
    s = (struct status){0};
    say(&s, "", true, "");
    say(&s, "a b", true, "");
    say(&s, "a\"b", true, "");
    say(&s, "a-key-of-more-than-forty-eight-bytes-is-not-a-key-of-ours", true, "");
    assert_int_equal(s.n_states, 0);
    assert_int_equal(s.refused, 4);
}

static void test_lines(void **state)
{
    static const char *const bad[] = {"process",           "process x",          "process x 1",
                                      "process x 1 2",     "process x a 2 up",   "process x 1 b up",
                                      "process x -1 2 up", "process X 1 2 up",   "process x 1 2 UP",
                                      "process x 1 9999999999 up", "process x 99999999999 1 up"};
    struct status s = {0};
    bool has_restarted;

    (void)state;
    assert_false(line(&s, "drain 5", &has_restarted));
    assert_false(line(&s, "", &has_restarted));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t refused = s.refused;

        assert_true(line(&s, bad[i], &has_restarted));
        assert_false(has_restarted);
        if (s.refused != refused + 1)
            fail_msg("%s", bad[i]);
    }
    s = (struct status){0};
    assert_true(line(&s, "process weft-tls 10 3 ready", &has_restarted));
    assert_false(has_restarted); /* not news: that was before our time */
    assert_true(line(&s, "process weft-tls 11 4 starting", &has_restarted));
    assert_true(has_restarted);
    assert_true(line(&s, "process weft-tls 11 4 ready", &has_restarted));
    assert_false(has_restarted);
    assert_true(line(&s, "process weft-telemetry 9 1 ready", &has_restarted));
    assert_true(has_restarted); /* our own restart is told to nobody else */
    assert_int_equal(status_restarts(&s), 5);
}

static void test_proc_stat(void **state)
{
    static const struct {
        const char *text;
        bool is_good;
    } cases[] = {
        {"7 (weft) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 5 1000 300 18446744073709551615", true},
        {"7 (a ) S b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 5 1000 300", true},
        {"7 (weft) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 5 1000", false},
        {"7 (weft) S 1 7 7 0 -1 4194560 1 0 0 0 x 50 0 0 20 0 1 0 5 1000 300", false},
        {"7 (weft)", false},
        {"7 weft S", false},
        {"", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t rss = 0, cpu = 0;
        bool is_good = usage_parse(slice_str(cases[i].text), 4, 100, &rss, &cpu);

        if (is_good != cases[i].is_good || (is_good && (rss != 1200 || cpu != 2000)))
            fail_msg("%s", cases[i].text);
    }
}

static void test_usage_of_this_process(void **state)
{
    struct status s = {0};
    char text[64];
    bool x;

    (void)state;
    snprintf(text, sizeof(text), "process weft-tls %d 0 ready", (int)getpid());
    assert_true(line(&s, text, &x));
    assert_true(line(&s, "process weft-link 0 0 waiting", &x));
    usage_read(&s);
    assert_true(usage_rss_kib(&s) > 100);
}

static void test_requests(void **state)
{
    static const struct {
        const char *head;
        enum admin_page want;
    } cases[] = {
        {"GET /live HTTP/1.1\r\n\r\n", ADMIN_LIVE},
        {"GET /ready HTTP/1.0\r\n\r\n", ADMIN_READY},
        {"HEAD /ready HTTP/1.1\r\nHost: x\r\n\r\n", ADMIN_READY},
        {"GET /metrics HTTP/1.1\r\n\r\n", ADMIN_METRICS},
        {"GET /metrics?format=x HTTP/1.1\r\n\r\n", ADMIN_METRICS},
        {"GET / HTTP/1.1\r\n\r\n", ADMIN_NOT_FOUND},
        {"GET /metrics/ HTTP/1.1\r\n\r\n", ADMIN_NOT_FOUND},
        {"GET /../live HTTP/1.1\r\n\r\n", ADMIN_NOT_FOUND},
        {"POST /live HTTP/1.1\r\n\r\n", ADMIN_METHOD},
        {"get /live HTTP/1.1\r\n\r\n", ADMIN_METHOD},
        {"GET /live HTTP/1.2\r\n\r\n", ADMIN_BAD},
        {"GET /live\r\n\r\n", ADMIN_BAD},
        {"GET  /live HTTP/1.1\r\n\r\n", ADMIN_BAD},
        {"GET live HTTP/1.1\r\n\r\n", ADMIN_BAD},
        {"GET http://x/live HTTP/1.1\r\n\r\n", ADMIN_BAD},
        {"GET /live HTTP/1.1 x\r\n\r\n", ADMIN_BAD},
        {"GET /live HTTP/1.1\n\r\n\r\n", ADMIN_BAD},
        {"\r\n\r\n", ADMIN_BAD},
        {"\n", ADMIN_BAD},
        {"", ADMIN_BAD},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ADMIN_BAD},
        {"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", ADMIN_BAD},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool is_head;

        if (admin_parse(slice_str(cases[i].head), &is_head) != cases[i].want)
            fail_msg("%s", cases[i].head);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ready),
        cmocka_unit_test(test_ready_while_renewal_fails),     cmocka_unit_test(test_states_are_bounded),
        cmocka_unit_test(test_lines),     cmocka_unit_test(test_proc_stat),
        cmocka_unit_test(test_requests),  cmocka_unit_test(test_usage_of_this_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
