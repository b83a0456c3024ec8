/* Who is chosen: every way, with weights, slow start, zones, the share cap and breakers. The
 * clock stands still and randomness is seeded, so every number here is the same each time. */
#include "kit/clock.h"
#include "kit/log.h"
#include "kit/random.h"
#include "model/ring.h"
#include "model/route.h"
#include "proxy/balance/balance.h"
#include "proxy/net/conn.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define N_MAX 64

static struct event_base *base;
static struct net *net;
static struct balance *balance;
static struct breaker_event news[64];
static unsigned n_news;

static void on_breaker(void *arg, const struct breaker_event *e)
{
    (void)arg;
    if (n_news < 64)
        news[n_news++] = *e;
}

static int up(void **state)
{
    struct net_conf nc;
    struct balance_conf bc = {.pool_idle_ms = 50,
                              .failfast_ms = 3000,
                              .queue_capacity = 3,
                              .zone = "a",
                              .on_breaker = on_breaker};

    (void)state;
    base = event_base_new();
    nc = (struct net_conf){.base = base};
    assert_true(net_new(&nc, &net) == OK);
    bc.base = base;
    bc.net = net;
    clock_test_freeze(1000000, 1700000000000);
    assert_true(balance_new(&bc, &balance) == OK);
    random_test_seed(7);
    n_news = 0;
    return 0;
}

static int down(void **state)
{
    (void)state;
    clock_test_thaw();
    net_free(&net);
    assert_int_equal(balance_endpoints(balance), 0);
    balance_free(&balance);
    event_base_free(base);
    return 0;
}

/* ---- views ---- */

struct view {
    unsigned n;
    struct wire_balancing balancing;
    struct wire_breaker breaker;
    bool has_breaker;
    unsigned first; /* 10.0.0.(first + i + 1) */
    uint32_t weight[N_MAX];
    const char *zone[N_MAX];
    int64_t ready_ms[N_MAX];
    uint32_t waiting_max;
};

static uint64_t revision;

static struct backend *use(struct view *v)
{
    static struct wire_endpoint eps[N_MAX];
    static char ips[N_MAX][16];
    struct wire_backend w = {.namespace = SLICE_LIT("ns"),
                             .name = SLICE_LIT("svc"),
                             .port = 80,
                             .n_endpoints = v->n,
                             .endpoints = eps,
                             .n_balancing = 1,
                             .balancing = &v->balancing,
                             .n_breaker = v->has_breaker,
                             .breaker = &v->breaker,
                             .waiting_max = v->waiting_max};
    struct backend_spec spec = {.view = &w, .revision = ++revision};
    struct backend *be;

    for (unsigned i = 0; i < v->n; i++) {
        (void)snprintf(ips[i], sizeof(ips[i]), "10.0.0.%u", v->first + i + 1);
        eps[i] = (struct wire_endpoint){.ip = slice_str(ips[i]),
                                        .port = 80,
                                        .weight = v->weight[i],
                                        .zone = slice_str(v->zone[i]),
                                        .ready_ms = v->ready_ms[i]};
    }
    assert_true(backend_get(balance, &spec, &be) == OK);
    assert_int_equal(be->n_set, v->n);
    return be;
}

/* Counts picks by the last part of the address. The load stays as it is. */
static void spread(struct backend *be, unsigned picks, const struct pick *p, unsigned *hits)
{
    memset(hits, 0, N_MAX * sizeof(*hits));
    for (unsigned i = 0; i < picks; i++) {
        struct endpoint *ep = p != NULL ? backend_pick_by(be, p) : backend_pick(be, NULL);
        unsigned last;

        assert_non_null(ep);
        assert_int_equal(sscanf(ep->text, "10.0.0.%u:", &last), 1);
        hits[last - 1]++;
    }
}

static struct endpoint *named(const struct backend *be, unsigned last)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "10.0.0.%u:80", last);
    for (size_t i = 0; i < be->n_set; i++)
        if (strcmp(be->set[i]->text, text) == 0)
            return be->set[i];
    return NULL;
}

static void set_rtt(struct backend *be, unsigned last, uint64_t us)
{
    struct endpoint *ep = named(be, last);

    ep->rtt_us = (double)us;
    ep->rtt_at_us = clock_now_us();
}

/* ---- two random ones ---- */

/* With equal load, shares go by weight. */
static void test_weights(void **state)
{
    static const uint8_t kinds[] = {BALANCING_EWMA, BALANCING_LEAST_REQUESTS,
                                    BALANCING_ROUND_ROBIN};
    unsigned hits[N_MAX];

    (void)state;
    for (size_t k = 0; k < 3; k++) {
        struct view v = {
            .n = 3, .balancing = {.kind = kinds[k]}, .weight = {10000, 20000, 10000}};
        struct backend *be = use(&v);

        spread(be, 4000, NULL, hits);
        assert_in_range(hits[0], 930, 1070);
        assert_in_range(hits[1], 1880, 2120);
        assert_in_range(hits[2], 930, 1070);
        backend_unref(&be);
    }
}

