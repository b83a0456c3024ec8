/* How many processors this pod may use: what WEFT_WORKERS=0 (auto) means. */
#ifndef SUPERVISOR_CPUS_H
#define SUPERVISOR_CPUS_H

#include "kit/slice.h"

/* The smallest CPU quota (cpu.max of cgroup v2, cpu.cfs_quota_us of v1) of the process's control group and its parents,
 * rounded up, at most the processors it may run on, at least 1. `root` is "" or a directory that stands for / (tests). */
unsigned cpus_allowed(const char *root);

/* Pure parts. Both: processors in thousandths, 0 when there is no quota or the text is none. */
unsigned cpus_of_max(slice_t cpu_max); /* "QUOTA PERIOD" or "max PERIOD" */
unsigned cpus_of_quota(slice_t quota_us, slice_t period_us);

#endif
