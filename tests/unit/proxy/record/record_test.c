/* The record layer: the vectors of RFC 8448, every kind of bad record with every suite,
 * KeyUpdate, limits. */
#include "proxy/record/half.h"
#include "proxy/record/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const uint16_t suites[] = {0x1301, 0x1302, 0x1303};
#define SUITES (sizeof(suites) / sizeof(suites[0]))

static size_t unhex(const char *text, uint8_t *out, size_t cap)
{
    size_t n = 0;

    for (; *text != '\0'; text++) {
        unsigned v;

        if (*text == ' ')
            continue;
        assert_int_equal(sscanf(text, "%2x", &v), 1);
        assert_true(n < cap);
        out[n++] = (uint8_t)v;
        text++;
    }
    return n;
}

/* One side under test and, opposite, the bare halves with which a test makes any record it
 * likes. */
struct rig {
    struct record *r;
    struct half to_r, from_r;
    struct buf reply, wire;
    uint8_t scratch[RECORD_WIRE_MAX + 64];
};

static void secrets_of(uint16_t suite, uint8_t c[48], uint8_t s[48], size_t *n)
{
    *n = suite == 0x1302 ? 48 : 32;
    for (size_t i = 0; i < 48; i++) {
        c[i] = (uint8_t)(i * 7 + suite);
        s[i] = (uint8_t)(i * 11 + 3);
    }
}

static void rig_init(struct rig *g, uint16_t suite, enum record_role role, uint64_t rekey_after)
{
    uint8_t c[48], s[48];
    size_t n;
    struct record_conf conf = {.role = role, .suite = suite, .rekey_after = rekey_after};

    secrets_of(suite, c, s, &n);
    conf.client_secret = slice(c, n);
    conf.server_secret = slice(s, n);
    assert_ptr_equal(record_new(&conf, &g->r), OK);
    assert_ptr_equal(
        half_init(&g->to_r, suite, role == RECORD_SERVER ? slice(c, n) : slice(s, n), true),
        OK);
    assert_ptr_equal(
        half_init(&g->from_r, suite, role == RECORD_SERVER ? slice(s, n) : slice(c, n), false),
        OK);
    buf_init(&g->reply, 0);
    buf_init(&g->wire, 0);
}

static void rig_done(struct rig *g)
{
    record_free(&g->r);
    half_done(&g->to_r);
    half_done(&g->from_r);
    buf_done(&g->reply);
    buf_done(&g->wire);
}

/* A record with exactly this inner plaintext (content, type, padding as given) into g->wire. */
static void put_inner(struct rig *g, const uint8_t *inner, size_t n)
{
    uint8_t *rec = buf_reserve(&g->wire, 5 + n + 16);

    assert_non_null(rec);
    memcpy(rec + 5, inner, n);
    assert_ptr_equal(half_seal(&g->to_r, rec, n), OK);
    buf_commit(&g->wire, 5 + n + 16);
}

static void put(struct rig *g, uint8_t type, const void *content, size_t n)
{
    uint8_t *inner = malloc(n + 1);

    assert_non_null(inner);
    if (n > 0)
        memcpy(inner, content, n);
    inner[n] = type;
    put_inner(g, inner, n + 1);
    free(inner);
}

/* Opens what is first in g->wire and takes it away. *plain is a copy in g->scratch. */
static enum record_got take(struct rig *g, slice_t *plain)
{
    slice_t all = buf_slice(&g->wire), in_place;
    size_t used;
    enum record_got got =
        record_open(g->r, g->wire.mem + g->wire.head, all.n, &used, &in_place, &g->reply);

    assert_true(used <= all.n);
    if (in_place.n > 0)
        memcpy(g->scratch, in_place.p, in_place.n);
    if (plain != NULL)
        *plain = slice(g->scratch, in_place.n);
    buf_consume(&g->wire, used);
    return got;
}

/* Opens the first record in `from` as the peer would; returns its type, content in g->scratch.
 */
static uint8_t peer_open(struct rig *g, struct buf *from, size_t *n)
{
    slice_t s = buf_slice(from);
    size_t len;
    uint8_t type;

    if (s.p == NULL || s.n < 5)
        fail_msg("there is no record");
    len = (size_t)s.p[3] << 8 | s.p[4];
    assert_true(s.n >= 5 + len);
    memcpy(g->scratch, s.p, 5 + len);
    assert_true(half_open(&g->from_r, g->scratch, len));
    *n = len - 17;
    type = g->scratch[5 + *n];
    memmove(g->scratch, g->scratch + 5, *n);
    buf_consume(from, 5 + len);
    return type;
}

