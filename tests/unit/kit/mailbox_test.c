/* Mailboxes over real libzmq: the traps named at the head of mailbox_pump.c, admission, and bounds.
 *
 * Every wait is for an event, with a deadline that fails the test. */
#include "kit/mailbox.h"

#include "kit/clock.h"
#include "kit/timer.h"

#include <event2/event.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#define DEADLINE_US (10 * 1000000ull)

/* What a mailbox of a test saw. */
struct seen {
    unsigned n, up, down;
    size_t last_bytes;
    char from[64], topic[64], body[128], user[64];
    size_t from_n;
    struct mailbox **close_on_msg; /* closed inside on_msg */
    struct mailbox **echo_to;      /* ROUTER: answered inside on_msg */
};

struct bench {
    struct event_base *base;
    char dir[64], ipc[96];
    struct mailbox *router, *dealer;
    struct seen r, d;
    struct timer tick; /* bounds each wait; not on the stack: a failed assert jumps over it */
};

static void text(char *dst, size_t cap, slice_t s)
{
    size_t n = s.n < cap - 1 ? s.n : cap - 1;

    if (n != 0)
        memcpy(dst, s.p, n);
    dst[n] = '\0';
}

static void on_msg(void *arg, const struct mailbox_msg *msg)
{
    struct seen *s = arg;

    s->n++;
    s->last_bytes = msg->body.n;
    text(s->from, sizeof(s->from), msg->from);
    s->from_n = msg->from.n;
    text(s->topic, sizeof(s->topic), msg->topic);
    text(s->body, sizeof(s->body), msg->body);
    (void)snprintf(s->user, sizeof(s->user), "%s", msg->user);
    if (s->echo_to != NULL)
        assert_null(mailbox_send(*s->echo_to, msg->from, msg->body));
    if (s->close_on_msg != NULL)
        mailbox_close(s->close_on_msg);
}

static void on_link(void *arg, bool is_up)
{
    struct seen *s = arg;

    if (is_up)
        s->up++;
    else
        s->down++;
}

static void wake(void *arg)
{
    (void)arg;
}

/* Turns the loop until *value reaches want. */
static void run_until(struct bench *b, const unsigned *value, unsigned want)
{
    uint64_t end = clock_read_us() + DEADLINE_US;

    timer_every(&b->tick, 20);
    while (*value < want) {
        assert_true(clock_read_us() < end);
        (void)event_base_loop(b->base, EVLOOP_ONCE);
    }
    timer_stop(&b->tick);
}

static void run_ms(struct bench *b, uint64_t ms)
{
    uint64_t end = clock_read_us() + ms * 1000;

    timer_every(&b->tick, 10);
    while (clock_read_us() < end)
        (void)event_base_loop(b->base, EVLOOP_ONCE);
    timer_stop(&b->tick);
}

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));

    b->base = event_base_new();
    timer_init(&b->tick, b->base, wake, NULL);
    (void)snprintf(b->dir, sizeof(b->dir), "/tmp/weft-mailbox-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    (void)snprintf(b->ipc, sizeof(b->ipc), "ipc://%s/a.sock", b->dir);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    timer_stop(&b->tick);
    mailbox_close(&b->router);
    mailbox_close(&b->dealer);
    assert_int_equal(mailbox_count()->missed_edges, 0);
    mailbox_shutdown();
    event_base_free(b->base);
    assert_int_equal(rmdir(b->dir), 0); /* no socket file was left */
    free(b);
    return 0;
}

static struct mailbox_conf conf_of(struct bench *b, enum mailbox_kind kind, bool bind, struct seen *s)
{
    return (struct mailbox_conf){
        .kind = kind,
        .name = bind ? "binder" : "connector",
        .endpoint = b->ipc,
        .bind = bind,
        .allow = bind ? mailbox_allow_same_uid : NULL,
        .on_msg = on_msg,
        .on_link = bind ? NULL : on_link,
        .arg = s,
    };
}

static void open_router(struct bench *b)
{
    struct mailbox_conf c = conf_of(b, MAILBOX_ROUTER, true, &b->r);

    assert_null(mailbox_open(b->base, &c, &b->router));
}

static void open_dealer(struct bench *b)
{
    struct mailbox_conf c = conf_of(b, MAILBOX_DEALER, false, &b->d);

    assert_null(mailbox_open(b->base, &c, &b->dealer));
}

static void open_both(struct bench *b)
{
    open_router(b);
    open_dealer(b);
    run_until(b, &b->d.up, 1);
}

