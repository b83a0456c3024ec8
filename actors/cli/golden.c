/* Rows of rollups in, one row per service out. */
#include "cli/golden.h"

#include "store/query.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GOLDEN_SERVICES_MAX 4096
#define GOLDEN_ROWS_MAX     1000000
#define SPAN_MS             10000 /* of one rollup */

struct golden {
    char ns[64], name[254];
    json_t *decisions[TELEMETRY_WHATS]; /* objects reason: count; NULL: none */
    struct golden_side {
        uint64_t requests, successes, failures, retries, mtls, errors;
        uint64_t connections, mtls_connections;
        uint64_t counts[TELEMETRY_FINES];
        int64_t first_ms;        /* start of the first span */
        uint64_t first_requests; /* in it */
    } side[2];                   /* outbound, inbound */
};

struct golden_set {
    struct golden *at;
    size_t n, cap;
};

/* Upper bound of bucket i in ms. */
static double golden_bound_ms(unsigned i)
{
    return (double)telemetry_fine_bound_us(i) / 1000;
}

double golden_quantile(const uint64_t counts[TELEMETRY_FINES], double q)
{
    uint64_t total = 0, below = 0;
    double low = 0, rank;

    for (unsigned i = 0; i < TELEMETRY_FINES; i++)
        total += counts[i];
    if (total == 0)
        return -1;
    rank = q * (double)total;
    for (unsigned i = 0; i < TELEMETRY_FINES - 1; i++) {
        if (counts[i] > 0 && (double)(below + counts[i]) >= rank)
            return low +
                   (golden_bound_ms(i) - low) * (rank - (double)below) / (double)counts[i];
        below += counts[i];
        low = golden_bound_ms(i);
    }
    return low;
}

static const char *const golden_whats[TELEMETRY_WHATS] = {
#define X(id, name) [TELEMETRY_##id] = name,
    TELEMETRY_DECISIONS(X)
#undef X
};

static struct golden *golden_find(struct golden_set *set, slice_t ns, slice_t name)
{
    struct golden *g;

    for (size_t i = 0; i < set->n; i++)
        if (slice_is_str(ns, set->at[i].ns) && slice_is_str(name, set->at[i].name))
            return &set->at[i];
    if (set->n == GOLDEN_SERVICES_MAX)
        return NULL;
    if (set->n == set->cap) {
        size_t cap = set->cap == 0 ? 32 : set->cap * 2;
        struct golden *more = realloc(set->at, cap * sizeof *more);

        if (more == NULL)
            return NULL;
        set->at = more;
        set->cap = cap;
    }
    g = &set->at[set->n];
    memset(g, 0, sizeof *g);
    if (!slice_to_cstr(ns, g->ns, sizeof g->ns) ||
        !slice_to_cstr(name, g->name, sizeof g->name))
        return NULL;
    set->n++;
    return g;
}

/* latency_fine: a JSON array, responses per bucket. */
static void golden_add_latency(uint64_t counts[TELEMETRY_FINES], slice_t text)
{
    json_t *a = json_loadb((const char *)text.p, text.n, 0, NULL);

    for (size_t i = 0; i < json_array_size(a) && i < TELEMETRY_FINES; i++)
        counts[i] += (uint64_t)json_integer_value(json_array_get(a, i));
    json_decref(a);
}

/* Columns as in golden_sql. */
static bool golden_on_row(void *arg, int n, const struct store_cell *c)
{
    struct golden *g = golden_find(arg, c[0].text, c[1].text);
    struct golden_side *s;

    if (n != 13 || g == NULL)
        return false;
    s = &g->side[slice_is_str(c[2].text, "inbound") ? 1 : 0];
    if (s->first_ms == 0 || c[3].integer < s->first_ms) {
        s->first_ms = c[3].integer;
        s->first_requests = 0;
    }
    if (c[3].integer == s->first_ms)
        s->first_requests += (uint64_t)c[4].integer;
    s->requests += (uint64_t)c[4].integer;
    s->successes += (uint64_t)c[5].integer;
    s->failures += (uint64_t)c[6].integer;
    s->retries += (uint64_t)c[7].integer;
    s->mtls += (uint64_t)c[8].integer;
    s->errors += (uint64_t)c[9].integer;
    s->connections += (uint64_t)c[10].integer;
    s->mtls_connections += (uint64_t)c[11].integer;
    golden_add_latency(s->counts, c[12].text);
    return true;
}

