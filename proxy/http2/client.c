/* HTTP/2 in the client role: slots, keep-alive PINGs, retirement. Answers are received in
 * blocks.c and receive.c. */
#include "proxy/http2/session.h"

#include "kit/clock.h"

#include <stdlib.h>

#define PING_WAIT_MS 3000
#define LAST_ID                                                                                \
    0x7fff0000 /* ids are not used again; a new connection is cheaper than the last of them */

static struct h2_session *session_of(struct http_back *b)
{
    return h2_session_from(CONTAINER_OF(b, struct h2_session, back));
}

static unsigned client_free_slots(const struct http_back *b)
{
    const struct h2_session *x = session_of((struct http_back *)(uintptr_t)b); /* only looks */
    uint32_t most = x->peer.streams_max;

    if (x->limits.streams_max != 0 && most > x->limits.streams_max)
        most = x->limits.streams_max;
    if (x->is_terminating || x->is_gone || conn_is_closing(x->conn))
        return 0;
    return most > x->running ? most - x->running : 0;
}

static struct stream *client_open(struct http_back *b, struct arena *arena,
                                  const struct stream_events *stream_events, void *arg)
{
    struct h2_session *x = session_of(b);
    struct h2_stream *st;
    bool was_idle = b->was_used && x->running == 0;

    if (client_free_slots(b) == 0)
        return NULL;
    if (x->last_id >= LAST_ID) {
        http_back_set_retired(b);
        h2_dirty(x);
        return NULL;
    }
    st = h2_stream_new(x);
    if (st == NULL)
        return NULL;
    st->is_held = true;
    st->began_used = was_idle;
    st->s.events = stream_events;
    st->s.arg = arg;
    st->s.arena = arena;
    b->was_used = true;
    b->running = x->running;
    return &st->s;
}

static void client_retire(struct http_back *b, int close_reason)
{
    struct h2_session *x = session_of(b);

    if (!x->is_terminating && !b->is_retired)
        x->close_why = (enum close_reason)close_reason;
    http_back_set_retired(b);
    h2_dirty(x); /* closes from the loop when nothing runs */
}

static const struct http_back_ops ops = {
    .open = client_open,
    .free_slots = client_free_slots,
    .retire = client_retire,
};

void h2_client_tick(struct h2_session *x, uint64_t now_ms)
{
    static const uint8_t ping[H2_PING_LEN] = {0};
    bool is_watched = x->running > 0 || (x->back.conf.ping_when_idle && x->ping_every_ms != 0);

    if (is_watched || x->block.is_open || !x->peer.has_come)
        h2_watch(x);
    if (!is_watched || x->is_terminating || x->ping_every_ms == 0)
        return;
    if (x->ping_sent_ms != 0) {
        if (now_ms - x->ping_sent_ms >= x->ping_wait_ms)
            conn_abort(x->conn, CLOSE_STALLED); /* frees the session */
        return;
    }
    if (now_ms - x->last_in_ms < x->ping_every_ms)
        return;
    h2_write_control(x, H2_PING, 0, 0, ping, sizeof(ping));
    x->ping_sent_ms = now_ms;
}

err_t http2_client_start(struct conn *c, const struct http_back_conf *conf,
                         struct http_back **out)
{
    struct h2_session *x = calloc(1, sizeof(*x));
    err_t e;

    if (x == NULL)
        return ERR_OF(NOMEM);
    x->limits = conf->limits;
    x->back = (struct http_back){.ops = &ops, .conf = *conf, .conn = c, .version = HTTP_2};
    x->ping_every_ms = conf->ping_every_ms;
    x->ping_wait_ms = conf->ping_wait_ms != 0 ? conf->ping_wait_ms : PING_WAIT_MS;
    e = h2_session_start(x, c);
    if (e != OK) {
        free(x);
        return e;
    }
    *out = &x->back;
    return OK;
}