static void test_round_trip(void **state)
{
    struct bench *b = *state;
    struct stat st;

    open_both(b);
    b->r.echo_to = &b->router;
    assert_null(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("hello")));
    run_until(b, &b->d.n, 1);
    assert_string_equal(b->r.body, "hello");
    assert_string_equal(b->d.body, "hello");
    assert_string_equal(b->r.user, "");
    assert_int_not_equal(b->r.from_n, 0);
    assert_int_equal(b->d.from_n, 0);
    assert_int_equal(stat(b->ipc + 6, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* "One receive per wakeup": 2000 messages that arrive as few edges are all read. */
static void test_many_messages_one_edge(void **state)
{
    struct bench *b = *state;

    open_both(b);
    for (unsigned i = 0; i < 800; i++)
        assert_null(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("x")));
    run_until(b, &b->r.n, 800);
}

/* "Signal swallowed by sends": both sides send from timers, with work between, while messages arrive. */
struct swallow {
    struct bench *b;
    struct timer timer;
    unsigned sent;
};

static void send_and_work(void *arg)
{
    struct swallow *s = arg;
    uint64_t end = clock_read_us() + 2000; /* libzmq looks for commands in a send every 1.3 ms */

    assert_null(mailbox_send(s->b->dealer, SLICE_LIT(""), SLICE_LIT("ping")));
    s->sent++;
    while (clock_read_us() < end) {
    }
    assert_null(mailbox_send(s->b->dealer, SLICE_LIT(""), SLICE_LIT("ping")));
    s->sent++;
    if (s->sent >= 200)
        timer_stop(&s->timer);
}

static void test_sends_swallow_no_message(void **state)
{
    struct bench *b = *state;
    struct swallow s = {.b = b};

    open_both(b);
    b->r.echo_to = &b->router;
    timer_init(&s.timer, b->base, send_and_work, &s);
    timer_every(&s.timer, 1);
    run_until(b, &b->d.n, 200);
    assert_int_equal(s.sent, 200);
}

/* A socket that has much to read does not keep the loop: it comes back behind the others. */
static void test_burst_is_bounded(void **state)
{
    struct bench *b = *state;

    open_both(b);
    for (unsigned i = 0; i < 900; i++)
        assert_null(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("x")));
    (void)usleep(50000); /* let libzmq's thread bring all of them over */
    (void)event_base_loop(b->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    assert_true(b->r.n <= 512); /* a kick and an fd event at most, 256 each */
    run_until(b, &b->r.n, 900);
}

static void test_router_full_and_gone(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf c = conf_of(b, MAILBOX_ROUTER, true, &b->r);
    static uint8_t big[100 * 1024];
    uint64_t full = mailbox_count()->dropped_full;
    err_t err = OK;
    void *ctx = zmq_ctx_new(), *slow = zmq_socket(ctx, ZMQ_DEALER);
    int hwm = 2, linger = 0;
    slice_t to;

    assert_ptr_equal(ERR_OF(BAD_SETTING), mailbox_open(b->base, &(struct mailbox_conf){
        .kind = MAILBOX_ROUTER, .name = "x", .endpoint = b->ipc, .bind = true}, &b->router));
    c.hwm = 2;
    assert_null(mailbox_open(b->base, &c, &b->router));
    zmq_setsockopt(slow, ZMQ_RCVHWM, &hwm, sizeof(hwm)); /* a peer that never reads */
    zmq_setsockopt(slow, ZMQ_LINGER, &linger, sizeof(linger));
    assert_int_equal(zmq_connect(slow, b->ipc), 0);
    assert_int_equal(zmq_send(slow, "hi", 2, 0), 2);
    run_until(b, &b->r.n, 1);
    to = slice(b->r.from, b->r.from_n);
    for (unsigned i = 0; i < 200 && err == OK; i++)
        err = mailbox_send(b->router, to, slice(big, sizeof(big)));
    assert_ptr_equal(err, ERR_OF(QUEUE_FULL));
    assert_int_equal(mailbox_count()->dropped_full, full + 1);
    zmq_close(slow);
    zmq_ctx_term(ctx);
    for (unsigned i = 0; i < 100 && err != ERR_OF(PEER_GONE); i++) {
        run_ms(b, 10);
        err = mailbox_send(b->router, to, SLICE_LIT("x"));
    }
    assert_ptr_equal(err, ERR_OF(PEER_GONE));
    assert_ptr_equal(mailbox_send(b->router, SLICE_LIT("nobody"), SLICE_LIT("x")), ERR_OF(PEER_GONE));
    assert_ptr_equal(mailbox_send(b->router, SLICE_LIT(""), SLICE_LIT("x")), ERR_OF(PEER_GONE));
}

static void test_dealer_not_connected(void **state)
{
    struct bench *b = *state;

    open_dealer(b);
    run_ms(b, 30);
    assert_ptr_equal(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("x")), ERR_OF(PEER_GONE));
    assert_int_equal(b->d.up, 0);
}

