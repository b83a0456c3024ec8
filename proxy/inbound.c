/* Connections to the application of this pod.
 *
 *   direct (to the inbound port itself): from a proxy of the mesh. TLS for our identity, with a
 * client certificate and ALPN transport.l5d.io/v1; then the transport header names the port and
 * the session protocol. redirected: meant for a port of the application. A ClientHello that
 * names us is terminated (and refused if it asks for the transport header), other TLS passes
 * untouched, everything else is detected. The target must be one of the pod's own addresses.
 *
 * With WEFT_INBOUND_TARGET (tests, benchmarks; no redirect) a direct connection may also be
 * plain: it is treated as redirected to that target.
 *
 * The application is dialled at the address the client used (the pod's), never at the loopback
 * address instead: a program that listens on loopback only was not reachable from other pods
 * before, and is not made so now. */
#include "proxy/opening.h"

#include "kit/log.h"
#include "proxy/handshake/handshake.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"

#include <stdlib.h>

static void inbound_decide(struct front *f);

static bool is_direct(const struct front *f)
{
    return f->port == 0;
}

/* The application's address is known: take its endpoint. False: the front is gone. */
static bool set_app(struct front *f, uint16_t port)
{
    struct worker *w = f->worker;
    struct endpoint_spec spec = {.is_inbound = true};

    if (w->has_inbound_target)
        f->dst = w->inbound_target;
    else
        address_set_port(&f->dst, port);
    f->port = address_port(&f->dst);
    address_print(&f->dst, f->dst_text);
    limit_port_drop(&f->limit);
    f->limit = limits_port(w->limits, f->port);
    spec.address = f->dst;
    if (endpoint_get(w->balance, &spec, &f->app) == OK) {
        if (f->app->app == NULL)
            f->app->app = limits_port(w->limits, f->port);
        return true;
    }
    front_close(f, CLOSE_LIMIT, true);
    return false;
}

static void serve_opaque(struct front *f)
{
    struct endpoint *early_ep = NULL;
    struct conn *early = opening_take_early(f->opening, &early_ep);

    front_start_opaque(f, NULL, early, early_ep);
    endpoint_unref(&early_ep);
}

static void serve_http(struct front *f, enum http_version version)
{
    opening_give_early(f->opening, version == HTTP_2 ? POOL_HTTP2 : POOL_HTTP1);
    front_start_http(f, version);
}

/* ---- TLS ---- */

static size_t read_header(struct conn *c, slice_t bytes);
static void on_header_closed(struct conn *c, enum close_reason why);
static const struct conn_events header_events = {.on_bytes = read_header,
                                                 .on_closed = on_header_closed};

static void on_header_closed(struct conn *c, enum close_reason why)
{
    struct opening *o = conn_owner(c);

    (void)why;
    front_closed(o->front);
}

static void on_header_timer(void *arg)
{
    struct opening *o = arg;

    front_close(o->front, CLOSE_DETECT_FAILED, true);
}

/* A port that a peer may name: the application's, not ours. */
static bool may_name_port(const struct worker *w, uint16_t port)
{
    return port != 0 && port != w->settings->inbound_port && port != w->settings->outbound_port;
}

static size_t read_header(struct conn *c, slice_t bytes)
{
    struct opening *o = conn_owner(c);
    struct front *f = o->front;
    struct transport_header h;
    size_t used = 0;
    err_t why = OK;
    enum session_protocol session;

    switch (transport_header_parse(bytes, &h, &used, &why)) {
    case STEP_LATER:
        return 0;
    case STEP_FAILED:
        tally_bad_input(f->worker->tallies, "transport_header");
        front_close(f, CLOSE_BAD_PROTOCOL, true);
        return bytes.n;
    case STEP_DONE:
        break;
    }
    if (h.name.n > 0 || !may_name_port(f->worker, h.port)) {
        log_debug("transport header refused", "port=%u name=%zu", h.port, h.name.n);
        front_close(f, CLOSE_REFUSED_TARGET, true);
        return bytes.n;
    }
    session = h.session; /* the slices go with the bytes */
    timer_stop(&o->limit_timer);
    conn_own(c, NULL, NULL);
    f->is_mesh = true;
    if (!set_app(f, h.port))
        return bytes.n;
    switch (session) {
    case SESSION_HTTP1:
        serve_http(f, HTTP_1_1);
        break;
    case SESSION_HTTP2:
        serve_http(f, HTTP_2);
        break;
    case SESSION_OPAQUE:
        serve_opaque(f);
        break;
    }
    return used;
}

static void read_header_soon(struct front *f)
{
    struct opening *o = f->opening;

    o->phase = OPENING_HEADER;
    timer_init(&o->limit_timer, f->worker->base, on_header_timer, o);
    timer_once(&o->limit_timer, f->worker->settings->detect_timeout);
    conn_own(f->conn, &header_events, o);
}

