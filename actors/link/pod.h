/* Who this pod is, from its settings. */
#ifndef LINK_POD_H
#define LINK_POD_H

#include "link/link.h"

/* Fills addresses, serves, own topic, incarnation. BAD_SETTING | LINK_BAD_SERVES | NOMEM;
 * logged. */
MUST_USE err_t pod_load(struct link *l);

#endif
