/* How long a process that ended waits for its next start. */
#ifndef SUPERVISOR_BACKOFF_H
#define SUPERVISOR_BACKOFF_H

#include <stdint.h>

#define BACKOFF_LIVED_MS 10000 /* who lived longer starts again at once, with a clean record */
#define BACKOFF_FIRST_MS 10
#define BACKOFF_MOST_MS  30000

struct backoff {
    unsigned failures; /* short lives in a row */
};

/* The delay in milliseconds after a life of lived_ms: 0, or 10 ms doubling to 30 s, spread by a quarter
 * to both sides. `chance` is from [0, 1). */
uint64_t backoff_next(struct backoff *b, uint64_t lived_ms, double chance);

#endif
