#include "broker/collector/ledger.h"

#include "broker/collector/decisions.h"
#include "broker/collector/edges.h"
#include "kit/hash.h"
#include "kit/list.h"
#include "kit/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define POD_NAME_MAX 320u
#define PODS_MAX     20000u
#define EVENTS_MAX   1000u
#define VALUES_MAX   (PARSE_BUCKETS + 1 + PARSE_FINES)
#define KEY_DIGITS   32

_Static_assert(VALUES_MAX <= TELEMETRY_VALUES && PARSE_FINES == TELEMETRY_FINES &&
                   PARSE_BUCKETS == TELEMETRY_BUCKETS,
               "the store keeps what a series says");

struct series_key {
    uint64_t a, b;
};

struct series {
    UT_hash_handle hh;
    struct series_key key;
    struct list dirty; /* in ledger.dirty while its values are newer than the database's */
    struct pod *pod;   /* lent */
    int64_t at_ms;
    unsigned n_values;
    uint64_t values[];
};

struct pod {
    UT_hash_handle hh;
    struct series *series;
    struct list heard;            /* in ledger.heard while its row is to be written */
    uint64_t incarnation, former; /* former: 0 = none known */
    bool has_former_rows;         /* rows of another incarnation are in the database */
    struct telemetry_pod facts;   /* its texts point into the arrays below */
    size_t name_n;
    char name[POD_NAME_MAX + 1], ns[64], workload[254], version[33];
};

struct event {
    struct list node;
    struct telemetry_event row; /* its texts are behind it in the same piece of memory */
};

struct ledger {
    struct telemetry *db; /* lent */
    struct edges *edges;
    struct decisions *decisions;
    struct pod *pods;
    struct list dirty, heard, events;
    size_t n_events, n_series, max_series;
    int64_t since_ms; /* when the first waiting change came; 0: nothing waits */
    struct ledger_counters count;
};

/* ---- keys ---- */

/* Two FNV-1a of 64 bits. A pod that makes its own series collide miscounts itself alone. */
static void key_mix(struct series_key *k, slice_t s)
{
    for (size_t i = 0; i < s.n; i++) {
        k->a = (k->a ^ s.p[i]) * 0x100000001b3ull;
        k->b = (k->b ^ s.p[i] ^ (k->a >> 56)) * 0x100000001b3ull;
    }
    k->a = (k->a ^ 0xff) * 0x100000001b3ull; /* 0xff is in no UTF-8: ends the part */
    k->b = (k->b ^ 0xfe) * 0x100000001b3ull;
}

static struct series_key key_of(const struct feed_series *s)
{
    struct series_key k = {0xcbf29ce484222325ull, 0x9e3779b97f4a7c15ull};

    key_mix(&k, s->process);
    key_mix(&k, s->name);
    for (uint32_t i = 0; i < s->n_labels; i++) {
        key_mix(&k, s->labels[i].name);
        key_mix(&k, s->labels[i].value);
    }
    return k;
}

static void key_print(const struct series_key *k, char out[KEY_DIGITS + 1])
{
    (void)snprintf(out, KEY_DIGITS + 1, "%016" PRIx64 "%016" PRIx64, k->a, k->b);
}

static bool key_parse(slice_t text, struct series_key *k)
{
    char digits[KEY_DIGITS + 1];

    if (text.n != KEY_DIGITS || !slice_to_cstr(text, digits, sizeof(digits)) ||
        strspn(digits, "0123456789abcdef") != KEY_DIGITS)
        return false;
    k->b = strtoull(digits + KEY_DIGITS / 2, NULL, 16);
    digits[KEY_DIGITS / 2] = '\0';
    k->a = strtoull(digits, NULL, 16);
    return true;
}

/* ---- pods and series ---- */

static struct pod *pod_find(struct ledger *l, slice_t name)
{
    struct pod *p = NULL;

    HASH_FIND(hh, l->pods, name.p, name.n, p);
    return p;
}

static struct pod *pod_add(struct ledger *l, slice_t name, uint64_t incarnation)
{
    struct pod *p = HASH_COUNT(l->pods) < PODS_MAX ? calloc(1, sizeof(*p)) : NULL;

