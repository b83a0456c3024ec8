/* weft-retry's own series, weft_retry_decisions_total{service,verdict,reason}, and their way to
 * telemetry. */
#ifndef RETRY_TALLY_H
#define RETRY_TALLY_H

#include "kit/err.h"
#include "kit/slice.h"
#include "retry/verdict.h"
#include "wire/wire.h"

struct tally;

/* At most `max` services have series of their own; what comes after them is counted as
 * service="other". */
MUST_USE err_t tally_new(size_t max, struct tally **out);
void tally_free(struct tally **t);

void tally_count(struct tally *t, slice_t service, enum verdict v);

/* Fills `msg` (its series live in `arena`) with the part of what has changed since it was last
 * marked as sent, at most 512 series. False: nothing to send, or no memory. */
bool tally_collect(struct tally *t, bool all, struct arena *arena, struct wire_series *msg);

/* The last collected part has left. */
void tally_mark_sent(struct tally *t);

/* Everything is to be sent (again). */
void tally_mark_all(struct tally *t);

#endif
