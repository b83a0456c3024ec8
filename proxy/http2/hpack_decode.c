/* Fields off a block: see hpack_decode.h. Section numbers are RFC 7541's. */
#include "proxy/http2/hpack_decode.h"

#include "proxy/http2/huffman.h"

#include <stdlib.h>

#define RESIZES_MAX 2 /* 4.2: the smallest size between two blocks, and the last */

void hpack_decoder_init(struct hpack_decoder *d, uint32_t limit)
{
    *d = (struct hpack_decoder){.limit = limit};
    hpack_table_init(&d->table, limit);
}

void hpack_decoder_done(struct hpack_decoder *d)
{
    hpack_table_done(&d->table);
    hpack_decoder_release(d);
}

void hpack_decoder_release(struct hpack_decoder *d)
{
    free(d->scratch);
    d->scratch = NULL;
    d->scratch_n = 0;
}

void hpack_decode_begin(struct hpack_decoder *d, size_t n)
{
    d->resizes = 0;
    d->has_field = false;
    d->block_n = n;
}

/* 5.1. Up to 28 bits behind the prefix: nothing here may be larger. */
static bool read_int(slice_t *in, unsigned prefix_max, uint32_t *out)
{
    uint32_t v = in->p[0] & prefix_max;
    size_t at = 1;

    if (v == prefix_max) {
        unsigned shift = 0;
        uint8_t byte;

        do {
            if (at >= in->n || shift > 21)
                return false;
            byte = in->p[at++];
            v += (uint32_t)(byte & 0x7f) << shift;
            shift += 7;
        } while ((byte & 0x80) != 0);
    }
    *in = slice(in->p + at, in->n - at);
    *out = v;
    return true;
}

/* 5.2. `used` bytes of the scratch memory hold another string of this field. */
static enum hpack_got read_string(struct hpack_decoder *d, slice_t *in, size_t *used,
                                  slice_t *out)
{
    bool is_coded;
    uint32_t n;
    ssize_t got;

    if (in->n == 0)
        return HPACK_BROKEN;
    is_coded = (in->p[0] & 0x80) != 0;
    if (!read_int(in, 0x7f, &n) || n > in->n)
        return HPACK_BROKEN;
    *out = slice(in->p, n);
    *in = slice(in->p + n, in->n - n);
    if (!is_coded)
        return HPACK_FIELD;
    if (d->scratch_n < HUFFMAN_ROOM(d->block_n) + 1) {
        /* Enough for both strings; and nothing is in it yet: the first one needed as much. */
        hpack_decoder_release(d);
        d->scratch = malloc(HUFFMAN_ROOM(d->block_n) + 1);
        if (d->scratch == NULL)
            return HPACK_NO_MEMORY;
        d->scratch_n = HUFFMAN_ROOM(d->block_n) + 1;
    }
    got = huffman_decode(*out, d->scratch + *used);
    if (got < 0)
        return HPACK_BROKEN;
    *out = slice(d->scratch + *used, (size_t)got);
    *used += (size_t)got;
    return HPACK_FIELD;
}

static struct hpack_entry *dynamic_entry(const struct hpack_decoder *d, uint32_t index)
{
    uint32_t back = index - HPACK_STATIC; /* 1: the newest */

    return back <= d->table.next - d->table.first
               ? hpack_table_entry(&d->table, d->table.next - back)
               : NULL;
}

static enum hpack_got indexed(struct hpack_decoder *d, uint32_t index, struct hpack_field *out)
{
    struct hpack_entry *e;

    if (index == 0)
        return HPACK_BROKEN;
    out->is_static = out->is_static_name = index <= HPACK_STATIC;
    if (index <= HPACK_STATIC) {
        out->name = hpack_static_name(index);
        out->value = hpack_static_value(index);
        out->note = hpack_static_note(index);
    } else {
        e = dynamic_entry(d, index);
        if (e == NULL)
            return HPACK_BROKEN;
        out->name = hpack_entry_name(&d->table, e);
        out->value = hpack_entry_value(&d->table, e);
        out->note = &e->note;
    }
    out->name_note = *out->note;
    out->is_sensitive = false;
    return HPACK_FIELD;
}

static enum hpack_got literal(struct hpack_decoder *d, slice_t *in, uint32_t index,
                              bool is_kept, struct hpack_field *out)
{
    size_t used = 0;
    enum hpack_got got;
    struct hpack_entry *e;

    if (index != 0) {
        got = indexed(d, index, out);
    } else {
        out->name_note = 0;
        out->is_static_name = false;
        got = read_string(d, in, &used, &out->name);
    }
    if (got != HPACK_FIELD)
        return got;
    out->note = NULL;
    out->is_static = false;
    got = read_string(d, in, &used, &out->value);
    if (got != HPACK_FIELD || !is_kept)
        return got;
    if (hpack_table_add(&d->table, out->name, out->value, &is_kept) != OK)
        return HPACK_NO_MEMORY;
    if (is_kept) {
        e = hpack_table_entry(&d->table, d->table.next - 1);
        if (!out->is_static_name)
            out->name = hpack_entry_name(&d->table, e);
        out->value = hpack_entry_value(&d->table, e);
        out->note = &e->note;
    }
    return HPACK_FIELD;
}

static bool resize(struct hpack_decoder *d, slice_t *in)
{
    uint32_t limit;

    if (d->has_field || ++d->resizes > RESIZES_MAX || !read_int(in, 0x1f, &limit) ||
        limit > d->limit)
        return false;
    hpack_table_resize(&d->table, limit);
    return true;
}

enum hpack_got hpack_decode(struct hpack_decoder *d, slice_t *block, struct hpack_field *out)
{
    uint32_t index;
    uint8_t first;

    for (;;) {
        if (block->n == 0)
            return HPACK_END;
        first = block->p[0];
        if ((first & 0xe0) != 0x20)
            break;
        if (!resize(d, block)) /* 6.3 */
            return HPACK_BROKEN;
    }
    d->has_field = true;
    if ((first & 0x80) != 0) /* 6.1 */
        return read_int(block, 0x7f, &index) ? indexed(d, index, out) : HPACK_BROKEN;
    out->is_sensitive = false;
    if ((first & 0x40) != 0) /* 6.2.1 */
        return read_int(block, 0x3f, &index) ? literal(d, block, index, true, out)
                                             : HPACK_BROKEN;
    if (!read_int(block, 0x0f, &index)) /* 6.2.2 and 6.2.3 */
        return HPACK_BROKEN;
    switch (literal(d, block, index, false, out)) {
    case HPACK_FIELD:
        out->is_sensitive = (first & 0x10) != 0;
        return HPACK_FIELD;
    case HPACK_NO_MEMORY:
        return HPACK_NO_MEMORY;
    case HPACK_END:
    case HPACK_BROKEN:
    default:
        return HPACK_BROKEN;
    }
}
