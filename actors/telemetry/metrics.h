/* /metrics: the Prometheus text format, ending in "# EOF". Printed piece by piece, so that a
 * large pod's page needs no large buffer. */
#ifndef TELEMETRY_METRICS_H
#define TELEMETRY_METRICS_H

#include "kit/buf.h"
#include "telemetry/book.h"
#include "telemetry/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Telemetry's own numbers. */
struct metrics_own {
    int64_t start_wall_ms;
    uint64_t feed_sent, events_dropped, messages_refused;
    bool feed_is_up;
};

struct metrics_source {
    const struct book *book;
    const struct status *status;
    const struct metrics_own *own;
};

/* Where a page is; start with zeros. */
struct metrics_cursor {
    unsigned family;
    size_t index;
    bool has_head; /* HELP and TYPE of the family were printed */
    bool is_done;
};

/* Appends about `some` bytes of the page (one series more at most). is_done says that it is
 * complete. On an error (no room) the page cannot be completed. */
MUST_USE err_t metrics_print(const struct metrics_source *src, struct metrics_cursor *at,
                             size_t some, struct buf *out);

#endif
