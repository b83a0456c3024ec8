/* Choice, readiness, queue and pools, with a loop and real sockets but no codec beyond HTTP/1.
 */
#include "kit/clock.h"
#include "kit/log.h"
#include "kit/random.h"
#include "proxy/balance/balance.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"

#include <event2/event.h>
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
static struct balance *balance;
static unsigned endpoints_freed;

static void on_free(void *arg, struct endpoint *ep)
{
    (void)arg, (void)ep;
    endpoints_freed++;
}

static int up(void **state)
{
    struct net_conf nc;
    struct balance_conf bc = {
        .limits = {.head_max = 65536, .fields_max = 100, .header_timeout_ms = 1000},
        .outbound_connect_ms = 500,
        .inbound_connect_ms = 300,
        .pool_idle_ms = 50,
        .failfast_ms = 1000,
        .queue_capacity = 3,
        .on_endpoint_free = on_free};

    (void)state;
    base = event_base_new();
    nc = (struct net_conf){.base = base};
    assert_true(net_new(&nc, &net) == OK);
    bc.base = base;
    bc.net = net;
    assert_true(balance_new(&bc, &balance) == OK);
    endpoints_freed = 0;
    random_test_seed(7);
    return 0;
}

static int down(void **state)
{
    (void)state;
    clock_test_thaw();
    net_free(&net);
    balance_free(&balance);
    event_base_free(base);
    return 0;
}

static bool is_none(void *arg, const struct sockaddr_storage *a)
{
    (void)arg, (void)a;
    return false;
}

/* A backend with n endpoints 10.0.0.1... */
static struct backend *make(unsigned n, uint64_t revision)
{
    static struct wire_endpoint eps[16];
    static char ips[16][16];
    struct wire_backend v = {.namespace = SLICE_LIT("ns"),
                             .name = SLICE_LIT("svc"),
                             .port = 80,
                             .n_endpoints = n,
                             .endpoints = eps};
    struct backend_spec spec = {.view = &v, .revision = revision, .is_local = is_none};
    struct backend *be;

    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(ips[i], sizeof(ips[i]), "10.0.0.%u", i + 1);
        eps[i] = (struct wire_endpoint){.ip = slice_str(ips[i]), .port = 80, .weight = 10000};
    }
    assert_true(backend_get(balance, &spec, &be) == OK);
    return be;
}

/* ---- load ---- */

static void test_peak_counts_at_once_and_fades(void **state)
{
    struct backend *be = make(1, 1);
    struct endpoint *ep = be->set[0];
    double peak;

    (void)state;
    clock_test_freeze(1000, 1000);
    ep->rtt_at_us = clock_now_us();
    assert_true(endpoint_load(ep) > 29000 && endpoint_load(ep) < 31000);
    endpoint_sample(ep, 100000);
    peak = endpoint_load(ep);
    assert_true(peak > 99000);
    endpoint_sample(ep, 1000);
    assert_true(endpoint_load(ep) > 90000); /* one good answer does not forgive */
    clock_test_advance(10000);
    assert_true(endpoint_load(ep) < peak / 2);
    endpoint_begin(ep);
    assert_true(endpoint_load(ep) > peak / 3);
    endpoint_end(ep);
    backend_unref(&be);
}

/* ---- choice ---- */

static void test_slow_endpoint_gets_less(void **state)
{
    struct backend *be = make(3, 1);
    unsigned hits[3] = {0};

    (void)state;
    clock_test_freeze(1000, 1000);
    for (int i = 0; i < 3; i++)
        endpoint_sample(be->set[i], i == 0 ? 200000 : 31000);
    for (int i = 0; i < 3000; i++) {
        struct endpoint *ep = backend_pick(be, NULL);

        for (int k = 0; k < 3; k++)
            hits[k] += be->set[k] == ep;
    }
    assert_int_equal(hits[0], 0); /* two were always compared, and it always lost */
    assert_true(hits[1] > 1000 && hits[2] > 1000);
    backend_unref(&be);
}

static void test_in_flight_evens_out(void **state)
{
    struct backend *be = make(4, 1);

    (void)state;
    clock_test_freeze(1000, 1000);
    for (int i = 0; i < 400; i++)
        endpoint_begin(backend_pick(be, NULL));
    for (int k = 0; k < 4; k++) {
        assert_in_range(be->set[k]->inflight, 80, 120);
        while (be->set[k]->inflight > 0)
            endpoint_end(be->set[k]);
    }
    backend_unref(&be);
}

