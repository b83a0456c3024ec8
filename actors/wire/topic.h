/* How topics are named in short and how a set of applied topics is summed up; the broker and every link
 * must compute the same. Needs libcrypto, which the layers below do not: header only. */
#ifndef WIRE_TOPIC_H
#define WIRE_TOPIC_H

#include "kit/slice.h"

#include <openssl/sha.h>
#include <stdint.h>

#define WIRE_TOPIC_MAX 320

/* First 8 bytes (big endian) of SHA-256 of the topic's name: topic_digest.hash. */
static inline uint64_t wire_topic_hash(slice_t name)
{
    uint8_t sum[SHA256_DIGEST_LENGTH];
    uint64_t v = 0;
    (void)SHA256(name.p, name.n, sum);
    for (int i = 0; i < 8; i++)
        v = v << 8 | sum[i];
    return v;
}

/* One topic's part of the sum in ack.applied: sums are added modulo 2^64, so that the order does not
 * matter and one topic can be taken out again. */
static inline uint64_t wire_topic_mix(uint64_t hash, uint64_t revision)
{
    uint64_t v = hash ^ (revision * 0x9e3779b97f4a7c15u);
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
    return v ^ (v >> 31);
}

#endif
