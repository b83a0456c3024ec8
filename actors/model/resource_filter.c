/* The filters of a rule or backendRef. */
#include "model/name.h"
#include "model/resource_priv.h"
#include "model/route.h"

/* Names that decide about framing, or belong to the mesh: a route must not touch them. */
static err_t refuse_protected(const struct look *at, slice_t name)
{
    static const char *const names[] = {
        "host",    "content-length", "transfer-encoding", "connection",      "te",
        "trailer", "upgrade",        "keep-alive",        "proxy-connection"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (slice_is_str(name, names[i]))
            return look_refuse(at, "\"%s\" cannot be changed by a route%s", names[i],
                               i == 0 ? " (use URLRewrite with hostname)" : "");
    if (slice_starts(name, SLICE_LIT("l5d-")) || slice_starts(name, SLICE_LIT("weft-")))
        return look_refuse(at, "\"%.*s\": names with l5d- and weft- belong to the mesh",
                           SLICE_FMT(name));
    return OK;
}

static err_t check_edit(const struct look *at, uint8_t verb, struct wire_field_edit *out)
{
    static const char *const known[] = {"name", "value", NULL};
    struct look field;

    out->verb = verb;
    if (verb == ROUTE_EDIT_REMOVE) {
        TRY(resource_check_header_name(at, &out->name));
        return refuse_protected(at, out->name);
    }
    TRY(look_object(at, known));
    TRY(look_need(at, "name", &field));
    TRY(resource_check_header_name(&field, &out->name));
    TRY(refuse_protected(&field, out->name));
    TRY(look_need(at, "value", &field));
    return look_text(&field, 4096, &out->value);
}

static err_t check_edits(const struct look *at, struct wire_filter *out, struct route_ref *ref)
{
    static const char *const known[] = {"add", "set", "remove", NULL};
    void *edits;
    size_t sum = 0;

    (void)ref;
    TRY(look_object(at, known));
    for (size_t i = 0; i < 3; i++)
        sum += json_array_size(json_object_get(at->v, known[i]));
    TRY(look_alloc(at, sum < 3 * (size_t)RESOURCE_EDITS ? sum : 3 * (size_t)RESOURCE_EDITS,
                   sizeof(*out->edits), &edits));
    out->edits = edits;
    for (uint8_t verb = ROUTE_EDIT_ADD; verb <= ROUTE_EDIT_REMOVE; verb++) {
        struct look list;
        size_t n;

        if (!look_at(at, known[verb], &list))
            continue;
        TRY(look_list(&list, RESOURCE_EDITS, &n));
        for (size_t i = 0; i < n; i++) {
            struct look item = look_item(&list, i);

            TRY(check_edit(&item, verb, &out->edits[out->n_edits]));
            out->n_edits++;
        }
    }
    return OK;
}

static err_t check_rewrite_path(const struct look *filter, struct wire_filter *out)
{
    static const char *const known[] = {"type", "replaceFullPath", "replacePrefixMatch", NULL};
    static const char *const types[] = {"ReplaceFullPath", "ReplacePrefixMatch", NULL};
    struct look path, field;
    size_t type;

    if (!look_at(filter, "path", &path))
        return OK;
    TRY(look_object(&path, known));
    TRY(look_need(&path, "type", &field));
    TRY(look_word(&field, types, &type));
    out->path_kind = type == 0 ? ROUTE_REWRITE_WHOLE : ROUTE_REWRITE_PREFIX;
    if (look_at(&path, known[type == 0 ? 2 : 1], &field))
        return look_refuse(&field, "does not go with type %s", types[type]);
    TRY(look_need(&path, known[type + 1], &field));
    TRY(look_text(&field, 1024, &out->path));
    if (out->path.n == 0 || out->path.p[0] != '/')
        return look_refuse(&field, "must begin with /");
    if (memchr(out->path.p, ' ', out->path.n) != NULL ||
        memchr(out->path.p, '#', out->path.n) != NULL)
        return look_refuse(&field, "must not contain spaces or #");
    return OK;
}

static err_t check_redirect(const struct look *at, struct wire_filter *out,
                            struct route_ref *ref)
{
    static const char *const known[] = {"scheme", "hostname",   "path",
                                        "port",   "statusCode", NULL};
    static const char *const schemes[] = {"http", "https", NULL};
    struct look field;
    int64_t status = 302;
    size_t which;

    (void)ref;
    TRY(look_object(at, known));
    if (look_at(at, "scheme", &field)) {
        TRY(look_word(&field, schemes, &which));
        out->scheme = slice_str(schemes[which]);
    }
    if (look_at(at, "hostname", &field))
        TRY(look_host(&field, false, &out->host));
    if (look_at(at, "port", &field))
        TRY(look_port(&field, &out->port));
    if (look_at(at, "statusCode", &field)) {
        TRY(look_number(&field, 300, 399, &status));
        if (status != 301 && status != 302 && status != 303 && status != 307 && status != 308)
            return look_refuse(&field, "%d is not one of 301, 302, 303, 307, 308", (int)status);
    }
    out->status = (uint16_t)status;
    return check_rewrite_path(at, out);
}

static err_t check_url_rewrite(const struct look *at, struct wire_filter *out,
                               struct route_ref *ref)
{
    static const char *const known[] = {"hostname", "path", NULL};
    struct look field;

    (void)ref;
    TRY(look_object(at, known));
    if (look_at(at, "hostname", &field))
        TRY(look_host(&field, false, &out->host));
    return check_rewrite_path(at, out);
}

/* percent (0..100) or fraction {numerator, denominator}, as a share of a million; absent: all.
 */
static err_t check_mirror_share(const struct look *at, int64_t *ppm)
{
    static const char *const known[] = {"numerator", "denominator", NULL};
    struct look percent, fraction, field;
    int64_t numerator, denominator = 100;

    *ppm = 1000000;
    if (look_at(at, "percent", &percent)) {
        if (look_at(at, "fraction", &fraction))
            return look_refuse(&fraction, "does not go with percent");
        TRY(look_number(&percent, 0, 100, ppm));
        *ppm *= 10000;
        return OK;
    }
    if (!look_at(at, "fraction", &fraction))
        return OK;
    TRY(look_object(&fraction, known));
    if (look_at(&fraction, "denominator", &field))
        TRY(look_number(&field, 1, INT32_MAX, &denominator));
    TRY(look_need(&fraction, "numerator", &field));
    TRY(look_number(&field, 0, denominator, &numerator));
    *ppm = numerator * 1000000 / denominator;
    if (*ppm == 0 && numerator > 0)
        *ppm = 1;
    return OK;
}

/* share_ppm 0 means all on the wire; a mirror that is never made is left out: kind 0. */
static err_t check_mirror(const struct look *at, struct wire_filter *out, struct route_ref *ref)
{
    static const char *const known[] = {"backendRef", "percent", "fraction", NULL};
    static const char *const ref_fields[] = {"group", "kind",   "namespace", "name",
                                             "port",  "weight", NULL};
    struct look backend, field;
    int64_t ppm;

    TRY(look_object(at, known));
    TRY(look_need(at, "backendRef", &backend));
    TRY(look_object(&backend, ref_fields));
    if (look_at(&backend, "weight", &field))
        return look_refuse(&field, "does not go with a mirror; use percent or fraction");
    TRY(resource_check_service_ref(&backend, "Service", &ref->namespace, &ref->name));
    TRY(look_need(&backend, "port", &field));
    TRY(look_port(&field, &ref->port));
    TRY(check_mirror_share(at, &ppm));
    if (ppm == 0)
        out->kind = 0;
    out->share_ppm = ppm == 1000000 ? 0 : (uint32_t)ppm;
    return OK;
}

static err_t check_extension(const struct look *at, struct wire_filter *out,
                             struct route_ref *ref)
{
    static const char *const known[] = {"group", "kind", "name", NULL};
    struct look field;
    slice_t text;

    (void)out;
    TRY(look_object(at, known));
    TRY(look_need(at, "group", &field));
    TRY(look_text(&field, 253, &text));
    if (!slice_is_str(text, "weft.io"))
        return look_refuse(&field, "\"%.*s\" is not known; weft.io is (HTTPFaultInjection)",
                           text.n > 60 ? 60 : (int)text.n, (const char *)text.p);
    TRY(look_need(at, "kind", &field));
    TRY(look_text(&field, 63, &text));
    if (!slice_is_str(text, "HTTPFaultInjection"))
        return look_refuse(&field, "\"%.*s\" is not known; HTTPFaultInjection is",
                           SLICE_FMT(text));
    TRY(look_need(at, "name", &field));
    TRY(look_text(&field, NAME_MAX_HOST, &ref->name));
    if (!name_is_host(ref->name))
        return look_refuse(&field, "\"%.*s\" is not a name", SLICE_FMT(ref->name));
    ref->namespace = at->ctx->resource->namespace;
    return OK;
}

static const struct filter_type {
    const char *type, *field;
    uint8_t kind; /* 0: known, but not supported */
    bool may_repeat, is_for_grpc;
    err_t (*check)(const struct look *at, struct wire_filter *out, struct route_ref *ref);
} filter_types[] = {
    {"RequestHeaderModifier", "requestHeaderModifier", ROUTE_FILTER_REQUEST_HEADERS, false,
     true, check_edits},
    {"ResponseHeaderModifier", "responseHeaderModifier", ROUTE_FILTER_RESPONSE_HEADERS, false,
     true, check_edits},
    {"RequestRedirect", "requestRedirect", ROUTE_FILTER_REDIRECT, false, false, check_redirect},
    {"URLRewrite", "urlRewrite", ROUTE_FILTER_REWRITE, false, false, check_url_rewrite},
    {"RequestMirror", "requestMirror", ROUTE_FILTER_MIRROR, true, true, check_mirror},
    {"ExtensionRef", "extensionRef", ROUTE_FILTER_EXTENSION, true, true, check_extension},
    {"CORS", "cors", 0, false, false, NULL},
    {"ExternalAuth", "externalAuth", 0, false, false, NULL},
};
#define FILTER_TYPES (sizeof(filter_types) / sizeof(filter_types[0]))

static err_t check_filter(const struct look *at, struct wire_filter *out, struct route_ref *ref,
                          const struct filter_type **type)
{
    const char *types[FILTER_TYPES + 1], *fields[FILTER_TYPES + 2];
    struct look field;
    size_t which;

    for (size_t i = 0; i < FILTER_TYPES; i++) {
        types[i] = filter_types[i].type;
        fields[i] = filter_types[i].field;
    }
    types[FILTER_TYPES] = NULL;
    fields[FILTER_TYPES] = "type";
    fields[FILTER_TYPES + 1] = NULL;
    TRY(look_object(at, fields));
    TRY(look_need(at, "type", &field));
    TRY(look_word(&field, types, &which));
    *type = &filter_types[which];
    if ((*type)->kind == 0)
        return look_refuse(&field, "%s is not supported", types[which]);
    if (!(*type)->is_for_grpc && at->ctx->resource->kind == RESOURCE_GRPC_ROUTE)
        return look_refuse(&field, "%s is for HTTPRoute only", types[which]);
    for (size_t i = 0; i < FILTER_TYPES; i++)
        if (i != which && look_at(at, fields[i], &field))
            return look_refuse(&field, "does not go with type %s", types[which]);
    out->kind = (*type)->kind;
    TRY(look_need(at, fields[which], &field));
    return (*type)->check(&field, out, ref);
}

/* Replacing the matched prefix needs one: all matches of the rule must be prefixes. */
static err_t check_prefix_rewrite(const struct look *at, const struct route_rule *rule,
                                  const struct wire_filter *filter)
{
    if (filter->path_kind != ROUTE_REWRITE_PREFIX)
        return OK;
    for (size_t m = 0; m < rule->n_matches; m++)
        if (rule->matches[m].path_kind != ROUTE_PATH_PREFIX &&
            rule->matches[m].path_kind != ROUTE_PATH_ANY)
            return look_refuse(at,
                               "ReplacePrefixMatch needs PathPrefix in every match of the rule "
                               "(matches[%zu] has another type)",
                               m);
    return OK;
}

err_t resource_check_filters(const struct look *of, const struct route_rule *rule,
                             struct route_filters *out)
{
    struct look list;
    void *filters, *refs;
    unsigned seen = 0;
    size_t n, n_extensions = 0;

    if (!look_at(of, "filters", &list))
        return OK;
    TRY(look_list(&list, RESOURCE_FILTERS, &n));
    TRY(look_alloc(&list, n, sizeof(*out->list), &filters));
    TRY(look_alloc(&list, n, sizeof(*out->refs), &refs));
    out->list = filters;
    out->refs = refs;
    for (size_t i = 0; i < n; i++) {
        struct look item = look_item(&list, i);
        const struct filter_type *type;
        unsigned bit;

        TRY(check_filter(&item, &out->list[out->n], &out->refs[out->n], &type));
        TRY(check_prefix_rewrite(&item, rule, &out->list[out->n]));
        n_extensions += type->kind == ROUTE_FILTER_EXTENSION ? 1 : 0;
        bit = 1U << (type - filter_types);
        if (!type->may_repeat && (seen & bit) != 0)
            return look_refuse(&item, "a filter of this type is there already");
        seen |= bit;
        if (out->list[out->n].kind != 0)
            out->n++;
        else
            memset(&out->list[out->n], 0, sizeof(*out->list));
    }
    if (out->n + n_extensions > RESOURCE_FILTERS) /* each may become a delay and a failure */
        return look_refuse(&list, "has more than %d filters, an ExtensionRef counting as two",
                           RESOURCE_FILTERS);
    if ((seen & 1U << 2) != 0 && (seen & 1U << 3) != 0) /* their places in the table */
        return look_refuse(&list, "RequestRedirect and URLRewrite exclude each other");
    return OK;
}
