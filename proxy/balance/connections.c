/* How many connections there are to a backend's endpoints, and what happens when there may not
 * be more (connections_max).
 *
 * A connection is counted at its endpoint from the beginning of its dial until the socket is
 * closed, whoever holds it meanwhile: the balance is told of every closed conn and knows those
 * it has made. A backend's number is the sum of its endpoints'; with a limit it is also kept in
 * a counter that all workers of the pod share, so that the limit is the pod's.
 *
 * Who may not dial waits: requests in the pool's line (an endpoint with such is starving),
 * opaque connections in the backend's queue. Both are looked at again when a connection has
 * gone or become idle; other workers' are noticed within FEED_MS. An idle connection gives its
 * place to whoever starves. */
#include "proxy/balance/balance_priv.h"

#include "proxy/limit/limit.h"
#include "proxy/limit/shared.h"
#include "proxy/net/conn.h"

#include <stdlib.h>

#define FEED_MS        50
#define LIMIT_KEY_KIND 0x62616c00u /* the balance's keys among those of proxy/limit */

struct held {
    UT_hash_handle hh;
    struct list node; /* endpoint->held */
    const struct conn *conn;
    struct endpoint *ep; /* NULL: it has gone */
};

/* ---- the pod's counter ---- */

/* What is counted there is what there is; a place that endpoint_may_dial has taken is one that
 * connections_begin fills in the same turn. */
static void publish(struct backend *be)
{
    struct limit_shared *shared = be->balance->conf.shared;
    unsigned want = be->connections_max > 0 ? be->n_connections : 0;

    if (be->connections == NULL)
        return;
    while (be->n_published < want) {
        (void)limit_counter_take(shared, be->connections, UINT32_MAX);
        be->n_published++;
    }
    while (be->n_published > want) {
        limit_counter_give(shared, be->connections);
        be->n_published--;
    }
}

void backend_limit_changed(struct backend *be)
{
    struct limit_shared *shared = be->balance->conf.shared;

    if (be->connections_max > 0 && be->connections == NULL && shared != NULL)
        be->connections =
            limit_shared_counter(shared, limit_shared_key(shared, LIMIT_KEY_KIND,
                                                          slice_str(be->key), SLICE_LIT("")));
    publish(be);
    if (be->connections_max == 0)
        be->connections = NULL;
    connections_look(be->balance);
}

bool backend_has_no_place(const struct backend *be)
{
    if (be->connections_max == 0)
        return false;
    return be->n_connections >= be->connections_max ||
           (be->connections != NULL &&
            limit_counter_sum(be->balance->conf.shared, be->connections) >=
                be->connections_max);
}

void backend_move_connections(struct backend *be, int n)
{
    be->n_connections = (unsigned)((int)be->n_connections + n);
    publish(be);
}

/* ---- connections to our own application ---- */

static void publish_app(struct endpoint *ep)
{
    struct limit_shared *shared = ep->balance->conf.shared;

    if (ep->app == NULL || ep->app->connections == NULL || shared == NULL)
        return;
    for (; ep->n_published < ep->n_connections; ep->n_published++)
        (void)limit_counter_take(shared, ep->app->connections, UINT32_MAX);
    for (; ep->n_published > ep->n_connections; ep->n_published--)
        limit_counter_give(shared, ep->app->connections);
}

bool endpoint_app_is_full(struct endpoint *ep)
{
    if (ep->app == NULL || ep->app->connections_max == 0)
        return false;
    publish_app(ep); /* the limit may be newer than the connections */
    return ep->n_connections >= ep->app->connections_max ||
           (ep->balance->conf.shared != NULL &&
            limit_counter_sum(ep->balance->conf.shared, ep->app->connections) >=
                ep->app->connections_max);
}

/* ---- counting ---- */

static void move(struct endpoint *ep, int n)
{
    ep->n_connections = (unsigned)((int)ep->n_connections + n);
    publish_app(ep);
    LIST_EACH (it, &ep->seats)
        backend_move_connections(CONTAINER_OF(it, struct seat, node)->backend, n);
    if (n < 0)
        connections_look(ep->balance);
}

void connections_begin(struct endpoint *ep)
{
    move(ep, 1);
}

void connections_failed(struct endpoint *ep)
{
    move(ep, -1);
}

void connections_open(struct endpoint *ep, const struct conn *c)
{
    struct balance *b = ep->balance;
    struct held *h = calloc(1, sizeof(*h));

    if (h == NULL) {
        move(ep, -1); /* not counted any more: better than counted for ever */
        return;
    }
    h->conn = c;
    h->ep = ep;
    list_push(&ep->held, &h->node);
    HASH_ADD_PTR(b->held, conn, h);
}

static void held_free(struct balance *b, struct held *h)
{
    HASH_DEL(b->held, h);
    list_del(&h->node);
    free(h);
}

void balance_conn_closed(struct balance *b, const struct conn *c)
{
    struct held *h;
    struct endpoint *ep;

    HASH_FIND_PTR(b->held, &c, h);
    if (h == NULL)
        return;
    ep = h->ep;
    held_free(b, h);
    if (ep != NULL)
        move(ep, -1);
}

void connections_forget(struct endpoint *ep)
{
    struct list *node;

    while ((node = list_pop(&ep->held)) != NULL)
        CONTAINER_OF(node, struct held, node)->ep = NULL;
    list_del(&ep->starving);
    ep->n_connections = 0;
    publish_app(ep);
    limit_port_drop(&ep->app);
}

void connections_stop(struct balance *b)
{
    struct held *h, *next;

    timer_stop(&b->feed);
    HASH_ITER(hh, b->held, h, next)
    {
        held_free(b, h);
    }
}

/* ---- who may, and who waits ---- */

bool endpoint_may_dial(struct endpoint *ep)
{
    LIST_EACH (it, &ep->seats)
        if (backend_has_no_place(CONTAINER_OF(it, struct seat, node)->backend))
            return false;
    return !endpoint_app_is_full(ep);
}

void endpoint_starves(struct endpoint *ep)
{
    if (list_is_empty(&ep->starving))
        list_push(&ep->balance->starving, &ep->starving);
    if (!timer_is_armed(&ep->balance->feed))
        timer_once(&ep->balance->feed, FEED_MS);
}

/* Opaque connections wait in the backend's queue. */
static bool anybody_waits(const struct balance *b)
{
    return !list_is_empty(&b->starving) || !list_is_empty(&b->hungry);
}

void connections_look(struct balance *b)
{
    if (anybody_waits(b))
        timer_once(&b->feed, 0);
}

/* Makes room by closing an idle connection to another endpoint of the backend that is full. */
static void make_room(struct endpoint *ep)
{
    LIST_EACH (it, &ep->seats) {
        struct backend *be = CONTAINER_OF(it, struct seat, node)->backend;

        if (backend_has_no_place(be)) {
            (void)pool_reclaim(be);
            return; /* its end brings us here again */
        }
    }
}

void connections_feed(struct balance *b)
{
    struct list all, *node;

    list_init(&all);
    while ((node = list_pop(&b->starving)) != NULL)
        list_push(&all, node);
    while ((node = list_pop(&all)) != NULL) {
        struct endpoint *ep = CONTAINER_OF(node, struct endpoint, starving);

        pool_feed(ep); /* joins again if it may not */
        if (!list_is_empty(&ep->starving))
            make_room(ep);
    }
    balance_wake_later(b);
}