static void test_multipart_dropped(void **state)
{
    struct bench *b = *state;
    void *ctx = zmq_ctx_new(), *odd = zmq_socket(ctx, ZMQ_DEALER);
    uint64_t before = mailbox_count()->dropped_multipart;
    int linger = 0;

    zmq_setsockopt(odd, ZMQ_LINGER, &linger, sizeof(linger));
    open_router(b);
    assert_int_equal(zmq_connect(odd, b->ipc), 0);
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(zmq_send(odd, "a", 1, ZMQ_SNDMORE), 1);
    assert_int_equal(zmq_send(odd, "b", 1, 0), 1);
    assert_int_equal(zmq_send(odd, "", 0, ZMQ_SNDMORE), 0);
    assert_int_equal(zmq_send(odd, "b", 1, 0), 1);
    assert_int_equal(zmq_send(odd, "fine", 4, 0), 4);
    run_until(b, &b->r.n, 1);
    assert_string_equal(b->r.body, "fine");
    assert_int_equal(mailbox_count()->dropped_multipart, before + 2);
    zmq_close(odd);
    zmq_ctx_term(ctx);
}

static bool allow_nobody(void *arg, const struct mailbox_peer *peer, char user[64])
{
    struct seen *s = arg;

    (void)user;
    s->up++;
    assert_true(peer->is_ipc);
    assert_int_equal(peer->uid, geteuid());
    assert_int_equal(peer->pid, getpid());
    return false;
}

static bool allow_named(void *arg, const struct mailbox_peer *peer, char user[64])
{
    (void)arg;
    (void)snprintf(user, 64, "pid-%" PRIu32, peer->pid);
    return true;
}

static void test_zap_refuses(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf c = conf_of(b, MAILBOX_ROUTER, true, &b->r);
    uint64_t before = mailbox_count()->refused_peers;

    c.allow = allow_nobody;
    assert_null(mailbox_open(b->base, &c, &b->router));
    open_dealer(b);
    run_until(b, &b->r.up, 2); /* it is asked again at every attempt */
    assert_int_equal(b->d.up, 0);
    assert_int_equal(b->r.n, 0);
    assert_true(mailbox_count()->refused_peers >= before + 2);
    assert_ptr_equal(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("x")), ERR_OF(PEER_GONE));
}

static void test_zap_names_the_user(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf c = conf_of(b, MAILBOX_ROUTER, true, &b->r);
    char want[64];

    c.allow = allow_named;
    assert_null(mailbox_open(b->base, &c, &b->router));
    open_dealer(b);
    run_until(b, &b->d.up, 1);
    assert_null(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("x")));
    run_until(b, &b->r.n, 1);
    (void)snprintf(want, sizeof(want), "pid-%d", getpid());
    assert_string_equal(b->r.user, want);
}

static void test_peer_restart(void **state)
{
    struct bench *b = *state;

    open_both(b);
    for (unsigned round = 1; round <= 3; round++) {
        mailbox_close(&b->router);
        run_until(b, &b->d.down, round);
        assert_ptr_equal(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("x")), ERR_OF(PEER_GONE));
        open_router(b);
        run_until(b, &b->d.up, round + 1);
        assert_null(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("again")));
        run_until(b, &b->r.n, round);
    }
}

/* The old listener's thread must not remove the file of the new one: see listen_ipc. */
static void test_rebind_keeps_the_file(void **state)
{
    struct bench *b = *state;

    for (unsigned i = 0; i < 30; i++) {
        open_router(b);
        mailbox_close(&b->router);
    }
    open_router(b);
    run_ms(b, 50);
    assert_int_equal(access(b->ipc + 6, F_OK), 0);
    open_dealer(b);
    run_until(b, &b->d.up, 1);
}

static void test_stale_socket_file(void **state)
{
    struct bench *b = *state;
    FILE *f = fopen(b->ipc + 6, "w"); /* left behind by a killed process */

    assert_non_null(f);
    (void)fclose(f);
    open_both(b);
}

