/* The redirect of one network namespace: the nft ruleset that brings an application's TCP
 * connections to weft-proxy. One inet table "weft" for IPv4 and IPv6, written as a whole in one
 * transaction, so that applying it twice, or over an older one, leaves exactly this.
 *
 *   outbound (nat, output)      not TCP, uid of Weft, interface lo, skipped ports: untouched;
 *                               everything else -> outbound port
 *   inbound (nat, prerouting)   not TCP, interface lo, skipped ports: untouched;
 *                               everything else -> inbound port
 *
 * The original destination stays readable (SO_ORIGINAL_DST). UDP is not touched.
 */
#ifndef CLI_REDIRECT_H
#define CLI_REDIRECT_H

#include "cli/trouble.h"
#include "kit/buf.h"

#include <stdbool.h>
#include <stdint.h>

#define REDIRECT_UID          2102u
#define REDIRECT_DEFAULT_SKIP "4567,4568" /* as Linkerd: MySQL Galera's own traffic */

struct redirect_conf {
    uint16_t outbound_port, inbound_port, admin_port;
    uint32_t uid;             /* whose connections are left alone */
    const char *skip_inbound; /* "4567,9000-9010" or ""; the admin port is always skipped */
    const char *skip_outbound;
    bool ipv6; /* false: IPv6 is left alone (it is then neither encrypted nor measured) */
};

void redirect_conf_default(struct redirect_conf *c);

/* Appends the ruleset as text for `nft -f`. USAGE if a port list is malformed or a port is 0.
 */
MUST_USE err_t redirect_print(const struct redirect_conf *c, struct buf *out,
                              struct trouble *why);

/* In the namespace of the calling process, or in the named one (`ip netns`) if netns is not
 * NULL. */
MUST_USE err_t redirect_apply(const struct redirect_conf *c, const char *netns,
                              struct trouble *why);
MUST_USE err_t redirect_remove(const char *netns,
                               struct trouble *why); /* also fine if there is none */

#endif
