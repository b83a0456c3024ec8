/* conn_close_gently towards readers of all speeds: who reads gets everything, who does not gets a reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kit/clock.h"
#include "proxy/net/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_MS 60
#define ALL       (8 * 1024 * 1024) /* more than the kernel keeps */

struct world {
    struct event_base *base;
    struct net *net;
    struct conn *c;
    int peer;
    unsigned closed;
};

static size_t on_bytes(struct conn *c, slice_t b)
{
    (void)c;
    return b.n;
}

static void on_closed(struct conn *c, enum close_reason why)
{
    (void)why;
    ((struct world *)conn_owner(c))->closed++;
}

static const struct conn_events events = {.on_bytes = on_bytes, .on_closed = on_closed};

/* TCP over loopback, with a small receive buffer at the peer. */
static void world_start_for(struct world *w, enum close_reason why)
{
    static uint8_t all[ALL];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    struct net_conf conf = {.linger_ms = LINGER_MS};
    int small = 256 * 1024, l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;

    *w = (struct world){.base = event_base_new()};
    conf.base = w->base;
    assert_null(net_new(&conf, &w->net));
    assert_int_equal(bind(l, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(l, 1), 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&a, &n), 0);
    w->peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(w->peer, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    assert_int_equal(connect(w->peer, (struct sockaddr *)&a, n), 0);
    fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(fd >= 0);
    close(l);
    assert_null(conn_accepted(w->net, fd, &w->c));
    conn_own(w->c, &events, w);
    memset(all, 'a', sizeof(all));
    conn_write(w->c, slice(all, sizeof(all)));
    conn_close_gently(w->c, why);
    assert_int_equal(w->closed, 1);
}

static void world_start(struct world *w)
{
    world_start_for(w, CLOSE_DONE);
}

static void world_done(struct world *w)
{
    close(w->peer);
    net_free(&w->net);
    event_base_free(w->base);
}

static void run_for(struct world *w, uint64_t ms)
{
    struct timeval tv = {.tv_usec = (suseconds_t)ms * 1000};

    assert_int_equal(event_base_loopexit(w->base, &tv), 0);
    assert_true(event_base_loop(w->base, 0) >= 0);
}

/* Reads up to a megabyte in small steps. False: the end has come. */
static bool read_some(struct world *w, size_t *got)
{
    static uint8_t piece[64 * 1024];

    for (unsigned i = 0; i < 64; i++) {
        ssize_t n = recv(w->peer, piece, sizeof(piece), MSG_DONTWAIT);

        if (n == 0)
            return false;
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            run_for(w, 1);
            continue;
        }
        *got += (size_t)n;
    }
    return true;
}

/* It rests longer than one look between two reads: nothing is lost, and the end is an end. */
static void a_slow_reader_gets_everything(void **state)
{
    struct world w;
    size_t got = 0;

    (void)state;
    world_start(&w);
    do {
        run_for(&w, LINGER_MS + LINGER_MS / 2);
    } while (read_some(&w, &got));
    assert_int_equal(got, ALL);
    world_done(&w);
}

/* Behind a complete answer a reader may rest for as long as it likes: its machine acknowledges the window probes. */
static void a_reader_that_rests_gets_everything(void **state)
{
    struct world w;
    size_t got = 0;

    (void)state;
    world_start(&w);
    run_for(&w, 12 * LINGER_MS);
    assert_int_equal(net_count(w.net), 1);
    while (read_some(&w, &got))
        ;
    assert_int_equal(got, ALL);
    world_done(&w);
}

static void who_takes_nothing_is_reset(void **state)
{
    static uint8_t piece[1024 * 1024];
    struct world w;
    size_t got = 0;
    ssize_t n;

    (void)state;
    world_start_for(&w, CLOSE_DRAINING);
    for (int i = 0; i < 100 && net_count(w.net) > 0; i++)
        run_for(&w, LINGER_MS);
    assert_int_equal(net_count(w.net), 0);
    while ((n = recv(w.peer, piece, sizeof(piece), 0)) > 0)
        got += (size_t)n;
    assert_int_equal(n, -1); /* a cut never looks like the end */
    assert_int_equal(errno, ECONNRESET);
    assert_true(got < ALL);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_reader_gets_everything),
        cmocka_unit_test(a_reader_that_rests_gets_everything),
        cmocka_unit_test(who_takes_nothing_is_reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
