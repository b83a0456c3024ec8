#include "store/telemetry.h"

#include "store/db.h"
#include "store/telemetry_schema.h"
#include "store_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static char dir[64];

static int setup(void **state)
{
    (void)state;
    store_dir_make(dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_dir_clear(dir);
    return 0;
}

static struct telemetry *open_it(void)
{
    struct telemetry *t = NULL;
    bool fresh;
    assert_null(telemetry_open(dir, &t, &fresh));
    return t;
}

/* One number out of the published views, as `sqlite3 -readonly` would read it. */
static double ask(const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;
    assert_null(db_open_reader(dir, TELEMETRY_FILE, TELEMETRY_APPLICATION_ID, &db));
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    double v = sqlite3_column_double(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return v;
}

static struct telemetry_edge edge(const char *src, const char *dst, uint64_t ok, uint64_t bad)
{
    struct telemetry_edge e = {.src_ns = SLICE_LIT("default"),
                               .src_workload = slice_str(src),
                               .dst_ns = SLICE_LIT("default"),
                               .dst_service = slice_str(dst),
                               .requests = ok + bad,
                               .successes = ok,
                               .failures = bad};
    e.latency[telemetry_bucket_of(10)] = ok;
    e.latency[TELEMETRY_BUCKETS - 1] = bad;
    e.status[1] = ok;
    e.status[4] = bad;
    return e;
}

static void add(struct telemetry *t, int64_t at_ms, const struct telemetry_edge *e)
{
    assert_null(telemetry_begin(t));
    assert_null(telemetry_add_edge(t, at_ms, e));
    assert_null(telemetry_commit(t));
}

static void rollups_add_up(void **state)
{
    (void)state;
    struct telemetry *t = open_it();
    struct telemetry_edge a = edge("web", "api", 9, 1), b = edge("job", "api", 5, 5);
    add(t, 1000000, &a);
    add(t, 1005000, &a);
    add(t, 1012000, &b);
    assert_int_equal((int)ask("SELECT count(*) FROM mesh_edges WHERE width_s=10"), 2);
    assert_int_equal(
        (int)ask("SELECT requests FROM mesh_edges WHERE width_s=10 AND source='web'"), 20);
    assert_int_equal((int)ask("SELECT count(*) FROM mesh_golden WHERE width_s=60"), 1);
    assert_int_equal((int)ask("SELECT sum(requests) FROM mesh_golden WHERE width_s=3600"), 30);
    assert_float_equal(ask("SELECT success_rate FROM mesh_golden WHERE width_s=60"), 23.0 / 30,
                       1e-9);
    double p50 = ask("SELECT p50_ms FROM mesh_golden WHERE width_s=60");
    assert_true(p50 > 5 && p50 <= 10);
    assert_float_equal(ask("SELECT p99_ms FROM mesh_golden WHERE width_s=60"), 50000, 1e-9);
    assert_int_equal(
        (int)ask("SELECT value FROM mesh_golden, json_each(latency) WHERE width_s=3600"
                 " AND key=25"),
        7);
    telemetry_close(&t);
}

static void the_share_of_mtls_is_of_requests_else_of_connections(void **state)
{
    (void)state;
    static const struct {
        uint64_t requests, mtls_requests, connections, mtls_connections;
        const char *want;
    } cases[] = {{0, 0, 0, 0, "IS NULL"}, {0, 0, 4, 4, "=1"},  {0, 0, 4, 1, "=0.25"},
                 {4, 4, 1, 0, "=1"},      {4, 2, 1, 1, "=0.5"}, {4, 0, 1, 1, "=0"}};
    struct telemetry *t = open_it();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char sql[200], name[16];
        (void)snprintf(name, sizeof name, "s%zu", i);
        struct telemetry_edge a = edge("web", name, 0, 0);
        a.requests = cases[i].requests;
        a.mtls_requests = cases[i].mtls_requests;
        a.connections = cases[i].connections;
        a.mtls_connections = cases[i].mtls_connections;
        add(t, 1000000, &a);
        add(t, 1000000, &a); /* added up: the share stays */
        (void)snprintf(sql, sizeof sql,
                       "SELECT (SELECT count(*) FROM mesh_edges WHERE service='%s' AND "
                       "mtls_share %s AND mtls_connections=%d)+(SELECT count(*) FROM "
                       "mesh_golden WHERE service='%s' AND mtls_share %s)",
                       name, cases[i].want, 2 * (int)cases[i].mtls_connections, name,
                       cases[i].want);
        if ((int)ask(sql) != 6)
            fail_msg("%s", sql);
    }
    telemetry_close(&t);
}

static void an_uncommitted_batch_is_not_there(void **state)
{
    (void)state;
    struct telemetry *t = open_it();
    struct telemetry_edge a = edge("web", "api", 1, 0);
    uint64_t values[] = {7};
    struct telemetry_last last = {.pod = SLICE_LIT("default/web-1"),
                                  .series = SLICE_LIT("request_total{}"),
                                  .incarnation = 0xffffffffffffffffu,
                                  .values = values,
                                  .n_values = 1};
    assert_null(telemetry_begin(t));
    assert_null(telemetry_add_edge(t, 1000, &a));
    assert_null(telemetry_put_last(t, &last));
    telemetry_close(&t);
    t = open_it();
    uint64_t incarnation, got[TELEMETRY_VALUES];
    unsigned n = 9;
    assert_null(telemetry_get_last(t, last.pod, last.series, &incarnation, got, &n));
    assert_int_equal(n, 0);
    assert_int_equal((int)ask("SELECT count(*) FROM mesh_edges"), 0);
    assert_null(telemetry_begin(t));
    assert_null(telemetry_put_last(t, &last));
    assert_null(telemetry_commit(t));
    assert_null(telemetry_get_last(t, last.pod, last.series, &incarnation, got, &n));
    assert_int_equal(n, 1);
    assert_int_equal(got[0], 7);
    assert_true(incarnation == 0xffffffffffffffffu);
    assert_null(telemetry_drop_last(t, last.pod, 5));
    assert_null(telemetry_get_last(t, last.pod, last.series, &incarnation, got, &n));
    assert_int_equal(n, 0);
    telemetry_close(&t);
}

static bool count_last(void *arg, const struct telemetry_last *last)
{
    assert_int_equal(last->n_values, 3);
    assert_int_equal(last->values[2], 30);
    *(int *)arg += 1;
    return true;
}

static void every_last_value_comes_back(void **state)
{
    (void)state;
    struct telemetry *t = open_it();
    uint64_t values[] = {10, 20, 30};
    assert_null(telemetry_begin(t));
    for (int i = 0; i < 50; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "s%d", i);
        struct telemetry_last last = {.pod = SLICE_LIT("d/p"),
                                      .series = slice_str(name),
                                      .at_ms = i,
                                      .values = values,
                                      .n_values = 3};
        assert_null(telemetry_put_last(t, &last));
    }
    assert_null(telemetry_commit(t));
    int n = 0;
    assert_null(telemetry_each_last(t, count_last, &n));
    assert_int_equal(n, 50);
    telemetry_close(&t);
}

