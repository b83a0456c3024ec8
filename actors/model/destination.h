/* The resolved view of a target: what the broker sends and the proxy follows. A pure function
 * of the service, the routes attached to it, and who serves what. */
#ifndef MODEL_DESTINATION_H
#define MODEL_DESTINATION_H

#include "model/resource.h"

#include "wire/wire.h"

/* A backend that rules point at, looked up by the caller. */
struct destination_backend {
    bool exists;                     /* there is such a service and it has this port */
    uint8_t protocol;                /* of the port, PROTOCOL_* */
    struct wire_endpoint *endpoints; /* lent for as long as the view is used; not changed */
    size_t n_endpoints;
};

struct destination_input {
    slice_t target;                 /* topic's target; copied */
    const struct resource *service; /* a RESOURCE_SERVICE */
    uint16_t port;                  /* of it */
    uint8_t said_protocol; /* by its pods; used if the service does not say */
    uint8_t lesson;        /* what was seen on its endpoints (model/lesson.h), if nobody says */
    slice_t client_namespace; /* of who asks; decides between producer and consumer routes */
    const struct resource *const *routes; /* RESOURCE_HTTP_ROUTE in any order; those that are
                                             not attached to service and port are passed over */
    size_t n_routes;
    /* Looks a backend up; also called for the service itself. */
    void (*lookup)(void *arg, slice_t namespace, slice_t name, uint16_t port,
                   struct destination_backend *out);
    void *arg;
};

/* Fills *out (id, revision and is_stale are the caller's to set). Lists and copies are in
 * `arena`; other texts point into the resources, which must live as long. The rules:
 *   - routes in the client's namespace (if it is not the service's) replace the service's own;
 * among routes the older comes first, then by namespace and name;
 *   - a route for the port and one for all ports count the same;
 *   - no route: one default rule to the service itself. With routes there is none: no match is
 * a 404;
 *   - timeouts: the route's annotations together with the rule's stanza (the annotation wins
 * for request, the shorter one for an attempt), else the service's; retries: the rule's stanza,
 * else the route's annotations, else the service's. What the service says is taken whole or not
 * at all (linkerd.md 7.1);
 *   - a backend that does not exist keeps its share with state 1.
 * MODEL_LIMIT (more rules or backends than a message may have), NOMEM. */
MUST_USE err_t destination_build(const struct destination_input *in, struct arena *arena,
                                 struct wire_destination *out);

/* The view of an address that no service owns: kind 2 with its one endpoint (a pod's own
 * address), or kind 0 if `endpoint` is NULL. */
MUST_USE err_t destination_of_address(slice_t target, struct wire_endpoint *endpoint,
                                      uint8_t protocol, struct arena *arena,
                                      struct wire_destination *out);

/* Whether this route is attached to the service and port (for `weft routes` and for finding out
 * which topics a change touches). */
bool destination_is_attached(const struct resource *route, slice_t namespace, slice_t name,
                             uint16_t port);

#endif
