/* Mirrors through a whole worker: copies come through, and never touch the original. */
#include "rig.h"

#include "kit/random.h"

static struct wire_endpoint endpoints[3];
static struct wire_backend backends[2];
static struct wire_weighted share;
static struct wire_filter filters[3];
static struct wire_field_edit edit;
static struct wire_rule rule;

static struct event_base *base;
static struct rig rig;
static struct rig_client client;
#define MIRROR (&rig.servers[2])

static void view(struct rig *r, struct wire_destination *d)
{
    (void)r;
    d->kind = DESTINATION_SERVICE;
    d->namespace = SLICE_LIT("default");
    d->name = SLICE_LIT("web");
    d->port = 80;
    d->n_rules = 1;
    d->rules = &rule;
    d->n_backends = 2;
    d->backends = backends;
}

static int up(void **state)
{
    (void)state;
    rig_up(&rig, base, "web:80");
    rig.view = view;
    random_test_seed(7);
    for (int i = 0; i < 3; i++)
        endpoints[i] = rig_endpoint(rig.servers[i].port);
    backends[0] = (struct wire_backend){.namespace = SLICE_LIT("default"),
                                        .name = SLICE_LIT("web"),
                                        .port = 80,
                                        .n_endpoints = 1,
                                        .endpoints = endpoints};
    backends[1] = backends[0];
    backends[1].name = SLICE_LIT("shadow");
    backends[1].endpoints = &endpoints[2];
    share = (struct wire_weighted){.backend = 0, .weight = 1};
    edit = (struct wire_field_edit){ROUTE_EDIT_SET, SLICE_LIT("x-by"), SLICE_LIT("route")};
    filters[0] =
        (struct wire_filter){.kind = ROUTE_FILTER_REQUEST_HEADERS, .n_edits = 1, .edits = &edit};
    filters[1] = (struct wire_filter){.kind = ROUTE_FILTER_MIRROR, .backend = 1};
    rule = (struct wire_rule){.route = SLICE_LIT("HTTPRoute/default/r"),
                              .n_filters = 2,
                              .filters = filters,
                              .n_backends = 1,
                              .backends = &share};
    return 0;
}

static int down(void **state)
{
    (void)state;
    rig_down(&rig);
    return 0;
}

#define GET  "GET /a?b HTTP/1.1\r\nHost: web.test\r\nX-Old: 1\r\n\r\n"
#define POST "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 5\r\n\r\nhello"

static uint64_t results(const char *result)
{
    char part[80];

    (void)snprintf(part, sizeof(part), "route_name=\"r\",result=\"%s\"", result);
    return rig_counted(&rig, SERIES_MIRRORS, part);
}

static void copies_come_through(void **state)
{
    (void)state;
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
    rig_until(&rig, results("answered") == 1);
    assert_non_null(strstr(MIRROR->last_head, "GET /a?b HTTP/1.1\r\n"));
    assert_non_null(strcasestr(MIRROR->last_head, "host: web.test\r\n"));
    assert_non_null(strcasestr(MIRROR->last_head, "x-old: 1\r\n"));
    assert_non_null(strcasestr(MIRROR->last_head, "x-by: route\r\n"));
    assert_int_equal(rig_ask(&rig, &client, POST), 200);
    assert_non_null(strstr(client.got, "X-Server: 0"));
    rig_until(&rig, results("answered") == 2);
    assert_string_equal(MIRROR->last_body, "hello");
    assert_int_equal(MIRROR->connections, 1); /* kept */
    assert_int_equal(rig_counted(&rig, SERIES_REQUEST, "direction=\"outbound\""), 2);
    assert_int_equal(rig.worker->n_exchanges, 0);
}

