/* HTTPLocalRateLimitPolicy (of Linkerd) and HTTPFaultInjection (Weft's own). */
#include "model/name.h"
#include "model/resource_priv.h"
#include "model/route.h"

#include "model/classify.h"

enum { MAX_OVERRIDES = 64, MAX_CLIENTS = 64, MAX_RATE = 100000000 };

static const char *const root_fields[] = {"apiVersion", "kind",   "metadata",
                                          "spec",       "status", NULL};

/* ---- rate limits ---- */

static err_t check_target(const struct look *spec, struct rate_policy *p)
{
    static const char *const known[] = {"group", "kind", "name", "port", NULL};
    struct look ref, field;
    slice_t kind = {NULL, 0}, group = {NULL, 0};

    TRY(look_need(spec, "targetRef", &ref));
    TRY(look_object(&ref, known));
    TRY(look_need(&ref, "kind", &field));
    TRY(look_text(&field, 63, &kind));
    if (slice_is_str(kind, "Server"))
        return look_refuse(&field,
                           "Server is not supported yet: there are no Server resources; "
                           "name the Service whose pods are to be protected");
    if (!slice_is_str(kind, "Service"))
        return look_refuse(&field, "must be Service, not %.*s", SLICE_FMT(kind));
    if (look_at(&ref, "group", &field))
        TRY(look_text(&field, 253, &group));
    if (group.n > 0 && !slice_is_str(group, "core"))
        return look_refuse(&field, "\"%.*s\" is not the group of Service (\"\" or core)",
                           SLICE_FMT(group));
    if (look_at(&ref, "port", &field))
        TRY(look_port(&field, &p->port));
    TRY(look_need(&ref, "name", &field));
    return look_label(&field, &p->service);
}

static err_t check_rate(const struct look *of, uint32_t total, uint32_t *out)
{
    struct look field;
    int64_t v;

    TRY(look_need(of, "requestsPerSecond", &field));
    TRY(look_number(&field, 1, MAX_RATE, &v));
    if (total != 0 && v > total)
        return look_refuse(&field,
                           "%lld is above total.requestsPerSecond (%u), so it would never "
                           "be met",
                           (long long)v, (unsigned)total);
    *out = (uint32_t)v;
    return OK;
}

static err_t check_client(const struct look *at, struct rate_client *out)
{
    static const char *const known[] = {"group", "kind", "namespace", "name", NULL};
    struct look field;
    slice_t kind;

    TRY(look_object(at, known));
    TRY(look_need(at, "kind", &field));
    TRY(look_text(&field, 63, &kind));
    if (!slice_is_str(kind, "ServiceAccount"))
        return look_refuse(&field, "must be ServiceAccount, not %.*s", SLICE_FMT(kind));
    out->namespace = at->ctx->resource->namespace;
    if (look_at(at, "namespace", &field))
        TRY(look_label(&field, &out->namespace));
    TRY(look_need(at, "name", &field));
    TRY(look_text(&field, NAME_MAX_HOST, &out->name));
    if (!name_is_host(out->name))
        return look_refuse(&field, "\"%.*s\" is not a name",
                           out->name.n > 80 ? 80 : (int)out->name.n, (const char *)out->name.p);
    return OK;
}

static err_t check_override(const struct look *at, uint32_t total, struct rate_exception *out)
{
    static const char *const known[] = {"requestsPerSecond", "clientRefs", NULL};
    struct look list;
    void *p;

    TRY(look_object(at, known));
    TRY(check_rate(at, total, &out->per_s));
    TRY(look_need(at, "clientRefs", &list));
    TRY(look_list(&list, MAX_CLIENTS, &out->n_clients));
    if (out->n_clients == 0)
        return look_refuse(&list, "must name at least one ServiceAccount");
    TRY(look_alloc(&list, out->n_clients, sizeof(*out->clients), &p));
    out->clients = p;
    for (size_t i = 0; i < out->n_clients; i++) {
        struct look item = look_item(&list, i);

        TRY(check_client(&item, &out->clients[i]));
    }
    return OK;
}

static err_t check_part(const struct look *spec, const char *key, uint32_t total, uint32_t *out)
{
    static const char *const known[] = {"requestsPerSecond", NULL};
    struct look part;

    if (!look_at(spec, key, &part))
        return OK;
    TRY(look_object(&part, known));
    return check_rate(&part, total, out);
}

