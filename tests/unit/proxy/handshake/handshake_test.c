/* The proxy's side of handshakes against a weft-tls played by the test: order of messages, one
 * in flight, limits, every way to end. The record layer behind it is checked by sealing with
 * the secrets the test hands over. */
#include "proxy/handshake/handshake.h"
#include "proxy/net/conn.h"
#include "proxy/record/half.h"

#include "kit/log.h"
#include "kit/mailbox.h"
#include "wire/dispatch.h"

#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define HEARD_MAX 64

struct heard { /* a message that "weft-tls" got */
    enum wire_code code;
    uint64_t id;
    uint8_t role;
    char bytes[20000];
    size_t n;
};

struct rig {
    struct event_base *base;
    struct net *net;
    struct mailbox *tls;
    struct handshakes *all;
    char endpoint[100];
    uint8_t peer[64]; /* routing id of the proxy */
    size_t peer_len;
    struct heard heard[HEARD_MAX];
    unsigned n_heard;
};

struct outcome {
    struct rig *rig;
    unsigned calls;
    bool is_ok, had_conn;
    char code[32], peer[64];
    struct conn *conn;
    char got[256];
    size_t n_got;
    unsigned closed;
};

static void on_tls_msg(void *arg, const struct mailbox_msg *m)
{
    struct rig *r = arg;
    struct wire_msg msg;
    struct heard *h = &r->heard[r->n_heard++ % HEARD_MAX];
    slice_t bytes = {NULL, 0};

    assert_ptr_equal(wire_decode(m->body, WIRE_ROLE_PROXY, WIRE_ROLE_TLS, &msg), OK);
    assert_true(m->from.n <= sizeof(r->peer));
    memcpy(r->peer, m->from.p, m->from.n);
    r->peer_len = m->from.n;
    h->code = msg.code;
    if (msg.code == WIRE_handshake_open) {
        h->id = msg.body.handshake_open.id;
        h->role = msg.body.handshake_open.role;
        bytes = msg.body.handshake_open.bytes;
    } else if (msg.code == WIRE_handshake_bytes) {
        h->id = msg.body.handshake_bytes.id;
        bytes = msg.body.handshake_bytes.bytes;
    } else {
        h->id = msg.body.handshake_close.id;
    }
    assert_true(bytes.n <= sizeof(h->bytes));
    if (bytes.n > 0)
        memcpy(h->bytes, bytes.p, bytes.n);
    h->n = bytes.n;
    wire_msg_done(&msg);
}

static void open_tls(struct rig *r)
{
    struct mailbox_conf conf = {.kind = MAILBOX_ROUTER,
                                .name = "tls",
                                .endpoint = r->endpoint,
                                .bind = true,
                                .allow = mailbox_allow_same_uid,
                                .on_msg = on_tls_msg,
                                .arg = r};

    assert_ptr_equal(mailbox_open(r->base, &conf, &r->tls), OK);
}

static void rig_init(struct rig *r, unsigned max, uint64_t timeout_ms)
{
    struct handshakes_conf conf = {
        .endpoint = r->endpoint, .max = max, .timeout_ms = timeout_ms};

    memset(r, 0, sizeof(*r));
    r->base = event_base_new();
    assert_non_null(r->base);
    assert_ptr_equal(mailbox_prepare(r->base), OK);
    (void)snprintf(r->endpoint, sizeof(r->endpoint), "ipc:///tmp/wt-hs-%d.sock", (int)getpid());
    assert_ptr_equal(net_new(&(struct net_conf){.base = r->base}, &r->net), OK);
    conf.base = r->base;
    open_tls(r);
    assert_ptr_equal(handshakes_new(&conf, &r->all), OK);
}

static void rig_done(struct rig *r)
{
    handshakes_free(&r->all);
    net_free(&r->net);
    mailbox_close(&r->tls);
    mailbox_shutdown();
    event_base_free(r->base);
}

/* Turns of the loop until the claim holds; a bounded number of short waits, no sleep for its
 * own sake. */
#define UNTIL(r, claim)                                                                        \
    do {                                                                                       \
        for (int turn_ = 0; !(claim) && turn_ < 2000; turn_++) {                               \
            (void)event_base_loop((r)->base, EVLOOP_NONBLOCK);                                 \
            if (!(claim))                                                                      \
                usleep(1000);                                                                  \
        }                                                                                      \
        assert_true(claim);                                                                    \
    } while (0)

