/* Network of an embedded mesh: the bridge in the root namespace, a namespace per pod on it.
 *
 * A pod's namespace has lo, eth0 (a veth on the bridge) with one IPv4 and one IPv6 address, a
 * default route to the bridge, and a dead end "weft-probe" that owns the reserved probe
 * addresses (capture.h): whatever is sent there without being captured vanishes inside the
 * namespace.
 */
#ifndef CLI_NETNS_H
#define CLI_NETNS_H

#include "cli/plan.h"

#include <stdbool.h>

/* Makes the bridge with its addresses and the table that keeps the bridge's traffic to itself.
 * Idempotent. The caller has asked netns_bridge_is_strange(). */
MUST_USE err_t netns_bridge_up(const struct plan *p, bool ipv6, struct trouble *why);

/* An interface of that name exists and does not carry Weft's mark (its alias). */
bool netns_bridge_is_strange(const struct plan *p);

/* Removes the table and the bridge. What is gone already is fine. A bridge without the mark is
 * removed only if `is_recorded`: a crash between making and marking leaves such a one. */
MUST_USE err_t netns_bridge_down(const struct plan *p, bool is_recorded, struct trouble *why);

/* Makes namespace `netns` for pod number `n`. On failure nothing is left. */
MUST_USE err_t netns_add(const struct plan *p, const char *netns, uint32_t n, bool ipv6,
                         struct trouble *why);

/* Removes the namespace (its veth goes with it). What is gone already is fine. */
MUST_USE err_t netns_del(const char *netns, struct trouble *why);

/* Whether the namespace has the dead end that only Weft's have. */
bool netns_is_ours(const char *netns);

/* "/run/netns/NAME" */
void netns_path(const char *netns, char out[300]);

/* Moves the calling thread into the namespace. */
MUST_USE err_t netns_enter(const char *netns, struct trouble *why);

/* Calls fn for each namespace whose name begins with the mesh's prefix; returns how many. */
unsigned netns_each(const struct plan *p, void (*fn)(void *arg, const char *netns), void *arg);

bool netns_machine_has_ipv6(void);

#endif
