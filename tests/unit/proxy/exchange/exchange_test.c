/* Requests through a whole worker, with what the control plane and weft-retry say made up by
 * the test. */
#include "rig.h"

#include "proxy/content/spill.h"
#include "proxy/exchange/ask.h"

/* ---- views that tests change ---- */

static struct wire_endpoint endpoints[4];
static struct wire_backend backends[3];
static struct wire_weighted shares[3];
static struct wire_match matches[3];
static struct wire_retry_policy policy;
static struct wire_status_range range;
static struct wire_filter filters[4];
static struct wire_field_edit edits[4];
static struct wire_rule rules[4];
static size_t n_rules, n_backends;
static uint8_t kind;

/* One service "default/web:80" with servers 0 and 1, one rule for all. */
static void base_view(struct rig *r)
{
    memset(endpoints, 0, sizeof(endpoints));
    memset(backends, 0, sizeof(backends));
    memset(shares, 0, sizeof(shares));
    memset(matches, 0, sizeof(matches));
    memset(&policy, 0, sizeof(policy));
    memset(filters, 0, sizeof(filters));
    memset(edits, 0, sizeof(edits));
    memset(rules, 0, sizeof(rules));
    for (int i = 0; i < 4; i++)
        endpoints[i] = rig_endpoint(r->servers[i].port);
    for (int i = 0; i < 3; i++)
        backends[i] = (struct wire_backend){.namespace = SLICE_LIT("default"),
                                            .port = 80,
                                            .n_endpoints = 1,
                                            .endpoints = &endpoints[i]};
    backends[0].name = SLICE_LIT("web");
    backends[0].n_endpoints = 2;
    backends[1].name = SLICE_LIT("b1");
    backends[1].endpoints = &endpoints[2];
    backends[2].name = SLICE_LIT("b2");
    backends[2].endpoints = &endpoints[3];
    for (uint16_t i = 0; i < 3; i++)
        shares[i] = (struct wire_weighted){.backend = i, .weight = 1};
    rules[0] = (struct wire_rule){
        .route = SLICE_LIT("HTTPRoute/default/r"), .n_backends = 1, .backends = shares};
    n_rules = 1;
    n_backends = 3;
    kind = DESTINATION_SERVICE;
}

static void view(struct rig *r, struct wire_destination *d)
{
    (void)r;
    d->kind = kind;
    d->namespace = SLICE_LIT("default");
    d->name = SLICE_LIT("web");
    d->port = 80;
    d->n_rules = n_rules;
    d->rules = rules;
    d->n_backends = n_backends;
    d->backends = backends;
}

static void retry_on(uint16_t low, uint16_t high)
{
    range = (struct wire_status_range){low, high};
    policy.limit = 2;
    policy.n_statuses = 1;
    policy.statuses = &range;
    rules[0].has_retry = true;
    rules[0].n_retry = 1;
    rules[0].retry = &policy;
}

static struct event_base *base;
static struct rig rig;
static struct rig_client client;

static int up(void **state)
{
    (void)state;
    rig_up(&rig, base, "web:80");
    rig.view = view;
    base_view(&rig);
    return 0;
}

static int down(void **state)
{
    (void)state;
    rig_down(&rig);
    return 0;
}

#define GET  "GET / HTTP/1.1\r\nHost: web\r\n\r\n"
#define POST "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello"

static uint64_t counted(enum series_family family, const char *part);

/* ---- plain ---- */

static void test_both_endpoints_are_used(void **state)
{
    (void)state;
    for (int i = 0; i < 40; i++)
        assert_int_equal(rig_ask(&rig, &client, GET), 200);
    assert_true(rig.servers[0].requests > 0 && rig.servers[1].requests > 0);
    assert_int_equal(rig.resolves, 1);
    assert_int_equal(rig.asks, 0);
    assert_int_equal(counted(SERIES_REQUEST, "dst_service=\"web\""), 40);
    assert_int_equal(counted(SERIES_RESPONSE, "classification=\"success\",status_code=\"200\""),
                     40);
}

static void test_applied_is_told(void **state)
{
    (void)state;
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
    rig_until(&rig, rig.applied == 1);
    assert_int_equal(rig.applied_revision, 1);
}

/* A new view moves the traffic; the connection of the client stays. */
static void test_new_view(void **state)
{
    struct wire_destination d = {.target = SLICE_LIT("web:80"), .revision = 2};

    (void)state;
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
    backends[0].endpoints = &endpoints[2];
    backends[0].n_endpoints = 1;
    view(&rig, &d);
    assert_true(WIRE_SEND(rig.link, slice(rig.link_peer, rig.link_peer_n), destination, &d) ==
                OK);
    rig_until(&rig, rig.applied == 2);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(rig_ask(&rig, &client, GET), 200);
        assert_non_null(strstr(client.got, "X-Server: 2"));
    }
}

