/* Objects that are fine and what becomes of them; and far more that are not, with the field and
 * reason. */
#include "model/manifest.h"
#include "model/resource.h"
#include "model/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static err_t parse(const char *yaml, struct resource **out, char why_out[WHY_TEXT])
{
    struct manifest *m = NULL;
    struct why why;
    err_t e = manifest_parse(slice_str(yaml), &m, &why);

    if (e == OK && m->n != 1)
        fail_msg("%zu objects in a test of one", m->n);
    if (e == OK)
        e = resource_parse(m->objects[0].json, SLICE_LIT("default"), out, &why);
    manifest_free(&m);
    why_text(&why, why_out);
    return e;
}

static struct resource *must_parse(const char *yaml)
{
    struct resource *r = NULL;
    char why[WHY_TEXT];

    if (parse(yaml, &r, why) != OK)
        fail_msg("%s", why);
    return r;
}

#define SVC "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n"
#define ROUTE                                                                                  \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, "          \
    "namespace: ns}\n"
#define PARENT "spec:\n  parentRefs: [{kind: Service, name: web}]\n"

static void test_service(void **state)
{
    struct resource *r = must_parse(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: prod\n  uid: x\n"
        "  creationTimestamp: null\n"
        "  annotations:\n"
        "    config.linkerd.io/opaque-ports: \"3306, 8000-8010,smtp\"\n"
        "    kubectl.kubernetes.io/last-applied-configuration: '{}'\n"
        "    retry.linkerd.io/http: 5xx,gateway-error,429,500-503\n"
        "    retry.linkerd.io/grpc: unavailable,internal\n"
        "    retry.linkerd.io/limit: \"3\"\n"
        "    retry.linkerd.io/timeout: 400ms\n"
        "    retry.weft.io/budget-ratio: \"0.1\"\n"
        "    timeout.linkerd.io/request: 10s\n"
        "    timeout.linkerd.io/response: 2s\n"
        "    timeout.linkerd.io/idle: 1m\n"
        "    somebody.else/thing: \"1\"\n"
        "spec:\n  clusterIP: 10.0.0.9\n  selector: {app: web}\n  ports:\n"
        "  - {name: http, port: 80, targetPort: 8080, appProtocol: http}\n"
        "  - {name: db, port: 3306}\n"
        "  - {name: smtp, port: 25, targetPort: mail}\n"
        "  - {name: h2, port: 81, appProtocol: kubernetes.io/h2c}\n"
        "status: {loadBalancer: {}}\n");
    struct service *s = &r->service;

    (void)state;
    assert_int_equal(r->kind, RESOURCE_SERVICE);
    assert_true(slice_is_str(r->namespace, "prod"));
    assert_true(slice_is_str(r->name, "web"));
    assert_int_equal(s->n_ports, 4);
    assert_int_equal(s->ports[0].protocol, PROTOCOL_HTTP1);
    assert_int_equal(s->ports[0].target_port, 8080);
    assert_int_equal(s->ports[1].protocol, PROTOCOL_OPAQUE);
    assert_int_equal(s->ports[2].protocol, PROTOCOL_OPAQUE);
    assert_true(slice_is_str(s->ports[2].target_name, "mail"));
    assert_int_equal(s->ports[3].protocol, PROTOCOL_HTTP2);
    assert_true(slice_is_str(s->cluster_ip, "10.0.0.9"));
    assert_true(s->limits.has_timeouts && s->limits.has_retry && s->limits.has_request);
    assert_int_equal(s->limits.request_ms, 10000);
    assert_int_equal(s->limits.backend_ms, 2000);
    assert_int_equal(s->limits.idle_ms, 60000);
    assert_int_equal(s->limits.retry.limit, 3);
    assert_int_equal(s->limits.retry.per_try_ms, 400);
    assert_int_equal(s->limits.retry.budget_permille, 100);
    assert_int_equal(s->limits.retry.grpc_statuses, 1U << 14 | 1U << 13);
    assert_int_equal(s->limits.retry.n_statuses, 4);
    assert_int_equal(s->limits.retry.statuses[0].low, 500);
    assert_int_equal(s->limits.retry.statuses[0].high, 599);
    assert_int_equal(s->limits.retry.statuses[1].low, 502);
    assert_int_equal(s->limits.retry.statuses[2].high, 429);
    assert_int_equal(s->limits.retry.statuses[3].high, 503);
    assert_null(strstr((const char *)r->json.p, "status"));
    assert_null(strstr((const char *)r->json.p, "uid"));
    assert_null(strstr((const char *)r->json.p, "kubectl"));
    resource_free(&r);
    assert_null(r);
}

static void test_defaults(void **state)
{
    struct resource *r = must_parse(SVC "spec: {ports: [{port: 80}], clusterIP: None}\n");

    (void)state;
    assert_true(slice_is_str(r->namespace, "default"));
    assert_true(r->service.is_headless);
    assert_int_equal(r->service.cluster_ip.n, 0);
    assert_false(r->service.limits.has_retry || r->service.limits.has_timeouts);
    assert_true(slice_is_str(
        r->json, "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"web\","
                 "\"namespace\":\"default\"},\"spec\":{\"clusterIP\":\"None\",\"ports\":[{"
                 "\"port\":80}]}}"));
    resource_free(&r);
    r = must_parse(SVC "  annotations: {retry.linkerd.io/limit: \"0\", "
                       "timeout.linkerd.io/request: \"0\"}\nspec: {ports: [{port: 80}]}\n");
    assert_int_equal(r->service.limits.retry.limit, 1);
    assert_true(r->service.limits.has_request);
    assert_int_equal(r->service.limits.request_ms, 0);
    resource_free(&r);
}

static void test_canonical_is_stable(void **state)
{
    struct resource *a =
        must_parse(SVC "spec: {ports: [{port: 80, name: x}], type: ClusterIP}\n");
    struct resource *b = NULL;
    struct why why;

    (void)state;
    assert_ptr_equal(resource_parse_text(a->json, SLICE_LIT("other"), &b, &why), OK);
    assert_true(slice_is(a->json, b->json));
    resource_free(&a);
    resource_free(&b);
    assert_ptr_equal(resource_parse_text(SLICE_LIT("{"), SLICE_LIT("x"), &b, &why),
                     ERR_OF(MODEL_SYNTAX));
}

static void test_endpoint_slice(void **state)
{
    struct resource *r = must_parse(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-abc\n"
        "  labels: {kubernetes.io/service-name: web}\naddressType: IPv4\n"
        "ports: [{name: http, port: 8080, protocol: TCP}]\n"
        "endpoints:\n- {addresses: [10.1.0.1, 10.1.0.2], zone: a, nodeName: n, hostname: h}\n"
        "- {addresses: [10.1.0.3], conditions: {ready: false}}\n"
        "- {addresses: [10.1.0.4], conditions: {ready: true, terminating: true}}\n"
        "- {addresses: [10.1.0.5], conditions: {ready: null}}\n");

    (void)state;
    assert_true(slice_is_str(r->endpoint_slice.service, "web"));
    assert_int_equal(r->endpoint_slice.n_endpoints, 5);
    assert_true(slice_is_str(r->endpoint_slice.endpoints[1].address, "10.1.0.2"));
    assert_true(slice_is_str(r->endpoint_slice.endpoints[1].zone, "a"));
    assert_true(r->endpoint_slice.endpoints[0].is_ready);
    assert_false(r->endpoint_slice.endpoints[2].is_ready);
    assert_false(r->endpoint_slice.endpoints[3].is_ready);
    assert_true(r->endpoint_slice.endpoints[4].is_ready);
    resource_free(&r);
}

