#include "broker/control/views.h"

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
                                  .weight = 10000};
}

static size_t add_sessions(struct look *l, const char *ns, const char *name,
                           const struct service_port *port, struct wire_endpoint *list,
                           size_t n, size_t cap)
{
    struct session *s, *next;
    HASH_ITER(hh, l->c->sessions, s, next)
    {
        if (!s->is_serving || s->n_addresses == 0 || strcmp(s->ns, ns) != 0)
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

static size_t add_slices(struct look *l, const char *ns, const char *name,
                         const struct service_port *port, struct wire_endpoint *list, size_t n,
                         size_t cap)
{
    struct object *o, *next;
    HASH_ITER(hh, l->c->objects, o, next)
    {
        if (o->parsed->kind != RESOURCE_ENDPOINT_SLICE || strcmp(o->ns, ns) != 0 ||
            !slice_is_str(o->parsed->endpoint_slice.service, name))
            continue;
        const struct endpoint_slice *slice = &o->parsed->endpoint_slice;
        uint16_t to = slice_port(slice, port);
        for (size_t i = 0; to != 0 && i < slice->n_endpoints && n < cap; i++) {
            const struct slice_endpoint *e = &slice->endpoints[i];
            /* A meshed pod's own session knows more about it than the slice. */
            if (e->is_ready && !is_known(list, n, e->address, to))
                list[n++] = (struct wire_endpoint){
                    .ip = e->address, .port = to, .zone = e->zone, .weight = 10000};
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
static size_t count_endpoints(struct look *l, const char *ns, const char *name)
{
    struct session *s, *s_next;
    struct object *o, *o_next;
    size_t n = 0;
    HASH_ITER(hh, l->c->sessions, s, s_next)
    for (unsigned i = 0; strcmp(s->ns, ns) == 0 && i < s->n_serves; i++)
        n += strcmp(s->serves[i].service, name) == 0 ? 1 : 0;
    HASH_ITER(hh, l->c->objects, o, o_next)
    if (o->parsed->kind == RESOURCE_ENDPOINT_SLICE && strcmp(o->ns, ns) == 0 &&
        slice_is_str(o->parsed->endpoint_slice.service, name))
        n += o->parsed->endpoint_slice.n_endpoints;
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
static uint8_t said_of(struct look *l, const char *ns, const char *name,
                       const struct service_port *port)
{
    struct session *s, *next;
    uint8_t found = PROTOCOL_DETECT;
    HASH_ITER(hh, l->c->sessions, s, next)
    for (unsigned i = 0; found == PROTOCOL_DETECT && i < s->n_serves; i++)
        if (strcmp(s->ns, ns) == 0 && serves_port(&s->serves[i], name, port))
            found = s->serves[i].protocol;
    return found;
}

/* What was seen on the port, if that is the same for every pod behind it: a new version of which nothing is known
 * yet makes it unknown. */
static uint8_t lesson_of(struct look *l, const char *ns, const char *name,
                         const struct service_port *port)
{
    struct session *s, *next;
    enum lesson all = LESSON_UNKNOWN;
    HASH_ITER(hh, l->c->sessions, s, next)
    for (unsigned i = 0; i < s->n_serves; i++) {
        enum lesson one;
        if (!s->is_serving || strcmp(s->ns, ns) != 0 || !serves_port(&s->serves[i], name, port))
            continue;
        one = learned_find(l->c, s, s->serves[i].port);
        if (one == LESSON_UNKNOWN)
            return PROTOCOL_DETECT;
        all = lesson_join(all, one);
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
    size_t cap = p != NULL ? count_endpoints(l, ns, text) : 0;
    struct wire_endpoint *list =
        p != NULL ? arena_alloc(&l->arena, (cap + 1) * sizeof *list) : NULL;
    if (list == NULL)
        return;
    size_t n = add_sessions(l, ns, text, p, list, 0, cap);
    n = add_slices(l, ns, text, p, list, n, cap);
    n = cut(l, list, n);
    /* In a stable order, so that equal views have equal bytes. */
    if (n > 1)
        qsort(list, n, sizeof *list, by_address);
    *out = (struct destination_backend){
        .exists = true,
        .protocol = p->protocol != PROTOCOL_DETECT ? p->protocol : said_of(l, ns, text, p),
        .endpoints = list,
        .n_endpoints = n};
}

/* ---- destinations ---- */

static err_t build_service(struct look *l, slice_t target, const struct object *o,
                           uint16_t port, slice_t client, struct wire_destination *out)
{
    const struct service_port *p = port_of(&o->parsed->service, port);
    size_t n = 0;
    struct object *each, *next;
    if (p == NULL)
        return destination_of_address(target, NULL, PROTOCOL_DETECT, &l->arena, out);
    const struct resource **routes =
        arena_alloc(&l->arena, (HASH_COUNT(l->c->objects) + 1) * sizeof *routes);
    if (routes == NULL)
        return ERR_OF(NOMEM);
    HASH_ITER(hh, l->c->objects, each, next)
    if (each->parsed->kind == RESOURCE_HTTP_ROUTE)
        routes[n++] = each->parsed;
    const struct destination_input in = {.target = target,
                                         .service = o->parsed,
                                         .port = port,
                                         .said_protocol = said_of(l, o->ns, o->name, p),
                                         .lesson = lesson_of(l, o->ns, o->name, p),
                                         .client_namespace = client,
                                         .routes = routes,
                                         .n_routes = n,
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

static uint8_t port_protocol(struct control *c, const struct session *s,
                             const struct served_port *served)
{
    const struct object *o = objects_find(c, "Service", s->ns, served->service);
    for (size_t i = 0; o != NULL && i < o->parsed->service.n_ports; i++) {
        const struct service_port *p = &o->parsed->service.ports[i];
        if (serves_port(served, served->service, p) && p->protocol != PROTOCOL_DETECT)
            return p->protocol;
    }
    return served->protocol;
}

static err_t compute_ports(struct control *c, slice_t name, struct buf *out)
{
    struct wire_served list[CONTROL_MAX_SERVED];
    struct wire_ports ports = {.ports = list};
    struct session *s = NULL;
    HASH_FIND(hh, c->sessions, name.p, name.n, s);
    for (unsigned i = 0; s != NULL && i < s->n_serves; i++)
        list[ports.n_ports++] =
            (struct wire_served){.service = slice_str(s->serves[i].service),
                                 .port = s->serves[i].port,
                                 .protocol = port_protocol(c, s, &s->serves[i]),
                                 .lesson = lesson_protocol(
                                     learned_find(c, s, s->serves[i].port))};
    return WIRE_ENCODE(ports, &ports, out);
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
