/* Connections of the application to the world: where was it going, and what does it speak?
 *
 * Both questions are asked at once: weft-link is asked for the target while detection watches
 * the first bytes. What the view (or the list of opaque ports) says about the protocol wins.
 * Once the target is known and the client is silent, an endpoint is dialled meanwhile, so that
 * a server that speaks first is heard. */
#include "proxy/opening.h"

#include "kit/log.h"
#include "model/code.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"
#include "proxy/passage.h"

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

static void refuse(struct front *f, const struct passage *p)
{
    tally_mesh_answer(f->worker->tallies, f->direction, p->code);
    log_debug("connection refused", "target=%s code=%s sni=%.*s", f->dst_text, p->code,
              (int)f->opening->n_sni, f->opening->sni);
    front_close(f, p->why, true);
}

/* The application's own TLS: its server name says where to. */
static void serve_tls(struct front *f)
{
    struct opening *o = f->opening;
    struct destination *d = f->target->now;
    slice_t sni = slice(o->sni, o->n_sni);
    struct endpoint *early_ep = NULL;
    struct conn *early = NULL;
    struct passage p;
    slice_t label;

    passage_tls(d, sni, &p);
    label = names_label(f->worker->names, d, p.rule, sni);
    memcpy(f->sni, label.p, label.n);
    f->sni[label.n] = 0;
    f->is_foreign_tls = true;
    if (p.backend == NULL) {
        refuse(f, &p);
        return;
    }
    if (o->early_be == p.backend)
        early = opening_take_early(o, &early_ep);
    front_start_opaque(f, p.backend, early, early_ep);
    endpoint_unref(&early_ep);
}

/* Where opaque bytes go is drawn once, when its server is dialled or when it is known what they are; another time only if
 * nobody is ready there. */
static void serve_bytes(struct front *f)
{
    struct opening *o = f->opening;
    struct endpoint *early_ep = NULL;
    struct backend *be = NULL;
    struct passage p;
    struct conn *early;

    if (o->is_drawn_missing) {
        p = (struct passage){.code = code_info(CODE_BACKEND_MISSING)->id, .why = CLOSE_NO_ROUTE};
        refuse(f, &p);
        return;
    }
    if (o->early_be == NULL || (o->early == NULL && !backend_has_ready(o->early_be))) {
        passage_bytes(f->target->now, &p);
        if (p.backend == NULL) {
            refuse(f, &p);
            return;
        }
        be = p.backend;
    } else {
        be = o->early_be;
    }
    be->refs++; /* the opening's own goes with it */
    early = be == o->early_be ? opening_take_early(o, &early_ep) : NULL;
    front_start_opaque(f, be, early, early_ep);
    endpoint_unref(&early_ep);
    backend_unref(&be);
}

static void serve(struct front *f, enum look look)
{
    struct opening *o = f->opening;

    switch (look) {
    case LOOK_HTTP1:
        opening_give_early(o, POOL_HTTP1);
        front_start_http(f, HTTP_1_1);
        return;
    case LOOK_HTTP2:
        opening_give_early(o, POOL_HTTP2);
        front_start_http(f, HTTP_2);
        return;
    case LOOK_TLS:
        serve_tls(f);
        return;
    case LOOK_MORE:
    case LOOK_OPAQUE:
        serve_bytes(f);
        return;
    }
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

/* The server's connection meanwhile is to where opaque bytes go. */
static void dial_early(struct front *f)
{
    struct opening *o = f->opening;
    struct passage p;

    if (o->is_drawn)
        return;
    o->is_drawn = true;
    passage_bytes(f->target->now, &p);
    if (p.backend != NULL)
        opening_dial_early(o, p.backend, NULL);
    else
        o->is_drawn_missing = p.rule != NULL; /* its share of those who say nothing waits for the end of detection */
}

/* What the view and the client's bytes make of it. LOOK_MORE: not known yet. */
static enum look what_it_is(const struct front *f)
{
    const struct opening *o = f->opening;
    const struct destination *d = f->target->now;
    enum look known = known_protocol(f, d);
    bool goes_by_name = d->view->n_tls_rules > 0; /* also on ports that are declared opaque: TLSRoutes are asked for */

    if (known == LOOK_HTTP1 || known == LOOK_HTTP2)
        return known;
    if (!o->is_settled)
        return known == LOOK_OPAQUE && !goes_by_name ? LOOK_OPAQUE : LOOK_MORE;
    if (o->is_hello && (known == LOOK_MORE || goes_by_name))
        return LOOK_TLS;
    return known == LOOK_OPAQUE ? LOOK_OPAQUE : o->look;
}

static void outbound_decide(struct front *f)
{
    struct opening *o = f->opening;
    struct target *t = f->target;
    enum look look;

    if (t->state == TARGET_ASKED)
        return;
    if (t->now == NULL) {
        outbound_lost(f);
        return;
    }
    look = what_it_is(f);
    if (look != LOOK_MORE) {
        serve(f, look);
        return;
    }
    if (t->now->n_backends > 0) {
        opening_learn(o, known_protocol(f, t->now) == LOOK_OPAQUE ? PROTOCOL_OPAQUE : t->now->view->lesson);
        dial_early(f);
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
    opening_detect(o, true, PROTOCOL_DETECT);
    if (target_wait(f->target, &o->wait, &why)) {
        outbound_decide(f);
    } else if (why != OK) {
        front_close(f, CLOSE_LIMIT, true);
    } else {
        o->wait.done = on_target;
    }
}
