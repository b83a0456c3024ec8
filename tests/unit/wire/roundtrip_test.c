/* Every message of the table, filled with made-up values: there and back, cut short at every
 * byte, over every limit, with every wrong type, from the wrong role, and from older and newer
 * peers. */
#include "wire/reader.h"
#include "wire/sample.h"
#include "wire/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct wire_sample_how small = {.seed = 11, .list_max = 2, .text_max = 24};

/* A sample of the message, encoded. Freed by the caller. */
static slice_t encode_sample(const struct wire_desc *d, const struct wire_sample_how *how)
{
    AUTO(arena_done) struct arena arena;
    AUTO(buf_done) struct buf out;
    union wire_body body;
    uint8_t *copy;
    slice_t s;

    memset(&body, 0, sizeof(body));
    arena_init(&arena, 0);
    buf_init(&out, 0);
    assert_ptr_equal(wire_sample(d, how, &arena, &body), OK);
    assert_ptr_equal(wire_encode(d->code, &body, &out), OK);
    s = buf_slice(&out);
    copy = malloc(s.n); /* exactly so large: the sanitizer sees a read beyond it */
    assert_non_null(copy);
    memcpy(copy, s.p, s.n);
    return slice(copy, s.n);
}

static void drop(slice_t s)
{
    union {
        const uint8_t *in;
        void *out;
    } p = {.in = s.p};

    free(p.out);
}

static err_t decode(slice_t s, const struct wire_desc *d, struct wire_msg *msg)
{
    return wire_decode(s, d->from, d->to, msg);
}

static void assert_same_after_reencoding(slice_t bytes, const struct wire_msg *msg)
{
    AUTO(buf_done) struct buf out;

    buf_init(&out, 0);
    assert_ptr_equal(wire_encode(msg->code, &msg->body, &out), OK);
    assert_true(slice_is(bytes, buf_slice(&out)));
}

static void test_round_trip(void **state)
{
    size_t n;
    const struct wire_desc *descs = wire_descs(&n);

    (void)state;
    assert_true(n > 40);
    for (size_t i = 0; i < n; i++) {
        for (uint64_t seed = 0; seed < 40; seed++) {
            struct wire_sample_how how = {seed, seed % 5, seed % 90, seed % 7 == 0};
            slice_t bytes = encode_sample(&descs[i], &how);
            struct wire_msg msg;

            assert_ptr_equal(decode(bytes, &descs[i], &msg), OK);
            assert_int_equal(msg.code, descs[i].code);
            assert_int_equal(wire_peek_code(bytes), descs[i].code);
            assert_same_after_reencoding(bytes, &msg);
            wire_msg_done(&msg);
            drop(bytes);
        }
    }
}

static void test_truncation_at_every_offset(void **state)
{
    size_t n;
    const struct wire_desc *descs = wire_descs(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        slice_t bytes = encode_sample(&descs[i], &small);

        for (size_t cut = 0; cut < bytes.n; cut++) {
            uint8_t *part = malloc(cut + 1);
            struct wire_msg msg;
            err_t why;

            assert_non_null(part);
            memcpy(part, bytes.p, cut);
            why = decode(slice(part, cut), &descs[i], &msg);
            assert_ptr_equal(why, ERR_OF(WIRE_TRUNCATED));
            wire_msg_done(&msg); /* allowed after a failure */
            free(part);
        }
        drop(bytes);
    }
}

static void test_leftover_bytes(void **state)
{
    size_t n;
    const struct wire_desc *descs = wire_descs(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        slice_t bytes = encode_sample(&descs[i], &small);
        uint8_t *more = malloc(2 * bytes.n);
        struct wire_msg msg;

        assert_non_null(more);
        memcpy(more, bytes.p, bytes.n);
        memcpy(more + bytes.n, bytes.p, bytes.n);
        assert_ptr_equal(decode(slice(more, bytes.n + 1), &descs[i], &msg),
                         ERR_OF(WIRE_LEFTOVER));
        assert_ptr_equal(decode(slice(more, 2 * bytes.n), &descs[i], &msg),
                         ERR_OF(WIRE_LEFTOVER));
        free(more);
        drop(bytes);
    }
}

