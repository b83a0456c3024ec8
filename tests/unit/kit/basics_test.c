/* slice, buf, arena, hash, random, clock, timer, list: the parts without a kernel behind them. */
#include "kit/arena.h"
#include "kit/buf.h"
#include "kit/clock.h"
#include "kit/hash.h"
#include "kit/list.h"
#include "kit/random.h"
#include "kit/timer.h"

#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_slice_of_u64(void **state)
{
    static const uint64_t values[] = {0, 7, 10, 99, 100, 65535, 1234567890, UINT64_MAX / 10, UINT64_MAX};
    char room[SLICE_U64_MAX], text[32];

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        uint64_t back = 1;
        slice_t s = slice_of_u64(values[i], room);

        (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)values[i]);
        assert_true(slice_is_str(s, text));
        assert_true(slice_to_u64(s, &back));
        assert_true(back == values[i]);
    }
}

static void test_arena_copy_two(void **state)
{
    struct arena a;
    slice_t s;

    (void)state;
    arena_init(&a, 64);
    s = arena_copy_two(&a, SLICE_LIT("one"), SLICE_LIT("two"));
    assert_true(slice_is_str(s, "onetwo"));
    assert_int_equal(s.p[6], 0);
    s = arena_copy_two(&a, SLICE_LIT("one"), slice(NULL, 0));
    assert_true(slice_is_str(s, "one"));
    s = arena_copy_two(&a, slice(NULL, 0), slice(NULL, 0));
    assert_non_null(s.p);
    assert_int_equal(s.n, 0);
    assert_null(arena_copy_two(&a, slice(s.p, SIZE_MAX / 2), slice(s.p, SIZE_MAX / 2)).p);
    assert_null(arena_copy_two(&a, slice(s.p, 60), slice(s.p, 60)).p);
    arena_done(&a);
}

static void test_slice_to_u64(void **state)
{
    static const struct {
        const char *text;
        bool is_ok;
        uint64_t value;
    } cases[] = {
        {"0", true, 0},
        {"007", true, 7},
        {"18446744073709551615", true, UINT64_MAX},
        {"18446744073709551616", false, 0},
        {"18446744073709551620", false, 0},
        {"99999999999999999999999", false, 0},
        {"", false, 0},
        {"-1", false, 0},
        {"+1", false, 0},
        {" 1", false, 0},
        {"1 ", false, 0},
        {"0x1", false, 0},
        {"1/", false, 0},
        {"1:", false, 0},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t v = 42;

        assert_int_equal(slice_to_u64(slice_str(cases[i].text), &v), cases[i].is_ok);
        assert_int_equal(v, cases[i].is_ok ? cases[i].value : 42);
    }
}

static void test_slice_to_cstr(void **state)
{
    char dst[4] = "xyz";

    (void)state;
    assert_true(slice_to_cstr(SLICE_LIT("abc"), dst, sizeof(dst)));
    assert_string_equal(dst, "abc");
    assert_false(slice_to_cstr(SLICE_LIT("abcd"), dst, sizeof(dst)));
    assert_string_equal(dst, "");
    assert_false(slice_to_cstr(slice("a\0b", 3), dst, sizeof(dst)));
    assert_string_equal(dst, "");
    assert_true(slice_to_cstr(slice(NULL, 0), dst, sizeof(dst)));
    assert_false(slice_to_cstr(SLICE_LIT(""), dst, 0));
}

static void test_slice_compare(void **state)
{
    slice_t none = slice(NULL, 0);

    (void)state;
    assert_true(slice_is(none, SLICE_LIT("")));
    assert_true(slice_is_str(none, NULL));
    assert_true(slice_is_nocase(SLICE_LIT("AbC"), SLICE_LIT("aBc")));
    assert_false(slice_is_nocase(SLICE_LIT("abc"), SLICE_LIT("abd")));
    assert_true(slice_starts(SLICE_LIT("abc"), SLICE_LIT("ab")));
    assert_false(slice_starts(SLICE_LIT("a"), SLICE_LIT("ab")));
    assert_true(slice_ends(SLICE_LIT("abc"), SLICE_LIT("bc")));
    assert_false(slice_ends(SLICE_LIT("c"), SLICE_LIT("bc")));
    assert_int_equal(slice_skip(SLICE_LIT("abc"), 9).n, 0);
    assert_int_equal(slice_skip(none, 1).n, 0);
    assert_true(slice_is_str(slice_skip(SLICE_LIT("abc"), 1), "bc"));
}

