/* Pools: connections to an endpoint that requests are lent slots of.
 *
 * HTTP/1: a connection carries one request; idle ones are kept in a stack (the last used is the
 * least likely to have been closed by the peer) and go after pool_idle_ms. HTTP/2: few
 * connections carry many; one more is dialled while slots are short, up to BALANCE_MUX_MAX.
 *
 *   (dialled) -> busy <-> idle (HTTP/1)  |  mux (HTTP/2)  -> retired -> gone
 */
#include "proxy/balance/balance_priv.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "proxy/net/conn.h"

#include <stdlib.h>

#define IDLE_LEARN_MIN_MS 100 /* closing sooner is a restart or an error, not a limit */
#define IDLE_FORGET_MS                                                                         \
    600000 /* a learned limit is tried again after this: it may have been changed */
#define IDLE_ONCE_MS 500 /* oldest idle connection for what may not be sent twice */
#define IDLE_UNSURE_MS                                                                         \
    250 /* youngest one for it while it is not known that the server keeps connections at all   \
        */

struct pool_dial { /* a dial on behalf of whoever waits */
    struct endpoint *ep;
    enum pool_kind kind;
    struct dial *dial;
};

enum session_protocol pool_session(enum pool_kind kind)
{
    return kind == POOL_HTTP2 ? SESSION_HTTP2 : SESSION_HTTP1;
}

void pool_init(struct endpoint *ep)
{
    list_init(&ep->idle);
    list_init(&ep->busy);
    list_init(&ep->mux);
    list_init(&ep->retired);
    for (unsigned k = 0; k < POOL_KINDS; k++)
        list_init(&ep->waiting[k]);
}

bool pool_is_empty(const struct endpoint *ep)
{
    return list_is_empty(&ep->idle) && list_is_empty(&ep->busy) && list_is_empty(&ep->mux) &&
           list_is_empty(&ep->retired) && ep->n_dialing[POOL_HTTP1] == 0 &&
           ep->n_dialing[POOL_HTTP2] == 0;
}

/* ---- membership ---- */

static void pooled_unlink(struct pooled *p)
{
    if (!list_is_empty(&p->age)) {
        list_del(&p->age);
        p->ep->n_idle--;
    }
    list_del(&p->node);
}

static void pooled_to_idle(struct pooled *p)
{
    pooled_unlink(p);
    p->idle_since_ms = clock_now_ms();
    list_push_front(&p->ep->idle, &p->node);
    list_push(&p->ep->balance->idle_by_age, &p->age);
    p->ep->n_idle++;
}

static void pooled_to_busy(struct pooled *p)
{
    pooled_unlink(p);
    list_push(&p->ep->busy, &p->node);
}

static void pooled_to_retired(struct pooled *p)
{
    if (p->is_retired)
        return;
    p->is_retired = true;
    pooled_unlink(p);
    if (p->kind == POOL_HTTP2)
        p->ep->n_mux--;
    list_push(&p->ep->retired, &p->node);
}

/* ---- who waits ---- */

static void serve_waiting(struct pooled *p)
{
    struct endpoint *ep = p->ep;
    struct list *waiting = &ep->waiting[p->kind];

    while (!p->is_retired && !list_is_empty(waiting) && http_back_free_slots(p->back) > 0) {
        struct lend *l = CONTAINER_OF(waiting->next, struct lend, node);

        lend_cancel(l); /* out of the queue; the endpoint is kept by whoever lends */
        if (p->kind == POOL_HTTP1)
            pooled_to_busy(p);
        l->done(l, p->back, NULL);
    }
}

/* A dial has failed: those for whom no other is under way hear of it. On HTTP/2 any connection
 * will do, so they go on waiting while there is one. */
static void pool_fail_waiting(struct endpoint *ep, enum pool_kind kind,
                              const struct lend_failure *why)
{
    unsigned n =
        ep->n_waiting[kind] -
        (ep->n_dialing[kind] < ep->n_waiting[kind] ? ep->n_dialing[kind] : ep->n_waiting[kind]);
    struct list failed, *node;

    if (kind == POOL_HTTP2)
        n = ep->n_dialing[kind] == 0 && list_is_empty(&ep->mux) ? ep->n_waiting[kind] : 0;
    list_init(&failed);
    while (n-- > 0 && (node = list_pop(&ep->waiting[kind])) != NULL)
        list_push(&failed, node);
    while (!list_is_empty(&failed)) {
        struct lend *l = CONTAINER_OF(failed.next, struct lend, node);

        lend_cancel(l);
        l->done(l, NULL, why);
    }
}

