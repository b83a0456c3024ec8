#include "broker/control/objects.h"

#include "broker/control/attached.h"
#include "broker/control/conflicts.h"
#include "broker/control/services.h"
#include "broker/control/topics.h"
#include "kit/clock.h"
#include "kit/log.h"
#include "model/manifest.h"
#include "model/resource.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define OBJECTS_MAX 20000u
#define OBJECT_MAX  131072u /* canonical JSON, as wire: object.json */
#define DEFAULT_NS  SLICE_LIT("default")

/* As wire: outcome.result. */
enum result {
    RESULT_CREATED,
    RESULT_CHANGED,
    RESULT_UNCHANGED,
    RESULT_DELETED,
    RESULT_REFUSED,
    RESULT_NOT_FOUND
};

/* ---- table ---- */

static void object_free(struct object *o)
{
    if (o == NULL)
        return;
    resource_free(&o->parsed);
    free(o->json);
    free(o);
}

static bool set_names(struct object *o, const char *kind, slice_t ns, slice_t name)
{
    (void)snprintf(o->kind, sizeof o->kind, "%s", kind);
    if (!slice_to_cstr(ns, o->ns, sizeof o->ns) ||
        !slice_to_cstr(name, o->name, sizeof o->name))
        return false;
    (void)snprintf(o->key, sizeof o->key, "%s/%s/%s", o->kind, o->ns, o->name);
    return true;
}

/* Takes *r (also on failure). NULL without memory. */
static struct object *object_new(struct resource **r)
{
    struct object *o = calloc(1, sizeof *o);
    struct resource *mine = *r;
    *r = NULL;
    if (o != NULL) {
        o->parsed = mine;
        o->n_json = mine->json.n;
        o->json = malloc(mine->json.n + 1);
    }
    if (o == NULL || o->json == NULL ||
        !set_names(o, resource_kind_name(mine->kind), mine->namespace, mine->name)) {
        if (o == NULL)
            resource_free(&mine);
        object_free(o);
        return NULL;
    }
    memcpy(o->json, mine->json.p, mine->json.n);
    o->json[o->n_json] = '\0';
    return o;
}

static struct object *find_key(struct control *c, const char *key)
{
    struct object *o;
    HASH_FIND_STR(c->objects, key, o);
    return o;
}

struct object *objects_find(struct control *c, const char *kind, const char *ns,
                            const char *name)
{
    char key[400];
    (void)snprintf(key, sizeof key, "%s/%s/%s", kind, ns, name);
    return find_key(c, key);
}

/* What the open change would leave under this key: *found tells whether it says anything. */
static struct object *staged_find(struct control *c, const char *key, bool *found)
{
    struct object *o = NULL;
    *found = false;
    LIST_EACH (it, &c->staged) {
        struct staged *s = CONTAINER_OF(it, struct staged, link);
        if (strcmp(s->object->key, key) == 0) {
            *found = true;
            o = s->is_drop ? NULL : s->object;
        }
    }
    return o;
}

struct object *objects_current(struct control *c, const char *key)
{
    bool found;
    struct object *o = staged_find(c, key, &found);
    return found ? o : find_key(c, key);
}

static void load_one(void *arg, const struct mesh_object *row)
{
    struct control *c = arg;
    struct resource *r = NULL;
    struct why why = {0};
    err_t e = resource_parse_text(row->json, DEFAULT_NS, &r, &why);
    struct object *o = e == OK ? object_new(&r) : NULL;
    if (o == NULL || find_key(c, o->key) != NULL) {
        /* Written by us, so only a change of the model's rules explains it; the row stays. */
        log_error("stored object passed over", "object=%.*s/%.*s/%.*s why=\"%s: %s\"",
                  SLICE_FMT(row->kind), SLICE_FMT(row->ns), SLICE_FMT(row->name), why.path,
                  why.reason);
        object_free(o);
        return;
    }
    o->revision = row->revision;
    o->parsed->created = row->created;
    HASH_ADD_STR(c->objects, key, o);
    attached_add_object(c, o);
}

err_t objects_load(struct control *c)
{
    list_init(&c->staged);
    return mesh_each_object(c->mesh, load_one, c);
}

