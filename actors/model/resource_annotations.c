/* Annotations: which there are and for whom, and the texts they hold. */
#include "model/resource_priv.h"

#include <stdlib.h>

/* For whom an annotation says something. */
enum {
    FOR_SERVICE = 1,
    FOR_HTTP = 2,
    FOR_GRPC = 4,
    FOR_SLICE = 8,
    FOR_ROUTES = FOR_HTTP | FOR_GRPC
};

static const struct {
    const char *name;
    unsigned who;
} annotations[] = {
    {"timeout.linkerd.io/request", FOR_SERVICE | FOR_ROUTES},
    {"timeout.linkerd.io/response", FOR_SERVICE | FOR_ROUTES},
    {"timeout.linkerd.io/idle", FOR_SERVICE | FOR_ROUTES},
    {"timeout.weft.io/response-headers", FOR_SERVICE | FOR_ROUTES},
    {"retry.linkerd.io/http", FOR_SERVICE | FOR_HTTP},
    {"retry.linkerd.io/grpc", FOR_SERVICE | FOR_GRPC},
    {"retry.linkerd.io/limit", FOR_SERVICE | FOR_ROUTES},
    {"retry.linkerd.io/timeout", FOR_SERVICE | FOR_ROUTES},
    {"retry.weft.io/budget-ratio", FOR_SERVICE | FOR_ROUTES},
    {"retry.weft.io/budget-min-per-second", FOR_SERVICE | FOR_ROUTES},
    {"retry.weft.io/budget-ttl", FOR_SERVICE | FOR_ROUTES},
    {"retry.weft.io/hedge-after", FOR_SERVICE | FOR_ROUTES},
    {"retry.weft.io/hedge-max", FOR_SERVICE | FOR_ROUTES},
    {"mirror.weft.io/max-running", FOR_ROUTES},
    {"balancer.linkerd.io/failure-accrual", FOR_SERVICE},
    {"balancer.linkerd.io/failure-accrual-consecutive-max-failures", FOR_SERVICE},
    {"balancer.linkerd.io/failure-accrual-consecutive-min-penalty", FOR_SERVICE},
    {"balancer.linkerd.io/failure-accrual-consecutive-max-penalty", FOR_SERVICE},
    {"balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio", FOR_SERVICE},
    {"balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold", FOR_SERVICE},
    {"balancer.alpha.linkerd.io/failure-accrual-success-rate-window", FOR_SERVICE},
    {"balancer.alpha.linkerd.io/failure-accrual-success-rate-min-requests", FOR_SERVICE},
    {"balancer.alpha.linkerd.io/failure-accrual-honor-retry-after", FOR_SERVICE},
    {"balancer.alpha.linkerd.io/penalize-failures", FOR_SERVICE},
    {"balancer.alpha.linkerd.io/load-biaser-penalty", FOR_SERVICE},
    {"balancer.alpha.linkerd.io/load-biaser-max-retry-after", FOR_SERVICE},
    {"balancer.weft.io/algorithm", FOR_SERVICE},
    {"balancer.weft.io/hash-on", FOR_SERVICE},
    {"balancer.weft.io/slow-start", FOR_SERVICE},
    {"balancer.weft.io/zone", FOR_SERVICE},
    {"balancer.weft.io/zone-spill", FOR_SERVICE},
    {"balancer.weft.io/share-cap", FOR_SERVICE},
    {"balancer.weft.io/max-ejected", FOR_SERVICE},
    {"balancer.weft.io/weight", FOR_SLICE},
    {"limit.weft.io/max-connections", FOR_SERVICE},
    {"limit.weft.io/max-waiting", FOR_SERVICE},
    {"limit.weft.io/app-connections", FOR_SERVICE},
};
#define ANNOTATIONS (sizeof(annotations) / sizeof(annotations[0]))

static const char *const prefixes[] = {
    "timeout.linkerd.io/", "timeout.weft.io/",     "retry.linkerd.io/",
    "retry.weft.io/",      "balancer.linkerd.io/", "balancer.alpha.linkerd.io/",
    "balancer.weft.io/",   "limit.weft.io/",       "mirror.weft.io/",
};

bool resource_annotation(const struct look *root, const char *name, struct look up[2],
                         struct look *out)
{
    up[1].v = NULL;
    return look_at(root, "metadata", &up[0]) && look_at(&up[0], "annotations", &up[1]) &&
           look_at(&up[1], name, out);
}

static unsigned who_is(enum resource_kind kind)
{
    switch (kind) {
    case RESOURCE_SERVICE:
        return FOR_SERVICE;
    case RESOURCE_HTTP_ROUTE:
        return FOR_HTTP;
    case RESOURCE_GRPC_ROUTE:
        return FOR_GRPC;
    case RESOURCE_ENDPOINT_SLICE:
        return FOR_SLICE;
    default: /* the other kinds have none */
        return 0;
    }
}

