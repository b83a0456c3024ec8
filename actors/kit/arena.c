/* Blocks in a list, the newest first; only the newest has free bytes. A large wish gets a block of its
 * own size. The first block is small, since most exchanges are. */
#include "kit/arena.h"

#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_FIRST_BYTES 1024
#define ARENA_BLOCK_BYTES 16384

struct arena_block {
    struct arena_block *next;
    size_t cap, used; /* of mem */
    alignas(max_align_t) uint8_t mem[];
};

void arena_init(struct arena *a, size_t max)
{
    *a = (struct arena){.max = max};
}

void arena_done(struct arena *a)
{
    while (a->blocks != NULL) {
        struct arena_block *b = a->blocks;

        a->blocks = b->next;
        free(b);
    }
    a->used = 0;
}

void arena_reset(struct arena *a)
{
    struct arena_block *keep = NULL;

    /* Keep one of the usual size; a huge one would be held for ever by an idle owner. */
    while (a->blocks != NULL) {
        struct arena_block *b = a->blocks;

        a->blocks = b->next;
        if (keep == NULL && b->cap <= ARENA_BLOCK_BYTES)
            keep = b;
        else
            free(b);
    }
    if (keep != NULL) {
        keep->next = NULL;
        keep->used = 0;
    }
    a->blocks = keep;
    a->used = 0;
}

size_t arena_held(const struct arena *a)
{
    size_t n = 0;

    for (const struct arena_block *b = a->blocks; b != NULL; b = b->next)
        n += sizeof(*b) + b->cap;
    return n;
}

/* Each block is four times the last, up to a limit: most exchanges need little, and what they needed is kept. */
static struct arena_block *arena_add_block(struct arena *a, size_t n)
{
    size_t cap = a->blocks == NULL ? ARENA_FIRST_BYTES : a->blocks->cap * 4;
    struct arena_block *b;

    if (cap > ARENA_BLOCK_BYTES)
        cap = ARENA_BLOCK_BYTES;
    if (cap < n)
        cap = n;
    b = malloc(sizeof(*b) + cap);
    if (b == NULL)
        return NULL;
    b->next = a->blocks;
    b->cap = cap;
    b->used = 0;
    a->blocks = b;
    return b;
}

/* n bytes rounded up to *whole, aligned for any type, not zeroed. */
static inline void *take(struct arena *a, size_t n, size_t *rounded)
{
    const size_t align = alignof(max_align_t);
    struct arena_block *b = a->blocks;
    size_t whole;
    void *p;

    if (n > SIZE_MAX - sizeof(struct arena_block) - align)
        return NULL;
    whole = n == 0 ? align : (n + align - 1) / align * align;
    if (a->max != 0 && (whole > a->max || a->used > a->max - whole))
        return NULL;
    if (b == NULL || b->cap - b->used < whole) {
        b = arena_add_block(a, whole);
        if (b == NULL)
            return NULL;
    }
    p = b->mem + b->used;
    b->used += whole;
    a->used += whole;
    *rounded = whole;
    return p;
}

void *arena_alloc(struct arena *a, size_t n)
{
    size_t whole;
    void *p = take(a, n, &whole);

    return p != NULL ? memset(p, 0, whole) : NULL;
}

slice_t arena_copy_two(struct arena *arena, slice_t a, slice_t b)
{
    size_t whole;
    uint8_t *p;

    if (a.n >= SIZE_MAX / 2 || b.n >= SIZE_MAX / 2)
        return slice(NULL, 0);
    p = take(arena, a.n + b.n + 1, &whole);
    if (p == NULL)
        return slice(NULL, 0);
    if (a.n != 0)
        memcpy(p, a.p, a.n);
    if (b.n != 0)
        memcpy(p + a.n, b.p, b.n);
    p[a.n + b.n] = '\0';
    return slice(p, a.n + b.n);
}

slice_t arena_copy(struct arena *a, slice_t s)
{
    return arena_copy_two(a, s, slice(NULL, 0));
}
