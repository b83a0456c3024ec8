#include "tls/token.h"

#include "tls/tls_err.h"

#include "kit/log.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX   "weft1."
#define ID_LEN   16
#define TEXT_LEN (6 + ID_LEN + 1 + 64)

static int digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

err_t token_parse(slice_t text, struct token *out)
{
    const uint8_t *p;

    token_wipe(out);
    while (text.n > 0 && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r'))
        text.n--;
    if (text.n != TEXT_LEN || !slice_starts(text, SLICE_LIT(PREFIX)) ||
        text.p[6 + ID_LEN] != '.')
        return ERR_OF(BAD_TOKEN_FILE);
    p = text.p + 6;
    for (size_t i = 0; i < ID_LEN; i++) {
        if (digit(p[i]) < 0)
            return ERR_OF(BAD_TOKEN_FILE);
    }
    p += ID_LEN + 1;
    for (size_t i = 0; i < sizeof(out->secret); i++) {
        int hi = digit(p[2 * i]), lo = digit(p[2 * i + 1]);

        if (hi < 0 || lo < 0) {
            token_wipe(out);
            return ERR_OF(BAD_TOKEN_FILE);
        }
        out->secret[i] = (uint8_t)(hi << 4 | lo);
    }
    memcpy(out->id, text.p + 6, ID_LEN);
    out->id[ID_LEN] = '\0';
    return OK;
}

err_t token_read(const char *path, struct token *out)
{
    char text[TEXT_LEN + 4];
    struct stat st;
    ssize_t n;
    err_t err;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    token_wipe(out);
    if (fd < 0 && errno == ENOENT)
        return OK;
    if (fd < 0) {
        log_error("join token cannot be read", "file=%s errno=%s", path, strerror(errno));
        return ERR_OF(OS);
    }
    if (fstat(fd, &st) == 0 && (st.st_mode & 077) != 0)
        log_warn("join token can be read by others", "file=%s mode=%o want=0600", path,
                 (unsigned)(st.st_mode & 0777));
    n = read(fd, text, sizeof(text));
    (void)close(fd);
    err = n < 0 ? ERR_OF(OS) : token_parse(slice(text, (size_t)n), out);
    OPENSSL_cleanse(text, sizeof(text));
    return err;
}

void token_wipe(struct token *t)
{
    OPENSSL_cleanse(t, sizeof(*t));
}

err_t token_prove(const struct token *t, slice_t csr, uint8_t out[32])
{
    uint8_t digest[SHA256_DIGEST_LENGTH];
    unsigned n = 0;

    if (EVP_Digest(csr.p, csr.n, digest, NULL, EVP_sha256(), NULL) != 1 ||
        HMAC(EVP_sha256(), t->secret, sizeof(t->secret), digest, sizeof(digest), out, &n) ==
            NULL)
        return ERR_OF(KEY_FAILED);
    return OK;
}
