#include "proxy/http/head.h"

#include <stdarg.h>
#include <setjmp.h>

#include <cmocka.h>

static void every_known_name_is_found(void **state)
{
    (void)state;
    for (enum field_token t = FIELD_OTHER + 1; t < FIELD_TOKENS; t++) {
        slice_t name = field_name_of(t);
        char upper[64];

        assert_int_equal(field_token_of(name), t);
        for (size_t i = 0; i < name.n; i++)
            upper[i] = (char)(name.p[i] >= 'a' && name.p[i] <= 'z' ? name.p[i] - 32 : name.p[i]);
        assert_int_equal(field_token_of(slice(upper, name.n)), t);
        upper[0] = '_';
        assert_int_equal(field_token_of(slice(upper, name.n)), FIELD_OTHER);
    }
    assert_int_equal(field_token_of(SLICE_LIT("x-something")), FIELD_OTHER);
    assert_int_equal(field_token_of(slice(NULL, 0)), FIELD_OTHER);
}

struct grammar_case {
    const char *text;
    size_t n; /* 0: strlen */
    bool is_good;
};

static void check(bool (*fn)(slice_t), const struct grammar_case *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        slice_t s = c[i].n != 0 ? slice(c[i].text, c[i].n) : slice_str(c[i].text);

        if (fn(s) != c[i].is_good)
            fail_msg("case %zu: %s", i, c[i].text);
    }
}

#define CHECK(fn, cases) check(fn, cases, sizeof(cases) / sizeof((cases)[0]))

static void tokens(void **state)
{
    static const struct grammar_case cases[] = {
        {"a", 0, true},        {"Content-Length", 0, true}, {"!#$%&'*+-.^_`|~09", 0, true},
        {"", 0, false},        {"a b", 0, false},           {"a:", 0, false},
        {"\x80", 0, false},    {"a\0b", 3, false},          {"(x)", 0, false},
        {"a\t", 0, false},     {"\"a\"", 0, false},         {"a/b", 0, false},
        {"\x7f", 0, false},    {"{", 0, false},             {"@", 0, false},
    };

    (void)state;
    CHECK(http_is_token, cases);
}

static void field_values(void **state)
{
    static const struct grammar_case cases[] = {
        {"", 0, true},
        {"a", 0, true},
        {"a b\tc", 0, true},
        {"1234567890123456 longer than two words \xc3\xa9", 0, true},
        {"12345678\t0123456", 0, true},
        {" a", 0, false},
        {"a ", 0, false},
        {"\ta", 0, false},
        {"a\t", 0, false},
        {"a\0b", 3, false},
        {"a\rb", 0, false},
        {"a\nb", 0, false},
        {"1234567\n12345678", 0, false},
        {"12345678901\x7f""2345678", 0, false},
        {"12345678\t01234\x01", 0, false},
        {"\t", 0, false},
        {" ", 0, false},
        {"\x7f", 0, false},
        {"\x1f", 0, false},
        {"0123456789abcde\0", 16, false},
    };

    (void)state;
    CHECK(http_is_field_value, cases);
}

/* The word-wise scan must agree with a look at each byte, wherever the byte stands. */
static void field_values_exhaustively(void **state)
{
    char text[27];

    (void)state;
    for (unsigned c = 0; c < 256; c++)
        for (size_t at = 1; at < sizeof(text) - 1; at++) {
            bool is_good = (c >= 0x20 || c == '\t') && c != 0x7f;

            memset(text, 'x', sizeof(text));
            text[at] = (char)c;
            assert_int_equal(http_is_field_value(slice(text, sizeof(text))), is_good);
        }
}

