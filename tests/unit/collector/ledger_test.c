/* Every count is written once: the ledger over a real telemetry.db in a temporary directory. */
#include "broker/collector/edges.h"
#include "broker/collector/ledger.h"
#include "broker/collector/parse.h"

#include "wire/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

#define NOW 1700000000000

static void ok(err_t err)
{
    if (err != OK)
        fail_msg("%s", err->name);
}

static void put(struct buf *b, const char *text)
{
    ok(wire_put_text(b, slice_str(text)));
}

static void put_pair(struct buf *b, const char *key, const char *value)
{
    put(b, key);
    put(b, value);
}

static void put_number(struct buf *b, const char *key, uint64_t value)
{
    put(b, key);
    ok(wire_put_u64(b, value));
}

/* labels: "k=v,k=v" */
static void put_labels(struct buf *b, const char *labels)
{
    char copy[400], *save = NULL;
    size_t n = labels[0] != '\0';

    snprintf(copy, sizeof(copy), "%s", labels);
    for (const char *c = labels; *c != '\0'; c++)
        n += *c == ',';
    put(b, "labels");
    ok(wire_put_map(b, n));
    for (char *one = strtok_r(copy, ",", &save); one != NULL; one = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(one, '=');

        *equals = '\0';
        put_pair(b, one, equals + 1);
    }
}

struct message {
    struct buf series, all;
    size_t n;
};

static void add(struct message *m, const char *name, const char *labels, uint64_t value)
{
    ok(wire_put_map(&m->series, 4));
    put_pair(&m->series, "name", name);
    put_pair(&m->series, "process", "weft-proxy-0");
    put_labels(&m->series, labels);
    put_number(&m->series, "value", value);
    m->n++;
}

/* Some of 1.5 ms and some of a minute. */
static void add_histogram(struct message *m, const char *labels, uint64_t le_2, uint64_t inf)
{
    ok(wire_put_map(&m->series, 7));
    put_pair(&m->series, "name", "response_latency_ms");
    put_pair(&m->series, "process", "weft-proxy-0");
    put_labels(&m->series, labels);
    put(&m->series, "buckets");
    ok(wire_put_array(&m->series, 2));
    ok(wire_put_array(&m->series, 2));
    ok(wire_put_u64(&m->series, 2));
    ok(wire_put_u64(&m->series, le_2));
    ok(wire_put_array(&m->series, 2));
    ok(wire_put_nil(&m->series));
    ok(wire_put_u64(&m->series, inf));
    put(&m->series, "fine");
    ok(wire_put_array(&m->series, 2));
    ok(wire_put_array(&m->series, 2));
    ok(wire_put_u64(&m->series, 1536)); /* 1280..1535 us */
    ok(wire_put_u64(&m->series, le_2));
    ok(wire_put_array(&m->series, 2));
    ok(wire_put_u64(&m->series, 1 << 26));
    ok(wire_put_u64(&m->series, inf));
    put_number(&m->series, "sum_us", 1500 * le_2 + 60000000 * inf);
    put_number(&m->series, "count", le_2 + inf);
    m->n++;
}

/* Takes it in and empties it. */
static void send(struct message *m, struct ledger *l, const char *pod, uint64_t incarnation)
{
    struct feed_metrics parsed;

    buf_consume(&m->all, buf_len(&m->all));
    ok(wire_put_map(&m->all, 7));
    put_number(&m->all, "v", 1);
    put_pair(&m->all, "ns", "shop");
    put_pair(&m->all, "pod", pod);
    put_pair(&m->all, "workload", "front");
    put_number(&m->all, "incarnation", incarnation);
    put(&m->all, "serves");
    ok(wire_put_array(&m->all, 1));
    ok(wire_put_array(&m->all, 2));
    put(&m->all, "api");
    ok(wire_put_u64(&m->all, 8080));
    put(&m->all, "series");
    ok(wire_put_array(&m->all, m->n));
    ok(buf_add_slice(&m->all, buf_slice(&m->series)));
    ok(parse_metrics(buf_slice(&m->all), &parsed));
    ok(ledger_take(l, &parsed, NOW));
    buf_consume(&m->series, buf_len(&m->series));
    m->n = 0;
}

struct fixture {
    char dir[64];
    struct telemetry *db;
    struct ledger *ledger;
    struct message m;
};

static void reopen(struct fixture *x)
{
    bool was_fresh;

    ledger_free(&x->ledger);
    telemetry_close(&x->db);
    ok(telemetry_open(x->dir, &x->db, &was_fresh));
    ok(ledger_new(x->db, 1000, &x->ledger));
}

