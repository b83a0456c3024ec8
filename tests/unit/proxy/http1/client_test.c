/* The HTTP/1 client codec over a socket pair; the test is the server. */
#include "kit/clock.h"
#include "tests/unit/proxy/http/rig.h"

static void start(struct rig *r)
{
    rig_client(r, http1_client_start, rig_limits());
}

static void open_stream(struct rig *r)
{
    r->s = http_back_open(r->b, &r->arena, &rig_events, r);
    assert_non_null(r->s);
    r->is_live = true;
    r->is_ended = false;
}

static void ask(struct rig *r, const char *method)
{
    struct head h;

    open_stream(r);
    head_init(&h);
    h.method = slice_str(method);
    h.version = HTTP_1_1;
    if (strcmp(method, "CONNECT") == 0)
        h.is_connect = true;
    else
        h.path = SLICE_LIT("/p");
    h.authority = SLICE_LIT("web:80");
    if (strcmp(method, "UPGRADE") == 0) {
        h.method = SLICE_LIT("GET");
        h.upgrade = SLICE_LIT("websocket");
    }
    r->s->ops->send_head(r->s, &h, !h.is_connect);
    rig_run(r);
}

/* ---- requests ---- */

static void requests_are_written_from_the_head(void **state)
{
    struct rig r;
    struct head h;

    (void)state;
    start(&r);
    open_stream(&r);
    head_init(&h);
    h.method = SLICE_LIT("BREW");
    h.path = SLICE_LIT("/a?b");
    h.version = HTTP_1_1;
    h.authority = SLICE_LIT("web:8080");
    h.accepts_trailers = true;
    assert_true(head_add(&h, &r.arena, SLICE_LIT("X-Case"), SLICE_LIT("1")) == OK);
    assert_true(head_add(&h, &r.arena, SLICE_LIT("HOST"), SLICE_LIT("ignored")) == OK);
    assert_true(head_add(&h, &r.arena, SLICE_LIT("Connection"), SLICE_LIT("close")) == OK);
    assert_true(head_add(&h, &r.arena, SLICE_LIT("Content-Length"), SLICE_LIT("99")) == OK);
    assert_true(head_add(&h, &r.arena, SLICE_LIT("x-gone"), SLICE_LIT("1")) == OK);
    head_remove_name(&h, SLICE_LIT("x-gone"));
    r.s->ops->send_head(r.s, &h, false);
    r.s->ops->send_body(r.s, SLICE_LIT("0123456789"), false);
    r.s->ops->send_body(r.s, slice(NULL, 0), true);
    rig_run(&r);
    assert_string_equal(rig_take(&r), "BREW /a?b HTTP/1.1\r\nX-Case: 1\r\nHOST: web:8080\r\n"
                                      "Connection: te\r\ntransfer-encoding: chunked\r\n"
                                      "te: trailers\r\n\r\na\r\n0123456789\r\n0\r\n\r\n");
    assert_int_equal(r.sent, 10);
    rig_done(&r);
}

struct form {
    const char *method, *path, *authority;
    enum http_version version;
    bool is_absolute, is_end;
    int64_t length;
    const char *want;
};