static void test_close_inside_on_msg(void **state)
{
    struct bench *b = *state;

    open_both(b);
    b->r.close_on_msg = &b->router;
    for (unsigned i = 0; i < 10; i++)
        assert_null(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("x")));
    run_until(b, &b->d.down, 1);
    assert_int_equal(b->r.n, 1);
    assert_null(b->router);
}

static void test_oversize(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf c = conf_of(b, MAILBOX_ROUTER, true, &b->r);
    static uint8_t big[64 * 1024];

    c.max_bytes = 1000;
    assert_null(mailbox_open(b->base, &c, &b->router));
    open_dealer(b);
    run_until(b, &b->d.up, 1);
    assert_null(mailbox_send(b->dealer, SLICE_LIT(""), slice(big, 1000)));
    run_until(b, &b->r.n, 1);
    assert_int_equal(b->r.last_bytes, 1000);
    assert_null(mailbox_send(b->dealer, SLICE_LIT(""), slice(big, sizeof(big))));
    run_until(b, &b->d.down, 1); /* the receiver hangs up; nothing arrives */
    assert_int_equal(b->r.n, 1);
    run_until(b, &b->d.up, 2);
    assert_ptr_equal(mailbox_send(b->router, slice(b->r.from, b->r.from_n), slice(big, 1001)),
                     ERR_OF(TOO_BIG)); /* and a sender of ours does not even try */
}

/* libzmq gives a connection up for ever when the peer breaks a bound; we do not. */
static void test_oversize_to_the_connector(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf c = conf_of(b, MAILBOX_DEALER, false, &b->d);
    static uint8_t big[64 * 1024];

    open_router(b);
    c.max_bytes = 1000;
    assert_null(mailbox_open(b->base, &c, &b->dealer));
    run_until(b, &b->d.up, 1);
    assert_null(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("x")));
    run_until(b, &b->r.n, 1);
    assert_null(mailbox_send(b->router, slice(b->r.from, b->r.from_n), slice(big, sizeof(big))));
    run_until(b, &b->d.down, 1);
    run_until(b, &b->d.up, 2);
    assert_int_equal(b->d.n, 0);
}

/* Refused today, known tomorrow: the connector keeps asking. */
static bool allow_later(void *arg, const struct mailbox_peer *peer, char user[64])
{
    struct seen *s = arg;

    (void)peer, (void)user;
    return ++s->up > 3;
}

static void test_admitted_at_last(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf c = conf_of(b, MAILBOX_ROUTER, true, &b->r);

    c.allow = allow_later;
    assert_null(mailbox_open(b->base, &c, &b->router));
    open_dealer(b);
    run_until(b, &b->d.up, 1);
    assert_int_equal(b->r.up, 4);
    assert_null(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("x")));
    run_until(b, &b->r.n, 1);
}

/* ---- publish and subscribe ---- */

static void test_pub_sub_topics(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf pub = conf_of(b, MAILBOX_XPUB, true, &b->r);
    struct mailbox_conf sub = conf_of(b, MAILBOX_SUB, false, &b->d);

    assert_null(mailbox_open(b->base, &pub, &b->router));
    assert_null(mailbox_open(b->base, &sub, &b->dealer));
    assert_null(mailbox_subscribe(b->dealer, SLICE_LIT("dst/")));
    run_until(b, &b->r.n, 1);
    assert_string_equal(b->r.body, "\1dst/");
    assert_null(mailbox_send(b->router, SLICE_LIT("other"), SLICE_LIT("no")));
    assert_null(mailbox_send(b->router, SLICE_LIT("dst/a:1"), slice("b\0c", 3)));
    run_until(b, &b->d.n, 1);
    assert_string_equal(b->d.topic, "dst/a:1");
    assert_int_equal(b->d.last_bytes, 3);
    assert_null(mailbox_send(b->router, SLICE_LIT("dst/"), SLICE_LIT("")));
    run_until(b, &b->d.n, 2);
    assert_int_equal(b->d.last_bytes, 0);
    assert_ptr_equal(mailbox_send(b->router, slice("a\0b", 3), SLICE_LIT("x")), ERR_OF(MALFORMED));
    assert_null(mailbox_unsubscribe(b->dealer, SLICE_LIT("dst/")));
    run_until(b, &b->r.n, 2);
    assert_int_equal(b->r.body[0], 0);
}

