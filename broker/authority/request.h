/* A request for a certificate, judged: what is asked, by which key, and with what proof. */
#ifndef BROKER_AUTHORITY_REQUEST_H
#define BROKER_AUTHORITY_REQUEST_H

#include "broker/authority/ca.h"
#include "broker/authority/tokens.h"

#include "wire/wire.h"

struct authority_parts {
    struct ca *ca;
    struct tokens *tokens;
};

/* Answers a sign message: checks the CSR (P-256, its own signature, exactly one DNS SAN equal
 * to the session's identity, common name empty or equal; whatever else it wishes for is
 * ignored), then the proof (join token, or the current certificate and its key's signature),
 * then signs. chain gets PEM. *why is a sentence when refused. OK | BAD_CSR | BAD_TOKEN |
 * BAD_PROOF | ISSUER_EXPIRED | SIGN_FAILED | OS. */
MUST_USE err_t request_answer(const struct authority_parts *a, const struct wire_sign *m,
                              int64_t now_ms, struct buf *chain, struct ca_issued *out,
                              const char **why);

/* The stable word of `issued` for an error. */
const char *request_code(err_t err);

#endif
