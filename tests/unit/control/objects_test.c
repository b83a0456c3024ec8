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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_ports_of_a_service_are_stored, rig_setup,
                                        rig_teardown),
        cmocka_unit_test_setup_teardown(a_port_that_a_pod_serves_is_stored, rig_setup,
                                        rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
