/* Waiting for an application's ports, with real sockets on the loopback address. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kit/clock.h"
#include "proxy/await.h"
#include "proxy/net/address.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct world {
    struct event_base *base;
    struct await *await;
    unsigned dones, told;
    uint16_t waiting;
    bool stop_in_done;
};

static void on_done(void *arg)
{
    struct world *w = arg;
    w->dones++;
    if (w->stop_in_done)
        await_stop(&w->await);
    event_base_loopbreak(w->base);
}

static void on_waiting(void *arg, uint16_t port)
{
    struct world *w = arg;
    w->told++;
    w->waiting = port;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    w->base = event_base_new();
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    await_stop(&w->await);
    event_base_free(w->base);
    free(w);
    return 0;
}

/* A socket with a port of its own at 127.0.0.N; it listens when listen() is called. */
static int bound(unsigned n, uint16_t want, uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(want)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(0x7f000000u + n);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static void run_for(struct world *w, unsigned ms)
{
    struct timeval t = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    (void)event_base_loopexit(w->base, &t);
    (void)event_base_dispatch(w->base);
}

static unsigned accepted(int fd)
{
    unsigned n = 0;
    for (int c = accept(fd, NULL, NULL); c >= 0; c = accept(fd, NULL, NULL), n++)
        (void)close(c);
    return n;
}

static struct await_conf conf_of(struct world *w, const char *serves)
{
    return (struct await_conf){.base = w->base,
                               .serves = slice_str(serves),
                               .connect_ms = 300,
                               .waiting = on_waiting,
                               .done = on_done,
                               .arg = w};
}

static void every_port_must_accept_once(void **state)
{
    struct world *w = *state;
    uint16_t a, b;
    int first = bound(1, 0, &a), second = bound(1, 0, &b);
    char serves[64];
    (void)snprintf(serves, sizeof serves, "web:%u/http1, :%u/opaque", a, b);
    struct await_conf conf = conf_of(w, serves);
    assert_null(await_start(&conf, &w->await));
    assert_int_equal(w->dones, 0);
    run_for(w, 60);
    assert_int_equal(listen(first, 8), 0);
    run_for(w, 150);
    assert_int_equal(w->dones, 0); /* the second does not listen yet */
    assert_int_equal(accepted(first), 1);
    assert_int_equal(listen(second, 8), 0);
    run_for(w, 2000);
    assert_int_equal(w->dones, 1);
    assert_int_equal(accepted(first), 0); /* never again */
    assert_int_equal(accepted(second), 1);
    run_for(w, 100);
    assert_int_equal(w->dones, 1);
    assert_int_equal(accepted(first) + accepted(second), 0);
    assert_int_equal(w->told, 0); /* it was not late */
    (void)close(first);
    (void)close(second);
}

static void every_address_is_tried_and_may_be_freed_in_done(void **state)
{
    struct world *w = *state;
    struct sockaddr_storage two[2];
    uint16_t port;
    int fd = bound(3, 0, &port);
    char serves[32];
    (void)snprintf(serves, sizeof serves, "web:%u", port);
    assert_int_equal(listen(fd, 8), 0);
    assert_true(address_parse(SLICE_LIT("127.0.0.2"), 0, &two[0]));
    assert_true(address_parse(SLICE_LIT("127.0.0.3"), 0, &two[1]));
    struct await_conf conf = conf_of(w, serves);
    conf.addresses = two;
    conf.n_addresses = 2;
    w->stop_in_done = true;
    assert_null(await_start(&conf, &w->await));
    run_for(w, 2000);
    assert_int_equal(w->dones, 1);
    assert_null(w->await);
    (void)close(fd);
}

static void a_target_takes_the_place_of_the_ports(void **state)
{
    struct world *w = *state;
    struct sockaddr_storage target;
    uint16_t port;
    int fd = bound(1, 0, &port);
    char pair[32];
    (void)snprintf(pair, sizeof pair, "127.0.0.1:%u", port);
    assert_true(address_parse_pair(slice_str(pair), &target));
    assert_int_equal(listen(fd, 8), 0);
    struct await_conf conf = conf_of(w, "web:1");
    conf.target = &target;
    assert_null(await_start(&conf, &w->await));
    run_for(w, 2000);
    assert_int_equal(w->dones, 1);
    (void)close(fd);
}

static void who_is_late_is_told_of_once(void **state)
{
    struct world *w = *state;
    uint16_t port;
    int fd = bound(1, 0, &port);
    char serves[32];
    (void)snprintf(serves, sizeof serves, "web:%u", port);
    struct await_conf conf = conf_of(w, serves);
    clock_test_freeze(1000000, 1800000000000);
    assert_null(await_start(&conf, &w->await));
    clock_test_advance(AWAIT_TELL_MS - 1);
    run_for(w, 100);
    assert_int_equal(w->told, 0);
    clock_test_advance(1);
    run_for(w, 200);
    assert_int_equal(w->told, 1);
    assert_int_equal(w->waiting, port);
    assert_int_equal(listen(fd, 8), 0);
    run_for(w, 2000);
    clock_test_thaw();
    assert_int_equal(w->dones, 1);
    assert_int_equal(w->told, 2);
    assert_int_equal(w->waiting, 0);
    (void)close(fd);
}

static void it_ends_in_every_state(void **state)
{
    struct world *w = *state;
    uint16_t port;
    int fd = bound(1, 0, &port);
    char serves[32];
    (void)snprintf(serves, sizeof serves, "web:%u", port);
    struct await_conf conf = conf_of(w, serves);
    for (unsigned turns = 0; turns < 12; turns++) {
        assert_null(await_start(&conf, &w->await));
        for (unsigned i = 0; i < turns; i++)
            (void)event_base_loop(w->base, EVLOOP_NONBLOCK);
        await_stop(&w->await);
        assert_null(w->await);
    }
    await_stop(&w->await);
    run_for(w, 50);
    assert_int_equal(w->dones, 0);
    (void)close(fd);
}

static void what_is_no_list_of_ports_is_refused(void **state)
{
    static const struct {
        const char *serves;
        bool is_good;
    } cases[] = {
        {"web:80", true},       {" web:80 , :25/opaque,", true},
        {"", true},             {"web", false},
        {"web:", false},        {"web:0", false},
        {"web:65536", false},   {"web:-1", false},
        {"web:80/", true},      {"web:8o", false},
        {"a:1,b", false},       {"web:/http1", false},
    };
    struct world *w = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct await_conf conf = conf_of(w, cases[i].serves);
        err_t e = await_start(&conf, &w->await);
        if ((e == OK) != cases[i].is_good)
            fail_msg("\"%s\"", cases[i].serves);
        if (e != OK)
            assert_null(w->await);
        await_stop(&w->await);
    }
    char many[65 * 8] = "";
    for (unsigned i = 0; i <= AWAIT_PORTS_MAX; i++)
        (void)snprintf(many + strlen(many), sizeof many - strlen(many), "s:%u,", i + 1);
    struct await_conf conf = conf_of(w, many);
    assert_non_null(await_start(&conf, &w->await));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_port_must_accept_once),
        TEST(every_address_is_tried_and_may_be_freed_in_done),
        TEST(a_target_takes_the_place_of_the_ports),
        TEST(who_is_late_is_told_of_once),
        TEST(it_ends_in_every_state),
        TEST(what_is_no_list_of_ports_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