static int setup(void **state)
{
    struct fixture *x = calloc(1, sizeof(*x));

    assert_non_null(x);
    strcpy(x->dir, "/tmp/weft-ledger-XXXXXX");
    assert_non_null(mkdtemp(x->dir));
    buf_init(&x->m.series, 0);
    buf_init(&x->m.all, 0);
    reopen(x);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    static const char *const files[] = {"collector/telemetry.db", "collector/telemetry.db-wal",
                                        "collector/telemetry.db-shm",
                                        "collector/telemetry.db.lock", "collector", ""};
    char path[200];

    ledger_free(&x->ledger);
    telemetry_close(&x->db);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", x->dir, files[i]);
        (void)remove(path);
    }
    buf_done(&x->m.series);
    buf_done(&x->m.all);
    free(x);
    return 0;
}

/* One number out of the file, as a reader sees it. */
static int64_t ask(const struct fixture *x, const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;
    char path[200];
    int64_t got;

    snprintf(path, sizeof(path), "%s/" TELEMETRY_FILE, x->dir);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
        fail_msg("%s", sqlite3_errmsg(db));
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    got = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return got;
}

#define OUT "direction=outbound,dst_namespace=shop,dst_service=cart,tls=true"
#define REQUESTS "SELECT coalesce(sum(requests),0) FROM mesh_edges WHERE width_s=10"

static void test_differences(void **state)
{
    struct fixture *x = *state;

    add(&x->m, "request_total", OUT, 10);
    send(&x->m, x->ledger, "front-1", 1);
    assert_int_equal(ask(x, REQUESTS), 0); /* nothing before the flush */
    ok(ledger_flush(x->ledger));
    assert_int_equal(ask(x, REQUESTS), 10);
    add(&x->m, "request_total", OUT, 10);
    send(&x->m, x->ledger, "front-1", 1);
    ok(ledger_flush(x->ledger));
    assert_int_equal(ask(x, REQUESTS), 10); /* nothing changed */
    add(&x->m, "request_total", OUT, 11);
    add(&x->m, "request_total", OUT, 13); /* twice in one message */
    send(&x->m, x->ledger, "front-1", 1);
    ok(ledger_flush(x->ledger));
    ok(ledger_flush(x->ledger));
    assert_int_equal(ask(x, REQUESTS), 13);
    assert_int_equal(ask(x, "SELECT sum(mtls_requests) FROM mesh_edges WHERE width_s=10"), 13);
    assert_int_equal(ask(x, "SELECT sum(requests) FROM mesh_golden WHERE width_s=3600"), 13);
}

static void test_restart_of_the_collector(void **state)
{
    struct fixture *x = *state;

    add(&x->m, "request_total", OUT, 10);
    add_histogram(&x->m, OUT, 10, 0);
    send(&x->m, x->ledger, "front-1", 1);
    ok(ledger_flush(x->ledger));
    add(&x->m, "request_total", OUT, 15); /* taken in, never written: killed */
    send(&x->m, x->ledger, "front-1", 1);
    reopen(x);
    assert_int_equal(ask(x, REQUESTS), 10);
    add(&x->m, "request_total", OUT, 20);
    add_histogram(&x->m, OUT, 19, 1);
    send(&x->m, x->ledger, "front-1", 1);
    ok(ledger_flush(x->ledger));
    assert_int_equal(ask(x, REQUESTS), 20);
    assert_int_equal(ask(x, "SELECT latency_sum_ms FROM rollup_10s WHERE src_workload='front'"),
                     15 + 13 + 60000 + 1); /* each flush rounds to a millisecond */
    assert_int_equal(ask(x, "SELECT latency='[0,19,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1]'"
                            " FROM rollup_10s WHERE src_workload='front'"),
                     1);
    /* The median comes from the fine buckets: 1.280..1.536 ms, not just 1..2. */
    assert_int_equal(ask(x, "SELECT p50_ms>1.28 AND p50_ms<1.536 AND p99_ms>50000 FROM mesh_golden"
                            " WHERE width_s=10"), 1);
    assert_int_equal(ask(x, "SELECT value FROM rollup_1h, json_each(latency_fine)"
                            " WHERE src_workload='front' AND key=37"), 19);
}