static void test_bad_view_changes_nothing(void **state)
{
    struct wire_destination d = {.target = SLICE_LIT("web:80"), .revision = 2};

    (void)state;
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
    view(&rig, &d);
    d.protocol = 99;
    assert_true(WIRE_SEND(rig.link, slice(rig.link_peer, rig.link_peer_n), destination, &d) ==
                OK);
    rig_until(&rig, discover_count(rig.worker->discover)->bad_views == 1);
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
}

/* ---- routes ---- */

static void test_route_by_path(void **state)
{
    (void)state;
    rules[1] = rules[0];
    rules[1].backends = &shares[1];
    rules[1].n_matches = 1;
    rules[1].matches = matches;
    matches[0] = (struct wire_match){.path_kind = ROUTE_PATH_PREFIX, .path = SLICE_LIT("/b")};
    n_rules = 2;
    assert_int_equal(rig_ask(&rig, &client, "GET /b/x?q HTTP/1.1\r\nHost: web\r\n\r\n"), 200);
    assert_non_null(strstr(client.got, "X-Server: 2"));
    assert_int_equal(rig_ask(&rig, &client, "GET /bb HTTP/1.1\r\nHost: web\r\n\r\n"), 200);
    assert_null(strstr(client.got, "X-Server: 2"));
}

static void test_no_route(void **state)
{
    (void)state;
    rules[0].n_matches = 1;
    rules[0].matches = matches;
    matches[0].method = SLICE_LIT("PUT");
    assert_int_equal(rig_ask(&rig, &client, GET), 404);
    assert_non_null(strstr(client.got, "weft-code: W1002"));
    assert_int_equal(counted(SERIES_MESH_ANSWERS, "code=\"W1002\""), 1);
}

static void test_missing_backend(void **state)
{
    (void)state;
    backends[0].state = ROUTE_BACKEND_MISSING;
    assert_int_equal(rig_ask(&rig, &client, GET), 500);
    assert_non_null(strstr(client.got, "weft-code: W1003"));
    assert_non_null(strstr(client.got, "default/web:80"));
}

static void test_no_endpoints(void **state)
{
    (void)state;
    backends[0].n_endpoints = 0;
    assert_int_equal(rig_ask(&rig, &client, GET), 504);
    assert_non_null(strstr(client.got, "weft-code: W1001"));
    assert_int_equal(rig_ask(&rig, &client, GET), 504); /* now at once */
    assert_non_null(strstr(client.got, "weft-code: W7002"));
}

/* Who waits for an endpoint is served when one comes. */
static void test_endpoint_comes(void **state)
{
    struct wire_destination d = {.target = SLICE_LIT("web:80"), .revision = 2};

    (void)state;
    backends[0].n_endpoints = 0;
    rig_connect(&rig, &client);
    rig_say(&client, GET);
    rig_until(&rig, rig.worker->n_exchanges == 1);
    backends[0].n_endpoints = 1;
    view(&rig, &d);
    assert_true(WIRE_SEND(rig.link, slice(rig.link_peer, rig.link_peer_n), destination, &d) ==
                OK);
    rig_until(&rig, rig_has(&client, "200 OK"));
    assert_non_null(strstr(client.got, "200 OK"));
    close(client.fd);
}

static void test_weights(void **state)
{
    (void)state;
    rules[0].n_backends = 2;
    rules[0].backends = &shares[1];
    shares[1].weight = 9;
    shares[2].weight = 1;
    for (int i = 0; i < 60; i++)
        assert_int_equal(rig_ask(&rig, &client, GET), 200);
    assert_int_equal(rig.servers[2].requests + rig.servers[3].requests, 60);
    assert_true(rig.servers[2].requests > 35);
}

