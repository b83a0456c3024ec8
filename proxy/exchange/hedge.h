/* Hedges: further attempts beside the one that runs, because its answer is late.
 *
 * The exchange has one leading attempt, whose parts are fields of struct exchange: what does not hedge costs
 * nothing more. A hedge is an attempt of its own until it takes the leader's place, parts and all:
 *
 *     ASKED --go--> LENDING --a slot--> SENT --its head is the first--> it leads; the former leader is reset
 *       |              |                  |----the leader fails-------> it leads; nothing is asked
 *       '---stop-------'------failed------'----the leader's head------> reset (CANCEL)
 *
 * A hedge whose answer is one that would be made again, or that comes from the proxy in the application's place, does
 * not win while the leader runs. Only whole requests that are kept in memory are hedged, of methods that may be
 * repeated or that the rule names beside its hedge; on another endpoint of the same backend; after weft-retry took it
 * out of the service's budget. */
#ifndef PROXY_EXCHANGE_HEDGE_H
#define PROXY_EXCHANGE_HEDGE_H

#include <stdbool.h>

struct attempt_failure;
struct exchange;

/* The leading attempt was sent: when its head is late there will be a hedge. */
void hedge_plan(struct exchange *x);
/* It is: x->hedge_at has come. */
void hedge_begin(struct exchange *x);
/* The leader failed: a hedge that runs leads from now on. False: there is none (any more). The leader's end was
 * counted and its stream is gone before. */
bool hedge_take_over(struct exchange *x);
bool hedge_is_running(const struct exchange *x); /* one that could */
/* There is an answer, or nobody waits for one: all are given up. */
void hedge_end_all(struct exchange *x);

#endif
