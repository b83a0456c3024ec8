/* What ports of pods were seen to speak, told by the pods themselves (message learn).
 *
 * A lesson is kept by (namespace, workload, port, version of the application), put together from what the workload's
 * pods say (model/lesson.h), and never holds for another version. It is forgotten when a session of another version
 * is there and none of its own; of a workload that names no version, when its last session ends. */
#ifndef CONTROL_LEARNED_H
#define CONTROL_LEARNED_H

#include "broker/control/control.h"
#include "model/lesson.h"

#define LEARNED_MAX       100000u
#define LEARNED_PORTS_MAX 64u /* of one version of a workload */

/* Fills the table from the store. */
MUST_USE err_t learned_load(struct control *c);
void learned_free(struct control *c);

enum lesson learned_find(struct control *c, const struct session *s, uint16_t port);

/* The session's pod says what its port speaks: stored, published if it is news. BAD_REQUEST | BUSY (more ports than
 * are kept) | errors of the store */
MUST_USE err_t learned_add(struct control *c, const struct session *s, uint16_t port,
                           uint8_t protocol);

/* Sessions of the workload of `s` have come or gone: forgets what holds for none of them. Inside no transaction; a
 * store that refuses is tried again with the next session. */
void learned_expire(struct control *c, const struct session *s);

#endif