static size_t on_plain(struct conn *c, slice_t bytes)
{
    struct outcome *o = conn_owner(c);

    assert_true(o->n_got + bytes.n < sizeof(o->got));
    memcpy(o->got + o->n_got, bytes.p, bytes.n);
    o->n_got += bytes.n;
    return bytes.n;
}

static void on_end(struct conn *c, enum close_reason why)
{
    struct outcome *o = conn_owner(c);

    (void)why;
    o->closed++;
    o->conn = NULL;
}

static const struct conn_events owner = {.on_bytes = on_plain, .on_closed = on_end};

static void on_done(void *arg, struct conn *c, const struct handshake_result *result)
{
    struct outcome *o = arg;

    o->calls++;
    o->is_ok = result->is_ok;
    o->had_conn = c != NULL;
    (void)snprintf(o->code, sizeof(o->code), "%s", result->code != NULL ? result->code : "");
    (void)snprintf(o->peer, sizeof(o->peer), "%.*s", SLICE_FMT(result->peer));
    if (result->is_ok) {
        o->conn = c;
        conn_own(c, &owner, o);
    } else if (c != NULL) {
        conn_close_gently(c, CLOSE_HANDSHAKE_FAILED);
    }
}

/* A conn and the other end of its socket. */
static struct conn *make_conn(struct rig *r, int *peer)
{
    int fds[2];
    struct conn *c;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
                     0);
    assert_ptr_equal(conn_accepted(r->net, fds[0], &c), OK);
    *peer = fds[1];
    return c;
}

static size_t read_peer(struct rig *r, int fd, char *out, size_t want)
{
    size_t n = 0;

    for (int i = 0; i < 2000 && n < want; i++) {
        ssize_t got;

        (void)event_base_loop(r->base, EVLOOP_NONBLOCK);
        got = read(fd, out + n, want - n);
        if (got > 0)
            n += (size_t)got;
        else
            usleep(500);
    }
    return n;
}

