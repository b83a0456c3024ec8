/* HTTPRoute, of the Gateway API and of Linkerd's own group. */
#include "model/name.h"
#include "model/regex.h"
#include "model/resource_priv.h"
#include "model/route.h"

#include <stdio.h>

/* What a message may carry (messages.def), and the Gateway API's own limits where they are
 * lower. */
enum {
    MAX_PARENTS = 32,
    MAX_HOSTS = 32,
    MAX_RULES = 64,
    MAX_MATCHES = 64,
    MAX_VALUES = 16,
    MAX_FILTERS = 16,
    MAX_EDITS = 16, /* of each verb: 48 in the message */
    MAX_BACKENDS = 32
};

static bool is_linkerd_group(const struct look *at)
{
    return slice_starts(at->ctx->resource->api_version, SLICE_LIT("policy.linkerd.io/"));
}

/* ---- references ---- */

/* group and kind of a reference must name a Service; `fallback` is the kind that counts if none
 * is given. */
static err_t check_service_ref(const struct look *ref, const char *fallback)
{
    struct look field;
    slice_t group = SLICE_LIT(""), kind = slice_str(fallback);
    bool has_group = look_at(ref, "group", &field);

    if (has_group)
        TRY(look_text(&field, NAME_MAX_HOST, &group));
    if (look_at(ref, "kind", &field))
        TRY(look_text(&field, 63, &kind));
    else
        field = *ref;
    if (!slice_is_str(kind, "Service"))
        return look_refuse(&field, "must be a Service so far, not %.*s%s", SLICE_FMT(kind),
                           field.v == ref->v ? " (what the Gateway API means if kind is absent)"
                                             : "");
    if (group.n > 0 && !slice_is_str(group, "core")) {
        (void)look_at(ref, "group", &field);
        return look_refuse(&field, "\"%.*s\" is not the group of Service (\"\" or core)",
                           SLICE_FMT(group));
    }
    return OK;
}

static err_t check_ref_names(const struct look *ref, slice_t *namespace, slice_t *name)
{
    struct look field;

    TRY(look_need(ref, "name", &field));
    TRY(look_label(&field, name));
    *namespace = ref->ctx->resource->namespace;
    if (look_at(ref, "namespace", &field))
        TRY(look_label(&field, namespace));
    return OK;
}

static err_t check_parent(const struct look *at, struct route_parent *out)
{
    static const char *const known[] = {"group", "kind",        "namespace", "name",
                                        "port",  "sectionName", NULL};
    struct look field;

    TRY(look_object(at, known));
    TRY(check_service_ref(at, "Gateway"));
    TRY(check_ref_names(at, &out->namespace, &out->name));
    if (look_at(at, "sectionName", &field))
        return look_refuse(&field, "is not supported for Services; use port");
    if (look_at(at, "port", &field))
        TRY(look_port(&field, &out->port));
    return OK;
}

static err_t check_parents(const struct look *spec, struct http_route *route)
{
    struct look list;
    void *parents;

    TRY(look_need(spec, "parentRefs", &list));
    TRY(look_list(&list, MAX_PARENTS, &route->n_parents));
    TRY(look_alloc(&list, route->n_parents, sizeof(*route->parents), &parents));
    route->parents = parents;
    for (size_t i = 0; i < route->n_parents; i++) {
        struct look item = look_item(&list, i);

        TRY(check_parent(&item, &route->parents[i]));
    }
    return route->n_parents > 0 ? OK : look_refuse(&list, "must name at least one Service");
}

static err_t check_hosts(const struct look *spec, struct http_route *route)
{
    struct look list;
    void *hosts;

    if (!look_at(spec, "hostnames", &list))
        return OK;
    TRY(look_list(&list, MAX_HOSTS, &route->n_hosts));
    TRY(look_alloc(&list, route->n_hosts, sizeof(*route->hosts), &hosts));
    route->hosts = hosts;
    for (size_t i = 0; i < route->n_hosts; i++) {
        struct look item = look_item(&list, i);

        TRY(look_host(&item, true, &route->hosts[i].host));
    }
    return OK;
}

/* ---- matches ---- */

static err_t check_regex(const struct look *at, slice_t pattern)
{
    struct regex *re = NULL;
    char why[96];
    err_t e = regex_new(pattern, &re, why);

    if (e == ERR_OF(MODEL_PATTERN))
        return look_refuse(at, "not a regular expression that is supported: %s", why);
    regex_free(&re);
    return e;
}

