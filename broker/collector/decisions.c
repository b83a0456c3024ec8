/* Outbound decisions are the client's pod's: source = its workload, destination = the service that
 * the rule belongs to (parent_*), of breakers the backend "NS/NAME:PORT". Rate limits are the
 * server's pod's: destination = the service at that port; who was refused is not counted. */
#include "broker/collector/decisions.h"

#include "broker/collector/edges.h"
#include "kit/hash.h"

#include <stdlib.h>

#define KEY_MAX    800u
#define REASON_MAX 48u

enum named_by { BY_PARENT, BY_BACKEND, BY_SERVED_PORT };

static const struct family {
    const char *name;
    enum telemetry_what what;
    enum named_by by;
    const char *reason; /* the label */
} families[] = {
    {"weft_retry_refused_total", TELEMETRY_NOT_RETRIED, BY_PARENT, "reason"},
    {"weft_hedge_total", TELEMETRY_HEDGE, BY_PARENT, "result"},
    {"weft_mirror_total", TELEMETRY_MIRROR, BY_PARENT, "result"},
    {"weft_faults_total", TELEMETRY_FAULT, BY_PARENT, "fault"},
    {"inbound_http_local_ratelimit_total", TELEMETRY_RATE_LIMITED, BY_SERVED_PORT,
     "ratelimit_scope"},
    {"weft_endpoint_ejections_total", TELEMETRY_EJECTED, BY_BACKEND, "reason"},
    {"weft_endpoint_ejections_kept_total", TELEMETRY_KEPT, BY_BACKEND, "reason"},
    {"weft_endpoint_returns_total", TELEMETRY_RETURNED, BY_BACKEND, "reason"},
};

struct sum {
    UT_hash_handle hh;
    struct telemetry_decision row; /* its texts point into key */
    size_t key_n;
    uint8_t key[KEY_MAX]; /* kind, direction and five texts, NUL behind each */
};

struct decisions {
    struct sum *by_key;
};

static const struct family *family_of(slice_t name)
{
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
        if (slice_is_str(name, families[i].name))
            return &families[i];
    return NULL;
}

bool decisions_use(slice_t family)
{
    return family_of(family) != NULL;
}

err_t decisions_new(struct decisions **out)
{
    *out = calloc(1, sizeof(**out));
    return *out != NULL ? OK : ERR_OF(NOMEM);
}

void decisions_clear(struct decisions *d)
{
    struct sum *one, *next;

    HASH_ITER(hh, d->by_key, one, next)
    {
        HASH_DEL(d->by_key, one);
        free(one);
    }
}

void decisions_free(struct decisions **d)
{
    if (*d == NULL)
        return;
    decisions_clear(*d);
    free(*d);
    *d = NULL;
}

/* ---- keys ---- */

static slice_t key_put(struct sum *one, slice_t text, size_t max)
{
    uint8_t *p = one->key + one->key_n;

    if (text.n > max)
        text.n = max;
    if (text.n > 0)
        memcpy(p, text.p, text.n);
    p[text.n] = '\0';
    one->key_n += text.n + 1;
    return slice(p, text.n);
}

_Static_assert(KEY_MAX >= 2 + 64 + 254 + 64 + 254 + REASON_MAX + 1, "all texts fit a key");

static void key_make(struct sum *one, const struct telemetry_decision *row)
{
    one->key_n = 0;
    one->row = *row;
    one->row.n = 0;
    one->key[one->key_n++] = (uint8_t)row->what;
    one->key[one->key_n++] = (uint8_t)row->direction;
    one->row.src_ns = key_put(one, row->src_ns, 63);
    one->row.src_workload = key_put(one, row->src_workload, 253);
    one->row.dst_ns = key_put(one, row->dst_ns, 63);
    one->row.dst_service = key_put(one, row->dst_service, 253);
    one->row.reason = key_put(one, row->reason, REASON_MAX);
}

static struct sum *sum_get(struct decisions *d, const struct telemetry_decision *row)
{
    const struct telemetry_decision other = {.direction = row->direction,
                                             .what = row->what,
                                             .src_workload = SLICE_LIT("(other)"),
                                             .dst_service = SLICE_LIT("(other)")};
    struct sum *found = NULL, *fresh = calloc(1, sizeof(*fresh));

    if (fresh == NULL)
        return NULL;
    key_make(fresh, row);
    HASH_FIND(hh, d->by_key, fresh->key, fresh->key_n, found);
    if (found == NULL && HASH_COUNT(d->by_key) >= DECISIONS_MAX) {
        key_make(fresh, &other);
        HASH_FIND(hh, d->by_key, fresh->key, fresh->key_n, found);
    }
    if (found != NULL) {
        free(fresh);
        return found;
    }
    HASH_ADD_KEYPTR(hh, d->by_key, fresh->key, fresh->key_n, fresh);
    return fresh;
}

/* ---- what a series is about ---- */

/* NS/NAME:PORT. False: an address, which is no service. */
static bool parse_backend(slice_t text, slice_t *ns, slice_t *name)
{
    const uint8_t *slash = text.n != 0 ? memchr(text.p, '/', text.n) : NULL;
    const uint8_t *colon;
    slice_t rest;

    if (slash == NULL)
        return false;
    *ns = slice(text.p, (size_t)(slash - text.p));
    rest = slice_skip(text, ns->n + 1);
    colon = rest.n != 0 ? memchr(rest.p, ':', rest.n) : NULL;
    if (colon == NULL)
        return false;
    *name = slice(rest.p, (size_t)(colon - rest.p));
    return ns->n > 0 && name->n > 0;
}

static bool name_decision(const struct family *f, const struct feed_metrics *m,
                          const struct feed_series *s, struct telemetry_decision *out)
{
    *out = (struct telemetry_decision){.direction = TELEMETRY_OUTBOUND,
                                       .what = f->what,
                                       .src_ns = m->ns,
                                       .src_workload = m->workload,
                                       .reason = parse_label(s, f->reason)};
    switch (f->by) {
    case BY_PARENT:
        out->dst_ns = parse_label(s, "parent_namespace");
        out->dst_service = parse_label(s, "parent_name");
        break;
    case BY_BACKEND:
        return parse_backend(parse_label(s, "backend"), &out->dst_ns, &out->dst_service);
    case BY_SERVED_PORT:
        out->direction = TELEMETRY_INBOUND;
        out->src_ns = out->src_workload = SLICE_LIT("");
        out->dst_ns = m->ns;
        out->dst_service = edges_service_at(m, parse_label(s, "srv_port"));
        break;
    }
    return out->dst_service.n > 0;
}

void decisions_add(struct decisions *d, const struct feed_metrics *m,
                   const struct feed_series *s, uint64_t delta)
{
    const struct family *f = family_of(s->name);
    struct telemetry_decision row;
    struct sum *one;

    if (f == NULL || s->is_histogram || !name_decision(f, m, s, &row))
        return;
    one = sum_get(d, &row);
    if (one != NULL)
        one->row.n += delta;
}

err_t decisions_write(struct decisions *d, struct telemetry *t, int64_t at_ms)
{
    struct sum *one, *next;

    HASH_ITER(hh, d->by_key, one, next)
    TRY(telemetry_add_decision(t, at_ms, &one->row));
    return OK;
}