static void test_two_with_weights_1_to_3(void **state)
{
    unsigned hits[N_MAX];

    (void)state;
    for (uint8_t kind = BALANCING_EWMA; kind <= BALANCING_ROUND_ROBIN; kind++) {
        struct view v = {.n = 2, .balancing = {.kind = kind}, .weight = {1, 3}};
        struct backend *be = use(&v);

        spread(be, 4000, NULL, hits);
        assert_in_range(hits[0], 940, 1060);
        backend_unref(&be);
    }
}

/* Requests in flight end up by weight, too. */
static void test_weights_under_load(void **state)
{
    (void)state;
    for (uint8_t kind = BALANCING_EWMA; kind <= BALANCING_LEAST_REQUESTS; kind++) {
        struct view v = {
            .n = 4, .balancing = {.kind = kind}, .weight = {10000, 10000, 10000, 30000}};
        struct backend *be = use(&v);

        for (unsigned i = 0; i < 600; i++)
            endpoint_begin(backend_pick(be, NULL));
        assert_int_equal(be->running, 600);
        for (unsigned i = 1; i <= 4; i++) {
            struct endpoint *ep = named(be, i);

            assert_in_range(ep->inflight, i == 4 ? 280 : 90, i == 4 ? 320 : 110);
            while (ep->inflight > 0)
                endpoint_end(ep);
        }
        assert_int_equal(be->running, 0);
        backend_unref(&be);
    }
}

/* One of very little weight among many gets very little; one that is alone gets all. */
static void test_extreme_weights(void **state)
{
    struct view v = {.n = 10, .balancing = {.kind = BALANCING_EWMA}};
    struct backend *be;
    unsigned hits[N_MAX];

    (void)state;
    for (unsigned i = 0; i < 10; i++)
        v.weight[i] = i == 0 ? 1000000 : 1;
    be = use(&v);
    spread(be, 1000, NULL, hits);
    assert_in_range(hits[0], 995, 1000);
    endpoint_failed(named(be, 1));
    spread(be, 1000, NULL, hits);
    assert_int_equal(hits[0], 0); /* it is not there: the others share */
    for (unsigned i = 1; i < 10; i++)
        assert_in_range(hits[i], 50, 250);
    backend_unref(&be);
}

static void test_least_requests_looks_at_nothing_else(void **state)
{
    struct view v = {.n = 2, .balancing = {.kind = BALANCING_LEAST_REQUESTS}};
    struct backend *be = use(&v);

    (void)state;
    set_rtt(be, 1, 900000);
    set_rtt(be, 2, 1000);
    endpoint_begin(named(be, 2));
    for (int i = 0; i < 100; i++)
        assert_ptr_equal(backend_pick(be, NULL), named(be, 1));
    endpoint_begin(named(be, 1));
    endpoint_begin(named(be, 1));
    for (int i = 0; i < 100; i++)
        assert_ptr_equal(backend_pick(be, NULL), named(be, 2));
    endpoint_end(named(be, 2));
    endpoint_end(named(be, 1));
    endpoint_end(named(be, 1));
    backend_unref(&be);
}

/* ---- round robin ---- */

static void test_round_robin_is_even(void **state)
{
    struct view v = {.n = 5, .balancing = {.kind = BALANCING_ROUND_ROBIN}};
    struct backend *be = use(&v);
    unsigned hits[N_MAX];

    (void)state;
    spread(be, 1000, NULL, hits);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(hits[i], 200);
    endpoint_failed(named(be, 3));
    spread(be, 1000, NULL, hits);
    for (unsigned i = 0; i < 5; i++)
        assert_in_range(hits[i], i == 2 ? 0 : 200, i == 2 ? 0 : 500);
    assert_int_equal(hits[2], 0);
    backend_unref(&be);
}

/* 3:1 is served A A A B, never the whole of one's share in a row when there are others. */
static void test_round_robin_interleaves(void **state)
{
    struct view v = {
        .n = 2, .balancing = {.kind = BALANCING_ROUND_ROBIN}, .weight = {30000, 10000}};
    struct backend *be = use(&v);
    unsigned hits[N_MAX];

    (void)state;
    for (int i = 0; i < 50; i++) {
        spread(be, 4, NULL, hits);
        assert_int_equal(hits[0], 3);
        assert_int_equal(hits[1], 1);
    }
    backend_unref(&be);
}

