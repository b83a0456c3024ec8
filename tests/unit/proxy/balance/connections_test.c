/* Connections are counted from the dial to the close, whichever way they end: after each way, both the worker's own
 * number and the one that all workers share are what they were. Two workers with memory in common; real sockets. */
#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "proxy/balance/balance.h"
#include "proxy/handshake/handshake.h"
#include "proxy/limit/shared.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"

#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define WORKERS 2
#define MAX     3 /* connections_max */

struct one { /* worker */
    struct net *net;
    struct limit_shared *shared;
    struct handshakes *handshakes;
    struct balance *balance;
    struct backend *backend;
};

static struct event_base *base;
static struct one workers[WORKERS];
static int memory, listening, accepted;
static struct sockaddr_storage at;
static bool is_meshed;
static struct conn *opened;
static unsigned told, failed;
static struct http_back *lent;
static uint64_t revision;
static bool no_limit;

static void on_close(void *arg, const struct conn *c, enum close_reason why)
{
    struct one *w = arg;

    (void)why;
    if (w->balance != NULL)
        balance_conn_closed(w->balance, c);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
}

#define until(claim)                                                                           \
    do {                                                                                       \
        uint64_t end_ = clock_read_us() + 5000000;                                             \
        while (!(claim)) {                                                                     \
            if (clock_read_us() > end_)                                                        \
                fail_msg("not in time: %s", #claim);                                           \
            clock_turn();                                                                      \
            (void)event_base_loop(base, EVLOOP_ONCE);                                          \
        }                                                                                      \
    } while (0)

static void use(struct one *w, unsigned n, struct backend **out)
{
    char ip[ADDRESS_TEXT];
    struct wire_endpoint ep = {.port = address_port(&at), .weight = 10000};
    struct wire_backend v = {.namespace = SLICE_LIT("ns"),
                             .name = SLICE_LIT("svc"),
                             .port = 80,
                             .n_endpoints = n,
                             .endpoints = &ep,
                             .connections_max = no_limit ? 0 : MAX};
    struct backend_spec spec = {.view = &v, .revision = ++revision};

    address_print_ip(&at, ip);
    ep.ip = slice_str(ip);
    if (is_meshed) {
        ep.identity = SLICE_LIT("web.ns");
        ep.inbound_port = ep.port;
    }
    assert_true(backend_get(w->balance, &spec, out) == OK);
}

static void listen_at(int backlog)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);

    listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(bind(listening, (struct sockaddr *)&a, sizeof(a)) == 0);
    assert_int_equal(listen(listening, backlog), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&a, &n), 0);
    memset(&at, 0, sizeof(at));
    memcpy(&at, &a, sizeof(a));
}

static void begin(struct one *w, unsigned number)
{
    struct net_conf nc = {.base = base, .on_close = on_close, .arg = w, .linger_ms = 20};
    struct handshakes_conf hc = {
        .base = base, .endpoint = "ipc:///nonexistent/weft-tls", .max = 4, .timeout_ms = 60};
    struct balance_conf bc = {.base = base,
                              .limits = {.head_max = 65536, .fields_max = 100, .header_timeout_ms = 1000},
                              .outbound_connect_ms = 150,
                              .inbound_connect_ms = 150,
                              .pool_idle_ms = 60,
                              .failfast_ms = 1000,
                              .queue_capacity = 3};

    assert_true(net_new(&nc, &w->net) == OK);
    assert_true(limit_shared_open(memory, number, &w->shared) == OK);
    if (is_meshed)
        assert_true(handshakes_new(&hc, &w->handshakes) == OK);
    bc.net = w->net;
    bc.handshakes = w->handshakes;
    bc.shared = w->shared;
    assert_true(balance_new(&bc, &w->balance) == OK);
    use(w, 1, &w->backend);
}

static void end(struct one *w)
{
    if (w->net == NULL)
        return;
    net_free(&w->net);
    backend_unref(&w->backend);
    balance_free(&w->balance);
    handshakes_free(&w->handshakes);
    limit_shared_close(&w->shared);
}

static struct event *ticks;

