/* A bounded cursor over msgpack bytes that came from somebody else.
 *
 * Nothing is allocated here and no byte outside the slice is read. Every function reads one
 * value and moves on; on an error the cursor stays where it was and *out is untouched. A count
 * that cannot be true (more elements than bytes left) is refused before anybody allocates for
 * it. An integer may be in any of msgpack's integer formats; what counts is its value.
 *
 * Errors: WIRE_TRUNCATED, WIRE_TYPE, WIRE_RANGE, WIRE_LIMIT, WIRE_TEXT, WIRE_DEPTH.
 */
#ifndef WIRE_READER_H
#define WIRE_READER_H

#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct wire_reader {
    const uint8_t *p, *end;
};

/* Values nested deeper than this are not skipped but refused. */
#define WIRE_SKIP_DEPTH 8

static inline struct wire_reader wire_reader_of(slice_t bytes)
{
    if (bytes.n == 0) /* p may be NULL, to which not even 0 may be added */
        bytes = SLICE_LIT("");
    return (struct wire_reader){bytes.p, bytes.p + bytes.n};
}

static inline size_t wire_reader_left(const struct wire_reader *r)
{
    return (size_t)(r->end - r->p);
}

MUST_USE err_t wire_get_array(struct wire_reader *r, uint32_t *n);
MUST_USE err_t wire_get_map(struct wire_reader *r, uint32_t *n); /* n pairs follow */
MUST_USE err_t wire_get_u64(struct wire_reader *r, uint64_t max, uint64_t *out);
MUST_USE err_t wire_get_i64(struct wire_reader *r, int64_t *out);
MUST_USE err_t wire_get_f64(struct wire_reader *r,
                            double *out); /* finite; an integer is fine too */
MUST_USE err_t wire_get_bool(struct wire_reader *r, bool *out);
MUST_USE err_t wire_get_text(struct wire_reader *r, size_t max,
                             slice_t *out); /* UTF-8, no NUL */
MUST_USE err_t wire_get_bytes(struct wire_reader *r, size_t max, slice_t *out);

/* Steps over one value of any type, known or not. */
MUST_USE err_t wire_skip(struct wire_reader *r);

/* Well-formed UTF-8 (no surrogates, no overlong forms) without NUL. */
bool wire_is_text(slice_t s);

#endif
