/* The collector's writer. Row counts are kept in memory (counted once at the start), so that a
 * full table costs nothing to notice: it drops its oldest rows before it takes a new one. */
#include "store/telemetry.h"

#include "kit/log.h"
#include "store/db.h"
#include "store/telemetry_schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME_MAX_BYTES      253u
#define SERIES_MAX_BYTES    4096u
#define TEXT_MAX_BYTES      1024u
#define HIST_TEXT           (TELEMETRY_FINES * 21 + 3)
#define DEFAULT_ROLLUP_ROWS 500000u
#define DEFAULT_EVENT_ROWS  100000u
#define DEFAULT_LAST_ROWS   1000000u
#define MAKE_ROOM_ROWS      64 /* dropped at once when a table is full */
#define DAY_MS              86400000ull

const uint32_t telemetry_bucket_le_ms[TELEMETRY_BUCKETS] = {
    1,   2,   3,    4,    5,    10,   20,   30,    40,    50,    100,   200,   300,
    400, 500, 1000, 2000, 3000, 4000, 5000, 10000, 20000, 30000, 40000, 50000, UINT32_MAX};

struct telemetry {
    struct db db;
    uint64_t rows[TELEMETRY_WIDTHS], last_rows, event_rows; /* in the tables now */
    uint64_t decision_rows;
    uint64_t at_begin[TELEMETRY_WIDTHS + 3];                /* to take back on a rollback */
    uint64_t max_rollup_rows, max_last_rows, max_event_rows;
    uint64_t trimmed;
};

static const int64_t widths_s[TELEMETRY_WIDTHS] = {
#define WIDTH(name, seconds) seconds,
    TELEMETRY_ROLLUPS(WIDTH)
#undef WIDTH
};

static const slice_t everybody = {(const uint8_t *)"*", 1};

int telemetry_bucket_of(uint64_t le_ms)
{
    if (le_ms >= UINT32_MAX)
        return TELEMETRY_BUCKETS - 1;
    for (int i = 0; i < TELEMETRY_BUCKETS - 1; i++)
        if (telemetry_bucket_le_ms[i] == le_ms)
            return i;
    return -1;
}

/* Cuts at the limit, but never within a UTF-8 character. */
static slice_t cut(slice_t s, size_t max)
{
    if (s.n <= max)
        return s;
    while (max > 0 && (s.p[max] & 0xc0) == 0x80)
        max--;
    return slice(s.p, max);
}