static void forms_of_requests(void **state)
{
    static const struct form forms[] = {
        {"GET", "/", "a", HTTP_1_1, false, true, -1, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"},
        {"GET", "/", "a", HTTP_1_1, true, true, -1, "GET http://a/ HTTP/1.1\r\nhost: a\r\n\r\n"},
        {"OPTIONS", "*", "a", HTTP_1_1, false, true, -1, "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n"},
        {"OPTIONS", "*", "a", HTTP_1_1, true, true, -1, "OPTIONS http://a HTTP/1.1\r\nhost: a\r\n\r\n"},
        {"GET", "/", "", HTTP_1_0, false, true, -1, "GET / HTTP/1.0\r\n\r\n"},
        {"POST", "/", "a", HTTP_1_1, false, true, -1, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"},
        {"DELETE", "/", "a", HTTP_1_1, false, true, 0, "DELETE / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"},
        {"GET", "/", "a", HTTP_1_1, false, false, 5, "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n"},
        {"POST", "/", "a", HTTP_1_0, false, false, -1, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct rig r;
        struct head h;

        start(&r);
        open_stream(&r);
        head_init(&h);
        h.method = slice_str(forms[i].method);
        h.path = slice_str(forms[i].path);
        h.authority = slice_str(forms[i].authority);
        h.version = forms[i].version;
        h.is_absolute_form = forms[i].is_absolute;
        h.content_length = forms[i].length;
        h.is_keep_alive = forms[i].version == HTTP_1_1;
        r.s->ops->send_head(r.s, &h, forms[i].is_end);
        rig_run(&r);
        assert_string_equal(rig_take(&r), forms[i].want);
        rig_done(&r);
    }
}

/* H2-29: whatever a codec let in, a line end never gets out. */
static void unwritable_heads_are_not_written(void **state)
{
    static const char *const bad[][4] = {
        {"GET", "/ HTTP/1.1\r\nX: y", "a", "v"},  {"GET /x", "/", "a", "v"}, {"GET", "/", "a\r\nb: c", "v"},
        {"GET", "/", "u@a", "v"},                 {"GET", "/", "a", "v\r\nx: y"},
        {"GET", "/", "a", "v\n"},                 {"GET", "x", "a", "v"},    {"", "/", "a", "v"},
        {"GET", "/#f", "a", "v"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rig r;
        struct head h;

        start(&r);
        open_stream(&r);
        head_init(&h);
        h.method = slice_str(bad[i][0]);
        h.path = slice_str(bad[i][1]);
        h.authority = slice_str(bad[i][2]);
        h.version = HTTP_1_1;
        assert_true(head_add(&h, &r.arena, SLICE_LIT("x-a"), slice_str(bad[i][3])) == OK);
        r.s->ops->send_head(r.s, &h, true);
        rig_run(&r);
        assert_string_equal(rig_take(&r), "");
        assert_int_equal(r.failed, 1);
        assert_int_equal(r.failure.error, STREAM_INTERNAL);
        assert_false(r.failure.any_sent);
        assert_true(r.is_closed);
        rig_done(&r);
    }
}

/* ---- answers ---- */

struct answer {
    const char *name, *method, *text, *log, *body;
    bool is_reused; /* after release another stream may be opened */
    bool closes_after; /* the server closes behind it */
};

static const struct answer answers[] = {
    {"plain", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "head 200\nend\n", "hi", true, false},
    {"empty", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "head 200 end\n", "", true, false},
    {"no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "head 200 end\n", "", true, false},
    {"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "head 200\nend\n", "hi", true, false},
    {"trailers", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\nContent-Length: 3\r\n\r\n", "head 200\ntrailer X=1\nend\n", "", true, false},
    {"close", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "head 200 end\n", "", false, false},
    {"until close", "GET", "HTTP/1.1 200 OK\r\n\r\nhello", "head 200\nend\n", "hello", false, true},
    {"1.0 until close", "GET", "HTTP/1.0 200 OK\r\n\r\nhello", "head 200\nend\n", "hello", false, true},
    {"1.0 keep-alive", "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", "head 200\nend\n", "x", true, false},
    {"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "head 200 end\n", "", true, false},
    {"HEAD chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "head 200 end\n", "", true, false},
    {"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", "head 304 end\n", "", true, false},
    {"204", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "head 204 end\n", "", true, false},
    {"interim", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "head 100\nhead 103\nhead 200 end\n", "", true, false},
    {"upgrade refused", "UPGRADE", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", "head 200\nend\n", "no", true, false},
    {"CONNECT refused", "CONNECT", "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", "head 403\nend\n", "no", false, false},
    {"426 with Upgrade", "GET", "HTTP/1.1 426 U\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n", "head 426 end\n", "", true, false},
};

static void good_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
        for (int slowly = 0; slowly < 2; slowly++) {
            const struct answer *a = &answers[i];
            struct rig r;
            const char *log;

            start(&r);
            ask(&r, a->method);
            for (size_t k = 0; slowly && a->text[k] != '\0'; k++)
                rig_send(&r, a->text + k, 1);
            if (!slowly)
                rig_say(&r, a->text);
            if (a->closes_after) {
                assert_false(r.is_ended);
                assert_int_equal(shutdown(r.fd, SHUT_WR), 0);
                rig_run(&r);
            }
            log = rig_log(&r);
            if (strcmp(log, a->log) != 0)
                fail_msg("%s: %s", a->name, log);
            assert_int_equal(buf_len(&r.body), strlen(a->body));
            assert_memory_equal(buf_slice(&r.body).p, a->body, strlen(a->body));
            rig_release(&r);
            rig_run(&r);
            if (a->is_reused) {
                assert_int_equal(http_back_free_slots(r.b), 1);
                assert_true(http_back_was_used(r.b));
                ask(&r, "GET");
                rig_say(&r, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
                assert_string_equal(rig_log(&r), "head 201 end\n");
            } else {
                if (!r.is_closed && !r.is_retired)
                    fail_msg("%s: reusable", a->name);
                assert_true(r.peer_sees_end);
            }
            rig_done(&r);
        }
}

static const struct {
    const char *name, *method, *text, *code;
} bad_answers[] = {
    {"two CL", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "BAD_RESPONSE"},
    {"CL+TE", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "BAD_RESPONSE"},
    {"1.0 + TE", "GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "BAD_RESPONSE"},
    {"TE gzip", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", NULL},
    {"204 with length", "GET", "HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nhi", "BAD_RESPONSE"},
    {"204 chunked", "GET", "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", "BAD_RESPONSE"},
    {"101 not asked", "GET", "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "BAD_RESPONSE"},
    {"101 without Upgrade", "UPGRADE", "HTTP/1.1 101 S\r\n\r\n", "BAD_RESPONSE"},
    {"1xx with length", "GET", "HTTP/1.1 100 C\r\nContent-Length: 5\r\n\r\n", "BAD_RESPONSE"},
    {"1.0 interim", "GET", "HTTP/1.0 100 C\r\n\r\n", "BAD_RESPONSE"},
    {"not HTTP", "GET", "SSH-2.0-OpenSSH\r\n\r\n", "BAD_RESPONSE"},
    {"HTTP/2.0", "GET", "HTTP/2.0 200 OK\r\n\r\n", "BAD_RESPONSE"},
    {"status 99", "GET", "HTTP/1.1 099 OK\r\n\r\n", "BAD_RESPONSE"},
    {"status 20", "GET", "HTTP/1.1 20 OK\r\n\r\n", "BAD_RESPONSE"},
    {"status 2000", "GET", "HTTP/1.1 2000 OK\r\n\r\n", "BAD_RESPONSE"},
    {"status +20", "GET", "HTTP/1.1 +20 OK\r\n\r\n", "BAD_RESPONSE"},
    {"bare LF", "GET", "HTTP/1.1 200 OK\n\n", "BAD_RESPONSE"},
    {"fold", "GET", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "BAD_RESPONSE"},
    {"NUL", "GET", "HTTP/1.1 200 OK\r\nX: \x01\r\n\r\n", "BAD_RESPONSE"},
    {"space before colon", "GET", "HTTP/1.1 200 OK\r\nX : a\r\n\r\n", "BAD_RESPONSE"},
    {"chunk size", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "BAD_RESPONSE"},
    {"1xx flood", "GET",
     "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\n"
     "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\n"
     "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\n", "BAD_RESPONSE"},
};

static void bad_answers_fail(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_answers) / sizeof(bad_answers[0]); i++) {
        struct rig r;

        start(&r);
        ask(&r, bad_answers[i].method);
        rig_say(&r, bad_answers[i].text);
        if (r.failed != 1)
            fail_msg("%s: %s", bad_answers[i].name, rig_log(&r));
        assert_int_equal(r.failure.error, STREAM_MALFORMED);
        if (bad_answers[i].code != NULL)
            assert_string_equal(r.failure.code, bad_answers[i].code);
        assert_true(r.failure.any_sent && r.failure.any_received);
        assert_true(r.is_closed);
        assert_int_equal(r.close_reason, CLOSE_BAD_PROTOCOL);
        rig_done(&r);
    }
}

static void ask_again(struct rig *r)
{
    struct head h;

    rig_release(r);
    r->s = http_back_open(r->b, &r->arena, &rig_events, r);
    r->is_live = r->s != NULL;
    if (r->s == NULL) {
        rig_note(r, "no slot");
        return;
    }
    head_init(&h);
    h.method = SLICE_LIT("GET");
    h.path = SLICE_LIT("/again");
    h.version = HTTP_1_1;
    r->s->ops->send_head(r->s, &h, true);
}

/* What comes behind an answer is never the next one's. */
static void stray_bytes_end_the_connection(void **state)
{
    struct rig r;

    (void)state;
    start(&r);
    ask(&r, "GET"); /* together with the answer */
    rig_say(&r, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_string_equal(rig_log(&r), "head 200\nend\n");
    rig_release(&r);
    rig_run(&r);
    assert_true(r.is_closed && r.is_retired);
    assert_int_equal(r.close_reason, CLOSE_BAD_PROTOCOL);
    rig_done(&r);

    /* and the exchange is so quick that it asks again from within the end of the first answer */
    start(&r);
    ask(&r, "GET");
    r.on_done = ask_again;
    rig_say(&r, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    assert_string_equal(rig_log(&r), "head 200\nend\nno slot\n");
    assert_true(r.is_closed);
    rig_done(&r);
    start(&r);
    ask(&r, "GET");
    r.on_done = ask_again;
    rig_say(&r, "HTTP/1.1 200 OK\r\nContent-Le"); /* kept by the conn until the rest comes */
    rig_say(&r, "ngth: 2\r\n\r\nhi");
    r.on_done = NULL;
    rig_say(&r, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    assert_string_equal(rig_log(&r), "head 200\nend\nhead 201 end\n");
    rig_done(&r);

    start(&r);
    ask(&r, "HEAD"); /* a body where there is none */
    rig_say(&r, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    assert_string_equal(rig_log(&r), "head 200 end\n");
    rig_release(&r);
    rig_run(&r);
    assert_true(r.is_closed);
    rig_done(&r);

    start(&r);
    ask(&r, "GET"); /* while idle */
    rig_say(&r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    rig_release(&r);
    rig_say(&r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_true(r.is_closed);
    assert_int_equal(r.close_reason, CLOSE_BAD_PROTOCOL);
    rig_done(&r);

    start(&r); /* before any request */
    rig_say(&r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_true(r.is_closed);
    rig_done(&r);
}

/* ---- ends and races ---- */

static void truncated_answers_are_lost(void **state)
{
    static const char *const texts[] = {
        "",
        "HTTP/1.1 200 OK\r\nConten",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct rig r;

        start(&r);
        ask(&r, "GET");
        rig_say(&r, texts[i]);
        assert_int_equal(shutdown(r.fd, SHUT_WR), 0);
        rig_run(&r);
        assert_int_equal(r.failed, 1);
        assert_int_equal(r.failure.error, STREAM_LOST);
        assert_true(r.failure.any_sent);
        assert_int_equal(r.failure.any_received, i > 0);
        assert_false(r.failure.was_idle_conn);
        assert_true(r.is_closed);
        rig_done(&r);
    }
}

static void the_idle_race_is_told(void **state)
{
    struct rig r;

    (void)state;
    start(&r);
    ask(&r, "GET");
    rig_say(&r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    rig_release(&r);
    ask(&r, "GET");
    (void)rig_log(&r);
    assert_int_equal(shutdown(r.fd, SHUT_RDWR), 0);
    rig_run(&r);
    assert_int_equal(r.failure.error, STREAM_LOST);
    assert_true(r.failure.was_idle_conn && r.failure.any_sent); /* the rig has read it */
    assert_false(r.failure.any_received);
    rig_done(&r);
}

/* The server ended before the request could reach it: that nobody read it is known. */
static void what_nobody_read_is_known(void **state)
{
    struct rig r;

    (void)state;
    start(&r);
    ask(&r, "GET");
    rig_say(&r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    clock_test_freeze(1000, 1000);
    rig_release(&r);
    assert_int_equal(shutdown(r.fd, SHUT_WR), 0); /* and the loop has not seen it */
    ask(&r, "POST");                              /* just used: nobody looks */
    clock_test_thaw();
    assert_int_equal(r.failure.error, STREAM_LOST);
    assert_true(r.failure.was_idle_conn);
    assert_false(r.failure.any_sent || r.failure.any_received);
    rig_done(&r);
}

static void a_stale_connection_is_not_lent(void **state)
{
    struct rig r;

    (void)state;
    start(&r);
    ask(&r, "GET");
    rig_say(&r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    clock_test_freeze(1000, 1000);
    rig_release(&r);
    clock_test_advance(10);
    assert_int_equal(shutdown(r.fd, SHUT_WR), 0); /* and the loop has not seen it */
    assert_null(http_back_open(r.b, &r.arena, &rig_events, &r));
    clock_test_thaw();
    assert_false(r.is_closed); /* not inside of the call */
    rig_run(&r);
    assert_true(r.is_closed);
    assert_int_equal(r.close_reason, CLOSE_PEER_CLOSED);
    rig_done(&r);
}

static void nothing_sent_is_known(void **state)
{
    struct rig r;
    struct head h;

    (void)state;
    start(&r);
    open_stream(&r);
    head_init(&h);
    h.method = SLICE_LIT("GET");
    h.path = SLICE_LIT("/");
    h.version = HTTP_1_1;
    r.s->ops->send_head(r.s, &h, true);
    conn_close(r.c, CLOSE_PEER_RESET); /* before the turn ended */
    assert_int_equal(r.failed, 1);
    assert_false(r.failure.any_sent || r.failure.any_received);
    assert_string_equal(r.failure.text, "PEER_RESET");
    rig_done(&r);
}

static void an_early_answer_is_not_reused(void **state)
{
    struct rig r;
    struct head h;

    (void)state;
    start(&r);
    open_stream(&r);
    head_init(&h);
    h.method = SLICE_LIT("POST");
    h.path = SLICE_LIT("/");
    h.version = HTTP_1_1;
    h.content_length = 10;
    r.s->ops->send_head(r.s, &h, false);
    r.s->ops->send_body(r.s, SLICE_LIT("abc"), false);
    rig_say(&r, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    assert_string_equal(rig_log(&r), "head 413 end\n");
    rig_release(&r);
    rig_run(&r);
    assert_true(r.is_closed && r.is_retired);
    rig_done(&r);
}

static void tunnels(void **state)
{
    struct rig r;

    (void)state;
    start(&r);
    ask(&r, "UPGRADE");
    assert_non_null(strstr(rig_take(&r), "upgrade: websocket\r\nconnection: Upgrade\r\n\r\n"));
    rig_say(&r, "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw");
    assert_string_equal(rig_log(&r), "head 101\n");
    assert_memory_equal(buf_slice(&r.body).p, "raw", 3);
    assert_int_equal(http_back_free_slots(r.b), 0);
    r.s->ops->send_body(r.s, SLICE_LIT("up"), true);
    rig_run(&r);
    assert_string_equal(rig_take(&r), "up");
    assert_true(r.peer_sees_end);
    rig_say(&r, "down");
    assert_int_equal(shutdown(r.fd, SHUT_WR), 0);
    rig_run(&r);
    assert_memory_equal(buf_slice(&r.body).p, "rawdown", 7);
    assert_true(r.is_ended);
    rig_release(&r);
    rig_done(&r);

    start(&r);
    ask(&r, "CONNECT");
    assert_string_equal(rig_take(&r), "CONNECT web:80 HTTP/1.1\r\nhost: web:80\r\n\r\n");
    r.s->ops->send_body(r.s, SLICE_LIT("held back"), false);
    rig_run(&r);
    assert_string_equal(rig_take(&r), "");
    assert_int_equal(r.sent, 0);
    rig_say(&r, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    assert_string_equal(rig_take(&r), "held back");
    assert_int_equal(r.sent, 9);
    rig_say(&r, "more than five");
    assert_int_equal(buf_len(&r.body), 14);
    rig_release(&r);
    rig_done(&r);
}

static void reset_and_retire(void **state)
{
    struct rig r;

    (void)state;
    start(&r);
    ask(&r, "GET");
    r.is_live = false;
    r.s->ops->reset(r.s, STREAM_CANCELLED);
    rig_run(&r);
    assert_true(r.is_closed && r.is_retired);
    assert_int_equal(r.failed, 0);
    rig_done(&r);
    start(&r);
    http_back_retire(r.b, CLOSE_SUPERSEDED);
    rig_run(&r);
    assert_int_equal(r.close_reason, CLOSE_SUPERSEDED);
    rig_done(&r);
    start(&r);
    ask(&r, "GET");
    http_back_retire(r.b, CLOSE_SUPERSEDED);
    assert_null(http_back_open(r.b, &r.arena, &rig_events, &r));
    rig_say(&r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_string_equal(rig_log(&r), "head 200 end\n");
    rig_release(&r);
    rig_run(&r);
    assert_int_equal(r.close_reason, CLOSE_SUPERSEDED);
    rig_done(&r);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_written_from_the_head),
        cmocka_unit_test(forms_of_requests),
        cmocka_unit_test(unwritable_heads_are_not_written),
        cmocka_unit_test(good_answers),
        cmocka_unit_test(bad_answers_fail),
        cmocka_unit_test(stray_bytes_end_the_connection),
        cmocka_unit_test(truncated_answers_are_lost),
        cmocka_unit_test(the_idle_race_is_told),
        cmocka_unit_test(what_nobody_read_is_known),
        cmocka_unit_test(a_stale_connection_is_not_lent),
        cmocka_unit_test(nothing_sent_is_known),
        cmocka_unit_test(an_early_answer_is_not_reused),
        cmocka_unit_test(tunnels),
        cmocka_unit_test(reset_and_retire),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
