/* The memory that all proxies of a pod share.
 *
 *   0       header: layout, the key of the hash, a time per worker
 *   4096    counters   64 sets x 8
 *   ...     cells      2048 sets x 8 (128 KiB x 2)
 *   ...     deadlines  512 sets x 16
 *
 * A place in a table belongs to a key by holding it. It is taken by compare-and-swap on the
 * key; whoever loses looks again. Between finding a place and using it, another worker may give
 * it to another key: then one event is counted for the wrong one, which is all that can happen.
 */
#include "proxy/limit/shared.h"

#include "kit/clock.h"
#include "kit/hash.h"
#include "kit/log.h"
#include "kit/random.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define LAYOUT        0x31304d494c544657ull /* "WFTLIM01"; another one with every change of it */
#define HEAD          4096u
#define COUNTER_WAYS  8u
#define COUNTER_SETS  64u
#define CELL_WAYS     8u
#define CELL_SETS     2048u
#define CELL_TRIES    16u
#define DEADLINE_WAYS 16u
#define DEADLINE_SETS 512u

struct limit_head {
    _Atomic uint64_t layout;
    _Atomic uint64_t secret; /* of the hash */
    _Atomic uint64_t deadlines_used;
    _Atomic uint64_t alive_ms[LIMIT_WORKERS_MAX];
};

struct limit_counter {
    _Atomic uint64_t key;
    _Atomic uint32_t n[LIMIT_WORKERS_MAX];
};

struct limit_cell {
    _Atomic uint64_t key, value;
};

struct limit_memory {
    union {
        struct limit_head head;
        uint8_t page[HEAD];
    };
    struct limit_counter counters[COUNTER_SETS][COUNTER_WAYS];
    struct limit_cell cells[CELL_SETS][CELL_WAYS];
    struct limit_deadline deadlines[DEADLINE_SETS][DEADLINE_WAYS];
};

_Static_assert(sizeof(struct limit_memory) <= LIMIT_SHARED_BYTES, "it fits the memory file");
_Static_assert(sizeof(struct limit_head) <= HEAD, "the header fits its page");

struct limit_shared {
    struct limit_memory *m; /* owned mapping of LIMIT_SHARED_BYTES */
    unsigned worker;
    bool is_shared;
};

