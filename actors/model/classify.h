/* Whether a response counts as a success, and into which bucket its latency goes. */
#ifndef MODEL_CLASSIFY_H
#define MODEL_CLASSIFY_H

#include "wire/wire.h"

#include "kit/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* gRPC status codes by their numbers. */
enum {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_ALREADY_EXISTS = 6,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_FAILED_PRECONDITION = 9,
    GRPC_ABORTED = 10,
    GRPC_OUT_OF_RANGE = 11,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_DATA_LOSS = 15,
    GRPC_UNAUTHENTICATED = 16,
    GRPC_STATUSES = 17
};

/* What is known when an exchange is over. */
struct classify_end {
    uint16_t status; /* HTTP status; 0: there was no answer at all */
    bool is_grpc;    /* the request's content-type begins with application/grpc */
    bool has_grpc;   /* a grpc-status came, in the head or the trailers */
    uint32_t grpc_status;
    bool was_cut; /* reset, timeout or connection lost before the end */
};

/* True: success. HTTP: 5xx is failure (4xx is the client's doing). gRPC: statuses 2, 4, 7, 13,
 * 14, 15 are failures, a number outside of the list too. A stream that was cut, or had no
 * answer, is failure. Unlike Linkerd, a gRPC stream that ends without grpc-status is a failure:
 * it violates the protocol, and clients report it as an error. */
bool classify_is_success(const struct classify_end *end);

/* The same with the rule's classes (ServiceProfile responseClasses): the first one whose range has the
 * HTTP status decides, whatever a grpc-status says; where none fits, as above. What was cut, or had no
 * answer, is failure all the same. `n` may be 0. */
bool classify_is_success_by(const struct classify_end *end,
                            const struct wire_response_class *classes, size_t n);

/* What the head of a response alone says, for a retry before any of it is passed on: `end` as far as it
 * is known (has_grpc: the head carries a grpc-status, i.e. trailers-only). OPEN: a gRPC response whose
 * trailers decide. */
enum classify_head { CLASSIFY_OPEN, CLASSIFY_SUCCESS, CLASSIFY_FAILURE };
enum classify_head classify_head(const struct classify_end *end,
                                 const struct wire_response_class *classes, size_t n);

/* "application/grpc", alone or with +suffix or ;parameters (not application/grpc-web). */
bool classify_is_grpc(slice_t content_type);

/* Decimal grpc-status 0..2^31; false if it is not a number (treat as UNKNOWN). */
bool classify_parse_grpc(slice_t text, uint32_t *out);

/* "UNAVAILABLE" for 14; "" outside of the list. */
const char *classify_grpc_name(uint32_t status);

/* Linkerd's buckets of response_latency_ms: upper bounds (inclusive) in milliseconds, the last
 * one being infinite and not in this table. */
#define CLASSIFY_BUCKETS 26
extern const uint32_t classify_bucket_ms[CLASSIFY_BUCKETS - 1];

/* Which bucket this latency is counted in: 0 .. CLASSIFY_BUCKETS - 1. */
unsigned classify_bucket(uint64_t latency_us);

#endif
