/* HPACK: the examples of RFC 7541 appendix C, what is refused, the tables, and the encoder's
 * policy. */
#include "kit/err.h"
#include "proxy/http2/hpack_decode.h"
#include "proxy/http2/hpack_encode.h"
#include "proxy/http2/huffman.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static size_t from_hex(const char *hex, uint8_t *out)
{
    size_t n = 0;

    for (; hex[0] != '\0'; hex += 2) {
        char two[3] = {hex[0], hex[1], '\0'};

        out[n++] = (uint8_t)strtoul(two, NULL, 16);
    }
    return n;
}

/* The fields of a block as "name: value\n"..., or "broken". */
static const char *decoded(struct hpack_decoder *d, const char *hex)
{
    static char text[65536];
    uint8_t bytes[4096];
    slice_t block = slice(bytes, from_hex(hex, bytes));
    struct hpack_field f;
    enum hpack_got got;
    size_t at = 0;

    hpack_decode_begin(d, block.n);
    text[0] = '\0';
    while ((got = hpack_decode(d, &block, &f)) == HPACK_FIELD)
        at +=
            (size_t)snprintf(text + at, sizeof(text) - at, "%.*s: %.*s%s\n", SLICE_FMT(f.name),
                             SLICE_FMT(f.value), f.is_sensitive ? " !" : "");
    return got == HPACK_END ? text : "broken";
}

/* RFC 7541 C.3 to C.6: three blocks on one connection each, and the size of the table behind
 * each. */
static void examples_of_the_rfc(void **state)
{
    static const char *const first =
        ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n";
    static const char *const second = ":method: GET\n:scheme: http\n:path: /\n:authority: "
                                      "www.example.com\ncache-control: no-cache\n";
    static const char *const third =
        ":method: GET\n:scheme: https\n:path: /index.html\n:authority: "
        "www.example.com\ncustom-key: custom-value\n";
    static const struct {
        uint32_t table;
        const char *hex[3], *fields[3];
        uint32_t size[3];
    } cases[] = {
        {4096,
         {"828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865",
          "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565"},
         {first, second, third},
         {57, 110, 164}},
        {4096,
         {"828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf",
          "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"},
         {first, second, third},
         {57, 110, 164}},
        {256,
         {"488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad1718"
          "63c78f0b97c8e9ae82ae43d3",
          "4883640effc1c0bf",
          "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7"
          "b335"
          "dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"},
         {":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 "
          "GMT\nlocation: "
          "https://www.example.com\n",
          ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 "
          "GMT\nlocation: "
          "https://www.example.com\n",
          ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 "
          "GMT\nlocation: "
          "https://www.example.com\ncontent-encoding: gzip\nset-cookie: "
          "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n"},
         {222, 222, 215}},
    };

    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct hpack_decoder d;

        hpack_decoder_init(&d, cases[c].table);
        for (int i = 0; i < 3; i++) {
            assert_string_equal(decoded(&d, cases[c].hex[i]), cases[c].fields[i]);
            assert_int_equal(d.table.size, cases[c].size[i]);
        }
        hpack_decoder_done(&d);
    }
}

