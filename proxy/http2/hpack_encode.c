/* Fields onto a block: see hpack_encode.h. Section numbers are RFC 7541's. */
#include "proxy/http2/hpack_encode.h"

#include <stdlib.h>
#include <string.h>

void hpack_encoder_init(struct hpack_encoder *e)
{
    *e = (struct hpack_encoder){.smallest = HPACK_TABLE_MAX};
    hpack_table_init(&e->table, HPACK_TABLE_MAX);
}

void hpack_encoder_done(struct hpack_encoder *e)
{
    hpack_table_done(&e->table);
    free(e->m);
    e->m = NULL;
}

void hpack_encoder_resize(struct hpack_encoder *e, uint32_t limit)
{
    if (limit > HPACK_TABLE_MAX)
        limit = HPACK_TABLE_MAX;
    if (limit == e->table.limit)
        return;
    if (!e->has_resized || limit < e->smallest)
        e->smallest = limit;
    e->has_resized = true;
    hpack_table_resize(&e->table, limit);
}

/* ---- finding ---- */

static uint64_t mix(uint64_t h, slice_t s)
{
    const uint64_t k = UINT64_C(0x9e3779b97f4a7c15);
    size_t i = 0;
    uint64_t w;

    h = (h ^ s.n) * k;
    for (; i + 8 <= s.n; i += 8) {
        memcpy(&w, s.p + i, 8);
        h = (h ^ (h >> 29) ^ w) * k;
    }
    for (w = 0; i < s.n; i++)
        w = w << 8 | s.p[i];
    h = (h ^ (h >> 29) ^ w) * k;
    return h ^ h >> 32;
}

static uint32_t hash_of(uint64_t h)
{
    return (uint32_t)h;
}

static bool entry_is(const struct hpack_table *t, uint32_t number, slice_t name, slice_t value)
{
    const struct hpack_entry *e = hpack_table_entry(t, number);
    const uint8_t *p = t->m->bytes + e->at;

    return e->name_n == name.n && e->value_n == value.n &&
           (value.n == 0 || memcmp(p + name.n, value.p, value.n) == 0) &&
           memcmp(p, name.p, name.n) == 0;
}

static void look_up(const struct hpack_encoder *e, struct hpack_out *f, size_t place)
{
    uint32_t number;

    f->is_hit = false;
    if (f->static_entry != 0 || f->policy != HPACK_MAY_INDEX || e->m == NULL ||
        e->table.m == NULL)
        return;
    if (place < HPACK_PLACES) {
        number = e->place[place];
        if (hpack_table_has(&e->table, number) &&
            entry_is(&e->table, number, f->name, f->value)) {
            f->number = number;
            f->is_hit = true;
            return;
        }
    }
    number = e->m->entry[hash_of(mix(mix(0, f->name), f->value)) % HPACK_SLOTS];
    if (hpack_table_has(&e->table, number) && entry_is(&e->table, number, f->name, f->value)) {
        f->number = number;
        f->is_hit = true;
    }
}

size_t hpack_plan(const struct hpack_encoder *e, struct hpack_out *fields, size_t n)
{
    size_t room = HPACK_BLOCK_ROOM;

    for (size_t i = 0; i < n; i++) {
        look_up(e, &fields[i], i);
        /* Also for a hit: it may have been evicted by a field before it when its turn comes. */
        room += fields[i].name.n + fields[i].value.n + HPACK_FIELD_ROOM;
    }
    return room;
}

/* ---- writing ---- */

static uint8_t *put_int(uint8_t *p, unsigned pattern, uint32_t max, size_t v)
{
    if (v < max) {
        *p++ = (uint8_t)(pattern | v);
        return p;
    }
    *p++ = (uint8_t)(pattern | max);
    for (v -= max; v >= 0x80; v >>= 7)
        *p++ = (uint8_t)(0x80 | (v & 0x7f));
    *p++ = (uint8_t)v;
    return p;
}