static int64_t clamp(uint64_t v)
{
    return v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

/* ---- histograms as JSON arrays without trailing zeros ---- */

static slice_t hist_print(const uint64_t *hist, int n, char out[HIST_TEXT])
{
    int last = n - 1;
    size_t at = 1;
    while (last >= 0 && hist[last] == 0)
        last--;
    out[0] = '[';
    for (int i = 0; i <= last; i++)
        at += (size_t)snprintf(out + at, HIST_TEXT - at, "%s%" PRIu64, i != 0 ? "," : "",
                               hist[i]);
    out[at++] = ']';
    return slice(out, at);
}

/* Adds what the text says; text that is not of our form (edited by hand) adds what could be
 * read. */
static void hist_add_text(uint64_t *hist, int n, slice_t text)
{
    size_t at = 1;
    for (int i = 0; i < n && at < text.n; i++, at++) {
        uint64_t v = 0;
        for (; at < text.n && text.p[at] >= '0' && text.p[at] <= '9'; at++)
            v = v < UINT64_MAX / 20 ? v * 10 + (uint64_t)(text.p[at] - '0') : v;
        hist[i] += v;
    }
}

uint64_t telemetry_fine_bound_us(unsigned i)
{
    if (i >= TELEMETRY_FINES - 1)
        return UINT64_MAX;
    if (i < 4)
        return i + 1;
    return (uint64_t)(4 + i % 4 + 1) << (i / 4 - 1);
}

int telemetry_fine_of(uint64_t bound_us)
{
    uint64_t us = bound_us - 1; /* the last microsecond within */
    unsigned top, i;
    if (bound_us == UINT64_MAX)
        return TELEMETRY_FINES - 1;
    if (bound_us == 0 || us >= UINT64_C(1) << 26)
        return -1;
    if (us < 4)
        return (int)us;
    top = 63u - (unsigned)__builtin_clzll(us);
    i = 4 * (top - 1) + (unsigned)((us >> (top - 2)) & 3);
    return telemetry_fine_bound_us(i) == bound_us ? (int)i : -1;
}

/* Upper bound of bucket i of a histogram of n in ms; of the last, which has none, its lower
 * bound. */
static double hist_bound_ms(int n, int i)
{
    if (i == n - 1)
        i--;
    if (n == TELEMETRY_BUCKETS)
        return telemetry_bucket_le_ms[i];
    return (double)telemetry_fine_bound_us((unsigned)i) / 1000;
}

/* As histogram_quantile: linear within the bucket; in +Inf the highest finite bound. */
static double hist_quantile(const uint64_t *hist, int n, double q)
{
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < n; i++)
        total += hist[i];
    double rank = q * (double)total;
    for (int i = 0; i < n - 1; i++) {
        if (hist[i] != 0 && (double)(seen + hist[i]) >= rank) {
            double low = i == 0 ? 0 : hist_bound_ms(n, i - 1);
            double share = (rank - (double)seen) / (double)hist[i];
            return low + share * (hist_bound_ms(n, i) - low);
        }
        seen += hist[i];
    }
    return hist_bound_ms(n, n - 1);
}

/* ---- life ---- */

static err_t count_rows(struct telemetry *t, unsigned id, uint64_t *out)
{
    bool more = false;
    sqlite3_stmt *s = db_stmt(&t->db, id);
    if (s == NULL)
        return ERR_OF(STORE_IO);
    err_t e = db_step(&t->db, s, &more);
    if (more) {
        *out = (uint64_t)db_i64(s, 0);
        (void)sqlite3_reset(s);
    }
    return e;
}

err_t telemetry_open(const char *state_dir, struct telemetry **out, bool *was_fresh)
{
    const struct db_conf conf = {.state_dir = state_dir,
                                 .file = TELEMETRY_FILE,
                                 .what = "telemetry.db",
                                 .application_id = TELEMETRY_APPLICATION_ID,
                                 .migrations = telemetry_migrations,
                                 .sql = telemetry_sql,
                                 .n_sql = TS_N};
    struct telemetry *t = calloc(1, sizeof *t);
    if (t == NULL)
        return ERR_OF(NOMEM);
    t->max_rollup_rows = DEFAULT_ROLLUP_ROWS;
    t->max_event_rows = DEFAULT_EVENT_ROWS;
    t->max_last_rows = DEFAULT_LAST_ROWS;
    err_t e = db_open(&conf, &t->db, was_fresh);
    for (unsigned w = 0; e == OK && w < TELEMETRY_WIDTHS; w++)
        e = count_rows(t, w * TS_PER_WIDTH + TS_COUNT, &t->rows[w]);
    if (e == OK)
        e = count_rows(t, TS_LAST_COUNT, &t->last_rows);
    if (e == OK)
        e = count_rows(t, TS_EVENT_COUNT, &t->event_rows);
    if (e == OK)
        e = count_rows(t, TS_DECISION_COUNT, &t->decision_rows);
    if (e != OK) {
        telemetry_close(&t);
        return e;
    }
    *out = t;
    return OK;
}

void telemetry_close(struct telemetry **t)
{
    if (*t == NULL)
        return;
    db_close(&(*t)->db);
    free(*t);
    *t = NULL;
}

