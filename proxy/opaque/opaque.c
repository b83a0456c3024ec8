#include "proxy/opaque/opaque.h"

#include "kit/clock.h"
#include "proxy/balance/balance.h"
#include "proxy/opaque/relay.h"

#include <stdlib.h>

struct opaque {
    struct opaque_conf conf;
    struct conn *front;        /* NULL once joined or gone */
    struct endpoint *endpoint; /* a reference */
    struct pick_wait wait;
    struct timer limit;
    struct dial *dial;
    struct relay *relay;
    unsigned tries;
    uint64_t begun_us;
    bool is_begun; /* counted as in flight at the endpoint */
    bool is_crowded; /* waits for the end of another connection (connections_max) */
};

static void opaque_free(struct opaque *o)
{
    timer_stop(&o->limit);
    pick_wait_cancel(&o->wait);
    dial_cancel(&o->dial);
    if (o->is_begun)
        endpoint_end(o->endpoint);
    endpoint_unref(&o->endpoint);
    backend_unref(&o->conf.backend);
    free(o);
}

static void opaque_finish(struct opaque *o, enum close_reason why, bool is_reset)
{
    struct conn *c = o->front;

    o->front = NULL;
    if (c != NULL) {
        conn_own(c, NULL, NULL);
        if (is_reset)
            conn_abort(c, why);
        else
            conn_close_gently(c, why);
    }
    o->conf.on_end(o->conf.arg, why);
    opaque_free(o);
}

static void opaque_refuse(struct opaque *o, enum code code)
{
    if (o->conf.on_refused != NULL)
        o->conf.on_refused(o->conf.arg, code);
    opaque_finish(o, CLOSE_LIMIT, true);
}

static size_t hold_bytes(struct conn *c, slice_t bytes)
{
    (void)bytes;
    conn_pause(c, PAUSE_OWNER); /* they stay in the conn until we are joined */
    return 0;
}

static void on_front_closed(struct conn *c, enum close_reason why)
{
    struct opaque *o = conn_owner(c);

    o->front = NULL;
    opaque_finish(o, why, true);
}

static void hold_eof(struct conn *c, bool is_clean)
{
    (void)c, (void)is_clean; /* the relay is told again; until then it changes nothing */
}

static const struct conn_events hold = {
    .on_bytes = hold_bytes, .on_eof = hold_eof, .on_closed = on_front_closed};

static void on_relay_end(void *arg, enum close_reason why)
{
    struct opaque *o = arg;

    o->relay = NULL;
    opaque_finish(o, why, false);
}

static bool on_said(void *arg, bool is_back, slice_t bytes)
{
    struct opaque *o = arg;

    return o->conf.on_said(o->conf.arg, is_back, bytes);
}

/* Connection set-up is what opaque traffic tells about an endpoint's load. */
static bool opaque_join(struct opaque *o, struct conn *back)
{
    struct relay_conf rc = {
        .base = o->conf.base, .idle_ms = o->conf.idle_ms, .on_end = on_relay_end, .arg = o};

    if (o->conf.on_said != NULL)
        rc.on_said = on_said;
    timer_stop(&o->limit);
    if (relay_start(o->front, back, &rc, &o->relay) != OK)
        return false;
    o->front = NULL; /* the relay's */
    return true;
}

static void opaque_pick(struct opaque *o);

static void on_dialled(void *arg, const struct dial_result *r)
{
    struct opaque *o = arg;

    o->dial = NULL;
    if (r->conn != NULL) {
        endpoint_sample(o->endpoint, clock_now_us() - o->begun_us);
        if (!opaque_join(o, r->conn)) {
            conn_own(r->conn, NULL, NULL);
            conn_close(r->conn, CLOSE_LIMIT);
            opaque_finish(o, CLOSE_LIMIT, true);
        }
        return;
    }
    endpoint_end(o->endpoint);
    o->is_begun = false;
    if (o->conf.backend != NULL && !o->conf.backend->is_single && ++o->tries < OPAQUE_TRIES) {
        endpoint_unref(&o->endpoint);
        opaque_pick(o);
        return;
    }
    opaque_finish(o,
                  r->is_tls       ? CLOSE_HANDSHAKE_FAILED
                  : r->is_timeout ? CLOSE_CONNECT_TIMEOUT
                                  : CLOSE_CONNECT_FAILED,
                  true);
}