static void test_fine_bounds(void **state)
{
    (void)state;
    for (unsigned i = 0; i < TELEMETRY_FINES; i++) {
        assert_int_equal(telemetry_fine_of(telemetry_fine_bound_us(i)), i);
        if (i > 4 && i < TELEMETRY_FINES - 1) {
            assert_true(telemetry_fine_bound_us(i) > telemetry_fine_bound_us(i - 1));
            assert_int_equal(telemetry_fine_of(telemetry_fine_bound_us(i) - 1) != -1,
                             telemetry_fine_bound_us(i) - 1 == telemetry_fine_bound_us(i - 1));
        }
    }
    assert_int_equal(telemetry_fine_bound_us(TELEMETRY_FINES - 2), 1 << 26);
    assert_int_equal(telemetry_fine_of(0), -1);
    assert_int_equal(telemetry_fine_of((1 << 26) + 1), -1);
    assert_int_equal(telemetry_fine_of(UINT64_MAX - 1), -1);
}

#define DECIDED(where) "SELECT coalesce(sum(count),0) FROM mesh_decisions WHERE width_s=10 AND " where
#define PARENT "parent_kind=Service,parent_namespace=shop,parent_name=cart,parent_port=80"

static void test_decisions(void **state)
{
    struct fixture *x = *state;
    static const struct {
        const char *family, *labels;
        const char *where; /* NULL: says nothing about a service */
    } cases[] = {
        {"weft_retry_refused_total", PARENT ",reason=BUDGET",
         "direction='outbound' AND source='front' AND source_namespace='shop' AND namespace='shop' AND service='cart'"
         " AND what='not_retried' AND reason='BUDGET'"},
        {"weft_hedge_total", PARENT ",result=won", "service='cart' AND what='hedge' AND reason='won'"},
        {"weft_mirror_total", PARENT ",result=slow", "service='cart' AND what='mirror' AND reason='slow'"},
        {"weft_faults_total", PARENT ",fault=fail", "service='cart' AND what='fault' AND reason='fail'"},
        {"inbound_http_local_ratelimit_total", "srv_port=8080,ratelimit_scope=total",
         "direction='inbound' AND source='' AND service='api' AND what='rate_limited' AND reason='total'"},
        {"weft_endpoint_ejections_total", "backend=shop/pay:80,reason=CONSECUTIVE",
         "namespace='shop' AND service='pay' AND what='ejected' AND reason='CONSECUTIVE'"},
        {"weft_endpoint_ejections_kept_total", "backend=shop/pay:80,reason=CONSECUTIVE",
         "service='pay' AND what='kept'"},
        {"weft_endpoint_returns_total", "backend=shop/pay:80", "service='pay' AND what='returned' AND reason=''"},
        {"weft_endpoint_ejections_total", "backend=10.0.0.1:80,reason=CONSECUTIVE", NULL},
        {"weft_endpoint_ejections_total", "backend=shop/,reason=CONSECUTIVE", NULL},
        {"weft_endpoint_ejections_total", "reason=CONSECUTIVE", NULL},
        {"weft_retry_refused_total", "reason=NO_SERVICE", NULL},
        {"weft_retry_refused_total_more", PARENT ",reason=BUDGET", NULL},
    };
    const unsigned n = sizeof(cases) / sizeof(cases[0]);
    char sql[500];
    int64_t all = 0;

    for (unsigned round = 1; round <= 2; round++) {
        for (unsigned i = 0; i < n; i++)
            add(&x->m, cases[i].family, cases[i].labels, (i + 1) * round);
        send(&x->m, x->ledger, "front-1", 1);
        ok(ledger_flush(x->ledger));
        if (round == 1)
            reopen(x); /* nothing is counted again */
    }
    for (unsigned i = 0; i < n; i++) {
        if (cases[i].where == NULL)
            continue;
        snprintf(sql, sizeof(sql), DECIDED("%s"), cases[i].where);
        assert_int_equal(ask(x, sql), 2 * (i + 1));
        all += 2 * (i + 1);
    }
    assert_int_equal(ask(x, DECIDED("1")), all);
    assert_int_equal(ask(x, "SELECT sum(count) FROM mesh_decisions WHERE width_s=3600"), all);
}

static void test_restart_of_the_pod(void **state)
{
    struct fixture *x = *state;
    struct ledger_counters c;

    add(&x->m, "request_total", OUT, 100);
    add(&x->m, "request_total", OUT ",authority=a", 7);
    send(&x->m, x->ledger, "front-1", 1);
    ok(ledger_flush(x->ledger));
    add(&x->m, "request_total", OUT, 4);
    send(&x->m, x->ledger, "front-1", 2);
    add(&x->m, "request_total", OUT, 101); /* late, of the life before */
    send(&x->m, x->ledger, "front-1", 1);
    ok(ledger_flush(x->ledger));
    assert_int_equal(ask(x, REQUESTS), 111);
    assert_int_equal(ask(x, "SELECT count(*) FROM counter_last"), 1); /* the old life's are gone */
    ledger_count(x->ledger, &c);
    assert_int_equal(c.stale, 1);
    reopen(x);
    add(&x->m, "request_total", OUT, 5);
    send(&x->m, x->ledger, "front-1", 2);
    ok(ledger_flush(x->ledger));
    assert_int_equal(ask(x, REQUESTS), 112);
}

