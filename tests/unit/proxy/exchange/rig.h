/* A worker in a test: one loop with the worker, a fake weft-link and a fake weft-retry on real
 * mailboxes, servers that follow a script, and clients. Nothing sleeps: rig_until runs the loop
 * until something is true. */
#ifndef TEST_PROXY_RIG_H
#define TEST_PROXY_RIG_H

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "model/route.h"
#include "proxy/balance/balance.h"
#include "proxy/discover/discover.h"
#include "proxy/exchange/ask.h"
#include "proxy/front.h"
#include "proxy/worker.h"
#include "wire/wire.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define RIG_SERVERS 4

struct rig_server {
    struct rig *rig;
    struct evconnlistener *listener;
    uint16_t port;
    unsigned connections, requests;
    /* Called with a whole head and Content-Length content; the answer is written to `out`.
     * False: close after it. */
    bool (*answer)(struct rig_server *s, const char *head, const char *body,
                   struct evbuffer *out);
    /* Called whenever only a part of the content is there. False: the connection is reset. May be NULL. */
    bool (*partial)(struct rig_server *s, size_t have, size_t want);
    char last_head[8192], last_body[65536];
};

struct rig {
    struct event_base *base;
    struct settings settings;
    struct worker *worker;
    char dir[64], link_at[128], retry_at[128];
    int listen_fd;
    uint16_t port; /* of the proxy */
    struct mailbox *link, *retry;
    char link_peer[64];
    size_t link_peer_n;
    struct rig_server servers[RIG_SERVERS];
    /* fake link: fills the view of a target */
    void (*view)(struct rig *r, struct wire_destination *d);
    unsigned resolves, applied;
    uint64_t applied_revision;
    /* fake retry */
    bool (*verdict)(struct rig *r, const struct wire_retry_ask *q, uint32_t *after_ms,
                    const char **stop);
    unsigned asks, cancels;
    struct wire_retry_ask last_ask;
    uint32_t settled_requests, settled_successes;
};

static inline void rig_step(struct rig *r)
{
    clock_turn();
    (void)event_base_loop(r->base, EVLOOP_ONCE);
}

static inline void rig_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
}

