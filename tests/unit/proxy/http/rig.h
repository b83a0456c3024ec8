/* A codec on a real conn, the test at the other end of a socket pair.
 *
 * The rig stands in for the exchange: it writes down every event as text in `log` and may act on requests
 * through `on_request`. Everything runs in one loop that is turned until something is true or nothing
 * happens any more. */
#ifndef TESTS_UNIT_PROXY_HTTP_RIG_H
#define TESTS_UNIT_PROXY_HTTP_RIG_H

#include "kit/buf.h"
#include "proxy/http/stream.h"
#include "proxy/net/conn.h"

#include <stdarg.h>
#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RIG_TURNS 200

struct rig {
    struct event_base *base;
    struct net *net;
    struct conn *c;
    int fd;              /* the peer's end */
    bool peer_sees_end;  /* EOF or reset at the peer's end */
    bool peer_was_reset;
    struct buf in;       /* what the peer received and the test has not taken */
    struct buf log;      /* events, one a line */
    struct buf body;     /* content of on_body, of all streams */
    struct stream *s;    /* the last stream begun (front) or opened (back) */
    struct head *head;   /* its last head */
    bool is_live;        /* `s` may be used */
    bool is_ended;       /* the peer's message has ended */
    bool is_crowd;       /* many streams at once: `s` is only the last */
    unsigned begun, failed, refused, ended;
    size_t sent;         /* sum of on_sent */
    bool credits;        /* give credit at once (default) */
    struct stream_failure failure;
    const char *refused_code;
    bool is_closed;      /* the codec said on_closed */
    int close_reason;
    struct http_back *b;
    bool is_retired;
    struct arena arena;  /* of back streams */
    void (*on_request)(struct rig *r); /* the head of a request is there */
    void (*on_done)(struct rig *r);    /* and all of it */
};

static inline void PRINTF_LIKE(2, 3) rig_note(struct rig *r, const char *fmt, ...)
{
    char line[512];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    assert_true(buf_printf(&r->log, "%s\n", line) == OK);
}

static inline void rig_on_head(void *arg, struct stream *s, struct head *h, bool is_end)
{
    struct rig *r = arg;

    r->s = s;
    r->head = h;
    if (s->is_front)
        rig_note(r, "head %.*s %.*s%s", SLICE_FMT(h->method),
                 SLICE_FMT(h->is_connect ? h->authority : h->path), is_end ? " end" : "");
    else
        rig_note(r, "head %u%s", h->status, is_end ? " end" : "");
    r->is_ended = is_end;
    if (r->on_request != NULL)
        r->on_request(r);
    if (is_end && r->is_live && r->on_done != NULL)
        r->on_done(r);
}

static inline void rig_on_body(void *arg, struct stream *s, slice_t bytes, bool is_end)
{
    struct rig *r = arg;

    assert_true(r->is_crowd || s == r->s);
    assert_true(buf_add_slice(&r->body, bytes) == OK);
    if (is_end) {
        rig_note(r, "end");
        r->is_ended = true;
        r->ended++;
    }
    if (r->credits && bytes.n > 0)
        s->ops->credit(s, bytes.n);
    if (is_end && r->is_live && r->on_done != NULL)
        r->on_done(r);
}

static inline void rig_on_trailers(void *arg, struct stream *s, struct field *fields, size_t n)
{
    struct rig *r = arg;

    (void)s;
    for (size_t i = 0; i < n; i++)
        if (!fields[i].is_removed)
            rig_note(r, "trailer %.*s=%.*s", SLICE_FMT(fields[i].name), SLICE_FMT(fields[i].value));
    rig_note(r, "end");
    r->is_ended = true;
    if (r->is_live && r->on_done != NULL)
        r->on_done(r);
}

static inline void rig_on_sent(void *arg, struct stream *s, size_t n)
{
    (void)s;
    ((struct rig *)arg)->sent += n;
}

static inline void rig_on_failed(void *arg, struct stream *s, const struct stream_failure *f)
{
    struct rig *r = arg;

    if (s == r->s)
        r->is_live = false;
    r->failed++;
    r->failure = *f;
    rig_note(r, "failed %d%s%s", (int)f->error, f->code != NULL ? " " : "",
             f->code != NULL ? f->code : "");
}

static const struct stream_events rig_events = {rig_on_head, rig_on_body, rig_on_trailers,
                                                rig_on_sent, rig_on_failed};

static inline void rig_on_stream(void *arg, struct stream *s)
{
    struct rig *r = arg;

    s->events = &rig_events;
    s->arg = r;
    r->s = s;
    r->is_live = true;
    r->is_ended = false;
    r->begun++;
}

static inline void rig_on_refused(void *arg, struct conn *c, const char *code)
{
    struct rig *r = arg;

    (void)c;
    r->refused++;
    r->refused_code = code;
    rig_note(r, "refused %s", code);
}

static inline void rig_on_front_closed(void *arg, struct conn *c, int why)
{
    struct rig *r = arg;

    (void)c;
    r->is_closed = true;
    r->close_reason = why;
    r->c = NULL;
}

static inline void rig_on_back_closed(void *arg, struct http_back *b, int why)
{
    struct rig *r = arg;

    (void)b;
    r->b = NULL;
    rig_on_front_closed(arg, NULL, why);
}

static inline void rig_on_retired(void *arg, struct http_back *b)
{
    (void)b;
    ((struct rig *)arg)->is_retired = true;
}