static int up(void **state)
{
    struct timeval often = {0, 5000};

    is_meshed = *state != NULL;
    base = event_base_new();
    ticks = event_new(base, -1, EV_PERSIST, on_tick, NULL);
    event_add(ticks, &often);
    memory = memfd_create("limits", MFD_CLOEXEC);
    assert_true(memory >= 0 && ftruncate(memory, LIMIT_SHARED_BYTES) == 0);
    listen_at(8);
    accepted = -1;
    opened = NULL;
    lent = NULL;
    told = failed = 0;
    for (unsigned i = 0; i < WORKERS; i++)
        begin(&workers[i], i);
    return 0;
}

static int down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WORKERS; i++)
        end(&workers[i]);
    close(memory);
    close(listening);
    if (accepted >= 0)
        close(accepted);
    event_free(ticks);
    event_base_free(base);
    return 0;
}

/* ---- what is counted ---- */

static unsigned everywhere(void)
{
    return limit_counter_sum(workers[1].shared, workers[1].backend->connections);
}

static bool is_counted(unsigned n)
{
    return workers[0].backend->n_connections == n && everywhere() == n;
}

/* The count came back, and all places may be taken again. */
static void nothing_is_lost(void)
{
    until(is_counted(0));
    for (unsigned i = 0; i < WORKERS; i++)
        assert_false(backend_has_no_place(workers[i].backend));
}

static struct endpoint *target(void)
{
    return workers[0].backend->set[0];
}

/* ---- dials ---- */

static void on_conn_closed(struct conn *c, enum close_reason why)
{
    (void)c, (void)why;
    opened = NULL;
}

static size_t drop(struct conn *c, slice_t bytes)
{
    (void)c;
    return bytes.n;
}

static const struct conn_events held = {.on_bytes = drop, .on_closed = on_conn_closed};

static void on_dialled(void *arg, const struct dial_result *r)
{
    (void)arg;
    told++;
    failed += r->conn == NULL;
    opened = r->conn;
    if (r->conn != NULL)
        conn_own(r->conn, &held, NULL);
}

static struct dial *dial(void)
{
    struct dial *d;

    assert_true(dial_start(target(), SESSION_OPAQUE, on_dialled, NULL, &d) == OK);
    assert_true(is_counted(1)); /* from the beginning, and in the other worker */
    return d;
}

static void accept_one(void)
{
    until((accepted = accept4(listening, NULL, NULL, SOCK_CLOEXEC)) >= 0);
}

static void open_one(void)
{
    (void)dial();
    until(told == 1);
    assert_non_null(opened);
    accept_one();
    assert_true(is_counted(1));
}

static void refused(void **state)
{
    (void)state;
    close(listening);
    listening = -1;
    (void)dial();
    until(failed == 1);
    nothing_is_lost();
}

/* A queue that is full: the kernel drops what comes. */
static void out_of_time(void **state)
{
    int fill[4];

    (void)state;
    assert_int_equal(listen(listening, 0), 0);
    for (int i = 0; i < 4; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(fill[i], (struct sockaddr *)&at, sizeof(struct sockaddr_in));
    }
    (void)dial();
    until(failed == 1);
    nothing_is_lost();
    for (int i = 0; i < 4; i++)
        close(fill[i]);
}

static void cancelled(void **state)
{
    struct dial *d = dial();

    (void)state;
    dial_cancel(&d);
    nothing_is_lost();
    assert_int_equal(told, 0);
}

static void closed_by_us(void **state)
{
    (void)state;
    open_one();
    conn_own(opened, NULL, NULL);
    conn_close(opened, CLOSE_DONE);
    nothing_is_lost();
}

/* Gently: counted until the peer has gone, too, or its time is up. */
static void closed_gently(void **state)
{
    (void)state;
    open_one();
    conn_own(opened, NULL, NULL);
    conn_close_gently(opened, CLOSE_DONE);
    close(accepted);
    accepted = -1;
    nothing_is_lost();
}

static void closed_by_the_peer(void **state)
{
    (void)state;
    open_one();
    close(accepted);
    accepted = -1;
    nothing_is_lost();
}

