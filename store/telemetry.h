/* telemetry.db: rollups of the mesh's traffic, the last cumulative value of every series, pods,
 * events.
 *
 * One writing connection, held by weft-collector for its life (flock on "telemetry.db.lock"
 * beside it); everybody else reads through store/query.h or `sqlite3 -readonly`. The file is
 * STATE/collector/telemetry.db. Published views: mesh_edges, mesh_golden, mesh_decisions,
 * mesh_pods, mesh_pod_events (docs/sql.md).
 *
 * Everything that came from one batch of feed frames is written between telemetry_begin and
 * telemetry_commit: the rollups and the counter_last rows they were computed from are then in
 * one transaction, so that a restart counts nothing twice and nothing never.
 *
 *     err_t e = telemetry_begin(t);
 *     for each changed series:  delta = new - last;  telemetry_add_edge(...);
 * telemetry_put_last(...) e = telemetry_commit(t);      on any error: telemetry_rollback(t),
 * keep the deltas, try later
 *
 * All calls block for the time of a local file write; none may be made from a signal handler or
 * re-entered. Text arguments are slices, borrowed for the call. Text longer than its limit is
 * cut at the limit.
 */
#ifndef STORE_TELEMETRY_H
#define STORE_TELEMETRY_H

#include "kit/err.h"
#include "kit/slice.h"
#include "store/store_err.h"

#include <stdbool.h>
#include <stdint.h>

#define TELEMETRY_FILE "collector/telemetry.db" /* below STATE_DIR */

/* Latency buckets are Linkerd's: upper bounds in ms, the last one is +Inf. */
#define TELEMETRY_BUCKETS 26
extern const uint32_t telemetry_bucket_le_ms[TELEMETRY_BUCKETS]; /* last: UINT32_MAX */

/* Index of the bucket whose upper bound is le_ms; -1 if there is none. +Inf: UINT32_MAX or
 * more. */
int telemetry_bucket_of(uint64_t le_ms);

/* The fine histogram: microseconds, 0..3 in a bucket each, then four buckets per octave up to
 * 2^26 us (67 s), then the rest (as in the feed). Quantiles are read from it where it is there.
 */
#define TELEMETRY_FINES 101
/* First microsecond above bucket i; UINT64_MAX for the last. */
uint64_t telemetry_fine_bound_us(unsigned i);
/* Index of the bucket with this bound; -1 if there is none. */
int telemetry_fine_of(uint64_t bound_us);

enum telemetry_direction { TELEMETRY_OUTBOUND = 0, TELEMETRY_INBOUND = 1 };

/* One edge's change since it was last added: everything is a delta, never cumulative. */
struct telemetry_edge {
    enum telemetry_direction direction; /* who counted: the client's pod or the server's pod */
    slice_t src_ns, src_workload;       /* at most 63 and 253 bytes */
    slice_t dst_ns, dst_service;        /* service; inbound: the workload itself */
    uint64_t requests, successes, failures, retries;
    uint64_t mtls_requests; /* of requests: those over mutual TLS */
    uint64_t status[5];     /* of responses: 1xx .. 5xx */
    uint64_t mesh_errors;   /* answers made by the mesh itself, not the application */
    uint64_t latency[TELEMETRY_BUCKETS]; /* responses per bucket, not cumulative over buckets */
    uint64_t latency_fine[TELEMETRY_FINES];
    uint64_t latency_sum_ms;
    uint64_t bytes_in, bytes_out; /* as src sees it: in = received from dst */
    uint64_t connections;         /* opened */
    uint64_t mtls_connections;    /* of connections: those over mutual TLS */
};

/* Decisions of the mesh about traffic, one X per kind: an attempt not made again, a hedge, a
 * mirror's copy, a fault injected, a request refused by a rate limit, endpoints taken out, kept
 * in, taken back. */
#define TELEMETRY_DECISIONS(X)                                                                  \
    X(NOT_RETRIED, "not_retried")                                                               \
    X(HEDGE, "hedge")                                                                           \
    X(MIRROR, "mirror")                                                                         \
    X(FAULT, "fault")                                                                           \
    X(RATE_LIMITED, "rate_limited")                                                             \
    X(EJECTED, "ejected")                                                                       \
    X(KEPT, "kept")                                                                             \
    X(RETURNED, "returned")

enum telemetry_what {
#define X(id, name) TELEMETRY_##id,
    TELEMETRY_DECISIONS(X)
#undef X
        TELEMETRY_WHATS
};

/* A change as in an edge: n more decisions of this kind, for this reason. */
struct telemetry_decision {
    enum telemetry_direction direction;
    enum telemetry_what what;
    slice_t src_ns, src_workload; /* empty: not known (rate limits) */
    slice_t dst_ns, dst_service;
    slice_t reason; /* BUDGET, lost, fail, total, ...; at most 48 bytes */
    uint64_t n;
};

