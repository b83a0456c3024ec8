/* What the files of this room share. */
#ifndef PROXY_BALANCE_BALANCE_PRIV_H
#define PROXY_BALANCE_BALANCE_PRIV_H

#include "proxy/balance/balance.h"

/* A connection in the client role. In exactly one of its endpoint's lists: idle, busy, mux,
 * retired. */
struct pooled {
    struct list node;
    struct list age; /* balance->idle_by_age while idle */
    struct endpoint *ep;
    struct http_back *back;
    enum pool_kind kind;
    uint64_t idle_since_ms;
    bool is_reused; /* HTTP/1: it is lent, and not for the first time */
    bool is_retired;
};

/* An endpoint as one backend sees it. */
struct seat {
    struct list node; /* endpoint->seats */
    struct backend *backend;
    struct endpoint *endpoint; /* a reference */
    bool is_ready;             /* may be chosen: the endpoint is, and the breaker lets it */
    bool is_out;               /* the breaker does not */
    bool counts_as_probation;  /* in backend->n_probation */
    bool is_own_zone;
    bool is_kept;           /* while a new set is made: the new one has it, too */
    uint32_t weight;        /* 10000 is normal */
    int64_t ready_ms;       /* as the view said it */
    uint64_t warm_from_ms;  /* slow start: monotonic time from which its share grows; 0: it has
                               all of it */
    int64_t credit;         /* round robin */
    uint64_t window;        /* share cap: number of the window `picks` are of */
    uint32_t picks[2];      /* in this window and the one before */
    struct breaker breaker; /* CLOSED while the backend has none */
    struct timer timer;     /* of the breaker */
};

/* The seat of `ep` at `be`; NULL: it has none (any more). */
struct seat *seat_of(const struct backend *be, struct endpoint *ep);
/* The set of a newer view. `n` seats' worth of *specs; the settings are in `be` already. */
MUST_USE err_t seats_replace(struct backend *be, const struct backend_spec *spec);
void seats_free(struct backend *be);
/* The state of the endpoint or of its breaker has changed. */
void seat_refresh(struct seat *s);
/* The breaker: the request that goes there now is the probe. */
void seat_probe(struct seat *s);

struct balance {
    struct balance_conf conf;
    char zone[64];
    struct endpoint *endpoints;
    struct backend *backends;
    uint64_t serial;
    struct list hungry;      /* backends with waiting requests */
    struct list idle_by_age; /* the longest idle first */
    struct timer sweep;
    struct timer wake;    /* an endpoint became ready: look at the hungry */
    struct held *held;    /* connections that are open, by their conn */
    struct list starving; /* endpoints with waiting requests and no right to dial */
    struct timer feed;    /* a connection has gone: look at the starving */
};

void balance_wake_later(struct balance *b);

/* ---- connections.c ---- */

/* Its endpoints have so many connections more (or fewer). */
void backend_move_connections(struct backend *be, int n);
/* Its limit has changed. */
void backend_limit_changed(struct backend *be);
/* The endpoint waits for a connection that may not be made now: it is asked again when one of
 * the backend's has gone. */
void endpoint_starves(struct endpoint *ep);
/* A connection is idle now: somebody may need its place more. */
void connections_look(struct balance *b);
void connections_feed(struct balance *b);
/* The endpoint goes: its connections (retired ones, opaque ones) may outlive it. */
void connections_forget(struct endpoint *ep);
/* A dial begins, has failed, has become this connection. */
void connections_begin(struct endpoint *ep);
void connections_failed(struct endpoint *ep);
void connections_open(struct endpoint *ep, const struct conn *c);
void connections_stop(struct balance *b);

/* Dials for who waits, as far as limits let it. */
void pool_feed(struct endpoint *ep);
/* Closes the longest idle connection to any endpoint of the backend; false: there is none. */
bool pool_reclaim(struct backend *be);
void pool_init(struct endpoint *ep);
void pool_retire_all(struct endpoint *ep, int close_reason);
bool pool_is_empty(const struct endpoint *ep);
/* Makes a connection of the pool from one that was dialled; serves who waits. False: it was
 * closed. */
bool pool_adopt(struct endpoint *ep, enum pool_kind kind, struct conn *c);
void pool_sweep(struct balance *b);
/* Frees the endpoint if nobody refers to it and it holds no connection. */
void endpoint_check(struct endpoint *ep);
enum session_protocol pool_session(enum pool_kind kind);

#endif
