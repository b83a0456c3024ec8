/* Everything in a request is what a stranger wrote; the identity alone is the broker's word for
 * the session, and it is not enough: without a proof that the broker cannot make, nothing is
 * signed. */
#include "broker/authority/request.h"

#include "broker/authority/authority.h"

#include "kit/log.h"
#include "model/name.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <string.h>

#define RENEW_CONTEXT "weft renew v1"

const char *request_code(err_t err)
{
    if (err == ERR_OF(BAD_CSR))
        return "BAD_CSR";
    if (err == ERR_OF(BAD_TOKEN))
        return "BAD_TOKEN";
    if (err == ERR_OF(BAD_PROOF))
        return "BAD_PROOF";
    if (err == ERR_OF(NOT_ALLOWED))
        return "REFUSED";
    return "UNAVAILABLE";
}

static err_t no(err_t err, const char *text, const char **why)
{
    *why = text;
    ERR_clear_error();
    return err;
}

/* ---- the request ---- */

static bool key_is_p256(EVP_PKEY *key)
{
    char group[32];
    size_t n;

    return key != NULL && EVP_PKEY_is_a(key, "EC") == 1 &&
           EVP_PKEY_get_group_name(key, group, sizeof(group), &n) == 1 &&
           strcmp(group, "prime256v1") == 0;
}

static bool common_name_fits(X509_NAME *name, const char *identity)
{
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    const ASN1_STRING *text;

    if (X509_NAME_entry_count(name) == 0)
        return true;
    if (X509_NAME_entry_count(name) != 1 || at != 0)
        return false;
    text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
    return slice_is_str(slice(ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text)),
                        identity);
}

/* Exactly one SAN extension with exactly one name. */
static bool san_fits(X509_REQ *req, const char *identity)
{
    STACK_OF(X509_EXTENSION) *exts = X509_REQ_get_extensions(req);
    int critical = 0;
    GENERAL_NAMES *names =
        exts != NULL ? X509V3_get_d2i(exts, NID_subject_alt_name, &critical, NULL) : NULL;
    char has[254];
    bool ok = authority_only_dns_name(names, has) && strcmp(has, identity) == 0;

    GENERAL_NAMES_free(names);
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
    return ok;
}

static err_t check_request(slice_t der, const char *identity, X509_REQ **out, const char **why)
{
    const uint8_t *p = der.p;
    X509_REQ *req = der.n > 0 ? d2i_X509_REQ(NULL, &p, (long)der.n) : NULL;
    const char *bad = NULL;

    if (req == NULL || p != der.p + der.n)
        bad = "the request is not a certificate request";
    else if (!key_is_p256(X509_REQ_get0_pubkey(req)))
        bad = "the request's key is not P-256";
    else if (X509_REQ_verify(req, X509_REQ_get0_pubkey(req)) != 1)
        bad = "the request is not signed by its key";
    else if (!common_name_fits(X509_REQ_get_subject_name(req), identity))
        bad = "the request's subject is not empty and not the identity";
    else if (!san_fits(req, identity))
        bad = "the request does not have exactly the session's identity as its only name";
    if (bad != NULL) {
        X509_REQ_free(req);
        return no(ERR_OF(BAD_CSR), bad, why);
    }
    *out = req;
    return OK;
}

static bool key_digest(X509_REQ *req, uint8_t out[32])
{
    unsigned char *der = NULL;
    int n = i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(req), &der);
    bool ok = n > 0 && EVP_Digest(der, (size_t)n, out, NULL, EVP_sha256(), NULL) == 1;

    OPENSSL_free(der);
    return ok;
}

/* ---- the proof ---- */

static bool signature_is_right(X509 *cert, slice_t csr, slice_t signature)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md != NULL &&
              EVP_DigestVerifyInit(md, NULL, EVP_sha256(), NULL, X509_get0_pubkey(cert)) == 1 &&
              EVP_DigestVerifyUpdate(md, RENEW_CONTEXT, sizeof(RENEW_CONTEXT) - 1) == 1 &&
              EVP_DigestVerifyUpdate(md, csr.p, csr.n) == 1 &&
              EVP_DigestVerifyFinal(md, signature.p, signature.n) == 1;

    EVP_MD_CTX_free(md);
    return ok;
}

static bool cert_names(X509 *cert, const char *identity)
{
    int critical;
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, &critical, NULL);
    char has[254];
    bool ok = authority_only_dns_name(names, has) && strcmp(has, identity) == 0;

    GENERAL_NAMES_free(names);
    return ok;
}

static const char *judge_old(const struct ca *ca, X509 *old, const struct wire_sign *m,
                             const char *identity, int64_t now_ms)
{
    int64_t begin, end;

    if (!authority_time(X509_get0_notBefore(old), &begin) ||
        !authority_time(X509_get0_notAfter(old), &end))
        return "the certificate's times cannot be read";
    if (X509_check_ca(old) != 0)
        return "the certificate is not a workload's";
    if (!ca_knows(ca, old))
        return "the certificate is not from here";
    if (!cert_names(old, identity))
        return "the certificate is for another identity";
    if (now_ms < begin || now_ms >= end + CA_GRACE_MS)
        return "the certificate has been expired for more than 24 hours (a new join token is "
               "needed)";
    if (!key_is_p256(X509_get0_pubkey(old)) || !signature_is_right(old, m->csr, m->signature))
        return "the signature is not by the certificate's key";
    return NULL;
}

static err_t check_renewal(const struct authority_parts *a, const struct wire_sign *m,
                           const char *identity, int64_t now_ms, const char **why)
{
    const uint8_t *p = m->old_cert.p;
    X509 *old = m->old_cert.n > 0 ? d2i_X509(NULL, &p, (long)m->old_cert.n) : NULL;
    const char *bad = "there is neither a join token nor a certificate";

    if (old != NULL && p == m->old_cert.p + m->old_cert.n)
        bad = judge_old(a->ca, old, m, identity, now_ms);
    else if (m->old_cert.n > 0)
        bad = "the certificate cannot be read";
    X509_free(old);
    return bad == NULL ? OK : no(ERR_OF(BAD_PROOF), bad, why);
}

static err_t check_token(const struct authority_parts *a, const struct wire_sign *m,
                         X509_REQ *req, int64_t now_ms, const char **why)
{
    uint8_t digest[32];
    err_t err = key_digest(req, digest) ? tokens_use(a->tokens, m->token_id, m->token_mac,
                                                     m->identity, m->csr, digest, now_ms)
                                        : ERR_OF(BAD_CSR);

    return err == OK ? OK : no(err, err->text, why);
}

err_t request_answer(const struct authority_parts *a, const struct wire_sign *m, int64_t now_ms,
                     struct buf *chain, struct ca_issued *out, const char **why)
{
    struct name_identity parts;
    char identity[254];
    X509_REQ *req = NULL;
    err_t err;

    *why = "";
    if (name_identity_parse(m->identity, &parts) != OK ||
        !slice_to_cstr(m->identity, identity, sizeof(identity)))
        return no(ERR_OF(NOT_ALLOWED), "the session has no identity", why);
    TRY(check_request(m->csr, identity, &req, why));
    if (m->token_id.n > 0)
        err = check_token(a, m, req, now_ms, why);
    else
        err = check_renewal(a, m, identity, now_ms, why);
    if (err == OK) {
        err = ca_sign(a->ca, X509_REQ_get0_pubkey(req), identity, now_ms, chain, out);
        if (err != OK)
            (void)no(err, err->text, why);
    }
    X509_REQ_free(req);
    return err;
}
