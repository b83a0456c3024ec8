#include "telemetry/metrics.h"

#include "telemetry/usage.h"

#include <inttypes.h>
#include <stdio.h>

static const char *kind_name(enum family_kind kind)
{
    switch (kind) {
    case FAMILY_COUNTER:
        return "counter";
    case FAMILY_GAUGE:
        return "gauge";
    case FAMILY_HISTOGRAM:
        return "histogram";
    }
    bug("kind_name", __FILE__, __LINE__);
}

static err_t print_head(struct buf *out, const char *name, const char *help, const char *type)
{
    return buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* ---- series ---- */

/* NAME SUFFIX {labels,worker="N",EXTRA}: a second worker's series would else repeat the first
 * one's. */
static err_t print_name(struct buf *out, const struct book_series *s, const char *suffix,
                        const char *extra)
{
    bool has_extra = extra[0] != '\0';
    char worker[32] = "";

    if (s->worker > 0)
        (void)snprintf(worker, sizeof(worker), "%sworker=\"%u\"", s->labels.n > 0 ? "," : "",
                       s->worker);
    TRY(buf_printf(out, "%s%s", families[s->family].name, suffix));
    if (s->labels.n == 0 && worker[0] == '\0' && !has_extra)
        return buf_add(out, " ", 1);
    TRY(buf_add(out, "{", 1));
    TRY(buf_add_slice(out, s->labels));
    return buf_printf(out, "%s%s%s} ", worker,
                      has_extra && (s->labels.n > 0 || worker[0] != '\0') ? "," : "", extra);
}

static err_t print_histogram(struct buf *out, const struct book_series *s)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < FAMILY_LES; i++) {
        char le[32];

        count += s->values[i];
        if (family_le_ms[i] == UINT64_MAX)
            (void)snprintf(le, sizeof(le), "le=\"+Inf\"");
        else
            (void)snprintf(le, sizeof(le), "le=\"%" PRIu64 "\"", family_le_ms[i]);
        TRY(print_name(out, s, "_bucket", le));
        TRY(buf_printf(out, "%" PRIu64 "\n", count));
    }
    TRY(print_name(out, s, "_count", ""));
    TRY(buf_printf(out, "%" PRIu64 "\n", count));
    TRY(print_name(out, s, "_sum", ""));
    return buf_printf(out, "%" PRIu64 ".%03u\n", s->values[FAMILY_LES] / 1000,
                      (unsigned)(s->values[FAMILY_LES] % 1000));
}

static err_t print_series(struct buf *out, const struct book_series *s)
{
    switch (families[s->family].kind) {
    case FAMILY_COUNTER:
        TRY(print_name(out, s, "", ""));
        return buf_printf(out, "%" PRIu64 "\n", s->values[0]);
    case FAMILY_GAUGE:
        TRY(print_name(out, s, "", ""));
        return buf_printf(out, "%" PRId64 "\n", (int64_t)s->values[0]);
    case FAMILY_HISTOGRAM:
        return print_histogram(out, s);
    }
    bug("print_series", __FILE__, __LINE__);
}

/* ---- what telemetry itself knows ---- */

static err_t print_one(struct buf *out, const char *name, const char *help, const char *type,
                       uint64_t value)
{
    TRY(print_head(out, name, help, type));
    return buf_printf(out, "%s %" PRIu64 "\n", name, value);
}

static err_t print_processes(struct buf *out, const struct status *s)
{
    if (s->n_processes == 0)
        return OK;
    TRY(print_head(out, "weft_process_restarts_total", "Restarts of the pod's processes.",
                   "counter"));
    for (unsigned i = 0; i < s->n_processes; i++)
        TRY(buf_printf(out, "weft_process_restarts_total{process=\"%s\"} %" PRIu32 "\n",
                       s->processes[i].name, s->processes[i].restarts));
    TRY(print_head(out, "weft_process_resident_memory_bytes",
                   "Resident memory by process; shared pages are counted in each.", "gauge"));
    for (unsigned i = 0; i < s->n_processes; i++)
        TRY(buf_printf(out, "weft_process_resident_memory_bytes{process=\"%s\"} %" PRIu64 "\n",
                       s->processes[i].name, s->processes[i].rss_kib * 1024));
    TRY(print_one(out, "process_resident_memory_bytes",
                  "Resident memory of all processes of the pod, shared pages in each.", "gauge",
                  usage_rss_kib(s) * 1024));
    TRY(print_head(out, "process_cpu_seconds_total", "CPU time of the pod's running processes.",
                   "counter"));
    return buf_printf(out, "process_cpu_seconds_total %" PRIu64 ".%03u\n",
                      usage_cpu_ms(s) / 1000, (unsigned)(usage_cpu_ms(s) % 1000));
}

