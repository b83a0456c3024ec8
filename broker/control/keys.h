/* Who may connect to the broker's CURVE sockets: registered link keys and unexpired join
 * tokens.
 *
 * The name ZAP gives a peer ("user" of its messages) is 'L' + link key or 'T' + token id; it is
 * what a message is judged by, never the routing id.
 */
#ifndef CONTROL_KEYS_H
#define CONTROL_KEYS_H

#include "broker/control/control.h"

/* Reads or makes STATE/broker/curve.key (0600; two lines: public, secret) into c. A file that
 * is not ours, readable by others or malformed is an error, never overwritten. */
MUST_USE err_t keys_load_own(struct control *c);

/* Fills the tables from the store. */
MUST_USE err_t keys_load(struct control *c);
void keys_free(struct control *c);

mailbox_allow_fn keys_allow; /* arg: struct control */

/* The key or token behind a message's user; NULL if it is gone. */
struct link_key *keys_of_user(struct control *c, const char *user);
struct join_token *keys_token_of_user(struct control *c, const char *user);
struct link_key *keys_find(struct control *c, const char *public_key);

/* After the commit of the rows: the same in memory. NULL without memory. */
struct link_key *keys_add(struct control *c, const char *public_key, const char *ns,
                          const char *service_account, const char *pod);
void keys_remove(struct control *c, struct link_key *k);
struct join_token *keys_add_token(struct control *c, const struct mesh_token *t);

/* Every second: forgets expired tokens, writes at most one KEY_REFUSED event a minute. */
void keys_tick(struct control *c);

#endif
