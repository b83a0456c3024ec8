#include "proxy/content/content.h"

#include "proxy/content/spill.h"

void content_init(struct content *c)
{
    memset(c, 0, sizeof(*c));
    buf_init(&c->mem, 0);
    c->first = c->last = c->at = SPILL_NONE;
}

static void drop_blocks(struct content *c)
{
    while (c->first != SPILL_NONE)
        c->first = spill_give(c->spill, c->first);
    c->last = c->at = SPILL_NONE;
    c->spill = NULL;
    c->spilled = 0;
}

void content_done(struct content *c)
{
    drop_blocks(c);
    buf_done(&c->mem);
    c->given = 0;
}

void content_reset(struct content *c)
{
    struct buf mem = c->mem;

    drop_blocks(c);
    buf_consume(&mem, buf_len(&mem));
    memset(c, 0, sizeof(*c));
    c->mem = mem;
    c->first = c->last = c->at = SPILL_NONE;
}

/* ---- a replay is what came ---- */

#if WEFT_SANITIZED
static uint64_t checksum(uint64_t sum, slice_t s)
{
    for (size_t i = 0; i < s.n; i++)
        sum = (sum ^ s.p[i]) * 0x100000001b3u; /* FNV-1a */
    return sum;
}

static void note_added(struct content *c, slice_t bytes)
{
    c->sum = checksum(c->sum, bytes);
}

static void note_given(struct content *c, slice_t bytes)
{
    c->sum_given = checksum(c->sum_given, bytes);
    BUG_ON(!c->has_forgotten && c->given == content_len(c) && c->sum_given != c->sum);
}
#else
static void note_added(struct content *c, slice_t bytes)
{
    (void)c, (void)bytes;
}

static void note_given(struct content *c, slice_t bytes)
{
    (void)c, (void)bytes;
}
#endif

/* ---- writing ---- */

/* The block behind the last byte, made if there is none. Bytes are aligned to blocks: the first block begins with
 * the first byte of the spill that is not forgotten. */
static uint32_t block_to_write(struct content *c, size_t spilled)
{
    uint32_t block;

    if (spilled % SPILL_BLOCK != 0)
        return c->last;
    block = spill_take(c->spill);
    if (block == SPILL_NONE)
        return SPILL_NONE;
    if (c->last == SPILL_NONE)
        c->first = block;
    else
        spill_link(c->spill, c->last, block);
    c->last = block;
    return block;
}

/* Gives back the blocks behind `spilled` bytes: those of a write that failed. */
static void trim(struct content *c)
{
    size_t n = (c->spilled + SPILL_BLOCK - 1) / SPILL_BLOCK;
    uint32_t last = SPILL_NONE, block = c->first;

    for (size_t i = 0; i < n; i++) {
        last = block;
        block = spill_next(c->spill, block);
    }
    while (block != SPILL_NONE)
        block = spill_give(c->spill, block);
    c->last = last;
    if (last == SPILL_NONE)
        c->first = SPILL_NONE;
    else
        spill_link(c->spill, last, SPILL_NONE);
}

static err_t add_to_spill(struct content *c, slice_t bytes, struct spill *spill)
{
    size_t spilled = c->spilled;

    if (spill == NULL || bytes.n > spill_room(spill) + (SPILL_BLOCK - spilled % SPILL_BLOCK) % SPILL_BLOCK)
        return ERR_OF(TOO_BIG);
    c->spill = spill;
    while (bytes.n > 0) {
        uint32_t block = block_to_write(c, spilled);
        size_t at = spilled % SPILL_BLOCK;
        slice_t part = slice(bytes.p, bytes.n < SPILL_BLOCK - at ? bytes.n : SPILL_BLOCK - at);

        if (block == SPILL_NONE || spill_write(spill, block, at, part) != OK) {
            trim(c);
            return ERR_OF(NOMEM);
        }
        spilled += part.n;
        bytes = slice_skip(bytes, part.n);
    }
    c->spilled = spilled;
    return OK;
}

err_t content_add(struct content *c, slice_t bytes, size_t memory_max, struct spill *spill)
{
    size_t have = buf_len(&c->mem), old = c->spilled;
    size_t room = c->spilled > 0 || have >= memory_max ? 0 : memory_max - have;
    slice_t head = slice(bytes.p, bytes.n < room ? bytes.n : room);
    slice_t tail = slice_skip(bytes, head.n);

    if (tail.n > 0)
        TRY(add_to_spill(c, tail, spill));
    if (head.n > 0 && buf_add_slice(&c->mem, head) != OK) {
        c->spilled = old;
        if (c->spill != NULL)
            trim(c);
        return ERR_OF(NOMEM);
    }
    note_added(c, bytes);
    return OK;
}

/* ---- reading ---- */

/* The block of the next byte to give, which is in the spill, `so` bytes behind its beginning there. */
static uint32_t block_to_read(const struct content *c, size_t so)
{
    if (so == 0)
        return c->first;
    return so % SPILL_BLOCK == 0 ? spill_next(c->spill, c->at) : c->at;
}

slice_t content_next(const struct content *c, size_t max)
{
    size_t left = content_left(c), n = left < max ? left : max, so;

    if (n == 0)
        return slice(NULL, 0);
    if (c->given < buf_len(&c->mem)) {
        slice_t s = slice_skip(buf_slice(&c->mem), c->given);

        return slice(s.p, s.n < n ? s.n : n);
    }
    so = c->given - buf_len(&c->mem);
    if (n > SPILL_BLOCK - so % SPILL_BLOCK)
        n = SPILL_BLOCK - so % SPILL_BLOCK;
    return spill_read(c->spill, block_to_read(c, so), so % SPILL_BLOCK, n);
}

void content_gave(struct content *c, size_t n)
{
    while (n > 0) {
        slice_t s = content_next(c, n);

        BUG_ON(s.n == 0); /* more than is left */
        if (c->given >= buf_len(&c->mem))
            c->at = block_to_read(c, c->given - buf_len(&c->mem));
        c->given += s.n;
        note_given(c, s);
        n -= s.n;
    }
}

void content_rewind(struct content *c)
{
    c->given = 0;
    c->at = SPILL_NONE;
#if WEFT_SANITIZED
    BUG_ON(c->has_forgotten);
    c->sum_given = 0;
#endif
}

void content_forget(struct content *c)
{
    size_t of_mem = c->given < buf_len(&c->mem) ? c->given : buf_len(&c->mem);

#if WEFT_SANITIZED
    c->has_forgotten = c->has_forgotten || c->given > 0;
#endif
    buf_consume(&c->mem, of_mem);
    c->given -= of_mem;
    if (c->given == c->spilled) {
        drop_blocks(c);
        c->given = 0;
        return;
    }
    while (c->given >= SPILL_BLOCK) {
        c->first = spill_give(c->spill, c->first);
        c->spilled -= SPILL_BLOCK;
        c->given -= SPILL_BLOCK;
    }
}
