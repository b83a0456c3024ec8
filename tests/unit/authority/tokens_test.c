/* The authority's files and join tokens. */
#include "broker/authority/authority.h"
#include "broker/authority/tokens.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define A "a.default.serviceaccount.identity.weft.cluster.local"
#define B "b.default.serviceaccount.identity.weft.cluster.local"

struct rig {
    char dir[64];
    struct folder folder;
    struct tokens *tokens;
};

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    (void)snprintf(r->dir, sizeof(r->dir), "/tmp/wt-auth-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    assert_ptr_equal(folder_open(r->dir, &r->folder), OK);
    assert_ptr_equal(tokens_open(&r->folder, 0, &r->tokens), OK);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"tokens", "tokens.bad", "tokens.new", "x", "link"};
    struct rig *r = *state;

    tokens_free(&r->tokens);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        (void)unlinkat(r->folder.fd, names[i], 0);
    folder_close(&r->folder);
    (void)rmdir(r->dir);
    free(r);
    return 0;
}

static void again(struct rig *r, int64_t now)
{
    tokens_free(&r->tokens);
    assert_ptr_equal(tokens_open(&r->folder, now, &r->tokens), OK);
}

static void prove(const uint8_t secret[32], const char *csr, uint8_t mac[32])
{
    uint8_t digest[32];
    unsigned n;

    assert_int_equal(EVP_Digest(csr, strlen(csr), digest, NULL, EVP_sha256(), NULL), 1);
    assert_non_null(HMAC(EVP_sha256(), secret, 32, digest, 32, mac, &n));
}

static err_t use(struct rig *r, const char *id, const uint8_t secret[32], const char *who,
                 uint8_t key, int64_t now)
{
    uint8_t mac[32], digest[32] = {key};

    prove(secret, "csr", mac);
    return tokens_use(r->tokens, slice_str(id), slice(mac, 32), slice_str(who),
                      SLICE_LIT("csr"), digest, now);
}

static void life_of_a_token(void **state)
{
    struct rig *r = *state;
    char id[17], other[17];
    uint8_t secret[32], secret2[32], mac[32], digest[32] = {1};

    assert_ptr_equal(tokens_make(r->tokens, slice_str(A), 0, 1000, id, secret), OK);
    assert_ptr_equal(tokens_make(r->tokens, slice_str(B), 5000, 1000, other, secret2), OK);
    assert_ptr_equal(use(r, id, secret, B, 1, 2000), ERR_OF(BAD_TOKEN));
    assert_ptr_equal(use(r, id, secret2, A, 1, 2000), ERR_OF(BAD_PROOF));
    assert_ptr_equal(use(r, "0000000000000000", secret, A, 1, 2000), ERR_OF(BAD_TOKEN));
    assert_ptr_equal(use(r, "", secret, A, 1, 2000), ERR_OF(BAD_TOKEN));
    prove(secret, "another csr", mac);
    assert_ptr_equal(tokens_use(r->tokens, slice_str(id), slice(mac, 32), slice_str(A),
                                SLICE_LIT("csr"), digest, 2000),
                     ERR_OF(BAD_PROOF));
    assert_ptr_equal(use(r, id, secret, A, 1, 2000), OK);
    assert_ptr_equal(use(r, id, secret, A, 1, 2001), OK); /* the answer was lost */
    assert_ptr_equal(use(r, id, secret, A, 2, 2001), ERR_OF(BAD_TOKEN));
    again(r, 3000);
    assert_int_equal(tokens_count(r->tokens), 2);
    assert_ptr_equal(use(r, id, secret, A, 2, 3000), ERR_OF(BAD_TOKEN));
    assert_ptr_equal(use(r, id, secret, A, 1, 3000), OK);
    assert_ptr_equal(use(r, other, secret2, B, 1, 5999), OK);
    assert_ptr_equal(use(r, other, secret2, B, 1, 6000), ERR_OF(BAD_TOKEN)); /* expired */
    again(r, 6000);
    assert_int_equal(tokens_count(r->tokens), 1);
    assert_ptr_equal(use(r, id, secret, A, 1, 1000 + TOKEN_TTL_MS), ERR_OF(BAD_TOKEN));
}

static void only_identities(void **state)
{
    static const char *const bad[] = {"",     "web", "web.default.svc.cluster.local",
                                      "*." A, A ".", "spiffe://cluster.local/x"};
    struct rig *r = *state;
    char id[17];
    uint8_t secret[32];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_ptr_equal(tokens_make(r->tokens, slice_str(bad[i]), 0, 0, id, secret),
                         ERR_OF(BAD_PROOF));
    assert_ptr_equal(tokens_make(r->tokens, SLICE_LIT(A "\0"), 0, 0, id, secret),
                     ERR_OF(BAD_PROOF));
    assert_int_equal(tokens_count(r->tokens), 0);
}

