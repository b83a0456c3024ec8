/* Bytes to structs. The schema is the guard: exact types, exact counts, limits before memory.
 * The recursion follows the table, whose depth is fixed (WIRE_RECORD_DEPTH), never the input.
 */
#include "wire/descriptor.h"
#include "wire/reader.h"

#define ERR(name, cls, text) ERR_DEFINE(name, cls, text)
#include "wire/tbl/errors.h"
#undef ERR

/* Lists may take this much memory per byte of the message; the table's worst record needs
 * about 20. */
#define MEMORY_PER_BYTE 32
#define MEMORY_BASE     4096

enum skew { SKEW_NONE, SKEW_OLDER, SKEW_NEWER }; /* the sender's version against ours */

struct decoder {
    struct wire_reader in;
    enum skew skew;
    struct arena *arena;
    const char *at; /* the field being read */
};

static err_t decode_record(struct decoder *d, const struct wire_record *record, uint32_t n_sent,
                           void *base);

/* How many of the n_sent fields are read, the rest being skipped; refuses what the version
 * forbids. */
static err_t check_field_count(enum skew skew, size_t n_known, uint32_t n_sent)
{
    if (n_sent < n_known && skew != SKEW_OLDER)
        return ERR_OF(WIRE_FIELDS);
    if (n_sent > n_known && skew != SKEW_NEWER)
        return ERR_OF(WIRE_FIELDS);
    return OK;
}

static err_t decode_list(struct decoder *d, const struct wire_field *f, void *base)
{
    uint32_t n, n_sent;
    size_t n_fields, least, count;
    char *items = NULL;

    TRY(wire_get_array(&d->in, &n));
    if (n > f->max)
        return ERR_OF(WIRE_LIMIT);
    (void)f->record->fields(&n_fields); /* only the count is wanted */
    least = d->skew == SKEW_OLDER ? 1 : 1 + n_fields;
    if (n > wire_reader_left(&d->in) / least)
        return ERR_OF(WIRE_TRUNCATED);
    if (n > 0) {
        items = arena_alloc(d->arena, (size_t)n * f->record->size);
        if (items == NULL)
            return ERR_OF(WIRE_MEMORY);
    }
    for (uint32_t i = 0; i < n; i++) {
        d->at = f->name;
        TRY(wire_get_array(&d->in, &n_sent));
        TRY(decode_record(d, f->record, n_sent, items + i * f->record->size));
    }
    count = n;
    memcpy(wire_member(f, base), &items, sizeof(items));
    memcpy((char *)base + f->n_offset, &count, sizeof(count));
    return OK;
}

static err_t decode_unsigned(struct decoder *d, const struct wire_field *f, void *m)
{
    uint64_t v;

    switch (f->kind) {
    case WIRE_KIND_U8:
        TRY(wire_get_u64(&d->in, UINT8_MAX, &v));
        *(uint8_t *)m = (uint8_t)v;
        return OK;
    case WIRE_KIND_U16:
        TRY(wire_get_u64(&d->in, UINT16_MAX, &v));
        *(uint16_t *)m = (uint16_t)v;
        return OK;
    case WIRE_KIND_U32:
        TRY(wire_get_u64(&d->in, UINT32_MAX, &v));
        *(uint32_t *)m = (uint32_t)v;
        return OK;
    case WIRE_KIND_U64:
        return wire_get_u64(&d->in, UINT64_MAX, m);
    case WIRE_KIND_I64:
    case WIRE_KIND_BOOL:
    case WIRE_KIND_TEXT:
    case WIRE_KIND_BYTES:
    case WIRE_KIND_LIST:
        break;
    }
    bug("not an unsigned kind", __FILE__, __LINE__);
}

