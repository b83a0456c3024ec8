#include "broker/collector/parse.h"

#include "store/telemetry.h"

#define NAME_BYTES  253u
#define LABEL_BYTES 2048u

slice_t parse_label(const struct feed_series *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_labels; i++)
        if (slice_is_str(s->labels[i].name, name))
            return s->labels[i].value;
    return (slice_t){0};
}

bool parse_topic(slice_t topic, slice_t *parts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *slash = topic.n != 0 ? memchr(topic.p, '/', topic.n) : NULL;
        bool is_last = i + 1 == n;

        if (is_last != (slash == NULL))
            return false;
        parts[i] = slice(topic.p, slash != NULL ? (size_t)(slash - topic.p) : topic.n);
        if (parts[i].n == 0)
            return false;
        topic = slice_skip(topic, parts[i].n + 1);
    }
    return true;
}

static err_t get_u32(struct wire_reader *r, uint32_t *out)
{
    uint64_t v;

    TRY(wire_get_u64(r, UINT32_MAX, &v));
    *out = (uint32_t)v;
    return OK;
}

static err_t get_serves(struct wire_reader *r, struct feed_metrics *out)
{
    uint32_t n, two;
    uint64_t port;

    TRY(wire_get_array(r, &n));
    if (n > PARSE_SERVES_MAX)
        return ERR_OF(MALFORMED);
    for (uint32_t i = 0; i < n; i++) {
        TRY(wire_get_array(r, &two));
        if (two != 2)
            return ERR_OF(MALFORMED);
        TRY(wire_get_text(r, NAME_BYTES, &out->serves[i].service));
        TRY(wire_get_u64(r, UINT16_MAX, &port));
        out->serves[i].port = (uint16_t)port;
    }
    out->n_serves = n;
    return OK;
}

static err_t get_status_field(struct wire_reader *r, slice_t key, struct feed_metrics *out)
{
    if (slice_is_str(key, "ready"))
        return wire_get_bool(r, &out->is_ready);
    if (slice_is_str(key, "processes"))
        return get_u32(r, &out->processes);
    if (slice_is_str(key, "restarts"))
        return get_u32(r, &out->restarts);
    if (slice_is_str(key, "connections"))
        return get_u32(r, &out->connections);
    if (slice_is_str(key, "rss_kib"))
        return wire_get_u64(r, INT64_MAX, &out->rss_kib);
    if (slice_is_str(key, "cpu_ms"))
        return wire_get_u64(r, INT64_MAX, &out->cpu_ms);
    return wire_skip(r);
}

static err_t get_status(struct wire_reader *r, struct feed_metrics *out)
{
    uint32_t n;
    slice_t key;

    TRY(wire_get_map(r, &n));
    for (uint32_t i = 0; i < n; i++) {
        TRY(wire_get_text(r, 64, &key));
        TRY(get_status_field(r, key, out));
    }
    return OK;
}

/* Remembers where the series are and steps over them, which checks that they are whole. */
static err_t get_series_place(struct wire_reader *r, struct feed_metrics *out)
{
    struct wire_reader at = *r;

    TRY(wire_get_array(&at, &out->n_series));
    out->series = at;
    return wire_skip(r);
}

static err_t get_metrics_field(struct wire_reader *r, slice_t key, struct feed_metrics *out)
{
    if (slice_is_str(key, "ns"))
        return wire_get_text(r, 63, &out->ns);
    if (slice_is_str(key, "pod"))
        return wire_get_text(r, NAME_BYTES, &out->pod);
    if (slice_is_str(key, "workload"))
        return wire_get_text(r, NAME_BYTES, &out->workload);
    if (slice_is_str(key, "service_account"))
        return wire_get_text(r, NAME_BYTES, &out->service_account);
    if (slice_is_str(key, "version"))
        return wire_get_text(r, 32, &out->version);
    if (slice_is_str(key, "incarnation"))
        return wire_get_u64(r, UINT64_MAX, &out->incarnation);
    if (slice_is_str(key, "seq"))
        return wire_get_u64(r, UINT64_MAX, &out->seq);
    if (slice_is_str(key, "is_all"))
        return wire_get_bool(r, &out->is_all);
    if (slice_is_str(key, "serves"))
        return get_serves(r, out);
    if (slice_is_str(key, "status"))
        return get_status(r, out);
    if (slice_is_str(key, "series"))
        return get_series_place(r, out);
    return wire_skip(r);
}

/* The first pair has to be v: 1, so that a later form is not half understood. */
static err_t get_head(struct wire_reader *r, uint32_t *pairs)
{
    slice_t key;
    uint64_t v;

    TRY(wire_get_map(r, pairs));
    if (*pairs == 0)
        return ERR_OF(MALFORMED);
    TRY(wire_get_text(r, 64, &key));
    if (!slice_is_str(key, "v"))
        return ERR_OF(MALFORMED);
    TRY(wire_get_u64(r, UINT64_MAX, &v));
    return v == 1 ? OK : ERR_OF(MALFORMED);
}

