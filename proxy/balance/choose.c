#include "proxy/balance/choose.h"

#include "kit/clock.h"
#include "kit/random.h"
#include "model/route.h"

#include <stdlib.h>

typedef struct seat *choose_fn(const struct choosing *c);
static choose_fn *const ways[] = {[BALANCING_EWMA] = choose_ewma,
                                  [BALANCING_LEAST_REQUESTS] = choose_least,
                                  [BALANCING_ROUND_ROBIN] = choose_round,
                                  [BALANCING_HASH] = choose_hash};

/* ---- who takes part ---- */

static void turn_window(struct backend *be, uint64_t now_ms)
{
    struct choice *ch = be->choice;
    uint64_t window = now_ms / CHOOSE_WINDOW_MS;

    if (window == ch->window)
        return;
    ch->picks[1] = window == ch->window + 1 ? ch->picks[0] : 0;
    ch->picks[0] = 0;
    ch->window = window;
}

static uint64_t picks_of(const struct choice *ch, const struct seat *s)
{
    if (s->window == ch->window)
        return (uint64_t)s->picks[0] + s->picks[1];
    return s->window + 1 == ch->window ? s->picks[0] : 0;
}

/* One more would be above its share. The mean is that of those that are ready, so that whoever
 * is left over may take all; one request for each is always free. */
static bool is_above_cap(const struct backend *be, const struct seat *s)
{
    const struct choice *ch = be->choice;
    double total = (double)(ch->picks[0] + ch->picks[1] + be->n_ready);
    double mean = total / (double)be->n_ready * ((double)s->weight / ch->weight_mean);
    uint32_t cap = be->share_cap_permille < 1000 ? 1000 : be->share_cap_permille;

    return (double)(picks_of(ch, s) + 1) * 1000.0 > mean * (double)cap;
}

static void count_pick(struct backend *be, struct seat *s)
{
    struct choice *ch = be->choice;

    if (s->window != ch->window) {
        s->picks[1] = s->window + 1 == ch->window ? s->picks[0] : 0;
        s->picks[0] = 0;
        s->window = ch->window;
    }
    s->picks[0]++;
    ch->picks[0]++;
}

bool choose_may(const struct choosing *c, const struct seat *s)
{
    if (!s->is_ready)
        return false;
    if ((c->rules & CHOOSE_AVOIDS) != 0 && s->endpoint == c->pick->avoid)
        return false;
    if ((c->rules & CHOOSE_CAPS) != 0 && is_above_cap(c->be, s))
        return false;
    return (c->rules & CHOOSE_CONNECTED) == 0 || s->endpoint->n_connections > 0;
}

uint32_t choose_warmth(const struct choosing *c, const struct seat *s)
{
    uint64_t age, share;

    if (s->warm_from_ms == 0 || c->be->slow_start_ms == 0)
        return 1000;
    age = c->now_ms > s->warm_from_ms ? c->now_ms - s->warm_from_ms : 0;
    share = age * 1000 / c->be->slow_start_ms;
    return share >= 1000 ? 1000 : share < CHOOSE_WARM_MIN ? CHOOSE_WARM_MIN : (uint32_t)share;
}

/* ---- drawing by weight ---- */

static size_t draw(const struct draw *d)
{
    size_t at = random_below(d->n);

    if (d->slots != NULL && random_below(UINT32_MAX) >= d->slots[at].keep)
        at = d->slots[at].other;
    return at;
}

struct seat *choose_random(const struct choosing *c, const struct seat *other)
{
    const struct backend *be = c->be;
    const struct draw *d = c->n == be->n_set ? &be->choice->all : &be->choice->own;
    size_t at = 0;

    for (size_t i = 0; i < CHOOSE_TRIES + c->n; i++) {
        struct seat *s;

        if (i < CHOOSE_TRIES)
            at = draw(d);
        else /* from anywhere: the last draw was the heaviest, most likely */
            at = i == CHOOSE_TRIES ? random_below((uint32_t)c->n) : (at + 1) % c->n;
        s = be->seats[at];
        if (s == other || !choose_may(c, s))
            continue;
        if (i < CHOOSE_TRIES && s->warm_from_ms != 0 &&
            random_below(1000) >= choose_warmth(c, s))
            continue;
        return s;
    }
    return NULL;
}

static void draw_done(struct draw *d)
{
    free(d->slots);
    *d = (struct draw){.n = 0};
}

/* Vose's construction: every slot holds at most two seats, each slot is as likely. Weights are
 * scaled so that their mean is `sum`. */