static void single_fields(void **state)
{
    static const char *const cases[][2] = {
        {"400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key: custom-header\n"},
        {"040c2f73616d706c652f70617468", ":path: /sample/path\n"},
        {"100870617373776f726406736563726574", "password: secret !\n"},
        {"82", ":method: GET\n"},
        {"", ""},
        {"4000"
         "00",
         ": \n"},
        {"203fe11f82", ":method: GET\n"}, /* two updates, the smaller first */
        {"0081ff"
         "0161",
         "broken"},       /* a coded name that is nothing but padding */
        {"80", "broken"}, /* index 0 */
        {"be", "broken"}, /* an empty table has no 62 */
        {"c6", "broken"},
        {"ffffffffffff7f", "broken"}, /* an index of more than 28 bits */
        {"ff8080808000", "broken"},   /* and one that is small, but says so at length */
        {"40", "broken"},
        {"4001", "broken"},
        {"400178", "broken"},
        {"40017805", "broken"},         /* the value is missing */
        {"4001787fffffff7f", "broken"}, /* a length beyond the block */
        {"3fe21f", "broken"},           /* 4097 */
        {"8220", "broken"},             /* an update behind a field */
        {"202020", "broken"},           /* three of them */
        {"3f", "broken"},
        {"000178"
         "81ff",
         "broken"}, /* eight bits of padding */
        {"000178"
         "8118",
         "broken"}, /* padding of zeros */
        {"000178"
         "84ffffffff",
         "broken"}, /* end of string */
        {"000178"
         "80",
         "x: \n"},
        {"000178"
         "811f",
         "x: a\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct hpack_decoder d;
        const char *got;

        hpack_decoder_init(&d, 4096);
        got = decoded(&d, cases[i][0]);
        if (strcmp(got, cases[i][1]) != 0)
            fail_msg("%s: %s", cases[i][0], got);
        hpack_decoder_done(&d);
    }
}

/* Codes of every length, as RFC 7541 appendix B lists them. */
static void every_byte_in_huffman(void **state)
{
    static const struct {
        uint32_t code;
        unsigned bits;
        uint8_t byte;
    } codes[] = {
        {0x1ff8, 13, 0},      {0x14, 6, ' '},       {0x3f8, 10, '!'},     {0x0, 5, '0'},
        {0x3, 5, 'a'},        {0x7b, 7, 'z'},       {0x7ffc, 15, '<'},    {0x7fff0, 19, '\\'},
        {0x3ffd, 14, '}'},    {0x1ffd, 13, '~'},    {0xffffffc, 28, 127}, {0xfffe6, 20, 128},
        {0x7ffffde, 27, 203}, {0x7fffff0, 27, 254}, {0x3ffffee, 26, 255}, {0x3ffffffc, 30, 10},
        {0x3ffffffd, 30, 13}, {0x3ffffffe, 30, 22}, {0xffffea, 24, 9}};

    (void)state;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        uint8_t in[8], out[HUFFMAN_ROOM(8)];
        uint64_t word =
            (uint64_t)codes[i].code << (64 - codes[i].bits) | UINT64_MAX >> codes[i].bits;
        size_t n = (codes[i].bits + 7) / 8;

        for (size_t k = 0; k < 8; k++)
            in[k] = (uint8_t)(word >> (56 - 8 * k));
        if (huffman_decode(slice(in, n), out) != 1 || out[0] != codes[i].byte)
            fail_msg("symbol %u", codes[i].byte);
    }
}

static void entries_are_evicted_in_order(void **state)
{
    struct hpack_table t;
    bool kept;

    (void)state;
    hpack_table_init(&t, 100);
    for (uint32_t i = 0; i < 5000; i++) {
        char name[8], value[40];
        struct hpack_entry *e;

        (void)snprintf(name, sizeof(name), "n%u", i);
        (void)snprintf(value, sizeof(value), "%0*u", (int)(i % 20) + 1, i);
        assert_true(hpack_table_add(&t, slice_str(name), slice_str(value), &kept) == OK);
        assert_true(kept);
        assert_true(t.size <= 100);
        e = hpack_table_entry(&t, t.next - 1);
        assert_true(slice_is(hpack_entry_name(&t, e), slice_str(name)));
        assert_true(slice_is(hpack_entry_value(&t, e), slice_str(value)));
        if (t.next - t.first > 1) {
            (void)snprintf(name, sizeof(name), "n%u", i - 1);
            assert_true(slice_is(hpack_entry_name(&t, hpack_table_entry(&t, t.next - 2)),
                                 slice_str(name)));
        }
    }
    /* the name of an entry that has to go for the new one */
    {
        struct hpack_entry *e = hpack_table_entry(&t, t.first);

        assert_true(
            hpack_table_add(&t, hpack_entry_name(&t, e),
                            SLICE_LIT("vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv"),
                            &kept) == OK);
        assert_true(kept &&
                    hpack_entry_name(&t, hpack_table_entry(&t, t.next - 1)).p[0] == 'n');
    }
    /* one that is too large leaves nothing (RFC 7541 4.4) */
    assert_true(hpack_table_add(&t, SLICE_LIT("x"),
                                slice_str("0123456789012345678901234567890123456789"
                                          "0123456789012345678901234567890"),
                                &kept) == OK);
    assert_false(kept);
    assert_int_equal(t.size, 0);
    assert_false(hpack_table_has(&t, t.next - 1));
    hpack_table_resize(&t, 0);
    assert_true(hpack_table_add(&t, SLICE_LIT(""), SLICE_LIT(""), &kept) == OK);
    assert_false(kept);
    hpack_table_done(&t);
}

