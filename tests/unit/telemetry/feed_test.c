/* What is published when, with a clock of the test's own and no socket. */
#include "telemetry/feed.h"
#include "telemetry/subs.h"

#include "kit/clock.h"
#include "kit/mailbox.h"
#include "wire/reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct seen {
    unsigned metrics, events, alls, series, heartbeats;
    char topic[200];
    uint64_t seq;
};

/* Reads a metrics message as a stranger would. */
static void on_publish(void *arg, slice_t topic, slice_t body)
{
    struct seen *seen = arg;
    struct wire_reader r = wire_reader_of(body);
    uint32_t pairs, n = 0;
    slice_t key;

    assert_true(slice_to_cstr(topic, seen->topic, sizeof(seen->topic)));
    assert_ptr_equal(wire_get_map(&r, &pairs), OK);
    for (uint32_t i = 0; i < pairs; i++) {
        bool is_all = false;

        assert_ptr_equal(wire_get_text(&r, 64, &key), OK);
        if (slice_is_str(key, "is_all")) {
            assert_ptr_equal(wire_get_bool(&r, &is_all), OK);
            seen->alls += is_all;
        } else if (slice_is_str(key, "seq")) {
            assert_ptr_equal(wire_get_u64(&r, UINT64_MAX, &seen->seq), OK);
        } else {
            struct wire_reader at = r;

            if (slice_is_str(key, "series"))
                assert_ptr_equal(wire_get_array(&at, &n), OK);
            assert_ptr_equal(wire_skip(&r), OK);
        }
    }
    assert_int_equal(wire_reader_left(&r), 0);
    assert_true(body.n <= 256 * 1024);
    seen->series += n;
    if (slice_starts(topic, SLICE_LIT("event/"))) {
        seen->events++;
        return;
    }
    seen->metrics++;
    seen->heartbeats += n == 0;
}

struct fixture {
    struct book *book;
    struct status status;
    struct feed *feed;
    struct seen seen;
};

static void open_feed(struct fixture *x)
{
    struct feed_conf conf = {.collector = "127.0.0.1:1",
                             .state_dir = "/nonexistent",
                             .who = {.ns = "ns",
                                     .pod = "web-1",
                                     .workload = "web",
                                     .service_account = "web",
                                     .serves = "web:80/http1,bad,:5,api:0,x:99999,db:5432",
                                     .incarnation = 9},
                             .status = &x->status,
                             .publish = on_publish,
                             .arg = &x->seen};

    *x = (struct fixture){0};
    clock_test_freeze(100000, 1700000000000);
    assert_ptr_equal(book_new(8192, &x->book), OK);
    conf.book = x->book;
    assert_ptr_equal(feed_new(&conf, &x->feed), OK);
}

static void close_feed(struct fixture *x)
{
    feed_free(&x->feed);
    book_free(&x->book);
    clock_test_thaw();
}

static void count_one(struct fixture *x, unsigned n, uint8_t family, uint64_t value)
{
    static struct wire_number numbers[128];
    char labels[64];
    bool is_stranger;
    struct wire_series_value v = {.family = family, .n_values = 1, .values = numbers};
    struct wire_series msg = {.process = SLICE_LIT("weft-proxy-0"), .n_series = 1, .series = &v};

    v.labels = slice(labels, (size_t)snprintf(labels, sizeof(labels), "n=\"%u\\\"\"", n));
    if (families[family].kind == FAMILY_HISTOGRAM)
        v.n_values = 128;
    for (size_t i = 0; i < v.n_values; i++)
        numbers[i].v = value;
    book_take(x->book, &msg, clock_now_ms(), &is_stranger);
}

static void second(struct fixture *x)
{
    clock_test_advance(1000);
    feed_tick(x->feed);
}

static void test_nobody_subscribed(void **state)
{
    struct fixture x;

    (void)state;
    open_feed(&x);
    for (unsigned i = 0; i < 30; i++) {
        count_one(&x, 1, FAMILY_ID_REQUEST, i);
        second(&x);
    }
    feed_on_subscription(x.feed, SLICE_LIT("\1metrics/other/"));
    feed_on_subscription(x.feed, SLICE_LIT("\1event/"));
    feed_on_subscription(x.feed, SLICE_LIT("\2metrics/"));
    feed_on_subscription(x.feed, SLICE_LIT(""));
    second(&x);
    assert_int_equal(x.seen.metrics, 0);
    close_feed(&x);
}

static void test_changes_alls_and_heartbeats(void **state)
{
    struct fixture x;

    (void)state;
    open_feed(&x);
    count_one(&x, 1, FAMILY_ID_REQUEST, 1);
    count_one(&x, 2, FAMILY_ID_RESPONSE_LATENCY, 1);
    feed_on_subscription(x.feed, SLICE_LIT("\1metrics/"));
    second(&x);
    assert_string_equal(x.seen.topic, "metrics/ns/web/web-1");
    assert_int_equal(x.seen.alls, 1);
    assert_int_equal(x.seen.series, 2);
    count_one(&x, 1, FAMILY_ID_REQUEST, 2);
    second(&x);
    assert_int_equal(x.seen.metrics, 2); /* the one that changed */
    assert_int_equal(x.seen.series, 3);
    second(&x);
    second(&x);
    assert_int_equal(x.seen.metrics, 2); /* nothing changed, nothing is sent */
    for (unsigned i = 0; i < 3; i++)
        second(&x);
    assert_int_equal(x.seen.heartbeats, 1);
    for (unsigned i = 0; i < 4; i++)
        second(&x);
    assert_int_equal(x.seen.alls, 2); /* ten seconds after the first */
    /* All is repeated once after the last change; then a pod that does nothing sends heartbeats. */
    for (unsigned i = 0; i < 30; i++)
        second(&x);
    assert_int_equal(x.seen.alls, 3);
    x.seen = (struct seen){0};
    for (unsigned i = 0; i < 60; i++)
        second(&x);
    assert_int_equal(x.seen.alls, 1);
    assert_in_range(x.seen.metrics, 11, 13);
    /* Another subscriber gets everything. */
    x.seen = (struct seen){0};
    feed_on_subscription(x.feed, SLICE_LIT("\1metrics/ns/web/"));
    second(&x);
    assert_int_equal(x.seen.alls, 1);
    /* The first one leaves, the second stays; then nobody is left. */
    feed_on_subscription(x.feed, SLICE_LIT("\0metrics/"));
    count_one(&x, 1, FAMILY_ID_REQUEST, 3);
    second(&x);
    assert_int_equal(x.seen.metrics, 2);
    feed_on_subscription(x.feed, SLICE_LIT("\0metrics/ns/web/"));
    count_one(&x, 1, FAMILY_ID_REQUEST, 4);
    second(&x);
    assert_int_equal(x.seen.metrics, 2);
    close_feed(&x);
}

