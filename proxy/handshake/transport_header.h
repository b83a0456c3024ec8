/* Linkerd's transport header on direct connections between pods (docs: linkerd wire
 * compatibility).
 *
 * After the TLS handshake (ALPN transport.l5d.io/v1) the client sends a 23-byte preface, a
 * 4-byte big endian length and a protobuf message: port = field 1 (int32), name = field 2
 * (string), session protocol = field 3 (message, one of: field 1 HTTP/1, field 2 HTTP/2).
 */
#ifndef PROXY_HANDSHAKE_TRANSPORT_HEADER_H
#define PROXY_HANDSHAKE_TRANSPORT_HEADER_H

#include "kit/buf.h"
#include "kit/err.h"
#include "kit/slice.h"

#define TRANSPORT_ALPN       "transport.l5d.io/v1"
#define TRANSPORT_HEADER_MAX 65536

enum session_protocol { SESSION_OPAQUE, SESSION_HTTP1, SESSION_HTTP2 };

struct transport_header {
    uint16_t port;
    slice_t name; /* empty: the pod's own port */
    enum session_protocol session;
};

MUST_USE err_t transport_header_print(const struct transport_header *h, struct buf *out);

/* STEP_DONE: *out is filled (name points into `bytes`), *used is its length. STEP_LATER: more
 * bytes needed. STEP_FAILED: *why is MALFORMED or TOO_BIG. Unknown protobuf fields are skipped.
 */
enum step transport_header_parse(slice_t bytes, struct transport_header *out, size_t *used,
                                 err_t *why);

#endif
