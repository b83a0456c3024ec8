#include "cli/itinerary.h"

#include "cli/itinerary_words.h"
#include "model/classify.h"
#include "model/code.h"
#include "model/destination.h"
#include "model/ring.h"
#include "model/route.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct making {
    const struct wire_destination *view;
    const struct itinerary_ask *ask;
    const struct wire_rule *rule; /* chosen; NULL: none */
    json_t *out;
    /* The rule of connections that have none: the service itself. */
    struct wire_rule whole;
    struct wire_weighted itself;
};

static void put(json_t *o, const char *key, json_t *value)
{
    (void)json_object_set_new(o, key, value); /* without memory it is left out */
}

static json_t *text_of(slice_t s)
{
    return json_stringn(s.n > 0 ? (const char *)s.p : "", s.n);
}

/* ---- the request ---- */

static bool header_of(void *arg, slice_t name, size_t nth, slice_t *value)
{
    const struct opt_list *list = arg;

    for (size_t i = 0; list != NULL && i < list->n; i++) {
        const char *colon = strchr(list->at[i], ':');

        if (colon == NULL || (size_t)(colon - list->at[i]) != name.n ||
            strncasecmp(list->at[i], (const char *)name.p, name.n) != 0 || nth-- > 0)
            continue;
        colon++;
        while (*colon == ' ')
            colon++;
        *value = slice_str(colon);
        return true;
    }
    return false;
}

static struct route_request request_of(const struct itinerary_ask *ask)
{
    union {
        const struct opt_list *in;
        void *out;
    } headers = {.in = ask->headers};

    return (struct route_request){.host = slice_str(ask->host),
                                  .path = slice_str(ask->path),
                                  .query = slice_str(ask->query),
                                  .method = slice_str(ask->method),
                                  .header = header_of,
                                  .arg = headers.out};
}

/* ---- rules ---- */

static json_t *rule_row(const struct wire_rule *rule, slice_t host,
                        const struct wire_match *match, bool fits, bool is_chosen,
                        const char *why)
{
    json_t *row = json_object();
    char name[400], *text = words_of_match(rule, host, match);

    words_rule_name(rule, name);
    put(row, "rule", json_string(name));
    put(row, "match", json_string(text != NULL ? text : ""));
    put(row, "fits", json_boolean(fits));
    put(row, "chosen", json_boolean(is_chosen));
    put(row, "why", json_string(why));
    free(text);
    return row;
}

static err_t add_http_rules(struct making *m, struct route_table *table)
{
    struct route_request request = request_of(m->ask);
    struct route_verdict *v = calloc(m->view->n_rules + 1, sizeof(*v));
    json_t *rows = json_array();
    size_t n;

    if (v == NULL) {
        json_decref(rows);
        return ERR_OF(NOMEM);
    }
    n = route_explain(table, &request, v, m->view->n_rules);
    for (size_t i = 0; i < n; i++) {
        const struct wire_rule *rule = &m->view->rules[v[i].rule];
        char *why = words_of_verdict(&v[i], &request);

        if (v[i].is_chosen)
            m->rule = rule;
        (void)json_array_append_new(rows, rule_row(rule, v[i].host, v[i].match,
                                                   v[i].missed == ROUTE_PART_NONE,
                                                   v[i].is_chosen, why != NULL ? why : ""));
        free(why);
    }
    put(m->out, "rules", rows);
    free(v);
    return OK;
}

static void add_tls_rules(struct making *m, const struct route_table *table)
{
    struct route_found found;
    json_t *rows = json_array();

    if (route_match_sni(table, slice_str(m->ask->host), &found))
        m->rule = found.rule;
    for (size_t i = 0; i < m->view->n_tls_rules; i++) {
        const struct wire_rule *rule = &m->view->tls_rules[i];
        bool is_chosen = rule == m->rule;

        (void)json_array_append_new(
            rows, rule_row(rule, slice(NULL, 0), NULL, is_chosen, is_chosen,
                           is_chosen ? "its host fits the server name best"
                                     : "no host fits, or one of another rule fits better"));
    }
    put(m->out, "rules", rows);
}