void lend_cancel(struct lend *l)
{
    if (l->endpoint == NULL)
        return;
    list_del(&l->node);
    l->endpoint->n_waiting[l->kind]--;
    l->endpoint = NULL;
}

/* ---- events of the codecs ---- */

static void on_back_ready(void *arg, struct http_back *back)
{
    struct pooled *p = arg;
    struct endpoint *ep = p->ep;

    if (p->is_retired || back != p->back || http_back_free_slots(back) == 0)
        return;
    ep->keeps_alive = ep->keeps_alive || p->is_reused;
    p->is_reused = false;
    serve_waiting(p);
    if (p->kind == POOL_HTTP1 && !p->is_retired && http_back_free_slots(back) > 0) {
        if (ep->n_idle >= BALANCE_IDLE_MAX)
            http_back_retire(back, CLOSE_POOL_IDLE);
        else if (list_is_empty(&p->age))
            pooled_to_idle(p);
        if (!list_is_empty(&ep->balance->starving))
            connections_look(ep->balance);
    }
}

static void pool_dial_more(struct endpoint *ep, enum pool_kind kind);

/* What runs on it (after a GOAWAY, say) may take long: who waits for a slot need not. */
static void on_back_retired(void *arg, struct http_back *back)
{
    struct pooled *p = arg;

    (void)back;
    pooled_to_retired(p);
    pool_dial_more(p->ep, POOL_HTTP2);
}

/* The server closed an idle connection. One such end may be a restart; two after about the same
 * time, the second connection having become idle after the first end, are its limit: from now
 * on none is used again shortly before that age, so that its end and our next request do not
 * cross. */
static void learn_idle_limit(struct endpoint *ep, uint64_t since_ms)
{
    uint64_t now = clock_now_ms(), age = now - since_ms;
    uint64_t differs = age > ep->idle_end_ms ? age - ep->idle_end_ms : ep->idle_end_ms - age;

    if (age < IDLE_LEARN_MIN_MS)
        ep->keeps_alive = false;
    if (age < IDLE_LEARN_MIN_MS || since_ms < ep->idle_ended_at_ms)
        return;
    if (ep->idle_end_ms != 0 && differs <= age / 8) {
        ep->idle_limit_ms = age - age / 5;
        ep->idle_learned_at_ms = now;
    }
    ep->idle_end_ms = age;
    ep->idle_ended_at_ms = now;
}

static bool is_ended_by_peer(int why)
{
    return why == CLOSE_PEER_CLOSED || why == CLOSE_PEER_RESET;
}

static void on_back_closed(void *arg, struct http_back *back, int why)
{
    struct pooled *p = arg;
    struct endpoint *ep = p->ep;

    (void)back;
    if (is_ended_by_peer(why) && !list_is_empty(&p->age))
        learn_idle_limit(ep, p->idle_since_ms);
    if (is_ended_by_peer(why) && p->is_reused)
        ep->keeps_alive = false; /* instead of a second answer */
    pooled_to_retired(p);
    list_del(&p->node);
    free(p);
    /* Who waited for a slot of it needs another connection. */
    pool_dial_more(ep, POOL_HTTP2);
    endpoint_check(ep);
}

/* ---- making connections ---- */

