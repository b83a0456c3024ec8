/* The golden signals of services over a span of time, merged from the 10 s rollups
 * (mesh_golden).
 *
 * What the callers saw counts: the outbound rows. Every attempt is a request there, so a
 * service that fails now and then shows its own success rate, and who calls it (with retries) a
 * better one. A service that only unmeshed clients call has inbound rows alone; those are taken
 * then. Addresses that are no service are left out; `weft edges` has them. Quantiles come from
 * the summed fine histogram (four buckets per octave): linear within a bucket, so within an
 * eighth of the value. mtls_share is of the requests; of a service without requests, of the
 * connections.
 */
#ifndef CLI_GOLDEN_H
#define CLI_GOLDEN_H

#include "cli/sheet.h"
#include "store/telemetry.h"

#include <stdint.h>

/* The q-quantile (0..1) of counts[TELEMETRY_FINES], in ms; below 0 without a sample. In the
 * open bucket its lower bound. */
double golden_quantile(const uint64_t counts[TELEMETRY_FINES], double q);

/* Fills the sheet with one row per service: namespace, name, success_rate, rps, p50_ms, p95_ms,
 * p99_ms, mtls_share, tries, retries, not_retried (how many and the main reason), ejected,
 * requests, mesh_errors, connections, decisions (all kinds of mesh_decisions with their reasons;
 * not a column). A service that had decisions only has a row, too. window_ms back from now (and
 * the rest of the 10 s that the window begins in); `ns` NULL: all namespaces. rps is over the
 * time since the second rollup that counts, if that is long enough, else since the first. */
MUST_USE err_t golden_read(struct sheet *out, const char *state, const char *ns,
                           uint64_t window_ms, struct trouble *why);

#endif
