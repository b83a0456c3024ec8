/* Rules of a verdict, in the order of verdict.h. */
#include "retry/verdict.h"

#define DEFAULT_LIMIT          2u
#define DEFAULT_BACKOFF_MIN_MS 25u
#define DEFAULT_BACKOFF_MAX_MS 250u
#define DEFAULT_PERMILLE       200u
#define DEFAULT_MIN_PER_S      10u
#define DEFAULT_TTL_MS         10000u
#define HEDGE_LIMIT            16u /* attempts of one request, hedges included */
#define NO_DEADLINE            0xffffffffu

enum delivered { DELIVERED_NO = 0, DELIVERED_YES = 1, DELIVERED_UNKNOWN = 2 };
/* On the wire: the attempt was lost; it only is late. */
enum cause { CAUSE_RESET = 1, CAUSE_REFUSED = 4, CAUSE_HEDGE = 6 };

const char *verdict_name(enum verdict v)
{
    static const char *const names[] = {
#define VERDICT(name, meaning) #name,
#include "retry/tbl/verdicts.h"
#undef VERDICT
    };

    BUG_ON((unsigned)v >= VERDICTS);
    return names[v];
}

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value != 0 ? value : fallback;
}

/* Whether another attempt could be right at all; *limit is how many further ones. */
static enum verdict check_permission(const struct wire_retry_ask *ask,
                                     const struct wire_retry_policy *policy, uint32_t *limit)
{
    if (ask->attempt == 0 || ask->delivered > DELIVERED_UNKNOWN)
        return VERDICT_NOT_RETRYABLE; /* not a question that can be answered */
    if (ask->cause == CAUSE_HEDGE) {
        *limit = HEDGE_LIMIT;
        return policy->hedge_ms == 0 ? VERDICT_NOT_RETRYABLE
               : ask->is_replayable  ? VERDICT_GO
                                     : VERDICT_DELIVERED;
    }
    if (ask->delivered == DELIVERED_NO) {
        *limit = or_default(policy->limit, DEFAULT_LIMIT);
        return VERDICT_GO;
    }
    if (ask->n_policy > 0 && policy->limit == 0)
        return VERDICT_NOT_RETRYABLE; /* the route says: none */
    /* The route says nothing: what was lost is made again, what was answered or late is not. */
    if (ask->n_policy == 0 && ask->cause != CAUSE_RESET && ask->cause != CAUSE_REFUSED)
        return VERDICT_NOT_RETRYABLE;
    if (!ask->is_replayable)
        return VERDICT_DELIVERED;
    *limit = or_default(policy->limit, DEFAULT_LIMIT);
    return VERDICT_GO;
}

/* Full jitter: anything between nothing and min * 2^(attempt - 1), at most max. */
static uint32_t backoff(const struct wire_retry_ask *ask,
                        const struct wire_retry_policy *policy, double unit)
{
    uint64_t low = or_default(policy->backoff_min_ms, DEFAULT_BACKOFF_MIN_MS);
    uint64_t high = or_default(policy->backoff_max_ms, DEFAULT_BACKOFF_MAX_MS);
    unsigned doublings = ask->attempt - 1u;
    uint64_t ceiling = doublings >= 32 ? high : low << doublings;

    if (ceiling > high)
        ceiling = high;
    return (uint32_t)(unit * (double)(ceiling + 1));
}

enum verdict verdict_decide(struct budgets *budgets, const struct wire_retry_ask *ask,
                            uint64_t now_ms, double unit, uint32_t *after_ms)
{
    static const struct wire_retry_policy no_policy;
    const struct wire_retry_policy *policy = ask->n_policy > 0 ? &ask->policy[0] : &no_policy;
    const struct budget_terms terms = {
        .permille = or_default(policy->budget_permille, DEFAULT_PERMILLE),
        .min_per_s = or_default(policy->budget_min_per_s, DEFAULT_MIN_PER_S),
        .ttl_ms = or_default(policy->budget_ttl_ms, DEFAULT_TTL_MS),
    };
    uint32_t limit = 0, wait_ms;
    enum verdict v = check_permission(ask, policy, &limit);

    *after_ms = 0;
    if (v != VERDICT_GO)
        return v;
    if (ask->attempt > limit)
        return VERDICT_LIMIT;
    wait_ms = ask->cause == CAUSE_HEDGE ? 0 : backoff(ask, policy, unit);
    if (ask->left_ms != NO_DEADLINE && wait_ms >= ask->left_ms)
        return VERDICT_DEADLINE;
    if (budgets_is_held(budgets, ask->service, now_ms))
        return VERDICT_PRESSURE;
    if (!budgets_take(budgets, ask->service, now_ms, &terms))
        return VERDICT_BUDGET;
    *after_ms = wait_ms;
    return VERDICT_GO;
}
