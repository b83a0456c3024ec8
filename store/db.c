#include "store/db.h"

#include "kit/clock.h"
#include "kit/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define ERR(name, cls, text) ERR_DEFINE(name, cls, text)
#include "store/tbl/errors.h"
#undef ERR

#define WRITER_WAIT_MS 250 /* for a reader that recovers the log; a second writer is an error  \
                            */
#define READER_WAIT_MS 100
#define WAL_KEPT_BYTES "16777216" /* what is left of a log that had to grow */
#define DEFAULT_MAX    (4ull << 30)
#define PAGE_BYTES     4096u

err_t db_error(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return OK;
    case SQLITE_NOMEM:
        return ERR_OF(NOMEM);
    case SQLITE_FULL:
        return ERR_OF(STORE_FULL);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
        return ERR_OF(STORE_CORRUPT);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_OF(STORE_BUSY);
    case SQLITE_TOOBIG:
        return ERR_OF(TOO_BIG);
    default: /* IOERR, CANTOPEN, READONLY, PERM: the file; a CONSTRAINT would be a bug and is
                told alike */
        return ERR_OF(STORE_IO);
    }
}

static err_t db_fail(struct db *d, int rc, const char *doing)
{
    err_t e = db_error(rc);
    if (e != OK)
        log_error("database call failed", "db=%s doing=\"%s\" error=%s sqlite=%d why=\"%s\"",
                  d->what, doing, e->name, sqlite3_extended_errcode(d->sql),
                  sqlite3_errmsg(d->sql));
    return e;
}

/* ---- the place ---- */

static err_t place_make(const struct db_conf *conf, struct db *d)
{
    char dir[512];
    int n = snprintf(d->path, sizeof d->path, "%s/%s", conf->state_dir, conf->file);
    if (n < 0 || (size_t)n >= sizeof d->path - 32)
        return ERR_OF(STORE_PLACE);
    (void)snprintf(dir, sizeof dir, "%s", d->path);
    *strrchr(dir, '/') = '\0';
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        log_error("directory not made", "path=%s errno=%d", dir, errno);
        return ERR_OF(STORE_PLACE);
    }
    struct stat st;
    if (lstat(dir, &st) != 0 || !S_ISDIR(st.st_mode) || (st.st_mode & 022) != 0) {
        log_error("directory not usable",
                  "path=%s why=\"not a directory, or writable by others\"", dir);
        return ERR_OF(STORE_PLACE);
    }
    return OK;
}

static err_t place_lock(struct db *d)
{
    char lock[560];
    (void)snprintf(lock, sizeof lock, "%s.lock", d->path);
    d->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (d->lock_fd < 0) {
        log_error("lock file not opened", "path=%s errno=%d", lock, errno);
        return ERR_OF(STORE_PLACE);
    }
    if (flock(d->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        log_error("database is in use", "path=%s why=\"another process holds %s\"", d->path,
                  lock);
        return ERR_OF(STORE_LOCKED);
    }
    return OK;
}

/* A symbolic link, a file of somebody else or one that others may write is not ours to trust.
 */
static err_t place_check(const char *path, bool is_reader)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return errno == ENOENT ? OK : ERR_OF(STORE_PLACE);
    bool is_ours = is_reader || st.st_uid == geteuid();
    if (S_ISREG(st.st_mode) && is_ours && (st.st_mode & 022) == 0)
        return OK;
    log_error("database file refused", "path=%s mode=%o uid=%u", path, (unsigned)st.st_mode,
              (unsigned)st.st_uid);
    return ERR_OF(STORE_PLACE);
}

static void place_move_aside(struct db *d)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char from[560], to[640];
        (void)snprintf(from, sizeof from, "%s%s", d->path, suffixes[i]);
        (void)snprintf(to, sizeof to, "%s.damaged-%" PRIu64 "%s", d->path, clock_wall_ms(),
                       suffixes[i]);
        if (rename(from, to) == 0)
            log_error("damaged file moved aside", "from=%s to=%s", from, to);
    }
}

/* ---- opening ---- */