static void expect_alert(struct rig *g, uint8_t alert)
{
    size_t n;

    assert_int_equal(peer_open(g, &g->reply, &n), 21);
    assert_int_equal(n, 2);
    assert_int_equal(g->scratch[0], alert == 0 ? 1 : 2);
    assert_int_equal(g->scratch[1], alert);
    assert_int_equal(buf_len(&g->reply), 0);
}

/* ---- RFC 8448 section 3 ---- */

#define C_SECRET "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"
#define S_SECRET "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"
#define S_TICKET                                                                               \
    "17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d6af8f6b580dcf3d11d63c7" \
    "58"                                                                                       \
    "db289a015940252f55713e061dc13e078891a38efbcf5753ad8ef170ad3c7353d16d9da773b9ca7f2b9fa1b6" \
    "c0"                                                                                       \
    "d4a3d03f75e09c30ba1e62972ac46f75f7b981be63439b2999ce13064615139891d5e4c5b406f16e3fc181a7" \
    "7c"                                                                                       \
    "a475840025db2f0a77f81b5ab05b94c01346755f69232c86519d86cbeeac87aac347d143f9605d64f650db4d" \
    "02"                                                                                       \
    "3e70e952ca49fe5137121c74bc2697687e248746d6df353005f3bce18696129c8153556b3b6c6779b37bf159" \
    "85684f"
#define C_DATA                                                                                 \
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a" \
    "20"                                                                                       \
    "441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4"
#define S_DATA                                                                                 \
    "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb" \
    "50"                                                                                       \
    "1a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d"
#define C_CLOSE "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3"
#define S_CLOSE "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9"

static void rfc8448_keys(void **state)
{
    static const struct {
        const char *secret, *key, *iv;
    } cases[] = {
        {C_SECRET, "17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9"},
        {S_SECRET, "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984"},
    };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        uint8_t secret[32], key[16], iv[12];
        struct half_keys keys;

        unhex(cases[i].secret, secret, sizeof(secret));
        unhex(cases[i].key, key, sizeof(key));
        unhex(cases[i].iv, iv, sizeof(iv));
        assert_ptr_equal(half_derive(0x1301, slice(secret, 32), &keys), OK);
        assert_int_equal(keys.key_len, 16);
        assert_memory_equal(keys.key, key, 16);
        assert_memory_equal(keys.iv, iv, 12);
    }
}

static struct record *rfc8448_side(enum record_role role)
{
    uint8_t c[32], s[32];
    struct record *r;
    struct record_conf conf = {.role = role, .suite = 0x1301};

    unhex(C_SECRET, c, sizeof(c));
    unhex(S_SECRET, s, sizeof(s));
    conf.client_secret = slice(c, 32);
    conf.server_secret = slice(s, 32);
    assert_ptr_equal(record_new(&conf, &r), OK);
    return r;
}

static void rfc8448_client_reads_server(void **state)
{
    struct record *r = rfc8448_side(RECORD_CLIENT);
    uint8_t wire[512];
    struct buf reply;
    size_t n, used, all;
    slice_t plain;

    (void)state;
    buf_init(&reply, 0);
    n = all = unhex(S_TICKET S_DATA S_CLOSE, wire, sizeof(wire));
    assert_int_equal(record_open(r, wire, n, &used, &plain, &reply), RECORD_QUIET);
    assert_int_equal(used, 227);
    n -= used;
    assert_int_equal(record_open(r, wire + all - n, n, &used, &plain, &reply), RECORD_DATA);
    assert_int_equal(used, 72);
    assert_int_equal(plain.n, 50);
    for (uint8_t i = 0; i < 50; i++)
        assert_int_equal(plain.p[i], i);
    n -= used;
    assert_int_equal(record_open(r, wire + all - n, n, &used, &plain, &reply), RECORD_CLOSED);
    assert_int_equal(used, n);
    assert_int_equal(buf_len(&reply), 0);
    buf_done(&reply);
    record_free(&r);
}

static void rfc8448_client_writes(void **state)
{
    struct record *r = rfc8448_side(RECORD_CLIENT);
    uint8_t want[256], plain[50];
    struct buf out;
    size_t n = unhex(C_DATA C_CLOSE, want, sizeof(want));

    (void)state;
    for (uint8_t i = 0; i < 50; i++)
        plain[i] = i;
    buf_init(&out, 0);
    assert_ptr_equal(record_seal(r, slice(plain, 50), &out), OK);
    assert_ptr_equal(record_seal_close(r, &out), OK);
    assert_int_equal(buf_len(&out), n);
    assert_memory_equal(buf_slice(&out).p, want, n);
    buf_done(&out);
    record_free(&r);
}