static void test_round_robin_avoids(void **state)
{
    struct view v = {.n = 3, .balancing = {.kind = BALANCING_ROUND_ROBIN}};
    struct backend *be = use(&v);

    (void)state;
    for (int i = 0; i < 30; i++)
        assert_ptr_not_equal(backend_pick(be, named(be, 2)), named(be, 2));
    endpoint_failed(named(be, 1));
    endpoint_failed(named(be, 3));
    assert_ptr_equal(backend_pick(be, named(be, 2)), named(be, 2)); /* the only one */
    backend_unref(&be);
}

/* ---- hash ---- */

static struct endpoint *of_key(struct backend *be, unsigned key)
{
    char text[16];
    struct pick p = {.has_key = true};

    (void)snprintf(text, sizeof(text), "user-%u", key);
    p.key = ring_key(slice_str(text));
    return backend_pick_by(be, &p);
}

static struct view hash_view(unsigned n)
{
    return (struct view){.n = n,
                         .balancing = {.kind = BALANCING_HASH,
                                       .hash_by = HASH_BY_HEADER,
                                       .hash_name = SLICE_LIT("x-user")}};
}

static void test_hash_sticks_and_moves_little(void **state)
{
    struct view v = hash_view(5);
    struct backend *be = use(&v), *again;
    unsigned owner[1000], moved = 0, hits[N_MAX] = {0};

    (void)state;
    for (unsigned k = 0; k < 1000; k++) {
        assert_int_equal(sscanf(of_key(be, k)->text, "10.0.0.%u:", &owner[k]), 1);
        hits[owner[k]]++;
    }
    for (unsigned i = 1; i <= 5; i++)
        assert_in_range(hits[i], 150, 250);
    /* Ready or not, in this order or another: the others' keys stay. */
    endpoint_failed(named(be, 2));
    for (unsigned k = 0; k < 1000; k++) {
        struct endpoint *ep = of_key(be, k);

        if (owner[k] == 2)
            assert_ptr_not_equal(ep, named(be, 2));
        else
            assert_ptr_equal(ep, named(be, owner[k]));
    }
    endpoint_worked(named(be, 2));
    for (unsigned k = 0; k < 1000; k++)
        assert_ptr_equal(of_key(be, k), named(be, owner[k]));
    /* A sixth takes its share of each and nothing moves between the others. */
    v.n = 6;
    again = use(&v);
    assert_ptr_equal(be, again);
    for (unsigned k = 0; k < 1000; k++) {
        struct endpoint *ep = of_key(be, k);

        if (ep == named(be, 6))
            moved++;
        else
            assert_ptr_equal(ep, named(be, owner[k]));
    }
    assert_in_range(moved, 120, 220);
    backend_unref(&be);
    backend_unref(&again);
}

static void test_hash_weights(void **state)
{
    struct view v = hash_view(2);
    struct backend *be;
    unsigned hits = 0;

    (void)state;
    v.weight[0] = 30000;
    v.weight[1] = 10000;
    be = use(&v);
    for (unsigned k = 0; k < 1000; k++)
        hits += of_key(be, k) == named(be, 1);
    assert_in_range(hits, 710, 790);
    backend_unref(&be);
}

/* With a share cap one key cannot run everything over; below it nothing moves. */
static void test_hash_is_bounded(void **state)
{
    struct view v = hash_view(4);
    struct backend *be;
    struct endpoint *home;

    (void)state;
    v.balancing.share_cap_permille = 1500;
    be = use(&v);
    home = of_key(be, 1);
    for (unsigned i = 0; i < 100; i++)
        assert_ptr_equal(of_key(be, 1), home); /* one after the other */
    for (unsigned i = 0; i < 100; i++)
        endpoint_begin(of_key(be, 1));
    for (unsigned i = 1; i <= 4; i++) {
        assert_in_range(named(be, i)->inflight, 0,
                        39); /* 1.5 x 25, and the one that is asked */
        while (named(be, i)->inflight > 0)
            endpoint_end(named(be, i));
    }
    assert_ptr_equal(of_key(be, 1), home);
    backend_unref(&be);
}

/* No key: as EWMA. A way we do not know: EWMA. */
static void test_hash_without_key_and_unknown_kinds(void **state)
{
    struct view v = hash_view(3);
    struct backend *be = use(&v), *again;
    unsigned hits[N_MAX];

    (void)state;
    spread(be, 300, NULL, hits);
    for (unsigned i = 0; i < 3; i++)
        assert_in_range(hits[i], 60, 140);
    v.balancing.hash_by = 9;
    again = use(&v);
    assert_int_equal(again->balancing, BALANCING_EWMA);
    v.balancing = (struct wire_balancing){.kind = 77};
    backend_unref(&again);
    again = use(&v);
    assert_int_equal(again->balancing, BALANCING_EWMA);
    backend_unref(&again);
    backend_unref(&be);
}

/* ---- slow start ---- */

