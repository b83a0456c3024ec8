/* Keys and record protection of one direction. HKDF-Expand-Label never needs more than one
 * block here (no output is longer than the hash), so it is one HMAC over the label and the
 * counter 1. */
/* HMAC_CTX: what replaces it looks its algorithms up each time, or (EVP_MAC_CTX_dup) does not
 * work again once it ran out of memory. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "proxy/record/half.h"

#include "proxy/record/record.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#define LABEL_MAX 16

struct half_suite {
    uint16_t number;
    uint8_t hash_len, key_len;
    const char *md_name, *cipher_name;
    EVP_CIPHER *cipher; /* fetched once for the life of the process */
    EVP_MD *md;         /* likewise */
};

static struct half_suite suites[] = {
    {0x1301, 32, 16, "SHA256", "AES-128-GCM", NULL, NULL},
    {0x1302, 48, 32, "SHA384", "AES-256-GCM", NULL, NULL},
    {0x1303, 32, 32, "SHA256", "ChaCha20-Poly1305", NULL, NULL},
};

static bool suite_fetch(struct half_suite *s)
{
    if (s->cipher == NULL)
        s->cipher = EVP_CIPHER_fetch(NULL, s->cipher_name, NULL);
    if (s->md == NULL)
        s->md = EVP_MD_fetch(NULL, s->md_name, NULL);
    return s->cipher != NULL && s->md != NULL;
}

static bool is_started;

/* Every path through the library is taken once: what it sets up on first use stays broken if
 * there is no memory then. */
static err_t suite_try(const struct half_suite *s)
{
    static const uint8_t secret[HALF_SECRET_MAX] = {1};
    uint8_t rec[HALF_HEADER + 1 + HALF_TAG] = {0};
    struct half seal = {0}, open = {0};
    err_t err = half_init(&seal, s->number, slice(secret, s->hash_len), true);

    rec[HALF_HEADER] = 'w';
    if (err == OK)
        err = half_init(&open, s->number, slice(secret, s->hash_len), false);
    if (err == OK)
        err = half_seal(&seal, rec, 1);
    if (err == OK && (!half_open(&open, rec, 1 + HALF_TAG) || rec[HALF_HEADER] != 'w'))
        err = ERR_OF(RECORD_CRYPTO);
    half_done(&seal);
    half_done(&open);
    return err;
}

err_t half_start(void)
{
    if (is_started)
        return OK;
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++)
        if (!suite_fetch(&suites[i]))
            return ERR_OF(RECORD_CRYPTO);
    is_started = true;
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++)
        TRY(suite_try(&suites[i]));
    return OK;
}

static const struct half_suite *suite_find(uint16_t number)
{
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++) {
        if (suites[i].number == number && half_start() == OK)
            return &suites[i];
    }
    return NULL;
}

static bool hmac(const struct half_suite *suite, const uint8_t *secret, slice_t text,
                 uint8_t *out, unsigned *n)
{
    HMAC_CTX *ctx = HMAC_CTX_new();
    bool is_ok = ctx != NULL &&
                 HMAC_Init_ex(ctx, secret, suite->hash_len, suite->md, NULL) == 1 &&
                 HMAC_Update(ctx, text.p, text.n) == 1 && HMAC_Final(ctx, out, n) == 1;

    HMAC_CTX_free(ctx); /* wipes the key */
    return is_ok;
}

/* RFC 8446 7.1: HkdfLabel = length, "tls13 " label, empty context; then T(1) = HMAC(secret,
 * info || 1). */
static err_t expand_label(const struct half_suite *suite, const uint8_t *secret,
                          const char *label, uint8_t *out, size_t n)
{
    uint8_t info[2 + 1 + 6 + LABEL_MAX + 1 + 1];
    uint8_t block[EVP_MAX_MD_SIZE];
    size_t label_len = strlen(label), at = 0;
    unsigned got = 0;

    BUG_ON(n > suite->hash_len || label_len > LABEL_MAX);
    info[at++] = 0;
    info[at++] = (uint8_t)n;
    info[at++] = (uint8_t)(6 + label_len);
    memcpy(info + at, "tls13 ", 6);
    at += 6;
    memcpy(info + at, label, label_len);
    at += label_len;
    info[at++] = 0;
    info[at++] = 1;
    if (!hmac(suite, secret, slice(info, at), block, &got) || got < n)
        return ERR_OF(RECORD_CRYPTO);
    memcpy(out, block, n);
    OPENSSL_cleanse(block, sizeof(block));
    return OK;
}

static err_t derive(const struct half_suite *suite, const uint8_t *secret,
                    struct half_keys *out)
{
    out->key_len = suite->key_len;
    TRY(expand_label(suite, secret, "key", out->key, suite->key_len));
    return expand_label(suite, secret, "iv", out->iv, HALF_IV);
}