bool pool_adopt(struct endpoint *ep, enum pool_kind kind, struct conn *c)
{
    struct pooled *p = calloc(1, sizeof(*p));
    struct http_back_conf conf = {.limits = ep->balance->conf.limits,
                                  .on_ready = on_back_ready,
                                  .on_retired = on_back_retired,
                                  .on_closed = on_back_closed,
                                  .arg = p};
    err_t why;

    if (endpoint_is_meshed(ep)) { /* a proxy of ours or Linkerd's: PINGs are welcome there */
        http_limits_for_mesh(&conf.limits);
        conf.ping_every_ms = 10000;
        conf.ping_wait_ms = 3000;
    }
    if (p == NULL) {
        conn_own(c, NULL, NULL);
        conn_close(c, CLOSE_LIMIT);
        return false;
    }
    p->ep = ep;
    p->kind = kind;
    list_init(&p->node);
    list_init(&p->age);
    why = kind == POOL_HTTP2 ? http2_client_start(c, &conf, &p->back)
                             : http1_client_start(c, &conf, &p->back);
    if (why != OK) {
        conn_own(c, NULL, NULL);
        conn_close(c, CLOSE_LIMIT);
        free(p);
        return false;
    }
    if (kind == POOL_HTTP2) {
        list_push(&ep->mux, &p->node);
        ep->n_mux++;
    } else {
        list_push(&ep->busy, &p->node);
    }
    on_back_ready(p, p->back);
    return true;
}

void endpoint_donate(struct endpoint *ep, enum pool_kind kind, struct conn *c)
{
    (void)pool_adopt(ep, kind, c); /* failure has closed it: nobody waits for it */
}

static void on_dialled(void *arg, const struct dial_result *r)
{
    struct pool_dial *pd = arg;
    struct endpoint *ep = pd->ep;
    enum pool_kind kind = pd->kind;

    free(pd);
    endpoint_ref(ep); /* callbacks below may drop the last reference */
    ep->n_dialing[kind]--;
    if (r->conn == NULL) {
        struct lend_failure why = {.is_tls = r->is_tls,
                                   .is_timeout = r->is_timeout,
                                   .is_local = r->is_local,
                                   .code = r->code};

        pool_fail_waiting(ep, kind, &why);
    } else if (!pool_adopt(ep, kind, r->conn)) {
        struct lend_failure why = {.is_local = true, .code = "LIMIT"};

        pool_fail_waiting(ep, kind, &why);
    } else if (kind == POOL_HTTP2) {
        pool_dial_more(ep, kind); /* more wait than it has slots */
    }
    endpoint_unref(&ep);
}

static bool pool_dial(struct endpoint *ep, enum pool_kind kind)
{
    struct pool_dial *pd = calloc(1, sizeof(*pd));

    if (pd == NULL)
        return false;
    pd->ep = ep;
    pd->kind = kind;
    if (dial_start(ep, pool_session(kind), on_dialled, pd, &pd->dial) != OK) {
        free(pd);
        return false;
    }
    ep->n_dialing[kind]++;
    return true;
}

static void pool_dial_more(struct endpoint *ep, enum pool_kind kind)
{
    if (ep->n_waiting[kind] == 0)
        return;
    if (kind == POOL_HTTP1 ? ep->n_dialing[kind] >= ep->n_waiting[kind]
                           : ep->n_dialing[kind] > 0 || ep->n_mux >= BALANCE_MUX_MAX)
        return;
    if (!endpoint_may_dial(ep))
        endpoint_starves(ep);
    else
        (void)pool_dial(ep, kind); /* no memory: who waits has a limit of time */
}

void pool_feed(struct endpoint *ep)
{
    endpoint_ref(ep);
    for (unsigned k = 0; k < POOL_KINDS; k++) {
        unsigned before;

        do {
            before = ep->n_dialing[k];
            pool_dial_more(ep, k);
        } while (ep->n_dialing[k] > before);
    }
    endpoint_unref(&ep);
}

bool endpoint_is_shaking(const struct endpoint *ep, enum pool_kind kind)
{
    return endpoint_is_meshed(ep) && ep->n_dialing[kind] > 0 && ep->n_mux == 0;
}

bool pool_reclaim(struct backend *be)
{
    LIST_EACH (it, &be->balance->idle_by_age) {
        struct pooled *p = CONTAINER_OF(it, struct pooled, age);

        if (seat_of(be, p->ep) == NULL)
            continue;
        pooled_to_retired(p);
        http_back_retire(p->back, CLOSE_POOL_IDLE);
        return true;
    }
    return false;
}

/* ---- lending ---- */

