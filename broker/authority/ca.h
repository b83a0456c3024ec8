/* The root and the issuer: made at the first start, kept in the authority's directory, renewed
 * in time.
 *
 *   root.crt root.key       self-signed, P-256, root_lifetime. The key is needed only to renew
 * the issuer: an operator may keep it elsewhere and put it back for that
 * (docs/internals/tls.md) issuer.crt issuer.key   signed by the root, issuer_lifetime, path
 * length 0; renewed at half of its life former.crt              issuers that were in force
 * before, as long as certificates of theirs may be renewed
 *
 * What is not whole is restored from what is (a missing or torn issuer is made anew by a whole
 * root), or the start is refused with the file's name.
 */
#ifndef BROKER_AUTHORITY_CA_H
#define BROKER_AUTHORITY_CA_H

#include "broker/authority/folder.h"

#include "kit/buf.h"

#include <openssl/types.h>
#include <openssl/x509.h>
#include <stdint.h>

/* Certificates begin this long ago: clocks of pods may be late. A workload's at most a tenth of its
 * lifetime: who renews at half of it must not find that half in the past. */
#define CA_SKEW_MS (5 * 60 * 1000)
#define CA_GRACE_MS                                                                            \
    (24 * 60 * 60 * 1000) /* an expired certificate still renews itself so long */

struct ca_conf {
    uint64_t root_lifetime_ms, issuer_lifetime_ms, leaf_lifetime_ms;
    const char *trust_domain; /* in the names of root and issuer; lent for the life of the ca */
};

struct ca;

/* FILE_MODE | FILE_BROKEN | NO_ROOT_KEY | SIGN_FAILED | OS: said in the log with the file's
 * name. */
MUST_USE err_t ca_open(const struct folder *f, const struct ca_conf *conf, int64_t now_ms,
                       struct ca **out);
void ca_free(struct ca **c);

/* Renews the issuer if half of its life is over. *renewed tells. NO_ROOT_KEY: goes on with the
 * old one. */
MUST_USE err_t ca_look(struct ca *c, int64_t now_ms, bool *renewed);

slice_t ca_anchors(const struct ca *c); /* PEM; as long as the ca lives */
int64_t ca_issuer_end(const struct ca *c);
int64_t ca_root_end(const struct ca *c);

/* What was signed. */
struct ca_issued {
    char serial[41], fingerprint[65]; /* hex */
    int64_t not_before_ms, not_after_ms;
};
/* A certificate for `key` and the identity; appends PEM (leaf, issuer). SIGN_FAILED |
 * ISSUER_EXPIRED. */
MUST_USE err_t ca_sign(struct ca *c, EVP_PKEY *key, const char *identity, int64_t now_ms,
                       struct buf *chain, struct ca_issued *out);

/* Whether one of our issuers signed it: the one in force or a former one. */
MUST_USE bool ca_knows(const struct ca *c, X509 *leaf);

#endif
