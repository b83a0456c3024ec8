/* The admin port: GET /live, /ready, /metrics over HTTP/1.x, one request per connection.
 *
 * Anybody on the network may come here, so everything is bounded: ADMIN_CONNS connections (a
 * new one takes the place of the one that has waited longest), 10 s of life each, 8 KiB of
 * request head, no body. Answers end with the connection.
 */
#ifndef TELEMETRY_ADMIN_H
#define TELEMETRY_ADMIN_H

#include "kit/buf.h"
#include "kit/err.h"
#include "telemetry/metrics.h"

#include <stdbool.h>
#include <stdint.h>

#define ADMIN_CONNS    32u
#define ADMIN_LIFE_MS  10000u
#define ADMIN_HEAD_MAX 8192u

struct event_base;
struct admin;

/* Refreshes src before a page is printed (may be NULL). */
typedef void admin_refresh_fn(void *arg);

MUST_USE err_t admin_new(struct event_base *base, const struct metrics_source *src,
                         admin_refresh_fn *refresh, void *arg, struct admin **out);
void admin_free(struct admin **a);

/* Serves on an inherited, listening, non-blocking socket (owned from here on). At most 4. */
MUST_USE err_t admin_listen(struct admin *a, int fd);

/* Closes the listeners; running answers are finished. */
void admin_stop(struct admin *a);

/* What a request head asks for. */
enum admin_page {
    ADMIN_LIVE,
    ADMIN_READY,
    ADMIN_METRICS,
    ADMIN_NOT_FOUND,
    ADMIN_BAD,
    ADMIN_METHOD
};

/* Reads a complete head. `is_head` is set for the method HEAD. */
enum admin_page admin_parse(slice_t head, bool *is_head);

struct admin_counters {
    uint64_t accepted, answered, bad, timed_out, displaced;
};
const struct admin_counters *admin_count(const struct admin *a);

#endif
