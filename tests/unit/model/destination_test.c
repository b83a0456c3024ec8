/* Views from services and routes: who wins, what is inherited, what is missing. */
#include "model/destination.h"
#include "model/manifest.h"
#include "model/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MAX 8

/* The world of a test: objects from YAML (the first is the service), endpoints for what lookup
 * is asked. */
struct world {
    struct resource *all[MAX];
    const struct resource *routes[MAX];
    size_t n, n_routes;
    struct wire_endpoint endpoint;
    unsigned lookups;
};

static void lookup(void *arg, slice_t namespace, slice_t name, uint16_t port,
                   struct destination_backend *out)
{
    struct world *w = arg;

    (void)namespace;
    w->lookups++;
    out->exists = !slice_is_str(name, "gone") && port != 999;
    out->service = slice_is_str(name, "web") ? &w->all[0]->service : NULL;
    out->protocol = PROTOCOL_HTTP2;
    out->endpoints = &w->endpoint;
    out->n_endpoints = 1;
}

static void read_world(struct world *w, const char *yaml)
{
    struct manifest *m = NULL;
    struct why why;

    memset(w, 0, sizeof(*w));
    w->endpoint.ip = SLICE_LIT("10.0.0.1");
    w->endpoint.port = 8080;
    if (manifest_parse(slice_str(yaml), &m, &why) != OK)
        fail_msg("%s", why.reason);
    for (; w->n < m->n; w->n++) {
        if (resource_parse(m->objects[w->n].json, SLICE_LIT("prod"), &w->all[w->n], &why) != OK)
            fail_msg("%s: %s", why.path, why.reason);
        w->all[w->n]->created = 100 - w->n; /* later in the text: older */
        if (w->n > 0)
            w->routes[w->n_routes++] = w->all[w->n];
    }
    manifest_free(&m);
}

static const struct fault_injection *find_fault(void *arg, slice_t namespace, slice_t name)
{
    struct world *w = arg;

    for (size_t i = 0; i < w->n; i++)
        if (w->all[i]->kind == RESOURCE_FAULT_INJECTION && slice_is(w->all[i]->name, name) &&
            slice_is(w->all[i]->namespace, namespace))
            return &w->all[i]->fault;
    return NULL;
}

static void free_world(struct world *w)
{
    for (size_t i = 0; i < w->n; i++)
        resource_free(&w->all[i]);
}

static void build(struct world *w, const char *client, struct arena *arena,
                  struct wire_destination *d)
{
    struct destination_input in = {.target = SLICE_LIT("web.prod.svc.cluster.local:80"),
                                   .service = w->all[0],
                                   .port = 80,
                                   .said_protocol = PROTOCOL_HTTP1,
                                   .client_namespace = slice_str(client),
                                   .routes = w->routes,
                                   .n_routes = w->n_routes,
                                   .fault = find_fault,
                                   .lookup = lookup,
                                   .arg = w};
    struct route_table *t = NULL;
    AUTO(buf_done) struct buf b;
    char why[160];

    arena_init(arena, 0);
    assert_ptr_equal(destination_build(&in, arena, d), OK);
    /* Whatever is built can be sent and used. */
    buf_init(&b, 0);
    assert_ptr_equal(WIRE_ENCODE(destination, d, &b), OK);
    assert_ptr_equal(route_table_new(d, &t, why), OK);
    route_table_free(&t);
}

#define SERVICE(annotations)                                                                   \
    "apiVersion: v1\nkind: Service\nmetadata: {name: web, annotations: {" annotations "}}\n"   \
    "spec: {ports: [{port: 80, name: a}, {port: 81, name: b, appProtocol: grpc}]}\n"
#define ROUTE(name, ns, annotations, rules)                                                    \
    "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: " name   \
    ", namespace: " ns ", annotations: {" annotations "}}\nspec:\n"                            \
    "  parentRefs: [{kind: Service, name: web, namespace: prod}]\n  rules: [" rules "]\n"

