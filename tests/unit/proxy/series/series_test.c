/* The shared table: counting, inheritance after a death, damage, folding, taking back, buckets, labels. */
#include "proxy/series/report.h"
#include "proxy/series/series.h"

#include "kit/clock.h"
#include "kit/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static struct series_table *open_table(int fd, uint64_t incarnation)
{
    struct series_table *t = NULL;

    assert_ptr_equal(series_open(fd, incarnation, &t), OK);
    return t;
}

static uint64_t value_of(const struct series_slot *s)
{
    return atomic_load(&s->value);
}

static void test_buckets(void **state)
{
    static const struct {
        uint64_t us;
        unsigned le;
    } cases[] = {
        {0, 0},        {1000, 0},      {1001, 1},         {5000, 4},          {5001, 5},
        {10000, 5},    {50000000, 24}, {50000001, 25},    {UINT64_MAX, 25},   {499999, 14},
        {500000, 14},  {500001, 15},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(series_le_index(cases[i].us), cases[i].le);
    assert_int_equal(series_le_bound(0), 1);
    assert_int_equal(series_le_bound(SERIES_LES - 2), 50000);
    assert_true(series_le_bound(SERIES_LES - 1) == UINT64_MAX);
}

static void test_fine_buckets_are_gapless(void **state)
{
    (void)state;
    for (uint64_t us = 0; us < 300000; us++) {
        unsigned i = series_fine_index(us);

        assert_true(us < series_fine_bound(i));
        assert_true(i == 0 || us >= series_fine_bound(i - 1));
    }
    for (unsigned i = 0; i + 1 < SERIES_FINES; i++) {
        assert_int_equal(series_fine_index(series_fine_bound(i) - 1), i);
        assert_int_equal(series_fine_index(series_fine_bound(i)), i + 1);
    }
    assert_int_equal(series_fine_bound(SERIES_FINES - 2), 1u << 26);
    assert_int_equal(series_fine_index(UINT64_MAX), SERIES_FINES - 1);
}

static void test_same_labels_same_slot(void **state)
{
    struct series_table *t = open_table(-1, 1);
    struct series_slot *a = series_get(t, SERIES_REQUEST, SLICE_LIT("direction=\"inbound\""));
    struct series_slot *b = series_get(t, SERIES_REQUEST, SLICE_LIT("direction=\"outbound\""));
    struct series_slot *c = series_get(t, SERIES_RESPONSE, SLICE_LIT("direction=\"inbound\""));

    (void)state;
    assert_ptr_not_equal(a, b);
    assert_ptr_not_equal(a, c);
    assert_ptr_equal(a, series_get(t, SERIES_REQUEST, SLICE_LIT("direction=\"inbound\"")));
    assert_ptr_equal(series_get(t, SERIES_FOLDED, SLICE_LIT("")),
                     series_get(t, SERIES_FOLDED, SLICE_LIT("")));
    assert_int_equal(series_count(t), 4);
    series_add(a, 3);
    series_add(a, 4);
    assert_int_equal(value_of(a), 7);
    series_close(&t);
    assert_null(t);
}

/* The proxy is killed; the next one goes on from the same values, but open connections are gone. */
static void test_next_generation_goes_on(void **state)
{
    int fd = memfd_create("series", 0);
    struct series_table *t = open_table(fd, 77);
    struct series_slot *s = series_get(t, SERIES_REQUEST, SLICE_LIT("a=\"1\""));
    struct series_slot *h = series_get(t, SERIES_RESPONSE_LATENCY, SLICE_LIT("a=\"1\""));
    struct series_slot *g = series_get(t, SERIES_TCP_OPEN_NOW, SLICE_LIT("a=\"1\""));

    (void)state;
    series_add(s, 41);
    series_observe(h, 1500);
    series_move(g, 2);
    series_move(g, -1);
    assert_int_equal(value_of(g), 1);
    series_close(&t); /* a death looks the same: nothing is written on the way out */

    t = open_table(fd, 77);
    s = series_get(t, SERIES_REQUEST, SLICE_LIT("a=\"1\""));
    series_add(s, 1);
    assert_int_equal(value_of(s), 42);
    assert_int_equal(value_of(series_get(t, SERIES_RESPONSE_LATENCY, SLICE_LIT("a=\"1\""))), 1);
    assert_int_equal(value_of(series_get(t, SERIES_TCP_OPEN_NOW, SLICE_LIT("a=\"1\""))), 0);
    assert_int_equal(series_count(t), 3);
    series_close(&t);

    t = open_table(fd, 78); /* another pod's life: nothing is taken over */
    assert_int_equal(series_count(t), 0);
    series_close(&t);
    close(fd);
}

/* Whatever a dying proxy wrote into its table, the next one starts and stays inside the memory. */
static void test_damage_is_survived(void **state)
{
    int fd = memfd_create("series", 0);
    struct series_table *t = open_table(fd, 5);
    uint8_t *mem;

    (void)state;
    for (int i = 0; i < 200; i++) {
        char text[32];
        int n = snprintf(text, sizeof(text), "n=\"%d\"", i);

        series_add(series_get(t, i % 2 ? SERIES_REQUEST : SERIES_RESPONSE_LATENCY,
                              slice(text, (size_t)n)), 1);
    }
    series_close(&t);
    mem = mmap(NULL, SERIES_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(mem != MAP_FAILED);
    random_test_seed(42);
    for (int round = 0; round < 300; round++) {
        for (int k = 0; k < 8; k++)
            mem[round % 4 == 0 ? random_below(64) : 4096 + random_below(200 * 48)] =
                (uint8_t)random_below(256);
        t = open_table(fd, 5);
        for (int i = 0; i < 20; i++) {
            char text[32];
            int n = snprintf(text, sizeof(text), "n=\"%d\"", i * 7);
            struct series_slot *s =
                series_get(t, SERIES_RESPONSE_LATENCY, slice(text, (size_t)n));

            series_observe(s, 1234);
        }
        series_close(&t);
    }
    munmap(mem, SERIES_BYTES);
    close(fd);
}

struct seen {
    size_t n, limit;
    uint64_t last[SERIES_NUMBERS];
    size_t n_last;
    char labels[128];
};

static bool on_seen(void *arg, const struct series_view *view)
{
    struct seen *seen = arg;

    if (seen->limit != 0 && seen->n == seen->limit)
        return false;
    seen->n++;
    seen->n_last = view->n_values;
    memcpy(seen->last, view->values, view->n_values * sizeof(view->values[0]));
    assert_true(slice_to_cstr(view->labels, seen->labels, sizeof(seen->labels)));
    return true;
}

static void test_collect_shows_changes_only(void **state)
{
    struct series_table *t = open_table(-1, 1);
    struct series_slot *a = series_get(t, SERIES_REQUEST, SLICE_LIT("k=\"a\""));
    struct series_slot *h = series_get(t, SERIES_RESPONSE_LATENCY, SLICE_LIT("k=\"h\""));
    struct seen seen = {0};

    (void)state;
    assert_int_equal(series_collect(t, false, on_seen, &seen), 2); /* new ones, 0 too */
    assert_int_equal(series_collect(t, false, on_seen, &seen), 0);
    series_add(a, 1);
    assert_int_equal(series_collect(t, false, on_seen, &seen), 1);
    assert_string_equal(seen.labels, "k=\"a\"");
    assert_int_equal(seen.n_last, 1);
    series_observe(h, 2500); /* 3 ms bucket; fine bucket of 2048..2559 us */
    series_observe(h, 0);
    assert_int_equal(series_collect(t, false, on_seen, &seen), 1);
    assert_int_equal(seen.n_last, SERIES_LES + 1 + series_fine_index(2500) + 1);
    assert_int_equal(seen.last[2], 1);
    assert_int_equal(seen.last[0], 1);
    assert_int_equal(seen.last[SERIES_LES], 2500);
    assert_int_equal(seen.last[SERIES_LES + 1 + series_fine_index(2500)], 1);
    assert_int_equal(series_collect(t, true, on_seen, &seen), 2);
    series_close(&t);
}

static void test_collect_that_was_stopped_goes_on(void **state)
{
    struct series_table *t = open_table(-1, 1);
    struct seen seen = {.limit = 3};

    (void)state;
    for (int i = 0; i < 5; i++) {
        char text[32];
        int n = snprintf(text, sizeof(text), "n=\"%d\"", i);

        series_add(series_get(t, SERIES_REQUEST, slice(text, (size_t)n)), 1);
    }
    assert_int_equal(series_collect(t, false, on_seen, &seen), 3);
    seen = (struct seen){0};
    assert_int_equal(series_collect(t, false, on_seen, &seen), 2);
    series_close(&t);
}

static struct series_slot *get_numbered(struct series_table *t, enum series_family f, int i)
{
    char text[256];
    int n = snprintf(text, sizeof(text), "authority=\"host-%d.%0100d\"", i, 0);

    return series_get(t, f, slice(text, (size_t)n));
}

static void test_full_table_folds(void **state)
{
    struct series_table *t = open_table(-1, 1);
    struct series_slot *last = NULL;

    (void)state;
    clock_test_freeze(1000, 0);
    for (int i = 0; i < 6000; i++) {
        last = get_numbered(t, i % 3 ? SERIES_REQUEST : SERIES_RESPONSE_LATENCY, i);
        series_add(last, 1);
    }
    assert_ptr_equal(last, series_get(t, SERIES_REQUEST, SLICE_LIT("folded=\"true\"")));
    assert_true(value_of(last) > 100);
    assert_true(value_of(series_get(t, SERIES_FOLDED, SLICE_LIT("family=\"request_total\""))) > 100);
    for (int f = 0; f < (int)SERIES_FAMILIES; f++) /* every family has its folded series */
        assert_non_null(get_numbered(t, (enum series_family)f, 100000));
    assert_true(series_count(t) <= SERIES_SLOTS);
    clock_test_thaw();
    series_close(&t);
}

/* Idle slots of a nearly full table come back; what counted meanwhile, and folded series, stay. */
static void test_idle_slots_are_taken_back(void **state)
{
    struct series_table *t = open_table(-1, 1);
    struct series_slot *busy, *open_now;
    struct seen seen = {0};
    uint32_t generation, before;

    (void)state;
    clock_test_freeze(1000, 0);
    busy = get_numbered(t, SERIES_REQUEST, -1);
    open_now = get_numbered(t, SERIES_TCP_OPEN_NOW, -1);
    series_move(open_now, 1);
    for (int i = 0; i < 5000; i++)
        series_add(get_numbered(t, SERIES_REQUEST, i), 1);
    generation = series_generation(t);
    before = series_count(t);
    series_collect(t, false, on_seen, &seen);
    clock_test_advance(SERIES_IDLE_MS / 2);
    series_add(busy, 5);
    series_collect(t, false, on_seen, &seen);
    assert_int_equal(series_generation(t), generation);
    clock_test_advance(SERIES_IDLE_MS / 2 + 1);
    series_collect(t, false, on_seen, &seen);
    assert_int_equal(series_generation(t), generation + 1);
    assert_true(series_count(t) < before / 2);
    assert_ptr_equal(busy, get_numbered(t, SERIES_REQUEST, -1));
    assert_int_equal(value_of(busy), 5);
    assert_ptr_equal(open_now, get_numbered(t, SERIES_TCP_OPEN_NOW, -1));
    assert_true(value_of(series_get(t, SERIES_REQUEST, SLICE_LIT("folded=\"true\""))) > 0);
    /* A returning series starts anew at 0, in a place that was used before. */
    assert_int_equal(value_of(get_numbered(t, SERIES_REQUEST, 3)), 0);
    clock_test_thaw();
    series_close(&t);
}

static void test_labels(void **state)
{
    static const struct {
        const char *name;
        slice_t value;
        const char *want;
    } cases[] = {
        {"plain", {(const uint8_t *)"web", 3}, "k=\"web\""},
        {"empty is left out", {NULL, 0}, ""},
        {"quote", {(const uint8_t *)"a\"b", 3}, "k=\"a\\\"b\""},
        {"backslash", {(const uint8_t *)"a\\b", 3}, "k=\"a\\\\b\""},
        {"newline", {(const uint8_t *)"a\nb", 3}, "k=\"a\\nb\""},
        {"control", {(const uint8_t *)"a\r\x7f\x01", 4}, "k=\"a???\""},
        {"NUL", {(const uint8_t *)"a\0b", 3}, "k=\"a?b\""},
        {"umlaut", {(const uint8_t *)"\xc3\xbc", 2}, "k=\"\xc3\xbc\""},
        {"cut sequence", {(const uint8_t *)"\xc3", 1}, "k=\"?\""},
        {"overlong", {(const uint8_t *)"\xc0\xaf", 2}, "k=\"??\""},
        {"surrogate", {(const uint8_t *)"\xed\xa0\x80", 3}, "k=\"???\""},
        {"beyond", {(const uint8_t *)"\xf5\x80\x80\x80", 4}, "k=\"????\""},
        {"latin-1", {(const uint8_t *)"caf\xe9", 4}, "k=\"caf?\""},
    };
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct series_label one = {"k", cases[i].value};

        assert_ptr_equal(series_labels(&b, &one, 1), OK);
        if (!slice_is_str(buf_slice(&b), cases[i].want))
            fail_msg("%s: %.*s", cases[i].name, SLICE_FMT(buf_slice(&b)));
        assert_true(series_labels_are_sound(buf_slice(&b)));
    }
    buf_done(&b);
}

static void test_labels_are_bounded(void **state)
{
    static uint8_t big[5000];
    struct series_label many[20];
    struct series_label two[2] = {{"a", SLICE_LIT("1")}, {"b", SLICE_LIT("2")}};
    struct buf b;

    (void)state;
    memset(big, 0xc3, sizeof(big));
    for (size_t i = 1; i < sizeof(big); i += 2)
        big[i] = 0xbc;
    buf_init(&b, 0);
    many[0] = (struct series_label){"k", slice(big, sizeof(big))};
    assert_ptr_equal(series_labels(&b, many, 1), OK);
    assert_int_equal(buf_len(&b), SERIES_VALUE_MAX + 4);
    many[0].value = slice(big + 1, sizeof(big) - 1); /* the cut would fall into a sequence */
    assert_ptr_equal(series_labels(&b, many, 1), OK);
    for (size_t i = 0; i < 20; i++)
        many[i] = (struct series_label){"k", slice(big, sizeof(big))};
    assert_ptr_equal(series_labels(&b, many, 20), ERR_OF(TOO_BIG));
    assert_ptr_equal(series_labels(&b, two, 2), OK); /* and the buffer is of use again */
    assert_true(slice_is_str(buf_slice(&b), "a=\"1\",b=\"2\""));
    buf_done(&b);
}

static void test_too_long_labels_fold(void **state)
{
    static uint8_t big[SERIES_LABELS_MAX + 1];
    struct series_table *t = open_table(-1, 1);

    (void)state;
    assert_ptr_equal(series_get(t, SERIES_REQUEST, slice(big, sizeof(big))),
                     series_get(t, SERIES_REQUEST, SLICE_LIT("folded=\"true\"")));
    series_close(&t);
}

struct sent {
    size_t parts, series, alls;
    bool refuse;
};

static err_t on_part(void *arg, const struct wire_series *msg)
{
    struct sent *sent = arg;
    struct buf b;

    if (sent->refuse)
        return ERR_OF(QUEUE_FULL);
    buf_init(&b, 0);
    assert_ptr_equal(WIRE_ENCODE(series, msg, &b), OK);
    assert_true(buf_len(&b) <= WIRE_MESSAGE_MAX);
    buf_done(&b);
    sent->parts++;
    sent->series += msg->n_series;
    sent->alls += msg->is_all;
    return OK;
}

static void test_report(void **state)
{
    struct series_table *t = open_table(-1, 1);
    struct series_reporter r;
    struct sent sent = {0};

    (void)state;
    series_reporter_init(&r, t, "weft-proxy-0", 1, on_part, &sent);
    for (int i = 0; i < 1300; i++)
        series_observe(get_numbered(t, SERIES_RESPONSE_LATENCY, i), UINT64_MAX / 4 + (uint64_t)i);
    assert_int_equal(series_report(&r), 1300);
    assert_true(sent.parts >= 3 && sent.alls == sent.parts);
    sent = (struct sent){0};
    assert_int_equal(series_report(&r), 0); /* nothing changed: nothing is sent */
    assert_int_equal(sent.parts, 0);
    series_observe(get_numbered(t, SERIES_RESPONSE_LATENCY, 3), 1);
    assert_int_equal(series_report(&r), 1);
    assert_int_equal(sent.alls, 0);
    /* A part that could not be sent is made good by a complete report. */
    sent.refuse = true;
    series_observe(get_numbered(t, SERIES_RESPONSE_LATENCY, 3), 1);
    assert_int_equal(series_report(&r), 0);
    sent = (struct sent){0};
    assert_int_equal(series_report(&r), 1300);
    series_report_all(&r);
    assert_int_equal(series_report(&r), 1300);
    series_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_fine_buckets_are_gapless),
        cmocka_unit_test(test_same_labels_same_slot),
        cmocka_unit_test(test_next_generation_goes_on),
        cmocka_unit_test(test_damage_is_survived),
        cmocka_unit_test(test_collect_shows_changes_only),
        cmocka_unit_test(test_collect_that_was_stopped_goes_on),
        cmocka_unit_test(test_full_table_folds),
        cmocka_unit_test(test_idle_slots_are_taken_back),
        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_labels_are_bounded),
        cmocka_unit_test(test_too_long_labels_fold),
        cmocka_unit_test(test_report),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
