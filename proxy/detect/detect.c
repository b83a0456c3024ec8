#include "proxy/detect/detect.h"

#include "proxy/net/conn.h"

static void detect_settle(struct detect *d, const struct detect_result *r)
{
    struct conn *c = d->conn;

    timer_stop(&d->timer);
    d->conn = NULL;
    conn_own(c, NULL, NULL);
    d->done(d->arg, r);
}

/* The whole hello is there, or will not be. */
static void detect_hello(struct detect *d, slice_t bytes, struct detect_result *r)
{
    uint8_t room[LOOK_HELLO_MAX];

    if (look_sni(bytes, room, &r->sni) != STEP_DONE)
        r->sni = SLICE_LIT("");
    detect_settle(d, r); /* while `room` lives */
}

static size_t on_bytes(struct conn *c, slice_t bytes)
{
    struct detect *d = conn_owner(c);
    struct detect_result r = {.look = look_at(bytes)};

    /* The beginning of TLS is waited for all the same: it may be for us, or be routed by its name. */
    if (r.look == LOOK_MORE && d->conf.is_hurried && bytes.n > 0 && bytes.p[0] != LOOK_TLS_BYTE)
        r.look = LOOK_OPAQUE;
    d->has_bytes = bytes.n > 0;
    if (r.look == LOOK_MORE)
        return 0;
    r.is_hello = d->has_hello = r.look == LOOK_TLS;
    if (r.look != LOOK_TLS || !d->conf.wants_sni) {
        detect_settle(d, &r);
        return 0;
    }
    switch (look_hello(&d->hello, bytes)) {
    case STEP_LATER:
        break;
    case STEP_FAILED:
        r.look = LOOK_OPAQUE; /* not TLS that we could serve */
        detect_settle(d, &r);
        break;
    case STEP_DONE:
        detect_hello(d, bytes, &r);
        break;
    }
    return 0;
}

static void on_eof(struct conn *c, bool is_clean)
{
    struct detect *d = conn_owner(c);
    /* No more will come to decide by: opaque passes on what did, and the end. A client that only listens
     * may finish sending at once. */
    struct detect_result r = {.look = LOOK_OPAQUE, .is_gone = !is_clean, .is_hello = d->has_hello};

    detect_settle(d, &r);
}

static void on_closed(struct conn *c, enum close_reason why)
{
    struct detect *d = conn_owner(c);

    (void)why;
    timer_stop(&d->timer);
    d->conn = NULL;
    d->closed(d->arg);
}

static void on_timer(void *arg)
{
    struct detect *d = arg;
    struct detect_result r = {.look = LOOK_OPAQUE, .is_timeout = true, .is_hello = d->has_hello};

    detect_settle(d, &r);
}

static const struct conn_events events = {
    .on_bytes = on_bytes, .on_eof = on_eof, .on_closed = on_closed};

void detect_start(struct detect *d, struct conn *c, const struct detect_conf *conf,
                  void (*done)(void *arg, const struct detect_result *r),
                  void (*closed)(void *arg), void *arg)
{
    d->conn = c;
    d->conf = *conf;
    d->hello = (struct hello){0};
    d->has_hello = d->has_bytes = false;
    d->done = done;
    d->closed = closed;
    d->arg = arg;
    timer_init(&d->timer, conf->base, on_timer, d);
    timer_once(&d->timer, conf->timeout_ms);
    conn_own(c, &events, d);
}

void detect_hurry(struct detect *d)
{
    if (d->conn == NULL)
        return;
    d->conf.is_hurried = true;
    conn_own(d->conn, &events, d); /* what is kept is offered again */
}

void detect_stop(struct detect *d)
{
    if (d->conn == NULL)
        return;
    timer_stop(&d->timer);
    conn_own(d->conn, NULL, NULL);
    d->conn = NULL;
}
