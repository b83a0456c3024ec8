/* Backends: sets of endpoints, the choice, the queue of who waits for one. */
#include "proxy/balance/balance_priv.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/random.h"
#include "proxy/net/address.h"

#include <stdio.h>
#include <stdlib.h>

#define KEY_MAX 400

static void backend_swap_set(struct backend *be, struct endpoint **set, size_t n)
{
    struct endpoint **old = be->set;
    size_t n_old = be->n_set;

    be->set = set;
    be->n_set = n;
    /* After the swap: what both sets have never falls to zero references and keeps its state.
     */
    for (size_t i = 0; i < n_old; i++)
        endpoint_unref(&old[i]);
    free(old);
}

static err_t backend_fill(struct backend *be, const struct backend_spec *spec)
{
    const struct wire_backend *v = spec->view;
    struct endpoint **set =
        v->n_endpoints == 0 ? NULL : calloc(v->n_endpoints, sizeof(struct endpoint *));
    size_t n = 0;

    if (set == NULL && v->n_endpoints > 0)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < v->n_endpoints; i++) {
        const struct wire_endpoint *w = &v->endpoints[i];
        struct endpoint_spec es = {.identity = w->identity,
                                   .inbound_port = w->inbound_port,
                                   .pod = w->pod,
                                   .weight = w->weight};

        if (w->port == 0 || !address_parse(w->ip, w->port, &es.address)) {
            log_warn("endpoint left out of a view", "backend=%s ip=%.*s port=%u", be->key,
                     SLICE_FMT(w->ip), w->port);
            continue;
        }
        if (spec->is_local != NULL && spec->is_local(spec->arg, &es.address))
            es.identity = SLICE_LIT("");
        if (endpoint_get(be->balance, &es, &set[n]) != OK)
            continue;
        if (set[n]->service[0] == 0 && be->namespace[0] != 0) {
            memcpy(set[n]->service_namespace, be->namespace, sizeof(be->namespace));
            memcpy(set[n]->service, be->name, sizeof(be->name));
            set[n]->service_port = be->port;
        }
        n++;
    }
    backend_swap_set(be, set, n);
    return OK;
}

static size_t make_key(const struct wire_backend *v, char out[KEY_MAX])
{
    int n;

    if (v->namespace.n == 0 && memchr(v->name.p, ':', v->name.n) != NULL)
        n = snprintf(out, KEY_MAX, "[%.*s]:%u", SLICE_FMT(v->name), v->port);
    else if (v->namespace.n == 0)
        n = snprintf(out, KEY_MAX, "%.*s:%u", SLICE_FMT(v->name), v->port);
    else
        n = snprintf(out, KEY_MAX, "%.*s/%.*s:%u", SLICE_FMT(v->namespace), SLICE_FMT(v->name),
                     v->port);
    BUG_ON(n < 0 || n >= KEY_MAX);
    return (size_t)n;
}

static struct backend *backend_make(struct balance *b, const struct wire_backend *v,
                                    const char *key, size_t key_n)
{
    struct backend *be = calloc(1, sizeof(*be));

    if (be == NULL)
        return NULL;
    be->key = strndup(key, key_n);
    if (be->key == NULL || !slice_to_cstr(v->namespace, be->namespace, sizeof(be->namespace)) ||
        !slice_to_cstr(v->name, be->name, sizeof(be->name))) {
        free(be->key);
        free(be);
        return NULL;
    }
    be->balance = b;
    be->serial = ++b->serial;
    be->port = v->port;
    list_init(&be->waiting);
    list_init(&be->hungry);
    list_init(&be->settling);
    HASH_ADD_KEYPTR(hh, b->backends, be->key, key_n, be);
    return be;
}

err_t backend_get(struct balance *b, const struct backend_spec *spec, struct backend **out)
{
    char key[KEY_MAX];
    size_t key_n;
    struct backend *be;
    bool is_new = false;

    if (spec->view->namespace.n > 63 || spec->view->name.n > 253)
        return ERR_OF(TOO_BIG);
    key_n = make_key(spec->view, key);
    HASH_FIND(hh, b->backends, key, key_n, be);
    if (be == NULL) {
        be = backend_make(b, spec->view, key, key_n);
        is_new = true;
    }
    if (be == NULL)
        return ERR_OF(NOMEM);
    be->refs++;
    if (is_new || !spec->is_stale || spec->revision >= be->revision) {
        err_t why = backend_fill(be, spec);

        if (why != OK) {
            backend_unref(&be);
            return why;
        }
        be->revision = spec->revision;
        be->is_missing = spec->view->state == 1;
        be->is_single = spec->is_single;
        be->protocol = spec->view->protocol;
        if (be->n_waiting > 0)
            balance_wake_later(b);
    }
    *out = be;
    return OK;
}

void backend_unref(struct backend **bep)
{
    struct backend *be = *bep;

    if (be == NULL)
        return;
    *bep = NULL;
    BUG_ON(be->refs == 0);
    if (--be->refs > 0)
        return;
    BUG_ON(be->n_waiting > 0); /* who waits holds the view */
    HASH_DEL(be->balance->backends, be);
    list_del(&be->hungry);
    list_del(&be->settling);
    backend_swap_set(be, NULL, 0);
    free(be->key);
    free(be);
}

