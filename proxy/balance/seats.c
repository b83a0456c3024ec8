/* Seats: which endpoints a backend has, and what it thinks of each. A set is replaced as a
 * whole; whoever is in both keeps its seat, and so its breaker, its turn and its slow start. */
#include "proxy/balance/choose.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/random.h"
#include "model/route.h"
#include "proxy/net/address.h"

#include <stdlib.h>

struct seat *seat_of(const struct backend *be, struct endpoint *ep)
{
    LIST_EACH (it, &ep->seats) {
        struct seat *s = CONTAINER_OF(it, struct seat, node);

        if (s->backend != be)
            continue;
        if (it !=
            ep->seats.next) { /* most endpoints have one; of others the last asked is next */
            list_del(it);
            list_push_front(&ep->seats, it);
        }
        return s;
    }
    return NULL;
}

/* ---- readiness ---- */

static bool is_on_probation(const struct seat *s)
{
    return s->is_ready && s->breaker.state == BREAKER_PROBATION;
}

void seat_refresh(struct seat *s)
{
    struct backend *be = s->backend;
    bool was_ready = s->is_ready;

    be->n_ready -= was_ready;
    be->n_probation -= s->counts_as_probation;
    s->is_ready = s->endpoint->state == ENDPOINT_READY && !s->is_out;
    s->counts_as_probation = is_on_probation(s);
    be->n_ready += s->is_ready;
    be->n_probation += s->counts_as_probation;
    if (s->is_ready && !was_ready)
        balance_wake_later(be->balance);
}

static void on_timer(void *arg)
{
    struct seat *s = arg;

    breaker_expire(&s->breaker);
    s->is_out = s->breaker.state == BREAKER_OPEN;
    seat_refresh(s);
}

/* ---- one seat ---- */

static struct seat *seat_new(struct backend *be, struct endpoint *ep)
{
    struct seat *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->backend = be;
    s->endpoint = ep;
    endpoint_ref(ep);
    list_push(&ep->seats, &s->node);
    timer_init(&s->timer, be->balance->conf.base, on_timer, s);
    be->running += ep->inflight;
    backend_move_connections(be, (int)ep->n_connections);
    seat_refresh(s);
    return s;
}

static void close_breaker(struct seat *s)
{
    timer_stop(&s->timer);
    s->backend->n_out -= s->breaker.state != BREAKER_CLOSED;
    s->breaker = (struct breaker){.state = BREAKER_CLOSED};
    s->is_out = false;
}

static void seat_free(struct seat *s)
{
    struct backend *be = s->backend;
    struct endpoint *ep = s->endpoint;

    close_breaker(s);
    s->is_out = true;
    seat_refresh(s); /* out of the backend's counts */
    be->running -= ep->inflight;
    backend_move_connections(be, -(int)ep->n_connections);
    list_del(&s->node);
    free(s);
    endpoint_unref(&ep);
}

/* ---- slow start ---- */

/* When a seat's slow start began: when the endpoint did, as the view says, or, if that is not
 * known, when it came to a set that we had known before. An endpoint that was there when we
 * came has been there for who knows how long. */
static uint64_t warm_from(const struct backend *be, int64_t ready_ms, bool is_first_set)
{
    uint64_t now = clock_now_ms(), wall = clock_wall_ms(), age;

    if (be->slow_start_ms == 0)
        return 0;
    if (ready_ms <= 0)
        return is_first_set ? 0 : now;
    age = (uint64_t)ready_ms < wall ? wall - (uint64_t)ready_ms : 0;
    if (age >= be->slow_start_ms)
        return 0;
    return age < now ? now - age : 1;
}

/* ---- a set ---- */

struct draft {
    struct seat **seats;
    struct endpoint **set;
    size_t n, n_own;
};

static void draft_free(struct draft *d)
{
    free(d->seats);
    free(d->set);
}

static bool is_own_zone(const struct backend *be, slice_t zone)
{
    return be->uses_zones && slice_is_str(zone, be->balance->zone);
}

/* Who an endpoint serves first is who its connections are counted for. */
static void note_service(struct endpoint *ep, const struct backend *be)
{
    if (ep->service[0] != 0 || be->namespace[0] == 0)
        return;
    memcpy(ep->service_namespace, be->namespace, sizeof(be->namespace));
    memcpy(ep->service, be->name, sizeof(be->name));
    ep->service_port = be->port;
}

