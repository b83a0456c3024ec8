#include "model/destination.h"

#include "model/route.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_RULES = 512,
    MAX_TLS_RULES = 64,
    MAX_BACKENDS = 128,
    MAX_ENDPOINTS = 4096
}; /* of messages.def */

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
    const struct route *r = &route->route;

    if (route->kind == RESOURCE_SERVICE_PROFILE)
        return slice_is(route->profile.service_namespace, namespace) &&
               slice_is(route->profile.service, name);
    if (!resource_is_route(route->kind))
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

/* Sets of kinds. */
enum {
    HTTP_KINDS = 1U << RESOURCE_HTTP_ROUTE | 1U << RESOURCE_GRPC_ROUTE,
    TLS_KIND = 1U << RESOURCE_TLS_ROUTE,
    TCP_KIND = 1U << RESOURCE_TCP_ROUTE,
    PROFILE_KIND = 1U << RESOURCE_SERVICE_PROFILE
};

/* The attached routes of one namespace into list; their number. */
static size_t collect(const struct destination_input *in, unsigned kinds, slice_t namespace,
                      const struct resource **list)
{
    const struct resource *s = in->service;
    size_t n = 0;

    for (size_t i = 0; i < in->n_routes; i++)
        if ((kinds >> in->routes[i]->kind & 1) != 0 &&
            slice_is(in->routes[i]->namespace, namespace) &&
            destination_is_attached(in->routes[i], s->namespace, s->name, in->port))
            list[n++] = in->routes[i];
    return n;
}

/* The routes of these kinds that count for this client, oldest first. */
static err_t choose_routes(struct builder *b, unsigned kinds, const struct resource ***out,
                           size_t *n_out)
{
    const struct destination_input *in = b->in;
    const struct resource **list;
    void *p;
    size_t n = 0;

    TRY(take(b, in->n_routes, sizeof(*list), &p));
    list = p;
    if (in->client_namespace.n > 0 && !slice_is(in->client_namespace, in->service->namespace))
        n = collect(in, kinds, in->client_namespace,
                    list); /* the consumer's own, instead of the producer's */
    if (n == 0)
        n = collect(in, kinds, in->service->namespace, list);
    if (n > 1)
        qsort(list, n, sizeof(*list), compare_age);
    *out = list;
    *n_out = n;
    return OK;
}

/* GRPCRoutes hide HTTPRoutes of the same port, as in Linkerd; a broker refuses the one beside
 * the other when it is applied. */
static err_t choose_http_routes(struct builder *b, const struct resource ***out, size_t *n_out)
{
    size_t n = 0;

    TRY(choose_routes(b, HTTP_KINDS, out, n_out));
    for (size_t i = 0; i < *n_out; i++)
        if ((*out)[i]->kind == RESOURCE_GRPC_ROUTE)
            (*out)[n++] = (*out)[i];
    if (n > 0)
        *n_out = n;
    return OK;
}

/* ---- backends ---- */

static err_t fill_balancing(struct builder *b, const struct service *s, struct wire_backend *w)
{
    void *p;

    w->connections_max = s->connections_max;
    w->waiting_max = s->waiting_max;
    if (s->has_balancing) {
        TRY(take(b, 1, sizeof(*w->balancing), &p));
        w->balancing = p;
        w->n_balancing = 1;
        *w->balancing = s->balancing;
    }
    if (s->has_breaker) {
        TRY(take(b, 1, sizeof(*w->breaker), &p));
        w->breaker = p;
        w->n_breaker = 1;
        *w->breaker = s->breaker;
    }
    return OK;
}

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
    *out = (uint16_t)d->n_backends++;
    if (!found.exists)
        return OK;
    w->protocol = found.protocol;
    w->endpoints = found.endpoints;
    w->n_endpoints = found.n_endpoints < MAX_ENDPOINTS ? found.n_endpoints : MAX_ENDPOINTS;
    return found.service != NULL ? fill_balancing(b, found.service, w) : OK;
}

/* ---- filters ---- */

/* Appends what an ExtensionRef stands for. */
static void put_fault(const struct fault_injection *fault, struct wire_filter *list, size_t *n)
{
    if (fault != NULL && fault->has_delay)
        list[(*n)++] = fault->delay;
    if (fault != NULL && fault->has_abort)
        list[(*n)++] = fault->abort;
}

