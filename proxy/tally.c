#include "proxy/tally.h"

#include "kit/log.h"
#include "proxy/balance/balance.h"

#include <stdio.h>
#include <stdlib.h>

#define TCP_KEPT_MAX 1024 /* tallies of connections that are kept although none is open */
#define STATUSES_MAX 64   /* of one tally; above it the odd ones share the last */

struct tcp_tally {
    UT_hash_handle hh;
    char *labels;
    size_t labels_n;
    struct series_slot *open, *now, *read, *write;
    unsigned watched; /* open connections counted on it */
};

struct tallies {
    struct series_table *table;
    uint32_t generation;
    struct http_tally *http;
    struct tcp_tally *tcp;
    struct list watches;
    struct buf text; /* scratch */
    struct series_slot *close[2][CLOSE_REASONS];
};

const char *direction_name(enum direction d)
{
    return d == DIRECTION_INBOUND ? "inbound" : "outbound";
}

err_t tallies_new(struct series_table *table, struct tallies **out)
{
    struct tallies *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return ERR_OF(NOMEM);
    t->table = table;
    t->generation = series_generation(table);
    list_init(&t->watches);
    buf_init(&t->text, 0);
    *out = t;
    return OK;
}

static void http_tally_free(struct http_tally *h)
{
    list_del(&h->node);
    free(h->labels);
    free(h->statuses);
    free((void *)(uintptr_t)h->route.p);
    free(h);
}

void tallies_free(struct tallies **tp)
{
    struct tallies *t = *tp;
    struct http_tally *h, *h_next;
    struct tcp_tally *c, *c_next;

    if (t == NULL)
        return;
    HASH_ITER(hh, t->http, h, h_next)
    {
        HASH_DEL(t->http, h);
        http_tally_free(h);
    }
    HASH_ITER(hh, t->tcp, c, c_next)
    {
        HASH_DEL(t->tcp, c);
        free(c->labels);
        free(c);
    }
    buf_done(&t->text);
    free(t);
    *tp = NULL;
}

/* The label text of these labels, in the scratch buffer; cut off labels are better than none.
 */
static slice_t labels_of(struct tallies *t, const struct series_label *l, size_t n)
{
    if (series_labels(&t->text, l, n) != OK)
        return SLICE_LIT("");
    return buf_slice(&t->text);
}

static void count(struct tallies *t, enum series_family family, const struct series_label *l,
                  size_t n, uint64_t by)
{
    series_add(series_get(t->table, family, labels_of(t, l, n)), by);
}

/* ---- HTTP ---- */

/* The tally's labels and what a status adds to them, in the scratch buffer. */
static slice_t with_status(struct tallies *t, const struct http_tally *h,
                           const struct status_tally *s, bool all)
{
    char status[8] = "", grpc[12] = "";
    struct series_label l[4];
    struct buf joined;
    slice_t more, out = SLICE_LIT("");
    size_t n = 0;

    if (s->status != 0)
        (void)snprintf(status, sizeof(status), "%u", s->status);
    if (s->grpc_status >= 0)
        (void)snprintf(grpc, sizeof(grpc), "%d", s->grpc_status);
    if (all)
        l[n++] = (struct series_label){"classification",
                                       slice_str(s->is_abandoned ? ""
                                                 : s->is_success ? "success"
                                                                 : "failure")};
    l[n++] = (struct series_label){"status_code", slice_str(status)};
    if (all) {
        l[n++] = (struct series_label){"grpc_status", slice_str(grpc)};
        l[n++] = (struct series_label){"error", slice_str(s->error)};
    }
    more = labels_of(t, l, n);
    buf_init(&joined, SERIES_LABELS_MAX);
    if (buf_printf(&joined, "%s%s%.*s", h->labels, h->labels_n > 0 && more.n > 0 ? "," : "",
                   SLICE_FMT(more)) == OK) {
        buf_consume(&t->text, buf_len(&t->text));
        if (buf_add_slice(&t->text, buf_slice(&joined)) == OK)
            out = buf_slice(&t->text);
    }
    buf_done(&joined);
    return out;
}

static void status_slots(struct tallies *t, const struct http_tally *h, struct status_tally *s)
{
    s->response = series_get(t->table, SERIES_RESPONSE, with_status(t, h, s, true));
    s->latency = series_get(t->table, SERIES_RESPONSE_LATENCY, with_status(t, h, s, false));
}

static void http_slots(struct tallies *t, struct http_tally *h)
{
    h->request = series_get(t->table, SERIES_REQUEST, slice(h->labels, h->labels_n));
    for (unsigned i = 0; i < h->n_statuses; i++)
        status_slots(t, h, &h->statuses[i]);
}

