/* Sends the table's changes to weft-telemetry: message `series`, once a second.
 *
 * The proxy keeps one reporter and calls series_report() from a one-second timer. Nothing
 * changed: nothing is sent. Values are cumulative, so that a part that could not be sent is
 * made good by sending everything at the next turn.
 */
#ifndef PROXY_SERIES_REPORT_H
#define PROXY_SERIES_REPORT_H

#include "proxy/series/series.h"
#include "wire/wire.h"

struct mailbox;

/* Sends one encoded message to telemetry. Not OK: the peer is away or slow; tried again. */
typedef err_t series_send_fn(void *arg, const struct wire_series *msg);

struct series_reporter {
    struct series_table *table; /* lent */
    const char *process;        /* "weft-proxy-0"; lent */
    uint64_t incarnation;
    bool wants_all; /* the next report is complete */
    series_send_fn *send;
    void *arg;
    uint64_t sent, failed; /* parts */
};

/* `send` is called with `arg`; NULL means mailbox_send to `arg`, a struct mailbox *. Starts
 * with a complete report. */
void series_reporter_init(struct series_reporter *r, struct series_table *table,
                          const char *process, uint64_t incarnation, series_send_fn *send,
                          void *arg);

/* Telemetry asked (`series_all`), or the link to it came up: the next report is complete. */
void series_report_all(struct series_reporter *r);

/* Sends what changed. Returns how many series were sent. */
size_t series_report(struct series_reporter *r);

#endif