static const char *whose(unsigned who)
{
    switch (who) {
    case FOR_SERVICE:
        return "Service";
    case FOR_SERVICE | FOR_HTTP:
        return "HTTPRoute and Service";
    case FOR_SERVICE | FOR_GRPC:
        return "GRPCRoute and Service";
    case FOR_ROUTES:
        return "HTTPRoute and GRPCRoute";
    case FOR_SLICE:
        return "EndpointSlice";
    default:
        return "HTTPRoute, GRPCRoute and Service";
    }
}

/* A typing error would silently switch retries off. */
static err_t check_name(const struct look *at, unsigned who)
{
    const char *known[ANNOTATIONS + 1], *guess;
    bool is_ours = false;

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
        is_ours = is_ours || strncmp(at->key, prefixes[i], strlen(prefixes[i])) == 0;
    if (!is_ours)
        return OK;
    for (size_t i = 0; i < ANNOTATIONS; i++) {
        known[i] = annotations[i].name;
        if (strcmp(at->key, known[i]) != 0)
            continue;
        if ((annotations[i].who & who) != 0)
            return OK;
        return look_refuse(at, "is for %s only", whose(annotations[i].who));
    }
    known[ANNOTATIONS] = NULL;
    guess = look_guess(at->key, known);
    return guess != NULL ? look_refuse(at, "not a known annotation; did you mean %s?", guess)
                         : look_refuse(at, "not a known annotation");
}

err_t resource_check_annotations(const struct look *root)
{
    struct look up[2], field;
    const char *key;
    json_t *value;

    if (resource_annotation(root, "", up, &field) || up[1].v == NULL)
        return OK;
    union {
        const json_t *in;
        json_t *out;
    } object = {.in = up[1].v};
    json_object_foreach(object.out, key, value)
    {
        field = (struct look){root->ctx, &up[1], key, 0, value};
        TRY(check_name(&field, who_is(root->ctx->resource->kind)));
    }
    return OK;
}

/* ---- texts ---- */

err_t resource_parse_whole(const struct look *at, uint64_t min, uint64_t max, uint32_t *out)
{
    uint64_t v;
    slice_t s;

    TRY(look_text(at, 32, &s));
    if (!slice_to_u64(s, &v) || v > max)
        return look_refuse(at, "\"%.*s\" is not a whole number of at most %llu", SLICE_FMT(s),
                           (unsigned long long)max);
    if (v < min)
        return look_refuse(at, "must be at least %llu", (unsigned long long)min);
    *out = (uint32_t)v;
    return OK;
}

err_t resource_parse_ratio(const struct look *at, uint32_t min, uint32_t max,
                           uint32_t *permille)
{
    slice_t s;
    char *end;
    double v;

    TRY(look_text(at, 32, &s));
    v = strtod((const char *)s.p, &end);
    if (s.n == 0 || *end != '\0' || s.p[0] < '0' || s.p[0] > '9' || !(v >= 0) || v > 1e6 ||
        (v <= 0 && min > 0))
        return look_refuse(at, "\"%.*s\" is not a ratio%s (0.2 is a fifth)", SLICE_FMT(s),
                           min > 0 ? " above 0" : "");
    *permille = (uint32_t)(v * 1000 + 0.5);
    if (*permille == 0 && v > 0)
        *permille = 1;
    if (*permille < min || *permille > max)
        return look_refuse(at, "\"%.*s\" is not in %g..%g", SLICE_FMT(s), min / 1000.0,
                           max / 1000.0);
    return OK;
}

err_t resource_parse_bool(const struct look *at, bool *out)
{
    static const char *const words[] = {"1", "t", "T", "true",  "True",  "TRUE",
                                        "0", "f", "F", "false", "False", "FALSE"};
    slice_t s;

    TRY(look_text(at, 32, &s));
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (slice_is_str(s, words[i])) {
            *out = i < 6;
            return OK;
        }
    }
    return look_refuse(at, "\"%.*s\" is neither true nor false", SLICE_FMT(s));
}

bool resource_next_word(slice_t *rest, slice_t *word)
{
    const uint8_t *comma;

    if (rest->p == NULL)
        return false;
    comma = rest->n > 0 ? memchr(rest->p, ',', rest->n) : NULL;
    *word = comma != NULL ? slice(rest->p, (size_t)(comma - rest->p)) : *rest;
    *rest = comma != NULL ? slice_skip(*rest, word->n + 1) : slice(NULL, 0);
    return true;
}

bool resource_parse_range(slice_t word, struct port_range *out)
{
    const uint8_t *dash = word.n > 0 ? memchr(word.p, '-', word.n) : NULL;
    size_t n = dash != NULL ? (size_t)(dash - word.p) : word.n;
    uint64_t low, high;

    if (!slice_to_u64(slice(word.p, n), &low))
        return false;
    high = low;
    if (dash != NULL && !slice_to_u64(slice_skip(word, n + 1), &high))
        return false;
    if (low < 1 || high > 65535 || low > high)
        return false;
    *out = (struct port_range){(uint16_t)low, (uint16_t)high};
    return true;
}
