/* Tells a pod's weft-telemetry what `weft run` found out about the pod. */
#ifndef CLI_REPORT_H
#define CLI_REPORT_H

#include <stdbool.h>

/* Sends the state "capture", and the event NOT_PROTECTED if it is not, to DIR/telemetry.sock.
 * Waits up to 1 s for the connection; when telemetry is away nothing is lost: the next check
 * tells it again. */
void report_capture(const char *pod_run_dir, const char *pod, bool is_ok, const char *reason);

#endif
