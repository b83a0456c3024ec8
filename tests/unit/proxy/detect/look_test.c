/* First bytes: whatever the segments, the same verdict. */
#include "proxy/detect/look.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

static const struct {
    const char *name;
    const char *bytes;
    size_t n; /* 0: strlen */
    enum look want;
} cases[] = {
    {"nothing yet", "", 0, LOOK_MORE},
    {"a request", "GET / HTTP/1.1\r\n", 0, LOOK_HTTP1},
    {"an HTTP/1.0 request", "GET /x?y HTTP/1.0\r\nHost: a\r\n\r\n", 0, LOOK_HTTP1},
    {"lone LF is for the codec to refuse", "GET / HTTP/1.1\n", 0, LOOK_HTTP1},
    {"absolute form", "GET http://a/ HTTP/1.1\r\n", 0, LOOK_HTTP1},
    {"CONNECT", "CONNECT a.test:443 HTTP/1.1\r\n", 0, LOOK_HTTP1},
    {"CONNECT to IPv6", "CONNECT [::1]:443 HTTP/1.1\r\n", 0, LOOK_HTTP1},
    {"OPTIONS star", "OPTIONS * HTTP/1.1\r\n", 0, LOOK_HTTP1},
    {"odd method", "M-SEARCH * HTTP/1.1\r\n", 0, LOOK_HTTP1},
    {"lower case method", "get / HTTP/1.1\r\n", 0, LOOK_HTTP1},
    {"a version we refuse is still HTTP", "GET / HTTP/3.7\r\n", 0, LOOK_HTTP1},
    {"part of a method", "GE", 0, LOOK_MORE},
    {"method and blank", "GET ", 0, LOOK_MORE},
    {"no end of line yet", "GET /index", 0, LOOK_MORE},
    {"HTTP/0.9", "GET /\r\n", 0, LOOK_OPAQUE},
    {"SMTP greeting of a client", "EHLO me.test\r\n", 0, LOOK_OPAQUE},
    {"redis inline", "PING\r\n", 0, LOOK_OPAQUE},
    {"redis array", "*1\r\n$4\r\nPING\r\n", 0, LOOK_OPAQUE},
    {"memcached", "get key\r\n", 0, LOOK_OPAQUE},
    {"nats", "CONNECT {\"verbose\":false}\r\n", 0, LOOK_OPAQUE},
    {"two blanks", "GET  / HTTP/1.1\r\n", 0, LOOK_OPAQUE},
    {"method too long", "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH", 0, LOOK_OPAQUE},
    {"binary", "\x01\x02\x03", 0, LOOK_OPAQUE},
    {"NUL", "\0\0\0\0", 4, LOOK_OPAQUE},
    {"postgres startup", "\0\0\0\x08\x04\xd2\x16\x2f", 8, LOOK_OPAQUE},
    {"HTTP/2", PREFACE, 0, LOOK_HTTP2},
    {"HTTP/2 and more", PREFACE "\0\0\0", sizeof(PREFACE) + 2, LOOK_HTTP2},
    {"first byte of the preface", "P", 0, LOOK_MORE},
    {"part of the preface", "PRI * HTTP/2.0\r\n\r\n", 0, LOOK_MORE},
    {"PRI with another path", "PRI / HTTP/1.1\r\n", 0, LOOK_HTTP1},
    {"spoiled preface", "PRI * HTTP/2.0\r\n\r\nXX", 0, LOOK_OPAQUE},
    {"first byte of TLS", "\x16", 0, LOOK_MORE},
    {"ClientHello", "\x16\x03\x01\x00\xf0\x01\x00", 7, LOOK_TLS},
    {"ServerHello is no client's", "\x16\x03\x03\x00\xf0\x02", 6, LOOK_OPAQUE},
    {"0x16 and not TLS", "\x16\x01", 0, LOOK_OPAQUE},
    {"version from the future", "\x16\x03\x09", 0, LOOK_OPAQUE},
};

static void test_verdicts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n = cases[i].n != 0 ? cases[i].n : strlen(cases[i].bytes);

        if (look_at(slice(cases[i].bytes, n)) != cases[i].want)
            fail_msg("%s", cases[i].name);
    }
}

/* Every prefix says MORE or already the final verdict: a short first segment never decides
 * wrongly. */
static void test_prefixes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n = cases[i].n != 0 ? cases[i].n : strlen(cases[i].bytes);

        for (size_t k = 0; k < n; k++) {
            enum look got = look_at(slice(cases[i].bytes, k));

            if (got != LOOK_MORE && got != cases[i].want)
                fail_msg("%s after %zu bytes", cases[i].name, k);
        }
    }
}

static void test_long_line(void **state)
{
    char *line = malloc(LOOK_LINE_MAX + 10);

    (void)state;
    memset(line, 'a', LOOK_LINE_MAX + 10);
    memcpy(line, "GET /", 5);
    assert_int_equal(look_at(slice(line, LOOK_LINE_MAX)), LOOK_MORE);
    assert_int_equal(look_at(slice(line, LOOK_LINE_MAX + 1)), LOOK_HTTP1);
    free(line);
}

