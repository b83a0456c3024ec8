/* What is refused, delayed or failed on purpose: rate limits of the application's port
 * (inbound), and the faults that a rule injects (outbound). */
#include "proxy/exchange/exchange_priv.h"

#include "kit/clock.h"
#include "kit/random.h"
#include "proxy/http/stream.h"
#include "proxy/limit/limit.h"

#include <stdio.h>

#define PPM 1000000u

/* ---- rate limits ---- */

bool rate_admit(struct exchange *x)
{
    struct front *f = x->front;
    struct limit_refusal why;
    char text[160];

    if (limit_admit(f->limit, &f->limit_client, slice_str(f->client_id), clock_now_us() * 1000,
                    &why))
        return true;
    tally_rate_limited(x->worker->tallies, why.policy, limit_scope_name(why.scope), f->port);
    (void)snprintf(text, sizeof(text), "%.*s: %s %u per second%s",
                   why.policy.n > 90 ? 90 : (int)why.policy.n, (const char *)why.policy.p,
                   limit_scope_name(why.scope), why.per_s,
                   why.scope == LIMIT_TOTAL ? ""
                   : f->client_id != NULL   ? " for this client"
                                            : " for all without identity");
    exchange_answer_limited(x, CODE_RATE_LIMITED, why.retry_after_s, slice_str(text));
    return false;
}

/* ---- faults ---- */

static bool is_hit(const struct wire_filter *f)
{
    return f->share_ppm == 0 || f->share_ppm >= PPM || random_below(PPM) < f->share_ppm;
}

/* The status that a gRPC client would make of an HTTP status ("HTTP to gRPC Status Code
 * Mapping").
 */
static uint8_t grpc_of_http(uint16_t status)
{
    switch (status) {
    case 400:
        return 13;
    case 401:
        return 16;
    case 403:
        return 7;
    case 404:
        return 12;
    case 429:
    case 502:
    case 503:
    case 504:
        return 14;
    default:
        return 2;
    }
}

static void print_rule(const struct exchange *x, const char *what, char out[160])
{
    (void)snprintf(out, 160, "%.*s rule %u: %s",
                   x->rule->route.n > 100 ? 100 : (int)x->rule->route.n,
                   (const char *)x->rule->route.p, x->rule->index, what);
}

bool fault_fail(struct exchange *x, const struct wire_filter *f)
{
    uint8_t grpc = f->grpc_status != 0 ? f->grpc_status : grpc_of_http(f->status);
    char text[160];

    if (!is_hit(f))
        return false;
    tally_fault(x->worker->tallies, x->parent, x->rule->route, "fail");
    print_rule(x, "failure injected", text);
    exchange_answer_injected(x, f->status, grpc, slice_str(text));
    return true;
}

bool fault_delay(struct exchange *x, const struct wire_filter *f)
{
    uint64_t ms;

    if (!is_hit(f))
        return false;
    ms = (uint64_t)f->delay_ms + (f->jitter_ms > 0 ? random_below(f->jitter_ms) : 0);
    if (ms == 0)
        return false;
    tally_fault(x->worker->tallies, x->parent, x->rule->route, "delay");
    x->wait_at = clock_now_ms() + ms;
    limits_arm(x);
    return true;
}
