#include "proxy/exchange/admit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static unsigned told;
static uint16_t told_port;

static void on_pressure(void *arg, uint16_t port)
{
    (void)arg;
    told++;
    told_port = port;
}

static struct admit *make(uint32_t percent, uint32_t workers)
{
    struct admit_conf conf = {.percent = percent, .workers = workers, .on_pressure = on_pressure};
    struct admit *a = NULL;

    told = 0;
    assert_true(admit_new(&conf, &a) == OK);
    return a;
}

static unsigned taken(struct admit *a, uint16_t port, unsigned n, uint64_t now)
{
    unsigned k = 0;

    for (unsigned i = 0; i < n; i++)
        k += admit_take(a, port, 2 + i % 3, now);
    return k;
}

static void the_share_and_the_least(void **state)
{
    struct admit *a = make(20, 1);

    (void)state;
    assert_int_equal(taken(a, 80, 1000, 5000), 100); /* 10 a second over 10 s */
    assert_int_equal(told, 1);
    assert_int_equal(told_port, 80);
    for (int i = 0; i < 1000; i++)
        assert_true(admit_take(a, 80, 1, 6000)); /* first attempts always are taken */
    assert_int_equal(taken(a, 80, 1000, 6000), 200);
    assert_int_equal(told, 1); /* not again so soon */
    assert_int_equal(taken(a, 81, 10, 6000), 10); /* another port */
    admit_free(&a);
}

/* What is older than the window does not count, in either direction. */
static void the_window(void **state)
{
    struct admit *a = make(20, 1);

    (void)state;
    assert_int_equal(taken(a, 80, 200, 1000), 100);
    assert_int_equal(taken(a, 80, 200, 10999), 0);
    assert_int_equal(taken(a, 80, 200, 11000), 100);
    assert_int_equal(told, 2);
    assert_int_equal(taken(a, 80, 200, 5000000), 100);
    for (int i = 0; i < 100; i++)
        (void)admit_take(a, 80, 1, 5000000);
    assert_int_equal(taken(a, 80, 200, 5009000), 20);
    assert_int_equal(taken(a, 80, 200, 5010000), 80); /* and the 20 of a second ago */
    admit_free(&a);
}

static void workers_and_off(void **state)
{
    struct admit *a = make(20, 4);

    (void)state;
    assert_int_equal(taken(a, 80, 1000, 5000), 25);
    admit_free(&a);
    a = make(0, 1);
    assert_int_equal(taken(a, 80, 1000, 5000), 1000);
    assert_int_equal(told, 0);
    admit_free(&a);
}

static void many_ports(void **state)
{
    struct admit *a = make(20, 1);

    (void)state;
    for (uint16_t port = 1; port <= 100; port++)
        assert_true(admit_take(a, port, 1, 1000));
    assert_int_equal(taken(a, 1, 1000, 1000), 100);
    assert_int_equal(taken(a, 100, 1000, 1000), 113); /* 69 ports in one */
    assert_int_equal(taken(a, 99, 1000, 1000), 0);
    admit_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_share_and_the_least),
        cmocka_unit_test(the_window),
        cmocka_unit_test(workers_and_off),
        cmocka_unit_test(many_ports),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
