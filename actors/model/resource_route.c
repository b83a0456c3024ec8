/* HTTPRoute (of the Gateway API and of Linkerd's own group), GRPCRoute, TLSRoute, TCPRoute. */
#include "model/name.h"
#include "model/resource_priv.h"
#include "model/route.h"

bool resource_is_linkerd_group(const struct look *at)
{
    return slice_starts(at->ctx->resource->api_version, SLICE_LIT("policy.linkerd.io/"));
}

/* Routes of connections: no matches, filters, timeouts. */
static bool is_l4(const struct look *at)
{
    enum resource_kind kind = at->ctx->resource->kind;

    return kind == RESOURCE_TLS_ROUTE || kind == RESOURCE_TCP_ROUTE;
}

/* ---- references ---- */

/* group and kind of a reference must name a Service; `fallback` is the kind that counts if none
 * is given. */
static err_t check_service_kind(const struct look *ref, const char *fallback)
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

err_t resource_check_service_ref(const struct look *ref, const char *fallback,
                                 slice_t *namespace, slice_t *name)
{
    struct look field;

    TRY(check_service_kind(ref, fallback));
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
    TRY(resource_check_service_ref(at, "Gateway", &out->namespace, &out->name));
    if (look_at(at, "sectionName", &field))
        return look_refuse(&field, "is not supported for Services; use port");
    if (look_at(at, "port", &field))
        TRY(look_port(&field, &out->port));
    return OK;
}

static err_t check_parents(const struct look *spec, struct route *route)
{
    struct look list;
    void *parents;

    TRY(look_need(spec, "parentRefs", &list));
    TRY(look_list(&list, RESOURCE_PARENTS, &route->n_parents));
    TRY(look_alloc(&list, route->n_parents, sizeof(*route->parents), &parents));
    route->parents = parents;
    for (size_t i = 0; i < route->n_parents; i++) {
        struct look item = look_item(&list, i);

        TRY(check_parent(&item, &route->parents[i]));
    }
    return route->n_parents > 0 ? OK : look_refuse(&list, "must name at least one Service");
}

static err_t check_hosts(const struct look *spec, struct route *route)
{
    struct look list;
    void *hosts;

    if (!look_at(spec, "hostnames", &list))
        return OK;
    TRY(look_list(&list, RESOURCE_HOSTS, &route->n_hosts));
    TRY(look_alloc(&list, route->n_hosts, sizeof(*route->hosts), &hosts));
    route->hosts = hosts;
    for (size_t i = 0; i < route->n_hosts; i++) {
        struct look item = look_item(&list, i);

        TRY(look_host(&item, true, &route->hosts[i].host));
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
    if (is_l4(at) && look_at(at, "filters", &field))
        return look_refuse(&field, "are not for %s: it routes connections",
                           resource_kind_name(at->ctx->resource->kind));
    TRY(resource_check_service_ref(at, "Service", &out->namespace, &out->name));
    TRY(look_need(at, "port", &field));
    TRY(look_port(&field, &out->port));
    if (look_at(at, "weight", &field))
        TRY(look_number(&field, 0, 1000000, &weight));
    out->weight = (uint32_t)weight;
    return resource_check_filters(at, rule, &out->filters);
}

static err_t check_backends(const struct look *rule, struct route_rule *out)
{
    struct look list;
    void *backends;

    if (!look_at(rule, "backendRefs", &list))
        return OK;
    TRY(look_list(&list, RESOURCE_BACKENDS, &out->n_backends));
    TRY(look_alloc(&list, out->n_backends, sizeof(*out->backends), &backends));
    out->backends = backends;
    for (size_t i = 0; i < out->n_backends; i++) {
        struct look item = look_item(&list, i);

        TRY(check_backend(&item, out, &out->backends[i]));
    }
    for (size_t i = 0; i < out->filters.n; i++)
        if (out->filters.list[i].kind == ROUTE_FILTER_REDIRECT && out->n_backends > 0)
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
    if (resource_is_linkerd_group(rule))
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
    static const char *const http[] = {
        "name", "matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence",
        NULL};
    static const char *const grpc[] = {
        "name", "matches", "filters", "backendRefs", "sessionPersistence", NULL};
    static const char *const l4[] = {"name", "backendRefs", NULL};
    struct look field;

    if (is_l4(at)) {
        TRY(look_object(at, l4));
        TRY(look_need(at, "backendRefs", &field));
    } else {
        TRY(look_object(at, at->ctx->resource->kind == RESOURCE_HTTP_ROUTE ? http : grpc));
    }
    if (look_at(at, "sessionPersistence", &field))
        return look_refuse(&field,
                           "is not supported; the annotation balancer.weft.io/algorithm: "
                           "consistent-hash of the Service keeps clients at an endpoint");
    if (look_at(at, "name", &field))
        TRY(look_text(&field, 253, &out->name));
    TRY(resource_check_matches(at, out));
    TRY(resource_check_filters(at, out, &out->filters));
    TRY(check_backends(at, out));
    TRY(check_rule_timeouts(at, out));
    return check_rule_retry(at, out);
}

static err_t check_rules(const struct look *spec, struct route *route)
{
    struct look list;
    void *rules;

    TRY(look_need(spec, "rules", &list));
    TRY(look_list(&list, RESOURCE_RULES, &route->n_rules));
    if (route->n_rules == 0)
        return look_refuse(&list, "must have at least one rule");
    if (is_l4(spec) && route->n_rules > 1)
        return look_refuse(&list, "must have exactly one rule in a %s",
                           resource_kind_name(spec->ctx->resource->kind));
    TRY(look_alloc(&list, route->n_rules, sizeof(*route->rules), &rules));
    route->rules = rules;
    for (size_t i = 0; i < route->n_rules; i++) {
        struct look item = look_item(&list, i);

        TRY(check_rule(&item, &route->rules[i]));
        if (is_l4(spec) && route->rules[i].n_backends == 0)
            return look_refuse(&item, "backendRefs must name at least one Service");
    }
    return OK;
}

static err_t check_route_annotations(const struct look *root, struct route *route)
{
    struct look up[2], field;

    TRY(resource_check_annotations(root));
    if (is_l4(root))
        return OK;
    if (resource_annotation(root, "mirror.weft.io/max-running", up, &field))
        TRY(resource_parse_whole(&field, 1, 100000, &route->mirrors_max));
    return resource_check_limits(root, &route->limits);
}

err_t resource_check_route(const struct look *root, struct resource *r)
{
    static const char *const root_fields[] = {"apiVersion", "kind",   "metadata",
                                              "spec",       "status", NULL};
    static const char *const spec_fields[] = {"parentRefs", "rules", "hostnames", NULL};
    static const char *const tcp_fields[] = {"parentRefs", "rules", NULL};
    struct look spec;

    TRY(look_object(root, root_fields));
    TRY(look_need(root, "spec", &spec));
    TRY(look_object(&spec, r->kind == RESOURCE_TCP_ROUTE ? tcp_fields : spec_fields));
    TRY(check_parents(&spec, &r->route));
    TRY(check_hosts(&spec, &r->route));
    TRY(check_rules(&spec, &r->route));
    return check_route_annotations(root, &r->route);
}
