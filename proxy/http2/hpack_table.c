/* The static table, and dynamic ones as a ring of entries over bytes that are used from front
 * to end and moved to the front when the end is reached: there is room for twice what may be in
 * use, so a byte moves about once. */
#include "proxy/http2/hpack_table.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    slice_t name, value;
} statics[HPACK_STATIC + 1] = {
    {{NULL, 0}, {NULL, 0}},
#define STATIC(name, value)                                                                    \
    {{(const uint8_t *)(name), sizeof(name) - 1},                                              \
     {(const uint8_t *)(value), sizeof(value) - 1}},
#include "proxy/http2/tbl/static_table.h"
#undef STATIC
};

static uint16_t static_notes[HPACK_STATIC + 1];

slice_t hpack_static_name(uint32_t index)
{
    return statics[index].name;
}

slice_t hpack_static_value(uint32_t index)
{
    return statics[index].value;
}

uint16_t *hpack_static_note(uint32_t index)
{
    return &static_notes[index];
}

uint32_t hpack_static_find(slice_t name)
{
    /* Regular names stand in alphabetical order from 15 on: where each letter begins. */
    static uint8_t from[27];

    if (from[26] == 0) {
        uint32_t i = 15;

        for (unsigned letter = 0; letter <= 26; letter++) {
            while (i <= HPACK_STATIC && (unsigned)(statics[i].name.p[0] - 'a') < letter)
                i++;
            from[letter] = (uint8_t)i;
        }
    }
    if (name.n == 0 || name.p[0] < 'a' || name.p[0] > 'z')
        return 0;
    for (uint32_t i = from[name.p[0] - 'a']; i < from[name.p[0] - 'a' + 1]; i++)
        if (slice_is(statics[i].name, name))
            return i;
    return 0;
}

/* ---- dynamic ---- */

void hpack_table_init(struct hpack_table *t, uint32_t limit)
{
    BUG_ON(limit > HPACK_TABLE_MAX);
    *t = (struct hpack_table){.limit = limit};
}

void hpack_table_done(struct hpack_table *t)
{
    free(t->m);
    *t = (struct hpack_table){.limit = t->limit};
}

static void evict(struct hpack_table *t, uint32_t room)
{
    while (t->size + room > t->limit && t->first != t->next) {
        const struct hpack_entry *e = hpack_table_entry(t, t->first++);

        t->size -= (uint32_t)e->name_n + e->value_n + HPACK_OVERHEAD;
        t->head = (uint16_t)(t->head + e->name_n + e->value_n);
    }
    if (t->first == t->next)
        t->head = t->tail = 0;
}

void hpack_table_resize(struct hpack_table *t, uint32_t limit)
{
    BUG_ON(limit > HPACK_TABLE_MAX);
    t->limit = limit;
    evict(t, 0);
}

static void to_front(struct hpack_table *t)
{
    memmove(t->m->bytes, t->m->bytes + t->head, (size_t)(t->tail - t->head));
    for (uint32_t i = t->first; i != t->next; i++)
        hpack_table_entry(t, i)->at = (uint16_t)(hpack_table_entry(t, i)->at - t->head);
    t->tail = (uint16_t)(t->tail - t->head);
    t->head = 0;
}

static bool lies_in(const struct hpack_table *t, slice_t s)
{
    return (uintptr_t)s.p - (uintptr_t)t->m->bytes < sizeof(t->m->bytes);
}

err_t hpack_table_add(struct hpack_table *t, slice_t name, slice_t value, bool *kept)
{
    uint8_t held[HPACK_TABLE_MAX];
    size_t n = name.n + value.n;
    struct hpack_entry *e;

    *kept = n + HPACK_OVERHEAD <= t->limit;
    if (!*kept) {
        evict(t, t->limit + 1);
        return OK;
    }
    if (t->m == NULL) {
        t->m = malloc(sizeof(*t->m));
        if (t->m == NULL)
            return ERR_OF(NOMEM);
    }
    if (name.n > 0 && lies_in(t, name)) {
        memcpy(held, name.p, name.n);
        name.p = held;
    }
    evict(t, (uint32_t)n + HPACK_OVERHEAD);
    if (t->tail + n > sizeof(t->m->bytes))
        to_front(t);
    e = hpack_table_entry(t, t->next++);
    *e = (struct hpack_entry){
        .at = t->tail, .name_n = (uint16_t)name.n, .value_n = (uint16_t)value.n};
    if (name.n > 0)
        memcpy(t->m->bytes + t->tail, name.p, name.n);
    if (value.n > 0)
        memcpy(t->m->bytes + t->tail + name.n, value.p, value.n);
    t->tail = (uint16_t)(t->tail + n);
    t->size += (uint32_t)n + HPACK_OVERHEAD;
    return OK;
}