static void harden(sqlite3 *sql, bool has_views)
{
    int got;
    (void)sqlite3_db_config(sql, SQLITE_DBCONFIG_DEFENSIVE, 1, &got);
    (void)sqlite3_db_config(sql, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, &got);
    (void)sqlite3_db_config(sql, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, &got);
    (void)sqlite3_db_config(sql, SQLITE_DBCONFIG_ENABLE_VIEW, has_views ? 1 : 0, &got);
    (void)sqlite3_db_config(sql, SQLITE_DBCONFIG_DQS_DML, 0, &got);
    (void)sqlite3_db_config(sql, SQLITE_DBCONFIG_DQS_DDL, 0, &got);
    (void)sqlite3_db_config(sql, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, &got);
    (void)sqlite3_extended_result_codes(sql, 1);
}

err_t db_exec(struct db *d, const char *text)
{
    return db_fail(d, sqlite3_exec(d->sql, text, NULL, NULL, NULL), "exec");
}

static int ask_int(sqlite3 *sql, const char *text, int64_t *out)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(sql, text, -1, &s, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(s);
        if (rc == SQLITE_ROW)
            *out = sqlite3_column_int64(s, 0);
    }
    (void)sqlite3_finalize(s);
    return rc == SQLITE_ROW ? SQLITE_OK : rc == SQLITE_DONE ? SQLITE_ERROR : rc;
}

/* "ok" in the first row of quick_check; anything else is damage. */
static err_t check_quick(struct db *d)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(d->sql, "PRAGMA quick_check(1)", -1, &s, NULL);
    bool is_good = false;
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(s);
        is_good = rc == SQLITE_ROW && slice_is_str(db_text(s, 0), "ok");
    }
    (void)sqlite3_finalize(s);
    if (rc != SQLITE_ROW)
        return db_fail(d, rc, "quick_check");
    return is_good ? OK : ERR_OF(STORE_CORRUPT);
}

static err_t set_pragmas(struct db *d, const struct db_conf *conf)
{
    uint64_t pages = (conf->max_bytes != 0 ? conf->max_bytes : DEFAULT_MAX) / PAGE_BYTES;
    char text[400];
    (void)snprintf(text, sizeof text,
                   "PRAGMA journal_mode=WAL; PRAGMA synchronous=%s; PRAGMA temp_store=MEMORY;"
                   "PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA foreign_keys=OFF;"
                   "PRAGMA journal_size_limit=" WAL_KEPT_BYTES
                   "; PRAGMA max_page_count=%" PRIu64,
                   conf->is_durable ? "FULL" : "NORMAL", pages);
    return db_exec(d, text);
}

static err_t check_version(struct db *d, const struct db_conf *conf, int64_t *version)
{
    int64_t app = 0, tables = 0, known = 0;
    int rc = ask_int(d->sql, "PRAGMA user_version", version);
    if (rc == SQLITE_OK)
        rc = ask_int(d->sql, "PRAGMA application_id", &app);
    if (rc == SQLITE_OK)
        rc = ask_int(d->sql, "SELECT count(*) FROM sqlite_schema", &tables);
    if (rc != SQLITE_OK)
        return db_fail(d, rc, "version");
    while (conf->migrations[known] != NULL)
        known++;
    if (app == conf->application_id && *version > known) {
        log_error("database is newer than this Weft",
                  "path=%s schema=%" PRId64 " known=%" PRId64, d->path, *version, known);
        return ERR_OF(STORE_NEWER);
    }
    bool is_new = app == 0 && *version == 0 && tables == 0;
    if (!is_new && (app != conf->application_id || *version < 1))
        return ERR_OF(STORE_CORRUPT); /* some other program's file, or one not finished */
    return OK;
}

/* All missing steps in one transaction, the version with them: a kill leaves the old schema
 * whole. */
static err_t migrate(struct db *d, const struct db_conf *conf, int64_t version)
{
    if (conf->migrations[version] == NULL)
        return OK;
    TRY(db_begin(d));
    err_t e = OK;
    for (; e == OK && conf->migrations[version] != NULL; version++)
        for (const char *const *text = conf->migrations[version]; e == OK && *text != NULL;
             text++)
            e = db_exec(d, *text);
    if (e == OK) {
        char text[100];
        (void)snprintf(text, sizeof text,
                       "PRAGMA application_id=%d; PRAGMA user_version=%" PRId64,
                       conf->application_id, version);
        e = db_exec(d, text);
    }
    if (e == OK)
        return db_commit(d);
    db_rollback(d);
    return e;
}

