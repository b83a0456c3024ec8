/* Keys and certificates of the authority. Files are PEM; a private key is unencrypted, in a
 * 0600 file in a 0700 directory, since the process must start without a person. */
#include "broker/authority/ca.h"

#include "broker/authority/authority.h"

#include "kit/log.h"
#include "kit/random.h"

#include <inttypes.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#define FORMER_MAX 8

struct pair {
    EVP_PKEY *key; /* NULL for the root when its key is kept elsewhere */
    X509 *cert;    /* NULL: there is none */
};

struct ca {
    const struct folder *folder;
    struct ca_conf conf;
    struct pair root, issuer;
    X509 *former[FORMER_MAX];
    unsigned n_former;
    struct buf root_pem, issuer_pem;
    int64_t issuer_begin, issuer_end, root_end;
};

static void pair_done(struct pair *p)
{
    EVP_PKEY_free(p->key);
    X509_free(p->cert);
    *p = (struct pair){NULL, NULL};
}

/* ---- PEM ---- */

static err_t print_cert(X509 *cert, struct buf *out)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *p;
    long n;
    err_t err = ERR_OF(SIGN_FAILED);

    if (bio != NULL && PEM_write_bio_X509(bio, cert) == 1 &&
        (n = BIO_get_mem_data(bio, &p)) > 0)
        err = buf_add(out, p, (size_t)n);
    BIO_free(bio);
    return err;
}

static err_t print_key(EVP_PKEY *key, struct buf *out)
{
    BIO *bio = BIO_new(BIO_s_secmem());
    char *p;
    long n;
    err_t err = ERR_OF(SIGN_FAILED);

    if (bio != NULL && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1 &&
        (n = BIO_get_mem_data(bio, &p)) > 0)
        err = buf_add(out, p, (size_t)n);
    BIO_free(bio);
    return err;
}

static bool is_p256(const EVP_PKEY *key)
{
    char group[32];
    size_t n;

    return key != NULL && EVP_PKEY_is_a(key, "EC") == 1 &&
           EVP_PKEY_get_group_name(key, group, sizeof(group), &n) == 1 &&
           strcmp(group, "prime256v1") == 0;
}

static err_t broken(const struct ca *c, const char *name, const char *why)
{
    ERR_clear_error();
    log_error("authority's file is broken", "file=%s/%s why=\"%s\"", folder_path(c->folder),
              name, why);
    return ERR_OF(FILE_BROKEN);
}

/* NULL and no error: the file is not there. */
static err_t load_cert(const struct ca *c, const char *name, X509 **out)
{
    struct buf b;
    bool is_there;
    BIO *bio;
    err_t err;

    *out = NULL;
    buf_init(&b, 0);
    err = folder_read(c->folder, name, &b, &is_there);
    if (err == OK && is_there) {
        bio = BIO_new_mem_buf(buf_slice(&b).p, (int)buf_len(&b));
        *out = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
        BIO_free(bio);
        if (*out == NULL)
            err = broken(c, name, "it holds no certificate");
    }
    buf_done(&b);
    return err;
}

static err_t load_key(const struct ca *c, const char *name, EVP_PKEY **out)
{
    struct buf b;
    bool is_there;
    BIO *bio;
    err_t err;

    *out = NULL;
    buf_init(&b, 0);
    err = folder_read(c->folder, name, &b, &is_there);
    if (err == OK && is_there) {
        bio = BIO_new_mem_buf(buf_slice(&b).p, (int)buf_len(&b));
        *out = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
        BIO_free(bio);
        if (!is_p256(*out)) {
            EVP_PKEY_free(*out);
            *out = NULL;
            err = broken(c, name, "it holds no P-256 key");
        }
    }
    buf_wipe(&b);
    buf_done(&b);
    return err;
}

/* ---- making certificates ---- */

struct plan {
    EVP_PKEY *subject_key;
    const char *common_name; /* "" = empty subject */
    const char *dns_name;    /* NULL: a CA */
    int path_len;            /* of a CA */
    int64_t begin_ms, end_ms;
};