static void static_names_are_found(void **state)
{
    (void)state;
    for (uint32_t i = 15; i <= HPACK_STATIC; i++)
        assert_true(slice_is(hpack_static_name(hpack_static_find(hpack_static_name(i))),
                             hpack_static_name(i)));
    assert_int_equal(hpack_static_find(SLICE_LIT("x-other")), 0);
    assert_int_equal(hpack_static_find(SLICE_LIT("")), 0);
    assert_int_equal(hpack_static_find(SLICE_LIT("{")), 0);
    assert_int_equal(hpack_static_find(SLICE_LIT(":path")), 0);
    assert_int_equal(hpack_static_find(SLICE_LIT("zzz")), 0);
    assert_int_equal(hpack_static_find(SLICE_LIT("accept")), 19);
}

static size_t encoded(struct hpack_encoder *e, struct hpack_out *f, size_t n, uint8_t *out)
{
    size_t room = hpack_plan(e, f, n), got;

    assert_true(room <= 4096);
    got = hpack_encode(e, f, n, out);
    assert_true(got <= room);
    return got;
}

/* A field is a literal twice, then a byte. */
static void what_repeats_is_indexed(void **state)
{
    struct hpack_encoder e;
    uint8_t out[4096];
    char unique[16];

    (void)state;
    hpack_encoder_init(&e);
    for (unsigned i = 0; i < 50; i++) {
        struct hpack_out f[] = {
            {.name = SLICE_LIT(":method"), .value = SLICE_LIT("GET"), .static_entry = 2},
            {.name = SLICE_LIT(":authority"), .value = SLICE_LIT("web:8080"), .static_name = 1},
            {.name = SLICE_LIT("user-agent"), .value = SLICE_LIT("some/1.0")},
            {.name = SLICE_LIT("x-id"),
             .value = slice(unique, (size_t)snprintf(unique, 16, "%08u", i))},
            {.name = SLICE_LIT("authorization"),
             .value = SLICE_LIT("secret"),
             .policy = HPACK_NEVER_INDEX},
            {.name = SLICE_LIT("content-length"),
             .value = SLICE_LIT("5"),
             .policy = HPACK_NO_INDEX},
        };
        size_t n = encoded(&e, f, 6, out);

        if (i < 2)
            assert_true(n > 40);
        else
            assert_int_equal(n, 1 + 1 + 1 + (1 + 1 + 4 + 1 + 8) + (2 + 1 + 6) + (2 + 1 + 1));
        assert_int_equal(e.table.next, i == 0 ? 0 : 2);
    }
    hpack_encoder_done(&e);
}

/* RFC 7541 4.2: the smallest limit in between is said, then the last. */
static void limits_of_the_peer_are_said(void **state)
{
    struct hpack_out f = {.name = SLICE_LIT("x"), .value = SLICE_LIT("y")};
    struct hpack_encoder e;
    uint8_t out[4096];

    (void)state;
    hpack_encoder_init(&e);
    hpack_encoder_resize(&e, 4096); /* nothing new */
    assert_int_equal(encoded(&e, &f, 1, out), 5);
    (void)encoded(&e, &f, 1, out);
    assert_int_equal(encoded(&e, &f, 1, out), 1);
    hpack_encoder_resize(&e, 0);
    hpack_encoder_resize(&e, 1 << 30); /* ours stays at 4096 */
    assert_int_equal(encoded(&e, &f, 1, out), 1 + 3 + 5);
    assert_int_equal(out[0], 0x20);
    assert_int_equal(out[1], 0x3f);
    hpack_encoder_resize(&e, 100);
    assert_int_equal(encoded(&e, &f, 1, out), 2 + 1); /* the entry stays */
    hpack_encoder_resize(&e, 33);
    assert_int_equal(encoded(&e, &f, 1, out),
                     2 + 5); /* it does not, and is not put there again */
    assert_int_equal(encoded(&e, &f, 1, out), 5);
    assert_int_equal(e.table.next, 2);
    hpack_encoder_done(&e);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_of_the_rfc),
        cmocka_unit_test(single_fields),
        cmocka_unit_test(every_byte_in_huffman),
        cmocka_unit_test(entries_are_evicted_in_order),
        cmocka_unit_test(static_names_are_found),
        cmocka_unit_test(what_repeats_is_indexed),
        cmocka_unit_test(limits_of_the_peer_are_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
