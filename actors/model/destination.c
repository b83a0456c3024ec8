#include "model/destination.h"

#include "model/route.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_RULES = 512, MAX_BACKENDS = 128, MAX_ENDPOINTS = 4096 }; /* of messages.def */

struct builder {
    const struct destination_input *in;
    struct arena *arena;
    struct wire_destination *out;
};

/* n zeroed elements; at least one byte, so that NULL always means no memory. */
static err_t take(struct builder *b, size_t n, size_t size, void **out)
{
    *out = arena_alloc(b->arena, n * size + 1);
    return *out != NULL ? OK : ERR_OF(NOMEM);
}

/* ---- which routes ---- */

bool destination_is_attached(const struct resource *route, slice_t namespace, slice_t name,
                             uint16_t port)
{
    const struct http_route *r = &route->http_route;

    if (route->kind != RESOURCE_HTTP_ROUTE)
        return false;
    for (size_t i = 0; i < r->n_parents; i++)
        if (slice_is(r->parents[i].namespace, namespace) &&
            slice_is(r->parents[i].name, name) &&
            (r->parents[i].port == 0 || r->parents[i].port == port))
            return true;
    return false;
}

static int compare_slices(slice_t a, slice_t b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n > 0 ? memcmp(a.p, b.p, n) : 0;

    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

static int compare_age(const void *left, const void *right)
{
    const struct resource *const *a = left, *const *b = right;
    int c;

    if ((*a)->created != (*b)->created)
        return (*a)->created < (*b)->created ? -1 : 1;
    c = compare_slices((*a)->namespace, (*b)->namespace);
    return c != 0 ? c : compare_slices((*a)->name, (*b)->name);
}

/* The attached routes of one namespace into list; their number. */
static size_t collect(const struct destination_input *in, slice_t namespace,
                      const struct resource **list)
{
    const struct resource *s = in->service;
    size_t n = 0;

    for (size_t i = 0; i < in->n_routes; i++)
        if (slice_is(in->routes[i]->namespace, namespace) &&
            destination_is_attached(in->routes[i], s->namespace, s->name, in->port))
            list[n++] = in->routes[i];
    return n;
}

static err_t choose_routes(struct builder *b, const struct resource ***out, size_t *n_out)
{
    const struct destination_input *in = b->in;
    const struct resource **list;
    void *p;
    size_t n = 0;

    TRY(take(b, in->n_routes, sizeof(*list), &p));
    list = p;
    if (in->client_namespace.n > 0 && !slice_is(in->client_namespace, in->service->namespace))
        n = collect(in, in->client_namespace,
                    list); /* the consumer's own, instead of the producer's */
    if (n == 0)
        n = collect(in, in->service->namespace, list);
    if (n > 1)
        qsort(list, n, sizeof(*list), compare_age);
    *out = list;
    *n_out = n;
    return OK;
}

/* ---- backends ---- */

static err_t backend_index(struct builder *b, slice_t namespace, slice_t name, uint16_t port,
                           uint16_t *out)
{
    struct wire_destination *d = b->out;
    struct destination_backend found = {.exists = false};
    struct wire_backend *w;

    for (size_t i = 0; i < d->n_backends; i++) {
        w = &d->backends[i];
        if (w->port == port && slice_is(w->name, name) && slice_is(w->namespace, namespace)) {
            *out = (uint16_t)i;
            return OK;
        }
    }
    if (d->n_backends == MAX_BACKENDS)
        return ERR_OF(MODEL_LIMIT);
    b->in->lookup(b->in->arg, namespace, name, port, &found);
    w = &d->backends[d->n_backends];
    w->namespace = namespace;
    w->name = name;
    w->port = port;
    w->state = found.exists ? ROUTE_BACKEND_EXISTS : ROUTE_BACKEND_MISSING;
    if (found.exists) {
        w->protocol = found.protocol;
        w->endpoints = found.endpoints;
        w->n_endpoints = found.n_endpoints < MAX_ENDPOINTS ? found.n_endpoints : MAX_ENDPOINTS;
    }
    *out = (uint16_t)d->n_backends++;
    return OK;
}

/* No backendRefs: everything goes to the parent, which is backends[0]. */
static err_t add_weights(struct builder *b, const struct route_rule *from,
                         struct wire_rule *rule)
{
    size_t n = from != NULL && from->n_backends > 0 ? from->n_backends : 1;
    void *p;

    TRY(take(b, n, sizeof(*rule->backends), &p));
    rule->backends = p;
    rule->n_backends = n;
    if (from == NULL || from->n_backends == 0) {
        rule->backends[0].weight = 1;
        return OK;
    }
    for (size_t i = 0; i < n; i++) {
        const struct route_backend *ref = &from->backends[i];

        TRY(backend_index(b, ref->namespace, ref->name, ref->port, &rule->backends[i].backend));
        rule->backends[i].weight = ref->weight;
        rule->backends[i].filters = ref->filters;
        rule->backends[i].n_filters = ref->n_filters;
    }
    return OK;
}

/* ---- timeouts and retries ---- */

static uint32_t shorter(uint32_t a, uint32_t b)
{
    if (a == 0 || b == 0)
        return a + b;
    return a < b ? a : b;
}

static void set_timeouts(struct wire_rule *rule, const struct route_rule *from,
                         const struct resource_limits *route,
                         const struct resource_limits *service)
{
    if ((from == NULL || !from->has_timeouts) && (route == NULL || !route->has_timeouts)) {
        rule->request_ms = service->request_ms;
        rule->backend_ms = service->backend_ms;
        rule->idle_ms = service->idle_ms;
        return;
    }
    if (from != NULL) {
        rule->request_ms = from->request_ms;
        rule->backend_ms = from->backend_ms;
    }
    if (route == NULL)
        return;
    if (route->has_request)
        rule->request_ms = route->request_ms;
    rule->backend_ms = shorter(rule->backend_ms, route->backend_ms);
    rule->idle_ms = route->idle_ms;
}

static err_t set_retry(struct builder *b, struct wire_rule *rule, const struct route_rule *from,
                       const struct resource_limits *route,
                       const struct resource_limits *service)
{
    const struct wire_retry_policy *policy = NULL;
    void *p;

    if (from != NULL && from->has_retry)
        policy = &from->retry;
    else if (route != NULL && route->has_retry)
        policy = &route->retry;
    else if (service->has_retry)
        policy = &service->retry;
    if (policy == NULL)
        return OK;
    TRY(take(b, 1, sizeof(*policy), &p));
    rule->retry = p;
    *rule->retry = *policy;
    rule->n_retry = 1;
    rule->has_retry = true;
    return OK;
}

/* ---- rules ---- */

static err_t name_route(struct builder *b, const struct resource *route, slice_t *out)
{
    char text[400];
    int n = snprintf(text, sizeof(text), "%s/%.*s/%.*s", resource_kind_name(route->kind),
                     SLICE_FMT(route->namespace), SLICE_FMT(route->name));

    *out = arena_copy(b->arena,
                      slice(text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1));
    return out->p != NULL ? OK : ERR_OF(NOMEM);
}

static err_t add_route(struct builder *b, const struct resource *route)
{
    const struct http_route *r = &route->http_route;
    const struct resource_limits *service = &b->in->service->service.limits;
    slice_t name;

    TRY(name_route(b, route, &name));
    for (size_t i = 0; i < r->n_rules; i++) {
        const struct route_rule *from = &r->rules[i];
        struct wire_rule *rule = &b->out->rules[b->out->n_rules++];

        rule->route = name;
        rule->index = (uint16_t)i;
        rule->hosts = r->hosts;
        rule->n_hosts = r->n_hosts;
        rule->matches = from->matches;
        rule->n_matches = from->n_matches;
        rule->filters = from->filters;
        rule->n_filters = from->n_filters;
        TRY(add_weights(b, from, rule));
        set_timeouts(rule, from, &r->limits, service);
        TRY(set_retry(b, rule, from, &r->limits, service));
    }
    return OK;
}

static err_t add_default_rule(struct builder *b)
{
    const struct resource_limits *service = &b->in->service->service.limits;
    struct wire_rule *rule = &b->out->rules[b->out->n_rules++];

    TRY(add_weights(b, NULL, rule));
    set_timeouts(rule, NULL, NULL, service);
    return set_retry(b, rule, NULL, NULL, service);
}

static err_t add_rules(struct builder *b)
{
    const struct resource **routes;
    size_t n_routes, n_rules = 0;
    void *p;

    TRY(choose_routes(b, &routes, &n_routes));
    for (size_t i = 0; i < n_routes; i++)
        n_rules += routes[i]->http_route.n_rules;
    if (n_rules > MAX_RULES)
        return ERR_OF(MODEL_LIMIT);
    TRY(take(b, n_rules > 0 ? n_rules : 1, sizeof(*b->out->rules), &p));
    b->out->rules = p;
    for (size_t i = 0; i < n_routes; i++)
        TRY(add_route(b, routes[i]));
    return n_routes > 0 ? OK : add_default_rule(b);
}

static uint8_t port_protocol(const struct destination_input *in)
{
    const struct service *s = &in->service->service;

    for (size_t i = 0; i < s->n_ports; i++)
        if (s->ports[i].port == in->port && s->ports[i].protocol != PROTOCOL_DETECT)
            return s->ports[i].protocol;
    return in->said_protocol;
}

static err_t build(struct builder *b)
{
    const struct destination_input *in = b->in;
    struct wire_destination *d = b->out;
    uint16_t itself;
    void *p;

    d->kind = 1;
    d->namespace = in->service->namespace;
    d->name = in->service->name;
    d->port = in->port;
    d->protocol = port_protocol(in);
    d->lesson = d->protocol == PROTOCOL_DETECT ? in->lesson : PROTOCOL_DETECT;
    d->target = arena_copy(b->arena, in->target);
    if (d->target.p == NULL)
        return ERR_OF(NOMEM);
    TRY(take(b, MAX_BACKENDS, sizeof(*d->backends), &p));
    d->backends = p;
    TRY(backend_index(b, d->namespace, d->name, d->port, &itself));
    return add_rules(b);
}

err_t destination_build(const struct destination_input *in, struct arena *arena,
                        struct wire_destination *out)
{
    struct wire_destination d;
    struct builder b = {in, arena, &d};

    memset(&d, 0, sizeof(d));
    TRY(build(&b));
    *out = d;
    return OK;
}

err_t destination_of_address(slice_t target, struct wire_endpoint *endpoint, uint8_t protocol,
                             struct arena *arena, struct wire_destination *out)
{
    struct wire_destination d;
    struct builder b = {NULL, arena, &d};
    void *rule, *weight, *backend;

    memset(&d, 0, sizeof(d));
    d.protocol = protocol;
    d.target = arena_copy(arena, target);
    if (d.target.p == NULL)
        return ERR_OF(NOMEM);
    if (endpoint != NULL) {
        TRY(take(&b, 1, sizeof(*d.rules), &rule));
        TRY(take(&b, 1, sizeof(*d.rules->backends), &weight));
        TRY(take(&b, 1, sizeof(*d.backends), &backend));
        d.kind = 2;
        d.port = endpoint->port;
        d.rules = rule;
        d.n_rules = 1;
        d.rules->backends = weight;
        d.rules->n_backends = 1;
        d.rules->backends->weight = 1;
        d.backends = backend;
        d.n_backends = 1;
        d.backends->port = endpoint->port;
        d.backends->protocol = protocol;
        d.backends->endpoints = endpoint;
        d.backends->n_endpoints = 1;
    }
    *out = d;
    return OK;
}