err_t telemetry_begin(struct telemetry *t)
{
    memcpy(t->at_begin, t->rows, sizeof t->rows);
    t->at_begin[TELEMETRY_WIDTHS] = t->last_rows;
    t->at_begin[TELEMETRY_WIDTHS + 1] = t->event_rows;
    t->at_begin[TELEMETRY_WIDTHS + 2] = t->decision_rows;
    return db_begin(&t->db);
}

static void take_back_counts(struct telemetry *t)
{
    memcpy(t->rows, t->at_begin, sizeof t->rows);
    t->last_rows = t->at_begin[TELEMETRY_WIDTHS];
    t->event_rows = t->at_begin[TELEMETRY_WIDTHS + 1];
    t->decision_rows = t->at_begin[TELEMETRY_WIDTHS + 2];
}

err_t telemetry_commit(struct telemetry *t)
{
    err_t e = db_commit(&t->db);
    if (e != OK)
        take_back_counts(t);
    return e;
}

void telemetry_rollback(struct telemetry *t)
{
    if (!t->db.in_transaction)
        return;
    db_rollback(&t->db);
    take_back_counts(t);
}

/* ---- writing ---- */

static uint64_t changes(struct telemetry *t)
{
    return (uint64_t)sqlite3_changes64(t->db.sql);
}

static err_t make_room(struct telemetry *t, unsigned id, uint64_t *rows, uint64_t max)
{
    if (*rows < max)
        return OK;
    TRY(db_run(&t->db, id, "i", (int64_t)MAKE_ROOM_ROWS));
    uint64_t gone = changes(t);
    *rows -= gone < *rows ? gone : *rows;
    t->trimmed += gone;
    return OK;
}

static err_t rollup_add(struct telemetry *t, unsigned width, int64_t at_s, slice_t src_ns,
                        slice_t src, const struct telemetry_edge *e)
{
    int64_t start_s = at_s - at_s % widths_s[width];
    slice_t dst_ns = cut(e->dst_ns, 63), dst = cut(e->dst_service, NAME_MAX_BYTES);
    unsigned block = width * TS_PER_WIDTH;
    uint64_t hist[TELEMETRY_BUCKETS], fine[TELEMETRY_FINES];
    char text[HIST_TEXT], fine_text[HIST_TEXT];
    bool more = false;

    sqlite3_stmt *s = db_stmt(&t->db, block + TS_GET);
    if (s == NULL)
        return ERR_OF(STORE_IO);
    memcpy(hist, e->latency, sizeof hist);
    memcpy(fine, e->latency_fine, sizeof fine);
    db_bind(s, "itttti", start_s, dst_ns, dst, src_ns, src, (int64_t)e->direction);
    TRY(db_step(&t->db, s, &more));
    if (more) {
        hist_add_text(hist, TELEMETRY_BUCKETS, db_text(s, 0));
        hist_add_text(fine, TELEMETRY_FINES, db_text(s, 1));
        (void)sqlite3_reset(s);
    } else {
        TRY(make_room(t, block + TS_TRIM_FIRST, &t->rows[width], t->max_rollup_rows));
    }
    s = db_stmt(&t->db, block + TS_PUT);
    if (s == NULL)
        return ERR_OF(STORE_IO);
    db_bind(s, "ittttit", start_s, dst_ns, dst, src_ns, src, (int64_t)e->direction,
            hist_print(hist, TELEMETRY_BUCKETS, text));
    slice_t fine_printed = hist_print(fine, TELEMETRY_FINES, fine_text);
    (void)sqlite3_bind_text(s, 27, (const char *)fine_printed.p, (int)fine_printed.n,
                            SQLITE_TRANSIENT);
    bool has_latency = text[1] != ']', has_fine = fine_printed.n > 2;
    static const double quantiles[] = {0.5, 0.95, 0.99};
    for (int i = 0; i < 3; i++) {
        if (has_fine)
            (void)sqlite3_bind_double(s, 8 + i,
                                      hist_quantile(fine, TELEMETRY_FINES, quantiles[i]));
        else if (has_latency)
            (void)sqlite3_bind_double(s, 8 + i,
                                      hist_quantile(hist, TELEMETRY_BUCKETS, quantiles[i]));
        else
            (void)sqlite3_bind_null(s, 8 + i);
    }
    const uint64_t numbers[] = {
        e->requests,    e->successes, e->failures,  e->retries,     e->mtls_requests,
        e->mesh_errors, e->status[0], e->status[1], e->status[2],   e->status[3],
        e->status[4],   e->bytes_in,  e->bytes_out, e->connections, e->latency_sum_ms,
        e->mtls_connections};
    for (int i = 0; i < (int)(sizeof numbers / sizeof numbers[0]); i++)
        (void)sqlite3_bind_int64(s, 11 + i, clamp(numbers[i]));
    bool was_new = !more;
    TRY(db_step(&t->db, s, &more));
    t->rows[width] += was_new ? 1 : 0;
    return OK;
}

