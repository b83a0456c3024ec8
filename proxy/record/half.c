/* Keys and record protection of one direction. HKDF-Expand-Label never needs more than one
 * block here (no output is longer than the hash), so it is one HMAC over the label and the
 * counter 1. */
#include "proxy/record/half.h"

#include "proxy/record/record.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#define LABEL_MAX 16

struct half_suite {
    uint16_t number;
    uint8_t hash_len, key_len;
    const EVP_MD *(*md)(void);
    const EVP_CIPHER *(*cipher)(void);
};

static const struct half_suite suites[] = {
    {0x1301, 32, 16, EVP_sha256, EVP_aes_128_gcm},
    {0x1302, 48, 32, EVP_sha384, EVP_aes_256_gcm},
    {0x1303, 32, 32, EVP_sha256, EVP_chacha20_poly1305},
};

static const struct half_suite *suite_find(uint16_t number)
{
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++) {
        if (suites[i].number == number)
            return &suites[i];
    }
    return NULL;
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
    if (HMAC(suite->md(), secret, suite->hash_len, info, at, block, &got) == NULL || got < n)
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
        int ok = EVP_CipherInit_ex(h->ctx, h->suite->cipher(), NULL, keys.key, NULL,
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