/* Any byte changed to any value: an error or a message that can be encoded again, never a
 * crash. */
static void test_every_byte_changed(void **state)
{
    size_t n;
    const struct wire_desc *descs = wire_descs(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        struct wire_sample_how how = {.seed = 5, .list_max = 1, .text_max = 8};
        slice_t bytes = encode_sample(&descs[i], &how);
        uint8_t *copy = malloc(bytes.n);

        assert_non_null(copy);
        for (size_t at = 0; at < bytes.n; at++) {
            for (unsigned v = 0; v < 256; v += 3) {
                struct wire_msg msg;

                memcpy(copy, bytes.p, bytes.n);
                copy[at] = (uint8_t)v;
                if (wire_decode(slice(copy, bytes.n), WIRE_ROLE_ANY, WIRE_ROLE_ANY, &msg) ==
                    OK) {
                    AUTO(buf_done) struct buf out;
                    buf_init(&out, 0);
                    assert_ptr_equal(wire_encode(msg.code, &msg.body, &out), OK);
                }
                wire_msg_done(&msg);
            }
        }
        free(copy);
        drop(bytes);
    }
}

static void test_roles(void **state)
{
    size_t n;
    const struct wire_desc *descs = wire_descs(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        slice_t bytes = encode_sample(&descs[i], &small);

        for (unsigned bit = 1; bit < WIRE_ROLE_ANY; bit <<= 1) {
            struct wire_msg msg;
            bool may_send = (descs[i].from & bit) != 0, may_get = (descs[i].to & bit) != 0;

            assert_ptr_equal(wire_decode(bytes, (enum wire_role)bit, descs[i].to, &msg),
                             may_send ? OK : ERR_OF(WIRE_ROLE));
            wire_msg_done(&msg);
            assert_ptr_equal(wire_decode(bytes, descs[i].from, (enum wire_role)bit, &msg),
                             may_get ? OK : ERR_OF(WIRE_ROLE));
            wire_msg_done(&msg);
        }
        drop(bytes);
    }
}

/* ---- messages built by hand, to be wrong in one place ---- */

/* How one field is written. */
enum twist {
    TWIST_NONE,
    TWIST_TYPE,
    TWIST_LIMIT,
    TWIST_RANGE,
    TWIST_NUL,
    TWIST_UTF8,
    TWIST_COUNT
};

static void put(err_t e)
{
    assert_ptr_equal(e, OK);
}

static void put_record(struct buf *b, const struct wire_record *r);

static void put_plain(struct buf *b, const struct wire_field *f)
{
    if (f->kind == WIRE_KIND_TEXT)
        put(wire_put_text(b, SLICE_LIT("x")));
    else if (f->kind == WIRE_KIND_BYTES)
        put(wire_put_bytes(b, SLICE_LIT("x")));
    else if (f->kind == WIRE_KIND_BOOL)
        put(wire_put_bool(b, true));
    else if (f->kind == WIRE_KIND_LIST) {
        put(wire_put_array(b, 1));
        put_record(b, f->record);
    } else
        put(wire_put_u64(b, 1));
}

static void put_record(struct buf *b, const struct wire_record *r)
{
    size_t n;
    const struct wire_field *fields = r->fields(&n);

    put(wire_put_array(b, n));
    for (size_t i = 0; i < n; i++)
        put_plain(b, &fields[i]);
}

static void put_long(struct buf *b, const struct wire_field *f)
{
    uint8_t *p = malloc(f->max + 1);

    assert_non_null(p);
    memset(p, 'x', f->max + 1);
    if (f->kind == WIRE_KIND_TEXT)
        put(wire_put_text(b, slice(p, f->max + 1)));
    else
        put(wire_put_bytes(b, slice(p, f->max + 1)));
    free(p);
}