err_t telemetry_add_edge(struct telemetry *t, int64_t at_ms, const struct telemetry_edge *e)
{
    int64_t at_s = at_ms > 0 ? at_ms / 1000 : 0;
    for (unsigned w = 0; w < TELEMETRY_WIDTHS; w++) {
        TRY(rollup_add(t, w, at_s, cut(e->src_ns, 63), cut(e->src_workload, NAME_MAX_BYTES),
                       e));
        TRY(rollup_add(t, w, at_s, SLICE_LIT(""), everybody, e));
    }
    return OK;
}

static const char *const whats[TELEMETRY_WHATS] = {
#define X(id, name) [TELEMETRY_##id] = name,
    TELEMETRY_DECISIONS(X)
#undef X
};

/* A row that is there already is counted as new until the next start: the limit is met early
 * then, never late. make_room puts that right, for it counts. */
static err_t decision_room(struct telemetry *t)
{
    if (t->decision_rows < t->max_rollup_rows)
        return OK;
    TRY(count_rows(t, TS_DECISION_COUNT, &t->decision_rows));
    return make_room(t, TS_DECISION_TRIM_FIRST, &t->decision_rows, t->max_rollup_rows);
}

err_t telemetry_add_decision(struct telemetry *t, int64_t at_ms,
                             const struct telemetry_decision *d)
{
    int64_t at_s = at_ms > 0 ? at_ms / 1000 : 0;
    for (unsigned w = 0; w < TELEMETRY_WIDTHS; w++) {
        TRY(decision_room(t));
        TRY(db_run(&t->db, TS_DECISION_ADD, "iittttitti", widths_s[w], at_s - at_s % widths_s[w],
                   cut(d->dst_ns, 63), cut(d->dst_service, NAME_MAX_BYTES), cut(d->src_ns, 63),
                   cut(d->src_workload, NAME_MAX_BYTES), (int64_t)d->direction,
                   slice_str(whats[d->what]), cut(d->reason, 48), clamp(d->n)));
        t->decision_rows++;
    }
    return OK;
}

static void put_u64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_u64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static unsigned values_read(slice_t blob, uint64_t values[TELEMETRY_VALUES])
{
    unsigned n = (unsigned)(blob.n / 8 < TELEMETRY_VALUES ? blob.n / 8 : TELEMETRY_VALUES);
    for (unsigned i = 0; i < n; i++)
        values[i] = get_u64(blob.p + 8 * i);
    return n;
}

/* Is the series known? Only to keep count; its row is overwritten in any case. */
static err_t last_find(struct telemetry *t, slice_t pod, slice_t series, uint64_t *incarnation,
                       uint64_t values[TELEMETRY_VALUES], unsigned *n, bool *found)
{
    sqlite3_stmt *s = db_stmt(&t->db, TS_LAST_GET);
    if (s == NULL)
        return ERR_OF(STORE_IO);
    db_bind(s, "tt", cut(pod, 320), cut(series, SERIES_MAX_BYTES));
    TRY(db_step(&t->db, s, found));
    *n = 0;
    if (*found) {
        *incarnation = (uint64_t)db_i64(s, 0);
        *n = values_read(db_blob(s, 1), values);
        (void)sqlite3_reset(s);
    }
    return OK;
}

