/* The file: one line for each token, then the SHA-256 of everything before it.
 *
 *   weft-tokens 1
 *   ID EXPIRES_MS SECRET KEY|- IDENTITY
 *   sum HEX
 */
#include "broker/authority/tokens.h"

#include "broker/authority/authority.h"

#include "kit/hash.h"
#include "kit/log.h"
#include "kit/random.h"
#include "model/name.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>

#define FILE_NAME "tokens"
#define HEAD      "weft-tokens 1\n"

struct token {
    char id[TOKEN_ID + 1];
    uint8_t secret[TOKEN_SECRET];
    char identity[NAME_MAX_HOST + 1];
    int64_t expires_ms;
    bool is_used;
    uint8_t key_digest[32]; /* is_used */
    UT_hash_handle hh;
};

struct tokens {
    const struct folder *folder;
    struct token *all;
};

static void forget(struct tokens *t, struct token *k)
{
    HASH_DEL(t->all, k);
    OPENSSL_cleanse(k, sizeof(*k));
    free(k);
}

static void forget_expired(struct tokens *t, int64_t now_ms)
{
    struct token *k, *next;

    HASH_ITER(hh, t->all, k, next)
    {
        if (k->expires_ms <= now_ms)
            forget(t, k);
    }
}

static void add(struct tokens *t, const struct token *from)
{
    struct token *k = malloc(sizeof(*k));

    BUG_ON(k == NULL);
    *k = *from;
    HASH_ADD_STR(t->all, id, k);
}

size_t tokens_count(const struct tokens *t)
{
    return HASH_COUNT(t->all);
}

/* ---- file ---- */

static err_t print_one(const struct token *k, struct buf *out)
{
    char secret[65], key[65] = "-";
    err_t err;

    authority_hex(k->secret, sizeof(k->secret), secret);
    if (k->is_used)
        authority_hex(k->key_digest, sizeof(k->key_digest), key);
    err = buf_printf(out, "%s %" PRId64 " %s %s %s\n", k->id, k->expires_ms, secret, key,
                     k->identity);
    OPENSSL_cleanse(secret, sizeof(secret));
    return err;
}

static bool sum(slice_t bytes, char out[65])
{
    uint8_t digest[32];

    if (EVP_Digest(bytes.p, bytes.n, digest, NULL, EVP_sha256(), NULL) != 1)
        return false;
    authority_hex(digest, sizeof(digest), out);
    return true;
}

static err_t save(const struct tokens *t)
{
    struct buf b;
    struct token *k, *next;
    char hex[65];
    err_t err;

    buf_init(&b, FOLDER_FILE_MAX);
    err = buf_printf(&b, HEAD);
    HASH_ITER(hh, t->all, k, next)
    {
        if (err == OK)
            err = print_one(k, &b);
    }
    if (err == OK && !sum(buf_slice(&b), hex))
        err = ERR_OF(SIGN_FAILED);
    if (err == OK)
        err = buf_printf(&b, "sum %s\n", hex);
    if (err == OK)
        err = folder_write(t->folder, FILE_NAME, buf_slice(&b));
    buf_wipe(&b);
    buf_done(&b);
    return err;
}

static slice_t take_until(slice_t *in, char end)
{
    const uint8_t *p = in->n > 0 ? memchr(in->p, end, in->n) : NULL;
    size_t n = p != NULL ? (size_t)(p - in->p) : in->n;
    slice_t word = slice(in->p, n);

    *in = slice_skip(*in, n + 1);
    return word;
}

static bool read_hex(slice_t hex, uint8_t *out, size_t n)
{
    if (hex.n != 2 * n)
        return false;
    for (size_t i = 0; i < hex.n; i++) {
        uint8_t c = hex.p[i], v = (uint8_t)(c >= '0' && c <= '9' ? c - '0' : c - 'a' + 10);

        if (v > 15)
            return false;
        out[i / 2] = (uint8_t)((i & 1) == 0 ? v << 4 : out[i / 2] | v);
    }
    return true;
}

static bool read_one(slice_t line, struct token *k)
{
    uint8_t id[TOKEN_ID / 2];
    uint64_t expires;
    slice_t word = take_until(&line, ' ');

    memset(k, 0, sizeof(*k));
    if (!read_hex(word, id, sizeof(id)) || !slice_to_cstr(word, k->id, sizeof(k->id)))
        return false;
    if (!slice_to_u64(take_until(&line, ' '), &expires) || expires > INT64_MAX ||
        !read_hex(take_until(&line, ' '), k->secret, sizeof(k->secret)))
        return false;
    k->expires_ms = (int64_t)expires;
    word = take_until(&line, ' ');
    k->is_used = !slice_is_str(word, "-");
    if (k->is_used && !read_hex(word, k->key_digest, sizeof(k->key_digest)))
        return false;
    return name_is_host(line) && slice_to_cstr(line, k->identity, sizeof(k->identity));
}

