/* Label text, the book of series, and the page that is printed from it. */
#include "telemetry/book.h"
#include "telemetry/labels.h"
#include "telemetry/metrics.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_labels(void **state)
{
    static const struct {
        const char *text;
        bool is_good;
    } cases[] = {
        {"", true},
        {"a=\"1\"", true},
        {"a=\"1\",b=\"2\"", true},
        {"a=\"\"", true},
        {"_a9=\"x\"", true},
        {"a=\"q\\\"q\"", true},
        {"a=\"\\\\\"", true},
        {"a=\"\\n\"", true},
        {"a=\"\xc3\xbc\"", true},
        {"a", false},
        {"a=", false},
        {"a=\"", false},
        {"a=\"1", false},
        {"a=\"1\",", false},
        {",a=\"1\"", false},
        {"a=\"1\"b=\"2\"", false},
        {"a=\"1\", b=\"2\"", false},
        {"9a=\"1\"", false},
        {"=\"1\"", false},
        {"a=1", false},
        {"a-b=\"1\"", false},
        {"a=\"\\x\"", false},
        {"a=\"\\\"", false},
        {"a=\"1\"} 7\nevil{b=\"2\"", false},
        {"a=\"1\n\"", false},
        {"a=\"1\x7f\"", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (labels_check(slice_str(cases[i].text)) != cases[i].is_good)
            fail_msg("%s", cases[i].text);
    assert_false(labels_check(SLICE_LIT("a=\"\0\"")));
}

static void test_unescape(void **state)
{
    uint8_t out[64];

    (void)state;
    assert_int_equal(labels_unescape(SLICE_LIT("a\\\"b\\\\c\\nd"), out), 7);
    assert_memory_equal(out, "a\"b\\c\nd", 7);
}

struct part {
    struct wire_series msg;
    struct wire_series_value values[8];
    struct wire_number numbers[8][200];
};

static void part_add(struct part *p, uint8_t family, const char *labels, size_t n, uint64_t first)
{
    size_t i = p->msg.n_series++;

    for (size_t k = 0; k < n; k++)
        p->numbers[i][k].v = first + k;
    p->values[i] = (struct wire_series_value){.family = family,
                                              .labels = slice_str(labels),
                                              .n_values = n,
                                              .values = p->numbers[i]};
    p->msg.series = p->values;
}

static struct part part_of(const char *process)
{
    return (struct part){.msg = {.process = slice_str(process)}};
}

static bool take(struct book *b, struct part *p, uint64_t now_ms)
{
    bool is_stranger;

    p->msg.series = p->values;
    for (size_t i = 0; i < p->msg.n_series; i++)
        p->values[i].values = p->numbers[i];
    book_take(b, &p->msg, now_ms, &is_stranger);
    return is_stranger;
}

static bool find(const struct book *b, enum family_id family, const char *labels,
                 struct book_series *out)
{
    for (size_t i = 0; i < book_size(b); i++)
        if (book_at(b, i, out) && out->family == family && slice_is_str(out->labels, labels))
            return true;
    return false;
}

static void test_taking_in(void **state)
{
    struct book *b = NULL;
    struct book_series s;
    struct part p = part_of("weft-proxy-0");
    uint64_t version;

    (void)state;
    assert_ptr_equal(book_new(8, &b), OK);
    part_add(&p, FAMILY_ID_REQUEST, "a=\"1\"", 1, 5);
    part_add(&p, FAMILY_ID_RESPONSE_LATENCY, "a=\"1\"", 30, 1);
    assert_true(take(b, &p, 1000)); /* a stranger that did not send all */
    assert_false(take(b, &p, 1000));
    assert_true(find(b, FAMILY_ID_REQUEST, "a=\"1\"", &s));
    assert_int_equal(s.values[0], 5);
    assert_true(find(b, FAMILY_ID_RESPONSE_LATENCY, "a=\"1\"", &s));
    assert_int_equal(s.values[29], 30);
    assert_int_equal(s.values[30], 0); /* what was left out is 0 */
    assert_int_equal(s.values[FAMILY_NUMBERS - 1], 0);
    version = s.version;
    p.numbers[0][0].v = 6;
    take(b, &p, 1000);
    assert_true(find(b, FAMILY_ID_RESPONSE_LATENCY, "a=\"1\"", &s));
    assert_int_equal(s.version, version); /* it did not change */
    assert_true(find(b, FAMILY_ID_REQUEST, "a=\"1\"", &s));
    assert_true(s.version > version && s.values[0] == 6);
    p = part_of("weft-proxy-1");
    p.msg.is_all = true;
    part_add(&p, FAMILY_ID_REQUEST, "a=\"1\"", 1, 50);
    assert_false(take(b, &p, 1000)); /* a stranger that sent all */
    assert_int_equal(book_size(b), 3); /* another process's is another series */
    book_free(&b);
    assert_null(b);
}

static void test_refusals(void **state)
{
    static const char *const processes[] = {"", "Weft", "weft proxy", "weft\n", "weft\"",
                                            "weft-a-name-that-is-much-too-long-for-this"};
    struct book *b = NULL;
    struct part p = part_of("weft-proxy-0");

    (void)state;
    assert_ptr_equal(book_new(8, &b), OK);
    part_add(&p, FAMILIES, "", 1, 1);
    part_add(&p, 255, "", 1, 1);
    part_add(&p, FAMILY_ID_REQUEST, "a=\"1", 1, 1);
    part_add(&p, FAMILY_ID_REQUEST, "a=\"1\"", 0, 1);
    part_add(&p, FAMILY_ID_REQUEST, "a=\"1\"", 2, 1);
    part_add(&p, FAMILY_ID_RESPONSE_LATENCY, "a=\"1\"", FAMILY_NUMBERS + 1, 1);
    take(b, &p, 1);
    assert_int_equal(book_count(b)->refused, 6);
    assert_int_equal(book_size(b), 0);
    for (size_t i = 0; i < sizeof(processes) / sizeof(processes[0]); i++) {
        p = part_of(processes[i]);
        part_add(&p, FAMILY_ID_REQUEST, "", 1, 1);
        take(b, &p, 1);
    }
    assert_int_equal(book_size(b), 0);
    for (int i = 0; i < 100; i++) { /* more processes than there can be */
        char name[16];

        snprintf(name, sizeof(name), "p-%d", i);
        p = part_of(name);
        take(b, &p, 1);
    }
    book_free(&b);
}

static void test_full_book(void **state)
{
    struct book *b = NULL;
    struct book_series s;

    (void)state;
    assert_ptr_equal(book_new(3, &b), OK);
    for (int i = 0; i < 4; i++) {
        struct part p = part_of("weft-proxy-0");
        char labels[16];

        snprintf(labels, sizeof(labels), "n=\"%d\"", i);
        part_add(&p, FAMILY_ID_REQUEST, labels, 1, 1);
        take(b, &p, 1000 + (uint64_t)i);
    }
    assert_false(find(b, FAMILY_ID_REQUEST, "n=\"3\"", &s));
    assert_int_equal(book_count(b)->no_room, 1);
    for (int i = 4; i < 6; i++) { /* much later the longest idle ones give way */
        struct part p = part_of("weft-proxy-0");
        char labels[16];

        snprintf(labels, sizeof(labels), "n=\"%d\"", i);
        part_add(&p, FAMILY_ID_REQUEST, labels, 1, 1);
        take(b, &p, 1001 + BOOK_IDLE_MS);
    }
    assert_int_equal(book_count(b)->evicted, 2);
    assert_false(find(b, FAMILY_ID_REQUEST, "n=\"0\"", &s));
    assert_true(find(b, FAMILY_ID_REQUEST, "n=\"2\"", &s));
    assert_true(find(b, FAMILY_ID_REQUEST, "n=\"5\"", &s));
    book_free(&b);
}

static bool has_line(const struct buf *page, const char *line)
{
    char text[400];
    size_t n = (size_t)snprintf(text, sizeof(text), "\n%s\n", line);

    return memmem(buf_slice(page).p, buf_len(page), text, n) != NULL;
}

static void test_page(void **state)
{
    struct book *b = NULL;
    struct status status = {0};
    struct metrics_own own = {.start_wall_ms = 1700000000123};
    struct metrics_source src = {0};
    struct metrics_cursor at = {0};
    struct part p = part_of("weft-proxy-0"), second = part_of("weft-proxy-1");
    struct buf page;
    unsigned pieces = 0;

    (void)state;
    assert_ptr_equal(book_new(8, &b), OK);
    src = (struct metrics_source){.book = b, .status = &status, .own = &own};
    part_add(&p, FAMILY_ID_REQUEST, "a=\"1\"", 1, 5);
    part_add(&p, FAMILY_ID_REQUEST, "", 1, 6);
    part_add(&p, FAMILY_ID_TCP_OPEN_NOW, "a=\"1\"", 1, (uint64_t)-2);
    part_add(&p, FAMILY_ID_RESPONSE_LATENCY, "a=\"1\"", 27, 1);
    take(b, &p, 1);
    part_add(&second, FAMILY_ID_REQUEST, "a=\"1\"", 1, 7);
    part_add(&second, FAMILY_ID_REQUEST, "", 1, 8);
    take(b, &second, 1);
    buf_init(&page, 0);
    while (!at.is_done) { /* in the smallest pieces */
        assert_ptr_equal(metrics_print(&src, &at, 1, &page), OK);
        pieces++;
    }
    assert_true(pieces >= 6);
    assert_true(has_line(&page, "# TYPE request_total counter"));
    assert_true(has_line(&page, "request_total{a=\"1\"} 5"));
    assert_true(has_line(&page, "request_total 6"));
    assert_true(has_line(&page, "request_total{a=\"1\",worker=\"1\"} 7"));
    assert_true(has_line(&page, "request_total{worker=\"1\"} 8"));
    assert_true(has_line(&page, "# TYPE tcp_open_connections gauge"));
    assert_true(has_line(&page, "tcp_open_connections{a=\"1\"} -2"));
    assert_true(has_line(&page, "# TYPE response_latency_ms histogram"));
    assert_true(has_line(&page, "response_latency_ms_bucket{a=\"1\",le=\"1\"} 1"));
    assert_true(has_line(&page, "response_latency_ms_bucket{a=\"1\",le=\"2\"} 3"));
    assert_true(has_line(&page, "response_latency_ms_bucket{a=\"1\",le=\"+Inf\"} 351"));
    assert_true(has_line(&page, "response_latency_ms_count{a=\"1\"} 351"));
    assert_true(has_line(&page, "response_latency_ms_sum{a=\"1\"} 0.027"));
    assert_true(has_line(&page, "process_start_time_seconds 1700000000.123"));
    assert_true(slice_ends(buf_slice(&page), SLICE_LIT("# EOF\n")));
    assert_false(has_line(&page, "# TYPE tcp_open_total counter")); /* no series: no head */
    buf_done(&page);
    book_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels),   cmocka_unit_test(test_unescape),
        cmocka_unit_test(test_taking_in), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_full_book), cmocka_unit_test(test_page),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