/* Content in pieces, before and behind the mirror's connection. */
static void content_in_pieces(void **state)
{
    (void)state;
    rig_connect(&rig, &client);
    rig_say(&client, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\nabc");
    rig_until(&rig, rig.worker->n_exchanges == 1 && MIRROR->connections == 1);
    rig_say(&client, "defg");
    for (int i = 0; i < 10; i++)
        (void)event_base_loop(rig.base, EVLOOP_NONBLOCK);
    rig_say(&client, "hijkl");
    rig_until(&rig, rig_has(&client, "\r\n\r\nabcdefghijkl"));
    close(client.fd);
    rig_until(&rig, results("answered") == 1);
    assert_string_equal(MIRROR->last_body, "abcdefghijkl");
    assert_null(strcasestr(MIRROR->last_head, "expect"));
}

static void a_share(void **state)
{
    unsigned n = 200;

    (void)state;
    filters[1].share_ppm = 250000;
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(rig_ask(&rig, &client, GET), 200);
    rig_until(&rig, results("answered") == MIRROR->requests && MIRROR->requests > 0);
    assert_in_range(MIRROR->requests, n / 8, n / 2);
}

static bool rig_long(struct rig_server *s, const char *head, const char *text, struct evbuffer *out)
{
    static char bytes[300000];

    (void)s, (void)head, (void)text;
    evbuffer_add_printf(out, "HTTP/1.1 500 No\r\nContent-Length: %zu\r\n\r\n", sizeof(bytes));
    evbuffer_add(out, bytes, sizeof(bytes));
    return true;
}

/* Whatever the mirror does, the original gets its answer; and it is counted what it did. */
static void mirrors_that_behave_badly(void **state)
{
    static const struct {
        bool (*answer)(struct rig_server *s, const char *head, const char *body, struct evbuffer *out);
        const char *result;
    } cases[] = {
        {rig_slams, "failed"},
        {rig_unavailable, "answered"},
        {rig_long, "answered"},
        {rig_silent, "timeout"},
    };

    (void)state;
    rule.request_ms = 300;
    rule.has_retry = false;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t before = results(cases[i].result);

        MIRROR->answer = cases[i].answer;
        assert_int_equal(rig_ask(&rig, &client, POST), 200);
        assert_non_null(strstr(client.got, "\r\n\r\nhello"));
        rig_until(&rig, results(cases[i].result) == before + 1);
    }
    assert_int_equal(rig.asks, 0);
    assert_true(list_is_empty(&rig.worker->mirrors));
}

static void mirrors_that_are_not_there(void **state)
{
    (void)state;
    endpoints[2].port = 1;
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
    rig_until(&rig, results("failed") == 1);
    assert_int_equal(rig_ask(&rig, &client, GET), 200); /* it backs off */
    rig_until(&rig, results("not_ready") == 1);
}

static void no_more_than_the_limit(void **state)
{
    (void)state;
    filters[1].running_max = 2;
    MIRROR->answer = rig_silent;
    for (int i = 0; i < 5; i++)
        assert_int_equal(rig_ask(&rig, &client, GET), 200);
    assert_int_equal(results("limit"), 3);
}

/* The original ends first: with all of its request the copy goes on, else it is cut. */
static void the_original_goes(void **state)
{
    const struct linger reset = {1, 0};

    (void)state;
    rig_connect(&rig, &client);
    rig_say(&client, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 12\r\n\r\nabc");
    rig_until(&rig, MIRROR->connections == 1);
    (void)setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(client.fd);
    rig_until(&rig, results("cut") == 1);
    assert_int_equal(MIRROR->requests, 0);
    MIRROR->answer = rig_silent;
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
    rig_until(&rig, rig.worker->n_exchanges == 0 && MIRROR->requests == 1);
    assert_false(list_is_empty(&rig.worker->mirrors)); /* the worker ends with it */
}

static void two_mirrors_and_a_tunnel(void **state)
{
    (void)state;
    filters[2] = filters[1];
    rule.n_filters = 3;
    assert_int_equal(rig_ask(&rig, &client, POST), 200);
    rig_until(&rig, results("answered") == 2);
    rig_connect(&rig, &client);
    rig_say(&client, "GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    rig_until(&rig, rig_has(&client, "\r\n\r\n"));
    close(client.fd);
    rig_until(&rig, rig.worker->n_exchanges == 0);
    assert_int_equal(MIRROR->requests, 2);
}

#define T(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(copies_come_through),        T(content_in_pieces),
        T(a_share),                    T(mirrors_that_behave_badly),
        T(mirrors_that_are_not_there), T(no_more_than_the_limit),
        T(the_original_goes),          T(two_mirrors_and_a_tunnel),
    };
    int rc;

    log_init("mirror_test");
    log_set_level(getenv("WEFT_LOG") != NULL ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    base = event_base_new();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    mailbox_shutdown();
    event_base_free(base);
    return rc;
}