/* Writes the field wrongly and says which error that must give; NULL if the twist does not
 * apply. */
static err_t put_twisted(struct buf *b, const struct wire_field *f, enum twist twist)
{
    bool is_number = f->kind <= WIRE_KIND_I64;

    switch (twist) {
    case TWIST_NONE:
        break;
    case TWIST_TYPE:
        if (f->kind == WIRE_KIND_TEXT)
            put(wire_put_bytes(b, SLICE_LIT("x")));
        else if (f->kind == WIRE_KIND_BYTES)
            put(wire_put_text(b, SLICE_LIT("x")));
        else
            put(wire_put_nil(b));
        return ERR_OF(WIRE_TYPE);
    case TWIST_LIMIT:
        if (f->kind == WIRE_KIND_TEXT || f->kind == WIRE_KIND_BYTES) {
            put_long(b, f);
            return ERR_OF(WIRE_LIMIT);
        }
        if (f->kind == WIRE_KIND_LIST) {
            put(wire_put_array(b, f->max + 1));
            for (uint32_t i = 0; i < f->max + 1; i++)
                put_record(b, f->record);
            return ERR_OF(WIRE_LIMIT);
        }
        break;
    case TWIST_RANGE:
        if (is_number && f->kind != WIRE_KIND_U64 && f->kind != WIRE_KIND_I64) {
            put(wire_put_u64(b, f->kind == WIRE_KIND_U8    ? UINT8_MAX + 1ULL
                                : f->kind == WIRE_KIND_U16 ? UINT16_MAX + 1ULL
                                                           : UINT32_MAX + 1ULL));
            return ERR_OF(WIRE_RANGE);
        }
        if (f->kind == WIRE_KIND_U64)
            put(wire_put_i64(b, -1));
        else if (f->kind == WIRE_KIND_I64)
            put(wire_put_u64(b, UINT64_MAX));
        else
            break;
        return ERR_OF(WIRE_RANGE);
    case TWIST_NUL:
        if (f->kind != WIRE_KIND_TEXT || f->max < 3)
            break;
        put(wire_put_text(b, slice("a\0b", 3)));
        return ERR_OF(WIRE_TEXT);
    case TWIST_UTF8:
        if (f->kind != WIRE_KIND_TEXT || f->max < 2)
            break;
        put(wire_put_text(b, slice("\xc0\x80", 2)));
        return ERR_OF(WIRE_TEXT);
    case TWIST_COUNT:
        if (f->kind != WIRE_KIND_LIST)
            break;
        put(buf_add(b, "\xdd\x0f\xff\xff\xff", 5));
        return ERR_OF(WIRE_TRUNCATED);
    }
    return OK;
}

static void check_twisted(const struct wire_desc *d, size_t at, enum twist twist)
{
    AUTO(buf_done) struct buf b;
    size_t n;
    const struct wire_field *fields = d->record->fields(&n);
    struct wire_msg msg;
    err_t want = OK, got;

    buf_init(&b, 0);
    put(wire_put_array(&b, 2 + n));
    put(wire_put_u64(&b, (uint64_t)d->code));
    put(wire_put_u64(&b, d->version));
    for (size_t i = 0; i < n; i++) {
        if (i == at)
            want = put_twisted(&b, &fields[i], twist);
        if (i == at && want == OK)
            return; /* does not apply to this field */
        if (i != at)
            put_plain(&b, &fields[i]);
    }
    if (buf_len(&b) > WIRE_MESSAGE_MAX)
        want = ERR_OF(WIRE_LIMIT);
    got = decode(buf_slice(&b), d, &msg);
    if (got != want)
        print_error("%s.%s twist %d: want %s, got %s\n", d->record->name, fields[at].name,
                    (int)twist, want->name, got == OK ? "OK" : got->name);
    assert_ptr_equal(got, want);
    if (buf_len(&b) <= WIRE_MESSAGE_MAX)
        assert_string_equal(msg.at, fields[at].name);
}