static void test_filters(void **state)
{
    (void)state;
    edits[0] = (struct wire_field_edit){ROUTE_EDIT_SET, SLICE_LIT("x-added"), SLICE_LIT("yes")};
    edits[1] = (struct wire_field_edit){ROUTE_EDIT_REMOVE, SLICE_LIT("x-gone"), SLICE_LIT("")};
    edits[2] =
        (struct wire_field_edit){ROUTE_EDIT_SET, SLICE_LIT("x-server"), SLICE_LIT("hidden")};
    filters[0] = (struct wire_filter){
        .kind = ROUTE_FILTER_REQUEST_HEADERS, .n_edits = 2, .edits = edits};
    filters[1] = (struct wire_filter){
        .kind = ROUTE_FILTER_RESPONSE_HEADERS, .n_edits = 1, .edits = &edits[2]};
    filters[2] = (struct wire_filter){.kind = ROUTE_FILTER_REWRITE,
                                      .host = SLICE_LIT("other.test"),
                                      .path_kind = ROUTE_REWRITE_PREFIX,
                                      .path = SLICE_LIT("/new")};
    rules[0].n_filters = 3;
    rules[0].filters = filters;
    rules[0].n_matches = 1;
    rules[0].matches = matches;
    matches[0] = (struct wire_match){.path_kind = ROUTE_PATH_PREFIX, .path = SLICE_LIT("/old")};
    assert_int_equal(
        rig_ask(&rig, &client, "GET /old/x?a=b HTTP/1.1\r\nHost: web\r\nX-Gone: 1\r\n\r\n"),
        200);
    {
        struct rig_server *s = rig.servers[0].requests > 0 ? &rig.servers[0] : &rig.servers[1];

        assert_non_null(strstr(s->last_head, "GET /new/x?a=b HTTP/1.1"));
        assert_non_null(strstr(s->last_head, "other.test"));
        assert_non_null(strstr(s->last_head, "x-added: yes"));
        assert_null(strstr(s->last_head, "X-Gone"));
    }
    assert_non_null(strcasestr(client.got, "x-server: hidden"));
}

static void test_redirect_and_fail(void **state)
{
    (void)state;
    filters[0] = (struct wire_filter){
        .kind = ROUTE_FILTER_REDIRECT, .scheme = SLICE_LIT("https"), .status = 308};
    rules[0].n_filters = 1;
    rules[0].filters = filters;
    assert_int_equal(rig_ask(&rig, &client, "GET /p?q HTTP/1.1\r\nHost: web\r\n\r\n"), 308);
    assert_non_null(strstr(client.got, "location: https://web"));
    filters[0] = (struct wire_filter){.kind = ROUTE_FILTER_FAIL, .status = 418};
    {
        struct wire_destination d = {.target = SLICE_LIT("web:80"), .revision = 2};

        view(&rig, &d);
        assert_true(
            WIRE_SEND(rig.link, slice(rig.link_peer, rig.link_peer_n), destination, &d) == OK);
        rig_until(&rig, rig.applied == 2);
    }
    assert_int_equal(rig_ask(&rig, &client, GET), 418);
    assert_int_equal(rig.servers[0].requests + rig.servers[1].requests, 0);
}

/* A backend's own faults happen when that backend was chosen, and only then. */
static void test_faults_of_a_backend(void **state)
{
    (void)state;
    int injected = 0, delayed = 0;

    filters[0] = (struct wire_filter){.kind = ROUTE_FILTER_DELAY, .delay_ms = 1};
    filters[1] = (struct wire_filter){.kind = ROUTE_FILTER_FAIL, .status = 418};
    filters[2] = (struct wire_filter){.kind = ROUTE_FILTER_DELAY, .delay_ms = 1};
    shares[1].filters = filters;
    shares[1].n_filters = 2;
    shares[2].filters = &filters[2];
    shares[2].n_filters = 1;
    rules[0].backends = &shares[1];
    rules[0].n_backends = 2;
    for (int i = 0; i < 40; i++) {
        int status = rig_ask(&rig, &client, GET);

        assert_true(status == 418 || status == 200);
        injected += status == 418;
        delayed += status == 200;
    }
    assert_true(injected > 0 && delayed > 0);
    assert_int_equal(counted(SERIES_FAULTS, "fault=\"fail\""), injected);
    assert_int_equal(counted(SERIES_FAULTS, "fault=\"delay\""), injected + delayed);
}

/* ---- retries ---- */

static void test_status_is_retried(void **state)
{
    (void)state;
    rig.servers[0].answer = rig_unavailable;
    rig.verdict = rig_go;
    retry_on(500, 599);
    for (int i = 0; i < 20; i++)
        assert_int_equal(rig_ask(&rig, &client, GET), 200);
    assert_true(rig.asks > 0);
    assert_int_equal(rig.last_ask.status, 503);
    assert_int_equal(rig.last_ask.delivered, 1);
    assert_true(rig.last_ask.is_replayable);
    assert_int_equal(counted(SERIES_RETRY_REQUESTS, "route_name=\"r\""), rig.asks);
    assert_true(counted(SERIES_RETRY_SUCCESSES, "route_name=\"r\"") > 0);
}

static void test_stop_gives_the_answer_that_came(void **state)
{
    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_unavailable;
    rig.verdict = rig_stop;
    retry_on(500, 599);
    assert_int_equal(rig_ask(&rig, &client, GET), 503);
    assert_non_null(strstr(client.got, "\r\n\r\nbusy"));
    assert_null(strstr(client.got, "weft-code"));
    assert_int_equal(counted(SERIES_RETRY_OVERFLOW, "route_name=\"r\""), 1);
    assert_int_equal(counted(SERIES_RETRY_REFUSED, "route_name=\"r\",reason=\"BUDGET\""), 1);
}

