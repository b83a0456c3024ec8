/* What the exchange and the balance tell each other: by what key an endpoint is chosen, and how a
 * request went there. */
#include "proxy/exchange/exchange_priv.h"

#include "kit/clock.h"
#include "model/classify.h"
#include "model/ring.h"
#include "model/route.h"
#include "proxy/balance/penalty.h"
#include "proxy/http/stream.h"

/* ---- the key of consistent hashing ---- */

static bool find_field(const struct head *h, slice_t name, slice_t *value)
{
    for (size_t i = 0; i < h->n_fields; i++) {
        const struct field *f = &h->fields[i];

        if (f->is_removed || !slice_is_nocase(f->name, name))
            continue;
        *value = f->value;
        return true;
    }
    return false;
}

static slice_t trim(slice_t s)
{
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = slice_skip(s, 1);
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* The first cookie of that name (RFC 6265 4.2; several fields in HTTP/2, RFC 9113 8.2.3). */
static bool find_cookie(const struct head *h, slice_t name, slice_t *value)
{
    for (size_t i = 0; i < h->n_fields; i++) {
        slice_t rest = h->fields[i].value;

        if (h->fields[i].is_removed || !slice_is_nocase(h->fields[i].name, SLICE_LIT("cookie")))
            continue;
        while (rest.n > 0) {
            const uint8_t *end = memchr(rest.p, ';', rest.n);
            slice_t pair = trim(slice(rest.p, end == NULL ? rest.n : (size_t)(end - rest.p)));
            const uint8_t *equals = pair.n > 0 ? memchr(pair.p, '=', pair.n) : NULL;

            rest = slice_skip(rest, end == NULL ? rest.n : (size_t)(end - rest.p) + 1);
            if (equals == NULL || !slice_is(slice(pair.p, (size_t)(equals - pair.p)), name))
                continue;
            *value = slice_skip(pair, name.n + 1);
            return true;
        }
    }
    return false;
}

static void read_key(const struct exchange *x, struct pick *p)
{
    const struct backend *be = x->backend;
    slice_t name = slice_str(be->hash_name), value = SLICE_LIT("");

    switch (be->hash_by) {
    case HASH_BY_HEADER:
        p->has_key = find_field(x->req, name, &value) && value.n > 0;
        break;
    case HASH_BY_COOKIE:
        p->has_key = find_cookie(x->req, name, &value) && value.n > 0;
        break;
    case HASH_BY_SOURCE:
        pick_source_key(p, x->front->conn);
        return;
    default:
        return;
    }
    if (p->has_key)
        p->key = ring_key(value);
}

struct endpoint *picks_choose(const struct exchange *x, const struct endpoint *avoid)
{
    struct pick p = {.avoid = avoid};

    if (x->backend->balancing == BALANCING_HASH)
        read_key(x, &p);
    return backend_pick_by(x->backend, &p);
}

/* ---- how it went ---- */

void picks_on_head(struct exchange *x, const struct head *h)
{
    slice_t value;

    x->retry_after_ms = 0;
    if (x->backend == NULL || !(x->backend->penalises || x->backend->has_breaker) ||
        !penalty_is_due(h->status, x->grpc_status))
        return;
    if (find_field(h, SLICE_LIT("grpc-retry-pushback-ms"), &value))
        x->retry_after_ms = penalty_pushback(value);
    else if (find_field(h, SLICE_LIT("retry-after"), &value))
        x->retry_after_ms = penalty_retry_after(value, clock_wall_ms());
    backend_hear(x->backend, x->endpoint, h->status, x->grpc_status, x->retry_after_ms);
}

void picks_on_trailers(struct exchange *x, const struct field *fields, size_t n)
{
    if (x->backend == NULL || !x->backend->has_breaker || x->grpc_status <= 0)
        return;
    for (size_t i = 0; i < n; i++)
        if (slice_is_nocase(fields[i].name, SLICE_LIT("grpc-retry-pushback-ms")))
            x->retry_after_ms = penalty_pushback(fields[i].value);
}

/* Whether an end that the mesh has a code for is the endpoint's doing. */
static bool is_endpoints_doing(enum code code)
{
    switch (code) {
    case CODE_CLIENT_GONE: /* nobody knows how it would have gone */
    case CODE_DRAINING:    /* it says so itself; discovery takes it out */
    case CODE_INTERNAL:    /* ours */
    case CODE_MEMORY:
    case CODE_RESTARTING:
    case CODE_TOO_MANY_CONNECTIONS:
    case CODE_INJECTED:
        return false;
    default:
        return true;
    }
}

void picks_on_end(struct exchange *x, uint16_t status, bool is_success, enum code code)
{
    struct outcome o = {.sent_us = x->sent_us, .retry_after_ms = x->retry_after_ms};

    x->retry_after_ms = 0;
    if (x->backend == NULL || x->endpoint == NULL || !x->backend->has_breaker)
        return;
    if (x->is_excused || !is_endpoints_doing(code)) {
        backend_unpick(x->backend, x->endpoint);
        return;
    }
    o.result = status == 429 || x->grpc_status == GRPC_RESOURCE_EXHAUSTED ? BREAKER_LIMITED
               : is_success                                               ? BREAKER_SUCCESS
                                                                          : BREAKER_FAILURE;
    backend_note(x->backend, x->endpoint, &o);
}

void picks_unsent(const struct exchange *x)
{
    if (x->backend != NULL && x->endpoint != NULL)
        backend_unpick(x->backend, x->endpoint);
}
