/* What an answer says about the load of who gave it: which statuses are a plea for less, and
 * for how long. Pure functions. */
#ifndef PROXY_BALANCE_PENALTY_H
#define PROXY_BALANCE_PENALTY_H

#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

/* Retry-After (RFC 9110 10.2.3): seconds, or a date (IMF-fixdate) against `wall_ms`. In ms, at
 * most UINT32_MAX; 0: now, in the past, or not valid. */
uint32_t penalty_retry_after(slice_t value, uint64_t wall_ms);
/* grpc-retry-pushback-ms: milliseconds; 0: negative ("do not retry") or not valid. */
uint32_t penalty_pushback(slice_t value);

/* A failure that counts as a slow answer: 429 and 5xx, gRPC RESOURCE_EXHAUSTED, UNAVAILABLE,
 * UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, DATA_LOSS. grpc_status: -1 none. */
bool penalty_is_due(uint16_t status, int grpc_status);
/* Whether the answer's Retry-After is meant for us: 429, 503, gRPC RESOURCE_EXHAUSTED and
 * UNAVAILABLE. */
bool penalty_may_ask(uint16_t status, int grpc_status);

#endif