static uint64_t load(const _Atomic uint64_t *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

static void store(_Atomic uint64_t *v, uint64_t n)
{
    atomic_store_explicit(v, n, memory_order_relaxed);
}

static bool swap(_Atomic uint64_t *v, uint64_t old, uint64_t new)
{
    return atomic_compare_exchange_strong_explicit(v, &old, new, memory_order_relaxed,
                                                   memory_order_relaxed);
}

/* ---- life ---- */

static struct limit_memory *map(int fd)
{
    int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    void *p = mmap(NULL, LIMIT_SHARED_BYTES, PROT_READ | PROT_WRITE, flags, fd, 0);

    return p == MAP_FAILED ? NULL : p;
}

/* Ours by its layout, or nobody's yet. */
static bool is_ours(struct limit_memory *m)
{
    return swap(&m->head.layout, 0, LAYOUT) || load(&m->head.layout) == LAYOUT;
}

static struct limit_memory *map_shared(int fd)
{
    struct limit_memory *m;
    struct stat st;

    if (fstat(fd, &st) != 0 || st.st_size != (off_t)LIMIT_SHARED_BYTES) {
        log_warn("memory of limits is not usable", "why=size instead=private");
        return NULL;
    }
    m = map(fd);
    if (m != NULL && !is_ours(m)) {
        log_warn("memory of limits is not usable", "why=layout instead=private");
        (void)munmap(m, LIMIT_SHARED_BYTES);
        return NULL;
    }
    return m;
}

/* What the column's last owner counted ended with it. */
static void clear_column(struct limit_shared *s)
{
    struct limit_deadline *d = &s->m->deadlines[0][0];
    struct limit_counter *c = &s->m->counters[0][0];

    for (size_t i = 0; i < COUNTER_SETS * COUNTER_WAYS; i++)
        atomic_store_explicit(&c[i].n[s->worker], 0, memory_order_relaxed);
    for (size_t i = 0; i < DEADLINE_SETS * DEADLINE_WAYS; i++)
        if (load(&d[i].key) != 0 && (load(&d[i].until) & 0xff) == s->worker)
            store(&d[i].key, 0);
}

err_t limit_shared_open(int fd, unsigned worker, struct limit_shared **out)
{
    struct limit_shared *s = calloc(1, sizeof(*s));
    uint64_t secret = 0;

    BUG_ON(worker >= LIMIT_WORKERS_MAX);
    if (s == NULL)
        return ERR_OF(NOMEM);
    s->worker = worker;
    s->m = fd >= 0 ? map_shared(fd) : NULL;
    s->is_shared = s->m != NULL;
    if (s->m == NULL) {
        s->m = map(-1);
        if (s->m == NULL || !is_ours(s->m)) {
            free(s);
            return ERR_OF(NOMEM);
        }
    }
    random_bytes(&secret, sizeof(secret));
    (void)swap(&s->m->head.secret, 0, secret | 1); /* the first one's is everybody's */
    clear_column(s);
    limit_shared_tick(s);
    *out = s;
    return OK;
}

void limit_shared_close(struct limit_shared **sp)
{
    struct limit_shared *s = *sp;

    if (s == NULL)
        return;
    clear_column(s);
    (void)munmap(s->m, LIMIT_SHARED_BYTES);
    free(s);
    *sp = NULL;
}

void limit_shared_tick(struct limit_shared *s)
{
    store(&s->m->head.alive_ms[s->worker], clock_now_ms());
}

bool limit_shared_is_shared(const struct limit_shared *s)
{
    return s->is_shared;
}

uint64_t limit_shared_key(const struct limit_shared *s, unsigned kind, slice_t a, slice_t b)
{
    uint64_t secret = load(&s->m->head.secret);
    uint64_t h = kit_hash_keyed(secret, kind, a.p, a.n);

    /* The first text's hash is a part of the second's key: texts cannot run into each other. */
    h = kit_hash_keyed(secret, h, b.p, b.n);
    return h == 0 ? 1 : h;
}

/* ---- cells ---- */

_Atomic uint64_t *limit_shared_cell(struct limit_shared *s, uint64_t key, uint64_t now_ns)
{
    struct limit_cell *set = s->m->cells[key % CELL_SETS], *oldest = set;

    for (unsigned tries = 0; tries < CELL_TRIES; tries++) {
        uint64_t held = 0, due = UINT64_MAX;

        for (unsigned i = 0; i < CELL_WAYS; i++) {
            uint64_t k = load(&set[i].key), v = k == 0 ? 0 : load(&set[i].value);

            if (k == key)
                return &set[i].value;
            if (v > now_ns + 2000000000ull)
                v = 0; /* no time of ours: the first to go */
            if (v < due) {
                oldest = &set[i];
                held = k;
                due = v;
            }
        }
        if (swap(&oldest->key, held, key)) {
            store(&oldest->value, 0);
            return &oldest->value;
        }
    }
    return &oldest->value; /* somebody fights for the set: counted with a stranger this time */
}

/* ---- counters ---- */

static bool is_alive(const struct limit_shared *s, unsigned worker, uint64_t now)
{
    uint64_t said = load(&s->m->head.alive_ms[worker]);

    return worker == s->worker || (said != 0 && now - said < LIMIT_STALE_MS) ||
           (said > now && said - now < LIMIT_STALE_MS);
}

uint32_t limit_counter_sum(const struct limit_shared *s, const struct limit_counter *c)
{
    uint64_t now = clock_now_ms(), sum = 0;

    if (c == NULL)
        return 0;
    for (unsigned w = 0; w < LIMIT_WORKERS_MAX; w++) {
        uint32_t n = atomic_load(&c->n[w]);

        if (n != 0 && is_alive(s, w, now))
            sum += n;
    }
    return sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
}

static bool is_zero(const struct limit_counter *c)
{
    for (unsigned w = 0; w < LIMIT_WORKERS_MAX; w++)
        if (atomic_load_explicit(&c->n[w], memory_order_relaxed) != 0)
            return false;
    return true;
}

struct limit_counter *limit_shared_counter(struct limit_shared *s, uint64_t key)
{
    struct limit_counter *set = s->m->counters[key % COUNTER_SETS];

    for (unsigned i = 0; i < COUNTER_WAYS; i++)
        if (load(&set[i].key) == key)
            return &set[i];
    /* A free place, then one that counts nothing now. Who still has that one counts for a stranger: its
     * takes and gives are even, so that passes. */
    for (unsigned is_used = 0; is_used < 2; is_used++)
        for (unsigned i = 0; i < COUNTER_WAYS; i++) {
            uint64_t held = load(&set[i].key);

            if (held == key)
                return &set[i];
            if ((held == 0 || (is_used && is_zero(&set[i]))) && swap(&set[i].key, held, key))
                return &set[i];
        }
    return NULL;
}

bool limit_counter_take(struct limit_shared *s, struct limit_counter *c, uint32_t max)
{
    if (c == NULL)
        return true;
    /* Counted first, then looked at (both sequentially consistent): of two workers at the last
     * place at least one sees the other. */
    atomic_fetch_add(&c->n[s->worker], 1);
    if (limit_counter_sum(s, c) <= max)
        return true;
    atomic_fetch_sub(&c->n[s->worker], 1);
    return false;
}

void limit_counter_give(struct limit_shared *s, struct limit_counter *c)
{
    /* Another process may have written nonsense here: never below zero. */
    if (c != NULL && atomic_load_explicit(&c->n[s->worker], memory_order_relaxed) > 0)
        atomic_fetch_sub(&c->n[s->worker], 1);
}

void limit_counter_set(struct limit_shared *s, struct limit_counter *c, uint32_t n)
{
    if (c != NULL)
        atomic_store_explicit(&c->n[s->worker], n, memory_order_relaxed);
}

uint32_t limit_counter_own(const struct limit_shared *s, const struct limit_counter *c, uint32_t *least)
{
    uint64_t now = clock_now_ms();

    *least = UINT32_MAX;
    if (c == NULL)
        return 0;
    for (unsigned w = 0; w < LIMIT_WORKERS_MAX; w++) {
        uint32_t n = atomic_load_explicit(&c->n[w], memory_order_relaxed);

        if (w != s->worker && n < *least && is_alive(s, w, now))
            *least = n;
    }
    return atomic_load_explicit(&c->n[s->worker], memory_order_relaxed);
}

/* ---- deadlines ---- */

struct limit_deadline *limit_deadline_put(struct limit_shared *s, uint64_t key,
                                          uint64_t until_ms, uint64_t now_ms)
{
    struct limit_deadline *set = s->m->deadlines[key % DEADLINE_SETS], *same = NULL;
    uint64_t until = (until_ms & LIMIT_NO_DEADLINE) << 8 | s->worker;

    if (until_ms != LIMIT_NO_DEADLINE && load(&s->m->head.deadlines_used) == 0)
        store(&s->m->head.deadlines_used, 1);
    for (unsigned i = 0; i < DEADLINE_WAYS; i++) {
        uint64_t held = load(&set[i].key);
        /* An entry outlives its deadline only if its worker was killed. */
        bool is_over = held != 0 && load(&set[i].until) >> 8 < now_ms;

        if (held == key)
            same = &set[i];
        if (held != 0 && !is_over)
            continue;
        /* Nobody may see the key beside the time of another: until both are there, for ever. */
        store(&set[i].until, LIMIT_NO_DEADLINE << 8 | s->worker);
        if (swap(&set[i].key, held, key)) {
            store(&set[i].until, until);
            return &set[i];
        }
    }
    if (same != NULL && load(&same->until) >> 8 < until_ms)
        store(&same->until, until_ms << 8 | (load(&same->until) & 0xff));
    return NULL;
}

void limit_deadline_drop(struct limit_deadline **d, uint64_t key)
{
    if (*d != NULL)
        (void)swap(&(*d)->key, key, 0);
    *d = NULL;
}

uint64_t limit_deadline_get(const struct limit_shared *s, uint64_t key)
{
    const struct limit_deadline *set = s->m->deadlines[key % DEADLINE_SETS];
    uint64_t latest = 0;
    bool is_known = false;

    for (unsigned i = 0; i < DEADLINE_WAYS; i++)
        if (load(&set[i].key) == key) {
            uint64_t until = load(&set[i].until) >> 8;

            is_known = true;
            latest = until > latest ? until : latest;
        }
    return is_known ? latest : LIMIT_NO_DEADLINE;
}

bool limit_deadline_is_used(const struct limit_shared *s)
{
    return load(&s->m->head.deadlines_used) != 0;
}