/* A reference of the caller's; NULL: cannot be used. */
static struct endpoint *find_endpoint(struct backend *be, const struct backend_spec *spec,
                                      const struct wire_endpoint *w)
{
    struct endpoint_spec es = {
        .identity = w->identity, .inbound_port = w->inbound_port, .pod = w->pod};
    struct endpoint *ep;

    if (w->port == 0 || !address_parse(w->ip, w->port, &es.address)) {
        log_warn("endpoint left out of a view", "backend=%s ip=%.*s port=%u", be->key,
                 SLICE_FMT(w->ip), w->port);
        return NULL;
    }
    if (spec->is_local != NULL && spec->is_local(spec->arg, &es.address))
        es.identity = SLICE_LIT("");
    if (endpoint_get(be->balance, &es, &ep) != OK)
        return NULL;
    note_service(ep, be);
    return ep;
}

/* The seat of an endpoint of the view, kept or new. */
static void draft_add(struct draft *d, struct backend *be, const struct backend_spec *spec,
                      const struct wire_endpoint *w, bool is_first_set)
{
    struct endpoint *ep = find_endpoint(be, spec, w);
    struct seat *s;

    if (ep == NULL)
        return;
    s = seat_of(be, ep);
    if (s != NULL && s->is_kept) { /* twice in one view */
        endpoint_unref(&ep);
        return;
    }
    if (s == NULL || s->ready_ms != w->ready_ms) {
        bool is_new = s == NULL;

        if (is_new)
            s = seat_new(be, ep);
        if (s != NULL && (is_new || w->ready_ms > 0))
            s->warm_from_ms = warm_from(be, w->ready_ms, is_first_set);
    }
    endpoint_unref(&ep); /* the seat has one */
    if (s == NULL)
        return;
    s->is_kept = true;
    s->ready_ms = w->ready_ms;
    s->weight = w->weight == 0 ? 10000 : w->weight;
    s->is_own_zone = is_own_zone(be, w->zone);
    d->n_own += s->is_own_zone;
    d->seats[d->n++] = s;
}

/* In the view's order, the own zone first. */
static void draft_sort(struct draft *d)
{
    size_t own = 0;

    for (size_t i = 0; i < d->n; i++) {
        struct seat *s = d->seats[i];

        if (!s->is_own_zone)
            continue;
        memmove(&d->seats[own + 1], &d->seats[own], (i - own) * sizeof(struct seat *));
        d->seats[own++] = s;
    }
    for (size_t i = 0; i < d->n; i++)
        d->set[i] = d->seats[i]->endpoint;
}

/* The breakers follow the settings: none any more, none is out any more. */
static void follow_settings(struct backend *be)
{
    if (be->has_breaker)
        return;
    for (size_t i = 0; i < be->n_set; i++) {
        close_breaker(be->seats[i]);
        seat_refresh(be->seats[i]);
    }
}

err_t seats_replace(struct backend *be, const struct backend_spec *spec)
{
    const struct wire_backend *v = spec->view;
    struct draft d = {.n = 0};
    struct seat **old = be->seats;
    size_t n_old = be->n_set;
    err_t why;

    d.seats = calloc(v->n_endpoints + 1, sizeof(*d.seats));
    d.set = calloc(v->n_endpoints + 1, sizeof(*d.set));
    if (d.seats == NULL || d.set == NULL) {
        draft_free(&d);
        return ERR_OF(NOMEM);
    }
    for (size_t i = 0; i < v->n_endpoints; i++)
        draft_add(&d, be, spec, &v->endpoints[i], n_old == 0);
    draft_sort(&d);
    free(be->set);
    be->seats = d.seats;
    be->set = d.set;
    be->n_set = d.n;
    be->n_own = d.n_own;
    /* After the swap: what both sets have never falls to zero references and keeps its state.
     */
    for (size_t i = 0; i < n_old; i++)
        if (!old[i]->is_kept)
            seat_free(old[i]);
    free(old);
    for (size_t i = 0; i < be->n_set; i++)
        be->seats[i]->is_kept = false;
    why = choice_update(be);
    follow_settings(be);
    return why;
}

void seats_free(struct backend *be)
{
    for (size_t i = 0; i < be->n_set; i++)
        seat_free(be->seats[i]);
    free(be->seats);
    free(be->set);
    be->seats = NULL;
    be->set = NULL;
    be->n_set = be->n_own = 0;
}