static void test_a_series_that_starts_anew(void **state)
{
    struct fixture *x = *state;
    struct ledger_counters c;

    add(&x->m, "request_total", OUT, 100);
    send(&x->m, x->ledger, "front-1", 1);
    add(&x->m, "request_total", OUT, 3);
    send(&x->m, x->ledger, "front-1", 1);
    ok(ledger_flush(x->ledger));
    assert_int_equal(ask(x, REQUESTS), 103);
    ledger_count(x->ledger, &c);
    assert_int_equal(c.resets, 1);
}

static void test_two_pods_and_processes(void **state)
{
    struct fixture *x = *state;

    add(&x->m, "request_total", OUT, 10);
    send(&x->m, x->ledger, "front-1", 1);
    add(&x->m, "request_total", OUT, 20);
    send(&x->m, x->ledger, "front-2", 1);
    ok(ledger_flush(x->ledger));
    assert_int_equal(ask(x, REQUESTS), 30); /* one edge: the same workload */
    assert_int_equal(ask(x, "SELECT count(*) FROM mesh_pods"), 2);
    assert_int_equal(ask(x, "SELECT count(*) FROM mesh_edges WHERE width_s=10"), 1);
}

static void test_a_failed_commit_is_made_good(void **state)
{
    struct fixture *x = *state;
    sqlite3 *other = NULL;
    char path[200];

    add(&x->m, "request_total", OUT, 10);
    send(&x->m, x->ledger, "front-1", 1);
    snprintf(path, sizeof(path), "%s/" TELEMETRY_FILE, x->dir);
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_ptr_not_equal(ledger_flush(x->ledger), OK); /* somebody else holds the file */
    sqlite3_close(other);
    add(&x->m, "request_total", OUT, 12);
    send(&x->m, x->ledger, "front-1", 1);
    ok(ledger_flush(x->ledger));
    assert_int_equal(ask(x, REQUESTS), 12);
}

static void test_limits(void **state)
{
    struct fixture *x = *state;
    struct ledger_counters c;
    char labels[100];

    for (int i = 0; i < 1100; i++) {
        snprintf(labels, sizeof(labels), OUT ",authority=%d", i);
        add(&x->m, "request_total", labels, 1);
    }
    add(&x->m, "weft_bad_input_total", "kind=x", 5); /* says nothing about edges: costs nothing */
    send(&x->m, x->ledger, "front-1", 1);
    ledger_count(x->ledger, &c);
    assert_int_equal(c.known_series, 1000);
    assert_int_equal(c.no_room, 100);
    for (int i = 0; i < 1200; i++)
        ledger_event(x->ledger, &(struct feed_event){.ns = SLICE_LIT("n"), .pod = SLICE_LIT("p"),
                                                     .kind = SLICE_LIT("K")}, NOW);
    ledger_count(x->ledger, &c);
    assert_int_equal(c.events_dropped, 200);
    ok(ledger_flush(x->ledger));
    assert_int_equal(ask(x, "SELECT count(*) FROM mesh_pod_events WHERE pod='n/p'"), 1000);
    assert_int_equal(ask(x, "SELECT min(at_ms) FROM mesh_pod_events") / 1000, NOW / 1000);
    ledger_forget(x->ledger, NOW + 1);
    ledger_count(x->ledger, &c);
    assert_int_equal(c.pods, 0);
    assert_int_equal(c.known_series, 0);
}