static void old_rows_go_in_bounded_steps(void **state)
{
    (void)state;
    struct telemetry *t = open_it();
    struct telemetry_keep keep = {.rollup_10s_ms = 60000,
                                  .rollup_1m_ms = 600000,
                                  .rollup_1h_ms = 86400000,
                                  .events_ms = 1000};
    for (int i = 0; i < 40; i++) {
        struct telemetry_edge a = edge("web", "api", 1, 0);
        add(t, 100000000 + i * 10000, &a);
    }
    bool left = true;
    int calls = 0;
    while (left) {
        assert_null(telemetry_trim(t, 100000000 + 400000, &keep, 10, &left));
        assert_true(++calls < 20);
    }
    assert_true(calls > 3);
    assert_int_equal((int)ask("SELECT count(*) FROM mesh_edges WHERE width_s=10"), 6);
    assert_int_equal((int)ask("SELECT count(*) FROM mesh_edges WHERE width_s=60"), 8);
    telemetry_close(&t);
}

static void decide(struct telemetry *t, int64_t at_ms, const char *reason, uint64_t n)
{
    const struct telemetry_decision d = {.what = TELEMETRY_NOT_RETRIED,
                                         .src_ns = SLICE_LIT("default"),
                                         .src_workload = SLICE_LIT("web"),
                                         .dst_ns = SLICE_LIT("default"),
                                         .dst_service = SLICE_LIT("api"),
                                         .reason = slice_str(reason),
                                         .n = n};
    assert_null(telemetry_begin(t));
    assert_null(telemetry_add_decision(t, at_ms, &d));
    assert_null(telemetry_commit(t));
}

static void decisions_add_up_and_are_bounded(void **state)
{
    (void)state;
    struct telemetry *t = open_it();
    struct telemetry_keep keep = {.rollup_10s_ms = 60000,
                                  .rollup_1m_ms = 600000,
                                  .rollup_1h_ms = 86400000,
                                  .max_rollup_rows = 300};
    bool left = true;
    decide(t, 100000000, "BUDGET", 3);
    decide(t, 100001000, "BUDGET", 4);
    decide(t, 100002000, "LIMIT", 1);
    decide(t, 100015000, "BUDGET", UINT64_MAX);
    assert_int_equal((int)ask("SELECT count FROM mesh_decisions WHERE width_s=10 AND reason='BUDGET'"
                              " AND what='not_retried' AND service='api' ORDER BY start_ms"), 7);
    assert_int_equal((int)ask("SELECT count(*) FROM mesh_decisions WHERE width_s=10"), 3);
    assert_int_equal((int)ask("SELECT count(*) FROM mesh_decisions WHERE width_s=60"), 2);
    while (left)
        assert_null(telemetry_trim(t, 100000000 + 400000, &keep, 10, &left));
    assert_int_equal((int)ask("SELECT count(*) FROM mesh_decisions WHERE width_s=10"), 0);
    assert_int_equal((int)ask("SELECT count(*) FROM mesh_decisions WHERE width_s=60"), 2);
    for (int i = 0; i < 400; i++)
        decide(t, 200000000 + i * 10000, "LIMIT", 1);
    assert_true(ask("SELECT count(*) FROM decisions") <= 300);
    telemetry_close(&t);
    t = open_it(); /* the row count is found again */
    decide(t, 300000000, "LIMIT", 1);
    assert_true(ask("SELECT count(*) FROM decisions") <= 303);
    telemetry_close(&t);
}

