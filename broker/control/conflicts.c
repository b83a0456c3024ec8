#include "broker/control/conflicts.h"

#include "broker/control/attached.h"
#include "broker/control/objects.h"

#include <stdarg.h>
#include <stdio.h>

struct look {
    struct control *c;
    const struct resource *r;
    struct why *why;
    char *notes;
    size_t cap;
    bool is_refused;
};

PRINTF_LIKE(2, 3) static void note(struct look *l, const char *fmt, ...)
{
    size_t n = strlen(l->notes);
    va_list args;
    if (n + 3 >= l->cap)
        return;
    if (n > 0)
        n += (size_t)snprintf(l->notes + n, l->cap - n, "; ");
    va_start(args, fmt);
    (void)vsnprintf(l->notes + n, l->cap - n, fmt, args); /* cut if longer: it is for people */
    va_end(args);
}

PRINTF_LIKE(3, 4) static void refuse(struct look *l, const char *path, const char *fmt, ...)
{
    va_list args;
    l->is_refused = true;
    (void)snprintf(l->why->path, sizeof l->why->path, "%s", path);
    va_start(args, fmt);
    (void)vsnprintf(l->why->reason, sizeof l->why->reason, fmt, args);
    va_end(args);
}

static bool is_same_port(uint16_t a, uint16_t b)
{
    return a == 0 || b == 0 || a == b;
}

/* The parent of `r` that also is one of `o`; -1: none. */
static int common_parent(const struct resource *r, const struct resource *o)
{
    for (size_t i = 0; i < r->route.n_parents; i++)
        for (size_t k = 0; k < o->route.n_parents; k++) {
            const struct route_parent *a = &r->route.parents[i], *b = &o->route.parents[k];
            if (slice_is(a->namespace, b->namespace) && slice_is(a->name, b->name) &&
                is_same_port(a->port, b->port))
                return (int)i;
        }
    return -1;
}

static bool is_http(enum resource_kind kind)
{
    return kind == RESOURCE_HTTP_ROUTE || kind == RESOURCE_GRPC_ROUTE;
}

/* Routes of other namespaces are other clients' routes. */
static void beside_route(struct look *l, const struct object *o)
{
    const struct resource *r = l->r, *other = o->parsed;
    bool is_clash = (is_http(r->kind) && is_http(other->kind) && r->kind != other->kind) ||
                    (r->kind == RESOURCE_TCP_ROUTE && other->kind == RESOURCE_TCP_ROUTE);
    char path[64];
    int at;
    if (!is_clash || !slice_is(r->namespace, other->namespace) ||
        (at = common_parent(r, other)) < 0)
        return;
    (void)snprintf(path, sizeof path, "spec.parentRefs[%d]", at);
    if (r->kind == RESOURCE_TCP_ROUTE)
        refuse(l, path,
               "%s is attached to this port already; only one TCPRoute can be followed",
               o->key);
    else
        refuse(
            l, path,
            "%s is attached to this port already; a port has either HTTPRoutes or GRPCRoutes "
            "(an HTTPRoute can match gRPC's paths, too)",
            o->key);
}

static bool has_rules(const struct resource *profile)
{
    return profile->profile.n_routes > 0 || profile->profile.n_overrides > 0;
}

static void beside(struct look *l, const struct object *o)
{
    const struct resource *r = l->r, *other = o->parsed;
    if (r->kind == RESOURCE_RATE_LIMIT && other->kind == RESOURCE_RATE_LIMIT &&
        r->rate.port == other->rate.port)
        refuse(l, "spec.targetRef", "%s limits this %s already; a port has one policy", o->key,
               r->rate.port != 0 ? "port" : "service");
    else if (resource_is_route(r->kind) && resource_is_route(other->kind))
        beside_route(l, o);
    else if (is_http(r->kind) && other->kind == RESOURCE_SERVICE_PROFILE && has_rules(other))
        note(l, "not followed while %s has routes or overrides", o->key);
    else if (r->kind == RESOURCE_SERVICE_PROFILE && has_rules(r) && is_http(other->kind))
        note(l, "%s is not followed any more: a profile with routes or overrides decides alone",
             o->key);
}

static bool is_itself(const struct look *l, const struct object *o)
{
    return o->parsed->kind == l->r->kind && slice_is(o->parsed->namespace, l->r->namespace) &&
           slice_is(o->parsed->name, l->r->name);
}

/* Whether both belong to this service. */
static bool belongs(const struct resource *r, slice_t ns, slice_t name)
{
    slice_t its_ns, its_name;
    for (size_t i = 0; attached_parent(r, i, &its_ns, &its_name); i++)
        if (slice_is(ns, its_ns) && slice_is(name, its_name))
            return true;
    return false;
}

static void look_at(struct look *l, slice_t ns, slice_t name)
{
    const struct attached *a = attached_find(l->c, ns, name);
    for (size_t i = 0; a != NULL && i < a->n_objects && !l->is_refused; i++) {
        struct object *o = a->objects[i];
        /* One that the open change replaces is looked at in its new form below. */
        if (!is_itself(l, o) && objects_current(l->c, o->key) == o)
            beside(l, o);
    }
    LIST_EACH (it, &l->c->staged) {
        struct staged *s = CONTAINER_OF(it, struct staged, link);
        if (!l->is_refused && !s->is_drop && !is_itself(l, s->object) &&
            belongs(s->object->parsed, ns, name) &&
            objects_current(l->c, s->object->key) == s->object)
            beside(l, s->object);
    }
}

static void look_for_faults(struct look *l, const struct route_filters *f)
{
    char key[400];
    for (size_t i = 0; i < f->n; i++) {
        if (f->list[i].kind != ROUTE_FILTER_EXTENSION)
            continue;
        (void)snprintf(key, sizeof key, "%s/%.*s/%.*s",
                       resource_kind_name(RESOURCE_FAULT_INJECTION),
                       SLICE_FMT(f->refs[i].namespace), SLICE_FMT(f->refs[i].name));
        if (objects_current(l->c, key) == NULL)
            note(l, "%s does not exist (yet): nothing is injected", key);
    }
}

bool conflicts_check(struct control *c, const struct resource *r, struct why *why, char *notes,
                     size_t cap)
{
    struct look l = {.c = c, .r = r, .why = why, .notes = notes, .cap = cap};
    slice_t ns, name;
    notes[0] = '\0';
    for (size_t i = 0; !l.is_refused && attached_parent(r, i, &ns, &name); i++) {
        slice_t other_ns, other_name;
        bool is_told = false;
        for (size_t k = 0; k < i && !is_told; k++)
            is_told = attached_parent(r, k, &other_ns, &other_name) && slice_is(ns, other_ns) &&
                      slice_is(name, other_name);
        if (!is_told)
            look_at(&l, ns, name);
    }
    for (size_t i = 0; resource_is_route(r->kind) && i < r->route.n_rules; i++) {
        look_for_faults(&l, &r->route.rules[i].filters);
        for (size_t b = 0; b < r->route.rules[i].n_backends; b++)
            look_for_faults(&l, &r->route.rules[i].backends[b].filters);
    }
    return !l.is_refused;
}
