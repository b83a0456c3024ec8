/* Structs to bytes. The recursion follows the table, whose depth is fixed (WIRE_RECORD_DEPTH).
 */
#include "wire/descriptor.h"
#include "wire/reader.h"
#include "wire/writer.h"

static err_t encode_fields(const struct wire_record *record, const void *base, struct buf *out);

static err_t encode_text(const struct wire_field *f, slice_t s, struct buf *out)
{
    if (s.n > f->max)
        return ERR_OF(WIRE_LIMIT);
    if (!wire_is_text(s))
        return ERR_OF(WIRE_TEXT);
    return wire_put_text(out, s);
}

static err_t encode_bytes(const struct wire_field *f, slice_t s, struct buf *out)
{
    return s.n > f->max ? ERR_OF(WIRE_LIMIT) : wire_put_bytes(out, s);
}

static err_t encode_list(const struct wire_field *f, const void *base, struct buf *out)
{
    size_t n = wire_count(f, base), n_fields;
    const char *item;

    memcpy(&item, wire_member_const(f, base), sizeof(item));
    if (n > f->max)
        return ERR_OF(WIRE_LIMIT);
    BUG_ON(n > 0 && item == NULL);
    TRY(wire_put_array(out, n));
    (void)f->record->fields(&n_fields); /* only the count is wanted */
    for (size_t i = 0; i < n; i++) {
        TRY(wire_put_array(out, n_fields));
        TRY(encode_fields(f->record, item + i * f->record->size, out));
    }
    return OK;
}

static err_t encode_field(const struct wire_field *f, const void *base, struct buf *out)
{
    const void *m = wire_member_const(f, base);

    switch (f->kind) {
    case WIRE_KIND_U8:
        return wire_put_u64(out, *(const uint8_t *)m);
    case WIRE_KIND_U16:
        return wire_put_u64(out, *(const uint16_t *)m);
    case WIRE_KIND_U32:
        return wire_put_u64(out, *(const uint32_t *)m);
    case WIRE_KIND_U64:
        return wire_put_u64(out, *(const uint64_t *)m);
    case WIRE_KIND_I64:
        return wire_put_i64(out, *(const int64_t *)m);
    case WIRE_KIND_BOOL:
        return wire_put_bool(out, *(const bool *)m);
    case WIRE_KIND_TEXT:
        return encode_text(f, *(const slice_t *)m, out);
    case WIRE_KIND_BYTES:
        return encode_bytes(f, *(const slice_t *)m, out);
    case WIRE_KIND_LIST:
        return encode_list(f, base, out);
    }
    bug("a kind that is not in the enum", __FILE__, __LINE__);
}

static err_t encode_fields(const struct wire_record *record, const void *base, struct buf *out)
{
    size_t n;
    const struct wire_field *fields = record->fields(&n);

    for (size_t i = 0; i < n; i++)
        TRY(encode_field(&fields[i], base, out));
    return OK;
}

static err_t encode_message(const struct wire_desc *d, const void *body, struct buf *out)
{
    size_t n;

    (void)d->record->fields(&n); /* only the count is wanted */
    TRY(wire_put_array(out, 2 + n));
    TRY(wire_put_u64(out, (uint64_t)d->code));
    TRY(wire_put_u64(out, d->version));
    return encode_fields(d->record, body, out);
}

err_t wire_encode(enum wire_code code, const void *body, struct buf *out)
{
    const struct wire_desc *d = wire_desc_of((unsigned)code);
    size_t before = buf_len(out);
    err_t why;

    if (d == NULL)
        return ERR_OF(WIRE_UNKNOWN);
    why = encode_message(d, body, out);
    if (why == OK && buf_len(out) - before > WIRE_MESSAGE_MAX)
        why = ERR_OF(WIRE_LIMIT);
    if (why != OK)
        out->tail = out->head + before; /* nothing of it remains */
    return why;
}
