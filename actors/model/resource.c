/* The table of kinds, and what all kinds have in common. */
#include "model/resource.h"

#include "model/manifest.h"
#include "model/name.h"
#include "model/resource_priv.h"

#include <stdio.h>
#include <stdlib.h>

/* Memory of one resource: about four times the text it came from. */
enum { ARENA_MAX = 2 * 1024 * 1024, JSON_BYTES = 131072 };

static const struct kind_info {
    const char *kind, *plural, *short_name;
    const char *versions[8];
    err_t (*check)(const struct look *root, struct resource *r);
} kinds[RESOURCE_KINDS] = {
    [RESOURCE_SERVICE] = {"Service", "services", "svc", {"v1", NULL}, resource_check_service},
    [RESOURCE_ENDPOINT_SLICE] = {"EndpointSlice",
                                 "endpointslices",
                                 "eps",
                                 {"discovery.k8s.io/v1", NULL},
                                 resource_check_endpoint_slice},
    [RESOURCE_HTTP_ROUTE] = {"HTTPRoute",
                             "httproutes",
                             "hr",
                             {"gateway.networking.k8s.io/v1",
                              "gateway.networking.k8s.io/v1beta1", "policy.linkerd.io/v1beta3",
                              "policy.linkerd.io/v1beta2", "policy.linkerd.io/v1beta1",
                              "policy.linkerd.io/v1alpha1", NULL},
                             resource_check_route},
    [RESOURCE_GRPC_ROUTE] = {"GRPCRoute",
                             "grpcroutes",
                             "gr",
                             {"gateway.networking.k8s.io/v1",
                              "gateway.networking.k8s.io/v1alpha2", NULL},
                             resource_check_route},
    [RESOURCE_TLS_ROUTE] = {"TLSRoute",
                            "tlsroutes",
                            "tlr",
                            {"gateway.networking.k8s.io/v1",
                             "gateway.networking.k8s.io/v1alpha3",
                             "gateway.networking.k8s.io/v1alpha2", NULL},
                            resource_check_route},
    [RESOURCE_TCP_ROUTE] = {"TCPRoute",
                            "tcproutes",
                            "tcr",
                            {"gateway.networking.k8s.io/v1alpha2", NULL},
                            resource_check_route},
    [RESOURCE_SERVICE_PROFILE] = {"ServiceProfile",
                                  "serviceprofiles",
                                  "sp",
                                  {"linkerd.io/v1alpha2", "linkerd.io/v1alpha1", NULL},
                                  resource_check_profile},
    [RESOURCE_RATE_LIMIT] = {"HTTPLocalRateLimitPolicy",
                             "httplocalratelimitpolicies",
                             "ratelimit",
                             {"policy.linkerd.io/v1alpha1", NULL},
                             resource_check_rate},
    [RESOURCE_FAULT_INJECTION] = {"HTTPFaultInjection",
                                  "httpfaultinjections",
                                  "fault",
                                  {"weft.io/v1", NULL},
                                  resource_check_fault},
};

const char *resource_kind_name(enum resource_kind kind)
{
    return kinds[kind].kind;
}

bool resource_is_route(enum resource_kind kind)
{
    return kind >= RESOURCE_HTTP_ROUTE && kind <= RESOURCE_TCP_ROUTE;
}

static bool names_fault(const struct route_filters *f, slice_t fault)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->list[i].kind == ROUTE_FILTER_EXTENSION && slice_is(f->refs[i].name, fault))
            return true;
    return false;
}

bool resource_uses_fault(const struct resource *r, slice_t fault)
{
    if (!resource_is_route(r->kind))
        return false;
    for (size_t i = 0; i < r->route.n_rules; i++) {
        const struct route_rule *rule = &r->route.rules[i];

        if (names_fault(&rule->filters, fault))
            return true;
        for (size_t b = 0; b < rule->n_backends; b++)
            if (names_fault(&rule->backends[b].filters, fault))
                return true;
    }
    return false;
}

bool resource_kind_find(slice_t text, enum resource_kind *out)
{
    for (unsigned i = 0; i < RESOURCE_KINDS; i++) {
        if (slice_is_nocase(text, slice_str(kinds[i].kind)) ||
            slice_is_nocase(text, slice_str(kinds[i].plural)) ||
            slice_is_nocase(text, slice_str(kinds[i].short_name))) {
            *out = (enum resource_kind)i;
            return true;
        }
    }
    return false;
}

static const char *const protocol_names[PROTOCOLS] = {"detect", "http1", "http2", "grpc",
                                                      "opaque"};

const char *protocol_name(uint8_t protocol)
{
    return protocol_names[protocol < PROTOCOLS ? protocol : PROTOCOL_DETECT];
}

