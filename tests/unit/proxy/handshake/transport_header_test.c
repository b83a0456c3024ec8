/* The transport header: bytes as Linkerd makes them, every truncation, and a table of bad ones.
 */
#include "proxy/handshake/transport_header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define PREFACE "transport.l5d.io/v1\r\n\r\n"

struct sample {
    const char *name;
    const char *bytes; /* the protobuf message */
    size_t n;
    uint16_t port; /* 0: refused */
    const char *host;
    enum session_protocol session;
};

#define MSG(text) (text), sizeof(text) - 1
static const struct sample samples[] = {
    {"port", MSG("\x08\x50"), 80, "", SESSION_OPAQUE},
    {"port 8080", MSG("\x08\x90\x3f"), 8080, "", SESSION_OPAQUE},
    {"port 65535", MSG("\x08\xff\xff\x03"), 65535, "", SESSION_OPAQUE},
    {"http1", MSG("\x08\x50\x1a\x02\x0a\x00"), 80, "", SESSION_HTTP1},
    {"http2", MSG("\x08\x50\x1a\x02\x12\x00"), 80, "", SESSION_HTTP2},
    {"name",
     MSG("\x08\x50\x12\x03"
         "abc"),
     80, "abc", SESSION_OPAQUE},
    {"all, session first",
     MSG("\x1a\x02\x12\x00\x12\x01"
         "a\x08\x01"),
     1, "a", SESSION_HTTP2},
    {"session without a kind", MSG("\x08\x50\x1a\x00"), 80, "", SESSION_OPAQUE},
    {"session kind with contents", MSG("\x08\x50\x1a\x04\x12\x02\x08\x01"), 80, "",
     SESSION_HTTP2},
    {"session with an unknown kind", MSG("\x08\x50\x1a\x02\x1a\x00"), 80, "", SESSION_OPAQUE},
    {"last port wins", MSG("\x08\x01\x08\x02"), 2, "", SESSION_OPAQUE},
    {"last kind wins", MSG("\x08\x50\x1a\x04\x12\x00\x0a\x00"), 80, "", SESSION_HTTP1},
    {"unknown varint", MSG("\x20\x05\x08\x50"), 80, "", SESSION_OPAQUE},
    {"unknown bytes", MSG("\x22\x02xy\x08\x50"), 80, "", SESSION_OPAQUE},
    {"unknown fixed",
     MSG("\x25"
         "1234\x29"
         "12345678\x08\x50"),
     80, "", SESSION_OPAQUE},
    {"long varint of a small number", MSG("\x08\xd0\x80\x80\x80\x00"), 80, "", SESSION_OPAQUE},

    {"empty", MSG(""), 0, NULL, SESSION_OPAQUE},
    {"port 0", MSG("\x08\x00"), 0, NULL, SESSION_OPAQUE},
    {"port 65536", MSG("\x08\x80\x80\x04"), 0, NULL, SESSION_OPAQUE},
    {"port -1", MSG("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 0, NULL, SESSION_OPAQUE},
    {"port as bytes", MSG("\x0a\x01\x50"), 0, NULL, SESSION_OPAQUE},
    {"port as fixed32", MSG("\x0d\x50\x00\x00\x00"), 0, NULL, SESSION_OPAQUE},
    {"varint of 11 bytes", MSG("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 0, NULL,
     SESSION_OPAQUE},
    {"varint of 65 bits", MSG("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), 0, NULL,
     SESSION_OPAQUE},
    {"varint ends", MSG("\x08\x50\x08\x80"), 0, NULL, SESSION_OPAQUE},
    {"field number 0", MSG("\x08\x50\x00\x00"), 0, NULL, SESSION_OPAQUE},
    {"field number too large", MSG("\x08\x50\xf8\xff\xff\xff\xff\x01\x00"), 0, NULL,
     SESSION_OPAQUE},
    {"key without value", MSG("\x08\x50\x12"), 0, NULL, SESSION_OPAQUE},
    {"name longer than the message",
     MSG("\x08\x50\x12\x05"
         "abc"),
     0, NULL, SESSION_OPAQUE},
    {"name of 2^63 bytes",
     MSG("\x08\x50\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
         "a"),
     0, NULL, SESSION_OPAQUE},
    {"name with NUL",
     MSG("\x08\x50\x12\x03"
         "a\0b"),
     0, NULL, SESSION_OPAQUE},
    {"name with a space",
     MSG("\x08\x50\x12\x03"
         "a b"),
     0, NULL, SESSION_OPAQUE},
    {"name with 0x80",
     MSG("\x08\x50\x12\x03"
         "a\x80"
         "b"),
     0, NULL, SESSION_OPAQUE},
    {"name as varint", MSG("\x08\x50\x10\x03"), 0, NULL, SESSION_OPAQUE},
    {"session as varint", MSG("\x08\x50\x18\x03"), 0, NULL, SESSION_OPAQUE},
    {"kind as varint", MSG("\x08\x50\x1a\x02\x10\x00"), 0, NULL, SESSION_OPAQUE},
    {"session cut", MSG("\x08\x50\x1a\x01\x12"), 0, NULL, SESSION_OPAQUE},
    {"group", MSG("\x08\x50\x23\x24"), 0, NULL, SESSION_OPAQUE},
    {"wire type 7", MSG("\x08\x50\x27\x00"), 0, NULL, SESSION_OPAQUE},
    {"fixed64 cut",
     MSG("\x08\x50\x29"
         "1234567"),
     0, NULL, SESSION_OPAQUE},
};

/* In a block of exactly its size, so that a read behind the end is found by the sanitizer. */
static uint8_t *frame(const struct sample *s, size_t *n)
{
    uint8_t *b = malloc(27 + s->n);

    assert_non_null(b);
    memcpy(b, PREFACE, 23);
    b[23] = b[24] = b[25] = 0;
    b[26] = (uint8_t)s->n;
    memcpy(b + 27, s->bytes, s->n);
    *n = 27 + s->n;
    return b;
}

static void reads_the_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        const struct sample *s = &samples[i];
        struct transport_header h;
        size_t n, used = 0;
        uint8_t *b = frame(s, &n);
        err_t why;
        enum step step = transport_header_parse(slice(b, n), &h, &used, &why);

        if (step != (s->port != 0 ? STEP_DONE : STEP_FAILED))
            fail_msg("%s: step %d", s->name, (int)step);
        if (s->port == 0) {
            assert_ptr_equal(why, ERR_OF(MALFORMED));
        } else {
            assert_int_equal(used, n);
            assert_int_equal(h.port, s->port);
            assert_true(slice_is_str(h.name, s->host));
            assert_int_equal(h.session, s->session);
        }
        free(b);
    }
}

static void every_truncation_waits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        size_t n;
        uint8_t *b = frame(&samples[i], &n);

        for (size_t cut = 0; cut < n; cut++) {
            uint8_t *part = malloc(cut + 1);
            struct transport_header h;
            size_t used;
            err_t why;

            assert_non_null(part);
            memcpy(part, b, cut);
            assert_int_equal(transport_header_parse(slice(part, cut), &h, &used, &why),
                             STEP_LATER);
            free(part);
        }
        free(b);
    }
}

