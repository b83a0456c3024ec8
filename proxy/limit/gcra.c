#include "proxy/limit/gcra.h"

/* When the next event would be due. More than a second ahead is no state of ours (a damaged
 * cell, a clock of another boot): the most that a full bucket can say. */
static uint64_t due(uint64_t tat, uint64_t now)
{
    if (tat <= now)
        return now;
    return tat - now > GCRA_SECOND ? now + GCRA_SECOND : tat;
}

static bool fits(uint64_t next, uint64_t now, uint64_t *wait_ns)
{
    if (next - now <= GCRA_SECOND)
        return true;
    *wait_ns = next - now - GCRA_SECOND;
    return false;
}

bool gcra_take(_Atomic uint64_t *tat, uint64_t interval_ns, uint64_t now, uint64_t *wait_ns)
{
    uint64_t old = atomic_load_explicit(tat, memory_order_relaxed);

    for (;;) {
        uint64_t next = due(old, now) + interval_ns;

        if (!fits(next, now, wait_ns))
            return false;
        if (atomic_compare_exchange_weak_explicit(tat, &old, next, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    }
}

bool gcra_would_take(_Atomic uint64_t *tat, uint64_t interval_ns, uint64_t now,
                     uint64_t *wait_ns)
{
    return fits(due(atomic_load_explicit(tat, memory_order_relaxed), now) + interval_ns, now,
                wait_ns);
}
