/* The vault: what is stored comes back to the next process, whole or not at all. */
#include "tls/tls_err.h"
#include "tls/vault.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static int memory(size_t size)
{
    int fd = memfd_create("vault", MFD_CLOEXEC);

    assert_true(fd >= 0);
    if (size > 0)
        assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

/* The vault closes its descriptor; the test keeps one, as the supervisor does. */
static struct vault *open_on(int fd)
{
    struct vault *v;

    assert_ptr_equal(vault_open(dup(fd), &v), OK);
    return v;
}

static void store(struct vault *v, enum vault_shelf shelf, const char *a, const char *b)
{
    const slice_t parts[VAULT_PARTS] = {slice_str(a), slice_str(b)};

    assert_ptr_equal(vault_store(v, shelf, parts), OK);
}

static void expect(const struct vault *v, enum vault_shelf shelf, const char *a, const char *b)
{
    slice_t parts[VAULT_PARTS];

    if (a == NULL) {
        assert_false(vault_load(v, shelf, parts));
        return;
    }
    assert_true(vault_load(v, shelf, parts));
    assert_true(slice_is_str(parts[0], a));
    assert_true(slice_is_str(parts[1], b));
    assert_int_equal(parts[2].n, 0);
}

static bool holds(const struct vault *v, const char *word)
{
    slice_t all = vault_bytes(v);

    return memmem(all.p, all.n, word, strlen(word)) != NULL;
}

static void survives_and_forgets(void **state)
{
    int fd = memory(0);
    struct vault *v = open_on(fd);

    (void)state;
    assert_true(vault_survives(v));
    expect(v, VAULT_CURRENT, NULL, NULL);
    store(v, VAULT_CURRENT, "first key", "chain");
    store(v, VAULT_PENDING, "pending key", "csr");
    vault_close(&v);
    v = open_on(fd); /* the next process */
    expect(v, VAULT_CURRENT, "first key", "chain");
    expect(v, VAULT_PENDING, "pending key", "csr");
    for (int i = 0; i < 5; i++)
        store(v, VAULT_CURRENT, i % 2 ? "odd key" : "even key", "chain 2");
    expect(v, VAULT_CURRENT, "even key", "chain 2");
    assert_false(holds(v, "first key")); /* an old key is overwritten, not only forgotten */
    assert_false(holds(v, "odd key"));
    vault_wipe(v, VAULT_PENDING);
    assert_false(holds(v, "pending"));
    expect(v, VAULT_PENDING, NULL, NULL);
    expect(v, VAULT_CURRENT, "even key", "chain 2");
    vault_close(&v);
    close(fd);
}

static void too_long_changes_nothing(void **state)
{
    int fd = memory(VAULT_SIZE);
    struct vault *v = open_on(fd);
    char *big = malloc(VAULT_SIZE);
    slice_t parts[VAULT_PARTS] = {{0}};

    (void)state;
    assert_non_null(big);
    memset(big, 'b', VAULT_SIZE);
    store(v, VAULT_CURRENT, "key", "chain");
    for (size_t n = 15 * 1024; n <= VAULT_SIZE; n += 7 * 1024) {
        parts[0] = slice(big, n / 2);
        parts[3] = slice(big, n - n / 2);
        if (vault_store(v, VAULT_CURRENT, parts) == OK) {
            slice_t got[VAULT_PARTS];

            assert_true(n < 17 * 1024);
            assert_true(vault_load(v, VAULT_CURRENT, got));
            assert_int_equal(got[3].n, n - n / 2);
            store(v, VAULT_CURRENT, "key", "chain");
        }
        expect(v, VAULT_CURRENT, "key", "chain");
    }
    parts[0] = parts[3] = slice(big, SIZE_MAX / 2);
    assert_ptr_equal(vault_store(v, VAULT_CURRENT, parts), ERR_OF(VAULT_FULL));
    free(big);
    vault_close(&v);
    close(fd);
}

/* Every byte of it damaged, one at a time: the older or nothing, never something else. */
static void any_damage_is_seen(void **state)
{
    int fd = memory(VAULT_SIZE_MIN);
    uint8_t *raw = mmap(NULL, VAULT_SIZE_MIN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    struct vault *v = open_on(fd);
    unsigned lost = 0;

    (void)state;
    assert_ptr_not_equal(raw, MAP_FAILED);
    store(v, VAULT_CURRENT, "the key", "the chain");
    vault_close(&v);
    for (size_t i = 0; i < VAULT_SIZE_MIN; i += i < 400 ? 1 : 53) {
        slice_t parts[VAULT_PARTS];

        raw[i] ^= 0x5a;
        if (i >= 16) { /* the header's damage wipes all: tried below */
            v = open_on(fd);
            if (vault_load(v, VAULT_CURRENT, parts))
                assert_true(slice_is_str(parts[0], "the key") &&
                            slice_is_str(parts[1], "the chain"));
            else
                lost++;
            vault_close(&v);
        }
        raw[i] ^= 0x5a;
    }
    assert_true(lost > 8 + 16 + 32 + 15 && lost < 100);
    raw[3] ^= 1;
    v = open_on(fd);
    expect(v, VAULT_CURRENT, NULL, NULL);
    assert_false(holds(v, "the key"));
    store(v, VAULT_CURRENT, "again", "usable");
    expect(v, VAULT_CURRENT, "again", "usable");
    vault_close(&v);
    (void)munmap(raw, VAULT_SIZE_MIN);
    close(fd);
}

/* Killed while the other place is being written: the state at any moment is one of these. */
static void a_half_written_place_is_none(void **state)
{
    int fd = memory(VAULT_SIZE_MIN);
    uint8_t *raw = mmap(NULL, VAULT_SIZE_MIN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint8_t *before = malloc(VAULT_SIZE_MIN), *after = malloc(VAULT_SIZE_MIN);
    struct vault *v = open_on(fd);

    (void)state;
    assert_true(raw != MAP_FAILED && before != NULL && after != NULL);
    store(v, VAULT_CURRENT, "old key", "old chain");
    memcpy(before, raw, VAULT_SIZE_MIN);
    store(v, VAULT_CURRENT, "new key", "new chain");
    memcpy(after, raw, VAULT_SIZE_MIN);
    vault_close(&v);
    for (size_t cut = 64; cut < 600; cut++) {
        slice_t parts[VAULT_PARTS];
        bool is_old, is_new;

        /* The second place written up to `cut`, the first still there. */
        memcpy(raw, before, VAULT_SIZE_MIN);
        for (size_t i = 0; i < VAULT_SIZE_MIN; i++) {
            if (before[i] == 0 && i < VAULT_SIZE_MIN / 4 + cut)
                raw[i] = after[i];
        }
        v = open_on(fd);
        assert_true(vault_load(v, VAULT_CURRENT, parts));
        is_old = slice_is_str(parts[0], "old key") && slice_is_str(parts[1], "old chain");
        is_new = slice_is_str(parts[0], "new key") && slice_is_str(parts[1], "new chain");
        assert_true(is_old || is_new);
        vault_close(&v);
    }
    free(before);
    free(after);
    (void)munmap(raw, VAULT_SIZE_MIN);
    close(fd);
}

static void other_memory(void **state)
{
    struct vault *v = NULL;
    int fd = memory(4096), random = memory(VAULT_SIZE);

    (void)state;
    assert_ptr_equal(vault_open(dup(fd), &v), ERR_OF(VAULT_FULL));
    assert_null(v);
    close(fd);
    assert_int_equal(write(random, "not a vault at all", 18), 18);
    v = open_on(random);
    expect(v, VAULT_CURRENT, NULL, NULL);
    vault_close(&v);
    close(random);
    assert_ptr_equal(vault_open(-1, &v), OK); /* none: works, does not survive */
    assert_false(vault_survives(v));
    store(v, VAULT_CURRENT, "k", "c");
    expect(v, VAULT_CURRENT, "k", "c");
    vault_close(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survives_and_forgets), cmocka_unit_test(too_long_changes_nothing),
        cmocka_unit_test(any_damage_is_seen),   cmocka_unit_test(a_half_written_place_is_none),
        cmocka_unit_test(other_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
