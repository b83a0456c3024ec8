/* The cursor alone: every format of msgpack, every edge of UTF-8, what the writer writes. */
#include "wire/reader.h"
#include "wire/wire.h"
#include "wire/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define B(text)                                                                                \
    {                                                                                          \
        text, sizeof(text) - 1                                                                 \
    }

struct bytes {
    const char *p;
    size_t n;
};

static struct wire_reader reader(struct bytes b)
{
    return wire_reader_of(slice(b.p, b.n));
}

static void test_integers(void **state)
{
    static const struct {
        struct bytes in;
        uint64_t max;
        const struct err *want_u;
        uint64_t u;
        const struct err *want_i;
        int64_t i;
    } cases[] = {
        {B("\x00"), 255, NULL, 0, NULL, 0},
        {B("\x7f"), 255, NULL, 127, NULL, 127},
        {B("\xcc\xff"), 255, NULL, 255, NULL, 255},
        {B("\xcd\x01\x00"), 255, &err_WIRE_RANGE, 0, NULL, 256},
        {B("\xcd\x00\x05"), 255, NULL, 5, NULL, 5},
        {B("\xce\xff\xff\xff\xff"), UINT32_MAX, NULL, UINT32_MAX, NULL, UINT32_MAX},
        {B("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), UINT64_MAX, NULL, UINT64_MAX,
         &err_WIRE_RANGE, 0},
        {B("\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"), UINT64_MAX, NULL, INT64_MAX, NULL,
         INT64_MAX},
        {B("\xff"), 255, &err_WIRE_RANGE, 0, NULL, -1},
        {B("\xe0"), 255, &err_WIRE_RANGE, 0, NULL, -32},
        {B("\xd0\x80"), 255, &err_WIRE_RANGE, 0, NULL, -128},
        {B("\xd0\x05"), 255, NULL, 5, NULL, 5},
        {B("\xd1\x80\x00"), 255, &err_WIRE_RANGE, 0, NULL, INT16_MIN},
        {B("\xd2\x80\x00\x00\x00"), 255, &err_WIRE_RANGE, 0, NULL, INT32_MIN},
        {B("\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), 255, &err_WIRE_RANGE, 0, NULL, INT64_MIN},
        {B("\xd3\x00\x00\x00\x00\x00\x00\x00\x07"), 255, NULL, 7, NULL, 7},
        {B("\xd3\x00\x00\x00\x00\x00\x00\x00"), 255, &err_WIRE_TRUNCATED, 0,
         &err_WIRE_TRUNCATED, 0},
        {B(""), 255, &err_WIRE_TRUNCATED, 0, &err_WIRE_TRUNCATED, 0},
        {B("\xcc"), 255, &err_WIRE_TRUNCATED, 0, &err_WIRE_TRUNCATED, 0},
        {B("\xc0"), 255, &err_WIRE_TYPE, 0, &err_WIRE_TYPE, 0},
        {B("\xc3"), 255, &err_WIRE_TYPE, 0, &err_WIRE_TYPE, 0},
        {B("\xca\x00\x00\x00\x00"), 255, &err_WIRE_TYPE, 0, &err_WIRE_TYPE, 0},
        {B("\xd4\x00\x00"), 255, &err_WIRE_TYPE, 0, &err_WIRE_TYPE, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire_reader r = reader(cases[i].in), before = r;
        uint64_t u = 99;
        int64_t v = 99;

        assert_ptr_equal(wire_get_u64(&r, cases[i].max, &u), cases[i].want_u);
        assert_true(u == (cases[i].want_u == OK ? cases[i].u : 99));
        assert_ptr_equal(r.p, cases[i].want_u == OK ? r.end : before.p);
        r = before;
        assert_ptr_equal(wire_get_i64(&r, &v), cases[i].want_i);
        assert_true(v == (cases[i].want_i == OK ? cases[i].i : 99));
        assert_ptr_equal(r.p, cases[i].want_i == OK ? r.end : before.p);
    }
}

static void test_texts(void **state)
{
    static const struct {
        struct bytes in;
        size_t max;
        const struct err *want;
    } cases[] = {
        {B("\xa0"), 0, NULL},
        {B("\xa3"
           "abc"),
         3, NULL},
        {B("\xa3"
           "abc"),
         2, &err_WIRE_LIMIT},
        {B("\xa3"
           "ab"),
         3, &err_WIRE_TRUNCATED},
        {B("\xd9\x03"
           "abc"),
         3, NULL},
        {B("\xda\x00\x03"
           "abc"),
         3, NULL},
        {B("\xdb\x00\x00\x00\x03"
           "abc"),
         3, NULL},
        {B("\xdb\xff\xff\xff\xff"
           "abc"),
         3, &err_WIRE_LIMIT},
        {B("\xdb\xff\xff\xff\xff"
           "abc"),
         SIZE_MAX, &err_WIRE_TRUNCATED},
        {B("\xd9"), 3, &err_WIRE_TRUNCATED},
        {B("\xda\x00"), 3, &err_WIRE_TRUNCATED},
        {B("\xc4\x03"
           "abc"),
         3, &err_WIRE_TYPE},
        {B("\xa1\x00"), 3, &err_WIRE_TEXT},
        {B("\xa2\xc3\xa9"), 3, NULL},
        {B("\xa1\xc3"), 3, &err_WIRE_TEXT},
        {B("\xa2\xc0\x80"), 3, &err_WIRE_TEXT},     /* overlong NUL */
        {B("\xa2\xc1\xbf"), 3, &err_WIRE_TEXT},     /* overlong */
        {B("\xa3\xe0\x9f\xbf"), 3, &err_WIRE_TEXT}, /* overlong */
        {B("\xa3\xe0\xa0\x80"), 3, NULL},
        {B("\xa3\xed\x9f\xbf"), 3, NULL},
        {B("\xa3\xed\xa0\x80"), 3, &err_WIRE_TEXT},     /* a surrogate */
        {B("\xa4\xf0\x8f\xbf\xbf"), 4, &err_WIRE_TEXT}, /* overlong */
        {B("\xa4\xf0\x90\x80\x80"), 4, NULL},
        {B("\xa4\xf4\x8f\xbf\xbf"), 4, NULL},
        {B("\xa4\xf4\x90\x80\x80"), 4, &err_WIRE_TEXT}, /* above U+10FFFF */
        {B("\xa4\xf5\x80\x80\x80"), 4, &err_WIRE_TEXT},
        {B("\xa1\x80"), 4, &err_WIRE_TEXT},
        {B("\xa3\xe2\x82"
           "a"),
         4, &err_WIRE_TEXT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire_reader r = reader(cases[i].in), before = r;
        slice_t s;
        err_t got = wire_get_text(&r, cases[i].max, &s);

        if (got != cases[i].want)
            print_error("text case %zu\n", i);
        assert_ptr_equal(got, cases[i].want);
        assert_ptr_equal(r.p, got == OK ? r.end : before.p);
    }
}

static void test_containers_and_the_rest(void **state)
{
    struct wire_reader r;
    uint32_t n;
    double d;
    bool b;
    slice_t s;

    (void)state;
    r = reader((struct bytes)B("\xde\x00\x01\x01\x02"));
    assert_ptr_equal(wire_get_map(&r, &n), OK);
    assert_int_equal(n, 1);
    r = reader((struct bytes)B("\x82\x01\x02\x03"));
    assert_ptr_equal(wire_get_map(&r, &n),
                     ERR_OF(WIRE_TRUNCATED)); /* two pairs are four bytes */
    r = reader((struct bytes)B("\xdf\xff\xff\xff\xff\x01\x02"));
    assert_ptr_equal(wire_get_map(&r, &n), ERR_OF(WIRE_TRUNCATED));
    r = reader((struct bytes)B("\x91\x01"));
    assert_ptr_equal(wire_get_map(&r, &n), ERR_OF(WIRE_TYPE));
    r = reader((struct bytes)B("\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00"));
    assert_ptr_equal(wire_get_f64(&r, &d), OK);
    assert_true(d == 1.5);
    r = reader((struct bytes)B("\xca\x3f\xc0\x00\x00"));
    assert_ptr_equal(wire_get_f64(&r, &d), OK);
    assert_true(d == 1.5);
    r = reader((struct bytes)B("\xff"));
    assert_ptr_equal(wire_get_f64(&r, &d), OK);
    assert_true(d == -1);
    r = reader((struct bytes)B("\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00")); /* NaN */
    assert_ptr_equal(wire_get_f64(&r, &d), ERR_OF(WIRE_RANGE));
    r = reader((struct bytes)B("\xca\x7f\x80\x00\x00")); /* infinite */
    assert_ptr_equal(wire_get_f64(&r, &d), ERR_OF(WIRE_RANGE));
    r = reader((struct bytes)B("\x01"));
    assert_ptr_equal(wire_get_bool(&r, &b), ERR_OF(WIRE_TYPE));
    r = reader((struct bytes)B("\xc6\x00\x00\x00\x02zz"));
    assert_ptr_equal(wire_get_bytes(&r, 2, &s), OK);
    assert_true(slice_is_str(s, "zz"));
    r = reader((struct bytes)B("\xc6\xff\xff\xff\xffzz"));
    assert_ptr_equal(wire_get_bytes(&r, SIZE_MAX, &s), ERR_OF(WIRE_TRUNCATED));
}

static void test_skip(void **state)
{
    static const struct {
        struct bytes in;
        const struct err *want;
    } cases[] = {
        {B("\xc0"), NULL},
        {B("\x05"), NULL},
        {B("\xf0"), NULL},
        {B("\xcf\x00\x00\x00\x00\x00\x00\x00\x00"), NULL},
        {B("\xd3\x00\x00\x00\x00\x00\x00\x00\x00"), NULL},
        {B("\xca\x00\x00\x00\x00"), NULL},
        {B("\xcb\x00\x00\x00\x00\x00\x00\x00\x00"), NULL},
        {B("\xa2zz"), NULL},
        {B("\xd9\x02zz"), NULL},
        {B("\xc5\x00\x02zz"), NULL},
        {B("\xd4\x01z"), NULL},
        {B("\xd8\x01"
           "0123456789abcdef"),
         NULL},
        {B("\xc7\x02\x01zz"), NULL},
        {B("\xc9\x00\x00\x00\x02\x01zz"), NULL},
        {B("\x82\x01\x91\x90\xa1z\x80"), NULL},
        {B("\xdc\x00\x02\x01\x02"), NULL},
        {B("\x91\x91\x91\x91\x91\x91\x91\x91\xc0"), NULL},
        {B("\x91\x91\x91\x91\x91\x91\x91\x91\x91\xc0"), &err_WIRE_DEPTH},
        {B("\xc1"), &err_WIRE_TYPE},
        {B("\x91\xc1"), &err_WIRE_TYPE},
        {B(""), &err_WIRE_TRUNCATED},
        {B("\x92\x01"), &err_WIRE_TRUNCATED},
        {B("\xa2z"), &err_WIRE_TRUNCATED},
        {B("\xdb\xff\xff\xff\xffz"), &err_WIRE_TRUNCATED},
        {B("\xc9\xff\xff\xff\xff\x01z"), &err_WIRE_TRUNCATED},
        {B("\xd8\x01"
           "0123456789abcde"),
         &err_WIRE_TRUNCATED},
        {B("\xc7\x02"), &err_WIRE_TRUNCATED},
        {B("\xdd\xff\xff\xff\xff"), &err_WIRE_TRUNCATED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire_reader r = reader(cases[i].in), before = r;
        err_t got = wire_skip(&r);

        if (got != cases[i].want)
            print_error("skip case %zu\n", i);
        assert_ptr_equal(got, cases[i].want);
        assert_ptr_equal(r.p, got == OK ? r.end : before.p);
    }
}

static void test_writer_and_reader_agree(void **state)
{
    AUTO(buf_done) struct buf b;
    struct wire_reader r;
    uint32_t n;
    uint64_t u;
    int64_t i;
    double d;
    bool yes;
    slice_t s;

    (void)state;
    buf_init(&b, 0);
    assert_ptr_equal(wire_put_map(&b, 3), OK);
    assert_ptr_equal(wire_put_text(&b, slice(NULL, 0)), OK);
    assert_ptr_equal(wire_put_array(&b, 2), OK);
    assert_ptr_equal(wire_put_u64(&b, 1ULL << 40), OK);
    assert_ptr_equal(wire_put_i64(&b, -70000), OK);
    assert_ptr_equal(wire_put_f64(&b, 0.25), OK);
    assert_ptr_equal(wire_put_bool(&b, true), OK);
    assert_ptr_equal(wire_put_bytes(&b, SLICE_LIT("\0\1")), OK);
    assert_ptr_equal(wire_put_nil(&b), OK);
    r = wire_reader_of(buf_slice(&b));
    assert_ptr_equal(wire_get_map(&r, &n), OK);
    assert_int_equal(n, 3);
    assert_ptr_equal(wire_get_text(&r, 9, &s), OK);
    assert_int_equal(s.n, 0);
    assert_ptr_equal(wire_get_array(&r, &n), OK);
    assert_ptr_equal(wire_get_u64(&r, UINT64_MAX, &u), OK);
    assert_true(u == 1ULL << 40);
    assert_ptr_equal(wire_get_i64(&r, &i), OK);
    assert_true(i == -70000);
    assert_ptr_equal(wire_get_f64(&r, &d), OK);
    assert_true(d == 0.25);
    assert_ptr_equal(wire_get_bool(&r, &yes), OK);
    assert_ptr_equal(wire_get_bytes(&r, 2, &s), OK);
    assert_int_equal(s.n, 2);
    assert_ptr_equal(wire_skip(&r), OK);
    assert_int_equal(wire_reader_left(&r), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_containers_and_the_rest),
        cmocka_unit_test(test_skip),
        cmocka_unit_test(test_writer_and_reader_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