err_t telemetry_put_last(struct telemetry *t, const struct telemetry_last *last)
{
    uint8_t blob[8 * TELEMETRY_VALUES];
    uint64_t old[TELEMETRY_VALUES], old_incarnation;
    unsigned n_old;
    bool found = false;

    BUG_ON(last->n_values > TELEMETRY_VALUES);
    TRY(last_find(t, last->pod, last->series, &old_incarnation, old, &n_old, &found));
    if (!found && t->last_rows >= t->max_last_rows) {
        TRY(db_run(&t->db, TS_LAST_TRIM, "ii", INT64_MAX, (int64_t)MAKE_ROOM_ROWS));
        uint64_t gone = changes(t);
        t->last_rows -= gone < t->last_rows ? gone : t->last_rows;
    }
    for (unsigned i = 0; i < last->n_values; i++)
        put_u64(blob + 8 * i, last->values[i]);
    TRY(db_run(&t->db, TS_LAST_PUT, "ttiib", cut(last->pod, 320),
               cut(last->series, SERIES_MAX_BYTES), (int64_t)last->incarnation, last->at_ms,
               slice(blob, (size_t)last->n_values * 8)));
    t->last_rows += found ? 0 : 1;
    return OK;
}

err_t telemetry_put_pod(struct telemetry *t, const struct telemetry_pod *p)
{
    return db_run(&t->db, TS_POD_PUT, "ttttiiiiiiiii", cut(p->pod, 320), cut(p->ns, 63),
                  cut(p->workload, NAME_MAX_BYTES), cut(p->version, 32),
                  (int64_t)p->incarnation, p->at_ms, (int64_t)p->processes,
                  (int64_t)p->restarts, clamp(p->pss_kib), clamp(p->rss_kib), clamp(p->cpu_ms),
                  (int64_t)p->connections, (int64_t)p->is_ready);
}

err_t telemetry_add_event(struct telemetry *t, const struct telemetry_event *e)
{
    TRY(make_room(t, TS_EVENT_TRIM_FIRST, &t->event_rows, t->max_event_rows));
    TRY(db_run(&t->db, TS_EVENT_ADD, "itttt", e->at_ms, cut(e->pod, 320), cut(e->kind, 48),
               cut(e->object, 320), cut(e->message, TEXT_MAX_BYTES)));
    t->event_rows++;
    return OK;
}

/* ---- reading back ---- */

err_t telemetry_each_last(struct telemetry *t, telemetry_last_fn *fn, void *arg)
{
    sqlite3_stmt *s = db_stmt(&t->db, TS_LAST_EACH);
    bool more = false, go_on = true;
    if (s == NULL)
        return ERR_OF(STORE_IO);
    err_t e = db_step(&t->db, s, &more);
    while (e == OK && more && go_on) {
        uint64_t values[TELEMETRY_VALUES];
        struct telemetry_last last = {.pod = db_text(s, 0),
                                      .series = db_text(s, 1),
                                      .incarnation = (uint64_t)db_i64(s, 2),
                                      .at_ms = db_i64(s, 3),
                                      .values = values};
        last.n_values = values_read(db_blob(s, 4), values);
        go_on = fn(arg, &last);
        if (go_on)
            e = db_step(&t->db, s, &more);
    }
    (void)sqlite3_reset(s);
    return e;
}

err_t telemetry_get_last(struct telemetry *t, slice_t pod, slice_t series,
                         uint64_t *incarnation, uint64_t values[TELEMETRY_VALUES], unsigned *n)
{
    bool found = false;
    return last_find(t, pod, series, incarnation, values, n, &found);
}