static void what_follows_is_not_touched(void **state)
{
    uint8_t b[] = PREFACE "\0\0\0\2\x08\x50GET / HTTP/1.1";
    struct transport_header h;
    size_t used;
    err_t why;

    (void)state;
    assert_int_equal(transport_header_parse(slice(b, sizeof(b) - 1), &h, &used, &why),
                     STEP_DONE);
    assert_int_equal(used, 29);
}

static void refuses_at_the_first_wrong_byte(void **state)
{
    struct transport_header h;
    size_t used;
    err_t why;

    (void)state;
    for (size_t i = 0; i < 23; i++) {
        uint8_t b[23];

        memcpy(b, PREFACE, 23);
        b[i] ^= 0x20;
        assert_int_equal(transport_header_parse(slice(b, i + 1), &h, &used, &why), STEP_FAILED);
        assert_ptr_equal(why, ERR_OF(MALFORMED));
    }
}

static void refuses_a_large_length_before_reading_it(void **state)
{
    static const struct {
        uint8_t len[4];
        enum step want;
    } cases[] = {{{0, 1, 0, 0}, STEP_LATER},
                 {{0, 1, 0, 1}, STEP_FAILED},
                 {{0xff, 0xff, 0xff, 0xff}, STEP_FAILED},
                 {{0x80, 0, 0, 2}, STEP_FAILED}};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        uint8_t b[27];
        struct transport_header h;
        size_t used;
        err_t why;

        memcpy(b, PREFACE, 23);
        memcpy(b + 23, cases[i].len, 4);
        assert_int_equal(transport_header_parse(slice(b, 27), &h, &used, &why), cases[i].want);
        if (cases[i].want == STEP_FAILED)
            assert_ptr_equal(why, ERR_OF(TOO_BIG));
    }
}