/* An idle connection for a request that may not be sent twice, or NULL: only one whose server
 * surely keeps it still. Keep- alive limits begin at a second or so, and a new connection costs
 * less than an error. Before a server was seen to keep connections the oldest is taken, which
 * it has had time to end. */
static struct pooled *idle_for_once(struct endpoint *ep, uint64_t now)
{
    struct pooled *p =
        CONTAINER_OF(ep->keeps_alive ? ep->idle.next : ep->idle.prev, struct pooled, node);
    uint64_t age = now - p->idle_since_ms;

    if (age > IDLE_ONCE_MS) {
        pooled_to_retired(p); /* a new one takes its place */
        http_back_retire(p->back, CLOSE_POOL_IDLE);
        return NULL;
    }
    return ep->keeps_alive || age >= IDLE_UNSURE_MS ? p : NULL;
}

/* The connection used last, if its server surely keeps it still. */
static struct http_back *lend_idle(struct endpoint *ep, bool is_once)
{
    uint64_t now = clock_now_ms();

    if (now - ep->idle_learned_at_ms >= IDLE_FORGET_MS)
        ep->idle_limit_ms = 0;
    while (!list_is_empty(&ep->idle)) {
        struct pooled *p = CONTAINER_OF(ep->idle.next, struct pooled, node);

        if (ep->idle_limit_ms != 0 && now - p->idle_since_ms >= ep->idle_limit_ms) {
            pooled_to_retired(p);
            http_back_retire(p->back, CLOSE_POOL_IDLE);
            continue;
        }
        if (is_once)
            p = idle_for_once(ep, now);
        if (p == NULL)
            return NULL;
        pooled_to_busy(p);
        p->is_reused = true;
        if (http_back_free_slots(p->back) > 0)
            return p->back;
    }
    return NULL;
}

/* The connection with the fewest requests that has a slot. */
static struct http_back *lend_mux(struct endpoint *ep)
{
    struct http_back *best = NULL;
    unsigned fewest = 0;

    LIST_EACH (it, &ep->mux) {
        struct pooled *p = CONTAINER_OF(it, struct pooled, node);
        unsigned running = http_back_running(p->back);

        if (http_back_free_slots(p->back) > 0 && (best == NULL || running < fewest)) {
            best = p->back;
            fewest = running;
        }
    }
    return best;
}

enum step endpoint_lend(struct endpoint *ep, enum pool_kind kind, struct lend *l,
                        struct http_back **out)
{
    struct http_back *back = kind == POOL_HTTP1 ? lend_idle(ep, l->is_once) : lend_mux(ep);

    ep->last_kind = kind;
    if (back != NULL) {
        *out = back;
        return STEP_DONE;
    }
    l->endpoint = ep;
    l->kind = kind;
    list_push(&ep->waiting[kind], &l->node);
    ep->n_waiting[kind]++;
    pool_dial_more(ep, kind);
    if (ep->n_dialing[kind] == 0 && list_is_empty(&ep->starving) &&
        (kind == POOL_HTTP1 || list_is_empty(&ep->mux))) {
        lend_cancel(l);
        return STEP_FAILED;
    }
    return STEP_LATER;
}

/* ---- the end of connections ---- */

static void retire_list(struct list *l, int why)
{
    struct list all, *node;

    list_init(&all);
    while ((node = list_pop(l)) != NULL)
        list_push(&all, node);
    while (!list_is_empty(&all)) {
        struct pooled *p = CONTAINER_OF(all.next, struct pooled, node);

        pooled_to_retired(p);
        http_back_retire(p->back, why); /* may free p */
    }
}

void pool_retire_all(struct endpoint *ep, int why)
{
    retire_list(&ep->idle, why);
    retire_list(&ep->busy, why);
    retire_list(&ep->mux, why);
}

void pool_sweep(struct balance *b)
{
    uint64_t now = clock_now_ms();

    while (!list_is_empty(&b->idle_by_age)) {
        struct pooled *p = CONTAINER_OF(b->idle_by_age.next, struct pooled, age);

        if (now - p->idle_since_ms < b->conf.pool_idle_ms)
            return;
        pooled_to_retired(p);
        http_back_retire(p->back, CLOSE_POOL_IDLE);
    }
}
