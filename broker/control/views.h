/* What topics say: computed from the resources and sessions in memory by the model's functions.
 *
 *   dst/NS/TARGET   what a pod of namespace NS finds behind TARGET (payload: destination, id
 * and revision 0). The namespace is a part because routes of the client's namespace take
 * precedence. trust           the trust anchors (payload: trust, revision 0) pod/NS/POD what
 * the pod's own ports speak (payload: ports)
 */
#ifndef CONTROL_VIEWS_H
#define CONTROL_VIEWS_H

#include "broker/control/control.h"

/* Whether this session may watch a topic of this name. */
bool views_may_watch(const struct session *s, slice_t topic);

/* Appends the payload. A view with more endpoints than fit keeps a part of them, chosen by
 * rendezvous hashing with the pod's name: different pods have different parts, and one pod's
 * part changes no more than the endpoints do. Begins with cut->max endpoints per backend (0:
 * with the most) and fills *cut. Errors: wire's and model's limits, NOMEM. */
MUST_USE err_t views_compute(struct control *c, slice_t topic, slice_t pod,
                             struct view_cut *cut, struct buf *out);

#endif
