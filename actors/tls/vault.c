/* Layout: a header, then two places for each shelf, all of equal length.
 *
 *   place: generation | lengths of the parts | SHA-256 of the place but itself | the parts, one
 * after the other
 *
 * A place counts when its generation is not 0, its lengths fit and the digest is right; of two
 * the higher generation counts. To store: generation of the other place = 0, write it,
 * generation = newest + 1, then the old place is overwritten (its key is of no more use to
 * anybody but a thief). Killed at any point, one whole place is left. */
#include "tls/vault.h"

#include "tls/tls_err.h"

#include "kit/log.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC  UINT64_C(0x5745465456415531) /* "WEFTVAU1" */
#define HEADER 64
#define DIGEST 32
#define PLACES 2

struct header {
    uint64_t magic;
    uint64_t size; /* of the whole vault, as it was laid out */
};

struct place {
    _Atomic uint64_t generation;
    uint32_t length[VAULT_PARTS];
    uint8_t digest[DIGEST];
    uint8_t data[];
};

struct vault {
    uint8_t *mem;
    size_t size, place_size;
    bool survives;
};

static struct place *place_at(const struct vault *v, enum vault_shelf shelf, unsigned i)
{
    return (struct place *)(void *)(v->mem + HEADER +
                                    ((size_t)shelf * PLACES + i) * v->place_size);
}

static size_t place_room(const struct vault *v)
{
    return v->place_size - sizeof(struct place);
}

/* The sum of the lengths, or SIZE_MAX if they do not fit. */
static size_t place_used(const struct vault *v, const struct place *p)
{
    size_t sum = 0;

    for (unsigned i = 0; i < VAULT_PARTS; i++) {
        if (p->length[i] > place_room(v))
            return SIZE_MAX;
        sum += p->length[i];
    }
    return sum <= place_room(v) ? sum : SIZE_MAX;
}

static bool place_digest(const struct place *p, uint64_t generation, size_t used,
                         uint8_t out[DIGEST])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(md, &generation, sizeof(generation)) == 1 &&
              EVP_DigestUpdate(md, p->length, sizeof(p->length)) == 1 &&
              EVP_DigestUpdate(md, p->data, used) == 1 &&
              EVP_DigestFinal_ex(md, out, NULL) == 1;

    EVP_MD_CTX_free(md);
    return ok;
}

/* The generation of a whole place, 0 if it is none. */
static uint64_t place_generation(const struct vault *v, const struct place *p)
{
    uint64_t generation = atomic_load(&p->generation);
    size_t used = place_used(v, p);
    uint8_t digest[DIGEST];

    if (generation == 0 || used == SIZE_MAX || !place_digest(p, generation, used, digest))
        return 0;
    return CRYPTO_memcmp(digest, p->digest, DIGEST) == 0 ? generation : 0;
}

static void place_wipe(const struct vault *v, struct place *p)
{
    atomic_store(&p->generation, 0);
    OPENSSL_cleanse((uint8_t *)p + sizeof(p->generation),
                    v->place_size - sizeof(p->generation));
}

/* ---- opening ---- */

