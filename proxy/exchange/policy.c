/* What a request's retry policy says: the rule's, or, where the pod allows it, what the application asked for in
 * l5d-retry-* fields of this one request. */
#include "proxy/exchange/exchange_priv.h"

#include "model/classify.h"
#include "model/retry_terms.h"
#include "proxy/http/stream.h"

#define PROFILE_LIMIT 10 /* further attempts of a ServiceProfile's isRetryable, which names only a budget */

const struct wire_retry_policy *again_policy(const struct exchange *x)
{
    if (x->own_policy != NULL)
        return x->own_policy;
    return x->rule != NULL && x->rule->has_retry && x->rule->n_retry > 0 ? &x->rule->retry[0]
                                                                         : NULL;
}

static bool is_profile(const struct exchange *x)
{
    return x->own_policy == NULL && x->rule != NULL && x->rule->retries_failures;
}

bool again_terms(const struct exchange *x, struct wire_retry_policy *out)
{
    const struct wire_retry_policy *p = again_policy(x);

    *out = p != NULL ? *p : (struct wire_retry_policy){0};
    if (is_profile(x) && out->limit == 0)
        out->limit = PROFILE_LIMIT;
    return p != NULL || is_profile(x);
}

bool again_is_last(const struct exchange *x)
{
    struct wire_retry_policy terms;

    return !again_terms(x, &terms) || x->failures >= terms.limit;
}

/* ---- what an answer means ---- */

static bool wants_status(const struct exchange *x, uint16_t status)
{
    const struct wire_retry_policy *p = again_policy(x);

    if (p == NULL)
        return false;
    for (size_t i = 0; i < p->n_statuses; i++)
        if (status >= p->statuses[i].low && status <= p->statuses[i].high)
            return true;
    return false;
}

static bool wants_grpc(const struct exchange *x, uint32_t status)
{
    const struct wire_retry_policy *p = again_policy(x);

    return p != NULL && status < 32 && (p->grpc_statuses >> status & 1) != 0;
}

static struct classify_end end_of(const struct exchange *x)
{
    return (struct classify_end){.status = x->status,
                                 .is_grpc = x->is_grpc,
                                 .has_grpc = x->grpc_status >= 0,
                                 .grpc_status = x->grpc_status >= 0 ? (uint32_t)x->grpc_status : 0};
}

bool again_is_success(const struct exchange *x)
{
    struct classify_end end = end_of(x);

    return x->rule != NULL && x->rule->n_classes > 0
               ? classify_is_success_by(&end, x->rule->classes, x->rule->n_classes)
               : classify_is_success(&end);
}

uint16_t again_failure_status(const struct exchange *x)
{
    return x->grpc_status > 0 ? (uint16_t)(1000 + x->grpc_status) : x->status;
}

enum again_look again_look_at_head(const struct exchange *x, bool is_end)
{
    const struct wire_retry_policy *p = again_policy(x);
    struct classify_end end;
    bool may_fail_later = false;

    if (p == NULL && !is_profile(x))
        return AGAIN_PASS;
    if (wants_status(x, x->status) || (x->grpc_status >= 0 && wants_grpc(x, (uint32_t)x->grpc_status)))
        return AGAIN_WANTED;
    if (is_profile(x)) {
        end = end_of(x);
        switch (classify_head(&end, x->rule->classes, x->rule->n_classes)) {
        case CLASSIFY_FAILURE:
            return AGAIN_WANTED;
        case CLASSIFY_OPEN:
            may_fail_later = true;
            break;
        case CLASSIFY_SUCCESS:
            break;
        }
    }
    may_fail_later = may_fail_later || (p != NULL && p->grpc_statuses != 0);
    return may_fail_later && x->is_grpc && !is_end && x->grpc_status < 0 ? AGAIN_AFTER_TRAILERS : AGAIN_PASS;
}

bool again_wants_trailers(const struct exchange *x)
{
    return x->grpc_status >= 0 &&
           (wants_grpc(x, (uint32_t)x->grpc_status) || (is_profile(x) && !again_is_success(x)));
}