static struct http_tally *http_get(struct tallies *t, slice_t labels)
{
    struct http_tally *h;

    HASH_FIND(hh, t->http, labels.p, labels.n, h);
    if (h != NULL)
        return h;
    h = calloc(1, sizeof(*h));
    if (h == NULL)
        return NULL;
    h->labels = malloc(labels.n + 1);
    if (h->labels == NULL) {
        free(h);
        return NULL;
    }
    if (labels.n > 0)
        memcpy(h->labels, labels.p, labels.n);
    h->labels[labels.n] = 0;
    h->labels_n = labels.n;
    list_init(&h->node);
    http_slots(t, h);
    HASH_ADD_KEYPTR(hh, t->http, h->labels, h->labels_n, h);
    return h;
}

/* What the client meant, in the mesh's own words: never what it wrote. */
static void print_authority(const struct backend *parent, char *out, size_t cap)
{
    if (parent == NULL)
        out[0] = 0;
    else if (parent->namespace[0] != 0)
        (void)snprintf(out, cap, "%s.%s.svc.cluster.local:%u", parent->name, parent->namespace,
                       parent->port);
    else
        (void)snprintf(out, cap, "%s", parent->key);
}

static struct http_tally *outbound_make(struct tallies *t, const struct backend *parent,
                                        const struct backend *backend,
                                        const struct endpoint *ep, slice_t route)
{
    char port[8], authority[400];
    bool is_tls = ep != NULL && endpoint_is_meshed(ep);
    bool is_service = backend != NULL && backend->namespace[0] != 0;

    print_authority(parent, authority, sizeof(authority));
    (void)snprintf(port, sizeof(port), "%u", backend != NULL ? backend->port : 0u);
    const struct series_label l[] = {
        {"direction", SLICE_LIT("outbound")},
        {"authority", slice_str(authority)},
        {"target_addr", slice_str(ep != NULL ? ep->text : "")},
        {"tls", is_tls ? SLICE_LIT("true") : SLICE_LIT("no_identity")},
        {"no_tls_reason",
         is_tls ? SLICE_LIT("") : SLICE_LIT("not_provided_by_service_discovery")},
        {"server_id", slice_str(is_tls ? ep->identity : "")},
        {"dst_namespace", slice_str(is_service ? backend->namespace : "")},
        {"dst_service", slice_str(is_service ? backend->name : "")},
        {"dst_port", slice_str(is_service ? port : "")},
        {"dst_pod", slice_str(ep != NULL ? ep->pod : "")},
        {"route_name", route},
    };
    return http_get(t, labels_of(t, l, sizeof(l) / sizeof(l[0])));
}

struct http_tally *tally_outbound(struct tallies *t, const struct backend *parent,
                                  const struct backend *backend, struct endpoint *ep,
                                  slice_t route)
{
    uint64_t parent_serial = parent != NULL ? parent->serial : 0;
    uint64_t backend_serial = backend != NULL ? backend->serial : 0;
    struct http_tally *h;

    if (ep == NULL)
        return outbound_make(t, parent, backend, NULL, route);
    LIST_EACH (it, &ep->tallies) {
        h = CONTAINER_OF(it, struct http_tally, node);
        if (h->parent_serial == parent_serial && h->backend_serial == backend_serial &&
            slice_is(h->route, route)) {
            if (ep->tallies.next != it) {
                list_del(it);
                list_push_front(&ep->tallies, it);
            }
            return h;
        }
    }
    h = outbound_make(t, parent, backend, ep, route);
    if (h == NULL)
        return NULL;
    /* Two keys may have one text (a backend that went and came back): the newest key wins. */
    free((void *)(uintptr_t)h->route.p);
    h->route = slice(strndup(route.n > 0 ? (const char *)route.p : "", route.n), route.n);
    if (h->route.p == NULL)
        h->route.n = 0;
    h->parent_serial = parent_serial;
    h->backend_serial = backend_serial;
    list_del(&h->node);
    list_push_front(&ep->tallies, &h->node);
    h->is_gone = false;
    return h;
}

struct http_tally *tally_inbound(struct tallies *t, const char *target, uint16_t port,
                                 const char *client_id, bool is_tls)
{
    char port_text[8];

    (void)snprintf(port_text, sizeof(port_text), "%u", port);
    const struct series_label l[] = {
        {"direction", SLICE_LIT("inbound")},
        {"target_addr", slice_str(target)},
        {"tls", is_tls ? SLICE_LIT("true") : SLICE_LIT("no_identity")},
        {"no_tls_reason", is_tls ? SLICE_LIT("") : SLICE_LIT("no_tls_from_remote")},
        {"client_id", slice_str(client_id)},
        {"srv_port", slice_str(port_text)},
    };
    return http_get(t, labels_of(t, l, sizeof(l) / sizeof(l[0])));
}