static void rfc8448_server_reads_client(void **state)
{
    struct record *r = rfc8448_side(RECORD_SERVER);
    uint8_t wire[256];
    struct buf reply;
    size_t n = unhex(C_DATA C_CLOSE, wire, sizeof(wire)), used;
    slice_t plain;

    (void)state;
    buf_init(&reply, 0);
    assert_int_equal(record_open(r, wire, n, &used, &plain, &reply), RECORD_DATA);
    assert_int_equal(plain.n, 50);
    assert_int_equal(record_open(r, wire + used, n - used, &used, &plain, &reply),
                     RECORD_CLOSED);
    buf_done(&reply);
    record_free(&r);
}

/* ---- making one ---- */

static void refuses_bad_secrets(void **state)
{
    static const struct {
        uint16_t suite;
        size_t n;
        bool is_suite;
    } cases[] = {{0x1300, 32, true},  {0x1304, 32, true},  {0xc02f, 48, true},
                 {0x1301, 48, false}, {0x1301, 31, false}, {0x1301, 0, false},
                 {0x1302, 32, false}, {0x1303, 33, false}};
    uint8_t bytes[64] = {1};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct record *r = NULL;
        struct record_conf conf = {.suite = cases[i].suite,
                                   .client_secret = slice(bytes, cases[i].n),
                                   .server_secret = slice(bytes, cases[i].n)};

        assert_ptr_equal(record_new(&conf, &r),
                         cases[i].is_suite ? ERR_OF(RECORD_SUITE) : ERR_OF(RECORD_SECRET));
        assert_null(r);
    }
}

/* ---- data ---- */

static void every_length_comes_back(void **state)
{
    static const size_t lens[] = {1, 2, 15, 16, 17, 1000, 16383, 16384, 16385, 32768, 50000};
    uint8_t *data = malloc(50000);

    (void)state;
    assert_non_null(data);
    for (size_t i = 0; i < 50000; i++)
        data[i] = (uint8_t)(i * 31);
    for (size_t s = 0; s < SUITES; s++) {
        struct rig g;

        rig_init(&g, suites[s], RECORD_SERVER, 0);
        for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
            struct buf out;
            size_t at = 0;

            buf_init(&out, 0);
            assert_ptr_equal(record_seal(g.r, slice(data, lens[i]), &out), OK);
            assert_true(buf_len(&out) <= record_sealed_len(lens[i]));
            while (buf_len(&out) > 0) {
                size_t n;

                assert_int_equal(peer_open(&g, &out, &n), 23);
                assert_true(n <= RECORD_PLAIN_MAX);
                assert_memory_equal(g.scratch, data + at, n);
                at += n;
            }
            assert_int_equal(at, lens[i]);
            buf_done(&out);
        }
        rig_done(&g);
    }
    free(data);
}

static void split_at_every_byte(void **state)
{
    (void)state;
    for (size_t s = 0; s < SUITES; s++) {
        struct rig g;
        uint8_t bytes[256];
        size_t n, used, records = 0;
        slice_t plain;

        rig_init(&g, suites[s], RECORD_CLIENT, 0);
        put(&g, 23, "first", 5);
        put(&g, 22, "\x18\0\0\1\0", 5);
        assert_ptr_equal(half_update(&g.to_r), OK);
        put(&g, 23, "second", 6);
        n = buf_len(&g.wire);
        memcpy(bytes, buf_slice(&g.wire).p, n);
        for (size_t start = 0, end = 1; end <= n; end++) {
            enum record_got got =
                record_open(g.r, bytes + start, end - start, &used, &plain, &g.reply);

            if (got == RECORD_MORE) {
                assert_int_equal(used, 0);
                continue;
            }
            assert_int_equal(used, end - start); /* exactly at its end, never before */
            if (records == 0)
                assert_true(got == RECORD_DATA && slice_is_str(plain, "first"));
            if (records == 1)
                assert_int_equal(got, RECORD_QUIET);
            if (records == 2)
                assert_true(got == RECORD_DATA && slice_is_str(plain, "second"));
            records++;
            start = end;
        }
        assert_int_equal(records, 3);
        rig_done(&g);
    }
}

