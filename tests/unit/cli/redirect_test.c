#include "cli/redirect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static bool printed(const struct redirect_conf *c, const char *needle)
{
    struct trouble why = {{0}};
    struct buf b;
    bool found;

    buf_init(&b, 0);
    assert_null(redirect_print(c, &b, &why));
    assert_null(buf_add(&b, "", 1));
    found = strstr((const char *)buf_slice(&b).p, needle) != NULL;
    buf_done(&b);
    return found;
}

static void ports(void **state)
{
    static const struct {
        const char *list, *want;
    } cases[] = {
        {"", "tcp dport { 4191 } return"},
        {"80", "tcp dport { 80, 4191 } return"},
        {"4191", "tcp dport { 4191 } return"},
        {"4190,4191,4192", "tcp dport { 4190-4192 } return"},
        {"9000-9010,9005-9020", "tcp dport { 4191, 9000-9020 } return"},
        {"65535,1", "tcp dport { 1, 4191, 65535 } return"},
        {"1-65535", "tcp dport { 1-65535 } return"},
    };
    static const char *const bad[] = {",",
                                      "80,",
                                      ",80",
                                      "80,,81",
                                      "0",
                                      "65536",
                                      "90-80",
                                      "-80",
                                      "80-",
                                      "80-90-100",
                                      "http",
                                      " 80",
                                      "80 ",
                                      "+80",
                                      "0x50",
                                      "80;",
                                      "80}",
                                      "1-65536",
                                      "99999999999999999999"};
    struct redirect_conf c;

    (void)state;
    redirect_conf_default(&c);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        c.skip_inbound = cases[i].list;
        assert_true(printed(&c, cases[i].want));
    }
    redirect_conf_default(&c);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct trouble why = {{0}};
        struct buf b;

        buf_init(&b, 0);
        c.skip_outbound = bad[i];
        assert_ptr_equal(redirect_print(&c, &b, &why), ERR_OF(USAGE));
        buf_done(&b);
    }
}

static void parts(void **state)
{
    struct redirect_conf c;
    struct trouble why = {{0}};
    struct buf b;

    (void)state;
    redirect_conf_default(&c);
    c.skip_outbound = "";
    assert_true(printed(&c, "meta skuid 2102 return"));
    assert_true(printed(&c, "oifname \"lo\" return"));
    assert_true(printed(&c, "meta l4proto tcp redirect to :4140"));
    assert_true(printed(&c, "meta l4proto tcp redirect to :4143"));
    assert_false(printed(&c, "nfproto ipv6"));
    assert_false(printed(&c, "{  }"));
    c.ipv6 = false;
    c.uid = 7;
    assert_true(printed(&c, "meta nfproto ipv6 return"));
    assert_true(printed(&c, "meta skuid 7 return"));
    buf_init(&b, 0);
    c.inbound_port = c.outbound_port;
    assert_ptr_equal(redirect_print(&c, &b, &why), ERR_OF(USAGE));
    c.inbound_port = 0;
    assert_ptr_equal(redirect_print(&c, &b, &why), ERR_OF(USAGE));
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports),
        cmocka_unit_test(parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