static void test_large_pods_send_parts(void **state)
{
    struct fixture x;

    (void)state;
    open_feed(&x);
    for (unsigned i = 0; i < 4000; i++)
        count_one(&x, i, FAMILY_ID_RESPONSE_LATENCY, UINT64_MAX - i);
    feed_on_subscription(x.feed, SLICE_LIT("\1"));
    second(&x);
    assert_true(x.seen.metrics > 10);
    assert_int_equal(x.seen.series, 4000);
    assert_int_equal(x.seen.seq, x.seen.metrics);
    close_feed(&x);
}

static void say(struct fixture *x, const char *kind, size_t message_n)
{
    static char text[4096];

    memset(text, 'x', sizeof(text));
    feed_event(x->feed, &(struct wire_event){.at_ms = 5,
                                             .kind = slice_str(kind),
                                             .object = SLICE_LIT("o"),
                                             .message = slice(text, message_n)});
}

static void test_events_wait(void **state)
{
    struct feed_counters count;
    struct fixture x;

    (void)state;
    open_feed(&x);
    for (unsigned i = 0; i < 300; i++)
        say(&x, "PROCESS_RESTARTED", 10);
    say(&x, "bad/kind", 1);
    say(&x, "", 1);
    say(&x, "lower", 1);
    say(&x, "TOO_LONG", 4000);
    assert_int_equal(x.seen.events, 0);
    feed_on_subscription(x.feed, SLICE_LIT("\1event/"));
    assert_int_equal(x.seen.events, 255);
    assert_string_equal(x.seen.topic, "event/PROCESS_RESTARTED/ns/web-1");
    feed_count(x.feed, &count);
    assert_int_equal(count.events_dropped, 300 - 255 + 4);
    say(&x, "PROCESS_RESTARTED", 10);
    assert_int_equal(x.seen.events, 256);
    close_feed(&x);
}

static void test_subscriptions_are_bounded(void **state)
{
    struct subs s = {0};
    char text[64];

    (void)state;
    for (unsigned i = 0; i < 5000; i++)
        assert_true(subs_take(&s, slice(text, (size_t)snprintf(text, sizeof(text), "\1m%u", i))));
    assert_int_equal(s.n, SUBS_MAX);
    assert_true(subs_want(&s, SLICE_LIT("anything"))); /* rather too much than too little */
    for (unsigned i = 0; i < 5000; i++) {
        int n = snprintf(text, sizeof(text), "xm%u", i);

        text[0] = '\0';
        assert_false(subs_take(&s, slice(text, (size_t)n)));
    }
    assert_int_equal(s.n, 0);
    assert_false(subs_want(&s, SLICE_LIT("anything")));
    subs_done(&s);
}

static void test_keys(void **state)
{
    char public_key[MAILBOX_KEY_TEXT], secret[MAILBOX_KEY_TEXT], other[MAILBOX_KEY_TEXT];
    char unused[MAILBOX_KEY_TEXT], got[41], text[200];

    (void)state;
    assert_ptr_equal(mailbox_keypair(public_key, secret), OK);
    assert_ptr_equal(mailbox_keypair(other, unused), OK);
    snprintf(text, sizeof(text), "%s\n", secret);
    assert_true(feed_parse_key(slice_str(text), got));
    assert_string_equal(got, secret);
    snprintf(text, sizeof(text), "%s\n%s\n", public_key, secret);
    assert_true(feed_parse_key(slice_str(text), got));
    assert_string_equal(got, secret);
    snprintf(text, sizeof(text), "%s\n%s", secret, public_key);
    assert_true(feed_parse_key(slice_str(text), got));
    assert_string_equal(got, secret);
    snprintf(text, sizeof(text), "%s\n%s\n", other, secret); /* no pair */
    assert_false(feed_parse_key(slice_str(text), got));
    snprintf(text, sizeof(text), "%.39s\n", secret);
    assert_false(feed_parse_key(slice_str(text), got));
    snprintf(text, sizeof(text), "%sx\n", secret);
    assert_false(feed_parse_key(slice_str(text), got));
    assert_false(feed_parse_key(SLICE_LIT(""), got));
    assert_false(feed_parse_key(SLICE_LIT("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                          "\0\0\0\0\0\0\0\0"), got));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_subscribed),
        cmocka_unit_test(test_changes_alls_and_heartbeats),
        cmocka_unit_test(test_large_pods_send_parts),
        cmocka_unit_test(test_events_wait),
        cmocka_unit_test(test_subscriptions_are_bounded),
        cmocka_unit_test(test_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