/* The answer that is held breaks off while the verdict is awaited: nothing of it may get into the
 * next one. */
static bool half_busy(struct rig_server *s, const char *head, const char *body,
                      struct evbuffer *out)
{
    (void)head, (void)body;
    if (s->rig->servers[0].requests + s->rig->servers[1].requests == 1) {
        evbuffer_add_printf(out, "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n"
                                 "6\r\nbroken\r\n");
        return false;
    }
    evbuffer_add_printf(out, "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n"
                             "5\r\nwhole\r\n0\r\n\r\n");
    return true;
}

/* Twice another attempt, then no more. */
static bool two_goes(struct rig *r, const struct wire_retry_ask *q, uint32_t *after,
                    const char **stop)
{
    (void)q;
    if (r->asks <= 2)
        return rig_go(r, q, after, stop);
    return rig_stop(r, q, after, stop);
}

static void test_a_held_answer_that_breaks_leaves_nothing(void **state)
{
    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = half_busy;
    rig.verdict = two_goes;
    retry_on(500, 599);
    rig_connect(&rig, &client);
    rig_say(&client, GET);
    rig_until(&rig, rig_has(&client, "0\r\n\r\n"));
    assert_non_null(strstr(client.got, "5\r\nwhole\r\n0\r\n\r\n"));
    assert_null(strstr(client.got, "broken"));
    close(client.fd);
}

static bool go_later(struct rig *r, const struct wire_retry_ask *q, uint32_t *after,
                     const char **stop)
{
    bool is_go = rig_go(r, q, after, stop);

    *after = 60;
    return is_go;
}

/* The limit of an attempt does not run on while there is none. */
static void test_limit_of_an_attempt_that_is_over(void **state)
{
    (void)state;
    rig.servers[0].answer = rig_unavailable;
    rig.verdict = go_later;
    retry_on(500, 599);
    rules[0].backend_ms = 30;
    for (int i = 0; i < 4; i++)
        assert_int_equal(rig_ask(&rig, &client, GET), 200);
    assert_true(rig.asks > 0);
    rig.servers[1].answer = rig_unavailable;
    rig.verdict = NULL; /* no verdict: the question's own limit ends the wait */
    rig.asks = 0;
    assert_int_equal(rig_ask(&rig, &client, GET), 503);
    assert_non_null(strstr(client.got, "\r\n\r\nbusy"));
    assert_int_equal(rig.asks, 1);
}

static void test_no_verdict_is_no_retry(void **state)
{
    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_unavailable;
    retry_on(500, 599);
    assert_int_equal(rig_ask(&rig, &client, GET), 503);
    assert_int_equal(rig.asks, 1);
    rig_until(&rig, rig.cancels == 1);
    assert_int_equal(counted(SERIES_RETRY_REFUSED, "reason=\"NO_VERDICT\""), 1);
}

static void test_retry_is_away(void **state)
{
    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_unavailable;
    retry_on(500, 599);
    mailbox_close(&rig.retry);
    for (int i = 0; i < 3; i++)
        assert_int_equal(rig_ask(&rig, &client, GET), 503);
}

/* Content is sent again, byte for byte. */
static void test_content_is_replayed(void **state)
{
    (void)state;
    rig.servers[0].answer = rig_unavailable;
    rig.verdict = rig_go;
    retry_on(500, 599);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(rig_ask(&rig, &client, POST), 200);
        assert_string_equal(rig.servers[1].last_body, "hello");
    }
    assert_true(rig.servers[0].requests > 0);
    assert_int_equal(rig.worker->replay_used, 0);
}

/* A POST that may have reached the application: asked, and said to be not replayable. */
static void test_lost_post_is_not_replayable(void **state)
{
    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_slams;
    rig.verdict = rig_stop;
    assert_int_equal(rig_ask(&rig, &client, POST), 502);
    assert_int_equal(rig.asks, 1);
    assert_int_equal(rig.last_ask.delivered, 2);
    assert_false(rig.last_ask.is_replayable);
    assert_int_equal(rig.last_ask.cause, 1);
    assert_int_equal(
        rig_ask(
            &rig, &client,
            "POST / HTTP/1.1\r\nHost: web\r\nIdempotency-Key: 7\r\nContent-Length: 0\r\n\r\n"),
        502);
    assert_true(rig.last_ask.is_replayable);
}

/* Nobody listens at one endpoint: the other is taken without a question, and the first backs
 * off. */
