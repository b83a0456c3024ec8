/* Durations, and the annotations of timeouts and retries (linkerd.md 7.1). */
#include "model/resource_priv.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const timeout_names[] = {"timeout.linkerd.io/request",
                                            "timeout.linkerd.io/response",
                                            "timeout.linkerd.io/idle", NULL};
static const char *const retry_names[] = {
    "retry.linkerd.io/http",      "retry.linkerd.io/grpc",
    "retry.linkerd.io/limit",     "retry.linkerd.io/timeout",
    "retry.weft.io/budget-ratio", "retry.weft.io/budget-min-per-second",
    "retry.weft.io/budget-ttl",   NULL};

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

static bool parse_status(slice_t s, uint16_t *out)
{
    uint64_t v;

    if (s.n != 3 || !slice_to_u64(s, &v) || v < 100 || v > 599)
        return false;
    *out = (uint16_t)v;
    return true;
}

static bool parse_status_range(slice_t word, struct wire_status_range *out)
{
    if (slice_is_str(word, "gateway-error")) {
        *out = (struct wire_status_range){502, 504};
        return true;
    }
    if (word.n == 3 && word.p[0] >= '1' && word.p[0] <= '5' && word.p[1] == 'x' &&
        word.p[2] == 'x') {
        uint16_t hundred = (uint16_t)((word.p[0] - '0') * 100);

        *out = (struct wire_status_range){hundred, (uint16_t)(hundred + 99)};
        return true;
    }
    if (word.n == 7 && word.p[3] == '-')
        return parse_status(slice(word.p, 3), &out->low) &&
               parse_status(slice(word.p + 4, 3), &out->high) && out->low <= out->high;
    if (!parse_status(word, &out->low))
        return false;
    out->high = out->low;
    return true;
}

/* The next word of a comma list; false at the end. */
static bool next_word(slice_t *rest, slice_t *word)
{
    const uint8_t *comma;

    if (rest->p == NULL)
        return false;
    comma = rest->n > 0 ? memchr(rest->p, ',', rest->n) : NULL;
    *word = comma != NULL ? slice(rest->p, (size_t)(comma - rest->p)) : *rest;
    *rest = comma != NULL ? slice_skip(*rest, word->n + 1) : slice(NULL, 0);
    return true;
}

err_t resource_parse_statuses(const struct look *at, struct wire_retry_policy *out)
{
    slice_t rest, word;
    void *ranges;

    TRY(look_text(at, 256, &rest));
    TRY(look_alloc(at, 16, sizeof(*out->statuses), &ranges));
    out->statuses = ranges;
    while (next_word(&rest, &word)) {
        if (out->n_statuses == 16)
            return look_refuse(at, "names more than 16 statuses or ranges");
        if (!parse_status_range(word, &out->statuses[out->n_statuses]))
            return look_refuse(
                at, "\"%.*s\" is not a status (5xx, gateway-error, 503 or 500-503; no spaces)",
                word.n > 40 ? 40 : (int)word.n, (const char *)word.p);
        out->n_statuses++;
    }
    return OK;
}

static err_t parse_grpc(const struct look *at, uint32_t *bits)
{
    static const char *const names[] = {"cancelled",          "deadline-exceeded", "internal",
                                        "resource-exhausted", "unavailable",       NULL};
    static const uint8_t numbers[] = {1, 4, 13, 8, 14};
    slice_t rest, word;

    TRY(look_text(at, 256, &rest));
    while (next_word(&rest, &word)) {
        size_t i = 0;

        while (names[i] != NULL && !slice_is_str(word, names[i]))
            i++;
        if (names[i] == NULL)
            return look_refuse(at,
                               "\"%.*s\" is not one of cancelled, deadline-exceeded, internal, "
                               "resource-exhausted, "
                               "unavailable (comma list without spaces)",
                               word.n > 40 ? 40 : (int)word.n, (const char *)word.p);
        *bits |= 1U << numbers[i];
    }
    return OK;
}

/* ---- annotations ---- */

static err_t parse_whole(const struct look *at, uint64_t max, uint64_t *out)
{
    slice_t s;

    TRY(look_text(at, 32, &s));
    if (!slice_to_u64(s, out) || *out > max)
        return look_refuse(at, "\"%.*s\" is not a whole number of at most %llu", SLICE_FMT(s),
                           (unsigned long long)max);
    return OK;
}

/* "0.2" -> 200 */
static err_t parse_ratio(const struct look *at, uint32_t *permille)
{
    slice_t s;
    char *end;
    double v;

    TRY(look_text(at, 32, &s));
    v = strtod((const char *)s.p, &end);
    if (s.n == 0 || *end != '\0' || s.p[0] < '0' || s.p[0] > '9' || !(v > 0) || v > 100)
        return look_refuse(at, "\"%.*s\" is not a ratio above 0 (0.2 is a fifth)",
                           SLICE_FMT(s));
    *permille = (uint32_t)(v * 1000 + 0.5);
    if (*permille == 0)
        *permille = 1;
    return OK;
}

