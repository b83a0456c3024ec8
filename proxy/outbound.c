/* Connections of the application to the world: where was it going, and what does it speak?
 *
 * Both questions are asked at once: weft-link is asked for the target while detection watches
 * the first bytes. What the view (or the list of opaque ports) says about the protocol wins.
 * Once the target is known and the client is silent, an endpoint is dialled meanwhile, so that
 * a server that speaks first is heard. */
#include "proxy/opening.h"

#include "kit/log.h"
#include "model/route.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"

#define LOST_LOOK_MS 100 /* a client that speaks first has done so by then */

/* What needs no detection. LOOK_MORE: it does. */
static enum look known_protocol(const struct front *f, const struct destination *d)
{
    if (worker_is_opaque_port(f->worker, f->port) && d->view->protocol == PROTOCOL_DETECT)
        return LOOK_OPAQUE;
    switch ((enum protocol)d->view->protocol) {
    case PROTOCOL_DETECT:
        return LOOK_MORE;
    case PROTOCOL_HTTP1:
        return LOOK_HTTP1;
    case PROTOCOL_HTTP2:
    case PROTOCOL_GRPC:
        return LOOK_HTTP2;
    case PROTOCOL_OPAQUE:
        return LOOK_OPAQUE;
    }
    return LOOK_MORE;
}

static void serve(struct front *f, enum look look)
{
    struct opening *o = f->opening;
    struct destination *d = f->target->now;
    struct endpoint *early_ep = NULL;
    struct conn *early;

    switch (look) {
    case LOOK_HTTP1:
        opening_give_early(o, POOL_HTTP1);
        front_start_http(f, HTTP_1_1);
        return;
    case LOOK_HTTP2:
        opening_give_early(o, POOL_HTTP2);
        front_start_http(f, HTTP_2);
        return;
    case LOOK_TLS: /* cannot be: nothing outbound is terminated here */
    case LOOK_MORE:
    case LOOK_OPAQUE:
        break;
    }
    if (d->n_backends == 0) {
        front_close(f, CLOSE_CONNECT_FAILED, true);
        return;
    }
    early = opening_take_early(o, &early_ep);
    front_start_opaque(f, d->backends[0], early, early_ep);
    endpoint_unref(&early_ep);
}

static void on_lost_timer(void *arg)
{
    front_close(arg, CLOSE_UNRESOLVED, true);
}

/* Nobody could tell where this leads, and plain text to the address would be a guess that may leak.
 * HTTP is told so; who has not begun to speak it by now gets a reset. */
static void outbound_lost(struct front *f)
{
    struct opening *o = f->opening;

    if (o->is_settled && (o->look == LOOK_HTTP1 || o->look == LOOK_HTTP2)) {
        front_start_http(f, o->look == LOOK_HTTP1 ? HTTP_1_1 : HTTP_2);
        return;
    }
    if (o->is_settled || worker_is_opaque_port(f->worker, f->port)) {
        front_close(f, CLOSE_UNRESOLVED, true);
        return;
    }
    timer_init(&o->limit_timer, f->worker->base, on_lost_timer, f);
    timer_once(&o->limit_timer, LOST_LOOK_MS);
}

static void outbound_decide(struct front *f)
{
    struct opening *o = f->opening;
    struct target *t = f->target;
    enum look known;

    if (t->state == TARGET_ASKED)
        return;
    if (t->now == NULL) {
        outbound_lost(f);
        return;
    }
    known = known_protocol(f, t->now);
    if (known == LOOK_MORE && o->is_settled)
        known = o->look == LOOK_TLS ? LOOK_OPAQUE : o->look;
    if (known != LOOK_MORE) {
        serve(f, known);
        return;
    }
    if (t->now->n_backends > 0) {
        opening_learn(o, t->now->view->lesson);
        opening_dial_early(o, t->now->backends[0], NULL);
    }
}

static void on_target(struct target_wait *w)
{
    struct opening *o = CONTAINER_OF(w, struct opening, wait);

    outbound_decide(o->front);
}

/* Whether the proxy may go there at all. */
static bool may_go(const struct worker *w, const struct sockaddr_storage *dst)
{
    uint16_t port = address_port(dst);

    if (port == 0 || address_is_loopback(dst))
        return false;
    /* Our own listeners: a redirect that leads back to us would loop. */
    return !(worker_is_local(w, dst) &&
             (port == w->settings->outbound_port || port == w->settings->inbound_port));
}

/* Only the address that the settings name is gone to when nobody tells what it is. */
static err_t use_target(struct front *f)
{
    struct worker *w = f->worker;

    if (w->has_outbound_target)
        return discover_use(w->discover, slice_str(w->settings->outbound_only_for),
                            w->outbound_target_is_ip ? &w->outbound_target : NULL, &f->target);
    return discover_use(w->discover, slice_str(f->dst_text), NULL, &f->target);
}

void outbound_open(struct front *f)
{
    struct worker *w = f->worker;
    bool was_redirected = conn_original_dst(f->conn, &f->dst);
    struct opening *o;
    err_t why;

    if (was_redirected && front_answer_probe(f, &f->dst))
        return;
    if (w->has_outbound_target) {
        if (w->outbound_target_is_ip)
            f->dst = w->outbound_target;
    } else if (!was_redirected || !may_go(w, &f->dst)) {
        front_close(f, CLOSE_REFUSED_TARGET, true);
        return;
    }
    address_print(&f->dst, f->dst_text);
    f->port = address_port(&f->dst);
    o = opening_new(f, outbound_decide);
    if (o == NULL || use_target(f) != OK) {
        front_close(f, CLOSE_LIMIT, true);
        return;
    }
    /* What the port was seen to speak is known with its view. */
    opening_detect(o, false, PROTOCOL_DETECT);
    if (target_wait(f->target, &o->wait, &why)) {
        outbound_decide(f);
    } else if (why != OK) {
        front_close(f, CLOSE_LIMIT, true);
    } else {
        o->wait.done = on_target;
    }
}
