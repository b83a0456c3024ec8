/* What the pod knows per topic, and who of its processes uses it. A new payload is looked at
 * whole before it takes the place of the old one; the old one stays in force until then. */
#ifndef LINK_VIEW_H
#define LINK_VIEW_H

#include "link/link.h"

struct view *view_find(struct link *l, slice_t topic);
struct view *view_by_hash(struct link *l, uint64_t hash);

/* Finds or makes; at the limit an idle one makes room, else LINK_FULL. */
MUST_USE err_t view_get(struct link *l, slice_t topic, struct view **out);
void view_drop(struct link *l, struct view *v);
void view_free_all(struct link *l);

/* Takes a payload (copied). MALFORMED and nothing changed if it is not what the topic must
 * hold. */
MUST_USE err_t view_take(struct link *l, struct view *v, uint64_t revision, slice_t payload);

/* A user of the view; the same (route, target) twice is one. NULL at the limit. */
struct interest *view_add_interest(struct link *l, struct view *v, slice_t route,
                                   const char *target);
void view_remove_interest(struct link *l, struct view *v, slice_t route, const char *target);
/* The process behind the route is gone. */
void view_forget_route(struct link *l, slice_t route);

/* Sends what is known to one user, or to all of them. */
void view_tell(struct link *l, struct view *v, struct interest *i);
void view_tell_all(struct link *l, struct view *v);

/* A user has put a revision in force. */
void view_applied(struct link *l, struct view *v, slice_t route, const char *target,
                  uint64_t revision);

/* The sum over all watched views of what is in force (ack.applied). */
uint64_t view_sum(struct link *l);
/* Looks whether every user of v has applied what is held. */
void view_settle(struct link *l, struct view *v);

/* The topic of a target as a process asked for it; false if it is not a target. */
bool view_topic_of(const struct link *l, slice_t target, char topic[WIRE_TOPIC_MAX + 1]);

/* Answers `unresolved` to users that have waited too long, drops views idle for a minute. */
void view_tick(struct link *l);

#endif