static void add_tcp_rules(struct making *m)
{
    json_t *rows = json_array();

    for (size_t i = 0; i < m->view->n_tcp_rules; i++)
        (void)json_array_append_new(rows, rule_row(&m->view->tcp_rules[i], slice(NULL, 0), NULL,
                                                   i == 0, i == 0,
                                                   i == 0 ? "the only one" : "older wins"));
    if (m->view->n_tcp_rules > 0)
        m->rule = &m->view->tcp_rules[0];
    put(m->out, "rules", rows);
}

/* ---- filters, limits ---- */

static void add_filters(struct making *m)
{
    json_t *list = json_array();

    for (size_t i = 0; i < m->rule->n_filters; i++) {
        char *text = words_of_filter(m->view, &m->rule->filters[i]);

        if (text != NULL)
            (void)json_array_append_new(list, json_string(text));
        free(text);
    }
    put(m->out, "filters", list);
}

/* The resource behind the rule, and the rule in it. */
static const struct route_rule *source_of(const struct making *m, const struct resource **route)
{
    char key[400];

    *route = NULL;
    if (m->rule->route.n == 0 || !slice_to_cstr(m->rule->route, key, sizeof(key)))
        return NULL;
    *route = m->ask->find(m->ask->arg, key);
    if (*route == NULL || !resource_is_route((*route)->kind) ||
        m->rule->index >= (*route)->route.n_rules)
        return NULL;
    return &(*route)->route.rules[m->rule->index];
}

static const struct resource *service_of(const struct making *m)
{
    char key[400];

    (void)snprintf(key, sizeof(key), "Service/%.*s/%.*s", SLICE_FMT(m->view->namespace),
                   SLICE_FMT(m->view->name));
    return m->ask->find(m->ask->arg, key);
}

static json_t *limit(uint32_t ms, enum destination_origin origin)
{
    return json_pack("{s:I,s:s}", "ms", (json_int_t)ms, "from", words_of_origin(origin));
}

static void add_limits(struct making *m)
{
    static const struct resource_limits nothing = {false};
    const struct resource *route = NULL, *service = service_of(m);
    const struct route_rule *rule = source_of(m, &route);
    struct destination_origins o = {.request = ORIGIN_DEFAULT};
    struct wire_rule ignored;
    char *text;

    if (m->view->in_order) { /* of a profile: only what its route says */
        o.request = m->rule->request_ms != 0 ? ORIGIN_RULE : ORIGIN_DEFAULT;
        o.retry = m->rule->has_retry ? ORIGIN_RULE : ORIGIN_DEFAULT;
    } else {
        (void)destination_limits(rule, rule != NULL ? &route->route.limits : NULL,
                                 service != NULL ? &service->service.limits : &nothing,
                                 &ignored, &o);
    }
    put(m->out, "timeouts",
        json_pack("{s:o,s:o,s:o,s:o}", "request", limit(m->rule->request_ms, o.request),
                  "attempt", limit(m->rule->backend_ms, o.backend), "response_headers",
                  limit(m->rule->head_ms, o.head), "idle", limit(m->rule->idle_ms, o.idle)));
    text = words_of_retry(m->rule);
    put(m->out, "retries",
        json_pack("{s:s,s:s}", "policy", text != NULL ? text : "", "from",
                  words_of_origin(o.retry)));
    free(text);
}

/* ---- backends and endpoints ---- */

static uint64_t weight_sum(const struct wire_rule *rule)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < rule->n_backends; i++)
        sum += rule->backends[i].weight;
    return sum;
}

