/* What belongs to a service: the objects that name it (routes, profiles, rate limits, slices)
 * and the sessions that serve it, so that a view costs what the service has and not what the
 * mesh has. */
#ifndef CONTROL_ATTACHED_H
#define CONTROL_ATTACHED_H

#include "broker/control/control.h"

struct attached {
    char name[320];          /* hash key: NS/NAME of the service, which need not exist */
    struct object **objects; /* lent; in no order */
    size_t n_objects, cap_objects;
    struct session **sessions; /* lent; each once */
    size_t n_sessions, cap_sessions;
    UT_hash_handle hh;
};

/* Whatever enters or leaves control.objects and control.sessions. Without memory they end the
 * process, as the hash tables do: a view without a part of its rules would be worse. */
void attached_add_object(struct control *c, struct object *o);
void attached_drop_object(struct control *c, struct object *o);
void attached_add_session(struct control *c, struct session *s);
void attached_drop_session(struct control *c, struct session *s);

/* NULL: nothing belongs to it. */
const struct attached *attached_find(const struct control *c, slice_t ns, slice_t name);

/* The nth (from 0) service that an object belongs to, possibly one that was told before; false
 * if there are not so many. */
bool attached_parent(const struct resource *r, size_t nth, slice_t *ns, slice_t *name);

#endif