static void a_full_table_drops_its_oldest(void **state)
{
    (void)state;
    struct telemetry *t = open_it();
    struct telemetry_keep keep = {.rollup_10s_ms = INT64_MAX / 2,
                                  .rollup_1m_ms = INT64_MAX / 2,
                                  .rollup_1h_ms = INT64_MAX / 2,
                                  .max_rollup_rows = 100,
                                  .max_event_rows = 100};
    bool left;
    assert_null(telemetry_trim(t, 0, &keep, 10, &left));
    assert_null(telemetry_begin(t));
    for (int i = 0; i < 300; i++) {
        struct telemetry_edge a = edge("web", "api", 1, 0);
        struct telemetry_event e = {.at_ms = i, .kind = SLICE_LIT("X")};
        assert_null(telemetry_add_edge(t, 100000000 + i * 10000, &a));
        assert_null(telemetry_add_event(t, &e));
    }
    assert_null(telemetry_commit(t));
    assert_true(ask("SELECT count(*) FROM rollup_10s") <= 100);
    assert_true(ask("SELECT count(*) FROM events") <= 100);
    assert_int_equal((int)ask("SELECT max(at_ms) FROM mesh_pod_events"), 299);
    telemetry_close(&t);
}

static void text_is_cut_between_characters(void **state)
{
    (void)state;
    struct telemetry *t = open_it();
    char kind[60];
    memset(kind, 'A', 47);
    memcpy(kind + 47, "\xc3\xa9\xc3\xa9", 4);
    struct telemetry_event e = {.at_ms = 1, .kind = slice(kind, 51)};
    assert_null(telemetry_begin(t));
    assert_null(telemetry_add_event(t, &e));
    assert_null(telemetry_commit(t));
    assert_int_equal((int)ask("SELECT length(kind) FROM mesh_pod_events"), 47);
    telemetry_close(&t);
}

static void pods_keep_their_first_time_within_an_incarnation(void **state)
{
    (void)state;
    struct telemetry *t = open_it();
    struct telemetry_pod p = {
        .pod = SLICE_LIT("d/p"), .incarnation = 1, .at_ms = 10000, .pss_kib = UINT64_MAX};
    for (int i = 0; i < 2; i++, p.at_ms += 5000) {
        assert_null(telemetry_begin(t));
        assert_null(telemetry_put_pod(t, &p));
        assert_null(telemetry_commit(t));
    }
    assert_int_equal((int)ask("SELECT first_ms FROM pods"), 10000);
    assert_int_equal((int)ask("SELECT last_ms FROM mesh_pods"), 15000);
    p.incarnation = 2;
    assert_null(telemetry_begin(t));
    assert_null(telemetry_put_pod(t, &p));
    assert_null(telemetry_commit(t));
    assert_int_equal((int)ask("SELECT first_ms FROM pods"), 20000);
    telemetry_close(&t);
}

static void only_one_may_write(void **state)
{
    (void)state;
    struct telemetry *t = open_it(), *other = NULL;
    bool fresh;
    assert_ptr_equal(telemetry_open(dir, &other, &fresh), ERR_OF(STORE_LOCKED));
    assert_null(other);
    telemetry_close(&t);
    t = open_it();
    telemetry_close(&t);
}

static void buckets_are_found_by_their_bound(void **state)
{
    (void)state;
    static const struct {
        uint64_t le;
        int want;
    } cases[] = {{1, 0},           {5, 4},  {10, 5}, {50000, 24}, {UINT32_MAX, 25},
                 {UINT64_MAX, 25}, {0, -1}, {6, -1}, {50001, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(telemetry_bucket_of(cases[i].le), cases[i].want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rollups_add_up, setup, teardown),
        cmocka_unit_test_setup_teardown(the_share_of_mtls_is_of_requests_else_of_connections, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_uncommitted_batch_is_not_there, setup, teardown),
        cmocka_unit_test_setup_teardown(every_last_value_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(old_rows_go_in_bounded_steps, setup, teardown),
        cmocka_unit_test_setup_teardown(decisions_add_up_and_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_table_drops_its_oldest, setup, teardown),
        cmocka_unit_test_setup_teardown(text_is_cut_between_characters, setup, teardown),
        cmocka_unit_test_setup_teardown(pods_keep_their_first_time_within_an_incarnation, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(only_one_may_write, setup, teardown),
        cmocka_unit_test(buckets_are_found_by_their_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