err_t parse_metrics(slice_t body, struct feed_metrics *out)
{
    struct wire_reader r = wire_reader_of(body);
    uint32_t pairs;
    slice_t key;

    *out = (struct feed_metrics){0};
    TRY(get_head(&r, &pairs));
    for (uint32_t i = 1; i < pairs; i++) {
        TRY(wire_get_text(&r, 64, &key));
        TRY(get_metrics_field(&r, key, out));
    }
    if (wire_reader_left(&r) != 0 || out->ns.n == 0 || out->pod.n == 0)
        return ERR_OF(MALFORMED);
    return OK;
}

/* ---- series ---- */

static err_t get_labels(struct wire_reader *r, struct feed_series *out)
{
    uint32_t n;

    TRY(wire_get_map(r, &n));
    if (n > PARSE_LABELS_MAX)
        return ERR_OF(MALFORMED);
    for (uint32_t i = 0; i < n; i++) {
        TRY(wire_get_text(r, 64, &out->labels[i].name));
        TRY(wire_get_text(r, LABEL_BYTES, &out->labels[i].value));
    }
    out->n_labels = n;
    return OK;
}

/* [[bound, observations], ...]; `place` gives the index of a bound, the last bucket's is nil. */
static err_t get_buckets(struct wire_reader *r, uint64_t *counts, uint32_t max,
                         int (*place)(uint64_t bound))
{
    uint32_t n, two;

    TRY(wire_get_array(r, &n));
    if (n > max)
        return ERR_OF(MALFORMED);
    for (uint32_t k = 0; k < n; k++) {
        uint64_t bound = UINT64_MAX;
        int i;

        TRY(wire_get_array(r, &two));
        if (two != 2)
            return ERR_OF(MALFORMED);
        if (wire_get_u64(r, UINT64_MAX, &bound) != OK)
            TRY(wire_skip(r)); /* nil */
        i = place(bound);
        if (i < 0)
            return ERR_OF(MALFORMED);
        TRY(wire_get_u64(r, UINT64_MAX, &counts[i]));
    }
    return OK;
}

static err_t get_value(struct wire_reader *r, struct feed_series *out)
{
    if (wire_get_u64(r, UINT64_MAX, &out->value) == OK)
        return OK;
    return wire_skip(r); /* a gauge below zero */
}

err_t parse_series(struct wire_reader *r, struct feed_series *out)
{
    uint32_t pairs;
    slice_t key;

    *out = (struct feed_series){0};
    TRY(wire_get_map(r, &pairs));
    for (uint32_t i = 0; i < pairs; i++) {
        TRY(wire_get_text(r, 64, &key));
        out->is_histogram = out->is_histogram || slice_is_str(key, "buckets");
        if (slice_is_str(key, "name"))
            TRY(wire_get_text(r, 128, &out->name));
        else if (slice_is_str(key, "process"))
            TRY(wire_get_text(r, 32, &out->process));
        else if (slice_is_str(key, "labels"))
            TRY(get_labels(r, out));
        else if (slice_is_str(key, "value"))
            TRY(get_value(r, out));
        else if (slice_is_str(key, "buckets"))
            TRY(get_buckets(r, out->buckets, PARSE_BUCKETS, telemetry_bucket_of));
        else if (slice_is_str(key, "fine"))
            TRY(get_buckets(r, out->fine, PARSE_FINES, telemetry_fine_of));
        else if (slice_is_str(key, "sum_us"))
            TRY(wire_get_u64(r, UINT64_MAX, &out->sum_us));
        else
            TRY(wire_skip(r));
    }
    return out->name.n > 0 ? OK : ERR_OF(MALFORMED);
}

/* ---- events ---- */

static err_t get_event_field(struct wire_reader *r, slice_t key, struct feed_event *out)
{
    if (slice_is_str(key, "ns"))
        return wire_get_text(r, 63, &out->ns);
    if (slice_is_str(key, "pod"))
        return wire_get_text(r, NAME_BYTES, &out->pod);
    if (slice_is_str(key, "kind"))
        return wire_get_text(r, 48, &out->kind);
    if (slice_is_str(key, "object"))
        return wire_get_text(r, 320, &out->object);
    if (slice_is_str(key, "message"))
        return wire_get_text(r, 512, &out->message);
    if (slice_is_str(key, "at_ms"))
        return wire_get_i64(r, &out->at_ms);
    return wire_skip(r);
}

err_t parse_event(slice_t body, struct feed_event *out)
{
    struct wire_reader r = wire_reader_of(body);
    uint32_t pairs;
    slice_t key;

    *out = (struct feed_event){0};
    TRY(get_head(&r, &pairs));
    for (uint32_t i = 1; i < pairs; i++) {
        TRY(wire_get_text(&r, 64, &key));
        TRY(get_event_field(&r, key, out));
    }
    if (wire_reader_left(&r) != 0 || out->ns.n == 0 || out->pod.n == 0 || out->kind.n == 0)
        return ERR_OF(MALFORMED);
    return OK;
}
