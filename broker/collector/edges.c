/* Outbound series are the client's pod's: source = the pod's workload, destination = the labels
 * dst_namespace and dst_service, or the authority, or the address, where the mesh knows no
 * service. Inbound series are the server's pod's: destination = the service that the pod serves
 * at srv_port (or its workload), source = the service account in the client's identity, or
 * "(unmeshed)". A split's backends are destinations of their own. */
#include "broker/collector/edges.h"

#include "kit/hash.h"

#include <stdlib.h>

#define KEY_MAX 700u

enum measure {
    MEASURE_REQUESTS,
    MEASURE_RESPONSES,
    MEASURE_LATENCY,
    MEASURE_CONNECTIONS,
    MEASURE_READ,
    MEASURE_WRITTEN,
    MEASURE_RETRIES,
    MEASURES
};

static const char *const families[MEASURES] = {
    [MEASURE_REQUESTS] = "request_total",
    [MEASURE_RESPONSES] = "response_total",
    [MEASURE_LATENCY] = "response_latency_ms",
    [MEASURE_CONNECTIONS] = "tcp_open_total",
    [MEASURE_READ] = "tcp_read_bytes_total",
    [MEASURE_WRITTEN] = "tcp_write_bytes_total",
    [MEASURE_RETRIES] = "outbound_http_route_retry_requests_total",
};

struct edge {
    UT_hash_handle hh;
    struct telemetry_edge sums; /* its names point into text */
    size_t key_n;
    uint64_t latency_sum_us; /* rounded to milliseconds once per flush, not per series */
    uint8_t key[KEY_MAX];    /* direction and the four names, NUL behind each */
};

struct edges {
    struct edge *by_key;
};

static enum measure measure_of(slice_t family)
{
    unsigned i = 0;

    while (i < MEASURES && !slice_is_str(family, families[i]))
        i++;
    return (enum measure)i;
}

bool edges_use(slice_t family)
{
    return measure_of(family) != MEASURES;
}

err_t edges_new(struct edges **out)
{
    *out = calloc(1, sizeof(**out));
    return *out != NULL ? OK : ERR_OF(NOMEM);
}

void edges_clear(struct edges *e)
{
    struct edge *one, *next;

    HASH_ITER(hh, e->by_key, one, next)
    {
        HASH_DEL(e->by_key, one);
        free(one);
    }
}

void edges_free(struct edges **e)
{
    if (*e == NULL)
        return;
    edges_clear(*e);
    free(*e);
    *e = NULL;
}

size_t edges_count(const struct edges *e)
{
    return HASH_COUNT(e->by_key);
}

/* ---- which edge ---- */

struct names {
    enum telemetry_direction direction;
    slice_t src_ns, src_workload, dst_ns, dst_service;
};

bool edges_parse_identity(slice_t identity, slice_t *service_account, slice_t *ns)
{
    const uint8_t *dot = identity.n != 0 ? memchr(identity.p, '.', identity.n) : NULL;
    slice_t rest;

    if (dot == NULL)
        return false;
    *service_account = slice(identity.p, (size_t)(dot - identity.p));
    rest = slice_skip(identity, service_account->n + 1);
    dot = rest.n != 0 ? memchr(rest.p, '.', rest.n) : NULL;
    if (dot == NULL)
        return false;
    *ns = slice(rest.p, (size_t)(dot - rest.p));
    rest = slice_skip(rest, ns->n + 1);
    return slice_starts(rest, SLICE_LIT("serviceaccount.identity.")) &&
           service_account->n > 0 && ns->n > 0 && ns->n <= 63;
}

static slice_t or_else(slice_t a, slice_t b)
{
    return a.n > 0 ? a : b;
}

slice_t edges_service_at(const struct feed_metrics *m, slice_t port)
{
    uint64_t n;

    if (slice_to_u64(port, &n))
        for (uint32_t i = 0; i < m->n_serves; i++)
            if (m->serves[i].port == n && m->serves[i].service.n > 0)
                return m->serves[i].service;
    return m->workload;
}

/* A mesh-made answer has no backend; its authority names the service all the same:
 * NAME.NS.svc.ZONE:PORT. */