static void prints_what_it_reads(void **state)
{
    static const struct transport_header headers[] = {{.port = 1},
                                                      {.port = 127},
                                                      {.port = 128},
                                                      {.port = 16383},
                                                      {.port = 16384},
                                                      {.port = 65535},
                                                      {.port = 8080, .session = SESSION_HTTP2},
                                                      {.port = 8080, .session = SESSION_HTTP1}};
    char name[255];

    (void)state;
    memset(name, 'n', sizeof(name));
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        for (size_t len = 0; len <= sizeof(name); len += 51) {
            struct transport_header h = headers[i], got;
            struct buf b;
            size_t used;
            err_t why;

            h.name = slice(name, len);
            buf_init(&b, 0);
            assert_ptr_equal(transport_header_print(&h, &b), OK);
            assert_int_equal(transport_header_parse(buf_slice(&b), &got, &used, &why),
                             STEP_DONE);
            assert_int_equal(used, buf_len(&b));
            assert_int_equal(got.port, h.port);
            assert_int_equal(got.session, h.session);
            assert_true(slice_is(got.name, h.name));
            buf_done(&b);
        }
    }
}

static void prints_the_bytes_linkerd_expects(void **state)
{
    struct transport_header h = {.port = 8080, .session = SESSION_HTTP2};
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    assert_ptr_equal(transport_header_print(&h, &b), OK);
    assert_true(
        slice_is(buf_slice(&b), SLICE_LIT(PREFACE "\0\0\0\x07\x08\x90\x3f\x1a\x02\x12\x00")));
    buf_done(&b);
}

static void refuses_to_print(void **state)
{
    struct transport_header none = {0}, large = {.port = 1};
    struct buf b;
    char name[256] = {0};

    (void)state;
    buf_init(&b, 30);
    assert_ptr_equal(transport_header_print(&none, &b), ERR_OF(MALFORMED));
    large.name = slice(name, sizeof(name));
    assert_ptr_equal(transport_header_print(&large, &b), ERR_OF(TOO_BIG));
    large.name = slice("abc", 3);
    assert_ptr_equal(transport_header_print(&large, &b), ERR_OF(TOO_BIG));
    assert_int_equal(buf_len(&b), 0);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_the_table),
        cmocka_unit_test(every_truncation_waits),
        cmocka_unit_test(what_follows_is_not_touched),
        cmocka_unit_test(refuses_at_the_first_wrong_byte),
        cmocka_unit_test(refuses_a_large_length_before_reading_it),
        cmocka_unit_test(prints_what_it_reads),
        cmocka_unit_test(prints_the_bytes_linkerd_expects),
        cmocka_unit_test(refuses_to_print),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