    if (p == NULL || !slice_to_cstr(name, p->name, sizeof(p->name))) {
        free(p);
        return NULL;
    }
    p->name_n = name.n;
    p->incarnation = incarnation;
    list_init(&p->heard);
    HASH_ADD_KEYPTR(hh, l->pods, p->name, p->name_n, p);
    return p;
}

static void pod_drop_series(struct ledger *l, struct pod *p)
{
    struct series *s, *next;

    HASH_ITER(hh, p->series, s, next)
    {
        HASH_DEL(p->series, s);
        list_del(&s->dirty);
        l->n_series--;
        free(s);
    }
}

static void pod_drop(struct ledger *l, struct pod *p)
{
    pod_drop_series(l, p);
    HASH_DEL(l->pods, p);
    list_del(&p->heard);
    free(p);
}

static struct series *series_add_known(struct ledger *l, struct pod *p,
                                       const struct series_key *key, unsigned n_values)
{
    struct series *s = NULL;

    if (l->n_series < l->max_series)
        s = calloc(1, sizeof(*s) + n_values * sizeof(s->values[0]));
    if (s == NULL) {
        l->count.no_room++;
        return NULL;
    }
    s->key = *key;
    s->pod = p;
    s->n_values = n_values;
    list_init(&s->dirty);
    HASH_ADD(hh, p->series, key, sizeof(s->key), s);
    l->n_series++;
    return s;
}

/* ---- the life of a ledger ---- */

static bool on_last(void *arg, const struct telemetry_last *last)
{
    struct ledger *l = arg;
    struct series_key key;
    struct series *s = NULL;
    struct pod *p = pod_find(l, last->pod);

    if (!key_parse(last->series, &key) || last->n_values == 0 || last->n_values > VALUES_MAX)
        return true; /* not of our making */
    if (p == NULL)
        p = pod_add(l, last->pod, last->incarnation);
    if (p == NULL || p->incarnation != last->incarnation) {
        if (p != NULL)
            p->has_former_rows = true;
        return true;
    }
    if (last->at_ms > p->facts.at_ms)
        p->facts.at_ms = last->at_ms;
    s = series_add_known(l, p, &key, last->n_values);
    if (s == NULL)
        return false; /* full */
    s->at_ms = last->at_ms;
    memcpy(s->values, last->values, last->n_values * sizeof(s->values[0]));
    return true;
}

err_t ledger_new(struct telemetry *t, size_t max_series, struct ledger **out)
{
    struct ledger *l = calloc(1, sizeof(*l));
    err_t err;

    if (l == NULL)
        return ERR_OF(NOMEM);
    l->db = t;
    l->max_series = max_series;
    list_init(&l->dirty);
    list_init(&l->heard);
    list_init(&l->events);
    err = edges_new(&l->edges);
    if (err == OK)
        err = decisions_new(&l->decisions);
    if (err == OK)
        err = telemetry_each_last(t, on_last, l);
    if (err != OK) {
        ledger_free(&l);
        return err;
    }
    *out = l;
    return OK;
}

static void events_clear(struct ledger *l)
{
    struct list *node;

    while ((node = list_pop(&l->events)) != NULL)
        free(CONTAINER_OF(node, struct event, node));
    l->n_events = 0;
}

void ledger_free(struct ledger **l)
{
    struct pod *p, *next;

    if (*l == NULL)
        return;
    HASH_ITER(hh, (*l)->pods, p, next)
    pod_drop(*l, p);
    events_clear(*l);
    edges_free(&(*l)->edges);
    decisions_free(&(*l)->decisions);
    free(*l);
    *l = NULL;
}

/* ---- taking in ---- */

static void keep_text(char *out, size_t cap, slice_t text, slice_t *kept)
{
    if (!slice_to_cstr(text, out, cap))
        out[0] = '\0';
    *kept = slice_str(out);
}

