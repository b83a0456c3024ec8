/* Answers that the mesh makes itself: no content, and who, why and what in the head.
 *
 *   Proxy-Status (RFC 9209): weft-outbound; error=connection_refused; next-hop="10.0.0.7:8080";
 * details="W2001 CONNECT_REFUSED: ..." l5d-proxy-error: the same sentence        weft-code:
 * W2001 weft-delivered: no|yes|unknown            towards proxies of the mesh only
 *
 * A gRPC request gets HTTP 200 with grpc-status and grpc-message instead (trailers-only). */
#ifndef PROXY_ANSWER_ANSWER_H
#define PROXY_ANSWER_ANSWER_H

#include "model/code.h"
#include "proxy/http/head.h"
#include "proxy/tally.h"

enum delivered {
    DELIVERED_NO,
    DELIVERED_YES,
    DELIVERED_UNKNOWN
}; /* as on the wire to weft-retry */
const char *delivered_name(enum delivered d);
/* False: not one of the three words. */
bool delivered_parse(slice_t text, enum delivered *out);

struct answer {
    enum code code;
    enum direction direction;
    bool is_grpc;
    slice_t details;  /* what is special in this case, e.g. the rule; may be empty */
    slice_t next_hop; /* endpoint tried; may be empty */
    uint16_t status;  /* 0: the code's */
    uint8_t grpc_status;    /* 0: the code's */
    uint32_t retry_after_s; /* 0: no Retry-After */
    slice_t location; /* redirects; else empty */
    bool tells_delivered;
    enum delivered delivered;
};

/* Fills *out (fields in the arena). NOMEM. */
MUST_USE err_t answer_build(const struct answer *a, struct arena *arena, struct head *out);

/* grpc-status and grpc-message as trailers, for an answer that is cut after its head. Returns
 * how many of fields[2] were filled. */
size_t answer_grpc_trailers(enum code code, slice_t details, struct arena *arena,
                            struct field fields[2]);

#endif
