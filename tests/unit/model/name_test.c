/* Names of identities and targets, and many things that are not. */
#include "model/name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_labels_and_hosts(void **state)
{
    static const struct {
        const char *text;
        bool is_label, is_host, is_pattern;
    } cases[] = {
        {"a", true, true, true},        {"a-b", true, true, true},
        {"0a", true, true, true},       {"", false, false, false},
        {"-a", false, false, false},    {"a-", false, false, false},
        {"A", false, false, false},     {"a_b", false, false, false},
        {"a.b", false, true, true},     {"a..b", false, false, false},
        {".a", false, false, false},    {"a.", false, false, false},
        {"*.a", false, false, true},    {"*.a.b", false, false, true},
        {"*", false, false, false},     {"*.", false, false, false},
        {"a.*.b", false, false, false}, {"*a.b", false, false, false},
        {"a b", false, false, false},   {"\xc3\xa9", false, false, false},
    };
    char long_label[65], long_host[300];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(name_is_label(slice_str(cases[i].text)), cases[i].is_label);
        assert_int_equal(name_is_host(slice_str(cases[i].text)), cases[i].is_host);
        assert_int_equal(name_is_host_or_wildcard(slice_str(cases[i].text)),
                         cases[i].is_pattern);
    }
    memset(long_label, 'a', sizeof(long_label));
    assert_true(name_is_label(slice(long_label, 63)));
    assert_false(name_is_label(slice(long_label, 64)));
    for (size_t i = 0; i < sizeof(long_host); i++)
        long_host[i] = i % 2 ? '.' : 'a';
    assert_true(name_is_host(slice(long_host, 253)));
    assert_false(name_is_host(slice(long_host, 255)));
}

static void test_tokens_and_addresses(void **state)
{
    (void)state;
    assert_true(name_is_token(SLICE_LIT("x-Y_1!"), 10));
    assert_false(name_is_token(SLICE_LIT(""), 10));
    assert_false(name_is_token(SLICE_LIT("a b"), 10));
    assert_false(name_is_token(SLICE_LIT("a:b"), 10));
    assert_false(name_is_token(slice("a\0b", 3), 10));
    assert_false(name_is_token(SLICE_LIT("abc"), 2));
    assert_true(name_is_ip(SLICE_LIT("10.0.0.1")));
    assert_true(name_is_ip(SLICE_LIT("fd77:6566::1")));
    assert_false(name_is_ip(SLICE_LIT("10.0.0.256")));
    assert_false(name_is_ip(SLICE_LIT("10.0.0")));
    assert_false(name_is_ip(SLICE_LIT("[::1]")));
    assert_false(name_is_ip(SLICE_LIT("fe80::1%eth0")));
}

static void test_identities(void **state)
{
    static const char *const bad[] = {
        "",
        "web",
        "web.default.serviceaccount.identity.weft",
        "default.serviceaccount.identity.weft.cluster.local",
        ".default.serviceaccount.identity.weft.cluster.local",
        "web.default.serviceaccount.identity..cluster.local",
        "web.default.serviceaccount.weft.cluster.local",
        "Web.default.serviceaccount.identity.weft.cluster.local",
        "web.default.serviceaccount.identity.weft.cluster.local.",
        "*.default.serviceaccount.identity.weft.cluster.local",
    };
    struct name_identity parts = {SLICE_LIT("web"), SLICE_LIT("default"), SLICE_LIT("weft"),
                                  SLICE_LIT("cluster.local")};
    struct name_identity got;
    char text[NAME_MAX_HOST + 1], big[200];

    (void)state;
    assert_ptr_equal(name_identity_make(&parts, text), OK);
    assert_string_equal(text, "web.default.serviceaccount.identity.weft.cluster.local");
    assert_ptr_equal(name_identity_parse(slice_str(text), &got), OK);
    assert_true(slice_is_str(got.service_account, "web"));
    assert_true(slice_is_str(got.namespace, "default"));
    assert_true(slice_is_str(got.control_namespace, "weft"));
    assert_true(slice_is_str(got.trust_domain, "cluster.local"));
    assert_ptr_equal(
        name_identity_parse(SLICE_LIT("a.b.c.ns.serviceaccount.identity.weft.td"), &got), OK);
    assert_true(slice_is_str(got.service_account, "a.b.c"));
    assert_true(slice_is_str(got.trust_domain, "td"));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (name_identity_parse(slice_str(bad[i]), &got) != ERR_OF(MODEL_NAME))
            fail_msg("%s was accepted", bad[i]);
    parts.namespace = SLICE_LIT("a.b");
    assert_ptr_equal(name_identity_make(&parts, text), ERR_OF(MODEL_NAME));
    parts.namespace = SLICE_LIT("ns");
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = i % 2 ? '.' : 'a';
    parts.service_account = slice(big, 199);
    parts.trust_domain = slice(big, 199);
    assert_ptr_equal(name_identity_make(&parts, text), ERR_OF(MODEL_NAME));
}

