/* SipHash-1-3 (Aumasson and Bernstein; one compression round, three final rounds) under a key
 * that is drawn once per process. */
#include "kit/hash.h"

#include "kit/err.h"
#include "kit/random.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct sip {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, unsigned bits)
{
    return (x << bits) | (x >> (64 - bits));
}

static inline void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = rotl(s->v1, 13) ^ s->v0;
    s->v0 = rotl(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotl(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotl(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotl(s->v1, 17) ^ s->v2;
    s->v2 = rotl(s->v2, 32);
}

static inline uint64_t load_le64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

uint64_t kit_hash_keyed(uint64_t k0, uint64_t k1, const void *data, size_t n)
{
    const uint8_t *p = data;
    struct sip s = {k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
                    k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573)};
    uint64_t last = (uint64_t)n << 56;

    for (size_t left = n; left >= 8; left -= 8, p += 8) {
        uint64_t m = load_le64(p);

        s.v3 ^= m;
        sip_round(&s);
        s.v0 ^= m;
    }
    for (size_t i = 0; i < (n & 7); i++)
        last |= (uint64_t)p[i] << (8 * i);
    s.v3 ^= last;
    sip_round(&s);
    s.v0 ^= last;
    s.v2 ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

uint64_t kit_hash(const void *p, size_t n)
{
    static uint64_t key[2]; /* drawn on first use, then never written */

    if (UNLIKELY((key[0] | key[1]) == 0)) {
        random_bytes(key, sizeof(key));
        key[0] |= 1;
    }
    return kit_hash_keyed(key[0], key[1], p, n);
}

/* ---- tables' memory ---- */

#define RESERVE_BLOCKS 16

static struct {
    _Alignas(max_align_t) uint8_t mem[RESERVE_BLOCKS][HASH_RESERVE_BLOCK];
    bool is_taken[RESERVE_BLOCKS];
} reserve; /* pages that are never touched cost nothing */

void *kit_hash_alloc(size_t n)
{
    void *p = malloc(n);

    for (size_t i = 0; p == NULL && n <= HASH_RESERVE_BLOCK && i < RESERVE_BLOCKS; i++)
        if (!reserve.is_taken[i]) {
            reserve.is_taken[i] = true;
            p = reserve.mem[i];
        }
    BUG_ON(p == NULL); /* no memory for a table, and the reserve is used up */
    return p;
}

void kit_hash_release(void *p)
{
    uintptr_t at = (uintptr_t)p, from = (uintptr_t)reserve.mem;

    if (at >= from && at < from + sizeof(reserve.mem))
        reserve.is_taken[(at - from) / HASH_RESERVE_BLOCK] = false;
    else
        free(p);
}
