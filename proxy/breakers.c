#include "proxy/breakers.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "proxy/balance/balance.h"
#include "proxy/worker.h"

#include <stdio.h>

/* ---- events ---- */

static bool may_send(struct breakers *b)
{
    uint64_t now = clock_now_ms();
    uint64_t from = b->spent_until_ms > now ? b->spent_until_ms : now;

    if (from - now > (uint64_t)BREAKERS_EVENT_MS * (BREAKERS_EVENTS_BURST - 1)) {
        b->left_out++;
        return false;
    }
    b->spent_until_ms = from + BREAKERS_EVENT_MS;
    return true;
}

static void print_message(const struct breaker_event *e, uint64_t left_out, char out[400])
{
    const char *name = e->endpoint->pod[0] != 0 ? e->endpoint->pod : "-";
    int n;

    if (e->news == BREAKER_NEWS_EJECTED)
        n = snprintf(out, 400,
                     "endpoint=%s pod=%.128s reason=%s for_ms=%u row=%u window=%u/%u ready=%zu "
                     "of=%zu",
                     e->endpoint->text, name, breaker_reason_name(e->reason), e->out_ms, e->row,
                     e->good, e->all, e->backend->n_ready, e->backend->n_set);
    else
        n = snprintf(out, 400, "endpoint=%s pod=%.128s after=%s was_out_ms=%u ready=%zu of=%zu",
                     e->endpoint->text, name, breaker_reason_name(e->reason), e->out_ms,
                     e->backend->n_ready, e->backend->n_set);
    if (left_out > 0 && n > 0 && n < 360)
        (void)snprintf(out + n, 400 - (size_t)n, " not_told=%llu",
                       (unsigned long long)left_out);
}

static void send_event(struct worker *w, const struct breaker_event *e)
{
    char text[400];
    struct wire_event m = {.at_ms = (int64_t)clock_wall_ms(),
                           .kind = e->news == BREAKER_NEWS_EJECTED
                                       ? SLICE_LIT("ENDPOINT_EJECTED")
                                       : SLICE_LIT("ENDPOINT_RETURNED"),
                           .object = slice_str(e->backend->key)};

    if (!may_send(&w->breakers))
        return;
    print_message(e, w->breakers.left_out, text);
    m.message = slice_str(text);
    w->breakers.left_out = 0;
    log_info(e->news == BREAKER_NEWS_EJECTED ? "endpoint ejected" : "endpoint returned",
             "backend=%s %s", e->backend->key, text);
    if (w->telemetry != NULL && WIRE_SEND(w->telemetry, SLICE_LIT(""), event, &m) != OK)
        w->breakers.left_out++;
}

void breakers_on_event(void *worker, const struct breaker_event *e)
{
    struct worker *w = worker;

    tally_breaker(w->tallies, e->news, e->backend->key, breaker_reason_name(e->reason));
    if (e->news != BREAKER_NEWS_KEPT)
        send_event(w, e);
}

/* ---- gauges ---- */

static const char *const states[BACKEND_STATE_COUNT] = {
#define X(name) #name,
    BACKEND_STATES(X)
#undef X
};

static void show(struct worker *w, struct backend *be, const uint32_t n[BACKEND_STATE_COUNT])
{
    for (unsigned i = 0; i < BACKEND_STATE_COUNT; i++) {
        if (n[i] != be->shown[i])
            tally_endpoints(w->tallies, be->key, states[i],
                            (int64_t)n[i] - (int64_t)be->shown[i]);
        be->shown[i] = n[i];
    }
}

static void each_backend(void *arg, struct backend *be)
{
    uint32_t n[BACKEND_STATE_COUNT];

    if (be->is_single)
        return;
    backend_count(be, n);
    show(arg, be, n);
}

void breakers_on_backend_free(void *worker, struct backend *be)
{
    static const uint32_t none[BACKEND_STATE_COUNT];

    show(worker, be, none);
}

void breakers_tick(struct worker *w)
{
    if (w->balance != NULL) /* not when the worker could not be made */
        balance_each_backend(w->balance, each_backend, w);
}
