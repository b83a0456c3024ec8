/* Keys, requests, chains and anchors. OpenSSL's return values become err_t here and travel no
 * further. */
#include "tls/credential.h"

#include "tls/identity.h"
#include "tls/tls_err.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#define ERR(name, cls, text) ERR_DEFINE(name, cls, text)
#include "tls/tbl/errors.h"
#undef ERR

/* ---- keys ---- */

static bool key_is_p256(const EVP_PKEY *key)
{
    char group[32];
    size_t n;

    return EVP_PKEY_is_a(key, "EC") == 1 &&
           EVP_PKEY_get_group_name(key, group, sizeof(group), &n) == 1 &&
           strcmp(group, "prime256v1") == 0;
}

err_t credential_make_key(EVP_PKEY **out)
{
    *out = EVP_EC_gen("P-256");
    return *out != NULL ? OK : ERR_OF(KEY_FAILED);
}

err_t credential_print_key(const EVP_PKEY *key, uint8_t out[CREDENTIAL_KEY_MAX], size_t *n)
{
    int len = i2d_PrivateKey(key, NULL);
    uint8_t *p = out;

    if (len <= 0 || len > CREDENTIAL_KEY_MAX || i2d_PrivateKey(key, &p) != len)
        return ERR_OF(KEY_FAILED);
    *n = (size_t)len;
    return OK;
}

err_t credential_parse_key(slice_t der, EVP_PKEY **out)
{
    const uint8_t *p = der.p;
    EVP_PKEY *key = der.n == 0 || der.n > CREDENTIAL_KEY_MAX
                        ? NULL
                        : d2i_PrivateKey(EVP_PKEY_EC, NULL, &p, (long)der.n);

    ERR_clear_error();
    if (key == NULL)
        return ERR_OF(KEY_FAILED);
    if (p != der.p + der.n || !key_is_p256(key)) {
        EVP_PKEY_free(key);
        return ERR_OF(KEY_FAILED);
    }
    *out = key;
    return OK;
}

err_t credential_sign(EVP_PKEY *key, slice_t what, uint8_t out[CREDENTIAL_SIG_MAX], size_t *n)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok;

    *n = CREDENTIAL_SIG_MAX;
    ok = md != NULL && EVP_DigestSignInit(md, NULL, EVP_sha256(), NULL, key) == 1 &&
         EVP_DigestSign(md, out, n, what.p, what.n) == 1;
    EVP_MD_CTX_free(md);
    ERR_clear_error();
    return ok ? OK : ERR_OF(KEY_FAILED);
}

/* ---- request ---- */

static bool add_san(X509_REQ *req, const char *identity)
{
    char value[IDENTITY_MAX + 8];
    STACK_OF(X509_EXTENSION) *exts = sk_X509_EXTENSION_new_null();
    X509_EXTENSION *ext;
    bool ok = false;
    int n = snprintf(value, sizeof(value), "DNS:%s", identity);

    ext = n > 0 && (size_t)n < sizeof(value)
              ? X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, value)
              : NULL;
    if (exts != NULL && ext != NULL && sk_X509_EXTENSION_push(exts, ext) > 0) {
        ext = NULL; /* in the stack now */
        ok = X509_REQ_add_extensions(req, exts) == 1;
    }
    X509_EXTENSION_free(ext);
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
    return ok;
}

err_t credential_request(EVP_PKEY *key, const char *identity, struct buf *out)
{
    X509_REQ *req = X509_REQ_new();
    unsigned char *der = NULL;
    int n = -1;
    err_t err = ERR_OF(KEY_FAILED);

    if (req != NULL && X509_REQ_set_version(req, 0) == 1 &&
        X509_REQ_set_pubkey(req, key) == 1 && add_san(req, identity) &&
        X509_REQ_sign(req, key, EVP_sha256()) > 0)
        n = i2d_X509_REQ(req, &der);
    if (n > 0)
        err = buf_add(out, der, (size_t)n);
    OPENSSL_free(der);
    X509_REQ_free(req);
    ERR_clear_error();
    return err;
}

/* ---- certificates ---- */

/* Reads every certificate of a PEM text. False if there is none, too many, or something else in
 * it. */
static STACK_OF(X509) * read_pem(slice_t pem, int max)
{
    STACK_OF(X509) *all = sk_X509_new_null();
    BIO *bio = pem.n <= 256 * 1024 ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
    bool ok = all != NULL && bio != NULL;

    ERR_clear_error();
    while (ok) {
        X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

        if (cert == NULL) {
            ok = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
            break;
        }
        if (sk_X509_num(all) >= max || sk_X509_push(all, cert) <= 0) {
            X509_free(cert);
            ok = false;
        }
    }
    ERR_clear_error();
    BIO_free(bio);
    if (ok && sk_X509_num(all) > 0)
        return all;
    sk_X509_pop_free(all, X509_free);
    return NULL;
}