void objects_free(struct control *c)
{
    struct object *o, *next;
    objects_abandon(c);
    HASH_ITER(hh, c->objects, o, next)
    {
        attached_drop_object(c, o);
        HASH_DEL(c->objects, o);
        object_free(o);
    }
}

/* ---- staging ---- */

static err_t ports_json(const struct service *service, char **out)
{
    json_t *list = json_array();
    for (size_t i = 0; list != NULL && i < service->n_ports; i++) {
        const struct service_port *p = &service->ports[i];
        /* A port without a name has no bytes to point at. */
        (void)json_array_append_new(
            list, json_pack("{s:s%, s:i, s:s}", "name",
                            p->name.n > 0 ? (const char *)p->name.p : "", p->name.n, "port",
                            (int)p->port, "protocol", protocol_name(p->protocol)));
    }
    *out = list != NULL ? json_dumps(list, JSON_COMPACT) : NULL;
    json_decref(list);
    return *out != NULL ? OK : ERR_OF(NOMEM);
}

static err_t stage_service(struct control *c, const struct object *o, bool is_of_session)
{
    char *ports = NULL;
    const struct service *service = &o->parsed->service;
    if (service->is_headless)
        return services_stage_drop(c, o->ns, o->name);
    TRY(ports_json(service, &ports));
    err_t e = services_stage_put(c, o->ns, o->name, is_of_session, service->cluster_ip,
                                 slice_str(ports));
    free(ports);
    return e;
}

static err_t put_slice_rows(struct control *c, const struct object *o)
{
    const struct endpoint_slice *slice = &o->parsed->endpoint_slice;
    for (size_t i = 0; i < slice->n_endpoints; i++)
        for (size_t p = 0; p < slice->n_ports; p++) {
            const struct mesh_endpoint row = {.ns = slice_str(o->ns),
                                              .service = slice->service,
                                              .port = slice->ports[p].port,
                                              .ip = slice->endpoints[i].address,
                                              .target_port = slice->ports[p].port,
                                              .source = SLICE_LIT("slice"),
                                              .protocol = slice->ports[p].protocol,
                                              .zone = slice->endpoints[i].zone,
                                              .is_ready = slice->endpoints[i].is_ready};
            TRY(mesh_put_endpoint(c->mesh, &row));
        }
    return OK;
}

/* The endpoint rows of a service's slices, written anew from what the change leaves. */
static err_t stage_slices(struct control *c, const char *ns, slice_t service)
{
    struct object *o, *next;
    TRY(mesh_drop_endpoints_of_slices(c->mesh, slice_str(ns), service));
    HASH_ITER(hh, c->objects, o, next)
    {
        bool is_staged;
        (void)staged_find(c, o->key, &is_staged);
        if (!is_staged && o->parsed->kind == RESOURCE_ENDPOINT_SLICE &&
            strcmp(o->ns, ns) == 0 && slice_is(o->parsed->endpoint_slice.service, service))
            TRY(put_slice_rows(c, o));
    }
    LIST_EACH (it, &c->staged) {
        const struct staged *s = CONTAINER_OF(it, struct staged, link);
        if (!s->is_drop && objects_current(c, s->object->key) == s->object &&
            s->object->parsed->kind == RESOURCE_ENDPOINT_SLICE &&
            strcmp(s->object->ns, ns) == 0 &&
            slice_is(s->object->parsed->endpoint_slice.service, service))
            TRY(put_slice_rows(c, s->object));
    }
    return OK;
}

/* Takes *o. */
static err_t stage(struct control *c, struct object **o, bool is_drop)
{
    struct staged *s = calloc(1, sizeof *s);
    if (s == NULL) {
        object_free(*o);
        *o = NULL;
        return ERR_OF(NOMEM);
    }
    s->is_drop = is_drop;
    s->object = *o;
    list_push(&c->staged, &s->link);
    *o = NULL;
    return OK;
}

