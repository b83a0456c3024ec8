/* One outgoing connection being made: TCP, then for meshed endpoints TLS and the transport
 * header.
 *
 *   CONNECTING --on_connected--> SHAKING (meshed) --established--> told
 *       |                            |
 *       '--closed, out of time-------'--> told (failed)
 *
 *   Out of time: CONNECTING outbound_connect_ms or inbound_connect_ms, SHAKING the handshakes' timeout_ms. Two limits,
 *   since a host that does not answer is found out within one round trip, while a handshake may wait its turn behind a
 *   thousand others in either pod's weft-tls and is no worse for it.
 *
 *   BROKEN: failed before there was a connection; told from the loop by the timer. */
#include "proxy/balance/balance_priv.h"

#include "kit/log.h"
#include "proxy/handshake/handshake.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"

#include <stdlib.h>

struct dial {
    struct endpoint *ep; /* counted */
    enum session_protocol session;
    dial_done_fn *done;
    void *arg;
    struct conn *conn;
    struct handshake *hs;
    bool is_open;       /* counted as a connection from here on */
    struct timer timer; /* TCP alone: a handshake has a limit of its own (its room's) */
};

static void dial_free(struct dial *d)
{
    timer_stop(&d->timer);
    if (!d->is_open)
        connections_failed(d->ep);
    endpoint_unref(&d->ep);
    free(d);
}

/* Tells the asker and goes. The endpoint's state moves first, so that the asker chooses anew
 * correctly. */
static void dial_tell(struct dial *d, const struct dial_result *r)
{
    struct endpoint *ep = d->ep;
    bool is_probe = ep->probe == d;

    if (!is_probe && !r->is_local) {
        if (r->conn != NULL)
            endpoint_worked(ep);
        else
            endpoint_failed(ep);
    }
    if (r->conn != NULL) {
        d->is_open = true;
        connections_open(ep, r->conn);
    }
    if (r->conn != NULL && ep->balance->conf.on_open != NULL)
        ep->balance->conf.on_open(ep->balance->conf.arg, ep, r->conn);
    if (r->conn == NULL)
        log_debug("endpoint not reached", "endpoint=%s tls=%d timeout=%d code=%s", ep->text,
                  r->is_tls, r->is_timeout, r->code);
    d->done(d->arg, r);
    dial_free(d);
}

static void dial_fail(struct dial *d, bool is_tls, bool is_timeout, const char *code)
{
    /* Trouble of our own side says nothing about the endpoint. */
    bool is_local = is_tls && (strcmp(code, "NO_CERTIFICATE_YET") == 0 ||
                               strcmp(code, "TLS_GONE") == 0 || strcmp(code, "BUSY") == 0);
    struct dial_result r = {
        .is_tls = is_tls, .is_timeout = is_timeout, .is_local = is_local, .code = code};

    dial_tell(d, &r);
}

static void on_conn_closed(struct conn *c, enum close_reason why)
{
    struct dial *d = conn_owner(c);

    d->conn = NULL;
    dial_fail(d, false, why == CLOSE_CONNECT_TIMEOUT, "");
}

static size_t take_none(struct conn *c, slice_t bytes)
{
    (void)c, (void)bytes;
    return 0;
}

static void on_timer(void *arg)
{
    struct dial *d = arg;
    struct conn *c = d->conn;

    if (c == NULL) {
        struct dial_result r = {.is_local = true, .code = "LIMIT"};

        dial_tell(d, &r);
        return;
    }
    d->conn = NULL;
    conn_own(c, NULL, NULL);
    conn_close(c, CLOSE_CONNECT_TIMEOUT);
    dial_fail(d, false, true, "");
}

static err_t send_transport_header(struct dial *d)
{
    struct transport_header h = {.port = d->ep->port, .session = d->session};
    struct buf out;
    err_t why;

    buf_init(&out, 0);
    why = transport_header_print(&h, &out);
    if (why == OK)
        conn_write(d->conn, buf_slice(&out));
    buf_done(&out);
    return why;
}

static void on_shaken(void *arg, struct conn *c, const struct handshake_result *result)
{
    struct dial *d = arg;
    struct balance *b = d->ep->balance;
    struct dial_result r = {.conn = c, .is_tls = true, .code = ""};

    d->hs = NULL;
    if (b->conf.on_handshake != NULL)
        b->conf.on_handshake(b->conf.arg, result->is_ok ? "ok" : result->code);
    if (!result->is_ok || send_transport_header(d) != OK) {
        const char *code = result->is_ok ? "INTERNAL" : result->code;
        bool is_timeout = strcmp(code, "TIMEOUT") == 0;

        d->conn = NULL;
        if (c != NULL) {
            conn_own(c, NULL, NULL);
            if (is_timeout) /* who said nothing for so long is not waited for */
                conn_close(c, CLOSE_HANDSHAKE_TIMEOUT);
            else
                conn_close_gently(c, CLOSE_HANDSHAKE_FAILED);
        }
        dial_fail(d, true, is_timeout, code);
        return;
    }
    d->conn = NULL;
    dial_tell(d, &r);
}

static void on_connected(struct conn *c)
{
    struct dial *d = conn_owner(c);
    struct dial_result r = {.conn = c, .code = ""};

    timer_stop(&d->timer);
    if (endpoint_is_meshed(d->ep)) {
        if (handshake_connect(d->ep->balance->conf.handshakes, c, slice_str(d->ep->identity),
                              true, on_shaken, d, &d->hs) == OK)
            return;
        d->conn = NULL;
        conn_own(c, NULL, NULL);
        conn_close(c, CLOSE_HANDSHAKE_FAILED);
        dial_fail(d, true, false, "BUSY");
        return;
    }
    d->conn = NULL;
    dial_tell(d, &r);
}

static const struct conn_events dial_events = {
    .on_bytes = take_none, .on_connected = on_connected, .on_closed = on_conn_closed};

err_t dial_start(struct endpoint *ep, enum session_protocol session, dial_done_fn *done,
                 void *arg, struct dial **out)
{
    const struct balance_conf *conf = &ep->balance->conf;
    uint64_t limit = ep->is_inbound ? conf->inbound_connect_ms : conf->outbound_connect_ms;
    struct dial *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return ERR_OF(NOMEM);
    endpoint_ref(ep);
    connections_begin(ep);
    d->ep = ep;
    d->session = session;
    d->done = done;
    d->arg = arg;
    ep->last_was_opaque = session == SESSION_OPAQUE;
    timer_init(&d->timer, conf->base, on_timer, d);
    if (conn_dial(conf->net, (const struct sockaddr *)&ep->address, address_len(&ep->address),
                  limit + 1000, &dial_events, d, &d->conn) != OK) {
        d->conn = NULL;
        timer_once(&d->timer, 0);
    } else {
        timer_once(&d->timer, limit);
    }
    *out = d;
    return OK;
}

void dial_cancel(struct dial **dp)
{
    struct dial *d = *dp;
    struct conn *c;

    if (d == NULL)
        return;
    *dp = NULL;
    c = d->conn;
    d->conn = NULL;
    handshake_cancel(&d->hs);
    if (c != NULL) {
        conn_own(c, NULL, NULL);
        conn_close(c, CLOSE_SUPERSEDED);
    }
    dial_free(d);
}