/* Filters as they are, but for those that point somewhere. */
static err_t add_filters(struct builder *b, const struct resource *route,
                         const struct route_filters *from, struct wire_filter **out,
                         size_t *n_out)
{
    void *p;
    struct wire_filter *list;
    size_t n = 0;

    TRY(take(b, from->n * 2, sizeof(*list), &p)); /* a fault may be two */
    list = p;
    for (size_t i = 0; i < from->n; i++) {
        const struct route_ref *ref = &from->refs[i];

        if (from->list[i].kind == ROUTE_FILTER_EXTENSION) {
            put_fault(b->in->fault != NULL ? b->in->fault(b->in->arg, ref->namespace, ref->name)
                                           : NULL,
                      list, &n);
            continue;
        }
        list[n] = from->list[i];
        if (list[n].kind == ROUTE_FILTER_MIRROR) {
            list[n].running_max = route->route.mirrors_max;
            TRY(backend_index(b, ref->namespace, ref->name, ref->port, &list[n].backend));
        }
        n++;
    }
    *out = list;
    *n_out = n;
    return OK;
}

/* ---- weights ---- */

/* No backendRefs: everything goes to the parent, which is backends[0]. Port 0 (a profile's
 * override) is the parent's. */
static err_t add_weights(struct builder *b, const struct resource *route,
                         const struct route_backend *refs, size_t n_refs,
                         struct wire_rule *rule)
{
    size_t n = n_refs > 0 ? n_refs : 1;
    void *p;

    TRY(take(b, n, sizeof(*rule->backends), &p));
    rule->backends = p;
    rule->n_backends = n;
    if (n_refs == 0) {
        rule->backends[0].weight = 1;
        return OK;
    }
    for (size_t i = 0; i < n; i++) {
        const struct route_backend *ref = &refs[i];
        struct wire_weighted *w = &rule->backends[i];

        TRY(backend_index(b, ref->namespace, ref->name,
                          ref->port != 0 ? ref->port : b->in->port, &w->backend));
        w->weight = ref->weight;
        TRY(add_filters(b, route, &ref->filters, &w->filters, &w->n_filters));
    }
    return OK;
}

/* ---- timeouts and retries ---- */

/* The shorter of two limits, 0 being none; and whose it is. */
static uint32_t shorter(uint32_t rule, uint32_t route, enum destination_origin *whose)
{
    if (route != 0 && (rule == 0 || route < rule)) {
        *whose = ORIGIN_ROUTE;
        return route;
    }
    if (rule != 0)
        *whose = ORIGIN_RULE;
    return rule;
}

static enum destination_origin origin_if(uint32_t value, enum destination_origin whose)
{
    return value != 0 ? whose : ORIGIN_DEFAULT;
}

static void limit_times(const struct route_rule *rule, const struct resource_limits *route,
                        const struct resource_limits *service, struct wire_rule *out,
                        struct destination_origins *o)
{
    if ((rule == NULL || !rule->has_timeouts) && (route == NULL || !route->has_timeouts)) {
        out->request_ms = service->request_ms;
        out->backend_ms = service->backend_ms;
        out->idle_ms = service->idle_ms;
        out->head_ms = service->head_ms;
        o->request = origin_if(out->request_ms, ORIGIN_SERVICE);
        o->backend = origin_if(out->backend_ms, ORIGIN_SERVICE);
        o->idle = origin_if(out->idle_ms, ORIGIN_SERVICE);
        o->head = origin_if(out->head_ms, ORIGIN_SERVICE);
        return;
    }
    out->request_ms = rule != NULL ? rule->request_ms : 0;
    o->request = origin_if(out->request_ms, ORIGIN_RULE);
    if (route != NULL && route->has_request) { /* an explicit 0 is meant */
        out->request_ms = route->request_ms;
        o->request = ORIGIN_ROUTE;
    }
    out->backend_ms = shorter(rule != NULL ? rule->backend_ms : 0,
                              route != NULL ? route->backend_ms : 0, &o->backend);
    out->idle_ms = route != NULL ? route->idle_ms : 0;
    o->idle = origin_if(out->idle_ms, ORIGIN_ROUTE);
    out->head_ms = route != NULL ? route->head_ms : 0;
    o->head = origin_if(out->head_ms, ORIGIN_ROUTE);
}

const struct wire_retry_policy *destination_limits(const struct route_rule *rule,
                                                   const struct resource_limits *route,
                                                   const struct resource_limits *service,
                                                   struct wire_rule *out,
                                                   struct destination_origins *origins)
{
    *origins = (struct destination_origins){.retry = ORIGIN_DEFAULT};
    limit_times(rule, route, service, out, origins);
    if (rule != NULL && rule->has_retry) {
        origins->retry = ORIGIN_RULE;
        return &rule->retry;
    }
    if (route != NULL && route->has_retry) {
        origins->retry = ORIGIN_ROUTE;
        return &route->retry;
    }
    if (!service->has_retry)
        return NULL;
    origins->retry = ORIGIN_SERVICE;
    return &service->retry;
}