static void padding_is_dropped(void **state)
{
    struct rig g;
    uint8_t inner[600] = "hello\x17";
    slice_t plain;

    (void)state;
    rig_init(&g, 0x1301, RECORD_SERVER, 0);
    put_inner(&g, inner, sizeof(inner));
    assert_int_equal(take(&g, &plain), RECORD_DATA);
    assert_true(slice_is_str(plain, "hello"));
    rig_done(&g);
}

static void the_largest_record_is_taken(void **state)
{
    struct rig g;
    uint8_t *inner = calloc(1, RECORD_PLAIN_MAX + 256);
    slice_t plain;

    (void)state;
    assert_non_null(inner);
    memset(inner, 'a', RECORD_PLAIN_MAX);
    inner[RECORD_PLAIN_MAX] = 23;
    rig_init(&g, 0x1303, RECORD_SERVER, 0);
    put_inner(&g, inner, RECORD_PLAIN_MAX + 1);
    assert_int_equal(take(&g, &plain), RECORD_DATA);
    assert_int_equal(plain.n, RECORD_PLAIN_MAX);
    put_inner(&g, inner, RECORD_PLAIN_MAX + 2); /* one byte of padding too much */
    assert_int_equal(take(&g, &plain), RECORD_BROKEN);
    expect_alert(&g, 22);
    rig_done(&g);
    free(inner);
}

/* ---- bad records ---- */

struct crafted {
    const char *name;
    const char *inner; /* content and type; NULL: `raw` decides */
    size_t n;
    enum record_role role;
    enum record_got want;
    uint8_t alert; /* sent or received */
};

#define INNER(text) (text), sizeof(text) - 1
static const struct crafted crafted[] = {
    {"empty inner plaintext", INNER("\0"), RECORD_SERVER, RECORD_BROKEN, 10},
    {"only padding", INNER("\0\0\0\0\0\0\0"), RECORD_SERVER, RECORD_BROKEN, 10},
    {"ccs inside", INNER("\1\x14"), RECORD_SERVER, RECORD_BROKEN, 10},
    {"unknown inner type", INNER("x\x18"), RECORD_SERVER, RECORD_BROKEN, 10},
    {"inner type 255", INNER("x\xff"), RECORD_CLIENT, RECORD_BROKEN, 10},
    {"empty handshake", INNER("\x16"), RECORD_SERVER, RECORD_BROKEN, 10},
    {"client hello", INNER("\1\0\0\2\3\3\x16"), RECORD_SERVER, RECORD_BROKEN, 10},
    {"server hello", INNER("\2\0\0\2\3\3\x16"), RECORD_CLIENT, RECORD_BROKEN, 10},
    {"certificate request", INNER("\xd\0\0\3\0\0\0\x16"), RECORD_CLIENT, RECORD_BROKEN, 10},
    {"hello request", INNER("\0\0\0\0\x16"), RECORD_CLIENT, RECORD_BROKEN, 10},
    {"finished again", INNER("\x14\0\0\1a\x16"), RECORD_SERVER, RECORD_BROKEN, 10},
    {"ticket from a client", INNER("\4\0\0\1a\x16"), RECORD_SERVER, RECORD_BROKEN, 10},
    {"half a ticket from a client", INNER("\4\0\1\1a\x16"), RECORD_SERVER, RECORD_BROKEN, 10},
    {"huge ticket", INNER("\4\0\x40\1a\x16"), RECORD_CLIENT, RECORD_BROKEN, 10},
    {"16 MB message",
     INNER("\4\xff\xff\xff"
           "a\x16"),
     RECORD_CLIENT, RECORD_BROKEN, 10},
    {"key update 2", INNER("\x18\0\0\1\2\x16"), RECORD_SERVER, RECORD_BROKEN, 47},
    {"key update 255", INNER("\x18\0\0\1\xff\x16"), RECORD_CLIENT, RECORD_BROKEN, 47},
    {"key update empty", INNER("\x18\0\0\0\x16"), RECORD_SERVER, RECORD_BROKEN, 50},
    {"key update long", INNER("\x18\0\0\2\0\0\x16"), RECORD_SERVER, RECORD_BROKEN, 50},
    {"key update not last", INNER("\x18\0\0\1\0\4\x16"), RECORD_CLIENT, RECORD_BROKEN, 10},
    {"two key updates in one", INNER("\x18\0\0\1\0\x18\0\0\1\0\x16"), RECORD_SERVER,
     RECORD_BROKEN, 10},
    {"alert of 1 byte", INNER("\2\x15"), RECORD_SERVER, RECORD_BROKEN, 50},
    {"alert of 3 bytes", INNER("\2\0\0\x15"), RECORD_SERVER, RECORD_BROKEN, 50},
    {"empty alert", INNER("\x15"), RECORD_SERVER, RECORD_BROKEN, 50},
    {"fatal alert", INNER("\2\x30\x15"), RECORD_CLIENT, RECORD_ALERT, 48},
    {"warning is fatal", INNER("\1\x2a\x15"), RECORD_SERVER, RECORD_ALERT, 42},
    {"odd level", INNER("\x77\x50\x15"), RECORD_SERVER, RECORD_ALERT, 80},
    {"close_notify", INNER("\1\0\x15"), RECORD_SERVER, RECORD_CLOSED, 255},
    {"fatal close_notify", INNER("\2\0\x15"), RECORD_CLIENT, RECORD_CLOSED, 255},
    {"user_canceled", INNER("\1\x5a\x15"), RECORD_SERVER, RECORD_QUIET, 255},
    {"empty data", INNER("\x17"), RECORD_SERVER, RECORD_QUIET, 255},
    {"ticket", INNER("\4\0\0\3abc\x16"), RECORD_CLIENT, RECORD_QUIET, 255},
    {"two tickets", INNER("\4\0\0\1a\4\0\0\1b\x16"), RECORD_CLIENT, RECORD_QUIET, 255},
    {"half a ticket", INNER("\4\0\0\7abc\x16"), RECORD_CLIENT, RECORD_QUIET, 255},
    {"key update 0", INNER("\x18\0\0\1\0\x16"), RECORD_SERVER, RECORD_QUIET, 255},
};