static void test_buf_ceiling(void **state)
{
    struct buf b;
    char big[2000];

    (void)state;
    memset(big, 'x', sizeof(big));
    buf_init(&b, 1000);
    assert_null(buf_slice(&b).p);
    assert_ptr_equal(buf_add(&b, big, 1001), ERR_OF(TOO_BIG));
    assert_int_equal(buf_len(&b), 0);
    assert_null(buf_add(&b, big, 600));
    assert_null(buf_add(&b, big, 400));
    assert_ptr_equal(buf_add(&b, big, 1), ERR_OF(TOO_BIG));
    assert_null(buf_reserve(&b, 1));
    assert_non_null(buf_reserve(&b, 0));
    assert_int_equal(buf_len(&b), 1000);
    assert_true(b.cap <= 1024);
    buf_release(&b);
    assert_non_null(b.mem); /* not empty: nothing is given back */
    buf_consume(&b, 999);
    assert_null(buf_add(&b, big, 999));
    buf_consume(&b, 1000);
    assert_int_equal(b.head, 0);
    buf_release(&b);
    assert_null(b.mem);
    assert_ptr_equal(buf_printf(&b, "%1001d", 1), ERR_OF(TOO_BIG));
    assert_null(buf_printf(&b, "%1000d", 1));
    assert_int_equal(buf_len(&b), 1000);
    buf_done(&b);
}

/* Against a plain model: any mix of writes and reads keeps order and content. */
static void test_buf_queue(void **state)
{
    struct buf b;
    uint8_t in = 0, out = 0;

    (void)state;
    random_test_seed(7);
    buf_init(&b, 5000);
    for (unsigned round = 0; round < 20000; round++) {
        uint32_t n = random_below(300);
        slice_t s;

        if (random_below(2) == 0) {
            uint8_t *room = buf_reserve(&b, n);

            assert_int_equal(room == NULL, buf_len(&b) + n > 5000);
            for (uint32_t i = 0; room != NULL && i < n; i++)
                room[i] = in++;
            if (room != NULL)
                buf_commit(&b, n);
        } else {
            s = buf_slice(&b);
            n = n < s.n ? n : (uint32_t)s.n;
            for (uint32_t i = 0; i < n; i++)
                assert_int_equal(s.p[i], out++);
            buf_consume(&b, n);
        }
    }
    assert_int_equal((uint8_t)(in - out), (uint8_t)buf_len(&b));
    buf_wipe(&b);
    assert_int_equal(buf_len(&b), 0);
    buf_done(&b);
}

static void test_arena(void **state)
{
    struct arena a;
    slice_t s;

    (void)state;
    arena_init(&a, 100000);
    for (unsigned i = 1; i < 400; i++) {
        uint8_t *p = arena_alloc(&a, i);

        assert_non_null(p);
        assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
        for (unsigned k = 0; k < i; k++)
            assert_int_equal(p[k], 0);
        memset(p, 0xff, i);
    }
    assert_null(arena_alloc(&a, 100000));
    assert_null(arena_alloc(&a, SIZE_MAX));
    arena_reset(&a);
    assert_int_equal(a.used, 0);
    s = arena_copy(&a, SLICE_LIT("hello"));
    assert_true(slice_is_str(s, "hello"));
    assert_int_equal(s.p[5], 0);
    s = arena_copy(&a, slice(NULL, 0));
    assert_non_null(s.p);
    assert_int_equal(s.n, 0);
    assert_non_null(arena_alloc(&a, 90000));
    assert_null(arena_copy(&a, slice(s.p, SIZE_MAX)).p);
    arena_done(&a);
    arena_init(&a, 8);
    assert_null(arena_copy(&a, SLICE_LIT("too long for it")).p);
    arena_done(&a);
}

/* The vectors of SipHash-1-3 with key 00..0f and input 00..n-1, as the reference code prints them. */
static void test_hash(void **state)
{
    const uint64_t k0 = UINT64_C(0x0706050403020100), k1 = UINT64_C(0x0f0e0d0c0b0a0908);
    uint8_t in[64];

    (void)state;
    for (unsigned i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)i;
    assert_int_equal(kit_hash_keyed(k0, k1, in, 0), UINT64_C(0xabac0158050fc4dc));
    assert_int_equal(kit_hash_keyed(k0, k1, in, 1), UINT64_C(0xc9f49bf37d57ca93));
    assert_int_equal(kit_hash_keyed(k0, k1, in, 2), UINT64_C(0x82cb9b024dc7d44d));
    assert_int_equal(kit_hash_keyed(k0, k1, in, 3), UINT64_C(0x8bf80ab8e7ddf7fb));
    assert_int_equal(kit_hash_keyed(k0, k1, in, 8), UINT64_C(0x369095118d299a8e));
    assert_int_equal(kit_hash(in, 5), kit_hash(in, 5));
    assert_int_not_equal(kit_hash(in, 5), kit_hash(in, 6));
    assert_int_not_equal(kit_hash(in, 5), kit_hash_keyed(k0, k1, in, 5));
}

