/* Two connections joined: bytes, half-close, resets, a slow reader, idleness. */
#include "kit/clock.h"
#include "kit/log.h"
#include "proxy/detect/detect.h"
#include "proxy/opaque/relay.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct event_base *base;
static struct net *net;
static struct conn *front, *back;
static int client, server; /* the far ends */
static struct relay *relay;
static unsigned ended;
static enum close_reason end_why;

/* A connected pair over loopback: one end is a conn, the other a plain socket. */
static struct conn *make_conn(int *far)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
    struct conn *c;

    assert_true(bind(l, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(l, 1) == 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&a, &n), 0);
    *far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(*far, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(fcntl(*far, F_SETFL, O_NONBLOCK), 0);
    fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(fd >= 0);
    close(l);
    assert_true(conn_accepted(net, fd, &c) == OK);
    return c;
}

static void on_end(void *arg, enum close_reason why)
{
    (void)arg;
    ended++;
    end_why = why;
    relay = NULL;
}

static int up(void **state)
{
    struct net_conf nc;

    (void)state;
    base = event_base_new();
    nc = (struct net_conf){.base = base, .peer_ms = 60};
    assert_true(net_new(&nc, &net) == OK);
    front = make_conn(&client);
    back = make_conn(&server);
    ended = 0;
    return 0;
}

static int down(void **state)
{
    (void)state;
    if (relay != NULL)
        relay_end(relay, CLOSE_DRAINING);
    net_free(&net);
    close(client);
    close(server);
    event_base_free(base);
    return 0;
}

static void start(uint64_t idle_ms)
{
    struct relay_conf rc = {.base = base, .idle_ms = idle_ms, .on_end = on_end};

    assert_true(relay_start(front, back, &rc, &relay) == OK);
}

static void turn(void)
{
    struct timeval soon = {0, 2000};

    event_base_loopexit(base, &soon);
    (void)event_base_dispatch(base);
}

/* Reads until n bytes have come, the end (-1), or a reset (-2). */
static ssize_t gather(int fd, char *out, size_t n)
{
    size_t have = 0;
    uint64_t end = clock_read_us() + 3000000;

    while (have < n && clock_read_us() < end) {
        ssize_t k = recv(fd, out + have, n - have, 0);

        if (k > 0)
            have += (size_t)k;
        else if (k == 0)
            return have > 0 ? (ssize_t)have : -1;
        else if (errno != EAGAIN)
            return -2;
        else
            turn();
    }
    return (ssize_t)have;
}

