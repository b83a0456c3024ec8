/* The broker's side of weft-authority: join tokens, certificates, trust anchors.
 *
 * Requests are errands: remembered under an id of our own until the answer comes, 10 s at most,
 * 4096 at once; then "UNAVAILABLE" or "refused" is the answer. The broker passes proofs on and
 * can forge none.
 */
#ifndef CONTROL_ISSUER_H
#define CONTROL_ISSUER_H

#include "broker/control/control.h"

MUST_USE err_t issuer_open(struct control *c); /* the mailbox, and the anchors last seen */
void issuer_close(struct control *c);

/* A link's certify on its way up. `route` is answered with signed_. */
void issuer_sign(struct control *c, struct session *s, const struct wire_sign *ask);

/* The CLI's token: answered with token_answer or refused. */
void issuer_token(struct control *c, slice_t route, const struct wire_token *ask);

void issuer_tick(struct control *c); /* every second */

#endif
