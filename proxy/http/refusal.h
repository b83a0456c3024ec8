/* The named reasons for which bytes of a peer are refused, and the answer a client gets for them. */
#ifndef PROXY_HTTP_REFUSAL_H
#define PROXY_HTTP_REFUSAL_H

#include "kit/slice.h"

#include <stddef.h>
#include <stdint.h>

enum refusal {
    REFUSED_NOTHING,
#define REFUSAL(name, status, text) REFUSED_##name,
#include "proxy/http/tbl/refusals.h"
#undef REFUSAL
    REFUSALS
};

const char *refusal_name(enum refusal r); /* the stable code */
const char *refusal_text(enum refusal r);
uint16_t refusal_status(enum refusal r);

/* The value of a Proxy-Status field for it (RFC 9209), written to dst (cap >= 256 is enough). */
slice_t refusal_proxy_status(enum refusal r, char *dst, size_t cap);

/* The standard reason phrase, or "" for a status without one. */
slice_t http_reason(uint16_t status);

#endif