static bool add_ext(X509 *cert, X509V3_CTX *ctx, int nid, const char *value)
{
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, ctx, nid, value);
    bool ok = ext != NULL && X509_add_ext(cert, ext, -1) == 1;

    X509_EXTENSION_free(ext);
    return ok;
}

static bool add_ca_exts(X509 *cert, X509V3_CTX *ctx, const struct plan *p)
{
    char constraints[64];

    (void)snprintf(constraints, sizeof(constraints), "critical,CA:TRUE,pathlen:%d",
                   p->path_len);
    return add_ext(cert, ctx, NID_basic_constraints, constraints) &&
           add_ext(cert, ctx, NID_key_usage, "critical,keyCertSign,cRLSign");
}

static bool add_leaf_exts(X509 *cert, X509V3_CTX *ctx, const struct plan *p)
{
    char san[300];

    /* RFC 5280 4.2.1.6: critical, since the subject is empty. */
    (void)snprintf(san, sizeof(san), "critical,DNS:%s", p->dns_name);
    return add_ext(cert, ctx, NID_basic_constraints, "critical,CA:FALSE") &&
           add_ext(cert, ctx, NID_key_usage, "critical,digitalSignature") &&
           add_ext(cert, ctx, NID_ext_key_usage, "serverAuth,clientAuth") &&
           add_ext(cert, ctx, NID_subject_alt_name, san);
}

/* 127 random bits and a leading zero bit: positive, and 16 bytes long as DER. */
static bool set_serial(X509 *cert)
{
    uint8_t bytes[16];
    BIGNUM *n;
    bool ok;

    random_bytes(bytes, sizeof(bytes));
    bytes[0] = (uint8_t)((bytes[0] & 0x3f) | 0x40);
    n = BN_bin2bn(bytes, sizeof(bytes), NULL);
    ok = n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert)) != NULL;
    BN_free(n);
    return ok;
}

static bool set_times(X509 *cert, const struct plan *p)
{
    return ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)(p->begin_ms / 1000)) != NULL &&
           ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)(p->end_ms / 1000)) != NULL;
}

static bool set_name(X509 *cert, const char *common_name)
{
    return common_name[0] == '\0' ||
           X509_NAME_add_entry_by_NID(X509_get_subject_name(cert), NID_commonName,
                                      MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1,
                                      0) == 1;
}

/* Signed by `by`; by->cert NULL: by itself. NULL: it failed. */
static X509 *make_cert(const struct plan *p, const struct pair *by)
{
    X509 *cert = X509_new(), *issuer = by->cert != NULL ? by->cert : cert;
    X509V3_CTX ctx;
    bool ok = cert != NULL && X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
              set_times(cert, p) && set_name(cert, p->common_name) &&
              X509_set_pubkey(cert, p->subject_key) == 1 &&
              X509_set_issuer_name(cert, X509_get_subject_name(issuer)) == 1;

    if (ok) {
        X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
        ok =
            (p->dns_name == NULL ? add_ca_exts(cert, &ctx, p) : add_leaf_exts(cert, &ctx, p)) &&
            add_ext(cert, &ctx, NID_subject_key_identifier, "hash") &&
            (by->cert == NULL ||
             add_ext(cert, &ctx, NID_authority_key_identifier, "keyid:always")) &&
            X509_sign(cert, by->key, EVP_sha256()) > 0;
    }
    ERR_clear_error();
    if (ok)
        return cert;
    X509_free(cert);
    return NULL;
}

/* ---- root ---- */

static err_t write_pair(const struct ca *c, const struct pair *p, const char *key_name,
                        const char *cert_name)
{
    struct buf key, cert;
    err_t err;

    buf_init(&key, 0);
    buf_init(&cert, 0);
    err = print_key(p->key, &key);
    if (err == OK)
        err = print_cert(p->cert, &cert);
    /* The key first: a certificate that is there has its key. Torn in between, the pair does
     * not match, which the next start sees. */
    if (err == OK)
        err = folder_write(c->folder, key_name, buf_slice(&key));
    if (err == OK)
        err = folder_write(c->folder, cert_name, buf_slice(&cert));
    buf_wipe(&key);
    buf_done(&key);
    buf_done(&cert);
    return err;
}

