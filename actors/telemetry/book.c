/* A hash over (process, family, labels) and an array with stable indexes. */
#include "telemetry/book.h"

#include "kit/hash.h"
#include "kit/log.h"
#include "telemetry/labels.h"

#include <stdlib.h>

struct entry {
    UT_hash_handle hh;
    uint64_t version, changed_ms;
    uint64_t *values; /* owned; behind the key in the same piece of memory */
    size_t index;
    size_t key_n;
    uint8_t key[]; /* process number, family number, labels */
};

#define KEY_HEAD 2u

struct book {
    struct entry *by_key;
    struct entry **at; /* by index; NULL = free */
    size_t n_at, max, n_used;
    uint64_t version;
    unsigned n_processes;
    char processes[BOOK_PROCESSES_MAX][BOOK_PROCESS_TEXT];
    struct book_counters count;
};

err_t book_new(size_t max_series, struct book **out)
{
    struct book *b = calloc(1, sizeof(*b));

    if (b == NULL)
        return ERR_OF(NOMEM);
    b->at = calloc(max_series, sizeof(b->at[0]));
    if (b->at == NULL) {
        free(b);
        return ERR_OF(NOMEM);
    }
    b->max = max_series;
    *out = b;
    return OK;
}

void book_free(struct book **b)
{
    if (*b == NULL)
        return;
    HASH_CLEAR(hh, (*b)->by_key);
    for (size_t i = 0; i < (*b)->n_at; i++)
        free((*b)->at[i]);
    free((*b)->at);
    free(*b);
    *b = NULL;
}

uint64_t book_version(const struct book *b)
{
    return b->version;
}

size_t book_size(const struct book *b)
{
    return b->n_at;
}

const struct book_counters *book_count(const struct book *b)
{
    return &b->count;
}

static size_t family_values(enum family_id family)
{
    return families[family].kind == FAMILY_HISTOGRAM ? FAMILY_NUMBERS : 1;
}

static unsigned worker_of(const char *process)
{
    const char *dash = strrchr(process, '-');
    uint64_t n = 0;

    if (dash == NULL || !slice_to_u64(slice_str(dash + 1), &n) || n > 4096)
        return 0;
    return (unsigned)n;
}

bool book_at(const struct book *b, size_t i, struct book_series *out)
{
    const struct entry *e = i < b->n_at ? b->at[i] : NULL;

    if (e == NULL)
        return false;
    *out = (struct book_series){.family = (enum family_id)e->key[1],
                                .process = b->processes[e->key[0]],
                                .worker = worker_of(b->processes[e->key[0]]),
                                .labels = slice(e->key + KEY_HEAD, e->key_n - KEY_HEAD),
                                .values = e->values,
                                .version = e->version};
    return true;
}

/* ---- taking in ---- */

/* Names are printed as label values: plain ones only. */
static bool process_is_plain(slice_t name)
{
    if (name.n == 0 || name.n >= BOOK_PROCESS_TEXT)
        return false;
    for (size_t i = 0; i < name.n; i++)
        if (!((name.p[i] >= 'a' && name.p[i] <= 'z') ||
              (name.p[i] >= '0' && name.p[i] <= '9') || name.p[i] == '-'))
            return false;
    return true;
}

/* The process's number; -1: not a name, or too many. */
static int process_number(struct book *b, slice_t name, bool *is_new)
{
    for (unsigned i = 0; i < b->n_processes; i++)
        if (slice_is_str(name, b->processes[i]))
            return (int)i;
    if (!process_is_plain(name) || b->n_processes == BOOK_PROCESSES_MAX)
        return -1;
    if (!slice_to_cstr(name, b->processes[b->n_processes], BOOK_PROCESS_TEXT))
        return -1;
    *is_new = true;
    return (int)b->n_processes++;
}

static void entry_drop(struct book *b, struct entry *e)
{
    HASH_DEL(b->by_key, e);
    b->at[e->index] = NULL;
    b->n_used--;
    free(e);
}

/* An index for a new series; drops the longest idle one if need be. false: no room. */
static bool index_take(struct book *b, uint64_t now_ms, size_t *out)
{
    struct entry *oldest = NULL;

    if (b->n_at < b->max) {
        *out = b->n_at++;
        return true;
    }
    for (size_t i = 0; i < b->n_at; i++) {
        struct entry *e = b->at[i];

        if (e == NULL) {
            *out = i;
            return true;
        }
        if (oldest == NULL || e->changed_ms < oldest->changed_ms)
            oldest = e;
    }
    if (oldest == NULL || now_ms - oldest->changed_ms < BOOK_IDLE_MS)
        return false;
    *out = oldest->index;
    entry_drop(b, oldest);
    b->count.evicted++;
    return true;
}

static struct entry *entry_new(struct book *b, const uint8_t *key, size_t key_n,
                               uint64_t now_ms)
{
    size_t values = family_values((enum family_id)key[1]) * sizeof(uint64_t);
    size_t head = (sizeof(struct entry) + key_n + 7) & ~(size_t)7;
    struct entry *e;
    size_t index;

    if (!index_take(b, now_ms, &index)) {
        b->count.no_room++;
        return NULL;
    }
    e = calloc(1, head + values);
    if (e == NULL) {
        b->count.no_room++;
        return NULL;
    }
    e->values = (uint64_t *)(void *)((uint8_t *)e + head);
    e->index = index;
    e->key_n = key_n;
    memcpy(e->key, key, key_n);
    b->at[index] = e;
    b->n_used++;
    HASH_ADD_KEYPTR(hh, b->by_key, e->key, e->key_n, e);
    return e;
}

static bool series_is_good(const struct wire_series_value *v)
{
    return v->family < FAMILIES && v->n_values >= 1 &&
           v->n_values <= family_values((enum family_id)v->family) && labels_check(v->labels);
}

static void take_one(struct book *b, uint8_t process, const struct wire_series_value *v,
                     uint64_t now_ms)
{
    uint8_t key[KEY_HEAD + 2048];
    size_t key_n = KEY_HEAD + v->labels.n, n_all;
    struct entry *e = NULL;
    bool has_changed;

    if (!series_is_good(v) || key_n > sizeof(key)) {
        b->count.refused++;
        return;
    }
    key[0] = process;
    key[1] = v->family;
    if (v->labels.n > 0)
        memcpy(key + KEY_HEAD, v->labels.p, v->labels.n);
    HASH_FIND(hh, b->by_key, key, key_n, e);
    has_changed = e == NULL;
    if (e == NULL)
        e = entry_new(b, key, key_n, now_ms);
    if (e == NULL)
        return;
    n_all = family_values((enum family_id)v->family);
    for (size_t i = 0; i < n_all; i++) {
        uint64_t value = i < v->n_values ? v->values[i].v : 0;

        has_changed = has_changed || e->values[i] != value;
        e->values[i] = value;
    }
    b->count.taken++;
    if (has_changed) {
        e->version = b->version;
        e->changed_ms = now_ms;
    }
}

void book_take(struct book *b, const struct wire_series *msg, uint64_t now_ms,
               bool *is_stranger)
{
    bool is_new = false;
    int process = process_number(b, msg->process, &is_new);

    *is_stranger = false;
    if (process < 0) {
        b->count.refused += msg->n_series;
        log_warn("series refused", "process=\"%.*s\" known=%u", SLICE_FMT(msg->process),
                 b->n_processes);
        return;
    }
    b->version++;
    for (size_t i = 0; i < msg->n_series; i++)
        take_one(b, (uint8_t)process, &msg->series[i], now_ms);
    *is_stranger = is_new && !msg->is_all;
}
