/* The shared table of series.
 *
 * Layout of the memory (offsets in bytes):
 *
 *   0            header: magic, version, sizes, incarnation, how much of the heap is given out
 *   HEAD         SERIES_SLOTS slots of 48 bytes
 *   HEAP..end    label texts and histograms, given out in pieces of 64 bytes, never moved,
 *                never returned: a slot keeps its piece when it is taken back and the next
 *                series that fits reuses it
 *
 * A slot is made in this order: heap moved on, text and zeroed values written, fields, state =
 * COMMITTED (release). Whatever the moment of a kill -9, a slot either is not there (a piece of
 * heap is lost at most) or is whole. Only the writer of this table maps it, but it may have
 * been killed by its own bug, so that the next generation checks every offset before it
 * believes it (slot_is_sound).
 *
 * In private memory, rebuilt at every start: the hash index (open addressing over slot
 * numbers), what each slot's value was when it was last shown (shadow), and since when it has
 * not moved.
 */
#include "proxy/series/series.h"

#include "kit/clock.h"
#include "kit/hash.h"
#include "kit/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC        0x3153455254464557ull /* "WEFTRES1" */
#define VERSION      1u
#define HEAD         4096u
#define INDEX_SIZE   8192u /* power of two, twice SERIES_SLOTS */
#define PIECE        64u
#define FOLD_RESERVE (2u * SERIES_FAMILIES) /* a folded series per family, and its counter */
#define SWEEP_MS     60000u                 /* taking back happens at most so often */

enum { SLOT_FREE = 0, SLOT_COMMITTED = 1 };

struct header {
    uint64_t magic;
    uint32_t version, slots, families, slot_size;
    uint64_t incarnation;
    _Atomic uint64_t heap_used; /* bytes of the heap given out */
    uint64_t generation;        /* how many proxies have opened this table */
};

struct shadow {
    uint64_t value;      /* when it was last shown */
    uint64_t changed_ms; /* when it was last seen to have moved */
    bool was_shown;
};

struct series_table {
    uint8_t *mem; /* owned mapping of SERIES_BYTES */
    struct header *head;
    struct series_slot *slots;
    uint32_t n_slots;             /* slots [0..n_slots) have been used at some time */
    uint32_t n_used;              /* committed ones */
    uint32_t generation;          /* raised by a sweep that took something back */
    uint32_t cursor;              /* where a collect that was stopped goes on */
    bool is_pinned[SERIES_SLOTS]; /* folded series: never taken back */
    uint64_t swept_ms;
    uint16_t index[INDEX_SIZE]; /* slot + 1; 0 empty */
    struct shadow shadow[SERIES_SLOTS];
};

#define HEAP_AT (HEAD + SERIES_SLOTS * (uint32_t)sizeof(struct series_slot))

_Static_assert(sizeof(struct header) <= HEAD, "the header fits its page");
_Static_assert(sizeof(struct series_slot) % 8 == 0, "slots are aligned for 64-bit stores");
_Static_assert(HEAP_AT % PIECE == 0, "the heap is aligned");
_Static_assert((INDEX_SIZE & (INDEX_SIZE - 1)) == 0 && INDEX_SIZE >= 2 * SERIES_SLOTS, "index");

const struct series_family_info series_families[SERIES_FAMILIES] = {
#define SERIES_COUNTER(id, name, labels, help)   {name, labels, help, SERIES_KIND_COUNTER},
#define SERIES_GAUGE(id, name, labels, help)     {name, labels, help, SERIES_KIND_GAUGE},
#define SERIES_HISTOGRAM(id, name, labels, help) {name, labels, help, SERIES_KIND_HISTOGRAM},
#include "proxy/series/tbl/families.h"
};

/* ---- buckets ---- */

static const uint64_t le_ms[SERIES_LES] = {
#define SERIES_LE(ms) ms,
#include "proxy/series/tbl/families.h"
    UINT64_MAX,
};

uint64_t series_le_bound(unsigned i)
{
    BUG_ON(i >= SERIES_LES);
    return le_ms[i];
}