static void test_slow_start(void **state)
{
    unsigned hits[N_MAX];

    (void)state;
    for (uint8_t kind = BALANCING_EWMA; kind <= BALANCING_ROUND_ROBIN; kind++) {
        struct view v = {.n = 3, .balancing = {.kind = kind, .slow_start_ms = 10000}};
        struct backend *be = use(&v), *again;

        spread(be, 900, NULL, hits); /* all were there when we came: no slow start */
        assert_in_range(hits[0], 250, 350);
        v.n = 4;
        again = use(&v); /* the fourth came later, its age is not known */
        clock_test_advance(1000);
        spread(be, 3100, NULL, hits);
        assert_in_range(hits[3], 60, 150); /* 100 of 1000 each */
        clock_test_advance(4000);
        spread(be, 3500, NULL, hits);
        assert_in_range(hits[3], 420, 580);
        clock_test_advance(5000);
        spread(be, 4000, NULL, hits);
        assert_in_range(hits[3], 900, 1100);
        backend_unref(&be);
        backend_unref(&again);
    }
}

static void test_slow_start_by_age(void **state)
{
    int64_t wall = (int64_t)clock_wall_ms();
    struct view v = {.n = 3,
                     .balancing = {.kind = BALANCING_LEAST_REQUESTS, .slow_start_ms = 10000},
                     .ready_ms = {wall - 60000, wall - 5000, wall + 7000}};
    struct backend *be = use(&v);
    unsigned hits[N_MAX];

    (void)state;
    spread(be, 1600, NULL, hits); /* 1 : 0.5 : 0.1, the clock of the third is ahead */
    assert_in_range(hits[0], 930, 1100);
    assert_in_range(hits[1], 420, 580);
    assert_in_range(hits[2], 60, 150);
    clock_test_advance(20000);
    spread(be, 900, NULL, hits);
    assert_in_range(hits[2], 250, 350);
    /* It was restarted: its ramp begins anew. The same view again changes nothing. */
    v.ready_ms[0] = wall + 20000;
    for (int i = 0; i < 2; i++) {
        struct backend *again = use(&v);

        backend_unref(&again);
        spread(be, 2100, NULL, hits);
        assert_in_range(hits[0], 60, 150);
    }
    backend_unref(&be);
}

static void test_slow_start_of_hash_takes_keys_step_by_step(void **state)
{
    struct view v = hash_view(3);
    struct backend *be, *again;
    unsigned had = 0;

    (void)state;
    v.balancing.slow_start_ms = 10000;
    be = use(&v);
    v.n = 4;
    again = use(&v);
    for (int s = 0; s < 10; s++) {
        unsigned has = 0;

        clock_test_advance(1000);
        for (unsigned k = 0; k < 1000; k++)
            has += of_key(be, k) == named(be, 4);
        assert_true(has >= had);
        had = has;
    }
    assert_in_range(had, 200, 300);
    backend_unref(&be);
    backend_unref(&again);
}

/* ---- zones ---- */

static struct view zone_view(void)
{
    return (struct view){.n = 4,
                         .balancing = {.kind = BALANCING_EWMA, .zone_mode = 1},
                         .zone = {"b", "a", "b", "a"}};
}

static void test_own_zone_first(void **state)
{
    struct view v = zone_view();
    struct backend *be = use(&v);
    unsigned hits[N_MAX];

    (void)state;
    for (unsigned i = 1; i <= 4; i++)
        set_rtt(be, i, 10000);
    spread(be, 1000, NULL, hits);
    assert_int_equal(hits[0] + hits[2], 0);
    assert_in_range(hits[1], 400, 600);
    /* 1.4 times as slow is still nearer; 1.6 times is not. */
    set_rtt(be, 2, 14000);
    set_rtt(be, 4, 14000);
    spread(be, 1000, NULL, hits);
    assert_int_equal(hits[0] + hits[2], 0);
    set_rtt(be, 2, 16000);
    set_rtt(be, 4, 16000);
    spread(be, 1000, NULL, hits);
    assert_true(hits[0] + hits[2] > 700);
    backend_unref(&be);
}

/* Load spills, too: as much as makes the own zone no more than 1.5 times as busy. */
static void test_zone_spills_on_load(void **state)
{
    struct view v = zone_view();
    struct backend *be = use(&v);
    unsigned own = 0;

    (void)state;
    for (unsigned i = 1; i <= 4; i++)
        set_rtt(be, i, 10000);
    for (int i = 0; i < 200; i++)
        endpoint_begin(backend_pick(be, NULL));
    for (unsigned i = 1; i <= 4; i++) {
        if (i % 2 == 0)
            own += named(be, i)->inflight;
        assert_true(named(be, i)->inflight > 20);
        while (named(be, i)->inflight > 0)
            endpoint_end(named(be, i));
    }
    assert_in_range(own, 105, 135); /* 120 : 80 is 1.5 */
    backend_unref(&be);
}