static void crafted_records(void **state)
{
    (void)state;
    for (size_t s = 0; s < SUITES; s++) {
        for (size_t i = 0; i < sizeof(crafted) / sizeof(crafted[0]); i++) {
            const struct crafted *c = &crafted[i];
            struct rig g;
            enum record_got got;

            rig_init(&g, suites[s], c->role, 0);
            put_inner(&g, (const uint8_t *)c->inner, c->n);
            got = take(&g, NULL);
            if (got != c->want || record_alert(g.r) != c->alert)
                fail_msg("%s, suite %x: got %d alert %d", c->name, suites[s], (int)got,
                         record_alert(g.r));
            if (got == RECORD_BROKEN)
                expect_alert(&g, c->alert);
            assert_int_equal(buf_len(&g.reply), 0);
            /* What is over stays over. */
            if (got == RECORD_BROKEN || got == RECORD_ALERT || got == RECORD_CLOSED) {
                put(&g, 23, "later", 5);
                assert_int_equal(take(&g, NULL), got);
                assert_int_equal(buf_len(&g.reply), 0);
                assert_ptr_equal(record_seal(g.r, SLICE_LIT("x"), &g.reply),
                                 got == RECORD_CLOSED ? OK : ERR_OF(RECORD_ENDED));
            }
            rig_done(&g);
        }
    }
}

static void bad_headers(void **state)
{
    static const struct {
        const char *name;
        uint8_t header[5];
        size_t n; /* bytes given */
        uint8_t alert;
    } cases[] = {
        {"plain alert", {21, 3, 3, 0, 2}, 5, 10},
        {"plain handshake", {22, 3, 3, 0, 4}, 5, 10},
        {"ccs", {20, 3, 3, 0, 1}, 5, 10},
        {"http", {'G', 'E', 'T', ' ', '/'}, 1, 10},
        {"zeros", {0, 0, 0, 0, 0}, 1, 10},
        {"one too long", {23, 3, 3, 0x41, 0x01}, 5, 22},
        {"64 KB", {23, 3, 3, 0xff, 0xff}, 5, 22},
        {"empty", {23, 3, 3, 0, 0}, 5, 20},
        {"no room for a type", {23, 3, 3, 0, 16}, 5, 20},
    };

    (void)state;
    for (size_t s = 0; s < SUITES; s++) {
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            struct rig g;

            rig_init(&g, suites[s], RECORD_SERVER, 0);
            assert_ptr_equal(buf_add(&g.wire, cases[i].header, cases[i].n), OK);
            if (take(&g, NULL) != RECORD_BROKEN)
                fail_msg("%s", cases[i].name);
            assert_int_equal(record_alert(g.r), cases[i].alert);
            expect_alert(&g, cases[i].alert);
            rig_done(&g);
        }
    }
}

