/* Hash tables of the tree are uthash (Debian: uthash-dev) with a keyed hash, so that names chosen by a
 * stranger cannot be made to collide. Include this instead of <uthash.h>. Running out of memory inside a
 * table aborts the process: every table of Weft is bounded by its owner. */
#ifndef KIT_HASH_H
#define KIT_HASH_H

#include "kit/attr.h"
#include "kit/slice.h"

/* SipHash-1-3 under a key drawn once per process from getrandom(). */
uint64_t kit_hash(const void *p, size_t n);

/* The same under a given key: for tests, and for hashes that must be the same in every process. */
uint64_t kit_hash_keyed(uint64_t k0, uint64_t k1, const void *p, size_t n);

#define HASH_FUNCTION(keyptr, keylen, hashv) ((hashv) = (unsigned)kit_hash((keyptr), (keylen)))
#include <uthash.h>

#endif
