/* The two limits of a dial, against a listener of the test's and a weft-tls played by the test:
 * TCP has outbound_connect_ms, the handshake behind it the handshakes' own. */
#include "kit/log.h"
#include "kit/mailbox.h"
#include "kit/timer.h"
#include "proxy/balance/balance.h"
#include "proxy/handshake/handshake.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"
#include "wire/dispatch.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define CONNECT_MS 100

struct rig {
    struct event_base *base;
    struct net *net;
    struct mailbox *tls;
    struct handshakes *all;
    struct balance *balance;
    struct backend *backend;
    char endpoint[100], peer[64];
    size_t peer_len;
    uint64_t id; /* of the handshake that was asked for */
    unsigned asked, closed;
    int listener;
    struct timer clock;
    bool is_rung;
};

struct told {
    unsigned calls;
    bool has_conn, is_tls, is_timeout, is_local;
    char code[32];
};

#define UNTIL(r, claim)                                                                        \
    do {                                                                                       \
        for (int turn_ = 0; !(claim) && turn_ < 5000; turn_++) {                               \
            (void)event_base_loop((r)->base, EVLOOP_NONBLOCK);                                 \
            if (!(claim))                                                                      \
                usleep(1000);                                                                  \
        }                                                                                      \
        assert_true(claim);                                                                    \
    } while (0)

static void on_tls_msg(void *arg, const struct mailbox_msg *m)
{
    struct rig *r = arg;
    struct wire_msg msg;

    assert_ptr_equal(wire_decode(m->body, WIRE_ROLE_PROXY, WIRE_ROLE_TLS, &msg), OK);
    assert_true(m->from.n <= sizeof(r->peer));
    memcpy(r->peer, m->from.p, m->from.n);
    r->peer_len = m->from.n;
    if (msg.code == WIRE_handshake_open) {
        r->asked++;
        r->id = msg.body.handshake_open.id;
    } else if (msg.code == WIRE_handshake_close) {
        r->closed++;
    }
    wire_msg_done(&msg);
}

static void on_ring(void *arg)
{
    struct rig *r = arg;

    r->is_rung = true;
}

static bool is_none(void *arg, const struct sockaddr_storage *a)
{
    (void)arg, (void)a;
    return false;
}

static void make_listener(struct rig *r, struct sockaddr_in *sin)
{
    socklen_t len = sizeof(*sin);

    *sin =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    r->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(r->listener >= 0);
    assert_int_equal(bind(r->listener, (struct sockaddr *)sin, len), 0);
    assert_int_equal(listen(r->listener, 8), 0);
    assert_int_equal(getsockname(r->listener, (struct sockaddr *)sin, &len), 0);
}

/* A meshed endpoint at the listener. */
static void make_backend(struct rig *r, uint16_t port)
{
    struct wire_endpoint ep = {.ip = SLICE_LIT("127.0.0.1"),
                               .port = 80,
                               .weight = 10000,
                               .identity = SLICE_LIT("web.id"),
                               .inbound_port = port};
    struct wire_backend v = {.namespace = SLICE_LIT("ns"),
                             .name = SLICE_LIT("web"),
                             .port = 80,
                             .n_endpoints = 1,
                             .endpoints = &ep};
    struct backend_spec spec = {.view = &v, .revision = 1, .is_local = is_none};

    assert_ptr_equal(backend_get(r->balance, &spec, &r->backend), OK);
    assert_true(endpoint_is_meshed(r->backend->set[0]));
}

static void rig_init(struct rig *r, uint64_t handshake_ms)
{
    struct mailbox_conf mail = {.kind = MAILBOX_ROUTER,
                                .name = "tls",
                                .endpoint = r->endpoint,
                                .bind = true,
                                .allow = mailbox_allow_same_uid,
                                .on_msg = on_tls_msg,
                                .arg = r};
    struct handshakes_conf hc = {.endpoint = r->endpoint, .max = 4, .timeout_ms = handshake_ms};
    struct balance_conf bc = {.outbound_connect_ms = CONNECT_MS,
                              .inbound_connect_ms = CONNECT_MS,
                              .pool_idle_ms = 1000,
                              .failfast_ms = 1000,
                              .queue_capacity = 3};
    struct sockaddr_in sin;

    memset(r, 0, sizeof(*r));
    r->base = event_base_new();
    assert_non_null(r->base);
    assert_ptr_equal(mailbox_prepare(r->base), OK);
    (void)snprintf(r->endpoint, sizeof(r->endpoint), "ipc:///tmp/wt-dial-%d.sock",
                   (int)getpid());
    assert_ptr_equal(net_new(&(struct net_conf){.base = r->base}, &r->net), OK);
    assert_ptr_equal(mailbox_open(r->base, &mail, &r->tls), OK);
    hc.base = r->base;
    assert_ptr_equal(handshakes_new(&hc, &r->all), OK);
    bc.base = r->base;
    bc.net = r->net;
    bc.handshakes = r->all;
    assert_ptr_equal(balance_new(&bc, &r->balance), OK);
    make_listener(r, &sin);
    make_backend(r, ntohs(sin.sin_port));
    timer_init(&r->clock, r->base, on_ring, r);
}

