/* The breakers at work: what requests' ends say to them, who is taken out and who returns. */
#include "proxy/balance/balance_priv.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/random.h"
#include "proxy/balance/penalty.h"

static void tell(struct seat *s, enum breaker_news news, const struct breaker_event *figures)
{
    struct balance *b = s->backend->balance;
    struct breaker_event e = *figures;

    e.news = news;
    e.backend = s->backend;
    e.endpoint = s->endpoint;
    log_debug("breaker", "backend=%s endpoint=%s news=%u reason=%s out_ms=%u", s->backend->key,
              s->endpoint->text, (unsigned)news, breaker_reason_name(e.reason), e.out_ms);
    if (b->conf.on_breaker != NULL)
        b->conf.on_breaker(b->conf.arg, &e);
}

static struct breaker_event figures_of(const struct seat *s)
{
    struct breaker_event e = {
        .reason = s->breaker.reason, .row = s->breaker.row, .out_ms = s->breaker.out_ms};

    breaker_window(&s->breaker, &s->backend->breaker, clock_now_us(), &e.all, &e.good);
    return e;
}

/* One more may go out without going below the floor. Who is out already (its probe has failed)
 * is counted in. */
static bool floor_allows(const struct seat *s)
{
    const struct backend *be = s->backend;
    size_t out = be->n_out + (s->breaker.state == BREAKER_CLOSED);

    return out <= breaker_may_eject(&be->breaker, be->n_set);
}

static void eject(struct seat *s, uint32_t retry_after_ms)
{
    struct backend *be = s->backend;
    struct breaker_event e = figures_of(s);

    if (!floor_allows(s)) {
        if (s->breaker.state == BREAKER_CLOSED) {
            breaker_keep(&s->breaker);
            tell(s, BREAKER_NEWS_KEPT, &e);
            return;
        }
        /* The floor has risen meanwhile (settings, fewer endpoints): a failed probe lets it in
         * all the same. */
        be->n_out--;
        s->breaker = (struct breaker){.state = BREAKER_CLOSED};
        s->is_out = false;
        timer_stop(&s->timer);
        seat_refresh(s);
        tell(s, BREAKER_NEWS_KEPT, &e);
        return;
    }
    be->n_out += s->breaker.state == BREAKER_CLOSED;
    e.out_ms =
        breaker_open(&s->breaker, &be->breaker, retry_after_ms, random_unit(), clock_now_us());
    s->is_out = true;
    seat_refresh(s);
    timer_once(&s->timer, e.out_ms);
    tell(s, BREAKER_NEWS_EJECTED, &e);
}

static void let_in(struct seat *s)
{
    struct breaker_event e = figures_of(s);

    timer_stop(&s->timer);
    s->backend->n_out--;
    s->is_out = false;
    seat_refresh(s);
    tell(s, BREAKER_NEWS_RETURNED, &e);
}

void backend_note(struct backend *be, struct endpoint *ep, const struct outcome *o)
{
    struct seat *s = be->has_breaker ? seat_of(be, ep) : NULL;

    if (s == NULL)
        return;
    switch (breaker_note(&s->breaker, &be->breaker, o->result, o->sent_us, clock_now_us())) {
    case BREAKER_STAY:
        break;
    case BREAKER_TRIP:
        eject(s, o->retry_after_ms);
        break;
    case BREAKER_RETURN:
        let_in(s);
        break;
    }
}

void seat_probe(struct seat *s)
{
    breaker_probe(&s->breaker, clock_now_us());
    s->is_out = true;
    seat_refresh(s);
    timer_once(&s->timer, breaker_probe_ms(&s->breaker, &s->backend->breaker));
}

void backend_unpick(struct backend *be, struct endpoint *ep)
{
    struct seat *s = be->n_out > 0 ? seat_of(be, ep) : NULL;

    if (s == NULL || s->breaker.state != BREAKER_PROBATION || !s->breaker.has_probe)
        return;
    timer_stop(&s->timer);
    breaker_expire(&s->breaker);
    s->is_out = false;
    seat_refresh(s);
}

void backend_hear(struct backend *be, struct endpoint *ep, uint16_t status, int grpc_status,
                  uint32_t retry_after_ms)
{
    uint64_t ms = be->penalty_ms;

    if (!be->penalises || !penalty_is_due(status, grpc_status))
        return;
    if (penalty_may_ask(status, grpc_status)) {
        uint32_t asked =
            retry_after_ms < be->retry_after_max_ms ? retry_after_ms : be->retry_after_max_ms;

        if (asked > ms)
            ms = asked;
    }
    endpoint_penalise(ep, ms * 1000);
}