bool again_is_replayable(const struct exchange *x, const struct attempt_failure *f)
{
    const struct wire_retry_policy *p = again_policy(x);

    if (x->req->is_idempotent || is_profile(x))
        return true;
    if (p == NULL)
        return false;
    if (f->status >= 1000)
        return wants_grpc(x, f->status - 1000u);
    if (f->cause == CAUSE_PER_TRY && p->per_try_ms > 0)
        return true;
    if (f->status != 0)
        return wants_status(x, f->status);
    /* The mesh's own answer in its place would have this status. */
    return wants_status(x, code_info(f->code)->http) || (x->is_grpc && wants_grpc(x, code_info(f->code)->grpc));
}

/* ---- l5d-retry-* ---- */

#define RETRY_FIELDS(X)                                                                        \
    X(HTTP, "l5d-retry-http")                                                                  \
    X(GRPC, "l5d-retry-grpc")                                                                  \
    X(LIMIT, "l5d-retry-limit")                                                                \
    X(TIMEOUT, "l5d-retry-timeout")

enum retry_field {
#define X(name, text) FIELD_OF_##name,
    RETRY_FIELDS(X)
#undef X
        RETRY_FIELD_COUNT
};

static const char *const retry_fields[] = {
#define X(name, text) text,
    RETRY_FIELDS(X)
#undef X
};

static bool read_field(enum retry_field which, slice_t v, struct wire_retry_policy *p)
{
    uint64_t n;

    switch (which) {
    case FIELD_OF_HTTP:
        return retry_parse_statuses(v, p->statuses, &p->n_statuses);
    case FIELD_OF_GRPC:
        return retry_parse_grpcs(v, &p->grpc_statuses);
    case FIELD_OF_LIMIT:
        if (!slice_to_u64(v, &n) || n > UINT8_MAX)
            return false;
        p->limit = n == 0 ? 1 : (uint8_t)n; /* as Linkerd: 0 is as if it were not there */
        return true;
    case FIELD_OF_TIMEOUT:
        return retry_parse_duration(v, &p->per_try_ms);
    case RETRY_FIELD_COUNT:
        break;
    }
    return false;
}

/* What is asked for lies in the front stream's memory. No memory, or one that cannot be read: the rule's policy holds. */
void again_read_asked(struct exchange *x)
{
    struct arena *a = x->fs->arena;
    struct wire_retry_policy *p = NULL;

    for (unsigned i = 0; i < RETRY_FIELD_COUNT; i++) {
        struct field *f = head_find_name(x->req, slice_str(retry_fields[i]));

        if (f == NULL)
            continue;
        if (p == NULL) {
            p = arena_alloc(a, sizeof(*p));
            if (p == NULL || (p->statuses = arena_alloc(a, RETRY_RANGES_MAX * sizeof(*p->statuses))) == NULL)
                return;
            p->limit = 1;
        }
        if (!read_field((enum retry_field)i, f->value, p)) {
            tally_bad_input(x->worker->tallies, "retry-field");
            return;
        }
    }
    x->own_policy = p;
}

/* The rule is known: what was asked for replaces its conditions; its budget, backoff and limits of size hold. */
void again_begin(struct exchange *x)
{
    struct wire_retry_policy *p = x->own_policy;
    const struct wire_retry_policy *rule =
        x->rule->has_retry && x->rule->n_retry > 0 ? &x->rule->retry[0] : NULL;

    if (p == NULL || rule == NULL)
        return;
    p->backoff_min_ms = rule->backoff_min_ms;
    p->backoff_max_ms = rule->backoff_max_ms;
    p->budget_permille = rule->budget_permille;
    p->budget_min_per_s = rule->budget_min_per_s;
    p->budget_ttl_ms = rule->budget_ttl_ms;
    p->body_max = rule->body_max;
    p->hedge_ms = rule->hedge_ms;
    p->hedge_max = rule->hedge_max;
}
