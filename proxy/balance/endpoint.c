/* Endpoints: identity, load, readiness.
 *
 *   READY --dial failed--> BACKOFF --timer--> PROBING --connected--> READY
 *                             ^------------------'  failed: twice the wait
 *
 *   READY    may be chosen; connections are made when a request needs one
 *   BACKOFF  not chosen; the timer runs
 *   PROBING  not chosen; a dial in the background is under way
 * The application of our own pod (is_inbound) stays READY: who asks for it has no other choice,
 * and the caller's side decides about retries. endpoint_enter is the only writer of the state.
 */
#include "proxy/balance/balance_priv.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/random.h"
#include "model/ring.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"

#include <stdio.h>
#include <stdlib.h>

#define KEY_MAX 360

static void probe_start(struct endpoint *ep);

static void on_timer(void *arg)
{
    probe_start(arg);
}

static void endpoint_enter(struct endpoint *ep, enum endpoint_state next)
{
    ep->state = next;
    LIST_EACH (it, &ep->seats)
        seat_refresh(CONTAINER_OF(it, struct seat, node));
    switch (next) {
    case ENDPOINT_READY:
        timer_stop(&ep->timer);
        ep->backoff_ms = 0;
        break; /* its seats have woken who waits */
    case ENDPOINT_BACKOFF:
        ep->backoff_ms = ep->backoff_ms == 0 ? BALANCE_BACKOFF_MIN_MS : ep->backoff_ms * 2;
        if (ep->backoff_ms > BALANCE_BACKOFF_MAX_MS)
            ep->backoff_ms = BALANCE_BACKOFF_MAX_MS;
        timer_once(&ep->timer, ep->backoff_ms + random_below(ep->backoff_ms / 10 + 1));
        break;
    case ENDPOINT_PROBING:
        timer_stop(&ep->timer);
        break;
    }
}

static size_t make_key(const struct endpoint_spec *spec, bool is_meshed, char out[KEY_MAX])
{
    char text[ADDRESS_TEXT];
    int n;

    address_print(&spec->address, text);
    n = snprintf(out, KEY_MAX, "%s%s|%.*s|%u", spec->is_inbound ? "in " : "", text,
                 SLICE_FMT(is_meshed ? spec->identity : SLICE_LIT("")),
                 is_meshed ? spec->inbound_port : 0u);
    BUG_ON(n < 0 || n >= KEY_MAX);
    return (size_t)n;
}

static struct endpoint *endpoint_make(struct balance *b, const struct endpoint_spec *spec,
                                      bool is_meshed, const char *key, size_t key_n)
{
    struct endpoint *ep = calloc(1, sizeof(*ep));
    char ip[ADDRESS_TEXT];

    if (ep == NULL)
        return NULL;
    ep->key = strndup(key, key_n);
    if (ep->key == NULL) {
        free(ep);
        return NULL;
    }
    ep->balance = b;
    ep->address = spec->address;
    ep->port = address_port(&spec->address);
    address_print(&spec->address, ep->text);
    if (is_meshed) {
        address_set_port(&ep->address, spec->inbound_port);
        (void)slice_to_cstr(spec->identity, ep->identity, sizeof(ep->identity));
    }
    ep->is_inbound = spec->is_inbound;
    ep->rtt_us = BALANCE_RTT_US;
    ep->rtt_at_us = clock_now_us();
    ep->state = ENDPOINT_READY;
    timer_init(&ep->timer, b->conf.base, on_timer, ep);
    list_init(&ep->tallies);
    list_init(&ep->seats);
    list_init(&ep->held);
    list_init(&ep->starving);
    address_print_ip(&spec->address, ip);
    ep->hash_id = ring_id(slice_str(ip), ep->port);
    pool_init(ep);
    HASH_ADD_KEYPTR(hh, b->endpoints, ep->key, key_n, ep);
    return ep;
}

err_t endpoint_get(struct balance *b, const struct endpoint_spec *spec, struct endpoint **out)
{
    bool is_meshed = spec->identity.n > 0 && spec->inbound_port != 0 &&
                     b->conf.handshakes != NULL && spec->identity.n < sizeof((*out)->identity);
    char key[KEY_MAX];
    size_t key_n = make_key(spec, is_meshed, key);
    struct endpoint *ep;

    HASH_FIND(hh, b->endpoints, key, key_n, ep);
    if (ep == NULL)
        ep = endpoint_make(b, spec, is_meshed, key, key_n);
    if (ep == NULL)
        return ERR_OF(NOMEM);
    if (!slice_to_cstr(spec->pod, ep->pod, sizeof(ep->pod)))
        ep->pod[0] = 0;
    ep->refs++;
    *out = ep;
    return OK;
}

void endpoint_ref(struct endpoint *ep)
{
    ep->refs++;
}

bool endpoint_is_meshed(const struct endpoint *ep)
{
    return ep->identity[0] != 0;
}

