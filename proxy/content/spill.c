#include "proxy/content/spill.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct spill {
    int fd;
    uint8_t *map;
    uint32_t n_blocks, n_free;
    uint32_t free;  /* chain of free blocks */
    uint32_t next[]; /* of every block */
};

err_t spill_new(size_t cap, struct spill **out)
{
    size_t n = cap / SPILL_BLOCK;
    struct spill *s;
    void *map;

    if (n == 0 || n >= SPILL_NONE)
        return ERR_OF(BAD_SETTING);
    s = calloc(1, sizeof(*s) + n * sizeof(s->next[0]));
    if (s == NULL)
        return ERR_OF(NOMEM);
    s->fd = -1;
    s->n_blocks = s->n_free = (uint32_t)n;
    for (uint32_t i = 0; i < s->n_blocks; i++)
        s->next[i] = i + 1 < s->n_blocks ? i + 1 : SPILL_NONE;
    s->fd = memfd_create("weft-replay", MFD_CLOEXEC);
    if (s->fd < 0 || ftruncate(s->fd, (off_t)(n * SPILL_BLOCK)) != 0) {
        spill_free(&s);
        return ERR_OF(NOMEM);
    }
    map = mmap(NULL, n * SPILL_BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, s->fd, 0);
    if (map == MAP_FAILED) {
        spill_free(&s);
        return ERR_OF(NOMEM);
    }
    s->map = map;
    *out = s;
    return OK;
}

void spill_free(struct spill **sp)
{
    struct spill *s = *sp;

    if (s == NULL)
        return;
    if (s->map != NULL)
        (void)munmap(s->map, s->n_blocks * SPILL_BLOCK);
    if (s->fd >= 0)
        (void)close(s->fd);
    free(s);
    *sp = NULL;
}

size_t spill_room(const struct spill *s)
{
    return s->n_free * SPILL_BLOCK;
}

size_t spill_used(const struct spill *s)
{
    return (s->n_blocks - s->n_free) * SPILL_BLOCK;
}

static size_t offset_of(const struct spill *s, uint32_t block)
{
    BUG_ON(block >= s->n_blocks);
    return block * SPILL_BLOCK;
}

uint32_t spill_take(struct spill *s)
{
    uint32_t block = s->free;

    if (block == SPILL_NONE)
        return SPILL_NONE;
    s->free = s->next[block];
    s->next[block] = SPILL_NONE;
    s->n_free--;
    return block;
}

uint32_t spill_give(struct spill *s, uint32_t block)
{
    size_t at = offset_of(s, block);
    uint32_t next = s->next[block];

    /* A kernel that refuses keeps the pages until the block is written again: no harm. */
    (void)madvise(s->map + at, SPILL_BLOCK, MADV_REMOVE);
    s->next[block] = s->free;
    s->free = block;
    s->n_free++;
    return next;
}

void spill_link(struct spill *s, uint32_t block, uint32_t next)
{
    (void)offset_of(s, block);
    s->next[block] = next;
}

uint32_t spill_next(const struct spill *s, uint32_t block)
{
    (void)offset_of(s, block);
    return s->next[block];
}

err_t spill_write(struct spill *s, uint32_t block, size_t at, slice_t bytes)
{
    size_t to = offset_of(s, block) + at;

    BUG_ON(at > SPILL_BLOCK || bytes.n > SPILL_BLOCK - at);
    while (bytes.n > 0) {
        ssize_t n = pwrite(s->fd, bytes.p, bytes.n, (off_t)to);

        if (n <= 0)
            return ERR_OF(NOMEM);
        to += (size_t)n;
        bytes = slice_skip(bytes, (size_t)n);
    }
    return OK;
}

slice_t spill_read(const struct spill *s, uint32_t block, size_t at, size_t n)
{
    size_t from = offset_of(s, block) + at;

    BUG_ON(at > SPILL_BLOCK || n > SPILL_BLOCK - at);
    return slice(s->map + from, n);
}