static err_t make_root(struct ca *c, int64_t now_ms)
{
    char name[128];
    struct plan plan = {.common_name = name,
                        .path_len = 1,
                        .begin_ms = now_ms - CA_SKEW_MS,
                        .end_ms = now_ms + (int64_t)c->conf.root_lifetime_ms};

    (void)snprintf(name, sizeof(name), "root.%.50s", c->conf.trust_domain);
    pair_done(&c->root);
    c->root.key = EVP_EC_gen("P-256");
    plan.subject_key = c->root.key;
    if (c->root.key == NULL || (c->root.cert = make_cert(&plan, &c->root)) == NULL)
        return ERR_OF(SIGN_FAILED);
    TRY(write_pair(c, &c->root, "root.key", "root.crt"));
    log_info("root made", "file=%s/root.crt", folder_path(c->folder));
    return OK;
}

static err_t open_root(struct ca *c, int64_t now_ms)
{
    X509 *issuer = NULL;

    TRY(load_cert(c, "root.crt", &c->root.cert));
    if (c->root.cert == NULL) {
        /* Without a root nothing can have been issued, unless there is an issuer. */
        TRY(load_cert(c, "issuer.crt", &issuer));
        X509_free(issuer);
        if (issuer != NULL)
            return broken(c, "root.crt", "it is missing, but issuer.crt is there: put it back");
        return make_root(c, now_ms);
    }
    TRY(load_key(c, "root.key", &c->root.key));
    if (c->root.key == NULL) {
        log_info("root key is kept elsewhere", "file=%s/root.key", folder_path(c->folder));
        return OK;
    }
    if (X509_check_private_key(c->root.cert, c->root.key) != 1)
        return broken(c, "root.key", "it is not the key of root.crt");
    return OK;
}

/* ---- issuer ---- */

static bool read_issuer_times(struct ca *c)
{
    return authority_time(X509_get0_notBefore(c->issuer.cert), &c->issuer_begin) &&
           authority_time(X509_get0_notAfter(c->issuer.cert), &c->issuer_end);
}

static bool issuer_is_whole(const struct ca *c, const struct pair *p)
{
    EVP_PKEY *root = X509_get0_pubkey(c->root.cert);
    bool ok = p->key != NULL && p->cert != NULL &&
              X509_check_private_key(p->cert, p->key) == 1 && X509_check_ca(p->cert) == 1 &&
              X509_verify(p->cert, root) == 1;

    ERR_clear_error();
    return ok;
}

static err_t write_former(const struct ca *c)
{
    struct buf b;
    err_t err = OK;

    buf_init(&b, 0);
    for (unsigned i = 0; i < c->n_former && err == OK; i++)
        err = print_cert(c->former[i], &b);
    if (err == OK)
        err = folder_write(c->folder, "former.crt", buf_slice(&b));
    buf_done(&b);
    return err;
}

/* Newest first; those whose certificates can prove nothing any more go. Takes the reference. */
static void add_former(struct ca *c, X509 *cert, int64_t now_ms)
{
    int64_t end;

    if (!authority_time(X509_get0_notAfter(cert), &end) || end + CA_GRACE_MS <= now_ms) {
        X509_free(cert);
        return;
    }
    if (c->n_former == FORMER_MAX)
        X509_free(c->former[--c->n_former]);
    memmove(c->former + 1, c->former, c->n_former * sizeof(c->former[0]));
    c->former[0] = cert;
    c->n_former++;
}

