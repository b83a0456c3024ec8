#include "cli/golden.h"
#include "cli/podup.h"
#include "cli/sheet.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void quantiles(void **state)
{
    uint64_t counts[TELEMETRY_FINES] = {0};
    int one_ms = telemetry_fine_of(1024);

    (void)state;
    assert_true(golden_quantile(counts, 0.5) < 0); /* no sample */
    assert_true(one_ms > 0);
    counts[one_ms] = 100; /* all in the bucket that ends at 1.024 ms and begins at 0.896 ms */
    assert_true(fabs(golden_quantile(counts, 0.5) - 0.960) < 1e-9);
    assert_true(fabs(golden_quantile(counts, 1.0) - 1.024) < 1e-9);
    counts[0] = 100; /* and as many within a microsecond */
    assert_true(fabs(golden_quantile(counts, 0.5) - 0.001) < 1e-9);
    assert_true(fabs(golden_quantile(counts, 0.75) - 0.960) < 1e-9);
    memset(counts, 0, sizeof counts);
    counts[TELEMETRY_FINES - 1] = 3; /* beyond the last bound: the bound itself */
    assert_true(fabs(golden_quantile(counts, 0.99) -
                     (double)telemetry_fine_bound_us(TELEMETRY_FINES - 2) / 1000) < 1e-6);
}

static char *yaml_of(const char *json)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    json_t *v = json_loads(json, JSON_DECODE_ANY, NULL);

    assert_non_null(v);
    sheet_print_yaml(v, f);
    assert_int_equal(fclose(f), 0);
    json_decref(v);
    return text;
}

static void yaml_keeps_types(void **state)
{
    static const struct {
        const char *json, *want;
    } cases[] = {
        {"{\"a\": 1, \"b\": [true, null, \"x\"]}", "a: 1\nb:\n- true\n- null\n- x\n"},
        {"{\"a\": \"1\"}", "a: \"1\"\n"},
        {"{\"a\": \"true\", \"b\": \"no\", \"c\": \"\"}", "a: \"true\"\nb: \"no\"\nc: \"\"\n"},
        {"{\"a\": \"1.5\", \"b\": \"-\", \"c\": \"~\"}", "a: \"1.5\"\nb: \"-\"\nc: \"~\"\n"},
        {"{\"a\": {}}", "a: {}\n"},
        {"[]", "[]\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *got = yaml_of(cases[i].json);

        assert_string_equal(got, cases[i].want);
        free(got);
    }
}

static void yaml_of_deep_values_ends(void **state)
{
    char deep[2 * 200 + 1];
    char *got;

    (void)state;
    memset(deep, '[', 200);
    memset(deep + 200, ']', 200);
    deep[400] = '\0';
    got = yaml_of(deep);
    assert_true(strlen(got) > 0);
    free(got);
}

static void quotes(void **state)
{
    char out[16];

    (void)state;
    assert_true(sheet_quote("abc", out, sizeof out));
    assert_string_equal(out, "'abc'");
    assert_true(sheet_quote("it's", out, sizeof out));
    assert_string_equal(out, "'it''s'");
    assert_true(sheet_quote("", out, sizeof out));
    assert_string_equal(out, "''");
    assert_false(sheet_quote("0123456789abcdef", out, sizeof out));
    assert_false(sheet_quote("''''''''", out, sizeof out));
    assert_false(sheet_quote("a", out, 2));
}

static void tables_keep_terminals_clean(void **state)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    struct sheet s;

    (void)state;
    sheet_init(&s);
    sheet_column(&s, "name");
    sheet_column(&s, "n");
    sheet_add(&s, json_pack("{s:s,s:i}", "name", "evil\033[2J\nrow", "n", 7));
    sheet_add(&s, json_pack("{s:s,s:n}", "name", "a", "n"));
    sheet_print(&s, SHEET_TABLE, NULL, f);
    assert_int_equal(fclose(f), 0);
    assert_string_equal(text, "NAME          N\nevil?[2J?row  7\na             -\n");
    sheet_done(&s);
    free(text);
}

static void ports_of_a_pod(void **state)
{
    static const char *const bad[] = {"",           "0",       "65536",  "x",
                                      "80/",        "80/http", "80/tcp", "/http1",
                                      "80/http1/x", "-80",     "80:90",  "80 "};
    char serves[64] = "";
    struct trouble why;

    (void)state;
    assert_null(podup_add_port("web", "8080", serves, sizeof serves, &why));
    assert_null(podup_add_port("web", "9090/grpc", serves, sizeof serves, &why));
    assert_string_equal(serves, "web:8080,web:9090/grpc");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_ptr_equal(podup_add_port("web", bad[i], serves, sizeof serves, &why),
                         ERR_OF(USAGE));
    assert_ptr_equal(podup_add_port("web", "1", serves, 24, &why), ERR_OF(USAGE)); /* full */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles),
        cmocka_unit_test(yaml_keeps_types),
        cmocka_unit_test(yaml_of_deep_values_ends),
        cmocka_unit_test(quotes),
        cmocka_unit_test(tables_keep_terminals_clean),
        cmocka_unit_test(ports_of_a_pod),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
