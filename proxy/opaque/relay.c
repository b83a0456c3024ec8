#include "proxy/opaque/relay.h"

#include "kit/clock.h"

#include <stdlib.h>

struct side {
    struct relay *relay;
    struct conn *conn; /* NULL: gone */
    struct side *other;
    bool has_finished; /* its peer will say no more */
};

struct relay {
    struct relay_conf conf;
    struct side front, back;
    struct timer idle;
    uint64_t last_ms;
    bool is_ending;
};

/* The one way out. */
static void relay_finish(struct relay *r, enum close_reason why, bool is_cut)
{
    enum close_reason other = is_cut ? CLOSE_OTHER_SIDE : why;
    struct conn *conns[2] = {r->front.conn, r->back.conn};

    if (r->is_ending)
        return;
    r->is_ending = true;
    timer_stop(&r->idle);
    for (unsigned i = 0; i < 2; i++) {
        if (conns[i] == NULL)
            continue;
        conn_own(conns[i], NULL, NULL);
        if (is_cut)
            conn_abort_gently(conns[i], other);
        else
            conn_close_gently(conns[i], other);
    }
    if (r->conf.on_end != NULL)
        r->conf.on_end(r->conf.arg, why);
    free(r);
}

static size_t on_bytes(struct conn *c, slice_t bytes)
{
    struct side *s = conn_owner(c);
    struct relay *r = s->relay;

    r->last_ms = clock_now_ms();
    if (r->conf.on_said != NULL && !r->conf.on_said(r->conf.arg, s == &r->back, bytes))
        r->conf.on_said = NULL;
    conn_pass(c, s->other->conn, bytes);
    return bytes.n;
}

static void on_eof(struct conn *c, bool is_clean)
{
    struct side *s = conn_owner(c);
    struct relay *r = s->relay;

    if (!is_clean) {
        relay_finish(r, CLOSE_PEER_TRUNCATED, true);
        return;
    }
    s->has_finished = true;
    r->last_ms = clock_now_ms();
    if (s->other->has_finished)
        relay_finish(r, CLOSE_DONE, false);
    else
        conn_finish(s->other->conn);
}

static void on_drained(struct conn *c)
{
    struct side *s = conn_owner(c);

    s->relay->last_ms = clock_now_ms();
    conn_resume(s->other->conn, PAUSE_PEER_FULL);
}

static void on_closed(struct conn *c, enum close_reason why)
{
    struct side *s = conn_owner(c);

    s->conn = NULL;
    relay_finish(s->relay, why, close_is_error(why) || !s->has_finished);
}

static const struct conn_events events = {
    .on_bytes = on_bytes, .on_eof = on_eof, .on_drained = on_drained, .on_closed = on_closed};

static void on_idle(void *arg)
{
    struct relay *r = arg;
    uint64_t quiet = clock_now_ms() - r->last_ms;

    if (quiet >= r->conf.idle_ms)
        relay_finish(r, CLOSE_IDLE, false);
    else
        timer_once(&r->idle, r->conf.idle_ms - quiet);
}

static void side_init(struct relay *r, struct side *s, struct conn *c, struct side *other)
{
    s->relay = r;
    s->conn = c;
    s->other = other;
    conn_resume(c, PAUSE_PEER_FULL);
    conn_own(c, &events, s);
}

err_t relay_start(struct conn *front, struct conn *back, const struct relay_conf *conf,
                  struct relay **out)
{
    struct relay *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return ERR_OF(NOMEM);
    r->conf = *conf;
    r->last_ms = clock_now_ms();
    timer_init(&r->idle, conf->base, on_idle, r);
    side_init(r, &r->front, front, &r->back);
    side_init(r, &r->back, back, &r->front);
    if (conf->idle_ms > 0)
        timer_once(&r->idle, conf->idle_ms);
    *out = r;
    return OK;
}

void relay_end(struct relay *r, enum close_reason why)
{
    relay_finish(r, why, false);
}
