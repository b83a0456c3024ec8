/* What the fuzz targets of both codecs share: a codec on one end of a socket pair, and an exchange that answers,
 * resets or ignores, by habit:
 *
 *   0 empty answer  1 with content  2 with trailers  3 reset  4 answers at the end  5 gives no credit
 *   6, 7 as 4 with an answer that asks to close
 *
 * MUST: no event comes after the last one of a stream, and every stream gets its last event. */
#ifndef TESTS_FUZZ_HTTP_WORLD_H
#define TESTS_FUZZ_HTTP_WORLD_H

#include "proxy/http/stream.h"
#include "proxy/net/conn.h"

#include <event2/event.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond))                                                                               \
            abort();                                                                               \
    } while (0)

#define LIVE_MAX 8

struct world {
    struct event_base *base;
    struct net *net;
    struct conn *conn;
    struct http_back *back;
    struct arena arena;
    int fd;
    unsigned habit;
    unsigned live;
};

static void end(struct world *w, struct stream *s)
{
    s->arg = NULL;
    MUST(w->live > 0);
    w->live--;
}

static void answer(struct world *w, struct stream *s)
{
    struct head h;

    head_init(&h);
    h.status = 200;
    h.is_keep_alive = w->habit < 6;
    switch (w->habit) {
    case 0:
        h.content_length = 0;
        s->ops->send_head(s, &h, true);
        break;
    case 1:
        s->ops->send_head(s, &h, false);
        s->ops->send_body(s, SLICE_LIT("hello"), true);
        break;
    case 2:
        s->ops->send_head(s, &h, false);
        s->ops->send_body(s, SLICE_LIT("hello"), false);
        s->ops->send_trailers(s, NULL, 0);
        break;
    case 3:
        end(w, s);
        s->ops->reset(s, STREAM_CANCELLED);
        return;
    default:
        s->ops->send_head(s, &h, false);
        s->ops->send_body(s, SLICE_LIT("late"), false);
        s->ops->send_body(s, slice(NULL, 0), true);
        break;
    }
    end(w, s);
    s->ops->release(s);
}

static void on_head(void *arg, struct stream *s, struct head *h, bool is_end)
{
    struct world *w = arg;

    MUST(w != NULL);
    for (size_t i = 0; i < h->n_fields; i++)
        MUST(http_is_field_value(h->fields[i].value));
    if (s->is_front)
        MUST(h->is_connect || http_is_path(h->path));
    if (s->is_front && (w->habit < 4 || is_end))
        answer(w, s);
    else if (!s->is_front && is_end) {
        end(w, s);
        s->ops->release(s);
    }
}

static void on_body(void *arg, struct stream *s, slice_t bytes, bool is_end)
{
    struct world *w = arg;

    MUST(w != NULL);
    if (bytes.n > 0 && w->habit != 5)
        s->ops->credit(s, bytes.n);
    if (!is_end)
        return;
    if (s->is_front) {
        answer(w, s);
    } else {
        end(w, s);
        s->ops->release(s);
    }
}

static void on_trailers(void *arg, struct stream *s, struct field *fields, size_t n)
{
    (void)fields, (void)n;
    on_body(arg, s, slice(NULL, 0), true);
}

static void on_sent(void *arg, struct stream *s, size_t n)
{
    (void)s, (void)n;
    MUST(arg != NULL);
}

static void on_failed(void *arg, struct stream *s, const struct stream_failure *f)
{
    MUST(arg != NULL && f->text != NULL);
    end(arg, s);
}

static const struct stream_events events = {on_head, on_body, on_trailers, on_sent, on_failed};

static void on_stream(void *arg, struct stream *s)
{
    s->events = &events;
    s->arg = arg;
    ((struct world *)arg)->live++;
}

static void on_front_closed(void *arg, struct conn *c, int why)
{
    (void)c, (void)why;
    ((struct world *)arg)->conn = NULL;
}

static void on_back_closed(void *arg, struct http_back *b, int why)
{
    struct world *w = arg;

    (void)b, (void)why;
    w->back = NULL;
    w->conn = NULL;
}

static void turn(struct world *w)
{
    uint8_t sink[65536];

    for (int i = 0; i < 3; i++)
        MUST(event_base_loop(w->base, EVLOOP_NONBLOCK) >= 0);
    while (recv(w->fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
        ;
}

static void say(struct world *w, const uint8_t *p, size_t n)
{
    while (n > 0 && w->conn != NULL) {
        ssize_t put = send(w->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (put > 0) {
            p += put;
            n -= (size_t)put;
        } else if (put < 0) {
            turn(w);
        }
    }
    turn(w);
}

static void ask(struct world *w)
{
    struct head h;

    head_init(&h);
    h.method = SLICE_LIT("POST");
    h.path = SLICE_LIT("/");
    h.authority = SLICE_LIT("a");
    for (int i = 0; i < 3 && w->back != NULL; i++) {
        struct stream *s = http_back_open(w->back, &w->arena, &events, w);

        if (s == NULL)
            return;
        w->live++;
        s->ops->send_head(s, &h, i == 0);
        if (i == 1)
            s->ops->send_body(s, SLICE_LIT("hello"), true);
    }
}

typedef err_t server_start_fn(struct conn *c, const struct http_front *front);
typedef err_t client_start_fn(struct conn *c, const struct http_back_conf *conf, struct http_back **out);

static void start(struct world *w, bool is_server, server_start_fn *server, client_start_fn *client)
{
    const struct http_limits limits = {
        .head_max = 4096, .fields_max = 20, .header_timeout_ms = 10000, .streams_max = LIVE_MAX};
    int fds[2];

    w->base = event_base_new();
    MUST(w->base != NULL && net_new(&(struct net_conf){.base = w->base}, &w->net) == OK);
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    w->fd = fds[1];
    arena_init(&w->arena, 0);
    MUST(conn_accepted(w->net, fds[0], &w->conn) == OK);
    if (is_server) {
        MUST(server(w->conn, &(struct http_front){.limits = limits,
                                                              .on_stream = on_stream,
                                                              .on_closed = on_front_closed,
                                                              .arg = w}) == OK);
    } else {
        MUST(client(w->conn,
                                &(struct http_back_conf){
                                    .limits = limits, .on_closed = on_back_closed, .arg = w},
                                &w->back) == OK);
        ask(w);
    }
}

static void finish(struct world *w)
{
    net_free(&w->net);
    MUST(w->live == 0 && w->conn == NULL);
    (void)close(w->fd);
    arena_done(&w->arena);
    event_base_free(w->base);
}

#endif