static void test_route(void **state)
{
    struct resource *r =
        must_parse("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  "
                   "name: r\n  namespace: ns\n"
                   "  annotations: {retry.linkerd.io/http: 5xx}\n"
                   "spec:\n  parentRefs: [{group: core, kind: Service, name: web, port: 80}, "
                   "{group: '', kind: Service, name: b, namespace: other}]\n"
                   "  hostnames: [Web.Example.com, '*.x.y']\n"
                   "  rules:\n"
                   "  - name: first\n"
                   "    matches:\n"
                   "    - path: {type: Exact, value: /a}\n"
                   "      method: POST\n"
                   "    - path: {value: /p}\n"
                   "      headers: [{name: X-User, value: anna}, {type: RegularExpression, "
                   "name: x-v, value: '[0-9]+'}]\n"
                   "      queryParams: [{name: Q, value: '1'}]\n"
                   "    - path: {type: RegularExpression, value: '/v[0-9]+/.*'}\n"
                   "    - {}\n"
                   "    filters:\n"
                   "    - type: RequestHeaderModifier\n"
                   "      requestHeaderModifier: {add: [{name: A, value: '1'}], set: [{name: "
                   "B, value: '2'}], remove: [C]}\n"
                   "    - type: ResponseHeaderModifier\n"
                   "      responseHeaderModifier: {set: [{name: d, value: ''}]}\n"
                   "    - type: URLRewrite\n"
                   "      urlRewrite: {hostname: other.host, path: {type: ReplaceFullPath, "
                   "replaceFullPath: /z}}\n"
                   "    backendRefs:\n"
                   "    - {name: v1, port: 80, weight: 9}\n"
                   "    - {name: v2, port: 81, namespace: far, filters: [{type: "
                   "RequestHeaderModifier, requestHeaderModifier: {remove: [x]}}]}\n"
                   "    timeouts: {request: 1h30m, backendRequest: 500ms}\n"
                   "    retry: {codes: [503, 504], attempts: 4, backoff: 300ms}\n"
                   "  - filters:\n"
                   "    - type: RequestRedirect\n"
                   "      requestRedirect: {scheme: https, statusCode: 301, port: 8443}\n");
    struct route *h = &r->route;
    struct route_rule *rule = &h->rules[0];

    (void)state;
    assert_int_equal(h->n_parents, 2);
    assert_true(slice_is_str(h->parents[0].namespace, "ns"));
    assert_int_equal(h->parents[0].port, 80);
    assert_true(slice_is_str(h->parents[1].namespace, "other"));
    assert_int_equal(h->parents[1].port, 0);
    assert_true(slice_is_str(h->hosts[0].host, "web.example.com"));
    assert_true(slice_is_str(h->hosts[1].host, "*.x.y"));
    assert_int_equal(rule->n_matches, 4);
    assert_int_equal(rule->matches[0].path_kind, ROUTE_PATH_EXACT);
    assert_true(slice_is_str(rule->matches[0].method, "POST"));
    assert_int_equal(rule->matches[1].path_kind, ROUTE_PATH_PREFIX);
    assert_true(slice_is_str(rule->matches[1].headers[0].name, "x-user"));
    assert_int_equal(rule->matches[1].headers[1].kind, ROUTE_VALUE_REGEX);
    assert_true(slice_is_str(rule->matches[1].query[0].name, "Q"));
    assert_int_equal(rule->matches[2].path_kind, ROUTE_PATH_REGEX);
    assert_int_equal(rule->matches[3].path_kind, ROUTE_PATH_ANY);
    assert_int_equal(rule->filters.n, 3);
    assert_int_equal(rule->filters.list[0].n_edits, 3);
    assert_int_equal(rule->filters.list[0].edits[2].verb, ROUTE_EDIT_REMOVE);
    assert_true(slice_is_str(rule->filters.list[0].edits[2].name, "c"));
    assert_int_equal(rule->filters.list[2].path_kind, ROUTE_REWRITE_WHOLE);
    assert_int_equal(rule->n_backends, 2);
    assert_int_equal(rule->backends[0].weight, 9);
    assert_int_equal(rule->backends[1].weight, 1);
    assert_true(slice_is_str(rule->backends[1].namespace, "far"));
    assert_int_equal(rule->backends[1].filters.n, 1);
    assert_int_equal(rule->request_ms, 5400000);
    assert_int_equal(rule->backend_ms, 500);
    assert_true(rule->has_retry && rule->has_timeouts);
    assert_int_equal(rule->retry.limit, 4);
    assert_int_equal(rule->retry.n_statuses, 2);
    assert_int_equal(rule->retry.backoff_min_ms, 300);
    assert_int_equal(rule->retry.backoff_max_ms, 300);
    assert_int_equal(h->rules[1].filters.list[0].status, 301);
    assert_true(h->limits.has_retry);
    resource_free(&r);
    r = must_parse(
        "apiVersion: policy.linkerd.io/v1beta3\nkind: HTTPRoute\nmetadata: {name: r}\n" PARENT
        "  rules: [{}]\n");
    assert_int_equal(r->route.rules[0].n_matches, 0);
    resource_free(&r);
}

#define RULE(text)      ROUTE PARENT "  rules:\n  - " text "\n"
#define MATCH(text)     RULE("matches: [{}, {" text "}]")
#define FILTER(text)    RULE("filters: [{" text "}]")
#define ANNOTATED(text) SVC "  annotations: {" text "}\nspec: {ports: [{port: 80}]}\n"