/* Columns as in decisions_sql. A service with decisions but no traffic gets a row of its own: all
 * of its requests may have been refused before they were counted. */
static bool golden_on_decision(void *arg, int n, const struct store_cell *c)
{
    struct golden *g = golden_find(arg, c[0].text, c[1].text);
    char reason[64];
    unsigned what = 0;

    if (n != 5 || g == NULL)
        return false;
    while (what < TELEMETRY_WHATS && !slice_is_str(c[2].text, golden_whats[what]))
        what++;
    if (what == TELEMETRY_WHATS || !slice_to_cstr(c[3].text, reason, sizeof reason))
        return true;
    if (g->decisions[what] == NULL)
        g->decisions[what] = json_object();
    (void)json_object_set_new(g->decisions[what], reason[0] != '\0' ? reason : "-",
                              json_integer(c[4].integer));
    return true;
}

static const char decisions_sql[] =
    "select namespace,service,what,reason,sum(count) from mesh_decisions where width_s=10 and "
    "namespace<>'' and start_ms>=%" PRId64 "%s%s group by 1,2,3,4 order by 1,2,3,4";

static const char golden_sql[] =
    "select "
    "namespace,service,direction,start_ms,requests,successes,failures,retries,mtls_requests,"
    "mesh_errors,connections,mtls_connections,latency_fine from mesh_golden where width_s=10 and namespace<>'' "
    "and "
    "start_ms>=%" PRId64 "%s%s order by namespace,service";

static json_t *golden_ratio(uint64_t part, uint64_t whole)
{
    return whole == 0 ? json_null() : json_real((double)part / (double)whole);
}

/* Of the requests; of a service without any (opaque), of the connections. */
static json_t *golden_mtls_share(const struct golden_side *s)
{
    return s->requests > 0 ? golden_ratio(s->mtls, s->requests)
                           : golden_ratio(s->mtls_connections, s->connections);
}

static json_t *golden_ms(const uint64_t counts[TELEMETRY_FINES], double q)
{
    double ms = golden_quantile(counts, q);

    return ms < 0 ? json_null() : json_real(ms);
}

/* The first span is left out when enough is left: the service may have begun in the middle of
 * it. */
static double golden_rps(const struct golden_side *s, int64_t now_ms)
{
    int64_t span = now_ms - s->first_ms;

    if (span >= SPAN_MS + SPAN_MS / 2)
        return (double)(s->requests - s->first_requests) * 1000 / (double)(span - SPAN_MS);
    return (double)s->requests * 1000 / (double)(span < 1000 ? 1000 : span);
}

static uint64_t golden_count(const struct golden *g, enum telemetry_what what)
{
    uint64_t n = 0;
    const char *key;
    json_t *v;

    json_object_foreach(g->decisions[what], key, v) n += (uint64_t)json_integer_value(v);
    return n;
}

/* "12 BUDGET", "12 BUDGET, ..." where there are others, null without any. */
static json_t *golden_refused(const struct golden *g)
{
    json_t *all = g->decisions[TELEMETRY_NOT_RETRIED], *v;
    const char *key, *most = "";
    json_int_t max = 0;

    json_object_foreach(all, key, v) if (json_integer_value(v) > max)
    {
        max = json_integer_value(v);
        most = key;
    }
    if (max == 0)
        return json_null();
    return json_sprintf("%llu %s%s", (unsigned long long)golden_count(g, TELEMETRY_NOT_RETRIED),
                        most, json_object_size(all) > 1 ? ", ..." : "");
}