static err_t check_timeouts(const struct look *root, struct resource_limits *out)
{
    struct look up[2], field;
    uint32_t *const into[] = {&out->request_ms, &out->backend_ms, &out->idle_ms};

    for (size_t i = 0; timeout_names[i] != NULL; i++) {
        if (!resource_annotation(root, timeout_names[i], up, &field))
            continue;
        out->has_timeouts = true;
        out->has_request = out->has_request || i == 0;
        TRY(look_duration(&field, into[i]));
    }
    return OK;
}

static err_t check_budget(const struct look *root, struct wire_retry_policy *p)
{
    struct look up[2], field;
    uint64_t v;

    if (resource_annotation(root, "retry.weft.io/budget-ratio", up, &field))
        TRY(parse_ratio(&field, &p->budget_permille));
    if (resource_annotation(root, "retry.weft.io/budget-min-per-second", up, &field)) {
        TRY(parse_whole(&field, 100000, &v));
        if (v == 0) /* 0 is "not given" on the wire, which would be 10 */
            return look_refuse(&field, "must be at least 1");
        p->budget_min_per_s = (uint32_t)v;
    }
    if (resource_annotation(root, "retry.weft.io/budget-ttl", up, &field)) {
        TRY(look_duration(&field, &p->budget_ttl_ms));
        if (p->budget_ttl_ms < 1000 || p->budget_ttl_ms > 60000)
            return look_refuse(&field, "must be between 1s and 60s");
    }
    return OK;
}

static err_t check_retries(const struct look *root, bool is_route, struct resource_limits *out)
{
    struct look up[2], field;
    uint64_t v;

    for (size_t i = 0; retry_names[i] != NULL; i++)
        if (resource_annotation(root, retry_names[i], up, &field))
            out->has_retry = true;
    if (!out->has_retry)
        return OK;
    out->retry.limit = 1;
    if (resource_annotation(root, "retry.linkerd.io/http", up, &field))
        TRY(resource_parse_statuses(&field, &out->retry));
    if (resource_annotation(root, "retry.linkerd.io/grpc", up, &field)) {
        if (is_route)
            return look_refuse(&field, "is for GRPCRoute and Service only");
        TRY(parse_grpc(&field, &out->retry.grpc_statuses));
    }
    if (resource_annotation(root, "retry.linkerd.io/limit", up, &field)) {
        TRY(parse_whole(&field, 255, &v));
        out->retry.limit = v > 0 ? (uint8_t)v : 1; /* 0 counts as not given, as in Linkerd */
    }
    if (resource_annotation(root, "retry.linkerd.io/timeout", up, &field))
        TRY(look_duration(&field, &out->retry.per_try_ms));
    return check_budget(root, &out->retry);
}

/* Below our prefixes nothing is overlooked: a typing error would silently switch retries off.
 */
static err_t refuse_unknown_names(const struct look *root)
{
    static const char *const prefixes[] = {"timeout.linkerd.io/", "retry.linkerd.io/",
                                           "retry.weft.io/"};
    const char *known[16], *key, *guess;
    struct look up[2], field;
    json_t *value;
    size_t n = 0;

    if (resource_annotation(root, "", up, &field) || up[1].v == NULL)
        return OK;
    for (size_t i = 0; timeout_names[i] != NULL; i++)
        known[n++] = timeout_names[i];
    for (size_t i = 0; retry_names[i] != NULL; i++)
        known[n++] = retry_names[i];
    known[n] = NULL;
    union {
        const json_t *in;
        json_t *out;
    } object = {.in = up[1].v};
    json_object_foreach(object.out, key, value)
    {
        bool is_ours = false, is_known = false;

        for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
            is_ours = is_ours || strncmp(key, prefixes[i], strlen(prefixes[i])) == 0;
        for (size_t i = 0; i < n; i++)
            is_known = is_known || strcmp(key, known[i]) == 0;
        if (!is_ours || is_known)
            continue;
        field = (struct look){root->ctx, &up[1], key, 0, value};
        guess = look_guess(key, known);
        return guess != NULL
                   ? look_refuse(&field, "not a known annotation; did you mean %s?", guess)
                   : look_refuse(&field, "not a known annotation");
    }
    return OK;
}

err_t resource_check_limits(const struct look *root, bool is_route, struct resource_limits *out)
{
    TRY(refuse_unknown_names(root));
    TRY(check_timeouts(root, out));
    return check_retries(root, is_route, out);
}