static void reset_by_the_peer(void **state)
{
    const struct linger now = {1, 0};

    (void)state;
    open_one();
    (void)setsockopt(accepted, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(accepted);
    accepted = -1;
    nothing_is_lost();
}

/* The endpoint leaves the view: what is open goes on, and no longer counts for a backend that does not have it. */
static void endpoint_leaves(void **state)
{
    struct backend *again;

    (void)state;
    open_one();
    use(&workers[0], 0, &again);
    backend_unref(&again);
    nothing_is_lost();
    assert_non_null(opened);
    use(&workers[0], 1, &again); /* ... and returns while it is still open */
    backend_unref(&again);
    conn_own(opened, NULL, NULL);
    conn_close(opened, CLOSE_DONE);
    nothing_is_lost();
}

static void endpoint_leaves_while_it_is_dialled(void **state)
{
    struct backend *again;

    (void)state;
    (void)dial();
    use(&workers[0], 0, &again);
    backend_unref(&again);
    until(told == 1);
    if (opened != NULL) {
        conn_own(opened, NULL, NULL);
        conn_close(opened, CLOSE_DONE);
    }
    nothing_is_lost();
}

/* A worker ends (or is killed: the next one of its number begins with an empty column). */
static void worker_goes(void **state)
{
    (void)state;
    open_one();
    end(&workers[0]);
    assert_int_equal(everywhere(), 0);
    begin(&workers[0], 0);
    nothing_is_lost();
}

static void all_places(void **state)
{
    struct dial *d[MAX];

    (void)state;
    for (unsigned i = 0; i < MAX; i++) {
        assert_true(endpoint_may_dial(target()));
        assert_true(dial_start(target(), SESSION_OPAQUE, on_dialled, NULL, &d[i]) == OK);
    }
    assert_true(is_counted(MAX));
    for (unsigned i = 0; i < WORKERS; i++) {
        bool is_full;

        assert_false(endpoint_may_dial(workers[i].backend->set[0])); /* the other worker's, too */
        assert_null(backend_pick_opaque(workers[i].backend, NULL, &is_full));
        assert_true(is_full);
    }
    for (unsigned i = 0; i < MAX; i++)
        dial_cancel(&d[i]);
    nothing_is_lost();
}

/* ---- pools ---- */

static void on_lent(struct lend *l, struct http_back *back, const struct lend_failure *why)
{
    (void)l;
    lent = back;
    failed += why != NULL;
}

static void lend(enum pool_kind kind)
{
    static struct lend l;
    struct http_back *back;

    l = (struct lend){.done = on_lent};
    assert_int_equal(endpoint_lend(target(), kind, &l, &back), STEP_LATER);
    assert_true(is_counted(1));
    until(lent != NULL || failed > 0);
}

static void idle_for_long(void **state)
{
    (void)state;
    lend(POOL_HTTP1);
    assert_non_null(lent);
    accept_one();
    until(target()->n_idle == 0);
    close(accepted); /* it lingers until then */
    accepted = -1;
    nothing_is_lost();
}

static void pool_is_refused(void **state)
{
    (void)state;
    close(listening);
    listening = -1;
    lend(POOL_HTTP1);
    assert_int_equal(failed, 1);
    nothing_is_lost();
}

static void who_waits_goes(void **state)
{
    struct lend l = {.done = on_lent};
    struct http_back *back;

    (void)state;
    assert_int_equal(endpoint_lend(target(), POOL_HTTP1, &l, &back), STEP_LATER);
    lend_cancel(&l); /* the dial goes on, and what it makes becomes idle */
    assert_true(is_counted(1));
    accept_one();
    until(target()->n_idle == 1);
    close(accepted);
    accepted = -1;
    nothing_is_lost();
}

static void goes_away(void **state)
{
    static const uint8_t bytes[] = {0, 0, 0, 4, 0, 0, 0, 0, 0,                                /* SETTINGS */
                                    0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}; /* GOAWAY, NO_ERROR */

    (void)state;
    lend(POOL_HTTP2);
    assert_non_null(lent);
    accept_one();
    assert_int_equal(target()->n_mux, 1);
    assert_int_equal(write(accepted, bytes, sizeof(bytes)), sizeof(bytes));
    until(target()->n_mux == 0);
    close(accepted);
    accepted = -1;
    nothing_is_lost();
}

/* ---- slots of HTTP/2 ---- */

static const uint8_t two_streams[] = {0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2}; /* SETTINGS */
static const uint8_t goaway[] = {0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0};

static void on_stream_failed(void *arg, struct stream *s, const struct stream_failure *f)
{
    (void)arg, (void)s, (void)f;
}

static const struct stream_events stream_events = {.on_failed = on_stream_failed};
static struct arena arena;

static void take_slot(struct http_back *back)
{
    assert_non_null(http_back_open(back, &arena, &stream_events, NULL));
}

/* A connection of the pool, accepted, with two slots as its server wants. */
static int two_slots(unsigned number)
{
    struct lend l = {.done = on_lent};
    struct http_back *back;
    int fd;

    lent = NULL;
    assert_int_equal(endpoint_lend(target(), POOL_HTTP2, &l, &back), STEP_LATER);
    until(lent != NULL);
    back = lent;
    assert_int_equal(target()->n_mux, number);
    until((fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC)) >= 0);
    assert_int_equal(write(fd, two_streams, sizeof(two_streams)), sizeof(two_streams));
    until(http_back_free_slots(back) == 2);
    take_slot(back);
    assert_int_equal(endpoint_lend(target(), POOL_HTTP2, &l, &back), STEP_DONE); /* no other one while it has a slot */
    take_slot(back);
    return fd;
}