/* The Gateway API's rule: what a client could write in two ways is no path to match. */
static err_t check_plain_path(const struct look *at, slice_t path)
{
    static const char *const bad[] = {"//", "/./", "/../", "%2f", "%2F", "#", "?", " "};

    if (path.n == 0 || path.p[0] != '/')
        return look_refuse(at, "must begin with /");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (memmem(path.p, path.n, bad[i], strlen(bad[i])) != NULL)
            return look_refuse(at, "must not contain \"%s\"", bad[i]);
    if (slice_ends(path, SLICE_LIT("/.")) || slice_ends(path, SLICE_LIT("/..")))
        return look_refuse(at, "must not end in /. or /..");
    return OK;
}

static err_t check_path_match(const struct look *match, struct wire_match *out)
{
    static const char *const known[] = {"type", "value", NULL};
    static const char *const types[] = {"Exact", "PathPrefix", "RegularExpression", NULL};
    static const uint8_t kinds[] = {ROUTE_PATH_EXACT, ROUTE_PATH_PREFIX, ROUTE_PATH_REGEX};
    struct look path, field;
    size_t type = 1;

    if (!look_at(match, "path", &path))
        return OK;
    TRY(look_object(&path, known));
    if (look_at(&path, "type", &field))
        TRY(look_word(&field, types, &type));
    out->path_kind = kinds[type];
    out->path = SLICE_LIT("/");
    if (!look_at(&path, "value", &field))
        return type == 1 ? OK : look_need(&path, "value", &field);
    TRY(look_text(&field, 1024, &out->path));
    return type == 2 ? check_regex(&field, out->path) : check_plain_path(&field, out->path);
}

static err_t lower_name(const struct look *at, slice_t name, slice_t *out)
{
    void *p;
    uint8_t *lower;

    TRY(look_alloc(at, name.n, 1, &p));
    lower = p;
    for (size_t i = 0; i < name.n; i++)
        lower[i] = name.p[i] >= 'A' && name.p[i] <= 'Z' ? (uint8_t)(name.p[i] + 32) : name.p[i];
    *out = slice(lower, name.n);
    return OK;
}

static err_t check_header_name(const struct look *at, slice_t *out)
{
    slice_t name;

    TRY(look_text(at, 256, &name));
    if (!name_is_token(name, 256))
        return look_refuse(at, "\"%.*s\" is not the name of a header field",
                           name.n > 60 ? 60 : (int)name.n, (const char *)name.p);
    return lower_name(at, name, out);
}

static err_t check_value_match(const struct look *at, bool is_header,
                               struct wire_match_value *out)
{
    static const char *const known[] = {"type", "name", "value", NULL};
    static const char *const types[] = {"Exact", "RegularExpression", NULL};
    struct look field;
    size_t type = 0;

    TRY(look_object(at, known));
    if (look_at(at, "type", &field))
        TRY(look_word(&field, types, &type));
    out->kind = (uint8_t)type;
    TRY(look_need(at, "name", &field));
    if (is_header)
        TRY(check_header_name(&field, &out->name));
    else
        TRY(look_text(&field, 256, &out->name));
    if (out->name.n == 0)
        return look_refuse(&field, "must not be empty");
    TRY(look_need(at, "value", &field));
    TRY(look_text(&field, 1024, &out->value));
    return type == 1 ? check_regex(&field, out->value) : OK;
}

static err_t check_value_matches(const struct look *match, const char *key, bool is_header,
                                 struct wire_match_value **out, size_t *n_out)
{
    struct look list;
    void *values;
    size_t n;

    if (!look_at(match, key, &list))
        return OK;
    TRY(look_list(&list, MAX_VALUES, &n));
    TRY(look_alloc(&list, n, sizeof(**out), &values));
    *out = values;
    *n_out = n;
    for (size_t i = 0; i < n; i++) {
        struct look item = look_item(&list, i);

        TRY(check_value_match(&item, is_header, &(*out)[i]));
        for (size_t j = 0; j < i; j++)
            if (slice_is((*out)[j].name, (*out)[i].name))
                return look_refuse(&item, "\"%.*s\" is matched twice",
                                   SLICE_FMT((*out)[i].name));
    }
    return OK;
}

