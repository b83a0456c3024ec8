/* The four ways of choosing among those that may be taken (choose.h). */
#include "proxy/balance/choose.h"

#include "model/ring.h"

#include <math.h>

/* ---- two random ones ---- */

/* Requests in flight, by weight: an endpoint of twice the mean weight with two of them is as
 * busy as a mean one with one. At rest all weights are alike; who is drawn how often goes by
 * weight already. */
static double busy(const struct choosing *c, const struct seat *s)
{
    double weight = (double)s->weight / c->be->choice->weight_mean;

    return 1.0 +
           (double)s->endpoint->inflight * 1000.0 / (weight * (double)choose_warmth(c, s));
}

/* Alike, two different ones are drawn. With weights, or while one warms up, both draws are of
 * all: with two different ones of two, weights would mean nothing. */
static struct seat *second_random(const struct choosing *c, const struct seat *first)
{
    const struct choice *ch = c->be->choice;
    bool is_even = c->n == c->be->n_set ? ch->all.slots == NULL : ch->own.slots == NULL;

    return choose_random(c, is_even && ch->warm_until_ms == 0 ? first : NULL);
}

struct seat *choose_ewma(const struct choosing *c)
{
    struct seat *a = choose_random(c, NULL), *b;

    if (a == NULL || c->n == 1)
        return a;
    b = second_random(c, a);
    if (b == NULL || b == a)
        return a;
    return endpoint_rtt(b->endpoint) * busy(c, b) < endpoint_rtt(a->endpoint) * busy(c, a) ? b
                                                                                           : a;
}

struct seat *choose_least(const struct choosing *c)
{
    struct seat *a = choose_random(c, NULL), *b;

    if (a == NULL || c->n == 1)
        return a;
    b = second_random(c, a);
    return b != NULL && busy(c, b) < busy(c, a) ? b : a;
}

/* ---- one after the other ---- */

/* Whoever is passed gets credit by its weight, and has its turn when that is the heaviest's:
 * 3:1 is served A A A B. When nobody has enough (the heaviest is not there), the most credit
 * wins. */
static struct seat *round_by_credit(const struct choosing *c, size_t *turn)
{
    int64_t price = (int64_t)c->be->choice->weight_max * 1000;
    struct seat *best = NULL;

    for (size_t i = 0; i < c->n; i++) {
        struct seat *s = c->be->seats[*turn];

        *turn = (*turn + 1) % c->n;
        if (!choose_may(c, s))
            continue;
        s->credit += (int64_t)s->weight * choose_warmth(c, s);
        if (s->credit >= price) {
            s->credit -= price;
            return s;
        }
        if (best == NULL || s->credit > best->credit)
            best = s;
    }
    if (best != NULL)
        best->credit = 0;
    return best;
}

struct seat *choose_round(const struct choosing *c)
{
    struct choice *ch = c->be->choice;
    bool is_own = c->n < c->be->n_set;
    size_t *turn = &ch->turn[is_own];

    if (c->n == 0)
        return NULL;
    *turn %= c->n;
    if ((is_own ? ch->own.slots : ch->all.slots) != NULL || ch->warm_until_ms != 0)
        return round_by_credit(c, turn);
    for (size_t i = 0; i < c->n; i++) {
        struct seat *s = c->be->seats[*turn];

        *turn = (*turn + 1) % c->n;
        if (choose_may(c, s))
            return s;
    }
    return NULL;
}

/* ---- by key ---- */

/* Bounded load: with a share cap nobody runs more than that share of the requests under way;
 * what is above goes where its key would go if that endpoint were not there. Requests in flight
 * are what counts, not the last seconds' number: one client's requests, one after the other,
 * stay where they are. */
static bool is_overrun(const struct choosing *c, const struct seat *s)
{
    const struct backend *be = c->be;
    double mean = (double)(be->running + 1) / (double)be->n_ready *
                  ((double)s->weight / be->choice->weight_mean);
    uint32_t cap = be->share_cap_permille < 1000 ? 1000 : be->share_cap_permille;

    return (double)s->endpoint->inflight + 1.0 > ceil(mean * (double)cap / 1000.0);
}

/* While it warms up, keys come to it little by little, and none moves between others. */
static uint32_t warm_weight(const struct choosing *c, const struct seat *s)
{
    uint64_t weight = (uint64_t)s->weight * choose_warmth(c, s) / 1000;

    return weight == 0 ? 1 : (uint32_t)weight;
}

static struct seat *lowest_score(const struct choosing *c, bool is_bounded)
{
    struct seat *best = NULL;
    double least = HUGE_VAL;

    for (size_t i = 0; i < c->n; i++) {
        struct seat *s = c->be->seats[i];
        double score;

        if (!choose_may(c, s) || (is_bounded && is_overrun(c, s)))
            continue;
        score = ring_score(s->endpoint->hash_id, warm_weight(c, s), c->pick->key);
        if (best == NULL || score < least ||
            (score <= least && s->endpoint->hash_id < best->endpoint->hash_id)) {
            best = s;
            least = score;
        }
    }
    return best;
}

struct seat *choose_hash(const struct choosing *c)
{
    struct choosing all = *c;
    struct seat *s = NULL;

    if (!c->pick->has_key)
        return choose_ewma(c);
    all.rules &= ~(unsigned)CHOOSE_CAPS; /* has its own */
    if (c->be->share_cap_permille > 0)
        s = lowest_score(&all, true);
    return s != NULL ? s : lowest_score(&all, false);
}