static bool parse_service_authority(slice_t authority, slice_t *name, slice_t *ns)
{
    const uint8_t *dot = authority.n != 0 ? memchr(authority.p, '.', authority.n) : NULL;
    slice_t rest;

    if (dot == NULL)
        return false;
    *name = slice(authority.p, (size_t)(dot - authority.p));
    rest = slice_skip(authority, name->n + 1);
    dot = rest.n != 0 ? memchr(rest.p, '.', rest.n) : NULL;
    if (dot == NULL)
        return false;
    *ns = slice(rest.p, (size_t)(dot - rest.p));
    return name->n > 0 && ns->n > 0 && ns->n <= 63 &&
           slice_starts(slice_skip(rest, ns->n + 1), SLICE_LIT("svc."));
}

static void name_outbound(const struct feed_metrics *m, const struct feed_series *s,
                          enum measure what, struct names *out)
{
    out->direction = TELEMETRY_OUTBOUND;
    out->src_ns = m->ns;
    out->src_workload = m->workload;
    if (what == MEASURE_RETRIES) {
        out->dst_ns = parse_label(s, "parent_namespace");
        out->dst_service = parse_label(s, "parent_name");
    } else {
        out->dst_ns = parse_label(s, "dst_namespace");
        out->dst_service = parse_label(s, "dst_service");
    }
    if (out->dst_service.n > 0 ||
        parse_service_authority(parse_label(s, "authority"), &out->dst_service, &out->dst_ns))
        return;
    out->dst_ns = (slice_t){0};
    out->dst_service = or_else(parse_label(s, "authority"), parse_label(s, "target_addr"));
}

static void name_inbound(const struct feed_metrics *m, const struct feed_series *s,
                         struct names *out)
{
    out->direction = TELEMETRY_INBOUND;
    if (!edges_parse_identity(parse_label(s, "client_id"), &out->src_workload, &out->src_ns)) {
        out->src_ns = (slice_t){0};
        out->src_workload = SLICE_LIT("(unmeshed)");
    }
    out->dst_ns = m->ns;
    out->dst_service = edges_service_at(m, parse_label(s, "srv_port"));
}

/* False: this series says nothing about an edge (the application's own side of a proxy, say). */
static bool name_edge(const struct feed_metrics *m, const struct feed_series *s,
                      enum measure what, struct names *out)
{
    slice_t direction = parse_label(s, "direction"), peer = parse_label(s, "peer");
    bool is_inbound = slice_is_str(direction, "inbound");

    *out = (struct names){0};
    if (what == MEASURE_RETRIES || slice_is_str(direction, "outbound"))
        name_outbound(m, s, what, out);
    else if (is_inbound)
        name_inbound(m, s, out);
    else
        return false; /* folded series too: nobody knows whose they are */
    if (what == MEASURE_CONNECTIONS || what == MEASURE_READ || what == MEASURE_WRITTEN)
        return slice_is_str(peer, is_inbound ? "src" : "dst");
    return true;
}

/* Copies a name into the edge's key; cut so that five of them fit. */
static slice_t key_put(struct edge *one, slice_t name, size_t max)
{
    uint8_t *p = one->key + one->key_n;

    if (name.n > max)
        name.n = max;
    if (name.n > 0)
        memcpy(p, name.p, name.n);
    p[name.n] = '\0';
    one->key_n += name.n + 1;
    return slice(p, name.n);
}

static void key_make(struct edge *one, const struct names *n)
{
    one->key_n = 0;
    one->key[one->key_n++] = (uint8_t)n->direction;
    one->sums.direction = n->direction;
    one->sums.src_ns = key_put(one, n->src_ns, 63);
    one->sums.src_workload = key_put(one, n->src_workload, 253);
    one->sums.dst_ns = key_put(one, n->dst_ns, 63);
    one->sums.dst_service = key_put(one, n->dst_service, 253);
}

_Static_assert(KEY_MAX >= 1 + 64 + 254 + 64 + 254, "all names fit a key");