static json_t *backend_row(const struct making *m, const struct wire_weighted *w, uint64_t sum)
{
    const struct wire_backend *b = &m->view->backends[w->backend];
    const char *why = "";
    char name[400];
    json_t *row;

    words_backend_name(b, name);
    if (b->state == ROUTE_BACKEND_MISSING)
        why = "there is no such service or port: its share is answered 500 (W1003)";
    else if (w->weight == 0)
        why = "weight 0: never chosen";
    else if (b->n_endpoints == 0)
        why = "no ready endpoint: passed over while another backend has one";
    row = json_pack(
        "{s:s,s:I,s:f,s:I,s:s,s:s}", "service", name, "weight", (json_int_t)w->weight, "share",
        sum > 0 ? (double)w->weight / (double)sum : 0.0, "ready", (json_int_t)b->n_endpoints,
        "protocol", protocol_name(b->protocol), "why", why);
    if (w->n_filters > 0) {
        json_t *list = json_array();

        for (size_t i = 0; i < w->n_filters; i++) {
            char *text = words_of_filter(m->view, &w->filters[i]);

            if (text != NULL)
                (void)json_array_append_new(list, json_string(text));
            free(text);
        }
        put(row, "filters", list);
    }
    return row;
}

/* The key of consistent hashing, if the request has one. */
static bool key_of(const struct making *m, const struct wire_balancing *w, slice_t *key)
{
    struct route_request request = request_of(m->ask);
    slice_t value;

    if (w->hash_by == HASH_BY_SOURCE) {
        *key = slice_str(m->ask->source);
        return key->n > 0;
    }
    if (w->hash_by == HASH_BY_HEADER)
        return request.header(request.arg, w->hash_name, 0, key);
    for (size_t nth = 0; request.header(request.arg, SLICE_LIT("cookie"), nth, &value); nth++)
        if (words_find_cookie(value, w->hash_name, key))
            return true;
    return false;
}

/* Index of the endpoint that is certain to be chosen, or RING_NONE; *how says how it is done.
 */
static size_t certain_endpoint(const struct making *m, const struct wire_backend *b,
                               char how[200])
{
    const struct wire_balancing *w = b->n_balancing > 0 ? &b->balancing[0] : NULL;
    slice_t key = {NULL, 0};

    if (b->n_endpoints == 1) {
        (void)snprintf(how, 200, "the only one");
        return 0;
    }
    if (w != NULL && w->kind == BALANCING_HASH && m->ask->kind == ITINERARY_HTTP &&
        key_of(m, w, &key)) {
        (void)snprintf(how, 200, "consistent hash of \"%.*s\"", key.n > 80 ? 80 : (int)key.n,
                       (const char *)key.p);
        return ring_pick(b->endpoints, b->n_endpoints, ring_key(key), NULL, NULL);
    }
    words_balancing(w, b->n_endpoints, how);
    return RING_NONE;
}

static void add_endpoints(const struct making *m, const struct wire_backend *b, json_t *rows)
{
    const struct wire_balancing *w = b->n_balancing > 0 ? &b->balancing[0] : NULL;
    char how[200], name[400];
    size_t certain = b->n_endpoints > 0 ? certain_endpoint(m, b, how) : RING_NONE;

    words_backend_name(b, name);
    for (size_t i = 0; i < b->n_endpoints; i++) {
        const struct wire_endpoint *e = &b->endpoints[i];
        bool is_far = w != NULL && w->zone_mode == 1 && m->ask->zone[0] != '\0' &&
                      !slice_is_str(e->zone, m->ask->zone);
        char address[64];

        (void)snprintf(address, sizeof(address),
                       memchr(e->ip.p, ':', e->ip.n) != NULL ? "[%.*s]:%u" : "%.*s:%u",
                       SLICE_FMT(e->ip), (unsigned)e->port);
        (void)json_array_append_new(
            rows,
            json_pack("{s:s,s:s,s:o,s:o,s:I,s:b,s:b,s:s}", "backend", name, "address", address,
                      "pod", text_of(e->pod), "zone", text_of(e->zone), "weight",
                      (json_int_t)e->weight, "tls", e->identity.n > 0, "chosen", i == certain,
                      "why",
                      i == certain           ? how
                      : e->weight == 0       ? "weight 0: never chosen"
                      : certain != RING_NONE ? "the key belongs to another one"
                      : is_far ? "another zone: only if those of the own zone are overloaded"
                               : how));
    }
}

