/* link.sock: what the pod's own processes ask. */
#ifndef LINK_LOCAL_H
#define LINK_LOCAL_H

#include "link/link.h"

MUST_USE err_t local_open(struct link *l); /* link.sock, and the way to telemetry */
void local_close(struct link *l);

#endif
