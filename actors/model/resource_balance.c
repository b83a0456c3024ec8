/* What a Service's annotations say of balancing, breakers and connection limits. The values
 * that stand for "not given" are Linkerd's where Linkerd has the annotation. */
#include "model/resource_priv.h"
#include "model/route.h"

#include "model/name.h"

enum {
    FAILURES = 7,
    MIN_PENALTY_MS = 1000,
    MAX_PENALTY_MS = 60000,
    JITTER_PERMILLE = 500,
    SUCCESS_PERMILLE = 800,
    WINDOW_MS = 10000,
    MIN_REQUESTS = 5,
    PENALTY_MS = 5000,
    RETRY_AFTER_MAX_MS = 300000,
    SPILL_PERMILLE = 1500
};

#define ACCRUAL "balancer.linkerd.io/failure-accrual"
#define ALPHA   "balancer.alpha.linkerd.io/"
#define WEFT    "balancer.weft.io/"

static err_t word_of(const struct look *root, const char *name, const char *const *words,
                     bool *is_there, size_t *which)
{
    struct look up[2], field;

    *is_there = resource_annotation(root, name, up, &field);
    return *is_there ? look_word(&field, words, which) : OK;
}

static err_t duration_of(const struct look *root, const char *name, uint32_t min_ms,
                         uint32_t *out)
{
    struct look up[2], field;

    if (!resource_annotation(root, name, up, &field))
        return OK;
    TRY(look_duration(&field, out));
    return *out >= min_ms ? OK : look_refuse(&field, "must be at least %ums", (unsigned)min_ms);
}

static err_t whole_of(const struct look *root, const char *name, uint64_t min, uint64_t max,
                      uint32_t *out)
{
    struct look up[2], field;

    if (!resource_annotation(root, name, up, &field))
        return OK;
    return resource_parse_whole(&field, min, max, out);
}

static err_t ratio_of(const struct look *root, const char *name, uint32_t min, uint32_t max,
                      uint32_t *out)
{
    struct look up[2], field;

    if (!resource_annotation(root, name, up, &field))
        return OK;
    return resource_parse_ratio(&field, min, max, out);
}

static err_t bool_of(const struct look *root, const char *name, bool *out)
{
    struct look up[2], field;

    if (!resource_annotation(root, name, up, &field))
        return OK;
    return resource_parse_bool(&field, out);
}

/* ---- breaker ---- */

static err_t check_penalties(const struct look *root, struct wire_breaker *b)
{
    struct look up[2], field;

    TRY(duration_of(root, ACCRUAL "-consecutive-min-penalty", 1, &b->min_penalty_ms));
    TRY(duration_of(root, ACCRUAL "-consecutive-max-penalty", 1, &b->max_penalty_ms));
    TRY(ratio_of(root, ACCRUAL "-consecutive-jitter-ratio", 0, 100000, &b->jitter_permille));
    if (b->min_penalty_ms <= b->max_penalty_ms)
        return OK;
    if (!resource_annotation(root, ACCRUAL "-consecutive-max-penalty", up, &field))
        (void)resource_annotation(root, ACCRUAL "-consecutive-min-penalty", up, &field);
    return look_refuse(&field, "min-penalty (%ums) must not be longer than max-penalty (%ums)",
                       (unsigned)b->min_penalty_ms, (unsigned)b->max_penalty_ms);
}

/* Names that mean nothing without the one that switches the breaker on. */
static void note_idle_names(const struct look *root)
{
    static const char *const names[] = {
        ACCRUAL "-consecutive-max-failures",
        ACCRUAL "-consecutive-min-penalty",
        ACCRUAL "-consecutive-max-penalty",
        ACCRUAL "-consecutive-jitter-ratio",
        ALPHA "failure-accrual-success-rate-threshold",
        ALPHA "failure-accrual-success-rate-window",
        ALPHA "failure-accrual-success-rate-min-requests",
        ALPHA "failure-accrual-honor-retry-after",
        WEFT "max-ejected",
    };
    struct look up[2], field;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!resource_annotation(root, names[i], up, &field))
            continue;
        resource_note(root->ctx->resource,
                      "the failure-accrual and max-ejected annotations do nothing without "
                      "balancer.linkerd.io/failure-accrual: consecutive or unified");
        return;
    }
}

static err_t check_breaker(const struct look *root, struct service *s)
{
    static const char *const modes[] = {"consecutive", "unified", NULL};
    struct wire_breaker *b = &s->breaker;
    uint32_t percent = 100;
    size_t mode = 0;

    *b = (struct wire_breaker){.consecutive = FAILURES,
                               .min_penalty_ms = MIN_PENALTY_MS,
                               .max_penalty_ms = MAX_PENALTY_MS,
                               .jitter_permille = JITTER_PERMILLE,
                               .success_permille = SUCCESS_PERMILLE,
                               .window_ms = WINDOW_MS,
                               .min_requests = MIN_REQUESTS};
    TRY(word_of(root, ACCRUAL, modes, &s->has_breaker, &mode));
    TRY(whole_of(root, ACCRUAL "-consecutive-max-failures", mode == 1 ? 0 : 1, 1000000,
                 &b->consecutive));
    TRY(check_penalties(root, b));
    TRY(ratio_of(root, ALPHA "failure-accrual-success-rate-threshold", 0, 1000,
                 &b->success_permille));
    TRY(duration_of(root, ALPHA "failure-accrual-success-rate-window", 10, &b->window_ms));
    TRY(whole_of(root, ALPHA "failure-accrual-success-rate-min-requests", 1, 1000000,
                 &b->min_requests));
    TRY(bool_of(root, ALPHA "failure-accrual-honor-retry-after", &b->honours_retry_after));
    TRY(whole_of(root, WEFT "max-ejected", 1, 100, &percent));
    b->max_ejected_permille = percent * 10;
    if (mode == 0)
        b->success_permille = 0;
    if (!s->has_breaker)
        note_idle_names(root);
    return OK;
}