static void test_targets(void **state)
{
    static const struct {
        const char *text, *want; /* canonical form, or NULL */
        enum name_target_kind kind;
    } cases[] = {
        {"10.0.0.1:80", "10.0.0.1:80", NAME_TARGET_IP},
        {"10.0.0.1", "10.0.0.1:7", NAME_TARGET_IP},
        {"[fd77:0::1]:80", "[fd77::1]:80", NAME_TARGET_IP},
        {"[::1]", "[::1]:7", NAME_TARGET_IP},
        {"web:80", "web.prod.svc.cluster.local:80", NAME_TARGET_SERVICE},
        {"WEB:80", "web.prod.svc.cluster.local:80", NAME_TARGET_SERVICE},
        {"web.:80", "web.prod.svc.cluster.local:80", NAME_TARGET_SERVICE},
        {"web", "web.prod.svc.cluster.local:7", NAME_TARGET_SERVICE},
        {"web.ns:80", "web.ns.svc.cluster.local:80", NAME_TARGET_SERVICE},
        {"web.ns.svc:80", "web.ns.svc.cluster.local:80", NAME_TARGET_SERVICE},
        {"web.ns.svc.cluster.local:80", "web.ns.svc.cluster.local:80", NAME_TARGET_SERVICE},
        {"web.ns.svc.cluster.local.:80", "web.ns.svc.cluster.local:80", NAME_TARGET_SERVICE},
        {"a.b.c:80", "a.b.c:80", NAME_TARGET_HOST},
        {"web.ns.svc.other.local:80", "web.ns.svc.other.local:80", NAME_TARGET_HOST},
        {"1a.ns:65535", "1a.ns.svc.cluster.local:65535", NAME_TARGET_SERVICE},
        {"", NULL, 0},
        {":80", NULL, 0},
        {"web:", NULL, 0},
        {"web:0", NULL, 0},
        {"web:65536", NULL, 0},
        {"web:99999999999", NULL, 0},
        {"web:+80", NULL, 0},
        {"web:8a", NULL, 0},
        {"web:80:81", NULL, 0},
        {"we b:80", NULL, 0},
        {"web/x:80", NULL, 0},
        {"user@web:80", NULL, 0},
        {"10.0.0.256:80", NULL, 0},
        {"10.0.0:80", NULL, 0},
        {"1:80", NULL, 0},
        {"[10.0.0.1]:80", NULL, 0},
        {"[::1:80", NULL, 0},
        {"[::1]80", NULL, 0},
        {"[::1]:", NULL, 0},
        {"[]:80", NULL, 0},
        {"::1:80", NULL, 0},
        {"[web]:80", NULL, 0},
        {"..:80", NULL, 0},
        {".:80", NULL, 0},
    };
    struct name_target t;
    char text[NAME_TARGET_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        err_t e = name_target_parse(slice_str(cases[i].text), SLICE_LIT("prod"), 7, &t);

        if ((e == OK) != (cases[i].want != NULL))
            fail_msg("%s: %s", cases[i].text, e == OK ? "accepted" : e->name);
        if (e != OK)
            continue;
        name_target_format(&t, text);
        assert_string_equal(text, cases[i].want);
        assert_int_equal(t.kind, cases[i].kind);
    }
    assert_ptr_equal(name_target_parse(SLICE_LIT("web"), SLICE_LIT("prod"), 0, &t),
                     ERR_OF(MODEL_NAME));
    assert_ptr_equal(name_target_parse(slice("a\0b:80", 6), SLICE_LIT("prod"), 0, &t),
                     ERR_OF(MODEL_NAME));
    assert_ptr_equal(name_target_parse(SLICE_LIT("web:80"), SLICE_LIT(""), 0, &t), OK);
    assert_int_equal(t.kind, NAME_TARGET_HOST); /* no namespace to look in */
}

static void test_host_of(void **state)
{
    (void)state;
    assert_true(slice_is_str(name_host_of(SLICE_LIT("a.b:80")), "a.b"));
    assert_true(slice_is_str(name_host_of(SLICE_LIT("a.b.")), "a.b"));
    assert_true(slice_is_str(name_host_of(SLICE_LIT("[::1]:80")), "::1"));
    assert_true(slice_is_str(name_host_of(SLICE_LIT("::1")), "::1"));
    assert_true(slice_is_str(name_host_of(SLICE_LIT(".")), "."));
    assert_int_equal(name_host_of(slice(NULL, 0)).n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels_and_hosts), cmocka_unit_test(test_tokens_and_addresses),
        cmocka_unit_test(test_identities),       cmocka_unit_test(test_targets),
        cmocka_unit_test(test_host_of),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