static bool to_ms(const ASN1_TIME *t, int64_t *out)
{
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    int days, seconds;
    bool ok = epoch != NULL && ASN1_TIME_diff(&days, &seconds, epoch, t) == 1;

    ASN1_TIME_free(epoch);
    if (ok)
        *out = ((int64_t)days * 86400 + seconds) * 1000;
    return ok;
}

/* The chain's end is that of whoever ends first: behind it peers refuse us. */
static bool read_times(struct credential *c)
{
    if (!to_ms(X509_get0_notBefore(c->leaf), &c->not_before_ms) ||
        !to_ms(X509_get0_notAfter(c->leaf), &c->not_after_ms))
        return false;
    for (int i = 0; i < sk_X509_num(c->rest); i++) {
        int64_t end;

        if (!to_ms(X509_get0_notAfter(sk_X509_value(c->rest, i)), &end))
            return false;
        if (end < c->not_after_ms)
            c->not_after_ms = end;
    }
    return true;
}

err_t credential_check(const struct credential *c, X509_STORE *anchors, int64_t now_ms)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    int why = X509_V_ERR_UNSPECIFIED;

    if (ctx != NULL && X509_STORE_CTX_init(ctx, anchors, c->leaf, c->rest) == 1) {
        if (now_ms >= 0)
            X509_STORE_CTX_set_time(ctx, 0, (time_t)(now_ms / 1000));
        else
            X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_NO_CHECK_TIME);
        why = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
    }
    X509_STORE_CTX_free(ctx);
    ERR_clear_error();
    if (why == X509_V_OK)
        return OK;
    if (why == X509_V_ERR_CERT_HAS_EXPIRED || why == X509_V_ERR_CERT_NOT_YET_VALID)
        return ERR_OF(NOT_IN_FORCE);
    return ERR_OF(NOT_ANCHORED);
}

static err_t check(const struct credential *c, const char *identity, X509_STORE *anchors,
                   int64_t now_ms)
{
    char has[IDENTITY_MAX + 1];

    if (!key_is_p256(c->key))
        return ERR_OF(BAD_CERTIFICATE);
    if (X509_check_private_key(c->leaf, c->key) != 1) {
        ERR_clear_error();
        return ERR_OF(OTHER_KEY);
    }
    TRY(identity_of(c->leaf, has));
    if (strcmp(has, identity) != 0)
        return ERR_OF(OTHER_IDENTITY);
    return credential_check(c, anchors, now_ms);
}

err_t credential_load(EVP_PKEY *key, slice_t chain_pem, const char *identity,
                      X509_STORE *anchors, int64_t now_ms, struct credential **out)
{
    struct credential *c = calloc(1, sizeof(*c));
    err_t err;

    if (c == NULL)
        return ERR_OF(NOMEM);
    c->rest = read_pem(chain_pem, CREDENTIAL_CHAIN);
    if (c->rest == NULL) {
        credential_free(&c);
        return ERR_OF(BAD_CERTIFICATE);
    }
    c->leaf = sk_X509_shift(c->rest);
    if (EVP_PKEY_up_ref(key) == 1)
        c->key = key;
    if (c->key == NULL || !read_times(c))
        err = ERR_OF(BAD_CERTIFICATE);
    else
        err = check(c, identity, anchors, now_ms);
    if (err != OK) {
        credential_free(&c);
        return err;
    }
    *out = c;
    return OK;
}

void credential_free(struct credential **cp)
{
    struct credential *c = *cp;

    if (c == NULL)
        return;
    EVP_PKEY_free(c->key);
    X509_free(c->leaf);
    sk_X509_pop_free(c->rest, X509_free);
    free(c);
    *cp = NULL;
}

err_t credential_print_leaf(const struct credential *c, struct buf *out)
{
    unsigned char *der = NULL;
    int n = i2d_X509(c->leaf, &der);
    err_t err = n > 0 ? buf_add(out, der, (size_t)n) : ERR_OF(BAD_CERTIFICATE);

    OPENSSL_free(der);
    return err;
}

err_t anchors_load(slice_t pem, X509_STORE **out, unsigned *n)
{
    STACK_OF(X509) *all = read_pem(pem, CREDENTIAL_ANCHORS);
    X509_STORE *store = X509_STORE_new();
    bool ok = all != NULL && store != NULL;

    for (int i = 0; ok && i < sk_X509_num(all); i++)
        ok = X509_STORE_add_cert(store, sk_X509_value(all, i)) == 1;
    /* An anchor counts by being in the set, whether it signed itself or not. */
    ok = ok && X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) == 1;
    *n = ok ? (unsigned)sk_X509_num(all) : 0;
    sk_X509_pop_free(all, X509_free);
    ERR_clear_error();
    if (!ok) {
        X509_STORE_free(store);
        return ERR_OF(BAD_ANCHORS);
    }
    *out = store;
    return OK;
}