static void test_zone_without_anybody(void **state)
{
    struct view v = zone_view();
    struct backend *be = use(&v), *again;
    unsigned hits[N_MAX];

    (void)state;
    endpoint_failed(named(be, 2));
    endpoint_failed(named(be, 4));
    spread(be, 100, NULL, hits);
    assert_int_equal(hits[0] + hits[2], 100);
    endpoint_worked(named(be, 2));
    set_rtt(be, 2, 10000);
    spread(be, 100, NULL, hits);
    assert_int_equal(hits[1], 100);
    /* Where an attempt has just failed is worse than another zone. */
    for (int i = 0; i < 50; i++)
        assert_ptr_not_equal(backend_pick(be, named(be, 2)), named(be, 2));
    /* Nobody of ours in the view at all. */
    v.zone[1] = v.zone[3] = "c";
    again = use(&v);
    assert_int_equal(again->n_own, 0);
    spread(be, 100, NULL, hits);
    assert_true(hits[0] > 0 && hits[1] > 0 && hits[2] > 0);
    v.balancing.zone_mode = 0;
    backend_unref(&again);
    again = use(&v);
    backend_unref(&again);
    backend_unref(&be);
}

/* What is not known of the other zone is no reason to leave the own one, however long that was.
 */
static void test_zone_does_not_leak_by_age(void **state)
{
    struct view v = zone_view();
    struct backend *be = use(&v);
    unsigned hits[N_MAX], away = 0;

    (void)state;
    for (int i = 0; i < 100; i++) {
        clock_test_advance(10000);
        set_rtt(be, 2, 20000);
        set_rtt(be, 4, 20000);
        spread(be, 10, NULL, hits);
        away += hits[0] + hits[2];
    }
    assert_int_equal(away, 0);
    backend_unref(&be);
}

static void test_zone_with_round_robin(void **state)
{
    struct view v = zone_view();
    struct backend *be;
    unsigned hits[N_MAX];

    (void)state;
    v.balancing.kind = BALANCING_ROUND_ROBIN;
    be = use(&v);
    spread(be, 100, NULL, hits);
    assert_int_equal(hits[1], 50);
    assert_int_equal(hits[3], 50);
    backend_unref(&be);
}

/* ---- share cap ---- */

static void test_share_cap(void **state)
{
    struct view v = {.n = 4, .balancing = {.kind = BALANCING_EWMA, .share_cap_permille = 1600}};
    struct backend *be = use(&v);
    unsigned hits[N_MAX];

    (void)state;
    set_rtt(be, 1, 1000); /* so quick that it would get half of all */
    spread(be, 4000, NULL, hits);
    assert_in_range(hits[0], 1550, 1610);
    /* Six seconds later the first window is the former one and still counts, eleven later it
     * does not. */
    clock_test_advance(11000);
    set_rtt(be, 1, 1000);
    spread(be, 1000, NULL, hits);
    assert_in_range(hits[0], 380, 410);
    /* Whoever is left over may have all of it. */
    for (unsigned i = 2; i <= 4; i++)
        endpoint_failed(named(be, i));
    spread(be, 1000, NULL, hits);
    assert_int_equal(hits[0], 1000);
    backend_unref(&be);
}

/* The one pod of the own zone is not overrun by a mesh that prefers zones. */
static void test_share_cap_and_zone(void **state)
{
    struct view v = {
        .n = 5,
        .balancing = {.kind = BALANCING_EWMA, .zone_mode = 1, .share_cap_permille = 2000},
        .zone = {"a", "b", "b", "b", "b"}};
    struct backend *be = use(&v);
    unsigned hits[N_MAX];

    (void)state;
    spread(be, 5000, NULL, hits);
    assert_in_range(hits[0], 1950, 2010);
    backend_unref(&be);
}

static void test_share_cap_below_one_is_one(void **state)
{
    struct view v = {.n = 3, .balancing = {.kind = BALANCING_EWMA, .share_cap_permille = 1}};
    struct backend *be = use(&v);
    unsigned hits[N_MAX];

    (void)state;
    spread(be, 300, NULL, hits);
    for (unsigned i = 0; i < 3; i++)
        assert_in_range(hits[i], 98, 102);
    backend_unref(&be);
}

/* ---- penalty ---- */

