/* Kept content: what is read is what was written, wherever it lies, in any pieces, however often. */
#include "proxy/content/content.h"
#include "proxy/content/spill.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define TOTAL (5 * SPILL_BLOCK + 777)

static uint8_t bytes[TOTAL];
static uint8_t got[TOTAL];

static uint32_t seed = 1;

static size_t chance(size_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return below == 0 ? 0 : (seed >> 8) % below;
}

static void fill(void)
{
    for (size_t i = 0; i < TOTAL; i++)
        bytes[i] = (uint8_t)(i * 31 + i / 251);
}

/* Gives at most n bytes in pieces of at most `piece`; appends to got[*at]. */
static void give(struct content *c, size_t *at, size_t n, size_t piece)
{
    while (n > 0 && content_left(c) > 0) {
        slice_t s = content_next(c, n < piece ? n : piece);

        assert_true(s.n > 0 && s.n <= n && s.n <= piece);
        memcpy(got + *at, s.p, s.n);
        content_gave(c, s.n);
        *at += s.n;
        n -= s.n;
    }
}

static void replays_are_what_came(void **state)
{
    static const size_t memory[] = {0, 1, 100, SPILL_BLOCK, 2 * SPILL_BLOCK + 5, TOTAL};
    struct spill *spill = NULL;

    (void)state;
    fill();
    assert_true(spill_new(8 * SPILL_BLOCK, &spill) == OK);
    for (size_t m = 0; m < sizeof(memory) / sizeof(memory[0]); m++) {
        struct content c;
        size_t put = 0;

        content_init(&c);
        while (put < TOTAL) {
            size_t n = 1 + chance(3 * SPILL_BLOCK / 2);

            n = n < TOTAL - put ? n : TOTAL - put;
            assert_true(content_add(&c, slice(bytes + put, n), memory[m], spill) == OK);
            put += n;
            assert_int_equal(content_len(&c), put);
        }
        assert_int_equal(content_in_memory(&c), memory[m]);
        for (int again = 0; again < 4; again++) {
            size_t at = 0;

            while (content_left(&c) > 0)
                give(&c, &at, 1 + chance(SPILL_BLOCK), 1 + chance(2 * SPILL_BLOCK));
            assert_int_equal(at, TOTAL);
            assert_memory_equal(got, bytes, TOTAL);
            content_rewind(&c);
        }
        content_done(&c);
        assert_int_equal(spill_used(spill), 0);
    }
    spill_free(&spill);
}

/* Adding, giving, forgetting and beginning again in any order, against a plain array. */
static void any_order(void **state)
{
    struct spill *spill = NULL;

    (void)state;
    fill();
    assert_true(spill_new(8 * SPILL_BLOCK, &spill) == OK);
    for (int round = 0; round < 300; round++) {
        struct content c;
        size_t put = 0, at = 0, memory = chance(2 * SPILL_BLOCK);
        bool keeps = true;

        content_init(&c);
        while (at < TOTAL) {
            size_t n = 1 + chance(SPILL_BLOCK);

            n = n < TOTAL - put ? n : TOTAL - put;
            switch (chance(8)) {
            case 0:
                if (keeps) {
                    content_rewind(&c);
                    at = 0;
                }
                break;
            case 1:
                if (chance(10) == 0)
                    keeps = false;
                if (!keeps)
                    content_forget(&c);
                break;
            case 2:
            case 3:
            case 4:
                if (n > 0)
                    assert_true(content_add(&c, slice(bytes + put, n), memory, spill) == OK);
                put += n;
                break;
            default:
                give(&c, &at, 1 + chance(SPILL_BLOCK + 100), SPILL_BLOCK);
                break;
            }
            assert_int_equal(content_left(&c), put - at);
            assert_memory_equal(got, bytes, at);
        }
        if (chance(2) == 0)
            content_reset(&c);
        content_done(&c);
        assert_int_equal(spill_used(spill), 0);
    }
    spill_free(&spill);
}

/* All or nothing, and what was there before stays good. */
static void no_room(void **state)
{
    struct spill *spill = NULL;
    struct content a, b;
    size_t at = 0;

    (void)state;
    fill();
    assert_true(spill_new(2 * SPILL_BLOCK, &spill) == OK);
    content_init(&a);
    content_init(&b);
    assert_true(content_add(&a, slice(bytes, 100), 10, NULL) == &err_TOO_BIG);
    assert_int_equal(content_len(&a), 0);
    assert_true(content_add(&a, slice(bytes, SPILL_BLOCK + 50), 20, spill) == OK);
    assert_int_equal(spill_room(spill), 0);
    assert_true(content_add(&b, slice(bytes, 30), 20, spill) == &err_TOO_BIG);
    assert_int_equal(content_len(&b), 0);
    assert_true(content_add(&b, slice(bytes, 20), 20, spill) == OK);
    /* The rest of the last block is room, too. */
    assert_true(content_add(&a, slice(bytes + SPILL_BLOCK + 50, SPILL_BLOCK - 29), 20, spill) == &err_TOO_BIG);
    assert_true(content_add(&a, slice(bytes + SPILL_BLOCK + 50, SPILL_BLOCK - 30), 20, spill) == OK);
    assert_int_equal(content_len(&a), 2 * SPILL_BLOCK + 20);
    give(&a, &at, SIZE_MAX, SIZE_MAX);
    assert_int_equal(at, 2 * SPILL_BLOCK + 20);
    assert_memory_equal(got, bytes, at);
    content_reset(&a);
    assert_int_equal(spill_room(spill), 2 * SPILL_BLOCK);
    assert_true(content_add(&b, slice(bytes + 20, 2 * SPILL_BLOCK), 20, spill) == OK);
    content_done(&a);
    content_done(&b);
    spill_free(&spill);
    assert_true(spill_new(SPILL_BLOCK - 1, &spill) == &err_BAD_SETTING);
}

/* Memory goes back to the kernel with the block. */
static void blocks_are_given_back(void **state)
{
    struct spill *spill = NULL;
    uint32_t block;

    (void)state;
    assert_true(spill_new(2 * SPILL_BLOCK, &spill) == OK);
    block = spill_take(spill);
    assert_true(spill_write(spill, block, 10, SLICE_LIT("secret")) == OK);
    assert_memory_equal(spill_read(spill, block, 10, 6).p, "secret", 6);
    assert_int_equal(spill_give(spill, block), SPILL_NONE);
    assert_int_equal(spill_take(spill), block);
    assert_memory_equal(spill_read(spill, block, 10, 6).p, "\0\0\0\0\0\0", 6);
    spill_free(&spill);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replays_are_what_came),
        cmocka_unit_test(any_order),
        cmocka_unit_test(no_room),
        cmocka_unit_test(blocks_are_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