static void test_not_ready_is_not_chosen(void **state)
{
    struct backend *be = make(3, 1);

    (void)state;
    endpoint_failed(be->set[1]);
    for (int i = 0; i < 100; i++)
        assert_true(backend_pick(be, NULL) != be->set[1]);
    endpoint_failed(be->set[0]);
    for (int i = 0; i < 100; i++)
        assert_true(backend_pick(be, NULL) == be->set[2]);
    endpoint_failed(be->set[2]);
    assert_null(backend_pick(be, NULL));
    assert_false(backend_has_ready(be));
    endpoint_worked(be->set[0]);
    assert_true(backend_pick(be, NULL) == be->set[0]);
    backend_unref(&be);
}

static void test_avoid(void **state)
{
    struct backend *be = make(2, 1);

    (void)state;
    for (int i = 0; i < 50; i++)
        assert_true(backend_pick(be, be->set[0]) == be->set[1]);
    endpoint_failed(be->set[1]);
    assert_true(backend_pick(be, be->set[0]) == be->set[0]); /* the only one */
    backend_unref(&be);
}

static void test_empty(void **state)
{
    struct backend *be = make(0, 1);

    (void)state;
    clock_test_freeze(1000, 1000);
    assert_null(backend_pick(be, NULL));
    assert_false(backend_is_failfast(be));
    clock_test_advance(1001);
    assert_true(backend_is_failfast(be));
    backend_unref(&be);
}

/* ---- views ---- */

static void test_state_survives_a_new_view(void **state)
{
    struct backend *old = make(2, 1), *new;
    struct endpoint *first = old->set[0];

    (void)state;
    endpoint_sample(first, 777000);
    new = make(1, 2);
    assert_true(new == old);
    assert_int_equal(new->n_set, 1);
    assert_true(new->set[0] == first);
    assert_true(first->rtt_us > 700000);
    assert_int_equal(endpoints_freed, 1);
    backend_unref(&old);
    backend_unref(&new);
    assert_int_equal(endpoints_freed, 2);
    assert_int_equal(balance_endpoints(balance), 0);
}

/* After a restore of the control plane smaller revisions are the truth; what a link has on disk
 * is not. */
static void test_only_stale_views_are_old(void **state)
{
    struct wire_backend v = {
        .namespace = SLICE_LIT("ns"), .name = SLICE_LIT("svc"), .port = 80};
    struct backend_spec stale = {.view = &v, .revision = 4, .is_stale = true};
    struct backend *a = make(3, 5), *b, *c;

    (void)state;
    assert_true(backend_get(balance, &stale, &b) == OK);
    assert_int_equal(a->n_set, 3);
    c = make(1, 4);
    assert_int_equal(a->n_set, 1);
    backend_unref(&a);
    backend_unref(&b);
    backend_unref(&c);
}

static void test_bad_addresses_are_left_out(void **state)
{
    struct wire_endpoint eps[] = {{.ip = SLICE_LIT("10.0.0.300"), .port = 80},
                                  {.ip = SLICE_LIT("name"), .port = 80},
                                  {.ip = SLICE_LIT("10.0.0.3"), .port = 0},
                                  {.ip = SLICE_LIT("fd00::1"), .port = 80}};
    struct wire_backend v = {.namespace = SLICE_LIT("ns"),
                             .name = SLICE_LIT("x"),
                             .n_endpoints = 4,
                             .endpoints = eps};
    struct backend_spec spec = {.view = &v, .revision = 1};
    struct backend *be;

    (void)state;
    assert_true(backend_get(balance, &spec, &be) == OK);
    assert_int_equal(be->n_set, 1);
    assert_string_equal(be->set[0]->text, "[fd00::1]:80");
    backend_unref(&be);
}

/* ---- the queue ---- */

static unsigned woken;

static void on_wake(struct pick_wait *w)
{
    (void)w;
    woken++;
}