static err_t print_states(struct buf *out, const struct status *s)
{
    const struct status_state *cert = status_find(s, STATE_CERTIFICATE);

    if (cert != NULL && cert->value > 0)
        TRY(print_one(out, "control_identity_cert_expiration_timestamp_seconds",
                      "When the pod's certificate ends.", "gauge",
                      (uint64_t)cert->value / 1000));
    TRY(print_one(out, "weft_broker_connected", "Whether the session with the broker is open.",
                  "gauge", status_is_good(s, STATE_BROKER)));
    TRY(print_one(out, "weft_ready", "Whether the pod can take traffic, as /ready says.",
                  "gauge", status_is_ready(s, NULL)));
    if (s->n_states == 0)
        return OK;
    TRY(print_head(out, "weft_state", "States as the pod's processes report them: 1 is good.",
                   "gauge"));
    for (unsigned i = 0; i < s->n_states; i++)
        TRY(buf_printf(out, "weft_state{key=\"%s\"} %d\n", s->states[i].key,
                       s->states[i].is_good));
    return OK;
}

static err_t print_tail(const struct metrics_source *src, struct buf *out)
{
    const struct book_counters *c = book_count(src->book);
    const struct metrics_own *own = src->own;

    TRY(print_processes(out, src->status));
    TRY(print_states(out, src->status));
    TRY(print_head(out, "process_start_time_seconds", "When weft-telemetry was started.",
                   "gauge"));
    TRY(buf_printf(out, "process_start_time_seconds %" PRId64 ".%03u\n",
                   own->start_wall_ms / 1000, (unsigned)(own->start_wall_ms % 1000)));
    TRY(print_head(out, "proxy_build_info", "Version of Weft.", "gauge"));
    TRY(buf_printf(out, "proxy_build_info{version=\"%s\",vendor=\"weft\"} 1\n", WEFT_VERSION));
    TRY(print_one(out, "weft_feed_connected", "Whether the collector is connected.", "gauge",
                  own->feed_is_up));
    TRY(print_one(out, "weft_feed_messages_total", "Messages published to the feed.", "counter",
                  own->feed_sent));
    TRY(print_one(out, "weft_events_dropped_total", "Events that found no room.", "counter",
                  own->events_dropped));
    TRY(print_one(out, "weft_telemetry_refused_total",
                  "Messages and series from other processes that were refused.", "counter",
                  own->messages_refused + c->refused + src->status->refused));
    TRY(print_one(out, "weft_telemetry_no_room_total", "Series that found no room.", "counter",
                  c->no_room));
    return buf_printf(out, "# EOF\n");
}

err_t metrics_print(const struct metrics_source *src, struct metrics_cursor *at, size_t some,
                    struct buf *out)
{
    size_t start = buf_len(out);

    for (; at->family < FAMILIES; at->family++, at->index = 0, at->has_head = false)
        for (; at->index < book_size(src->book); at->index++) {
            const struct family *f = &families[at->family];
            struct book_series s;

            if (buf_len(out) - start >= some)
                return OK;
            if (!book_at(src->book, at->index, &s) || s.family != at->family)
                continue;
            if (!at->has_head)
                TRY(print_head(out, f->name, f->help, kind_name(f->kind)));
            at->has_head = true;
            TRY(print_series(out, &s));
        }
    TRY(print_tail(src, out));
    at->is_done = true;
    return OK;
}
