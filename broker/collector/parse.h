/* Feed messages as the collector reads them (docs/feed.md). They come from pods: every field is
 * checked, unknown keys are skipped, and nothing is allocated. Slices point into the message. */
#ifndef COLLECTOR_PARSE_H
#define COLLECTOR_PARSE_H

#include "kit/err.h"
#include "kit/slice.h"
#include "wire/reader.h"

#include <stdbool.h>
#include <stdint.h>

#define PARSE_SERVES_MAX 64u
#define PARSE_LABELS_MAX 32u
#define PARSE_BUCKETS    26u /* Linkerd's, the last is +Inf */
#define PARSE_FINES      101u

struct feed_metrics {
    slice_t ns, pod, workload, service_account, version;
    uint64_t incarnation, seq;
    bool is_all;
    struct {
        slice_t service;
        uint16_t port;
    } serves[PARSE_SERVES_MAX];
    uint32_t n_serves;
    bool is_ready;
    uint32_t processes, restarts, connections;
    uint64_t rss_kib, cpu_ms;
    uint32_t n_series;
    struct wire_reader series; /* at the first one; read with parse_series */
};

struct feed_label {
    slice_t name, value;
};

struct feed_series {
    slice_t name, process;
    struct feed_label labels[PARSE_LABELS_MAX];
    uint32_t n_labels;
    bool is_histogram;
    uint64_t value;                  /* counter; a gauge's is not read */
    uint64_t buckets[PARSE_BUCKETS]; /* histogram, each bucket alone */
    uint64_t fine[PARSE_FINES];      /* the same in finer ones, as store/telemetry.h */
    uint64_t sum_us;
};

struct feed_event {
    slice_t ns, pod, kind, object, message;
    int64_t at_ms;
};

/* MALFORMED and the errors of wire/reader.h. */
MUST_USE err_t parse_metrics(slice_t body, struct feed_metrics *out);
MUST_USE err_t parse_series(struct wire_reader *r, struct feed_series *out);
MUST_USE err_t parse_event(slice_t body, struct feed_event *out);

/* The value of a label, empty if there is none. */
slice_t parse_label(const struct feed_series *s, const char *name);

/* Takes "KIND/a/b/c" apart at the slashes into exactly n parts. */
bool parse_topic(slice_t topic, slice_t *parts, unsigned n);

#endif
