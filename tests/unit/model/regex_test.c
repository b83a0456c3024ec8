/* What matches, what does not, what is refused, and that nothing takes long. */
#include "model/regex.h"

#include "kit/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct {
    const char *pattern, *text;
    bool want;
} cases[] = {
    {"", "", true},
    {"", "a", false},
    {"a", "a", true},
    {"a", "b", false},
    {"a", "", false},
    {"a", "aa", false},
    {"abc", "abc", true},
    {"abc", "xabc", false},
    {"abc", "abcx", false},
    {"^abc$", "abc", true},
    {"^$", "", true},
    {"^a|b$", "b", true},
    {".", "x", true},
    {".", "\n", false},
    {".*", "", true},
    {".*", "anything at all", true},
    {"a*", "aaaa", true},
    {"a+", "", false},
    {"a+", "aaa", true},
    {"a?b", "b", true},
    {"a?b", "ab", true},
    {"a?b", "aab", false},
    {"a|b", "a", true},
    {"a|b", "b", true},
    {"a|b", "ab", false},
    {"a|", "", true},
    {"|a", "a", true},
    {"(a|b)*c", "ababc", true},
    {"(a|b)*c", "abab", false},
    {"(?:ab)+", "abab", true},
    {"(?:ab)+", "aba", false},
    {"(?P<name>ab)", "ab", true},
    {"(a*)*", "aaa", true},
    {"(a*)*", "", true},
    {"(a*)*b", "aaab", true},
    {"(a|a)*", "aaaa", true},
    {"(|a)+", "aa", true},
    {"((((a))))", "a", true},
    {"()", "", true},
    {"a{3}", "aaa", true},
    {"a{3}", "aa", false},
    {"a{3}", "aaaa", false},
    {"a{2,}", "a", false},
    {"a{2,}", "aaaaa", true},
    {"a{1,3}", "", false},
    {"a{1,3}", "a", true},
    {"a{1,3}", "aaa", true},
    {"a{1,3}", "aaaa", false},
    {"a{0,2}b", "aab", true},
    {"a{0}", "", true},
    {"a{0}", "a", false},
    {"(ab){2}c", "ababc", true},
    {"(a|bc){2,3}", "abca", true},
    {"a*?", "aa", true},
    {"a+?b", "aab", true},
    {"a??", "a", true},
    {"a{1,2}?", "aa", true},
    {"[abc]", "b", true},
    {"[abc]", "d", false},
    {"[a-c]+", "abcabc", true},
    {"[^a-c]", "d", true},
    {"[^a-c]", "a", false},
    {"[]a]", "]", true},
    {"[^]a]", "b", true},
    {"[a-]", "-", true},
    {"[-a]", "-", true},
    {"[a\\-z]", "-", true},
    {"[a\\-z]", "b", false},
    {"[\\d.]+", "1.2", true},
    {"[\\w-]+", "a_9-", true},
    {"[\\]]", "]", true},
    {"[[:alpha:]]+", "abZ", true},
    {"[[:digit:]_]+", "1_2", true},
    {"[^[:space:]]+", "a b", false},
    {"[[:punct:]]", "~", true},
    {"[[:upper:]][[:lower:]]", "Ab", true},
    {"[[:xdigit:]]{2}", "fA", true},
    {"\\d+", "0123456789", true},
    {"\\d+", "12a", false},
    {"\\D+", "abc", true},
    {"\\w+", "az_AZ09", true},
    {"\\W", "-", true},
    {"\\s\\S", " x", true},
    {"\\.", ".", true},
    {"\\.", "x", false},
    {"\\\\", "\\", true},
    {"\\/a\\-b", "/a-b", true},
    {"\\x41", "A", true},
    {"\\x2F", "/", true},
    {"\\t\\n", "\t\n", true},
    {"(?i)abc", "aBC", true},
    {"(?i)[a-c]x", "BX", true},
    {"(?i)[^a-c]", "B", false},
    {"/api/v[0-9]+/users/[^/]+", "/api/v12/users/anna", true},
    {"/api/v[0-9]+/users/[^/]+", "/api/v12/users/anna/x", false},
    {"/(en|de|fr)(/.*)?", "/de", true},
    {"/(en|de|fr)(/.*)?", "/de/a/b", true},
    {"/(en|de|fr)(/.*)?", "/del", false},
    {"caf\xc3\xa9", "caf\xc3\xa9", true},
    {"v1\\.2(\\.[0-9]+)?", "v1.2.17", true},
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct regex *re = NULL;
        char why[96];
        err_t e = regex_new(slice_str(cases[i].pattern), &re, why);

        if (e != OK)
            fail_msg("%s: %s", cases[i].pattern, why);
        for (int round = 0; round < 3; round++) /* again through the filled table */
            if (regex_matches(re, slice_str(cases[i].text)) != cases[i].want)
                fail_msg("%s on \"%s\", round %d", cases[i].pattern, cases[i].text, round);
        regex_free(&re);
        assert_null(re);
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *pattern, *why;
    } bad[] = {
        {"*", "nothing to repeat"},
        {"a|*", "nothing to repeat"},
        {"(+)", "nothing to repeat"},
        {"{2}", "nothing to repeat"},
        {"a**", "repeat of a repeat"},
        {"a{2}{3}", "repeat of a repeat"},
        {"a{", "needs numbers"},
        {"a{x}", "needs numbers"},
        {"a{,3}", "needs numbers"},
        {"a{3", "{ without }"},
        {"a{3,2}", "backwards"},
        {"a{256}", "above 255"},
        {"a{99999999999}", "above 255"},
        {"(a", "( without )"},
        {"a)", ") without ("},
        {"((a)", "( without )"},
        {"[a", "[ without ]"},
        {"[", "[ without ]"},
        {"[]", "[ without ]"},
        {"[^", "[ without ]"},
        {"[z-a]", "backwards"},
        {"[[:nope:]]", "[:class:]"},
        {"[a-\\", "backslash"},
        {"\\", "backslash"},
        {"\\1", "back references"},
        {"\\b", "\\b is not supported"},
        {"\\pL", "\\p is not supported"},
        {"\\0", "not supported"},
        {"\\xg1", "hex"},
        {"\\x1", "hex"},
        {"(?=a)", "(? is only known"},
        {"(?!a)", "(? is only known"},
        {"(?<=a)", "(? is only known"},
        {"a(?i)b", "(? is only known"},
        {"(?P<x", "(?P< without >"},
        {"(?", "(? is only known"},
        {"a^b", "^ is only"},
        {"(^a)", "^ is only"},
        {"a$b", "$ is only"},
        {"(a$)", "$ is only"},
        {"$*", "$ is only"},
        {"((a{255}){255}){255}", "too large"},
        {"(((((){255}){255}){255}){255}){255}", "too large"},
        {"((((((((((((((((((((((((((a))))))))))))))))))))))))))", "groups within"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct regex *re = NULL;
        char why[96];

        if (regex_new(slice_str(bad[i].pattern), &re, why) != ERR_OF(MODEL_PATTERN))
            fail_msg("%s was accepted", bad[i].pattern);
        if (strstr(why, bad[i].why) == NULL)
            fail_msg("%s: %s, not %s", bad[i].pattern, why, bad[i].why);
        assert_null(re);
    }
}

