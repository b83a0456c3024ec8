/* Connections over socket pairs and loopback: bytes kept and offered again, pausing, half-close, ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/net/address.h"
#include "proxy/net/conn.h"
#include "proxy/record/record.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct seen {
    struct conn *c;
    uint8_t bytes[1 << 20];
    size_t n;
    size_t take_max; /* at most so many bytes per call; 0 = all */
    unsigned offers, eofs, closed, drained, connected;
    bool eof_clean, close_on_bytes, pause_on_bytes, write_on_bytes;
    size_t sent, n_at_eof;
    enum close_reason why;
};

struct world {
    struct event_base *base;
    struct net *net;
    struct seen seen;
    int peer; /* our hand in the other end */
    unsigned net_closes;
};

static size_t on_bytes(struct conn *c, slice_t b)
{
    struct seen *s = conn_owner(c);
    size_t n = s->take_max > 0 && b.n > s->take_max ? s->take_max : b.n;

    s->offers++;
    if (s->n + n <= sizeof(s->bytes))
        memcpy(s->bytes + s->n, b.p, n);
    s->n += n;
    if (s->pause_on_bytes)
        conn_pause(c, PAUSE_OWNER);
    if (s->write_on_bytes)
        conn_write(c, slice(b.p, n));
    if (s->close_on_bytes)
        conn_close(c, CLOSE_DONE);
    return n;
}

static void on_eof(struct conn *c, bool clean)
{
    struct seen *s = conn_owner(c);

    s->eofs++;
    s->eof_clean = clean;
    s->n_at_eof = s->n;
}

static void on_drained(struct conn *c)
{
    ((struct seen *)conn_owner(c))->drained++;
}

static void on_sent(struct conn *c, size_t n)
{
    ((struct seen *)conn_owner(c))->sent += n;
}

static void on_connected(struct conn *c)
{
    ((struct seen *)conn_owner(c))->connected++;
}

static void on_closed(struct conn *c, enum close_reason why)
{
    struct seen *s = conn_owner(c);

    s->closed++;
    s->why = why;
    s->c = NULL;
}

static const struct conn_events events = {.on_bytes = on_bytes,
                                          .on_eof = on_eof,
                                          .on_drained = on_drained,
                                          .on_sent = on_sent,
                                          .on_connected = on_connected,
                                          .on_closed = on_closed};

static void count_close(void *arg, const struct conn *c, enum close_reason why)
{
    (void)c, (void)why;
    ((struct world *)arg)->net_closes++;
}

static void turn(struct world *w)
{
    for (int i = 0; i < 20; i++)
        assert_true(event_base_loop(w->base, EVLOOP_NONBLOCK) >= 0);
}

static struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof(*w));
    struct net_conf conf = {.on_close = count_close, .arg = w};

    assert_non_null(w);
    w->base = event_base_new();
    conf.base = w->base;
    assert_null(net_new(&conf, &w->net));
    w->peer = -1;
    return w;
}

static void world_free(struct world *w)
{
    net_free(&w->net);
    event_base_free(w->base);
    if (w->peer >= 0)
        close(w->peer);
    free(w);
}

static struct world *world_with_conn(void)
{
    struct world *w = world_new();
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    w->peer = pair[1];
    assert_null(conn_accepted(w->net, pair[0], &w->seen.c));
    conn_own(w->seen.c, &events, &w->seen);
    return w;
}