static bool read_file(struct tokens *t, slice_t all)
{
    slice_t rest = all;
    char hex[65];

    if (!slice_starts(all, SLICE_LIT(HEAD)))
        return false;
    rest = slice_skip(rest, sizeof(HEAD) - 1);
    while (rest.n > 0) {
        struct token k;
        size_t at = all.n - rest.n;
        slice_t line = take_until(&rest, '\n');

        if (slice_starts(line, SLICE_LIT("sum ")))
            return rest.n == 0 && sum(slice(all.p, at), hex) &&
                   slice_is_str(slice_skip(line, 4), hex);
        if (tokens_count(t) >= TOKENS_MAX || !read_one(line, &k))
            return false;
        add(t, &k);
        OPENSSL_cleanse(&k, sizeof(k));
    }
    return false; /* the sum is missing: half a file */
}

err_t tokens_open(const struct folder *f, int64_t now_ms, struct tokens **out)
{
    struct tokens *t = calloc(1, sizeof(*t));
    struct buf b;
    bool is_there;
    err_t err;

    if (t == NULL)
        return ERR_OF(NOMEM);
    t->folder = f;
    buf_init(&b, 0);
    err = folder_read(f, FILE_NAME, &b, &is_there);
    if (err == OK && is_there && !read_file(t, buf_slice(&b))) {
        struct token *k, *next;

        log_warn("file of join tokens is damaged", "file=%s/%s put aside; open tokens are lost",
                 folder_path(f), FILE_NAME);
        HASH_ITER(hh, t->all, k, next)
        {
            forget(t, k);
        }
        err = folder_put_aside(f, FILE_NAME);
    }
    buf_wipe(&b);
    buf_done(&b);
    if (err != OK) {
        tokens_free(&t);
        return err;
    }
    forget_expired(t, now_ms);
    *out = t;
    return OK;
}

void tokens_free(struct tokens **tp)
{
    struct tokens *t = *tp;
    struct token *k, *next;

    if (t == NULL)
        return;
    HASH_ITER(hh, t->all, k, next)
    {
        forget(t, k);
    }
    free(t);
    *tp = NULL;
}

/* ---- use ---- */

static struct token *find(struct tokens *t, slice_t id)
{
    char text[TOKEN_ID + 1];
    struct token *k;

    if (!slice_to_cstr(id, text, sizeof(text)))
        return NULL;
    HASH_FIND_STR(t->all, text, k);
    return k;
}

err_t tokens_make(struct tokens *t, slice_t identity, uint32_t ttl_ms, int64_t now_ms,
                  char id[TOKEN_ID + 1], uint8_t secret[TOKEN_SECRET])
{
    struct name_identity parts;
    struct token k = {.is_used = false};
    int64_t ttl = ttl_ms == 0 ? TOKEN_TTL_MS : ttl_ms;
    err_t err;

    if (name_identity_parse(identity, &parts) != OK ||
        !slice_to_cstr(identity, k.identity, sizeof(k.identity)))
        return ERR_OF(BAD_PROOF);
    forget_expired(t, now_ms);
    if (tokens_count(t) >= TOKENS_MAX)
        return ERR_OF(TOKENS_FULL);
    random_hex(k.id, TOKEN_ID);
    random_bytes(k.secret, sizeof(k.secret));
    k.expires_ms = now_ms + (ttl < TOKEN_TTL_MAX_MS ? ttl : TOKEN_TTL_MAX_MS);
    add(t, &k);
    err = save(t); /* before anybody hears of it */
    if (err != OK) {
        forget(t, find(t, slice_str(k.id)));
    } else {
        memcpy(id, k.id, sizeof(k.id));
        memcpy(secret, k.secret, sizeof(k.secret));
    }
    OPENSSL_cleanse(&k, sizeof(k));
    return err;
}

static bool mac_is_right(const struct token *k, slice_t mac, slice_t csr)
{
    uint8_t digest[32], want[32];
    unsigned n = 0;
    bool ok = mac.n == sizeof(want) &&
              EVP_Digest(csr.p, csr.n, digest, NULL, EVP_sha256(), NULL) == 1 &&
              HMAC(EVP_sha256(), k->secret, sizeof(k->secret), digest, sizeof(digest), want,
                   &n) != NULL &&
              CRYPTO_memcmp(mac.p, want, sizeof(want)) == 0;

    OPENSSL_cleanse(want, sizeof(want));
    return ok;
}

err_t tokens_use(struct tokens *t, slice_t id, slice_t mac, slice_t identity, slice_t csr,
                 const uint8_t key_digest[32], int64_t now_ms)
{
    struct token *k = find(t, id);
    err_t err;

    if (k == NULL || k->expires_ms <= now_ms || !slice_is_str(identity, k->identity))
        return ERR_OF(BAD_TOKEN);
    if (!mac_is_right(k, mac, csr))
        return ERR_OF(BAD_PROOF);
    if (k->is_used)
        return memcmp(k->key_digest, key_digest, 32) == 0 ? OK : ERR_OF(BAD_TOKEN);
    k->is_used = true;
    memcpy(k->key_digest, key_digest, 32);
    err = save(t);
    if (err != OK)
        k->is_used = false;
    return err;
}