static err_t load_former(struct ca *c, int64_t now_ms)
{
    struct buf b;
    bool is_there;
    BIO *bio;
    err_t err;

    buf_init(&b, 0);
    err = folder_read(c->folder, "former.crt", &b, &is_there);
    bio = err == OK && is_there && buf_len(&b) > 0
              ? BIO_new_mem_buf(buf_slice(&b).p, (int)buf_len(&b))
              : NULL;
    while (bio != NULL) {
        X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

        if (cert == NULL)
            break; /* the end, or damage: then some pods need a join token to renew */
        if (X509_verify(cert, X509_get0_pubkey(c->root.cert)) == 1)
            add_former(c, cert, now_ms);
        else
            X509_free(cert);
    }
    ERR_clear_error();
    BIO_free(bio);
    buf_done(&b);
    return err;
}

static err_t make_issuer(struct ca *c, int64_t now_ms)
{
    struct pair fresh = {NULL, NULL};
    char name[128];
    struct plan plan = {.common_name = name,
                        .path_len = 0,
                        .begin_ms = now_ms - CA_SKEW_MS,
                        .end_ms = now_ms + (int64_t)c->conf.issuer_lifetime_ms};
    err_t err = ERR_OF(SIGN_FAILED);

    if (c->root.key == NULL)
        return ERR_OF(NO_ROOT_KEY);
    if (plan.end_ms > c->root_end)
        plan.end_ms = c->root_end;
    (void)snprintf(name, sizeof(name), "identity.%.50s", c->conf.trust_domain);
    fresh.key = EVP_EC_gen("P-256");
    plan.subject_key = fresh.key;
    if (fresh.key != NULL && (fresh.cert = make_cert(&plan, &c->root)) != NULL) {
        X509 *old = c->issuer.cert;

        /* The old issuer is remembered before the new one replaces it on disk. */
        if (old != NULL && X509_up_ref(old) == 1)
            add_former(c, old, now_ms);
        err = write_former(c);
        if (err == OK)
            err = write_pair(c, &fresh, "issuer.key", "issuer.crt");
    }
    if (err != OK) {
        pair_done(&fresh);
        return err;
    }
    pair_done(&c->issuer);
    c->issuer = fresh;
    buf_consume(&c->issuer_pem, buf_len(&c->issuer_pem));
    TRY(print_cert(c->issuer.cert, &c->issuer_pem));
    if (!read_issuer_times(c))
        return ERR_OF(SIGN_FAILED);
    log_info("issuer made", "file=%s/issuer.crt", folder_path(c->folder));
    return OK;
}

static err_t open_issuer(struct ca *c, int64_t now_ms)
{
    err_t cert = load_cert(c, "issuer.crt", &c->issuer.cert);
    err_t key = load_key(c, "issuer.key", &c->issuer.key);

    if (cert == ERR_OF(FILE_MODE) || key == ERR_OF(FILE_MODE))
        return ERR_OF(FILE_MODE);
    TRY(load_former(c, now_ms));
    if (cert == OK && key == OK && issuer_is_whole(c, &c->issuer)) {
        TRY(print_cert(c->issuer.cert, &c->issuer_pem));
        return read_issuer_times(c) ? OK : broken(c, "issuer.crt", "its times cannot be read");
    }
    if (c->issuer.cert != NULL || c->issuer.key != NULL || cert != OK || key != OK)
        log_warn("issuer is not whole, made anew from the root", "file=%s/issuer.crt",
                 folder_path(c->folder));
    if (c->root.key == NULL)
        return broken(c, "issuer.crt",
                      "it does not fit issuer.key and root.crt, and root.key is elsewhere");
    /* A certificate that the root signed did issue, whatever became of its key: it stays known.
     */
    if (c->issuer.cert != NULL && X509_verify(c->issuer.cert, c->root.key) != 1) {
        X509_free(c->issuer.cert);
        c->issuer.cert = NULL;
    }
    ERR_clear_error();
    return make_issuer(c, now_ms);
}

/* ---- public ---- */

err_t ca_open(const struct folder *f, const struct ca_conf *conf, int64_t now_ms,
              struct ca **out)
{
    struct ca *c = calloc(1, sizeof(*c));
    err_t err;
    bool renewed;

