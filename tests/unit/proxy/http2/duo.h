/* Our HTTP/2 client codec and our server codec at the two ends of a socket pair, both in one
 * loop. */
#ifndef TESTS_UNIT_PROXY_HTTP2_DUO_H
#define TESTS_UNIT_PROXY_HTTP2_DUO_H

#include "tests/unit/proxy/http/rig.h"

struct duo {
    struct rig f; /* server role; owns loop and net */
    struct rig b; /* client role */
};

static inline void duo_start_with(struct duo *d, struct http_limits limits)
{
    struct http_back_conf conf = {.limits = rig_limits(),
                                  .on_retired = rig_on_retired,
                                  .on_closed = rig_on_back_closed,
                                  .arg = &d->b};

    rig_server(&d->f, http2_server_start, limits);
    memset(&d->b, 0, sizeof(d->b));
    d->b.credits = true;
    d->b.net = d->f.net;
    d->b.base = d->f.base;
    buf_init(&d->b.log, 0);
    buf_init(&d->b.body, 0);
    arena_init(&d->b.arena, 0);
    assert_true(conn_accepted(d->f.net, d->f.fd, &d->b.c) == OK);
    d->f.fd = -1;
    d->f.peer_sees_end = true;
    assert_true(http2_client_start(d->b.c, &conf, &d->b.b) == OK);
    rig_run(&d->f);
}

static inline void duo_start(struct duo *d)
{
    duo_start_with(d, rig_limits());
}

static inline void duo_done(struct duo *d)
{
    rig_done(&d->f);
    assert_true(d->b.is_closed);
    buf_done(&d->b.log);
    buf_done(&d->b.body);
    arena_done(&d->b.arena);
}

static inline void run(struct duo *d)
{
    for (int i = 0; i < 20; i++)
        rig_run(&d->f);
}

static inline struct stream *ask(struct duo *d, const char *method, const char *path,
                                 bool is_end)
{
    struct head h;

    d->b.s = http_back_open(d->b.b, &d->b.arena, &rig_events, &d->b);
    assert_non_null(d->b.s);
    d->b.is_live = true;
    d->b.is_ended = false;
    head_init(&h);
    h.method = slice_str(method);
    h.is_connect = strcmp(method, "CONNECT") == 0;
    h.path = slice_str(h.is_connect ? "" : path);
    h.authority = SLICE_LIT("web:8080");
    h.accepts_trailers = !h.is_connect;
    assert_true(head_add(&h, &d->b.arena, SLICE_LIT("X-Mixed"), SLICE_LIT("Value")) == OK);
    assert_true(head_add(&h, &d->b.arena, SLICE_LIT("Connection"), SLICE_LIT("close")) == OK);
    assert_true(head_add(&h, &d->b.arena, SLICE_LIT("Host"), SLICE_LIT("other")) == OK);
    d->b.s->ops->send_head(d->b.s, &h, is_end);
    return d->b.s;
}

#endif