static void put(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static const struct heard *last(const struct rig *r)
{
    return &r->heard[(r->n_heard - 1) % HEARD_MAX];
}

static void answer_bytes(struct rig *r, uint64_t id, const char *text)
{
    struct wire_handshake_bytes m = {.id = id, .bytes = slice_str(text)};

    assert_ptr_equal(WIRE_SEND(r->tls, slice(r->peer, r->peer_len), handshake_bytes, &m), OK);
}

static void answer_failed(struct rig *r, uint64_t id, const char *code, const char *out)
{
    struct wire_handshake_failed m = {
        .id = id, .code = slice_str(code), .why = SLICE_LIT("because"), .out = slice_str(out)};

    assert_ptr_equal(WIRE_SEND(r->tls, slice(r->peer, r->peer_len), handshake_failed, &m), OK);
}

static const uint8_t secret_c[32] = {1}, secret_s[32] = {2};

static void answer_done(struct rig *r, uint64_t id, const char *out, slice_t leftover,
                        size_t secret_len)
{
    struct wire_handshake_done m = {.id = id,
                                    .suite = 0x1301,
                                    .client_secret = slice(secret_c, secret_len),
                                    .server_secret = slice(secret_s, secret_len),
                                    .peer = SLICE_LIT("client.id"),
                                    .out = slice_str(out),
                                    .leftover = leftover};

    assert_ptr_equal(WIRE_SEND(r->tls, slice(r->peer, r->peer_len), handshake_done, &m), OK);
}

/* Application data as the client would seal it, number `seq` and on. */
static size_t seal_as_client(struct half *h, const char *text, uint8_t *out)
{
    size_t n = strlen(text);

    memcpy(out + 5, text, n);
    out[5 + n] = 23;
    assert_ptr_equal(half_seal(h, out, n + 1), OK);
    return 5 + n + 1 + 16;
}

/* Leftover, bytes that lie in the socket meanwhile, and an end, arrive at the owner in order.
 */
static void a_whole_server_handshake(void **state)
{
    struct rig r;
    struct outcome o = {.rig = &r};
    struct handshake *hs;
    struct half client;
    uint8_t wire[400];
    char seen[64];
    size_t n1, n2;
    int peer;

    (void)state;
    rig_init(&r, 4, 5000);
    struct conn *c = make_conn(&r, &peer);

    assert_ptr_equal(handshake_accept(r.all, c, SLICE_LIT("HELLO"), on_done, &o, &hs), OK);
    put(peer, "+REST");
    UNTIL(&r, r.n_heard == 1);
    assert_int_equal(last(&r)->code, WIRE_handshake_open);
    assert_int_equal(last(&r)->role, 0);
    assert_memory_equal(last(&r)->bytes, "HELLO", 5);
    assert_int_equal(last(&r)->n, 5);
    answer_bytes(&r, last(&r)->id, ""); /* more, please */
    UNTIL(&r, r.n_heard == 2);
    assert_memory_equal(last(&r)->bytes, "+REST", 5);
    put(peer, "NOT YET"); /* one message in flight: this waits */
    answer_bytes(&r, last(&r)->id, "FLIGHT");
    assert_int_equal(read_peer(&r, peer, seen, 6), 6);
    assert_memory_equal(seen, "FLIGHT", 6);
    UNTIL(&r, r.n_heard == 3);
    assert_memory_equal(last(&r)->bytes, "NOT YET", 7);
    assert_ptr_equal(half_init(&client, 0x1301, slice(secret_c, 32), true), OK);
    n1 = seal_as_client(&client, "one ", wire);
    n2 = seal_as_client(&client, "two", wire + n1);
    /* The first record and a half were behind the handshake; the rest lies in the socket, and
     * the end. */
    assert_int_equal(write(peer, wire + n1 + 9, n2 - 9), (ssize_t)(n2 - 9));
    assert_int_equal(shutdown(peer, SHUT_WR), 0);
    answer_done(&r, last(&r)->id, "", slice(wire, n1 + 9), 32);
    UNTIL(&r, o.calls == 1);
    assert_true(o.is_ok && o.had_conn);
    assert_string_equal(o.peer, "client.id");
    UNTIL(&r, o.closed == 1); /* the owner has no on_eof: truncated */
    assert_int_equal(o.n_got, 7);
    assert_memory_equal(o.got, "one two", 7);
    half_done(&client);
    close(peer);
    rig_done(&r);
}

static void a_client_flight_goes_out_before_data(void **state)
{
    struct rig r;
    struct outcome o = {.rig = &r};
    struct handshake *hs;
    struct half server;
    char seen[100];
    int peer;

    (void)state;
    rig_init(&r, 4, 5000);
    struct conn *c = make_conn(&r, &peer);

    assert_ptr_equal(handshake_connect(r.all, c, SLICE_LIT("web.id"), true, on_done, &o, &hs),
                     OK);
    UNTIL(&r, r.n_heard == 1);
    assert_int_equal(last(&r)->role, 1);
    answer_bytes(&r, last(&r)->id, "CH");
    assert_int_equal(read_peer(&r, peer, seen, 2), 2);
    put(peer, "SH");
    UNTIL(&r, r.n_heard == 2);
    answer_done(&r, last(&r)->id, "FIN", slice(NULL, 0), 32);
    UNTIL(&r, o.calls == 1);
    conn_write(o.conn, SLICE_LIT("data"));
    assert_int_equal(read_peer(&r, peer, seen, 3 + 5 + 5 + 16), 3 + 5 + 5 + 16);
    assert_memory_equal(seen, "FIN\x17\x03\x03", 6);
    assert_ptr_equal(half_init(&server, 0x1301, slice(secret_c, 32), false), OK);
    assert_true(half_open(&server, (uint8_t *)seen + 3, 5 + 16));
    assert_memory_equal(seen + 8, "data\x17", 5);
    half_done(&server);
    close(peer);
    rig_done(&r);
}

static void failures_have_their_words(void **state)
{
    static const struct {
        const char *code, *want;
    } cases[] = {{"UNKNOWN_ISSUER", "UNKNOWN_ISSUER"},
                 {"BUSY", "BUSY"},
                 {"UNKNOWN_ID", "TLS_GONE"},
                 {"something new", "MALFORMED"}};
    struct rig r;
    char seen[8];

    (void)state;
    rig_init(&r, 4, 5000);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct outcome o = {.rig = &r};
        struct handshake *hs;
        unsigned before = r.n_heard;
        int peer;
        struct conn *c = make_conn(&r, &peer);

        assert_ptr_equal(handshake_accept(r.all, c, SLICE_LIT("x"), on_done, &o, &hs), OK);
        UNTIL(&r, r.n_heard == before + 1);
        answer_failed(&r, last(&r)->id, cases[i].code, "ALERT");
        UNTIL(&r, o.calls == 1);
        assert_false(o.is_ok);
        assert_string_equal(o.code, cases[i].want);
        assert_int_equal(read_peer(&r, peer, seen, 5), 5);
        assert_memory_equal(seen, "ALERT", 5);
        close(peer);
    }
    rig_done(&r);
}