static void pod_note(struct ledger *l, struct pod *p, const struct feed_metrics *m,
                     int64_t wall_ms)
{
    struct telemetry_pod *f = &p->facts;

    *f = (struct telemetry_pod){.pod = slice(p->name, p->name_n),
                                .incarnation = m->incarnation,
                                .at_ms = wall_ms,
                                .processes = m->processes,
                                .restarts = m->restarts,
                                .rss_kib = m->rss_kib,
                                .cpu_ms = m->cpu_ms,
                                .connections = m->connections,
                                .is_ready = m->is_ready};
    keep_text(p->ns, sizeof(p->ns), m->ns, &f->ns);
    keep_text(p->workload, sizeof(p->workload), m->workload, &f->workload);
    keep_text(p->version, sizeof(p->version), m->version, &f->version);
    list_del(&p->heard);
    list_push(&l->heard, &p->heard);
    if (l->since_ms == 0)
        l->since_ms = wall_ms;
}

/* The pod of a message, ready for values of its incarnation. NULL: no room, or a message that
 * is late. */
static struct pod *pod_of(struct ledger *l, const struct feed_metrics *m)
{
    char name[POD_NAME_MAX + 1];
    int n = snprintf(name, sizeof(name), "%.*s/%.*s", SLICE_FMT(m->ns), SLICE_FMT(m->pod));
    struct pod *p;

    if (n < 0 || (size_t)n >= sizeof(name))
        return NULL;
    p = pod_find(l, slice(name, (size_t)n));
    if (p == NULL) {
        p = pod_add(l, slice(name, (size_t)n), m->incarnation);
        l->count.no_room += p == NULL;
        return p;
    }
    if (p->incarnation == m->incarnation)
        return p;
    if (p->former != 0 && p->former == m->incarnation) {
        l->count.stale++;
        return NULL;
    }
    pod_drop_series(l, p); /* what they counted is in the edges already */
    p->former = p->incarnation;
    p->incarnation = m->incarnation;
    p->has_former_rows = true;
    return p;
}

/* The difference to the last values, which become the new ones. False: nothing has changed. */
static bool series_advance(struct ledger *l, struct series *s, const uint64_t *now,
                           uint64_t *delta)
{
    bool has_fallen = false, has_changed = false;

    for (unsigned i = 0; i < s->n_values; i++)
        has_fallen = has_fallen || now[i] < s->values[i];
    for (unsigned i = 0; i < s->n_values; i++) {
        delta[i] = has_fallen ? now[i] : now[i] - s->values[i];
        has_changed = has_changed || delta[i] != 0;
        s->values[i] = now[i];
    }
    l->count.resets += has_fallen;
    return has_changed || has_fallen;
}

static void take_series(struct ledger *l, struct pod *p, const struct feed_metrics *m,
                        const struct feed_series *f, int64_t wall_ms)
{
    struct series_key key = key_of(f);
    uint64_t now[VALUES_MAX], delta[VALUES_MAX];
    unsigned n = f->is_histogram ? VALUES_MAX : 1;
    struct series *s = NULL;

    if (!edges_use(f->name) && (!decisions_use(f->name) || f->is_histogram))
        return;
    now[0] = f->value;
    if (f->is_histogram) {
        memcpy(now, f->buckets, sizeof(f->buckets));
        now[PARSE_BUCKETS] = f->sum_us;
        memcpy(now + PARSE_BUCKETS + 1, f->fine, sizeof(f->fine));
    }
    HASH_FIND(hh, p->series, &key, sizeof(key), s);
    if (s != NULL && s->n_values != n)
        return; /* the same name with another type: not a series of ours */
    if (s == NULL)
        s = series_add_known(l, p, &key, n);
    if (s == NULL)
        return;
    l->count.series++;
    if (!series_advance(l, s, now, delta))
        return;
    s->at_ms = wall_ms;
    list_del(&s->dirty);
    list_push(&l->dirty, &s->dirty);
    edges_add(l->edges, m, f, delta);
    decisions_add(l->decisions, m, f, delta[0]);
}

err_t ledger_take(struct ledger *l, const struct feed_metrics *m, int64_t wall_ms)
{
    struct wire_reader r = m->series;
    struct pod *p = pod_of(l, m);
    struct feed_series one;

    if (p == NULL)
        return OK;
    l->count.messages++;
    pod_note(l, p, m, wall_ms);
    for (uint32_t i = 0; i < m->n_series; i++) {
        TRY(parse_series(&r, &one));
        take_series(l, p, m, &one, wall_ms);
    }
    return OK;
}