static void test_penalty(void **state)
{
    struct view v = {.n = 2, .balancing = {.kind = BALANCING_EWMA, .penalises = true}};
    struct backend *be = use(&v);
    struct endpoint *ep = named(be, 1);

    (void)state;
    backend_hear(be, ep, 200, -1, 60000);
    assert_true(ep->rtt_us < 40000);
    backend_hear(be, ep, 404, -1, 60000);
    assert_true(ep->rtt_us < 40000);
    backend_hear(be, ep, 500, -1, 60000); /* its Retry-After is not looked at */
    assert_true(ep->rtt_us > 4.9e6 && ep->rtt_us < 5.1e6);
    backend_hear(be, ep, 503, -1, 60000);
    assert_true(ep->rtt_us > 59e6 && ep->rtt_us < 61e6);
    backend_hear(be, ep, 503, -1, 1); /* never better */
    assert_true(ep->rtt_us > 59e6);
    backend_hear(be, ep, 429, -1, UINT32_MAX);
    assert_true(ep->rtt_us > 299e6 && ep->rtt_us < 301e6);
    for (int i = 0; i < 50; i++)
        assert_ptr_equal(backend_pick(be, NULL), named(be, 2));
    ep->rtt_us = 1000;
    backend_hear(be, ep, 200, 8, 7000); /* gRPC */
    assert_true(ep->rtt_us > 6.9e6 && ep->rtt_us < 7.1e6);
    ep->rtt_us = 1000;
    v.balancing = (struct wire_balancing){.kind = BALANCING_EWMA};
    backend_unref(&be);
    be = use(&v);
    backend_hear(be, named(be, 1), 503, -1, 60000); /* not asked for */
    assert_true(named(be, 1)->rtt_us < 40000);
    backend_unref(&be);
}

/* ---- breakers ---- */

static void note(struct backend *be, unsigned last, enum breaker_result r)
{
    struct outcome o = {.result = r, .sent_us = clock_now_us()};

    backend_note(be, named(be, last), &o);
}

static void fail_in_a_row(struct backend *be, unsigned last, unsigned n)
{
    while (n-- > 0)
        note(be, last, BREAKER_FAILURE);
}

static struct view breaker_view(unsigned n, uint32_t max_ejected)
{
    return (struct view){.n = n,
                         .has_breaker = true,
                         .breaker = {.consecutive = 3, .max_ejected_permille = max_ejected}};
}

/* Timers run on the loop's own clock: what they do is done here by letting them run. */
static void let_timers_run(struct backend *be, size_t n_ready)
{
    uint64_t end;

    clock_test_thaw();
    end = clock_read_us() + 5000000;
    while (be->n_ready != n_ready && clock_read_us() < end)
        (void)event_base_loop(base, EVLOOP_ONCE);
    assert_int_equal(be->n_ready, n_ready);
}

static void test_ejected_is_not_chosen(void **state)
{
    struct view v = breaker_view(3, 1000);
    struct backend *be = use(&v);
    unsigned hits[N_MAX];
    char text[BACKEND_TEXT];

    (void)state;
    fail_in_a_row(be, 2, 3);
    assert_int_equal(n_news, 1);
    assert_int_equal(news[0].news, BREAKER_NEWS_EJECTED);
    assert_int_equal(news[0].reason, BREAKER_BY_CONSECUTIVE);
    assert_int_equal(news[0].row, 3);
    assert_int_equal(news[0].all, 3);
    assert_int_equal(news[0].out_ms, 1000);
    assert_ptr_equal(news[0].endpoint, named(be, 2));
    spread(be, 300, NULL, hits);
    assert_int_equal(hits[1], 0);
    fail_in_a_row(be, 1, 3);
    fail_in_a_row(be, 3, 3);
    assert_null(backend_pick(be, NULL));
    assert_false(backend_has_ready(be));
    backend_describe(be, text);
    assert_string_equal(text, "ns/svc:80: 3 ejected, 0 connecting");
    assert_int_equal(n_news, 3);
    backend_unref(&be);
}

static void test_floor(void **state)
{
    struct view v = breaker_view(3, 500);
    struct backend *be = use(&v);

    (void)state;
    fail_in_a_row(be, 1, 3);
    assert_int_equal(be->n_ready, 2);
    fail_in_a_row(be, 2, 3);
    assert_int_equal(be->n_ready, 2);
    assert_int_equal(n_news, 2);
    assert_int_equal(news[1].news, BREAKER_NEWS_KEPT);
    fail_in_a_row(be, 2, 2);
    assert_int_equal(n_news, 2); /* counted anew: not said for each failure */
    fail_in_a_row(be, 2, 1);
    assert_int_equal(n_news, 3);
    backend_unref(&be);
}

static void test_a_single_endpoint_and_the_floor(void **state)
{
    struct view v = breaker_view(1, 999);
    struct backend *be = use(&v);

    (void)state;
    fail_in_a_row(be, 1, 30);
    assert_int_equal(be->n_ready, 1);
    assert_ptr_equal(backend_pick(be, NULL), named(be, 1));
    backend_unref(&be);
}

