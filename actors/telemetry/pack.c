#include "telemetry/pack.h"

#include "telemetry/labels.h"
#include "telemetry/usage.h"
#include "wire/writer.h"

#define SERVES_MAX 64u

static err_t put_key(struct buf *out, const char *key)
{
    return wire_put_text(out, slice_str(key));
}

static err_t put_text(struct buf *out, const char *key, slice_t value)
{
    TRY(put_key(out, key));
    return wire_put_text(out, value);
}

static err_t put_u64(struct buf *out, const char *key, uint64_t value)
{
    TRY(put_key(out, key));
    return wire_put_u64(out, value);
}

static err_t put_i64(struct buf *out, const char *key, int64_t value)
{
    TRY(put_key(out, key));
    return wire_put_i64(out, value);
}

static err_t put_bool(struct buf *out, const char *key, bool value)
{
    TRY(put_key(out, key));
    return wire_put_bool(out, value);
}

/* ---- one series ---- */

static err_t put_labels(struct buf *out, slice_t labels)
{
    slice_t rest = labels, name, value;
    uint8_t plain[2048];
    size_t n = 0;

    while (labels_next(&rest, &name, &value))
        n++;
    TRY(put_key(out, "labels"));
    TRY(wire_put_map(out, n));
    for (rest = labels; labels_next(&rest, &name, &value);) {
        TRY(wire_put_text(out, name));
        if (value.n > sizeof(plain))
            return ERR_OF(TOO_BIG);
        TRY(wire_put_text(out, slice(plain, labels_unescape(value, plain))));
    }
    return OK;
}

/* [[upper bound, observations], ...] of the buckets that have any; the bound of the last is nil
 * (+Inf). */
static err_t put_buckets(struct buf *out, const char *key, const uint64_t *counts, unsigned n,
                         uint64_t (*bound)(unsigned i))
{
    size_t used = 0;

    for (unsigned i = 0; i < n; i++)
        used += counts[i] != 0;
    TRY(put_key(out, key));
    TRY(wire_put_array(out, used));
    for (unsigned i = 0; i < n; i++) {
        if (counts[i] == 0)
            continue;
        TRY(wire_put_array(out, 2));
        TRY(bound(i) == UINT64_MAX ? wire_put_nil(out) : wire_put_u64(out, bound(i)));
        TRY(wire_put_u64(out, counts[i]));
    }
    return OK;
}

static uint64_t le_bound(unsigned i)
{
    return family_le_ms[i];
}

static err_t put_histogram(struct buf *out, const uint64_t *values)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < FAMILY_LES; i++)
        count += values[i];
    TRY(put_buckets(out, "buckets", values, FAMILY_LES, le_bound));
    TRY(put_buckets(out, "fine", values + FAMILY_LES + 1, FAMILY_FINES, family_fine_bound_us));
    TRY(put_u64(out, "sum_us", values[FAMILY_LES]));
    return put_u64(out, "count", count);
}

err_t pack_series(struct buf *out, const struct book_series *s)
{
    const struct family *f = &families[s->family];
    bool is_histogram = f->kind == FAMILY_HISTOGRAM;

    TRY(wire_put_map(out, is_histogram ? 8 : 5));
    TRY(put_text(out, "name", slice_str(f->name)));
    TRY(put_text(out, "type",
                 slice_str(is_histogram              ? "histogram"
                           : f->kind == FAMILY_GAUGE ? "gauge"
                                                     : "counter")));
    TRY(put_text(out, "process", slice_str(s->process)));
    TRY(put_labels(out, s->labels));
    if (is_histogram)
        return put_histogram(out, s->values);
    if (f->kind == FAMILY_GAUGE)
        return put_i64(out, "value", (int64_t)s->values[0]);
    return put_u64(out, "value", s->values[0]);
}

/* ---- a metrics message ---- */