/* ---- balancing ---- */

/* "header:x-user", "cookie:session", "source" */
static err_t check_hash_on(const struct look *root, struct wire_balancing *b)
{
    struct look up[2], field;
    slice_t text;

    if (!resource_annotation(root, WEFT "hash-on", up, &field)) {
        if (b->kind != BALANCING_HASH)
            return OK;
        (void)resource_annotation(root, WEFT "algorithm", up, &field);
        return look_refuse(&field,
                           "consistent-hash needs balancer.weft.io/hash-on: header:NAME, "
                           "cookie:NAME or source");
    }
    if (b->kind != BALANCING_HASH)
        return look_refuse(&field,
                           "goes with balancer.weft.io/algorithm: consistent-hash only");
    TRY(look_text(&field, 300, &text));
    if (slice_is_str(text, "source")) {
        b->hash_by = HASH_BY_SOURCE;
        return OK;
    }
    b->hash_by = slice_starts(text, SLICE_LIT("header:"))   ? HASH_BY_HEADER
                 : slice_starts(text, SLICE_LIT("cookie:")) ? HASH_BY_COOKIE
                                                            : HASH_BY_NOTHING;
    b->hash_name = slice_skip(text, 7);
    if (b->hash_by == HASH_BY_NOTHING || !name_is_token(b->hash_name, 256))
        return look_refuse(&field, "\"%.*s\" is not header:NAME, cookie:NAME or source",
                           text.n > 60 ? 60 : (int)text.n, (const char *)text.p);
    if (b->hash_by == HASH_BY_COOKIE)
        return OK;
    uint8_t *lower = arena_alloc(root->ctx->arena, b->hash_name.n);
    for (size_t i = 0; lower != NULL && i < b->hash_name.n; i++) {
        uint8_t c = b->hash_name.p[i];

        lower[i] = c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
    }
    b->hash_name.p = lower;
    return lower != NULL ? OK : ERR_OF(NOMEM);
}

static err_t check_algorithm(const struct look *root, struct service *s)
{
    static const char *const words[] = {"ewma", "least-requests", "round-robin",
                                        "consistent-hash", NULL};
    size_t which = BALANCING_EWMA;
    bool is_there;

    TRY(word_of(root, WEFT "algorithm", words, &is_there, &which));
    s->balancing.kind = (uint8_t)which; /* the enum has the words' order */
    return check_hash_on(root, &s->balancing);
}

static err_t check_zone(const struct look *root, struct wire_balancing *b)
{
    static const char *const words[] = {"ignore", "prefer", NULL};
    struct look up[2], field;
    size_t which = 0;
    bool is_there;

    TRY(word_of(root, WEFT "zone", words, &is_there, &which));
    b->zone_mode = (uint8_t)which;
    if (resource_annotation(root, WEFT "zone-spill", up, &field) && which == 0)
        return look_refuse(&field, "goes with balancer.weft.io/zone: prefer only");
    b->spill_permille = which == 1 ? SPILL_PERMILLE : 0;
    return ratio_of(root, WEFT "zone-spill", 1000, 100000, &b->spill_permille);
}

err_t resource_check_balancing(const struct look *root, struct service *s)
{
    struct wire_balancing *b = &s->balancing;

    TRY(check_algorithm(root, s));
    TRY(duration_of(root, WEFT "slow-start", 0, &b->slow_start_ms));
    TRY(check_zone(root, b));
    TRY(ratio_of(root, WEFT "share-cap", 1000, 1000000, &b->share_cap_permille));
    b->penalty_ms = PENALTY_MS;
    b->retry_after_max_ms = RETRY_AFTER_MAX_MS;
    TRY(bool_of(root, ALPHA "penalize-failures", &b->penalises));
    TRY(duration_of(root, ALPHA "load-biaser-penalty", 1, &b->penalty_ms));
    TRY(duration_of(root, ALPHA "load-biaser-max-retry-after", 1, &b->retry_after_max_ms));
    TRY(check_breaker(root, s));
    TRY(whole_of(root, "limit.weft.io/max-connections", 1, 1000000, &s->connections_max));
    TRY(whole_of(root, "limit.weft.io/max-waiting", 1, 1000000, &s->waiting_max));
    TRY(whole_of(root, "limit.weft.io/app-connections", 1, 1000000, &s->app_connections_max));
    s->has_balancing = b->kind != BALANCING_EWMA || b->slow_start_ms != 0 ||
                       b->zone_mode != 0 || b->share_cap_permille != 0 || b->penalises;
    return OK;
}
