/* The decision on one failed attempt. Everything is computed from the question and the budget;
 * nothing is remembered about the question, so that nothing is lost when the process dies. */
#ifndef RETRY_VERDICT_H
#define RETRY_VERDICT_H

#include "retry/budget.h"
#include "wire/wire.h"

#include <stdint.h>

enum verdict {
#define VERDICT(name, meaning) VERDICT_##name,
#include "retry/tbl/verdicts.h"
#undef VERDICT
    VERDICTS
};

/* "GO", "BUDGET", ...: stable. */
const char *verdict_name(enum verdict v);

/* Decides. Rules, in order:
 *   delivered = no        may be tried again whatever the method; the limit is the policy's or 2
 *   delivered = yes or unknown: only what is replayable (else DELIVERED), up to the policy's limit
 *                         (0: NOT_RETRYABLE). Without a policy only if the attempt was lost: no
 *                         answer of the application, no limit of time (else NOT_RETRYABLE); the
 *                         limit is 2 then
 *   a hedge (cause 6)     only what is replayable, if the policy has hedges; it waits for nothing
 *   LIMIT                 that many further attempts were made already
 *   DEADLINE              the wait (exponential from the policy's minimum, capped, full jitter)
 *                         would not end before the exchange does
 *   PRESSURE              the server's side has asked for no further attempts a moment ago
 *   BUDGET                the service's budget is empty
 * `unit` in [0, 1) is the jitter's random number. With GO *after_ms is the wait; else 0. */
enum verdict verdict_decide(struct budgets *budgets, const struct wire_retry_ask *ask,
                            uint64_t now_ms, double unit, uint32_t *after_ms);

#endif
