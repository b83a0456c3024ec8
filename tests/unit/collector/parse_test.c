/* Feed messages from hostile pods: every cut, every flipped byte, and forms that are nearly right. */
#include "broker/collector/owners.h"
#include "broker/collector/parse.h"

#include "kit/random.h"
#include "store/keys.h"
#include "wire/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void ok(err_t err)
{
    if (err != OK)
        fail_msg("%s", err->name);
}

static void put(struct buf *b, const char *text)
{
    ok(wire_put_text(b, slice_str(text)));
}

/* A message with one of everything. */
static void build(struct buf *b)
{
    buf_init(b, 0);
    ok(wire_put_map(b, 7));
    put(b, "v");
    ok(wire_put_u64(b, 1));
    put(b, "ns");
    put(b, "shop");
    put(b, "pod");
    put(b, "web-1");
    put(b, "future");
    ok(wire_put_array(b, 2));
    ok(wire_put_nil(b));
    ok(wire_put_f64(b, 1.5));
    put(b, "serves");
    ok(wire_put_array(b, 1));
    ok(wire_put_array(b, 2));
    put(b, "api");
    ok(wire_put_u64(b, 80));
    put(b, "status");
    ok(wire_put_map(b, 2));
    put(b, "ready");
    ok(wire_put_bool(b, true));
    put(b, "later");
    ok(wire_put_nil(b));
    put(b, "series");
    ok(wire_put_array(b, 2));
    ok(wire_put_map(b, 3));
    put(b, "name");
    put(b, "request_total");
    put(b, "labels");
    ok(wire_put_map(b, 1));
    put(b, "tls");
    put(b, "true");
    put(b, "value");
    ok(wire_put_u64(b, 7));
    ok(wire_put_map(b, 3));
    put(b, "name");
    put(b, "response_latency_ms");
    put(b, "fine");
    ok(wire_put_array(b, 0));
    put(b, "buckets");
    ok(wire_put_array(b, 2));
    ok(wire_put_array(b, 2));
    ok(wire_put_u64(b, 1));
    ok(wire_put_u64(b, 3));
    ok(wire_put_array(b, 2));
    ok(wire_put_nil(b));
    ok(wire_put_u64(b, 4));
}

/* Reads all there is; true if it is whole. */
static bool read_all(slice_t body)
{
    struct feed_metrics m;
    struct feed_series s;

    if (parse_metrics(body, &m) != OK)
        return false;
    for (uint32_t i = 0; i < m.n_series; i++)
        if (parse_series(&m.series, &s) != OK)
            return false;
    return true;
}

static void test_a_good_one(void **state)
{
    struct feed_metrics m;
    struct feed_series s;
    struct buf b;

    (void)state;
    build(&b);
    ok(parse_metrics(buf_slice(&b), &m));
    assert_true(slice_is_str(m.pod, "web-1") && m.is_ready && m.serves[0].port == 80);
    assert_int_equal(m.n_series, 2);
    ok(parse_series(&m.series, &s));
    assert_true(slice_is_str(parse_label(&s, "tls"), "true") && s.value == 7 && !s.is_histogram);
    assert_int_equal(parse_label(&s, "none").n, 0);
    ok(parse_series(&m.series, &s));
    assert_true(s.is_histogram && s.buckets[0] == 3 && s.buckets[PARSE_BUCKETS - 1] == 4);
    buf_done(&b);
}

static void test_cuts_and_flips(void **state)
{
    uint8_t copy[1024];
    unsigned whole = 0;
    struct buf b;
    size_t n;

    (void)state;
    build(&b);
    n = buf_len(&b);
    assert_true(n < sizeof(copy));
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *exact = malloc(cut + 1); /* so that the sanitizer sees a read behind the end */

        assert_non_null(exact);
        memcpy(exact, buf_slice(&b).p, cut);
        assert_false(read_all(slice(exact, cut)));
        free(exact);
    }
    random_test_seed(7);
    for (int i = 0; i < 20000; i++) {
        memcpy(copy, buf_slice(&b).p, n);
        for (int k = 0; k < 1 + i % 3; k++)
            copy[random_below((uint32_t)n)] = (uint8_t)random_below(256);
        whole += read_all(slice(copy, n));
    }
    assert_true(whole > 0 && whole < 20000);
    buf_done(&b);
}

