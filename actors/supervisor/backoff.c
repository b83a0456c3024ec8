#include "supervisor/backoff.h"

uint64_t backoff_next(struct backoff *b, uint64_t lived_ms, double chance)
{
    uint64_t ms = BACKOFF_MOST_MS;

    if (lived_ms > BACKOFF_LIVED_MS) {
        b->failures = 0;
        return 0;
    }
    if (b->failures < 12) { /* 10 ms << 12 is above the ceiling */
        ms = (uint64_t)BACKOFF_FIRST_MS << b->failures;
        b->failures++;
    }
    if (ms > BACKOFF_MOST_MS)
        ms = BACKOFF_MOST_MS;
    ms = (uint64_t)((double)ms * (0.75 + chance / 2));
    return ms < BACKOFF_MOST_MS ? ms : BACKOFF_MOST_MS;
}
