/* Handshakes in memory, both roles against each other: results, every split of the client's
 * last flight, refusals; credentials and identities. */
#include "tls/session.h"
#include "tls/tls_err.h"
#include "tls/verified.h"

#include "kit/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "pki.h"

#define WEB    "web.default.serviceaccount.identity.weft.cluster.local"
#define CLIENT "client.default.serviceaccount.identity.weft.cluster.local"

struct rig {
    struct pki ca;
    X509_STORE *anchors;
    struct tls_context *web, *client;
};

static struct tls_context *context_of(struct rig *r, const char *identity)
{
    struct credential *cred;
    struct tls_context *ctx;
    char san[300];

    (void)snprintf(san, sizeof(san), "DNS:%s", identity);
    assert_ptr_equal(pki_credential(&r->ca, san, identity, -100, 1000, &cred), OK);
    assert_ptr_equal(tls_context_make(cred, r->anchors, identity, &ctx), OK);
    credential_free(&cred);
    return ctx;
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    pki_init(&r->ca);
    r->anchors = pki_anchors(&r->ca);
    r->web = context_of(r, WEB);
    r->client = context_of(r, CLIENT);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;

    tls_context_free(&r->web);
    tls_context_free(&r->client);
    X509_STORE_free(r->anchors);
    pki_done(&r->ca);
    free(r);
    return 0;
}

struct pair {
    struct session *server, *client;
    struct buf to_server, to_client;
};

static void pair_init(struct pair *p, struct tls_context *server, struct tls_context *client,
                      const char *name, bool alpn)
{
    struct session_conf s = {.is_client = false};
    struct session_conf c = {.is_client = true, .server_name = name, .transport_alpn = alpn};

    assert_ptr_equal(session_new(server, &s, &p->server), OK);
    assert_ptr_equal(session_new(client, &c, &p->client), OK);
    buf_init(&p->to_server, 0);
    buf_init(&p->to_client, 0);
}

static void pair_done(struct pair *p)
{
    session_free(&p->server);
    session_free(&p->client);
    buf_done(&p->to_server);
    buf_done(&p->to_client);
}

/* Up to the client's last flight, which is in to_server then. */
static void run_until_finished(struct pair *p)
{
    assert_int_equal(session_step(p->client, slice(NULL, 0), &p->to_server), STEP_LATER);
    assert_int_equal(session_step(p->server, buf_slice(&p->to_server), &p->to_client),
                     STEP_LATER);
    buf_consume(&p->to_server, buf_len(&p->to_server));
    assert_int_equal(session_step(p->client, buf_slice(&p->to_client), &p->to_server),
                     STEP_DONE);
}

static void results_agree(void **state)
{
    struct rig *r = *state;

    for (int alpn = 0; alpn < 2; alpn++) {
        struct pair p;
        struct session_result s, c;
        struct buf left;

        pair_init(&p, r->web, r->client, WEB, alpn == 1);
        run_until_finished(&p);
        buf_consume(&p.to_client, buf_len(&p.to_client));
        assert_int_equal(session_step(p.server, buf_slice(&p.to_server), &p.to_client),
                         STEP_DONE);
        assert_int_equal(buf_len(&p.to_client), 0); /* I1: no ticket, so both sequences are 0 */
        buf_init(&left, 0);
        assert_ptr_equal(session_take_result(p.server, &s, &left), OK);
        assert_ptr_equal(session_take_result(p.client, &c, &left), OK);
        assert_int_equal(buf_len(&left), 0);
        assert_int_equal(s.suite, 0x1301);
        assert_int_equal(c.suite, 0x1301);
        assert_int_equal(s.client_secret.n, 32);
        assert_true(slice_is(s.client_secret, c.client_secret));
        assert_true(slice_is(s.server_secret, c.server_secret));
        assert_false(slice_is(s.server_secret, s.client_secret));
        assert_true(slice_is_str(s.peer, CLIENT) && slice_is_str(c.peer, WEB));
        assert_true(slice_is_str(s.server_name, WEB) && slice_is_str(c.server_name, WEB));
        assert_true(slice_is_str(s.alpn, alpn ? "transport.l5d.io/v1" : ""));
        assert_true(slice_is(s.alpn, c.alpn));
        assert_true(s.peer_not_after_ms > (int64_t)time(NULL) * 1000 + 900000);
        buf_done(&left);
        pair_done(&p);
    }
}