static void opaque_begin(struct opaque *o)
{
    o->begun_us = clock_now_us();
    endpoint_begin(o->endpoint);
    o->is_begun = true;
}

static void opaque_dial(struct opaque *o)
{
    if (endpoint_app_is_full(o->endpoint)) {
        opaque_refuse(o, CODE_APP_CONNECTIONS); /* nobody waits here: who it is for may not speak first */
        return;
    }
    opaque_begin(o);
    timer_stop(&o->limit); /* the dial has its own */
    if (dial_start(o->endpoint, SESSION_OPAQUE, on_dialled, o, &o->dial) != OK)
        opaque_finish(o, CLOSE_LIMIT, true);
}

static void on_wake(struct pick_wait *w)
{
    opaque_pick(CONTAINER_OF(w, struct opaque, wait));
}

static void on_limit(void *arg)
{
    struct opaque *o = arg;

    pick_wait_cancel(&o->wait);
    if (o->is_crowded)
        opaque_refuse(o, CODE_TOO_MANY_CONNECTIONS);
    else
        opaque_finish(o, CLOSE_CONNECT_TIMEOUT, true);
}

static void opaque_pick(struct opaque *o)
{
    struct endpoint *ep = o->conf.endpoint;

    o->is_crowded = false;
    if (o->conf.backend != NULL)
        ep = backend_pick_opaque(o->conf.backend, o->front, &o->is_crowded);

    /* A single address has no alternative: it is tried even while it backs off. */
    if (ep == NULL && !o->is_crowded && o->conf.backend->is_single && o->conf.backend->n_set > 0)
        ep = o->conf.backend->set[0];
    if (ep != NULL) {
        endpoint_ref(ep);
        o->endpoint = ep;
        opaque_dial(o);
        return;
    }
    o->wait.wake = on_wake;
    if ((!o->is_crowded && backend_is_failfast(o->conf.backend)) ||
        backend_wait(o->conf.backend, &o->wait) != OK) {
        if (o->is_crowded)
            opaque_refuse(o, CODE_TOO_MANY_CONNECTIONS);
        else
            opaque_finish(o, CLOSE_CONNECT_FAILED, true);
        return;
    }
    if (!timer_is_armed(&o->limit))
        timer_once(&o->limit, o->conf.wait_ms);
}

static void on_start(void *arg)
{
    struct opaque *o = arg;

    timer_init(&o->limit, o->conf.base, on_limit, o);
    opaque_pick(o);
}

err_t opaque_start(struct conn *front, const struct opaque_conf *conf, struct opaque **out)
{
    struct opaque *o = calloc(1, sizeof(*o));

    if (o == NULL)
        return ERR_OF(NOMEM);
    o->conf = *conf;
    o->front = front;
    if (o->conf.backend != NULL)
        o->conf.backend->refs++;
    *out = o;
    conn_own(front, &hold, o);
    if (conf->early != NULL) {
        timer_init(&o->limit, conf->base, on_limit, o);
        endpoint_ref(conf->endpoint);
        o->endpoint = conf->endpoint;
        opaque_begin(o);
        if (opaque_join(o, conf->early))
            return OK;
        conn_own(front, NULL, NULL);
        opaque_free(o);
        return ERR_OF(NOMEM);
    }
    timer_init(&o->limit, conf->base, on_start, o);
    timer_once(&o->limit, 0); /* on_end must not run before this returns */
    return OK;
}

void opaque_end(struct opaque *o, enum close_reason why)
{
    struct relay *r = o->relay;

    if (r != NULL)
        relay_end(r, why);
    else
        opaque_finish(o, why, false);
}
