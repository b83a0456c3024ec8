/* The choice among a backend's seats: one interface, four ways.
 *
 *   EWMA            two random ones, the lower peak EWMA x (requests in flight + 1)
 *   LEAST_REQUESTS  two random ones, the fewer requests in flight
 *   ROUND_ROBIN     one after the other, heavier ones more often
 *   HASH            the one that the key belongs to (model/ring.h)
 *
 * Before that it is decided who takes part: seats that are ready, not where an attempt has just
 * failed, below the share cap, with a connection if no new one may be opened; of the own zone,
 * unless that is worse off. A rule that leaves nobody is given up, the last one first.
 *
 * Nothing here blocks, allocates (but choice_new and choice_update) or keeps a pointer;
 * randomness is kit/random.h, time kit/clock.h: both can be set by a test. */
#ifndef PROXY_BALANCE_CHOOSE_H
#define PROXY_BALANCE_CHOOSE_H

#include "proxy/balance/balance_priv.h"

#define CHOOSE_TRIES     8    /* random draws before all are walked through */
#define CHOOSE_WARM_MIN  100  /* permille: what a new endpoint's share begins with */
#define CHOOSE_WINDOW_MS 5000 /* share cap: what counts is this window and the one before */

/* Draws one of n with probabilities by weight, in constant time (the alias method). */
struct draw_slot {
    uint32_t keep, other; /* itself if a random number is below keep, else the other one */
};
struct draw {
    uint32_t n;
    struct draw_slot *slots; /* owned; NULL: all alike */
};

/* What the choice keeps for a backend between picks. */
struct choice {
    bool is_plain; /* EWMA without anything special: the quick way */
    struct draw all, own;
    uint32_t weight_max;
    double weight_mean;
    uint64_t warm_until_ms; /* somebody's slow start runs until then; 0: nobody's */
    size_t turn[2];         /* round robin: whose turn it is, of all and of the own zone */
    uint64_t window;        /* share cap */
    uint64_t picks[2];
};

/* NULL: no memory. */
struct choice *choice_new(void);
void choice_free(struct choice **c);
/* The set or the settings have changed. NOMEM: the former one stays as it was. */
MUST_USE err_t choice_update(struct backend *be);
/* NULL: nobody is ready. */
struct seat *choose_seat(struct backend *be, const struct pick *p);

/* ---- for the ways ---- */

enum choose_rule { CHOOSE_AVOIDS = 1, CHOOSE_CAPS = 2, CHOOSE_CONNECTED = 4 };

struct choosing {
    struct backend *be;
    const struct pick *pick;
    uint64_t now_ms;
    size_t n;       /* of be->seats, from the first: all, or the own zone */
    unsigned rules; /* enum choose_rule */
};
bool choose_may(const struct choosing *c, const struct seat *s);
/* Of its full weight, in permille. */
uint32_t choose_warmth(const struct choosing *c, const struct seat *s);
/* A random one by weight that may be taken, and is not `other`; NULL: none. */
struct seat *choose_random(const struct choosing *c, const struct seat *other);
struct seat *choose_ewma(const struct choosing *c);
struct seat *choose_least(const struct choosing *c);
struct seat *choose_round(const struct choosing *c);
struct seat *choose_hash(const struct choosing *c);
/* The load that the own zone is compared by: as known last, not faded below what is thought of
 * an endpoint that nothing is known of. */
double choose_known_load(const struct seat *s);

#endif