static void test_every_field_wrong_in_every_way(void **state)
{
    size_t n, n_fields;
    const struct wire_desc *descs = wire_descs(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        (void)descs[i].record->fields(&n_fields);
        for (size_t f = 0; f < n_fields; f++)
            for (int t = TWIST_TYPE; t <= TWIST_COUNT; t++)
                check_twisted(&descs[i], f, (enum twist)t);
    }
}

/* Our version with another number of fields, and other versions with fewer and more. */
static err_t decode_with_fields(const struct wire_desc *d, unsigned version, size_t n_fields,
                                const char *extra, size_t extra_n)
{
    AUTO(buf_done) struct buf b;
    size_t n;
    const struct wire_field *fields = d->record->fields(&n);
    struct wire_msg msg;
    err_t why;

    buf_init(&b, 0);
    put(wire_put_array(&b, 2 + n_fields));
    put(wire_put_u64(&b, (uint64_t)d->code));
    put(wire_put_u64(&b, version));
    for (size_t i = 0; i < n_fields; i++) {
        if (i < n)
            put_plain(&b, &fields[i]);
        else
            put(buf_add(&b, extra, extra_n));
    }
    why = decode(buf_slice(&b), d, &msg);
    wire_msg_done(&msg);
    return why;
}

static void test_version_skew(void **state)
{
    size_t n, f;
    const struct wire_desc *descs = wire_descs(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        const struct wire_desc *d = &descs[i];

        (void)d->record->fields(&f);
        assert_ptr_equal(decode_with_fields(d, d->version, f, "", 0), OK);
        assert_ptr_equal(decode_with_fields(d, d->version, f + 1, "\xc0", 1),
                         ERR_OF(WIRE_FIELDS));
        assert_ptr_equal(decode_with_fields(d, d->version, f - 1, "", 0), ERR_OF(WIRE_FIELDS));
        assert_ptr_equal(decode_with_fields(d, d->version + 1, f + 1, "\xc0", 1), OK);
        assert_ptr_equal(decode_with_fields(d, d->version + 1, f + 3, "\x93\x01\x02\xa1z", 5),
                         OK);
        assert_ptr_equal(decode_with_fields(d, d->version + 1, f, "", 0), OK);
        assert_ptr_equal(decode_with_fields(d, d->version + 1, f - 1, "", 0),
                         ERR_OF(WIRE_FIELDS));
        assert_ptr_equal(decode_with_fields(d, d->version + 1, f + 1, "\xc1", 1),
                         ERR_OF(WIRE_TYPE));
        assert_ptr_equal(decode_with_fields(d, d->version + 1, f + 1,
                                            "\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\xc0", 11),
                         ERR_OF(WIRE_DEPTH));
        assert_ptr_equal(decode_with_fields(d, 0, f, "", 0), ERR_OF(WIRE_VERSION));
        assert_ptr_equal(decode_with_fields(d, 65536, f, "", 0), ERR_OF(WIRE_RANGE));
    }
}

/* Version 1 of ack ended before `applied`: it is read, with zero. */
static void test_older_message(void **state)
{
    static const char older[] = "\x94\xcd\x04\x0a\x01\x07\x09";
    static const char too_long[] = "\x96\xcd\x04\x0a\x01\x07\x09\x01\x02";
    struct wire_msg msg;

    (void)state;
    assert_ptr_equal(
        wire_decode(slice(older, sizeof(older) - 1), WIRE_ROLE_LINK, WIRE_ROLE_BROKER, &msg),
        OK);
    assert_int_equal(msg.version, 1);
    assert_int_equal(wire_expect(ack, &msg)->revision, 9);
    assert_int_equal(wire_expect(ack, &msg)->applied, 0);
    wire_msg_done(&msg);
    assert_ptr_equal(wire_decode(slice(too_long, sizeof(too_long) - 1), WIRE_ROLE_LINK,
                                 WIRE_ROLE_BROKER, &msg),
                     ERR_OF(WIRE_FIELDS));
}