static void test_one_probe_and_return(void **state)
{
    struct view v = breaker_view(3, 1000);
    struct backend *be;
    struct endpoint *bad;
    unsigned hits[N_MAX];

    (void)state;
    v.breaker.min_penalty_ms = 20;
    be = use(&v);
    bad = named(be, 2);
    fail_in_a_row(be, 2, 3);
    let_timers_run(be, 3);
    assert_int_equal(be->n_probation, 1);
    assert_ptr_not_equal(backend_pick(be, named(be, 1)), bad); /* who failed once is no probe */
    assert_ptr_equal(backend_pick(be, NULL), bad);
    clock_test_freeze(clock_now_ms() + 10, 1);
    spread(be, 300, NULL, hits);
    assert_int_equal(hits[1], 0);
    note(be, 2, BREAKER_LIMITED); /* not better yet */
    assert_int_equal(news[n_news - 1].reason, BREAKER_BY_PROBE_FAILED);
    assert_int_equal(news[n_news - 1].out_ms, 40);
    let_timers_run(be, 3);
    assert_ptr_equal(backend_pick(be, NULL), bad);
    assert_int_equal(be->n_ready, 2);
    note(be, 2, BREAKER_SUCCESS);
    assert_int_equal(be->n_ready, 3);
    assert_int_equal(be->n_out, 0);
    assert_int_equal(news[n_news - 1].news, BREAKER_NEWS_RETURNED);
    assert_int_equal(n_news, 3);
    backend_unref(&be);
}

/* A probe that was never sent, or of which nothing is heard, is not the last one. */
static void test_lost_probe(void **state)
{
    struct view v = breaker_view(2, 1000);
    struct backend *be;
    struct endpoint *bad;

    (void)state;
    v.breaker.min_penalty_ms = 20;
    be = use(&v);
    bad = named(be, 1);
    fail_in_a_row(be, 1, 3);
    let_timers_run(be, 2);
    assert_ptr_equal(backend_pick(be, NULL), bad);
    backend_unpick(be, bad);
    assert_int_equal(be->n_ready, 2);
    backend_unpick(be, bad); /* once more changes nothing */
    assert_ptr_equal(backend_pick(be, NULL), bad);
    assert_int_equal(be->n_ready, 1);
    let_timers_run(be, 2); /* silence */
    assert_ptr_equal(backend_pick(be, NULL), bad);
    backend_unref(&be);
}

/* Opaque connections and copies say nothing of how it went: they go where they are led, and the probe is left to who
 * does. */
static void test_mute_ones_are_no_probe(void **state)
{
    struct view v = breaker_view(2, 1000);
    const struct pick mute = {.is_mute = true};
    struct backend *be;
    struct endpoint *bad;
    unsigned hits[N_MAX];
    bool is_full;

    (void)state;
    v.breaker.min_penalty_ms = 20;
    be = use(&v);
    bad = named(be, 1);
    fail_in_a_row(be, 1, 3);
    let_timers_run(be, 2);
    spread(be, 300, &mute, hits);
    assert_true(hits[1] > 0 && hits[0] + hits[1] == 300);
    for (unsigned i = 0; i < 20; i++)
        assert_non_null(backend_pick_opaque(be, NULL, &is_full));
    assert_false(is_full);
    assert_int_equal(be->n_probation, 1);
    assert_ptr_equal(backend_pick(be, NULL), bad);
    assert_int_equal(be->n_ready, 1);
    backend_unref(&be);
}

/* One probe is no return: whoever asks meanwhile is still answered at once. */
static void test_probe_does_not_end_failfast(void **state)
{
    struct view v = breaker_view(1, 1000);
    struct backend *be;

    (void)state;
    v.breaker.min_penalty_ms = 20;
    be = use(&v);
    fail_in_a_row(be, 1, 3);
    assert_null(backend_pick(be, NULL));
    clock_test_advance(3001);
    assert_true(backend_is_failfast(be));
    let_timers_run(be, 1);
    assert_non_null(backend_pick(be, NULL));
    assert_int_equal(be->n_ready, 0);
    assert_null(backend_pick(be, NULL));
    backend_unref(&be);
}

/* A breaker is the backend's: the same endpoint behind another service goes on. */
static void test_breaker_is_per_backend(void **state)
{
    struct view v = breaker_view(2, 1000);
    struct wire_endpoint e = {.ip = SLICE_LIT("10.0.0.1"), .port = 80};
    struct wire_backend w = {.namespace = SLICE_LIT("ns"),
                             .name = SLICE_LIT("other"),
                             .port = 80,
                             .n_endpoints = 1,
                             .endpoints = &e};
    struct backend_spec spec = {.view = &w, .revision = 1};
    struct backend *be = use(&v), *other;

    (void)state;
    assert_true(backend_get(balance, &spec, &other) == OK);
    assert_ptr_equal(other->set[0], named(be, 1));
    fail_in_a_row(be, 1, 3);
    assert_int_equal(be->n_ready, 1);
    assert_int_equal(other->n_ready, 1);
    endpoint_begin(named(be, 1));
    assert_int_equal(other->running, 1);
    assert_int_equal(be->running, 1);
    backend_unref(&other);
    endpoint_end(named(be, 1));
    assert_int_equal(be->running, 0);
    /* Who is dialled in vain is out of both. */
    assert_true(backend_get(balance, &spec, &other) == OK);
    endpoint_failed(named(be, 1));
    assert_int_equal(other->n_ready, 0);
    backend_unref(&other);
    backend_unref(&be);
}

