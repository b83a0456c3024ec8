#include "cli/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void addresses(void **state)
{
    static const struct {
        const char *net, *bridge, *bridge4, *bridge6, *services, *first, *first6, *last;
        uint32_t pods;
    } cases[] = {
        {"10.214.0.0/16", "weft0", "10.214.0.1", "fd77:6566:7400::1", "10.214.128.0/17",
         "10.214.0.2", "fd77:6566:7400::2", "10.214.127.254", 32765},
        {"10.215.0.0/16", "demo", "10.215.0.1", "fd77:ad7:10::1", "10.215.128.0/17",
         "10.215.0.2", "fd77:ad7:10::2", "10.215.127.254", 32765},
        {"10.220.16.0/20", "wt1", "10.220.16.1", "fd77:adc:1014::1", "10.220.24.0/21",
         "10.220.16.2", "fd77:adc:1014::2", "10.220.23.254", 2045},
        {"192.168.7.0/24", "a", "192.168.7.1", "fd77:c0a8:718::1", "192.168.7.128/25",
         "192.168.7.2", "fd77:c0a8:718::2", "192.168.7.126", 125},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[PLAN_ADDRESS_TEXT];
        struct trouble why;
        struct plan p;

        assert_null(plan_parse(&p, cases[i].net, cases[i].bridge, &why));
        plan_net(&p, text);
        assert_string_equal(text, cases[i].net);
        plan_bridge(&p, text);
        assert_string_equal(text, cases[i].bridge4);
        plan_bridge6(&p, text);
        assert_string_equal(text, cases[i].bridge6);
        plan_services(&p, text);
        assert_string_equal(text, cases[i].services);
        assert_int_equal(plan_pods(&p), cases[i].pods);
        plan_pod(&p, 0, text);
        assert_string_equal(text, cases[i].first);
        plan_pod6(&p, 0, text);
        assert_string_equal(text, cases[i].first6);
        plan_pod(&p, plan_pods(&p) - 1, text);
        assert_string_equal(text, cases[i].last);
    }
}

static void refuses(void **state)
{
    static const struct {
        const char *net, *bridge;
    } bad[] = {
        {"10.214.0.0", "weft0"},
        {"10.214.0.0/", "weft0"},
        {"10.214.0.0/8", "weft0"},
        {"10.214.0.0/25", "weft0"},
        {"10.214.1.0/16", "weft0"},
        {"10.214.0.0/16x", "weft0"},
        {"10.214.0.0/-16", "weft0"},
        {"10.214/16", "weft0"},
        {"fd00::/16", "weft0"},
        {"", "weft0"},
        {"/16", "weft0"},
        {"10.214.0.0/16", ""},
        {"10.214.0.0/16", "weft"},
        {"10.214.0.0/16", "br-0"},
        {"10.214.0.0/16", "Weft0"},
        {"10.214.0.0/16", "0weft"},
        {"10.214.0.0/16", "a/b"},
        {"10.214.0.0/16", "abcdefghijkl"},
        {"10.214.0.0/16", "a b"},
        {"10.214.0.0/99999999999", "weft0"},
        {"1111111111111111111111111111111111111111.0.0.0/16", "weft0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct plan p = {.prefix = 99};
        struct trouble why = {{0}};

        assert_ptr_equal(plan_parse(&p, bad[i].net, bad[i].bridge, &why), ERR_OF(USAGE));
        assert_int_equal(p.prefix, 99); /* written on success only */
        assert_true(why.text[0] != '\0');
    }
}

/* The name of one mesh's namespace must never look like another's: sweeping goes by the prefix.
 */
static void names(void **state)
{
    char netns[256], prefix[32], table[32];
    struct plan a, b;
    struct trouble why;

    (void)state;
    assert_null(plan_parse(&a, PLAN_DEFAULT_NET, PLAN_DEFAULT_BRIDGE, &why));
    assert_null(plan_parse(&b, "10.220.0.0/16", "weft01", &why));
    plan_netns(&a, "default", "web-1", netns);
    assert_string_equal(netns, "weft-default-web-1");
    plan_table(&a, table);
    assert_string_equal(table, "weft");
    plan_netns_prefix(&b, prefix);
    assert_string_equal(prefix, "weft01-");
    assert_int_not_equal(strncmp(netns, prefix, strlen(prefix)), 0);
    plan_netns(&b, "default", "web-1", netns);
    plan_netns_prefix(&a, prefix);
    assert_int_not_equal(strncmp(netns, prefix, strlen(prefix)), 0);
    plan_table(&b, table);
    assert_string_equal(table, "weft_weft01");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),
        cmocka_unit_test(refuses),
        cmocka_unit_test(names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
