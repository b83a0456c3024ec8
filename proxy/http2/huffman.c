/* The code is canonical (RFC 7541 appendix B): codes of one length are consecutive numbers in
 * the order of their symbols, and a longer code goes on where the shorter ones stop. So the
 * lengths say everything; the tables are made of them when the first string is decoded.
 *
 * Codes of up to SHORT_BITS bits, which is all of ASCII that occurs in heads, are one look-up
 * by the next bits; longer ones compare with the first code of each length. */
#include "proxy/http2/huffman.h"

#include "kit/attr.h"

#define SYMBOLS    257 /* 256 is the end of string */
#define EOS        256
#define BITS_MAX   30
#define SHORT_BITS 10

/* clang-format off */
static const uint8_t length_of[SYMBOLS] = {
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
};
/* clang-format on */

static struct {
    struct {
        uint8_t symbol, bits; /* bits 0: a longer code begins so */
    } by_short[1 << SHORT_BITS];
    uint16_t by_code[SYMBOLS];          /* symbols in the order of their codes */
    uint32_t first[BITS_MAX + 2];       /* the first code of a length, as the top of 32 bits;
                                           [BITS_MAX + 1]: the end */
    uint16_t first_place[BITS_MAX + 1]; /* its place in by_code */
    bool is_made;
} table;

static void make_table(void)
{
    uint32_t code = 0;
    uint16_t place = 0;

    for (unsigned bits = 1; bits <= BITS_MAX; bits++) {
        table.first[bits] = code;
        table.first_place[bits] = place;
        for (unsigned s = 0; s < SYMBOLS; s++) {
            if (length_of[s] != bits)
                continue;
            table.by_code[place++] = (uint16_t)s;
            if (bits <= SHORT_BITS) {
                uint32_t from = code >> (32 - SHORT_BITS);

                for (uint32_t i = 0; i < 1u << (SHORT_BITS - bits); i++) {
                    table.by_short[from + i].symbol = (uint8_t)s;
                    table.by_short[from + i].bits = (uint8_t)bits;
                }
            }
            code += 1u << (32 - bits); /* behind the last one it is 0 again */
        }
    }
    table.is_made = true;
}

/* The length of the long code that these 32 bits begin with. */
static unsigned long_code(uint32_t top)
{
    unsigned bits = SHORT_BITS + 1;

    while (bits < BITS_MAX && (table.first[bits + 1] <= top))
        bits++;
    return bits;
}

ssize_t huffman_decode(slice_t in, uint8_t *out)
{
    uint64_t acc = 0; /* the next bits, from the top */
    unsigned have = 0;
    const uint8_t *p = in.p, *end = in.p + in.n;
    uint8_t *to = out;

    if (UNLIKELY(!table.is_made))
        make_table();
    for (;;) {
        uint32_t top;
        unsigned bits;

        while (have <= 56 && p < end) {
            acc |= (uint64_t)*p++ << (56 - have);
            have += 8;
        }
        bits = table.by_short[acc >> (64 - SHORT_BITS)].bits;
        if (LIKELY(bits != 0 && bits <= have)) {
            *to++ = table.by_short[acc >> (64 - SHORT_BITS)].symbol;
        } else {
            uint16_t symbol;

            if (have < 8) /* what is left can only be padding: ones */
                return have == 0 || acc >> (64 - have) == (1u << have) - 1 ? to - out : -1;
            top = (uint32_t)(acc >> 32);
            bits = long_code(top);
            if (bits > have)
                return -1;
            symbol = table.by_code[table.first_place[bits] +
                                   ((top - table.first[bits]) >> (32 - bits))];
            if (symbol == EOS)
                return -1;
            *to++ = (uint8_t)symbol;
        }
        acc <<= bits;
        have -= bits;
    }
}
