/* The messages of links: tcp ROUTER (requests) and tcp PUB (hints and digests), both CURVE. */
#ifndef CONTROL_LINKS_H
#define CONTROL_LINKS_H

#include "broker/control/control.h"

MUST_USE err_t links_open(struct control *c);
void links_close(struct control *c);

#endif