static void reset(int *fd)
{
    const struct linger l = {1, 0};

    (void)setsockopt(*fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
    close(*fd);
    *fd = socket(AF_INET, SOCK_STREAM, 0);
}

static void test_bytes_both_ways(void **state)
{
    char got[16];

    (void)state;
    start(0);
    assert_int_equal(send(client, "hello", 5, 0), 5);
    assert_int_equal(gather(server, got, 5), 5);
    assert_memory_equal(got, "hello", 5);
    assert_int_equal(send(server, "world!", 6, 0), 6);
    assert_int_equal(gather(client, got, 6), 6);
    assert_memory_equal(got, "world!", 6);
    assert_int_equal(ended, 0);
}

static void test_half_close(void **state)
{
    char got[16];

    (void)state;
    start(0);
    assert_int_equal(send(client, "x", 1, 0), 1);
    shutdown(client, SHUT_WR);
    assert_int_equal(gather(server, got, 2), 1);
    assert_int_equal(gather(server, got, 1), -1);
    assert_int_equal(send(server, "late", 4, 0), 4); /* the other direction lives on */
    assert_int_equal(gather(client, got, 4), 4);
    assert_int_equal(ended, 0);
    shutdown(server, SHUT_WR);
    assert_int_equal(gather(client, got, 1), -1);
    assert_int_equal(ended, 1);
    assert_int_equal(end_why, CLOSE_DONE);
}

static void test_reset_is_passed_on(void **state)
{
    char got[4];

    (void)state;
    start(0);
    reset(&client);
    assert_int_equal(gather(server, got, 1), -2);
    assert_int_equal(ended, 1);
    assert_int_equal(end_why, CLOSE_PEER_RESET);
}

/* What came before a reset is delivered first, whether or not it was in the same turn. */
static void test_bytes_before_a_reset(void **state)
{
    static char block[100000], got[sizeof(block)];

    (void)state;
    start(0);
    assert_int_equal(send(client, block, sizeof(block), 0), sizeof(block));
    reset(&client); /* the loop has seen none of it */
    assert_int_equal(gather(server, got, sizeof(got)), sizeof(got));
    assert_int_equal(gather(server, got, 1), -2);
    assert_int_equal(ended, 1);
    assert_int_equal(end_why, CLOSE_PEER_RESET);
}

static void test_reset_behind_a_half_close(void **state)
{
    char got[4];

    (void)state;
    start(0);
    assert_int_equal(send(client, "bye", 3, 0), 3);
    shutdown(client, SHUT_WR);
    assert_int_equal(gather(server, got, 3), 3);
    assert_int_equal(gather(server, got, 1), -1);
    reset(&server); /* the side that was still speaking */
    assert_int_equal(gather(client, got, 1), -2);
    assert_int_equal(end_why, CLOSE_PEER_RESET);
}

/* The reader rests for many times peer_ms, its machine is there; then everything comes. */
static void test_reader_that_rests(void **state)
{
    static char block[65536];
    size_t sent = 0, had = 0;
    uint64_t end;

    (void)state;
    start(0);
    for (unsigned stuck = 0; stuck < 50; turn()) {
        ssize_t k = send(client, block, sizeof(block), MSG_NOSIGNAL);

        stuck = k > 0 ? 0 : stuck + 1;
        sent += k > 0 ? (size_t)k : 0;
    }
    for (end = clock_read_us() + 600000; clock_read_us() < end;)
        turn();
    assert_int_equal(ended, 0);
    while (had < sent) {
        ssize_t k = gather(server, block, sent - had < sizeof(block) ? sent - had : sizeof(block));

        assert_true(k > 0);
        had += (size_t)k;
    }
    assert_int_equal(ended, 0);
}

static void test_slow_reader_stops_the_writer(void **state)
{
    static char block[65536];
    char *got = malloc(sizeof(block));
    size_t sent = 0, had = 0, stuck = 0;

    (void)state;
    start(0);
    while (stuck < 50) { /* until nothing more is taken */
        ssize_t k = send(client, block, sizeof(block), MSG_NOSIGNAL);

        stuck = k > 0 ? 0 : stuck + 1;
        sent += k > 0 ? (size_t)k : 0;
        turn();
        assert_true(sent < 64u << 20);
    }
    assert_true(conn_out_len(back) < CONN_OUT_HIGH + 128 * 1024);
    while (had < sent) {
        ssize_t k =
            gather(server, got, sent - had < sizeof(block) ? sent - had : sizeof(block));

        assert_true(k > 0);
        had += (size_t)k;
    }
    assert_int_equal(had, sent);
    assert_int_equal(ended, 0);
    free(got);
}

static void test_idle(void **state)
{
    char got[4];

    (void)state;
    start(30);
    for (int i = 0; i < 5; i++) { /* traffic keeps it */
        usleep(10000);
        assert_int_equal(send(client, "x", 1, 0), 1);
        assert_int_equal(gather(server, got, 1), 1);
    }
    assert_int_equal(ended, 0);
    assert_int_equal(gather(client, got, 1), -1);
    assert_int_equal(end_why, CLOSE_IDLE);
}

/* ---- detection on a connection ---- */

static struct detect_result result;
static unsigned results, closes;

static void on_detected(void *arg, const struct detect_result *r)
{
    (void)arg;
    result = *r;
    results++;
}

static void on_detect_closed(void *arg)
{
    (void)arg;
    closes++;
}

static struct detect detect;

static void watch(uint64_t timeout_ms)
{
    struct detect_conf dc = {.base = base, .timeout_ms = timeout_ms};

    results = closes = 0;
    detect_start(&detect, front, &dc, on_detected, on_detect_closed, NULL);
}

static void until_result(void)
{
    uint64_t end = clock_read_us() + 3000000;

    while (results + closes == 0 && clock_read_us() < end)
        turn();
}

/* The bytes that decided are still there for whoever comes next. */
static void test_detect_keeps_the_bytes(void **state)
{
    char got[32];

    (void)state;
    watch(5000);
    assert_int_equal(send(client, "GET / HT", 8, 0), 8);
    turn();
    assert_int_equal(results, 0);
    assert_int_equal(send(client, "TP/1.1\r\n", 8, 0), 8);
    until_result();
    assert_int_equal(result.look, LOOK_HTTP1);
    start(0);
    assert_int_equal(gather(server, got, 16), 16);
    assert_memory_equal(got, "GET / HTTP/1.1\r\n", 16);
}

static void test_detect_timeout(void **state)
{
    (void)state;
    watch(20);
    assert_int_equal(send(client, "GET", 3, 0), 3);
    until_result();
    assert_true(result.is_timeout);
    assert_int_equal(result.look, LOOK_OPAQUE);
}

/* A client that says nothing and only listens: the end is passed on, the answer comes back. */
static void test_detect_half_close_at_once(void **state)
{
    char got[4];

    (void)state;
    watch(5000);
    shutdown(client, SHUT_WR);
    until_result();
    assert_false(result.is_gone);
    start(0);
    assert_int_equal(gather(server, got, 1), -1);
    assert_int_equal(send(server, "time", 4, 0), 4);
    assert_int_equal(gather(client, got, 4), 4);
}

static void test_detect_half_close_after_bytes(void **state)
{
    char got[4];

    (void)state;
    watch(5000);
    assert_int_equal(send(client, "GE", 2, 0), 2);
    shutdown(client, SHUT_WR);
    until_result();
    assert_false(result.is_gone);
    assert_int_equal(result.look, LOOK_OPAQUE);
    start(0);
    assert_int_equal(gather(server, got, 2), 2);
    assert_int_equal(gather(server, got, 1), -1); /* the end, too, although it was seen before */
}

static void test_detect_reset(void **state)
{
    (void)state;
    watch(5000);
    reset(&client);
    until_result();
    assert_int_equal(closes, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_bytes_both_ways),
        T(test_half_close),
        T(test_reset_is_passed_on),
        T(test_bytes_before_a_reset),
        T(test_reset_behind_a_half_close),
        T(test_reader_that_rests),
        T(test_slow_reader_stops_the_writer),
        T(test_idle),
        T(test_detect_keeps_the_bytes),
        T(test_detect_timeout),
        T(test_detect_half_close_at_once),
        T(test_detect_half_close_after_bytes),
        T(test_detect_reset),
    };

    log_init("relay_test");
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