static void http_tally_drop(struct tallies *t, struct http_tally *h)
{
    HASH_DEL(t->http, h);
    http_tally_free(h);
}

void tally_endpoint_gone(struct tallies *t, struct endpoint *ep)
{
    struct list *node;

    while ((node = list_pop(&ep->tallies)) != NULL) {
        struct http_tally *h = CONTAINER_OF(node, struct http_tally, node);

        h->is_gone = true;
        if (h->running == 0)
            http_tally_drop(t, h);
    }
}

static struct status_tally *status_get(struct tallies *t, struct http_tally *h,
                                       const struct tally_end *end)
{
    struct status_tally *s;

    for (unsigned i = 0; i < h->n_statuses; i++) {
        s = &h->statuses[i];
        if (s->status == end->status && s->grpc_status == end->grpc_status &&
            s->is_success == end->is_success && s->is_abandoned == end->is_abandoned && s->error == end->error)
            return s;
    }
    if (h->n_statuses == STATUSES_MAX)
        return &h->statuses[STATUSES_MAX - 1];
    if (h->n_statuses == h->cap_statuses) {
        unsigned cap = h->cap_statuses == 0 ? 4 : h->cap_statuses * 2;
        struct status_tally *more = realloc(h->statuses, cap * sizeof(*more));

        if (more == NULL)
            return NULL;
        h->statuses = more;
        h->cap_statuses = cap;
    }
    s = &h->statuses[h->n_statuses++];
    *s = (struct status_tally){.status = end->status,
                               .grpc_status = end->grpc_status,
                               .is_success = end->is_success,
                               .is_abandoned = end->is_abandoned,
                               .error = end->error};
    status_slots(t, h, s);
    return s;
}

void tally_response(struct tallies *t, struct http_tally *h, const struct tally_end *end)
{
    struct status_tally *s = h == NULL ? NULL : status_get(t, h, end);

    if (s != NULL) {
        series_add(s->response, 1);
        if (end->latency_us != UINT64_MAX)
            series_observe(s->latency, end->latency_us);
    }
    if (h != NULL && --h->running == 0 && h->is_gone)
        http_tally_drop(t, h);
}

/* ---- TCP ---- */

static void tcp_slots(struct tallies *t, struct tcp_tally *c)
{
    slice_t labels = slice(c->labels, c->labels_n);

    c->open = series_get(t->table, SERIES_TCP_OPEN, labels);
    c->now = series_get(t->table, SERIES_TCP_OPEN_NOW, labels);
    c->read = series_get(t->table, SERIES_TCP_READ, labels);
    c->write = series_get(t->table, SERIES_TCP_WRITE, labels);
}

static struct tcp_tally *tcp_get(struct tallies *t, slice_t labels)
{
    struct tcp_tally *c;

    HASH_FIND(hh, t->tcp, labels.p, labels.n, c);
    if (c != NULL)
        return c;
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->labels = malloc(labels.n + 1);
    if (c->labels == NULL) {
        free(c);
        return NULL;
    }
    if (labels.n > 0)
        memcpy(c->labels, labels.p, labels.n);
    c->labels[labels.n] = 0;
    c->labels_n = labels.n;
    tcp_slots(t, c);
    HASH_ADD_KEYPTR(hh, t->tcp, c->labels, c->labels_n, c);
    return c;
}

static void watch_count(struct tcp_watch *w)
{
    const struct conn_info *info = conn_info(w->conn);

    if (info->bytes_in > w->in) {
        series_add(w->tally->read, info->bytes_in - w->in);
        w->in = info->bytes_in;
    }
    if (info->bytes_out > w->out) {
        series_add(w->tally->write, info->bytes_out - w->out);
        w->out = info->bytes_out;
    }
}

