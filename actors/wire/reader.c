#include "wire/reader.h"

#include "wire/wire.h"

#include <math.h>

/* First bytes of msgpack values. */
enum {
    FIXMAP = 0x80,
    FIXARRAY = 0x90,
    FIXSTR = 0xa0,
    NIL = 0xc0,
    NEVER_USED = 0xc1,
    FALSE_ = 0xc2,
    TRUE_ = 0xc3,
    BIN8 = 0xc4,
    BIN16 = 0xc5,
    BIN32 = 0xc6,
    EXT8 = 0xc7,
    EXT16 = 0xc8,
    EXT32 = 0xc9,
    FLOAT32 = 0xca,
    FLOAT64 = 0xcb,
    UINT8 = 0xcc,
    UINT64 = 0xcf,
    INT8 = 0xd0,
    INT64 = 0xd3,
    FIXEXT1 = 0xd4,
    FIXEXT16 = 0xd8,
    STR8 = 0xd9,
    STR16 = 0xda,
    STR32 = 0xdb,
    ARRAY16 = 0xdc,
    ARRAY32 = 0xdd,
    MAP16 = 0xde,
    MAP32 = 0xdf,
    NEGATIVE_FIXINT = 0xe0
};

/* A big-endian number of 1, 2, 4 or 8 bytes; the caller has checked that they are there. */
static uint64_t be(const uint8_t *p, size_t width)
{
    uint64_t v = 0;

    for (size_t i = 0; i < width; i++)
        v = v << 8 | p[i];
    return v;
}

/* The number of `width` bytes behind the first byte. */
static err_t head_number(const struct wire_reader *r, size_t width, uint64_t *out)
{
    if (wire_reader_left(r) < 1 + width)
        return ERR_OF(WIRE_TRUNCATED);
    *out = be(r->p + 1, width);
    return OK;
}

static err_t get_count(struct wire_reader *r, uint8_t fix, uint8_t wide16, unsigned per,
                       uint32_t *n)
{
    uint64_t count;
    size_t width = 0;

    if (r->p == r->end)
        return ERR_OF(WIRE_TRUNCATED);
    if ((*r->p & 0xf0) == fix) {
        count = *r->p & 0x0f;
    } else if (*r->p == wide16 || *r->p == wide16 + 1) {
        width = *r->p == wide16 ? 2 : 4;
        TRY(head_number(r, width, &count));
    } else {
        return ERR_OF(WIRE_TYPE);
    }
    if (count * per > wire_reader_left(r) - 1 - width) /* an element is a byte at least */
        return ERR_OF(WIRE_TRUNCATED);
    r->p += 1 + width;
    *n = (uint32_t)count;
    return OK;
}

err_t wire_get_array(struct wire_reader *r, uint32_t *n)
{
    return get_count(r, FIXARRAY, ARRAY16, 1, n);
}

err_t wire_get_map(struct wire_reader *r, uint32_t *n)
{
    return get_count(r, FIXMAP, MAP16, 2, n);
}

struct integer {
    bool is_negative;
    uint64_t v; /* two's complement if negative */
};

static err_t get_integer(struct wire_reader *r, struct integer *out)
{
    uint8_t first;
    size_t width;
    uint64_t v;

    if (r->p == r->end)
        return ERR_OF(WIRE_TRUNCATED);
    first = *r->p;
    if (first < FIXMAP) {
        *out = (struct integer){false, first};
        r->p++;
        return OK;
    }
    if (first >= NEGATIVE_FIXINT) {
        *out = (struct integer){true, (uint64_t)(int64_t)(int8_t)first};
        r->p++;
        return OK;
    }
    if (first < UINT8 || first > INT64)
        return ERR_OF(WIRE_TYPE);
    width = (size_t)1 << ((first - UINT8) & 3);
    TRY(head_number(r, width, &v));
    *out = (struct integer){false, v};
    if (first >= INT8 && (v >> (8 * width - 1)) != 0) {
        uint64_t ones = width == 8 ? 0 : ~(uint64_t)0 << (8 * width);
        *out = (struct integer){true, v | ones};
    }
    r->p += 1 + width;
    return OK;
}

err_t wire_get_u64(struct wire_reader *r, uint64_t max, uint64_t *out)
{
    struct wire_reader at = *r;
    struct integer i;

    TRY(get_integer(&at, &i));
    if (i.is_negative || i.v > max)
        return ERR_OF(WIRE_RANGE);
    *out = i.v;
    *r = at;
    return OK;
}

err_t wire_get_i64(struct wire_reader *r, int64_t *out)
{
    struct wire_reader at = *r;
    struct integer i;

    TRY(get_integer(&at, &i));
    if (!i.is_negative && i.v > INT64_MAX)
        return ERR_OF(WIRE_RANGE);
    *out = (int64_t)i.v;
    *r = at;
    return OK;
}

err_t wire_get_f64(struct wire_reader *r, double *out)
{
    struct integer i;
    uint64_t bits;
    double v;

    if (r->p == r->end)
        return ERR_OF(WIRE_TRUNCATED);
    if (*r->p == FLOAT64) {
        TRY(head_number(r, 8, &bits));
        memcpy(&v, &bits, sizeof(v));
        if (!isfinite(v))
            return ERR_OF(WIRE_RANGE);
        r->p += 9;
    } else if (*r->p == FLOAT32) {
        TRY(head_number(r, 4, &bits));
        uint32_t bits32 = (uint32_t)bits;
        float narrow;
        memcpy(&narrow, &bits32, sizeof(narrow));
        if (!isfinite(narrow))
            return ERR_OF(WIRE_RANGE);
        v = (double)narrow;
        r->p += 5;
    } else {
        TRY(get_integer(r, &i));
        v = i.is_negative ? (double)(int64_t)i.v : (double)i.v;
    }
    *out = v;
    return OK;
}