struct entry {
    char name[16];
    UT_hash_handle hh;
};

static void test_hash_table(void **state)
{
    struct entry *table = NULL, *e, *tmp;

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        e = calloc(1, sizeof(*e));
        (void)snprintf(e->name, sizeof(e->name), "n%u", i);
        HASH_ADD_STR(table, name, e);
    }
    HASH_FIND_STR(table, "n777", e);
    assert_non_null(e);
    HASH_FIND_STR(table, "n1000", e);
    assert_null(e);
    HASH_ITER(hh, table, e, tmp)
    {
        HASH_DEL(table, e);
        free(e);
    }
}

static void test_random(void **state)
{
    char hex[18];
    unsigned seen[10] = {0};
    uint32_t a[4];

    (void)state;
    random_hex(hex, 17);
    assert_int_equal(strspn(hex, "0123456789abcdef"), 17);
    assert_int_equal(strlen(hex), 17);
    assert_int_not_equal(random_u64(), random_u64());
    random_test_seed(1);
    for (unsigned i = 0; i < 4; i++)
        a[i] = random_below(1000000);
    random_test_seed(1);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(random_below(1000000), a[i]);
    for (unsigned i = 0; i < 10000; i++) {
        double u = random_unit();

        seen[random_below(10)]++;
        assert_true(u >= 0 && u < 1);
    }
    for (unsigned i = 0; i < 10; i++)
        assert_true(seen[i] > 850 && seen[i] < 1150);
    assert_int_equal(random_below(1), 0);
}

static void test_clock(void **state)
{
    uint64_t t;

    (void)state;
    t = clock_now_us();
    while (clock_now_us() == t) { /* live: each question reads */
    }
    clock_test_freeze(5, 1000);
    clock_test_advance(7);
    clock_tick();
    clock_turn();
    assert_int_equal(clock_now_ms(), 12);
    assert_int_equal(clock_now_us(), 12000);
    assert_int_equal(clock_read_us(), 12000);
    assert_int_equal(clock_wall_ms(), 1007);
    clock_test_thaw();
    clock_turn(); /* turns: one reading until the next */
    t = clock_now_us();
    while (clock_read_us() < t + 2000) {
    }
    assert_int_equal(clock_now_us(), t);
    clock_tick();
    assert_true(clock_now_us() >= t + 2000);
    t = clock_now_us();
    while (clock_read_us() < t + 1000) {
    }
    clock_turn();
    assert_true(clock_now_us() >= t + 1000);
    assert_true(clock_wall_ms() > UINT64_C(1600000000000));
    clock_test_thaw();
}

static struct timer *to_stop;

static void count(void *arg)
{
    if (++*(unsigned *)arg == 3 && to_stop != NULL)
        timer_stop(to_stop);
}

static void test_timer(void **state)
{
    struct event_base *base = event_base_new();
    static const struct timer zeroed;
    struct timer once, every, never = zeroed;
    unsigned n_once = 0, n_every = 0;

    (void)state;
    timer_stop(&never);
    assert_false(timer_is_armed(&never));
    timer_init(&once, base, count, &n_once);
    timer_init(&every, base, count, &n_every);
    timer_stop(&once);
    to_stop = &every;
    timer_every(&every, 1);
    timer_once(&once, 1000000);
    timer_once(&once, 2); /* replaces */
    assert_true(timer_is_armed(&once));
    assert_int_equal(event_base_dispatch(base), 1); /* returns when nothing is armed any more */
    assert_int_equal(n_once, 1);
    assert_int_equal(n_every, 3);
    assert_false(timer_is_armed(&every));
    to_stop = NULL;
    event_base_free(base);
}

static void test_list(void **state)
{
    struct list l = LIST_INIT(l), a, b;
    unsigned n = 0;

    (void)state;
    list_init(&a);
    list_init(&b);
    list_push(&l, &a);
    list_push_front(&l, &b);
    LIST_EACH_SAFE (it, &l) {
        list_del(it);
        list_del(it); /* twice does no harm */
        n++;
    }
    assert_int_equal(n, 2);
    assert_null(list_pop(&l));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slice_of_u64), cmocka_unit_test(test_arena_copy_two),
        cmocka_unit_test(test_slice_to_u64), cmocka_unit_test(test_slice_to_cstr),
        cmocka_unit_test(test_slice_compare), cmocka_unit_test(test_buf_ceiling),
        cmocka_unit_test(test_buf_queue),    cmocka_unit_test(test_arena),
        cmocka_unit_test(test_hash),         cmocka_unit_test(test_hash_table),
        cmocka_unit_test(test_random),       cmocka_unit_test(test_clock),
        cmocka_unit_test(test_timer),        cmocka_unit_test(test_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
