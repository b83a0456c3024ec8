/* The addresses of an embedded mesh on one machine, computed from one IPv4 network.
 *
 * NET/P, P from 16 to 24: base + 1 is the bridge, base + 2 .. the middle are pods, the upper
 * half are services. IPv6 is a unique local /48 made from the same network: ::1 is the bridge,
 * subnet 0 has the pods (last part = the pod's number), subnet 8000 the services.
 */
#ifndef CLI_PLAN_H
#define CLI_PLAN_H

#include "cli/trouble.h"

#include <stdbool.h>
#include <stdint.h>

#define PLAN_DEFAULT_NET    "10.214.0.0/16"
#define PLAN_DEFAULT_BRIDGE "weft0"
#define PLAN_ADDRESS_TEXT   48 /* room for any address or network as text */

struct plan {
    uint32_t base;        /* host byte order */
    unsigned prefix;      /* 16..24 */
    uint16_t net6[3];     /* the /48 */
    char bridge_name[16]; /* IFNAMSIZ */
};

/* `net` is "A.B.C.D/P" with no bit set behind P. A bridge's name is up to 11 lower-case letters
 * and digits, starts with a letter and is not "weft" itself (names of namespaces and tables are
 * made from it). */
MUST_USE err_t plan_parse(struct plan *out, const char *net, const char *bridge,
                          struct trouble *why);

void plan_net(const struct plan *p, char out[PLAN_ADDRESS_TEXT]);      /* 10.214.0.0/16 */
void plan_net6(const struct plan *p, char out[PLAN_ADDRESS_TEXT]);     /* fd77:…::/48 */
void plan_services(const struct plan *p, char out[PLAN_ADDRESS_TEXT]); /* 10.214.128.0/17 */
void plan_bridge(const struct plan *p, char out[PLAN_ADDRESS_TEXT]);   /* 10.214.0.1 */
void plan_bridge6(const struct plan *p, char out[PLAN_ADDRESS_TEXT]);  /* fd77:…::1 */
uint32_t plan_pods(const struct plan *p); /* how many there may be */
/* Pod number `n`, 0 <= n < plan_pods(p). */
void plan_pod(const struct plan *p, uint32_t n, char out[PLAN_ADDRESS_TEXT]);
void plan_pod6(const struct plan *p, uint32_t n, char out[PLAN_ADDRESS_TEXT]);

/* Names made from the bridge's: the default mesh's begin with "weft", another's with its
 * bridge. */
void plan_netns(const struct plan *p, const char *ns, const char *pod, char out[256]);
void plan_netns_prefix(const struct plan *p, char out[32]); /* "weft-" */
void plan_table(const struct plan *p, char out[32]); /* nft table in the root namespace */

#endif
