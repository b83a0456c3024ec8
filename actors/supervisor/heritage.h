/* What outlives every child: the listening sockets, and the memory that a child hands to its successor.
 *
 *   outbound  127.0.0.1 and [::1], outbound_port     weft-proxy, every generation the same sockets
 *   inbound   0.0.0.0 and [::], inbound_port         weft-proxy
 *   admin     0.0.0.0 and [::], admin_port           weft-telemetry
 *   series    memfd of SERIES_BYTES per worker       weft-proxy of that index: counters that go on
 *   limits    memfd of LIMITS_BYTES for all          weft-proxy, every worker: what they limit together
 *   vault     secret memory of VAULT_BYTES           weft-tls: the private key, never on disk
 *
 * Connections that come while a process restarts wait in the kernel's queue of the socket kept here.
 */
#ifndef SUPERVISOR_HERITAGE_H
#define SUPERVISOR_HERITAGE_H

#include "supervisor/table.h"

#include "kit/err.h"
#include "kit/settings.h"

#define SERIES_BYTES     (8u << 20)
#define LIMITS_BYTES     (1u << 20)
#define VAULT_BYTES      (64u << 10)
#define HERITAGE_MAX     80
#define HERITAGE_ANY     (-1) /* belongs to every worker */
#define LISTEN_BACKLOG   4096

struct heir {
    const char *name;
    int fd;
    int worker; /* index of the only worker that gets it, or HERITAGE_ANY */
};

struct heritage {
    unsigned n;
    struct heir heirs[HERITAGE_MAX];
};

/* Opens all that a pod or a control plane (nothing) needs. Logs what failed. */
MUST_USE err_t heritage_open(struct heritage *h, enum table_kind kind, const struct settings *s);
void heritage_done(struct heritage *h);

/* The descriptors for worker `worker` of `row`, into out[HERITAGE_MAX]; returns how many. */
unsigned heritage_for(const struct heritage *h, const struct process_row *row, int worker,
                      const struct heir *out[HERITAGE_MAX]);

#endif