static void test_queue(void **state)
{
    struct backend *be = make(1, 1);
    struct pick_wait w[4];

    (void)state;
    woken = 0;
    endpoint_failed(be->set[0]);
    for (int i = 0; i < 4; i++) {
        w[i] = (struct pick_wait){.wake = on_wake};
        assert_true((backend_wait(be, &w[i]) == OK) == (i < 3)); /* its limit is 3 */
    }
    pick_wait_cancel(&w[1]);
    pick_wait_cancel(&w[1]);
    pick_wait_cancel(&w[3]);
    endpoint_worked(be->set[0]);
    assert_int_equal(woken, 0); /* from the loop */
    (void)event_base_loop(base, EVLOOP_ONCE);
    assert_int_equal(woken, 2);
    assert_int_equal(be->n_waiting, 0);
    backend_unref(&be);
}

/* ---- connections ---- */

static int listen_on(struct sockaddr_storage *out)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 8) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    memset(out, 0, sizeof(*out));
    memcpy(out, &a, sizeof(a));
    return fd;
}

static struct http_back *lent;
static unsigned failures;

static void on_lent(struct lend *l, struct http_back *back, const struct lend_failure *why)
{
    (void)l;
    lent = back;
    failures += why != NULL;
}

static void loop_until(bool (*is_true)(void))
{
    uint64_t end = clock_read_us() + 3000000;

    while (!is_true() && clock_read_us() < end)
        (void)event_base_loop(base, EVLOOP_ONCE);
    assert_true(is_true());
}

static bool is_lent(void)
{
    return lent != NULL;
}

static bool has_failed(void)
{
    return failures > 0;
}

static struct endpoint *probed;

static bool is_let_go(void) /* the socket may linger for the peer's end */
{
    return probed->n_idle == 0 && list_is_empty(&probed->busy) &&
           list_is_empty(&probed->retired);
}

static void test_lend_idle_and_expiry(void **state)
{
    struct endpoint_spec spec = {.is_inbound = false};
    struct lend l = {.done = on_lent};
    struct endpoint *ep;
    struct http_back *back;
    int fd = listen_on(&spec.address);

    (void)state;
    lent = NULL;
    assert_true(endpoint_get(balance, &spec, &ep) == OK);
    assert_int_equal(endpoint_lend(ep, POOL_HTTP1, &l, &back), STEP_LATER);
    loop_until(is_lent);
    assert_int_equal(http_back_free_slots(lent), 1);
    probed = ep;
    loop_until(is_let_go); /* nobody used it: it became idle and went after pool_idle_ms */
    close(fd);
    endpoint_unref(&ep);
}

static void test_lend_fails_and_backs_off(void **state)
{
    struct endpoint_spec spec = {.is_inbound = false};
    struct lend l = {.done = on_lent}, m = {.done = on_lent};
    struct endpoint *ep;
    struct http_back *back;

    (void)state;
    close(listen_on(&spec.address)); /* nobody listens there now */
    failures = 0;
    assert_true(endpoint_get(balance, &spec, &ep) == OK);
    assert_int_equal(endpoint_lend(ep, POOL_HTTP1, &l, &back), STEP_LATER);
    assert_int_equal(endpoint_lend(ep, POOL_HTTP1, &m, &back), STEP_LATER);
    lend_cancel(&m);
    loop_until(has_failed);
    assert_int_equal(ep->state, ENDPOINT_BACKOFF);
    assert_int_equal(failures, 1);
    endpoint_unref(&ep);
    assert_int_equal(endpoints_freed, 1);
}

static bool is_ready(void)
{
    return probed->state == ENDPOINT_READY;
}

/* An endpoint that failed is found again by itself, without a request. */
static void test_probe_brings_it_back(void **state)
{
    struct endpoint_spec spec = {.is_inbound = false};
    int fd = listen_on(&spec.address);

    (void)state;
    assert_true(endpoint_get(balance, &spec, &probed) == OK);
    endpoint_failed(probed);
    assert_int_equal(probed->state, ENDPOINT_BACKOFF);
    loop_until(is_ready);
    loop_until(is_let_go);
    endpoint_unref(&probed);
    close(fd);
}

#define T(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_peak_counts_at_once_and_fades),
        T(test_slow_endpoint_gets_less),
        T(test_in_flight_evens_out),
        T(test_not_ready_is_not_chosen),
        T(test_avoid),
        T(test_empty),
        T(test_state_survives_a_new_view),
        T(test_only_stale_views_are_old),
        T(test_bad_addresses_are_left_out),
        T(test_queue),
        T(test_lend_idle_and_expiry),
        T(test_lend_fails_and_backs_off),
        T(test_probe_brings_it_back),
    };

    log_init("balance_test");
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