static void any_flipped_bit_is_found(void **state)
{
    (void)state;
    for (size_t s = 0; s < SUITES; s++) {
        for (size_t bit = 8; bit < (5 + 6 + 16) * 8; bit++) {
            struct rig g;
            enum record_got got;

            rig_init(&g, suites[s], RECORD_SERVER, 0);
            put(&g, 23, "hello", 5);
            g.wire.mem[bit / 8] ^= (uint8_t)(1 << (bit % 8));
            got = take(&g, NULL);
            /* A flipped length may ask for more bytes or exceed the limit; never is there data.
             */
            if (bit / 8 == 3 || bit / 8 == 4)
                assert_true(got == RECORD_BROKEN || got == RECORD_MORE);
            else
                assert_int_equal(got, RECORD_BROKEN);
            if (got == RECORD_BROKEN && bit / 8 != 3 && bit / 8 != 4)
                expect_alert(&g, 20);
            rig_done(&g);
        }
    }
}

static void replay_and_drop(void **state)
{
    struct rig g;
    uint8_t first[64];
    size_t n;

    (void)state;
    rig_init(&g, 0x1301, RECORD_SERVER, 0);
    put(&g, 23, "one", 3);
    n = buf_len(&g.wire);
    memcpy(first, buf_slice(&g.wire).p, n);
    assert_int_equal(take(&g, NULL), RECORD_DATA);
    assert_ptr_equal(buf_add(&g.wire, first, n), OK); /* again */
    assert_int_equal(take(&g, NULL), RECORD_BROKEN);
    expect_alert(&g, 20);
    rig_done(&g);

    rig_init(&g, 0x1302, RECORD_SERVER, 0);
    put(&g, 23, "one", 3);
    buf_consume(&g.wire, buf_len(&g.wire)); /* lost */
    put(&g, 23, "two", 3);
    assert_int_equal(take(&g, NULL), RECORD_BROKEN);
    rig_done(&g);
}

/* ---- handshake messages in pieces ---- */

static void messages_in_pieces(void **state)
{
    struct rig g;
    slice_t plain;

    (void)state;
    rig_init(&g, 0x1301, RECORD_CLIENT, 0);
    put(&g, 22, "\4", 1);
    put(&g, 22, "\0\0", 2);
    put(&g, 22, "\4ab", 3);
    put(&g, 22, "cd\x18\0\0", 5); /* the ticket ends, a KeyUpdate begins */
    put(&g, 22, "\1\0", 2);
    assert_ptr_equal(half_update(&g.to_r), OK);
    put(&g, 23, "new key", 7);
    for (int i = 0; i < 5; i++)
        assert_int_equal(take(&g, NULL), RECORD_QUIET);
    assert_int_equal(take(&g, &plain), RECORD_DATA);
    assert_true(slice_is_str(plain, "new key"));
    rig_done(&g);

    rig_init(&g, 0x1301, RECORD_CLIENT, 0);
    put(&g, 22, "\4\0\0\4", 4);
    put(&g, 23, "between", 7);
    assert_int_equal(take(&g, NULL), RECORD_QUIET);
    assert_int_equal(take(&g, NULL), RECORD_BROKEN);
    expect_alert(&g, 10);
    rig_done(&g);
}

static void tickets_have_a_limit(void **state)
{
    struct rig g;

    (void)state;
    rig_init(&g, 0x1301, RECORD_CLIENT, 0);
    for (int i = 0; i < 16; i++) {
        put(&g, 22, "\4\0\0\1a", 5);
        put(&g, 23, "x", 1);
        assert_int_equal(take(&g, NULL), RECORD_QUIET);
        assert_int_equal(take(&g, NULL), RECORD_DATA);
    }
    put(&g, 22, "\4\0\0\1a", 5);
    assert_int_equal(take(&g, NULL), RECORD_BROKEN);
    expect_alert(&g, 10);
    rig_done(&g);
}

static void quiet_records_have_a_limit(void **state)
{
    static const struct {
        uint8_t type;
        const char *content;
        size_t n;
    } kinds[] = {{23, "", 0}, {22, "\x18\0\0\1\0", 5}, {21, "\1\x5a", 2}};

    (void)state;
    for (size_t k = 0; k < 3; k++) {
        struct rig g;

        rig_init(&g, 0x1301, RECORD_SERVER, 0);
        for (int round = 0; round < 2; round++) { /* data sets the count back */
            for (int i = 0; i < 32; i++) {
                put(&g, kinds[k].type, kinds[k].content, kinds[k].n);
                if (kinds[k].type == 22)
                    assert_ptr_equal(half_update(&g.to_r), OK);
                assert_int_equal(take(&g, NULL), RECORD_QUIET);
            }
            put(&g, 23, "x", 1);
            assert_int_equal(take(&g, NULL), RECORD_DATA);
        }
        for (int i = 0; i < 33; i++) {
            put(&g, kinds[k].type, kinds[k].content, kinds[k].n);
            if (kinds[k].type == 22)
                assert_ptr_equal(half_update(&g.to_r), OK);
            assert_int_equal(take(&g, NULL), i < 32 ? RECORD_QUIET : RECORD_BROKEN);
        }
        expect_alert(&g, 10);
        rig_done(&g);
    }
}

