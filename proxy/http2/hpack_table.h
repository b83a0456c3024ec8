/* The tables of HPACK (RFC 7541 section 2.3): the static one, and a connection's dynamic one
 * for one direction.
 *
 * An entry has a number that it keeps for life; entries are evicted in the order in which they
 * came. Its bytes lie in one piece, name before value, and may move when another is added. */
#ifndef PROXY_HTTP2_HPACK_TABLE_H
#define PROXY_HTTP2_HPACK_TABLE_H

#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define HPACK_STATIC    61   /* entries of the static table: 1..61 */
#define HPACK_TABLE_MAX 4096 /* no dynamic table is larger, in either direction */
#define HPACK_OVERHEAD  32   /* of an entry, RFC 7541 4.1 */
#define HPACK_RING      (HPACK_TABLE_MAX / HPACK_OVERHEAD)

struct hpack_entry {
    uint16_t at; /* of its bytes in mem */
    uint16_t name_n, value_n;
    uint16_t note; /* the user's; 0 at first */
};

struct hpack_table {
    struct hpack_memory *m; /* NULL until the first entry */
    uint32_t first, next; /* numbers: of the oldest entry, and of the next to come; they wrap */
    uint32_t size, limit; /* RFC 7541 4.1 and 4.2 */
    uint16_t head, tail;  /* of the bytes that are in use */
};

struct hpack_memory {
    struct hpack_entry ring[HPACK_RING]; /* by number */
    uint8_t bytes[2 * HPACK_TABLE_MAX];
};

void hpack_table_init(struct hpack_table *t, uint32_t limit); /* limit <= HPACK_TABLE_MAX */
void hpack_table_done(struct hpack_table *t);
/* Evicts what is over the new limit. */
void hpack_table_resize(struct hpack_table *t, uint32_t limit);

static inline bool hpack_table_has(const struct hpack_table *t, uint32_t number)
{
    return number - t->first < t->next - t->first;
}

static inline struct hpack_entry *hpack_table_entry(const struct hpack_table *t,
                                                    uint32_t number)
{
    return &t->m->ring[number % HPACK_RING];
}

static inline slice_t hpack_entry_name(const struct hpack_table *t, const struct hpack_entry *e)
{
    return slice(t->m->bytes + e->at, e->name_n);
}

static inline slice_t hpack_entry_value(const struct hpack_table *t,
                                        const struct hpack_entry *e)
{
    return slice(t->m->bytes + e->at + e->name_n, e->value_n);
}

/* Evicts and adds. One that is larger than the table empties it and is not kept (RFC 7541 4.4):
 * *kept is false then. The name may lie in this very table. NOMEM leaves the table as it was.
 */
MUST_USE err_t hpack_table_add(struct hpack_table *t, slice_t name, slice_t value, bool *kept);

/* Entry 1..HPACK_STATIC. */
slice_t hpack_static_name(uint32_t index);
slice_t hpack_static_value(uint32_t index);
uint16_t *hpack_static_note(uint32_t index); /* the user's, of the process: 0 at first */
/* The first entry with this regular (not pseudo) name, or 0. Names in lower case only. */
uint32_t hpack_static_find(slice_t name);

#endif