/* One item of the setting: SERVICE:PORT[/PROTOCOL]. */
static bool parse_served(slice_t item, slice_t *service, uint64_t *port)
{
    const uint8_t *colon = item.n != 0 ? memchr(item.p, ':', item.n) : NULL;
    const uint8_t *slash;
    slice_t number;

    if (colon == NULL)
        return false;
    *service = slice(item.p, (size_t)(colon - item.p));
    number = slice_skip(item, service->n + 1);
    slash = number.n != 0 ? memchr(number.p, '/', number.n) : NULL;
    if (slash != NULL)
        number.n = (size_t)(slash - number.p);
    return slice_to_u64(number, port) && *port > 0 && *port <= UINT16_MAX && service->n > 0 &&
           service->n <= 253;
}

/* [[service, port], ...] */
static err_t put_serves(struct buf *out, const char *setting)
{
    slice_t services[SERVES_MAX];
    uint64_t ports[SERVES_MAX];
    size_t n = 0;

    for (slice_t rest = slice_str(setting); rest.n > 0 && n < SERVES_MAX;) {
        const uint8_t *comma = memchr(rest.p, ',', rest.n);
        slice_t item = slice(rest.p, comma != NULL ? (size_t)(comma - rest.p) : rest.n);

        if (parse_served(item, &services[n], &ports[n]))
            n++;
        rest = slice_skip(rest, item.n + 1);
    }
    TRY(put_key(out, "serves"));
    TRY(wire_put_array(out, n));
    for (size_t i = 0; i < n; i++) {
        TRY(wire_put_array(out, 2));
        TRY(wire_put_text(out, services[i]));
        TRY(wire_put_u64(out, ports[i]));
    }
    return OK;
}

static err_t put_status(struct buf *out, const struct status *s, uint32_t connections)
{
    const struct status_state *cert = status_find(s, STATE_CERTIFICATE);

    TRY(put_key(out, "status"));
    TRY(wire_put_map(out, 8));
    TRY(put_bool(out, "ready", status_is_ready(s, NULL)));
    TRY(put_bool(out, "broker", status_is_good(s, STATE_BROKER)));
    TRY(put_i64(out, "certificate_end_ms", cert != NULL ? cert->value : 0));
    TRY(put_u64(out, "processes", s->n_processes));
    TRY(put_u64(out, "restarts", status_restarts(s)));
    TRY(put_u64(out, "rss_kib", usage_rss_kib(s)));
    TRY(put_u64(out, "cpu_ms", usage_cpu_ms(s)));
    return put_u64(out, "connections", connections);
}

static err_t put_who(struct buf *out, const struct pack_who *who)
{
    TRY(put_u64(out, "v", 1));
    TRY(put_text(out, "ns", slice_str(who->ns)));
    TRY(put_text(out, "pod", slice_str(who->pod)));
    TRY(put_text(out, "workload", slice_str(who->workload)));
    return put_u64(out, "incarnation", who->incarnation);
}

err_t pack_metrics(struct buf *out, const struct pack_who *who, const struct pack_head *head,
                   const struct status *status, slice_t series)
{
    TRY(wire_put_map(out, 13));
    TRY(put_who(out, who));
    TRY(put_text(out, "service_account", slice_str(who->service_account)));
    TRY(put_text(out, "version", SLICE_LIT(WEFT_VERSION)));
    TRY(put_i64(out, "at_ms", head->at_ms));
    TRY(put_u64(out, "seq", head->seq));
    TRY(put_bool(out, "is_all", head->is_all));
    TRY(put_serves(out, who->serves));
    TRY(put_status(out, status, head->connections));
    TRY(put_key(out, "series"));
    TRY(wire_put_array(out, head->n_series));
    return buf_add_slice(out, series);
}

err_t pack_event(struct buf *out, const struct pack_who *who, uint64_t seq,
                 const struct wire_event *event)
{
    TRY(wire_put_map(out, 10));
    TRY(put_who(out, who));
    TRY(put_u64(out, "seq", seq));
    TRY(put_i64(out, "at_ms", event->at_ms));
    TRY(put_text(out, "kind", event->kind));
    TRY(put_text(out, "object", event->object));
    return put_text(out, "message", event->message);
}