static err_t check_method(const struct look *match, slice_t *out)
{
    static const char *const usual[] = {"GET",     "HEAD",    "POST",  "PUT",   "DELETE",
                                        "CONNECT", "OPTIONS", "TRACE", "PATCH", NULL};
    struct look field;

    if (!look_at(match, "method", &field))
        return OK;
    TRY(look_text(&field, 256, out));
    if (!name_is_token(*out, 32))
        return look_refuse(&field, "is not a method");
    for (size_t i = 0; usual[i] != NULL; i++)
        if (slice_is_nocase(*out, slice_str(usual[i])) && !slice_is_str(*out, usual[i]))
            return look_refuse(&field, "\"%.*s\": methods are case sensitive; did you mean %s?",
                               SLICE_FMT(*out), usual[i]);
    return OK;
}

static err_t check_matches(const struct look *rule, struct route_rule *out)
{
    static const char *const known[] = {"path", "headers", "queryParams", "method", NULL};
    struct look list;
    void *matches;

    if (!look_at(rule, "matches", &list))
        return OK;
    TRY(look_list(&list, MAX_MATCHES, &out->n_matches));
    TRY(look_alloc(&list, out->n_matches, sizeof(*out->matches), &matches));
    out->matches = matches;
    for (size_t i = 0; i < out->n_matches; i++) {
        struct look item = look_item(&list, i);
        struct wire_match *m = &out->matches[i];

        TRY(look_object(&item, known));
        TRY(check_path_match(&item, m));
        TRY(check_value_matches(&item, "headers", true, &m->headers, &m->n_headers));
        TRY(check_value_matches(&item, "queryParams", false, &m->query, &m->n_query));
        TRY(check_method(&item, &m->method));
    }
    return OK;
}

/* ---- filters ---- */

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
        TRY(check_header_name(at, &out->name));
        return refuse_protected(at, out->name);
    }
    TRY(look_object(at, known));
    TRY(look_need(at, "name", &field));
    TRY(check_header_name(&field, &out->name));
    TRY(refuse_protected(&field, out->name));
    TRY(look_need(at, "value", &field));
    return look_text(&field, 4096, &out->value);
}