/* ---- KeyUpdate ---- */

static void expect_key_update(struct rig *g, struct buf *from)
{
    size_t n;

    assert_int_equal(peer_open(g, from, &n), 22);
    assert_int_equal(n, 5);
    assert_memory_equal(g->scratch, "\x18\0\0\1\0", 5);
    assert_ptr_equal(half_update(&g->from_r), OK);
}

static void put_key_update(struct rig *g, bool is_asking)
{
    put(g, 22, is_asking ? "\x18\0\0\1\1" : "\x18\0\0\1\0", 5);
    assert_ptr_equal(half_update(&g->to_r), OK);
}

static void a_request_is_answered_before_data(void **state)
{
    (void)state;
    for (size_t s = 0; s < SUITES; s++) {
        struct rig g;
        size_t n;

        rig_init(&g, suites[s], RECORD_SERVER, 0);
        assert_ptr_equal(record_seal(g.r, SLICE_LIT("old key"), &g.reply), OK);
        put_key_update(&g, true);
        assert_int_equal(take(&g, NULL), RECORD_QUIET);
        assert_ptr_equal(record_seal(g.r, SLICE_LIT("new key"), &g.reply), OK);
        assert_int_equal(peer_open(&g, &g.reply, &n), 23);
        expect_key_update(&g, &g.reply);
        assert_int_equal(peer_open(&g, &g.reply, &n), 23);
        assert_memory_equal(g.scratch, "new key", 7);
        assert_int_equal(record_count(g.r)->key_updates_sent, 1);
        assert_int_equal(record_count(g.r)->key_updates_received, 1);
        rig_done(&g);
    }
}

static void requests_while_silent_are_collected(void **state)
{
    struct rig g;
    size_t n;

    (void)state;
    rig_init(&g, 0x1301, RECORD_SERVER, 0);
    for (int i = 0; i < 20; i++) {
        put_key_update(&g, true);
        assert_int_equal(take(&g, NULL), RECORD_QUIET);
    }
    expect_key_update(&g, &g.reply); /* the first at once */
    assert_int_equal(buf_len(&g.reply), 0);
    assert_ptr_equal(record_seal(g.r, SLICE_LIT("data"), &g.reply), OK);
    expect_key_update(&g, &g.reply); /* one for the other nineteen */
    assert_int_equal(peer_open(&g, &g.reply, &n), 23);
    assert_int_equal(buf_len(&g.reply), 0);
    assert_int_equal(record_count(g.r)->key_updates_sent, 2);
    rig_done(&g);
}

static void keys_must_change_with_the_update(void **state)
{
    struct rig g;

    (void)state;
    rig_init(&g, 0x1301, RECORD_SERVER, 0);
    put(&g, 22, "\x18\0\0\1\0", 5);
    put(&g, 23, "old key", 7);
    assert_int_equal(take(&g, NULL), RECORD_QUIET);
    assert_int_equal(take(&g, NULL), RECORD_BROKEN);
    expect_alert(&g, 20);
    rig_done(&g);

    rig_init(&g, 0x1301, RECORD_SERVER, 0);
    assert_ptr_equal(half_update(&g.to_r), OK);
    put(&g, 23, "too early", 9);
    assert_int_equal(take(&g, NULL), RECORD_BROKEN);
    rig_done(&g);
}

static void our_own_rekey(void **state)
{
    (void)state;
    for (size_t s = 0; s < SUITES; s++) {
        struct rig g;
        size_t n;

        rig_init(&g, suites[s], RECORD_CLIENT, 5);
        for (int i = 0; i < 23; i++)
            assert_ptr_equal(record_seal(g.r, SLICE_LIT("data"), &g.reply), OK);
        for (int i = 0; i < 23; i++) {
            if (i > 0 && i % 5 == 0)
                expect_key_update(&g, &g.reply);
            assert_int_equal(peer_open(&g, &g.reply, &n), 23);
        }
        assert_int_equal(buf_len(&g.reply), 0);
        assert_int_equal(record_count(g.r)->key_updates_sent, 4);
        rig_done(&g);
    }
}