static err_t stage_put(struct control *c, struct object **o, bool is_of_session)
{
    struct object *it = *o;
    const struct object *old = objects_current(c, it->key);
    const struct mesh_object row = {.kind = slice_str(it->kind),
                                    .ns = slice_str(it->ns),
                                    .name = slice_str(it->name),
                                    .json = slice(it->json, it->n_json)};
    it->revision = mesh_next(c->mesh);
    it->parsed->created = old != NULL ? old->parsed->created : it->revision;
    TRY(stage(c, o, false));
    TRY(mesh_put_object(c->mesh, &row));
    if (it->parsed->kind == RESOURCE_SERVICE)
        return stage_service(c, it, is_of_session);
    if (it->parsed->kind == RESOURCE_ENDPOINT_SLICE) {
        const struct object *before = find_key(c, it->key);
        if (before != NULL && !slice_is(before->parsed->endpoint_slice.service,
                                        it->parsed->endpoint_slice.service))
            TRY(stage_slices(c, it->ns, before->parsed->endpoint_slice.service));
        return stage_slices(c, it->ns, it->parsed->endpoint_slice.service);
    }
    return OK;
}

static err_t stage_drop(struct control *c, const struct object *old)
{
    const struct mesh_object row = {
        .kind = slice_str(old->kind), .ns = slice_str(old->ns), .name = slice_str(old->name)};
    struct object *o = calloc(1, sizeof *o);
    if (o == NULL)
        return ERR_OF(NOMEM);
    (void)set_names(o, old->kind, row.ns, row.name);
    TRY(stage(c, &o, true));
    TRY(mesh_drop_object(c->mesh, &row));
    if (old->parsed->kind == RESOURCE_SERVICE)
        return services_stage_drop(c, old->ns, old->name);
    if (old->parsed->kind == RESOURCE_ENDPOINT_SLICE)
        return stage_slices(c, old->ns, old->parsed->endpoint_slice.service);
    return OK;
}

/* ---- after the commit ---- */

static void mark_slice_text(struct control *c, slice_t text)
{
    char copy[254];
    if (slice_to_cstr(text, copy, sizeof copy))
        topics_mark_text(c, copy);
}

/* The services that a route or profile is attached to. */
static void mark_parents(struct control *c, const struct resource *r)
{
    slice_t ns, name;
    for (size_t i = 0; attached_parent(r, i, &ns, &name); i++)
        mark_slice_text(c, name);
}

/* The services of the routes that use a fault injection. */
static void mark_users(struct control *c, const struct object *fault)
{
    struct object *o, *next;
    HASH_ITER(hh, c->objects, o, next)
    if (strcmp(o->ns, fault->ns) == 0 &&
        resource_uses_fault(o->parsed, slice_str(fault->name)))
        mark_parents(c, o->parsed);
}

static void mark_for(struct control *c, const struct object *o)
{
    const struct service_entry *s;
    if (o == NULL)
        return;
    switch (o->parsed->kind) {
    case RESOURCE_SERVICE:
        topics_mark_text(c, o->name);
        s = services_find(c, o->ns, o->name);
        if (s != NULL) {
            topics_mark_text(c, s->ip4);
            topics_mark_text(c, s->ip6);
        }
        break;
    case RESOURCE_ENDPOINT_SLICE:
    case RESOURCE_HTTP_ROUTE:
    case RESOURCE_GRPC_ROUTE:
    case RESOURCE_TLS_ROUTE:
    case RESOURCE_TCP_ROUTE:
    case RESOURCE_SERVICE_PROFILE:
        mark_parents(c, o->parsed);
        break;
    case RESOURCE_FAULT_INJECTION:
        mark_users(c, o);
        break;
    case RESOURCE_RATE_LIMIT: /* its pods: mark_pods */
    case RESOURCE_KINDS:
        break;
    }
}

/* Pods learn of their own ports' protocols and limits from the service that names them, its profile and
 * its rate limit. */
static void mark_pods(struct control *c, const struct object *o)
{
    const struct attached *a;
    slice_t ns, name;
    if (o == NULL || (o->parsed->kind != RESOURCE_SERVICE &&
                      o->parsed->kind != RESOURCE_RATE_LIMIT &&
                      o->parsed->kind != RESOURCE_SERVICE_PROFILE))
        return;
    ns = o->parsed->namespace;
    name = o->parsed->name;
    if (o->parsed->kind != RESOURCE_SERVICE)
        (void)attached_parent(o->parsed, 0, &ns, &name);
    a = attached_find(c, ns, name);
    for (size_t i = 0; a != NULL && i < a->n_sessions; i++) {
        char own[330];
        (void)snprintf(own, sizeof own, "pod/%s", a->sessions[i]->name);
        topics_mark(c, own);
    }
}