/* The record inside a newer message may be longer, and its further fields are skipped. */
static void test_newer_record_inside(void **state)
{
    /* watch v2 [[[ "t", 5, "new" ]], true] */
    static const char newer[] = "\x94\xcd\x04\x05\x02\x91\x93\xa1t\x05\xa3new\xc3";
    /* the same as v1: refused */
    static const char equal[] = "\x93\xcd\x04\x05\x01\x91\x93\xa1t\x05\xa3new";
    struct wire_msg msg;
    const struct wire_watch *w;

    (void)state;
    assert_ptr_equal(
        wire_decode(slice(newer, sizeof(newer) - 1), WIRE_ROLE_LINK, WIRE_ROLE_BROKER, &msg),
        OK);
    w = wire_expect(watch, &msg);
    assert_ptr_equal(wire_as(watch, &msg), w);
    assert_null(wire_as(hello, &msg));
    assert_int_equal(msg.version, 2);
    assert_int_equal(w->n_topics, 1);
    assert_true(slice_is_str(w->topics[0].topic, "t"));
    assert_int_equal(w->topics[0].revision, 5);
    wire_msg_done(&msg);
    assert_ptr_equal(
        wire_decode(slice(equal, sizeof(equal) - 1), WIRE_ROLE_LINK, WIRE_ROLE_BROKER, &msg),
        ERR_OF(WIRE_FIELDS));
}

static void test_encoder_refuses_what_the_decoder_would(void **state)
{
    static uint8_t big[262144];
    struct wire_topic_state states[257];
    struct wire_alive alive = {1};
    struct wire_watch watch = {257, states};
    struct wire_topic topic = {.payload = slice(big, 245761)};
    struct wire_refused refused = {.why = SLICE_LIT("a\0b")};
    struct wire_trust trust = {.anchors = slice(big, 131072)};
    struct wire_object objects[3];
    struct wire_apply apply = {.n_objects = 3, .objects = objects};
    AUTO(buf_done) struct buf b;

    (void)state;
    memset(states, 0, sizeof(states));
    memset(objects, 0, sizeof(objects));
    for (size_t i = 0; i < 3; i++)
        objects[i].json = slice(big, 131072);
    buf_init(&b, 0);
    put(buf_add(&b, "before", 6));
    assert_ptr_equal(WIRE_ENCODE(watch, &watch, &b), ERR_OF(WIRE_LIMIT));
    watch.n_topics = 256;
    assert_ptr_equal(WIRE_ENCODE(watch, &watch, &b), OK);
    b.tail = b.head + 6;
    assert_ptr_equal(WIRE_ENCODE(topic, &topic, &b), ERR_OF(WIRE_LIMIT));
    assert_ptr_equal(WIRE_ENCODE(refused, &refused, &b), ERR_OF(WIRE_TEXT));
    refused.why = slice("\xff", 1);
    assert_ptr_equal(WIRE_ENCODE(refused, &refused, &b), ERR_OF(WIRE_TEXT));
    assert_ptr_equal(WIRE_ENCODE(apply, &apply, &b), ERR_OF(WIRE_LIMIT));
    assert_ptr_equal(wire_encode((enum wire_code)0x7777, &alive, &b), ERR_OF(WIRE_UNKNOWN));
    assert_true(
        slice_is_str(buf_slice(&b), "before")); /* nothing of a refused message remains */
    assert_ptr_equal(WIRE_ENCODE(trust, &trust, &b), OK);
    buf_done(&b);
    buf_init(&b, 100);
    assert_ptr_not_equal(WIRE_ENCODE(trust, &trust, &b), OK); /* the buf's own ceiling */
    assert_int_equal(buf_len(&b), 0);
}

