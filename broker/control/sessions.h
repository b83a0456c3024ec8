/* Pods and their leases. */
#ifndef CONTROL_SESSIONS_H
#define CONTROL_SESSIONS_H

#include "broker/control/control.h"

/* What the broker needs longer than the lease after its own restart: links come back within
 * their longest reconnect interval (5 s) and a second of jitter. */
#define SESSIONS_RESUME_EXTRA_MS 6000u

/* Fills the table from the store; every session is RESUMABLE with a lease that begins now. */
MUST_USE err_t sessions_load(struct control *c);
void sessions_free(struct control *c);

/* hello on a connection of `key`: checks it, stores what is new, (re)binds the session to
 * `route`. The watched topics of an earlier connection are forgotten. *why: the field that was
 * refused. WRONG_NAME | BAD_HELLO | TOO_MANY_SESSIONS | NO_FREE_ADDRESS | errors of the store |
 * NOMEM */
MUST_USE err_t sessions_hello(struct control *c, struct link_key *key, slice_t route,
                              const struct wire_hello *hello, struct session **out,
                              const char **why);

/* The checks of hello alone (also for a hello with a join token). */
MUST_USE err_t sessions_check_hello(const struct wire_hello *hello, const char **why);

/* Any message came: the lease begins anew. */
void sessions_heard(struct control *c, struct session *s);

/* The pod's clock; differences above 30 s become an event, once per direction of change. */
void sessions_note_clock(struct control *c, struct session *s, int64_t wall_ms);

MUST_USE err_t sessions_set_serving(struct control *c, struct session *s, bool is_serving);

/* Ends the session: endpoints go, the row is closed, an event is written. Frees s. If the store
 * refuses, the session stays (RESUMABLE) and is tried again with the next tick. */
void sessions_end(struct control *c, struct session *s, const char *why);

/* The connection is gone (an answer could not be delivered); the lease goes on. */
void sessions_lost_route(struct session *s);

/* Every second: ends sessions whose lease is over; writes acked and heard of those that moved.
 */
void sessions_tick(struct control *c);

unsigned sessions_live(const struct control *c);

#endif
