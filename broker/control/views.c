#include "broker/control/views.h"

#include "broker/control/attached.h"
#include "broker/control/learned.h"
#include "broker/control/objects.h"
#include "broker/control/services.h"
#include "broker/control/topics.h"
#include "kit/clock.h"
#include "model/destination.h"
#include "model/name.h"

#include <stdio.h>
#include <stdlib.h>

#define ARENA_MAX     (64u << 20)
#define ENDPOINTS_MAX 4096u
#define PAYLOAD_MAX   245760u /* as wire: topic.payload */

/* One computation. */
struct look {
    struct control *c;
    struct arena arena;
    slice_t pod;            /* whose view it is */
    unsigned endpoints_max; /* per backend; lowered until the payload fits a message */
    unsigned left_out;
    uint64_t whole; /* of all endpoints, also those left out */
};

bool views_may_watch(const struct session *s, slice_t topic)
{
    char own[330];
    if (topic.n > 320)
        return false;
    if (slice_is_str(topic, "trust"))
        return true;
    (void)snprintf(own, sizeof own, "pod/%s", s->name);
    if (slice_is_str(topic, own))
        return true;
    (void)snprintf(own, sizeof own, "dst/%s/", s->ns);
    struct name_target target;
    return slice_starts(topic, slice_str(own)) &&
           name_target_parse(slice_skip(topic, strlen(own)), slice_str(s->ns), 0, &target) ==
               OK;
}

/* ---- backends ---- */

static const struct service_port *port_of(const struct service *service, uint16_t port)
{
    for (size_t i = 0; i < service->n_ports; i++)
        if (service->ports[i].port == port)
            return &service->ports[i];
    return NULL;
}

/* Does this served port stand behind the service's port? */
static bool serves_port(const struct served_port *served, const char *name,
                        const struct service_port *port)
{
    if (strcmp(served->service, name) != 0)
        return false;
    return served->port == port->port ||
           (port->target_port != 0 && served->port == port->target_port);
}

static struct wire_endpoint endpoint_of(const struct session *s, uint16_t port)
{
    bool is_meshed = s->identity[0] != '\0' && s->inbound_port != 0;
    return (struct wire_endpoint){.ip = slice_str(s->addresses[0]),
                                  .port = port,
                                  .identity = slice_str(is_meshed ? s->identity : ""),
                                  .inbound_port = is_meshed ? s->inbound_port : 0,
                                  .pod = slice_str(s->name),
                                  .zone = slice_str(s->zone),
                                  .weight = s->weight,
                                  .ready_ms = s->ready_ms};
}

static size_t add_sessions(const struct attached *a, const char *name,
                           const struct service_port *port, struct wire_endpoint *list,
                           size_t n, size_t cap)
{
    for (size_t k = 0; a != NULL && k < a->n_sessions; k++) {
        const struct session *s = a->sessions[k];
        if (!s->is_serving || s->n_addresses == 0)
            continue;
        for (unsigned i = 0; i < s->n_serves && n < cap; i++)
            if (serves_port(&s->serves[i], name, port))
                list[n++] = endpoint_of(s, s->serves[i].port);
    }
    return n;
}

/* The slice's port for a service's port: same name, or the only one. */
static uint16_t slice_port(const struct endpoint_slice *slice, const struct service_port *port)
{
    for (size_t i = 0; i < slice->n_ports; i++)
        if (slice_is(slice->ports[i].name, port->name))
            return slice->ports[i].port;
    return slice->n_ports == 1 ? slice->ports[0].port : 0;
}

static bool is_known(const struct wire_endpoint *list, size_t n, slice_t ip, uint16_t port)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].port == port && slice_is(list[i].ip, ip))
            return true;
    return false;
}

static size_t add_slices(const struct attached *a, const struct service_port *port,
                         struct wire_endpoint *list, size_t n, size_t cap)
{
    for (size_t k = 0; a != NULL && k < a->n_objects; k++) {
        const struct endpoint_slice *slice = &a->objects[k]->parsed->endpoint_slice;
        if (a->objects[k]->parsed->kind != RESOURCE_ENDPOINT_SLICE)
            continue;
        uint16_t to = slice_port(slice, port);
        for (size_t i = 0; to != 0 && i < slice->n_endpoints && n < cap; i++) {
            const struct slice_endpoint *e = &slice->endpoints[i];
            /* A meshed pod's own session knows more about it than the slice. */
            if (e->is_ready && !is_known(list, n, e->address, to))
                list[n++] = (struct wire_endpoint){
                    .ip = e->address, .port = to, .zone = e->zone, .weight = slice->weight};
        }
    }
    return n;
}

