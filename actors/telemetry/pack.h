/* Feed messages: msgpack maps for outside subscribers (docs/feed.md). */
#ifndef TELEMETRY_PACK_H
#define TELEMETRY_PACK_H

#include "kit/buf.h"
#include "kit/err.h"
#include "telemetry/book.h"
#include "telemetry/status.h"
#include "wire/wire.h"

#include <stdbool.h>
#include <stdint.h>

/* Who this pod is; strings are lent for the life of the feed. */
struct pack_who {
    const char *ns, *pod, *workload, *service_account;
    const char *serves; /* the setting: SERVICE:PORT[/PROTOCOL],... */
    uint64_t incarnation;
};

/* What changes from message to message. */
struct pack_head {
    int64_t at_ms;
    uint64_t seq;
    bool is_all;
    size_t n_series;
    uint32_t connections; /* open now */
};

/* Appends one series as a map. */
MUST_USE err_t pack_series(struct buf *out, const struct book_series *s);

/* Appends a whole metrics message; `series` are n_series maps made by pack_series. */
MUST_USE err_t pack_metrics(struct buf *out, const struct pack_who *who,
                            const struct pack_head *head, const struct status *status,
                            slice_t series);

MUST_USE err_t pack_event(struct buf *out, const struct pack_who *who, uint64_t seq,
                          const struct wire_event *event);

#endif
