/* Request content that is kept: to be sent to an attempt that has no connection yet, and to be sent again
 * to the next one.
 *
 *     [ in memory ........ | in the spill .................. ]
 *       ^ forgotten so far            ^ given to this attempt
 *
 * Written once at the end, read by offset as often as there are attempts; never moved, so that a replay is
 * what came, byte for byte (sanitized builds compare a checksum of every replay). Who owns it decides how
 * much is kept where; nothing here counts. */
#ifndef PROXY_CONTENT_CONTENT_H
#define PROXY_CONTENT_CONTENT_H

#include "kit/buf.h"
#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct spill;

struct content {
    struct buf mem;
    struct spill *spill; /* lent; NULL until something is in there */
    uint32_t first, last; /* its blocks */
    uint32_t at;          /* the block of the next byte to give, if that is in the spill */
    size_t spilled;       /* bytes in there */
    size_t given;         /* of all that is kept */
#if WEFT_SANITIZED
    uint64_t sum, sum_given; /* of everything that was added; of what this replay has given */
    bool has_forgotten;
#endif
};

void content_init(struct content *c);
void content_done(struct content *c);  /* frees */
void content_reset(struct content *c); /* empties; memory of small content stays for the next */

static inline size_t content_in_memory(const struct content *c)
{
    return buf_len(&c->mem);
}

static inline size_t content_len(const struct content *c)
{
    return buf_len(&c->mem) + c->spilled;
}

/* Kept and not given to this attempt yet. */
static inline size_t content_left(const struct content *c)
{
    return buf_len(&c->mem) + c->spilled - c->given;
}

/* Adds all of it or nothing: the first bytes in memory up to `memory_max` of all content there (unless something is in
 * the spill already), the rest in `spill` (may be NULL). TOO_BIG: no room there; NOMEM. */
MUST_USE err_t content_add(struct content *c, slice_t bytes, size_t memory_max, struct spill *spill);

/* The next bytes to give, at most `max` and in one piece; empty: nothing left. Valid until the content changes. */
slice_t content_next(const struct content *c, size_t max);
/* n of the next bytes were given. */
void content_gave(struct content *c, size_t n);
/* Everything is to be given again. Not after content_forget. */
void content_rewind(struct content *c);
/* What was given is not needed any more. */
void content_forget(struct content *c);

#endif
