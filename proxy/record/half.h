/* One direction of a TLS 1.3 connection: its secret, key, iv and sequence number (RFC
 * 8446 5.2, 5.3, 7).
 *
 * Private to proxy/record. A half is created with the traffic secret of generation 0 and
 * sequence number 0; there is exactly one owner of it and no way to copy it, since a nonce used
 * twice breaks the protection.
 */
#ifndef PROXY_RECORD_HALF_H
#define PROXY_RECORD_HALF_H

#include "kit/err.h"
#include "kit/slice.h"

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#define HALF_HEADER     5
#define HALF_TAG        16
#define HALF_IV         12
#define HALF_KEY_MAX    32
#define HALF_SECRET_MAX 48

struct half_suite; /* one row of the table of cipher suites */

struct half {
    const struct half_suite *suite;
    EVP_CIPHER_CTX *ctx; /* owned; the key is set once per generation */
    bool is_sealing;
    uint8_t secret[HALF_SECRET_MAX]; /* of this generation; needed for the next one */
    uint8_t iv[HALF_IV];
    uint64_t seq;
};

/* Fetches the algorithms, once for the process. Not left to the first connection: OpenSSL looks
 * an algorithm up again with every use of its old names (EVP_aes_128_gcm), and a look-up that
 * runs out of memory may leave it unknown for ever. RECORD_CRYPTO. */
MUST_USE err_t half_start(void);

/* RECORD_SUITE, RECORD_SECRET, RECORD_CRYPTO, NOMEM. On failure the half is as after half_done.
 */
MUST_USE err_t half_init(struct half *h, uint16_t suite, slice_t secret, bool is_sealing);
/* Frees and wipes. Fine on zeroed memory. */
void half_done(struct half *h);

/* The next generation of secret, key and iv (RFC 8446 7.2); the old secret is gone after it. */
MUST_USE err_t half_update(struct half *h);

/* Protects rec[5..5+n) (content and inner type) in place, writes the tag behind it and the
 * header in front (5 + n + 16 bytes in all). */
MUST_USE err_t half_seal(struct half *h, uint8_t *rec, size_t n);
/* Opens rec[5..5+n-16) in place; n is the length in the header. False: not authentic. What is
 * then at rec must not be used. */
MUST_USE bool half_open(struct half *h, uint8_t *rec, size_t n);

/* Key and iv of a traffic secret, for the vectors of RFC 8448. */
struct half_keys {
    uint8_t key[HALF_KEY_MAX];
    size_t key_len;
    uint8_t iv[HALF_IV];
};
MUST_USE err_t half_derive(uint16_t suite, slice_t secret, struct half_keys *out);

#endif
