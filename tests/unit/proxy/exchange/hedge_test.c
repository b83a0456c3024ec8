/* Hedges through a whole worker: which attempt wins, and what becomes of the others. */
#include "rig.h"

static struct wire_endpoint endpoints[3];
static struct wire_backend backend;
static struct wire_weighted share;
static struct wire_retry_policy policy;
static struct wire_status_range range;
static struct wire_match match;
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
    rig.verdict = rig_go;
    for (int i = 0; i < 3; i++)
        endpoints[i] = rig_endpoint(rig.servers[i].port);
    backend = (struct wire_backend){.namespace = SLICE_LIT("default"),
                                    .name = SLICE_LIT("web"),
                                    .port = 80,
                                    .n_endpoints = 2,
                                    .endpoints = endpoints};
    share = (struct wire_weighted){.backend = 0, .weight = 1};
    range = (struct wire_status_range){500, 599};
    policy = (struct wire_retry_policy){.limit = 1, .n_statuses = 1, .statuses = &range, .hedge_ms = 20};
    match = (struct wire_match){.method = SLICE_LIT("POST")};
    rule = (struct wire_rule){.route = SLICE_LIT("HTTPRoute/default/r"),
                              .n_backends = 1,
                              .backends = &share,
                              .has_retry = true,
                              .n_retry = 1,
                              .retry = &policy};
    return 0;
}

static int down(void **state)
{
    (void)state;
    rig_down(&rig);
    return 0;
}

#define GET  "GET / HTTP/1.1\r\nHost: web\r\n\r\n"
#define PUT  "PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello"
#define POST "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello"

/* Every request is answered although one of the two servers never answers; each that went there was hedged once. */
static void the_first_head_wins(void **state)
{
    unsigned n = 12;

    (void)state;
    rig.servers[0].answer = rig_silent;
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(rig_ask(&rig, &client, i % 2 ? PUT : GET), 200);
        assert_non_null(strstr(client.got, "X-Server: 1"));
        assert_string_equal(rig.servers[1].last_body, i % 2 ? "hello" : "");
    }
    rig_until(&rig, rig.worker->n_exchanges == 0);
    assert_true(rig.asks > 0);
    assert_int_equal(rig.last_ask.cause, 6);
    assert_true(rig.last_ask.is_replayable);
    assert_int_equal(rig_counted(&rig, SERIES_HEDGES, "route_name=\"r\",result=\"sent\""), rig.asks);
    assert_int_equal(rig_counted(&rig, SERIES_HEDGES, "result=\"won\""), rig.asks);
    assert_int_equal(rig_counted(&rig, SERIES_REQUEST, "direction=\"outbound\""), n + rig.asks);
    assert_int_equal(rig_counted(&rig, SERIES_RESPONSE, "classification=\"success\""), n);
    assert_int_equal(rig_counted(&rig, SERIES_RESPONSE, "classification=\"failure\""), 0);
    assert_int_equal(rig_counted(&rig, SERIES_RESPONSE, "direction=\"outbound\""), n + rig.asks);
    assert_int_equal(rig_counted(&rig, SERIES_RETRY_REQUESTS, "r"), 0);
    asks_tick(rig.worker->asks);
    rig_until(&rig, rig.settled_requests == n && rig.settled_successes == n);
    assert_int_equal(rig.worker->replay_used, 0);
}

/* A server's answer that comes when the test says so. */
static struct evbuffer *late[RIG_SERVERS];
static unsigned n_late;
static int leader; /* where the first attempt went */

static bool rig_late(struct rig_server *s, const char *head, const char *text, struct evbuffer *out)
{
    (void)head, (void)text;
    late[s - rig.servers] = out;
    if (n_late++ == 0)
        leader = (int)(s - rig.servers);
    return true;
}

static void say_late(int i, const char *text)
{
    assert_non_null(late[i]);
    evbuffer_add_printf(late[i], "%s", text);
}

static void begin_two(const char *request)
{
    memset(late, 0, sizeof(late));
    n_late = 0;
    rig.servers[0].answer = rig.servers[1].answer = rig_late;
    rig_connect(&rig, &client);
    rig_say(&client, request);
    rig_until(&rig, n_late == 1);
    rig_until(&rig, n_late == 2);
}

static void finish(const char *what)
{
    rig_until(&rig, rig_has(&client, what));
    assert_non_null(strstr(client.got, what));
    close(client.fd);
    rig_until(&rig, rig.worker->n_exchanges == 0);
}

/* Either may win; the other's connection is given up. */
static void either_wins(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        begin_two(GET);
        say_late(i, "HTTP/1.1 201 Yes\r\nContent-Length: 2\r\n\r\nhi");
        finish("\r\n\r\nhi");
        assert_int_equal(atoi(client.got + 9), 201);
    }
    assert_int_equal(rig_counted(&rig, SERIES_HEDGES, "result=\"sent\""), 2);
    assert_int_equal(rig_counted(&rig, SERIES_HEDGES, "result=\"won\"") + rig_counted(&rig, SERIES_HEDGES, "result=\"lost\""), 2);
}

/* An answer that would be made again does not win while another attempt runs; when it is the leader's, the hedge leads
 * and nothing is asked. */
