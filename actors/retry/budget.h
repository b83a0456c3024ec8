/* Retry budgets: how many retries a service is allowed, in proportion to its requests.
 *
 * A budget is a ring of one-second cells (requests, retries) over the last BUDGET_TTL_MAX_S
 * seconds. A retry is granted while, within the last `ttl`,
 *
 *     retries + 1  <=  ratio * requests  +  minimum_per_second * ttl
 *
 * This is Finagle's and Linkerd's token bucket (deposits expire after ttl) without a token to
 * lose. The parameters come with every question, so that two routes of one service may differ.
 *
 * The set is bounded: when it is full, the budget that was used longest ago is forgotten (a
 * forgotten budget starts anew, with its minimum).
 */
#ifndef RETRY_BUDGET_H
#define RETRY_BUDGET_H

#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define BUDGET_TTL_MAX_S 60u
#define BUDGET_NAME_MAX  320u

struct budget_terms {
    uint32_t permille;  /* retries per 1000 requests */
    uint32_t min_per_s; /* retries per second always allowed */
    uint32_t ttl_ms;    /* window; rounded up to seconds, at most BUDGET_TTL_MAX_S */
};

struct budgets;

/* At most `max` services (> 0). */
MUST_USE err_t budgets_new(size_t max, struct budgets **out);
void budgets_free(struct budgets **b);

/* Counts first attempts of a service. Names longer than BUDGET_NAME_MAX are ignored. */
void budgets_feed(struct budgets *b, slice_t service, uint64_t now_ms, uint32_t requests);

/* The server's side takes no further attempts of this service for `ms` from now (at most BUDGET_HOLD_MAX_MS; a hold is
 * never made shorter). */
#define BUDGET_HOLD_MAX_MS 10000u
void budgets_hold(struct budgets *b, slice_t service, uint64_t now_ms, uint32_t ms);
bool budgets_is_held(struct budgets *b, slice_t service, uint64_t now_ms);

/* Takes one retry out of the budget. False: it is empty (nothing was taken). */
bool budgets_take(struct budgets *b, slice_t service, uint64_t now_ms,
                  const struct budget_terms *terms);

size_t budgets_count(const struct budgets *b);

#endif