void tally_tcp_open(struct tallies *t, struct tcp_watch *w, const struct conn *c,
                    const struct tcp_labels *l)
{
    char dst_port[8], srv_port[8];

    (void)snprintf(dst_port, sizeof(dst_port), "%u", l->dst_port);
    (void)snprintf(srv_port, sizeof(srv_port), "%u", l->srv_port);
    const struct series_label labels[] = {
        {"direction", slice_str(direction_name(l->direction))},
        {"peer", l->is_src ? SLICE_LIT("src") : SLICE_LIT("dst")},
        {"target_addr", slice_str(l->target)},
        {"tls", slice_str(l->is_tls ? "true" : l->is_foreign_tls ? "opaque" : "no_identity")},
        {"no_tls_reason", slice_str(l->is_tls || l->is_foreign_tls ? "" : l->no_tls_reason)},
        {"sni", slice_str(l->sni)},
        {"client_id", slice_str(l->client_id)},
        {"server_id", slice_str(l->server_id)},
        {"dst_namespace", slice_str(l->dst_namespace)},
        {"dst_service", slice_str(l->dst_service)},
        {"dst_port", slice_str(l->dst_service[0] != 0 ? dst_port : "")},
        {"dst_pod", slice_str(l->pod)},
        {"srv_port", slice_str(l->srv_port != 0 ? srv_port : "")},
    };

    w->tally = tcp_get(t, labels_of(t, labels, sizeof(labels) / sizeof(labels[0])));
    if (w->tally == NULL)
        return;
    w->conn = c;
    w->in = w->out = 0;
    list_push(&t->watches, &w->node);
    w->tally->watched++;
    series_add(w->tally->open, 1);
    series_move(w->tally->now, 1);
}

void tally_tcp_close(struct tallies *t, struct tcp_watch *w, const char *error)
{
    struct buf text;

    if (w->tally == NULL)
        return;
    watch_count(w);
    list_del(&w->node);
    series_move(w->tally->now, -1);
    buf_init(&text, SERIES_LABELS_MAX);
    if (buf_printf(&text, "%s%s%s%s", w->tally->labels, error[0] != 0 ? ",errno=\"" : "", error,
                   error[0] != 0 ? "\"" : "") == OK)
        series_add(series_get(t->table, SERIES_TCP_CLOSE, buf_slice(&text)), 1);
    buf_done(&text);
    if (--w->tally->watched == 0 && HASH_COUNT(t->tcp) > TCP_KEPT_MAX) {
        HASH_DEL(t->tcp, w->tally);
        free(w->tally->labels);
        free(w->tally);
    }
    w->tally = NULL;
}

void tallies_tick(struct tallies *t)
{
    uint32_t generation = series_generation(t->table);

    LIST_EACH (it, &t->watches)
        watch_count(CONTAINER_OF(it, struct tcp_watch, node));
    if (generation != t->generation) {
        struct http_tally *h, *h_next;
        struct tcp_tally *c, *c_next;

        t->generation = generation;
        memset(t->close, 0, sizeof(t->close));
        HASH_ITER(hh, t->http, h, h_next)
        http_slots(t, h);
        HASH_ITER(hh, t->tcp, c, c_next)
        tcp_slots(t, c);
    }
}

/* ---- single counters ---- */

void tally_close(struct tallies *t, bool is_src, enum close_reason why)
{
    struct series_slot **slot = &t->close[is_src][why];

    if (*slot == NULL) {
        const struct series_label l[] = {{"side", slice_str(is_src ? "src" : "dst")},
                                         {"reason", slice_str(close_name(why))}};

        *slot = series_get(t->table, SERIES_CONNECTION_CLOSE, labels_of(t, l, 2));
    }
    series_add(*slot, 1);
}

void tally_detected(struct tallies *t, enum direction d, const char *result, uint64_t delay_us)
{
    const struct series_label l[] = {{"direction", slice_str(direction_name(d))},
                                     {"result", slice_str(result)}};

    count(t, SERIES_DETECT_RESULTS, l, 2, 1);
    series_observe(series_get(t->table, SERIES_DETECT_DELAY, labels_of(t, l, 2)), delay_us);
}

void tally_detect_dial(struct tallies *t, enum direction d, const char *after)
{
    const struct series_label l[] = {{"direction", slice_str(direction_name(d))},
                                     {"after", slice_str(after)}};

    count(t, SERIES_DETECT_DIALS, l, 2, 1);
}

void tally_handshake(struct tallies *t, bool is_server, const char *result)
{
    const struct series_label l[] = {{"role", slice_str(is_server ? "server" : "client")},
                                     {"result", slice_str(result)}};

    count(t, SERIES_HANDSHAKES, l, 2, 1);
}

void tally_mesh_answer(struct tallies *t, enum direction d, const char *code)
{
    const struct series_label l[] = {{"direction", slice_str(direction_name(d))},
                                     {"code", slice_str(code)}};

    count(t, SERIES_MESH_ANSWERS, l, 2, 1);
}