static void a_failure_does_not_win(void **state)
{
    static const char busy[] = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";

    (void)state;
    for (int i = 0; i < 2; i++) {
        rig.asks = 0;
        begin_two(PUT);
        say_late(i, busy);
        for (int k = 0; k < 20; k++)
            (void)event_base_loop(rig.base, EVLOOP_NONBLOCK);
        assert_int_equal(rig.worker->n_exchanges, 1);
        say_late(1 - i, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        finish("\r\n\r\nhi");
        assert_int_equal(rig.asks, 1); /* for the hedge */
    }
    assert_int_equal(rig_counted(&rig, SERIES_RESPONSE, "classification=\"failure\",status_code=\"503\""), 2);
}

/* Both fail: the last one's answer is the one that is judged. */
static void both_fail(void **state)
{
    static const char busy[] = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";

    (void)state;
    begin_two(PUT);
    rig.verdict = rig_stop;
    say_late(0, busy);
    say_late(1, busy);
    finish("\r\n\r\nbusy");
    assert_int_equal(rig.asks, 2);
    assert_int_equal(rig.last_ask.cause, 2);
}

static void a_late_leader_that_breaks(void **state)
{
    (void)state;
    policy.per_try_ms = 60; /* ends the leader */
    begin_two(PUT);
    rig_until(&rig, rig_counted(&rig, SERIES_HEDGES, "result=\"took_over\"") == 1);
    say_late(1 - leader, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    finish("\r\n\r\nhi");
}

static void who_is_not_hedged(void **state)
{
    static const char *const requests[] = {
        POST, /* unless the rule names the method */
        "GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n",
    };

    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_silent;
    rule.request_ms = 80;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        assert_int_equal(rig_ask(&rig, &client, requests[i]), 504);
    assert_int_equal(rig.asks, 0);
    assert_int_equal(rig_counted(&rig, SERIES_RETRY_REFUSED, "r"), 0);
}

static void a_post_the_rule_names(void **state)
{
    (void)state;
    rule.n_matches = 1;
    rule.matches = &match;
    rig.servers[0].answer = rig_silent;
    for (int i = 0; i < 6; i++)
        assert_int_equal(rig_ask(&rig, &client, POST), 200);
    assert_true(rig.asks > 0);
}

/* Every hedge that was due and was not made has its reason. */
static void reasons(void **state)
{
    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_silent;
    rule.request_ms = 80;
    rig.verdict = rig_stop;
    assert_int_equal(rig_ask(&rig, &client, GET), 504);
    assert_int_equal(rig_counted(&rig, SERIES_RETRY_REFUSED, "route_name=\"r\",reason=\"BUDGET\""), 1);
    backend.n_endpoints = 1;
    {
        struct wire_destination d = {.target = SLICE_LIT("web:80"), .revision = 2};

        view(&rig, &d);
        assert_true(WIRE_SEND(rig.link, slice(rig.link_peer, rig.link_peer_n), destination, &d) == OK);
        rig_until(&rig, rig.applied == 2);
    }
    assert_int_equal(rig_ask(&rig, &client, GET), 504);
    assert_int_equal(rig_counted(&rig, SERIES_RETRY_REFUSED, "reason=\"NOT_READY\""), 1);
    rig.settings.replay_max = 2;
    rig.settings.replay_spill = 0;
    assert_int_equal(rig_ask(&rig, &client, PUT), 504);
    assert_int_equal(rig_counted(&rig, SERIES_RETRY_REFUSED, "reason=\"TOO_LARGE\""), 1);
    assert_int_equal(rig_counted(&rig, SERIES_HEDGES, "result=\"sent\""), 0);
}

static void slam(void)
{
    const struct linger reset = {1, 0};

    (void)setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(client.fd);
}

/* The client, and weft-retry, may go at any moment. */
static void everybody_goes(void **state)
{
    (void)state;
    begin_two(GET);
    slam();
    rig_until(&rig, rig.worker->n_exchanges == 0);
    rig.verdict = NULL; /* no answer: the hedge waits for it */
    rig.asks = 0;
    rig_connect(&rig, &client);
    rig_say(&client, GET);
    rig_until(&rig, rig.asks == 1);
    slam();
    rig_until(&rig, rig.cancels == 1);
    rig_connect(&rig, &client);
    rig_say(&client, GET);
    rig_until(&rig, rig.asks == 2);
    mailbox_close(&rig.retry);
    rig_until(&rig, rig_counted(&rig, SERIES_RETRY_REFUSED, "reason=\"NO_VERDICT\"") == 1);
    slam();
    rig_until(&rig, rig.worker->n_exchanges == 0);
}

static void three_at_once(void **state)
{
    (void)state;
    backend.n_endpoints = 3;
    policy.hedge_max = 3;
    rig.servers[0].answer = rig.servers[1].answer = rig.servers[2].answer = rig_late;
    memset(late, 0, sizeof(late));
    n_late = 0;
    rig_connect(&rig, &client);
    rig_say(&client, GET);
    rig_until(&rig, n_late >= 2);
    /* The third needs an endpoint that has none: chance may have to be asked more than once. */
    say_late(late[0] != NULL ? 0 : 2, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    finish("\r\n\r\nhi");
}

#define T(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_first_head_wins), T(either_wins),       T(a_failure_does_not_win),
        T(both_fail),           T(a_late_leader_that_breaks), T(who_is_not_hedged),
        T(a_post_the_rule_names), T(reasons),         T(everybody_goes),
        T(three_at_once),
    };
    int rc;

    log_init("hedge_test");
    log_set_level(getenv("WEFT_LOG") != NULL ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    base = event_base_new();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    mailbox_shutdown();
    event_base_free(base);
    return rc;
}
