/* What the mesh decided about traffic (attempts not made again, hedges, mirrors, faults, rate limits,
 * ejections), summed per source, service, kind and reason until it is written. Bounded as edges
 * are: what comes after DECISIONS_MAX different sums is added to one named "(other)". */
#ifndef COLLECTOR_DECISIONS_H
#define COLLECTOR_DECISIONS_H

#include "broker/collector/parse.h"
#include "store/telemetry.h"

#define DECISIONS_MAX 20000u

struct decisions;

/* Whether a family counts decisions. */
bool decisions_use(slice_t family);

MUST_USE err_t decisions_new(struct decisions **out);
void decisions_free(struct decisions **d);

/* Adds a counter's change. Series of other families, histograms and series that do not say which
 * service they are about are left out. */
void decisions_add(struct decisions *d, const struct feed_metrics *m,
                   const struct feed_series *s, uint64_t delta);

/* Hands every waiting sum to the store, within its transaction. Stops at the first error. */
MUST_USE err_t decisions_write(struct decisions *d, struct telemetry *t, int64_t at_ms);

/* They were committed. */
void decisions_clear(struct decisions *d);

#endif
