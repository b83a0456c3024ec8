/* getrandom() for what must not be guessed, xoshiro256** (Blackman and Vigna) for what must be quick. */
#include "kit/random.h"

#include "kit/attr.h"
#include "kit/err.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/random.h>

static struct {
    uint64_t s[4];
    bool is_seeded;
} quick;

void random_bytes(void *p, size_t n)
{
    uint8_t *at = p;

    while (n != 0) {
        ssize_t got = getrandom(at, n, 0);

        if (got < 0 && errno == EINTR)
            continue;
        BUG_ON(got <= 0); /* a kernel without random numbers is no place for this program */
        at += got;
        n -= (size_t)got;
    }
}

uint64_t random_u64(void)
{
    uint64_t v;

    random_bytes(&v, sizeof(v));
    return v;
}

static inline uint64_t rotl(uint64_t x, unsigned bits)
{
    return (x << bits) | (x >> (64 - bits));
}

static uint64_t quick_next(void)
{
    uint64_t *s = quick.s;
    uint64_t out, t;

    if (UNLIKELY(!quick.is_seeded)) {
        random_bytes(s, sizeof(quick.s));
        s[0] |= 1; /* all zero is the one state that xoshiro cannot leave */
        quick.is_seeded = true;
    }
    out = rotl(s[1] * 5, 7) * 9;
    t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

uint32_t random_below(uint32_t n)
{
    BUG_ON(n == 0);
    return (uint32_t)(((quick_next() >> 32) * n) >> 32); /* Lemire's multiply; bias below n / 2^32 */
}

double random_unit(void)
{
    return (double)(quick_next() >> 11) * 0x1p-53;
}

void random_hex(char *out, size_t digits)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t raw[64];

    for (size_t done = 0; done < digits;) {
        size_t part = digits - done < sizeof(raw) ? digits - done : sizeof(raw);

        random_bytes(raw, part);
        for (size_t i = 0; i < part; i++)
            out[done + i] = hex[raw[i] & 15];
        done += part;
    }
    out[digits] = '\0';
}

void random_test_seed(uint64_t seed)
{
    for (unsigned i = 0; i < 4; i++) { /* splitmix64, as xoshiro's authors advise */
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        quick.s[i] = z ^ (z >> 31);
    }
    quick.is_seeded = true;
}