/* Every byte at every place of a word, with and without tabs before it. */
static void prefixes(void **state)
{
    uint8_t text[40];

    (void)state;
    for (size_t n = 0; n < sizeof(text); n += 3)
        for (size_t at = 0; at < n; at++)
            for (int c = 0; c < 256; c++) {
                bool is_ctl = (c < 0x20 && c != '\t') || c == 0x7f;

                memset(text, 'a', n);
                if (at > 0)
                    text[at - 1] = '\t';
                text[at] = (uint8_t)c;
                assert_int_equal(http_value_prefix(slice(text, n)), is_ctl ? at : n);
                if (at > 0)
                    text[at - 1] = 'Z';
                assert_int_equal(http_token_prefix(slice(text, n)),
                                 http_is_token(slice(text + at, 1)) ? n : at);
            }
    assert_int_equal(http_value_prefix(slice(NULL, 0)), 0);
    assert_int_equal(http_token_prefix(slice(NULL, 0)), 0);
}

/* Any other byte in place of one of a known name makes it unknown, but for its capital. */
static void known_names_are_told_from_others(void **state)
{
    (void)state;
    for (enum field_token t = FIELD_OTHER + 1; t < FIELD_TOKENS; t++) {
        slice_t name = field_name_of(t);

        for (size_t at = 0; at < name.n; at++)
            for (int c = 0x21; c < 0x7f; c++) {
                uint8_t other[64], one = (uint8_t)c;
                bool is_same = c == name.p[at] || (c >= 'A' && c <= 'Z' && (c | 0x20) == name.p[at]);

                if (!http_is_token(slice(&one, 1)))
                    continue;
                memcpy(other, name.p, name.n);
                other[at] = one;
                if (is_same)
                    assert_int_equal(field_token_of(slice(other, name.n)), t);
                else
                    assert_int_not_equal(field_token_of(slice(other, name.n)), t);
            }
    }
}

static void authorities(void **state)
{
    static const struct grammar_case cases[] = {
        {"a", 0, true},
        {"web:8080", 0, true},
        {"web.default.svc.cluster.local:80", 0, true},
        {"10.0.0.1:1", 0, true},
        {"[::1]", 0, true},
        {"[fd77:6566:7400::1]:65535", 0, true},
        {"under_score", 0, true},
        {"", 0, false},
        {"a@b", 0, false},
        {"a/b", 0, false},
        {"a b", 0, false},
        {"a:", 0, false},
        {"a:x", 0, false},
        {"a:65536", 0, false},
        {"a:80:80", 0, false},
        {":80", 0, false},
        {"a:-1", 0, false},
        {"a:000080", 0, false},
        {"[::1", 0, false},
        {"[]", 0, false},
        {"[1]", 0, false},
        {"[::1]x", 0, false},
        {"[::1]:", 0, false},
        {"[::z]", 0, false},
        {"::1", 0, false},
        {"a?b", 0, false},
        {"a#b", 0, false},
        {"a\\b", 0, false},
        {"a\0b", 3, false},
        {"\xc3\xa9", 0, false},
    };
    char longest[300];

    (void)state;
    CHECK(http_is_authority, cases);
    memset(longest, 'a', sizeof(longest));
    assert_true(http_is_authority(slice(longest, 255)));
    assert_false(http_is_authority(slice(longest, 262)));
}

static void paths(void **state)
{
    static const struct grammar_case cases[] = {
        {"/", 0, true},       {"/a?b=c&d=%00", 0, true}, {"*", 0, true},      {"/a/../b//c", 0, true},
        {"/a{b}|c\"", 0, true}, {"", 0, false},          {"a", 0, false},     {"*x", 0, false},
        {"/ a", 0, false},    {"/a#b", 0, false},        {"/\x80", 0, false}, {"/a\0", 3, false},
        {"/a\r\n", 0, false}, {"/\x7f", 0, false},       {"/a\tb", 0, false}, {"?a", 0, false},
    };

    (void)state;
    CHECK(http_is_path, cases);
}

static void add_pairs(struct head *h, struct arena *a, const char *const *pairs)
{
    head_init(h);
    for (; *pairs != NULL; pairs += 2)
        assert_true(head_add(h, a, slice_str(pairs[0]), slice_str(pairs[1])) == OK);
}