static err_t decode_field(struct decoder *d, const struct wire_field *f, void *base)
{
    void *m = wire_member(f, base);

    d->at = f->name;
    switch (f->kind) {
    case WIRE_KIND_U8:
    case WIRE_KIND_U16:
    case WIRE_KIND_U32:
    case WIRE_KIND_U64:
        return decode_unsigned(d, f, m);
    case WIRE_KIND_I64:
        return wire_get_i64(&d->in, m);
    case WIRE_KIND_BOOL:
        return wire_get_bool(&d->in, m);
    case WIRE_KIND_TEXT:
        return wire_get_text(&d->in, f->max, m);
    case WIRE_KIND_BYTES:
        return wire_get_bytes(&d->in, f->max, m);
    case WIRE_KIND_LIST:
        return decode_list(d, f, base);
    }
    bug("a kind that is not in the enum", __FILE__, __LINE__);
}

/* `base` is zeroed, which is what the fields get that an older sender does not know. */
static err_t decode_record(struct decoder *d, const struct wire_record *record, uint32_t n_sent,
                           void *base)
{
    size_t n_known;
    const struct wire_field *fields = record->fields(&n_known);

    TRY(check_field_count(d->skew, n_known, n_sent));
    for (uint32_t i = 0; i < n_sent && i < n_known; i++)
        TRY(decode_field(d, &fields[i], base));
    for (size_t i = n_known; i < n_sent; i++) {
        d->at = record->name;
        TRY(wire_skip(&d->in));
    }
    return OK;
}

/* [code, version: the part that every version of every message has. */
static err_t decode_head(struct wire_reader *in, uint32_t *n, uint64_t *code, uint64_t *version)
{
    TRY(wire_get_array(in, n));
    if (*n < 2)
        return ERR_OF(WIRE_FIELDS);
    TRY(wire_get_u64(in, UINT16_MAX, code));
    TRY(wire_get_u64(in, UINT16_MAX, version));
    return *version == 0 ? ERR_OF(WIRE_VERSION) : OK;
}

static err_t decode(slice_t bytes, enum wire_role from, enum wire_role me, struct wire_msg *out)
{
    struct decoder d = {.in = wire_reader_of(bytes), .arena = &out->arena, .at = ""};
    const struct wire_desc *desc;
    uint64_t code = 0, version = 0;
    uint32_t n;
    err_t why;

    if (bytes.n > WIRE_MESSAGE_MAX)
        return ERR_OF(WIRE_LIMIT);
    TRY(decode_head(&d.in, &n, &code, &version));
    desc = wire_desc_of((unsigned)code);
    if (desc == NULL)
        return ERR_OF(WIRE_UNKNOWN);
    out->code = desc->code;
    out->version = (unsigned)version;
    if (((unsigned)desc->from & (unsigned)from) == 0 ||
        ((unsigned)desc->to & (unsigned)me) == 0)
        return ERR_OF(WIRE_ROLE);
    if (version != desc->version)
        d.skew = version < desc->version ? SKEW_OLDER : SKEW_NEWER;
    why = decode_record(&d, desc->record, n - 2, &out->body);
    if (why == OK && d.in.p != d.in.end)
        return ERR_OF(WIRE_LEFTOVER);
    if (why != OK)
        out->at = d.at;
    return why;
}

err_t wire_decode(slice_t bytes, enum wire_role from, enum wire_role me, struct wire_msg *out)
{
    err_t why;

    memset(out, 0, sizeof(*out));
    out->at = "";
    arena_init(&out->arena, bytes.n * MEMORY_PER_BYTE + MEMORY_BASE);
    why = decode(bytes, from, me, out);
    if (why != OK) {
        arena_done(&out->arena);
        memset(&out->body, 0, sizeof(out->body));
    }
    return why;
}

void wire_msg_done(struct wire_msg *msg)
{
    arena_done(&msg->arena);
    memset(&msg->body, 0, sizeof(msg->body));
}

const char *wire_name(enum wire_code code)
{
    switch (code) {
#define MESSAGE(name, code, version, from, to, doc)                                            \
    case WIRE_##name:                                                                          \
        return #name;
#include "wire/messages.def"
    }
    return "unknown";
}

unsigned wire_peek_code(slice_t bytes)
{
    struct wire_reader in = wire_reader_of(bytes);
    uint64_t code, version;
    uint32_t n;

    return decode_head(&in, &n, &code, &version) == OK ? (unsigned)code : 0;
}