static void test_long_ones(void **state)
{
    char *text = malloc(REGEX_TEXT + 1), pattern[REGEX_PATTERN + 2], why[96];
    struct regex *re = NULL;

    (void)state;
    assert_non_null(text);
    memset(text, 'a', REGEX_TEXT + 1);
    memset(pattern, 'a', sizeof(pattern));
    assert_ptr_equal(regex_new(slice(pattern, REGEX_PATTERN - 1), &re, why), OK);
    assert_true(regex_matches(re, slice(text, REGEX_PATTERN - 1)));
    regex_free(&re);
    assert_ptr_equal(regex_new(slice(pattern, REGEX_PATTERN + 1), &re, why),
                     ERR_OF(MODEL_PATTERN));
    assert_ptr_equal(regex_new(SLICE_LIT("a*"), &re, why), OK);
    assert_true(regex_matches(re, slice(text, REGEX_TEXT)));
    assert_false(regex_matches(re, slice(text, REGEX_TEXT + 1)));
    regex_free(&re);
    free(text);
}

/* What makes backtracking matchers take years, and what fills the table of states. */
static void test_bounded_time(void **state)
{
    static const char *const patterns[] = {
        "(a+)+b",           "(a|aa)+b",   "(a*)*b",     "(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)b",
        "(a?){200}a{200}b", "(.*a){12}b", ".*a.{200}b", "((a|b)*a(a|b){100})*c",
    };
    char *text = malloc(REGEX_TEXT);
    uint64_t random = 1;

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < REGEX_TEXT; i++) {
        random = random * 6364136223846793005U + 1442695040888963407U;
        text[i] = random >> 60 & 1 ? 'a' : 'b';
    }
    text[REGEX_TEXT - 1] = 'x';
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        struct regex *re = NULL;
        char why[96];
        uint64_t start = clock_read_us();

        if (regex_new(slice_str(patterns[i]), &re, why) != OK)
            fail_msg("%s: %s", patterns[i], why);
        for (int round = 0; round < 3; round++)
            assert_false(regex_matches(re, slice(text, REGEX_TEXT)));
        regex_free(&re);
        assert_true(clock_read_us() - start <
                    3000000); /* some ms in truth; sanitizers are slow */
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_long_ones),
        cmocka_unit_test(test_bounded_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