static void test_xsub_subscribes_by_message(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf pub = conf_of(b, MAILBOX_XPUB, true, &b->r);
    struct mailbox_conf sub = conf_of(b, MAILBOX_XSUB, false, &b->d);

    assert_null(mailbox_open(b->base, &pub, &b->router));
    assert_null(mailbox_open(b->base, &sub, &b->dealer));
    assert_null(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("\1metrics/")));
    run_until(b, &b->r.n, 1);
    assert_string_equal(b->r.body, "\1metrics/");
    assert_null(mailbox_send(b->router, SLICE_LIT("metrics/a"), SLICE_LIT("1")));
    run_until(b, &b->d.n, 1);
    assert_string_equal(b->d.topic, "metrics/a");
    assert_string_equal(b->d.body, "1");
}

static void test_topicless_frame_dropped(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf sub = conf_of(b, MAILBOX_SUB, true, &b->d);
    void *ctx = zmq_ctx_new(), *pub = zmq_socket(ctx, ZMQ_XPUB);
    uint64_t before = mailbox_count()->dropped_malformed;
    int linger = 0;
    char got[8];

    zmq_setsockopt(pub, ZMQ_LINGER, &linger, sizeof(linger));
    assert_null(mailbox_open(b->base, &sub, &b->dealer));
    assert_null(mailbox_subscribe(b->dealer, SLICE_LIT("")));
    assert_int_equal(zmq_connect(pub, b->ipc), 0);
    while (zmq_recv(pub, got, sizeof(got), ZMQ_DONTWAIT) < 0)
        run_ms(b, 5);
    assert_int_equal(zmq_send(pub, "no nul", 6, 0), 6);
    assert_int_equal(zmq_send(pub, "t\0ok", 4, 0), 4);
    run_until(b, &b->d.n, 1);
    assert_string_equal(b->d.body, "ok");
    assert_int_equal(mailbox_count()->dropped_malformed, before + 1);
    zmq_close(pub);
    zmq_ctx_term(ctx);
}

/* ---- CURVE ---- */

struct keys {
    char server_pub[MAILBOX_KEY_TEXT], server_sec[MAILBOX_KEY_TEXT];
    char client_pub[MAILBOX_KEY_TEXT], client_sec[MAILBOX_KEY_TEXT];
    unsigned asked;
};
static struct keys keys;

static bool allow_key(void *arg, const struct mailbox_peer *peer, char user[64])
{
    (void)arg;
    keys.asked++;
    assert_false(peer->is_ipc);
    assert_string_equal(peer->address, "127.0.0.1");
    (void)snprintf(user, 64, "known");
    return strcmp(peer->key, keys.client_pub) == 0;
}

static void open_curve_router(struct bench *b)
{
    struct mailbox_conf c = conf_of(b, MAILBOX_ROUTER, true, &b->r);
    char pub[MAILBOX_KEY_TEXT];

    memset(&keys, 0, sizeof(keys));
    assert_null(mailbox_keypair(keys.server_pub, keys.server_sec));
    assert_null(mailbox_keypair(keys.client_pub, keys.client_sec));
    assert_null(mailbox_public_of(keys.server_sec, pub));
    assert_string_equal(pub, keys.server_pub);
    c.endpoint = "tcp://127.0.0.1:*";
    c.allow = allow_key;
    assert_ptr_equal(mailbox_open(b->base, &c, &b->router), ERR_OF(BAD_SETTING)); /* no key */
    c.secret_key = keys.server_sec;
    assert_null(mailbox_open(b->base, &c, &b->router));
}

static struct mailbox_conf curve_dealer(struct bench *b)
{
    struct mailbox_conf c = conf_of(b, MAILBOX_DEALER, false, &b->d);

    c.endpoint = mailbox_endpoint(b->router);
    c.secret_key = keys.client_sec;
    c.public_key = keys.client_pub;
    c.server_key = keys.server_pub;
    return c;
}

static void test_curve_good_key(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf c;

    open_curve_router(b);
    c = curve_dealer(b);
    assert_null(mailbox_open(b->base, &c, &b->dealer));
    run_until(b, &b->d.up, 1);
    assert_null(mailbox_send(b->dealer, SLICE_LIT(""), SLICE_LIT("x")));
    run_until(b, &b->r.n, 1);
    assert_string_equal(b->r.user, "known");
}

