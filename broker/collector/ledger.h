/* From cumulative values to rollups, so that every count is written once.
 *
 * For each (pod, incarnation, series) the last cumulative value is kept, in memory and in
 * telemetry.db. A message's difference to it is added to an edge; edges and last values are
 * written in one transaction. Hence:
 *
 *   a lost message           is contained in the next one's difference
 *   the collector's restart  begins with the last values of the last commit; what came after
 *                            them is in the next message's difference
 *   a pod's restart          has another incarnation: its values begin at 0. Late messages of
 *                            the former incarnation are ignored
 *   a series' restart        (a process without a table in shared memory): a value that fell
 *                            begins at 0
 *   a failed commit          everything stays here and is tried again
 *
 * A series that was never seen counts with its whole value, in the bucket of the moment.
 */
#ifndef COLLECTOR_LEDGER_H
#define COLLECTOR_LEDGER_H

#include "broker/collector/parse.h"
#include "kit/err.h"
#include "store/telemetry.h"

#include <stdint.h>

struct ledger;

/* Reads the last values back from `t` (lent). `max_series` bounds memory: a series above it is
 * not counted (no_room). */
MUST_USE err_t ledger_new(struct telemetry *t, size_t max_series, struct ledger **out);
void ledger_free(struct ledger **l);

/* Takes a message in. Series that do not parse end the message (the rest is not looked at) with
 * an error. */
MUST_USE err_t ledger_take(struct ledger *l, const struct feed_metrics *m, int64_t wall_ms);

/* Keeps an event for the next flush; at most 1000, further ones are dropped and counted. */
void ledger_event(struct ledger *l, const struct feed_event *e, int64_t wall_ms);

/* Writes everything in one transaction. Nothing waiting: nothing is written. */
MUST_USE err_t ledger_flush(struct ledger *l);

/* Forgets pods that have been silent since before wall_ms. */
void ledger_forget(struct ledger *l, int64_t before_wall_ms);

struct ledger_counters {
    uint64_t messages, series, resets, stale, no_room, events, events_dropped, flushes,
        failed_flushes;
    size_t pods, known_series;
};
void ledger_count(const struct ledger *l, struct ledger_counters *out);

#endif