static err_t draw_make(struct seat *const *seats, size_t n, struct draw *out)
{
    uint64_t sum = 0, *scaled;
    uint32_t *stack;
    size_t small = 0, large = n; /* two stacks in one array, from both ends */
    bool is_even = true;

    *out = (struct draw){.n = (uint32_t)n};
    for (size_t i = 0; i < n; i++) {
        sum += seats[i]->weight;
        is_even = is_even && seats[i]->weight == seats[0]->weight;
    }
    if (n < 2 || is_even)
        return OK;
    out->slots = calloc(n, sizeof(*out->slots));
    scaled = calloc(n, sizeof(*scaled));
    stack = calloc(n, sizeof(*stack));
    if (out->slots == NULL || scaled == NULL || stack == NULL) {
        free(scaled);
        free(stack);
        draw_done(out);
        return ERR_OF(NOMEM);
    }
    for (size_t i = 0; i < n; i++) {
        scaled[i] = (uint64_t)seats[i]->weight * n;
        out->slots[i] = (struct draw_slot){.keep = UINT32_MAX, .other = (uint32_t)i};
        if (scaled[i] < sum)
            stack[small++] = (uint32_t)i;
        else
            stack[--large] = (uint32_t)i;
    }
    while (small > 0 && large < n) {
        uint32_t s = stack[--small], l = stack[large];

        out->slots[s].keep = (uint32_t)((double)scaled[s] / (double)sum * (double)UINT32_MAX);
        out->slots[s].other = l;
        scaled[l] -= sum - scaled[s];
        if (scaled[l] < sum) {
            large++;
            stack[small++] = l;
        }
    }
    free(scaled);
    free(stack);
    return OK;
}

/* ---- zones ---- */

double choose_known_load(const struct seat *s)
{
    const struct endpoint *ep = s->endpoint;
    double faded = endpoint_rtt(ep);
    double floor = ep->rtt_us < BALANCE_RTT_US ? ep->rtt_us : BALANCE_RTT_US;

    return (faded > floor ? faded : floor) * (double)(ep->inflight + 1);
}

/* One of the other zones; NULL if none that was looked at may be taken. */
static const struct seat *random_stranger(const struct choosing *c)
{
    size_t n = c->be->n_set - c->be->n_own;

    for (unsigned i = 0; i < CHOOSE_TRIES; i++) {
        const struct seat *s = c->be->seats[c->be->n_own + random_below((uint32_t)n)];

        if (choose_may(c, s))
            return s;
    }
    return NULL;
}

/* Whether this request may leave the zone: what it would get here is worse than what two others
 * offer on average. Comparing samples, request by request, lets exactly as much spill over as
 * brings both sides to that ratio. */
static bool spills_over(const struct choosing *c)
{
    struct choosing own = *c;
    const struct seat *mine, *a, *b;
    uint32_t ratio = c->be->spill_permille;

    own.n = c->be->n_own;
    mine = choose_ewma(&own);
    if (mine == NULL)
        return true;
    a = random_stranger(c);
    b = random_stranger(c);
    if (a == NULL || b == NULL)
        return false;
    return choose_known_load(mine) * 2000.0 >
           (choose_known_load(a) + choose_known_load(b)) * (double)ratio;
}

/* ---- the choice ---- */

/* The request after a time out is the probe, at once: who waits for the endpoint's return need
 * not wait for it to be drawn. Not a request that has failed once, nor one that no breaker hears
 * of; and with a key only the one that the key leads there. */
static struct seat *find_probation(const struct choosing *c)
{
    if (c->pick->avoid != NULL || c->pick->is_mute || c->be->balancing == BALANCING_HASH)
        return NULL;
    for (size_t i = 0; i < c->n; i++) {
        struct seat *s = c->be->seats[i];

        if (s->is_ready && s->breaker.state == BREAKER_PROBATION && choose_may(c, s))
            return s;
    }
    return NULL;
}

static struct seat *choose_special(struct backend *be, const struct pick *p)
{
    struct choosing c = {.be = be, .pick = p, .now_ms = clock_now_ms(), .n = be->n_set};
    struct seat *s = NULL;