static err_t check_edits(const struct look *at, struct wire_filter *out)
{
    static const char *const known[] = {"add", "set", "remove", NULL};
    void *edits;
    size_t sum = 0;

    TRY(look_object(at, known));
    for (size_t i = 0; i < 3; i++)
        sum += json_array_size(json_object_get(at->v, known[i]));
    TRY(look_alloc(at, sum < 3 * (size_t)MAX_EDITS ? sum : 3 * (size_t)MAX_EDITS,
                   sizeof(*out->edits), &edits));
    out->edits = edits;
    for (uint8_t verb = ROUTE_EDIT_ADD; verb <= ROUTE_EDIT_REMOVE; verb++) {
        struct look list;
        size_t n;

        if (!look_at(at, known[verb], &list))
            continue;
        TRY(look_list(&list, MAX_EDITS, &n));
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

static err_t check_redirect(const struct look *at, struct wire_filter *out)
{
    static const char *const known[] = {"scheme", "hostname",   "path",
                                        "port",   "statusCode", NULL};
    static const char *const schemes[] = {"http", "https", NULL};
    struct look field;
    int64_t status = 302;
    size_t which;

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

static err_t check_url_rewrite(const struct look *at, struct wire_filter *out)
{
    static const char *const known[] = {"hostname", "path", NULL};
    struct look field;

    TRY(look_object(at, known));
    if (look_at(at, "hostname", &field))
        TRY(look_host(&field, false, &out->host));
    return check_rewrite_path(at, out);
}

static const struct filter_type {
    const char *type, *field;
    uint8_t kind; /* 0: known, but not supported */
    err_t (*check)(const struct look *at, struct wire_filter *out);
} filter_types[] = {
    {"RequestHeaderModifier", "requestHeaderModifier", ROUTE_FILTER_REQUEST_HEADERS,
     check_edits},
    {"ResponseHeaderModifier", "responseHeaderModifier", ROUTE_FILTER_RESPONSE_HEADERS,
     check_edits},
    {"RequestRedirect", "requestRedirect", ROUTE_FILTER_REDIRECT, check_redirect},
    {"URLRewrite", "urlRewrite", ROUTE_FILTER_REWRITE, check_url_rewrite},
    {"RequestMirror", "requestMirror", 0, NULL},
    {"ExtensionRef", "extensionRef", 0, NULL},
    {"CORS", "cors", 0, NULL},
};
#define FILTER_TYPES (sizeof(filter_types) / sizeof(filter_types[0]))

static err_t check_filter(const struct look *at, struct wire_filter *out)
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
    if (filter_types[which].kind == 0)
        return look_refuse(&field, "%s is not supported", types[which]);
    for (size_t i = 0; i < FILTER_TYPES; i++)
        if (i != which && look_at(at, fields[i], &field))
            return look_refuse(&field, "does not go with type %s", types[which]);
    out->kind = filter_types[which].kind;
    TRY(look_need(at, fields[which], &field));
    return filter_types[which].check(&field, out);
}

static err_t check_filters(const struct look *of, struct wire_filter **out, size_t *n_out)
{
    struct look list;
    void *filters;
    unsigned seen = 0;
    size_t n;

    if (!look_at(of, "filters", &list))
        return OK;
    TRY(look_list(&list, MAX_FILTERS, &n));
    TRY(look_alloc(&list, n, sizeof(**out), &filters));
    *out = filters;
    *n_out = n;
    for (size_t i = 0; i < n; i++) {
        struct look item = look_item(&list, i);

        TRY(check_filter(&item, &(*out)[i]));
        if ((seen >> (*out)[i].kind & 1) != 0)
            return look_refuse(&item, "a filter of this type is there already");
        seen |= 1U << (*out)[i].kind;
    }
    if ((seen >> ROUTE_FILTER_REDIRECT & 1) != 0 && (seen >> ROUTE_FILTER_REWRITE & 1) != 0)
        return look_refuse(&list, "RequestRedirect and URLRewrite exclude each other");
    return OK;
}

/* Replacing the matched prefix needs one: all matches of the rule must be prefixes. */
static err_t check_prefix_rewrites(const struct look *at, const struct route_rule *rule,
                                   const struct wire_filter *filters, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (filters[i].path_kind != ROUTE_REWRITE_PREFIX)
            continue;
        for (size_t m = 0; m < rule->n_matches; m++)
            if (rule->matches[m].path_kind != ROUTE_PATH_PREFIX &&
                rule->matches[m].path_kind != ROUTE_PATH_ANY)
                return look_refuse(at,
                                   "filters[%zu]: ReplacePrefixMatch needs PathPrefix in every "
                                   "match of the rule "
                                   "(matches[%zu] has another type)",
                                   i, m);
    }
    return OK;
}

/* ---- backends ---- */

static err_t check_backend(const struct look *at, const struct route_rule *rule,
                           struct route_backend *out)
{
    static const char *const known[] = {"group", "kind",   "namespace", "name",
                                        "port",  "weight", "filters",   NULL};
    struct look field;
    int64_t weight = 1;

    TRY(look_object(at, known));
    TRY(check_service_ref(at, "Service"));
    TRY(check_ref_names(at, &out->namespace, &out->name));
    TRY(look_need(at, "port", &field));
    TRY(look_port(&field, &out->port));
    if (look_at(at, "weight", &field))
        TRY(look_number(&field, 0, 1000000, &weight));
    out->weight = (uint32_t)weight;
    TRY(check_filters(at, &out->filters, &out->n_filters));
    return check_prefix_rewrites(at, rule, out->filters, out->n_filters);
}

static err_t check_backends(const struct look *rule, struct route_rule *out)
{
    struct look list;
    void *backends;

    if (!look_at(rule, "backendRefs", &list))
        return OK;
    TRY(look_list(&list, MAX_BACKENDS, &out->n_backends));
    TRY(look_alloc(&list, out->n_backends, sizeof(*out->backends), &backends));
    out->backends = backends;
    for (size_t i = 0; i < out->n_backends; i++) {
        struct look item = look_item(&list, i);

        TRY(check_backend(&item, out, &out->backends[i]));
    }
    for (size_t i = 0; i < out->n_filters; i++)
        if (out->filters[i].kind == ROUTE_FILTER_REDIRECT && out->n_backends > 0)
            return look_refuse(
                &list,
                "a rule with RequestRedirect never reaches a backend; take one of the two out");
    return OK;
}

/* ---- timeouts and retry stanza ---- */

static err_t check_rule_timeouts(const struct look *rule, struct route_rule *out)
{
    static const char *const known[] = {"request", "backendRequest", NULL};
    struct look timeouts, field;

    if (!look_at(rule, "timeouts", &timeouts))
        return OK;
    TRY(look_object(&timeouts, known));
    if (look_at(&timeouts, "request", &field)) {
        out->has_timeouts = true;
        TRY(look_duration(&field, &out->request_ms));
    }
    if (!look_at(&timeouts, "backendRequest", &field))
        return OK;
    out->has_timeouts = true;
    TRY(look_duration(&field, &out->backend_ms));
    if (out->request_ms != 0 && out->backend_ms > out->request_ms)
        return look_refuse(&field, "must not be longer than request");
    return OK;
}

static err_t check_retry_codes(const struct look *at, struct wire_retry_policy *out)
{
    void *ranges;
    size_t n;

    TRY(look_list(at, 16, &n));
    TRY(look_alloc(at, n, sizeof(*out->statuses), &ranges));
    out->statuses = ranges;
    for (size_t i = 0; i < n; i++) {
        struct look item = look_item(at, i);
        int64_t code;

        TRY(look_number(&item, 400, 599, &code));
        out->statuses[out->n_statuses++] =
            (struct wire_status_range){(uint16_t)code, (uint16_t)code};
    }
    return OK;
}

static err_t check_rule_retry(const struct look *rule, struct route_rule *out)
{
    static const char *const known[] = {"codes", "attempts", "backoff", NULL};
    struct look retry, field;
    int64_t attempts = 1;

    if (!look_at(rule, "retry", &retry))
        return OK;
    if (is_linkerd_group(rule))
        return look_refuse(
            &retry,
            "is not a field of policy.linkerd.io; use the annotations retry.linkerd.io/ or "
            "apiVersion gateway.networking.k8s.io/v1");
    TRY(look_object(&retry, known));
    out->has_retry = true;
    if (look_at(&retry, "codes", &field))
        TRY(check_retry_codes(&field, &out->retry));
    if (look_at(&retry, "attempts", &field))
        TRY(look_number(&field, 0, 255, &attempts));
    out->retry.limit = (uint8_t)attempts;
    if (!look_at(&retry, "backoff", &field))
        return OK;
    TRY(look_duration(&field, &out->retry.backoff_min_ms));
    if (out->retry.backoff_min_ms > 60000)
        return look_refuse(&field, "must not be longer than 1m");
    out->retry.backoff_max_ms =
        out->retry.backoff_min_ms > 250 ? out->retry.backoff_min_ms : 0; /* 0: 250 */
    return OK;
}

/* ---- rules ---- */

static err_t check_rule(const struct look *at, struct route_rule *out)
{
    static const char *const known[] = {
        "name", "matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence",
        NULL};
    struct look field;

    TRY(look_object(at, known));
    if (look_at(at, "sessionPersistence", &field))
        return look_refuse(&field, "is not supported");
    if (look_at(at, "name", &field))
        TRY(look_text(&field, 253, &out->name));
    TRY(check_matches(at, out));
    TRY(check_filters(at, &out->filters, &out->n_filters));
    TRY(check_prefix_rewrites(at, out, out->filters, out->n_filters));
    TRY(check_backends(at, out));
    TRY(check_rule_timeouts(at, out));
    return check_rule_retry(at, out);
}

err_t resource_check_http_route(const struct look *root, struct resource *r)
{
    static const char *const root_fields[] = {"apiVersion", "kind",   "metadata",
                                              "spec",       "status", NULL};
    static const char *const spec_fields[] = {"parentRefs", "hostnames", "rules", NULL};
    struct http_route *route = &r->http_route;
    struct look spec, list;
    void *rules;

    TRY(look_object(root, root_fields));
    TRY(look_need(root, "spec", &spec));
    TRY(look_object(&spec, spec_fields));
    TRY(check_parents(&spec, route));
    TRY(check_hosts(&spec, route));
    TRY(look_need(&spec, "rules", &list));
    TRY(look_list(&list, MAX_RULES, &route->n_rules));
    if (route->n_rules == 0)
        return look_refuse(&list, "must have at least one rule");
    TRY(look_alloc(&list, route->n_rules, sizeof(*route->rules), &rules));
    route->rules = rules;
    for (size_t i = 0; i < route->n_rules; i++) {
        struct look item = look_item(&list, i);

        TRY(check_rule(&item, &route->rules[i]));
    }
    return resource_check_limits(root, true, &route->limits);
}
