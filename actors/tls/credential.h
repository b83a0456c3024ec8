/* What this pod shows to others: a P-256 key and the certificate chain for it. And whom it
 * believes: anchors.
 *
 * Nothing here talks to anybody; every function is a check or a construction on given bytes.
 */
#ifndef TLS_CREDENTIAL_H
#define TLS_CREDENTIAL_H

#include "kit/buf.h"
#include "kit/err.h"
#include "kit/slice.h"

#include <openssl/types.h>
#include <openssl/x509.h>
#include <stdint.h>

#define CREDENTIAL_KEY_MAX 512 /* of a P-256 private key as DER */
#define CREDENTIAL_CHAIN   8   /* certificates in a chain */
#define CREDENTIAL_ANCHORS 64
#define CREDENTIAL_SIG_MAX 256

struct credential {
    EVP_PKEY *key;
    X509 *leaf;
    STACK_OF(X509) * rest;               /* intermediates, leaf's issuer first */
    int64_t not_before_ms, not_after_ms; /* of the leaf; the end is the earliest of the chain */
};

/* A fresh P-256 key, in OpenSSL's secure heap. */
MUST_USE err_t credential_make_key(EVP_PKEY **out);
/* DER of a private key, and back. The caller wipes out[]. */
MUST_USE err_t credential_print_key(const EVP_PKEY *key, uint8_t out[CREDENTIAL_KEY_MAX],
                                    size_t *n);
MUST_USE err_t credential_parse_key(slice_t der, EVP_PKEY **out);

/* A certificate request: empty subject, one DNS SAN. Appends DER. */
MUST_USE err_t credential_request(EVP_PKEY *key, const char *identity, struct buf *out);

/* ECDSA with SHA-256 over what (renewal proof). */
MUST_USE err_t credential_sign(EVP_PKEY *key, slice_t what, uint8_t out[CREDENTIAL_SIG_MAX],
                               size_t *n);

/* Checks that the chain (PEM, leaf first) is for this key and identity, in force at now_ms
 * (negative: whenever), and leads to the anchors. Takes a reference to the key. BAD_CERTIFICATE
 * | OTHER_KEY | OTHER_IDENTITY | NOT_IN_FORCE | NOT_ANCHORED | NOMEM. */
MUST_USE err_t credential_load(EVP_PKEY *key, slice_t chain_pem, const char *identity,
                               X509_STORE *anchors, int64_t now_ms, struct credential **out);
void credential_free(struct credential **c);

/* Whether the chain leads to these anchors, as a peer would judge it. NOT_IN_FORCE |
 * NOT_ANCHORED. */
MUST_USE err_t credential_check(const struct credential *c, X509_STORE *anchors,
                                int64_t now_ms);

/* The leaf as DER. */
MUST_USE err_t credential_print_leaf(const struct credential *c, struct buf *out);

/* A set of anchors from PEM: 1..CREDENTIAL_ANCHORS certificates. BAD_ANCHORS. */
MUST_USE err_t anchors_load(slice_t pem, X509_STORE **out, unsigned *n);

#endif