static err_t map_fd(struct vault *v, int fd)
{
    struct stat st;

    if (fstat(fd, &st) != 0 || (st.st_size == 0 && ftruncate(fd, VAULT_SIZE) != 0)) {
        log_error("vault cannot be sized", "errno=%s", strerror(errno));
        return ERR_OF(OS);
    }
    v->size = st.st_size == 0 ? VAULT_SIZE : (size_t)st.st_size;
    if (v->size < VAULT_SIZE_MIN)
        return ERR_OF(VAULT_FULL);
    v->mem = mmap(NULL, v->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (v->mem == MAP_FAILED) {
        log_error("vault cannot be mapped", "errno=%s", strerror(errno));
        v->mem = NULL;
        return ERR_OF(OS);
    }
    v->survives = true;
    (void)madvise(v->mem, v->size,
                  MADV_DONTFORK); /* a child of ours (there is none) gets nothing */
    return OK;
}

static err_t map_private(struct vault *v)
{
    v->size = VAULT_SIZE;
    v->mem = mmap(NULL, v->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (v->mem == MAP_FAILED) {
        v->mem = NULL;
        return ERR_OF(NOMEM);
    }
    (void)madvise(v->mem, v->size, MADV_WIPEONFORK);
    return OK;
}

static void begin_anew(struct vault *v)
{
    struct header *h = (struct header *)(void *)v->mem;

    if (h->magic != 0)
        log_warn("vault not understood, begun anew", "bytes=%zu", v->size);
    OPENSSL_cleanse(v->mem, v->size);
    h->size = v->size;
    h->magic = MAGIC;
}

err_t vault_open(int fd, struct vault **out)
{
    struct vault *v = calloc(1, sizeof(*v));
    const struct header *h;
    err_t err;

    if (v == NULL)
        return ERR_OF(NOMEM);
    err = fd >= 0 ? map_fd(v, fd) : map_private(v);
    if (err != OK) {
        vault_close(&v);
        return err;
    }
    if (fd >= 0)
        (void)close(fd);
    /* memfd_secret has both by its nature; for other memory they are asked for as far as limits
     * allow. */
    (void)madvise(v->mem, v->size, MADV_DONTDUMP);
    (void)mlock(v->mem, v->size);
    v->place_size = ((v->size - HEADER) / (VAULT_SHELVES * PLACES)) & ~(size_t)63;
    h = (const struct header *)(const void *)v->mem;
    if (h->magic != MAGIC || h->size != v->size)
        begin_anew(v);
    *out = v;
    return OK;
}

void vault_close(struct vault **vp)
{
    struct vault *v = *vp;

    if (v == NULL)
        return;
    if (v->mem != NULL) {
        if (!v->survives)
            OPENSSL_cleanse(v->mem, v->size);
        (void)munmap(v->mem, v->size);
    }
    free(v);
    *vp = NULL;
}

bool vault_survives(const struct vault *v)
{
    return v->survives;
}

slice_t vault_bytes(const struct vault *v)
{
    return slice(v->mem, v->size);
}

/* ---- content ---- */

/* The place that counts, or NULL; *other is where the next content goes. */
static struct place *newest(const struct vault *v, enum vault_shelf shelf, struct place **other)
{
    struct place *a = place_at(v, shelf, 0), *b = place_at(v, shelf, 1);
    uint64_t ga = place_generation(v, a), gb = place_generation(v, b);
    bool a_counts = ga > gb;

    *other = a_counts ? b : a;
    if (ga == 0 && gb == 0)
        return NULL;
    return a_counts ? a : b;
}

err_t vault_store(struct vault *v, enum vault_shelf shelf, const slice_t parts[VAULT_PARTS])
{
    struct place *to, *old = newest(v, shelf, &to);
    uint64_t generation = old != NULL ? atomic_load(&old->generation) + 1 : 1;
    size_t used = 0;

    for (unsigned i = 0; i < VAULT_PARTS; i++) {
        if (parts[i].n > place_room(v) - used)
            return ERR_OF(VAULT_FULL);
        used += parts[i].n;
    }
    place_wipe(v, to);
    used = 0;
    for (unsigned i = 0; i < VAULT_PARTS; i++) {
        if (parts[i].n > 0)
            memcpy(to->data + used, parts[i].p, parts[i].n);
        to->length[i] = (uint32_t)parts[i].n;
        used += parts[i].n;
    }
    if (!place_digest(to, generation, used, to->digest)) {
        place_wipe(v, to);
        return ERR_OF(NOMEM);
    }
    atomic_store(&to->generation, generation);
    if (old != NULL)
        place_wipe(v, old);
    return OK;
}

bool vault_load(const struct vault *v, enum vault_shelf shelf, slice_t parts[VAULT_PARTS])
{
    struct place *other;
    const struct place *p = newest(v, shelf, &other);
    size_t at = 0;

    if (p == NULL)
        return false;
    for (unsigned i = 0; i < VAULT_PARTS; i++) {
        parts[i] = slice(p->data + at, p->length[i]);
        at += p->length[i];
    }
    return true;
}

void vault_wipe(struct vault *v, enum vault_shelf shelf)
{
    for (unsigned i = 0; i < PLACES; i++)
        place_wipe(v, place_at(v, shelf, i));
}