static void fields_are_kept_in_order_and_grow(void **state)
{
    struct arena a;
    struct head h, copy;

    (void)state;
    arena_init(&a, 0);
    head_init(&h);
    for (int i = 0; i < 100; i++)
        assert_true(head_add(&h, &a, SLICE_LIT("x-a"), SLICE_LIT("1")) == OK);
    assert_true(head_add(&h, &a, SLICE_LIT("Host"), SLICE_LIT("b")) == OK);
    assert_int_equal(h.n_fields, 101);
    assert_ptr_equal(head_find(&h, FIELD_HOST), &h.fields[100]);
    assert_true(head_set(&h, &a, SLICE_LIT("X-A"), SLICE_LIT("2")) == OK);
    assert_true(slice_is_str(h.fields[0].value, "2"));
    assert_false(h.fields[0].is_removed);
    assert_true(h.fields[99].is_removed);
    assert_true(head_copy(&h, &a, &copy) == OK);
    assert_int_equal(copy.n_fields, 101);
    assert_true(slice_is(copy.fields[100].value, h.fields[100].value));
    assert_ptr_not_equal(copy.fields[100].value.p, h.fields[100].value.p);
    head_remove(&h, FIELD_HOST);
    assert_null(head_find(&h, FIELD_HOST));
    assert_non_null(head_find(&copy, FIELD_HOST));
    arena_done(&a);
}

static void a_full_arena_is_an_error(void **state)
{
    struct arena a;
    struct head h;
    err_t e = OK;

    (void)state;
    arena_init(&a, 2048);
    head_init(&h);
    for (int i = 0; i < 100 && e == OK; i++)
        e = head_add(&h, &a, SLICE_LIT("x-a"), SLICE_LIT("1"));
    assert_ptr_equal(e, ERR_OF(NOMEM));
    arena_done(&a);
}

static void hop_by_hop_fields_go(void **state)
{
    static const char *const pairs[] = {
        "Connection", "x-id,  Keep-Alive ,host, content-length,TE,authorization,, l5d-client-id",
        "X-Id", "1", "Keep-Alive", "timeout=5", "Host", "a", "Content-Length", "5",
        "TE", "trailers", "Authorization", "x", "l5d-client-id", "me", "Upgrade", "websocket",
        "HTTP2-Settings", "AAMA", "Proxy-Connection", "close", "Transfer-Encoding", "chunked",
        "connection", "x-two", "X-Two", "2", "X-Three", "3", NULL};
    struct arena a;
    struct head h;

    (void)state;
    arena_init(&a, 0);
    add_pairs(&h, &a, pairs);
    head_strip_hop_by_hop(&h);
    assert_true(h.accepts_trailers);
    assert_null(head_find_name(&h, SLICE_LIT("x-id")));
    assert_null(head_find_name(&h, SLICE_LIT("x-two")));
    assert_null(head_find(&h, FIELD_KEEP_ALIVE));
    assert_null(head_find(&h, FIELD_UPGRADE));
    assert_null(head_find(&h, FIELD_HTTP2_SETTINGS));
    assert_null(head_find(&h, FIELD_PROXY_CONNECTION));
    assert_null(head_find(&h, FIELD_TRANSFER_ENCODING));
    assert_null(head_find(&h, FIELD_CONNECTION));
    assert_null(head_find(&h, FIELD_TE));
    assert_non_null(head_find(&h, FIELD_HOST));
    assert_non_null(head_find(&h, FIELD_CONTENT_LENGTH));
    assert_non_null(head_find(&h, FIELD_AUTHORIZATION));
    assert_non_null(head_find(&h, FIELD_L5D_CLIENT_ID));
    assert_non_null(head_find_name(&h, SLICE_LIT("x-three")));
    arena_done(&a);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_known_name_is_found),
        cmocka_unit_test(tokens),
        cmocka_unit_test(field_values),
        cmocka_unit_test(field_values_exhaustively),
        cmocka_unit_test(prefixes),
        cmocka_unit_test(known_names_are_told_from_others),
        cmocka_unit_test(authorities),
        cmocka_unit_test(paths),
        cmocka_unit_test(fields_are_kept_in_order_and_grow),
        cmocka_unit_test(a_full_arena_is_an_error),
        cmocka_unit_test(hop_by_hop_fields_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