static void rig_done(struct rig *r)
{
    timer_stop(&r->clock);
    backend_unref(&r->backend);
    handshakes_free(&r->all);
    net_free(&r->net);
    balance_free(&r->balance);
    mailbox_close(&r->tls);
    mailbox_shutdown();
    event_base_free(r->base);
    close(r->listener);
}

static void on_dialled(void *arg, const struct dial_result *result)
{
    struct told *o = arg;

    o->calls++;
    o->has_conn = result->conn != NULL;
    o->is_tls = result->is_tls;
    o->is_timeout = result->is_timeout;
    o->is_local = result->is_local;
    (void)snprintf(o->code, sizeof(o->code), "%s", result->code);
}

static void dial(struct rig *r, struct told *o, struct dial **d)
{
    assert_ptr_equal(dial_start(r->backend->set[0], SESSION_HTTP2, on_dialled, o, d), OK);
}

/* Twice the time that TCP has goes by while weft-tls is busy with others: nothing happens. */
static void a_handshake_outlasts_the_limit_of_tcp(void **state)
{
    struct rig r;
    struct told o = {0};
    struct dial *d;
    struct wire_handshake_failed m = {.code = SLICE_LIT("EXPIRED"),
                                      .why = SLICE_LIT("because")};

    (void)state;
    rig_init(&r, 60000);
    dial(&r, &o, &d);
    UNTIL(&r, r.asked == 1);
    timer_once(&r.clock, 2 * CONNECT_MS);
    UNTIL(&r, r.is_rung);
    assert_int_equal(o.calls, 0);
    assert_int_equal(r.closed, 0);
    m.id = r.id;
    assert_ptr_equal(WIRE_SEND(r.tls, slice(r.peer, r.peer_len), handshake_failed, &m), OK);
    UNTIL(&r, o.calls == 1);
    assert_true(o.is_tls && !o.is_timeout && !o.is_local && !o.has_conn);
    assert_string_equal(o.code, "EXPIRED");
    rig_done(&r);
}

/* Its own limit ends it, is told as TLS's, and weft-tls hears of it; the endpoint backs off. */
static void a_handshake_has_a_limit_of_its_own(void **state)
{
    struct rig r;
    struct told o = {0};
    struct dial *d;

    (void)state;
    rig_init(&r, 30);
    dial(&r, &o, &d);
    UNTIL(&r, o.calls == 1);
    assert_true(o.is_tls && o.is_timeout && !o.is_local && !o.has_conn);
    assert_string_equal(o.code, "TIMEOUT");
    assert_int_equal(r.backend->set[0]->state, ENDPOINT_BACKOFF);
    UNTIL(&r, r.closed == r.asked);
    rig_done(&r);
}

/* Who waits for a dial may leave in either state, also behind the time of TCP. */
static void a_dial_is_cancelled_while_it_shakes(void **state)
{
    struct rig r;
    struct told o = {0};
    struct dial *d;

    (void)state;
    rig_init(&r, 60000);
    dial(&r, &o, &d);
    dial_cancel(&d); /* connecting */
    assert_null(d);
    dial(&r, &o, &d);
    UNTIL(&r, r.asked == 1);
    dial_cancel(&d);
    UNTIL(&r, r.closed == 1);
    timer_once(&r.clock, 2 * CONNECT_MS);
    UNTIL(&r, r.is_rung);
    assert_int_equal(o.calls, 0);
    rig_done(&r);
}

/* An address that does not answer at all: the queue of the listener is full, so that its SYNs
 * get nothing back. */
static void tcp_keeps_its_limit(void **state)
{
    struct rig r;
    struct told o = {0};
    struct sockaddr_in sin;
    socklen_t len = sizeof(sin);
    int full[8];
    struct dial *d;

    (void)state;
    rig_init(&r, 60000);
    assert_int_equal(listen(r.listener, 0), 0);
    assert_int_equal(getsockname(r.listener, (struct sockaddr *)&sin, &len), 0);
    for (unsigned i = 0; i < 8; i++) {
        full[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert_true(full[i] >= 0);
        (void)connect(full[i], (struct sockaddr *)&sin, len);
    }
    dial(&r, &o, &d);
    UNTIL(&r, o.calls == 1);
    assert_true(!o.is_tls && o.is_timeout && !o.has_conn);
    assert_string_equal(o.code, "");
    assert_int_equal(r.asked, 0);
    for (unsigned i = 0; i < 8; i++)
        close(full[i]);
    rig_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handshake_outlasts_the_limit_of_tcp),
        cmocka_unit_test(a_handshake_has_a_limit_of_its_own),
        cmocka_unit_test(a_dial_is_cancelled_while_it_shakes),
        cmocka_unit_test(tcp_keeps_its_limit),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