static void test_nearly_right(void **state)
{
    static const struct {
        const char *name;
        const char *bytes;
        size_t n;
    } cases[] = {
#define CASE(name, bytes) {name, bytes, sizeof(bytes) - 1}
        CASE("nothing", ""),
        CASE("a number", "\x01"),
        CASE("an array", "\x90"),
        CASE("an empty map", "\x80"),
        CASE("version 2", "\x83\xa1v\x02\xa2ns\xa1x\xa3pod\xa1y"),
        CASE("version at the end", "\x83\xa2ns\xa1x\xa3pod\xa1y\xa1v\x01"),
        CASE("no version", "\x82\xa2ns\xa1x\xa3pod\xa1y"),
        CASE("no pod", "\x82\xa1v\x01\xa2ns\xa1x"),
        CASE("empty pod", "\x83\xa1v\x01\xa2ns\xa1x\xa3pod\xa0"),
        CASE("pod is a number", "\x83\xa1v\x01\xa2ns\xa1x\xa3pod\x05"),
        CASE("a NUL in a name", "\x83\xa1v\x01\xa2ns\xa1x\xa3pod\xa2y\0"),
        CASE("not UTF-8", "\x83\xa1v\x01\xa2ns\xa1x\xa3pod\xa1\xff"),
        CASE("leftover", "\x83\xa1v\x01\xa2ns\xa1x\xa3pod\xa1y\xc0"),
        CASE("a map of four billion", "\xdf\xff\xff\xff\xff\xa1v\x01"),
        CASE("series of four billion", "\x84\xa1v\x01\xa2ns\xa1x\xa3pod\xa1y\xa6series\xdd\xff\xff\xff\xff"),
        CASE("series is a map", "\x84\xa1v\x01\xa2ns\xa1x\xa3pod\xa1y\xa6series\x80"),
        CASE("series without a name", "\x84\xa1v\x01\xa2ns\xa1x\xa3pod\xa1y\xa6series\x91\x80"),
        CASE("a bucket of no bound of ours", "\x84\xa1v\x01\xa2ns\xa1x\xa3pod\xa1y\xa6series\x91\x82\xa4name\xa1r\xa7" "buckets\x91\x92\x07\x01"),
        CASE("a bucket of three", "\x84\xa1v\x01\xa2ns\xa1x\xa3pod\xa1y\xa6series\x91\x82\xa4name\xa1r\xa7" "buckets\x91\x93\x01\x01\x01"),
        CASE("a negative bucket", "\x84\xa1v\x01\xa2ns\xa1x\xa3pod\xa1y\xa6series\x91\x82\xa4name\xa1r\xa7" "buckets\x91\x92\x01\xff"),
        CASE("a label that is a map", "\x84\xa1v\x01\xa2ns\xa1x\xa3pod\xa1y\xa6series\x91\x82\xa4name\xa1r\xa6labels\x81\xa1k\x80"),
        CASE("a port that is none", "\x84\xa1v\x01\xa2ns\xa1x\xa3pod\xa1y\xa6serves\x91\x92\xa1z\xce\x00\x01\x00\x00"),
        CASE("nested without end", "\x84\xa1v\x01\xa2ns\xa1x\xa3pod\xa1y\xa1z\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\xc0"),
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (read_all(slice(cases[i].bytes, cases[i].n)))
            fail_msg("%s", cases[i].name);
}

static void test_topics(void **state)
{
    static const struct {
        const char *topic;
        bool is_good;
    } cases[] = {
        {"metrics/a/b/c", true}, {"metrics/a/b", false},    {"metrics/a/b/c/d", false},
        {"metrics//b/c", false}, {"metrics/a/b/", false},   {"", false},
        {"metrics", false},      {"/metrics/a/b", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        slice_t parts[4];

        if (parse_topic(slice_str(cases[i].topic), parts, 4) != cases[i].is_good)
            fail_msg("%s", cases[i].topic);
    }
}

/* ---- whose key is it ---- */

static bool find(void *arg, const char *public_key, struct key_owner *out)
{
    (void)arg;
    *out = (struct key_owner){.kind = public_key[0] == 'P'   ? KEY_LINK
                                      : public_key[0] == 'F' ? KEY_FEED
                                                             : KEY_UNKNOWN,
                              .ns = "shop",
                              .name = "web-1"};
    return out->kind != KEY_UNKNOWN;
}

static void test_owners(void **state)
{
    struct mailbox_peer pod = {.key = "P", .address = "10.0.0.1"};
    struct mailbox_peer feed = {.key = "F", .address = "10.0.0.1"};
    struct mailbox_peer nobody = {.key = "X", .address = "10.0.0.1"};
    struct owners *o = NULL;
    char user[64] = "";

    (void)state;
    ok(owners_new(find, NULL, &o));
    assert_false(owners_is_pod(o, "P", SLICE_LIT("shop"), SLICE_LIT("web-1")));
    assert_false(owners_allow_pod(o, &feed, user));
    assert_false(owners_allow_pod(o, &nobody, user));
    assert_false(owners_allow_subscriber(o, &pod, user));
    assert_false(owners_allow_subscriber(o, &nobody, user));
    assert_true(owners_allow_subscriber(o, &feed, user));
    assert_false(owners_is_pod(o, user, SLICE_LIT("shop"), SLICE_LIT("web-1")));
    assert_true(owners_allow_pod(o, &pod, user));
    assert_true(owners_is_pod(o, user, SLICE_LIT("shop"), SLICE_LIT("web-1")));
    assert_false(owners_is_pod(o, user, SLICE_LIT("shop"), SLICE_LIT("web-2")));
    assert_false(owners_is_pod(o, user, SLICE_LIT("other"), SLICE_LIT("web-1")));
    assert_false(owners_is_pod(o, "", SLICE_LIT("shop"), SLICE_LIT("web-1")));
    owners_free(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_one),   cmocka_unit_test(test_cuts_and_flips),
        cmocka_unit_test(test_nearly_right), cmocka_unit_test(test_topics),
        cmocka_unit_test(test_owners),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
