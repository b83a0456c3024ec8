/* The HTTP/1 server codec over a socket pair: the matrix of hardening.md appendix A and what it implies. */
#include "tests/unit/proxy/http/rig.h"

#define HOST "Host: a\r\n"

/* ---- the matrix ---- */

struct shape {
    const char *name;
    const char *text;
    size_t n;         /* 0: strlen */
    unsigned status;  /* 200: accepted */
    const char *code; /* of the refusal */
};

#define LIT(t) t, sizeof(t) - 1

static const struct shape shapes[] = {
    {"plain", LIT("GET /x HTTP/1.1\r\n" HOST "\r\n"), 200, NULL},
    {"CL+TE", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400, "AMBIGUOUS_LENGTH"},
    {"TE+CL", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), 400, "AMBIGUOUS_LENGTH"},
    {"dup CL same", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"dup CL differ", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"CL list", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5, 5\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"CL +5", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: +5\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"CL -5", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: -5\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"CL 0x5", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 0x5\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"CL 005", LIT("POST /5 HTTP/1.1\r\n" HOST "Content-Length: 005\r\n\r\nhello"), 200, NULL},
    {"CL 5_0", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5_0\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"CL 5e0", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5e0\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"CL 5.0", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5.0\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"CL 5 0", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5 0\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"CL empty", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: \r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"CL 2^64+5", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551621\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"CL 2^63", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 9223372036854775808\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"CL 20 digits", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 00000000000000000005\r\n\r\nhello"), 400, "AMBIGUOUS_LENGTH"},
    {"TE dup", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"TE xchunked", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"TE identity", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"TE chunked,identity", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"TE gzip,chunked", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 501, "UNSUPPORTED_CODING"},
    {"TE ,chunked", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"TE \"chunked\"", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"TE empty", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"TE vtab", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \x0b""chunked\r\n\r\n0\r\n\r\n"), 400, NULL},
    {"TE ff", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n"), 400, NULL},
    {"TE 0x85", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \x85""chunked\r\n\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"TE 0xa0", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\xa0\r\n\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"TE SP before colon", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"TE tab before colon", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"TE on 1.0", LIT("POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400, "AMBIGUOUS_LENGTH"},
    {"TE obs-fold", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"obs-fold tab", LIT("GET / HTTP/1.1\r\n" HOST "X: a\r\n\tb\r\n\r\n"), 400, "BAD_REQUEST"},
    {"Host obs-fold", LIT("GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n"), 400, "BAD_REQUEST"},
    {"name with NUL", LIT("GET / HTTP/1.1\r\n" HOST "X\0Y: a\r\n\r\n"), 400, "BAD_REQUEST"},
    {"value with NUL", LIT("GET / HTTP/1.1\r\n" HOST "X: a\0b\r\n\r\n"), 400, "BAD_REQUEST"},
    {"bare CR in value", LIT("GET / HTTP/1.1\r\n" HOST "X: a\rb\r\n\r\n"), 400, "BAD_REQUEST"},
    {"CR CR LF", LIT("GET / HTTP/1.1\r\n" HOST "X: a\r\r\n\r\n"), 400, "BAD_REQUEST"},
    {"DEL in value", LIT("GET / HTTP/1.1\r\n" HOST "X: a\x7f\r\n\r\n"), 400, "BAD_REQUEST"},
    {"CTL in value", LIT("GET / HTTP/1.1\r\n" HOST "X: a\x01\r\n\r\n"), 400, "BAD_REQUEST"},
    {"bare LF lines", LIT("GET / HTTP/1.1\nHost: a\n\n"), 400, "BAD_REQUEST"},
    {"bare LF one line", LIT("GET / HTTP/1.1\r\n" HOST "X: a\nY: b\r\n\r\n"), 400, "BAD_REQUEST"},
    {"bare LF at the end", LIT("GET / HTTP/1.1\r\n" HOST "\n"), 400, "BAD_REQUEST"},
    {"no colon", LIT("GET / HTTP/1.1\r\n" HOST "Xyz\r\n\r\n"), 400, "BAD_REQUEST"},
    {"empty name", LIT("GET / HTTP/1.1\r\n" HOST ": a\r\n\r\n"), 400, "BAD_REQUEST"},
    {"leading SP field", LIT("GET / HTTP/1.1\r\n X: a\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"leading TAB field", LIT("GET / HTTP/1.1\r\n\tX: a\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"name with space", LIT("GET / HTTP/1.1\r\n" HOST "X Y: a\r\n\r\n"), 400, "BAD_REQUEST"},
    {"high byte in name", LIT("GET / HTTP/1.1\r\n" HOST "X\x80: a\r\n\r\n"), 400, "BAD_REQUEST"},
    {"TE with 0x85 in name", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding\x85: chunked\r\n\r\n"), 400, "BAD_REQUEST"},
    {"name with parens", LIT("GET / HTTP/1.1\r\n" HOST "X(a): a\r\n\r\n"), 400, "BAD_REQUEST"},
    {"underscore TE", LIT("POST / HTTP/1.1\r\n" HOST "Transfer_Encoding: chunked\r\n\r\n"), 400, "BAD_REQUEST"},
    {"underscore CL", LIT("POST / HTTP/1.1\r\n" HOST "content_LENGTH: 5\r\n\r\n"), 400, "BAD_REQUEST"},
    {"other underscore", LIT("GET / HTTP/1.1\r\n" HOST "X_Y: a\r\n\r\n"), 200, NULL},
    {"no Host 1.1", LIT("GET / HTTP/1.1\r\nX: a\r\n\r\n"), 400, "BAD_HOST"},
    {"no fields 1.1", LIT("GET / HTTP/1.1\r\n\r\n"), 400, "BAD_HOST"},
    {"no Host 1.0", LIT("GET / HTTP/1.0\r\n\r\n"), 200, NULL},
    {"two Host", LIT("GET / HTTP/1.1\r\n" HOST HOST "\r\n"), 400, "BAD_HOST"},
    {"empty Host", LIT("GET / HTTP/1.1\r\nHost:\r\n\r\n"), 200, NULL},
    {"empty Host, absolute", LIT("GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n"), 400, "BAD_HOST"},
    {"Host vs absolute", LIT("GET http://b/ HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_HOST"},
    {"Host = absolute", LIT("GET http://A:80/ HTTP/1.1\r\n" HOST "\r\n"), 200, NULL},
    {"Host @", LIT("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"), 400, "BAD_HOST"},
    {"Host slash", LIT("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400, "BAD_HOST"},
    {"Host space", LIT("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400, "BAD_HOST"},
    {"HTTP/1.2", LIT("GET / HTTP/1.2\r\n" HOST "\r\n"), 505, "BAD_VERSION"},
    {"HTTP/2.0", LIT("GET / HTTP/2.0\r\n" HOST "\r\n"), 505, "BAD_VERSION"},
    {"PRI", LIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505, "BAD_VERSION"},
    {"HTTP/0.9", LIT("GET /\r\n"), 0, NULL}, /* the end of the line is not the end of the head */
    {"HTTP/0.9 and a line", LIT("GET /\r\n\r\n"), 400, "BAD_REQUEST"},
    {"http/1.1", LIT("GET / http/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"HTTP/1.1x", LIT("GET / HTTP/1.1x\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"HTTP/11", LIT("GET / HTTP/11\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"method bad char", LIT("G(T / HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"method missing", LIT(" / HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"method unknown", LIT("BREW /pot HTTP/1.1\r\n" HOST "\r\n"), 200, NULL},
    {"method lower case", LIT("get / HTTP/1.1\r\n" HOST "\r\n"), 200, NULL},
    {"method long", LIT("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n" HOST "\r\n"), 501, "METHOD_TOO_LONG"},
    {"SP in target", LIT("GET /a b HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"two SP", LIT("GET  / HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"TAB in line", LIT("GET\t/ HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"trailing SP", LIT("GET / HTTP/1.1 \r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"NUL in target", LIT("GET /a\0b HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"CTL in target", LIT("GET /a\x01 HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"high byte in target", LIT("GET /\xc3\xa9 HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"fragment", LIT("GET /a#b HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"authority form", LIT("GET a:80 HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"relative", LIT("GET index.html HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"ftp", LIT("GET ftp://a/ HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"userinfo", LIT("GET http://u@a/ HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"no authority", LIT("GET http:///x HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"OPTIONS *", LIT("OPTIONS * HTTP/1.1\r\n" HOST "\r\n"), 200, NULL},
    {"GET *", LIT("GET * HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"OPTIONS */x", LIT("OPTIONS */x HTTP/1.1\r\n" HOST "\r\n"), 400, "BAD_REQUEST"},
    {"GET with body", LIT("GET /g HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello"), 200, NULL},
    {"chunked", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"chunk leading zeros", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0000000000000005\r\nhello\r\n000\r\n\r\n"), 200, NULL},
    {"chunk 17 digits", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n00000000000000005\r\nhello\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk 0x5", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk size SP", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk SP size", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk 5_0", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5_0\r\nhello\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk overflow", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhello\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk bare LF size", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk bare LF data", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk wrong CRLF", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk empty size", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk neg", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk ext", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d;\\\"e\";f\r\nhello\r\n0\r\n\r\n"), 200, NULL},
    {"chunk ext LF", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5;a\nX\r\nhello\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk ext CR", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5;a\rX\r\nhello\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"chunk ext quotes", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5;a=\"b\r\nhello\r\n0\r\n\r\n"), 400, "BAD_REQUEST"},
    {"trailer CL", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 7\r\n\r\n"), 200, NULL},
    {"trailer bad", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\nX Y: 7\r\n\r\n"), 400, "BAD_REQUEST"},
    {"trailer bare LF", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\nX: 7\n\r\n"), 400, "BAD_REQUEST"},
    {"last chunk bare LF", LIT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\n"), 400, "BAD_REQUEST"},
    {"Connection: Host", LIT("GET / HTTP/1.1\r\n" HOST "Connection: Host, X-Id\r\nX-Id: 1\r\n\r\n"), 200, NULL},
    {"Upgrade h2c", LIT("GET / HTTP/1.1\r\n" HOST "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n"), 200, NULL},
    {"Expect garbage", LIT("POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nExpect: x 100-continue\r\n\r\n"), 417, "BAD_EXPECTATION"},
    {"CONNECT CL", LIT("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\nhello"), 400, "BAD_REQUEST"},
    {"CONNECT TE", LIT("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked\r\n\r\n"), 400, "BAD_REQUEST"},
    {"CONNECT no port", LIT("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "BAD_REQUEST"},
    {"CONNECT path", LIT("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "BAD_REQUEST"},
    {"CONNECT 1.0", LIT("CONNECT a:80 HTTP/1.0\r\nHost: a:80\r\n\r\n"), 400, "BAD_REQUEST"},
    {"CONNECT other Host", LIT("CONNECT a:80 HTTP/1.1\r\nHost: b:80\r\n\r\n"), 400, "BAD_HOST"},
    {"blank line first", LIT("\r\nGET / HTTP/1.1\r\n" HOST "\r\n"), 200, NULL},
    {"two blank lines", LIT("\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n"), 400, NULL},
    {"TLS hello", LIT("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n"), 400, "BAD_REQUEST"},
};

static void check_shape(const struct shape *sh, bool byte_by_byte)
{
    struct rig r;
    const char *got;
    char want[32];
    bool is_body_fault;

    rig_server(&r, http1_server_start, rig_limits());
    r.on_done = rig_ok;
    for (size_t i = 0; byte_by_byte && i < sh->n && !r.peer_sees_end; i++)
        rig_send(&r, sh->text + i, 1);
    if (!byte_by_byte)
        rig_send(&r, sh->text, sh->n);
    got = rig_take(&r);
    if (sh->status == 0) {
        assert_string_equal(got, "");
        rig_done(&r);
        return;
    }
    (void)snprintf(want, sizeof(want), "HTTP/1.%d %u ", strstr(sh->name, "Host 1.0") != NULL ? 0 : 1,
                   sh->status);
    if (strncmp(got, want, strlen(want)) != 0)
        fail_msg("%s: wanted %s got %s", sh->name, want, got);
    if (sh->status != 200) {
        /* One answer, then the end; nothing reached the exchange as a complete request. */
        assert_null(strstr(got + 1, "\nHTTP/1.1 "));
        assert_non_null(strstr(got, "\r\ncontent-length: 0\r\n"));
        assert_non_null(strstr(got, "\r\nconnection: close\r\n"));
        assert_non_null(strstr(got, "\r\nproxy-status: weft; error="));
        if (!r.peer_sees_end)
            fail_msg("%s: not closed", sh->name);
        is_body_fault = r.begun > 0;
        assert_int_equal(r.failed, is_body_fault ? 1 : 0);
        assert_int_equal(r.refused, is_body_fault ? 0 : 1);
        if (sh->code != NULL)
            assert_string_equal(is_body_fault ? r.failure.code : r.refused_code, sh->code);
    } else {
        assert_int_equal(r.begun, 1);
        assert_int_equal(r.failed + r.refused, 0);
    }
    rig_done(&r);
}

static void the_matrix(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        check_shape(&shapes[i], false);
}

static void the_matrix_byte_by_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        check_shape(&shapes[i], true);
}

/* ---- limits ---- */

static void heads_over_the_limits(void **state)
{
    struct rig r;
    struct buf b;
    const char *got;

    (void)state;
    buf_init(&b, 0);
    /* 100 fields pass, 101 do not */
    for (int extra = 99; extra <= 100; extra++) {
        rig_server(&r, http1_server_start, rig_limits());
        r.on_done = rig_ok;
        assert_true(buf_printf(&b, "GET / HTTP/1.1\r\n" HOST) == OK);
        for (int i = 0; i < extra; i++)
            assert_true(buf_printf(&b, "x: %d\r\n", i) == OK);
        assert_true(buf_printf(&b, "\r\n") == OK);
        rig_send(&r, buf_slice(&b).p, buf_len(&b));
        got = rig_take(&r);
        assert_memory_equal(got + 9, extra == 99 ? "200" : "431", 3);
        if (extra == 100)
            assert_non_null(strstr(got, "HEAD_TOO_BIG: the head is over the limit of fields (WEFT_FIELDS_MAX): x\""));
        buf_consume(&b, buf_len(&b));
        rig_done(&r);
    }
    buf_done(&b);
}

/* `text` with a run of `n` zeros for its '%'. */
static const struct {
    const char *name, *text;
    int n;
    const char *start, *code, *says;
} big_heads[] = {
    {"request line at the limit", "GET /% HTTP/1.1\r\n" HOST "\r\n", 8192 - 14, "HTTP/1.1 200", NULL, NULL},
    {"request line over it", "GET /% HTTP/1.1\r\n" HOST "\r\n", 8192 - 13, "HTTP/1.1 414", "URI_TOO_LONG", "WEFT_LINE_MAX"},
    {"request line without an end", "GET /%", 9000, "HTTP/1.1 414", "URI_TOO_LONG", "WEFT_LINE_MAX"},
    {"field near the limit", "GET / HTTP/1.1\r\n" HOST "Cookie: %\r\n\r\n", 15900, "HTTP/1.1 200", NULL, NULL},
    {"field over it", "GET / HTTP/1.1\r\n" HOST "Cookie: %\r\nA: b\r\n\r\n", 16384, "HTTP/1.1 431", "HEAD_TOO_BIG",
     "WEFT_FIELD_MAX: Cookie\""},
    {"field without an end", "GET / HTTP/1.1\r\n" HOST "X-Long: %", 17000, "HTTP/1.1 431", "HEAD_TOO_BIG",
     "WEFT_FIELD_MAX: X-Long\""},
    {"name without an end", "GET / HTTP/1.1\r\n" HOST "X%", 17000, "HTTP/1.1 431", "HEAD_TOO_BIG", "WEFT_FIELD_MAX\""},
    {"a name that is none is not repeated", "GET / HTTP/1.1\r\n" HOST "X\"y: %", 17000, "HTTP/1.1 431", "HEAD_TOO_BIG",
     "WEFT_FIELD_MAX\""},
    {"all fields together", "GET / HTTP/1.1\r\n" HOST "A: b\r\nX-B: %\r\nX-Last: ccccccccccccccccccccccccccccccc\r\n\r\n", 20450,
     "HTTP/1.1 431", "HEAD_TOO_BIG", "WEFT_HEAD_MAX): X-Last\""},
};

static void limits_are_named_with_the_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(big_heads) / sizeof(big_heads[0]); i++) {
        struct http_limits limits = rig_limits();
        const char *text = big_heads[i].text, *mark = strchr(text, '%'), *got;
        struct rig r;
        struct buf b;

        limits.head_max = big_heads[i].n > 20000 ? 20500 : 65536;
        limits.field_max = big_heads[i].n > 20000 ? 30000 : 0;
        buf_init(&b, 0);
        assert_true(buf_printf(&b, "%.*s%0*d%s", (int)(mark - text), text, big_heads[i].n, 0, mark + 1) == OK);
        rig_server(&r, http1_server_start, limits);
        r.on_done = rig_ok;
        rig_send(&r, buf_slice(&b).p, buf_len(&b));
        got = rig_take(&r);
        if (strncmp(got, big_heads[i].start, 12) != 0)
            fail_msg("%s: %s", big_heads[i].name, got);
        if (big_heads[i].code != NULL) {
            assert_string_equal(r.refused_code, big_heads[i].code);
            if (strstr(got, big_heads[i].says) == NULL)
                fail_msg("%s: %s", big_heads[i].name, got);
        }
        buf_done(&b);
        rig_done(&r);
    }
}

static void a_slow_head_is_answered_408(void **state)
{
    struct http_limits limits = rig_limits();
    struct rig r;
    struct timeval nap = {0, 30000};

    (void)state;
    limits.header_timeout_ms = 20;
    rig_server(&r, http1_server_start, limits);
    rig_say(&r, "GET / HT");
    assert_int_equal(event_base_loopexit(r.base, &nap), 0);
    assert_int_equal(event_base_dispatch(r.base), 0);
    rig_run(&r);
    assert_memory_equal(rig_take(&r), "HTTP/1.1 408 ", 13);
    assert_true(r.is_closed);
    assert_int_equal(r.close_reason, CLOSE_HEAD_TIMEOUT);
    rig_done(&r);
}

static void chunk_extensions_are_bounded(void **state)
{
    struct rig r;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    assert_true(buf_printf(&b, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n") == OK);
    for (int i = 0; i < 40; i++)
        assert_true(buf_printf(&b, "1;a=%0900d\r\nx\r\n", 0) == OK);
    rig_server(&r, http1_server_start, rig_limits());
    rig_send(&r, buf_slice(&b).p, buf_len(&b));
    assert_memory_equal(rig_take(&r) + 9, "400", 3);
    assert_string_equal(r.failure.code, "BAD_REQUEST");
    buf_done(&b);
    rig_done(&r);
}

/* ---- what requests look like ---- */

static void heads_are_understood(void **state)
{
    struct rig r;
    struct head *h;

    (void)state;
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "POST http://web:8080?q=1 HTTP/1.1\r\nhOst: web:8080\r\nX-Mixed:  a b \t\r\n"
                "Content-Length: 0007\r\nExpect: 100-Continue\r\nTE: trailers\r\n"
                "Connection: TE, X-Gone\r\nX-Gone: 1\r\nContent-Type: application/grpc+proto\r\n"
                "Idempotency-Key: k\r\nX-Empty:\r\n\r\n");
    assert_string_equal(rig_log(&r), "head POST /?q=1\n");
    h = r.head;
    assert_int_equal(h->version, HTTP_1_1);
    assert_true(slice_is_str(h->authority, "web:8080"));
    assert_true(slice_is_str(h->scheme, "http"));
    assert_true(h->is_absolute_form && h->expects_continue && h->accepts_trailers && h->is_grpc &&
                h->is_idempotent && h->is_keep_alive);
    assert_int_equal(h->content_length, 7);
    assert_true(slice_is_str(head_find_name(h, SLICE_LIT("x-mixed"))->value, "a b"));
    assert_true(slice_is_str(head_find_name(h, SLICE_LIT("x-mixed"))->name, "X-Mixed"));
    assert_true(slice_is_str(head_find_name(h, SLICE_LIT("x-empty"))->value, ""));
    assert_null(head_find_name(h, SLICE_LIT("x-gone")));
    assert_null(head_find(h, FIELD_CONNECTION));
    rig_done(&r);
}

/* ---- answers ---- */

static void keep_alive_and_pipelining(void **state)
{
    struct rig r;
    struct buf b, want;

    (void)state;
    buf_init(&b, 0);
    buf_init(&want, 0);
    for (int i = 0; i < 64; i++) {
        assert_true(buf_printf(&b, "POST /%d HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nab", i) == OK);
        assert_true(buf_printf(&want, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n/%d", i < 10 ? 2 : 3,
                               i) == OK);
    }
    rig_server(&r, http1_server_start, rig_limits());
    r.on_done = rig_echo;
    rig_send(&r, buf_slice(&b).p, buf_len(&b));
    assert_int_equal(r.begun, 64);
    assert_int_equal(buf_len(&r.in), buf_len(&want));
    assert_memory_equal(buf_slice(&r.in).p, buf_slice(&want).p, buf_len(&want));
    assert_false(r.peer_sees_end);
    buf_done(&b);
    buf_done(&want);
    rig_done(&r);
}

static void the_next_request_waits_for_release(void **state)
{
    struct rig r;

    (void)state;
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "GET /1 HTTP/1.1\r\n" HOST "\r\nGET /2 HTTP/1.1\r\n" HOST "\r\n");
    rig_say(&r, "GET /3 HTTP/1.1\r\n" HOST "\r\n");
    assert_string_equal(rig_log(&r), "head GET /1 end\n");
    rig_answer(&r, 200, "one", 3);
    rig_run(&r);
    assert_string_equal(rig_log(&r), "");
    r.on_done = rig_ok;
    rig_release(&r);
    rig_run(&r);
    assert_string_equal(rig_log(&r), "head GET /2 end\nhead GET /3 end\n");
    rig_done(&r);
}

static void chunked_both_ways_with_trailers(void **state)
{
    struct field trailers[] = {{.name = SLICE_LIT("X-Sum"), .value = SLICE_LIT("7")},
                               {.name = SLICE_LIT("Content-Length"),
                                .value = SLICE_LIT("7"),
                                .token = FIELD_CONTENT_LENGTH},
                               {.name = SLICE_LIT("X-Evil"), .value = SLICE_LIT("a\r\nb: c")}};
    struct rig r;
    struct head h;

    (void)state;
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n"
                "0\r\nX-A: 1\r\nHost: evil\r\nTransfer-Encoding: chunked\r\nAuthorization: x\r\n\r\n");
    assert_string_equal(rig_log(&r), "head POST /\ntrailer X-A=1\nend\n");
    assert_memory_equal(buf_slice(&r.body).p, "abcdefg", 7);
    head_init(&h);
    h.status = 200;
    r.s->ops->send_head(r.s, &h, false);
    r.s->ops->send_body(r.s, SLICE_LIT("0123456789abcdef!"), false);
    r.s->ops->send_trailers(r.s, trailers, 3);
    rig_run(&r);
    rig_release(&r);
    assert_string_equal(rig_take(&r), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
                                      "11\r\n0123456789abcdef!\r\n0\r\nX-Sum: 7\r\n\r\n");
    assert_int_equal(r.sent, 17);
    assert_false(r.peer_sees_end);
    rig_done(&r);
}

struct answer_case {
    const char *request;
    uint16_t status;
    const char *body;
    int64_t length;
    const char *want;
    bool closes;
};

static void framing_of_answers(void **state)
{
    static const struct answer_case cases[] = {
        {"HEAD / HTTP/1.1\r\n" HOST "\r\n", 200, NULL, 42, "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\n", false},
        {"HEAD / HTTP/1.1\r\n" HOST "\r\n", 200, "never", -1, "HTTP/1.1 200 OK\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" HOST "\r\n", 204, NULL, 5, "HTTP/1.1 204 No Content\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" HOST "\r\n", 304, NULL, 5, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" HOST "\r\n", 200, NULL, -1, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" HOST "\r\n", 200, "hi", -1, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", 200, "hi", 2, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi", true},
        {"GET / HTTP/1.0\r\n\r\n", 200, "hi", -1, "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nhi", true},
        {"GET / HTTP/1.0\r\n\r\n", 200, "hi", 2, "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi", true},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 200, "hi", 2, "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nConnection: keep-alive\r\n\r\nhi", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 200, "hi", -1, "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nhi", true},
        {"GET / HTTP/1.1\r\n" HOST "\r\n", 299, "hi", 2, "HTTP/1.1 299 \r\ncontent-length: 2\r\n\r\nhi", false},
        {"GET / HTTP/1.1\r\n" HOST "\r\n", 200, "hi", 5, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi", true},
        {"GET / HTTP/1.1\r\n" HOST "\r\n", 200, "hello", 2, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhe", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct answer_case *c = &cases[i];
        struct rig r;
        const char *got;

        rig_server(&r, http1_server_start, rig_limits());
        rig_say(&r, c->request);
        rig_answer(&r, c->status, c->body, c->length);
        rig_release(&r);
        rig_run(&r);
        got = rig_take(&r);
        /* the request's spelling of Connection is not the answer's */
        if (strcasecmp(got, c->want) != 0)
            fail_msg("case %zu:\n%s\nwanted\n%s", i, got, c->want);
        assert_int_equal(r.peer_sees_end, c->closes);
        rig_done(&r);
    }
}

static void expect_continue(void **state)
{
    struct rig r;
    struct head h;

    (void)state;
    /* 100 is passed on, then the body */
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "POST / HTTP/1.1\r\n" HOST "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    head_init(&h);
    h.status = 100;
    r.s->ops->send_head(r.s, &h, false);
    rig_run(&r);
    assert_string_equal(rig_take(&r), "HTTP/1.1 100 Continue\r\n\r\n");
    rig_say(&r, "ab");
    rig_ok(&r);
    rig_run(&r);
    assert_string_equal(rig_take(&r), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_false(r.peer_sees_end);
    rig_done(&r);
    /* a final answer without 100: nobody knows whether the body comes */
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "POST / HTTP/1.1\r\n" HOST "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    rig_answer(&r, 403, NULL, 0);
    rig_release(&r);
    rig_run(&r);
    assert_non_null(strstr(rig_take(&r), "connection: close\r\n"));
    assert_true(r.peer_sees_end);
    rig_done(&r);
}

static void an_early_answer_drains_a_little(void **state)
{
    struct rig r;

    (void)state;
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "POST /1 HTTP/1.1\r\n" HOST "Content-Length: 6\r\n\r\nab");
    rig_ok(&r);
    r.on_done = rig_ok;
    rig_say(&r, "cdefGET /2 HTTP/1.1\r\n" HOST "\r\n");
    assert_string_equal(rig_log(&r), "head POST /1\nhead GET /2 end\n");
    rig_done(&r);
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "POST /1 HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\nab");
    rig_ok(&r);
    rig_run(&r);
    assert_non_null(strstr(rig_take(&r), "connection: close\r\n"));
    assert_true(r.peer_sees_end);
    rig_done(&r);
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "POST /1 HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    rig_ok(&r);
    rig_run(&r);
    assert_false(r.peer_sees_end);
    for (int i = 0; i < 9; i++) {
        char chunk[8192 + 8];

        memset(chunk, 'x', sizeof(chunk));
        memcpy(chunk, "2000\r\n", 6);
        memcpy(chunk + 6 + 8192, "\r\n", 2);
        rig_send(&r, chunk, sizeof(chunk));
    }
    assert_true(r.peer_sees_end);
    rig_done(&r);
}

static void an_answer_may_end_the_connection(void **state)
{
    struct rig r;
    struct head h;

    (void)state;
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "GET / HTTP/1.1\r\n" HOST "\r\n");
    head_init(&h);
    h.status = 502;
    h.is_keep_alive = false;
    r.s->ops->send_head(r.s, &h, true);
    rig_release(&r);
    rig_run(&r);
    assert_non_null(strstr(rig_take(&r), "connection: close\r\n"));
    assert_true(r.peer_sees_end);
    rig_done(&r);
}

static void tunnels(void **state)
{
    struct rig r;
    struct head h;

    (void)state;
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "GET /ws HTTP/1.1\r\n" HOST "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly");
    assert_string_equal(rig_log(&r), "head GET /ws end\n");
    assert_true(slice_is_str(r.head->upgrade, "websocket"));
    assert_int_equal(buf_len(&r.body), 0); /* not before there is a tunnel */
    head_init(&h);
    h.status = 101;
    h.upgrade = SLICE_LIT("websocket");
    r.s->ops->send_head(r.s, &h, false);
    r.s->ops->send_body(r.s, SLICE_LIT("GET / raw"), false);
    rig_run(&r);
    assert_string_equal(rig_take(&r), "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
                                      "connection: Upgrade\r\n\r\nGET / raw");
    rig_say(&r, "\r\nmore");
    assert_memory_equal(buf_slice(&r.body).p, "early\r\nmore", 11);
    assert_int_equal(shutdown(r.fd, SHUT_WR), 0);
    rig_run(&r);
    assert_string_equal(rig_log(&r), "end\n");
    r.s->ops->send_body(r.s, SLICE_LIT("late"), true);
    rig_run(&r);
    assert_string_equal(rig_take(&r), "late");
    assert_true(r.peer_sees_end);
    rig_release(&r);
    rig_done(&r);

    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\nhello");
    assert_string_equal(rig_log(&r), "head CONNECT db:5432\n");
    assert_int_equal(buf_len(&r.body), 0);
    h.status = 200;
    h.content_length = 7;
    h.upgrade = slice(NULL, 0);
    r.s->ops->send_head(r.s, &h, false);
    rig_run(&r);
    assert_string_equal(rig_take(&r), "HTTP/1.1 200 OK\r\n\r\n");
    assert_memory_equal(buf_slice(&r.body).p, "hello", 5);
    rig_release(&r);
    rig_run(&r);
    assert_true(r.peer_sees_end);
    rig_done(&r);

    /* refused: no tunnel, and what was sent behind it is the next request */
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n");
    rig_answer(&r, 403, NULL, 0);
    rig_release(&r);
    rig_run(&r);
    assert_string_equal(rig_log(&r), "head CONNECT db:5432\nhead GET / end\n");
    rig_done(&r);

    /* h2c is not passed on */
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "GET / HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n");
    assert_int_equal(r.head->upgrade.n, 0);
    assert_null(head_find(r.head, FIELD_UPGRADE));
    rig_done(&r);
}

/* ---- ends ---- */

static void a_half_closed_client_gets_its_answer(void **state)
{
    struct rig r;

    (void)state;
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "GET / HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(shutdown(r.fd, SHUT_WR), 0);
    rig_run(&r);
    assert_true(r.is_live);
    rig_ok(&r);
    rig_run(&r);
    assert_non_null(strstr(rig_take(&r), "HTTP/1.1 200 OK\r\n"));
    assert_true(r.peer_sees_end);
    rig_done(&r);
}

static void a_client_that_leaves_cancels(void **state)
{
    struct rig r;

    (void)state;
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "POST / HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nabc");
    (void)close(r.fd);
    r.fd = -1;
    r.peer_sees_end = true;
    rig_run(&r);
    assert_string_equal(rig_log(&r), "head POST /\nfailed 0\n");
    assert_true(r.is_closed);
    assert_int_equal(r.failure.error, STREAM_CANCELLED);
    rig_done(&r);
}

static void a_reset_answer_is_visibly_cut(void **state)
{
    struct rig r;
    struct head h;

    (void)state;
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "GET / HTTP/1.1\r\n" HOST "\r\n");
    head_init(&h);
    h.status = 200;
    r.s->ops->send_head(r.s, &h, false);
    r.s->ops->send_body(r.s, SLICE_LIT("abc"), false);
    rig_run(&r);
    r.is_live = false;
    r.s->ops->reset(r.s, STREAM_LOST);
    rig_run(&r);
    assert_string_equal(rig_take(&r),
                        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    assert_true(r.peer_sees_end);
    assert_int_equal(r.failed, 0);
    rig_done(&r);
}

/* Cut in the turn in which it began: what came of it is not lost, whatever the framing. */
static void an_answer_cut_at_once_keeps_what_came(void **state)
{
    static const struct {
        const char *request;
        int64_t length;
        const char *answer;
    } cases[] = {
        {"GET / HTTP/1.1\r\n" HOST "\r\n", -1,
         "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"},
        {"GET / HTTP/1.1\r\n" HOST "\r\n", 9,
         "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"},
        {"GET / HTTP/1.0\r\n" HOST "\r\n", -1, "\r\n\r\nabc"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig r;
        struct head h;
        const char *got;

        rig_server(&r, http1_server_start, rig_limits());
        rig_say(&r, cases[i].request);
        head_init(&h);
        h.status = 200;
        h.content_length = cases[i].length;
        r.s->ops->send_head(r.s, &h, false);
        r.s->ops->send_body(r.s, SLICE_LIT("abc"), false);
        r.is_live = false;
        r.s->ops->reset(r.s, STREAM_LOST);
        rig_run(&r);
        got = rig_take(&r);
        assert_non_null(strstr(got, cases[i].answer));
        assert_string_equal(strstr(got, "\r\n\r\n"), strstr(cases[i].answer, "\r\n\r\n"));
        assert_true(r.peer_sees_end);
        rig_done(&r);
    }
}

static void cut_in_the_head_event(struct rig *r)
{
    struct head h;

    head_init(&h);
    h.status = 200;
    r->s->ops->send_head(r->s, &h, false);
    r->is_live = false;
    r->s->ops->reset(r->s, STREAM_LOST);
}

/* What the client has sent behind its request comes to nobody: the exchange is gone. */
static void an_answer_cut_inside_an_event_reads_no_further(void **state)
{
    static const char *const requests[] = {
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nraw bytes",
        "POST / HTTP/1.0\r\n" HOST "Content-Length: 9\r\n\r\nsome more",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct rig r;

        rig_server(&r, http1_server_start, rig_limits());
        r.on_request = cut_in_the_head_event;
        rig_say(&r, requests[i]);
        rig_run(&r);
        assert_int_equal(buf_len(&r.body), 0);
        assert_true(r.peer_sees_end);
        rig_done(&r);
    }
}

static void draining(void **state)
{
    struct rig r;

    (void)state;
    rig_server(&r, http1_server_start, rig_limits());
    http1_server_drain(r.c); /* idle: now */
    rig_run(&r);
    assert_true(r.peer_sees_end && r.is_closed);
    assert_int_equal(r.close_reason, CLOSE_DRAINING);
    rig_done(&r);
    rig_server(&r, http1_server_start, rig_limits());
    rig_say(&r, "GET / HTTP/1.1\r\n" HOST "\r\n");
    http1_server_drain(r.c);
    rig_run(&r);
    assert_true(r.is_live);
    rig_ok(&r);
    rig_run(&r);
    assert_non_null(strstr(rig_take(&r), "connection: close\r\n"));
    assert_true(r.peer_sees_end);
    rig_done(&r);
}

static void without_credit_reading_stops(void **state)
{
    static char bytes[65536];
    struct rig r;
    size_t put = 0;

    (void)state;
    rig_server(&r, http1_server_start, rig_limits());
    r.credits = false;
    rig_say(&r, "POST / HTTP/1.1\r\n" HOST "Content-Length: 8000000\r\n\r\n");
    for (int i = 0; i < 2000; i++) {
        ssize_t n = send(r.fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);

        put += n > 0 ? (size_t)n : 0;
        assert_true(event_base_loop(r.base, EVLOOP_NONBLOCK) >= 0);
    }
    assert_true(buf_len(&r.body) <= STREAM_WINDOW);
    assert_true(buf_len(&r.body) > STREAM_WINDOW / 2);
    assert_true(put < 2000000);
    r.credits = true;
    r.s->ops->credit(r.s, buf_len(&r.body));
    while (put < 8000000) {
        size_t n = 8000000 - put < sizeof(bytes) ? 8000000 - put : sizeof(bytes);

        rig_send(&r, bytes, n);
        put += n;
        buf_consume(&r.body, buf_len(&r.body) > 0 ? buf_len(&r.body) - 1 : 0);
    }
    assert_true(r.is_ended);
    rig_done(&r);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_matrix),
        cmocka_unit_test(the_matrix_byte_by_byte),
        cmocka_unit_test(heads_over_the_limits),
        cmocka_unit_test(limits_are_named_with_the_field),
        cmocka_unit_test(a_slow_head_is_answered_408),
        cmocka_unit_test(chunk_extensions_are_bounded),
        cmocka_unit_test(heads_are_understood),
        cmocka_unit_test(keep_alive_and_pipelining),
        cmocka_unit_test(the_next_request_waits_for_release),
        cmocka_unit_test(chunked_both_ways_with_trailers),
        cmocka_unit_test(framing_of_answers),
        cmocka_unit_test(expect_continue),
        cmocka_unit_test(an_early_answer_drains_a_little),
        cmocka_unit_test(an_answer_may_end_the_connection),
        cmocka_unit_test(tunnels),
        cmocka_unit_test(a_half_closed_client_gets_its_answer),
        cmocka_unit_test(a_client_that_leaves_cancels),
        cmocka_unit_test(a_reset_answer_is_visibly_cut),
        cmocka_unit_test(an_answer_cut_at_once_keeps_what_came),
        cmocka_unit_test(an_answer_cut_inside_an_event_reads_no_further),
        cmocka_unit_test(draining),
        cmocka_unit_test(without_credit_reading_stops),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
