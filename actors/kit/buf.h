/* A byte queue with a ceiling: written at the end, consumed at the front.
 *
 * Memory is taken when first needed and given back when the queue is empty and buf_release() is called.
 * Above the ceiling a write is refused whole (nothing is written) and the caller stops its source.
 */
#ifndef KIT_BUF_H
#define KIT_BUF_H

#include "kit/attr.h"
#include "kit/err.h"
#include "kit/slice.h"

#include <string.h>

struct buf {
    uint8_t *mem;
    size_t cap;  /* bytes allocated at mem */
    size_t head; /* first unread byte */
    size_t tail; /* first free byte */
    size_t max;  /* ceiling of the unread bytes; 0 = none */
};

void buf_init(struct buf *b, size_t max);
void buf_done(struct buf *b); /* frees; the buf may be used again as after buf_init */

static inline size_t buf_len(const struct buf *b)
{
    return b->tail - b->head;
}

/* The unread bytes; valid until the next call that takes a non-const buf. */
static inline slice_t buf_slice(const struct buf *b)
{
    return slice(b->mem != NULL ? b->mem + b->head : NULL, b->tail - b->head);
}

/* Makes room for at least n bytes behind the tail and returns it, or NULL (ceiling or memory).
 * Write up to n bytes there, then call buf_commit with what was written. */
static inline MUST_USE uint8_t *buf_reserve(struct buf *b, size_t n);
static inline void buf_commit(struct buf *b, size_t n)
{
    BUG_ON(n > b->cap - b->tail);
    b->tail += n;
}

static inline MUST_USE err_t buf_add(struct buf *b, const void *p, size_t n);
static inline MUST_USE err_t buf_add_slice(struct buf *b, slice_t s)
{
    return buf_add(b, s.p, s.n);
}
MUST_USE err_t buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Forgets n unread bytes (n <= buf_len). When none are left head and tail go back to 0. */
static inline void buf_consume(struct buf *b, size_t n)
{
    BUG_ON(n > buf_len(b));
    b->head += n;
    if (b->head == b->tail)
        b->head = b->tail = 0;
}

/* Gives the memory back if nothing is unread (for idle connections). */
void buf_release(struct buf *b);

/* buf_consume and wipe: for bytes that were secret. */
void buf_wipe(struct buf *b);

/* ---- inline: what happens for every few bytes of every request, when there is room already ---- */

uint8_t *buf_reserve_more(struct buf *b, size_t n); /* buf_reserve without room behind the tail */
err_t buf_add_more(struct buf *b, const void *p, size_t n);

static inline uint8_t *buf_reserve(struct buf *b, size_t n)
{
    if (LIKELY(b->mem != NULL && b->max == 0 && n <= b->cap - b->tail))
        return b->mem + b->tail;
    return buf_reserve_more(b, n);
}

static inline err_t buf_add(struct buf *b, const void *p, size_t n)
{
    if (UNLIKELY(b->mem == NULL || b->max != 0 || n == 0 || n > b->cap - b->tail))
        return buf_add_more(b, p, n);
    memcpy(b->mem + b->tail, p, n);
    b->tail += n;
    return OK;
}

#endif
