#include "cli/opts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct want {
    bool flag;
    const char *text;
    struct opt_list many;
    uint64_t ms;
    uint32_t number;
};

static void run(const char *const line[], err_t want, const char *text, int kept, int rest_want)
{
    struct want w = {.text = "unset"};
    const struct opt table[] = {
        {OPT_FLAG, 'f', "flag", NULL, "", &w.flag},   {OPT_TEXT, 't', "text", "T", "", &w.text},
        {OPT_MANY, 'm', "many", "M", "", &w.many},    {OPT_MS, 0, "ms", "TIME", "", &w.ms},
        {OPT_U32, 'n', "number", "N", "", &w.number}, OPT_TABLE_END,
    };
    struct trouble why = {{0}};
    char words[16][32];
    char *argv[17];
    int argc = 0, rest = -2;
    err_t e;

    for (; line[argc] != NULL; argc++) {
        strcpy(words[argc], line[argc]);
        argv[argc] = words[argc];
    }
    argv[argc] = NULL;
    e = opts_parse(table, &argc, argv, rest_want == -9 ? NULL : &rest, &why);
    assert_ptr_equal(e, want);
    if (want != OK) {
        assert_true(why.text[0] != '\0');
        return;
    }
    assert_string_equal(w.text, text);
    assert_int_equal(argc, kept);
    if (rest_want != -9)
        assert_int_equal(rest, rest_want);
}

static void parse_accepts(void **state)
{
    (void)state;
    run((const char *const[]){"c", NULL}, OK, "unset", 1, -1);
    run((const char *const[]){"c", "-t", "x", "pos", NULL}, OK, "x", 2, -1);
    run((const char *const[]){"c", "pos", "--text=x=y", "-f", "p2", NULL}, OK, "x=y", 3, -1);
    run((const char *const[]){"c", "--text", "--", NULL}, OK, "--", 1, -1);
    run((const char *const[]){"c", "--text", "a", "--", "-q", "--nope", NULL}, OK, "a", 1, 4);
    run((const char *const[]){"c", "--", NULL}, OK, "unset", 1, 2);
    run((const char *const[]){"c", "a", "--", "-q", NULL}, OK, "unset", 3, -9);
    run((const char *const[]){"c", "-", NULL}, OK, "unset", 2, -1);
    run((const char *const[]){"c", "-- note\nselect 1", "-f", NULL}, OK, "unset", 2, -1);
    run((const char *const[]){"c", "--ms", "30s", "-n", "4294967295", "-m", "1", "-m", "2",
                              NULL},
        OK, "unset", 1, -1);
    run((const char *const[]){"c", "--text=", NULL}, OK, "", 1, -1);
}

static void parse_refuses(void **state)
{
    static const char *const bad[][5] = {
        {"c", "--nope"},
        {"c", "-q"},
        {"c", "--text"},
        {"c", "-t"},
        {"c", "--flag=yes"},
        {"c", "--ms", "soon"},
        {"c", "--ms", "-1s"},
        {"c", "--ms", "1.5s"},
        {"c", "--number", "-1"},
        {"c", "-n", "0x10"},
        {"c", "-n", "4294967296"},
        {"c", "-n", ""},
        {"c", "--tex", "x"},
        {"c", "--texts", "x"},
        {"c", "-tx"},
        {"c", "--=x"},
        {"c", "---text", "x"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        run(bad[i], ERR_OF(USAGE), "", 0, -1);
}

static void many_has_a_limit(void **state)
{
    struct opt_list many = {.n = 0};
    const struct opt table[] = {{OPT_MANY, 'm', "many", "M", "", &many}, OPT_TABLE_END};
    char *argv[2 * OPT_LIST_MAX + 4];
    struct trouble why = {{0}};
    char m[] = "-m", v[] = "v";
    int argc = 1;

    (void)state;
    argv[0] = v;
    for (int i = 0; i <= OPT_LIST_MAX; i++) {
        argv[argc++] = m;
        argv[argc++] = v;
    }
    argv[argc] = NULL;
    assert_ptr_equal(opts_parse(table, &argc, argv, NULL, &why), ERR_OF(USAGE));
    assert_int_equal(many.n, OPT_LIST_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse_accepts),
        cmocka_unit_test(parse_refuses),
        cmocka_unit_test(many_has_a_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