static int by_address(const void *a, const void *b)
{
    const struct wire_endpoint *x = a, *y = b;
    int c =
        x->ip.n != y->ip.n ? (x->ip.n < y->ip.n ? -1 : 1) : memcmp(x->ip.p, y->ip.p, x->ip.n);
    return c != 0 ? c : (int)x->port - (int)y->port;
}

/* At most so many endpoints has a service: how much memory gathering them takes. */
static size_t count_endpoints(const struct attached *a, const char *name)
{
    size_t n = 0;
    for (size_t k = 0; a != NULL && k < a->n_sessions; k++)
        for (unsigned i = 0; i < a->sessions[k]->n_serves; i++)
            n += strcmp(a->sessions[k]->serves[i].service, name) == 0 ? 1 : 0;
    for (size_t k = 0; a != NULL && k < a->n_objects; k++)
        if (a->objects[k]->parsed->kind == RESOURCE_ENDPOINT_SLICE)
            n += a->objects[k]->parsed->endpoint_slice.n_endpoints;
    return n;
}

struct ranked {
    uint64_t rank;
    struct wire_endpoint endpoint;
};

static int by_rank(const void *a, const void *b)
{
    uint64_t x = ((const struct ranked *)a)->rank, y = ((const struct ranked *)b)->rank;
    return x < y ? -1 : x > y;
}

/* The same in every process and after every restart: a pod's part must not change with them. */
static uint64_t mix(uint64_t seed, slice_t text)
{
    return kit_hash_keyed(seed, 0x77656674u, text.p, text.n);
}

/* Keeps endpoints_max of the n endpoints: those with the lowest ranks for this pod. */
static size_t cut(struct look *l, struct wire_endpoint *list, size_t n)
{
    struct ranked *all =
        n > l->endpoints_max ? arena_alloc(&l->arena, n * sizeof *all) : NULL;
    if (n <= l->endpoints_max)
        return n;
    l->left_out += (unsigned)(n - l->endpoints_max);
    for (size_t i = 0; all != NULL && i < n; i++) {
        const struct wire_endpoint *e = &list[i];
        uint64_t who = mix(e->port, e->ip);
        l->whole += mix(mix(mix(who ^ e->inbound_port, e->identity), e->pod), e->zone);
        all[i] = (struct ranked){.rank = mix(who, l->pod), .endpoint = *e};
    }
    if (all != NULL) {
        qsort(all, n, sizeof *all, by_rank);
        for (size_t i = 0; i < l->endpoints_max; i++)
            list[i] = all[i].endpoint;
    }
    return l->endpoints_max;
}

/* What a pod behind the port says of it (WEFT_SERVES): the first that says something. */
static uint8_t said_of(const struct attached *a, const char *name,
                       const struct service_port *port)
{
    uint8_t found = PROTOCOL_DETECT;
    for (size_t k = 0; a != NULL && k < a->n_sessions; k++) {
        const struct session *s = a->sessions[k];
        for (unsigned i = 0; found == PROTOCOL_DETECT && i < s->n_serves; i++)
            if (serves_port(&s->serves[i], name, port))
                found = s->serves[i].protocol;
    }
    return found;
}

/* What was seen on the port, if that is the same for every pod behind it: a new version of which nothing is known
 * yet makes it unknown. */
static uint8_t lesson_of(struct look *l, const struct attached *a, const char *name,
                         const struct service_port *port)
{
    enum lesson all = LESSON_UNKNOWN;
    for (size_t k = 0; a != NULL && k < a->n_sessions; k++) {
        const struct session *s = a->sessions[k];
        for (unsigned i = 0; s->is_serving && i < s->n_serves; i++) {
            enum lesson one;
            if (!serves_port(&s->serves[i], name, port))
                continue;
            one = learned_find(l->c, s, s->serves[i].port);
            if (one == LESSON_UNKNOWN)
                return PROTOCOL_DETECT;
            all = lesson_join(all, one);
        }
    }
    return lesson_protocol(all);
}