static void bad_secrets_are_refused(void **state)
{
    struct rig r;
    struct outcome o = {.rig = &r};
    struct handshake *hs;
    int peer;

    (void)state;
    rig_init(&r, 4, 5000);
    struct conn *c = make_conn(&r, &peer);

    assert_ptr_equal(handshake_accept(r.all, c, SLICE_LIT("x"), on_done, &o, &hs), OK);
    UNTIL(&r, r.n_heard == 1);
    answer_done(&r, last(&r)->id, "", slice(NULL, 0), 31);
    UNTIL(&r, o.calls == 1);
    assert_false(o.is_ok);
    assert_string_equal(o.code, "MALFORMED");
    close(peer);
    rig_done(&r);
}

static void at_most_so_many_at_once(void **state)
{
    struct rig r;
    struct outcome o[5] = {{0}};
    struct handshake *hs[5];
    int peer[5];

    (void)state;
    rig_init(&r, 2, 5000);
    for (int i = 0; i < 5; i++) {
        struct conn *c = make_conn(&r, &peer[i]);

        assert_ptr_equal(handshake_accept(r.all, c, SLICE_LIT("x"), on_done, &o[i], &hs[i]),
                         OK);
    }
    UNTIL(&r, r.n_heard == 2);
    for (int i = 0; i < 50; i++)
        (void)event_base_loop(r.base, EVLOOP_NONBLOCK);
    assert_int_equal(r.n_heard, 2);
    handshake_cancel(&hs[4]); /* one that waits */
    handshake_cancel(&hs[0]); /* one that runs: weft-tls is told, the next one begins */
    UNTIL(&r, r.n_heard == 4);
    assert_int_equal(r.heard[2].code, WIRE_handshake_close);
    assert_int_equal(r.heard[2].id, r.heard[0].id);
    assert_int_equal(r.heard[3].code, WIRE_handshake_open);
    answer_failed(&r, r.heard[1].id, "ALERT", "");
    UNTIL(&r, o[1].calls == 1 && r.n_heard == 5);
    assert_int_equal(o[0].calls + o[2].calls + o[3].calls + o[4].calls, 0);
    answer_bytes(&r, r.heard[0].id, "for a dead one"); /* nobody is hurt */
    for (int i = 0; i < 20; i++)
        (void)event_base_loop(r.base, EVLOOP_NONBLOCK);
    rig_done(&r); /* the rest is told TLS_GONE */
    assert_int_equal(o[2].calls, 1);
    assert_int_equal(o[3].calls, 1);
    assert_int_equal(o[0].calls + o[4].calls, 0);
    for (int i = 0; i < 5; i++)
        close(peer[i]);
}

static void the_end_of_weft_tls(void **state)
{
    struct rig r;
    struct outcome running = {0}, waiting = {0};
    struct handshake *hs;
    int peer[2];

    (void)state;
    rig_init(&r, 1, 5000);
    assert_ptr_equal(handshake_accept(r.all, make_conn(&r, &peer[0]), SLICE_LIT("a"), on_done,
                                      &running, &hs),
                     OK);
    assert_ptr_equal(handshake_accept(r.all, make_conn(&r, &peer[1]), SLICE_LIT("b"), on_done,
                                      &waiting, &hs),
                     OK);
    UNTIL(&r, r.n_heard == 1);
    mailbox_close(&r.tls);
    UNTIL(&r, running.calls == 1);
    assert_string_equal(running.code, "TLS_GONE");
    assert_int_equal(waiting.calls, 0); /* it waits for the return */
    open_tls(&r);
    UNTIL(&r, r.n_heard == 2);
    assert_memory_equal(last(&r)->bytes, "b", 1);
    answer_failed(&r, last(&r)->id, "EXPIRED", "");
    UNTIL(&r, waiting.calls == 1);
    assert_string_equal(waiting.code, "EXPIRED");
    close(peer[0]);
    close(peer[1]);
    rig_done(&r);
}

