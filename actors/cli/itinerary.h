/* Where a request would go, and why: the view of a service evaluated with the functions the
 * proxy uses (model/route.h, model/ring.h), as one JSON object that is printed for people or
 * for programs.
 *
 *   {request, destination, rules: [{rule, fits, chosen, why}], chosen, answer, filters: [...],
 *    timeouts: {request, attempt, response_headers, idle: {ms, from}}, retries: {..., from},
 *    backends: [{service, weight, share, ready, why}], endpoints: [{backend, address, pod,
 * zone, weight, chosen, why}]} */
#ifndef CLI_ITINERARY_H
#define CLI_ITINERARY_H

#include "cli/opts.h"
#include "model/resource.h"
#include "wire/wire.h"

#include <jansson.h>
#include <stdio.h>

enum itinerary_kind { ITINERARY_HTTP, ITINERARY_TLS, ITINERARY_TCP };

struct itinerary_ask {
    enum itinerary_kind kind;
    const char *method; /* HTTP */
    const char *host;   /* HTTP: the authority; TLS: the server name */
    const char *path, *query;
    const struct opt_list *headers; /* "Name: value" */
    const char *zone;               /* of who asks; "" unknown */
    const char *source;             /* its address; "" unknown */
    /* The resource of a route ("KIND/NS/NAME") or a Service as it is in force; NULL: not found.
     * Lent. */
    const struct resource *(*find)(void *arg, const char *key);
    void *arg;
};

/* NULL without memory, or if the view cannot be used (*why, 160 bytes, says it). */
json_t *itinerary_make(const struct wire_destination *view, const struct itinerary_ask *ask,
                       char why[160]);

/* For people. */
void itinerary_print(const json_t *itinerary, FILE *to);

#endif