/* ---- ClientHello ---- */

static void put(uint8_t *out, size_t *n, const char *bytes, size_t k)
{
    memcpy(out + *n, bytes, k);
    *n += k;
}

#define PUT(out, n, text) put(out, n, text, sizeof(text) - 1)

static void put16(uint8_t *out, size_t *n, size_t v)
{
    out[(*n)++] = (uint8_t)(v >> 8);
    out[(*n)++] = (uint8_t)v;
}

static size_t make_hello(uint8_t *out, const char *sni)
{
    size_t name = strlen(sni), ext = name > 0 ? 9 + name : 0, n = 0;
    size_t body = 2 + 32 + 1 + 2 + 2 + 1 + 1 + 2 + 4 + ext;

    PUT(out, &n, "\x16\x03\x01");
    put16(out, &n, body + 4);
    PUT(out, &n, "\x01\x00");
    put16(out, &n, body);
    PUT(out, &n,
        "\x03\x03"
        "01234567890123456789012345678901"
        "\x00");
    PUT(out, &n,
        "\x00\x02\x13\x01"
        "\x01\x00");
    put16(out, &n, ext + 4);
    PUT(out, &n, "\x00\x2b\x00\x00"); /* another extension first */
    if (name > 0) {
        PUT(out, &n, "\x00\x00");
        put16(out, &n, name + 5);
        put16(out, &n, name + 3);
        PUT(out, &n, "\x00");
        put16(out, &n, name);
        put(out, &n, sni, name);
    }
    return n;
}

static void test_sni(void **state)
{
    uint8_t hello[512], room[LOOK_HELLO_MAX];
    size_t n = make_hello(hello, "web.default.serviceaccount.identity.weft.cluster.local");
    slice_t sni;

    (void)state;
    assert_int_equal(look_at(slice(hello, n)), LOOK_TLS);
    for (size_t k = 0; k < n; k++)
        assert_int_equal(look_sni(slice(hello, k), room, &sni), STEP_LATER);
    assert_int_equal(look_sni(slice(hello, n), room, &sni), STEP_DONE);
    assert_true(slice_is_str(sni, "web.default.serviceaccount.identity.weft.cluster.local"));
    n = make_hello(hello, "");
    assert_int_equal(look_sni(slice(hello, n), room, &sni), STEP_DONE);
    assert_int_equal(sni.n, 0);
}

static void test_sni_over_records(void **state)
{
    uint8_t hello[512], cut[1024], room[LOOK_HELLO_MAX];
    size_t n = make_hello(hello, "a.test") - 5, at = 0, k = 0;
    slice_t sni;

    (void)state;
    while (k < n) { /* records of 7 bytes */
        size_t piece = n - k < 7 ? n - k : 7;

        PUT(cut, &at, "\x16\x03\x01");
        put16(cut, &at, piece);
        memcpy(cut + at, hello + 5 + k, piece);
        at += piece;
        k += piece;
    }
    assert_int_equal(look_sni(slice(cut, at - 1), room, &sni), STEP_LATER);
    assert_int_equal(look_sni(slice(cut, at), room, &sni), STEP_DONE);
    assert_true(slice_is_str(sni, "a.test"));
}

/* Every byte of a hello spoiled in turn, and cut anywhere: an answer, never a read outside. */
static void test_sni_bad_input(void **state)
{
    uint8_t hello[512], room[LOOK_HELLO_MAX];
    size_t n = make_hello(hello, "a.test");
    slice_t sni;

    (void)state;
    for (size_t i = 0; i < n; i++)
        for (unsigned v = 0; v < 256; v += 17) {
            uint8_t *copy = malloc(n);

            memcpy(copy, hello, n);
            copy[i] = (uint8_t)v;
            (void)look_sni(slice(copy, n), room, &sni);
            free(copy);
        }
    memset(hello, 0xff, sizeof(hello));
    hello[0] = 0x16;
    assert_int_equal(look_sni(slice(hello, sizeof(hello)), room, &sni), STEP_FAILED);
}

/* Hellos as browsers send them: GREASE first and last, shares of post-quantum groups that make it larger than one
 * record; a padding of `pad` bytes stands for these. */