    if (p->avoid != NULL)
        c.rules |= CHOOSE_AVOIDS;
    if (be->share_cap_permille > 0) {
        c.rules |= CHOOSE_CAPS;
        turn_window(be, c.now_ms);
    }
    if (backend_has_no_place(be))
        c.rules |= CHOOSE_CONNECTED;
    if (be->n_own > 0 && be->n_own < be->n_set && be->balancing != BALANCING_HASH &&
        !spills_over(&c))
        c.n = be->n_own;
    if (be->n_probation > 0)
        s = find_probation(&c);
    while (s == NULL && (s = ways[be->balancing](&c)) == NULL) {
        if (c.n < be->n_set)
            c.n = be->n_set;
        else if ((c.rules & CHOOSE_CAPS) != 0)
            c.rules &= ~(unsigned)CHOOSE_CAPS;
        else if ((c.rules & CHOOSE_CONNECTED) != 0)
            c.rules &= ~(unsigned)CHOOSE_CONNECTED;
        else if ((c.rules & CHOOSE_AVOIDS) != 0)
            c.rules &= ~(unsigned)CHOOSE_AVOIDS;
        else
            return NULL;
    }
    if (be->share_cap_permille > 0)
        count_pick(be, s);
    return s;
}

/* Two ready ones at random, the lower load: what nearly every backend wants, and quick. */
static struct seat *plain_random(const struct backend *be, const struct endpoint *avoid,
                                 const struct seat *other)
{
    size_t n = be->n_set, at = 0;

    for (size_t i = 0; i < CHOOSE_TRIES + n; i++) {
        struct seat *s;

        at = i < CHOOSE_TRIES ? random_below((uint32_t)n) : (at + 1) % n;
        s = be->seats[at];
        if (s->is_ready && s != other && s->endpoint != avoid)
            return s;
    }
    return NULL;
}

static struct seat *choose_plain(const struct backend *be, const struct endpoint *avoid)
{
    struct seat *a, *b;

    if (be->n_set == 1)
        return be->seats[0]->is_ready ? be->seats[0] : NULL;
    a = plain_random(be, avoid, NULL);
    if (a == NULL)
        return avoid != NULL ? plain_random(be, NULL, NULL) : NULL;
    b = plain_random(be, avoid, a);
    return b != NULL && endpoint_load(b->endpoint) < endpoint_load(a->endpoint) ? b : a;
}

struct seat *choose_seat(struct backend *be, const struct pick *p)
{
    struct choice *ch = be->choice;

    if (be->n_ready == 0)
        return NULL;
    if (LIKELY(ch->is_plain && be->n_probation == 0))
        return choose_plain(be, p->avoid);
    if (ch->warm_until_ms != 0 && clock_now_ms() >= ch->warm_until_ms)
        err_ignore(choice_update(be)); /* the slow start is over; no memory: asked again */
    return choose_special(be, p);
}

/* ---- what is kept ---- */

struct choice *choice_new(void)
{
    return calloc(1, sizeof(struct choice));
}

void choice_free(struct choice **cp)
{
    struct choice *c = *cp;

    if (c == NULL)
        return;
    draw_done(&c->all);
    draw_done(&c->own);
    free(c);
    *cp = NULL;
}

/* Ends the slow starts that are over; the time at which the last of the others is. */
static uint64_t look_at_warmth(struct backend *be)
{
    uint64_t now = clock_now_ms(), last = 0;

    for (size_t i = 0; i < be->n_set; i++) {
        struct seat *s = be->seats[i];
        uint64_t end = s->warm_from_ms + be->slow_start_ms;

        if (s->warm_from_ms == 0)
            continue;
        if (be->slow_start_ms == 0 || end <= now)
            s->warm_from_ms = 0;
        else if (end > last)
            last = end;
    }
    return last;
}

err_t choice_update(struct backend *be)
{
    struct choice *ch = be->choice;
    struct draw all, own = {.n = 0};
    uint64_t sum = 0;
    uint32_t max = 0;

    TRY(draw_make(be->seats, be->n_set, &all));
    if (be->n_own > 0 && draw_make(be->seats, be->n_own, &own) != OK) {
        draw_done(&all);
        return ERR_OF(NOMEM);
    }
    draw_done(&ch->all);
    draw_done(&ch->own);
    ch->all = all;
    ch->own = own;
    for (size_t i = 0; i < be->n_set; i++) {
        sum += be->seats[i]->weight;
        if (be->seats[i]->weight > max)
            max = be->seats[i]->weight;
    }
    ch->weight_max = max;
    ch->weight_mean = be->n_set > 0 ? (double)sum / (double)be->n_set : 1.0;
    ch->warm_until_ms = look_at_warmth(be);
    ch->is_plain = be->balancing == BALANCING_EWMA && all.slots == NULL &&
                   ch->warm_until_ms == 0 && be->n_own == 0 && be->share_cap_permille == 0 &&
                   be->connections_max == 0;
    return OK;
}
