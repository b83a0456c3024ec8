/* The join token: `weft1.ID.SECRET`, ID 16 and SECRET 64 hex digits. It proves to the
 * authority, once, that this pod may have the identity it asks for. */
#ifndef TLS_TOKEN_H
#define TLS_TOKEN_H

#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct token {
    char id[17]; /* "" = there is no token */
    uint8_t secret[32];
};

/* Text with or without a line end. BAD_TOKEN_FILE. */
MUST_USE err_t token_parse(slice_t text, struct token *out);
/* Reads the file. A file that is not there is no error: out->id is "". BAD_TOKEN_FILE | OS. */
MUST_USE err_t token_read(const char *path, struct token *out);
void token_wipe(struct token *t);

/* HMAC-SHA256(secret, SHA-256(csr)): what goes into certify.token_mac. */
MUST_USE err_t token_prove(const struct token *t, slice_t csr, uint8_t out[32]);

#endif
