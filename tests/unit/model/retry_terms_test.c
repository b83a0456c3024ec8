#include "model/retry_terms.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void statuses(void **state)
{
    static const struct {
        const char *text;
        size_t n; /* 0: refused */
        uint16_t low, high; /* of the last */
    } cases[] = {
        {"5xx", 1, 500, 599},    {"gateway-error", 1, 502, 504}, {"503", 1, 503, 503},
        {"500-503", 1, 500, 503}, {"5xx,429", 2, 429, 429},       {"100,599", 2, 599, 599},
        {"", 0, 0, 0},           {",", 0, 0, 0},                 {"503,", 0, 0, 0},
        {"503, 504", 0, 0, 0},   {"6xx", 0, 0, 0},               {"0xx", 0, 0, 0},
        {"099", 0, 0, 0},        {"600", 0, 0, 0},               {"504-500", 0, 0, 0},
        {"5XX", 0, 0, 0},        {"50", 0, 0, 0},                {"+50", 0, 0, 0},
        {"500-600", 0, 0, 0},    {"1,2,3", 0, 0, 0},
        {"500,501,502,503,504,505,506,507,508,509,510,511,512,513,514,515", 16, 515, 515},
        {"500,501,502,503,504,505,506,507,508,509,510,511,512,513,514,515,516", 0, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire_status_range out[RETRY_RANGES_MAX];
        size_t n;
        bool is_ok = retry_parse_statuses(slice_str(cases[i].text), out, &n);

        assert_int_equal(is_ok ? n : 0, cases[i].n);
        if (!is_ok)
            continue;
        assert_int_equal(out[n - 1].low, cases[i].low);
        assert_int_equal(out[n - 1].high, cases[i].high);
    }
}

static void grpc(void **state)
{
    uint32_t bits;

    (void)state;
    assert_true(retry_parse_grpcs(SLICE_LIT("cancelled,deadline-exceeded,internal,resource-exhausted,unavailable"), &bits));
    assert_int_equal(bits, 1u << 1 | 1u << 4 | 1u << 13 | 1u << 8 | 1u << 14);
    assert_false(retry_parse_grpcs(SLICE_LIT(""), &bits));
    assert_false(retry_parse_grpcs(SLICE_LIT("unavailable,"), &bits));
    assert_false(retry_parse_grpcs(SLICE_LIT("UNAVAILABLE"), &bits));
    assert_false(retry_parse_grpcs(SLICE_LIT("14"), &bits));
}

static void durations(void **state)
{
    static const struct {
        const char *text;
        bool is_ok;
        uint32_t ms;
    } cases[] = {
        {"0", true, 0},         {"250ms", true, 250},      {"2s", true, 2000},       {"1m", true, 60000},
        {"1h", true, 3600000},  {"1d", true, 86400000},    {"", false, 0},           {"5", false, 0},
        {"ms", false, 0},       {"1.5s", false, 0},        {"-1s", false, 0},        {"1h30m", false, 0},
        {"1 s", false, 0},      {"99999999999s", false, 0}, {"4294968s", false, 0},  {"4294967295ms", true, UINT32_MAX},
        {"4294967296ms", false, 0},
    };
    uint32_t ms;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(retry_parse_duration(slice_str(cases[i].text), &ms), cases[i].is_ok);
        if (cases[i].is_ok)
            assert_int_equal(ms, cases[i].ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statuses),
        cmocka_unit_test(grpc),
        cmocka_unit_test(durations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