static err_t set_retry(struct builder *b, struct wire_rule *rule,
                       const struct wire_retry_policy *policy)
{
    void *p;

    if (policy == NULL)
        return OK;
    TRY(take(b, 1, sizeof(*policy), &p));
    rule->retry = p;
    *rule->retry = *policy;
    rule->n_retry = 1;
    rule->has_retry = true;
    return OK;
}

static err_t set_limits(struct builder *b, struct wire_rule *rule,
                        const struct route_rule *from, const struct resource_limits *route)
{
    struct destination_origins ignored;

    return set_retry(
        b, rule,
        destination_limits(from, route, &b->in->service->service.limits, rule, &ignored));
}

/* ---- rules ---- */

static err_t name_route(struct builder *b, const struct resource *route, slice_t *out)
{
    char text[400];
    int n = snprintf(text, sizeof(text), "%s/%.*s/%.*s", resource_kind_name(route->kind),
                     SLICE_FMT(route->namespace), SLICE_FMT(route->name));

    *out = arena_copy(b->arena, slice(text, (size_t)n < 320 ? (size_t)n : 320));
    return out->p != NULL ? OK : ERR_OF(NOMEM);
}

static err_t add_rule(struct builder *b, const struct resource *route, slice_t name,
                      size_t index, struct wire_rule *rule)
{
    const struct route *r = &route->route;
    const struct route_rule *from = &r->rules[index];

    rule->route = name;
    rule->index = (uint16_t)index;
    rule->hosts = r->hosts;
    rule->n_hosts = r->n_hosts;
    rule->matches = from->matches;
    rule->n_matches = from->n_matches;
    TRY(add_filters(b, route, &from->filters, &rule->filters, &rule->n_filters));
    return add_weights(b, route, from->backends, from->n_backends, rule);
}

static err_t take_rules(struct builder *b, size_t n, size_t max, struct wire_rule **out)
{
    void *p;

    if (n > max)
        return ERR_OF(MODEL_LIMIT);
    TRY(take(b, n, sizeof(**out), &p));
    *out = p;
    return OK;
}

static err_t add_default_rule(struct builder *b)
{
    TRY(take_rules(b, 1, MAX_RULES, &b->out->rules));
    b->out->n_rules = 1;
    TRY(add_weights(b, NULL, NULL, 0, &b->out->rules[0]));
    return set_limits(b, &b->out->rules[0], NULL, NULL);
}

static err_t add_http_rules(struct builder *b)
{
    const struct resource **routes;
    size_t n_routes, n_rules = 0;

    TRY(choose_http_routes(b, &routes, &n_routes));
    if (n_routes == 0)
        return add_default_rule(b);
    for (size_t i = 0; i < n_routes; i++)
        n_rules += routes[i]->route.n_rules;
    TRY(take_rules(b, n_rules, MAX_RULES, &b->out->rules));
    for (size_t i = 0; i < n_routes; i++) {
        slice_t name;

        TRY(name_route(b, routes[i], &name));
        for (size_t k = 0; k < routes[i]->route.n_rules; k++) {
            struct wire_rule *rule = &b->out->rules[b->out->n_rules++];

            TRY(add_rule(b, routes[i], name, k, rule));
            TRY(set_limits(b, rule, &routes[i]->route.rules[k], &routes[i]->route.limits));
        }
    }
    return OK;
}

/* TLSRoutes or TCPRoutes, which have one rule each. */
static err_t add_l4_rules(struct builder *b, unsigned kind, size_t max, struct wire_rule **out,
                          size_t *n_out)
{
    const struct resource **routes;
    size_t n;

    TRY(choose_routes(b, kind, &routes, &n));
    if (kind == TCP_KIND && n > 1)
        n = 1;
    TRY(take_rules(b, n, max, out));
    for (size_t i = 0; i < n; i++) {
        slice_t name;

        TRY(name_route(b, routes[i], &name));
        TRY(add_rule(b, routes[i], name, 0, &(*out)[i]));
    }
    *n_out = n;
    return OK;
}

/* ---- ServiceProfiles ---- */

/* The one that counts, with or without routes; NULL: none. */
static err_t choose_profile(struct builder *b, const struct resource **out)
{
    const struct resource **list;
    size_t n;

    TRY(choose_routes(b, PROFILE_KIND, &list, &n));
    *out = n > 0 ? list[0] : NULL;
    return OK;
}