/* I5: data of the client lies right behind its Finished; the flight is cut at every offset. */
static void leftover_at_every_split(void **state)
{
    static const char data[] = "\x17\x03\x03\x00\x1a: 26 bytes, not decrypted here";
    struct rig *r = *state;
    size_t cut = 0, n = 1;

    for (; cut <= n; cut += cut + 70 < n ? 13 : 1) {
        struct pair p;
        struct session_result s;
        struct buf left;
        slice_t all;
        enum step step;

        pair_init(&p, r->web, r->client, WEB, true);
        run_until_finished(&p);
        assert_ptr_equal(buf_add(&p.to_server, data, sizeof(data)), OK);
        all = buf_slice(&p.to_server);
        n = all.n;
        buf_consume(&p.to_client, buf_len(&p.to_client));
        step = session_step(p.server, slice(all.p, cut < n ? cut : n), &p.to_client);
        buf_init(&left, 0);
        if (step == STEP_LATER) {
            assert_int_equal(session_step(p.server, slice_skip(all, cut), &p.to_client),
                             STEP_DONE);
            cut = n > cut ? cut : n;
            assert_ptr_equal(session_take_result(p.server, &s, &left), OK);
        } else {
            assert_int_equal(step, STEP_DONE);
            assert_ptr_equal(session_take_result(p.server, &s, &left), OK);
            assert_ptr_equal(buf_add_slice(&left, slice_skip(all, cut)),
                             OK); /* as the proxy does */
        }
        assert_true(slice_is(buf_slice(&left), slice(data, sizeof(data))));
        buf_done(&left);
        pair_done(&p);
    }
}

static void one_byte_at_a_time(void **state)
{
    struct rig *r = *state;
    struct pair p;
    struct session_result s;
    struct buf hello;
    slice_t bytes;

    pair_init(&p, r->web, r->client, WEB, true);
    buf_init(&hello, 0);
    assert_int_equal(session_step(p.client, slice(NULL, 0), &hello), STEP_LATER);
    bytes = buf_slice(&hello);
    for (size_t i = 0; i < bytes.n; i++)
        assert_int_equal(session_step(p.server, slice(bytes.p + i, 1), &p.to_client),
                         STEP_LATER);
    assert_int_equal(session_step(p.client, buf_slice(&p.to_client), &p.to_server), STEP_DONE);
    bytes = buf_slice(&p.to_server);
    for (size_t i = 0; i < bytes.n; i++)
        assert_int_equal(session_step(p.server, slice(bytes.p + i, 1), &p.to_client),
                         i + 1 < bytes.n ? STEP_LATER : STEP_DONE);
    buf_done(&hello);
    buf_init(&hello, 0);
    assert_ptr_equal(session_take_result(p.server, &s, &hello), OK);
    pair_done(&p);
}

/* Handshakes by one client: how often its certificate was known. */
static void shake(struct tls_context *server, struct tls_context *client)
{
    struct pair p;

    pair_init(&p, server, client, WEB, true);
    run_until_finished(&p);
    assert_int_equal(session_step(p.server, buf_slice(&p.to_server), &p.to_client), STEP_DONE);
    pair_done(&p);
}

static void verified_once(void **state)
{
    struct rig *r = *state;
    struct tls_context *other = context_of(r, CLIENT);
    uint64_t now = (uint64_t)time(NULL) * 1000;

    clock_test_freeze(1000, now);
    for (int i = 0; i < 3; i++)
        shake(r->web, r->client);
    assert_int_equal(tls_context_hits(r->web), 2);
    assert_int_equal(tls_context_hits(r->client), 2);
    shake(r->web, other); /* the same identity, another certificate */
    assert_int_equal(tls_context_hits(r->web), 2);
    clock_test_advance(VERIFIED_MS - 1);
    shake(r->web, r->client);
    assert_int_equal(tls_context_hits(r->web), 3);
    clock_test_advance(2);
    shake(r->web, r->client);
    assert_int_equal(tls_context_hits(r->web), 3); /* too long ago: again in full */
    clock_test_freeze(1000, now - 3600000);
    shake(r->web, r->client);
    assert_int_equal(tls_context_hits(r->web),
                     3); /* before it was made: the clock was set back */
    tls_context_free(&other);
    clock_test_thaw();
}

