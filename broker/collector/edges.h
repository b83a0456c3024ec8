/* What traffic a series' change stands for: which edge (source workload -> service), and what
 * is added to it. Sums of changes wait here until they are written. Bounded: what comes after
 * EDGES_MAX different edges is added to one edge named "(other)". */
#ifndef COLLECTOR_EDGES_H
#define COLLECTOR_EDGES_H

#include "broker/collector/parse.h"
#include "store/telemetry.h"

#define EDGES_MAX 20000u

struct edges;

/* Whether a family says anything about edges; others need no last value either. */
bool edges_use(slice_t family);

MUST_USE err_t edges_new(struct edges **out);
void edges_free(struct edges **e);

/* Adds a series' change: `delta` has one number for a counter; for a histogram PARSE_BUCKETS
 * numbers, the sum in microseconds and PARSE_FINES numbers. `m` says whose series it is. */
void edges_add(struct edges *e, const struct feed_metrics *m, const struct feed_series *s,
               const uint64_t *delta);

/* Hands every waiting edge to the store, within its transaction. Stops at the first error. */
MUST_USE err_t edges_write(struct edges *e, struct telemetry *t, int64_t at_ms);

/* They were committed. */
void edges_clear(struct edges *e);
size_t edges_count(const struct edges *e);

/* SA and namespace of an identity SA.NS.serviceaccount.identity.... False: it is none. */
bool edges_parse_identity(slice_t identity, slice_t *service_account, slice_t *ns);

/* The service that the pod of `m` serves at a port (digits), else its workload. Lent by m. */
slice_t edges_service_at(const struct feed_metrics *m, slice_t port);

#endif