/* Slow streams fill a connection: the next request gets another, up to BALANCE_MUX_MAX; who waits then gets the first
 * slot, or a new connection when one of them takes no more requests, although its streams go on. */
static void slow_streams_starve_nobody(void **state)
{
    struct lend l = {.done = on_lent};
    struct http_back *back;
    struct backend *again;
    int fds[BALANCE_MUX_MAX + 1];

    (void)state;
    no_limit = true;
    use(&workers[0], 1, &again);
    backend_unref(&again);
    arena_init(&arena, 0);
    for (unsigned i = 0; i < BALANCE_MUX_MAX; i++)
        fds[i] = two_slots(i + 1);
    lent = NULL;
    assert_int_equal(endpoint_lend(target(), POOL_HTTP2, &l, &back), STEP_LATER);
    assert_int_equal(target()->n_dialing[POOL_HTTP2], 0);
    assert_int_equal(write(fds[0], goaway, sizeof(goaway)), sizeof(goaway));
    until(lent != NULL);
    assert_int_equal(target()->n_mux, BALANCE_MUX_MAX);
    assert_int_equal(target()->n_connections, BALANCE_MUX_MAX + 1);
    until((fds[BALANCE_MUX_MAX] = accept4(listening, NULL, NULL, SOCK_CLOEXEC)) >= 0);
    for (unsigned i = 0; i <= BALANCE_MUX_MAX; i++)
        close(fds[i]);
    until(target()->n_connections == 0);
    arena_done(&arena);
    no_limit = false;
}

/* ---- TLS: weft-tls is not there ---- */

static void handshake_fails(void **state)
{
    (void)state;
    (void)dial();
    until(failed == 1);
    nothing_is_lost();
}

static void handshake_is_cancelled(void **state)
{
    struct dial *d = dial();

    (void)state;
    accept_one(); /* connected: what is under way is the handshake */
    dial_cancel(&d);
    assert_int_equal(told, 0);
    nothing_is_lost();
}

static void peer_goes_meanwhile(void **state)
{
    (void)state;
    (void)dial();
    accept_one();
    close(accepted);
    accepted = -1;
    until(failed == 1);
    nothing_is_lost();
}

#define T(name) cmocka_unit_test_setup_teardown(name, up, down)
#define TLS(name) cmocka_unit_test_prestate_setup_teardown(name, up, down, &base)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(refused),
        T(out_of_time),
        T(cancelled),
        T(closed_by_us),
        T(closed_gently),
        T(closed_by_the_peer),
        T(reset_by_the_peer),
        T(endpoint_leaves),
        T(endpoint_leaves_while_it_is_dialled),
        T(worker_goes),
        T(all_places),
        T(idle_for_long),
        T(pool_is_refused),
        T(who_waits_goes),
        T(goes_away),
        T(slow_streams_starve_nobody),
        TLS(handshake_fails),
        TLS(handshake_is_cancelled),
        TLS(peer_goes_meanwhile),
    };
    int rc;

    log_init("connections_test");
    log_set_level(LOG_LEVEL_ERROR);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    mailbox_shutdown();
    return rc;
}
