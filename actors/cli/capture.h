/* Does the redirect work? Asked from inside the pod for its own connections and from the bridge
 * for those that come to it, by connecting to a reserved original destination that only
 * weft-proxy answers.
 *
 *   outbound: 192.0.2.1:20001 and [2001:db8::1]:20001 (documentation addresses, a dead end in
 * the pod) inbound:  port 20001 on the pod's own addresses answer:   the line "weft-capture-ok"
 * and the end of the connection
 *
 * A pod whose capture does not work sends in plain text what everybody believes to be
 * encrypted, so the answer is one word in the pod's run directory (file "capture"), a state
 * that /ready, `weft check` and SQL show, and the event NOT_PROTECTED.
 */
#ifndef CLI_CAPTURE_H
#define CLI_CAPTURE_H

#include "cli/trouble.h"

#include <stdbool.h>
#include <stdint.h>

#define CAPTURE_PORT    20001
#define CAPTURE_IPV4    "192.0.2.1"
#define CAPTURE_IPV6    "2001:db8::1"
#define CAPTURE_ANSWER  "weft-capture-ok\n"
#define CAPTURE_WAIT_MS 2000

enum capture_result {
    CAPTURE_WORKS,    /* the proxy answered */
    CAPTURE_REFUSED,  /* redirected to a port where nobody listens, or (inbound) not redirected
                         at all */
    CAPTURE_SILENT,   /* no answer in time: outbound, the connection was not redirected */
    CAPTURE_STRANGER, /* something else answered */
    CAPTURE_ERROR     /* the probe itself could not be made; `why` says so */
};

/* One connection to ip:20001, from port 20001, in the namespace of the calling process. */
enum capture_result capture_probe(const char *ip, uint32_t wait_ms, struct trouble *why);

/* The sentence for a result that is not CAPTURE_WORKS. `direction` is "outbound" or "inbound".
 */
void capture_explain(enum capture_result r, const char *direction, const char *ip,
                     const struct trouble *error, struct trouble *out);

/* Writes "ok" or "not-protected REASON" to the file capture in the pod's run directory, which
 * belongs to the pod's uid: nothing in it is followed or trusted. */
MUST_USE err_t capture_write(const char *pod_run_dir, bool is_ok, const char *reason,
                             struct trouble *why);

/* Reads it back for `weft check`: "ok", "not-protected …", or "unknown". */
void capture_read(const char *pod_run_dir, char out[256]);

#endif
