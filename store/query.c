#include "store/query.h"

#include "kit/clock.h"
#include "store/db.h"
#include "store/mesh.h"
#include "store/mesh_schema.h"
#include "store/telemetry.h"
#include "store/telemetry_schema.h"

#include <stdio.h>
#include <unistd.h>

#define DEFAULT_TIME_MS  5000u
#define DEFAULT_MAX_ROWS 10000u
#define LOOK_EVERY_OPS   1000 /* virtual machine steps between two looks at the clock */
#define MAX_COLUMNS      200
#define MAX_CELL_BYTES   (16 << 20)
#define MAX_HEAP_BYTES   (256ll << 20)

struct run {
    const struct store_query *q;
    sqlite3 *sql;
    uint64_t end_us;
    bool is_late, is_denied;
};

static int on_progress(void *arg)
{
    struct run *r = arg;
    r->is_late = clock_read_us() >= r->end_us;
    return r->is_late ? 1 : 0;
}

/* Reading is allowed, and nothing else: no PRAGMA that changes, no ATTACH, no function that
 * loads. */
static int authorize(void *arg, int action, const char *a, const char *b, const char *db,
                     const char *trigger)
{
    struct run *r = arg;
    (void)db;
    (void)trigger;
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE:
        return SQLITE_OK;
    case SQLITE_FUNCTION:
        if (b == NULL || sqlite3_stricmp(b, "load_extension") != 0)
            return SQLITE_OK;
        break;
    case SQLITE_PRAGMA:
        if (a != NULL &&
            (sqlite3_stricmp(a, "table_info") == 0 || sqlite3_stricmp(a, "table_xinfo") == 0 ||
             sqlite3_stricmp(a, "table_list") == 0 ||
             sqlite3_stricmp(a, "database_list") == 0 ||
             (sqlite3_stricmp(a, "user_version") == 0 && b == NULL)))
            return SQLITE_OK;
        break;
    default:
        break;
    }
    r->is_denied = true;
    return SQLITE_DENY;
}

static bool is_there(const char *state_dir, const char *file)
{
    char path[512];
    int n = snprintf(path, sizeof path, "%s/%s", state_dir, file);
    return n > 0 && (size_t)n < sizeof path && access(path, F_OK) == 0;
}

static err_t attach_telemetry(struct run *r)
{
    char path[600];
    sqlite3_stmt *s = NULL;
    (void)snprintf(path, sizeof path, "%s/%s", r->q->state_dir, TELEMETRY_FILE);
    /* The main connection is read-only, and so is everything attached to it. */
    int rc = sqlite3_prepare_v2(r->sql, "ATTACH ?1 AS telemetry", -1, &s, NULL);
    if (rc == SQLITE_OK) {
        db_bind(s, "z", path);
        rc = sqlite3_step(s);
    }
    (void)sqlite3_finalize(s);
    return db_error(rc);
}

static err_t open_both(struct run *r)
{
    bool has_telemetry = is_there(r->q->state_dir, TELEMETRY_FILE);
    err_t e = db_open_reader(r->q->state_dir, MESH_FILE, MESH_APPLICATION_ID, &r->sql);
    if (e == ERR_OF(STORE_ABSENT) && has_telemetry)
        return db_open_reader(r->q->state_dir, TELEMETRY_FILE, TELEMETRY_APPLICATION_ID,
                              &r->sql);
    if (e == OK && has_telemetry)
        e = attach_telemetry(r);
    return e;
}

/* SQLite makes these two by a statement of its own that the authorizer would be asked about, as
 * if somebody wanted to write. Once made they stay with the connection. */
static void make_json_tables(sqlite3 *sql)
{
    sqlite3_stmt *s = NULL;

    (void)sqlite3_prepare_v2(sql, "SELECT 1 FROM json_each('[]'), json_tree('[]')", -1, &s,
                             NULL);
    (void)sqlite3_finalize(s);
}

static void set_limits(struct run *r)
{
    uint32_t ms = r->q->time_ms != 0 ? r->q->time_ms : DEFAULT_TIME_MS;
    make_json_tables(r->sql);
    r->end_us = clock_read_us() + (uint64_t)ms * 1000;
    (void)sqlite3_limit(r->sql, SQLITE_LIMIT_LENGTH, MAX_CELL_BYTES);
    (void)sqlite3_limit(r->sql, SQLITE_LIMIT_SQL_LENGTH, 1 << 20);
    (void)sqlite3_limit(r->sql, SQLITE_LIMIT_COLUMN, MAX_COLUMNS);
    (void)sqlite3_limit(r->sql, SQLITE_LIMIT_ATTACHED, 0);
    (void)sqlite3_limit(r->sql, SQLITE_LIMIT_WORKER_THREADS, 0);
    (void)sqlite3_hard_heap_limit64(MAX_HEAP_BYTES);
    sqlite3_progress_handler(r->sql, LOOK_EVERY_OPS, on_progress, r);
    (void)sqlite3_set_authorizer(r->sql, authorize, r);
}