/* Cut or changed anywhere, the file is put aside; nothing of it is believed. */
static void damaged_files(void **state)
{
    struct rig *r = *state;
    char id[17], path[100];
    uint8_t secret[32];
    struct buf whole;
    bool is_there;

    assert_ptr_equal(tokens_make(r->tokens, slice_str(A), 0, 1000, id, secret), OK);
    buf_init(&whole, 0);
    assert_ptr_equal(folder_read(&r->folder, "tokens", &whole, &is_there), OK);
    assert_true(is_there);
    (void)snprintf(path, sizeof(path), "%s/tokens", r->dir);
    for (size_t i = 0; i < buf_len(&whole); i += 3) {
        assert_ptr_equal(folder_write(&r->folder, "tokens", slice(buf_slice(&whole).p, i)), OK);
        again(r, 1000);
        assert_int_equal(tokens_count(r->tokens), 0);
        whole.mem[i] ^= 1;
        assert_ptr_equal(folder_write(&r->folder, "tokens", buf_slice(&whole)), OK);
        whole.mem[i] ^= 1;
        again(r, 1000);
        assert_int_equal(tokens_count(r->tokens), 0);
    }
    assert_ptr_equal(folder_write(&r->folder, "tokens", buf_slice(&whole)), OK);
    again(r, 1000);
    assert_int_equal(tokens_count(r->tokens), 1);
    assert_ptr_equal(use(r, id, secret, A, 1, 2000), OK);
    buf_done(&whole);
}

static void modes_and_links(void **state)
{
    struct rig *r = *state;
    struct folder f;
    struct buf b;
    bool is_there;

    buf_init(&b, 0);
    assert_ptr_equal(folder_write(&r->folder, "x", SLICE_LIT("bytes")), OK);
    assert_ptr_equal(folder_read(&r->folder, "x", &b, &is_there), OK);
    assert_true(slice_is_str(buf_slice(&b), "bytes"));
    for (unsigned mode = 0601; mode <= 0677; mode += mode == 0604 ? 036 : 3) {
        assert_int_equal(fchmodat(r->folder.fd, "x", (mode_t)mode, 0), 0);
        assert_ptr_equal(folder_read(&r->folder, "x", &b, &is_there), ERR_OF(FILE_MODE));
    }
    assert_int_equal(fchmodat(r->folder.fd, "x", 0600, 0), 0);
    assert_int_equal(symlinkat("x", r->folder.fd, "link"), 0);
    assert_ptr_equal(folder_read(&r->folder, "link", &b, &is_there), ERR_OF(OS));
    assert_ptr_equal(folder_read(&r->folder, "none", &b, &is_there), OK);
    assert_false(is_there);
    assert_int_equal(chmod(r->dir, 0750), 0);
    assert_ptr_equal(folder_open(r->dir, &f), ERR_OF(FILE_MODE));
    assert_int_equal(chmod(r->dir, 0700), 0);
    buf_done(&b);
}

static void there_is_a_limit(void **state)
{
    struct rig *r = *state;
    struct buf b;
    char id[17];
    uint8_t secret[32];

    /* Written at once: 4096 tokens one by one would be 4096 files synced. */
    buf_init(&b, 0);
    assert_ptr_equal(buf_printf(&b, "weft-tokens 1\n"), OK);
    for (int i = 0; i < TOKENS_MAX; i++)
        assert_ptr_equal(buf_printf(&b, "%016x 5000 %064d - " A "\n", i, 7), OK);
    {
        uint8_t digest[32];
        char hex[65];

        assert_int_equal(
            EVP_Digest(buf_slice(&b).p, buf_len(&b), digest, NULL, EVP_sha256(), NULL), 1);
        authority_hex(digest, 32, hex);
        assert_ptr_equal(buf_printf(&b, "sum %s\n", hex), OK);
    }
    assert_ptr_equal(folder_write(&r->folder, "tokens", buf_slice(&b)), OK);
    buf_done(&b);
    again(r, 1000);
    assert_int_equal(tokens_count(r->tokens), TOKENS_MAX);
    assert_ptr_equal(tokens_make(r->tokens, slice_str(A), 0, 4999, id, secret),
                     ERR_OF(TOKENS_FULL));
    assert_ptr_equal(tokens_make(r->tokens, slice_str(A), 0, 5000, id, secret),
                     OK); /* those have expired */
    assert_int_equal(tokens_count(r->tokens), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(life_of_a_token, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_identities, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damaged_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(modes_and_links, set_up, tear_down),
        cmocka_unit_test_setup_teardown(there_is_a_limit, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
