/* Two resources that cannot both be followed: the second is refused, or a note says which one
 * counts. */
#ifndef CONTROL_CONFLICTS_H
#define CONTROL_CONFLICTS_H

#include "broker/control/control.h"
#include "model/resource.h"

/* Looks at what is stored and staged beside `r`. False: refused, *why names the field and the
 * other resource. True: notes[cap] has sentences about what will not be followed, if there is
 * something of that kind. */
bool conflicts_check(struct control *c, const struct resource *r, struct why *why, char *notes,
                     size_t cap);

#endif