static void test_unreachable_endpoint(void **state)
{
    (void)state;
    evconnlistener_free(rig.servers[0].listener);
    rig.servers[0].listener = NULL;
    for (int i = 0; i < 20; i++)
        assert_int_equal(rig_ask(&rig, &client, POST), 200);
    assert_int_equal(rig.asks, 0);
    {
        int fd;

        (void)rig_bind(&fd);
        rig.servers[0].listener = evconnlistener_new(
            rig.base, rig_server_accept, &rig.servers[0], LEV_OPT_CLOSE_ON_FREE, 0, fd);
    }
}

static void test_connect_refused_everywhere(void **state)
{
    (void)state;
    backends[0].n_endpoints = 1;
    endpoints[0].port = 1; /* nobody */
    rig.verdict = rig_stop;
    assert_int_equal(rig_ask(&rig, &client, GET), 502);
    assert_non_null(strstr(client.got, "weft-code: W2001"));
    assert_int_equal(rig.last_ask.delivered, 0);
    assert_int_equal(rig.last_ask.cause, 0);
}

static bool go_twice(struct rig *r, const struct wire_retry_ask *q, uint32_t *after,
                     const char **stop)
{
    (void)r;
    *after = 1;
    *stop = "LIMIT";
    return q->attempt < 3;
}

/* Attempts that found no connection count as attempts: this ends. */
static void test_failed_dials_are_counted(void **state)
{
    (void)state;
    kind = DESTINATION_ENDPOINT; /* of a service it would be waited for */
    backends[0].n_endpoints = 1;
    endpoints[0].port = 1;
    rig.verdict = go_twice;
    assert_int_equal(rig_ask(&rig, &client, GET), 502);
    assert_int_equal(rig.asks, 3);
    assert_int_equal(counted(SERIES_RETRY_LIMIT, "route_name=\"r\""), 1);
    assert_int_equal(counted(SERIES_REQUEST, "direction=\"outbound\""), 1);
}

/* ---- time ---- */

static void test_request_limit(void **state)
{
    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_silent;
    rules[0].request_ms = 60;
    assert_int_equal(rig_ask(&rig, &client, GET), 504);
    assert_non_null(strstr(client.got, "weft-code: W3002"));
    assert_non_null(strstr(client.got, "HTTPRoute/default/r rule 0: timeouts.request 60ms"));
    assert_int_equal(rig.asks, 0);
}

