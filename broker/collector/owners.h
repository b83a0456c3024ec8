/* Who is at the other end of the collector's sockets.
 *
 * The mailbox carries a peer's name of at most 63 bytes with every message: here it is the
 * peer's public key, and this table knows whose it is. Pods' keys are those the broker
 * registered; subscribers' keys are those that `weft feed-key` made. Everything else is refused.
 */
#ifndef COLLECTOR_OWNERS_H
#define COLLECTOR_OWNERS_H

#include "kit/err.h"
#include "kit/mailbox.h"

#include <stdbool.h>

struct keys;
struct owners;

/* `find` looks a key up (store/keys.h: keys_find with its `arg`); tests give their own. */
struct key_owner;
typedef bool owners_find_fn(void *arg, const char *public_key, struct key_owner *out);

MUST_USE err_t owners_new(owners_find_fn *find, void *arg, struct owners **out);
void owners_free(struct owners **o);

/* Who may connect to the pods' and to the subscribers' socket: writes the peer's key to user. */
bool owners_allow_pod(struct owners *o, const struct mailbox_peer *peer, char user[64]);
bool owners_allow_subscriber(struct owners *o, const struct mailbox_peer *peer, char user[64]);

/* Whether a message of `user` may speak for this pod. */
bool owners_is_pod(const struct owners *o, const char *user, slice_t ns, slice_t pod);

#endif