err_t half_derive(uint16_t suite, slice_t secret, struct half_keys *out)
{
    const struct half_suite *s = suite_find(suite);

    if (s == NULL)
        return ERR_OF(RECORD_SUITE);
    if (secret.n != s->hash_len)
        return ERR_OF(RECORD_SECRET);
    return derive(s, secret.p, out);
}

/* Puts the key of h->secret into the context; the sequence begins again. */
static err_t half_rekey(struct half *h)
{
    struct half_keys keys;
    err_t err = derive(h->suite, h->secret, &keys);

    if (err == OK) {
        int ok = EVP_CipherInit_ex(h->ctx, h->suite->cipher, NULL, keys.key, NULL,
                                   h->is_sealing ? 1 : 0);

        memcpy(h->iv, keys.iv, HALF_IV);
        h->seq = 0;
        err = ok == 1 ? OK : ERR_OF(RECORD_CRYPTO);
    }
    OPENSSL_cleanse(&keys, sizeof(keys));
    return err;
}

err_t half_init(struct half *h, uint16_t suite, slice_t secret, bool is_sealing)
{
    err_t err;

    *h = (struct half){.suite = suite_find(suite), .is_sealing = is_sealing};
    if (h->suite == NULL)
        return ERR_OF(RECORD_SUITE);
    if (secret.n != h->suite->hash_len)
        return ERR_OF(RECORD_SECRET);
    h->ctx = EVP_CIPHER_CTX_new();
    if (h->ctx == NULL)
        return ERR_OF(NOMEM);
    memcpy(h->secret, secret.p, secret.n);
    err = half_rekey(h);
    if (err != OK)
        half_done(h);
    return err;
}

void half_done(struct half *h)
{
    EVP_CIPHER_CTX_free(h->ctx); /* wipes the key schedule */
    OPENSSL_cleanse(h, sizeof(*h));
}

err_t half_update(struct half *h)
{
    uint8_t next[HALF_SECRET_MAX];

    TRY(expand_label(h->suite, h->secret, "traffic upd", next, h->suite->hash_len));
    memcpy(h->secret, next, h->suite->hash_len);
    OPENSSL_cleanse(next, sizeof(next));
    return half_rekey(h);
}

static void half_nonce(const struct half *h, uint8_t nonce[HALF_IV])
{
    memcpy(nonce, h->iv, HALF_IV);
    for (unsigned i = 0; i < 8; i++)
        nonce[HALF_IV - 1 - i] ^= (uint8_t)(h->seq >> (8 * i));
}

HOT err_t half_seal(struct half *h, uint8_t *rec, size_t n)
{
    uint8_t nonce[HALF_IV];
    size_t len = n + HALF_TAG;
    int out = 0;

    rec[0] = 23;
    rec[1] = 3;
    rec[2] = 3;
    rec[3] = (uint8_t)(len >> 8);
    rec[4] = (uint8_t)len;
    half_nonce(h, nonce);
    if (EVP_CipherInit_ex(h->ctx, NULL, NULL, NULL, nonce, -1) != 1 ||
        EVP_EncryptUpdate(h->ctx, NULL, &out, rec, HALF_HEADER) != 1 ||
        EVP_EncryptUpdate(h->ctx, rec + HALF_HEADER, &out, rec + HALF_HEADER, (int)n) != 1 ||
        EVP_EncryptFinal_ex(h->ctx, rec + HALF_HEADER + n, &out) != 1 ||
        EVP_CIPHER_CTX_ctrl(h->ctx, EVP_CTRL_AEAD_GET_TAG, HALF_TAG, rec + HALF_HEADER + n) !=
            1)
        return ERR_OF(RECORD_CRYPTO);
    h->seq++;
    return OK;
}

HOT bool half_open(struct half *h, uint8_t *rec, size_t n)
{
    uint8_t nonce[HALF_IV];
    int out = 0;
    size_t len = n - HALF_TAG;

    BUG_ON(n < HALF_TAG);
    half_nonce(h, nonce);
    if (EVP_CipherInit_ex(h->ctx, NULL, NULL, NULL, nonce, -1) != 1 ||
        EVP_CIPHER_CTX_ctrl(h->ctx, EVP_CTRL_AEAD_SET_TAG, HALF_TAG, rec + HALF_HEADER + len) !=
            1 ||
        EVP_DecryptUpdate(h->ctx, NULL, &out, rec, HALF_HEADER) != 1 ||
        EVP_DecryptUpdate(h->ctx, rec + HALF_HEADER, &out, rec + HALF_HEADER, (int)len) != 1 ||
        EVP_DecryptFinal_ex(h->ctx, rec + HALF_HEADER + len, &out) != 1)
        return false;
    h->seq++;
    return true;
}