/* Runs the loop until the claim is true; fails after 5 s. */
#define rig_until(r, claim)                                                                    \
    do {                                                                                       \
        uint64_t rig_end_ = clock_read_us() + 5000000;                                         \
        struct event *rig_ev_ = event_new((r)->base, -1, EV_PERSIST, rig_tick, NULL);          \
        struct timeval rig_tv_ = {0, 5000};                                                    \
        event_add(rig_ev_, &rig_tv_);                                                          \
        while (!(claim)) {                                                                     \
            if (clock_read_us() > rig_end_)                                                    \
                fail_msg("not in time: %s", #claim);                                           \
            rig_step(r);                                                                       \
        }                                                                                      \
        event_free(rig_ev_);                                                                   \
    } while (0)

/* ---- servers ---- */

static inline void rig_server_read(struct bufferevent *bev, void *arg)
{
    struct rig_server *s = arg;
    struct evbuffer *in = bufferevent_get_input(bev);

    for (;;) {
        struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
        size_t n = 0;
        char *at;

        if (end.pos < 0)
            return;
        assert_true((size_t)end.pos + 5 < sizeof(s->last_head));
        (void)evbuffer_copyout(in, s->last_head, (size_t)end.pos + 4);
        s->last_head[end.pos + 4] = 0;
        at = strcasestr(s->last_head, "content-length:");
        if (at != NULL)
            n = (size_t)atol(at + 15);
        if (evbuffer_get_length(in) < (size_t)end.pos + 4 + n) {
            const struct linger reset = {1, 0};

            if (s->partial == NULL || s->partial(s, evbuffer_get_length(in) - (size_t)end.pos - 4, n))
                return;
            (void)setsockopt(bufferevent_getfd(bev), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
            bufferevent_free(bev);
            return;
        }
        evbuffer_drain(in, (size_t)end.pos + 4);
        assert_true(n < sizeof(s->last_body));
        (void)evbuffer_remove(in, s->last_body, n);
        s->last_body[n] = 0;
        s->requests++;
        if (!s->answer(s, s->last_head, s->last_body, bufferevent_get_output(bev))) {
            (void)evbuffer_unfreeze(bufferevent_get_output(bev), 1); /* it writes from the loop only */
            (void)evbuffer_write(bufferevent_get_output(bev), bufferevent_getfd(bev));
            shutdown(bufferevent_getfd(bev), SHUT_WR);
            bufferevent_free(bev);
            return;
        }
    }
}

static inline void rig_server_event(struct bufferevent *bev, short what, void *arg)
{
    (void)arg;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        bufferevent_free(bev);
}

static inline void rig_server_accept(struct evconnlistener *l, evutil_socket_t fd,
                                     struct sockaddr *sa, int n, void *arg)
{
    struct rig_server *s = arg;
    struct bufferevent *bev = bufferevent_socket_new(s->rig->base, fd, BEV_OPT_CLOSE_ON_FREE);

    (void)l, (void)sa, (void)n;
    s->connections++;
    bufferevent_setcb(bev, rig_server_read, NULL, rig_server_event, s);
    bufferevent_enable(bev, EV_READ | EV_WRITE);
}

static inline bool rig_ok(struct rig_server *s, const char *head, const char *body,
                          struct evbuffer *out)
{
    (void)head;
    evbuffer_add_printf(out, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nX-Server: %d\r\n\r\n%s",
                        strlen(body), (int)(s - s->rig->servers), body);
    return true;
}

static inline bool rig_unavailable(struct rig_server *s, const char *head, const char *body,
                                   struct evbuffer *out)
{
    (void)s, (void)head, (void)body;
    evbuffer_add_printf(out, "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
    return true;
}

static inline bool rig_silent(struct rig_server *s, const char *head, const char *body,
                              struct evbuffer *out)
{
    (void)s, (void)head, (void)body, (void)out;
    return true;
}

static inline bool rig_slams(struct rig_server *s, const char *head, const char *body,
                             struct evbuffer *out)
{
    (void)s, (void)head, (void)body, (void)out;
    return false;
}

static inline uint16_t rig_bind(int *out)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 &&
                listen(fd, 64) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    *out = fd;
    return ntohs(a.sin_port);
}

/* ---- fake processes ---- */

static inline void rig_send_view(struct rig *r, slice_t to, uint64_t id, slice_t target)
{
    struct wire_destination d = {.id = id, .target = target, .revision = 1};

    r->view(r, &d);
    assert_true(WIRE_SEND(r->link, to, destination, &d) == OK);
}

static inline void rig_on_link(void *arg, const struct mailbox_msg *msg)
{
    struct rig *r = arg;
    struct wire_msg m;

    assert_true(wire_decode(msg->body, WIRE_ROLE_PROXY, WIRE_ROLE_LINK, &m) == OK);
    memcpy(r->link_peer, msg->from.p, msg->from.n);
    r->link_peer_n = msg->from.n;
    if (wire_as(resolve, &m) != NULL) {
        r->resolves++;
        if (r->view != NULL)
            rig_send_view(r, msg->from, m.body.resolve.id, m.body.resolve.target);
    } else if (wire_as(applied, &m) != NULL) {
        r->applied++;
        r->applied_revision = m.body.applied.revision;
    }
    wire_msg_done(&m);
}

static inline void rig_on_retry(void *arg, const struct mailbox_msg *msg)
{
    struct rig *r = arg;
    struct wire_msg m;
    uint32_t after = 0;
    const char *stop = "";

    assert_true(wire_decode(msg->body, WIRE_ROLE_PROXY, WIRE_ROLE_RETRY, &m) == OK);
    if (wire_as(retry_settle, &m) != NULL) {
        r->settled_requests += m.body.retry_settle.requests;
        r->settled_successes += m.body.retry_settle.successes;
    } else if (wire_as(retry_cancel, &m) != NULL) {
        r->cancels++;
    } else if (wire_as(retry_ask, &m) != NULL) {
        r->asks++;
        r->last_ask = m.body.retry_ask; /* numbers only: the texts go with the message */
        if (r->verdict == NULL) {
            /* says nothing */
        } else if (r->verdict(r, &m.body.retry_ask, &after, &stop)) {
            struct wire_retry_go go = {.id = m.body.retry_ask.id, .after_ms = after};

            assert_true(WIRE_SEND(r->retry, msg->from, retry_go, &go) == OK);
        } else {
            struct wire_retry_stop s = {.id = m.body.retry_ask.id, .reason = slice_str(stop)};

            assert_true(WIRE_SEND(r->retry, msg->from, retry_stop, &s) == OK);
        }
    }
    wire_msg_done(&m);
}

static inline bool rig_go(struct rig *r, const struct wire_retry_ask *q, uint32_t *after,
                          const char **stop)
{
    (void)r, (void)q, (void)stop;
    *after = 5;
    return true;
}

static inline bool rig_stop(struct rig *r, const struct wire_retry_ask *q, uint32_t *after,
                            const char **stop)
{
    (void)r, (void)q, (void)after;
    *stop = "BUDGET";
    return false;
}

/* ---- up and down ---- */

/* `base` is the program's: all mailboxes of a process live on one. */
static inline void rig_up(struct rig *r, struct event_base *base, const char *target)
{
    static char why[200];
    struct mailbox_conf lc, rc;
    struct worker_conf wc;

    memset(r, 0, sizeof(*r));
    (void)snprintf(r->dir, sizeof(r->dir), "/tmp/weft-rig-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    (void)snprintf(r->link_at, sizeof(r->link_at), "ipc://%s/link.sock", r->dir);
    (void)snprintf(r->retry_at, sizeof(r->retry_at), "ipc://%s/retry.sock", r->dir);
    r->base = base;
    assert_true(settings_load(&r->settings, why) == OK);
    r->settings.outbound_only_for = target;
    r->settings.failfast_timeout = 400;
    for (int i = 0; i < RIG_SERVERS; i++) {
        struct rig_server *s = &r->servers[i];
        int fd;

        s->rig = r;
        s->answer = rig_ok;
        s->port = rig_bind(&fd);
        s->listener =
            evconnlistener_new(r->base, rig_server_accept, s, LEV_OPT_CLOSE_ON_FREE, 0, fd);
        assert_non_null(s->listener);
    }
    lc = (struct mailbox_conf){.kind = MAILBOX_ROUTER,
                               .name = "link",
                               .endpoint = r->link_at,
                               .bind = true,
                               .allow = mailbox_allow_same_uid,
                               .on_msg = rig_on_link,
                               .arg = r};
    assert_true(mailbox_open(r->base, &lc, &r->link) == OK);
    rc = (struct mailbox_conf){.kind = MAILBOX_ROUTER,
                               .name = "retry",
                               .endpoint = r->retry_at,
                               .bind = true,
                               .allow = mailbox_allow_same_uid,
                               .on_msg = rig_on_retry,
                               .arg = r};
    assert_true(mailbox_open(r->base, &rc, &r->retry) == OK);
    wc = (struct worker_conf){.base = r->base,
                              .settings = &r->settings,
                              .link = r->link_at,
                              .retry = r->retry_at,
                              .identity = "",
                              .process = "weft-proxy-0",
                              .series_fd = -1,
                              .limits_fd = -1};
    assert_true(worker_new(&wc, &r->worker) == OK);
    r->port = rig_bind(&r->listen_fd);
    assert_true(worker_listen(r->worker, r->listen_fd, DIRECTION_OUTBOUND) == OK);
    rig_until(r, discover_is_linked(r->worker->discover) && asks_is_linked(r->worker->asks));
}

static inline void rig_down(struct rig *r)
{
    char path[160];

    worker_free(&r->worker);
    mailbox_close(&r->link);
    mailbox_close(&r->retry);
    for (int i = 0; i < RIG_SERVERS; i++)
        evconnlistener_free(r->servers[i].listener);
    for (int i = 0; i < 50; i++) /* connections of the servers see the end */
        (void)event_base_loop(r->base, EVLOOP_NONBLOCK);
    close(r->listen_fd);
    (void)snprintf(path, sizeof(path), "%s/link.sock", r->dir);
    unlink(path);
    (void)snprintf(path, sizeof(path), "%s/retry.sock", r->dir);
    unlink(path);
    rmdir(r->dir);
}

/* ---- clients ---- */

struct rig_client {
    int fd;
    size_t n;
    bool is_closed, is_reset;
    char got[65536];
};

static inline void rig_connect(struct rig *r, struct rig_client *c)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(r->port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    c->n = 0;
    c->is_closed = c->is_reset = false;
    assert_int_equal(connect(c->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(fcntl(c->fd, F_SETFL, O_NONBLOCK), 0);
}

static inline void rig_say(struct rig_client *c, const char *text)
{
    assert_int_equal(send(c->fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Reads what is there; true if `part` has come or the connection has ended. */
static inline bool rig_has(struct rig_client *c, const char *part)
{
    while (!c->is_closed) {
        ssize_t k = recv(c->fd, c->got + c->n, sizeof(c->got) - 1 - c->n, 0);

        if (k < 0 && errno == EAGAIN)
            break;
        if (k <= 0) {
            c->is_closed = true;
            c->is_reset = k < 0;
            break;
        }
        c->n += (size_t)k;
    }
    c->got[c->n] = 0;
    return strstr(c->got, part) != NULL || c->is_closed;
}

/* One request on a connection of its own; returns the answer's status. The whole answer is in
 * c->got. */
static inline int rig_ask(struct rig *r, struct rig_client *c, const char *request)
{
    char *end, *length;
    size_t want = 0;

    rig_connect(r, c);
    rig_say(c, request);
    rig_until(r, rig_has(c, "\r\n\r\n"));
    end = strstr(c->got, "\r\n\r\n");
    if (end == NULL) {
        close(c->fd);
        return 0;
    }
    length = strcasestr(c->got, "content-length:");
    if (length != NULL)
        want = (size_t)(end + 4 - c->got) + (size_t)atol(length + 15);
    rig_until(r, rig_has(c, "\1never") || c->n >= want);
    close(c->fd);
    return atoi(c->got + 9);
}

/* ---- what was counted, and what is left ---- */

struct rig_sum {
    enum series_family family;
    const char *part;
    uint64_t total;
};

static inline bool rig_add(void *arg, const struct series_view *v)
{
    struct rig_sum *s = arg;
    char text[SERIES_LABELS_MAX + 1];

    if (v->family == s->family && slice_to_cstr(v->labels, text, sizeof(text)) &&
        strstr(text, s->part) != NULL)
        s->total += v->values[0];
    return true;
}

/* The family's series whose labels contain `part`, added up. */
static inline uint64_t rig_counted(struct rig *r, enum series_family family, const char *part)
{
    struct rig_sum s = {.family = family, .part = part};

    series_collect(r->worker->series, true, rig_add, &s);
    return s.total;
}

static inline void rig_expect_nothing_left(struct rig *r)
{
    rig_until(r, r->worker->n_exchanges == 0);
    assert_int_equal(r->worker->replay_used, 0);
}

/* ---- views ---- */

static inline struct wire_endpoint rig_endpoint(uint16_t port)
{
    return (struct wire_endpoint){.ip = SLICE_LIT("127.0.0.1"), .port = port, .weight = 10000};
}

#endif