/* Seen here, or by another pod of the workload. */
static uint8_t lesson_of_port(const struct front *f)
{
    enum lesson here = witness_known(f->worker->witness, f->port);

    return here != LESSON_UNKNOWN ? lesson_protocol(here)
                                  : discover_lesson(f->worker->discover, f->port);
}

static void on_shaken(void *arg, struct conn *c, const struct handshake_result *r)
{
    struct opening *o = arg;
    struct front *f = o->front;
    bool is_transport;

    o->hs = NULL;
    tally_handshake(f->worker->tallies, true, r->is_ok ? "ok" : r->code);
    if (!r->is_ok) {
        log_debug("inbound handshake failed", "code=%s why=%s", r->code,
                  r->why != NULL ? r->why : "");
        f->conn = c;
        if (c == NULL)
            front_closed(f);
        else
            front_close(f, CLOSE_HANDSHAKE_FAILED, false);
        return;
    }
    f->is_tls = true;
    is_transport = slice_is(r->alpn, SLICE_LIT(TRANSPORT_ALPN));
    if (r->peer.n > 0)
        f->client_id = strndup((const char *)r->peer.p, r->peer.n);
    /* The transport header goes to the inbound port, from peers with a certificate; nothing else does. */
    if (is_direct(f) ? f->client_id == NULL || !is_transport : is_transport) {
        front_close(f, CLOSE_NOT_AUTHORIZED, false);
        return;
    }
    if (is_transport) {
        read_header_soon(f);
    } else {
        o->look = LOOK_MORE;
        opening_detect(o, false, lesson_of_port(f)); /* what is inside */
    }
}

static size_t give_first(struct conn *c, slice_t bytes)
{
    struct opening *o = conn_owner(c);

    if (handshake_accept(o->front->worker->handshakes, c, bytes, on_shaken, o, &o->hs) == OK)
        return bytes.n;
    front_close(o->front, CLOSE_LIMIT, true);
    return bytes.n;
}

static const struct conn_events first_events = {.on_bytes = give_first,
                                                .on_closed = on_header_closed};

/* ---- detection ---- */

/* What the application's port speaks, if that is known. */
static enum look known_protocol(const struct front *f)
{
    switch ((enum protocol)discover_port(f->worker->discover, f->port)) {
    case PROTOCOL_OPAQUE:
        return LOOK_OPAQUE;
    case PROTOCOL_HTTP2:
    case PROTOCOL_GRPC:
        return LOOK_HTTP2;
    case PROTOCOL_HTTP1: /* a peer may have upgraded: looked at all the same */
    case PROTOCOL_DETECT:
        break;
    }
    return worker_is_opaque_port(f->worker, f->port) ? LOOK_OPAQUE : LOOK_MORE;
}

static void inbound_decide(struct front *f)
{
    struct opening *o = f->opening;

    if (!o->is_settled)
        return;
    if (o->look == LOOK_TLS && f->worker->handshakes != NULL && !f->is_tls) {
        o->phase = OPENING_HANDSHAKE;
        conn_own(f->conn, &first_events, o);
        return;
    }
    if (is_direct(f)) {
        if (!f->worker->has_inbound_target) {
            front_close(f, CLOSE_NOT_AUTHORIZED, true);
            return;
        }
        if (!set_app(f, 0))
            return;
    }
    switch (o->look) {
    case LOOK_HTTP1:
        serve_http(f, HTTP_1_1);
        break;
    case LOOK_HTTP2:
        serve_http(f, HTTP_2);
        break;
    case LOOK_TLS:
    case LOOK_MORE:
    case LOOK_OPAQUE:
        serve_opaque(f);
        break;
    }
}

static bool may_enter(const struct worker *w, const struct sockaddr_storage *dst)
{
    return address_port(dst) != 0 && address_port(dst) != w->settings->outbound_port &&
           (w->n_pod_ips == 0 || worker_is_local(w, dst));
}

void inbound_open(struct front *f)
{
    struct worker *w = f->worker;
    bool was_redirected = conn_original_dst(f->conn, &f->dst);
    struct opening *o;
    enum look known;

    if (was_redirected && front_answer_probe(f, &f->dst))
        return;
    o = opening_new(f, inbound_decide);
    if (o == NULL) {
        front_close(f, CLOSE_LIMIT, true);
        return;
    }
    if (!was_redirected || address_port(&f->dst) == w->settings->inbound_port) {
        f->port = 0; /* direct: the header will say */
        opening_detect(o, true, PROTOCOL_DETECT);
        return;
    }
    if (!may_enter(w, &f->dst)) {
        front_close(f, CLOSE_REFUSED_TARGET, true);
        return;
    }
    if (!set_app(f, address_port(&f->dst)))
        return;
    known = known_protocol(f);
    if (known == LOOK_OPAQUE) {
        serve_opaque(f);
    } else {
        opening_detect(o, true, lesson_of_port(f));
        opening_dial_early(o, NULL, f->app);
    }
}
