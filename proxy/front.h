/* A connection that was accepted, and what is known about it: the context of every request that
 * comes on it.
 *
 *   OPENING --protocol known--> HTTP1 | HTTP2 | OPAQUE --conn closed--> gone
 *
 *   OPENING  outbound.c or inbound.c finds out where it is meant to go and what it speaks;
 * `opening` is set HTTP*    a codec owns the conn; each request is an exchange that refers to
 * this front OPAQUE   an opaque session owns the conn
 */
#ifndef PROXY_FRONT_H
#define PROXY_FRONT_H

#include "proxy/detect/witness.h"
#include "proxy/limit/limit.h"
#include "proxy/tally.h"
#include "proxy/worker.h"

struct destination;
struct opaque;
struct opening;
struct target;

enum front_state { FRONT_OPENING, FRONT_HTTP1, FRONT_HTTP2, FRONT_OPAQUE };

struct front {
    struct list node; /* worker->fronts[direction] */
    struct worker *worker;
    struct conn *conn; /* lent to whoever owns it now; NULL when it has closed */
    enum direction direction;
    enum front_state state;
    bool is_tls;
    bool is_foreign_tls; /* outbound: TLS of the application, which passes */
    char sni[254];       /* ... and the name it asked for, as metrics call it */
    bool is_mesh;        /* came with a transport header: the peer is a proxy of the mesh */
    unsigned heard;      /* inbound: a bit per enum evidence that was noted already */
    struct talk talk;    /* inbound, opaque: what is learned from it */
    bool drains_at_next; /* began while draining: say so with the first answer */
    uint64_t accepted_us;
    uint64_t moved_bytes, moved_ms; /* WEFT_IDLE_TIMEOUT: what had moved when it was last looked
                                       at, and when that changed */
    uint16_t port;                  /* of the application meant */
    struct sockaddr_storage dst;
    char dst_text[56];
    char *client_id;          /* owned; NULL: none */
    struct target *target;    /* outbound; a use */
    struct endpoint *app;     /* inbound; a reference */
    struct http_tally *tally; /* inbound */
    struct limit_port *limit; /* inbound, a reference: what the port takes. NULL: no memory for it */
    struct limit_client limit_client;
    struct opening *opening;  /* owned by outbound.c / inbound.c */
    struct opaque *opaque;
};

/* Takes the conn; begins outbound.c / inbound.c. */
void front_accept(struct worker *w, struct conn *c, enum direction direction);
/* Hands the conn to an HTTP codec (`version`), for requests to front->target or front->app. */
void front_start_http(struct front *f, enum http_version version);
/* Joins the conn with an endpoint of `backend`, or with front->app. `early`: a connection that
 * was dialled meanwhile (taken), or NULL; `early_ep` is its endpoint (borrowed). */
void front_start_opaque(struct front *f, struct backend *backend, struct conn *early,
                        struct endpoint *early_ep);
/* Closes the conn and frees the front. `is_reset`: with a TCP reset. */
void front_close(struct front *f, enum close_reason why, bool is_reset);
/* The conn has closed by itself. */
void front_closed(struct front *f);
void front_drain(struct front *f);
/* Once a second while WEFT_IDLE_TIMEOUT is set: closes an HTTP connection on which no byte
 * moved for so long (opaque ones have their own timer). */
void front_check_idle(struct front *f);

/* The application answered a request, inbound: the port speaks so. For every request, so what is not news costs
 * nothing. */
void front_note(struct front *f, enum evidence e);
static inline void front_answered(struct front *f, enum evidence e)
{
    if ((f->heard & 1u << e) == 0)
        front_note(f, e);
}

/* The capture probe (`weft redirect check`): a connection from inside the pod to a reserved
 * address nobody has, or from outside to port 20001 of the pod from source port 20001. Answers
 * one line and closes. True if it was one. */
bool front_answer_probe(struct front *f, const struct sockaddr_storage *dst);

/* ---- outbound.c, inbound.c ---- */
void outbound_open(struct front *f);
void inbound_open(struct front *f);
/* Frees front->opening and what it holds; the conn has no owner then. */
void opening_free(struct front *f);

#endif
