/* ServiceProfile (linkerd.io/v1alpha2). */
#include "model/name.h"
#include "model/resource_priv.h"
#include "model/route.h"

/* Numbers of entries; those of a rule in a message are RESOURCE_MATCHES and RESOURCE_VALUES. */
enum { MAX_ROUTES = 256, MAX_PARTS = 64, MAX_CLASSES = 32, MAX_DEPTH = 16, MAX_PORTS = 64 };

/* ---- conditions: all, any, not -> alternatives of parts ---- */

/* Alternatives, each with the parts that must all fit (wire_match.conditions). */
struct form {
    struct wire_match *list;
    size_t n;
};

static err_t make_form(const struct look *at, size_t n, struct form *out)
{
    void *p;

    if (n > RESOURCE_MATCHES)
        return look_refuse(at,
                           "is too many-sided: written out it has more than %d alternatives; "
                           "split the route",
                           RESOURCE_MATCHES);
    TRY(look_alloc(at, n, sizeof(*out->list), &p));
    *out = (struct form){p, 0};
    return OK;
}

static bool is_same_part(const struct wire_condition *a, const struct wire_condition *b)
{
    return a->what == b->what && slice_is(a->value, b->value);
}

/* Adds a part to an alternative. *is_void: it can never fit (a part and its opposite, or two
 * methods). */
static void add_part(struct wire_match *m, const struct wire_condition *part, bool *is_void)
{
    for (size_t i = 0; i < m->n_conditions; i++) {
        const struct wire_condition *c = &m->conditions[i];

        if (is_same_part(c, part)) {
            *is_void = *is_void || c->is_not != part->is_not;
            return;
        }
        if (c->what == ROUTE_CONDITION_METHOD && part->what == ROUTE_CONDITION_METHOD &&
            !c->is_not && !part->is_not)
            *is_void = true;
    }
    m->conditions[m->n_conditions++] = *part;
}

/* Both: every alternative of the one with every one of the other. */
static err_t both(const struct look *at, const struct form *a, const struct form *b,
                  struct form *out)
{
    TRY(make_form(at, a->n * b->n, out));
    for (size_t i = 0; i < a->n; i++)
        for (size_t j = 0; j < b->n; j++) {
            struct wire_match *m = &out->list[out->n];
            size_t n = a->list[i].n_conditions + b->list[j].n_conditions;
            bool is_void = false;
            void *p;

            TRY(look_alloc(at, n, sizeof(*m->conditions), &p));
            *m = (struct wire_match){.conditions = p};
            for (size_t k = 0; k < a->list[i].n_conditions; k++)
                add_part(m, &a->list[i].conditions[k], &is_void);
            for (size_t k = 0; k < b->list[j].n_conditions; k++)
                add_part(m, &b->list[j].conditions[k], &is_void);
            if (m->n_conditions > RESOURCE_VALUES)
                return look_refuse(at,
                                   "is too many-sided: written out, an alternative has more "
                                   "than %d parts; split the route",
                                   RESOURCE_VALUES);
            if (!is_void)
                out->n++;
        }
    return OK;
}

static err_t either(const struct look *at, const struct form *a, const struct form *b,
                    struct form *out)
{
    TRY(make_form(at, a->n + b->n, out));
    for (size_t i = 0; i < a->n; i++)
        out->list[out->n++] = a->list[i];
    for (size_t i = 0; i < b->n; i++)
        out->list[out->n++] = b->list[i];
    return OK;
}

static err_t join(const struct look *at, bool is_and, struct form *sum, bool *has_any,
                  const struct form *more)
{
    struct form joined;

    if (!*has_any) {
        *has_any = true;
        *sum = *more;
        return OK;
    }
    if (is_and)
        TRY(both(at, sum, more, &joined));
    else
        TRY(either(at, sum, more, &joined));
    *sum = joined;
    return OK;
}

static err_t expand(const struct look *at, bool is_not, unsigned depth, struct form *out);

/* A list of conditions below `all` or `any`. */
static err_t expand_list(const struct look *at, bool is_and, bool is_not, unsigned depth,
                         struct form *out)
{
    bool has_any = false;
    size_t n;

    TRY(look_list(at, MAX_PARTS, &n));
    if (n == 0)
        return look_refuse(at, "must have an entry");
    for (size_t i = 0; i < n; i++) {
        struct look item = look_item(at, i);
        struct form one;

        TRY(expand(&item, is_not, depth + 1, &one));
        TRY(join(at, is_and, out, &has_any, &one));
    }
    return OK;
}