static struct edge *edge_get(struct edges *e, const struct names *names)
{
    const struct names other = {.direction = names->direction,
                                .src_workload = SLICE_LIT("(other)"),
                                .dst_service = SLICE_LIT("(other)")};
    struct edge *found = NULL, *fresh = calloc(1, sizeof(*fresh));

    if (fresh == NULL)
        return NULL;
    key_make(fresh, names);
    HASH_FIND(hh, e->by_key, fresh->key, fresh->key_n, found);
    if (found == NULL && edges_count(e) >= EDGES_MAX) {
        key_make(fresh, &other);
        HASH_FIND(hh, e->by_key, fresh->key, fresh->key_n, found);
    }
    if (found != NULL) {
        free(fresh);
        return found;
    }
    HASH_ADD_KEYPTR(hh, e->by_key, fresh->key, fresh->key_n, fresh);
    return fresh;
}

/* ---- what is added ---- */

static void add_responses(struct telemetry_edge *sums, const struct feed_series *s, uint64_t n)
{
    slice_t status = parse_label(s, "status_code");

    if (slice_is_str(parse_label(s, "classification"), "failure"))
        sums->failures += n;
    else if (slice_is_str(parse_label(s, "classification"), "success"))
        sums->successes += n; /* what the mesh gave up for a better attempt is neither */
    if (status.n == 3 && status.p[0] >= '1' && status.p[0] <= '5')
        sums->status[status.p[0] - '1'] += n;
    if (parse_label(s, "error").n > 0)
        sums->mesh_errors += n;
}

static void add_latency(struct edge *one, const uint64_t *delta)
{
    for (unsigned i = 0; i < PARSE_BUCKETS; i++)
        one->sums.latency[i] += delta[i];
    one->latency_sum_us += delta[PARSE_BUCKETS];
    for (unsigned i = 0; i < PARSE_FINES; i++)
        one->sums.latency_fine[i] += delta[PARSE_BUCKETS + 1 + i];
    one->sums.latency_sum_ms = (one->latency_sum_us + 500) / 1000;
}

/* Mutual TLS: both sides proved who they are. Without the other side's name a connection is
 * encrypted at most. */
static bool is_mutual(const struct feed_series *s, bool is_outbound)
{
    return slice_is_str(parse_label(s, "tls"), "true") &&
           parse_label(s, is_outbound ? "server_id" : "client_id").n > 0;
}

void edges_add(struct edges *e, const struct feed_metrics *m, const struct feed_series *s,
               const uint64_t *delta)
{
    enum measure what = measure_of(s->name);
    struct names names;
    struct edge *one;
    bool is_outbound;

    if (what == MEASURES || s->is_histogram != (what == MEASURE_LATENCY) ||
        !name_edge(m, s, what, &names))
        return;
    one = edge_get(e, &names);
    if (one == NULL)
        return;
    is_outbound = names.direction == TELEMETRY_OUTBOUND;
    switch (what) {
    case MEASURE_REQUESTS:
        one->sums.requests += *delta;
        one->sums.mtls_requests += slice_is_str(parse_label(s, "tls"), "true") ? *delta : 0;
        break;
    case MEASURE_RESPONSES:
        add_responses(&one->sums, s, *delta);
        break;
    case MEASURE_LATENCY:
        add_latency(one, delta);
        break;
    case MEASURE_CONNECTIONS:
        one->sums.connections += *delta;
        one->sums.mtls_connections += is_mutual(s, is_outbound) ? *delta : 0;
        break;
    case MEASURE_READ: /* bytes_in and _out are as the source sees them */
        *(is_outbound ? &one->sums.bytes_in : &one->sums.bytes_out) += *delta;
        break;
    case MEASURE_WRITTEN:
        *(is_outbound ? &one->sums.bytes_out : &one->sums.bytes_in) += *delta;
        break;
    case MEASURE_RETRIES:
        one->sums.retries += *delta;
        break;
    case MEASURES:
        break;
    }
}

err_t edges_write(struct edges *e, struct telemetry *t, int64_t at_ms)
{
    struct edge *one, *next;

    HASH_ITER(hh, e->by_key, one, next)
    TRY(telemetry_add_edge(t, at_ms, &one->sums));
    return OK;
}