static uint8_t *make_large(size_t pad, size_t record, const char *sni, size_t *out_n)
{
    size_t name = strlen(sni), ext = 4 + 1 + 9 + name + 4 + 4 + pad + 4, n = 0, at = 0;
    size_t body = 2 + 32 + 1 + 32 + 2 + 4 + 1 + 1 + 2 + ext;
    uint8_t *hello = malloc(body + 4), *out = malloc(2 * (body + 4) + 5 * ((body + 4) / record + 1));
    static const char zero[32];

    hello[n++] = 1;
    hello[n++] = (uint8_t)(body >> 16);
    put16(hello, &n, body & 0xffff);
    PUT(hello, &n, "\x03\x03");
    put(hello, &n, zero, 32);
    PUT(hello, &n, "\x20");
    put(hello, &n, zero, 32);
    PUT(hello, &n, "\x00\x04\x0a\x0a\x13\x01\x01\x00");
    put16(hello, &n, ext);
    PUT(hello, &n, "\x2a\x2a\x00\x01\x00"); /* GREASE with a byte in it */
    PUT(hello, &n, "\x33\x33\x00\x00");
    PUT(hello, &n, "\x00\x33");
    put16(hello, &n, pad);
    memset(hello + n, 7, pad);
    n += pad;
    PUT(hello, &n, "\x00\x00");
    put16(hello, &n, name + 5);
    put16(hello, &n, name + 3);
    PUT(hello, &n, "\x00");
    put16(hello, &n, name);
    put(hello, &n, sni, name);
    PUT(hello, &n, "\x3a\x3a\x00\x00");
    assert_int_equal(n, body + 4);
    for (size_t k = 0; k < n; k += record) {
        size_t piece = n - k < record ? n - k : record;

        PUT(out, &at, "\x16\x03\x01");
        put16(out, &at, piece);
        memcpy(out + at, hello + k, piece);
        at += piece;
    }
    free(hello);
    *out_n = at;
    return out;
}

/* Whatever the segments: the same verdict, at the same byte. */
static void test_hello_in_any_segments(void **state)
{
    static const struct {
        size_t pad, record;
    } hellos[] = {{0, 16384}, {1200, 16384}, {1200, 100}, {600, 3}, {300, 1}, {17000, 16384}, {60000, 16384}};
    static uint8_t room[LOOK_HELLO_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(hellos) / sizeof(hellos[0]); i++) {
        size_t n, step = hellos[i].pad > 2000 ? 97 : 1;
        uint8_t *bytes = make_large(hellos[i].pad, hellos[i].record, "Shop.Example.org", &n);
        struct hello h = {0};
        slice_t sni;

        for (size_t k = 1; k < n; k += step) { /* one that goes on, and one that begins anew */
            struct hello fresh = {0};

            assert_int_equal(look_hello(&h, slice(bytes, k)), STEP_LATER);
            assert_int_equal(look_hello(&fresh, slice(bytes, k)), STEP_LATER);
        }
        assert_int_equal(look_hello(&h, slice(bytes, n)), STEP_DONE);
        assert_int_equal(look_sni(slice(bytes, n), room, &sni), STEP_DONE);
        assert_true(slice_is_str(sni, "Shop.Example.org"));
        free(bytes);
    }
}

static void test_hello_is_bounded(void **state)
{
    size_t n;
    uint8_t *bytes = make_large(65450, 16384, "a.test", &n);
    struct hello h = {0};

    (void)state;
    assert_int_equal(look_hello(&h, slice(bytes, n)), STEP_FAILED); /* as soon as its length is known */
    h = (struct hello){0};
    assert_int_equal(look_hello(&h, slice(bytes, 9)), STEP_FAILED);
    free(bytes);
    bytes = make_large(60000, 1, "a.test", &n); /* a header for each byte */
    h = (struct hello){0};
    assert_int_equal(look_hello(&h, slice(bytes, n)), STEP_FAILED);
    free(bytes);
    for (size_t i = 0; i < 3; i++) {
        static const char *bad[] = {"\x16\x03\x01\x00\x00", "\x16\x03\x01\x40\x01", "\x17\x03\x01\x00\x05"};

        h = (struct hello){0};
        assert_int_equal(look_hello(&h, slice(bad[i], 5)), STEP_FAILED);
    }
    h = (struct hello){0};
    assert_int_equal(look_hello(&h, slice("\x16\x03\x01\x00\x05\x02", 6)), STEP_FAILED);
    h = (struct hello){0}; /* the second record is none of a handshake */
    assert_int_equal(look_hello(&h, slice("\x16\x03\x01\x00\x01\x01\x17", 7)), STEP_FAILED);
}

static void test_hosts(void **state)
{
    static const char *good[] = {"a", "a.b", "A-1_x.test", "a.test.", "1.2.3.4"};
    static const char *bad[] = {"", ".", ".a", "a..b", "a..", "a b", "a:443", "[::1]", "a/b", "*.a", "a\"b", "\xc3\xa4.de"};
    char text[300];

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(look_is_host(slice_str(good[i])));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (look_is_host(slice_str(bad[i])))
            fail_msg("%s", bad[i]);
    assert_false(look_is_host(slice("a\0b", 3)));
    memset(text, 'a', sizeof(text));
    assert_true(look_is_host(slice(text, 253)));
    assert_false(look_is_host(slice(text, 254)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),         cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_long_line),        cmocka_unit_test(test_sni),
        cmocka_unit_test(test_sni_over_records), cmocka_unit_test(test_sni_bad_input),
        cmocka_unit_test(test_hello_in_any_segments), cmocka_unit_test(test_hello_is_bounded),
        cmocka_unit_test(test_hosts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
