/* Versions of a view: decoded, checked, with compiled routes and the backends they point at. */
#include "proxy/discover/discover.h"

#include "kit/log.h"
#include "model/route.h"
#include "proxy/balance/balance.h"
#include "proxy/net/address.h"

#include <stdlib.h>

void destination_ref(struct destination *d)
{
    d->refs++;
}

void destination_unref(struct destination **dp)
{
    struct destination *d = *dp;

    if (d == NULL)
        return;
    *dp = NULL;
    BUG_ON(d->refs == 0);
    if (--d->refs > 0)
        return;
    route_table_free(&d->routes);
    for (size_t i = 0; i < d->n_backends; i++)
        backend_unref(&d->backends[i]);
    free(d->backends);
    if (d->view != NULL)
        wire_msg_done(&d->msg);
    free(d->bytes);
    free(d);
}

static err_t make_backends(struct destination *d, struct balance *balance,
                           bool (*is_local)(void *arg, const struct sockaddr_storage *a),
                           void *arg)
{
    const struct wire_destination *v = d->view;

    d->backends = calloc(v->n_backends, sizeof(struct backend *));
    if (d->backends == NULL)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < v->n_backends; i++) {
        struct backend_spec spec = {.view = &v->backends[i],
                                    .revision = v->revision,
                                    .is_stale = v->is_stale,
                                    .is_single = v->kind != DESTINATION_SERVICE,
                                    .is_local = is_local,
                                    .arg = arg};

        TRY(backend_get(balance, &spec, &d->backends[i]));
        d->n_backends++;
    }
    return OK;
}

/* What balance is told: kinds that are known, numbers that make sense. */
static bool is_backend(const struct wire_backend *b)
{
    if (b->protocol > PROTOCOL_OPAQUE || b->state > ROUTE_BACKEND_MISSING)
        return false;
    for (size_t i = 0; i < b->n_balancing; i++) {
        const struct wire_balancing *w = &b->balancing[i];

        if (w->kind > BALANCING_HASH || w->hash_by > HASH_BY_SOURCE || w->zone_mode > 1)
            return false;
        if (w->kind == BALANCING_HASH &&
            (w->hash_by == HASH_BY_NOTHING ||
             (w->hash_by != HASH_BY_SOURCE && w->hash_name.n == 0)))
            return false;
        if (w->share_cap_permille != 0 && w->share_cap_permille < 1000)
            return false;
    }
    for (size_t i = 0; i < b->n_breaker; i++)
        if (b->breaker[i].success_permille > 1000 || b->breaker[i].max_ejected_permille > 1000)
            return false;
    return true;
}

static bool are_classes(const struct wire_rule *rule)
{
    for (size_t i = 0; i < rule->n_classes; i++)
        if (rule->classes[i].low > rule->classes[i].high)
            return false;
    return true;
}

/* Indices, filters and matches are checked by route_table_new. */
static err_t check(const struct wire_destination *v)
{
    if (v->kind > DESTINATION_ENDPOINT || v->protocol > PROTOCOL_OPAQUE)
        return ERR_OF(MALFORMED);
    for (size_t i = 0; i < v->n_backends; i++)
        if (!is_backend(&v->backends[i]))
            return ERR_OF(MALFORMED);
    for (size_t i = 0; i < v->n_rules; i++)
        if (!are_classes(&v->rules[i]))
            return ERR_OF(MALFORMED);
    return OK;
}

static err_t destination_fill(struct destination *d, slice_t bytes, struct balance *balance,
                              bool (*is_local)(void *arg, const struct sockaddr_storage *a),
                              void *arg)
{
    char why[160] = "";
    err_t e;

    d->bytes = malloc(bytes.n);
    if (d->bytes == NULL)
        return ERR_OF(NOMEM);
    memcpy(d->bytes, bytes.p, bytes.n);
    TRY(wire_decode(slice(d->bytes, bytes.n), WIRE_ROLE_LINK, WIRE_ROLE_PROXY, &d->msg));
    d->view = wire_as(destination, &d->msg);
    if (d->view == NULL) {
        wire_msg_done(&d->msg);
        return ERR_OF(MALFORMED);
    }
    TRY(check(d->view));
    e = route_table_new(d->view, &d->routes, why);
    if (e != OK) {
        log_warn("routes of a view cannot be used", "target=%.*s why=%s",
                 SLICE_FMT(d->view->target), why);
        return e;
    }
    return make_backends(d, balance, is_local, arg);
}

/* A plain address, in the form in which the link would have told it. */
static err_t encode_plain(slice_t target, uint64_t revision,
                          const struct sockaddr_storage *address, struct buf *out)
{
    char ip[ADDRESS_TEXT];
    struct wire_endpoint ep = {.port = address_port(address), .weight = 10000};
    struct wire_backend be = {.port = ep.port, .n_endpoints = 1, .endpoints = &ep};
    struct wire_weighted share = {.backend = 0, .weight = 1};
    struct wire_rule rule = {.n_backends = 1, .backends = &share};
    struct wire_destination v = {.target = target,
                                 .revision = revision,
                                 .port = ep.port,
                                 .n_rules = 1,
                                 .rules = &rule,
                                 .n_backends = 1,
                                 .backends = &be};

    address_print_ip(address, ip);
    ep.ip = slice_str(ip);
    be.name = slice_str(ip);
    return WIRE_ENCODE(destination, &v, out);
}

err_t destination_read(slice_t bytes, struct balance *balance,
                       bool (*is_local)(void *arg, const struct sockaddr_storage *a), void *arg,
                       struct destination **out)
{
    struct destination *d = calloc(1, sizeof(*d));
    err_t why;

    if (d == NULL)
        return ERR_OF(NOMEM);
    d->refs = 1;
    why = destination_fill(d, bytes, balance, is_local, arg);
    if (why == OK && d->n_backends == 0) {
        /* Nothing is behind it (kind 0): the address itself is. A name has none, and has no
         * route either. */
        struct sockaddr_storage address;

        if (address_parse_pair(d->view->target, &address)) {
            struct buf plain;

            buf_init(&plain, 0);
            why = encode_plain(d->view->target, d->view->revision, &address, &plain);
            destination_unref(&d);
            if (why == OK)
                why = destination_read(buf_slice(&plain), balance, is_local, arg, &d);
            buf_done(&plain);
        }
    }
    if (why != OK) {
        destination_unref(&d);
        return why;
    }
    *out = d;
    return OK;
}

err_t destination_plain(const char *text, const struct sockaddr_storage *address,
                        struct balance *balance, struct destination **out)
{
    struct buf plain;
    err_t why;

    buf_init(&plain, 0);
    why = encode_plain(slice_str(text), 0, address, &plain);
    if (why == OK)
        why = destination_read(buf_slice(&plain), balance, NULL, NULL, out);
    buf_done(&plain);
    if (why == OK)
        (*out)->is_guess = true;
    return why;
}