static void lookup(void *arg, slice_t namespace, slice_t name, uint16_t port,
                   struct destination_backend *out)
{
    struct look *l = arg;
    char ns[64], text[254];
    *out = (struct destination_backend){0};
    if (!slice_to_cstr(namespace, ns, sizeof ns) || !slice_to_cstr(name, text, sizeof text))
        return;
    const struct object *o = objects_find(l->c, "Service", ns, text);
    const struct service_port *p = o != NULL ? port_of(&o->parsed->service, port) : NULL;
    if (p == NULL)
        return;
    const struct attached *a = attached_find(l->c, namespace, name);
    size_t cap = count_endpoints(a, text);
    struct wire_endpoint *list = arena_alloc(&l->arena, (cap + 1) * sizeof *list);
    if (list == NULL)
        return;
    size_t n = add_sessions(a, text, p, list, 0, cap);
    n = add_slices(a, p, list, n, cap);
    n = cut(l, list, n);
    /* In a stable order, so that equal views have equal bytes. */
    if (n > 1)
        qsort(list, n, sizeof *list, by_address);
    *out = (struct destination_backend){
        .exists = true,
        .service = &o->parsed->service,
        .protocol = p->protocol != PROTOCOL_DETECT ? p->protocol : said_of(a, text, p),
        .endpoints = list,
        .n_endpoints = n};
}

static const struct fault_injection *find_fault(void *arg, slice_t namespace, slice_t name)
{
    struct look *l = arg;
    char ns[64], text[254];
    if (!slice_to_cstr(namespace, ns, sizeof ns) || !slice_to_cstr(name, text, sizeof text))
        return NULL;
    const struct object *o = objects_find(
        l->c, resource_kind_name(RESOURCE_FAULT_INJECTION), ns, text);
    return o != NULL ? &o->parsed->fault : NULL;
}

/* ---- destinations ---- */

static err_t build_service(struct look *l, slice_t target, const struct object *o,
                           uint16_t port, slice_t client, struct wire_destination *out)
{
    const struct service_port *p = port_of(&o->parsed->service, port);
    const struct attached *a = attached_find(l->c, slice_str(o->ns), slice_str(o->name));
    size_t n = 0, most = a != NULL ? a->n_objects : 0;
    if (p == NULL)
        return destination_of_address(target, NULL, PROTOCOL_DETECT, &l->arena, out);
    const struct resource **routes = arena_alloc(&l->arena, (most + 1) * sizeof *routes);
    if (routes == NULL)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < most; i++) {
        const struct resource *r = a->objects[i]->parsed;
        if (resource_is_route(r->kind) || r->kind == RESOURCE_SERVICE_PROFILE)
            routes[n++] = r;
    }
    const struct destination_input in = {.target = target,
                                         .service = o->parsed,
                                         .port = port,
                                         .said_protocol = said_of(a, o->name, p),
                                         .lesson = lesson_of(l, a, o->name, p),
                                         .client_namespace = client,
                                         .routes = routes,
                                         .n_routes = n,
                                         .fault = find_fault,
                                         .lookup = lookup,
                                         .arg = l};
    return destination_build(&in, &l->arena, out);
}

static err_t build_address(struct look *l, slice_t target, const struct name_target *t,
                           struct wire_destination *out)
{
    struct session *s, *next;
    HASH_ITER(hh, l->c->sessions, s, next)
    for (unsigned a = 0; a < s->n_addresses; a++) {
        if (strcmp(s->addresses[a], t->host) != 0)
            continue;
        /* The view points at it: it lives as long as the computation. */
        struct wire_endpoint *e = arena_alloc(&l->arena, sizeof *e);
        if (e == NULL)
            return ERR_OF(NOMEM);
        *e = endpoint_of(s, t->port);
        e->ip = slice_str(s->addresses[a]);
        uint8_t protocol = PROTOCOL_DETECT;
        for (unsigned i = 0; i < s->n_serves; i++)
            if (s->serves[i].port == t->port && s->serves[i].protocol != PROTOCOL_DETECT)
                protocol = s->serves[i].protocol;
        TRY(destination_of_address(target, e, protocol, &l->arena, out));
        if (protocol == PROTOCOL_DETECT)
            out->lesson = lesson_protocol(learned_find(l->c, s, t->port));
        return OK;
    }
    return destination_of_address(target, NULL, PROTOCOL_DETECT, &l->arena, out);
}

