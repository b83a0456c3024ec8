/* Settings from the environment: what is accepted, and the sentence when it is not. */
#include "kit/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_durations(void **state)
{
    static const struct {
        const char *text;
        bool is_ok;
        uint64_t ms;
    } cases[] = {
        {"0", true, 0},        {"0s", true, 0},       {"250ms", true, 250},  {"10s", true, 10000},
        {"2m", true, 120000},  {"1h", true, 3600000}, {"365d", true, 31536000000},
        {"", false, 0},        {"10", false, 0},      {"s", false, 0},       {"-1s", false, 0},
        {"1.5s", false, 0},    {"1 s", false, 0},     {"1S", false, 0},      {"1sec", false, 0},
        {"00", false, 0},      {"1s ", false, 0},     {" 1s", false, 0},     {"0x1s", false, 0},
        {"99999999999d", false, 0}, {"18446744073709551615ms", false, 0}, {"1w", false, 0},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t v = 42;

        assert_int_equal(settings_parse_ms(cases[i].text, &v), cases[i].is_ok);
        assert_int_equal(v, cases[i].is_ok ? cases[i].ms : 42);
    }
    assert_false(settings_parse_ms(NULL, &(uint64_t){0}));
}

static void test_bytes(void **state)
{
    static const struct {
        const char *text;
        bool is_ok;
        uint64_t n;
    } cases[] = {
        {"0", true, 0},       {"64", true, 64},       {"64Ki", true, 65536}, {"64Mi", true, 64 << 20},
        {"2Gi", true, 2ull << 30}, {"", false, 0},    {"Ki", false, 0},      {"64K", false, 0},
        {"64ki", false, 0},   {"64KiB", false, 0},    {"-1", false, 0},      {"1 Ki", false, 0},
        {"18014398509481984Gi", false, 0},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t v = 42;

        assert_int_equal(settings_parse_bytes(cases[i].text, &v), cases[i].is_ok);
        assert_int_equal(v, cases[i].is_ok ? cases[i].n : 42);
    }
}

static void test_defaults(void **state)
{
    struct settings s;
    char why[200];

    (void)state;
    clearenv();
    assert_null(settings_load(&s, why));
    assert_string_equal(s.run_dir, "/run/weft");
    assert_int_equal(s.outbound_port, 4140);
    assert_true(s.ipv6);
    assert_int_equal(s.detect_timeout, 10000);
    assert_int_equal(s.replay_total, 64 << 20);
    (void)setenv("WEFT_OPAQUE_PORTS", "", 1); /* empty on purpose */
    assert_null(settings_load(&s, why));
    assert_string_equal(s.opaque_ports, "");
}

static void test_refusals(void **state)
{
    static const struct {
        const char *env, *value, *allowed;
    } cases[] = {
        {"WEFT_WORKERS", "65", "0 to 64"},
        {"WEFT_WORKERS", "two", "whole number"},
        {"WEFT_WORKERS", "", "whole number"},
        {"WEFT_WORKERS", "4294967296", "whole number"},
        {"WEFT_OUTBOUND_PORT", "65536", "port"},
        {"WEFT_PODS_PORT", "70000", "port"},
        {"WEFT_IPV6", "yes", "true or false"},
        {"WEFT_IPV6", "TRUE", "true or false"},
        {"WEFT_DETECT_TIMEOUT", "10", "duration"},
        {"WEFT_REPLAY_MAX", "256K", "bytes"},
        {"WEFT_RUN_DIR", "run", "absolute path"},
        {"WEFT_RUN_DIR", "", "absolute path"},
        {"WEFT_LOG", "loud", "error, warn"},
        {"WEFT_WORKERS", "1\n2", "?"},
    };
    struct settings s;
    char why[200];

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        clearenv();
        (void)setenv(cases[i].env, cases[i].value, 1);
        memset(&s, 0x5a, sizeof(s));
        assert_ptr_equal(settings_load(&s, why), ERR_OF(BAD_SETTING));
        assert_non_null(strstr(why, cases[i].env));
        assert_non_null(strstr(why, cases[i].allowed));
        assert_null(strchr(why, '\n'));
        assert_int_equal(((const char *)&s)[0], 0x5a); /* written on success only */
    }
}

static void test_print(void **state)
{
    struct settings s;
    char why[200], *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    (void)state;
    clearenv();
    (void)setenv("WEFT_WORKERS", "3", 1);
    assert_null(settings_load(&s, why));
    settings_print(&s, f);
    (void)fclose(f);
    assert_non_null(strstr(text, "WEFT_WORKERS"));
    assert_non_null(strstr(text, "10s"));
    for (unsigned i = 0; i < settings_rows_n; i++)
        assert_non_null(strstr(text, settings_rows[i].env));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations), cmocka_unit_test(test_bytes), cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refusals),  cmocka_unit_test(test_print),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
