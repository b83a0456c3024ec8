/* Deadlines and trace ids as texts: what is read, what is refused, what is written. */
#include "proxy/limit/deadline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static void test_grpc_timeouts(void **state)
{
    static const struct {
        const char *text;
        uint64_t us;
    } good[] = {
        {"1S", 1000000},
        {"0S", 0},
        {"100m", 100000},
        {"250u", 250},
        {"1n", 1},
        {"1001n", 2},
        {"2M", 120000000},
        {"1H", 3600000000ull},
        {"00000001m", 1000},
        {"99999999n", 100000},
        {"99999999u", 99999999},
        {"99999999H", 99999999ull * 3600000000ull},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        uint64_t us = 7;

        assert_true(deadline_parse_grpc(slice_str(good[i].text), &us));
        assert_true(us == good[i].us);
    }
}

static void test_bad_grpc_timeouts(void **state)
{
    static const char *const bad[] = {
        "",    "S",    "1",          "1s",  "1h",   "1 S",
        " 1S", "1S ",  "-1S",        "+1S", "1.5S", "1e3m",
        "1ms", "1us",  "100000000m", "1SS", "S1",   "0x10m",
        "1,S", "\t1S", "1\xc2\xb5",  "m",   "--",   "123456789012345678901234567890S",
        "1N",  "1U",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t us = 7;

        if (deadline_parse_grpc(slice_str(bad[i]), &us))
            fail_msg("accepted: %s", bad[i]);
        assert_int_equal(us, 7);
    }
    {
        uint64_t us;

        assert_false(deadline_parse_grpc(slice("1\0S", 3), &us));
    }
}

static void test_grpc_printing(void **state)
{
    static const struct {
        uint64_t us;
        const char *text;
    } cases[] = {
        {0, "0u"},
        {1, "1u"},
        {99999999, "99999999u"},
        {100000000, "100000m"},
        {100000999, "100000m"},
        {99999999999ull, "99999999m"},
        {100000000000ull, "100000S"},
        {UINT64_MAX, "99999999S"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char room[DEADLINE_TEXT];
        uint64_t back;
        slice_t text = deadline_print_grpc(cases[i].us, room);

        assert_string_equal(room, cases[i].text);
        assert_true(deadline_parse_grpc(text, &back));
        assert_true(back <= cases[i].us); /* never more than there was */
    }
}

static void test_milliseconds(void **state)
{
    static const char *const bad[] = {"",           "-1",          "+1", "1 ",  " 1",
                                      "4294967296", "99999999999", "1m", "0x1", "1.0"};
    char room[DEADLINE_TEXT];
    uint32_t ms = 7;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(deadline_parse_ms(slice_str(bad[i]), &ms));
    assert_int_equal(ms, 7);
    assert_true(deadline_parse_ms(SLICE_LIT("4294967295"), &ms));
    assert_true(ms == UINT32_MAX);
    assert_true(deadline_parse_ms(SLICE_LIT("0"), &ms));
    assert_int_equal(ms, 0);
    assert_true(slice_is_str(deadline_print_ms(250, room), "250"));
    assert_true(slice_is_str(deadline_print_ms(UINT64_MAX, room), "4294967295"));
}

#define ID "0af7651916cd43dd8448eb211c80319c"

static void test_traces(void **state)
{
    static const struct {
        enum deadline_trace kind;
        const char *text;
        bool is_good;
    } cases[] = {
        {DEADLINE_TRACEPARENT, "00-" ID "-b7ad6b7169203331-01", true},
        {DEADLINE_TRACEPARENT, "cc-" ID "-b7ad6b7169203331-01-more", true},
        {DEADLINE_TRACEPARENT, "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", true},
        {DEADLINE_TRACEPARENT, "ff-" ID "-b7ad6b7169203331-01", false},
        {DEADLINE_TRACEPARENT, "00-" ID "-b7ad6b7169203331", false},
        {DEADLINE_TRACEPARENT, "00-" ID "_b7ad6b7169203331-01", false},
        {DEADLINE_TRACEPARENT, "0-0" ID "-b7ad6b7169203331-01", false},
        {DEADLINE_TRACEPARENT, "00-00000000000000000000000000000000-b7ad6b7169203331-01",
         false},
        {DEADLINE_TRACEPARENT, "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
         false},
        {DEADLINE_TRACEPARENT, "", false},
        {DEADLINE_TRACEPARENT, "00", false},
        {DEADLINE_B3, ID "-b7ad6b7169203331-1", true},
        {DEADLINE_B3, ID, true},
        {DEADLINE_B3, "0", false},
        {DEADLINE_B3, "d", false},
        {DEADLINE_B3, "-" ID, false},
        {DEADLINE_B3, "", false},
        {DEADLINE_B3_TRACEID, ID, true},
        {DEADLINE_B3_TRACEID, ID "0", false},
        {DEADLINE_B3_TRACEID, "0000000000000000", false},
    };
    uint8_t want[16], id[16], small[16] = {0};

    (void)state;
    assert_true(deadline_parse_trace(DEADLINE_B3_TRACEID, SLICE_LIT(ID), want));
    assert_int_equal(want[0], 0x0a);
    assert_int_equal(want[15], 0x9c);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool is_good = deadline_parse_trace(cases[i].kind, slice_str(cases[i].text), id);

        if (is_good != cases[i].is_good)
            fail_msg("%s", cases[i].text);
        if (is_good)
            assert_memory_equal(id, want, 16);
    }
    small[14] = 0x12;
    small[15] = 0x34;
    assert_true(deadline_parse_trace(DEADLINE_B3, SLICE_LIT("0000000000001234-1-1"), id));
    assert_memory_equal(id, small, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grpc_timeouts), cmocka_unit_test(test_bad_grpc_timeouts),
        cmocka_unit_test(test_grpc_printing), cmocka_unit_test(test_milliseconds),
        cmocka_unit_test(test_traces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