static void add_backends(struct making *m)
{
    uint64_t sum = weight_sum(m->rule);
    json_t *backends = json_array(), *endpoints = json_array();

    for (size_t i = 0; i < m->rule->n_backends; i++) {
        const struct wire_weighted *w = &m->rule->backends[i];

        (void)json_array_append_new(backends, backend_row(m, w, sum));
        if (w->weight > 0)
            add_endpoints(m, &m->view->backends[w->backend], endpoints);
    }
    put(m->out, "backends", backends);
    put(m->out, "endpoints", endpoints);
}

/* ---- what the mesh answers itself ---- */

static void add_answer(struct making *m)
{
    enum code code = CODE_NONE;
    char text[160];

    for (size_t i = 0; m->rule != NULL && i < m->rule->n_filters; i++)
        if (m->rule->filters[i].kind == ROUTE_FILTER_REDIRECT) {
            put(m->out, "answer", json_sprintf("%u redirect", m->rule->filters[i].status));
            return;
        }
    if (m->rule == NULL)
        code = CODE_NO_ROUTE;
    else if (weight_sum(m->rule) == 0)
        code = CODE_NO_BACKENDS;
    if (code == CODE_NONE)
        return;
    (void)snprintf(text, sizeof(text), "%s %s: %s", code_info(code)->id, code_info(code)->name,
                   code_info(code)->what);
    put(m->out, "answer", json_string(text));
}

/* ---- all together ---- */

static json_t *destination_row(const struct wire_destination *v)
{
    static const char *const kinds[] = {"unknown", "service", "endpoint"};
    char service[400] = "";

    if (v->kind == 1)
        (void)snprintf(service, sizeof(service), "%.*s/%.*s:%u", SLICE_FMT(v->namespace),
                       SLICE_FMT(v->name), (unsigned)v->port);
    return json_pack("{s:s,s:s,s:s,s:s,s:b}", "kind", kinds[v->kind <= 2 ? v->kind : 0],
                     "service", service, "protocol", protocol_name(v->protocol), "seen",
                     protocol_name(v->lesson), "profile", v->in_order);
}

/* Connections that have no rules of their own go to the service itself. */
static bool has_own_rules(const struct making *m)
{
    return m->ask->kind == ITINERARY_HTTP ||
           (m->ask->kind == ITINERARY_TLS ? m->view->n_tls_rules : m->view->n_tcp_rules) > 0;
}

static err_t fill(struct making *m, struct route_table *table)
{
    if (m->view->n_backends == 0)
        return OK;
    if (m->ask->kind == ITINERARY_HTTP)
        TRY(add_http_rules(m, table));
    else if (m->ask->kind == ITINERARY_TLS)
        add_tls_rules(m, table);
    else
        add_tcp_rules(m);
    if (!has_own_rules(m))
        m->rule = &m->whole;
    add_answer(m);
    if (m->rule == NULL)
        return OK;
    add_filters(m);
    if (m->ask->kind == ITINERARY_HTTP)
        add_limits(m);
    add_backends(m);
    return OK;
}

json_t *itinerary_make(const struct wire_destination *view, const struct itinerary_ask *ask,
                       char why[160])
{
    struct making m = {.view = view, .ask = ask, .out = json_object(), .itself = {.weight = 1}};
    struct route_table *table = NULL;
    err_t e = route_table_new(view, &table, why);

    m.whole = (struct wire_rule){.n_backends = 1, .backends = &m.itself};
    put(m.out, "destination", destination_row(view));
    if (e == OK)
        e = fill(&m, table);
    route_table_free(&table);
    if (e == OK)
        return m.out;
    json_decref(m.out);
    return NULL;
}
