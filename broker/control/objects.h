/* Resources: checked by the model, stored, and then put in force in memory.
 *
 * A change is staged while its rows are written in the open transaction; after the commit
 * objects_accept makes it visible and marks the topics it may concern, else objects_abandon
 * drops it.
 */
#ifndef CONTROL_OBJECTS_H
#define CONTROL_OBJECTS_H

#include "broker/control/control.h"

MUST_USE err_t objects_load(struct control *c);
void objects_free(struct control *c);

struct object *objects_find(struct control *c, const char *kind, const char *ns,
                            const char *name);

/* What the open change (if there is one) would leave under this key (KIND/NS/NAME); NULL: nothing. */
struct object *objects_current(struct control *c, const char *key);

void objects_accept(struct control *c);
void objects_abandon(struct control *c);

/* Within an open transaction: a port that a session serves gets a Service if there is none, or
 * its port added if the Service is one that sessions made. */
MUST_USE err_t objects_ensure_served(struct control *c, const char *ns,
                                     const struct served_port *served);

/* The answers to apply and delete_: every object for itself, in one transaction, answered after
 * it is committed. outcomes[] has room for one per object; texts are kept in `arena`. If the
 * store fails every object is refused with its error. */
void objects_apply(struct control *c, const struct wire_apply *ask, struct arena *arena,
                   struct wire_outcome *outcomes);
void objects_delete(struct control *c, const struct wire_delete_ *ask, struct arena *arena,
                    struct wire_outcome *outcomes);

#endif
