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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),         cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_long_line),        cmocka_unit_test(test_sni),
        cmocka_unit_test(test_sni_over_records), cmocka_unit_test(test_sni_bad_input),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
