/* What the breakers do, for people: events to weft-telemetry, counters, and how many endpoints
 * of each service are in which state. */
#ifndef PROXY_BREAKERS_H
#define PROXY_BREAKERS_H

#include <stdint.h>

struct backend;
struct breaker_event;
struct worker;

#define BREAKERS_EVENT_MS     500 /* one event in so long, over time */
#define BREAKERS_EVENTS_BURST 20  /* and so many at once; counters know of all */

struct breakers {
    uint64_t spent_until_ms; /* the rate: GCRA over BREAKERS_EVENT_MS */
    uint64_t left_out;       /* events not sent since the last one that was */
};

/* Callbacks of the balance (struct balance_conf). */
void breakers_on_event(void *worker, const struct breaker_event *e);
void breakers_on_backend_free(void *worker, struct backend *be);
/* Once a second: the gauges. */
void breakers_tick(struct worker *w);

#endif