static inline struct http_limits rig_limits(void)
{
    return (struct http_limits){
        .head_max = 16384, .fields_max = 100, .header_timeout_ms = 10000, .streams_max = 100};
}

static inline void rig_pull(struct rig *r)
{
    static uint8_t bytes[65536];
    ssize_t got;

    while (!r->peer_sees_end && (got = recv(r->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) != 0) {
        if (got < 0) {
            r->peer_sees_end = r->peer_was_reset = errno == ECONNRESET || errno == EPIPE;
            return;
        }
        assert_true(buf_add(&r->in, bytes, (size_t)got) == OK);
    }
    r->peer_sees_end = true;
}

/* Turns the loop until everybody is quiet. */
static inline void rig_run(struct rig *r)
{
    for (int i = 0, quiet = 0; i < RIG_TURNS && quiet < 3; i++) {
        size_t had = buf_len(&r->in) + buf_len(&r->log) + buf_len(&r->body);

        assert_true(event_base_loop(r->base, EVLOOP_NONBLOCK) >= 0);
        rig_pull(r);
        quiet = had == buf_len(&r->in) + buf_len(&r->log) + buf_len(&r->body) ? quiet + 1 : 0;
    }
}

/* Sends everything, turning the loop when the socket is full. */
static inline void rig_send(struct rig *r, const void *p, size_t n)
{
    const uint8_t *at = p;

    for (int i = 0; n > 0 && i < 10000; i++) {
        ssize_t put = send(r->fd, at, n, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (put > 0) {
            at += put;
            n -= (size_t)put;
        } else if (errno != EAGAIN) {
            break; /* the codec has closed: what the test looks at */
        } else {
            assert_true(event_base_loop(r->base, EVLOOP_NONBLOCK) >= 0);
        }
    }
    rig_run(r);
}

static inline void rig_say(struct rig *r, const char *text)
{
    rig_send(r, text, strlen(text));
}

/* What the peer received so far, with a NUL; and it is forgotten. */
static inline const char *rig_take(struct rig *r)
{
    static char text[1 << 20];
    slice_t s = buf_slice(&r->in);

    assert_true(s.n < sizeof(text));
    if (s.n > 0)
        memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    buf_consume(&r->in, s.n);
    return text;
}

static inline const char *rig_log(struct rig *r)
{
    static char text[1 << 16];
    slice_t s = buf_slice(&r->log);

    assert_true(s.n < sizeof(text));
    if (s.n > 0)
        memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    buf_consume(&r->log, s.n);
    return text;
}

static inline void rig_pair(struct rig *r)
{
    int fds[2];

    memset(r, 0, sizeof(*r));
    r->credits = true;
    r->base = event_base_new();
    assert_non_null(r->base);
    assert_true(net_new(&(struct net_conf){.base = r->base}, &r->net) == OK);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    r->fd = fds[1];
    assert_true(conn_accepted(r->net, fds[0], &r->c) == OK);
    buf_init(&r->in, 0);
    buf_init(&r->log, 0);
    buf_init(&r->body, 0);
    arena_init(&r->arena, 0);
}

typedef err_t rig_server_start(struct conn *c, const struct http_front *front);
typedef err_t rig_client_start(struct conn *c, const struct http_back_conf *conf,
                               struct http_back **out);

static inline void rig_server(struct rig *r, rig_server_start *start, struct http_limits limits)
{
    rig_pair(r);
    assert_true(start(r->c, &(struct http_front){.limits = limits,
                                                 .on_stream = rig_on_stream,
                                                 .on_refused = rig_on_refused,
                                                 .on_closed = rig_on_front_closed,
                                                 .arg = r}) == OK);
}

static inline void rig_client(struct rig *r, rig_client_start *start, struct http_limits limits)
{
    rig_pair(r);
    assert_true(start(r->c,
                      &(struct http_back_conf){.limits = limits,
                                               .on_retired = rig_on_retired,
                                               .on_closed = rig_on_back_closed,
                                               .arg = r},
                      &r->b) == OK);
}

static inline void rig_done(struct rig *r)
{
    net_free(&r->net);
    assert_true(r->is_closed);
    if (r->fd >= 0)
        (void)close(r->fd);
    buf_done(&r->in);
    buf_done(&r->log);
    buf_done(&r->body);
    arena_done(&r->arena);
    event_base_free(r->base);
}

/* ---- acting ---- */

static inline void rig_answer(struct rig *r, uint16_t status, const char *body, int64_t length)
{
    struct head h;
    size_t n = body != NULL ? strlen(body) : 0;

    head_init(&h);
    h.status = status;
    h.content_length = length;
    r->s->ops->send_head(r->s, &h, body == NULL);
    if (body != NULL)
        r->s->ops->send_body(r->s, slice(body, n), true);
}

static inline void rig_release(struct rig *r)
{
    r->is_live = false;
    r->s->ops->release(r->s);
}

/* 200 with what the request said, then release: as on_done. */
static inline void rig_echo(struct rig *r)
{
    char text[64];

    (void)snprintf(text, sizeof(text), "%.*s", SLICE_FMT(r->head->path));
    rig_answer(r, 200, text, (int64_t)strlen(text));
    rig_release(r);
}

static inline void rig_ok(struct rig *r)
{
    rig_answer(r, 200, NULL, 0);
    rig_release(r);
}

#endif
