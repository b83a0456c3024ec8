/* Resources: what may be stored in the mesh, checked to the last field, as C structs.
 *
 * A table of kinds (resource.c) names the apiVersions and the function that checks each. Every
 * refusal names the field and the reason. What is not known is refused, with a guess at what
 * was meant; status and the metadata that Kubernetes adds are ignored.
 */
#ifndef MODEL_RESOURCE_H
#define MODEL_RESOURCE_H

#include "model/why.h"

#include "wire/wire.h"

#include "kit/arena.h"

#include <jansson.h>

enum resource_kind {
    RESOURCE_SERVICE,
    RESOURCE_ENDPOINT_SLICE,
    RESOURCE_HTTP_ROUTE,
    RESOURCE_GRPC_ROUTE,
    RESOURCE_TLS_ROUTE,
    RESOURCE_TCP_ROUTE,
    RESOURCE_SERVICE_PROFILE,
    RESOURCE_RATE_LIMIT,      /* HTTPLocalRateLimitPolicy */
    RESOURCE_FAULT_INJECTION, /* HTTPFaultInjection */
    RESOURCE_KINDS
};

/* Values of protocol fields here and in messages. */
enum {
    PROTOCOL_DETECT = 0,
    PROTOCOL_HTTP1 = 1,
    PROTOCOL_HTTP2 = 2,
    PROTOCOL_GRPC = 3,
    PROTOCOL_OPAQUE = 4,
    PROTOCOLS = 5
};

/* "detect", "http1", "http2", "grpc", "opaque"; and back (false if unknown). */
const char *protocol_name(uint8_t protocol);
bool protocol_parse(slice_t text, uint8_t *out);

/* What the annotations timeout.linkerd.io/, timeout.weft.io/, retry.linkerd.io/ and
 * retry.weft.io/ say. */
struct resource_limits {
    bool has_timeouts; /* any timeout annotation is there: none is inherited from the service */
    bool has_request;  /* timeout.linkerd.io/request is, perhaps as 0 */
    uint32_t request_ms, backend_ms, idle_ms, head_ms; /* 0 none */
    bool has_retry; /* any retry annotation is there: likewise */
    struct wire_retry_policy retry;
};

struct service_port {
    slice_t name;
    uint16_t port;
    uint8_t
        protocol; /* appProtocol, or PROTOCOL_OPAQUE if config.linkerd.io/opaque-ports has it */
    uint16_t target_port; /* 0: the same, or by name */
    slice_t target_name;
};

struct service {
    struct service_port *ports;
    size_t n_ports;
    slice_t cluster_ip; /* as written; empty: the mesh allots one */
    bool is_headless;   /* clusterIP: None */
    struct resource_limits limits;
    /* The annotations balancer.*, limit.weft.io/; has_: one of them is there. */
    bool has_balancing, has_breaker;
    struct wire_balancing balancing;
    struct wire_breaker breaker;
    uint32_t connections_max, waiting_max, app_connections_max; /* 0 none, default, none */
};

struct slice_endpoint {
    slice_t address; /* one entry per address */
    bool is_ready;
    slice_t zone, hostname;
};

struct endpoint_slice {
    slice_t service;            /* label kubernetes.io/service-name */
    struct service_port *ports; /* port: of the application; target_port unused */
    size_t n_ports;
    struct slice_endpoint *endpoints;
    size_t n_endpoints;
    uint32_t weight; /* of each of them: balancer.weft.io/weight, else 10000 */
};

struct route_parent {
    slice_t namespace, name; /* of the Service */
    uint16_t port;           /* 0: all ports */
};

/* What a filter points at: a mirror's service, or the HTTPFaultInjection (port 0) of an
 * ExtensionRef. */
struct route_ref {
    slice_t namespace, name;
    uint16_t port;
};

/* A filter that is not on the wire: replaced by what its HTTPFaultInjection says
 * (destination.c). */
enum { ROUTE_FILTER_EXTENSION = 200 };

struct route_filters {
    struct wire_filter *list;
    struct route_ref *refs; /* beside each of the list; empty names where there is nothing */
    size_t n;
};

struct route_backend {
    slice_t namespace, name;
    uint16_t port;
    uint32_t weight;
    struct route_filters filters;
};

struct route_rule {
    slice_t name;
    struct wire_match *matches; /* none: everything */
    size_t n_matches;
    struct route_filters filters;
    struct route_backend *backends; /* none: the parent itself */
    size_t n_backends;
    bool has_timeouts; /* the rule's own stanza */
    uint32_t request_ms, backend_ms;
    bool has_retry;
    struct wire_retry_policy retry;
};