static void say(struct world *w, const char *text)
{
    assert_int_equal(send(w->peer, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    turn(w);
}

static void test_bytes_come_and_go(void **state)
{
    struct world *w = world_with_conn();
    char back[16] = "";

    (void)state;
    w->seen.write_on_bytes = true;
    say(w, "hello");
    assert_int_equal(w->seen.n, 5);
    assert_int_equal(recv(w->peer, back, sizeof(back), 0), 5);
    assert_memory_equal(back, "hello", 5);
    assert_int_equal(w->seen.sent, 5);
    world_free(w);
}

static void test_what_is_not_taken_is_offered_again_in_one_piece(void **state)
{
    struct world *w = world_with_conn();

    (void)state;
    w->seen.take_max = 2;
    say(w, "abcde"); /* takes ab */
    assert_int_equal(w->seen.n, 2);
    w->seen.take_max = 0;
    say(w, "fg"); /* offered cdefg */
    assert_int_equal(w->seen.n, 7);
    assert_memory_equal(w->seen.bytes, "abcdefg", 7);
    assert_int_equal(w->seen.offers, 2);
    world_free(w);
}

static void test_paused_conn_keeps_bytes_and_eof_until_resumed(void **state)
{
    struct world *w = world_with_conn();

    (void)state;
    w->seen.take_max = 1;
    w->seen.pause_on_bytes = true;
    say(w, "xyz");
    assert_int_equal(w->seen.n, 1);
    assert_int_equal(shutdown(w->peer, SHUT_WR), 0);
    turn(w);
    assert_int_equal(w->seen.eofs, 0);
    w->seen.take_max = 0;
    w->seen.pause_on_bytes = false;
    conn_resume(w->seen.c, PAUSE_OWNER);
    assert_int_equal(w->seen.n, 1); /* never before conn_resume returns */
    turn(w);
    assert_memory_equal(w->seen.bytes, "xyz", 3);
    assert_int_equal(w->seen.eofs, 1);
    assert_true(w->seen.eof_clean);
    assert_non_null(w->seen.c); /* half-closed: still writable */
    conn_write(w->seen.c, SLICE_LIT("late"));
    turn(w);
    char back[8];
    assert_int_equal(recv(w->peer, back, sizeof(back), 0), 4);
    world_free(w);
}

static struct record *record_of(enum record_role role)
{
    static const uint8_t secret[32] = {1};
    struct record_conf conf = {.role = role,
                               .suite = 0x1301,
                               .client_secret = slice(secret, sizeof(secret)),
                               .server_secret = slice(secret, sizeof(secret))};
    struct record *r = NULL;

    assert_null(record_new(&conf, &r));
    return r;
}

static size_t hand_over(struct conn *c, slice_t b)
{
    (void)b;
    conn_own(c, &events, conn_owner(c));
    return 2;
}

/* An owner that hands the conn on from on_bytes and is freed may have its successor at its own address. */
static void test_the_next_owner_sees_the_rest_wherever_it_lives(void **state)
{
    static const struct conn_events first = {.on_bytes = hand_over};
    struct world *w = world_with_conn();

    (void)state;
    conn_own(w->seen.c, &first, &w->seen);
    say(w, "a rest");
    assert_int_equal(w->seen.n, 4);
    assert_memory_equal(w->seen.bytes, "rest", 4);
    world_free(w);
}

/* What came with the last flight of the handshake: data and close_notify. The FIN behind them is no second
 * end, and a later owner is told of the clean one. */
static void test_fin_behind_close_notify_changes_nothing(void **state)
{
    struct world *w = world_with_conn();
    struct record *peer = record_of(RECORD_CLIENT), *own = record_of(RECORD_SERVER);
    struct buf wire;

    (void)state;
    buf_init(&wire, 0);
    assert_null(record_seal(peer, SLICE_LIT("hi"), &wire));
    assert_null(record_seal_close(peer, &wire));
    assert_null(conn_protect(w->seen.c, &own, buf_slice(&wire)));
    turn(w);
    assert_int_equal(w->seen.n, 2);
    assert_int_equal(w->seen.eofs, 1);
    assert_int_equal(shutdown(w->peer, SHUT_WR), 0);
    turn(w);
    conn_own(w->seen.c, &events, &w->seen);
    turn(w);
    assert_int_equal(w->seen.eofs, 2);
    assert_true(w->seen.eof_clean);
    buf_done(&wire);
    record_free(&peer);
    world_free(w);
}

static void resume_now(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    conn_resume(arg, PAUSE_OWNER);
}

/* The end arrives in the turn in which a paused conn goes on: what it kept comes first. */
static void test_an_end_does_not_overtake_what_was_kept(void **state)
{
    (void)state;
    for (unsigned is_tls = 0; is_tls < 2; is_tls++) {
        struct world *w = world_with_conn();
        struct record *peer = record_of(RECORD_CLIENT), *own = record_of(RECORD_SERVER);
        struct event *resume;
        struct buf wire;
        int pair[2];

        buf_init(&wire, 0);
        if (is_tls) {
            assert_null(record_seal(peer, SLICE_LIT("x"), &wire));
            assert_null(record_seal(peer, SLICE_LIT("yz"), &wire));
            assert_null(record_seal_close(peer, &wire));
            assert_null(conn_protect(w->seen.c, &own, (slice_t){NULL, 0}));
        } else {
            assert_null(buf_add_slice(&wire, SLICE_LIT("xyz")));
        }
        w->seen.take_max = 1;
        w->seen.pause_on_bytes = true;
        assert_int_equal(send(w->peer, buf_slice(&wire).p, buf_len(&wire), 0), buf_len(&wire));
        turn(w);
        assert_int_equal(w->seen.n, 1);
        w->seen.take_max = 0;
        w->seen.pause_on_bytes = false;
        /* Ready in this order, seen in one turn. */
        assert_int_equal(pipe(pair), 0);
        resume = event_new(w->base, pair[0], EV_READ, resume_now, w->seen.c);
        assert_int_equal(event_add(resume, NULL), 0);
        assert_int_equal(write(pair[1], "", 1), 1);
        assert_int_equal(shutdown(w->peer, SHUT_WR), 0);
        assert_true(event_base_loop(w->base, EVLOOP_NONBLOCK) >= 0);
        event_free(resume);
        close(pair[0]);
        close(pair[1]);
        turn(w);
        assert_int_equal(w->seen.eofs, 1);
        assert_true(w->seen.eof_clean);
        assert_int_equal(w->seen.n_at_eof, 3);
        assert_memory_equal(w->seen.bytes, "xyz", 3);
        buf_done(&wire);
        record_free(&peer);
        record_free(&own);
        world_free(w);
    }
}

static void test_pause_bits_are_independent(void **state)
{
    struct world *w = world_with_conn();

    (void)state;
    conn_pause(w->seen.c, PAUSE_PEER_FULL);
    conn_pause(w->seen.c, PAUSE_MEMORY);
    say(w, "a");
    conn_resume(w->seen.c, PAUSE_PEER_FULL);
    turn(w);
    assert_int_equal(w->seen.n, 0);
    conn_resume(w->seen.c, PAUSE_MEMORY);
    turn(w);
    assert_int_equal(w->seen.n, 1);
    world_free(w);
}

static void test_close_inside_callback_is_told_once(void **state)
{
    struct world *w = world_with_conn();

    (void)state;
    w->seen.close_on_bytes = true;
    say(w, "bye");
    assert_int_equal(w->seen.closed, 1);
    assert_int_equal(w->seen.why, CLOSE_DONE);
    assert_int_equal(w->net_closes, 1);
    assert_int_equal(net_count(w->net), 0);
    world_free(w);
}

static void test_first_reason_wins(void **state)
{
    struct world *w = world_with_conn();

    (void)state;
    conn_close(w->seen.c, CLOSE_IDLE);
    assert_int_equal(w->seen.why, CLOSE_IDLE);
    assert_int_equal(w->seen.closed, 1);
    world_free(w);
}

static void test_slow_reader_fills_and_drains(void **state)
{
    struct world *w = world_with_conn();
    static uint8_t block[64 * 1024];
    size_t total = 0;
    ssize_t got;
    static uint8_t sink[64 * 1024];

    (void)state;
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = (uint8_t)(i * 7);
    while (!conn_is_full(w->seen.c)) {
        conn_write(w->seen.c, slice(block, sizeof(block)));
        total += sizeof(block);
        turn(w);
        assert_true(total < (64u << 20));
    }
    assert_int_equal(w->seen.drained, 0);
    size_t read_total = 0;
    for (int i = 0; i < 100000 && read_total < total; i++) {
        got = recv(w->peer, sink, sizeof(sink), MSG_DONTWAIT);
        if (got > 0) {
            for (ssize_t k = 0; k < got; k++)
                assert_int_equal(sink[k], (uint8_t)(((read_total + (size_t)k) % sizeof(block)) * 7));
            read_total += (size_t)got;
        }
        (void)event_base_loop(w->base, EVLOOP_NONBLOCK);
    }
    assert_int_equal(read_total, total);
    assert_int_equal(w->seen.drained, 1);
    assert_int_equal(w->seen.sent, total);
    assert_int_equal(conn_out_len(w->seen.c), 0);
    world_free(w);
}

static void test_gentle_close_delivers_what_is_queued(void **state)
{
    struct world *w = world_with_conn();
    char back[64];

    (void)state;
    conn_write(w->seen.c, SLICE_LIT("last words"));
    conn_close_gently(w->seen.c, CLOSE_DRAINING);
    assert_int_equal(w->seen.closed, 1);
    assert_int_equal(w->seen.why, CLOSE_DRAINING);
    turn(w);
    assert_int_equal(recv(w->peer, back, sizeof(back), 0), 10);
    assert_int_equal(recv(w->peer, back, sizeof(back), 0), 0);
    assert_int_equal(net_count(w->net), 1); /* lingers until the peer has finished */
    close(w->peer);
    w->peer = -1;
    turn(w);
    assert_int_equal(net_count(w->net), 0);
    assert_int_equal(w->net_closes, 1);
    world_free(w);
}

static void test_finish_is_half_close(void **state)
{
    struct world *w = world_with_conn();
    char back[8];

    (void)state;
    conn_write(w->seen.c, SLICE_LIT("q"));
    conn_finish(w->seen.c);
    turn(w);
    assert_int_equal(recv(w->peer, back, sizeof(back), 0), 1);
    assert_int_equal(recv(w->peer, back, sizeof(back), 0), 0);
    say(w, "answer");
    assert_int_equal(w->seen.n, 6);
    world_free(w);
}

static void test_dial_connects_or_says_why(void **state)
{
    struct world *w = world_new();
    struct sockaddr_storage to;
    socklen_t len = sizeof(to);
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    (void)state;
    assert_true(address_parse(SLICE_LIT("127.0.0.1"), 0, &to));
    assert_int_equal(bind(listener, (struct sockaddr *)&to, address_len(&to)), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&to, &len), 0);
    assert_null(conn_dial(w->net, (struct sockaddr *)&to, address_len(&to), 1000, &events, &w->seen,
                          &w->seen.c));
    assert_int_equal(w->seen.connected, 0);
    turn(w);
    assert_int_equal(w->seen.connected, 1);
    assert_true(conn_info(w->seen.c)->is_dialled);
    conn_close(w->seen.c, CLOSE_DONE);
    close(listener);
    assert_null(conn_dial(w->net, (struct sockaddr *)&to, address_len(&to), 1000, &events, &w->seen,
                          &w->seen.c));
    w->seen.closed = 0;
    turn(w);
    assert_int_equal(w->seen.closed, 1);
    assert_int_equal(w->seen.why, CLOSE_CONNECT_FAILED);
    assert_int_equal(w->seen.connected, 1);
    world_free(w);
}

static void test_peer_reset_is_named(void **state)
{
    struct world *w = world_with_conn();

    (void)state;
    conn_own(w->seen.c, &events, &w->seen);
    close(w->peer);
    w->peer = -1;
    turn(w);
    assert_int_equal(w->seen.eofs, 1);
    conn_write(w->seen.c, SLICE_LIT("to nobody"));
    turn(w);
    assert_int_equal(w->seen.closed, 1);
    assert_int_equal(w->seen.why, CLOSE_PEER_RESET);
    world_free(w);
}

static void test_stale_pooled_conn_is_seen(void **state)
{
    struct world *w = world_with_conn();

    (void)state;
    assert_false(conn_is_stale(w->seen.c));
    assert_int_equal(send(w->peer, "!", 1, 0), 1);
    assert_true(conn_is_stale(w->seen.c));
    world_free(w);
    w = world_with_conn();
    close(w->peer);
    w->peer = -1;
    assert_true(conn_is_stale(w->seen.c));
    world_free(w);
}

static void test_addresses(void **state)
{
    static const struct {
        const char *text;
        bool ok;
        const char *back;
    } cases[] = {
        {"10.0.0.1:80", true, "10.0.0.1:80"},
        {"[::1]:8080", true, "[::1]:8080"},
        {"[::ffff:10.1.2.3]:1", true, "10.1.2.3:1"},
        {"::1:80", false, NULL},
        {"10.0.0.1", false, NULL},
        {"10.0.0.1:", false, NULL},
        {"10.0.0.1:65536", false, NULL},
        {"10.0.0.256:1", false, NULL},
        {"[::1:80", false, NULL},
        {":80", false, NULL},
        {"web:80", false, NULL},
        {"", false, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sockaddr_storage a;
        char back[ADDRESS_TEXT];

        assert_int_equal(address_parse_pair(slice_str(cases[i].text), &a), cases[i].ok);
        if (cases[i].ok) {
            address_print(&a, back);
            assert_string_equal(back, cases[i].back);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_come_and_go),
        cmocka_unit_test(test_what_is_not_taken_is_offered_again_in_one_piece),
        cmocka_unit_test(test_paused_conn_keeps_bytes_and_eof_until_resumed),
        cmocka_unit_test(test_the_next_owner_sees_the_rest_wherever_it_lives),
        cmocka_unit_test(test_fin_behind_close_notify_changes_nothing),
        cmocka_unit_test(test_an_end_does_not_overtake_what_was_kept),
        cmocka_unit_test(test_pause_bits_are_independent),
        cmocka_unit_test(test_close_inside_callback_is_told_once),
        cmocka_unit_test(test_first_reason_wins),
        cmocka_unit_test(test_slow_reader_fills_and_drains),
        cmocka_unit_test(test_gentle_close_delivers_what_is_queued),
        cmocka_unit_test(test_finish_is_half_close),
        cmocka_unit_test(test_dial_connects_or_says_why),
        cmocka_unit_test(test_peer_reset_is_named),
        cmocka_unit_test(test_stale_pooled_conn_is_seen),
        cmocka_unit_test(test_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
