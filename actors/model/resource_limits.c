/* Durations, and the annotations of timeouts and retries. */
#include "model/resource_priv.h"
#include "model/retry_terms.h"

#include <stdio.h>
#include <stdlib.h>

/* One number and unit. False: not of that form, or the sum leaves 32 bits. */
static bool take_part(slice_t *s, uint64_t *sum)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    uint64_t v = 0;
    size_t n = 0;

    while (n < s->n && s->p[n] >= '0' && s->p[n] <= '9' && n < 11)
        v = v * 10 + (uint64_t)(s->p[n++] - '0');
    if (n == 0 || n == 11)
        return false;
    *s = slice_skip(*s, n);
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (!slice_starts(*s, slice_str(units[i].unit)))
            continue;
        *s = slice_skip(*s, strlen(units[i].unit));
        *sum += v * units[i].ms; /* 10^10 * 10^8 fits */
        return *sum < UINT32_MAX;
    }
    return false;
}

bool duration_parse(slice_t text, uint32_t *ms)
{
    uint64_t sum = 0;
    unsigned parts = 0;

    if (slice_is_str(text, "0")) {
        *ms = 0;
        return true;
    }
    while (text.n > 0) {
        if (++parts > 4 || !take_part(&text, &sum))
            return false;
    }
    if (parts == 0)
        return false;
    *ms = (uint32_t)sum;
    return true;
}

/* ---- statuses ---- */

err_t resource_parse_statuses(const struct look *at, struct wire_retry_policy *out)
{
    slice_t rest, word;
    void *ranges;

    TRY(look_text(at, 256, &rest));
    TRY(look_alloc(at, 16, sizeof(*out->statuses), &ranges));
    out->statuses = ranges;
    while (resource_next_word(&rest, &word)) {
        if (out->n_statuses == 16)
            return look_refuse(at, "names more than 16 statuses or ranges");
        if (!retry_parse_status(word, &out->statuses[out->n_statuses]))
            return look_refuse(
                at, "\"%.*s\" is not a status (5xx, gateway-error, 503 or 500-503; no spaces)",
                word.n > 40 ? 40 : (int)word.n, (const char *)word.p);
        out->n_statuses++;
    }
    return OK;
}

static err_t parse_grpc(const struct look *at, uint32_t *bits)
{
    slice_t rest, word;
    uint32_t bit;

    TRY(look_text(at, 256, &rest));
    while (resource_next_word(&rest, &word)) {
        if (!retry_parse_grpc(word, &bit))
            return look_refuse(at,
                               "\"%.*s\" is not one of cancelled, deadline-exceeded, internal, "
                               "resource-exhausted, "
                               "unavailable (comma list without spaces)",
                               word.n > 40 ? 40 : (int)word.n, (const char *)word.p);
        *bits |= bit;
    }
    return OK;
}

/* ---- annotations ---- */

static err_t check_timeouts(const struct look *root, struct resource_limits *out)
{
    const struct {
        const char *name;
        uint32_t *into;
    } table[] = {{"timeout.linkerd.io/request", &out->request_ms},
                 {"timeout.linkerd.io/response", &out->backend_ms},
                 {"timeout.linkerd.io/idle", &out->idle_ms},
                 {"timeout.weft.io/response-headers", &out->head_ms}};
    struct look up[2], field;

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (!resource_annotation(root, table[i].name, up, &field))
            continue;
        out->has_timeouts = true;
        out->has_request = out->has_request || i == 0;
        TRY(look_duration(&field, table[i].into));
    }
    return OK;
}

static err_t check_budget(const struct look *root, struct resource_limits *out)
{
    struct wire_retry_policy *p = &out->retry;
    struct look up[2], field;

    if (resource_annotation(root, "retry.weft.io/budget-ratio", up, &field)) {
        out->has_retry = true;
        TRY(resource_parse_ratio(&field, 1, 100000, &p->budget_permille));
    }
    if (resource_annotation(root, "retry.weft.io/budget-min-per-second", up, &field)) {
        out->has_retry = true; /* 0 is "not given" on the wire, which would be 10 */
        TRY(resource_parse_whole(&field, 1, 100000, &p->budget_min_per_s));
    }
    if (resource_annotation(root, "retry.weft.io/budget-ttl", up, &field)) {
        out->has_retry = true;
        TRY(look_duration(&field, &p->budget_ttl_ms));
        if (p->budget_ttl_ms < 1000 || p->budget_ttl_ms > 60000)
            return look_refuse(&field, "must be between 1s and 60s");
    }
    return OK;
}

static err_t check_hedges(const struct look *root, struct resource_limits *out)
{
    struct look up[2], field;
    uint32_t v;

    if (resource_annotation(root, "retry.weft.io/hedge-after", up, &field)) {
        out->has_retry = true;
        TRY(look_duration(&field, &out->retry.hedge_ms));
    }
    if (!resource_annotation(root, "retry.weft.io/hedge-max", up, &field))
        return OK;
    if (out->retry.hedge_ms == 0)
        return look_refuse(&field, "needs retry.weft.io/hedge-after beside it");
    TRY(resource_parse_whole(&field, 2, 8, &v));
    out->retry.hedge_max = (uint8_t)v;
    return OK;
}

static err_t check_retries(const struct look *root, struct resource_limits *out)
{
    struct look up[2], field;
    uint32_t v = 1;

    if (resource_annotation(root, "retry.linkerd.io/http", up, &field)) {
        out->has_retry = true;
        TRY(resource_parse_statuses(&field, &out->retry));
    }
    if (resource_annotation(root, "retry.linkerd.io/grpc", up, &field)) {
        out->has_retry = true;
        TRY(parse_grpc(&field, &out->retry.grpc_statuses));
    }
    if (resource_annotation(root, "retry.linkerd.io/limit", up, &field)) {
        out->has_retry = true;
        TRY(resource_parse_whole(&field, 0, 255, &v));
    }
    if (resource_annotation(root, "retry.linkerd.io/timeout", up, &field)) {
        out->has_retry = true;
        TRY(look_duration(&field, &out->retry.per_try_ms));
    }
    TRY(check_budget(root, out));
    TRY(check_hedges(root, out));
    if (out->has_retry)
        out->retry.limit = v > 0 ? (uint8_t)v : 1; /* 0 counts as not given, as in Linkerd */
    return OK;
}

err_t resource_check_limits(const struct look *root, struct resource_limits *out)
{
    TRY(check_timeouts(root, out));
    return check_retries(root, out);
}
