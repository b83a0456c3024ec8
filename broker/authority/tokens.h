/* Join tokens: one-time proofs that a new pod may have an identity.
 *
 * The table is in the file `tokens` (0600) before a token is given out and before its use is
 * confirmed, so that a restart honours open ones and remembers used ones. A used token stays
 * bound to the key it was used for: the same question again (the answer was lost) gets an
 * answer again until the token expires.
 */
#ifndef BROKER_AUTHORITY_TOKENS_H
#define BROKER_AUTHORITY_TOKENS_H

#include "broker/authority/folder.h"

#include <stdint.h>

#define TOKENS_MAX       4096
#define TOKEN_ID         16
#define TOKEN_SECRET     32
#define TOKEN_TTL_MS     (10 * 60 * 1000)
#define TOKEN_TTL_MAX_MS (24 * 60 * 60 * 1000)

struct tokens;

/* Reads the file; a damaged one is put aside with a warning (open tokens are lost, nothing
 * else). */
MUST_USE err_t tokens_open(const struct folder *f, int64_t now_ms, struct tokens **out);
void tokens_free(struct tokens **t);
size_t tokens_count(const struct tokens *t);

/* ttl_ms 0 = TOKEN_TTL_MS; cut at TOKEN_TTL_MAX_MS. TOKENS_FULL | BAD_PROOF (identity is not
 * one) | OS. */
MUST_USE err_t tokens_make(struct tokens *t, slice_t identity, uint32_t ttl_ms, int64_t now_ms,
                           char id[TOKEN_ID + 1], uint8_t secret[TOKEN_SECRET]);

/* Checks the proof HMAC-SHA256(secret, SHA-256(csr)) and binds the token to the key (SHA-256 of
 * its public half). BAD_TOKEN (unknown, expired, other identity, used for another key) |
 * BAD_PROOF | OS (the use could not be written: not confirmed). */
MUST_USE err_t tokens_use(struct tokens *t, slice_t id, slice_t mac, slice_t identity,
                          slice_t csr, const uint8_t key_digest[32], int64_t now_ms);

#endif
