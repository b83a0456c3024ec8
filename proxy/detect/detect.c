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

static size_t on_bytes(struct conn *c, slice_t bytes)
{
    struct detect *d = conn_owner(c);
    struct detect_result r = {.look = look_at(bytes)};

    /* The beginning of TLS is waited for all the same: it may be for us. */
    if (r.look == LOOK_MORE && d->conf.is_hurried && bytes.n > 0 && bytes.p[0] != LOOK_TLS_BYTE)
        r.look = LOOK_OPAQUE;
    if (r.look == LOOK_MORE)
        return 0;
    if (r.look == LOOK_TLS && d->conf.wants_sni) {
        uint8_t room[LOOK_HELLO_MAX];

        switch (look_sni(bytes, room, &r.sni)) {
        case STEP_LATER:
            return 0;
        case STEP_FAILED:
            r.look = LOOK_OPAQUE;
            break;
        case STEP_DONE:
            break;
        }
        detect_settle(d, &r); /* while `room` lives */
        return 0;
    }
    detect_settle(d, &r);
    return 0;
}

static void on_eof(struct conn *c, bool is_clean)
{
    struct detect *d = conn_owner(c);
    /* No more will come to decide by: opaque passes on what did, and the end. A client that only listens
     * may finish sending at once. */
    struct detect_result r = {.look = LOOK_OPAQUE, .is_gone = !is_clean};

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
    struct detect_result r = {.look = LOOK_OPAQUE, .is_timeout = true};

    detect_settle(arg, &r);
}

static const struct conn_events events = {
    .on_bytes = on_bytes, .on_eof = on_eof, .on_closed = on_closed};

void detect_start(struct detect *d, struct conn *c, const struct detect_conf *conf,
                  void (*done)(void *arg, const struct detect_result *r),
                  void (*closed)(void *arg), void *arg)
{
    d->conn = c;
    d->conf = *conf;
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