static void test_no_routes(void **state)
{
    struct world w;
    struct wire_destination d;
    struct arena arena;

    (void)state;
    read_world(&w, SERVICE("timeout.linkerd.io/request: 5s, retry.linkerd.io/http: 5xx"));
    build(&w, "prod", &arena, &d);
    assert_int_equal(d.kind, 1);
    assert_int_equal(d.protocol, PROTOCOL_HTTP1); /* the pods: the port does not say */
    assert_int_equal(d.n_backends, 1);
    assert_int_equal(d.backends[0].state, ROUTE_BACKEND_EXISTS);
    assert_int_equal(d.backends[0].n_endpoints, 1);
    assert_int_equal(d.n_rules, 1);
    assert_int_equal(d.rules[0].route.n, 0);
    assert_int_equal(d.rules[0].n_matches, 0);
    assert_int_equal(d.rules[0].n_backends, 1);
    assert_int_equal(d.rules[0].request_ms, 5000);
    assert_true(d.rules[0].has_retry);
    assert_int_equal(d.rules[0].retry[0].limit, 1);
    arena_done(&arena);
    free_world(&w);
}

static void test_order_and_backends(void **state)
{
    struct world w;
    struct wire_destination d;
    struct arena arena;

    (void)state;
    read_world(
        &w, SERVICE("") ROUTE(
                "young", "prod", "",
                "{backendRefs: [{name: gone, port: 1, weight: 2}, {name: web, port: 80}]}, {}")
                ROUTE("old", "prod", "",
                      "{backendRefs: [{name: v2, port: 1}, {name: v2, port: 999}, {name: v2, "
                      "port: 1}]}"));
    build(&w, "prod", &arena, &d);
    assert_int_equal(d.n_rules, 3); /* no default rule beside routes */
    assert_true(slice_is_str(d.rules[0].route, "HTTPRoute/prod/old"));
    assert_true(slice_is_str(d.rules[1].route, "HTTPRoute/prod/young"));
    assert_int_equal(d.rules[2].index, 1);
    assert_int_equal(d.n_backends, 4); /* web, v2:1, v2:999, gone */
    assert_int_equal(w.lookups, 4);
    assert_int_equal(d.rules[0].backends[0].backend, 1);
    assert_int_equal(d.rules[0].backends[2].backend, 1);
    assert_int_equal(d.backends[2].state, ROUTE_BACKEND_MISSING);
    assert_int_equal(d.backends[2].n_endpoints, 0);
    assert_int_equal(d.rules[1].backends[0].backend, 3);
    assert_int_equal(d.rules[1].backends[0].weight, 2);
    assert_int_equal(d.backends[3].state, ROUTE_BACKEND_MISSING);
    assert_int_equal(d.rules[1].backends[1].backend, 0);
    assert_int_equal(d.rules[2].backends[0].backend, 0); /* no backendRefs: the parent */
    arena_done(&arena);
    free_world(&w);
}

static void test_consumer_routes(void **state)
{
    static const struct {
        const char *client;
        const char *route;
        size_t n_rules;
    } cases[] = {
        {"prod", "HTTPRoute/prod/producer", 1},
        {"shop", "HTTPRoute/shop/consumer", 2},
        {"other", "HTTPRoute/prod/producer", 1},
        {"", "HTTPRoute/prod/producer", 1},
    };
    struct world w;

    (void)state;
    read_world(&w, SERVICE("") ROUTE("producer", "prod", "", "{}")
                       ROUTE("consumer", "shop", "", "{}, {}"));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire_destination d;
        struct arena arena;

        build(&w, cases[i].client, &arena, &d);
        assert_int_equal(d.n_rules, cases[i].n_rules);
        assert_true(slice_is_str(d.rules[0].route, cases[i].route));
        arena_done(&arena);
    }
    free_world(&w);
}

