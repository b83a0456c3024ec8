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
/* Of a port that was seen to speak HTTP: its server waits, and a connection that nobody uses is dear. */
#define OPENING_DIAL_HTTP_MS 250

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
    bool is_hello;      /* it began with a ClientHello, be it for whom it may */
    uint8_t n_sni;      /* 0: it names no server, or nothing that could be a host */
    char sni[254];      /* in lower case, without a trailing dot */
    struct target_wait wait;
    struct timer early_timer;
    uint8_t lesson; /* what the port was seen to speak (model/lesson.h), PROTOCOL_DETECT: nothing */
    struct timer limit_timer; /* inbound: of the transport header; outbound: of a target that is lost */
    struct backend *early_be;   /* outbound: a reference; whose endpoint is dialled */
    bool is_drawn;              /* outbound: it was chosen which backend opaque bytes go to ... */
    bool is_drawn_missing;      /* ... and it does not exist */
    bool has_met_full;          /* the application had no place for the early connection */
    unsigned n_lost;            /* early connections that ended without a word */
    struct pick_wait early_wait; /* none of them is ready */
    struct dial *dial;
    struct conn *early;        /* connected to the server, waiting for who speaks first */
    struct endpoint *early_ep; /* a reference while dial or early is set, inbound also before */
    struct handshake *hs;
    void (*decide)(struct front *f); /* something is known: look again */
};

MUST_USE struct opening *opening_new(struct front *f, void (*decide)(struct front *f));
/* `lesson`: what the port was seen to speak. It may only save time. */
void opening_detect(struct opening *o, bool wants_sni, uint8_t lesson);
/* The same, once detection runs. */
void opening_learn(struct opening *o, uint8_t lesson);
/* Arms the early dial to one of the backend's endpoints (chosen when it is time, waited for if none is ready), or to
 * `ep`; a reference is taken of either. At once if no HTTP is expected. */
void opening_dial_early(struct opening *o, struct backend *be, struct endpoint *ep);
/* HTTP it is: the early connection goes to the endpoint's pool, or is closed. */
void opening_give_early(struct opening *o, enum pool_kind kind);
/* Opaque it is: takes the early connection (or NULL). *ep is a reference of the caller's then.
 */
struct conn *opening_take_early(struct opening *o, struct endpoint **ep);

#endif
