/* The session with the broker. States: session.c. */
#ifndef LINK_SESSION_H
#define LINK_SESSION_H

#include "link/link.h"

void session_start(struct link *l);
void session_stop(struct link *l); /* closes the mailboxes */

/* Every 200 ms; once a second while nothing is waited for. */
void session_tick(struct link *l);
/* Something is waited for from now on: the next tick comes soon. */
void session_hurry(struct link *l);

/* The broker shall send this view from now on (now, or as soon as it is there). */
void session_watch(struct link *l, struct view *v);
void session_unwatch(struct link *l, struct view *v);

/* What is in force may have changed: an ack follows in this turn if it has. */
void session_ack_soon(struct link *l);

/* A proxy found what a port of this pod speaks (0: several): the broker is told what is news, and all of it anew in
 * every session. */
void session_spoken(struct link *l, uint16_t port, uint8_t protocol);

/* The pod takes (or no longer takes) traffic. */
void session_serving(struct link *l, bool is_serving);

/* Serving no more, and goodbye; done when it calls actor_drained. */
void session_drain(struct link *l, uint64_t ms);

/* A certificate request on its way up; answers `certificate` to the route in any case. With a
 * join token and before the first session it is kept (bounded in time and number), else
 * UNAVAILABLE while the broker is away. */
void session_certify(struct link *l, slice_t route, const struct wire_certify *ask);

/* Tells telemetry whether the session is open and whether a view is held; also when telemetry
 * comes back. */
void session_tell_state(struct link *l);

/* "down", "hello", "sync", "live". */
const char *session_state_name(enum link_state s);

/* For unit tests: what arrives on the update feed. */
void session_on_hint(struct link *l, const struct wire_hint *h);
void session_on_digest(struct link *l, const struct wire_digest *d);

#endif
