/* Memory of one exchange or one decoded message: many small allocations, one free. */
#ifndef KIT_ARENA_H
#define KIT_ARENA_H

#include "kit/err.h"
#include "kit/slice.h"

struct arena_block;

struct arena {
    struct arena_block *blocks; /* newest first */
    size_t used, max;           /* bytes handed out; ceiling (0 = none) */
};

void arena_init(struct arena *a, size_t max);
void arena_done(struct arena *a);
void arena_reset(struct arena *a); /* forgets everything, keeps one block for the next use */
size_t arena_held(const struct arena *a); /* bytes of the blocks it has now */

/* Aligned for any type, zeroed. NULL at the ceiling or without memory. */
MUST_USE void *arena_alloc(struct arena *a, size_t n);
/* A copy of s (with a NUL behind it, not counted). p == NULL and n == 0 if there is no room. */
MUST_USE slice_t arena_copy(struct arena *a, slice_t s);
/* A copy of a and b in one piece, b behind a (and a NUL behind both). p == NULL if there is no room. */
MUST_USE slice_t arena_copy_two(struct arena *arena, slice_t a, slice_t b);

#endif