/* HTTPRoute, GRPCRoute, TLSRoute (hosts: of the SNI; one rule), TCPRoute (one rule). */
struct route {
    struct route_parent *parents;
    size_t n_parents;
    struct wire_host_match *hosts; /* lower case */
    size_t n_hosts;
    struct route_rule *rules;
    size_t n_rules;
    struct resource_limits limits;
    uint32_t mirrors_max; /* mirror.weft.io/max-running; 0: 100 */
};

struct profile_route {
    slice_t name;
    struct wire_match *matches; /* the condition in disjunctive normal form */
    size_t n_matches;
    struct wire_response_class *classes;
    size_t n_classes;
    bool is_retryable;
    uint32_t timeout_ms; /* 0 none */
};

struct port_range {
    uint16_t low, high;
};

struct service_profile {
    slice_t service_namespace, service; /* from its name: SERVICE.NS.svc.DOMAIN */
    struct profile_route *routes;
    size_t n_routes;
    struct route_backend *overrides; /* dstOverrides; port 0: that of the request. Weights are
                                        thousandths */
    size_t n_overrides;
    struct port_range *opaque_ports;
    size_t n_opaque_ports;
    uint32_t budget_permille, budget_min_per_s, budget_ttl_ms; /* 0: the defaults */
};

struct rate_client {
    slice_t namespace, name; /* of a service account */
};

struct rate_exception {
    uint32_t per_s;
    struct rate_client *clients;
    size_t n_clients;
};

struct rate_policy {
    slice_t service; /* in the policy's namespace */
    uint16_t port;   /* 0: all ports */
    uint32_t total_per_s, identity_per_s;
    struct rate_exception *overrides;
    size_t n_overrides;
};

struct fault_injection {
    bool has_delay, has_abort; /* false also if its percent is 0 */
    struct wire_filter delay, abort;
};

#define RESOURCE_NOTES 8

struct resource {
    enum resource_kind kind;
    slice_t api_version, namespace, name; /* each with a NUL behind it */
    slice_t json;     /* canonical: sorted keys, without status and Kubernetes' own metadata */
    uint64_t created; /* order of age among routes; set by the caller (a revision), 0 after
                         parsing */
    const char
        *notes[RESOURCE_NOTES]; /* accepted, but something is not acted on; for a warning */
    size_t n_notes;
    union {
        struct service service;
        struct endpoint_slice endpoint_slice;
        struct route route; /* of all four kinds */
        struct service_profile profile;
        struct rate_policy rate;
        struct fault_injection fault;
    };
    struct arena arena; /* private: everything above */
};

/* Checks an object as people write it. `default_namespace` is for objects that name none.
 * MODEL_INVALID with why->path and why->reason, NOMEM. `object` is not needed afterwards. */
MUST_USE err_t resource_parse(const json_t *object, slice_t default_namespace,
                              struct resource **out, struct why *why);

/* The same from JSON text (MODEL_SYNTAX and MODEL_LIMIT too). */
MUST_USE err_t resource_parse_text(slice_t json, slice_t default_namespace,
                                   struct resource **out, struct why *why);
void resource_free(struct resource **r);

/* Only kind, namespace (defaulted) and name of an object, for messages about objects that are
 * not valid otherwise and for delete. Out strings are cut to their size; false if one is
 * missing. */
bool resource_identify(const json_t *object, slice_t default_namespace, char kind[65],
                       char namespace[64], char name[254]);

/* "HTTPRoute" and its plural for commands, "httproutes". */
const char *resource_kind_name(enum resource_kind kind);

/* HTTPRoute, GRPCRoute, TLSRoute or TCPRoute. */
bool resource_is_route(enum resource_kind kind);

/* Whether a filter of this route points at the HTTPFaultInjection of this name (in its own namespace). */
bool resource_uses_fault(const struct resource *r, slice_t fault);

/* A kind by its name, plural or short form ("HTTPRoute", "httproutes", "svc"), case ignored. */
bool resource_kind_find(slice_t text, enum resource_kind *out);

/* Durations: 10s, 250ms, 1m, 2h, 1d, and compounds as 1h30m; 0 alone. False: none of these, or
 * above 49 days (what fits the messages). */
bool duration_parse(slice_t text, uint32_t *ms);

#endif
