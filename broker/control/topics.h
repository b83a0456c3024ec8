/* Topics: what links watch, at which revision, and how news and losses are told
 * (docs/internals/control.md).
 *
 * A topic lives as long as a session watches it. When something changes, the topics it may
 * concern are marked; a bounded number of them is computed per turn of the loop, and one whose
 * bytes have changed gets the mesh's revision of that moment and a hint on the update feed.
 * control.settled is the revision up to which nothing is marked any more.
 */
#ifndef CONTROL_TOPICS_H
#define CONTROL_TOPICS_H

#include "broker/control/control.h"

void topics_init(struct control *c);
void topics_free(struct control *c);

/* Adds the topic to what the session watches (also fine when it does) and gives it: computed,
 * unless there is no memory. BAD_TOPIC | TOO_MANY_TOPICS | NOMEM. */
MUST_USE err_t topics_watch(struct control *c, struct session *s, slice_t name,
                            struct topic **out);
void topics_unwatch(struct control *c, struct session *s, slice_t name);
void topics_unwatch_all(struct control *c, struct session *s);
struct topic *topics_of(struct control *c, const struct session *s,
                        slice_t name); /* NULL: not watched */

/* What this session is sent of the topic: the shared payload, or one made for its pod, in *own
 * (to be done by the caller), if not everything fits. */
slice_t topics_payload(struct control *c, const struct topic *t, const struct session *s,
                       struct buf *own);

/* Marks a topic (by name); those in whose name or payload the text occurs (a service's name, an
 * address: what a view was computed from is named in it, so that this finds too many and never
 * too few); or all. */
void topics_mark(struct control *c, const char *name);
void topics_mark_text(struct control *c, const char *text);
void topics_mark_all(struct control *c);

/* Nothing is marked and the mesh's revision moved: settled follows. Call after every commit. */
void topics_settle(struct control *c);

/* Has the session applied everything it watches? Notes the revision in s->acked if so. */
bool topics_is_caught_up(struct control *c, struct session *s);

/* The periodic digest; also called by its timer. */
void topics_publish_digest(struct control *c);

/* For tests: computes all that is marked, now. */
void topics_run_dirty(struct control *c);

#endif
