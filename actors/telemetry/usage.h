/* Memory and CPU time of the pod's processes, from /proc/PID/stat (which asks no right to trace
 * them). */
#ifndef TELEMETRY_USAGE_H
#define TELEMETRY_USAGE_H

#include "kit/slice.h"
#include "telemetry/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Reads /proc for every process of the table that has a pid. What cannot be read keeps its last
 * value. */
void usage_read(struct status *s);

/* The text of a stat file. False: not of the form. For tests. */
bool usage_parse(slice_t text, uint64_t page_kib, uint64_t ticks_per_s, uint64_t *rss_kib,
                 uint64_t *cpu_ms);

/* Sums over the table. */
uint64_t usage_rss_kib(const struct status *s);
uint64_t usage_cpu_ms(const struct status *s);

#endif
