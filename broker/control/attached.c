#include "broker/control/attached.h"

#include "model/resource.h"

#include <stdio.h>
#include <stdlib.h>

bool attached_parent(const struct resource *r, size_t nth, slice_t *ns, slice_t *name)
{
    if (resource_is_route(r->kind)) {
        if (nth >= r->route.n_parents)
            return false;
        *ns = r->route.parents[nth].namespace;
        *name = r->route.parents[nth].name;
        return true;
    }
    *ns = r->namespace;
    switch (r->kind) {
    case RESOURCE_ENDPOINT_SLICE:
        *name = r->endpoint_slice.service;
        return nth == 0;
    case RESOURCE_SERVICE_PROFILE:
        *ns = r->profile.service_namespace;
        *name = r->profile.service;
        return nth == 0;
    case RESOURCE_RATE_LIMIT:
        *name = r->rate.service;
        return nth == 0;
    default: /* services themselves, faults */
        return false;
    }
}

const struct attached *attached_find(const struct control *c, slice_t ns, slice_t name)
{
    char key[320];
    struct attached *a;
    (void)snprintf(key, sizeof key, "%.*s/%.*s", SLICE_FMT(ns), SLICE_FMT(name));
    HASH_FIND_STR(c->attached, key, a);
    return a;
}

static struct attached *entry(struct control *c, slice_t ns, slice_t name)
{
    char key[320];
    struct attached *a;
    (void)snprintf(key, sizeof key, "%.*s/%.*s", SLICE_FMT(ns), SLICE_FMT(name));
    HASH_FIND_STR(c->attached, key, a);
    if (a != NULL)
        return a;
    a = calloc(1, sizeof *a);
    BUG_ON(a == NULL);
    memcpy(a->name, key, sizeof key);
    HASH_ADD_STR(c->attached, name, a);
    return a;
}

static void release(struct control *c, struct attached *a)
{
    if (a->n_objects != 0 || a->n_sessions != 0)
        return;
    HASH_DEL(c->attached, a);
    free(a->objects);
    free(a->sessions);
    free(a);
}

/* ---- objects ---- */

static void put_object(struct attached *a, struct object *o)
{
    for (size_t i = 0; i < a->n_objects; i++)
        if (a->objects[i] == o)
            return;
    if (a->n_objects == a->cap_objects) {
        a->cap_objects = a->cap_objects != 0 ? a->cap_objects * 2 : 4;
        a->objects = realloc(a->objects, a->cap_objects * sizeof(struct object *));
        BUG_ON(a->objects == NULL);
    }
    a->objects[a->n_objects++] = o;
}

void attached_add_object(struct control *c, struct object *o)
{
    slice_t ns, name;
    for (size_t i = 0; attached_parent(o->parsed, i, &ns, &name); i++)
        put_object(entry(c, ns, name), o);
}

void attached_drop_object(struct control *c, struct object *o)
{
    slice_t ns, name;
    for (size_t i = 0; attached_parent(o->parsed, i, &ns, &name); i++) {
        struct attached *a = entry(c, ns, name);
        for (size_t k = 0; k < a->n_objects; k++)
            if (a->objects[k] == o)
                a->objects[k--] = a->objects[--a->n_objects];
        release(c, a);
    }
}

/* ---- sessions ---- */

static void put_session(struct attached *a, struct session *s)
{
    for (size_t i = a->n_sessions; i > 0;
         i--) /* its own earlier port was the last one put in */
        if (a->sessions[i - 1] == s)
            return;
    if (a->n_sessions == a->cap_sessions) {
        a->cap_sessions = a->cap_sessions != 0 ? a->cap_sessions * 2 : 4;
        a->sessions = realloc(a->sessions, a->cap_sessions * sizeof(struct session *));
        BUG_ON(a->sessions == NULL);
    }
    a->sessions[a->n_sessions++] = s;
}

void attached_add_session(struct control *c, struct session *s)
{
    for (unsigned i = 0; i < s->n_serves; i++)
        if (s->serves[i].service[0] != '\0')
            put_session(entry(c, slice_str(s->ns), slice_str(s->serves[i].service)), s);
}

void attached_drop_session(struct control *c, struct session *s)
{
    for (unsigned i = 0; i < s->n_serves; i++) {
        struct attached *a;
        if (s->serves[i].service[0] == '\0')
            continue;
        a = entry(c, slice_str(s->ns), slice_str(s->serves[i].service));
        for (size_t k = 0; k < a->n_sessions; k++)
            if (a->sessions[k] == s)
                a->sessions[k--] = a->sessions[--a->n_sessions];
        release(c, a);
    }
}
