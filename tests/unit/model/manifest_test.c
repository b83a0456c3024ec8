/* YAML and JSON to objects; what is refused, and on which line. */
#include "model/manifest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_accepted(void **state)
{
    static const struct {
        const char *text, *want; /* the objects as sorted compact JSON, joined by blanks */
    } cases[] = {
        {"", ""},
        {"---\n", ""},
        {"---\n---\n", ""},
        {"# only a comment\n", ""},
        {"a: 1\n", "{\"a\":1}"},
        {"a: 1\n---\nb: 2\n", "{\"a\":1} {\"b\":2}"},
        {"a: [1, -2, 3.5, 1e3]\n", "{\"a\":[1,-2,3.5,1000.0]}"},
        {"a: \"1\"\nb: '2'\nc: three\n", "{\"a\":\"1\",\"b\":\"2\",\"c\":\"three\"}"},
        {"a: true\nb: False\nc: null\nd: ~\ne:\n",
         "{\"a\":true,\"b\":false,\"c\":null,\"d\":null,\"e\":null}"},
        {"a: yes\nb: on\nc: 0123\nd: 0x1f\ne: 1.2.3\nf: .inf\n",
         "{\"a\":\"yes\",\"b\":\"on\",\"c\":\"0123\",\"d\":\"0x1f\",\"e\":\"1.2.3\",\"f\":\"."
         "inf\"}"},
        {"a: 99999999999999999999\n", "{\"a\":\"99999999999999999999\"}"},
        {"a: 1h30m\nb: 10s\n", "{\"a\":\"1h30m\",\"b\":\"10s\"}"},
        {"a: |\n  x\n  y\n", "{\"a\":\"x\\ny\\n\"}"},
        {"a: >-\n  x\n  y\n", "{\"a\":\"x y\"}"},
        {"a: {b: [c, {d: e}]}\n", "{\"a\":{\"b\":[\"c\",{\"d\":\"e\"}]}}"},
        {"{\"a\": [1, \"\\ud83d\\ude00\", null]}", "{\"a\":[1,\"\xf0\x9f\x98\x80\",null]}"},
        {" [{\"a\": 1}, {\"b\": 2}]\n", "{\"a\":1} {\"b\":2}"},
        {"[]", ""},
        {"kind: List\nitems:\n- a: 1\n- b: 2\n", "{\"a\":1} {\"b\":2}"},
        {"{\"kind\": \"List\", \"items\": []}", ""},
        {"{a: 1, b: {c: d}}\n", NULL}, /* flow YAML that ends like JSON: JSON's rules count */
        {"a: b: c\n", NULL},
        {"\xef\xbb\xbf"
         "a: 1\n",
         "{\"a\":1}"}, /* byte order mark */
        {"%YAML 1.1\n---\na: 1\n", "{\"a\":1}"},
        {"a: caf\xc3\xa9\n", "{\"a\":\"caf\xc3\xa9\"}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct manifest *m = NULL;
        struct why why;
        char got[512] = "";
        err_t e = manifest_parse(slice_str(cases[i].text), &m, &why);

        if ((e == OK) != (cases[i].want != NULL))
            fail_msg("case %zu: %s", i, e == OK ? "accepted" : why.reason);
        if (e != OK)
            continue;
        for (size_t o = 0; o < m->n; o++) {
            char *text = json_dumps(m->objects[o].json, JSON_SORT_KEYS | JSON_COMPACT);

            (void)snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s",
                           o > 0 ? " " : "", text);
            free(text);
        }
        assert_string_equal(got, cases[i].want);
        manifest_free(&m);
        assert_null(m);
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *text;
        unsigned line;
        const char *path, *reason;
    } cases[] = {
        {"a: 1\nb: &x 2\n", 2, "", "anchors"},
        {"a: &x\n  b: 1\n", 1, "", "anchors"},
        {"a: &x [1]\n", 1, "", "anchors"},
        {"a: 1\nb: *x\n", 2, "", "aliases"},
        {"&x a: 1\n", 1, "", "anchor"},
        {"a: !foo 1\n", 1, "", "tags"},
        {"a: !!binary aGk=\n", 1, "", "tags"},
        {"a: 1\na: 2\n", 2, "a", "given twice"},
        {"x:\n  a: 1\n  b: 2\n  a: 3\n", 4, "x.a", "given twice"},
        {"[a]: 1\n", 1, "", "key must be"},
        {"? {a: b}\n: 1\n", 1, "", "key must be"},
        {"a: [1\n", 2, "", "not valid YAML"},
        {"a: 'x\n", 2, "", "not valid YAML"},
        {"\ta: 1\n", 1, "", "not valid YAML"},
        {"a: \"\\xff\\0\"\n", 1, "", "NUL"},
        {"a: \xff\xfe\n", 1, "", "not valid YAML"},
        {"just text\n", 1, "", "not an object"},
        {"- a\n- b\n", 1, "", "not an object"},
        {"a: 1\n---\n- b\n", 3, "", "not an object"},
        {"kind: List\nitems:\n- 1\n", 1, "", "not an object"},
        {"{\"a\": 1,\n \"a\": 2}", 2, "", "not valid JSON: duplicate"},
        {"{\"a\": 1,\n}", 2, "", "not valid JSON"},
        {"{\"a\": \"\\u0000\"}", 1, "", "not valid JSON"},
        {"[1]", 0, "", "not an object"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct manifest *m = NULL;
        struct why why;
        err_t e = manifest_parse(slice_str(cases[i].text), &m, &why);

        if (e != ERR_OF(MODEL_SYNTAX))
            fail_msg("case %zu: %s", i, e == OK ? "accepted" : e->name);
        if (strstr(why.reason, cases[i].reason) == NULL ||
            (cases[i].path[0] != '\0' && strcmp(why.path, cases[i].path) != 0))
            fail_msg("case %zu: %s: %s", i, why.path, why.reason);
        if (why.line != cases[i].line)
            fail_msg("case %zu: line %u, not %u", i, why.line, cases[i].line);
        assert_null(m);
    }
}

static char *repeat(const char *text, size_t n)
{
    size_t len = strlen(text);
    char *out = malloc(len * n + 1);

    assert_non_null(out);
    for (size_t i = 0; i < n; i++)
        memcpy(out + i * len, text, len);
    out[len * n] = '\0';
    return out;
}

static void test_limits(void **state)
{
    static const struct {
        const char *part;
        size_t n;
        bool is_fine;
    } cases[] = {
        {"[", 100000, false},
        {"{\"a\":", 5000, false},
        {"- ", 5000, false},
        {"a: 1\n---\n", 4096, true},
        {"a: 1\n---\n", 4097, false},
        {"- 1\n", 200001, false},
        {"a", 4 * 1024 * 1024 + 1, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *text = repeat(cases[i].part, cases[i].n);
        struct manifest *m = NULL;
        struct why why;
        err_t e = manifest_parse(slice_str(text), &m, &why);

        if ((e == OK) != cases[i].is_fine)
            fail_msg("limit %zu: %s", i, e == OK ? "accepted" : why.reason);
        manifest_free(&m);
        free(text);
    }
}

static void test_json_depth(void **state)
{
    char text[200];
    json_t *json = NULL;
    struct why why;

    (void)state;
    for (unsigned depth = 30; depth < 40; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        err_t e = manifest_parse_json(slice(text, 2 * (size_t)depth), &json, &why);
        assert_ptr_equal(e, depth <= MANIFEST_DEPTH ? OK : ERR_OF(MODEL_SYNTAX));
        if (e == OK)
            json_decref(json);
    }
    assert_ptr_equal(
        manifest_parse_json(SLICE_LIT("[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[\"]"),
                            &json, &why),
        OK);
    json_decref(json);
    assert_ptr_equal(manifest_parse_json(slice(NULL, 0), &json, &why), ERR_OF(MODEL_SYNTAX));
}

static void test_lines(void **state)
{
    static const char text[] = "# first\n"
                               "kind: A\n"
                               "spec:\n"
                               "  rules:\n"
                               "  - name: x\n"
                               "    to:\n"
                               "      port: 1\n"
                               "  - name: y\n"
                               "---\n"
                               "kind: List\n"
                               "items:\n"
                               "- kind: B\n"
                               "- kind: C\n"
                               "  spec: {a.b: 1}\n";
    struct manifest *m = NULL;
    struct why why;

    (void)state;
    assert_ptr_equal(manifest_parse(slice_str(text), &m, &why), OK);
    assert_int_equal(m->n, 3);
    assert_int_equal(manifest_line(m, 0, ""), 2);
    assert_int_equal(manifest_line(m, 0, "kind"), 2);
    assert_int_equal(manifest_line(m, 0, "spec.rules[0].to.port"), 7);
    assert_int_equal(manifest_line(m, 0, "spec.rules[0].to.missing"),
                     7); /* a mapping begins at its first key */
    assert_int_equal(manifest_line(m, 0, "spec.rules[1].name"), 8);
    assert_int_equal(manifest_line(m, 0, "spec.rules[11].name"), 5);
    assert_int_equal(manifest_line(m, 0, "elsewhere"), 2);
    assert_int_equal(manifest_line(m, 1, "kind"), 12);
    assert_int_equal(manifest_line(m, 2, "kind"), 13);
    assert_int_equal(manifest_line(m, 2, "spec[\"a.b\"]"), 14);
    manifest_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),     cmocka_unit_test(test_lines),
        cmocka_unit_test(test_json_depth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