/* ---- the choice ---- */

#define PICK_TRIES 8

/* A random ready endpoint that is none of the two. Tries at random first; when few are ready,
 * walks. */
static struct endpoint *random_ready(const struct backend *be, const struct endpoint *not_this,
                                     const struct endpoint *nor_this)
{
    size_t n = be->n_set, at = 0;

    for (unsigned i = 0; i < PICK_TRIES + n; i++) {
        struct endpoint *ep;

        at = i < PICK_TRIES ? random_below((uint32_t)n) : (at + 1) % n;
        ep = be->set[at];
        if (ep->state == ENDPOINT_READY && ep != not_this && ep != nor_this)
            return ep;
    }
    return NULL;
}

static struct endpoint *choose(const struct backend *be, const struct endpoint *avoid)
{
    struct endpoint *a, *b;

    if (be->n_set == 0)
        return NULL;
    if (be->n_set == 1)
        return be->set[0]->state == ENDPOINT_READY ? be->set[0] : NULL;
    a = random_ready(be, avoid, NULL);
    if (a == NULL)
        return avoid != NULL ? random_ready(be, NULL, NULL) : NULL;
    b = random_ready(be, avoid, a);
    return b != NULL && endpoint_load(b) < endpoint_load(a) ? b : a;
}

struct endpoint *backend_pick(struct backend *be, const struct endpoint *avoid)
{
    struct endpoint *ep = choose(be, avoid);

    if (ep != NULL)
        be->unready_since_ms = 0;
    else if (be->unready_since_ms == 0)
        be->unready_since_ms = clock_now_ms();
    return ep;
}

bool backend_has_ready(const struct backend *be)
{
    for (size_t i = 0; i < be->n_set; i++)
        if (be->set[i]->state == ENDPOINT_READY)
            return true;
    return false;
}

bool backend_is_failfast(struct backend *be)
{
    return be->unready_since_ms != 0 &&
           clock_now_ms() - be->unready_since_ms >= be->balance->conf.failfast_ms;
}

/* ---- the queue ---- */

err_t backend_wait(struct backend *be, struct pick_wait *w)
{
    struct balance *b = be->balance;

    if (be->n_waiting >= b->conf.queue_capacity)
        return ERR_OF(QUEUE_FULL);
    w->backend = be;
    list_push(&be->waiting, &w->node);
    be->n_waiting++;
    if (list_is_empty(&be->hungry))
        list_push(&b->hungry, &be->hungry);
    return OK;
}

void pick_wait_cancel(struct pick_wait *w)
{
    struct backend *be = w->backend;

    if (be == NULL)
        return;
    w->backend = NULL;
    list_del(&w->node);
    if (--be->n_waiting == 0)
        list_del(&be->hungry);
}

void balance_wake_later(struct balance *b)
{
    if (!list_is_empty(&b->hungry) && !timer_is_armed(&b->wake))
        timer_once(&b->wake, 0);
}

/* Wakes everybody whose backend has a ready endpoint. Each looks again and may join the queue
 * anew. */
static void on_wake(void *arg)
{
    struct balance *b = arg;
    struct list ready, *node;

    list_init(&ready);
    LIST_EACH_SAFE (it, &b->hungry) {
        struct backend *be = CONTAINER_OF(it, struct backend, hungry);

        if (!backend_has_ready(be) && !be->is_missing)
            continue;
        while ((node = list_pop(&be->waiting)) != NULL)
            list_push(&ready, node); /* cancel still works: it unlinks and counts */
    }
    while (!list_is_empty(&ready)) {
        struct pick_wait *w = CONTAINER_OF(ready.next, struct pick_wait, node);

        pick_wait_cancel(w);
        w->wake(w);
    }
}

static void on_sweep(void *arg)
{
    pool_sweep(arg);
}

err_t balance_new(const struct balance_conf *conf, struct balance **out)
{
    struct balance *b = calloc(1, sizeof(*b));

    if (b == NULL)
        return ERR_OF(NOMEM);
    b->conf = *conf;
    list_init(&b->hungry);
    list_init(&b->idle_by_age);
    timer_init(&b->wake, conf->base, on_wake, b);
    timer_init(&b->sweep, conf->base, on_sweep, b);
    timer_every(&b->sweep, conf->pool_idle_ms < 2000 ? conf->pool_idle_ms / 4 + 1 : 500);
    *out = b;
    return OK;
}

void balance_free(struct balance **bp)
{
    struct balance *b = *bp;
    struct endpoint *ep, *next;

    if (b == NULL)
        return;
    HASH_ITER(hh, b->endpoints, ep, next)
    {
        ep->refs = 0; /* whoever held them is gone */
        endpoint_check(ep);
    }
    timer_stop(&b->wake);
    timer_stop(&b->sweep);
    free(b);
    *bp = NULL;
}

size_t balance_endpoints(const struct balance *b)
{
    return HASH_COUNT(b->endpoints);
}