unsigned series_le_index(uint64_t us)
{
    unsigned low = 0, high = SERIES_LES - 1; /* the answer is in [low, high] */

    while (low < high) {
        unsigned mid = (low + high) / 2;

        if (us <= le_ms[mid] * 1000)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

uint64_t series_fine_bound(unsigned i)
{
    unsigned octave, quarter;

    BUG_ON(i >= SERIES_FINES);
    if (i == SERIES_FINES - 1)
        return UINT64_MAX;
    if (i < 4)
        return i + 1;
    octave = i / 4 - 1; /* the bucket's width is 2^octave */
    quarter = i % 4;
    return (uint64_t)(4 + quarter + 1) << octave;
}

/* ---- index ---- */

static uint32_t index_home(enum series_family family, slice_t labels)
{
    uint64_t h = kit_hash(labels.p, labels.n) + (uint64_t)family * 0x9e3779b97f4a7c15ull;

    h ^= h >> 32;
    return (uint32_t)h & (INDEX_SIZE - 1);
}

static slice_t slot_labels(const struct series_table *t, const struct series_slot *s)
{
    return slice(t->mem + s->labels_at, s->labels_n);
}

static bool slot_is_committed(const struct series_slot *s)
{
    return atomic_load_explicit(&s->state, memory_order_acquire) == SLOT_COMMITTED;
}

static struct series_slot *index_find(struct series_table *t, enum series_family family,
                                      slice_t labels, uint32_t *place)
{
    uint32_t at = index_home(family, labels);

    for (; t->index[at] != 0; at = (at + 1) & (INDEX_SIZE - 1)) {
        struct series_slot *s = &t->slots[t->index[at] - 1];

        if (s->family == (uint8_t)family && slice_is(slot_labels(t, s), labels))
            return s;
    }
    *place = at;
    return NULL;
}

static void index_add(struct series_table *t, uint32_t slot)
{
    struct series_slot *s = &t->slots[slot];
    uint32_t place = 0;

    if (index_find(t, (enum series_family)s->family, slot_labels(t, s), &place) == NULL)
        t->index[place] = (uint16_t)(slot + 1);
}

static void index_rebuild(struct series_table *t)
{
    memset(t->index, 0, sizeof(t->index));
    t->n_used = 0;
    for (uint32_t i = 0; i < t->n_slots; i++)
        if (slot_is_committed(&t->slots[i])) {
            index_add(t, i);
            t->n_used++;
        }
}

/* ---- heap ---- */

static uint32_t heap_room(const struct series_table *t)
{
    return SERIES_BYTES - HEAP_AT -
           (uint32_t)atomic_load_explicit(&t->head->heap_used, memory_order_relaxed);
}

/* 0 when there is no room. */
static uint32_t heap_take(struct series_table *t, uint32_t n)
{
    uint64_t used = atomic_load_explicit(&t->head->heap_used, memory_order_relaxed);

    n = (n + PIECE - 1) & ~(PIECE - 1);
    if (n > heap_room(t))
        return 0;
    atomic_store_explicit(&t->head->heap_used, used + n, memory_order_release);
    return HEAP_AT + (uint32_t)used;
}

/* ---- opening ---- */

static bool range_is_in_heap(uint64_t at, uint64_t n)
{
    return at >= HEAP_AT && at % 8 == 0 && n <= SERIES_BYTES && at + n <= SERIES_BYTES;
}

static bool slot_has_histogram(const struct series_slot *s)
{
    return s->histogram_at != 0;
}

static uint64_t slot_offset(const struct series_table *t, const struct series_slot *s)
{
    return (uint64_t)((const uint8_t *)s - t->mem);
}

/* Whether the fields of an inherited slot may be used at all, committed or not. */
static bool slot_is_sound(const struct series_table *t, const struct series_slot *s)
{
    bool wants_histogram;

    if (s->family >= SERIES_FAMILIES || s->kind != series_families[s->family].kind)
        return false;
    wants_histogram = s->kind == SERIES_KIND_HISTOGRAM;
    if (s->labels_n > s->labels_cap || s->labels_n > SERIES_LABELS_MAX ||
        !range_is_in_heap(s->labels_at, s->labels_cap) ||
        !series_labels_are_sound(slot_labels(t, s)))
        return false;
    if (wants_histogram != slot_has_histogram(s))
        return false;
    return !wants_histogram || range_is_in_heap(slot_offset(t, s) + s->histogram_at,
                                                sizeof(struct series_histogram));
}

static void table_format(struct series_table *t, uint64_t incarnation)
{
    memset(t->mem, 0, HEAP_AT);
    t->head->version = VERSION;
    t->head->slots = SERIES_SLOTS;
    t->head->families = SERIES_FAMILIES;
    t->head->slot_size = (uint32_t)sizeof(struct series_slot);
    t->head->incarnation = incarnation;
    atomic_thread_fence(memory_order_release);
    t->head->magic = MAGIC;
}

static bool header_is_ours(const struct header *h, uint64_t incarnation)
{
    uint64_t used = atomic_load_explicit(&h->heap_used, memory_order_relaxed);

    return h->magic == MAGIC && h->version == VERSION && h->slots == SERIES_SLOTS &&
           h->families == SERIES_FAMILIES && h->slot_size == sizeof(struct series_slot) &&
           h->incarnation == incarnation && used <= SERIES_BYTES - HEAP_AT && used % PIECE == 0;
}

/* Takes over what a former generation left. Returns how many slots had to be dropped. */
static uint32_t table_inherit(struct series_table *t)
{
    uint32_t dropped = 0;

    for (uint32_t i = 0; i < SERIES_SLOTS; i++) {
        struct series_slot *s = &t->slots[i];

        if (!slot_is_committed(s) && s->labels_cap == 0)
            continue; /* never used; a half-made one has no piece yet either */
        if (!slot_is_sound(t, s)) {
            memset(s, 0, sizeof(*s));
            dropped++;
            continue;
        }
        t->n_slots = i + 1;
        if (s->kind == SERIES_KIND_GAUGE)
            atomic_store_explicit(&s->value, 0, memory_order_relaxed);
        t->is_pinned[i] = slice_starts(slot_labels(t, s), SLICE_LIT("folded=\"true\"")) ||
                          s->family == SERIES_FOLDED;
    }
    index_rebuild(t);
    return dropped;
}

static err_t map_memory(int fd, uint8_t **out)
{
    int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    struct stat st;
    void *mem;

    if (fd >= 0) {
        if (fstat(fd, &st) != 0) {
            log_error("series not mapped", "fd=%d errno=%d", fd, errno);
            return ERR_OF(OS);
        }
        if (st.st_size < (off_t)SERIES_BYTES && ftruncate(fd, (off_t)SERIES_BYTES) != 0) {
            log_error("series not grown", "fd=%d errno=%d", fd, errno);
            return ERR_OF(OS);
        }
    }
    mem = mmap(NULL, SERIES_BYTES, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (mem == MAP_FAILED) {
        log_error("series not mapped", "fd=%d errno=%d", fd, errno);
        return ERR_OF(OS);
    }
    *out = mem;
    return OK;
}

err_t series_open(int fd, uint64_t incarnation, struct series_table **out)
{
    struct series_table *t = calloc(1, sizeof(*t));
    uint32_t dropped;
    err_t err;

    if (t == NULL)
        return ERR_OF(NOMEM);
    err = map_memory(fd, &t->mem);
    if (err != OK) {
        free(t);
        return err;
    }
    t->head = (struct header *)(void *)t->mem;
    t->slots = (struct series_slot *)(void *)(t->mem + HEAD);
    if (!header_is_ours(t->head, incarnation))
        table_format(t, incarnation);
    t->head->generation++;
    dropped = table_inherit(t);
    if (dropped > 0)
        log_warn("series dropped", "damaged=%u kept=%u", dropped, t->n_used);
    t->swept_ms = clock_now_ms();
    for (uint32_t i = 0; i < SERIES_SLOTS; i++)
        t->shadow[i].changed_ms = t->swept_ms;
    *out = t;
    return OK;
}

void series_close(struct series_table **t)
{
    if (*t == NULL)
        return;
    munmap((*t)->mem, SERIES_BYTES);
    free(*t);
    *t = NULL;
}

uint32_t series_generation(const struct series_table *t)
{
    return t->generation;
}

uint32_t series_count(const struct series_table *t)
{
    return t->n_used;
}

/* ---- making a slot ---- */

static struct series_histogram *slot_histogram(struct series_slot *s)
{
    return (struct series_histogram *)(void *)((uint8_t *)s + s->histogram_at);
}

static void slot_commit(struct series_table *t, uint32_t i, enum series_family family,
                        slice_t labels)
{
    struct series_slot *s = &t->slots[i];

    if (labels.n > 0)
        memcpy(t->mem + s->labels_at, labels.p, labels.n);
    s->labels_n = (uint16_t)labels.n;
    s->family = (uint8_t)family;
    s->kind = (uint8_t)series_families[family].kind;
    atomic_store_explicit(&s->value, 0, memory_order_relaxed);
    if (slot_has_histogram(s))
        memset(slot_histogram(s), 0, sizeof(struct series_histogram));
    atomic_store_explicit(&s->state, SLOT_COMMITTED, memory_order_release);
    t->shadow[i] = (struct shadow){.changed_ms = clock_now_ms()};
    t->n_used++;
    index_add(t, i);
}

/* A slot that was taken back and whose piece fits. -1: none. */
static int64_t slot_find_free(const struct series_table *t, enum series_kind kind,
                              size_t labels_n)
{
    bool wants_histogram = kind == SERIES_KIND_HISTOGRAM;

    for (uint32_t i = 0; i < t->n_slots; i++) {
        const struct series_slot *s = &t->slots[i];

        if (!slot_is_committed(s) && s->labels_cap >= labels_n && s->labels_cap > 0 &&
            slot_has_histogram(s) == wants_histogram)
            return i;
    }
    return -1;
}

/* A new slot with a piece of heap of its own. -1: full. */
static int64_t slot_carve(struct series_table *t, enum series_kind kind, size_t labels_n,
                          bool may_use_reserve)
{
    uint32_t cap = ((uint32_t)labels_n + PIECE) & ~(PIECE - 1);
    uint32_t histogram =
        kind == SERIES_KIND_HISTOGRAM ? (uint32_t)sizeof(struct series_histogram) : 0;
    uint32_t reserve_slots = may_use_reserve ? 0 : FOLD_RESERVE;
    uint32_t reserve_heap =
        reserve_slots * (2 * PIECE + (uint32_t)sizeof(struct series_histogram));
    struct series_slot *s;
    uint32_t at;

    if (t->n_slots + reserve_slots >= SERIES_SLOTS ||
        heap_room(t) < cap + histogram + reserve_heap)
        return -1;
    at = heap_take(t, cap + histogram);
    if (at == 0)
        return -1;
    s = &t->slots[t->n_slots];
    s->labels_at = at;
    s->histogram_at = histogram != 0 ? at + cap - (uint32_t)slot_offset(t, s) : 0;
    s->kind = (uint8_t)kind;
    s->labels_cap = cap; /* last: says that the slot has a piece */
    return t->n_slots++;
}

static struct series_slot *slot_make(struct series_table *t, enum series_family family,
                                     slice_t labels, bool may_use_reserve)
{
    enum series_kind kind = series_families[family].kind;
    int64_t i = t->n_used < t->n_slots ? slot_find_free(t, kind, labels.n) : -1;

    if (i < 0)
        i = slot_carve(t, kind, labels.n, may_use_reserve);
    if (i < 0)
        return NULL;
    slot_commit(t, (uint32_t)i, family, labels);
    return &t->slots[i];
}

static struct series_slot *get_reserved(struct series_table *t, enum series_family family,
                                        slice_t labels)
{
    uint32_t place = 0;
    struct series_slot *s = index_find(t, family, labels, &place);

    if (s == NULL) {
        s = slot_make(t, family, labels, true);
        BUG_ON(s == NULL); /* the reserve holds one per family */
        t->is_pinned[s - t->slots] = true;
    }
    return s;
}

static struct series_slot *fold(struct series_table *t, enum series_family family)
{
    char text[96];
    int n = snprintf(text, sizeof(text), "family=\"%s\"", series_families[family].name);

    series_add(get_reserved(t, SERIES_FOLDED, slice(text, (size_t)n)), 1);
    return get_reserved(t, family, SLICE_LIT("folded=\"true\""));
}

struct series_slot *series_get(struct series_table *t, enum series_family family,
                               slice_t labels)
{
    struct series_slot *s;
    uint32_t place = 0;

    BUG_ON((unsigned)family >= SERIES_FAMILIES);
    if (labels.n > SERIES_LABELS_MAX)
        return fold(t, family);
    s = index_find(t, family, labels, &place);
    if (s == NULL)
        s = slot_make(t, family, labels, false);
    return s != NULL ? s : fold(t, family);
}

/* ---- reading ---- */

static bool table_is_nearly_full(const struct series_table *t)
{
    return t->n_used > SERIES_SLOTS - SERIES_SLOTS / 8 || heap_room(t) < SERIES_BYTES / 8;
}

/* Takes idle slots back. A gauge that is not 0 belongs to something that lives. */
static void sweep(struct series_table *t, uint64_t now_ms)
{
    uint32_t freed = 0;

    if (!table_is_nearly_full(t) || now_ms - t->swept_ms < SWEEP_MS)
        return;
    t->swept_ms = now_ms;
    for (uint32_t i = 0; i < t->n_slots; i++) {
        struct series_slot *s = &t->slots[i];

        if (!slot_is_committed(s) || t->is_pinned[i] ||
            now_ms - t->shadow[i].changed_ms < SERIES_IDLE_MS)
            continue;
        if (s->kind == SERIES_KIND_GAUGE &&
            atomic_load_explicit(&s->value, memory_order_relaxed) != 0)
            continue;
        atomic_store_explicit(&s->state, SLOT_FREE, memory_order_release);
        freed++;
    }
    if (freed == 0)
        return;
    t->generation++;
    index_rebuild(t);
    log_info("series taken back", "idle=%u in_use=%u", freed, t->n_used);
}

static size_t slot_numbers(struct series_slot *s, uint64_t out[SERIES_NUMBERS])
{
    const struct series_histogram *h;
    size_t n = SERIES_NUMBERS;

    if (!slot_has_histogram(s)) {
        out[0] = atomic_load_explicit(&s->value, memory_order_relaxed);
        return 1;
    }
    h = slot_histogram(s);
    for (unsigned i = 0; i < SERIES_LES; i++)
        out[i] = atomic_load_explicit(&h->le[i], memory_order_relaxed);
    out[SERIES_LES] = atomic_load_explicit(&h->sum_us, memory_order_relaxed);
    for (unsigned i = 0; i < SERIES_FINES; i++)
        out[SERIES_LES + 1 + i] = atomic_load_explicit(&h->fine[i], memory_order_relaxed);
    while (n > 1 && out[n - 1] == 0)
        n--;
    return n;
}

size_t series_collect(struct series_table *t, bool all,
                      bool (*each)(void *arg, const struct series_view *view), void *arg)
{
    uint64_t now_ms = clock_now_ms();
    uint64_t numbers[SERIES_NUMBERS];
    uint32_t start = t->cursor;
    size_t shown = 0;

    for (uint32_t k = 0; k < t->n_slots; k++) {
        uint32_t i = (start + k) % t->n_slots;
        struct series_slot *s = &t->slots[i];
        struct shadow *sh = &t->shadow[i];
        uint64_t value;
        struct series_view view;

        if (!slot_is_committed(s))
            continue;
        value = atomic_load_explicit(&s->value, memory_order_relaxed);
        if (value != sh->value)
            sh->changed_ms = now_ms;
        if (!all && sh->was_shown && value == sh->value)
            continue;
        view = (struct series_view){.slot = (uint16_t)i,
                                    .family = (enum series_family)s->family,
                                    .labels = slot_labels(t, s),
                                    .values = numbers,
                                    .n_values = slot_numbers(s, numbers)};
        if (!each(arg, &view)) {
            t->cursor = i;
            return shown;
        }
        sh->value = value;
        sh->was_shown = true;
        shown++;
    }
    t->cursor = 0;
    sweep(t, now_ms);
    return shown;
}
