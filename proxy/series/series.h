/* The proxy's counters: a table in shared memory that outlives the proxy.
 *
 * The supervisor makes one memfd of SERIES_BYTES per worker and hands it down as fd "series". A
 * proxy that is killed at any moment leaves a readable table, and the next generation goes on
 * from the same values, so that every series is cumulative for the life of the pod (gauges
 * start at 0 again). One process writes, from one thread; all stores are relaxed 64-bit stores.
 *
 * Use: build the label text once (series_labels), get the slot once per combination
 * (series_get), cache the pointer, and count on it:
 *
 *     if (cache->generation != series_generation(t))
 *         ...forget the cached pointers, get them again...
 *     series_add(cache->requests, 1);
 *
 * A slot pointer stays safe to write to for the life of the table. What it counts changes only
 * when the table is nearly full and slots idle for 10 minutes are taken back; then (at most
 * once a minute) series_generation() moves, and whoever caches pointers gets them again.
 */
#ifndef PROXY_SERIES_SERIES_H
#define PROXY_SERIES_SERIES_H

#include "kit/buf.h"
#include "kit/err.h"
#include "kit/slice.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERIES_BYTES      (8u * 1024u * 1024u) /* size of the memfd */
#define SERIES_SLOTS      4096u                /* series of one worker */
#define SERIES_LABELS_MAX 2000u                /* bytes of label text of one series */
#define SERIES_VALUE_MAX  256u    /* bytes of one label value; the rest is cut off */
#define SERIES_IDLE_MS    600000u /* a slot unchanged for so long may be taken back */

enum series_family {
#define SERIES_COUNTER(id, name, labels, help)   SERIES_##id,
#define SERIES_GAUGE(id, name, labels, help)     SERIES_##id,
#define SERIES_HISTOGRAM(id, name, labels, help) SERIES_##id,
#include "proxy/series/tbl/families.h"
    SERIES_FAMILIES
};

enum series_kind { SERIES_KIND_COUNTER, SERIES_KIND_GAUGE, SERIES_KIND_HISTOGRAM };

enum { SERIES_LES = 26, SERIES_FINES = 101, SERIES_NUMBERS = SERIES_LES + 1 + SERIES_FINES };

struct series_family_info {
    const char *name;   /* "request_total" */
    const char *labels; /* label names in order, comma list */
    const char *help;
    enum series_kind kind;
};
extern const struct series_family_info series_families[SERIES_FAMILIES];

/* ---- in shared memory; fields are series.c's and the inline functions' ---- */

struct series_histogram {
    _Atomic uint64_t le[SERIES_LES]; /* each bucket alone; the last is +Inf */
    _Atomic uint64_t sum_us;
    _Atomic uint64_t fine[SERIES_FINES]; /* see series_fine_index */
};

struct series_slot {
    _Atomic uint32_t state; /* 0 free, 1 committed: stored last when a slot is made */
    uint8_t family, kind;   /* enum series_family, enum series_kind */
    uint16_t labels_n;      /* bytes of label text */
    uint32_t labels_at;     /* offset of the label text from the table's start */
    uint32_t labels_cap;    /* bytes reserved there */
    uint32_t histogram_at;  /* offset from this slot to its series_histogram; 0: it has none */
    uint32_t spare;
    _Atomic uint64_t value; /* counter, gauge (two's complement); histogram: observations */
};

/* ---- the table ---- */

struct series_table;

/* Maps the table. `fd` is the inherited memfd (borrowed; may be closed after the call), or -1
 * for an anonymous table that nobody inherits (tests, run by hand). A table of another
 * incarnation or version, or one that is damaged, is made new; slots that do not check out are
 * dropped one by one. Gauges become 0. OK | OS | NOMEM. */
MUST_USE err_t series_open(int fd, uint64_t incarnation, struct series_table **out);
void series_close(struct series_table **t);

/* The slot of (family, labels); made if it is new. Never NULL: when the table is full, or the
 * text is longer than SERIES_LABELS_MAX, it is the family's folded="true" slot and
 * weft_series_folded_total is counted. `labels` is text made by series_labels (borrowed). A
 * hash lookup: cache the result. */
struct series_slot *series_get(struct series_table *t, enum series_family family,
                               slice_t labels);

/* Moves when slots were taken back: cached slot pointers must be got again. */
uint32_t series_generation(const struct series_table *t);

/* How many slots are in use (for tests and memory accounts). */
uint32_t series_count(const struct series_table *t);

/* ---- counting: a handful of instructions each ---- */

static inline void series_bump(_Atomic uint64_t *v, uint64_t n)
{
    /* One writer: a relaxed load and store are enough and cost no locked instruction. */
    atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

/* Counter. */
static inline void series_add(struct series_slot *s, uint64_t n)
{
    series_bump(&s->value, n);
}

/* Gauge: n may be negative. */
static inline void series_move(struct series_slot *s, int64_t n)
{
    series_bump(&s->value, (uint64_t)n);
}

/* Index of the fine bucket of a value: 0..3 us have one each, then four per octave up to 2^26
 * us (67 s); the last one takes everything above. */
static inline unsigned series_fine_index(uint64_t us)
{
    unsigned top;

    if (us < 4)
        return (unsigned)us;
    top = 63u - (unsigned)__builtin_clzll(us);
    if (top > 25)
        return SERIES_FINES - 1;
    return 4 * (top - 1) + (unsigned)((us >> (top - 2)) & 3);
}

/* First value (us) that is above fine bucket `i`; UINT64_MAX for the last. */
uint64_t series_fine_bound(unsigned i);

/* Index of the `le` bucket in ms that a duration in us falls into (inclusive upper bounds). */
unsigned series_le_index(uint64_t us);

/* Upper bound of `le` bucket `i` in ms; UINT64_MAX is +Inf. */
uint64_t series_le_bound(unsigned i);

/* Histogram: one observation of a duration in microseconds. */
static inline void series_observe(struct series_slot *s, uint64_t us)
{
    struct series_histogram *h =
        (struct series_histogram *)(void *)((unsigned char *)s + s->histogram_at);

    series_bump(&h->le[series_le_index(us)], 1);
    series_bump(&h->sum_us, us);
    series_bump(&h->fine[series_fine_index(us)], 1);
    series_bump(&s->value, 1);
}

/* ---- labels ---- */

struct series_label {
    const char *name;
    slice_t
        value; /* may come from outside: it is escaped, cut at SERIES_VALUE_MAX, and made UTF-8 */
};

/* Replaces what is in `out` by canonical label text: k="v",k="v" in the given order (give the
 * family's); empty values are left out. TOO_BIG when it does not fit SERIES_LABELS_MAX or the
 * buffer. */
MUST_USE err_t series_labels(struct buf *out, const struct series_label *labels, size_t n);

/* Whether text from a former generation's memory can be label text: UTF-8 without control
 * characters. */
bool series_labels_are_sound(slice_t text);

/* ---- reading, once a second ---- */

struct series_view {
    uint16_t slot;
    enum series_family family;
    slice_t labels;         /* valid during the call */
    const uint64_t *values; /* valid during the call; trailing zeros left out, at least one */
    size_t n_values;
};

/* Calls `each` for every slot that has changed since the last call (or for every slot). Also
 * notes what is idle, and takes idle slots back when the table is nearly full. `each` returns
 * false to stop: what was not shown is shown next time. Returns how many were shown. */
size_t series_collect(struct series_table *t, bool all,
                      bool (*each)(void *arg, const struct series_view *view), void *arg);

#endif
