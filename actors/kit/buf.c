/* A byte queue in one piece of memory. The unread bytes lie at [head, tail); room is found, in this
 * order, behind the tail, by moving the unread bytes to the front, and by a larger piece. */
#include "kit/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_FIRST_BYTES 512

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}

void buf_done(struct buf *b)
{
    free(b->mem);
    *b = (struct buf){.max = b->max};
}

/* A new piece that holds the unread bytes and n more. */
static bool buf_grow(struct buf *b, size_t n)
{
    size_t len = buf_len(b);
    size_t cap = b->cap != 0 ? b->cap : BUF_FIRST_BYTES;
    uint8_t *mem;

    while (cap < len + n)
        cap = cap > SIZE_MAX / 2 ? len + n : cap * 2;
    if (b->max != 0 && cap > b->max && len + n <= b->max)
        cap = b->max;
    mem = malloc(cap);
    if (mem == NULL)
        return false;
    if (len != 0)
        memcpy(mem, b->mem + b->head, len);
    free(b->mem);
    b->mem = mem;
    b->cap = cap;
    b->head = 0;
    b->tail = len;
    return true;
}

uint8_t *buf_reserve_more(struct buf *b, size_t n)
{
    size_t len = buf_len(b);

    if (n > SIZE_MAX - len || (b->max != 0 && len + n > b->max))
        return NULL;
    if (b->mem == NULL || b->cap - b->tail < n) {
        if (b->mem != NULL && b->cap - len >= n && len <= b->head) {
            /* Room at the front, and the move is not larger than what was consumed: amortised O(1). */
            memcpy(b->mem, b->mem + b->head, len);
            b->head = 0;
            b->tail = len;
        } else if (b->mem != NULL && b->cap - len >= n && b->max != 0 && b->cap >= b->max) {
            memmove(b->mem, b->mem + b->head, len); /* cannot grow: must move */
            b->head = 0;
            b->tail = len;
        } else if (!buf_grow(b, n)) {
            return NULL;
        }
    }
    return b->mem + b->tail;
}

err_t buf_add_more(struct buf *b, const void *p, size_t n)
{
    uint8_t *room;

    if (n == 0)
        return OK;
    room = buf_reserve(b, n);
    if (room == NULL)
        return b->max != 0 && (n > b->max || buf_len(b) > b->max - n) ? ERR_OF(TOO_BIG)
                                                                      : ERR_OF(NOMEM);
    memcpy(room, p, n);
    b->tail += n;
    return OK;
}

err_t buf_printf(struct buf *b, const char *fmt, ...)
{
    char small[256];
    va_list ap;
    int n;
    uint8_t *room;

    va_start(ap, fmt);
    n = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    if (n < 0)
        return ERR_OF(MALFORMED);
    if ((size_t)n < sizeof(small))
        return buf_add(b, small, (size_t)n);
    if (b->max != 0 && ((size_t)n > b->max || buf_len(b) > b->max - (size_t)n))
        return ERR_OF(TOO_BIG);
    /* One byte more for the NUL of vsnprintf, which may lie above the ceiling of the unread bytes. */
    if (b->mem == NULL || b->cap - b->tail < (size_t)n + 1) {
        if (!buf_grow(b, (size_t)n + 1))
            return ERR_OF(NOMEM);
    }
    room = b->mem + b->tail;
    va_start(ap, fmt);
    (void)vsnprintf((char *)room, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->tail += (size_t)n;
    return OK;
}

void buf_release(struct buf *b)
{
    if (b->head != b->tail || b->mem == NULL)
        return;
    buf_done(b);
}

void buf_wipe(struct buf *b)
{
    if (b->mem != NULL)
        explicit_bzero(b->mem, b->cap);
    b->head = b->tail = 0;
}