    if (c == NULL)
        return ERR_OF(NOMEM);
    c->folder = f;
    c->conf = *conf;
    buf_init(&c->root_pem, 0);
    buf_init(&c->issuer_pem, 0);
    err = open_root(c, now_ms);
    if (err == OK && !authority_time(X509_get0_notAfter(c->root.cert), &c->root_end))
        err = broken(c, "root.crt", "its times cannot be read");
    if (err == OK)
        err = print_cert(c->root.cert, &c->root_pem);
    if (err == OK)
        err = open_issuer(c, now_ms);
    if (err == OK && ca_look(c, now_ms, &renewed) != OK)
        log_warn("issuer not renewed", "file=%s/root.key is needed for it", folder_path(f));
    if (err != OK) {
        ca_free(&c);
        return err;
    }
    *out = c;
    return OK;
}

void ca_free(struct ca **cp)
{
    struct ca *c = *cp;

    if (c == NULL)
        return;
    pair_done(&c->root);
    pair_done(&c->issuer);
    while (c->n_former > 0)
        X509_free(c->former[--c->n_former]);
    buf_done(&c->root_pem);
    buf_done(&c->issuer_pem);
    free(c);
    *cp = NULL;
}

err_t ca_look(struct ca *c, int64_t now_ms, bool *renewed)
{
    *renewed = false;
    if (now_ms < c->issuer_begin + (c->issuer_end - c->issuer_begin) / 2)
        return OK;
    /* Near the root's own end a new issuer would live no longer than the old one. */
    if (c->issuer_end >= c->root_end)
        return OK;
    TRY(make_issuer(c, now_ms));
    *renewed = true;
    return OK;
}

slice_t ca_anchors(const struct ca *c)
{
    return buf_slice(&c->root_pem);
}

int64_t ca_issuer_end(const struct ca *c)
{
    return c->issuer_end;
}

int64_t ca_root_end(const struct ca *c)
{
    return c->root_end;
}

static bool describe(X509 *cert, struct ca_issued *out)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned n;

    if (serial == NULL || ASN1_STRING_length(serial) > 20 ||
        X509_digest(cert, EVP_sha256(), digest, &n) != 1 || n != 32 ||
        !authority_time(X509_get0_notBefore(cert), &out->not_before_ms) ||
        !authority_time(X509_get0_notAfter(cert), &out->not_after_ms))
        return false;
    authority_hex(ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial),
                  out->serial);
    authority_hex(digest, 32, out->fingerprint);
    return true;
}

static int64_t leaf_skew_ms(const struct ca *c)
{
    uint64_t tenth = c->conf.leaf_lifetime_ms / 10;

    return tenth < CA_SKEW_MS ? (int64_t)tenth : CA_SKEW_MS;
}

err_t ca_sign(struct ca *c, EVP_PKEY *key, const char *identity, int64_t now_ms,
              struct buf *chain, struct ca_issued *out)
{
    struct plan plan = {.subject_key = key,
                        .common_name = "",
                        .dns_name = identity,
                        .begin_ms = now_ms - leaf_skew_ms(c),
                        .end_ms = now_ms + (int64_t)c->conf.leaf_lifetime_ms};
    X509 *cert;
    err_t err;

    if (now_ms >= c->issuer_end)
        return ERR_OF(ISSUER_EXPIRED);
    if (plan.end_ms > c->issuer_end)
        plan.end_ms = c->issuer_end;
    cert = make_cert(&plan, &c->issuer);
    if (cert == NULL)
        return ERR_OF(SIGN_FAILED);
    err = describe(cert, out) ? print_cert(cert, chain) : ERR_OF(SIGN_FAILED);
    X509_free(cert);
    if (err == OK)
        err = buf_add_slice(chain, buf_slice(&c->issuer_pem));
    return err;
}

bool ca_knows(const struct ca *c, X509 *leaf)
{
    bool known = X509_verify(leaf, X509_get0_pubkey(c->issuer.cert)) == 1;

    for (unsigned i = 0; !known && i < c->n_former; i++)
        known = X509_verify(leaf, X509_get0_pubkey(c->former[i])) == 1;
    ERR_clear_error();
    return known;
}