static bool half_answer(struct rig_server *s, const char *head, const char *body,
                        struct evbuffer *out)
{
    (void)s, (void)head, (void)body;
    evbuffer_add_printf(out, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    return true;
}

static void test_request_limit_cuts(void **state)
{
    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = half_answer;
    rules[0].request_ms = 60;
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
    assert_true(client.is_closed);
    assert_int_equal(counted(SERIES_RESPONSE, "error=\"W3002\""), 1);
}

static void test_backend_limit(void **state)
{
    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_silent;
    rig.verdict = rig_stop;
    rules[0].backend_ms = 60;
    assert_int_equal(rig_ask(&rig, &client, GET), 504);
    assert_non_null(strstr(client.got, "weft-code: W3003"));
    assert_int_equal(rig.last_ask.cause, 3);
}

static void test_per_try_limit_is_retried(void **state)
{
    (void)state;
    rig.servers[0].answer = rig_silent;
    rig.verdict = rig_go;
    retry_on(500, 599);
    policy.per_try_ms = 60;
    for (int i = 0; i < 6; i++)
        assert_int_equal(rig_ask(&rig, &client, GET), 200);
}

/* The last attempt may take as long as the request may: it is the only hope left. */
static void test_the_last_attempt_has_no_per_try_limit(void **state)
{
    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_silent;
    rig.verdict = rig_go;
    retry_on(500, 599);
    policy.limit = 2;
    policy.per_try_ms = 30;
    rules[0].request_ms = 300;
    assert_int_equal(rig_ask(&rig, &client, GET), 504);
    assert_non_null(strstr(client.got, "weft-code: W3002"));
    assert_int_equal(rig.asks, 2);
}

static void test_idle_limit(void **state)
{
    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_silent;
    rules[0].idle_ms = 60;
    assert_int_equal(rig_ask(&rig, &client, GET), 504);
    assert_non_null(strstr(client.got, "weft-code: W3004"));
}

/* ---- the client goes ---- */

static void test_client_gone(void **state)
{
    const struct linger reset = {1, 0};

    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_silent;
    rig_connect(&rig, &client);
    rig_say(&client, GET);
    rig_until(&rig, rig.servers[0].requests + rig.servers[1].requests == 1);
    assert_int_equal(rig.worker->n_exchanges, 1);
    (void)setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(client.fd);
    rig_until(&rig, rig.worker->n_exchanges == 0);
}

static void test_client_gone_while_asking(void **state)
{
    const struct linger reset = {1, 0};

    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_unavailable;
    rig.settings.retry_ask_timeout = 5000;
    retry_on(500, 599);
    rig_connect(&rig, &client);
    rig_say(&client, GET);
    rig_until(&rig, rig.asks == 1);
    (void)setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(client.fd);
    rig_until(&rig, rig.worker->n_exchanges == 0);
    rig_until(&rig, rig.cancels == 1);
}

/* ---- failure at every byte ---- */

static const char whole[] =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
static size_t cut_at;

static bool cut_answer(struct rig_server *s, const char *head, const char *body,
                       struct evbuffer *out)
{
    (void)s, (void)head, (void)body;
    evbuffer_add(out, whole, cut_at);
    return false;
}

/* The server's answer ends anywhere: the client gets all of it, an answer of the mesh, or a
 * cut, never a short answer that looks complete. */
static void test_answer_cut_anywhere(void **state)
{
    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = cut_answer;
    rig.verdict = rig_stop;
    for (cut_at = 0; cut_at < sizeof(whole); cut_at++) {
        int status;

        rig_connect(&rig, &client);
        rig_say(&client, GET);
        rig_until(&rig,
                  rig_has(&client, "0\r\n\r\n") || strstr(client.got, "weft-code") != NULL);
        status = atoi(client.got + 9);
        if (strstr(client.got, "0\r\n\r\n") != NULL && status == 200)
            assert_true(cut_at >= sizeof(whole) - 1);
        else
            assert_true(status == 502 || client.is_closed);
        /* What came of it is there, head and content, although the end came in the same turn. */
        if (cut_at >= strlen("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
            assert_int_equal(status, 200);
        if (cut_at >= (size_t)(strstr(whole, "hello") + 5 - whole))
            assert_non_null(strstr(client.got, "hello"));
        close(client.fd);
        rig_until(&rig, rig.worker->n_exchanges == 0);
    }
}

/* The client goes away anywhere in its request. */
static void test_request_cut_anywhere(void **state)
{
    const struct linger reset = {1, 0};
    const char request[] = "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: "
                           "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

    (void)state;
    for (size_t k = 1; k < sizeof(request); k++) {
        rig_connect(&rig, &client);
        assert_int_equal(send(client.fd, request, k, MSG_NOSIGNAL), (ssize_t)k);
        for (int i = 0; i < 3; i++)
            (void)event_base_loop(rig.base, EVLOOP_NONBLOCK);
        if (k % 2 == 0)
            (void)setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        close(client.fd);
        rig_until(&rig, rig.worker->n_exchanges == 0 &&
                            rig.worker->n_fronts[DIRECTION_OUTBOUND] == 0);
        assert_int_equal(rig.worker->replay_used, 0);
    }
    rig.servers[0].answer = rig.servers[1].answer = rig_ok;
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
}

/* ---- content that is sent again ---- */

#define BODY_N 40

static char body[60000];
static size_t fail_at;
static unsigned failures_left;

static bool fail_partly(struct rig_server *s, size_t have, size_t want)
{
    (void)s, (void)want;
    if (failures_left == 0 || have < fail_at)
        return true;
    failures_left--;
    return false;
}

static bool fail_whole(struct rig_server *s, const char *head, const char *text, struct evbuffer *out)
{
    if (failures_left > 0) {
        failures_left--;
        return false;
    }
    return rig_ok(s, head, text, out);
}

static void fill_body(size_t n)
{
    for (size_t i = 0; i < n; i++)
        body[i] = (char)('!' + (i * 7 + i / 90) % 90);
    body[n] = 0;
}

/* The first attempts fail when the server has this much of the content; the client sends the rest when they have. */
static void put_with_failure_at(size_t n, size_t at, unsigned failures)
{
    char head[120];
    struct rig_server *got;

    fail_at = at;
    failures_left = failures;
    rig.servers[0].last_body[0] = rig.servers[1].last_body[0] = 0;
    rig.servers[0].requests = rig.servers[1].requests = 0;
    rig_connect(&rig, &client);
    (void)snprintf(head, sizeof(head), "PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: %zu\r\n\r\n", n);
    rig_say(&client, head);
    assert_int_equal(send(client.fd, body, at, MSG_NOSIGNAL), (ssize_t)at);
    if (at < n) {
        rig_until(&rig, failures_left == 0);
        assert_int_equal(send(client.fd, body + at, n - at, MSG_NOSIGNAL), (ssize_t)(n - at));
    }
    rig_until(&rig, rig_has(&client, "200 OK"));
    assert_int_equal(failures_left, 0);
    got = rig.servers[0].last_body[0] != 0 ? &rig.servers[0] : &rig.servers[1];
    assert_int_equal(strlen(got->last_body), n);
    assert_memory_equal(got->last_body, body, n);
    close(client.fd);
    rig_until(&rig, rig.worker->n_exchanges == 0);
    assert_int_equal(rig.worker->replay_used, 0);
    assert_int_equal(spill_used(rig.worker->spill), 0);
}

static void cut_servers(void)
{
    rig.verdict = rig_go;
    for (int i = 0; i < 2; i++) {
        rig.servers[i].partial = fail_partly;
        rig.servers[i].answer = fail_whole;
    }
}

/* Wherever the first attempt breaks, the next one gets exactly what the client sent, out of memory or of the spill. */
static void test_replay_after_failure_at_every_byte(void **state)
{
    static const uint64_t in_memory[] = {1024, 0, BODY_N / 2};

    (void)state;
    fill_body(BODY_N);
    cut_servers();
    for (size_t k = 0; k < sizeof(in_memory) / sizeof(in_memory[0]); k++) {
        rig.settings.replay_max = in_memory[k];
        for (size_t at = 1; at <= BODY_N; at++) {
            put_with_failure_at(BODY_N, at, at % 7 == 0 ? 2 : 1);
        }
    }
}

static void test_large_content_is_spilled(void **state)
{
    (void)state;
    fill_body(50000);
    cut_servers();
    rig.settings.replay_max = 1000;
    put_with_failure_at(50000, 50000, 2);
    put_with_failure_at(50000, 49999, 1);
    put_with_failure_at(50000, 1001, 1);
}

/* What fits nowhere is not made again, and that is said. */
static void test_too_large_for_all(void **state)
{
    static const struct {
        uint64_t max, total, spill;
        const char *reason;
    } cases[] = {
        {1000, 64 << 20, 4 * 1000, "reason=\"TOO_LARGE\""}, /* a quarter of the spill for one */
        {49000, 64 << 20, 0, "reason=\"TOO_LARGE\""},
        {50000, 1000, 0, "reason=\"BUFFERS_FULL\""},
    };

    (void)state;
    fill_body(50000);
    cut_servers();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spill *spill = rig.worker->spill;
        char head[120];

        rig.settings.replay_max = cases[i].max;
        rig.settings.replay_total = cases[i].total;
        rig.settings.replay_spill = cases[i].spill;
        if (cases[i].spill == 0)
            rig.worker->spill = NULL;
        rig.asks = 0;
        failures_left = 1;
        fail_at = SIZE_MAX;
        rig_connect(&rig, &client);
        (void)snprintf(head, sizeof(head), "PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 50000\r\n\r\n");
        rig_say(&client, head);
        assert_int_equal(send(client.fd, body, 50000, MSG_NOSIGNAL), 50000);
        rig_until(&rig, rig_has(&client, "\r\n\r\n"));
        assert_non_null(strstr(client.got, " 502 "));
        assert_int_equal(rig.asks, 0);
        close(client.fd);
        rig_until(&rig, rig.worker->n_exchanges == 0);
        rig.worker->spill = spill;
        assert_int_equal(spill_used(spill), 0);
        assert_true(counted(SERIES_RETRY_REFUSED, cases[i].reason) == (i == 1 ? 2 : 1));
    }
}

/* ---- ServiceProfiles ---- */

static bool rig_404(struct rig_server *s, const char *head, const char *text, struct evbuffer *out)
{
    (void)s, (void)head, (void)text;
    evbuffer_add_printf(out, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    return true;
}

/* What the classes call a failure is made again, whatever the method; and counted as one. */
static void test_profile_retries_its_failures(void **state)
{
    static struct wire_response_class classes[] = {{404, 404, true}, {500, 599, false}};

    (void)state;
    rules[0].retries_failures = true;
    rules[0].n_classes = 2;
    rules[0].classes = classes;
    rig.servers[0].answer = rig_404;
    rig.verdict = rig_go;
    for (int i = 0; i < 10; i++)
        assert_int_equal(rig_ask(&rig, &client, POST), 200);
    assert_true(rig.asks > 0);
    assert_int_equal(rig.last_ask.status, 404);
    assert_true(rig.last_ask.is_replayable);
    assert_int_equal(rig.last_ask.n_policy, 1);
    assert_int_equal(counted(SERIES_RESPONSE, "classification=\"failure\",status_code=\"404\""), rig.asks);
    rig.asks = 0;
    rig.servers[0].answer = rig.servers[1].answer = rig_unavailable;
    assert_int_equal(rig_ask(&rig, &client, POST), 503); /* a success, says the profile */
    assert_int_equal(rig.asks, 0);
    assert_int_equal(counted(SERIES_RESPONSE, "classification=\"success\",status_code=\"503\""), 1);
}

/* ---- l5d-retry-* ---- */

static void test_asked_for_by_the_application(void **state)
{
    static const struct {
        const char *fields;
        unsigned asks;
    } cases[] = {
        {"l5d-retry-http: 503\r\n", 1},
        {"L5D-Retry-HTTP: 5xx,404\r\nl5d-retry-limit: 3\r\n", 1},
        {"l5d-retry-http: gateway-error\r\nl5d-retry-timeout: 10s\r\n", 1},
        {"l5d-retry-http: 500-502\r\n", 0},
        {"l5d-retry-limit: 3\r\n", 0},
        {"l5d-retry-http: 5XX\r\n", 0}, /* cannot be read: as if nothing was asked */
        {"l5d-retry-http:\r\n", 0},
        {"l5d-retry-http: 503, 504\r\n", 0},
        {"l5d-retry-http: 503\r\nl5d-retry-limit: 256\r\n", 0},
        {"l5d-retry-http: 503\r\nl5d-retry-grpc: nonsense\r\n", 0},
        {"", 0},
    };
    char text[300];

    (void)state;
    rig.servers[0].answer = rig.servers[1].answer = rig_unavailable;
    rig.verdict = rig_stop;
    for (int allowed = 0; allowed < 2; allowed++) {
        rig.settings.allow_request_fields = allowed != 0;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            rig.asks = 0;
            (void)snprintf(text, sizeof(text), "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n%s\r\nhi",
                           cases[i].fields);
            assert_int_equal(rig_ask(&rig, &client, text), 503);
            assert_int_equal(rig.asks, allowed ? cases[i].asks : 0);
            assert_null(strcasestr(rig.servers[0].last_head, "l5d-retry"));
            assert_null(strcasestr(rig.servers[1].last_head, "l5d-retry"));
        }
    }
}

static void test_settle(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        assert_int_equal(rig_ask(&rig, &client, GET), 200);
    asks_tick(rig.worker->asks);
    rig_until(&rig, rig.settled_requests == 10 && rig.settled_successes == 10);
}

/* ---- discovery ---- */

static void test_link_away(void **state)
{
    (void)state;
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
    mailbox_close(&rig.link);
    rig_until(&rig, !discover_is_linked(rig.worker->discover));
    assert_int_equal(rig_ask(&rig, &client, GET), 200);
}

static void test_unknown_name(void **state)
{
    (void)state;
    rig.view = NULL; /* says nothing, and the name is no address */
    rig_connect(&rig, &client);
    rig_say(&client, GET);
    rig_until(&rig, rig_has(&client, "\r\n\r\n"));
    assert_true(client.is_closed || strstr(client.got, " 502 ") != NULL);
    close(client.fd);
}

/* ---- counting ---- */

struct sum {
    enum series_family family;
    const char *part;
    uint64_t n;
};

static bool add_up(void *arg, const struct series_view *v)
{
    struct sum *s = arg;

    if (v->family == s->family &&
        memmem(v->labels.p, v->labels.n, s->part, strlen(s->part)) != NULL)
        s->n += v->values[0];
    return true;
}

static uint64_t counted(enum series_family family, const char *part)
{
    struct sum s = {family, part, 0};

    (void)series_collect(rig.worker->series, true, add_up, &s);
    return s.n;
}

#define T(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_both_endpoints_are_used),
        T(test_applied_is_told),
        T(test_new_view),
        T(test_bad_view_changes_nothing),
        T(test_route_by_path),
        T(test_no_route),
        T(test_missing_backend),
        T(test_no_endpoints),
        T(test_endpoint_comes),
        T(test_weights),
        T(test_filters),
        T(test_redirect_and_fail),
        T(test_faults_of_a_backend),
        T(test_status_is_retried),
        T(test_stop_gives_the_answer_that_came),
        T(test_no_verdict_is_no_retry),
        T(test_a_held_answer_that_breaks_leaves_nothing),
        T(test_limit_of_an_attempt_that_is_over),
        T(test_retry_is_away),
        T(test_content_is_replayed),
        T(test_lost_post_is_not_replayable),
        T(test_unreachable_endpoint),
        T(test_connect_refused_everywhere),
        T(test_failed_dials_are_counted),
        T(test_request_limit),
        T(test_request_limit_cuts),
        T(test_backend_limit),
        T(test_per_try_limit_is_retried),
        T(test_the_last_attempt_has_no_per_try_limit),
        T(test_idle_limit),
        T(test_client_gone),
        T(test_client_gone_while_asking),
        T(test_answer_cut_anywhere),
        T(test_request_cut_anywhere),
        T(test_replay_after_failure_at_every_byte),
        T(test_large_content_is_spilled),
        T(test_too_large_for_all),
        T(test_profile_retries_its_failures),
        T(test_asked_for_by_the_application),
        T(test_settle),
        T(test_link_away),
        T(test_unknown_name),
    };
    int rc;

    log_init("exchange_test");
    log_set_level(getenv("WEFT_LOG") != NULL ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    base = event_base_new();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    mailbox_shutdown();
    event_base_free(base);
    return rc;
}
