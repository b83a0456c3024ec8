/* One SQLite file with its one writing connection, opened by the rules of
 * docs/internals/store.md.
 *
 * Used by store/ only. Everything here blocks for the time of a local file access. Codes of
 * SQLite become err_t in db.c and travel no further.
 */
#ifndef STORE_DB_H
#define STORE_DB_H

#include "kit/err.h"
#include "kit/slice.h"
#include "store/store_err.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

struct db {
    sqlite3 *sql;
    char path[512];
    const char *what; /* lent: name for logs */
    int lock_fd;      /* flock held for the life of the connection */
    bool in_transaction;
    sqlite3_stmt **statements; /* prepared on first use, indexed like conf->sql */
    const char *const *sql_text;
    unsigned n_statements;
    uint64_t commits, failed;
};

struct db_conf {
    const char *state_dir;
    const char *file; /* below state_dir, with exactly one directory: "broker/mesh.db" */
    const char *what; /* for logs; kept by reference */
    int application_id;
    /* [i] leads from user_version i to i + 1: SQL texts up to a NULL; the list ends with NULL;
     * kept. */
    const char *const *const *migrations;
    const char *const *sql; /* the statements db_stmt prepares; kept */
    unsigned n_sql;
    bool is_durable;    /* fsync at every commit; else only at checkpoints */
    uint64_t max_bytes; /* ceiling of the file; 0 = 4 GiB */
};

/* Lock, place checks, open, harden, quick_check, migrate. A damaged file is moved aside and a
 * fresh one made. *was_fresh: the schema was created by this call. */
MUST_USE err_t db_open(const struct db_conf *conf, struct db *out, bool *was_fresh);
void db_close(struct db *d); /* also for one that failed to open */

/* Read-only connection for everybody who is not the owner: hardened alike, never checkpoints,
 * never waits longer than 100 ms. STORE_ABSENT if there is no file. */
MUST_USE err_t db_open_reader(const char *state_dir, const char *file, int application_id,
                              sqlite3 **out);

MUST_USE err_t db_begin(struct db *d);
MUST_USE err_t db_commit(struct db *d); /* an error has rolled back */
void db_rollback(struct db *d);         /* also fine when nothing is open */

/* Runs SQL text without results (schema, pragmas). */
MUST_USE err_t db_exec(struct db *d, const char *text);

/* The prepared statement `id`, reset; NULL without memory (or a bug in the text: logged). */
MUST_USE sqlite3_stmt *db_stmt(struct db *d, unsigned id);

/* Binds from parameter 1 on; one letter each: t slice_t text, b slice_t blob, i int64_t,
 * z const char * (NULL binds NULL), n nothing (NULL). Borrowed until the statement is reset. */
void db_bind(sqlite3_stmt *s, const char *letters, ...);

/* db_stmt + db_bind + step to the end, for statements without rows. */
MUST_USE err_t db_run(struct db *d, unsigned id, const char *letters, ...);

/* One row: OK and *more = true; the end: *more = false. The statement is reset at the end or on
 * error. */
MUST_USE err_t db_step(struct db *d, sqlite3_stmt *s, bool *more);

/* Columns of the current row; valid until the next step. */
slice_t db_text(sqlite3_stmt *s, int column);
slice_t db_blob(sqlite3_stmt *s, int column);
int64_t db_i64(sqlite3_stmt *s, int column);

/* What a result code means to us. */
err_t db_error(int rc);

uint64_t db_file_bytes(const struct db *d, const char *suffix); /* "" or "-wal"; 0 if absent */

#endif
