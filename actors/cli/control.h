/* The control plane of an embedded mesh: start, wait, end, tidy. */
#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

#include "cli/mesh.h"

#include <stdint.h>

/* Makes directories, bridge, fence and the supervisor. The record RUN/mesh.json is there before
 * the first of them, so that control_down() finds a half-made one. The caller holds the lock.
 */
MUST_USE err_t control_up(const struct mesh *m, struct trouble *why);

/* Waits until broker, authority and collector serve. `progress` is called at most twice a
 * second with what is being waited for. NOT_READY with the reason and the end of the log. */
MUST_USE err_t control_wait(const struct mesh *m, uint64_t wait_ms,
                            void (*progress)(const char *what), struct trouble *why);

/* Ends pods and control plane, removes bridge, namespaces, rules and the run directory; `purge`
 * removes the state directory too. Goes on past failures and tells the first. Only what is
 * proven to be Weft's is touched: records, the namespaces' names, WEFT_RUN_DIR of weft-*
 * processes. */
MUST_USE err_t control_down(const struct mesh *m, bool purge, struct trouble *why);

#endif