/* Behind the end of the certificate nothing is found, however fresh the entry. */
static void verified_ends_with_the_certificate(void **state)
{
    struct rig *r = *state;
    struct verified *v = verified_new();
    struct verified_peer peer = {.identity = "x"}, got;
    STACK_OF(X509) *chain = sk_X509_new_null();
    X509 *leaf = pki_issue(&r->ca, r->ca.key, "DNS:" WEB, -10, 20);
    int64_t now = (int64_t)time(NULL) * 1000;

    assert_non_null(v);
    assert_true(sk_X509_push(chain, leaf) > 0 && sk_X509_push(chain, r->ca.cert) > 0);
    verified_add(v, leaf, chain, now, &peer);
    assert_true(verified_find(v, leaf, now, &got));
    assert_true(verified_find(v, leaf, now + 18000, &got));
    assert_false(verified_find(v, leaf, now + 21000, &got));
    assert_false(verified_find(v, r->ca.cert, now, &got));
    assert_false(verified_find(NULL, leaf, now, &got));
    verified_add(NULL, leaf, chain, now, &peer);
    verified_add(v, leaf, chain, now + 30000, &peer); /* over already */
    assert_false(verified_find(v, leaf, now + 30000, &got));
    for (int i = 0; i < VERIFIED_MAX; i++) { /* the oldest gives way */
        X509 *one = pki_issue(&r->ca, r->ca.key, "DNS:" WEB, -10, 2000);

        assert_true(verified_find(v, leaf, now, &got));
        (void)sk_X509_set(chain, 0, one);
        verified_add(v, one, chain, now, &peer);
        X509_free(one);
    }
    assert_false(verified_find(v, leaf, now, &got));
    sk_X509_free(chain);
    X509_free(leaf);
    verified_free(&v);
}

/* A running session outlives the context it was made from. */
static void context_goes_before_its_session(void **state)
{
    struct rig *r = *state;
    struct tls_context *web = context_of(r, WEB), *client = context_of(r, CLIENT);
    struct pair p;

    pair_init(&p, web, client, WEB, true);
    assert_int_equal(session_step(p.client, slice(NULL, 0), &p.to_server), STEP_LATER);
    tls_context_free(&web);
    tls_context_free(&client);
    assert_int_equal(session_step(p.server, buf_slice(&p.to_server), &p.to_client), STEP_LATER);
    buf_consume(&p.to_server, buf_len(&p.to_server));
    assert_int_equal(session_step(p.client, buf_slice(&p.to_client), &p.to_server), STEP_DONE);
    assert_int_equal(session_step(p.server, buf_slice(&p.to_server), &p.to_client), STEP_DONE);
    pair_done(&p);
}

static void wrong_names(void **state)
{
    struct rig *r = *state;
    struct pair p;

    pair_init(&p, r->web, r->client, CLIENT, true); /* SNI is not the server's own */
    assert_int_equal(session_step(p.client, slice(NULL, 0), &p.to_server), STEP_LATER);
    assert_int_equal(session_step(p.server, buf_slice(&p.to_server), &p.to_client),
                     STEP_FAILED);
    assert_string_equal(session_code(p.server), "WRONG_IDENTITY");
    assert_true(
        slice_ends(buf_slice(&p.to_client), SLICE_LIT("\x02\x70"))); /* unrecognized_name */
    assert_int_equal(session_step(p.client, buf_slice(&p.to_client), &p.to_server),
                     STEP_FAILED);
    assert_string_equal(session_code(p.client), "ALERT");
    pair_done(&p);
}

static void garbage(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *code; /* NULL: it waits for more */
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", 18, "NOT_TLS13"},
        {"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 10, "MALFORMED"},
        {"\x16\x03\x01\xff\xff"
         "aaaaaaaaaa",
         15, "MALFORMED"},
        {"\x17\x03\x03\x00\x01"
         "a",
         6, "MALFORMED"},
        {"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", 11, NULL},
        {"\x16\x03\x01\x00\x04\x01\xff\xff\xff", 9, "MALFORMED"},
        {"\x15\x03\x01\x00\x02\x02\x28", 7, "MALFORMED"},
    };
    struct rig *r = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct session_conf conf = {.is_client = false};
        struct session *s;
        struct buf out;
        enum step step;

        assert_ptr_equal(session_new(r->web, &conf, &s), OK);
        buf_init(&out, 0);
        step = session_step(s, slice(cases[i].bytes, cases[i].n), &out);
        assert_int_equal(step, cases[i].code == NULL ? STEP_LATER : STEP_FAILED);
        if (cases[i].code != NULL)
            assert_string_equal(session_code(s), cases[i].code);
        buf_done(&out);
        session_free(&s);
    }
}

/* A record header that promises more and more: the bytes of a handshake are capped. */
static void endless_hello_is_cut_off(void **state)
{
    struct rig *r = *state;
    struct session_conf conf = {.is_client = false};
    uint8_t record[5 + 16000] = {22, 3, 1, 16000 >> 8, 16000 & 255};
    struct session *s;
    struct buf out;
    enum step step = STEP_LATER;
    unsigned sent = 0;

    record[5] = 1; /* ClientHello of 128 KB */
    record[6] = 2;
    assert_ptr_equal(session_new(r->web, &conf, &s), OK);
    buf_init(&out, 0);
    while (step == STEP_LATER && sent < 20) {
        step = session_step(s, slice(record, sizeof(record)), &out);
        sent++;
    }
    assert_int_equal(step, STEP_FAILED);
    assert_true(sent <= 5);
    buf_done(&out);
    session_free(&s);
}

