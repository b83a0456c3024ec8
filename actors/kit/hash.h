/* Hash tables of the tree are uthash (Debian: uthash-dev) with a keyed hash, so that names chosen by a
 * stranger cannot be made to collide. Include this instead of <uthash.h>.
 *
 * Adding to a table cannot fail: what uthash needs when memory has run out comes from a small reserve of the process. Owners
 * allocate the element first, so where memory is short tables do not grow; should the reserve be used up nevertheless, or one
 * table need more than HASH_RESERVE_BLOCK at once, the process aborts with a message. */
#ifndef KIT_HASH_H
#define KIT_HASH_H

#include "kit/attr.h"
#include "kit/slice.h"

/* SipHash-1-3 under a key drawn once per process from getrandom(). */
uint64_t kit_hash(const void *p, size_t n);

/* The same under a given key: for tests, and for hashes that must be the same in every process. */
uint64_t kit_hash_keyed(uint64_t k0, uint64_t k1, const void *p, size_t n);

#define HASH_RESERVE_BLOCK 4096
/* uthash's memory. kit_hash_alloc does not return NULL. */
void *kit_hash_alloc(size_t n);
void kit_hash_release(void *p);

#define uthash_malloc(n)  kit_hash_alloc(n)
#define uthash_free(p, n) kit_hash_release(p)
#define HASH_FUNCTION(keyptr, keylen, hashv) ((hashv) = (unsigned)kit_hash((keyptr), (keylen)))
#include <uthash.h>

#endif
