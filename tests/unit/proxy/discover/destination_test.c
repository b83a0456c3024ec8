/* Views: what is accepted, what is refused, what an unknown address becomes. */
#include "kit/log.h"
#include "proxy/balance/balance.h"
#include "proxy/discover/discover.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"

#include <event2/event.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct event_base *base;
static struct net *net;
static struct balance *balance;

static int up(void **state)
{
    struct net_conf nc;
    struct balance_conf bc = {.queue_capacity = 10, .pool_idle_ms = 1000};

    (void)state;
    base = event_base_new();
    nc = (struct net_conf){.base = base};
    assert_true(net_new(&nc, &net) == OK);
    bc.base = base;
    bc.net = net;
    assert_true(balance_new(&bc, &balance) == OK);
    return 0;
}

static int down(void **state)
{
    (void)state;
    assert_int_equal(balance_endpoints(balance), 0);
    net_free(&net);
    balance_free(&balance);
    event_base_free(base);
    return 0;
}

static struct wire_endpoint ep = {
    .ip = {(const uint8_t *)"10.0.0.1", 8}, .port = 80, .weight = 10000};
static struct wire_weighted share = {.backend = 0, .weight = 1};

static err_t read_view(const struct wire_destination *v, struct destination **out)
{
    struct buf b;
    err_t why;

    buf_init(&b, 0);
    assert_true(WIRE_ENCODE(destination, v, &b) == OK);
    why = destination_read(buf_slice(&b), balance, NULL, NULL, out);
    buf_done(&b); /* the version has its own copy */
    return why;
}

static void test_service(void **state)
{
    struct wire_backend be = {.namespace = SLICE_LIT("ns"),
                              .name = SLICE_LIT("web"),
                              .port = 80,
                              .n_endpoints = 1,
                              .endpoints = &ep};
    struct wire_rule rule = {.n_backends = 1, .backends = &share};
    struct wire_destination v = {.target = SLICE_LIT("10.9.9.9:80"),
                                 .revision = 3,
                                 .kind = DESTINATION_SERVICE,
                                 .n_rules = 1,
                                 .rules = &rule,
                                 .n_backends = 1,
                                 .backends = &be};
    struct destination *d;

    (void)state;
    assert_true(read_view(&v, &d) == OK);
    assert_int_equal(d->n_backends, 1);
    assert_string_equal(d->backends[0]->key, "ns/web:80");
    assert_false(d->backends[0]->is_single);
    assert_true(slice_is_str(d->view->target, "10.9.9.9:80"));
    destination_unref(&d);
}

static void test_counted(void **state)
{
    struct wire_backend be = {.namespace = SLICE_LIT("ns"),
                              .name = SLICE_LIT("web"),
                              .port = 80,
                              .n_endpoints = 1,
                              .endpoints = &ep};
    struct wire_destination v = {.target = SLICE_LIT("a:80"),
                                 .kind = DESTINATION_SERVICE,
                                 .n_backends = 1,
                                 .backends = &be};
    struct destination *d, *kept;

    (void)state;
    assert_true(read_view(&v, &d) == OK);
    kept = d;
    destination_ref(kept);
    destination_unref(&d);
    assert_int_equal(balance_endpoints(balance), 1);
    destination_unref(&kept);
}

static void test_unknown_address_is_plain(void **state)
{
    struct wire_destination v = {.target = SLICE_LIT("[fd00::7]:8080"), .revision = 9};
    struct destination *d;

    (void)state;
    assert_true(read_view(&v, &d) == OK);
    assert_int_equal(d->n_backends, 1);
    assert_true(d->backends[0]->is_single);
    assert_string_equal(d->backends[0]->set[0]->text, "[fd00::7]:8080");
    assert_int_equal(d->view->revision, 9);
    destination_unref(&d);
}

static void test_unknown_name_has_nothing(void **state)
{
    struct wire_destination v = {.target = SLICE_LIT("web:80")};
    struct destination *d;

    (void)state;
    assert_true(read_view(&v, &d) == OK);
    assert_int_equal(d->n_backends, 0);
    destination_unref(&d);
}

static void test_guess(void **state)
{
    struct sockaddr_storage a;
    struct destination *d;

    (void)state;
    assert_true(address_parse_pair(SLICE_LIT("10.1.2.3:4"), &a));
    assert_true(destination_plain("10.1.2.3:4", &a, balance, &d) == OK);
    assert_true(d->is_guess);
    assert_int_equal(d->n_backends, 1);
    assert_string_equal(d->backends[0]->key, "10.1.2.3:4");
    destination_unref(&d);
}

static void test_bad_views(void **state)
{
    struct wire_match regex = {.path_kind = 3, .path = SLICE_LIT("(")};
    struct wire_rule bad_rule = {
        .n_matches = 1, .matches = &regex, .n_backends = 1, .backends = &share};
    struct wire_weighted nowhere = {.backend = 7, .weight = 1};
    struct wire_rule bad_share = {.n_backends = 1, .backends = &nowhere};
    struct wire_backend be = {.namespace = SLICE_LIT("ns"), .name = SLICE_LIT("w"), .port = 1};
    struct wire_backend bad_state = {
        .namespace = SLICE_LIT("ns"), .name = SLICE_LIT("w"), .port = 1, .state = 9};
    const struct wire_destination rows[] = {
        {.target = SLICE_LIT("a:1"), .kind = 3},
        {.target = SLICE_LIT("a:1"), .protocol = 77},
        {.target = SLICE_LIT("a:1"),
         .kind = 1,
         .n_rules = 1,
         .rules = &bad_rule,
         .n_backends = 1,
         .backends = &be},
        {.target = SLICE_LIT("a:1"),
         .kind = 1,
         .n_rules = 1,
         .rules = &bad_share,
         .n_backends = 1,
         .backends = &be},
        {.target = SLICE_LIT("a:1"), .kind = 1, .n_backends = 1, .backends = &bad_state},
    };
    struct destination *d = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_true(read_view(&rows[i], &d) != OK);
    assert_true(destination_read(SLICE_LIT("garbage"), balance, NULL, NULL, &d) != OK);
    assert_true(destination_read(SLICE_LIT(""), balance, NULL, NULL, &d) != OK);
}

#define T(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_unknown_address_is_plain),
        T(test_unknown_name_has_nothing),
        T(test_guess),
        T(test_bad_views),
        T(test_service),
        T(test_counted),
    };

    log_init("destination_test");
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
