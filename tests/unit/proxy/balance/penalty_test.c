/* Retry-After, pushback, and which answers are a plea for less. */
#include "proxy/balance/penalty.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define WALL 784111777000ull /* Sun, 06 Nov 1994 08:49:37 GMT */

static void test_retry_after(void **state)
{
    static const struct {
        const char *value;
        uint32_t ms;
    } t[] = {{"0", 0},
             {"1", 1000},
             {"120", 120000},
             {"4294967", 4294967000u},
             {"4294968", UINT32_MAX},
             {"18446744073709551615", UINT32_MAX},
             {"18446744073709551616", 0},
             {"-1", 0},
             {"+1", 0},
             {" 1", 0},
             {"1 ", 0},
             {"1.5", 0},
             {"1s", 0},
             {"", 0},
             {"soon", 0},
             {"Sun, 06 Nov 1994 08:49:37 GMT", 0},
             {"Sun, 06 Nov 1994 08:49:38 GMT", 1000},
             {"Sun, 06 Nov 1994 08:50:37 GMT", 60000},
             {"Sat, 05 Nov 1994 08:49:37 GMT", 0},
             {"Fri, 01 Jan 2100 00:00:00 GMT", UINT32_MAX},
             {"Sunday, 06-Nov-94 08:49:38 GMT", 0},
             {"Sun Nov  6 08:49:38 1994", 0},
             {"Sun, 06 Nov 1994 08:49:38 UTC", 0},
             {"Sun, 06 Nov 1994 08:49:38 GMT ", 0},
             {"Sun, 66 Nov 1994 08:49:38 GMT", 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
        assert_int_equal(penalty_retry_after(slice_str(t[i].value), WALL), t[i].ms);
    assert_int_equal(penalty_retry_after(slice("5\0", 2), WALL), 0);
    assert_int_equal(penalty_retry_after(slice(NULL, 0), WALL), 0);
}

static void test_pushback(void **state)
{
    (void)state;
    assert_int_equal(penalty_pushback(SLICE_LIT("250")), 250);
    assert_int_equal(penalty_pushback(SLICE_LIT("-1")), 0);
    assert_int_equal(penalty_pushback(SLICE_LIT("")), 0);
    assert_int_equal(penalty_pushback(SLICE_LIT("1e3")), 0);
    assert_int_equal(penalty_pushback(SLICE_LIT("99999999999")), UINT32_MAX);
}

static void test_which_answers(void **state)
{
    static const struct {
        uint16_t status;
        int grpc;
        bool is_due, may_ask;
    } t[] = {{200, -1, false, false}, {404, -1, false, false}, {429, -1, true, true},
             {500, -1, true, false},  {503, -1, true, true},   {504, -1, true, false},
             {200, 0, false, false},  {200, 1, false, false},  {200, 2, true, false},
             {200, 3, false, false},  {200, 4, true, false},   {200, 5, false, false},
             {200, 7, false, false},  {200, 8, true, true},    {200, 13, true, false},
             {200, 14, true, true},   {200, 15, true, false},  {200, 16, false, false}};

    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        assert_int_equal(penalty_is_due(t[i].status, t[i].grpc), t[i].is_due);
        assert_int_equal(penalty_may_ask(t[i].status, t[i].grpc), t[i].may_ask);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_pushback),
        cmocka_unit_test(test_which_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
