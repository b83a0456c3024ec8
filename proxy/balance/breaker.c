#include "proxy/balance/breaker.h"

#include <string.h>

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value != 0 ? value : otherwise;
}

void breaker_conf_read(const struct wire_breaker *w, uint32_t retry_after_max_ms,
                       struct breaker_conf *out)
{
    *out = (struct breaker_conf){
        .consecutive = w->consecutive,
        .min_penalty_ms = or_default(w->min_penalty_ms, BREAKER_MIN_PENALTY_MS),
        .max_penalty_ms = or_default(w->max_penalty_ms, BREAKER_MAX_PENALTY_MS),
        .jitter_permille = w->jitter_permille,
        .success_permille = w->success_permille > 1000 ? 1000 : w->success_permille,
        .window_ms = or_default(w->window_ms, BREAKER_WINDOW_MS),
        .min_requests = or_default(w->min_requests, BREAKER_MIN_REQUESTS),
        .honours_retry_after = w->honours_retry_after,
        .retry_after_max_ms = or_default(retry_after_max_ms, BREAKER_RETRY_AFTER_MAX_MS),
        .max_ejected_permille =
            w->max_ejected_permille > 1000 ? 1000 : w->max_ejected_permille};
    if (out->max_penalty_ms < out->min_penalty_ms)
        out->max_penalty_ms = out->min_penalty_ms;
    if (out->window_ms < BREAKER_BUCKETS)
        out->window_ms = BREAKER_BUCKETS;
}

size_t breaker_may_eject(const struct breaker_conf *conf, size_t n)
{
    return n * conf->max_ejected_permille / 1000;
}

const char *breaker_reason_name(enum breaker_reason r)
{
    static const char *const names[BREAKER_REASON_COUNT] = {
#define X(name) #name,
        BREAKER_REASONS(X)
#undef X
    };

    return names[r];
}

static void forget_results(struct breaker *b)
{
    b->row = 0;
    memset(b->buckets, 0, sizeof(b->buckets));
}

static void breaker_enter(struct breaker *b, enum breaker_state next)
{
    b->state = next;
    b->has_probe = false;
    if (next == BREAKER_CLOSED) {
        b->trips = 0;
        forget_results(b);
    }
}

/* ---- the window ---- */

static uint64_t bucket_of(const struct breaker_conf *conf, uint64_t now_us)
{
    return now_us / ((uint64_t)conf->window_ms * 1000 / BREAKER_BUCKETS);
}

/* Empties what has left the window; a change of its length makes all of it old or nothing. */
static void turn_buckets(struct breaker *b, uint64_t bucket)
{
    uint64_t n = bucket >= b->bucket ? bucket - b->bucket : BREAKER_BUCKETS;

    for (uint64_t i = 1; i <= n && i <= BREAKER_BUCKETS; i++)
        memset(&b->buckets[(b->bucket + i) % BREAKER_BUCKETS], 0, sizeof(b->buckets[0]));
    if (n >= BREAKER_BUCKETS)
        memset(b->buckets, 0, sizeof(b->buckets));
    b->bucket = bucket;
}

void breaker_window(const struct breaker *b, const struct breaker_conf *conf, uint64_t now_us,
                    uint32_t *all, uint32_t *good)
{
    struct breaker copy = *b;

    turn_buckets(&copy, bucket_of(conf, now_us));
    *all = *good = 0;
    for (unsigned i = 0; i < BREAKER_BUCKETS; i++) {
        *all += copy.buckets[i].all;
        *good += copy.buckets[i].good;
    }
}

static bool is_rate_low(const struct breaker *b, const struct breaker_conf *conf)
{
    uint64_t all = 0, good = 0;

    for (unsigned i = 0; i < BREAKER_BUCKETS; i++) {
        all += b->buckets[i].all;
        good += b->buckets[i].good;
    }
    return all >= conf->min_requests && good * 1000 < all * conf->success_permille;
}

/* ---- results ---- */

static enum breaker_verdict trip(struct breaker *b, enum breaker_reason why)
{
    b->reason = why;
    return BREAKER_TRIP;
}

static enum breaker_verdict note_closed(struct breaker *b, const struct breaker_conf *conf,
                                        enum breaker_result result, uint64_t now_us)
{
    uint64_t bucket = bucket_of(conf, now_us);

    if (bucket != b->bucket)
        turn_buckets(b, bucket);
    b->buckets[bucket % BREAKER_BUCKETS].all++;
    if (result == BREAKER_SUCCESS) {
        b->buckets[bucket % BREAKER_BUCKETS].good++;
        b->row = 0;
    } else if (result == BREAKER_FAILURE) {
        b->row++;
    }
    if (conf->consecutive > 0 && b->row >= conf->consecutive)
        return trip(b, BREAKER_BY_CONSECUTIVE);
    if (conf->success_permille > 0 && result != BREAKER_SUCCESS && is_rate_low(b, conf))
        return trip(b, BREAKER_BY_SUCCESS_RATE);
    return BREAKER_STAY;
}

enum breaker_verdict breaker_note(struct breaker *b, const struct breaker_conf *conf,
                                  enum breaker_result result, uint64_t sent_us, uint64_t now_us)
{
    if (sent_us < b->since_us)
        return BREAKER_STAY;
    switch (b->state) {
    case BREAKER_CLOSED:
        return note_closed(b, conf, result, now_us);
    case BREAKER_OPEN:
        break;
    case BREAKER_PROBATION:
        if (!b->has_probe)
            break;
        if (result != BREAKER_SUCCESS)
            return trip(b, BREAKER_BY_PROBE_FAILED);
        breaker_enter(b, BREAKER_CLOSED);
        return BREAKER_RETURN;
    }
    return BREAKER_STAY;
}

uint32_t breaker_open(struct breaker *b, const struct breaker_conf *conf,
                      uint32_t retry_after_ms, double unit, uint64_t now_us)
{
    uint64_t ms = conf->min_penalty_ms;

    for (uint32_t i = 0; i < b->trips && ms < conf->max_penalty_ms; i++)
        ms *= 2;
    if (ms > conf->max_penalty_ms)
        ms = conf->max_penalty_ms;
    ms += (uint64_t)((double)ms * (double)conf->jitter_permille / 1000.0 * unit);
    if (conf->honours_retry_after) {
        uint32_t asked = retry_after_ms < conf->retry_after_max_ms ? retry_after_ms
                                                                   : conf->retry_after_max_ms;

        ms = ms < asked ? asked : ms;
    }
    b->trips++;
    b->out_ms = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
    b->since_us = now_us;
    breaker_enter(b, BREAKER_OPEN);
    return b->out_ms;
}

void breaker_keep(struct breaker *b)
{
    forget_results(b);
}

void breaker_expire(struct breaker *b)
{
    if (b->state != BREAKER_CLOSED)
        breaker_enter(b, BREAKER_PROBATION);
}

void breaker_probe(struct breaker *b, uint64_t now_us)
{
    b->has_probe = true;
    b->since_us = now_us;
}

uint32_t breaker_probe_ms(const struct breaker *b, const struct breaker_conf *conf)
{
    return b->out_ms > conf->min_penalty_ms ? b->out_ms : conf->min_penalty_ms;
}
