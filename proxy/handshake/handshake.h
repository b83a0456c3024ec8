/* The proxy's side of a TLS handshake that weft-tls makes (messages handshake_*).
 *
 * While a handshake runs this room owns the conn: it passes flights between the socket and
 * weft-tls, one message in flight per conn. At the end it installs the record layer
 * (conn_protect) and gives the conn back; the callback then makes somebody own it. At most
 * settings.handshakes_max / workers run at once; more wait in order. If weft-tls dies,
 * handshakes in flight fail (TLS_GONE) and waiting ones wait for its return up to the timeout.
 */
#ifndef PROXY_HANDSHAKE_HANDSHAKE_H
#define PROXY_HANDSHAKE_HANDSHAKE_H

#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct conn;
struct event_base;
struct handshakes; /* of one worker */
struct handshake;

struct handshakes_conf {
    struct event_base *base;
    const char *endpoint; /* ipc of weft-tls */
    unsigned max;         /* at once */
    uint64_t timeout_ms;
    uint64_t rekey_after; /* for record_conf */
};
MUST_USE err_t handshakes_new(const struct handshakes_conf *conf, struct handshakes **out);
void handshakes_free(struct handshakes **h);

struct handshake_result {
    bool is_ok;
    const char
        *code;       /* not ok: stable word of handshake_failed, or TLS_GONE, TIMEOUT, CLOSED */
    const char *why; /* not ok: for a person */
    slice_t peer;    /* identity of the peer's certificate; empty: none */
    slice_t alpn;
    slice_t server_name;
    int64_t peer_not_after_ms;
};

/* Called once, from the loop. Not ok: an alert is already queued on the conn; the callback
 * closes it (conn_close_gently with HANDSHAKE_FAILED). The slices are valid during the call. If
 * the conn closed by itself (peer gone) the callback still comes (code CLOSED) before the
 * conn's memory goes and `c` is NULL. */
typedef void handshake_done_fn(void *arg, struct conn *c,
                               const struct handshake_result *result);

/* `first` are bytes the client has sent already (its ClientHello or a part). */
MUST_USE err_t handshake_accept(struct handshakes *h, struct conn *c, slice_t first,
                                handshake_done_fn *done, void *arg, struct handshake **out);
/* Connects TLS to the identity `server_name`; offers ALPN transport.l5d.io/v1 if asked. */
MUST_USE err_t handshake_connect(struct handshakes *h, struct conn *c, slice_t server_name,
                                 bool transport_alpn, handshake_done_fn *done, void *arg,
                                 struct handshake **out);
/* The caller lost interest: no callback; the conn is not closed. */
void handshake_cancel(struct handshake **hs);

#endif
