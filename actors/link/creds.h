/* The link's own CURVE pair (STATE_DIR/link.key, 0600) and the join token. */
#ifndef LINK_CREDS_H
#define LINK_CREDS_H

#include "link/link.h"

struct creds_pair {
    char public_key[MAILBOX_KEY_TEXT], secret_key[MAILBOX_KEY_TEXT];
    bool is_token;
};

/* Reads or makes the key file. LINK_NO_KEY if what is there is not usable. */
MUST_USE err_t creds_load(struct link *l);

/* A token is there that may still open the door. */
bool creds_has_token(const struct link *l);

/* Which pair to connect with: while there is a token, its key and the own in turns (before the
 * join the token first; the answer to the join may have been lost; a mesh made anew knows no
 * old key). Else the own one. `attempt` counts from 0. */
void creds_choose(const struct link *l, unsigned attempt, struct creds_pair *out);

/* The broker knows the own key: noted in the file. */
void creds_joined(struct link *l);

/* The first certificate was issued: the token has no use any more. */
void creds_forget_token(struct link *l);

#endif
