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

struct balance {
    struct balance_conf conf;
    struct endpoint *endpoints;
    struct backend *backends;
    uint64_t serial;
    struct list hungry;      /* backends with waiting requests */
    struct list idle_by_age; /* the longest idle first */
    struct timer sweep;
    struct timer wake; /* an endpoint became ready: look at the hungry */
};

void balance_wake_later(struct balance *b);
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
