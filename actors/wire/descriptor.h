/* The table as data: what the encoder, the decoder, the samples and the documentation walk
 * over. */
#ifndef WIRE_DESCRIPTOR_H
#define WIRE_DESCRIPTOR_H

#include "wire/wire.h"

enum wire_kind {
    WIRE_KIND_U8,
    WIRE_KIND_U16,
    WIRE_KIND_U32,
    WIRE_KIND_U64,
    WIRE_KIND_I64,
    WIRE_KIND_BOOL,
    WIRE_KIND_TEXT,
    WIRE_KIND_BYTES,
    WIRE_KIND_LIST
};

struct wire_record;

struct wire_field {
    const char *name;
    enum wire_kind kind;
    uint32_t max;                     /* TEXT, BYTES: bytes; LIST: records */
    uint16_t offset;                  /* of the member in its struct; LIST: of the pointer */
    uint16_t n_offset;                /* LIST: of the count */
    const struct wire_record *record; /* LIST */
};

struct wire_record {
    const char *name;
    size_t size; /* of the struct */
    /* The fields in wire order. A function, because offsetof needs the struct's name, which the
     * field lines of the table do not say. */
    const struct wire_field *(*fields)(size_t *n);
};

struct wire_desc {
    enum wire_code code;
    unsigned version;
    enum wire_role from, to;
    const struct wire_record *record;
};

/* Records nest at most this deep below a message (a unit test walks the table). */
#define WIRE_RECORD_DEPTH 6

/* All messages in the order of the table. */
const struct wire_desc *wire_descs(size_t *n);

/* NULL if the code is not in the table. Constant time. */
const struct wire_desc *wire_desc_of(unsigned code);

/* All records in the order of the table. */
const struct wire_record *const *wire_records(size_t *n);

/* Member access for walkers. */
static inline void *wire_member(const struct wire_field *f, void *base)
{
    return (char *)base + f->offset;
}

static inline const void *wire_member_const(const struct wire_field *f, const void *base)
{
    return (const char *)base + f->offset;
}

static inline size_t wire_count(const struct wire_field *f, const void *base)
{
    size_t n;

    memcpy(&n, (const char *)base + f->n_offset, sizeof(n));
    return n;
}

#endif