static void test_inheritance(void **state)
{
    static const struct {
        const char *name, *service, *route, *rule;
        uint32_t request, backend, idle;
        int limit; /* -1: no retry */
    } cases[] = {
        {"nothing", "", "", "{}", 0, 0, 0, -1},
        {"from the service",
         "timeout.linkerd.io/request: 1s, timeout.linkerd.io/idle: 2s, retry.linkerd.io/limit: "
         "'5'",
         "", "{}", 1000, 0, 2000, 5},
        {"one annotation of the route replaces all timeouts",
         "timeout.linkerd.io/request: 1s, timeout.linkerd.io/idle: 2s, retry.linkerd.io/limit: "
         "'5'",
         "timeout.linkerd.io/response: 3s", "{}", 0, 3000, 0, 5},
        {"one of retries all retries",
         "timeout.linkerd.io/request: 1s, retry.linkerd.io/limit: '5'",
         "retry.linkerd.io/http: 5xx", "{}", 1000, 0, 0, 1},
        {"the rule's stanza replaces the service's",
         "timeout.linkerd.io/request: 1s, timeout.linkerd.io/idle: 2s", "",
         "{timeouts: {backendRequest: 4s}}", 0, 4000, 0, -1},
        {"the annotation wins over the stanza", "", "timeout.linkerd.io/request: 1s",
         "{timeouts: {request: 9s}}", 1000, 0, 0, -1},
        {"an explicit 0 too", "", "timeout.linkerd.io/request: '0'",
         "{timeouts: {request: 9s}}", 0, 0, 0, -1},
        {"idle beside the stanza", "", "timeout.linkerd.io/idle: 7s",
         "{timeouts: {request: 9s}}", 9000, 0, 7000, -1},
        {"the shorter one for an attempt", "", "timeout.linkerd.io/response: 3s",
         "{timeouts: {backendRequest: 2s}}", 0, 2000, 0, -1},
        {"the stanza's retry wins", "", "retry.linkerd.io/limit: '5'", "{retry: {attempts: 2}}",
         0, 0, 0, 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char yaml[2048];
        struct world w;
        struct wire_destination d;
        struct arena arena;

        (void)snprintf(yaml, sizeof(yaml), SERVICE("%s") ROUTE("r", "prod", "%s", "%s"),
                       cases[i].service, cases[i].route, cases[i].rule);
        read_world(&w, yaml);
        build(&w, "prod", &arena, &d);
        if (d.rules[0].request_ms != cases[i].request ||
            d.rules[0].backend_ms != cases[i].backend || d.rules[0].idle_ms != cases[i].idle ||
            d.rules[0].has_retry != (cases[i].limit >= 0))
            fail_msg("%s: %u %u %u %d", cases[i].name, d.rules[0].request_ms,
                     d.rules[0].backend_ms, d.rules[0].idle_ms, (int)d.rules[0].has_retry);
        if (cases[i].limit >= 0)
            assert_int_equal(d.rules[0].retry[0].limit, cases[i].limit);
        arena_done(&arena);
        free_world(&w);
    }
}

static void test_attachment(void **state)
{
    struct world w;

    (void)state;
    read_world(
        &w,
        SERVICE("") "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: "
                    "{name: r}\nspec:\n"
                    "  parentRefs: [{kind: Service, name: web, port: 81}]\n  rules: [{}]\n");
    assert_true(destination_is_attached(w.all[1], SLICE_LIT("prod"), SLICE_LIT("web"), 81));
    assert_false(destination_is_attached(w.all[1], SLICE_LIT("prod"), SLICE_LIT("web"), 80));
    assert_false(destination_is_attached(w.all[1], SLICE_LIT("prod"), SLICE_LIT("api"), 81));
    assert_false(destination_is_attached(w.all[1], SLICE_LIT("shop"), SLICE_LIT("web"), 81));
    assert_false(destination_is_attached(w.all[0], SLICE_LIT("prod"), SLICE_LIT("web"), 81));
    free_world(&w);
}

static void test_addresses(void **state)
{
    struct wire_endpoint e = {.ip = SLICE_LIT("10.0.0.1"), .port = 80};
    struct wire_destination d;
    AUTO(arena_done) struct arena arena;
    struct route_table *t = NULL;
    char why[160];

    (void)state;
    arena_init(&arena, 0);
    assert_ptr_equal(
        destination_of_address(SLICE_LIT("10.0.0.1:80"), &e, PROTOCOL_OPAQUE, &arena, &d), OK);
    assert_int_equal(d.kind, 2);
    assert_int_equal(d.protocol, PROTOCOL_OPAQUE);
    assert_int_equal(d.backends[0].n_endpoints, 1);
    assert_ptr_equal(route_table_new(&d, &t, why), OK);
    route_table_free(&t);
    assert_ptr_equal(
        destination_of_address(SLICE_LIT("1.1.1.1:80"), NULL, PROTOCOL_DETECT, &arena, &d), OK);
    assert_int_equal(d.kind, 0);
    assert_int_equal(d.n_rules, 0);
}

static void test_too_much(void **state)
{
    struct world w;
    struct wire_destination d;
    AUTO(arena_done) struct arena arena;
    const struct resource *many[600];
    struct destination_input in = {
        .port = 80, .lookup = lookup, .arg = &w, .routes = many, .n_routes = 600};

    (void)state;
    read_world(&w, SERVICE("") ROUTE("r", "prod", "", "{}"));
    for (size_t i = 0; i < 600; i++)
        many[i] = w.all[1];
    in.service = w.all[0];
    arena_init(&arena, 0);
    assert_ptr_equal(destination_build(&in, &arena, &d), ERR_OF(MODEL_LIMIT));
    in.n_routes = 512;
    assert_ptr_equal(destination_build(&in, &arena, &d), OK);
    free_world(&w);
}

#define KIND(version, kind, name, ns, spec)                                                    \
    "---\napiVersion: " version "\nkind: " kind "\nmetadata: {name: " name ", namespace: " ns  \
    "}\nspec: {" spec "}\n"
#define GATEWAY(kind, name, ns, spec)                                                          \
    KIND("gateway.networking.k8s.io/v1alpha2", kind, name, ns,                                 \
         "parentRefs: [{kind: Service, name: web, namespace: prod}], " spec)
#define PROFILE(ns, spec)                                                                      \
    KIND("linkerd.io/v1alpha2", "ServiceProfile", "web.prod.svc.cluster.local", ns, spec)

static void test_profiles(void **state)
{
    struct world w;
    struct wire_destination d;
    struct arena arena;

    (void)state;
    read_world(
        &w,
        SERVICE("timeout.linkerd.io/request: 5s, retry.linkerd.io/http: 5xx")
            ROUTE("r", "prod", "", "{}") PROFILE(
                "prod",
                "routes: [{name: a, condition: {method: GET}, isRetryable: true}, {name: b, "
                "condition: {pathRegex: /b}, timeout: 1s}], retryBudget: {retryRatio: 0.1}")
                PROFILE("shop", "dstOverrides: [{authority: v2.prod, weight: 1}, {authority: "
                                "'v3.prod.svc.cluster.local:9', weight: 3}]"));
    build(&w, "prod", &arena, &d);
    assert_true(d.in_order);
    assert_int_equal(d.n_rules, 3);
    assert_true(d.rules[0].retries_failures && d.rules[0].has_retry);
    assert_int_equal(d.rules[0].retry[0].budget_permille, 100);
    assert_int_equal(d.rules[1].request_ms, 1000);
    assert_false(d.rules[1].has_retry);
    assert_int_equal(d.rules[2].n_matches, 0);
    assert_int_equal(d.rules[2].request_ms, 0); /* the service's timeouts are not looked at */
    assert_int_equal(d.n_tcp_rules, 0);
    arena_done(&arena);
    build(&w, "shop", &arena, &d); /* the consumer's profile: overrides for everything */
    assert_int_equal(d.n_rules, 1);
    assert_int_equal(d.rules[0].n_backends, 2);
    assert_int_equal(d.backends[d.rules[0].backends[0].backend].port, 80);
    assert_int_equal(d.backends[d.rules[0].backends[1].backend].port, 9);
    assert_int_equal(d.rules[0].backends[1].weight, 3000);
    assert_int_equal(d.n_tcp_rules, 1);
    assert_int_equal(d.tls_rules[0].n_backends, 2);
    arena_done(&arena);
    free_world(&w);
    read_world(&w,
               SERVICE("") ROUTE("r", "prod", "", "{}") PROFILE("prod", "opaquePorts: ['80']"));
    build(&w, "prod", &arena, &d); /* without routes it only names ports */
    assert_false(d.in_order);
    assert_true(slice_is_str(d.rules[0].route, "HTTPRoute/prod/r"));
    assert_int_equal(d.protocol, PROTOCOL_OPAQUE);
    arena_done(&arena);
    free_world(&w);
}

static void test_kinds_of_routes(void **state)
{
    struct world w;
    struct wire_destination d;
    struct arena arena;

    (void)state;
    read_world(&w, SERVICE("") ROUTE("h", "prod", "", "{}")
                       GATEWAY("GRPCRoute", "g", "prod", "rules: [{}]") GATEWAY(
                           "TLSRoute", "t", "prod",
                           "hostnames: [a.b], rules: [{backendRefs: [{name: v2, port: 1}]}]")
                           GATEWAY("TCPRoute", "young", "prod",
                                   "rules: [{backendRefs: [{name: v2, port: 2}]}]")
                               GATEWAY("TCPRoute", "old", "prod",
                                       "rules: [{backendRefs: [{name: v2, port: 3}]}]"));
    build(&w, "prod", &arena, &d);
    assert_int_equal(d.n_rules, 1);
    assert_true(slice_is_str(d.rules[0].route, "GRPCRoute/prod/g"));
    assert_int_equal(d.n_tls_rules, 1);
    assert_true(slice_is_str(d.tls_rules[0].hosts[0].host, "a.b"));
    assert_int_equal(d.n_tcp_rules, 1);
    assert_true(slice_is_str(d.tcp_rules[0].route, "TCPRoute/prod/old"));
    assert_int_equal(d.backends[d.tcp_rules[0].backends[0].backend].port, 3);
    arena_done(&arena);
    free_world(&w);
}

static void test_balancing_and_filters(void **state)
{
    struct world w;
    struct wire_destination d;
    struct arena arena;

    (void)state;
    read_world(
        &w,
        SERVICE("balancer.weft.io/algorithm: round-robin, balancer.linkerd.io/failure-accrual: "
                "consecutive, "
                "limit.weft.io/max-connections: '7', limit.weft.io/max-waiting: '8', "
                "timeout.weft.io/response-headers: 2s")
            ROUTE("r", "prod", "mirror.weft.io/max-running: '5'",
                  "{backendRefs: [{name: v2, port: 1}], filters: [{type: ExtensionRef, "
                  "extensionRef: {group: weft.io, "
                  "kind: HTTPFaultInjection, name: f}}, {type: RequestMirror, requestMirror: "
                  "{backendRef: {name: v3, "
                  "port: 9}, percent: 25}}, {type: ExtensionRef, extensionRef: {group: "
                  "weft.io, kind: "
                  "HTTPFaultInjection, name: none}}]}")
                KIND("weft.io/v1", "HTTPFaultInjection", "f", "prod",
                     "delay: {duration: 1s, percent: 50}, abort: {grpcStatus: UNAVAILABLE}"));
    build(&w, "prod", &arena, &d);
    assert_int_equal(d.backends[0].n_balancing, 1);
    assert_int_equal(d.backends[0].balancing[0].kind, BALANCING_ROUND_ROBIN);
    assert_int_equal(d.backends[0].breaker[0].consecutive, 7);
    assert_int_equal(d.backends[0].breaker[0].max_ejected_permille, 1000);
    assert_int_equal(d.backends[0].connections_max, 7);
    assert_int_equal(d.backends[0].waiting_max, 8);
    assert_int_equal(d.backends[d.rules[0].backends[0].backend].n_balancing,
                     0); /* another service */
    assert_int_equal(d.rules[0].head_ms, 2000);
    assert_int_equal(d.rules[0].n_filters, 3);
    assert_int_equal(d.rules[0].filters[0].kind, ROUTE_FILTER_DELAY);
    assert_int_equal(d.rules[0].filters[0].share_ppm, 500000);
    assert_int_equal(d.rules[0].filters[1].kind, ROUTE_FILTER_FAIL);
    assert_int_equal(d.rules[0].filters[1].grpc_status, 14);
    assert_int_equal(d.rules[0].filters[2].kind, ROUTE_FILTER_MIRROR);
    assert_int_equal(d.rules[0].filters[2].share_ppm, 250000);
    assert_int_equal(d.rules[0].filters[2].running_max, 5);
    assert_true(slice_is_str(d.backends[d.rules[0].filters[2].backend].name, "v3"));
    arena_done(&arena);
    free_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_routes),          cmocka_unit_test(test_profiles),
        cmocka_unit_test(test_kinds_of_routes),    cmocka_unit_test(test_balancing_and_filters),
        cmocka_unit_test(test_order_and_backends), cmocka_unit_test(test_consumer_routes),
        cmocka_unit_test(test_inheritance),        cmocka_unit_test(test_attachment),
        cmocka_unit_test(test_addresses),          cmocka_unit_test(test_too_much),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
