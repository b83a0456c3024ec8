/* The named reasons for which bytes of a peer are refused, and the answer a client gets for
 * them. */
#ifndef PROXY_HTTP_REFUSAL_H
#define PROXY_HTTP_REFUSAL_H

#include "kit/arena.h"
#include "model/code.h"
#include "proxy/http/head.h"

#include <stddef.h>
#include <stdint.h>

enum refusal {
    REFUSED_NOTHING,
#define REFUSAL(name, status, text) REFUSED_##name,
#include "proxy/http/tbl/refusals.h"
#undef REFUSAL
    REFUSALS
};

/* The entry of model/tbl/codes.h that goes with it, for requests and for answers. */
const struct code_info *refusal_code(enum refusal r, bool is_answer);
const char *refusal_text(enum refusal r); /* the clause of the table */

/* Adds what a refused client is told to an answer's head (Proxy-Status, weft-code,
 * l5d-proxy-error, like proxy/answer does) and sets its status and content_length 0. NOMEM. */
MUST_USE err_t refusal_fill(enum refusal r, struct arena *a, struct head *h);
/* The same, naming the field at fault (bytes of a peer: what is no name is left out; empty: none). */
MUST_USE err_t refusal_fill_for(enum refusal r, slice_t field, struct arena *a, struct head *h);
/* Makes of that answer one that a gRPC client understands: 200 with grpc-status and grpc-message. NOMEM. */
MUST_USE err_t refusal_make_grpc(enum refusal r, slice_t field, struct arena *a, struct head *h);
/* The clause of the table with the field at fault, in the arena; the clause alone if there is none, or no memory. */
const char *refusal_text_for(enum refusal r, slice_t field, struct arena *a);

/* The standard reason phrase, or "" for a status without one. */
slice_t http_reason(uint16_t status);

#endif
