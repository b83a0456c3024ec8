/* Policies of ports: total, identities, overrides, changes while they are used. */
#include "proxy/limit/limit.h"

#include "proxy/limit/gcra.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define S    GCRA_SECOND
#define BILL "bill.default.serviceaccount.identity.weft.cluster.local"
#define ANNA "anna.default.serviceaccount.identity.weft.cluster.local"

struct rig {
    struct limit_shared *shared;
    struct limits *limits;
    struct limit_port *port;
    uint64_t now;
    struct limit_refusal why;
};

static void up(struct rig *r)
{
    *r = (struct rig){.now = 1000 * S};
    assert_true(limit_shared_open(-1, 0, &r->shared) == OK);
    assert_true(limits_new(r->shared, &r->limits) == OK);
    r->port = limits_port(r->limits, 8080);
    assert_non_null(r->port);
}

static void down(struct rig *r)
{
    limit_port_drop(&r->port);
    assert_null(r->port);
    limit_port_drop(&r->port);
    limits_free(&r->limits);
    limit_shared_close(&r->shared);
}

static void set(struct rig *r, uint32_t total, uint32_t identity, uint32_t override,
                const char *client)
{
    struct wire_host_match client_of = {.host = slice_str(client)};
    struct wire_rate_override o = {.per_s = override, .clients = &client_of, .n_clients = 1};
    struct wire_rate_limit limit = {.policy = SLICE_LIT("HTTPLocalRateLimitPolicy/default/web"),
                                    .total_per_s = total,
                                    .identity_per_s = identity,
                                    .overrides = &o,
                                    .n_overrides = client != NULL ? 1 : 0};
    struct wire_served served = {
        .service = SLICE_LIT("web"), .port = 8080, .n_rate_limits = 1, .rate_limits = &limit};
    struct wire_ports m = {.n_ports = 1, .ports = &served};

    limits_set_ports(r->limits, &m);
}

static unsigned ask(struct rig *r, const char *identity, unsigned times)
{
    struct limit_client c = {.serial = 0};
    unsigned n = 0;

    for (unsigned i = 0; i < times; i++)
        n += limit_admit(r->port, &c, slice_str(identity), r->now, &r->why);
    return n;
}

static void test_total(void **state)
{
    struct rig r;

    (void)state;
    up(&r);
    assert_null(r.port->rate);
    set(&r, 10, 0, 0, NULL);
    assert_non_null(r.port->rate);
    assert_int_equal(ask(&r, ANNA, 6), 6);
    assert_int_equal(ask(&r, "", 6), 4);
    assert_int_equal(r.why.scope, LIMIT_TOTAL);
    assert_true(slice_is_str(r.why.policy, "HTTPLocalRateLimitPolicy/default/web"));
    assert_int_equal(r.why.per_s, 10);
    assert_int_equal(r.why.retry_after_s, 1);
    r.now += S / 2;
    assert_int_equal(ask(&r, BILL, 100), 5);
    down(&r);
}

static void test_identities(void **state)
{
    struct rig r;

    (void)state;
    up(&r);
    set(&r, 0, 3, 0, NULL);
    assert_int_equal(ask(&r, ANNA, 9), 3);
    assert_int_equal(r.why.scope, LIMIT_IDENTITY);
    assert_int_equal(ask(&r, BILL, 9), 3);
    /* All who have no identity share one bucket. */
    assert_int_equal(ask(&r, "", 2), 2);
    assert_int_equal(ask(&r, "", 9), 1);
    down(&r);
}

static void test_overrides(void **state)
{
    static const struct {
        const char *client, *identity;
        unsigned n;
    } cases[] = {
        {BILL, BILL, 5},
        {BILL, ANNA, 2},
        {BILL, "", 2},
        {"*.cluster.local", BILL, 5},
        {"*.cluster.local", "", 2},
        {"*.elsewhere", BILL, 2},
        {"*", BILL, 2}, /* no pattern of ours */
        {"bill", BILL, 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig r;

        up(&r);
        set(&r, 0, 2, 5, cases[i].client);
        assert_int_equal(ask(&r, cases[i].identity, 20), cases[i].n);
        assert_int_equal(r.why.per_s, cases[i].n);
        down(&r);
    }
}

/* An override is instead of the rate of an identity, never of the total. */
static void test_override_and_total(void **state)
{
    struct rig r;

    (void)state;
    up(&r);
    set(&r, 4, 1, 100, BILL);
    assert_int_equal(ask(&r, BILL, 50), 4);
    assert_int_equal(r.why.scope, LIMIT_TOTAL);
    down(&r);
}

static void test_greedy_client_starves_nobody(void **state)
{
    struct rig r;

    (void)state;
    up(&r);
    set(&r, 10, 2, 0, NULL);
    assert_int_equal(ask(&r, ANNA, 1000), 2);
    assert_int_equal(r.why.scope, LIMIT_IDENTITY);
    assert_int_equal(ask(&r, BILL, 2), 2);
    assert_int_equal(ask(&r, "", 2), 2);
    down(&r);
}

static void test_retry_after(void **state)
{
    struct rig r;

    (void)state;
    up(&r);
    set(&r, 1, 0, 0, NULL);
    assert_int_equal(ask(&r, "", 1), 1);
    assert_int_equal(ask(&r, "", 1), 0);
    assert_int_equal(r.why.retry_after_s, 1);
    r.now += S - 1;
    assert_int_equal(ask(&r, "", 1), 0);
    assert_int_equal(r.why.retry_after_s, 1); /* a nanosecond is a second, too */
    r.now += 1;
    assert_int_equal(ask(&r, "", 1), 1);
    down(&r);
}

static void test_changes(void **state)
{
    struct wire_ports none = {.n_ports = 0};
    struct limit_client c = {.serial = 0};
    struct rig r;

    (void)state;
    up(&r);
    set(&r, 0, 2, 0, NULL);
    while (limit_admit(r.port, &c, SLICE_LIT(ANNA), r.now, &r.why))
        ;
    /* The same connection, another rate: what was used stays used. */
    set(&r, 0, 1000, 0, NULL);
    assert_false(limit_admit(r.port, &c, SLICE_LIT(ANNA), r.now, &r.why));
    assert_int_equal(r.why.per_s, 1000);
    r.now += S / 1000;
    assert_true(limit_admit(r.port, &c, SLICE_LIT(ANNA), r.now, &r.why));
    limits_set_ports(r.limits, &none);
    assert_null(r.port->rate);
    set(&r, 0, 5, 0, NULL);
    assert_non_null(r.port->rate);
    down(&r);
}

static void test_connections_of_a_port(void **state)
{
    struct wire_served served = {.port = 8080, .connections_max = 2};
    struct wire_ports m = {.n_ports = 1, .ports = &served};
    struct limit_port *again;
    struct rig r;

    (void)state;
    up(&r);
    assert_null(r.port->connections);
    limits_set_ports(r.limits, &m);
    assert_int_equal(r.port->connections_max, 2);
    assert_non_null(r.port->connections);
    again = limits_port(r.limits, 8080);
    assert_ptr_equal(again, r.port);
    limit_port_drop(&again);
    served.connections_max = 0;
    limits_set_ports(r.limits, &m);
    assert_int_equal(r.port->connections_max, 0);
    down(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_total),
        cmocka_unit_test(test_identities),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_override_and_total),
        cmocka_unit_test(test_greedy_client_starves_nobody),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_connections_of_a_port),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