static const struct {
    const char *yaml, *why;
} refused[] = {
    {"a: 1\n", "kind: is missing"},
    {"kind: 7\n", "kind: must be text, not a number (put it into quotes)"},
    {"kind: Pod\n",
     "kind: \"Pod\" is not supported; supported: Service, EndpointSlice, HTTPRoute, GRPCRoute, "
     "TLSRoute, TCPRoute, ServiceProfile, HTTPLocalRateLimitPolicy, HTTPFaultInjection"},
    {"kind: HttpRoute\n", "kind: \"HttpRoute\" is not known; did you mean HTTPRoute?"},
    {"kind: Service\n", "apiVersion: is missing"},
    {"kind: Service\napiVersion: v2\n",
     "apiVersion: \"v2\" is not supported for Service; supported: v1"},
    {"kind: Service\napiVersion: v1\n", "metadata: is missing"},
    {"kind: Service\napiVersion: v1\nmetadata: x\n", "metadata: must be an object, not text"},
    {"kind: Service\napiVersion: v1\nmetadata: {}\n", "metadata.name: is missing"},
    {"kind: Service\napiVersion: v1\nmetadata: {name: Web}\n",
     "metadata.name: \"Web\" is not a name"},
    {"kind: Service\napiVersion: v1\nmetadata: {name: a.b}\n",
     "metadata.name: \"a.b\" is not a name"},
    {"kind: Service\napiVersion: v1\nmetadata: {name: a, namespace: B}\n",
     "metadata.namespace: \"B\" is not a name"},
    {"kind: Service\napiVersion: v1\nmetadata: {name: a, label: {}}\n",
     "metadata.label: not a known field; did you mean labels?"},
    {"kind: Service\napiVersion: v1\nmetadata: {name: a, labels: {x: 1}}\n",
     "metadata.labels.x: must be text"},
    {"kind: Service\napiVersion: v1\nmetadata: {name: a, annotations: {a.b/c: true}}\n",
     "metadata.annotations[\"a.b/c\"]: must be text, not true or false (put it into quotes)"},
    {SVC, "spec: is missing"},
    {SVC "spec: {}\n", "spec.ports: is missing"},
    {SVC "spec: {ports: []}\n", "spec.ports: must have at least one port"},
    {SVC "spec: {ports: {}}\n", "spec.ports: must be a list, not an object"},
    {SVC "spec: {ports: [80]}\n", "spec.ports[0]: must be an object, not a number"},
    {SVC "spec: {ports: [{name: x}]}\n", "spec.ports[0].port: is missing"},
    {SVC "spec: {ports: [{port: 0}]}\n", "spec.ports[0].port: 0 is not in 1..65535"},
    {SVC "spec: {ports: [{port: 65536}]}\n", "spec.ports[0].port: 65536 is not in 1..65535"},
    {SVC "spec: {ports: [{port: '80'}]}\n",
     "spec.ports[0].port: must be a whole number, not text"},
    {SVC "spec: {ports: [{port: 8.5}]}\n",
     "spec.ports[0].port: must be a whole number, not a fraction"},
    {SVC "spec: {ports: [{port: 80, targetport: 8}]}\n",
     "spec.ports[0].targetport: not a known field; did you mean targetPort?"},
    {SVC "spec: {ports: [{port: 80, protocol: tcp}]}\n",
     "spec.ports[0].protocol: \"tcp\" is not known; did you mean TCP?"},
    {SVC "spec: {ports: [{port: 80, name: a}, {port: 80, name: b}]}\n",
     "spec.ports[1].port: 80 is given twice"},
    {SVC "spec: {ports: [{port: 80}, {port: 81}]}\n",
     "spec.ports[1]: several ports need names"},
    {SVC "spec: {ports: [{port: 80}], clusterIP: nope}\n",
     "spec.clusterIP: \"nope\" is not an address"},
    {SVC "spec: {ports: [{port: 80}], type: ExternalName}\n",
     "spec.type: services of the type ExternalName"},
    {SVC "spec: {ports: [{port: 80}]}\nspecs: 1\n",
     "specs: not a known field; did you mean spec?"},
    {ANNOTATED("config.linkerd.io/opaque-ports: '80,x'"),
     "metadata.annotations[\"config.linkerd.io/opaque-ports\"]: \"x\" is neither"},
    {ANNOTATED("config.linkerd.io/opaque-ports: '90-80'"), "\"90-80\" is neither"},
    {ANNOTATED("config.linkerd.io/opaque-ports: '0'"), "\"0\" is neither"},
    {ANNOTATED("config.linkerd.io/opaque-ports: '1,,2'"), "\"\" is neither"},
    {ANNOTATED("timeout.linkerd.io/request: 10 s"),
     "metadata.annotations[\"timeout.linkerd.io/request\"]: \"10 s\" is not a duration (number "
     "and unit: 10s, 250ms)"},
    {ANNOTATED("timeout.linkerd.io/request: '-1s'"), "\"-1s\" is not a duration"},
    {ANNOTATED("timeout.linkerd.io/request: '10'"), "\"10\" is not a duration"},
    {ANNOTATED("timeout.linkerd.io/request: 1.5s"), "\"1.5s\" is not a duration"},
    {ANNOTATED("timeout.linkerd.io/request: ''"), "\"\" is not a duration"},
    {ANNOTATED("timeout.linkerd.io/request: 50d"), "\"50d\" is not a duration"},
    {ANNOTATED("timeout.linkerd.io/requests: 1s"),
     "metadata.annotations[\"timeout.linkerd.io/requests\"]: not a known annotation; did you "
     "mean timeout.linkerd.io/request?"},
    {ANNOTATED("retry.linkerd.io/zzzzzzzzz: 1s"), "not a known annotation"},
    {ANNOTATED("retry.linkerd.io/http: '5xx, 503'"), "\" 503\" is not a status"},
    {ANNOTATED("retry.linkerd.io/http: '600'"), "\"600\" is not a status"},
    {ANNOTATED("retry.linkerd.io/http: '99'"), "\"99\" is not a status"},
    {ANNOTATED("retry.linkerd.io/http: '503-500'"), "\"503-500\" is not a status"},
    {ANNOTATED("retry.linkerd.io/http: ''"), "\"\" is not a status"},
    {ANNOTATED("retry.linkerd.io/http: '6xx'"), "\"6xx\" is not a status"},
    {ANNOTATED("retry.linkerd.io/http: "
               "'500,500,500,500,500,500,500,500,500,500,500,500,500,500,500,500,500'"),
     "more than 16"},
    {ANNOTATED("retry.linkerd.io/grpc: 'ok'"), "\"ok\" is not one of cancelled"},
    {ANNOTATED("retry.linkerd.io/limit: '256'"),
     "\"256\" is not a whole number of at most 255"},
    {ANNOTATED("retry.linkerd.io/limit: 'many'"), "\"many\" is not a whole number"},
    {ANNOTATED("retry.weft.io/budget-ratio: '-1'"), "is not a ratio"},
    {ANNOTATED("retry.weft.io/budget-ratio: 'nan'"), "is not a ratio"},
    {ANNOTATED("retry.weft.io/budget-min-per-second: '0'"), "must be at least 1"},
    {ANNOTATED("retry.weft.io/budget-ttl: '100ms'"), "between 1s and 60s"},
    {"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x}\naddressType: "
     "IPv4\n",
     "metadata: the label kubernetes.io/service-name is missing"},
    {"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, labels: "
     "{kubernetes.io/service-name: w}}\n"
     "addressType: FQDN\n",
     "addressType: \"FQDN\" is not one of: IPv4, IPv6"},
    {"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, labels: "
     "{kubernetes.io/service-name: w}}\n"
     "addressType: IPv4\nendpoints: [{addresses: ['::1']}]\n",
     "endpoints[0].addresses[0]: \"::1\" does not fit addressType"},
    {"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, labels: "
     "{kubernetes.io/service-name: w}}\n"
     "addressType: IPv4\nendpoints: [{addresses: [1.2.3]}]\n",
     "endpoints[0].addresses[0]: \"1.2.3\" is not an address"},
    {"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, labels: "
     "{kubernetes.io/service-name: w}}\n"
     "addressType: IPv4\nendpoints: [{}]\n",
     "endpoints[0].addresses: is missing"},
    {ROUTE "spec: {rules: [{}]}\n", "spec.parentRefs: is missing"},
    {ROUTE "spec: {parentRefs: [], rules: [{}]}\n",
     "spec.parentRefs: must name at least one Service"},
    {ROUTE "spec: {parentRefs: [{name: g}], rules: [{}]}\n",
     "spec.parentRefs[0]: must be a Service so far, not Gateway (what the Gateway API means if "
     "kind is absent)"},
    {ROUTE
     "spec: {parentRefs: [{kind: Server, group: policy.linkerd.io, name: g}], rules: [{}]}\n",
     "spec.parentRefs[0].kind: must be a Service so far, not Server"},
    {ROUTE "spec: {parentRefs: [{kind: Service, group: apps, name: g}], rules: [{}]}\n",
     "spec.parentRefs[0].group: \"apps\" is not the group of Service"},
    {ROUTE PARENT, "spec.rules: is missing"},
    {ROUTE PARENT "  rules: []\n", "spec.rules: must have at least one rule"},
    {ROUTE PARENT "  hostnames: [a_b]\n  rules: [{}]\n",
     "spec.hostnames[0]: \"a_b\" is not a host name or *.name"},
    {ROUTE PARENT "  hostnames: ['a:80']\n  rules: [{}]\n",
     "spec.hostnames[0]: \"a:80\" is not a host name"},
    {RULE("backends: []"),
     "spec.rules[0].backends: not a known field; did you mean backendRefs?"},
    {RULE("sessionPersistence: {}"), "spec.rules[0].sessionPersistence: is not supported"},
    {MATCH("path: /x"), "spec.rules[0].matches[1].path: must be an object, not text"},
    {MATCH("path: {type: Prefix, value: /x}"),
     "spec.rules[0].matches[1].path.type: \"Prefix\" is not one of"},
    {MATCH("path: {type: exact, value: /x}"),
     "matches[1].path.type: \"exact\" is not known; did you mean Exact?"},
    {MATCH("path: {value: x}"), "spec.rules[0].matches[1].path.value: must begin with /"},
    {MATCH("path: {value: /a//b}"), "must not contain \"//\""},
    {MATCH("path: {value: /a/../b}"), "must not contain \"/../\""},
    {MATCH("path: {value: /a/..}"), "must not end in"},
    {MATCH("path: {value: /a%2Fb}"), "must not contain \"%2F\""},
    {MATCH("path: {value: '/a?b'}"), "must not contain \"?\""},
    {MATCH("path: {type: Exact}"), "spec.rules[0].matches[1].path.value: is missing"},
    {MATCH("path: {type: RegularExpression, value: '/(a'}"),
     "spec.rules[0].matches[1].path.value: not a regular expression that is supported: at 4: ( "
     "without )"},
    {MATCH("method: get"),
     "matches[1].method: \"get\": methods are case sensitive; did you mean GET?"},
    {MATCH("method: 'G T'"), "matches[1].method: is not a method"},
    {MATCH("headers: [{name: 'a b', value: x}]"),
     "matches[1].headers[0].name: \"a b\" is not the name of a header"},
    {MATCH("headers: [{name: a}]"), "matches[1].headers[0].value: is missing"},
    {MATCH("headers: [{name: a, value: 1}]"),
     "matches[1].headers[0].value: must be text, not a number (put it into quotes)"},
    {MATCH("headers: [{name: a, value: x}, {name: A, value: y}]"),
     "matches[1].headers[1]: \"a\" is matched twice"},
    {MATCH("headers: [{type: RegularExpression, name: a, value: '('}]"),
     "matches[1].headers[0].value: not a regular"},
    {MATCH("queryParams: [{name: '', value: x}]"),
     "matches[1].queryParams[0].name: must not be empty"},
    {MATCH("header: []"), "matches[1].header: not a known field; did you mean headers?"},
    {FILTER("type: RequestHeaderModifer"), "filters[0].type: \"RequestHeaderModifer\" is not "
                                           "known; did you mean RequestHeaderModifier?"},
    {FILTER("requestHeaderModifier: {}"), "filters[0].type: is missing"},
    {FILTER("type: RequestHeaderModifier"), "filters[0].requestHeaderModifier: is missing"},
    {FILTER("type: RequestMirror, requestMirror: {}"),
     "filters[0].requestMirror.backendRef: is missing"},
    {FILTER("type: CORS, cors: {}"), "filters[0].type: CORS is not supported"},
    {FILTER("type: URLRewrite, requestRedirect: {}"),
     "filters[0].requestRedirect: does not go with type URLRewrite"},
    {FILTER(
         "type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: x}]}"),
     "filters[0].requestHeaderModifier.set[0].name: \"host\" cannot be changed"},
    {FILTER("type: RequestHeaderModifier, requestHeaderModifier: {remove: [Content-Length]}"),
     "remove[0]: \"content-length\" cannot be changed"},
    {FILTER("type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: l5d-x, value: "
            "x}]}"),
     "belong to the mesh"},
    {FILTER("type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x, value: "
            "\"a\\r\\nb\"}]}"),
     "add[0].value: holds a control character"},
    {FILTER("type: RequestRedirect, requestRedirect: {statusCode: 304}"),
     "statusCode: 304 is not one of"},
    {FILTER("type: RequestRedirect, requestRedirect: {scheme: ftp}"),
     "scheme: \"ftp\" is not one of: http, https"},
    {FILTER("type: RequestRedirect, requestRedirect: {hostname: '*.x'}"),
     "hostname: \"*.x\" is not a host name"},
    {FILTER("type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}"),
     "urlRewrite.path.replaceFullPath: is missing"},
    {FILTER("type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replacePrefixMatch: "
            "/x}}"),
     "replacePrefixMatch: does not go with type ReplaceFullPath"},
    {FILTER(
         "type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: x}}"),
     "must begin with /"},
    {RULE("filters: [{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}]"),
     "filters[1]: a filter of this type is there already"},
    {RULE("filters: [{type: URLRewrite, urlRewrite: {}}, {type: RequestRedirect, "
          "requestRedirect: {}}]"),
     "filters: RequestRedirect and URLRewrite exclude each other"},
    {RULE("filters: [{type: RequestRedirect, requestRedirect: {}}]\n    backendRefs: [{name: "
          "x, port: 1}]"),
     "backendRefs: a rule with RequestRedirect never reaches"},
    {RULE("matches: [{path: {type: Exact, value: /a}}]\n    filters: [{type: URLRewrite, "
          "urlRewrite: {path: {type: "
          "ReplacePrefixMatch, replacePrefixMatch: /b}}}]"),
     "ReplacePrefixMatch needs PathPrefix"},
    {RULE("backendRefs: [{name: x}]"), "spec.rules[0].backendRefs[0].port: is missing"},
    {RULE("backendRefs: [{port: 1}]"), "backendRefs[0].name: is missing"},
    {RULE("backendRefs: [{name: x, port: 1, weight: -1}]"),
     "backendRefs[0].weight: -1 is not in 0..1000000"},
    {RULE("backendRefs: [{name: x, port: 1, kind: Pod}]"),
     "backendRefs[0].kind: must be a Service so far, not Pod"},
    {RULE("timeouts: {request: 10 s}"), "spec.rules[0].timeouts.request: \"10 s\" is not a "
                                        "duration (number and unit: 10s, 250ms)"},
    {RULE("timeouts: {request: 1s, backendRequest: 2s}"),
     "timeouts.backendRequest: must not be longer than request"},
    {RULE("timeouts: {requests: 1s}"),
     "timeouts.requests: not a known field; did you mean request?"},
    {RULE("timeouts: {request: 10}"),
     "timeouts.request: must be text, not a number (put it into quotes)"},
    {RULE("retry: {codes: [399]}"), "retry.codes[0]: 399 is not in 400..599"},
    {RULE("retry: {attempts: 256}"), "retry.attempts: 256 is not in 0..255"},
    {RULE("retry: {backoff: 2m}"), "retry.backoff: must not be longer than 1m"},
    {"apiVersion: policy.linkerd.io/v1beta3\nkind: HTTPRoute\nmetadata: {name: r}\n" PARENT
     "  rules: [{retry: {}}]\n",
     "spec.rules[0].retry: is not a field of policy.linkerd.io"},
    {"apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, "
     "annotations: "
     "{retry.linkerd.io/grpc: internal}}\n" PARENT "  rules: [{}]\n",
     "is for GRPCRoute and Service only"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct resource *r = NULL;
        char why[WHY_TEXT];
        err_t e = parse(refused[i].yaml, &r, why);

        if (e != ERR_OF(MODEL_INVALID))
            fail_msg("refusal %zu (%s): %s %s", i, refused[i].why,
                     e == OK ? "accepted" : e->name, why);
        if (strstr(why, refused[i].why) == NULL)
            fail_msg("refusal %zu:\n got  %s\n want %s", i, why, refused[i].why);
        assert_null(r);
    }
}