err_t wire_get_bool(struct wire_reader *r, bool *out)
{
    if (r->p == r->end)
        return ERR_OF(WIRE_TRUNCATED);
    if (*r->p != FALSE_ && *r->p != TRUE_)
        return ERR_OF(WIRE_TYPE);
    *out = *r->p == TRUE_;
    r->p++;
    return OK;
}

/* `head` bytes of head and n bytes of content: checks the limit and the room, and moves on. */
static err_t get_span(struct wire_reader *r, size_t head, uint64_t n, size_t max, slice_t *out)
{
    if (n > max)
        return ERR_OF(WIRE_LIMIT);
    if (n > wire_reader_left(r) - head)
        return ERR_OF(WIRE_TRUNCATED);
    *out = slice(r->p + head, (size_t)n);
    r->p += head + (size_t)n;
    return OK;
}

err_t wire_get_text(struct wire_reader *r, size_t max, slice_t *out)
{
    struct wire_reader at = *r;
    uint64_t n;
    size_t width = 0;
    slice_t s;

    if (r->p == r->end)
        return ERR_OF(WIRE_TRUNCATED);
    if ((*r->p & 0xe0) == FIXSTR) {
        n = *r->p & 0x1f;
    } else if (*r->p >= STR8 && *r->p <= STR32) {
        width = (size_t)1 << (*r->p - STR8);
        TRY(head_number(r, width, &n));
    } else {
        return ERR_OF(WIRE_TYPE);
    }
    TRY(get_span(&at, 1 + width, n, max, &s));
    if (!wire_is_text(s))
        return ERR_OF(WIRE_TEXT);
    *out = s;
    *r = at;
    return OK;
}

err_t wire_get_bytes(struct wire_reader *r, size_t max, slice_t *out)
{
    uint64_t n;
    size_t width;

    if (r->p == r->end)
        return ERR_OF(WIRE_TRUNCATED);
    if (*r->p < BIN8 || *r->p > BIN32)
        return ERR_OF(WIRE_TYPE);
    width = (size_t)1 << (*r->p - BIN8);
    TRY(head_number(r, width, &n));
    return get_span(r, 1 + width, n, max, out);
}

/* ---- stepping over what is not known ---- */

/* Moves over a value's head and content; containers give the number of values inside. */
static err_t skip_one(struct wire_reader *r, uint64_t *inside)
{
    uint8_t first = *r->p;
    size_t width = 0, fixed = 0;
    uint64_t n = 0;
    uint32_t count;
    slice_t ignored;

    *inside = 0;
    if (first < FIXMAP || first >= NEGATIVE_FIXINT || first == NIL || first == FALSE_ ||
        first == TRUE_)
        return get_span(r, 1, 0, 0, &ignored);
    if ((first & 0xf0) == FIXMAP || first == MAP16 || first == MAP32) {
        TRY(wire_get_map(r, &count));
        *inside = 2 * (uint64_t)count;
        return OK;
    }
    if ((first & 0xf0) == FIXARRAY || first == ARRAY16 || first == ARRAY32) {
        TRY(wire_get_array(r, &count));
        *inside = count;
        return OK;
    }
    if (first == NEVER_USED)
        return ERR_OF(WIRE_TYPE);
    if ((first & 0xe0) == FIXSTR)
        return get_span(r, 1, first & 0x1f, 0x1f, &ignored);
    if (first >= STR8 && first <= STR32)
        width = (size_t)1 << (first - STR8);
    else if (first >= BIN8 && first <= BIN32)
        width = (size_t)1 << (first - BIN8);
    else if (first >= EXT8 && first <= EXT32)
        width = (size_t)1 << (first - EXT8);
    else if (first == FLOAT32)
        fixed = 4;
    else if (first == FLOAT64)
        fixed = 8;
    else if (first >= FIXEXT1 && first <= FIXEXT16)
        fixed = 1 + ((size_t)1 << (first - FIXEXT1));
    else /* integers: UINT8..INT64 */
        fixed = (size_t)1 << ((first - UINT8) & 3);
    TRY(head_number(r, width, &n));
    if (first >= EXT8 && first <= EXT32)
        n++; /* the type byte */
    return get_span(r, 1 + width, n + fixed, SIZE_MAX, &ignored);
}

err_t wire_skip(struct wire_reader *r)
{
    struct wire_reader at = *r;
    uint64_t todo[WIRE_SKIP_DEPTH + 1]; /* values still to come on each level */
    unsigned depth = 0;

    todo[0] = 1;
    for (;;) {
        uint64_t inside;

        while (todo[depth] == 0) {
            if (depth == 0) {
                *r = at;
                return OK;
            }
            depth--;
        }
        if (at.p == at.end)
            return ERR_OF(WIRE_TRUNCATED);
        todo[depth]--;
        TRY(skip_one(&at, &inside));
        if (inside == 0)
            continue;
        if (depth == WIRE_SKIP_DEPTH)
            return ERR_OF(WIRE_DEPTH);
        todo[++depth] = inside;
    }
}

/* ---- text ---- */

/* Length of the well-formed sequence at p (RFC 3629, section 4), 0 if it is not one. */
static size_t utf8_sequence(const uint8_t *p, size_t left)
{
    uint8_t low = 0x80, high = 0xbf; /* of the second byte */
    size_t n;

    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        n = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        n = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        n = 4;
    else
        return 0;
    if (left < n)
        return 0;
    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

bool wire_is_text(slice_t s)
{
    for (size_t i = 0; i < s.n;) {
        size_t n;

        if (s.p[i] < 0x80) {
            if (s.p[i] == 0)
                return false;
            i++;
            continue;
        }
        n = utf8_sequence(s.p + i, s.n - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}
