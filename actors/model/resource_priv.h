/* Shared by the files that check resources. */
#ifndef MODEL_RESOURCE_PRIV_H
#define MODEL_RESOURCE_PRIV_H

#include "model/look.h"
#include "model/resource.h"

/* Each fills its part of ctx->resource; `root` is the whole object, whose metadata is checked
 * already. */
MUST_USE err_t resource_check_service(const struct look *root, struct resource *r);
MUST_USE err_t resource_check_endpoint_slice(const struct look *root, struct resource *r);
MUST_USE err_t resource_check_http_route(const struct look *root, struct resource *r);

/* The annotations timeout.linkerd.io/ and retry.linkerd.io/ of the object; `is_route` refuses
 * what is only for GRPCRoutes. Unknown names below these prefixes are refused. */
MUST_USE err_t resource_check_limits(const struct look *root, bool is_route,
                                     struct resource_limits *out);

/* "5xx,gateway-error,503,500-599" */
MUST_USE err_t resource_parse_statuses(const struct look *at, struct wire_retry_policy *out);

/* An annotation's value, if it is there. `up` becomes the parents of *out (metadata,
 * annotations) and must live as long; up[1].v is NULL if there are no annotations at all. */
bool resource_annotation(const struct look *root, const char *name, struct look up[2],
                         struct look *out);

/* Remembers that something is accepted but not acted on; `note` is a literal. */
void resource_note(struct resource *r, const char *note);

#endif
