/* Shared by the files that check resources. */
#ifndef MODEL_RESOURCE_PRIV_H
#define MODEL_RESOURCE_PRIV_H

#include "model/look.h"
#include "model/resource.h"

/* What a message may carry (messages.def), and the Gateway API's own limits where they are
 * lower. */
enum {
    RESOURCE_PARENTS = 32,
    RESOURCE_HOSTS = 32,
    RESOURCE_RULES = 64,
    RESOURCE_MATCHES = 64,
    RESOURCE_VALUES = 16,
    RESOURCE_FILTERS = 16,
    RESOURCE_EDITS = 16, /* of each verb: 48 in the message */
    RESOURCE_BACKENDS = 32
};

/* Each fills its part of ctx->resource; `root` is the whole object, whose metadata is checked
 * already. */
MUST_USE err_t resource_check_service(const struct look *root, struct resource *r);
MUST_USE err_t resource_check_endpoint_slice(const struct look *root, struct resource *r);
MUST_USE err_t resource_check_route(const struct look *root, struct resource *r);
MUST_USE err_t resource_check_profile(const struct look *root, struct resource *r);
MUST_USE err_t resource_check_rate(const struct look *root, struct resource *r);
MUST_USE err_t resource_check_fault(const struct look *root, struct resource *r);

/* ---- parts of routes ---- */

bool resource_is_linkerd_group(const struct look *at);

/* group, kind, namespace and name of a reference that must name a Service; `fallback` is the
 * kind that counts if none is given. */
MUST_USE err_t resource_check_service_ref(const struct look *ref, const char *fallback,
                                          slice_t *namespace, slice_t *name);

/* matches of an HTTPRoute's or GRPCRoute's rule. */
MUST_USE err_t resource_check_matches(const struct look *rule, struct route_rule *out);

/* filters of a rule or backendRef of this kind of route; `rule` has its matches already. */
MUST_USE err_t resource_check_filters(const struct look *of, const struct route_rule *rule,
                                      struct route_filters *out);

/* name of a header field in lower case; a method; a regular expression that can be compiled. */
MUST_USE err_t resource_check_header_name(const struct look *at, slice_t *out);
MUST_USE err_t resource_check_method(const struct look *at, slice_t *out);
MUST_USE err_t resource_check_regex(const struct look *at, slice_t pattern);

/* ---- annotations ---- */

/* An annotation's value, if it is there. `up` becomes the parents of *out (metadata,
 * annotations) and must live as long; up[1].v is NULL if there are no annotations at all. */
bool resource_annotation(const struct look *root, const char *name, struct look up[2],
                         struct look *out);

/* Below our prefixes nothing is overlooked: unknown names, and names that say nothing for an
 * object of this kind, are refused. */
MUST_USE err_t resource_check_annotations(const struct look *root);

/* Timeouts and retries. */
MUST_USE err_t resource_check_limits(const struct look *root, struct resource_limits *out);

/* Balancing, breaker and connection limits of a Service. */
MUST_USE err_t resource_check_balancing(const struct look *root, struct service *s);

/* "5xx,gateway-error,503,500-599" */
MUST_USE err_t resource_parse_statuses(const struct look *at, struct wire_retry_policy *out);

/* Texts of annotations. */
MUST_USE err_t resource_parse_whole(const struct look *at, uint64_t min, uint64_t max,
                                    uint32_t *out);
/* "0.2" -> 200; min and max in permille. */
MUST_USE err_t resource_parse_ratio(const struct look *at, uint32_t min, uint32_t max,
                                    uint32_t *permille);
MUST_USE err_t resource_parse_bool(const struct look *at, bool *out); /* Go's forms */

/* The next word of a comma list; false at the end. */
bool resource_next_word(slice_t *rest, slice_t *word);

/* "8000-8010" or "25"; false: neither. */
bool resource_parse_range(slice_t word, struct port_range *out);

/* Remembers that something is accepted but not acted on; `note` is a literal. */
void resource_note(struct resource *r, const char *note);

#endif
