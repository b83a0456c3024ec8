/* Opaque connections to a service that has as many as it may: the client is let go, and it is counted by code. */
#include "rig.h"

static struct wire_endpoint endpoint;
static struct wire_backend backend;
static struct event_base *base;
static struct rig rig;

static void view(struct rig *r, struct wire_destination *d)
{
    (void)r;
    d->kind = DESTINATION_SERVICE;
    d->namespace = SLICE_LIT("default");
    d->name = SLICE_LIT("web");
    d->port = 80;
    d->protocol = PROTOCOL_OPAQUE;
    d->n_backends = 1;
    d->backends = &backend;
}

static bool find(void *arg, const struct series_view *v)
{
    uint64_t *n = arg;

    if (v->family == SERIES_MESH_ANSWERS && memmem(v->labels.p, v->labels.n, "W7004", 5) != NULL)
        *n += v->values[0];
    return true;
}

static uint64_t counted(void)
{
    uint64_t n = 0;

    (void)series_collect(rig.worker->series, true, find, &n);
    return n;
}

static void refused_and_counted(void **state)
{
    static struct rig_client held, other;

    (void)state;
    rig_up(&rig, base, "web:80");
    rig.view = view;
    rig.settings.failfast_timeout = 100;
    endpoint = rig_endpoint(rig.servers[0].port);
    backend = (struct wire_backend){.namespace = SLICE_LIT("default"),
                                    .name = SLICE_LIT("web"),
                                    .port = 80,
                                    .connections_max = 1,
                                    .n_endpoints = 1,
                                    .endpoints = &endpoint};
    rig_connect(&rig, &held);
    rig_say(&held, "x");
    rig_until(&rig, rig.servers[0].connections == 1);
    rig_connect(&rig, &other);
    rig_say(&other, "x");
    rig_until(&rig, counted() == 1);
    assert_int_equal(rig.servers[0].connections, 1);
    close(other.fd);
    close(held.fd);
    rig_down(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(refused_and_counted)};
    int rc;

    log_init("crowded_test");
    log_set_level(LOG_LEVEL_ERROR);
    base = event_base_new();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    mailbox_shutdown();
    event_base_free(base);
    return rc;
}
