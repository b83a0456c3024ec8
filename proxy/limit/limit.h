/* What the ports of this pod's application take: requests per second
 * (HTTPLocalRateLimitPolicy), and connections to it.
 *
 * The control plane says it with the message `ports`; a change holds for the next request, also
 * on connections that are open, and what was counted stays counted. All workers of the pod
 * count together (shared.h).
 *
 * Order of a request: the total has room? the client's own rate (the first override that names
 * it, exclusively, else the rate of every identity) takes it? then the total takes it, too.
 * What a client's own rate refuses is not counted against the total: one greedy client does not
 * starve the others. Clients without an identity share one bucket. */
#ifndef PROXY_LIMIT_LIMIT_H
#define PROXY_LIMIT_LIMIT_H

#include "kit/attr.h"
#include "kit/err.h"
#include "kit/hash.h"
#include "proxy/limit/shared.h"
#include "wire/wire.h"

struct limits;
struct limit_rate;

/* A port of the application, for the life of its references. */
struct limit_port {
    UT_hash_handle hh;
    struct limits *limits;
    uint16_t port;
    unsigned refs;
    struct limit_rate *rate;           /* NULL: every request may pass */
    uint32_t connections_max;          /* to the application; 0: no limit */
    struct limit_counter *connections; /* NULL: none was ever wanted, or there was no room */
};

/* What is known about a client on this port: zero it with the connection. */
struct limit_client {
    uint64_t serial; /* of the rate it was looked up for */
    uint64_t key, interval_ns;
    uint32_t per_s;
};

enum limit_scope { LIMIT_TOTAL, LIMIT_IDENTITY };
const char *limit_scope_name(enum limit_scope s); /* "total", "identity": Linkerd's words */

struct limit_refusal {
    slice_t policy; /* KIND/NS/NAME; valid during the turn */
    enum limit_scope scope;
    uint32_t per_s;         /* the rate that was met */
    uint32_t retry_after_s; /* at least 1 */
};

/* `shared` is lent. */
MUST_USE err_t limits_new(struct limit_shared *shared, struct limits **out);
void limits_free(struct limits **l); /* after every reference to a port */

/* The ports message in force. What is not usable (no memory) stays as it was. */
void limits_set_ports(struct limits *l, const struct wire_ports *m);

/* A reference to the port's entry; NULL: no memory. */
struct limit_port *limits_port(struct limits *l, uint16_t port);
void limit_port_drop(struct limit_port **p); /* *p may be NULL */

/* Whether a request of this client may pass now; only for ports with a rate. `identity`: ""
 * without one. now_ns: monotonic. */
bool limit_admit(struct limit_port *p, struct limit_client *c, slice_t identity,
                 uint64_t now_ns, struct limit_refusal *why);

#endif
