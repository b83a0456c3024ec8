/* What applications do teaches; what clients do does not. */
#include "proxy/detect/look.h"
#include "proxy/detect/witness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

/* ---- first bytes of servers ---- */

static const struct {
    const char *name, *bytes;
    size_t n; /* 0: strlen */
    enum answer want;
} answers[] = {
    {"status line", "HTTP/1.1 200 OK\r\n", 0, ANSWER_HTTP1},
    {"just enough of it", "HTTP/", 0, ANSWER_HTTP1},
    {"less", "HTT", 0, ANSWER_MORE},
    {"like it at first", "HTTQ", 0, ANSWER_OTHER},
    {"SETTINGS", "\0\0\x12\4\0\0\0\0\0", 9, ANSWER_HTTP2},
    {"empty SETTINGS", "\0\0\0\4\0\0\0\0\0", 9, ANSWER_HTTP2},
    {"SETTINGS and its content", "\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64", 15, ANSWER_HTTP2},
    {"part of SETTINGS", "\0\0\x12\4", 4, ANSWER_MORE},
    {"its acknowledgement is none", "\0\0\0\4\1\0\0\0\0", 9, ANSWER_OTHER},
    {"of a stream", "\0\0\6\4\0\0\0\0\1", 9, ANSWER_OTHER},
    {"another frame", "\0\0\6\1\0\0\0\0\0", 9, ANSWER_OTHER},
    {"no multiple of 6", "\0\0\7\4\0\0\0\0\0", 9, ANSWER_OTHER},
    {"a zero", "\0", 1, ANSWER_MORE},
    {"many zeros", "\0\0\0\0\0\0\0\0\0", 9, ANSWER_OTHER},
    {"MariaDB", "\x5d\0\0\0\x0a\x35.5.5-10", 12, ANSWER_OTHER},
    {"SMTP", "220 mail ESMTP\r\n", 0, ANSWER_OTHER},
    {"SSH", "SSH-2.0-OpenSSH_9.2\r\n", 0, ANSWER_OTHER},
    {"redis", "+PONG\r\n", 0, ANSWER_OTHER},
    {"postgres: no TLS", "N", 0, ANSWER_OTHER},
    {"TLS", "\x16\3\3\0\x7a\2", 6, ANSWER_OTHER},
    {"HTTP/0.9 complaint", "<!DOCTYPE HTML>", 0, ANSWER_OTHER},
};

static void test_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        size_t n = answers[i].n != 0 ? answers[i].n : strlen(answers[i].bytes);

        if (look_answer(slice(answers[i].bytes, n)) != answers[i].want)
            fail_msg("%s", answers[i].name);
        for (size_t k = 0; k < n; k++) {
            enum answer got = look_answer(slice(answers[i].bytes, k));

            if (got != ANSWER_MORE && got != answers[i].want)
                fail_msg("%s after %zu bytes", answers[i].name, k);
        }
    }
}

/* ---- conversations: C what the client says, S what the server says ---- */

static const struct {
    const char *name, *script; /* pieces of "C:..." and "S:...", separated by | */
    enum evidence want;
} talks[] = {
    {"a banner", "S:220 hello", EVIDENCE_SPOKE_FIRST},
    {"a banner in pieces", "S:2|S:2|S:0", EVIDENCE_SPOKE_FIRST},
    {"only listens", "C:x", EVIDENCE_NONE},
    {"one answer is no conversation", "C:garbage|S:<!DOCTYPE HTML>|S:<h1>what?", EVIDENCE_NONE},
    {"a conversation", "C:PING|S:+PONG|C:PING|S:+PONG", EVIDENCE_CONVERSATION},
    {"long answers", "C:a|S:b|S:c|S:d|C:e|S:f", EVIDENCE_CONVERSATION},
    {"talks on and hears nothing", "C:a|S:b|C:c|C:d", EVIDENCE_NONE},
    {"HTTP in an opaque connection", "C:GET / HTTP/1.1|S:HTTP/1.1 200 OK", EVIDENCE_HTTP1},
    {"garbage, and the HTTP server says so", "C:garbage|S:HTTP/1.1 400 Bad", EVIDENCE_HTTP1},
    {"garbage, answered in pieces", "C:garbage|S:HT|S:TP/1.1 400", EVIDENCE_HTTP1},
    {"lost patience", "S:HTTP/1.1 408 Request Timeout", EVIDENCE_HTTP1},
    {"lost patience, in pieces", "S:H|S:TTP/1.1 408", EVIDENCE_HTTP1},
};