static err_t expand_part(const struct look *at, uint8_t what, bool is_not, struct form *out)
{
    struct wire_condition part = {.what = what, .is_not = is_not};
    void *p;

    if (what == ROUTE_CONDITION_METHOD) {
        TRY(resource_check_method(at, &part.value));
    } else {
        TRY(look_text(at, 1024, &part.value));
        TRY(resource_check_regex(at, part.value));
    }
    TRY(make_form(at, 1, out));
    TRY(look_alloc(at, 1, sizeof(part), &p));
    out->list[0] = (struct wire_match){.conditions = p, .n_conditions = 1};
    *out->list[0].conditions = part;
    out->n = 1;
    return OK;
}

/* The fields of one condition hold together (AND); under a `not` De Morgan turns that round. */
static err_t expand(const struct look *at, bool is_not, unsigned depth, struct form *out)
{
    static const char *const known[] = {"pathRegex", "method", "all", "any", "not", NULL};
    bool has_any = false;

    TRY(look_object(at, known));
    if (depth > MAX_DEPTH)
        return look_refuse(at, "is nested more than %d deep", MAX_DEPTH);
    for (size_t i = 0; known[i] != NULL; i++) {
        struct look field;
        struct form one;

        if (!look_at(at, known[i], &field))
            continue;
        if (i == 0)
            TRY(expand_part(&field, ROUTE_CONDITION_PATH, is_not, &one));
        else if (i == 1)
            TRY(expand_part(&field, ROUTE_CONDITION_METHOD, is_not, &one));
        else if (i == 4)
            TRY(expand(&field, !is_not, depth + 1, &one));
        else
            TRY(expand_list(&field, (i == 2) != is_not, is_not, depth, &one));
        TRY(join(at, !is_not, out, &has_any, &one));
    }
    return has_any ? OK : look_refuse(at, "must have pathRegex, method, all, any or not");
}

/* ---- response classes ---- */

struct statuses {
    bool has[600];
};

static err_t check_range(const struct look *at, struct statuses *out)
{
    static const char *const known[] = {"min", "max", NULL};
    int64_t min = 100, max = 599;
    struct look field;

    TRY(look_object(at, known));
    if (look_at(at, "min", &field))
        TRY(look_number(&field, 100, 599, &min));
    if (look_at(at, "max", &field))
        TRY(look_number(&field, 100, 599, &max));
    if (min > max)
        return look_refuse(at, "min must not be above max");
    for (int64_t i = min; i <= max; i++)
        out->has[i] = true;
    return OK;
}

static err_t check_statuses(const struct look *at, unsigned depth, struct statuses *out);

static err_t check_status_list(const struct look *at, bool is_all, unsigned depth,
                               struct statuses *out)
{
    size_t n;

    TRY(look_list(at, MAX_PARTS, &n));
    if (n == 0)
        return look_refuse(at, "must have an entry");
    for (size_t i = 0; i < n; i++) {
        struct look item = look_item(at, i);
        struct statuses one;

        TRY(check_statuses(&item, depth + 1, &one));
        for (unsigned s = 0; s < 600; s++)
            out->has[s] = i == 0   ? one.has[s]
                          : is_all ? out->has[s] && one.has[s]
                                   : out->has[s] || one.has[s];
    }
    return OK;
}

static err_t check_statuses(const struct look *at, unsigned depth, struct statuses *out)
{
    static const char *const known[] = {"status", "all", "any", "not", NULL};
    bool has_any = false;

    TRY(look_object(at, known));
    if (depth > MAX_DEPTH)
        return look_refuse(at, "is nested more than %d deep", MAX_DEPTH);
    for (unsigned s = 0; s < 600; s++)
        out->has[s] = s >= 100;
    for (size_t i = 0; known[i] != NULL; i++) {
        struct statuses one = {{false}};
        struct look field;

        if (!look_at(at, known[i], &field))
            continue;
        has_any = true;
        if (i == 0)
            TRY(check_range(&field, &one));
        else if (i == 3)
            TRY(check_statuses(&field, depth + 1, &one));
        else
            TRY(check_status_list(&field, i == 1, depth, &one));
        for (unsigned s = 0; s < 600; s++)
            out->has[s] = out->has[s] && one.has[s] != (i == 3);
    }
    return has_any ? OK : look_refuse(at, "must have status, all, any or not");
}

static err_t add_ranges(const struct look *at, const struct statuses *set, bool is_failure,
                        struct profile_route *out)
{
    for (uint16_t low = 100; low < 600; low++) {
        uint16_t high = low;

        if (!set->has[low])
            continue;
        while (high < 599 && set->has[high + 1])
            high++;
        if (out->n_classes == MAX_CLASSES)
            return look_refuse(at, "all classes together have more than %d ranges of statuses",
                               MAX_CLASSES);
        out->classes[out->n_classes++] = (struct wire_response_class){low, high, is_failure};
        low = high;
    }
    return OK;
}