/* {"not_retried": {"BUDGET": 3}, ...}: all that were made; taken out of g. */
static json_t *golden_decisions(struct golden *g)
{
    json_t *out = json_object();

    for (unsigned i = 0; i < TELEMETRY_WHATS; i++) {
        if (g->decisions[i] != NULL)
            (void)json_object_set_new(out, golden_whats[i], g->decisions[i]);
        g->decisions[i] = NULL;
    }
    return out;
}

static json_t *golden_row(struct golden *g, int64_t now_ms)
{
    const struct golden_side *s = &g->side[0];

    if (s->requests == 0 && s->connections == 0 && g->side[1].first_ms != 0)
        s = &g->side[1];
    json_t *refused = golden_refused(g);
    uint64_t ejected = golden_count(g, TELEMETRY_EJECTED);

    return json_pack("{s:s,s:s,s:o,s:f,s:o,s:o,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:o,s:I,s:o}",
                     "namespace", g->ns, "name", g->name, "success_rate",
                     golden_ratio(s->successes, s->successes + s->failures), "rps",
                     golden_rps(s, now_ms), "p50_ms", golden_ms(s->counts, 0.50), "p95_ms",
                     golden_ms(s->counts, 0.95), "p99_ms", golden_ms(s->counts, 0.99),
                     "mtls_share", golden_mtls_share(s), "tries", (json_int_t)s->requests,
                     "retries", (json_int_t)s->retries, "requests", (json_int_t)s->requests,
                     "mesh_errors", (json_int_t)s->errors, "connections",
                     (json_int_t)s->connections, "not_retried", refused, "ejected",
                     (json_int_t)ejected, "decisions", golden_decisions(g));
}

err_t golden_read(struct sheet *out, const char *state, const char *ns, uint64_t window_ms,
                  struct trouble *why)
{
    static const char *const columns[] = {
        "namespace", "name",       "success_rate", "rps",         "p50_ms",     "p95_ms",
        "p99_ms",    "mtls_share", "tries",      "retries",      "not_retried", "ejected",
        "mesh_errors", "connections"};
    int64_t now_ms = (int64_t)time(NULL) * 1000;
    int64_t from_ms = now_ms - (int64_t)window_ms - SPAN_MS + 1;
    struct golden_set set = {NULL, 0, 0};
    char sql[512], quoted[160] = "", said[300] = "";
    struct store_query q = {.state_dir = state,
                            .sql = sql,
                            .max_rows = GOLDEN_ROWS_MAX,
                            .on_row = golden_on_row,
                            .arg = &set};
    bool truncated;
    err_t e;

    if (ns != NULL && !sheet_quote(ns, quoted, sizeof quoted))
        return trouble_set(why, ERR_OF(USAGE), "--namespace is too long");
    /* A span that began before the window but ends in it counts whole. */
    (void)snprintf(sql, sizeof sql, golden_sql, from_ms,
                   ns != NULL ? " and namespace=" : "", quoted);
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
        sheet_column(out, columns[i]);
    e = store_query_readonly(&q, &truncated, said);
    if (e == OK) {
        (void)snprintf(sql, sizeof sql, decisions_sql, from_ms,
                       ns != NULL ? " and namespace=" : "", quoted);
        q.on_row = golden_on_decision;
        e = store_query_readonly(&q, &truncated, said);
    }
    if (e == OK)
        for (size_t i = 0; i < set.n; i++)
            sheet_add(out, golden_row(&set.at[i], now_ms));
    else
        (void)trouble_set(why, e, "%s", said[0] != '\0' ? said : e->text);
    for (size_t i = 0; i < set.n; i++)
        for (unsigned what = 0; what < TELEMETRY_WHATS; what++)
            json_decref(set.at[i].decisions[what]);
    free(set.at);
    return e;
}