static slice_t append(char **at, slice_t s)
{
    char *start = *at;

    if (s.n > 0)
        memcpy(start, s.p, s.n);
    *at += s.n;
    return slice(start, s.n);
}

void ledger_event(struct ledger *l, const struct feed_event *e, int64_t wall_ms)
{
    size_t text_n = e->ns.n + e->pod.n + 1 + e->kind.n + e->object.n + e->message.n;
    struct event *one = l->n_events < EVENTS_MAX ? calloc(1, sizeof(*one) + text_n) : NULL;
    char *at, *pod;

    if (one == NULL) {
        l->count.events_dropped++;
        return;
    }
    at = pod = (char *)(one + 1);
    (void)append(&at, e->ns);
    (void)append(&at, SLICE_LIT("/"));
    (void)append(&at, e->pod);
    one->row.pod = slice(pod, (size_t)(at - pod));
    one->row.kind = append(&at, e->kind);
    one->row.object = append(&at, e->object);
    one->row.message = append(&at, e->message);
    /* A pod's clock may be anything; a time far off would hide the event from who looks at
     * today's. */
    one->row.at_ms =
        e->at_ms > wall_ms - 3600000 && e->at_ms < wall_ms + 60000 ? e->at_ms : wall_ms;
    list_push(&l->events, &one->node);
    l->n_events++;
    l->count.events++;
    if (l->since_ms == 0)
        l->since_ms = wall_ms;
}

/* ---- writing ---- */

static err_t write_pods(struct ledger *l)
{
    LIST_EACH (it, &l->heard) {
        struct pod *p = CONTAINER_OF(it, struct pod, heard);

        TRY(telemetry_put_pod(l->db, &p->facts));
        if (p->has_former_rows)
            TRY(telemetry_drop_last(l->db, p->facts.pod, p->incarnation));
    }
    return OK;
}

static err_t write_last(struct ledger *l)
{
    LIST_EACH (it, &l->dirty) {
        const struct series *s = CONTAINER_OF(it, struct series, dirty);
        char key[KEY_DIGITS + 1];

        key_print(&s->key, key);
        TRY(telemetry_put_last(
            l->db, &(struct telemetry_last){.pod = slice(s->pod->name, s->pod->name_n),
                                            .series = slice_str(key),
                                            .incarnation = s->pod->incarnation,
                                            .at_ms = s->at_ms,
                                            .values = s->values,
                                            .n_values = s->n_values}));
    }
    return OK;
}

static err_t write_all(struct ledger *l)
{
    TRY(edges_write(l->edges, l->db, l->since_ms));
    TRY(decisions_write(l->decisions, l->db, l->since_ms));
    TRY(write_pods(l));
    TRY(write_last(l));
    LIST_EACH (it, &l->events)
        TRY(telemetry_add_event(l->db, &CONTAINER_OF(it, struct event, node)->row));
    return OK;
}

static void forget_written(struct ledger *l)
{
    struct list *node;

    edges_clear(l->edges);
    decisions_clear(l->decisions);
    events_clear(l);
    while (list_pop(&l->dirty) != NULL) {
    }
    while ((node = list_pop(&l->heard)) != NULL)
        CONTAINER_OF(node, struct pod, heard)->has_former_rows = false;
    l->since_ms = 0;
}

err_t ledger_flush(struct ledger *l)
{
    err_t err;

    if (l->since_ms == 0)
        return OK;
    err = telemetry_begin(l->db);
    if (err == OK)
        err = write_all(l);
    if (err == OK)
        err = telemetry_commit(l->db);
    if (err != OK) {
        telemetry_rollback(l->db);
        l->count.failed_flushes++;
        return err;
    }
    forget_written(l);
    l->count.flushes++;
    return OK;
}

void ledger_forget(struct ledger *l, int64_t before_wall_ms)
{
    struct pod *p, *next;

    HASH_ITER(hh, l->pods, p, next)
    if (p->facts.at_ms < before_wall_ms && list_is_empty(&p->heard))
        pod_drop(l, p);
}

void ledger_count(const struct ledger *l, struct ledger_counters *out)
{
    *out = l->count;
    out->pods = HASH_COUNT(l->pods);
    out->known_series = l->n_series;
}
