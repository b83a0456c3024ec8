/* The slice functions that are too long to be inline. */
#include "kit/slice.h"

bool slice_to_cstr(slice_t a, char *dst, size_t cap)
{
    if (cap == 0)
        return false;
    dst[0] = '\0';
    if (a.n >= cap)
        return false;
    if (a.n == 0)
        return true;
    if (memchr(a.p, '\0', a.n) != NULL)
        return false;
    memcpy(dst, a.p, a.n);
    dst[a.n] = '\0';
    return true;
}

slice_t slice_of_u64(uint64_t v, char room[SLICE_U64_MAX])
{
    size_t at = SLICE_U64_MAX;

    do {
        room[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    return slice(room + at, SLICE_U64_MAX - at);
}

bool slice_to_u64(slice_t a, uint64_t *out)
{
    uint64_t v = 0;

    if (a.n == 0)
        return false;
    if (a.n < SLICE_U64_MAX) { /* no overflow: nothing to look out for */
        for (size_t i = 0; i < a.n; i++) {
            unsigned digit = (unsigned)a.p[i] - '0';

            if (digit > 9)
                return false;
            v = v * 10 + digit;
        }
        *out = v;
        return true;
    }
    for (size_t i = 0; i < a.n; i++) {
        unsigned digit = (unsigned)a.p[i] - '0';

        if (digit > 9 || v > (UINT64_MAX - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}