void tally_breaker(struct tallies *t, unsigned news, const char *backend, const char *reason)
{
    static const enum series_family families[BREAKER_NEWS_KINDS] = {
        [BREAKER_NEWS_EJECTED] = SERIES_EJECTIONS,
        [BREAKER_NEWS_KEPT] = SERIES_EJECTIONS_KEPT,
        [BREAKER_NEWS_RETURNED] = SERIES_RETURNS};
    const struct series_label l[] = {{"backend", slice_str(backend)},
                                     {"reason", slice_str(reason)}};

    count(t, families[news], l, news == BREAKER_NEWS_RETURNED ? 1 : 2, 1);
}

void tally_endpoints(struct tallies *t, const char *backend, const char *state, int64_t more)
{
    const struct series_label l[] = {{"backend", slice_str(backend)},
                                     {"state", slice_str(state)}};

    series_move(series_get(t->table, SERIES_ENDPOINTS, labels_of(t, l, 2)), more);
}

void tally_windows(struct tallies *t, int64_t more, uint64_t grown)
{
    if (more != 0)
        series_move(series_get(t->table, SERIES_WINDOW_BYTES, SLICE_LIT("")), more);
    if (grown != 0)
        count(t, SERIES_WINDOW_GROWN, NULL, 0, grown);
}

void tally_bad_input(struct tallies *t, const char *kind)
{
    const struct series_label l[] = {{"kind", slice_str(kind)}};

    count(t, SERIES_BAD_INPUT, l, 1, 1);
}

static slice_t cut_at(slice_t *s, char c)
{
    const uint8_t *at = s->n > 0 ? memchr(s->p, c, s->n) : NULL;
    slice_t head = at == NULL ? *s : slice(s->p, (size_t)(at - s->p));

    *s = at == NULL ? SLICE_LIT("") : slice_skip(*s, head.n + 1);
    return head;
}

void tally_rate_limited(struct tallies *t, slice_t policy, const char *scope, uint16_t port)
{
    slice_t rest = policy, kind = cut_at(&rest, '/'), ns = cut_at(&rest, '/');
    char text[8];

    (void)snprintf(text, sizeof(text), "%u", port);
    const struct series_label l[] = {
        {"srv_port", slice_str(text)},         {"ratelimit_group", SLICE_LIT("policy.linkerd.io")},
        {"ratelimit_kind", kind},              {"ratelimit_namespace", ns},
        {"ratelimit_name", rest},              {"ratelimit_scope", slice_str(scope)},
    };
    count(t, SERIES_RATE_LIMITED, l, sizeof(l) / sizeof(l[0]), 1);
}

/* A counter of a route, with one label more if `last` is not NULL. */
static void count_route(struct tallies *t, enum series_family family, const struct backend *parent,
                        slice_t route, const struct series_label *last)
{
    slice_t rest = route, kind = cut_at(&rest, '/'), ns = cut_at(&rest, '/');
    char port[8] = "";

    if (parent != NULL)
        (void)snprintf(port, sizeof(port), "%u", parent->port);
    const struct series_label l[] = {
        {"parent_kind", slice_str(parent != NULL ? "Service" : "")},
        {"parent_namespace", slice_str(parent != NULL ? parent->namespace : "")},
        {"parent_name", slice_str(parent != NULL ? parent->name : "")},
        {"parent_port", slice_str(port)},
        {"route_kind", kind},
        {"route_namespace", ns},
        {"route_name", rest},
        last != NULL ? *last : (struct series_label){"", SLICE_LIT("")},
    };
    count(t, family, l, sizeof(l) / sizeof(l[0]) - (last == NULL), 1);
}

void tally_retry(struct tallies *t, enum series_family family, const struct backend *parent,
                 slice_t route)
{
    count_route(t, family, parent, route, NULL);
}

void tally_retry_refused(struct tallies *t, const struct backend *parent, slice_t route, const char *reason)
{
    const struct series_label l = {"reason", slice_str(reason)};

    count_route(t, SERIES_RETRY_REFUSED, parent, route, &l);
}

void tally_hedge(struct tallies *t, const struct backend *parent, slice_t route, const char *result)
{
    const struct series_label l = {"result", slice_str(result)};

    count_route(t, SERIES_HEDGES, parent, route, &l);
}

void tally_fault(struct tallies *t, const struct backend *parent, slice_t route, const char *fault)
{
    const struct series_label l = {"fault", slice_str(fault)};

    count_route(t, SERIES_FAULTS, parent, route, &l);
}

void tally_mirror(struct tallies *t, const struct backend *parent, slice_t route, const char *result)
{
    const struct series_label l = {"result", slice_str(result)};

    count_route(t, SERIES_MIRRORS, parent, route, &l);
}
