#include "model/ring.h"

#include "kit/hash.h"

#include <math.h>

/* Not secret: the same in every process, which is the point. */
enum { SEED_ID = 0x72696e67, SEED_KEY = 0x6b657973 };

uint64_t ring_id(slice_t ip, uint16_t port)
{
    return kit_hash_keyed(SEED_ID, port, ip.p, ip.n);
}

uint64_t ring_key(slice_t value)
{
    return kit_hash_keyed(SEED_KEY, 0, value.p, value.n);
}

/* The finalizer of SplitMix64: every bit of the input changes half of the output. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

/* log2(m) for m in 0.7 .. 1.42 by the series of artanh; off by less than 2e-8. Not the C
 * library's: all machines must come to the same number. */
static double log2_near_one(double m)
{
    double t = (m - 1.0) / (m + 1.0), s = t * t;

    return t * (1.0 + s * (1.0 / 3 + s * (1.0 / 5 + s * (1.0 / 7)))) * 2.885390081777927;
}

/* A draw from the exponential distribution with the weight as its rate: the lowest of several
 * belongs to each with the probability of its weight's share. */
double ring_score(uint64_t id, uint32_t weight, uint64_t key)
{
    uint64_t h = mix(id ^ mix(key + 0x9e3779b97f4a7c15U)) | 1;
    int shift = __builtin_clzll(h), halves = shift + 1; /* h / 2^64 = m / 2^halves, m in 1..2 */
    double m = (double)(h << shift) * (1.0 / 9223372036854775808.0);

    if (weight == 0)
        return HUGE_VAL;
    if (m > 1.4142135623730951) {
        m *= 0.5;
        halves--;
    }
    return ((double)halves - log2_near_one(m)) / (double)weight;
}

size_t ring_pick(const struct wire_endpoint *endpoints, size_t n, uint64_t key,
                 bool (*may)(void *arg, size_t index), void *arg)
{
    size_t best = RING_NONE;
    uint64_t best_id = 0;
    double least = HUGE_VAL;

    for (size_t i = 0; i < n; i++) {
        const struct wire_endpoint *e = &endpoints[i];
        uint64_t id = ring_id(e->ip, e->port);
        double score = ring_score(id, e->weight, key);

        if (score > least || (score >= least && (best == RING_NONE || id >= best_id)))
            continue;
        if (may != NULL && !may(arg, i))
            continue;
        best = i;
        best_id = id;
        least = score;
    }
    return best;
}