/* What a series last said. values: counter one, histogram its buckets, sum, fine buckets. */
#define TELEMETRY_VALUES 128
struct telemetry_last {
    slice_t pod;    /* NS/POD */
    slice_t series; /* the caller's key: "NAME{labels}", at most 4096 bytes */
    uint64_t incarnation;
    int64_t at_ms; /* wall */
    const uint64_t *values;
    unsigned n_values; /* at most TELEMETRY_VALUES */
};

/* A pod as last heard. */
struct telemetry_pod {
    slice_t pod; /* NS/POD */
    slice_t ns, workload, version;
    uint64_t incarnation;
    int64_t at_ms; /* wall */
    uint32_t processes, restarts;
    uint64_t pss_kib, rss_kib,
        cpu_ms;           /* over all processes of the pod; cpu since the pod's start */
    uint32_t connections; /* open now */
    bool is_ready;
};

struct telemetry_event {
    int64_t at_ms; /* wall */
    slice_t pod;   /* NS/POD that reported it; may be empty */
    slice_t kind;  /* stable, upper case: PROCESS_RESTARTED */
    slice_t object, message;
};

/* How long rows are kept (ms), and how many at most per table (0 = the default in telemetry.c).
 */
struct telemetry_keep {
    uint64_t rollup_10s_ms, rollup_1m_ms, rollup_1h_ms;
    uint64_t events_ms,
        pods_ms; /* pods and their counter_last rows: since last heard; 0 = 7 d, 1 d */
    uint32_t max_rollup_rows, max_event_rows, max_last_rows;
};

struct telemetry; /* opaque */

/* Opens or creates STATE_DIR/collector/telemetry.db (the directory is made, 0700). A damaged
 * file is moved aside (telemetry.db.damaged-MS) and a fresh one begun; *was_fresh says that
 * nothing was there. STORE_LOCKED | STORE_NEWER | STORE_PLACE | STORE_IO | STORE_FULL; the
 * reason is logged. */
MUST_USE err_t telemetry_open(const char *state_dir, struct telemetry **out, bool *was_fresh);
void telemetry_close(
    struct telemetry **t); /* rolls back what was not committed; NULL is fine */

MUST_USE err_t telemetry_begin(struct telemetry *t);
MUST_USE err_t telemetry_commit(struct telemetry *t);
void telemetry_rollback(struct telemetry *t); /* also fine when nothing is open */

/* Adds a delta to the 10 s, 1 min and 1 h buckets that at_ms (wall) falls into. */
MUST_USE err_t telemetry_add_edge(struct telemetry *t, int64_t at_ms,
                                  const struct telemetry_edge *e);
/* The same for a decision. */
MUST_USE err_t telemetry_add_decision(struct telemetry *t, int64_t at_ms,
                                      const struct telemetry_decision *d);
MUST_USE err_t telemetry_put_last(struct telemetry *t, const struct telemetry_last *last);
MUST_USE err_t telemetry_put_pod(struct telemetry *t, const struct telemetry_pod *pod);
MUST_USE err_t telemetry_add_event(struct telemetry *t, const struct telemetry_event *e);

/* Calls fn for every counter_last row (after a restart; the collector fills its tables). The
 * slices and values are valid during the call. fn returns false to stop. */
typedef bool telemetry_last_fn(void *arg, const struct telemetry_last *last);
MUST_USE err_t telemetry_each_last(struct telemetry *t, telemetry_last_fn *fn, void *arg);

/* The values last committed of one series, or n = 0 if there are none (pods that come back). */
MUST_USE err_t telemetry_get_last(struct telemetry *t, slice_t pod, slice_t series,
                                  uint64_t *incarnation, uint64_t values[TELEMETRY_VALUES],
                                  unsigned *n);

/* Forgets a pod's counter_last rows of other incarnations than this one. */
MUST_USE err_t telemetry_drop_last(struct telemetry *t, slice_t pod, uint64_t keep_incarnation);

/* Deletes what is older than `keep` says or above the row limits: at most max_rows rows in this
 * call (a transaction of its own; not inside begin/commit). *left says that there is more: call
 * again soon. */
MUST_USE err_t telemetry_trim(struct telemetry *t, int64_t now_ms,
                              const struct telemetry_keep *keep, unsigned max_rows, bool *left);

/* Copies the write-ahead log into the file as far as readers allow; never waits. Call when
 * idle. */
void telemetry_checkpoint(struct telemetry *t);

/* For /metrics and status. */
struct telemetry_stats {
    uint64_t commits, failed_commits, rows_trimmed;
    uint64_t file_bytes, wal_bytes;
};
void telemetry_stats(struct telemetry *t, struct telemetry_stats *out);

#endif
