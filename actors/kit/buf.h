/* A byte queue with a ceiling: written at the end, consumed at the front.
 *
 * Memory is taken when first needed and given back when the queue is empty and buf_release() is called.
 * Above the ceiling a write is refused whole (nothing is written) and the caller stops its source.
 */
#ifndef KIT_BUF_H
#define KIT_BUF_H

#include "kit/err.h"
#include "kit/slice.h"

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
MUST_USE uint8_t *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);

MUST_USE err_t buf_add(struct buf *b, const void *p, size_t n);
MUST_USE err_t buf_add_slice(struct buf *b, slice_t s);
MUST_USE err_t buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Forgets n unread bytes (n <= buf_len). When none are left head and tail go back to 0. */
void buf_consume(struct buf *b, size_t n);

/* Gives the memory back if nothing is unread (for idle connections). */
void buf_release(struct buf *b);

/* buf_consume and wipe: for bytes that were secret. */
void buf_wipe(struct buf *b);

#endif
