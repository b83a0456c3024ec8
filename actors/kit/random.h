/* Random numbers: strong ones for names, keys and epochs; quick ones for balancing and jitter. */
#ifndef KIT_RANDOM_H
#define KIT_RANDOM_H

#include <stddef.h>
#include <stdint.h>

void random_bytes(void *p, size_t n); /* getrandom(); aborts if the kernel has none */
uint64_t random_u64(void);            /* strong */
uint32_t random_below(uint32_t n);    /* quick (xoshiro), unbiased enough for balancing; n > 0 */
double random_unit(void);             /* quick, [0, 1) */
void random_hex(char *out, size_t digits); /* strong, with NUL: out has digits + 1 bytes */
void random_test_seed(uint64_t seed);      /* makes the quick ones repeatable */

#endif
