/* Room for request content that is too large to be kept in memory of the process: an anonymous memory file
 * (memfd, swappable, never on a disk by name), cut into blocks.
 *
 * The file and its mapping are made once, before the process is confined, so that nothing has to be opened
 * later. Bytes are written with pwrite (memory that is not there is an error, not a signal) and read where
 * they are mapped. A block that is given back gives its memory back to the kernel.
 *
 * One spill per worker; a chain of blocks per content (proxy/content/content.h). */
#ifndef PROXY_CONTENT_SPILL_H
#define PROXY_CONTENT_SPILL_H

#include "kit/err.h"
#include "kit/slice.h"

#include <stdint.h>

#define SPILL_BLOCK ((size_t)64 * 1024)
#define SPILL_NONE  UINT32_MAX /* no block */

struct spill;

/* `cap` bytes, rounded down to blocks; fewer than one block is BAD_SETTING, no memory file NOMEM. */
MUST_USE err_t spill_new(size_t cap, struct spill **out);
void spill_free(struct spill **s);

size_t spill_room(const struct spill *s); /* bytes in free blocks */
size_t spill_used(const struct spill *s); /* bytes in taken blocks */

/* A free block, or SPILL_NONE. It has no successor. */
uint32_t spill_take(struct spill *s);
/* Gives a block back; returns its successor. */
uint32_t spill_give(struct spill *s, uint32_t block);
/* Makes `next` (or SPILL_NONE) the successor of `block`. */
void spill_link(struct spill *s, uint32_t block, uint32_t next);
uint32_t spill_next(const struct spill *s, uint32_t block);

/* Writes inside of one block. NOMEM: the kernel has no memory for it, nothing may be relied on behind `at`. */
MUST_USE err_t spill_write(struct spill *s, uint32_t block, size_t at, slice_t bytes);
/* What was written, where it lies; valid until the block is given back. */
slice_t spill_read(const struct spill *s, uint32_t block, size_t at, size_t n);

#endif
