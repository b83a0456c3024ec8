/* The identity in a certificate.
 *
 * Exactly one subject alternative name, which is a DNS name (SA.NS.serviceaccount.identity...)
 * or a spiffe:// URI. The common name never counts; wildcards, NULs and names of other kinds
 * are refused.
 */
#ifndef TLS_IDENTITY_H
#define TLS_IDENTITY_H

#include "kit/err.h"

#include <openssl/types.h>
#include <stdbool.h>

#define IDENTITY_MAX 253

/* Writes the identity with a NUL. OTHER_IDENTITY if there is none or more than one, or it is
 * not sane. */
MUST_USE err_t identity_of(X509 *cert, char out[IDENTITY_MAX + 1]);

#endif