void endpoint_check(struct endpoint *ep)
{
    struct balance *b = ep->balance;

    if (ep->refs > 0 || !pool_is_empty(ep))
        return;
    dial_cancel(&ep->probe);
    timer_stop(&ep->timer);
    if (b->conf.on_endpoint_free != NULL)
        b->conf.on_endpoint_free(b->conf.arg, ep);
    connections_forget(ep);
    HASH_DEL(b->endpoints, ep);
    free(ep->key);
    free(ep);
}

void endpoint_unref(struct endpoint **epp)
{
    struct endpoint *ep = *epp;

    if (ep == NULL)
        return;
    *epp = NULL;
    BUG_ON(ep->refs == 0);
    if (--ep->refs > 0)
        return;
    /* Nobody can choose it any more. A reference held meanwhile keeps it from going under our
     * feet. */
    ep->refs++;
    timer_stop(&ep->timer);
    dial_cancel(&ep->probe);
    if (ep->state == ENDPOINT_PROBING)
        endpoint_enter(ep, ENDPOINT_READY);
    pool_retire_all(ep, CLOSE_SUPERSEDED);
    ep->refs--;
    endpoint_check(ep);
}

/* ---- load ---- */

/* e^-x for x >= 0, good to 2 % where it matters and never negative: no libm on the request's
 * path. */
static double decay(double x)
{
    return 1.0 / (1.0 + x + x * x / 2.0);
}

void endpoint_begin(struct endpoint *ep)
{
    ep->inflight++;
    LIST_EACH (it, &ep->seats)
        CONTAINER_OF(it, struct seat, node)->backend->running++;
}

void endpoint_end(struct endpoint *ep)
{
    BUG_ON(ep->inflight == 0);
    ep->inflight--;
    LIST_EACH (it, &ep->seats)
        CONTAINER_OF(it, struct seat, node)->backend->running--;
}

void endpoint_sample(struct endpoint *ep, uint64_t rtt_us)
{
    uint64_t now = clock_now_us();
    double sample = (double)rtt_us;

    if (sample >= ep->rtt_us) {
        ep->rtt_us = sample; /* a peak counts at once */
    } else {
        double w = decay((double)(now - ep->rtt_at_us) / BALANCE_DECAY_US);

        ep->rtt_us = ep->rtt_us * w + sample * (1.0 - w);
    }
    ep->rtt_at_us = now;
}

void endpoint_penalise(struct endpoint *ep, uint64_t rtt_us)
{
    if ((double)rtt_us <= ep->rtt_us)
        return;
    ep->rtt_us = (double)rtt_us;
    ep->rtt_at_us = clock_now_us();
}

double endpoint_rtt(const struct endpoint *ep)
{
    double age = (double)(clock_now_us() - ep->rtt_at_us) / BALANCE_DECAY_US;

    /* Without samples the estimate fades, so that an endpoint that was slow once is tried
     * again. */
    return ep->rtt_us * decay(age);
}

double endpoint_load(const struct endpoint *ep)
{
    return endpoint_rtt(ep) * (double)(ep->inflight + 1);
}

/* ---- readiness ---- */

void endpoint_failed(struct endpoint *ep)
{
    if (!ep->is_inbound && ep->state == ENDPOINT_READY)
        endpoint_enter(ep, ENDPOINT_BACKOFF);
}

void endpoint_worked(struct endpoint *ep)
{
    if (ep->state == ENDPOINT_READY) {
        ep->backoff_ms = 0; /* it may have been let in on trial (probe_start) */
        return;
    }
    dial_cancel(&ep->probe);
    endpoint_enter(ep, ENDPOINT_READY);
    log_info("endpoint is back", "endpoint=%s", ep->text);
}

static void on_probed(void *arg, const struct dial_result *r)
{
    struct endpoint *ep = arg;

    ep->probe = NULL;
    if (r->conn == NULL) {
        endpoint_enter(ep, ENDPOINT_BACKOFF);
        return;
    }
    endpoint_enter(ep, ENDPOINT_READY);
    log_info("endpoint is back", "endpoint=%s", ep->text);
    (void)pool_adopt(ep, ep->last_kind,
                     r->conn); /* failure has closed it; a request dials again */
}

static void probe_start(struct endpoint *ep)
{
    if (ep->state != ENDPOINT_BACKOFF)
        return;
    if (ep->last_was_opaque || !endpoint_may_dial(ep)) {
        /* A connection made only to look would be seen by the application, or take somebody's
         * place: the next user tries instead. */
        uint32_t kept = ep->backoff_ms;

        endpoint_enter(ep, ENDPOINT_READY);
        ep->backoff_ms = kept;
        return;
    }
    endpoint_enter(ep, ENDPOINT_PROBING);
    if (dial_start(ep, pool_session(ep->last_kind), on_probed, ep, &ep->probe) != OK)
        endpoint_enter(ep, ENDPOINT_BACKOFF);
}
