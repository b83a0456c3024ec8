/* Limits of time, faults and rates through a whole worker: what is answered, what is counted,
 * and that nothing stays behind. */
#include "rig.h"

#include "kit/random.h"
#include "proxy/limit/deadline.h"
#include "proxy/limit/limit.h"

static struct wire_endpoint endpoint;
static struct wire_backend backend;
static struct wire_weighted share;
static struct wire_filter filters[3];
static struct wire_retry_policy policy;
static struct wire_rule rule;
static struct event_base *base;
static struct rig rig;
static struct rig_client client;

static void view(struct rig *r, struct wire_destination *d)
{
    (void)r;
    d->kind = DESTINATION_SERVICE;
    d->namespace = SLICE_LIT("default");
    d->name = SLICE_LIT("web");
    d->port = 80;
    d->n_rules = 1;
    d->rules = &rule;
    d->n_backends = 1;
    d->backends = &backend;
}

static int up(void **state)
{
    (void)state;
    rig_up(&rig, base, "web:80");
    rig.view = view;
    memset(filters, 0, sizeof(filters));
    memset(&policy, 0, sizeof(policy));
    endpoint = rig_endpoint(rig.servers[0].port);
    backend = (struct wire_backend){.namespace = SLICE_LIT("default"),
                                    .name = SLICE_LIT("web"),
                                    .port = 80,
                                    .n_endpoints = 1,
                                    .endpoints = &endpoint};
    share = (struct wire_weighted){.weight = 1};
    rule = (struct wire_rule){.route = SLICE_LIT("HTTPRoute/default/r"),
                              .index = 3,
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

#define GET "GET / HTTP/1.1\r\nHost: web\r\n\r\n"

static bool half(struct rig_server *s, const char *head, const char *body, struct evbuffer *out)
{
    (void)s, (void)head, (void)body;
    evbuffer_add_printf(out, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    return true;
}

/* ---- time ---- */

static void test_each_limit_has_its_code(void **state)
{
    struct {
        uint32_t *ms;
        const char *code, *details, *label;
    } cases[] = {
        {&rule.request_ms, "weft-code: W3002", "rule 3: timeouts.request 40ms",
         "error=\"W3002\""},
        {&rule.backend_ms, "weft-code: W3003", "rule 3: timeouts.backendRequest 40ms",
         "error=\"W3003\""},
        {&rule.head_ms, "weft-code: W3009", "rule 3: timeout.weft.io/response-headers 40ms",
         "error=\"W3009\""},
        {&rule.idle_ms, "weft-code: W3004", "rule 3: timeout.linkerd.io/idle 40ms",
         "error=\"W3004\""},
    };

    (void)state;
    rig.servers[0].answer = rig_silent;
    rig.verdict = rig_stop;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig_client c;
        struct wire_destination d = {.target = SLICE_LIT("web:80"), .revision = i + 2};

        *cases[i].ms = 40;
        if (rig.resolves > 0) { /* the next view of a target in use */
            view(&rig, &d);
            assert_true(WIRE_SEND(rig.link, slice(rig.link_peer, rig.link_peer_n), destination,
                                  &d) == OK);
            rig_until(&rig, rig.applied_revision == i + 2);
        }
        assert_int_equal(rig_ask(&rig, &c, GET), 504);
        assert_non_null(strstr(c.got, cases[i].code));
        assert_non_null(strstr(c.got, cases[i].details));
        assert_null(strcasestr(c.got, "connection: close"));
        assert_int_equal(rig_counted(&rig, SERIES_RESPONSE, cases[i].label), 1);
        *cases[i].ms = 0;
    }
    rig_expect_nothing_left(&rig);
}

static void test_a_cut_is_counted_as_what_it_was(void **state)
{
    (void)state;
    rig.servers[0].answer = half;
    rule.backend_ms = 40;
    rule.head_ms = 30; /* the head is there: not met */
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
    assert_true(client.is_closed);
    assert_int_equal(rig_counted(&rig, SERIES_RESPONSE, "error=\"W3003\""), 1);
    assert_int_equal(rig_counted(&rig, SERIES_MESH_ANSWERS, "code=\"W3003\""), 1);
    assert_int_equal(rig_counted(&rig, SERIES_RESPONSE, "error=\"W3009\""), 0);
    rig_expect_nothing_left(&rig);
}

/* The head's limit may be retried, as the limit of a try. */
static void test_head_limit_asks_for_another_attempt(void **state)
{
    (void)state;
    rig.servers[0].answer = rig_silent;
    rig.verdict = rig_stop;
    rule.head_ms = 40;
    assert_int_equal(rig_ask(&rig, &client, GET), 504);
    assert_int_equal(rig.asks, 1);
    assert_int_equal(rig.last_ask.cause, 3);
    rig_expect_nothing_left(&rig);
}

/* ---- traces ---- */

#define TRACED                                                                                 \
    "GET / HTTP/1.1\r\nHost: web\r\n"                                                          \
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n"

static uint64_t key_of_trace(void)
{
    uint8_t id[16];

    assert_true(
        deadline_parse_trace(DEADLINE_B3, SLICE_LIT("0af7651916cd43dd8448eb211c80319c"), id));
    return limit_shared_key(rig.worker->limit_shared, 16, slice(id, 16), SLICE_LIT(""));
}

static void test_a_trace_has_a_deadline(void **state)
{
    struct limit_shared *s = rig.worker->limit_shared;
    uint64_t key = key_of_trace();
    struct limit_deadline *d = limit_deadline_put(s, key, clock_now_ms() + 50, clock_now_ms());
    struct limit_deadline *other;

    (void)state;
    rig.servers[0].answer = rig_silent;
    assert_int_equal(rig_ask(&rig, &client, TRACED), 504);
    assert_non_null(strstr(client.got, "weft-code: W3008"));
    assert_non_null(strstr(client.got, "same trace"));
    assert_int_equal(rig.servers[0].requests, 1);
    /* It is over now: the application's server is not even asked. */
    assert_int_equal(rig_ask(&rig, &client, TRACED), 504);
    assert_int_equal(rig.servers[0].requests, 1);
    /* Another request of the trace has no deadline: nothing is cut any more. */
    rig.servers[0].answer = rig_ok;
    other = limit_deadline_put(s, key, LIMIT_NO_DEADLINE, 0);
    assert_int_equal(rig_ask(&rig, &client, TRACED), 200);
    limit_deadline_drop(&other, key);
    limit_deadline_drop(&d, key);
    assert_int_equal(rig_ask(&rig, &client, TRACED), 200);
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
    rig_expect_nothing_left(&rig);
}

static void test_traces_may_be_ignored(void **state)
{
    struct limit_deadline *d =
        limit_deadline_put(rig.worker->limit_shared, key_of_trace(), 1, 0);

    (void)state;
    rig.settings.trace_deadlines = false;
    assert_int_equal(rig_ask(&rig, &client, TRACED), 200);
    limit_deadline_drop(&d, key_of_trace());
}

/* ---- faults ---- */

static void fault(uint8_t kind, uint32_t ppm)
{
    filters[rule.n_filters] =
        (struct wire_filter){.kind = kind,
                             .status = 503,
                             .share_ppm = ppm,
                             .delay_ms = kind == ROUTE_FILTER_DELAY ? 30 : 0};
    rule.filters = filters;
    rule.n_filters++;
}

static void test_shares_of_failures(void **state)
{
    unsigned failed = 0;

    (void)state;
    random_test_seed(42);
    fault(ROUTE_FILTER_FAIL, 250000);
    for (unsigned i = 0; i < 200; i++)
        failed += rig_ask(&rig, &client, GET) == 503;
    assert_in_range(failed, 25, 80);
    assert_int_equal(rig_counted(&rig, SERIES_FAULTS, "route_kind=\"HTTPRoute\",route_namespace="
                                            "\"default\",route_name=\"r\",fault=\"fail\""),
                     failed);
    assert_int_equal(rig_counted(&rig, SERIES_MESH_ANSWERS, "W1008"), failed);
    assert_int_equal(rig.servers[0].requests, 200 - failed);
}

static void test_a_delay_before_anything_is_sent(void **state)
{
    (void)state;
    fault(ROUTE_FILTER_DELAY, 0);
    fault(ROUTE_FILTER_FAIL, 0);
    assert_int_equal(rig_ask(&rig, &client, GET), 503);
    assert_non_null(strstr(client.got, "HTTPRoute/default/r rule 3: failure injected"));
    assert_int_equal(rig_counted(&rig, SERIES_FAULTS, "fault=\"delay\""), 1);
    assert_int_equal(rig.servers[0].connections, 0);
    rig_expect_nothing_left(&rig);
}

static void test_a_client_goes_during_a_delay(void **state)
{
    struct linger hard = {.l_onoff = 1};

    (void)state;
    fault(ROUTE_FILTER_DELAY, 0);
    filters[0].delay_ms = 3600000;
    rig_connect(&rig, &client);
    rig_say(&client, "PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 100\r\n\r\nsome");
    rig_until(&rig, rig_counted(&rig, SERIES_FAULTS, "fault=\"delay\"") == 1);
    assert_int_equal(setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
    close(client.fd);
    rig_expect_nothing_left(&rig);
}

static void test_a_delay_meets_the_limit(void **state)
{
    (void)state;
    fault(ROUTE_FILTER_DELAY, 0);
    filters[0].delay_ms = 3600000;
    rule.request_ms = 40;
    assert_int_equal(rig_ask(&rig, &client, GET), 504);
    assert_non_null(strstr(client.got, "W3002"));
    assert_int_equal(rig.servers[0].connections, 0);
    rig_expect_nothing_left(&rig);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, up, down)
    const struct CMUnitTest tests[] = {
        T(test_each_limit_has_its_code),
        T(test_a_cut_is_counted_as_what_it_was),
        T(test_head_limit_asks_for_another_attempt),
        T(test_a_trace_has_a_deadline),
        T(test_traces_may_be_ignored),
        T(test_shares_of_failures),
        T(test_a_delay_before_anything_is_sent),
        T(test_a_client_goes_during_a_delay),
        T(test_a_delay_meets_the_limit),
    };
    int rc;

    log_init("limits_test");
    log_set_level(getenv("WEFT_LOG") != NULL ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    base = event_base_new();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    mailbox_shutdown();
    event_base_free(base);
    return rc;
}
