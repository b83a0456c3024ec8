/* The resolved view of a target: what the broker sends and the proxy follows. A pure function
 * of the service, the routes attached to it, and who serves what. */
#ifndef MODEL_DESTINATION_H
#define MODEL_DESTINATION_H

#include "model/resource.h"

#include "wire/wire.h"

/* A backend that rules point at, looked up by the caller. */
struct destination_backend {
    bool exists;                     /* there is such a service and it has this port */
    const struct service *service;   /* whose annotations count for it; NULL: none */
    uint8_t protocol;                /* of the port, PROTOCOL_* */
    struct wire_endpoint *endpoints; /* lent for as long as the view is used; not changed */
    size_t n_endpoints;
};

struct destination_input {
    slice_t target;                 /* topic's target; copied */
    const struct resource *service; /* a RESOURCE_SERVICE */
    uint16_t port;                  /* of it */
    uint8_t said_protocol;          /* by its pods; used if the service does not say */
    uint8_t lesson; /* what was seen on its endpoints (model/lesson.h), if nobody says */
    slice_t client_namespace; /* of who asks; decides between producer and consumer routes */
    const struct resource *const *routes; /* routes of every kind and ServiceProfiles, in any
                                             order; those that are not attached to service and
                                             port are passed over */
    size_t n_routes;
    /* An HTTPFaultInjection by its name; NULL: there is none. The function may be NULL. */
    const struct fault_injection *(*fault)(void *arg, slice_t namespace, slice_t name);
    /* Looks a backend up; also called for the service itself. */
    void (*lookup)(void *arg, slice_t namespace, slice_t name, uint16_t port,
                   struct destination_backend *out);
    void *arg;
};

/* Fills *out (id, revision and is_stale are the caller's to set). Lists and copies are in
 * `arena`; other texts point into the resources, which must live as long. The rules:
 *   - a ServiceProfile with routes or dstOverrides decides alone (the one of the client's
 * namespace before the service's own): its routes in their order, then everything else; neither
 * routes nor the service's timeouts and retries are looked at, as in Linkerd. Without routes
 * and overrides it only names opaque ports;
 *   - HTTPRoutes and GRPCRoutes: those in the client's namespace (if it is not the service's)
 * replace the service's own; with a GRPCRoute among them HTTPRoutes are passed over; the older
 * comes first, then by namespace and name. TLSRoutes and TCPRoutes likewise, each for itself;
 * of TCPRoutes the oldest counts;
 *   - a route for the port and one for all ports count the same;
 *   - no route: one default rule to the service itself. With routes there is none: no match is
 * a 404;
 *   - timeouts and retries: destination_limits;
 *   - an ExtensionRef becomes what its HTTPFaultInjection says, nothing if that is missing;
 *   - balancing, breaker and limits of a backend are those of its own Service;
 *   - a backend that does not exist keeps its share with state 1.
 * MODEL_LIMIT (more rules or backends than a message may have), NOMEM. */
MUST_USE err_t destination_build(const struct destination_input *in, struct arena *arena,
                                 struct wire_destination *out);

/* The view of an address that no service owns: kind 2 with its one endpoint (a pod's own
 * address), or kind 0 if `endpoint` is NULL. */
MUST_USE err_t destination_of_address(slice_t target, struct wire_endpoint *endpoint,
                                      uint8_t protocol, struct arena *arena,
                                      struct wire_destination *out);

/* Whose word a limit of a rule is. */
enum destination_origin {
    ORIGIN_DEFAULT, /* nobody said anything */
    ORIGIN_RULE,    /* the rule's own stanza (a ServiceProfile's: its route) */
    ORIGIN_ROUTE,   /* an annotation of the route */
    ORIGIN_SERVICE  /* an annotation of the service */
};
struct destination_origins {
    enum destination_origin request, backend, idle, head, retry;
};

/* Sets request_ms, backend_ms, idle_ms and head_ms of *out and returns the retry policy in
 * force (NULL: the default). `rule` and `route` are NULL in the default rule. Timeouts: the
 * route's annotations together with the rule's stanza (the annotation wins for request, the
 * shorter one for an attempt), else the service's; retries: the rule's stanza, else the route's
 * annotations, else the service's. What the service says is taken whole or not at all
 * (linkerd.md 7.1). */
const struct wire_retry_policy *destination_limits(const struct route_rule *rule,
                                                   const struct resource_limits *route,
                                                   const struct resource_limits *service,
                                                   struct wire_rule *out,
                                                   struct destination_origins *origins);

/* Whether this route or profile is attached to the service and port (for `weft route` and for
 * finding out which topics a change touches). */
bool destination_is_attached(const struct resource *route, slice_t namespace, slice_t name,
                             uint16_t port);

/* Whether the profile declares this port opaque. */
bool destination_profile_is_opaque(const struct service_profile *profile, uint16_t port);

#endif