static void credentials(void **state)
{
    static const struct {
        const char *name, *sans;
        long from, to;
        const char *want; /* NULL: OK */
    } cases[] = {
        {"good", "DNS:" WEB, -10, 100, NULL},
        {"no san", "", -10, 100, "OTHER_IDENTITY"},
        {"another", "DNS:" CLIENT, -10, 100, "OTHER_IDENTITY"},
        {"two", "DNS:" WEB ",DNS:" CLIENT, -10, 100, "OTHER_IDENTITY"},
        {"twice the same", "DNS:" WEB ",DNS:" WEB, -10, 100, "OTHER_IDENTITY"},
        {"dns and uri", "DNS:" WEB ",URI:spiffe://a/b", -10, 100, "OTHER_IDENTITY"},
        {"uri", "URI:spiffe://a/b", -10, 100, "OTHER_IDENTITY"},
        {"ip", "IP:127.0.0.1", -10, 100, "OTHER_IDENTITY"},
        {"wildcard", "DNS:*.default.serviceaccount.identity.weft.cluster.local", -10, 100,
         "OTHER_IDENTITY"},
        {"trailing dot", "DNS:" WEB ".", -10, 100, "OTHER_IDENTITY"},
        {"expired", "DNS:" WEB, -100, -10, "NOT_IN_FORCE"},
        {"not yet", "DNS:" WEB, 1000, 2000, "NOT_IN_FORCE"},
    };
    struct rig *r = *state;
    struct pki other;
    struct credential *c = NULL;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        err_t err = pki_credential(&r->ca, cases[i].sans, WEB, cases[i].from, cases[i].to, &c);

        if ((err == OK) != (cases[i].want == NULL) ||
            (err != OK && strcmp(err->name, cases[i].want) != 0))
            fail_msg("%s: %s", cases[i].name, err == OK ? "OK" : err->name);
        credential_free(&c);
    }
    pki_init(&other);
    assert_ptr_equal(pki_credential(&r->ca, "DNS:" WEB, WEB, -10, 100, &c), OK);
    assert_true(c->not_after_ms - c->not_before_ms == 110000);
    X509_STORE *foreign = pki_anchors(&other);
    assert_ptr_equal(credential_check(c, foreign, -1), ERR_OF(NOT_ANCHORED));
    X509_STORE_free(foreign);
    credential_free(&c);
    pki_done(&other);
}

static void anchors_and_keys(void **state)
{
    static const char *const bad[] = {
        "", "nothing", "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"};
    struct rig *r = *state;
    X509_STORE *store = NULL;
    EVP_PKEY *key = NULL, *again = NULL;
    uint8_t der[CREDENTIAL_KEY_MAX];
    size_t len;
    unsigned n;
    struct buf many;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_ptr_equal(anchors_load(slice_str(bad[i]), &store, &n), ERR_OF(BAD_ANCHORS));
    buf_init(&many, 0);
    for (int i = 0; i <= CREDENTIAL_ANCHORS; i++)
        pki_pem(r->ca.cert, &many);
    assert_ptr_equal(anchors_load(buf_slice(&many), &store, &n), ERR_OF(BAD_ANCHORS));
    /* A whole one and half a one: refused whole. */
    buf_consume(&many, buf_len(&many));
    pki_pem(r->ca.cert, &many);
    len = buf_len(&many);
    pki_pem(r->ca.cert, &many);
    assert_ptr_equal(anchors_load(slice(buf_slice(&many).p, len + len / 2), &store, &n),
                     ERR_OF(BAD_ANCHORS));
    buf_done(&many);
    assert_null(store);

    assert_ptr_equal(credential_make_key(&key), OK);
    assert_ptr_equal(credential_print_key(key, der, &len), OK);
    assert_ptr_equal(credential_parse_key(slice(der, len), &again), OK);
    assert_int_equal(EVP_PKEY_eq(key, again), 1);
    EVP_PKEY_free(again);
    for (size_t cut = 0; cut < len; cut++)
        assert_ptr_equal(credential_parse_key(slice(der, cut), &again), ERR_OF(KEY_FAILED));
    EVP_PKEY_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(results_agree, set_up, tear_down),
        cmocka_unit_test_setup_teardown(leftover_at_every_split, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_byte_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(verified_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(verified_ends_with_the_certificate, set_up, tear_down),
        cmocka_unit_test_setup_teardown(context_goes_before_its_session, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(garbage, set_up, tear_down),
        cmocka_unit_test_setup_teardown(endless_hello_is_cut_off, set_up, tear_down),
        cmocka_unit_test_setup_teardown(credentials, set_up, tear_down),
        cmocka_unit_test_setup_teardown(anchors_and_keys, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