static void close_file(struct db *d)
{
    for (unsigned i = 0; d->statements != NULL && i < d->n_statements; i++)
        (void)sqlite3_finalize(d->statements[i]);
    free(d->statements);
    d->statements = NULL;
    if (d->sql != NULL)
        (void)sqlite3_close(d->sql);
    d->sql = NULL;
}

static err_t open_file(struct db *d, const struct db_conf *conf, bool *was_fresh)
{
    int64_t version = 0;
    int rc =
        sqlite3_open_v2(d->path, &d->sql,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return db_fail(d, rc, "open");
    harden(d->sql, false);
    (void)sqlite3_busy_timeout(d->sql, WRITER_WAIT_MS);
    TRY(check_version(d, conf, &version));
    if (version > 0)
        TRY(check_quick(d));
    TRY(set_pragmas(d, conf));
    TRY(migrate(d, conf, version));
    *was_fresh = version == 0;
    d->statements = calloc(conf->n_sql, sizeof(sqlite3_stmt *));
    d->sql_text = conf->sql;
    d->n_statements = conf->n_sql;
    return d->statements != NULL ? OK : ERR_OF(NOMEM);
}

err_t db_open(const struct db_conf *conf, struct db *out, bool *was_fresh)
{
    memset(out, 0, sizeof *out);
    out->lock_fd = -1;
    out->what = conf->what;
    *was_fresh = false;
    mode_t old_mask = umask(077);
    err_t e = place_make(conf, out);
    if (e == OK)
        e = place_lock(out);
    if (e == OK)
        e = place_check(out->path, false);
    if (e == OK)
        e = open_file(out, conf, was_fresh);
    if (e == ERR_OF(STORE_CORRUPT)) {
        close_file(out);
        place_move_aside(out);
        e = open_file(out, conf, was_fresh);
    }
    (void)umask(old_mask);
    if (e != OK)
        db_close(out);
    return e;
}

void db_close(struct db *d)
{
    if (d->sql != NULL)
        db_rollback(d);
    close_file(d);
    if (d->lock_fd > 0)
        (void)close(d->lock_fd);
    d->lock_fd = -1;
}

err_t db_open_reader(const char *state_dir, const char *file, int application_id, sqlite3 **out)
{
    char path[512];
    int64_t app = 0;
    int n = snprintf(path, sizeof path, "%s/%s", state_dir, file);
    if (n < 0 || (size_t)n >= sizeof path)
        return ERR_OF(STORE_PLACE);
    if (access(path, F_OK) != 0)
        return ERR_OF(STORE_ABSENT);
    TRY(place_check(path, true));
    int rc = sqlite3_open_v2(path, out, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK) {
        harden(*out, true);
        (void)sqlite3_busy_timeout(*out, READER_WAIT_MS);
        (void)sqlite3_wal_autocheckpoint(*out, 0);
        rc = ask_int(*out, "PRAGMA application_id", &app);
    }
    if (rc == SQLITE_OK && app == application_id)
        return OK;
    (void)sqlite3_close(*out);
    *out = NULL;
    return rc != SQLITE_OK ? db_error(rc) : ERR_OF(STORE_CORRUPT);
}

/* ---- transactions and statements ---- */

err_t db_begin(struct db *d)
{
    BUG_ON(d->in_transaction);
    TRY(db_exec(d, "BEGIN IMMEDIATE"));
    d->in_transaction = true;
    return OK;
}

err_t db_commit(struct db *d)
{
    BUG_ON(!d->in_transaction);
    int rc = sqlite3_exec(d->sql, "COMMIT", NULL, NULL, NULL);
    if (rc == SQLITE_OK) {
        d->in_transaction = false;
        d->commits++;
        return OK;
    }
    err_t e = db_fail(d, rc, "commit");
    d->failed++;
    db_rollback(d);
    return e;
}

void db_rollback(struct db *d)
{
    /* SQLite has rolled back by itself after FULL and IOERR; then there is nothing left to end.
     */
    if (d->in_transaction && sqlite3_get_autocommit(d->sql) == 0)
        (void)sqlite3_exec(d->sql, "ROLLBACK", NULL, NULL, NULL);
    d->in_transaction = false;
}

sqlite3_stmt *db_stmt(struct db *d, unsigned id)
{
    BUG_ON(id >= d->n_statements);
    if (d->statements[id] == NULL) {
        int rc = sqlite3_prepare_v3(d->sql, d->sql_text[id], -1, SQLITE_PREPARE_PERSISTENT,
                                    &d->statements[id], NULL);
        if (rc != SQLITE_OK)
            (void)db_fail(d, rc, d->sql_text[id]);
    } else {
        (void)sqlite3_reset(d->statements[id]);
    }
    return d->statements[id];
}

static void bind_list(sqlite3_stmt *s, const char *letters, va_list ap)
{
    static const char empty[1] = "";
    int at = 1;
    for (const char *l = letters; *l != '\0'; l++, at++) {
        slice_t v;
        const char *z;
        int rc = SQLITE_OK;
        switch (*l) {
        case 't':
            v = va_arg(ap, slice_t);
            rc = sqlite3_bind_text64(s, at, v.n != 0 ? (const char *)v.p : empty, v.n,
                                     SQLITE_STATIC, SQLITE_UTF8);
            break;
        case 'b':
            v = va_arg(ap, slice_t);
            rc = sqlite3_bind_blob64(s, at, v.n != 0 ? (const void *)v.p : empty, v.n,
                                     SQLITE_STATIC);
            break;
        case 'i':
            rc = sqlite3_bind_int64(s, at, va_arg(ap, int64_t));
            break;
        case 'z':
            z = va_arg(ap, const char *);
            rc = sqlite3_bind_text(s, at, z, -1, SQLITE_STATIC);
            break;
        default:
            BUG_ON(*l != 'n');
            rc = sqlite3_bind_null(s, at);
            break;
        }
        BUG_ON(rc != SQLITE_OK && rc != SQLITE_NOMEM && rc != SQLITE_TOOBIG);
    }
}

void db_bind(sqlite3_stmt *s, const char *letters, ...)
{
    va_list ap;
    va_start(ap, letters);
    bind_list(s, letters, ap);
    va_end(ap);
}

err_t db_step(struct db *d, sqlite3_stmt *s, bool *more)
{
    int rc = sqlite3_step(s);
    *more = rc == SQLITE_ROW;
    if (rc == SQLITE_ROW)
        return OK;
    err_t e = rc == SQLITE_DONE ? OK : db_fail(d, rc, sqlite3_sql(s));
    (void)sqlite3_reset(s);
    (void)sqlite3_clear_bindings(s);
    return e;
}

err_t db_run(struct db *d, unsigned id, const char *letters, ...)
{
    sqlite3_stmt *s = db_stmt(d, id);
    if (s == NULL)
        return ERR_OF(STORE_IO);
    va_list ap;
    va_start(ap, letters);
    bind_list(s, letters, ap);
    va_end(ap);
    bool more = false;
    err_t e = db_step(d, s, &more);
    if (more) {
        (void)sqlite3_reset(s);
        (void)sqlite3_clear_bindings(s);
    }
    return e;
}

slice_t db_text(sqlite3_stmt *s, int column)
{
    const unsigned char *p = sqlite3_column_text(s, column);
    return slice(p, p != NULL ? (size_t)sqlite3_column_bytes(s, column) : 0);
}

slice_t db_blob(sqlite3_stmt *s, int column)
{
    const void *p = sqlite3_column_blob(s, column);
    return slice(p, p != NULL ? (size_t)sqlite3_column_bytes(s, column) : 0);
}

int64_t db_i64(sqlite3_stmt *s, int column)
{
    return sqlite3_column_int64(s, column);
}

uint64_t db_file_bytes(const struct db *d, const char *suffix)
{
    char path[560];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s%s", d->path, suffix);
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}
