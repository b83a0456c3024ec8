/* Life and transactions of mesh.db. Rows are in mesh_rows.c, reading back in mesh_read.c. */
#include "store/mesh.h"

#include "kit/random.h"
#include "store/mesh_internal.h"

#include <stdio.h>
#include <stdlib.h>

static err_t value_read(struct mesh *m, const char *key, uint64_t *out)
{
    bool more = false;
    sqlite3_stmt *s = db_stmt(&m->db, MS_META_GET);
    if (s == NULL)
        return ERR_OF(STORE_IO);
    db_bind(s, "z", key);
    TRY(db_step(&m->db, s, &more));
    if (more) {
        *out = (uint64_t)db_i64(s, 0);
        (void)sqlite3_reset(s);
    }
    return OK;
}

static err_t revision_read(struct mesh *m)
{
    bool more = false;
    sqlite3_stmt *s = db_stmt(&m->db, MS_REVISION_LAST);
    if (s == NULL)
        return ERR_OF(STORE_IO);
    TRY(db_step(&m->db, s, &more));
    if (more) {
        m->revision = (uint64_t)db_i64(s, 0);
        (void)sqlite3_reset(s);
    }
    return OK;
}

/* An epoch is drawn when there is none: a new file, or one whose making was interrupted. */
static err_t epoch_settle(struct mesh *m)
{
    TRY(value_read(m, "epoch", &m->epoch));
    if (m->epoch != 0)
        return OK;
    uint64_t drawn = (random_u64() >> 1) | 1;
    TRY(db_begin(&m->db));
    sqlite3_stmt *s = db_stmt(&m->db, MS_META_PUT);
    bool more = false;
    err_t e = s != NULL ? OK : ERR_OF(STORE_IO);
    if (e == OK) {
        db_bind(s, "zi", "epoch", (int64_t)drawn);
        e = db_step(&m->db, s, &more);
    }
    if (e == OK)
        e = db_commit(&m->db);
    db_rollback(&m->db);
    if (e == OK)
        m->epoch = drawn;
    return e;
}

err_t mesh_open(const char *state_dir, struct mesh **out, bool *was_fresh)
{
    const struct db_conf conf = {.state_dir = state_dir,
                                 .file = MESH_FILE,
                                 .what = "mesh.db",
                                 .application_id = MESH_APPLICATION_ID,
                                 .migrations = mesh_migrations,
                                 .sql = mesh_sql,
                                 .n_sql = MS_N,
                                 .is_durable = true};
    struct mesh *m = calloc(1, sizeof *m);
    if (m == NULL)
        return ERR_OF(NOMEM);
    err_t e = db_open(&conf, &m->db, was_fresh);
    if (e == OK)
        e = epoch_settle(m);
    if (e == OK)
        e = revision_read(m);
    if (e != OK) {
        mesh_close(&m);
        return e;
    }
    *out = m;
    return OK;
}

void mesh_close(struct mesh **m)
{
    if (*m == NULL)
        return;
    db_close(&(*m)->db);
    free(*m);
    *m = NULL;
}

uint64_t mesh_epoch(const struct mesh *m)
{
    return m->epoch;
}

uint64_t mesh_revision(const struct mesh *m)
{
    return m->revision;
}

uint64_t mesh_next(const struct mesh *m)
{
    return m->revision + 1;
}

err_t mesh_begin(struct mesh *m, const struct mesh_author *author)
{
    m->is_topology = false;
    m->at_ms = author->at_ms;
    (void)slice_to_cstr(author->author, m->author, sizeof m->author);
    (void)slice_to_cstr(author->reason, m->reason, sizeof m->reason);
    return db_begin(&m->db);
}

err_t mesh_commit(struct mesh *m)
{
    err_t e = OK;
    if (m->is_topology)
        e = db_run(&m->db, MS_REVISION_ADD, "iizz", (int64_t)mesh_next(m), m->at_ms, m->author,
                   m->reason);
    if (e == OK)
        e = db_commit(&m->db);
    else
        db_rollback(&m->db);
    if (e == OK && m->is_topology)
        m->revision++;
    m->is_topology = false;
    return e;
}

void mesh_rollback(struct mesh *m)
{
    db_rollback(&m->db);
    m->is_topology = false;
}

err_t mesh_put_value(struct mesh *m, const char *key, slice_t value)
{
    return db_run(&m->db, MS_META_PUT, "zb", key, value);
}

err_t mesh_get_value(struct mesh *m, const char *key, void (*fn)(void *arg, slice_t value),
                     void *arg)
{
    bool more = false;
    sqlite3_stmt *s = db_stmt(&m->db, MS_META_GET);
    if (s == NULL)
        return ERR_OF(STORE_IO);
    db_bind(s, "z", key);
    TRY(db_step(&m->db, s, &more));
    if (more) {
        fn(arg, db_blob(s, 0));
        (void)sqlite3_reset(s);
    }
    return OK;
}

void mesh_stats(struct mesh *m, struct mesh_stats *out)
{
    *out = (struct mesh_stats){.commits = m->db.commits,
                               .failed_commits = m->db.failed,
                               .file_bytes = db_file_bytes(&m->db, ""),
                               .wal_bytes = db_file_bytes(&m->db, "-wal")};
}

/* ---- bounded deletion ---- */

static const char *const trims[] = {
#define TRIM(table, old)                                                                       \
    "DELETE FROM " #table " WHERE rowid IN (SELECT rowid FROM " #table " WHERE " old           \
    " LIMIT ?2)",
    MESH_TRIMS
#undef TRIM
};

static err_t trim_table(struct mesh *m, const char *text, int64_t before_ms, unsigned *budget)
{
    sqlite3_stmt *s = NULL;
    bool more = false;
    if (*budget == 0)
        return OK;
    int rc = sqlite3_prepare_v2(m->db.sql, text, -1, &s, NULL);
    if (rc != SQLITE_OK)
        return db_error(rc);
    db_bind(s, "ii", before_ms, (int64_t)*budget);
    err_t e = db_step(&m->db, s, &more);
    (void)sqlite3_finalize(s);
    if (e == OK) {
        int64_t gone = sqlite3_changes64(m->db.sql);
        *budget -= gone < (int64_t)*budget ? (unsigned)gone : *budget;
    }
    return e;
}

err_t mesh_trim(struct mesh *m, int64_t before_ms, unsigned max_rows, bool *left)
{
    unsigned budget = max_rows;
    *left = false;
    TRY(db_begin(&m->db));
    err_t e = OK;
    for (size_t i = 0; e == OK && i < sizeof trims / sizeof trims[0]; i++)
        e = trim_table(m, trims[i], before_ms, &budget);
    if (e == OK)
        e = db_commit(&m->db);
    else
        db_rollback(&m->db);
    *left = e == OK && budget == 0;
    return e;
}
