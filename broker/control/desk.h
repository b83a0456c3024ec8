/* The messages of the CLI on broker.sock, and `apply --wait`. */
#ifndef CONTROL_DESK_H
#define CONTROL_DESK_H

#include "broker/control/control.h"

MUST_USE err_t desk_open(struct control *c);
void desk_close(struct control *c);

/* Answers the waits that are over: everybody has it, or the deadline has come. Called when
 * settled moves, when a session has ended, and every second. */
void desk_look_at_waits(struct control *c);
/* The same in 10 ms, once for all acknowledgements that come until then. */
void desk_look_soon(struct control *c);

#endif
