/* One opaque connection through the mesh: chooses an endpoint, connects, joins.
 *
 *   PICKING --endpoint--> DIALING --connected--> JOINED --either side ends--> gone
 *      ^--wait for a ready one--'   '--failed: another endpoint, OPAQUE_TRIES at most
 *
 * With as many connections as the backend may have (connections_max) it waits in PICKING, too, and is refused after
 * wait_ms (LIMIT). No breaker hears of opaque connections.
 *
 * Until JOINED the client's bytes wait in its conn (reading is off). */
#ifndef PROXY_OPAQUE_OPAQUE_H
#define PROXY_OPAQUE_OPAQUE_H

#include "kit/err.h"
#include "model/code.h"
#include "proxy/net/conn.h"

struct backend;
struct endpoint;
struct opaque;

#define OPAQUE_TRIES 4

struct opaque_conf {
    struct event_base *base;
    struct backend *backend; /* chosen among; NULL: `endpoint` is the one */
    struct endpoint *endpoint;
    struct conn *early;        /* connected to `endpoint` already; taken. Or NULL */
    uint64_t idle_ms, wait_ms; /* wait_ms: longest wait for a ready endpoint */
    /* Hears what both sides say, until it returns false (relay.h). May be NULL. */
    bool (*on_said)(void *arg, bool is_server, slice_t bytes);
    /* Before on_end: it was refused because of a limit; `code` is the answer a request would have
     * had. May be NULL. */
    void (*on_refused)(void *arg, enum code code);
    /* The front conn is gone or about to go. The opaque's memory goes after it. */
    void (*on_end)(void *arg, enum close_reason why);
    void *arg;
};

/* Owns `front` from now on. NOMEM leaves front and early to the caller. */
MUST_USE err_t opaque_start(struct conn *front, const struct opaque_conf *conf,
                            struct opaque **out);
/* Ends it now, gently where possible; on_end runs before this returns. */
void opaque_end(struct opaque *o, enum close_reason why);

#endif