void objects_accept(struct control *c)
{
    LIST_EACH_SAFE (it, &c->staged) {
        struct staged *s = CONTAINER_OF(it, struct staged, link);
        struct object *old = find_key(c, s->object->key);
        mark_for(c, old);
        mark_pods(c, old);
        if (old != NULL) {
            attached_drop_object(c, old);
            HASH_DEL(c->objects, old);
            object_free(old);
        }
        if (s->is_drop) {
            object_free(s->object);
        } else {
            HASH_ADD_STR(c->objects, key, s->object);
            attached_add_object(c, s->object);
            mark_for(c, s->object);
            mark_pods(c, s->object);
        }
        list_del(&s->link);
        free(s);
    }
    services_accept(c);
}

void objects_abandon(struct control *c)
{
    LIST_EACH_SAFE (it, &c->staged) {
        struct staged *s = CONTAINER_OF(it, struct staged, link);
        object_free(s->object);
        list_del(&s->link);
        free(s);
    }
    services_abandon(c);
}

/* ---- services that sessions serve ---- */

static const char *app_protocol(uint8_t protocol)
{
    static const char *const names[PROTOCOLS] = {NULL, "http", "kubernetes.io/h2c", "grpc",
                                                 NULL};
    return protocol < PROTOCOLS ? names[protocol] : NULL;
}

static json_t *port_json(const struct served_port *served)
{
    char name[16];
    (void)snprintf(name, sizeof name, "p%u", served->port);
    json_t *port = json_pack("{s:s, s:i}", "name", name, "port", (int)served->port);
    if (port != NULL && app_protocol(served->protocol) != NULL)
        (void)json_object_set_new(port, "appProtocol",
                                  json_string(app_protocol(served->protocol)));
    return port;
}

static json_t *service_json(const char *ns, const struct served_port *served)
{
    json_t *o = json_pack("{s:s, s:s, s:{s:s, s:s, s:{s:s}}, s:{s:[o]}}", "apiVersion", "v1",
                          "kind", "Service", "metadata", "name", served->service, "namespace",
                          ns, "annotations", "weft.dev/made-by", "session", "spec", "ports",
                          port_json(served));
    if (o != NULL && served->protocol == PROTOCOL_OPAQUE) {
        char port[8];
        (void)snprintf(port, sizeof port, "%u", served->port);
        (void)json_object_set_new(
            json_object_get(json_object_get(o, "metadata"), "annotations"),
            "config.linkerd.io/opaque-ports", json_string(port));
    }
    return o;
}

static bool has_port(const struct service *s, uint16_t port)
{
    for (size_t i = 0; i < s->n_ports; i++)
        if (s->ports[i].port == port || s->ports[i].target_port == port)
            return true;
    return false;
}

err_t objects_ensure_served(struct control *c, const char *ns, const struct served_port *served)
{
    char key[400];
    (void)snprintf(key, sizeof key, "Service/%s/%s", ns, served->service);
    const struct object *old = objects_current(c, key);
    const struct service_entry *entry = services_find(c, ns, served->service);
    if (old != NULL && (entry == NULL || !entry->is_of_session ||
                        has_port(&old->parsed->service, served->port)))
        return OK;
    json_t *json = NULL;
    if (old == NULL) {
        if (HASH_COUNT(c->objects) >= OBJECTS_MAX)
            return ERR_OF(MODEL_LIMIT);
        json = service_json(ns, served);
    } else {
        json = json_loadb(old->json, old->n_json, 0, NULL);
        (void)json_array_append_new(json_object_get(json_object_get(json, "spec"), "ports"),
                                    port_json(served));
    }
    struct resource *r = NULL;
    struct why why = {0};
    err_t e = json != NULL ? resource_parse(json, slice_str(ns), &r, &why) : ERR_OF(NOMEM);
    json_decref(json);
    if (e != OK) {
        log_warn("service of a session not made", "service=%s/%s why=\"%s: %s\"", ns,
                 served->service, why.path, why.reason);
        return e == ERR_OF(NOMEM) ? e : OK;
    }
    struct object *o = object_new(&r);
    return o != NULL ? stage_put(c, &o, true) : ERR_OF(NOMEM);
}