static err_t check_classes(const struct look *route, struct profile_route *out)
{
    static const char *const known[] = {"condition", "isFailure", NULL};
    struct look list, field;
    void *p;
    size_t n;

    if (!look_at(route, "responseClasses", &list))
        return OK;
    TRY(look_list(&list, MAX_CLASSES, &n));
    TRY(look_alloc(&list, MAX_CLASSES, sizeof(*out->classes), &p));
    out->classes = p;
    for (size_t i = 0; i < n; i++) {
        struct look item = look_item(&list, i);
        struct statuses set;
        bool is_failure = false;

        TRY(look_object(&item, known));
        TRY(look_need(&item, "condition", &field));
        TRY(check_statuses(&field, 0, &set));
        if (look_at(&item, "isFailure", &field))
            TRY(look_bool(&field, &is_failure));
        TRY(add_ranges(&item, &set, is_failure, out));
    }
    return OK;
}

/* ---- routes ---- */

static err_t check_route(const struct look *at, struct profile_route *out)
{
    static const char *const known[] = {"name",        "condition", "responseClasses",
                                        "isRetryable", "timeout",   NULL};
    struct look field;
    struct form form;

    TRY(look_object(at, known));
    TRY(look_need(at, "name", &field));
    TRY(look_text(&field, 253, &out->name));
    TRY(look_need(at, "condition", &field));
    TRY(expand(&field, false, 0, &form));
    if (form.n == 0) /* no alternative would mean everything */
        return look_refuse(&field, "can never fit");
    out->matches = form.list;
    out->n_matches = form.n;
    TRY(check_classes(at, out));
    if (look_at(at, "isRetryable", &field))
        TRY(look_bool(&field, &out->is_retryable));
    return look_at(at, "timeout", &field) ? look_duration(&field, &out->timeout_ms) : OK;
}

static err_t check_routes(const struct look *spec, struct service_profile *p)
{
    struct look list;
    void *routes;

    if (!look_at(spec, "routes", &list))
        return OK;
    TRY(look_list(&list, MAX_ROUTES, &p->n_routes));
    TRY(look_alloc(&list, p->n_routes, sizeof(*p->routes), &routes));
    p->routes = routes;
    for (size_t i = 0; i < p->n_routes; i++) {
        struct look item = look_item(&list, i);

        TRY(check_route(&item, &p->routes[i]));
    }
    return OK;
}

/* ---- overrides: where requests go instead ---- */

/* A Kubernetes quantity as thousandths: 1, "1", "0.5", "500m". */
static err_t check_weight(const struct look *at, uint32_t *out)
{
    double value = json_is_number(at->v) ? json_number_value(at->v) : 0;
    uint64_t whole;
    uint32_t permille;
    slice_t s;

    if (json_is_number(at->v)) {
        if (!(value >= 0 && value <= 1000000))
            return look_refuse(at, "is not in 0..1000000");
        *out = (uint32_t)(value * 1000 + 0.5);
        return OK;
    }
    TRY(look_text(at, 32, &s));
    if (s.n > 1 && s.p[s.n - 1] == 'm' && slice_to_u64(slice(s.p, s.n - 1), &whole) &&
        whole <= 1000000000) {
        *out = (uint32_t)whole;
        return OK;
    }
    TRY(resource_parse_ratio(at, 0, 1000000000, &permille));
    *out = permille;
    return OK;
}

static err_t check_override(const struct look *at, struct route_backend *out)
{
    static const char *const known[] = {"authority", "weight", NULL};
    struct name_target target;
    struct look field;
    slice_t text;
    bool has_port;

    TRY(look_object(at, known));
    TRY(look_need(at, "authority", &field));
    TRY(look_text(&field, 300, &text));
    has_port = text.n > 0 && memchr(text.p, ':', text.n) != NULL;
    if (name_target_parse(text, at->ctx->resource->profile.service_namespace, 1, &target) !=
            OK ||
        target.kind != NAME_TARGET_SERVICE)
        return look_refuse(&field, "\"%.*s\" is not a service (NAME.NS.svc.cluster.local:PORT)",
                           text.n > 100 ? 100 : (int)text.n, (const char *)text.p);
    out->port = has_port ? target.port : 0;
    out->namespace = arena_copy(at->ctx->arena, slice_str(target.namespace));
    out->name = arena_copy(at->ctx->arena, slice_str(target.name));
    if (out->namespace.p == NULL || out->name.p == NULL)
        return ERR_OF(NOMEM);
    TRY(look_need(at, "weight", &field));
    return check_weight(&field, &out->weight);
}

