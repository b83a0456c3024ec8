/* Messages filled with made-up values, driven by the table: fuzz seeds, tests, benchmarks. */
#ifndef WIRE_SAMPLE_H
#define WIRE_SAMPLE_H

#include "wire/descriptor.h"

struct wire_sample_how {
    uint64_t seed;   /* the same seed makes the same message */
    size_t list_max; /* at most so many records in a list (and the table's limit) */
    size_t text_max; /* at most so many bytes in TEXT and BYTES (and the table's limit) */
    bool is_full;    /* lists and texts exactly that long and numbers at their largest */
};

/* Fills *body (zeroed by the caller); everything it points at is in `arena`. NOMEM at its
 * ceiling. */
MUST_USE err_t wire_sample(const struct wire_desc *desc, const struct wire_sample_how *how,
                           struct arena *arena, union wire_body *body);

#endif