static err_t add_profile_rule(struct builder *b, const struct resource *profile, slice_t name,
                              size_t index)
{
    const struct service_profile *p = &profile->profile;
    const struct profile_route *from = &p->routes[index];
    struct wire_rule *rule = &b->out->rules[b->out->n_rules++];
    /* As often as the budget allows, as in Linkerd. */
    struct wire_retry_policy policy = {.limit = UINT8_MAX,
                                       .budget_permille = p->budget_permille,
                                       .budget_min_per_s = p->budget_min_per_s,
                                       .budget_ttl_ms = p->budget_ttl_ms};

    rule->route = name;
    rule->index = (uint16_t)index;
    rule->matches = from->matches;
    rule->n_matches = from->n_matches;
    rule->classes = from->classes;
    rule->n_classes = from->n_classes;
    rule->retries_failures = from->is_retryable;
    rule->request_ms = from->timeout_ms;
    TRY(add_weights(b, profile, p->overrides, p->n_overrides, rule));
    return set_retry(b, rule, from->is_retryable ? &policy : NULL);
}

/* Connections that are no HTTP follow the overrides, unless they have routes of their own. */
static err_t add_override_rule(struct builder *b, const struct resource *profile, slice_t name,
                               struct wire_rule **list, size_t *n)
{
    const struct service_profile *p = &profile->profile;

    if (*n > 0 || p->n_overrides == 0)
        return OK;
    TRY(take_rules(b, 1, 1, list));
    *n = 1;
    (*list)[0].route = name;
    return add_weights(b, profile, p->overrides, p->n_overrides, &(*list)[0]);
}

static err_t add_profile(struct builder *b, const struct resource *profile)
{
    const struct service_profile *p = &profile->profile;
    struct wire_rule *rest;
    slice_t name;

    TRY(name_route(b, profile, &name));
    TRY(take_rules(b, p->n_routes + 1, MAX_RULES, &b->out->rules));
    for (size_t i = 0; i < p->n_routes; i++)
        TRY(add_profile_rule(b, profile, name, i));
    rest = &b->out->rules[b->out->n_rules++];
    TRY(add_weights(b, profile, p->overrides, p->n_overrides, rest));
    b->out->in_order = true;
    TRY(add_override_rule(b, profile, name, &b->out->tls_rules, &b->out->n_tls_rules));
    return add_override_rule(b, profile, name, &b->out->tcp_rules, &b->out->n_tcp_rules);
}

bool destination_profile_is_opaque(const struct service_profile *profile, uint16_t port)
{
    for (size_t i = 0; i < profile->n_opaque_ports; i++)
        if (port >= profile->opaque_ports[i].low && port <= profile->opaque_ports[i].high)
            return true;
    return false;
}

/* ---- all together ---- */

static uint8_t port_protocol(const struct destination_input *in, const struct resource *profile)
{
    const struct service *s = &in->service->service;

    if (profile != NULL && destination_profile_is_opaque(&profile->profile, in->port))
        return PROTOCOL_OPAQUE;
    for (size_t i = 0; i < s->n_ports; i++)
        if (s->ports[i].port == in->port && s->ports[i].protocol != PROTOCOL_DETECT)
            return s->ports[i].protocol;
    return in->said_protocol;
}

static err_t build(struct builder *b)
{
    const struct destination_input *in = b->in;
    const struct resource *profile;
    struct wire_destination *d = b->out;
    uint16_t itself;
    void *p;

    TRY(choose_profile(b, &profile));
    d->kind = 1;
    d->namespace = in->service->namespace;
    d->name = in->service->name;
    d->port = in->port;
    d->protocol = port_protocol(in, profile);
    d->lesson = d->protocol == PROTOCOL_DETECT ? in->lesson : PROTOCOL_DETECT;
    d->target = arena_copy(b->arena, in->target);
    if (d->target.p == NULL)
        return ERR_OF(NOMEM);
    TRY(take(b, MAX_BACKENDS, sizeof(*d->backends), &p));
    d->backends = p;
    TRY(backend_index(b, d->namespace, d->name, d->port, &itself));
    if (d->protocol == PROTOCOL_OPAQUE)
        d->backends[0].protocol = PROTOCOL_OPAQUE;
    TRY(add_l4_rules(b, TLS_KIND, MAX_TLS_RULES, &d->tls_rules, &d->n_tls_rules));
    TRY(add_l4_rules(b, TCP_KIND, 1, &d->tcp_rules, &d->n_tcp_rules));
    if (profile != NULL && (profile->profile.n_routes > 0 || profile->profile.n_overrides > 0))
        return add_profile(b, profile);
    return add_http_rules(b);
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