static bool is_blank(const char *tail)
{
    for (; *tail != '\0'; tail++)
        if (strchr(" \t\r\n;", *tail) == NULL)
            return false;
    return true;
}

static err_t why_failed(struct run *r, int rc, char why[300])
{
    if (r->is_late) {
        (void)snprintf(why, 300, "stopped after %u ms",
                       r->q->time_ms != 0 ? r->q->time_ms : DEFAULT_TIME_MS);
        return ERR_OF(STORE_SLOW);
    }
    (void)snprintf(why, 300, "%.280s", sqlite3_errmsg(r->sql));
    if (r->is_denied || (rc & 0xff) == SQLITE_AUTH || (rc & 0xff) == SQLITE_READONLY)
        return ERR_OF(STORE_NOT_READ);
    return (rc & 0xff) == SQLITE_ERROR || (rc & 0xff) == SQLITE_TOOBIG ? ERR_OF(STORE_QUERY)
                                                                       : db_error(rc);
}

static void fill_cell(sqlite3_stmt *s, int i, struct store_cell *cell)
{
    *cell = (struct store_cell){.type = STORE_NULL};
    switch (sqlite3_column_type(s, i)) {
    case SQLITE_INTEGER:
        cell->type = STORE_INTEGER;
        cell->integer = sqlite3_column_int64(s, i);
        break;
    case SQLITE_FLOAT:
        cell->type = STORE_REAL;
        cell->real = sqlite3_column_double(s, i);
        break;
    case SQLITE_TEXT:
        cell->type = STORE_TEXT;
        cell->text = db_text(s, i);
        break;
    case SQLITE_BLOB:
        cell->type = STORE_BLOB;
        cell->text = db_blob(s, i);
        break;
    default:
        break;
    }
}

static err_t run_rows(struct run *r, sqlite3_stmt *s, bool *truncated, char why[300])
{
    struct store_cell cells[MAX_COLUMNS];
    const char *names[MAX_COLUMNS];
    uint64_t max = r->q->max_rows != 0 ? r->q->max_rows : DEFAULT_MAX_ROWS, rows = 0;
    int rc, n = sqlite3_column_count(s);

    BUG_ON(n > MAX_COLUMNS);
    for (int i = 0; i < n; i++)
        names[i] = sqlite3_column_name(s, i);
    if (r->q->on_columns != NULL)
        r->q->on_columns(r->q->arg, n, names);
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        if (rows++ >= max) {
            *truncated = true;
            return OK;
        }
        for (int i = 0; i < n; i++)
            fill_cell(s, i, &cells[i]);
        if (!r->q->on_row(r->q->arg, n, cells))
            return OK;
    }
    return rc == SQLITE_DONE ? OK : why_failed(r, rc, why);
}

static err_t run_statement(struct run *r, bool *truncated, char why[300])
{
    sqlite3_stmt *s = NULL;
    const char *tail = "";
    int rc = sqlite3_prepare_v2(r->sql, r->q->sql, -1, &s, &tail);
    if (rc != SQLITE_OK)
        return why_failed(r, rc, why);
    err_t e = OK;
    if (s == NULL || !is_blank(tail)) {
        (void)snprintf(why, 300, "exactly one SQL statement is needed");
        e = ERR_OF(STORE_QUERY);
    } else if (sqlite3_stmt_readonly(s) == 0) {
        (void)snprintf(why, 300, "the statement does not only read");
        e = ERR_OF(STORE_NOT_READ);
    } else {
        e = run_rows(r, s, truncated, why);
    }
    (void)sqlite3_finalize(s);
    return e;
}

err_t store_query_readonly(const struct store_query *q, bool *truncated, char why[300])
{
    struct run r = {.q = q};
    *truncated = false;
    why[0] = '\0';
    err_t e = open_both(&r);
    if (e != OK) {
        (void)snprintf(why, 300, "%s (%s/%s)", e->text, q->state_dir, MESH_FILE);
    } else {
        set_limits(&r);
        e = run_statement(&r, truncated, why);
    }
    (void)sqlite3_close(r.sql);
    return e;
}
