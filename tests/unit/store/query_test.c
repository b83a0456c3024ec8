#include "store/query.h"

#include "store/db.h"
#include "store/mesh.h"
#include "store/telemetry.h"
#include "store_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static char dir[64];
static struct mesh *mesh;
static struct telemetry *telemetry;

static int setup(void **state)
{
    (void)state;
    bool fresh;
    store_dir_make(dir);
    struct mesh_author who = {.author = SLICE_LIT("a")};
    struct mesh_object o = {.kind = SLICE_LIT("Service"),
                            .ns = SLICE_LIT("default"),
                            .name = SLICE_LIT("web"),
                            .json = SLICE_LIT("{}")};
    return mesh_open(dir, &mesh, &fresh) != OK ||
           telemetry_open(dir, &telemetry, &fresh) != OK || mesh_begin(mesh, &who) != OK ||
           mesh_put_object(mesh, &o) != OK || mesh_commit(mesh) != OK;
}

static int teardown(void **state)
{
    (void)state;
    mesh_close(&mesh);
    telemetry_close(&telemetry);
    store_dir_clear(dir);
    return 0;
}

static bool count_row(void *arg, int n, const struct store_cell *cells)
{
    (void)n;
    (void)cells;
    *(int *)arg += 1;
    return true;
}

static err_t ask(const char *sql, uint64_t max_rows, int *rows, bool *truncated, char why[300])
{
    *rows = 0;
    struct store_query q = {.state_dir = dir,
                            .sql = sql,
                            .time_ms = 300,
                            .max_rows = max_rows,
                            .on_row = count_row,
                            .arg = rows};
    return store_query_readonly(&q, truncated, why);
}

static void what_may_be_asked(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        err_t want;
        int rows;
    } cases[] = {
        {"SELECT * FROM mesh_objects", OK, 1},
        {"SELECT * FROM mesh_objects;  ", OK, 1},
        {"SELECT * FROM mesh_edges", OK, 0},
        {"SELECT * FROM telemetry.mesh_golden, mesh_objects", OK, 0},
        {"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n<5) SELECT * "
         "FROM c",
         OK, 5},
        {"PRAGMA table_info(mesh_objects)", OK, 8},
        {"SELECT value FROM mesh_objects, json_each('[1,2,3]')", OK, 3},
        {"SELECT key FROM json_tree('{\"a\":[1]}')", OK, 3},
        {"-- why\nSELECT 1", OK, 1},
        {"SELECT 1; SELECT 2", ERR_OF(STORE_QUERY), 0},
        {"", ERR_OF(STORE_QUERY), 0},
        {"-- nothing", ERR_OF(STORE_QUERY), 0},
        {"SELEC 1", ERR_OF(STORE_QUERY), 0},
        {"SELECT * FROM nothing", ERR_OF(STORE_QUERY), 0},
        {"DELETE FROM objects", ERR_OF(STORE_NOT_READ), 0},
        {"INSERT INTO meta VALUES('a','b')", ERR_OF(STORE_NOT_READ), 0},
        {"UPDATE telemetry.events SET kind=''", ERR_OF(STORE_NOT_READ), 0},
        {"CREATE TEMP TABLE t(x)", ERR_OF(STORE_NOT_READ), 0},
        {"CREATE TABLE t(x)", ERR_OF(STORE_NOT_READ), 0},
        {"DROP VIEW mesh_objects", ERR_OF(STORE_NOT_READ), 0},
        {"ATTACH '/etc/passwd' AS x", ERR_OF(STORE_NOT_READ), 0},
        {"DETACH telemetry", ERR_OF(STORE_NOT_READ), 0},
        {"PRAGMA journal_mode=DELETE", ERR_OF(STORE_NOT_READ), 0},
        {"PRAGMA wal_checkpoint(TRUNCATE)", ERR_OF(STORE_NOT_READ), 0},
        {"PRAGMA user_version=3", ERR_OF(STORE_NOT_READ), 0},
        {"PRAGMA writable_schema=ON", ERR_OF(STORE_NOT_READ), 0},
        {"BEGIN IMMEDIATE", ERR_OF(STORE_NOT_READ), 0},
        {"VACUUM INTO '/tmp/weft-x'", ERR_OF(STORE_NOT_READ), 0},
        {"SELECT load_extension('x')", ERR_OF(STORE_NOT_READ), 0},
        {"SELECT length(zeroblob(999999999))", ERR_OF(STORE_QUERY), 0},
        {"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c) SELECT sum(n) FROM c",
         ERR_OF(STORE_SLOW), 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char why[300];
        bool truncated;
        int rows;
        err_t e = ask(cases[i].sql, 0, &rows, &truncated, why);
        if (e != cases[i].want)
            fail_msg("%s: %s (%s)", cases[i].sql, e != OK ? e->name : "OK", why);
        assert_int_equal(rows, cases[i].rows);
        assert_true(e == OK || why[0] != '\0');
    }
    assert_int_equal(mesh_revision(mesh), 1);
}

static void rows_are_limited(void **state)
{
    (void)state;
    char why[300];
    bool truncated;
    int rows;
    const char *sql =
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c) SELECT * FROM c";
    assert_null(ask(sql, 10, &rows, &truncated, why));
    assert_int_equal(rows, 10);
    assert_true(truncated);
    assert_null(ask("SELECT 1", 1, &rows, &truncated, why));
    assert_false(truncated);
}

static void a_missing_file_is_left_out(void **state)
{
    (void)state;
    char why[300], path[128];
    bool truncated;
    int rows;
    (void)snprintf(path, sizeof path, "%s/collector", dir);
    telemetry_close(&telemetry);
    store_dir_clear(path);
    assert_null(ask("SELECT * FROM mesh_objects", 0, &rows, &truncated, why));
    mesh_close(&mesh);
    (void)snprintf(path, sizeof path, "%s/broker", dir);
    store_dir_clear(path);
    assert_ptr_equal(ask("SELECT 1", 0, &rows, &truncated, why), ERR_OF(STORE_ABSENT));
    bool fresh;
    assert_null(telemetry_open(dir, &telemetry, &fresh));
    assert_null(ask("SELECT * FROM mesh_edges", 0, &rows, &truncated, why));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {TEST(what_may_be_asked), TEST(rows_are_limited),
                                       TEST(a_missing_file_is_left_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
