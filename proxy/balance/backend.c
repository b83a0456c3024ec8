/* Backends: sets of endpoints, the choice, the queue of who waits for one. */
#include "proxy/balance/choose.h"

#include "kit/clock.h"
#include "model/ring.h"
#include "model/route.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"

#include <stdio.h>
#include <stdlib.h>

#define KEY_MAX 400

/* ---- settings ---- */

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value != 0 ? value : otherwise;
}

static const struct wire_balancing no_balancing = {.kind = BALANCING_EWMA};

/* What a newer control plane may say and we do not know is what is always right: EWMA. */
static void read_balancing(struct backend *be, const struct wire_balancing *w)
{
    bool is_hash = w->kind == BALANCING_HASH && w->hash_by >= HASH_BY_HEADER &&
                   w->hash_by <= HASH_BY_SOURCE &&
                   slice_to_cstr(w->hash_name, be->hash_name, sizeof(be->hash_name));

    be->balancing = w->kind < BALANCING_HASH || is_hash ? w->kind : (uint8_t)BALANCING_EWMA;
    be->hash_by = is_hash ? w->hash_by : (uint8_t)HASH_BY_NOTHING;
    be->slow_start_ms = w->slow_start_ms;
    be->uses_zones = w->zone_mode == 1 && be->balance->zone[0] != 0;
    be->spill_permille = or_default(w->spill_permille, BALANCE_SPILL_PERMILLE);
    be->share_cap_permille = w->share_cap_permille;
    be->penalises = w->penalises;
    be->penalty_ms = or_default(w->penalty_ms, BALANCE_PENALTY_MS);
    be->retry_after_max_ms = or_default(w->retry_after_max_ms, BREAKER_RETRY_AFTER_MAX_MS);
}

static void read_settings(struct backend *be, const struct backend_spec *spec)
{
    const struct wire_backend *v = spec->view;

    be->is_missing = v->state == 1;
    be->is_single = spec->is_single;
    be->protocol = v->protocol;
    read_balancing(be, v->n_balancing > 0 ? &v->balancing[0] : &no_balancing);
    /* A single address has no alternative: nobody is taken out. */
    be->has_breaker = v->n_breaker > 0 && !spec->is_single;
    if (be->has_breaker)
        breaker_conf_read(&v->breaker[0], be->retry_after_max_ms, &be->breaker);
    be->waiting_max = v->waiting_max;
    if (be->connections_max != v->connections_max) {
        be->connections_max = v->connections_max;
        backend_limit_changed(be);
    }
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
    be->choice = choice_new();
    if (be->key == NULL || be->choice == NULL ||
        !slice_to_cstr(v->namespace, be->namespace, sizeof(be->namespace)) ||
        !slice_to_cstr(v->name, be->name, sizeof(be->name))) {
        choice_free(&be->choice);
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
        err_t why;

        read_settings(be, spec);
        why = seats_replace(be, spec);
        if (why != OK) {
            backend_unref(&be);
            return why;
        }
        be->revision = spec->revision;
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
    if (be->balance->conf.on_backend_free != NULL)
        be->balance->conf.on_backend_free(be->balance->conf.arg, be);
    HASH_DEL(be->balance->backends, be);
    list_del(&be->hungry);
    list_del(&be->settling);
    seats_free(be);
    be->connections_max = 0;
    backend_limit_changed(be);
    choice_free(&be->choice);
    free(be->key);
    free(be);
}

/* ---- the choice ---- */

struct endpoint *backend_pick_by(struct backend *be, const struct pick *p)
{
    struct seat *s = choose_seat(be, p);

    if (s == NULL) {
        if (be->unready_since_ms == 0)
            be->unready_since_ms = clock_now_ms();
        return NULL;
    }
    if (s->counts_as_probation && !p->is_mute)
        seat_probe(
            s); /* one request is no return: who asks meanwhile is not made to wait anew */
    else
        be->unready_since_ms = 0;
    return s->endpoint;
}

struct endpoint *backend_pick(struct backend *be, const struct endpoint *avoid)
{
    struct pick p = {.avoid = avoid};

    return backend_pick_by(be, &p);
}

void pick_source_key(struct pick *p, const struct conn *client)
{
    char ip[ADDRESS_TEXT];

    p->has_key = client != NULL;
    if (client == NULL)
        return;
    address_print_ip(&conn_info(client)->peer, ip);
    p->key = ring_key(slice_str(ip));
}

struct endpoint *backend_pick_opaque(struct backend *be, const struct conn *client,
                                     bool *is_full)
{
    struct pick p = {.is_mute = true};

    *is_full = be->n_ready > 0 && backend_has_no_place(be);
    if (*is_full)
        return NULL; /* not even looked at: a pick that comes to nothing would count for share caps */
    if (be->hash_by == HASH_BY_SOURCE)
        pick_source_key(&p, client);
    return backend_pick_by(be, &p);
}

void backend_count(const struct backend *be, uint32_t out[BACKEND_STATE_COUNT])
{
    size_t rest = be->n_set - be->n_ready;

    out[BACKEND_STATE_ready] = (uint32_t)be->n_ready;
    out[BACKEND_STATE_ejected] = (uint32_t)(be->n_out < rest ? be->n_out : rest);
    out[BACKEND_STATE_pending] = (uint32_t)rest - out[BACKEND_STATE_ejected];
}

void backend_describe(const struct backend *be, char out[BACKEND_TEXT])
{
    uint32_t n[BACKEND_STATE_COUNT];
    int len = snprintf(out, BACKEND_TEXT, "%.90s: ", be->key);
    size_t at = len < 0 ? 0 : (size_t)len;

    backend_count(be, n);
    if (be->n_set == 0)
        (void)snprintf(out + at, BACKEND_TEXT - at, "no endpoints");
    else if (n[BACKEND_STATE_ready] > 0)
        (void)snprintf(out + at, BACKEND_TEXT - at, "%u ready, %u ejected, %u connecting",
                       n[BACKEND_STATE_ready], n[BACKEND_STATE_ejected],
                       n[BACKEND_STATE_pending]);
    else
        (void)snprintf(out + at, BACKEND_TEXT - at, "%u ejected, %u connecting",
                       n[BACKEND_STATE_ejected], n[BACKEND_STATE_pending]);
}

void balance_each_backend(struct balance *b, void (*each)(void *arg, struct backend *be),
                          void *arg)
{
    struct backend *be, *next;

    HASH_ITER(hh, b->backends, be, next)
    {
        each(arg, be);
    }
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

    if (be->n_waiting >= (be->waiting_max > 0 ? be->waiting_max : b->conf.queue_capacity))
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

static void on_feed(void *arg)
{
    connections_feed(arg);
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
    b->conf.zone = NULL;
    if (conf->zone != NULL && !slice_to_cstr(slice_str(conf->zone), b->zone, sizeof(b->zone))) {
        free(b);
        return ERR_OF(BAD_SETTING);
    }
    list_init(&b->starving);
    timer_init(&b->feed, conf->base, on_feed, b);
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
    connections_stop(b);
    free(b);
    *bp = NULL;
}

size_t balance_endpoints(const struct balance *b)
{
    return HASH_COUNT(b->endpoints);
}