static void timeout_and_a_peer_that_leaves(void **state)
{
    struct rig r;
    struct outcome slow = {0}, gone = {0};
    struct handshake *hs;
    int peer[2];

    (void)state;
    rig_init(&r, 4, 60);
    assert_ptr_equal(
        handshake_accept(r.all, make_conn(&r, &peer[0]), SLICE_LIT("a"), on_done, &slow, &hs),
        OK);
    UNTIL(&r, slow.calls == 1 && r.n_heard == 2);
    assert_string_equal(slow.code, "TIMEOUT");
    assert_int_equal(last(&r)->code, WIRE_handshake_close);
    assert_ptr_equal(
        handshake_accept(r.all, make_conn(&r, &peer[1]), SLICE_LIT("b"), on_done, &gone, &hs),
        OK);
    UNTIL(&r, r.n_heard == 3);
    close(peer[1]);
    answer_bytes(&r, last(&r)->id, ""); /* reading goes on, and finds the end */
    UNTIL(&r, gone.calls == 1);
    assert_string_equal(gone.code, "CLOSED");
    assert_false(gone.had_conn);
    close(peer[0]);
    rig_done(&r);
}

static void large_first_bytes_go_in_pieces(void **state)
{
    struct rig r;
    struct outcome o = {0};
    struct handshake *hs;
    char *big = malloc(40000);
    size_t sum = 0;
    int peer;

    (void)state;
    assert_non_null(big);
    memset(big, 'h', 40000);
    rig_init(&r, 4, 5000);
    assert_ptr_equal(
        handshake_accept(r.all, make_conn(&r, &peer), slice(big, 40000), on_done, &o, &hs), OK);
    for (unsigned i = 1; sum < 40000; i++) {
        UNTIL(&r, r.n_heard == i);
        assert_true(last(&r)->n <= 16384 && last(&r)->n > 0);
        sum += last(&r)->n;
        answer_bytes(&r, last(&r)->id, "");
    }
    assert_int_equal(sum, 40000);
    free(big);
    close(peer);
    rig_done(&r);
}

static void names_are_checked(void **state)
{
    struct rig r;
    struct outcome o = {0};
    struct handshake *hs;
    char name[254];
    int peer;

    (void)state;
    memset(name, 'n', sizeof(name));
    rig_init(&r, 4, 5000);
    struct conn *c = make_conn(&r, &peer);

    assert_ptr_equal(handshake_connect(r.all, c, slice(NULL, 0), true, on_done, &o, &hs),
                     ERR_OF(MALFORMED));
    assert_ptr_equal(handshake_connect(r.all, c, slice(name, 254), true, on_done, &o, &hs),
                     ERR_OF(MALFORMED));
    assert_ptr_equal(handshake_connect(r.all, c, slice("a\0b", 3), true, on_done, &o, &hs),
                     ERR_OF(MALFORMED));
    assert_ptr_equal(handshake_connect(r.all, c, slice(name, 253), true, on_done, &o, &hs), OK);
    close(peer);
    rig_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_server_handshake),
        cmocka_unit_test(a_client_flight_goes_out_before_data),
        cmocka_unit_test(failures_have_their_words),
        cmocka_unit_test(bad_secrets_are_refused),
        cmocka_unit_test(at_most_so_many_at_once),
        cmocka_unit_test(the_end_of_weft_tls),
        cmocka_unit_test(timeout_and_a_peer_that_leaves),
        cmocka_unit_test(large_first_bytes_go_in_pieces),
        cmocka_unit_test(names_are_checked),
    };

    log_init("handshake_test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