bool protocol_parse(slice_t text, uint8_t *out)
{
    for (uint8_t i = 0; i < PROTOCOLS; i++) {
        if (slice_is_str(text, protocol_names[i])) {
            *out = i;
            return true;
        }
    }
    return false;
}

void resource_note(struct resource *r, const char *note)
{
    if (r->n_notes < RESOURCE_NOTES)
        r->notes[r->n_notes++] = note;
}

/* ---- kind and metadata ---- */

static err_t refuse_version(const struct look *at, const struct kind_info *k)
{
    char list[256] = "";

    for (const char *const *v = k->versions; *v != NULL; v++) {
        size_t n = strlen(list);

        (void)snprintf(list + n, sizeof(list) - n, "%s%s", n > 0 ? ", " : "", *v);
    }
    return look_refuse(at, "\"%.60s\" is not supported for %s; supported: %s",
                       json_string_value(at->v), k->kind, list);
}

static err_t refuse_kind(const struct look *at)
{
    const char *names[RESOURCE_KINDS + 1], *guess;
    char list[160] = "";

    for (unsigned i = 0; i < RESOURCE_KINDS; i++) {
        size_t n = strlen(list);

        names[i] = kinds[i].kind;
        (void)snprintf(list + n, sizeof(list) - n, "%s%s", n > 0 ? ", " : "", kinds[i].kind);
    }
    names[RESOURCE_KINDS] = NULL;
    guess = look_guess(json_string_value(at->v), names);
    if (guess != NULL)
        return look_refuse(at, "\"%.60s\" is not known; did you mean %s?",
                           json_string_value(at->v), guess);
    return look_refuse(at, "\"%.60s\" is not supported; supported: %s",
                       json_string_value(at->v), list);
}

static err_t check_kind(const struct look *root, struct resource *r)
{
    struct look kind, version;
    slice_t text;

    TRY(look_need(root, "kind", &kind));
    TRY(look_text(&kind, 64, &text));
    for (unsigned i = 0; i < RESOURCE_KINDS; i++) {
        if (!slice_is_str(text, kinds[i].kind))
            continue;
        r->kind = (enum resource_kind)i;
        TRY(look_need(root, "apiVersion", &version));
        TRY(look_text(&version, 128, &r->api_version));
        for (const char *const *v = kinds[i].versions; *v != NULL; v++)
            if (slice_is_str(r->api_version, *v))
                return OK;
        return refuse_version(&version, &kinds[i]);
    }
    return refuse_kind(&kind);
}

static err_t check_texts(const struct look *at, size_t max)
{
    const char *key;
    json_t *value;
    slice_t ignored;
    union {
        const json_t *in;
        json_t *out;
    } object = {.in = at->v};

    if (!json_is_object(at->v))
        return look_refuse(at, "must be an object of texts");
    json_object_foreach(object.out, key, value)
    {
        struct look field = {at->ctx, at, key, 0, value};

        if (json_is_null(value))
            continue;
        if (strlen(key) > 317)
            return look_refuse(at, "has a key of %zu bytes, at most 317", strlen(key));
        if (!json_is_string(value))
            return look_text(&field, max, &ignored); /* says what is wrong */
        if (json_string_length(value) > max)
            return look_refuse(&field, "is %zu bytes long, at most %zu",
                               json_string_length(value), max);
    }
    return OK;
}

static err_t check_metadata(const struct look *root, slice_t default_namespace,
                            struct resource *r)
{
    static const char *const known[] = {"name", "namespace", "labels", "annotations",
                                        /* what Kubernetes adds, ignored */
                                        "creationTimestamp", "deletionTimestamp",
                                        "deletionGracePeriodSeconds", "finalizers",
                                        "generation", "managedFields", "ownerReferences",
                                        "resourceVersion", "selfLink", "uid", NULL};
    struct look metadata, field;

    TRY(look_need(root, "metadata", &metadata));
    TRY(look_object(&metadata, known));
    TRY(look_need(&metadata, "name", &field));
    if (r->kind == RESOURCE_SERVICE)
        TRY(look_label(&field, &r->name));
    else {
        TRY(look_text(&field, NAME_MAX_HOST, &r->name));
        if (!name_is_host(r->name))
            return look_refuse(&field,
                               "\"%.80s\" is not a name (a-z, 0-9, - and ., at most 253)",
                               (const char *)r->name.p);
    }
    if (look_at(&metadata, "namespace", &field)) {
        TRY(look_label(&field, &r->namespace));
    } else {
        r->namespace = arena_copy(&r->arena, default_namespace);
        if (r->namespace.p == NULL)
            return ERR_OF(NOMEM);
    }
    if (look_at(&metadata, "labels", &field))
        TRY(check_texts(&field, 63));
    if (look_at(&metadata, "annotations", &field))
        TRY(check_texts(&field, 16384));
    return OK;
}