static err_t check_overrides(const struct look *spec, struct service_profile *p)
{
    struct look list;
    void *overrides;

    if (!look_at(spec, "dstOverrides", &list))
        return OK;
    TRY(look_list(&list, RESOURCE_BACKENDS, &p->n_overrides));
    TRY(look_alloc(&list, p->n_overrides, sizeof(*p->overrides), &overrides));
    p->overrides = overrides;
    for (size_t i = 0; i < p->n_overrides; i++) {
        struct look item = look_item(&list, i);

        TRY(check_override(&item, &p->overrides[i]));
    }
    return OK;
}

/* ---- the rest ---- */

static err_t check_budget(const struct look *spec, struct service_profile *p)
{
    static const char *const known[] = {"retryRatio", "minRetriesPerSecond", "ttl", NULL};
    struct look budget, field;
    int64_t least = 10;
    double ratio;

    if (!look_at(spec, "retryBudget", &budget))
        return OK;
    TRY(look_object(&budget, known));
    if (look_at(&budget, "retryRatio", &field)) {
        ratio = json_is_number(field.v) ? json_number_value(field.v) : -1;
        if (!(ratio >= 0 && ratio <= 1000))
            return look_refuse(&field, "must be a number in 0..1000 (0.2 is a fifth)");
        p->budget_permille = (uint32_t)(ratio * 1000 + 0.5);
        p->budget_permille += p->budget_permille == 0 ? 1 : 0; /* 0 is "not given" */
    }
    if (look_at(&budget, "minRetriesPerSecond", &field))
        TRY(look_number(&field, 0, 100000, &least));
    if (least == 0)
        resource_note(spec->ctx->resource,
                      "spec.retryBudget.minRetriesPerSecond: 0 counts as 1");
    p->budget_min_per_s = least > 0 ? (uint32_t)least : 1;
    if (!look_at(&budget, "ttl", &field))
        return OK;
    TRY(look_duration(&field, &p->budget_ttl_ms));
    if (p->budget_ttl_ms < 1000 || p->budget_ttl_ms > 60000)
        return look_refuse(&field, "must be between 1s and 60s");
    return OK;
}

static err_t check_opaque_ports(const struct look *spec, struct service_profile *p)
{
    struct look list;
    void *ranges;
    size_t n;

    if (!look_at(spec, "opaquePorts", &list))
        return OK;
    TRY(look_list(&list, MAX_PORTS, &n));
    TRY(look_alloc(&list, n, sizeof(*p->opaque_ports), &ranges));
    p->opaque_ports = ranges;
    for (size_t i = 0; i < n; i++) {
        struct look item = look_item(&list, i);
        struct port_range *out = &p->opaque_ports[p->n_opaque_ports++];
        slice_t text;

        if (json_is_integer(item.v)) {
            TRY(look_port(&item, &out->low));
            out->high = out->low;
            continue;
        }
        TRY(look_text(&item, 16, &text));
        if (!resource_parse_range(text, out))
            return look_refuse(&item, "\"%.*s\" is not a port or a range (8000-8010)",
                               SLICE_FMT(text));
    }
    return OK;
}

/* The name says which service is meant: web.prod.svc.cluster.local */
static err_t check_name(const struct look *root, struct resource *r)
{
    struct look metadata, field;
    slice_t rest = r->name, *const parts[] = {&r->profile.service,
                                              &r->profile.service_namespace};

    (void)look_at(root, "metadata", &metadata);
    (void)look_at(&metadata, "name", &field); /* checked already: they are there */
    for (size_t i = 0; i < 2; i++) {
        const uint8_t *dot = rest.n > 0 ? memchr(rest.p, '.', rest.n) : NULL;

        *parts[i] = dot != NULL ? slice(rest.p, (size_t)(dot - rest.p)) : rest;
        rest = slice_skip(rest, parts[i]->n + 1);
    }
    if (!name_is_label(r->profile.service) || !name_is_label(r->profile.service_namespace) ||
        !slice_starts(rest, SLICE_LIT("svc.")))
        return look_refuse(&field,
                           "\"%.*s\" does not name a service: SERVICE.NS.svc.cluster.local",
                           r->name.n > 100 ? 100 : (int)r->name.n, (const char *)r->name.p);
    return OK;
}

err_t resource_check_profile(const struct look *root, struct resource *r)
{
    static const char *const root_fields[] = {"apiVersion", "kind",   "metadata",
                                              "spec",       "status", NULL};
    static const char *const fields[] = {"routes", "retryBudget", "dstOverrides", "opaquePorts",
                                         NULL};
    struct service_profile *p = &r->profile;
    struct look spec;

    TRY(look_object(root, root_fields));
    TRY(resource_check_annotations(root));
    TRY(check_name(root, r));
    TRY(look_need(root, "spec", &spec));
    TRY(look_object(&spec, fields));
    TRY(check_routes(&spec, p));
    TRY(check_budget(&spec, p));
    TRY(check_overrides(&spec, p));
    return check_opaque_ports(&spec, p);
}
