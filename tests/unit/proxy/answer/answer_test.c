/* Answers of the mesh: every code gives a head that may be written. */
#include "proxy/answer/answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static slice_t value_of(const struct head *h, const char *name)
{
    struct field *f = head_find_name(h, slice_str(name));

    return f == NULL ? SLICE_LIT("") : f->value;
}

static bool holds(slice_t s, const char *part)
{
    size_t n = strlen(part);

    for (size_t i = 0; i + n <= s.n; i++)
        if (memcmp(s.p + i, part, n) == 0)
            return true;
    return false;
}

static void test_every_code(void **state)
{
    (void)state;
    for (unsigned c = CODE_NONE + 1; c < CODE_COUNT; c++) {
        struct answer a = {.code = (enum code)c, .direction = DIRECTION_OUTBOUND};
        struct arena arena;
        struct head h;

        arena_init(&arena, 0);
        assert_true(answer_build(&a, &arena, &h) == OK);
        assert_in_range(h.status, 200, 599);
        assert_int_equal(h.content_length, 0);
        for (size_t i = 0; i < h.n_fields; i++) {
            assert_true(http_is_token(h.fields[i].name));
            assert_true(http_is_field_value(h.fields[i].value));
        }
        assert_true(slice_is_str(value_of(&h, "weft-code"), code_info((enum code)c)->id));
        assert_true(holds(value_of(&h, "proxy-status"), code_info((enum code)c)->proxy_status));
        assert_int_equal(value_of(&h, "weft-delivered").n, 0);
        arena_done(&arena);
    }
}

static void test_words_from_outside_stay_inside(void **state)
{
    struct answer a = {.code = CODE_NO_ROUTE,
                       .direction = DIRECTION_OUTBOUND,
                       .details = SLICE_LIT("evil\"; error=none\r\nSet-Cookie: a=b\\\x01\xff"),
                       .next_hop = SLICE_LIT("1.2.3.4:80\"\r\n")};
    struct arena arena;
    struct head h;

    (void)state;
    arena_init(&arena, 0);
    assert_true(answer_build(&a, &arena, &h) == OK);
    for (size_t i = 0; i < h.n_fields; i++)
        assert_true(http_is_field_value(h.fields[i].value));
    assert_true(holds(value_of(&h, "proxy-status"), "evil'; error=none''Set-Cookie: a=b'''\""));
    arena_done(&arena);
}

static void test_grpc(void **state)
{
    struct answer a = {
        .code = CODE_NO_ENDPOINT, .direction = DIRECTION_OUTBOUND, .is_grpc = true};
    struct field trailers[2];
    struct arena arena;
    struct head h;

    (void)state;
    arena_init(&arena, 0);
    assert_true(answer_build(&a, &arena, &h) == OK);
    assert_int_equal(h.status, 200);
    assert_true(slice_is_str(value_of(&h, "grpc-status"), "4"));
    assert_true(slice_is_str(value_of(&h, "content-type"), "application/grpc"));
    assert_int_equal(answer_grpc_trailers(CODE_RESPONSE_CUT, SLICE_LIT(""), &arena, trailers), 2);
    assert_true(slice_is_str(trailers[0].value, "14")); /* as without a mesh */
    arena_done(&arena);
}

static void test_delivered(void **state)
{
    static const struct {
        enum delivered d;
        const char *text;
    } rows[] = {{DELIVERED_NO, "no"}, {DELIVERED_YES, "yes"}, {DELIVERED_UNKNOWN, "unknown"}};
    enum delivered d;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct answer a = {.code = CODE_APP_REFUSED,
                           .direction = DIRECTION_INBOUND,
                           .tells_delivered = true,
                           .delivered = rows[i].d};
        struct arena arena;
        struct head h;

        arena_init(&arena, 0);
        assert_true(answer_build(&a, &arena, &h) == OK);
        assert_true(slice_is_str(value_of(&h, "weft-delivered"), rows[i].text));
        assert_true(delivered_parse(slice_str(rows[i].text), &d) && d == rows[i].d);
        arena_done(&arena);
    }
    assert_false(delivered_parse(SLICE_LIT("No"), &d));
    assert_false(delivered_parse(SLICE_LIT(""), &d));
    assert_false(delivered_parse(SLICE_LIT("unknown "), &d));
}

static void test_redirect(void **state)
{
    struct answer a = {
        .code = CODE_REDIRECT, .status = 308, .location = SLICE_LIT("https://x/y")};
    struct arena arena;
    struct head h;

    (void)state;
    arena_init(&arena, 0);
    assert_true(answer_build(&a, &arena, &h) == OK);
    assert_int_equal(h.status, 308);
    assert_true(slice_is_str(value_of(&h, "location"), "https://x/y"));
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code),
        cmocka_unit_test(test_words_from_outside_stay_inside),
        cmocka_unit_test(test_grpc),
        cmocka_unit_test(test_delivered),
        cmocka_unit_test(test_redirect),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
