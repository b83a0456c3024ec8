/* The golden signals of services over a span of time, merged from the 10 s rollups
 * (mesh_golden).
 *
 * What the callers saw counts: the outbound rows. Every attempt is a request there, so a
 * service that fails now and then shows its own success rate, and who calls it (with retries) a
 * better one. A service that only unmeshed clients call has inbound rows alone; those are taken
 * then. Addresses that are no service (the TCP connections between pods) are left out; `weft
 * edges` has them. Quantiles come from the summed histogram: linear within a bucket, so as
 * exact as the bucket is wide.
 */
#ifndef CLI_GOLDEN_H
#define CLI_GOLDEN_H

#include "cli/sheet.h"

#include <stdint.h>

#define GOLDEN_BUCKETS 26

/* Upper bounds of the buckets in ms; the last one is open. */
extern const double golden_bounds_ms[GOLDEN_BUCKETS - 1];

/* The q-quantile (0..1) of counts[GOLDEN_BUCKETS], in ms; below 0 without a sample. In the open
 * bucket its lower bound. */
double golden_quantile(const uint64_t counts[GOLDEN_BUCKETS], double q);

/* Fills the sheet with one row per service (and direction, if `both`): namespace, name,
 * success_rate, rps, p50_ms, p95_ms, p99_ms, mtls_share, retries, requests, mesh_errors,
 * connections. window_ms back from now; `ns` NULL: all namespaces. rps is over the window or,
 * if shorter, since the first rollup in it. */
MUST_USE err_t golden_read(struct sheet *out, const char *state, const char *ns,
                           uint64_t window_ms, struct trouble *why);

#endif
