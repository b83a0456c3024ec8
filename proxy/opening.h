/* What outbound.c and inbound.c share while a connection's protocol is being found out:
 * detection on our side, and meanwhile a connection to the server, which settles it by speaking
 * first. */
#ifndef PROXY_OPENING_H
#define PROXY_OPENING_H

#include "proxy/balance/balance.h"
#include "proxy/detect/detect.h"
#include "proxy/discover/discover.h"
#include "proxy/front.h"

/* A client that speaks first usually does so at once: only after this silence the server is
 * dialled. */
#define OPENING_DIAL_AFTER_MS 20

enum opening_phase {
    OPENING_DETECT,    /* first bytes (and the target, outbound) are awaited */
    OPENING_HANDSHAKE, /* weft-tls works */
    OPENING_HEADER     /* TLS is up, the transport header is awaited */
};

struct opening {
    struct front *front;
    enum opening_phase phase;
    struct detect detect;
    bool is_settled; /* detection has a result */
    enum look look;
    struct target_wait wait;
    struct timer early_timer;
    struct timer limit_timer; /* inbound: of the transport header; outbound: of a target that is lost */
    struct dial *dial;
    struct conn *early;        /* connected to the server, waiting for who speaks first */
    struct endpoint *early_ep; /* a reference while dial or early is set */
    struct handshake *hs;
    void (*decide)(struct front *f); /* something is known: look again */
};

MUST_USE struct opening *opening_new(struct front *f, void (*decide)(struct front *f));
void opening_detect(struct opening *o, bool wants_sni);
/* Arms the early dial to this endpoint (a reference is taken). */
void opening_dial_early(struct opening *o, struct endpoint *ep);
/* HTTP it is: the early connection goes to the endpoint's pool, or is closed. */
void opening_give_early(struct opening *o, enum pool_kind kind);
/* Opaque it is: takes the early connection (or NULL). *ep is a reference of the caller's then.
 */
struct conn *opening_take_early(struct opening *o, struct endpoint **ep);

#endif