static err_t build(struct look *l, slice_t client, slice_t target, struct wire_destination *out)
{
    struct name_target t;
    const struct object *o = NULL;
    TRY(name_target_parse(target, client, 0, &t));
    if (t.kind == NAME_TARGET_SERVICE) {
        o = objects_find(l->c, "Service", t.namespace, t.name);
    } else if (t.kind == NAME_TARGET_IP) {
        const struct service_entry *s = services_by_address(l->c, t.host);
        if (s != NULL && !s->is_staged) {
            char key[400];
            (void)snprintf(key, sizeof key, "Service/%s", s->name);
            HASH_FIND_STR(l->c->objects, key, o);
        }
    }
    if (o != NULL)
        return build_service(l, target, o, t.port, client, out);
    return build_address(l, target, &t, out);
}

static err_t compute_destination(struct control *c, slice_t rest, slice_t pod,
                                 struct view_cut *cut, struct buf *out)
{
    const uint8_t *slash = memchr(rest.p, '/', rest.n);
    if (slash == NULL)
        return ERR_OF(BAD_TOPIC);
    slice_t client = slice(rest.p, (size_t)(slash - rest.p));
    slice_t target = slice_skip(rest, client.n + 1);
    err_t e = ERR_OF(TOO_BIG);
    /* A view too large for one message keeps a part of its endpoints rather than none. */
    for (unsigned max = cut->max != 0 ? cut->max : ENDPOINTS_MAX; max >= 64; max -= max / 8) {
        struct look l = {.c = c, .pod = pod, .endpoints_max = max};
        struct wire_destination d = {0};
        size_t before = buf_len(out);
        arena_init(&l.arena, ARENA_MAX);
        e = build(&l, client, target, &d);
        bool is_too_big = false;
        if (e == OK) {
            e = WIRE_ENCODE(destination, &d, out);
            is_too_big = e != OK || buf_len(out) - before > PAYLOAD_MAX;
        }
        arena_done(&l.arena);
        if (!is_too_big) {
            *cut = (struct view_cut){max, l.left_out, l.left_out != 0 ? l.whole | 1 : 0};
            return e;
        }
        if (e == OK) {
            buf_done(out); /* begin again: nothing else is in it */
            e = ERR_OF(TOO_BIG);
        }
    }
    return e;
}

/* ---- the other topics ---- */

/* The profile of the service's own namespace, which is the pod's. */
static bool is_opaque_by_profile(const struct attached *a, const struct session *s,
                                 uint16_t port)
{
    for (size_t i = 0; a != NULL && i < a->n_objects; i++) {
        const struct resource *r = a->objects[i]->parsed;
        if (r->kind == RESOURCE_SERVICE_PROFILE && slice_is_str(r->namespace, s->ns) &&
            destination_profile_is_opaque(&r->profile, port))
            return true;
    }
    return false;
}

static const struct service_port *service_port_of(const struct served_port *served,
                                                  const struct object *service)
{
    for (size_t i = 0; service != NULL && i < service->parsed->service.n_ports; i++)
        if (serves_port(served, served->service, &service->parsed->service.ports[i]))
            return &service->parsed->service.ports[i];
    return NULL;
}

/* The rate limit of a service's port: one for the port before one for all, the older before the younger (no
 * two are accepted, but an older broker may have stored them). */
static const struct resource *rate_of(const struct attached *a, uint16_t port)
{
    const struct resource *best = NULL;
    for (size_t i = 0; a != NULL && i < a->n_objects; i++) {
        const struct resource *r = a->objects[i]->parsed;
        bool is_closer;
        if (r->kind != RESOURCE_RATE_LIMIT || (r->rate.port != 0 && r->rate.port != port))
            continue;
        is_closer = best == NULL || (r->rate.port != 0 && best->rate.port == 0) ||
                    (r->rate.port == best->rate.port && r->created < best->created);
        if (is_closer)
            best = r;
    }
    return best;
}

