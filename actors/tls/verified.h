/* Leaves that were verified a short while ago, so that a peer that connects often is not
 * verified from its signatures up each time (about 200 us with an intermediate).
 *
 * A table belongs to one side of one tls_context: new anchors or a new certificate of ours make
 * a new context and so an empty table. An entry is good for VERIFIED_MS, never behind the end
 * of any certificate of its chain, and never before the moment it was made (a clock that was
 * set back).
 */
#ifndef TLS_VERIFIED_H
#define TLS_VERIFIED_H

#include "tls/identity.h"

#include <openssl/types.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stdint.h>

#define VERIFIED_MAX 64
#define VERIFIED_MS  (5 * 60 * 1000)

struct verified;

/* NULL without memory: everything is then verified in full. */
struct verified *verified_new(void);
void verified_free(struct verified **v);

struct verified_peer {
    char identity[IDENTITY_MAX + 1];
    int64_t not_after_ms; /* of the leaf */
};

/* Whether this very leaf was verified lately; *out is filled then. v may be NULL. */
bool verified_find(struct verified *v, const X509 *leaf, int64_t wall_ms,
                   struct verified_peer *out);
/* Remembers; `chain` is leaf to anchor, as verified. The oldest entry gives way. */
void verified_add(struct verified *v, const X509 *leaf, const STACK_OF(X509) * chain,
                  int64_t wall_ms, const struct verified_peer *peer);

/* Found, for tests and the log. */
uint64_t verified_hits(const struct verified *v);

#endif