/* Views come and go: a breaker's state stays with the endpoint; no breaker, nobody is out. */
static void test_views_and_breakers(void **state)
{
    struct view v = breaker_view(3, 1000);
    struct backend *be = use(&v), *again;

    (void)state;
    fail_in_a_row(be, 2, 3);
    v.n = 2;
    again = use(&v);
    assert_int_equal(be->n_out, 1);
    assert_int_equal(be->n_ready, 1);
    v.has_breaker = false;
    backend_unref(&again);
    again = use(&v);
    assert_int_equal(be->n_out, 0);
    assert_int_equal(be->n_ready, 2);
    fail_in_a_row(be, 1, 10);
    assert_int_equal(be->n_ready, 2);
    v.has_breaker = true;
    backend_unref(&again);
    again = use(&v);
    fail_in_a_row(be, 1, 3);
    fail_in_a_row(be, 2, 3);
    assert_int_equal(be->n_ready, 0);
    v.n = 0; /* all gone, and they return as new ones */
    backend_unref(&again);
    again = use(&v);
    assert_int_equal(be->n_out, 0);
    v.n = 2;
    backend_unref(&again);
    again = use(&v);
    assert_int_equal(be->n_ready, 2);
    backend_unref(&again);
    backend_unref(&be);
}

static void test_probation_of_who_is_in_backoff(void **state)
{
    struct view v = breaker_view(2, 1000);
    struct backend *be;

    (void)state;
    v.breaker.min_penalty_ms = 20;
    be = use(&v);
    fail_in_a_row(be, 1, 3);
    endpoint_failed(named(be, 1)); /* and it cannot be reached */
    assert_int_equal(be->n_ready, 1);
    assert_int_equal(be->n_out, 1);
    endpoint_worked(named(be, 1));
    assert_int_equal(be->n_ready, 1);
    let_timers_run(be, 2);
    assert_int_equal(be->n_probation, 1);
    endpoint_failed(named(be, 1));
    assert_int_equal(be->n_probation, 0);
    assert_ptr_equal(backend_pick(be, NULL), named(be, 2));
    backend_unref(&be);
}

static void wake_nobody(struct pick_wait *w)
{
    (void)w;
}

static void test_waiting_max_of_the_backend(void **state)
{
    struct view v = {.n = 0, .waiting_max = 1};
    struct backend *be = use(&v);
    struct pick_wait a = {.wake = wake_nobody}, b = a;

    (void)state;
    assert_true(backend_wait(be, &a) == OK);
    assert_true(backend_wait(be, &b) != OK);
    pick_wait_cancel(&a);
    assert_true(backend_wait(be, &b) == OK);
    pick_wait_cancel(&b);
    backend_unref(&be);
}

#define T(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_weights),
        T(test_two_with_weights_1_to_3),
        T(test_weights_under_load),
        T(test_extreme_weights),
        T(test_least_requests_looks_at_nothing_else),
        T(test_round_robin_is_even),
        T(test_round_robin_interleaves),
        T(test_round_robin_avoids),
        T(test_hash_sticks_and_moves_little),
        T(test_hash_weights),
        T(test_hash_is_bounded),
        T(test_hash_without_key_and_unknown_kinds),
        T(test_slow_start),
        T(test_slow_start_by_age),
        T(test_slow_start_of_hash_takes_keys_step_by_step),
        T(test_own_zone_first),
        T(test_zone_spills_on_load),
        T(test_zone_without_anybody),
        T(test_zone_does_not_leak_by_age),
        T(test_zone_with_round_robin),
        T(test_share_cap),
        T(test_share_cap_and_zone),
        T(test_share_cap_below_one_is_one),
        T(test_penalty),
        T(test_ejected_is_not_chosen),
        T(test_floor),
        T(test_a_single_endpoint_and_the_floor),
        T(test_one_probe_and_return),
        T(test_lost_probe),
        T(test_mute_ones_are_no_probe),
        T(test_probe_does_not_end_failfast),
        T(test_breaker_is_per_backend),
        T(test_views_and_breakers),
        T(test_probation_of_who_is_in_backoff),
        T(test_waiting_max_of_the_backend),
    };

    log_init("choose_test");
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