/* Service accounts as the identities that certificates carry. */
static err_t fill_clients(struct control *c, const struct rate_exception *from,
                          struct arena *arena, struct wire_rate_override *out)
{
    out->per_s = from->per_s;
    out->clients = arena_alloc(arena, (from->n_clients + 1) * sizeof *out->clients);
    if (out->clients == NULL)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < from->n_clients; i++) {
        const struct name_identity who = {
            .service_account = from->clients[i].name,
            .namespace = from->clients[i].namespace,
            .control_namespace = slice_str(c->set->control_namespace),
            .trust_domain = slice_str(c->set->trust_domain)};
        char text[NAME_MAX_HOST + 1];
        slice_t *host = &out->clients[out->n_clients].host;
        if (name_identity_make(&who, text) != OK)
            continue; /* too long for a certificate: nobody can have it */
        *host = arena_copy(arena, slice_str(text));
        if (host->p == NULL)
            return ERR_OF(NOMEM);
        out->n_clients++;
    }
    return OK;
}

static err_t fill_rate(struct control *c, const struct resource *r, struct arena *arena,
                       struct wire_served *out)
{
    struct wire_rate_limit *limit = arena_alloc(arena, sizeof *limit);
    char name[400];
    if (limit == NULL)
        return ERR_OF(NOMEM);
    int n = snprintf(name, sizeof name, "%s/%.*s/%.*s", resource_kind_name(r->kind),
                     SLICE_FMT(r->namespace), SLICE_FMT(r->name));
    limit->policy = arena_copy(arena, slice(name, n < 320 ? (size_t)n : 320));
    limit->total_per_s = r->rate.total_per_s;
    limit->identity_per_s = r->rate.identity_per_s;
    limit->overrides =
        arena_alloc(arena, (r->rate.n_overrides + 1) * sizeof *limit->overrides);
    if (limit->policy.p == NULL || limit->overrides == NULL)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < r->rate.n_overrides; i++)
        TRY(fill_clients(c, &r->rate.overrides[i], arena,
                         &limit->overrides[limit->n_overrides++]));
    out->rate_limits = limit;
    out->n_rate_limits = 1;
    return OK;
}

static err_t fill_served(struct control *c, const struct session *s,
                         const struct served_port *served, struct arena *arena,
                         struct wire_served *out)
{
    const struct object *o = objects_find(c, "Service", s->ns, served->service);
    const struct service_port *p = service_port_of(served, o);
    const struct attached *a = attached_find(c, slice_str(s->ns), slice_str(served->service));
    uint16_t port = p != NULL ? p->port : served->port;
    const struct resource *rate = served->service[0] != '\0' ? rate_of(a, port) : NULL;
    *out = (struct wire_served){
        .service = slice_str(served->service),
        .port = served->port,
        .protocol = p != NULL && p->protocol != PROTOCOL_DETECT ? p->protocol
                                                                : served->protocol,
        .lesson = lesson_protocol(learned_find(c, s, served->port)),
        .connections_max = p != NULL ? o->parsed->service.app_connections_max : 0};
    if (served->service[0] != '\0' && is_opaque_by_profile(a, s, port))
        out->protocol = PROTOCOL_OPAQUE;
    return rate != NULL ? fill_rate(c, rate, arena, out) : OK;
}

static err_t compute_ports(struct control *c, slice_t name, struct buf *out)
{
    struct wire_served list[CONTROL_MAX_SERVED];
    struct wire_ports ports = {.ports = list};
    struct session *s = NULL;
    struct arena arena;
    err_t e = OK;
    arena_init(&arena, ARENA_MAX);
    HASH_FIND(hh, c->sessions, name.p, name.n, s);
    for (unsigned i = 0; e == OK && s != NULL && i < s->n_serves; i++)
        e = fill_served(c, s, &s->serves[i], &arena, &list[ports.n_ports++]);
    if (e == OK)
        e = WIRE_ENCODE(ports, &ports, out);
    arena_done(&arena);
    return e;
}

err_t views_compute(struct control *c, slice_t topic, slice_t pod, struct view_cut *cut,
                    struct buf *out)
{
    if (slice_is_str(topic, "trust")) {
        const struct wire_trust trust = {.anchors = slice(c->anchors, c->n_anchors)};
        return WIRE_ENCODE(trust, &trust, out);
    }
    if (slice_starts(topic, SLICE_LIT("pod/")))
        return compute_ports(c, slice_skip(topic, 4), out);
    if (slice_starts(topic, SLICE_LIT("dst/")))
        return compute_destination(c, slice_skip(topic, 4), pod, cut, out);
    return ERR_OF(BAD_TOPIC);
}
