/* Eight bytes of text at a time. A mask has 0x80 in each byte that is meant; the first byte of the text is the lowest. */
#ifndef PROXY_HTTP_WORDS_H
#define PROXY_HTTP_WORDS_H

#include "kit/attr.h"

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WORD_EVERY(byte) (UINT64_C(0x0101010101010101) * (byte))
#define WORD_HIGH        WORD_EVERY(0x80)

/* Up to eight bytes, zeros behind them. */
static inline uint64_t word_load(const uint8_t *p, size_t n)
{
    uint64_t w = 0;

    if (LIKELY(n >= 8)) {
        memcpy(&w, p, 8);
        return le64toh(w);
    }
    if (n >= 4) {
        uint32_t low, high;

        memcpy(&low, p, 4);
        memcpy(&high, p + n - 4, 4);
        return le32toh(low) | (uint64_t)le32toh(high) << (8 * (n - 4));
    }
    for (size_t i = 0; i < n; i++)
        w |= (uint64_t)p[i] << (8 * i);
    return w;
}

/* All eight. */
static inline void word_store(uint8_t *p, uint64_t w)
{
    w = htole64(w);
    memcpy(p, &w, 8);
}

/* Bytes between `from` and `to`, inclusive, both below 0x80. No byte of w is above 0x7f. */
static inline uint64_t word_between(uint64_t w, unsigned from, unsigned to)
{
    return (w + WORD_EVERY(0x80 - from)) & ~(w + WORD_EVERY(0x7f - to)) & WORD_HIGH;
}

/* Bytes that are `byte`. No byte of w is above 0x7f. */
static inline uint64_t word_is(uint64_t w, unsigned byte)
{
    return (WORD_HIGH - (w ^ WORD_EVERY(byte))) & WORD_HIGH;
}

/* Bytes below 0x20 (HTAB included) and 0x7f, of any w. One that follows such a byte may be reported wrongly, the
 * first never: enough for "is there any" and "where is the first". */
static inline uint64_t word_controls(uint64_t w)
{
    uint64_t below = (w - WORD_EVERY(0x20)) & ~w;
    uint64_t x = w ^ WORD_EVERY(0x7f);
    uint64_t del = (x - WORD_EVERY(0x01)) & ~x;

    return (below | del) & WORD_HIGH;
}

/* Where the lowest byte of a mask that is not 0 stands. */
static inline size_t word_first(uint64_t mask)
{
    return (size_t)__builtin_ctzll(mask) / 8;
}

#endif