err_t telemetry_drop_last(struct telemetry *t, slice_t pod, uint64_t keep_incarnation)
{
    TRY(db_run(&t->db, TS_LAST_DROP, "ti", cut(pod, 320), (int64_t)keep_incarnation));
    uint64_t gone = changes(t);
    t->last_rows -= gone < t->last_rows ? gone : t->last_rows;
    return OK;
}

/* ---- bounded deletion ---- */

/* Runs one bounded DELETE with what is left of the budget. */
static err_t trim_one(struct telemetry *t, unsigned id, int64_t before, unsigned *budget,
                      uint64_t *rows)
{
    if (*budget == 0)
        return OK;
    TRY(db_run(&t->db, id, "ii", before, (int64_t)*budget));
    uint64_t gone = changes(t);
    *budget -= gone < *budget ? (unsigned)gone : *budget;
    t->trimmed += gone;
    if (rows != NULL)
        *rows -= gone < *rows ? gone : *rows;
    return OK;
}

static err_t trim_decisions(struct telemetry *t, int64_t before_s, int64_t width_s,
                            unsigned *budget)
{
    if (*budget == 0)
        return OK;
    TRY(db_run(&t->db, TS_DECISION_TRIM_OLD, "iii", before_s, (int64_t)*budget, width_s));
    uint64_t gone = changes(t);
    *budget -= gone < *budget ? (unsigned)gone : *budget;
    t->trimmed += gone;
    t->decision_rows -= gone < t->decision_rows ? gone : t->decision_rows;
    return OK;
}

static err_t trim_all(struct telemetry *t, int64_t now_ms, const struct telemetry_keep *k,
                      unsigned *budget)
{
    const uint64_t keep[TELEMETRY_WIDTHS] = {k->rollup_10s_ms, k->rollup_1m_ms,
                                             k->rollup_1h_ms};
    uint64_t events = k->events_ms != 0 ? k->events_ms : 7 * DAY_MS;
    uint64_t pods = k->pods_ms != 0 ? k->pods_ms : DAY_MS;
    for (unsigned w = 0; w < TELEMETRY_WIDTHS; w++) {
        int64_t before_s = (now_ms - clamp(keep[w])) / 1000;
        TRY(trim_one(t, w * TS_PER_WIDTH + TS_TRIM_OLD, before_s, budget, &t->rows[w]));
        TRY(trim_decisions(t, before_s, widths_s[w], budget));
    }
    TRY(trim_one(t, TS_EVENT_TRIM_OLD, now_ms - clamp(events), budget, &t->event_rows));
    TRY(trim_one(t, TS_LAST_TRIM, now_ms - clamp(pods), budget, &t->last_rows));
    return trim_one(t, TS_POD_TRIM, now_ms - clamp(pods), budget, NULL);
}

err_t telemetry_trim(struct telemetry *t, int64_t now_ms, const struct telemetry_keep *keep,
                     unsigned max_rows, bool *left)
{
    unsigned budget = max_rows;
    if (keep->max_rollup_rows != 0)
        t->max_rollup_rows = keep->max_rollup_rows;
    if (keep->max_event_rows != 0)
        t->max_event_rows = keep->max_event_rows;
    if (keep->max_last_rows != 0)
        t->max_last_rows = keep->max_last_rows;
    TRY(telemetry_begin(t));
    err_t e = trim_all(t, now_ms, keep, &budget);
    if (e == OK)
        e = telemetry_commit(t);
    else
        telemetry_rollback(t);
    *left = e == OK && budget == 0;
    return e;
}

void telemetry_checkpoint(struct telemetry *t)
{
    (void)sqlite3_wal_checkpoint_v2(t->db.sql, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}

void telemetry_stats(struct telemetry *t, struct telemetry_stats *out)
{
    *out = (struct telemetry_stats){.commits = t->db.commits,
                                    .failed_commits = t->db.failed,
                                    .rows_trimmed = t->trimmed,
                                    .file_bytes = db_file_bytes(&t->db, ""),
                                    .wal_bytes = db_file_bytes(&t->db, "-wal")};
}