static void a_rekey_inside_one_seal(void **state)
{
    struct rig g;
    uint8_t *data = calloc(1, 100000);
    size_t n, sum = 0;

    (void)state;
    assert_non_null(data);
    rig_init(&g, 0x1301, RECORD_CLIENT, 1);
    assert_ptr_equal(record_seal(g.r, slice(data, 100000), &g.reply), OK);
    assert_true(buf_len(&g.reply) <= record_sealed_len(100000));
    while (buf_len(&g.reply) > 0) {
        if (sum > 0)
            expect_key_update(&g, &g.reply);
        assert_int_equal(peer_open(&g, &g.reply, &n), 23);
        sum += n;
    }
    assert_int_equal(sum, 100000);
    rig_done(&g);
    free(data);
}

/* ---- ends, room ---- */

static void close_goes_out_once(void **state)
{
    struct rig g;
    slice_t plain;

    (void)state;
    rig_init(&g, 0x1301, RECORD_SERVER, 0);
    assert_ptr_equal(record_seal_close(g.r, &g.reply), OK);
    assert_ptr_equal(record_seal_close(g.r, &g.reply), OK);
    expect_alert(&g, 0);
    assert_ptr_equal(record_seal(g.r, SLICE_LIT("x"), &g.reply), ERR_OF(RECORD_ENDED));
    /* Our write side is over; reading goes on, and a request for new keys is not answered any
     * more. */
    put_key_update(&g, true);
    put(&g, 23, "still", 5);
    assert_int_equal(take(&g, NULL), RECORD_QUIET);
    assert_int_equal(take(&g, &plain), RECORD_DATA);
    put(&g, 21, "\1\0", 2);
    put(&g, 23, "ignored", 7);
    assert_int_equal(take(&g, NULL), RECORD_CLOSED);
    assert_int_equal(take(&g, NULL), RECORD_CLOSED);
    assert_int_equal(buf_len(&g.reply), 0);
    rig_done(&g);
}

static void a_full_buffer_loses_no_number(void **state)
{
    struct rig g;
    struct buf small;
    size_t n;
    uint8_t data[400] = {0};

    (void)state;
    rig_init(&g, 0x1301, RECORD_SERVER, 0);
    buf_init(&small, 300);
    assert_ptr_equal(record_seal(g.r, slice(data, 400), &small), ERR_OF(TOO_BIG));
    assert_int_equal(buf_len(&small), 0);
    assert_ptr_equal(record_seal(g.r, slice(data, 100), &small), OK);
    assert_int_equal(peer_open(&g, &small, &n), 23); /* still number 0 */
    buf_done(&small);
    rig_done(&g);
}

static void no_room_for_the_alert(void **state)
{
    struct rig g;
    struct buf none;
    uint8_t garbage[5] = {21, 3, 3, 0, 2};
    size_t used;
    slice_t plain;

    (void)state;
    rig_init(&g, 0x1301, RECORD_SERVER, 0);
    buf_init(&none, 1);
    assert_int_equal(record_open(g.r, garbage, 5, &used, &plain, &none), RECORD_BROKEN);
    assert_int_equal(buf_len(&none), 0);
    buf_done(&none);
    rig_done(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc8448_keys),
        cmocka_unit_test(rfc8448_client_reads_server),
        cmocka_unit_test(rfc8448_client_writes),
        cmocka_unit_test(rfc8448_server_reads_client),
        cmocka_unit_test(refuses_bad_secrets),
        cmocka_unit_test(every_length_comes_back),
        cmocka_unit_test(split_at_every_byte),
        cmocka_unit_test(padding_is_dropped),
        cmocka_unit_test(the_largest_record_is_taken),
        cmocka_unit_test(crafted_records),
        cmocka_unit_test(bad_headers),
        cmocka_unit_test(any_flipped_bit_is_found),
        cmocka_unit_test(replay_and_drop),
        cmocka_unit_test(messages_in_pieces),
        cmocka_unit_test(tickets_have_a_limit),
        cmocka_unit_test(quiet_records_have_a_limit),
        cmocka_unit_test(a_request_is_answered_before_data),
        cmocka_unit_test(requests_while_silent_are_collected),
        cmocka_unit_test(keys_must_change_with_the_update),
        cmocka_unit_test(our_own_rekey),
        cmocka_unit_test(a_rekey_inside_one_seal),
        cmocka_unit_test(close_goes_out_once),
        cmocka_unit_test(a_full_buffer_loses_no_number),
        cmocka_unit_test(no_room_for_the_alert),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