static void test_edges(void **state)
{
    static const struct {
        const char *name, *labels, *sql;
    } cases[] = {
        {"request_total", OUT, "source='front' AND namespace='shop' AND service='cart' AND direction='outbound' AND requests=5 AND mtls_requests=5"},
        {"request_total", "direction=outbound,authority=x.org:80", "service='x.org:80' AND namespace='' AND mtls_requests=0"},
        {"request_total", "direction=outbound,target_addr=1.2.3.4:5", "service='1.2.3.4:5'"},
        {"request_total", "direction=outbound,authority=cart.shop.svc.cluster.local:80", "service='cart' AND namespace='shop'"},
        {"request_total", "direction=outbound,authority=cart.shop.example.org", "service='cart.shop.example.org' AND namespace=''"},
        {"request_total", "direction=outbound,authority=..svc.", "service='..svc.' AND namespace=''"},
        {"request_total", "direction=inbound,srv_port=8080,client_id=web.shop.serviceaccount.identity.weft.cluster.local", "source='web' AND source_namespace='shop' AND service='api' AND direction='inbound'"},
        {"request_total", "direction=inbound,srv_port=9,tls=no_identity", "source='(unmeshed)' AND service='front'"},
        {"response_total", OUT ",classification=failure,status_code=503,error=FAIL_FAST", "failures=5 AND successes=0 AND status_5xx=5 AND mesh_errors=5"},
        {"response_total", OUT ",classification=success,status_code=200", "successes=5 AND status_2xx=5 AND mesh_errors=0"},
        {"tcp_open_total", OUT ",peer=dst", "connections=5 AND mtls_connections=0 AND mtls_share=0"},
        {"tcp_open_total", OUT ",peer=dst,server_id=cart.shop", "connections=5 AND mtls_connections=5 AND mtls_share=1"},
        {"tcp_open_total", "direction=outbound,dst_namespace=shop,dst_service=cart,tls=no_identity,peer=dst,server_id=cart.shop", "connections=5 AND mtls_connections=0"},
        {"tcp_open_total", "direction=inbound,srv_port=8080,tls=true,peer=src,client_id=web.shop.serviceaccount.identity.x", "connections=5 AND mtls_connections=5 AND source='web'"},
        {"tcp_open_total", "direction=inbound,srv_port=8080,tls=true,peer=src,server_id=me", "mtls_connections=0 AND mtls_share=0"},
        {"tcp_read_bytes_total", OUT ",peer=dst,server_id=cart.shop", "mtls_connections=0 AND mtls_share IS NULL"},
        {"tcp_read_bytes_total", OUT ",peer=dst", "bytes_in=5 AND bytes_out=0"},
        {"tcp_read_bytes_total", "direction=inbound,peer=src", "bytes_out=5 AND bytes_in=0"},
        {"outbound_http_route_retry_requests_total", "parent_namespace=shop,parent_name=cart", "retries=5 AND service='cart' AND direction='outbound'"},
        {"tcp_open_total", OUT ",peer=src", NULL},
        {"request_total", "folded=true", NULL},
        {"request_total", "direction=sideways", NULL},
        {"tcp_open_connections", OUT ",peer=dst", NULL},
        {"response_latency_ms", OUT, NULL}, /* a number where a histogram should be */
        {"unknown_total", OUT, NULL},
    };
    struct fixture *x = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char sql[600], pod[16];

        snprintf(pod, sizeof(pod), "p-%zu", i);
        add(&x->m, cases[i].name, cases[i].labels, 5);
        send(&x->m, x->ledger, pod, 1);
        ok(ledger_flush(x->ledger));
        if (cases[i].sql != NULL) {
            snprintf(sql, sizeof(sql), "SELECT count(*) FROM mesh_edges WHERE width_s=10 AND %s",
                     cases[i].sql);
            if (ask(x, sql) != 1)
                fail_msg("%zu %s", i, cases[i].sql);
        } else if (ask(x, "SELECT count(*) FROM mesh_edges") != 0) {
            fail_msg("%zu %s makes an edge", i, cases[i].name);
        }
        /* The next case begins with an empty table. */
        teardown(state);
        setup(state);
        x = *state;
    }
}

static void test_identities(void **state)
{
    static const struct {
        const char *identity, *sa, *ns;
    } cases[] = {
        {"web.shop.serviceaccount.identity.weft.cluster.local", "web", "shop"},
        {"web.shop.serviceaccount.identity.", "web", "shop"},
        {"web.shop.serviceaccount.identit", NULL, NULL},
        {".shop.serviceaccount.identity.weft", NULL, NULL},
        {"web..serviceaccount.identity.weft", NULL, NULL},
        {"web.shop", NULL, NULL},
        {"web", NULL, NULL},
        {"", NULL, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        slice_t sa, ns;
        bool is_good = edges_parse_identity(slice_str(cases[i].identity), &sa, &ns);

        if (is_good != (cases[i].sa != NULL) ||
            (is_good && (!slice_is_str(sa, cases[i].sa) || !slice_is_str(ns, cases[i].ns))))
            fail_msg("%s", cases[i].identity);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_differences, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart_of_the_collector, setup, teardown),
        cmocka_unit_test_setup_teardown(test_decisions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart_of_the_pod, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_series_that_starts_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_pods_and_processes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failed_commit_is_made_good, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edges, setup, teardown),
        cmocka_unit_test(test_identities),
        cmocka_unit_test(test_fine_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