/* ---- apply and delete ---- */

static void outcome(struct wire_outcome *out, struct arena *arena, const char *key,
                    enum result result, const char *why)
{
    out->object = arena_copy(arena, slice_str(key));
    out->result = (uint8_t)result;
    out->why = why != NULL ? arena_copy(arena, slice_str(why)) : slice(NULL, 0);
}

static void refuse(struct control *c, struct wire_outcome *out, struct arena *arena,
                   slice_t json, const struct why *why)
{
    char kind[65] = "", ns[64] = "", name[254] = "", key[400], text[WHY_TEXT];
    struct why ignored;
    json_t *object = NULL;
    if (manifest_parse_json(json, &object, &ignored) == OK)
        (void)resource_identify(object, DEFAULT_NS, kind, ns, name);
    json_decref(object);
    (void)snprintf(key, sizeof key, "%s/%s/%s", kind, ns, name);
    why_text(why, text);
    c->count.refused_objects++;
    outcome(out, arena, key, RESULT_REFUSED, text);
}

static void apply_one(struct control *c, slice_t json, bool is_dry, struct arena *arena,
                      struct wire_outcome *out)
{
    struct resource *r = NULL;
    struct why why = {0};
    if (resource_parse_text(json, DEFAULT_NS, &r, &why) != OK) {
        refuse(c, out, arena, json, &why);
        return;
    }
    if (r->json.n > OBJECT_MAX || HASH_COUNT(c->objects) >= OBJECTS_MAX) {
        (void)why_set(&why, ERR_OF(MODEL_LIMIT), "%s",
                      r->json.n > OBJECT_MAX
                          ? "the object is larger than 128 KiB"
                          : "the mesh holds 20000 objects, which is the limit");
        refuse(c, out, arena, json, &why);
        resource_free(&r);
        return;
    }
    char key[400], notes[512] = "";
    if (!conflicts_check(c, r, &why, notes, sizeof notes)) {
        refuse(c, out, arena, json, &why);
        resource_free(&r);
        return;
    }
    size_t at = strlen(notes);
    for (size_t i = 0; i < r->n_notes; i++) {
        int n =
            snprintf(notes + at, sizeof notes - at, "%s%s", at != 0 ? "; " : "", r->notes[i]);
        at = n > 0 && at + (size_t)n < sizeof notes ? at + (size_t)n : at;
    }
    struct object *o = object_new(&r);
    if (o == NULL) {
        outcome(out, arena, "", RESULT_REFUSED, ERR_OF(NOMEM)->text);
        return;
    }
    (void)snprintf(key, sizeof key, "%s", o->key);
    const struct object *old = objects_current(c, key);
    const struct service_entry *entry = services_find(c, o->ns, o->name);
    bool takes_over = old != NULL && o->parsed->kind == RESOURCE_SERVICE && entry != NULL &&
                      entry->is_of_session;
    if (old != NULL && !takes_over && o->n_json == old->n_json &&
        memcmp(o->json, old->json, o->n_json) == 0) {
        outcome(out, arena, key, RESULT_UNCHANGED, notes);
        object_free(o);
        return;
    }
    enum result result = old == NULL ? RESULT_CREATED : RESULT_CHANGED;
    err_t e = OK;
    if (is_dry)
        object_free(o);
    else
        e = stage_put(c, &o, false);
    outcome(out, arena, key, e == OK ? result : RESULT_REFUSED, e == OK ? notes : e->text);
}

static bool is_change(const struct wire_outcome *o)
{
    return o->result == RESULT_CREATED || o->result == RESULT_CHANGED ||
           o->result == RESULT_DELETED;
}