static void test_talks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(talks) / sizeof(talks[0]); i++) {
        struct talk t = {0};
        enum evidence e = EVIDENCE_NONE;
        bool goes_on = true;

        for (const char *p = talks[i].script; *p != 0 && goes_on;) {
            size_t n = strcspn(p, "|");

            goes_on = talk_hears(&t, p[0] == 'S', slice(p + 2, n - 2), &e);
            p += n + (p[n] == '|' ? 1 : 0);
        }
        if (e != talks[i].want)
            fail_msg("%s: %d", talks[i].name, (int)e);
        if (goes_on != (e == EVIDENCE_NONE))
            fail_msg("%s goes on", talks[i].name);
    }
}

static void test_settings_first(void **state)
{
    struct talk t = {0};
    enum evidence e;

    (void)state;
    assert_true(talk_hears(&t, true, slice("\0\0\6", 3), &e));
    assert_true(talk_hears(&t, false, SLICE_LIT("PRI * HTTP/2.0"), &e));
    assert_true(talk_hears(&t, true, slice("", 0), &e));
    assert_false(talk_hears(&t, true, slice("\4\0\0\0\0\0\0\3", 8), &e));
    assert_int_equal(e, EVIDENCE_HTTP2);
}

/* ---- ports ---- */

struct told {
    unsigned n;
    uint16_t port;
    enum lesson lesson;
};

static void on_told(void *arg, uint16_t port, enum lesson l)
{
    struct told *t = arg;

    t->n++;
    t->port = port;
    t->lesson = l;
}

static void test_told_once_per_change(void **state)
{
    struct told t = {0};
    struct witness *w = witness_new(on_told, &t);

    (void)state;
    assert_int_equal(witness_known(w, 25), LESSON_UNKNOWN);
    for (int i = 0; i < 10; i++)
        witness_saw(w, 25, EVIDENCE_SPOKE_FIRST);
    assert_int_equal(t.n, 1);
    assert_int_equal(t.port, 25);
    assert_int_equal(t.lesson, LESSON_OPAQUE);
    assert_int_equal(witness_known(w, 25), LESSON_OPAQUE);
    witness_saw(w, 25, EVIDENCE_HTTP1); /* once or twice is no proof */
    witness_saw(w, 25, EVIDENCE_HTTP1);
    assert_int_equal(witness_known(w, 25), LESSON_OPAQUE);
    witness_saw(w, 25, EVIDENCE_HTTP1);
    assert_int_equal(witness_known(w, 25), LESSON_SEVERAL);
    assert_int_equal(t.n, 2);
    for (int i = 0; i < 20; i++)
        witness_saw(w, 25, (enum evidence)(i % (EVIDENCE_CONVERSATION + 1)));
    assert_int_equal(t.n, 2); /* and never again */
    witness_free(&w);
}

static void test_conversations_take_three(void **state)
{
    struct told t = {0};
    struct witness *w = witness_new(on_told, &t);

    (void)state;
    witness_saw(w, 6379, EVIDENCE_CONVERSATION);
    witness_saw(w, 6379, EVIDENCE_CONVERSATION);
    assert_int_equal(t.n, 0);
    witness_saw(w, 6379, EVIDENCE_CONVERSATION);
    assert_int_equal(t.lesson, LESSON_OPAQUE);
    witness_saw(w, 80, EVIDENCE_CONVERSATION);
    witness_saw(w, 80, EVIDENCE_HTTP1);
    assert_int_equal(witness_known(w, 80), LESSON_HTTP1);
    witness_free(&w);
}

static void test_grpc_and_more(void **state)
{
    struct told t = {0};
    struct witness *w = witness_new(on_told, &t);

    (void)state;
    witness_saw(w, 50051, EVIDENCE_GRPC);
    assert_int_equal(t.lesson, LESSON_GRPC);
    for (int i = 0; i < WITNESS_TIMES; i++)
        witness_saw(w, 50051, EVIDENCE_HTTP2);
    assert_int_equal(t.lesson, LESSON_HTTP2);
    for (int i = 0; i < 9; i++)
        witness_saw(w, 50051, EVIDENCE_GRPC);
    assert_int_equal(t.n, 2);
    witness_free(&w);
}

static void test_room_for_some_ports(void **state)
{
    struct told t = {0};
    struct witness *w = witness_new(on_told, &t);

    (void)state;
    witness_saw(w, 0, EVIDENCE_HTTP1);
    witness_saw(w, 1, EVIDENCE_NONE);
    assert_int_equal(t.n, 0);
    for (uint16_t p = 1; p <= WITNESS_PORTS_MAX + 10; p++)
        witness_saw(w, p, EVIDENCE_HTTP1);
    assert_int_equal(t.n, WITNESS_PORTS_MAX);
    assert_int_equal(witness_known(w, WITNESS_PORTS_MAX + 1), LESSON_UNKNOWN);
    witness_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_talks),
        cmocka_unit_test(test_settings_first),
        cmocka_unit_test(test_told_once_per_change),
        cmocka_unit_test(test_conversations_take_three),
        cmocka_unit_test(test_grpc_and_more),
        cmocka_unit_test(test_room_for_some_ports),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