err_t resource_check_rate(const struct look *root, struct resource *r)
{
    static const char *const fields[] = {"targetRef", "total", "identity", "overrides", NULL};
    struct rate_policy *p = &r->rate;
    struct look spec, list;
    void *overrides;

    TRY(look_object(root, root_fields));
    TRY(resource_check_annotations(root));
    TRY(look_need(root, "spec", &spec));
    TRY(look_object(&spec, fields));
    TRY(check_target(&spec, p));
    TRY(check_part(&spec, "total", 0, &p->total_per_s));
    TRY(check_part(&spec, "identity", p->total_per_s, &p->identity_per_s));
    if (look_at(&spec, "overrides", &list)) {
        TRY(look_list(&list, MAX_OVERRIDES, &p->n_overrides));
        TRY(look_alloc(&list, p->n_overrides, sizeof(*p->overrides), &overrides));
        p->overrides = overrides;
        for (size_t i = 0; i < p->n_overrides; i++) {
            struct look item = look_item(&list, i);

            TRY(check_override(&item, p->total_per_s, &p->overrides[i]));
        }
    }
    if (p->total_per_s == 0 && p->identity_per_s == 0 && p->n_overrides == 0)
        return look_refuse(&spec, "must have total, identity or overrides");
    return OK;
}

/* ---- fault injections ---- */

/* percent, 0..100, fractions allowed; absent is 100. On the wire 0 means always. */
static err_t check_percent(const struct look *of, bool *is_ever, uint32_t *ppm)
{
    struct look field;
    double v;

    *is_ever = true;
    *ppm = 0;
    if (!look_at(of, "percent", &field))
        return OK;
    v = json_is_number(field.v) ? json_number_value(field.v) : -1;
    if (!(v >= 0 && v <= 100))
        return look_refuse(&field, "must be a number in 0..100");
    *is_ever = v > 0;
    if (v > 0 && v < 100) {
        *ppm = (uint32_t)(v * 10000 + 0.5);
        *ppm += *ppm == 0 ? 1 : 0;
    }
    return OK;
}

static err_t check_delay(const struct look *at, struct fault_injection *f)
{
    static const char *const known[] = {"duration", "jitter", "percent", NULL};
    struct look field;

    TRY(look_object(at, known));
    f->delay.kind = ROUTE_FILTER_DELAY;
    TRY(look_need(at, "duration", &field));
    TRY(look_duration(&field, &f->delay.delay_ms));
    if (look_at(at, "jitter", &field))
        TRY(look_duration(&field, &f->delay.jitter_ms));
    if (f->delay.delay_ms > 3600000 || f->delay.jitter_ms > 3600000)
        return look_refuse(at, "must not be longer than 1h");
    return check_percent(at, &f->has_delay, &f->delay.share_ppm);
}

/* "UNAVAILABLE" or 14 */
static err_t check_grpc_status(const struct look *at, uint8_t *out)
{
    const char *names[GRPC_STATUSES];
    int64_t number = 0;
    size_t which;

    if (json_is_string(at->v)) {
        for (uint32_t i = 1; i < GRPC_STATUSES; i++)
            names[i - 1] = classify_grpc_name(i);
        names[GRPC_STATUSES - 1] = NULL;
        TRY(look_word(at, names, &which));
        number = (int64_t)which + 1;
    } else {
        TRY(look_number(at, 1, GRPC_STATUSES - 1, &number));
    }
    *out = (uint8_t)number;
    return OK;
}

static err_t check_abort(const struct look *at, struct fault_injection *f)
{
    static const char *const known[] = {"httpStatus", "grpcStatus", "percent", NULL};
    struct look http, grpc;
    int64_t status = 503;
    bool has_http, has_grpc;

    TRY(look_object(at, known));
    has_http = look_at(at, "httpStatus", &http);
    has_grpc = look_at(at, "grpcStatus", &grpc);
    if (has_http == has_grpc)
        return look_refuse(at, has_http ? "httpStatus and grpcStatus exclude each other"
                                        : "must have httpStatus or grpcStatus");
    f->abort.kind = ROUTE_FILTER_FAIL;
    if (has_http)
        TRY(look_number(&http, 400, 599, &status));
    else
        TRY(check_grpc_status(&grpc, &f->abort.grpc_status));
    f->abort.status = (uint16_t)status; /* what a client that is not gRPC gets */
    return check_percent(at, &f->has_abort, &f->abort.share_ppm);
}

err_t resource_check_fault(const struct look *root, struct resource *r)
{
    static const char *const fields[] = {"delay", "abort", NULL};
    struct look spec, delay, abort_;
    bool has_delay, has_abort;

    TRY(look_object(root, root_fields));
    TRY(resource_check_annotations(root));
    TRY(look_need(root, "spec", &spec));
    TRY(look_object(&spec, fields));
    has_delay = look_at(&spec, "delay", &delay);
    has_abort = look_at(&spec, "abort", &abort_);
    if (has_delay)
        TRY(check_delay(&delay, &r->fault));
    if (has_abort)
        TRY(check_abort(&abort_, &r->fault));
    return has_delay || has_abort ? OK : look_refuse(&spec, "must have delay or abort");
}