/* Event rows of a change, within it. */
static err_t add_events(struct control *c, const struct wire_outcome *list, size_t n)
{
    static const char *const kinds[] = {"OBJECT_CREATED", "OBJECT_CHANGED", NULL,
                                        "OBJECT_DELETED", "OBJECT_REFUSED", NULL};
    for (size_t i = 0; i < n; i++)
        if (list[i].result < sizeof kinds / sizeof kinds[0] && kinds[list[i].result] != NULL)
            TRY(mesh_add_event(c->mesh, (int64_t)clock_wall_ms(),
                               slice_str(kinds[list[i].result]), list[i].object, list[i].why));
    return OK;
}

static void all_refused(struct wire_outcome *list, size_t n, err_t e)
{
    for (size_t i = 0; i < n; i++)
        if (is_change(&list[i])) {
            list[i].result = RESULT_REFUSED;
            list[i].why = slice_str(e->text);
        }
}

/* Ends the change: commit or nothing. A row that could not be written takes the whole change
 * with it, since a transaction that met an error is not trusted. */
static void finish(struct control *c, struct wire_outcome *list, size_t n, bool has_failed)
{
    err_t e = has_failed ? ERR_OF(STORE_IO) : add_events(c, list, n);
    if (e == OK)
        e = control_commit(c);
    else
        mesh_rollback(c->mesh);
    if (e != OK) {
        objects_abandon(c);
        all_refused(list, n, e);
        return;
    }
    objects_accept(c);
    c->count.applied++;
    topics_settle(c);
    services_write_hosts(c);
}

static bool failed_to_store(const struct wire_outcome *o)
{
    return o->result == RESULT_REFUSED && (slice_is_str(o->why, ERR_OF(STORE_IO)->text) ||
                                           slice_is_str(o->why, ERR_OF(STORE_FULL)->text) ||
                                           slice_is_str(o->why, ERR_OF(STORE_BUSY)->text));
}

void objects_apply(struct control *c, const struct wire_apply *ask, struct arena *arena,
                   struct wire_outcome *outcomes)
{
    bool has_failed = false;
    err_t e = ask->is_dry ? OK : control_begin(c, ask->author, ask->reason);
    if (e != OK) {
        for (size_t i = 0; i < ask->n_objects; i++)
            outcome(&outcomes[i], arena, "", RESULT_REFUSED, e->text);
        return;
    }
    for (size_t i = 0; i < ask->n_objects; i++) {
        apply_one(c, ask->objects[i].json, ask->is_dry, arena, &outcomes[i]);
        has_failed = has_failed || failed_to_store(&outcomes[i]);
    }
    if (!ask->is_dry)
        finish(c, outcomes, ask->n_objects, has_failed);
}

void objects_delete(struct control *c, const struct wire_delete_ *ask, struct arena *arena,
                    struct wire_outcome *outcomes)
{
    bool has_failed = false;
    err_t e = control_begin(c, ask->author, ask->reason);
    for (size_t i = 0; i < ask->n_objects; i++) {
        const struct wire_object *o = &ask->objects[i];
        enum resource_kind kind;
        char key[400] = "";
        bool is_kind = resource_kind_find(o->kind, &kind);
        slice_t ns = o->namespace.n != 0 ? o->namespace : DEFAULT_NS;
        if (is_kind)
            (void)snprintf(key, sizeof key, "%s/%.*s/%.*s", resource_kind_name(kind),
                           SLICE_FMT(ns), SLICE_FMT(o->name));
        const struct object *old = e == OK && is_kind ? objects_current(c, key) : NULL;
        if (e != OK || !is_kind)
            outcome(&outcomes[i], arena, key, RESULT_REFUSED,
                    e != OK ? e->text : "kind: there is no such kind");
        else if (old == NULL)
            outcome(&outcomes[i], arena, key, RESULT_NOT_FOUND, NULL);
        else {
            err_t s = stage_drop(c, old);
            outcome(&outcomes[i], arena, key, s == OK ? RESULT_DELETED : RESULT_REFUSED,
                    s == OK ? NULL : s->text);
            has_failed = has_failed || failed_to_store(&outcomes[i]);
        }
    }
    if (e == OK)
        finish(c, outcomes, ask->n_objects, has_failed);
}