/* ---- canonical form ---- */

static err_t put_canonical_metadata(const json_t *object, struct resource *r, json_t *copy)
{
    static const char *const kept[] = {"labels", "annotations"};
    const json_t *metadata = json_object_get(object, "metadata");
    json_t *out = json_pack("{s:s,s:s}", "name", (const char *)r->name.p, "namespace",
                            (const char *)r->namespace.p);

    if (out == NULL || json_object_set_new(copy, "metadata", out) != 0)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < 2; i++) {
        json_t *texts = json_copy(json_object_get(metadata, kept[i]));

        if (!json_is_object(texts)) {
            json_decref(texts);
            continue;
        }
        (void)json_object_del(
            texts, "kubectl.kubernetes.io/last-applied-configuration"); /* absent is fine */
        if (json_object_size(texts) == 0)
            json_decref(texts);
        else if (json_object_set_new(out, kept[i], texts) != 0)
            return ERR_OF(NOMEM);
    }
    return OK;
}

static err_t put_canonical(const struct look *root, struct resource *r)
{
    union {
        const json_t *in;
        json_t *out;
    } object = {.in = root->v};
    json_t *copy = json_copy(object.out);
    char *text = NULL;
    err_t e;

    if (copy == NULL)
        return ERR_OF(NOMEM);
    (void)json_object_del(copy, "status"); /* absent is fine */
    e = put_canonical_metadata(root->v, r, copy);
    if (e == OK && (text = json_dumps(copy, JSON_SORT_KEYS | JSON_COMPACT)) == NULL)
        e = ERR_OF(NOMEM);
    if (e == OK && strlen(text) > JSON_BYTES)
        e = look_refuse(root, "the object has %zu bytes, at most %d", strlen(text),
                        (int)JSON_BYTES);
    if (e == OK) {
        r->json = arena_copy(&r->arena, slice_str(text));
        e = r->json.p != NULL ? OK : ERR_OF(NOMEM);
    }
    free(text);
    json_decref(copy);
    return e;
}

static err_t check_all(const struct look *root, slice_t default_namespace, struct resource *r)
{
    if (!json_is_object(root->v))
        return look_refuse(root, "must be an object with apiVersion, kind and metadata");
    TRY(check_kind(root, r));
    TRY(check_metadata(root, default_namespace, r));
    TRY(kinds[r->kind].check(root, r));
    return put_canonical(root, r);
}

err_t resource_parse(const json_t *object, slice_t default_namespace, struct resource **out,
                     struct why *why)
{
    struct resource *r = calloc(1, sizeof(*r));
    struct look_ctx ctx = {NULL, why, r};
    struct look root = {&ctx, NULL, NULL, 0, object};
    err_t e;

    memset(why, 0, sizeof(*why));
    if (r == NULL)
        return ERR_OF(NOMEM);
    arena_init(&r->arena, ARENA_MAX);
    ctx.arena = &r->arena;
    e = check_all(&root, default_namespace, r);
    if (e == ERR_OF(NOMEM))
        (void)why_set(why, e, "the object needs too much memory");
    if (e == OK) {
        *out = r;
        return OK;
    }
    resource_free(&r);
    return e;
}

err_t resource_parse_text(slice_t json, slice_t default_namespace, struct resource **out,
                          struct why *why)
{
    json_t *object = NULL;
    err_t e;

    TRY(manifest_parse_json(json, &object, why));
    e = resource_parse(object, default_namespace, out, why);
    json_decref(object);
    return e;
}

void resource_free(struct resource **r)
{
    if (*r == NULL)
        return;
    arena_done(&(*r)->arena);
    free(*r);
    *r = NULL;
}

static bool copy_text(const json_t *v, char *out, size_t cap)
{
    if (!json_is_string(v))
        return false;
    (void)snprintf(out, cap, "%s", json_string_value(v)); /* cut if longer */
    return out[0] != '\0';
}

bool resource_identify(const json_t *object, slice_t default_namespace, char kind[65],
                       char namespace[64], char name[254])
{
    const json_t *metadata = json_object_get(object, "metadata");

    if (!copy_text(json_object_get(metadata, "namespace"), namespace, 64) &&
        !slice_to_cstr(default_namespace, namespace, 64))
        return false;
    return copy_text(json_object_get(object, "kind"), kind, 65) &&
           copy_text(json_object_get(metadata, "name"), name, 254);
}