static void test_hostile_heads(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const struct err *want;
    } cases[] = {
        {"", 0, &err_WIRE_TRUNCATED},
        {"\xc1", 1, &err_WIRE_TYPE},
        {"\x80", 1, &err_WIRE_TYPE},
        {"\x90", 1, &err_WIRE_FIELDS},
        {"\x91\x01", 2, &err_WIRE_FIELDS},
        {"\xdd\xff\xff\xff\xff", 5, &err_WIRE_TRUNCATED},
        {"\xdc\xff", 2, &err_WIRE_TRUNCATED},
        {"\x92\xa1x\x01", 4, &err_WIRE_TYPE},
        {"\x92\xff\x01", 3, &err_WIRE_RANGE},
        {"\x92\xcd\x77\x77\x01", 5, &err_WIRE_UNKNOWN},
        {"\x92\xce\x00\x01\x04\x04\x01", 7, &err_WIRE_RANGE},
        {"\x93\xcd\x04\x04\x01\xc0", 6, &err_WIRE_TYPE},
        {"\x93\xcd\x04\x04\x01\xca\x00\x00\x00\x00", 10, &err_WIRE_TYPE},
        {"\x93\xcd\x04\x04\x01\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 14, &err_WIRE_RANGE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire_msg msg;
        err_t got =
            wire_decode(slice(cases[i].bytes, cases[i].n), WIRE_ROLE_ANY, WIRE_ROLE_ANY, &msg);

        if (got != cases[i].want)
            print_error("case %zu: want %s got %s\n", i, cases[i].want->name,
                        got ? got->name : "OK");
        assert_ptr_equal(got, cases[i].want);
    }
    struct wire_msg msg;
    assert_ptr_equal(wire_decode(slice(NULL, 0), WIRE_ROLE_ANY, WIRE_ROLE_ANY, &msg),
                     ERR_OF(WIRE_TRUNCATED));
    assert_int_equal(wire_peek_code(slice(NULL, 0)), 0);
}

/* The widest spread of bytes to memory that the table allows stays below the decoder's ceiling,
 * so that no honest message is refused for memory. */
static void test_memory_bound(void **state)
{
    size_t n, n_fields;
    const struct wire_record *const *records = wire_records(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        (void)records[i]->fields(&n_fields);
        if (records[i]->size > 24 * (1 + n_fields))
            print_error("record %s: %zu bytes for %zu\n", records[i]->name, records[i]->size,
                        1 + n_fields);
        assert_true(records[i]->size <= 24 * (1 + n_fields));
    }
}

static size_t depth_of(const struct wire_record *r, size_t at)
{
    size_t n, deepest = at;
    const struct wire_field *fields = r->fields(&n);

    assert_true(at <= WIRE_RECORD_DEPTH);
    for (size_t i = 0; i < n; i++) {
        size_t d = fields[i].kind == WIRE_KIND_LIST ? depth_of(fields[i].record, at + 1) : at;
        deepest = d > deepest ? d : deepest;
    }
    return deepest;
}

static void test_table_is_sound(void **state)
{
    size_t n, n_fields;
    const struct wire_desc *descs = wire_descs(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(wire_desc_of((unsigned)descs[i].code), &descs[i]);
        assert_string_equal(wire_name(descs[i].code), descs[i].record->name);
        assert_true(descs[i].version >= 1);
        (void)descs[i].record->fields(&n_fields);
        assert_true(n_fields >= 1);
        (void)depth_of(descs[i].record, 0);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(descs[j].code, descs[i].code);
    }
    assert_null(wire_desc_of(0));
    assert_null(wire_desc_of(65535));
    assert_string_equal(wire_name((enum wire_code)0), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_is_sound),
        cmocka_unit_test(test_memory_bound),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_truncation_at_every_offset),
        cmocka_unit_test(test_leftover_bytes),
        cmocka_unit_test(test_every_byte_changed),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_every_field_wrong_in_every_way),
        cmocka_unit_test(test_version_skew),
        cmocka_unit_test(test_older_message),
        cmocka_unit_test(test_newer_record_inside),
        cmocka_unit_test(test_encoder_refuses_what_the_decoder_would),
        cmocka_unit_test(test_hostile_heads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