/* ---- the other kinds ---- */

#define GATEWAY(kind, version)                                                                 \
    "apiVersion: gateway.networking.k8s.io/" version "\nkind: " kind                           \
    "\nmetadata: {name: r}\n" PARENT
#define GRPC(rule) GATEWAY("GRPCRoute", "v1") "  rules:\n  - " rule "\n"
#define PROFILE(spec)                                                                          \
    "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\nmetadata: {name: "                 \
    "web.prod.svc.cluster.local}\nspec: {" spec "}\n"
#define ROUTES(condition) PROFILE("routes: [{name: a, condition: " condition "}]")
#define RATE(spec)                                                                             \
    "apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: "       \
    "{name: "                                                                                  \
    "l}\nspec: {" spec "}\n"
#define TARGET "targetRef: {kind: Service, name: web}"
#define FAULT(spec)                                                                            \
    "apiVersion: weft.io/v1\nkind: HTTPFaultInjection\nmetadata: {name: f}\nspec: {" spec "}"  \
                                                                                          "\n"
#define SLICE(annotation)                                                                      \
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, annotations: "  \
    "{" annotation "}, labels: {kubernetes.io/service-name: w}}\naddressType: IPv4\n"

static const struct {
    const char *yaml, *why;
} refused_kinds[] = {
    {GRPC("matches: [{method: {}}]"), "matches[0].method: must name a service or a method"},
    {GRPC("matches: [{method: {service: 'a b'}}]"), "not the name of a gRPC service"},
    {GRPC("matches: [{method: {service: a..b}}]"), "not the name of a gRPC service"},
    {GRPC("matches: [{method: {service: .a}}]"), "not the name of a gRPC service"},
    {GRPC("matches: [{method: {method: a.b}}]"), "not the name of a gRPC method"},
    {GRPC("matches: [{method: {method: 9a}}]"), "not the name of a gRPC method"},
    {GRPC("matches: [{method: {type: Prefix, service: a}}]"), "method.type: \"Prefix\" is not"},
    {GRPC("matches: [{method: {type: RegularExpression, service: '('}}]"),
     "method.service: not a"},
    {GRPC("matches: [{path: {value: /a}}]"), "matches[0].path: not a known field"},
    {GRPC("timeouts: {request: 1s}"), "spec.rules[0].timeouts: not a known field"},
    {GRPC("filters: [{type: URLRewrite, urlRewrite: {}}]"), "URLRewrite is for HTTPRoute only"},
    {GRPC("sessionPersistence: {}"), "sessionPersistence: is not supported"},
    {"apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r, "
     "annotations: "
     "{retry.linkerd.io/http: 5xx}}\n" PARENT "  rules: [{}]\n",
     "is for HTTPRoute and Service only"},
    {GATEWAY("TLSRoute", "v1alpha2") "  rules: [{}]\n",
     "spec.rules[0].backendRefs: is missing"},
    {GATEWAY("TLSRoute", "v1alpha2") "  rules: [{backendRefs: []}]\n",
     "must name at least one"},
    {GATEWAY("TLSRoute", "v1alpha2") "  rules: [{backendRefs: [{name: a, port: 1}]}, {}]\n",
     "spec.rules: must have exactly one rule in a TLSRoute"},
    {GATEWAY("TLSRoute", "v1alpha2") "  rules: [{matches: [], backendRefs: []}]\n",
     "spec.rules[0].matches: not a known field"},
    {GATEWAY("TCPRoute", "v1alpha2") "  hostnames: [a]\n  rules: [{}]\n",
     "spec.hostnames: not a known field"},
    {GATEWAY("TCPRoute",
             "v1alpha2") "  rules: [{backendRefs: [{name: a, port: 1, filters: []}]}]\n",
     "backendRefs[0].filters: are not for TCPRoute"},
    {GATEWAY("TCPRoute", "v1") "  rules: [{}]\n",
     "apiVersion: \"gateway.networking.k8s.io/v1\" is not"},
    {FILTER("type: RequestMirror, requestMirror: {backendRef: {name: a}}"),
     "backendRef.port: is missing"},
    {FILTER(
         "type: RequestMirror, requestMirror: {percent: 101, backendRef: {name: a, port: 1}}"),
     "requestMirror.percent: 101 is not in 0..100"},
    {FILTER("type: RequestMirror, requestMirror: {percent: 1, fraction: {numerator: 1}, "
            "backendRef: "
            "{name: a, port: 1}}"),
     "requestMirror.fraction: does not go with percent"},
    {FILTER("type: RequestMirror, requestMirror: {fraction: {numerator: 3, denominator: 2}, "
            "backendRef: "
            "{name: a, port: 1}}"),
     "fraction.numerator: 3 is not in 0..2"},
    {FILTER("type: RequestMirror, requestMirror: {fraction: {numerator: 0, denominator: 0}, "
            "backendRef: "
            "{name: a, port: 1}}"),
     "fraction.denominator: 0 is not in"},
    {FILTER(
         "type: ExtensionRef, extensionRef: {group: x.io, kind: HTTPFaultInjection, name: a}"),
     "extensionRef.group: \"x.io\" is not known; weft.io is"},
    {FILTER("type: ExtensionRef, extensionRef: {group: weft.io, kind: Fault, name: a}"),
     "extensionRef.kind: \"Fault\" is not known"},
    {FILTER("type: ExtensionRef, extensionRef: {group: weft.io, kind: HTTPFaultInjection, "
            "name: A}"),
     "extensionRef.name: \"A\" is not a name"},
    {"apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\nmetadata: {name: web}\nspec: {}\n",
     "metadata.name: \"web\" does not name a service: SERVICE.NS.svc.cluster.local"},
    {ROUTES("{}"), "condition: must have pathRegex, method, all, any or not"},
    {ROUTES("{pathregex: /}"),
     "condition.pathregex: not a known field; did you mean pathRegex?"},
    {ROUTES("{pathRegex: '('}"), "condition.pathRegex: not a regular expression"},
    {ROUTES("{all: []}"), "condition.all: must have an entry"},
    {ROUTES("{method: GET, not: {method: GET}}"), "condition: can never fit"},
    {ROUTES("{all: [{method: GET}, {method: POST}]}"), "condition: can never fit"},
    {ROUTES("{method: get}"), "did you mean GET?"},
    {ROUTES("{all: [{any: [{pathRegex: a}, {pathRegex: b}, {pathRegex: c}, {pathRegex: d}, "
            "{pathRegex: e}]}, "
            "{any: [{pathRegex: f}, {pathRegex: g}, {pathRegex: h}, {pathRegex: i}, "
            "{pathRegex: j}]}, "
            "{any: [{pathRegex: k}, {pathRegex: l}, {pathRegex: m}]}]}"),
     "written out it has more than 64 alternatives; split the route"},
    {ROUTES("{not: {not: {not: {not: {not: {not: {not: {not: {not: {not: {not: {not: {not: "
            "{not: {not: {not: "
            "{not: {not: {method: GET}}}}}}}}}}}}}}}}}}}"),
     "is nested more than 16 deep"},
    {PROFILE("routes: [{name: a, condition: {method: GET}, responseClasses: [{condition: "
             "{status: {min: 500, "
             "max: 400}}}]}]"),
     "responseClasses[0].condition.status: min must not be above max"},
    {PROFILE(
         "routes: [{name: a, condition: {method: GET}, responseClasses: [{condition: {}}]}]"),
     "must have status, all, any or not"},
    {PROFILE("routes: [{name: a, condition: {method: GET}, timeout: 5}]"),
     "routes[0].timeout: must be text"},
    {PROFILE("routes: [{condition: {method: GET}}]"), "routes[0].name: is missing"},
    {PROFILE("retryBudget: {retryRatio: -1}"), "retryBudget.retryRatio: must be a number"},
    {PROFILE("retryBudget: {ttl: 2m}"), "retryBudget.ttl: must be between 1s and 60s"},
    {PROFILE("dstOverrides: [{authority: 10.0.0.1:80, weight: 1}]"), "is not a service"},
    {PROFILE("dstOverrides: [{authority: a.b, weight: -1}]"), "weight: is not in"},
    {PROFILE("dstOverrides: [{authority: a.b, weight: 1x}]"), "weight: \"1x\" is not a ratio"},
    {PROFILE("opaquePorts: [70000]"), "opaquePorts[0]: 70000 is not in 1..65535"},
    {PROFILE("opaquePorts: [a]"), "opaquePorts[0]: \"a\" is not a port or a range"},
    {RATE("total: {requestsPerSecond: 1}"), "spec.targetRef: is missing"},
    {RATE("targetRef: {kind: Server, name: a}"),
     "spec.targetRef.kind: Server is not supported yet"},
    {RATE("targetRef: {kind: Pod, name: a}"), "spec.targetRef.kind: must be Service, not Pod"},
    {RATE(TARGET), "spec: must have total, identity or overrides"},
    {RATE(TARGET ", total: {requestsPerSecond: 0}"),
     "total.requestsPerSecond: 0 is not in 1.."},
    {RATE(TARGET ", total: {requestsPerSecond: 5}, identity: {requestsPerSecond: 6}"),
     "identity.requestsPerSecond: 6 is above total.requestsPerSecond (5)"},
    {RATE(TARGET ", overrides: [{requestsPerSecond: 5, clientRefs: []}]"),
     "must name at least one"},
    {RATE(TARGET ", overrides: [{requestsPerSecond: 5, clientRefs: [{kind: Pod, name: a}]}]"),
     "clientRefs[0].kind: must be ServiceAccount"},
    {FAULT(""), "spec: must have delay or abort"},
    {FAULT("delay: {}"), "spec.delay.duration: is missing"},
    {FAULT("delay: {duration: 2h}"), "spec.delay: must not be longer than 1h"},
    {FAULT("abort: {}"), "spec.abort: must have httpStatus or grpcStatus"},
    {FAULT("abort: {httpStatus: 503, grpcStatus: 14}"), "exclude each other"},
    {FAULT("abort: {httpStatus: 200}"), "httpStatus: 200 is not in 400..599"},
    {FAULT("abort: {grpcStatus: UNAVAILABEL}"), "did you mean UNAVAILABLE?"},
    {FAULT("abort: {grpcStatus: 17}"), "grpcStatus: 17 is not in 1..16"},
    {FAULT("abort: {httpStatus: 503, percent: 101}"), "percent: must be a number in 0..100"},
    {ANNOTATED("balancer.linkerd.io/failure-accrual: always"),
     "\"always\" is not one of: consecutive, unified"},
    {ANNOTATED("balancer.linkerd.io/failure-accrual-consecutive-min-penalty: 2m"),
     "min-penalty (120000ms) must not be longer than max-penalty (60000ms)"},
    {ANNOTATED("balancer.linkerd.io/failure-accrual-consecutive-min-penalty: '0'"),
     "must be at least 1ms"},
    {ANNOTATED("balancer.linkerd.io/failure-accrual-consecutive-max-failures: '0'"),
     "must be at least 1"},
    {ANNOTATED("balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold: '1.5'"),
     "is not in 0..1"},
    {ANNOTATED("balancer.alpha.linkerd.io/penalize-failures: maybe"),
     "is neither true nor false"},
    {ANNOTATED("balancer.weft.io/algorithm: random"), "\"random\" is not one of: ewma"},
    {ANNOTATED("balancer.weft.io/algorithm: consistent-hash"),
     "consistent-hash needs balancer.weft.io/hash-on"},
    {ANNOTATED("balancer.weft.io/hash-on: source"),
     "goes with balancer.weft.io/algorithm: consistent-hash only"},
    {ANNOTATED(
         "balancer.weft.io/algorithm: consistent-hash, balancer.weft.io/hash-on: 'query:x'"),
     "is not header:NAME, cookie:NAME or source"},
    {ANNOTATED(
         "balancer.weft.io/algorithm: consistent-hash, balancer.weft.io/hash-on: 'header:'"),
     "is not header:NAME, cookie:NAME or source"},
    {ANNOTATED("balancer.weft.io/zone-spill: '2'"),
     "goes with balancer.weft.io/zone: prefer only"},
    {ANNOTATED("balancer.weft.io/share-cap: '0.5'"), "\"0.5\" is not in 1..1000"},
    {ANNOTATED("balancer.weft.io/max-ejected: '0'"), "must be at least 1"},
    {ANNOTATED("balancer.weft.io/weight: '5'"), "is for EndpointSlice only"},
    {ANNOTATED("limit.weft.io/max-connections: '0'"), "must be at least 1"},
    {ANNOTATED("retry.weft.io/hedge-max: '2'"), "needs retry.weft.io/hedge-after beside it"},
    {ANNOTATED("retry.weft.io/hedge-after: 1s, retry.weft.io/hedge-max: '1'"),
     "must be at least 2"},
    {ANNOTATED("mirror.weft.io/max-running: '2'"), "is for HTTPRoute and GRPCRoute only"},
    {SLICE("balancer.weft.io/weight: '-1'"), "is not a whole number"},
    {SLICE("balancer.weft.io/algorithm: ewma"), "is for Service only"},
};