static void test_curve_unknown_client(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf c;
    char pub[MAILBOX_KEY_TEXT], sec[MAILBOX_KEY_TEXT];

    open_curve_router(b);
    assert_null(mailbox_keypair(pub, sec));
    c = curve_dealer(b);
    c.public_key = pub;
    c.secret_key = sec;
    assert_null(mailbox_open(b->base, &c, &b->dealer));
    run_until(b, &keys.asked, 1);
    run_ms(b, 50);
    assert_int_equal(b->d.up, 0);
}

static void test_curve_wrong_server_key(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf c;

    open_curve_router(b);
    c = curve_dealer(b);
    c.server_key = keys.client_pub;
    assert_null(mailbox_open(b->base, &c, &b->dealer));
    run_ms(b, 300);
    assert_int_equal(b->d.up, 0);
    assert_int_equal(keys.asked, 0); /* it never came as far as the question */
}

static void test_curve_plain_client(void **state)
{
    struct bench *b = *state;
    void *ctx = zmq_ctx_new(), *plain = zmq_socket(ctx, ZMQ_DEALER);
    int linger = 0;

    zmq_setsockopt(plain, ZMQ_LINGER, &linger, sizeof(linger));
    open_curve_router(b);
    assert_int_equal(zmq_connect(plain, mailbox_endpoint(b->router)), 0);
    assert_int_equal(zmq_send(plain, "x", 1, 0), 1);
    run_ms(b, 300);
    assert_int_equal(b->r.n, 0);
    zmq_close(plain);
    zmq_ctx_term(ctx);
}

static void test_bad_keys_and_endpoints(void **state)
{
    struct bench *b = *state;
    struct mailbox_conf c = conf_of(b, MAILBOX_DEALER, false, &b->d);
    char pub[MAILBOX_KEY_TEXT];
    static const char *const bad[] = {"", "tcp", "udp://127.0.0.1:1", "inproc://x", "ipc://", "ipc://x",
                                      "ipc://@abstract", "tcp://127.0.0.1:1"};

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        c.endpoint = bad[i];
        assert_ptr_equal(mailbox_open(b->base, &c, &b->dealer), ERR_OF(BAD_SETTING));
    }
    c.endpoint = "tcp://127.0.0.1:1";
    c.secret_key = c.public_key = c.server_key = "too short";
    assert_ptr_equal(mailbox_open(b->base, &c, &b->dealer), ERR_OF(BAD_SETTING));
    assert_ptr_equal(mailbox_public_of("short", pub), ERR_OF(MALFORMED));
    assert_ptr_equal(mailbox_public_of("\"\"\"\"\"aaaaabbbbbcccccdddddeeeeefffffggggg\"\"", pub),
                     ERR_OF(MALFORMED));
    assert_null(b->dealer);
}

static _Atomic unsigned ran;

static void count_run(void *arg)
{
    (void)arg;
    assert_int_not_equal(gettid(), getpid());
    ran++;
}

static void test_each_thread(void **state)
{
    struct bench *b = *state;

    assert_null(mailbox_prepare(b->base));
    for (unsigned i = 1; i <= 5; i++) {
        assert_null(mailbox_each_thread(count_run, NULL));
        assert_int_equal(ran, 2 * i);
    }
}

static void test_shutdown_closes_what_is_open(void **state)
{
    struct bench *b = *state;

    open_both(b);
    mailbox_shutdown();
    b->router = b->dealer = NULL; /* gone with it */
    assert_int_equal(access(b->ipc + 6, F_OK), -1);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_round_trip),
        CASE(test_many_messages_one_edge),
        CASE(test_sends_swallow_no_message),
        CASE(test_burst_is_bounded),
        CASE(test_router_full_and_gone),
        CASE(test_dealer_not_connected),
        CASE(test_multipart_dropped),
        CASE(test_zap_refuses),
        CASE(test_zap_names_the_user),
        CASE(test_peer_restart),
        CASE(test_rebind_keeps_the_file),
        CASE(test_stale_socket_file),
        CASE(test_close_inside_on_msg),
        CASE(test_oversize),
        CASE(test_oversize_to_the_connector),
        CASE(test_admitted_at_last),
        CASE(test_pub_sub_topics),
        CASE(test_xsub_subscribes_by_message),
        CASE(test_topicless_frame_dropped),
        CASE(test_curve_good_key),
        CASE(test_curve_unknown_client),
        CASE(test_curve_wrong_server_key),
        CASE(test_curve_plain_client),
        CASE(test_bad_keys_and_endpoints),
        CASE(test_each_thread),
        CASE(test_shutdown_closes_what_is_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
