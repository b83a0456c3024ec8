#include "tls/renewal.h"

#define LOOK_AGAIN_MS (60 * 60 * 1000)

struct backoff {
    uint64_t first_ms, max_ms;
};
static const struct backoff joining = {200, 5000}, renewing = {1000, 60000};

static bool is_empty(const struct renewal *r)
{
    return r->not_after_ms == 0;
}

/* Halves of numbers that a certificate holds: no overflow whatever they are. */
static int64_t due_at(const struct renewal *r)
{
    return r->not_before_ms + (r->not_after_ms - r->not_before_ms) / 2;
}

bool renewal_is_due(const struct renewal *r, int64_t wall_ms)
{
    return is_empty(r) || wall_ms >= due_at(r);
}

bool renewal_is_alarming(const struct renewal *r, int64_t wall_ms)
{
    return is_empty(r) || wall_ms >= r->not_after_ms - (r->not_after_ms - r->not_before_ms) / 4;
}

static uint64_t backoff_ms(const struct renewal *r, double unit)
{
    const struct backoff *b = is_empty(r) ? &joining : &renewing;
    uint64_t ms = b->first_ms;

    for (unsigned i = 1; i < r->failures && ms < b->max_ms; i++)
        ms *= 2;
    if (ms > b->max_ms)
        ms = b->max_ms;
    return ms - ms / 4 + (uint64_t)((double)(ms / 2) * unit);
}

uint64_t renewal_wait_ms(const struct renewal *r, int64_t wall_ms, double unit)
{
    int64_t left;

    if (renewal_is_due(r, wall_ms))
        return r->failures == 0 ? 0 : backoff_ms(r, unit);
    left = due_at(r) - wall_ms;
    return left < LOOK_AGAIN_MS ? (uint64_t)left : LOOK_AGAIN_MS;
}
