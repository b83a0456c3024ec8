#include "tls/verified.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DIGEST 32

struct entry {
    uint8_t digest[DIGEST];    /* SHA-256 of the leaf */
    int64_t from_ms, until_ms; /* until 0: empty */
    struct verified_peer peer;
};

struct verified {
    struct entry entries[VERIFIED_MAX];
    unsigned next; /* the oldest: entries are written in turn */
    uint64_t hits;
};

struct verified *verified_new(void)
{
    return calloc(1, sizeof(struct verified));
}

void verified_free(struct verified **v)
{
    free(*v);
    *v = NULL;
}

uint64_t verified_hits(const struct verified *v)
{
    return v->hits;
}

static bool digest_of(const X509 *leaf, uint8_t out[DIGEST])
{
    unsigned n = 0;

    return X509_digest(leaf, EVP_sha256(), out, &n) == 1 && n == DIGEST;
}

bool verified_find(struct verified *v, const X509 *leaf, int64_t wall_ms,
                   struct verified_peer *out)
{
    uint8_t digest[DIGEST];

    if (v == NULL || !digest_of(leaf, digest))
        return false;
    for (unsigned i = 0; i < VERIFIED_MAX; i++) {
        const struct entry *e = &v->entries[i];

        if (e->until_ms <= wall_ms || e->from_ms > wall_ms ||
            memcmp(e->digest, digest, DIGEST) != 0)
            continue;
        *out = e->peer;
        v->hits++;
        return true;
    }
    return false;
}

/* The earliest end of a chain, at most `until`; 0 if one cannot be read. */
static int64_t end_of(const STACK_OF(X509) * chain, int64_t until)
{
    for (int i = 0; i < sk_X509_num(chain); i++) {
        struct tm tm;
        int64_t end;

        if (ASN1_TIME_to_tm(X509_get0_notAfter(sk_X509_value(chain, i)), &tm) != 1)
            return 0;
        end = (int64_t)timegm(&tm) * 1000;
        if (end < until)
            until = end;
    }
    return until;
}

void verified_add(struct verified *v, const X509 *leaf, const STACK_OF(X509) * chain,
                  int64_t wall_ms, const struct verified_peer *peer)
{
    struct entry e = {.from_ms = wall_ms, .peer = *peer};

    e.until_ms = end_of(chain, wall_ms + VERIFIED_MS);
    if (v == NULL || sk_X509_num(chain) < 1 || e.until_ms <= wall_ms ||
        !digest_of(leaf, e.digest))
        return;
    v->entries[v->next] = e;
    v->next = (v->next + 1) % VERIFIED_MAX;
}