static uint8_t *put_string(uint8_t *p, slice_t s)
{
    p = put_int(p, 0, 0x7f, s.n);
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    return p + s.n;
}

static uint32_t index_of(const struct hpack_encoder *e, uint32_t number)
{
    return HPACK_STATIC + (e->table.next - number);
}

/* An entry that says the name, or 0. */
static uint32_t name_index(const struct hpack_encoder *e, const struct hpack_out *f,
                           uint32_t name_hash)
{
    uint32_t index = f->static_name != 0 ? f->static_name : hpack_static_find(f->name);
    uint32_t number;

    if (index != 0 || e->m == NULL || e->table.m == NULL)
        return index;
    number = e->m->named[name_hash % HPACK_SLOTS];
    if (hpack_table_has(&e->table, number) &&
        slice_is(hpack_entry_name(&e->table, hpack_table_entry(&e->table, number)), f->name))
        return index_of(e, number);
    return 0;
}

/* Whether this field, which is not in the table, goes there now: it was seen before, and leaves
 * room for others. */
static bool is_worth(struct hpack_encoder *e, const struct hpack_out *f, uint32_t hash)
{
    uint32_t *seen;

    if (f->policy != HPACK_MAY_INDEX ||
        f->name.n + f->value.n + HPACK_OVERHEAD > e->table.limit / 4)
        return false;
    if (e->m == NULL) {
        e->m = calloc(1, sizeof(*e->m));
        if (e->m == NULL)
            return false;
    }
    seen = &e->m->seen[hash % HPACK_SLOTS];
    if (*seen == hash)
        return true;
    *seen = hash;
    return false;
}

static uint8_t *put_literal(struct hpack_encoder *e, const struct hpack_out *f, size_t place,
                            uint8_t *p)
{
    uint64_t by_name = mix(0, f->name);
    uint32_t hash = hash_of(mix(by_name, f->value));
    uint32_t index = name_index(e, f, hash_of(by_name));
    bool is_kept = is_worth(e, f, hash);

    /* Without memory for it the field is not put into the table, and the peer is not told to.
     */
    if (is_kept && hpack_table_add(&e->table, f->name, f->value, &is_kept) != OK)
        is_kept = false;
    if (is_kept)
        p = put_int(p, 0x40, 0x3f, index);
    else
        p = put_int(p, f->policy == HPACK_NEVER_INDEX ? 0x10 : 0, 0x0f, index);
    if (index == 0)
        p = put_string(p, f->name);
    p = put_string(p, f->value);
    if (is_kept) {
        uint32_t number = e->table.next - 1;

        e->m->entry[hash % HPACK_SLOTS] = number;
        e->m->named[hash_of(by_name) % HPACK_SLOTS] = number;
        if (place < HPACK_PLACES)
            e->place[place] = number;
    }
    return p;
}

static uint8_t *put_resize(struct hpack_encoder *e, uint8_t *p)
{
    if (e->smallest < e->table.limit)
        p = put_int(p, 0x20, 0x1f, e->smallest);
    p = put_int(p, 0x20, 0x1f, e->table.limit);
    e->has_resized = false;
    e->smallest = e->table.limit;
    return p;
}

size_t hpack_encode(struct hpack_encoder *e, const struct hpack_out *fields, size_t n,
                    uint8_t *out)
{
    uint8_t *p = e->has_resized ? put_resize(e, out) : out;

    for (size_t i = 0; i < n; i++) {
        const struct hpack_out *f = &fields[i];

        if (f->static_entry != 0) {
            *p++ = (uint8_t)(0x80 | f->static_entry);
        } else if (f->is_hit && hpack_table_has(&e->table, f->number)) {
            p = put_int(p, 0x80, 0x7f, index_of(e, f->number));
            if (i < HPACK_PLACES)
                e->place[i] = f->number;
        } else {
            p = put_literal(e, f, i, p);
        }
    }
    return (size_t)(p - out);
}