static void test_refused_kinds(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused_kinds) / sizeof(refused_kinds[0]); i++) {
        struct resource *r = NULL;
        char why[WHY_TEXT];

        if (parse(refused_kinds[i].yaml, &r, why) != ERR_OF(MODEL_INVALID) ||
            strstr(why, refused_kinds[i].why) == NULL)
            fail_msg("refusal %zu:\n got  %s\n want %s", i, r != NULL ? "accepted" : why,
                     refused_kinds[i].why);
    }
}

static void test_grpc_methods_are_paths(void **state)
{
    static const struct {
        const char *method;
        uint8_t kind;
        const char *path;
    } cases[] = {
        {"{service: a.B, method: C}", ROUTE_PATH_EXACT, "/a.B/C"},
        {"{service: a.B}", ROUTE_PATH_PREFIX, "/a.B"},
        {"{method: C}", ROUTE_PATH_REGEX, "/[^/]+/C"},
        {"{type: RegularExpression, service: 'a|b', method: C}", ROUTE_PATH_REGEX,
         "/(?:a|b)/(?:C)"},
        {"{type: RegularExpression, service: 'a.*'}", ROUTE_PATH_REGEX, "/(?:a.*)/[^/]+"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char yaml[600];
        struct resource *r;

        (void)snprintf(yaml, sizeof(yaml), GRPC("matches: [{method: %s}]"), cases[i].method);
        r = must_parse(yaml);
        assert_int_equal(r->route.rules[0].matches[0].path_kind, cases[i].kind);
        if (!slice_is_str(r->route.rules[0].matches[0].path, cases[i].path))
            fail_msg("%.*s", SLICE_FMT(r->route.rules[0].matches[0].path));
        resource_free(&r);
    }
}

/* Conditions written out: parts of an alternative joined by &, alternatives by |. */
static void put_form(const struct profile_route *p, char out[400])
{
    size_t n = 0;

    out[0] = '\0';
    for (size_t i = 0; i < p->n_matches; i++)
        for (size_t k = 0; k < p->matches[i].n_conditions; k++) {
            const struct wire_condition *c = &p->matches[i].conditions[k];

            n += (size_t)snprintf(out + n, 400 - n, "%s%s%.*s",
                                  k > 0   ? "&"
                                  : i > 0 ? "|"
                                          : "",
                                  c->is_not ? "!" : "", SLICE_FMT(c->value));
        }
}

static void test_conditions_are_written_out(void **state)
{
    static const struct {
        const char *condition, *form;
    } cases[] = {
        {"{pathRegex: /a}", "/a"},
        {"{pathRegex: /a, method: GET}", "/a&GET"},
        {"{not: {pathRegex: /a, method: GET}}", "!/a|!GET"},
        {"{any: [{pathRegex: /a}, {all: [{pathRegex: /b}, {method: GET}]}]}", "/a|/b&GET"},
        {"{all: [{any: [{pathRegex: a}, {pathRegex: b}]}, {any: [{method: GET}, {method: "
         "PUT}]}]}",
         "a&GET|a&PUT|b&GET|b&PUT"},
        {"{not: {any: [{pathRegex: a}, {not: {method: GET}}]}}", "!a&GET"},
        {"{not: {not: {method: GET}}}", "GET"},
        {"{all: [{method: GET}, {method: GET}]}", "GET"},
        {"{any: [{all: [{method: GET}, {method: PUT}]}, {pathRegex: a}]}", "a"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char yaml[600], form[400];
        struct resource *r;

        (void)snprintf(yaml, sizeof(yaml), ROUTES("%s"), cases[i].condition);
        r = must_parse(yaml);
        put_form(&r->profile.routes[0], form);
        assert_string_equal(form, cases[i].form);
        resource_free(&r);
    }
}

static void test_profile(void **state)
{
    struct resource *r =
        must_parse(PROFILE("opaquePorts: [25, '3306', 8000-8010], retryBudget: {retryRatio: "
                           "0.5, minRetriesPerSecond: 0, ttl: 20s}, "
                           "dstOverrides: [{authority: 'a.prod.svc.cluster.local:81', weight: "
                           "500m}, {authority: b.x, weight: 2}], "
                           "routes: [{name: n, condition: {method: GET}, isRetryable: true, "
                           "timeout: 250ms, responseClasses: ["
                           "{condition: {not: {status: {min: 500}}}, isFailure: false}, "
                           "{condition: {any: [{status: {min: 501, max: "
                           "502}}, {status: {min: 504, max: 504}}]}, isFailure: true}]}]"));
    const struct service_profile *p = &r->profile;

    (void)state;
    assert_true(slice_is_str(p->service, "web") && slice_is_str(p->service_namespace, "prod"));
    assert_int_equal(p->n_opaque_ports, 3);
    assert_int_equal(p->opaque_ports[2].high, 8010);
    assert_int_equal(p->budget_permille, 500);
    assert_int_equal(p->budget_min_per_s, 1);
    assert_int_equal(r->n_notes, 1);
    assert_int_equal(p->overrides[0].port, 81);
    assert_int_equal(p->overrides[0].weight, 500);
    assert_int_equal(p->overrides[1].port, 0);
    assert_int_equal(p->overrides[1].weight, 2000);
    assert_int_equal(p->routes[0].n_classes, 3);
    assert_int_equal(p->routes[0].classes[0].low, 100);
    assert_int_equal(p->routes[0].classes[0].high, 499);
    assert_int_equal(p->routes[0].classes[2].low, 504);
    assert_true(p->routes[0].classes[2].is_failure && p->routes[0].is_retryable);
    resource_free(&r);
}

static void test_filters_that_point_somewhere(void **state)
{
    struct resource *r =
        must_parse(RULE("filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, "
                        "port: 1}, percent: 0}}, "
                        "{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 2, "
                        "namespace: far}}}, "
                        "{type: RequestMirror, requestMirror: {backendRef: {name: c, port: 3}, "
                        "fraction: {numerator: 1, "
                        "denominator: 3}}}, {type: ExtensionRef, extensionRef: {group: "
                        "weft.io, kind: HTTPFaultInjection, name: f}}]"));
    const struct route_filters *f = &r->route.rules[0].filters;

    (void)state;
    assert_int_equal(f->n, 3); /* the one of 0 percent is left out */
    assert_int_equal(f->list[0].share_ppm, 0);
    assert_true(slice_is_str(f->refs[0].name, "b") &&
                slice_is_str(f->refs[0].namespace, "far"));
    assert_int_equal(f->list[1].share_ppm, 333333);
    assert_int_equal(f->list[2].kind, ROUTE_FILTER_EXTENSION);
    assert_true(resource_uses_fault(r, SLICE_LIT("f")));
    assert_false(resource_uses_fault(r, SLICE_LIT("g")));
    resource_free(&r);
}

static void test_balancing(void **state)
{
    struct resource *r = must_parse(ANNOTATED(
        "balancer.linkerd.io/failure-accrual: unified, balancer.weft.io/max-ejected: '50', "
        "balancer.linkerd.io/failure-accrual-consecutive-max-failures: '0', "
        "balancer.weft.io/slow-start: 30s, "
        "balancer.weft.io/algorithm: consistent-hash, balancer.weft.io/hash-on: "
        "'header:X-User', "
        "balancer.weft.io/zone: prefer, balancer.weft.io/share-cap: '2.0', "
        "limit.weft.io/app-connections: '9', "
        "balancer.alpha.linkerd.io/penalize-failures: 'true', retry.weft.io/hedge-after: "
        "50ms"));
    const struct service *s = &r->service;

    (void)state;
    assert_true(s->has_balancing && s->has_breaker);
    assert_int_equal(s->breaker.consecutive, 0);
    assert_int_equal(s->breaker.success_permille, 800);
    assert_int_equal(s->breaker.max_ejected_permille, 500);
    assert_int_equal(s->breaker.jitter_permille, 500);
    assert_int_equal(s->balancing.kind, BALANCING_HASH);
    assert_int_equal(s->balancing.hash_by, HASH_BY_HEADER);
    assert_true(slice_is_str(s->balancing.hash_name, "x-user"));
    assert_int_equal(s->balancing.slow_start_ms, 30000);
    assert_int_equal(s->balancing.spill_permille, 1500);
    assert_int_equal(s->balancing.share_cap_permille, 2000);
    assert_true(s->balancing.penalises);
    assert_int_equal(s->app_connections_max, 9);
    assert_int_equal(s->limits.retry.hedge_ms, 50);
    resource_free(&r);
    r = must_parse(ANNOTATED("balancer.weft.io/max-ejected: '50'"));
    assert_int_equal(r->n_notes, 1); /* without failure-accrual it does nothing */
    assert_false(r->service.has_breaker || r->service.has_balancing);
    resource_free(&r);
}

static void test_not_objects(void **state)
{
    json_t *list = json_array();
    struct resource *r = NULL;
    struct why why;

    (void)state;
    assert_ptr_equal(resource_parse(list, SLICE_LIT("d"), &r, &why), ERR_OF(MODEL_INVALID));
    json_decref(list);
}

static void test_names_and_words(void **state)
{
    char kind[65], ns[64], name[254];
    json_t *o = json_pack("{s:s,s:{s:s}}", "kind", "Service", "metadata", "name", "x");
    enum resource_kind k;
    uint8_t p;

    (void)state;
    assert_true(resource_identify(o, SLICE_LIT("d"), kind, ns, name));
    assert_string_equal(kind, "Service");
    assert_string_equal(ns, "d");
    assert_string_equal(name, "x");
    (void)json_object_del(o, "kind");
    assert_false(resource_identify(o, SLICE_LIT("d"), kind, ns, name));
    json_decref(o);
    assert_true(resource_kind_find(SLICE_LIT("SVC"), &k));
    assert_int_equal(k, RESOURCE_SERVICE);
    assert_true(resource_kind_find(SLICE_LIT("httproutes"), &k));
    assert_int_equal(k, RESOURCE_HTTP_ROUTE);
    assert_false(resource_kind_find(SLICE_LIT("pods"), &k));
    for (uint8_t i = 0; i < PROTOCOLS; i++) {
        assert_true(protocol_parse(slice_str(protocol_name(i)), &p));
        assert_int_equal(p, i);
    }
    assert_false(protocol_parse(SLICE_LIT("HTTP"), &p));
}

static void test_durations(void **state)
{
    static const struct {
        const char *text;
        bool is_fine;
        uint32_t ms;
    } cases[] = {
        {"0", true, 0},
        {"0s", true, 0},
        {"10s", true, 10000},
        {"250ms", true, 250},
        {"1m", true, 60000},
        {"2h", true, 7200000},
        {"1d", true, 86400000},
        {"1h30m", true, 5400000},
        {"1h2m3s4ms", true, 3723004},
        {"1h1h1h1h1h", false, 0},
        {"", false, 0},
        {"s", false, 0},
        {"10", false, 0},
        {"10 s", false, 0},
        {"+1s", false, 0},
        {"-1s", false, 0},
        {"1.5s", false, 0},
        {"1us", false, 0},
        {"1S", false, 0},
        {"1s ", false, 0},
        {"49d", true, 4233600000U},
        {"50d", false, 0},
        {"99999999999s", false, 0},
        {"9999999999d", false, 0},
        {"00", false, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t ms = 77;

        if (duration_parse(slice_str(cases[i].text), &ms) != cases[i].is_fine)
            fail_msg("%s", cases[i].text);
        assert_int_equal(ms, cases[i].is_fine ? cases[i].ms : 77);
    }
}

static void test_why_text(void **state)
{
    struct why why;
    char out[WHY_TEXT];

    (void)state;
    memset(&why, 0, sizeof(why));
    (void)why_set(&why, OK, "%s\xc3\xa9", "bad\nthing ");
    why_text(&why, out);
    assert_string_equal(out, "bad thing \xc3\xa9");
    char longer[600];
    memset(longer, 'x', sizeof(longer));
    memcpy(longer + 298, "\xe2\x82\xac", 3); /* cut in the middle of a character */
    longer[599] = '\0';
    (void)why_set(&why, OK, "%s", longer);
    assert_int_equal(strlen(why.reason), 298);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_service),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_canonical_is_stable),
        cmocka_unit_test(test_endpoint_slice),
        cmocka_unit_test(test_route),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_kinds),
        cmocka_unit_test(test_grpc_methods_are_paths),
        cmocka_unit_test(test_conditions_are_written_out),
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_filters_that_point_somewhere),
        cmocka_unit_test(test_balancing),
        cmocka_unit_test(test_not_objects),
        cmocka_unit_test(test_names_and_words),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_why_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
