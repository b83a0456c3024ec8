/* What the parts of weft-authority share: errors and small conversions. */
#ifndef BROKER_AUTHORITY_AUTHORITY_H
#define BROKER_AUTHORITY_AUTHORITY_H

#include "kit/err.h"
#include "kit/slice.h"

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

/* Milliseconds since 1970 of a certificate's time. */
MUST_USE bool authority_time(const ASN1_TIME *t, int64_t *out);
/* The only subject alternative name of a list, which must be a DNS name; false otherwise. out[]
 * gets a NUL. */
MUST_USE bool authority_only_dns_name(const void *general_names, char out[254]);
/* Lower-case hex with a NUL. */
void authority_hex(const uint8_t *p, size_t n, char *out);

#define ERR(name, cls, text) ERR_DECLARE(name)
#include "broker/authority/tbl/errors.h"
#undef ERR

#endif
