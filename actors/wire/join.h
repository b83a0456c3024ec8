/* The join token as text: "weft1.ID.SECRET", ID 16 hex digits, SECRET 64: a CURVE secret key.
 */
#ifndef WIRE_JOIN_H
#define WIRE_JOIN_H

#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define WIRE_JOIN_TEXT 88 /* 6 + 16 + 1 + 64 and a NUL */

struct wire_join {
    char id[17];
    uint8_t secret[32];
};

static inline int wire_join_hex(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* False if it is not exactly a token (a line end behind it is allowed). */
static inline bool wire_join_parse(slice_t text, struct wire_join *out)
{
    while (text.n > 0 && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r'))
        text.n--;
    if (text.n != WIRE_JOIN_TEXT - 1 || memcmp(text.p, "weft1.", 6) != 0 || text.p[22] != '.')
        return false;
    for (size_t i = 0; i < 16; i++) {
        if (wire_join_hex(text.p[6 + i]) < 0)
            return false;
        out->id[i] = (char)text.p[6 + i];
    }
    out->id[16] = '\0';
    for (size_t i = 0; i < 32; i++) {
        int high = wire_join_hex(text.p[23 + 2 * i]), low = wire_join_hex(text.p[24 + 2 * i]);
        if (high < 0 || low < 0)
            return false;
        out->secret[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* out has WIRE_JOIN_TEXT bytes. */
static inline void wire_join_format(const struct wire_join *join, char *out)
{
    static const char digits[] = "0123456789abcdef";
    memcpy(out, "weft1.", 6);
    memcpy(out + 6, join->id, 16);
    out[22] = '.';
    for (size_t i = 0; i < 32; i++) {
        out[23 + 2 * i] = digits[join->secret[i] >> 4];
        out[24 + 2 * i] = digits[join->secret[i] & 15];
    }
    out[WIRE_JOIN_TEXT - 1] = '\0';
}

/* 32 bytes as the 40 characters of Z85 (ZeroMQ RFC 32) and a NUL: the form mailboxes take keys
 * in. */
static inline void wire_join_z85(const uint8_t key[32], char out[41])
{
    static const char letters[] =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    for (size_t i = 0; i < 8; i++) {
        uint32_t v = (uint32_t)key[4 * i] << 24 | (uint32_t)key[4 * i + 1] << 16 |
                     (uint32_t)key[4 * i + 2] << 8 | key[4 * i + 3];
        for (size_t k = 5; k-- > 0; v /= 85)
            out[5 * i + k] = letters[v % 85];
    }
    out[40] = '\0';
}

#endif
