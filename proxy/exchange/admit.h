/* Which further attempts the side of the server takes.
 *
 * Every client's proxy has a retry budget, but a server with many clients gets the sum of them. So the proxy beside the
 * application counts for each port what came in the last ADMIT_WINDOW_S seconds, and takes a further attempt (a retry
 * or a hedge; its number is in weft-attempt, believed from mesh peers only) while
 *
 *     further attempts + 1  <=  first attempts x WEFT_RETRY_PRESSURE %  +  ADMIT_MIN_PER_S x ADMIT_WINDOW_S
 *
 * however many clients they are from. What is refused is answered W7008 ATTEMPT_REFUSED, not delivered; a proxy of the
 * mesh that reads it asks for no further attempts of that service for a second. */
#ifndef PROXY_EXCHANGE_ADMIT_H
#define PROXY_EXCHANGE_ADMIT_H

#include "kit/err.h"

#include <stdbool.h>
#include <stdint.h>

#define ADMIT_WINDOW_S  10u
#define ADMIT_MIN_PER_S 10u /* of one pod: divided by its workers */
#define ADMIT_PORTS_MAX 32u /* counted apart; those beyond share the last */

struct admit;

struct admit_conf {
    uint32_t percent; /* 0: everything is taken */
    uint32_t workers; /* of the pod, at least 1 */
    /* Refusals of a port began, at most once in ADMIT_WINDOW_S. May be NULL. */
    void (*on_pressure)(void *arg, uint16_t port);
    void *arg;
};

MUST_USE err_t admit_new(const struct admit_conf *conf, struct admit **out);
void admit_free(struct admit **a);

/* Counts a request for the application's port; number: of the attempt, from 1. False: it is refused (and not counted
 * as taken). */
bool admit_take(struct admit *a, uint16_t port, unsigned number, uint64_t now_ms);

#endif
