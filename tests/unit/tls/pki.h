/* A certificate authority in memory, for unit tests. */
#ifndef TESTS_UNIT_TLS_PKI_H
#define TESTS_UNIT_TLS_PKI_H

#include "tls/credential.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

struct pki {
    EVP_PKEY *key;
    X509 *cert;
};

static inline void pki_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    assert_int_equal(X509_add_ext(cert, ext, -1), 1);
    X509_EXTENSION_free(ext);
}

/* sans NULL: a CA. Valid from `from` to `to` seconds from now. */
static inline X509 *pki_issue(const struct pki *by, EVP_PKEY *key, const char *sans, long from,
                              long to)
{
    X509 *cert = X509_new(), *issuer = by->cert != NULL ? by->cert : cert;
    static long serial = 1;

    assert_non_null(cert);
    assert_int_equal(X509_set_version(cert, X509_VERSION_3), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(cert), serial++), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(cert), from));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(cert), to));
    assert_int_equal(X509_set_pubkey(cert, key), 1);
    if (by->cert == NULL)
        X509_NAME_add_entry_by_NID(X509_get_subject_name(cert), NID_commonName, MBSTRING_UTF8,
                                   (const unsigned char *)"root", -1, -1, 0);
    assert_int_equal(X509_set_issuer_name(cert, X509_get_subject_name(issuer)), 1);
    pki_ext(cert, issuer, NID_basic_constraints,
            sans == NULL ? "critical,CA:TRUE" : "critical,CA:FALSE");
    if (sans != NULL && sans[0] != '\0')
        pki_ext(cert, issuer, NID_subject_alt_name, sans);
    assert_true(X509_sign(cert, by->key, EVP_sha256()) > 0);
    return cert;
}

static inline void pki_init(struct pki *p)
{
    *p = (struct pki){NULL, NULL};
    assert_ptr_equal(credential_make_key(&p->key), OK);
    p->cert = pki_issue(p, p->key, NULL, -1000, 100000);
}

static inline void pki_done(struct pki *p)
{
    EVP_PKEY_free(p->key);
    X509_free(p->cert);
}

static inline void pki_pem(X509 *cert, struct buf *out)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *p;
    long n;

    assert_int_equal(PEM_write_bio_X509(bio, cert), 1);
    n = BIO_get_mem_data(bio, &p);
    assert_ptr_equal(buf_add(out, p, (size_t)n), OK);
    BIO_free(bio);
}

static inline X509_STORE *pki_anchors(const struct pki *p)
{
    struct buf pem;
    X509_STORE *store = NULL;
    unsigned n;

    buf_init(&pem, 0);
    pki_pem(p->cert, &pem);
    assert_ptr_equal(anchors_load(buf_slice(&pem), &store, &n), OK);
    assert_int_equal(n, 1);
    buf_done(&pem);
    return store;
}

/* A key and a leaf as credential_load takes them. */
static inline err_t pki_credential(const struct pki *p, const char *sans, const char *identity,
                                   long from, long to, struct credential **out)
{
    EVP_PKEY *key;
    X509 *leaf;
    X509_STORE *store = pki_anchors(p);
    struct buf pem;
    err_t err;

    assert_ptr_equal(credential_make_key(&key), OK);
    leaf = pki_issue(p, key, sans, from, to);
    buf_init(&pem, 0);
    pki_pem(leaf, &pem);
    err =
        credential_load(key, buf_slice(&pem), identity, store, (int64_t)time(NULL) * 1000, out);
    buf_done(&pem);
    X509_free(leaf);
    X509_STORE_free(store);
    EVP_PKEY_free(key);
    return err;
}

#endif
