/* What a Service that was applied looks like in the mesh's database. */
#include "rig.h"

struct expected {
    const char *name, *ports;
    unsigned seen;
};

static void on_service(void *arg, const struct mesh_service *row)
{
    struct expected *x = arg;

    if (!slice_is_str(row->name, x->name))
        return;
    x->seen++;
    if (!slice_is_str(row->ports, x->ports))
        fail_msg("%s: %.*s, not %s", x->name, SLICE_FMT(row->ports), x->ports);
}

static void the_ports_of_a_service_are_stored(void **state)
{
    static const struct {
        const char *name, *json, *ports;
    } cases[] = {
        {"bare", "\"spec\":{\"ports\":[{\"port\":80}]}",
         "[{\"name\":\"\",\"port\":80,\"protocol\":\"detect\"}]"},
        {"named",
         "\"spec\":{\"ports\":[{\"name\":\"web\",\"port\":80,\"appProtocol\":\"http\"},"
         "{\"name\":\"db\",\"port\":5432}]}",
         "[{\"name\":\"web\",\"port\":80,\"protocol\":\"http1\"},"
         "{\"name\":\"db\",\"port\":5432,\"protocol\":\"detect\"}]"},
    };
    struct rig *r = *state;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[600];
        struct expected x = {cases[i].name, cases[i].ports, 0};

        (void)snprintf(text, sizeof text,
                       "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":"
                       "\"%s\"},%s}",
                       cases[i].name, cases[i].json);
        if (rig_apply(r, text) != 0)
            fail_msg("%s refused", text);
        assert_null(mesh_each_service(r->c.mesh, on_service, &x));
        if (x.seen != 1)
            fail_msg("%s: %u rows", x.name, x.seen);
    }
}

static void a_port_that_a_pod_serves_is_stored(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    struct expected x = {"web", "[{\"name\":\"p8080\",\"port\":8080,\"protocol\":\"detect\"}]",
                         0};

    assert_null(rig_hello(r, "web-1", "10.0.0.9", "web", 8080, &s));
    assert_null(mesh_each_service(r->c.mesh, on_service, &x));
    assert_int_equal(x.seen, 1);
}

/* ---- two that cannot both be followed ---- */

#define NAMED(kind, version, name)                                                             \
    "{\"apiVersion\":\"" version "\",\"kind\":\"" kind "\",\"metadata\":{\"name\":\"" name "\"},\"spec\":"
#define GATEWAY "gateway.networking.k8s.io/v1"
#define PARENTS(port) "\"parentRefs\":[{\"kind\":\"Service\",\"name\":\"web\",\"port\":" port "}]"
#define HTTP(name, port)                                                                       \
    NAMED("HTTPRoute", GATEWAY, name) "{" PARENTS(port) ",\"rules\":[{}]}}"
#define GRPC(name, port)                                                                       \
    NAMED("GRPCRoute", GATEWAY, name) "{" PARENTS(port) ",\"rules\":[{}]}}"
#define TCP(name, port)                                                                        \
    NAMED("TCPRoute", GATEWAY "alpha2", name)                                                  \
    "{" PARENTS(port) ",\"rules\":[{\"backendRefs\":[{\"name\":\"b\",\"port\":1}]}]}}"
#define RATE(name, port)                                                                       \
    NAMED("HTTPLocalRateLimitPolicy", "policy.linkerd.io/v1alpha1", name)                      \
    "{\"targetRef\":{\"kind\":\"Service\",\"name\":\"web\"" port                               \
    "},\"total\":{\"requestsPerSecond\":5}}}"
#define PROFILE                                                                                \
    NAMED("ServiceProfile", "linkerd.io/v1alpha2", "web.default.svc.cluster.local")            \
    "{\"routes\":[{\"name\":\"a\",\"condition\":{\"method\":\"GET\"}}]}}"
#define FAULTY                                                                                 \
    NAMED("HTTPRoute", GATEWAY, "f")                                                           \
    "{" PARENTS("9") ",\"rules\":[{\"filters\":[{\"type\":\"ExtensionRef\",\"extensionRef\":{"      \
                     "\"group\":\"weft.io\",\"kind\":\"HTTPFaultInjection\",\"name\":\"x\"}}]}]}}"

static void what_cannot_be_followed_is_told(void **state)
{
    static const struct {
        const char *first, *second;
        unsigned result; /* of the second */
        const char *why;
    } cases[] = {
        {HTTP("h", "80"), GRPC("g", "80"), 4,
         "spec.parentRefs[0]: HTTPRoute/default/h is attached to this port already"},
        {HTTP("h", "80"), GRPC("g", "81"), 0, ""},
        {GRPC("g", "80"), HTTP("h", "80"), 4, "GRPCRoute/default/g is attached"},
        {HTTP("h", "80"), HTTP("i", "80"), 0, ""},
        {TCP("t", "80"), TCP("u", "80"), 4, "only one TCPRoute can be followed"},
        {TCP("t", "80"), TCP("t", "80"), 2, ""},
        {TCP("t", "80"), TCP("u", "81"), 0, ""},
        {RATE("r", ""), RATE("s", ""), 4,
         "spec.targetRef: HTTPLocalRateLimitPolicy/default/r limits this service already"},
        {RATE("r", ",\"port\":80"), RATE("s", ""), 0, ""},
        {RATE("r", ",\"port\":80"), RATE("s", ",\"port\":80"), 4, "limits this port already"},
        {PROFILE, HTTP("h", "80"), 0,
         "not followed while ServiceProfile/default/web.default.svc.cluster.local has routes"},
        {HTTP("h", "80"), PROFILE, 0, "HTTPRoute/default/h is not followed any more"},
        {HTTP("h", "80"), FAULTY, 0,
         "HTTPFaultInjection/default/x does not exist (yet): nothing is injected"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int together = 0; together < 2; together++) { /* one message, or two */
            struct wire_object o[2] = {{.json = slice_str(cases[i].first)},
                                       {.json = slice_str(cases[i].second)}};
            struct wire_apply ask = {.author = SLICE_LIT("test"), .n_objects = 2, .objects = o};
            struct wire_outcome out[2];
            struct arena arena;
            struct rig *r;

            assert_int_equal(rig_setup((void **)&r), 0);
            arena_init(&arena, 0);
            if (together == 0)
                assert_int_equal(rig_apply(r, cases[i].first), 0);
            if (together == 0) {
                ask.n_objects = 1;
                ask.objects = &o[1];
            }
            objects_apply(&r->c, &ask, &arena, out);
            const struct wire_outcome *last = &out[ask.n_objects - 1];
            if (last->result != cases[i].result ||
                memmem(last->why.p, last->why.n, cases[i].why, strlen(cases[i].why)) == NULL)
                fail_msg("case %zu, together %d: %u %.*s", i, together, last->result,
                         SLICE_FMT(last->why));
            arena_done(&arena);
            (void)rig_teardown((void **)&r);
        }
    }
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_ports_of_a_service_are_stored, rig_setup,
                                        rig_teardown),
        cmocka_unit_test_setup_teardown(a_port_that_a_pod_serves_is_stored, rig_setup,
                                        rig_teardown),
        cmocka_unit_test(what_cannot_be_followed_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
