#include "model/route.h"

#include "model/name.h"
#include "model/regex.h"

#include <stdio.h>
#include <stdlib.h>

/* More alternatives than this are refused: sorting and looking through them is work per
 * request. */
enum { MAX_CANDIDATES = 16384 };

enum host_rank { HOST_EXACT, HOST_WILDCARD, HOST_ANY };
enum path_rank { PATH_EXACT, PATH_PREFIX, PATH_REGEX, PATH_EVERYTHING };

/* One header or query parameter to match, compiled. */
struct value_test {
    slice_t name, value;
    struct regex *regex; /* owned by the table; NULL: exact */
};

/* A match, compiled; shared by the candidates of all hosts of its rule. */
struct match_test {
    const struct wire_match *match; /* NULL: fits everything */
    enum path_rank path_rank;
    slice_t path; /* PREFIX: without a trailing slash */
    struct regex *path_regex;
    struct value_test *headers, *query, *conditions; /* owned */
    size_t n_headers, n_query, n_conditions;
};

/* What rules of connections have instead of a match. */
static const struct match_test fits_everything = {.path_rank = PATH_EVERYTHING};

struct candidate {
    enum host_rank host_rank;
    slice_t host; /* WILDCARD: the suffix with its dot */
    const struct match_test *test;
    uint32_t rule, order;
};

struct route_table {
    const struct wire_destination *d;
    struct match_test *tests; /* owned */
    size_t n_tests;
    struct candidate *candidates; /* owned, best first */
    size_t n_candidates;
    struct candidate *by_sni; /* owned, best first; rules are indices of tls_rules */
    size_t n_by_sni;
};

/* ---- building ---- */

static err_t compile_regex(slice_t pattern, const struct wire_rule *rule, struct regex **out,
                           char why[160])
{
    char reason[96];
    err_t e = regex_new(pattern, out, reason);

    if (e != OK)
        (void)snprintf(why, 160, "rule %u of %.*s: regular expression: %s",
                       (unsigned)rule->index, rule->route.n > 40 ? 40 : (int)rule->route.n,
                       (const char *)rule->route.p, reason);
    return e;
}

static err_t refuse(const struct wire_rule *rule, const char *what, char why[160])
{
    (void)snprintf(why, 160, "rule %u of %.*s: %s", (unsigned)rule->index,
                   rule->route.n > 80 ? 80 : (int)rule->route.n, (const char *)rule->route.p,
                   what);
    return ERR_OF(MODEL_INVALID);
}

static err_t compile_values(const struct wire_rule *rule, const struct wire_match_value *values,
                            size_t n, struct value_test **out, size_t *n_out, char why[160])
{
    if (n == 0)
        return OK;
    *out = calloc(n, sizeof(**out));
    if (*out == NULL)
        return ERR_OF(NOMEM);
    *n_out = n;
    for (size_t i = 0; i < n; i++) {
        (*out)[i].name = values[i].name;
        (*out)[i].value = values[i].value;
        if (values[i].kind == ROUTE_VALUE_REGEX)
            TRY(compile_regex(values[i].value, rule, &(*out)[i].regex, why));
        else if (values[i].kind != ROUTE_VALUE_EXACT)
            return refuse(rule, "a match of an unknown kind", why);
    }
    return OK;
}

static err_t compile_conditions(const struct wire_rule *rule, const struct wire_match *m,
                                struct match_test *t, char why[160])
{
    if (m->n_conditions == 0)
        return OK;
    t->conditions = calloc(m->n_conditions, sizeof(*t->conditions));
    if (t->conditions == NULL)
        return ERR_OF(NOMEM);
    t->n_conditions = m->n_conditions;
    for (size_t i = 0; i < m->n_conditions; i++) {
        t->conditions[i].value = m->conditions[i].value;
        if (m->conditions[i].what == ROUTE_CONDITION_PATH)
            TRY(compile_regex(m->conditions[i].value, rule, &t->conditions[i].regex, why));
        else if (m->conditions[i].what != ROUTE_CONDITION_METHOD)
            return refuse(rule, "a condition of an unknown kind", why);
    }
    return OK;
}

static err_t compile_path(const struct wire_rule *rule, const struct wire_match *m,
                          struct match_test *t, char why[160])
{
    t->path = m->path;
    switch (m->path_kind) {
    case ROUTE_PATH_ANY:
        t->path_rank = PATH_EVERYTHING;
        return OK;
    case ROUTE_PATH_EXACT:
        t->path_rank = PATH_EXACT;
        return OK;
    case ROUTE_PATH_PREFIX:
        while (t->path.n > 0 && t->path.p[t->path.n - 1] == '/')
            t->path.n--;
        t->path_rank = t->path.n == 0 ? PATH_EVERYTHING : PATH_PREFIX;
        return OK;
    case ROUTE_PATH_REGEX:
        t->path_rank = PATH_REGEX;
        return compile_regex(m->path, rule, &t->path_regex, why);
    default: /* from a newer broker */
        return refuse(rule, "a path match of an unknown kind", why);
    }
}

static err_t compile_match(const struct wire_rule *rule, const struct wire_match *m,
                           struct match_test *t, char why[160])
{
    t->match = m;
    if (m == NULL) {
        t->path_rank = PATH_EVERYTHING;
        return OK;
    }
    TRY(compile_path(rule, m, t, why));
    TRY(compile_values(rule, m->headers, m->n_headers, &t->headers, &t->n_headers, why));
    TRY(compile_values(rule, m->query, m->n_query, &t->query, &t->n_query, why));
    return compile_conditions(rule, m, t, why);
}

static void add_candidate(struct candidate *list, size_t *n, const struct match_test *test,
                          size_t rule, const struct wire_host_match *host)
{
    struct candidate *c = &list[*n];

    *c = (struct candidate){
        .host_rank = HOST_ANY, .test = test, .rule = (uint32_t)rule, .order = (uint32_t)*n};
    if (host != NULL && slice_starts(host->host, SLICE_LIT("*."))) {
        c->host_rank = HOST_WILDCARD;
        c->host = slice_skip(host->host, 1);
    } else if (host != NULL) {
        c->host_rank = HOST_EXACT;
        c->host = host->host;
    }
    (*n)++;
}

/* One per host, or one for all. */
static void add_candidates(struct candidate *list, size_t *n, const struct match_test *test,
                           size_t index, const struct wire_rule *rule)
{
    if (rule->n_hosts == 0)
        add_candidate(list, n, test, index, NULL);
    for (size_t h = 0; h < rule->n_hosts; h++)
        add_candidate(list, n, test, index, &rule->hosts[h]);
}

static err_t check_filters(const struct wire_destination *d, const struct wire_rule *rule,
                           const struct wire_filter *filters, size_t n, char why[160])
{
    for (size_t i = 0; i < n; i++) {
        if (filters[i].kind < ROUTE_FILTER_REQUEST_HEADERS ||
            filters[i].kind > ROUTE_FILTER_DELAY)
            return refuse(rule, "a filter of an unknown kind", why);
        if (filters[i].kind == ROUTE_FILTER_MIRROR && filters[i].backend >= d->n_backends)
            return refuse(rule, "a mirror that is not in the view", why);
        if (filters[i].path_kind > ROUTE_REWRITE_PREFIX || filters[i].share_ppm > 1000000)
            return refuse(rule, "a filter that makes no sense", why);
        for (size_t e = 0; e < filters[i].n_edits; e++)
            if (filters[i].edits[e].verb > ROUTE_EDIT_REMOVE)
                return refuse(rule, "a header edit of an unknown kind", why);
    }
    return OK;
}

/* Everything of a rule that points somewhere or has a kind. */
static err_t check_rule(const struct wire_destination *d, const struct wire_rule *rule,
                        char why[160])
{
    TRY(check_filters(d, rule, rule->filters, rule->n_filters, why));
    for (size_t i = 0; i < rule->n_backends; i++) {
        const struct wire_weighted *w = &rule->backends[i];

        if (w->backend >= d->n_backends)
            return refuse(rule, "a backend that is not in the view", why);
        TRY(check_filters(d, rule, w->filters, w->n_filters, why));
    }
    return OK;
}

static err_t add_rule(struct route_table *t, size_t index, char why[160])
{
    const struct wire_rule *rule = &t->d->rules[index];
    size_t n_matches = rule->n_matches > 0 ? rule->n_matches : 1;

    TRY(check_rule(t->d, rule, why));
    for (size_t i = 0; i < n_matches; i++) {
        struct match_test *test = &t->tests[t->n_tests++];

        TRY(compile_match(rule, rule->n_matches > 0 ? &rule->matches[i] : NULL, test, why));
        add_candidates(t->candidates, &t->n_candidates, test, index, rule);
    }
    return OK;
}

static int more_first(size_t a, size_t b)
{
    return a > b ? -1 : a < b ? 1 : 0;
}

/* Which of the two comes first, and what decided. */
static int compare_by(const struct candidate *a, const struct candidate *b, enum route_by *by)
{
    const struct match_test *x = a->test, *y = b->test;
    bool x_method = x->match != NULL && x->match->method.n > 0;
    bool y_method = y->match != NULL && y->match->method.n > 0;
    int c;

    *by = ROUTE_BY_HOST;
    if (a->host_rank != b->host_rank)
        return a->host_rank < b->host_rank ? -1 : 1;
    if ((c = more_first(a->host.n, b->host.n)) != 0)
        return c;
    *by = ROUTE_BY_PATH;
    if (x->path_rank != y->path_rank)
        return x->path_rank < y->path_rank ? -1 : 1;
    if (x->path_rank == PATH_PREFIX && (c = more_first(x->path.n, y->path.n)) != 0)
        return c;
    *by = ROUTE_BY_METHOD;
    if (x_method != y_method)
        return x_method ? -1 : 1;
    *by = ROUTE_BY_HEADERS;
    if ((c = more_first(x->n_headers, y->n_headers)) != 0)
        return c;
    *by = ROUTE_BY_QUERY;
    if ((c = more_first(x->n_query, y->n_query)) != 0)
        return c;
    *by = ROUTE_BY_ORDER;
    return a->order < b->order ? -1 : 1; /* orders differ */
}

static int compare(const void *left, const void *right)
{
    enum route_by ignored;

    return compare_by(left, right, &ignored);
}

/* Rules of connections: their hosts, backends and nothing else. */
static err_t build_sni(struct route_table *t, char why[160])
{
    size_t n = 0;

    for (size_t i = 0; i < t->d->n_tcp_rules; i++)
        TRY(check_rule(t->d, &t->d->tcp_rules[i], why));
    for (size_t i = 0; i < t->d->n_tls_rules; i++)
        n += t->d->tls_rules[i].n_hosts > 0 ? t->d->tls_rules[i].n_hosts : 1;
    t->by_sni = calloc(n + 1, sizeof(*t->by_sni));
    if (t->by_sni == NULL)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < t->d->n_tls_rules; i++) {
        TRY(check_rule(t->d, &t->d->tls_rules[i], why));
        add_candidates(t->by_sni, &t->n_by_sni, &fits_everything, i, &t->d->tls_rules[i]);
    }
    qsort(t->by_sni, t->n_by_sni, sizeof(*t->by_sni), compare);
    return OK;
}

static err_t build(struct route_table *t, char why[160])
{
    size_t n_tests = 0, n_candidates = 0;

    for (size_t i = 0; i < t->d->n_rules; i++) {
        const struct wire_rule *rule = &t->d->rules[i];
        size_t n = rule->n_matches > 0 ? rule->n_matches : 1;

        n_tests += n;
        n_candidates += n * (rule->n_hosts > 0 ? rule->n_hosts : 1);
    }
    if (n_candidates > MAX_CANDIDATES) {
        (void)snprintf(why, 160, "%zu combinations of hosts and matches, at most %d",
                       n_candidates, (int)MAX_CANDIDATES);
        return ERR_OF(MODEL_LIMIT);
    }
    t->tests = calloc(n_tests + 1, sizeof(*t->tests));
    t->candidates = calloc(n_candidates + 1, sizeof(*t->candidates));
    if (t->tests == NULL || t->candidates == NULL)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < t->d->n_rules; i++)
        TRY(add_rule(t, i, why));
    if (!t->d->in_order)
        qsort(t->candidates, t->n_candidates, sizeof(*t->candidates), compare);
    return build_sni(t, why);
}

err_t route_table_new(const struct wire_destination *d, struct route_table **out, char why[160])
{
    struct route_table *t = calloc(1, sizeof(*t));
    err_t e;

    why[0] = '\0';
    if (t == NULL)
        return ERR_OF(NOMEM);
    t->d = d;
    e = build(t, why);
    if (e != OK) {
        route_table_free(&t);
        return e;
    }
    *out = t;
    return OK;
}

static void free_values(struct value_test *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        regex_free(&values[i].regex);
    free(values);
}

void route_table_free(struct route_table **t)
{
    if (*t == NULL)
        return;
    for (size_t i = 0; (*t)->tests != NULL && i < (*t)->n_tests; i++) {
        struct match_test *m = &(*t)->tests[i];

        regex_free(&m->path_regex);
        free_values(m->headers, m->n_headers);
        free_values(m->query, m->n_query);
        free_values(m->conditions, m->n_conditions);
    }
    free((*t)->by_sni);
    free((*t)->tests);
    free((*t)->candidates);
    free(*t);
    *t = NULL;
}

/* ---- matching ---- */

static bool host_fits(const struct candidate *c, slice_t host)
{
    switch (c->host_rank) {
    case HOST_ANY:
        return true;
    case HOST_EXACT:
        return slice_is_nocase(c->host, host);
    case HOST_WILDCARD: /* at least one label before the dot */
        return host.n > c->host.n &&
               slice_is_nocase(c->host, slice_skip(host, host.n - c->host.n));
    }
    return false;
}

bool route_prefix_fits(slice_t prefix, slice_t path)
{
    while (prefix.n > 0 && prefix.p[prefix.n - 1] == '/')
        prefix.n--;
    return slice_starts(path, prefix) && (path.n == prefix.n || path.p[prefix.n] == '/');
}

static bool path_fits(const struct match_test *t, slice_t path)
{
    switch (t->path_rank) {
    case PATH_EVERYTHING:
        return true;
    case PATH_EXACT:
        return slice_is(t->path, path);
    case PATH_PREFIX:
        return route_prefix_fits(t->path, path);
    case PATH_REGEX:
        return regex_matches(t->path_regex, path);
    }
    return false;
}

static bool value_fits(const struct value_test *v, slice_t value)
{
    return v->regex != NULL ? regex_matches(v->regex, value) : slice_is(v->value, value);
}

static bool header_fits(const struct value_test *v, const struct route_request *r)
{
    slice_t value;

    for (size_t nth = 0; r->header != NULL && r->header(r->arg, v->name, nth, &value); nth++)
        if (value_fits(v, value))
            return true;
    return false;
}

static int hex_of(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* application/x-www-form-urlencoded, as browsers write queries. Longer than cap: cut, so no
 * match. */
static slice_t decode_form(slice_t s, uint8_t *out, size_t cap)
{
    size_t n = 0;

    for (size_t i = 0; i < s.n && n < cap; i++) {
        int high = s.p[i] == '%' && i + 2 < s.n ? hex_of(s.p[i + 1]) : -1;
        int low = high >= 0 ? hex_of(s.p[i + 2]) : -1;

        if (low >= 0) {
            out[n++] = (uint8_t)(high << 4 | low);
            i += 2;
        } else {
            out[n++] = s.p[i] == '+' ? ' ' : s.p[i];
        }
    }
    return slice(out, n);
}

/* The first parameter of that name decides, as the Gateway API has it. */
static bool query_fits(const struct value_test *v, slice_t query)
{
    uint8_t name[257],
        value[2048]; /* longer than what the table allows, so a cut one never fits */

    while (query.n > 0) {
        const uint8_t *amp = memchr(query.p, '&', query.n);
        slice_t pair = slice(query.p, amp != NULL ? (size_t)(amp - query.p) : query.n);
        const uint8_t *eq = pair.n > 0 ? memchr(pair.p, '=', pair.n) : NULL;
        slice_t key = eq != NULL ? slice(pair.p, (size_t)(eq - pair.p)) : pair;

        if (slice_is(decode_form(key, name, sizeof(name)), v->name))
            return value_fits(v,
                              decode_form(slice_skip(pair, key.n + 1), value, sizeof(value)));
        query = slice_skip(query, pair.n + 1);
    }
    return false;
}

static bool condition_fits(const struct match_test *t, size_t i, const struct route_request *r)
{
    const struct wire_condition *c = &t->match->conditions[i];
    bool fits = c->what == ROUTE_CONDITION_PATH ? regex_matches(t->conditions[i].regex, r->path)
                                                : slice_is(c->value, r->method);

    return fits != c->is_not;
}

/* The first part that does not fit; *which of several. */
static enum route_part first_miss(const struct match_test *t, const struct route_request *r,
                                  size_t *which)
{
    if (t->match == NULL)
        return ROUTE_PART_NONE;
    if (t->match->method.n > 0 && !slice_is(t->match->method, r->method))
        return ROUTE_PART_METHOD;
    if (!path_fits(t, r->path))
        return ROUTE_PART_PATH;
    for (*which = 0; *which < t->n_headers; (*which)++)
        if (!header_fits(&t->headers[*which], r))
            return ROUTE_PART_HEADER;
    for (*which = 0; *which < t->n_query; (*which)++)
        if (!query_fits(&t->query[*which], r->query))
            return ROUTE_PART_QUERY;
    for (*which = 0; *which < t->n_conditions; (*which)++)
        if (!condition_fits(t, *which, r))
            return ROUTE_PART_CONDITION;
    return ROUTE_PART_NONE;
}

static const struct candidate *find(struct route_table *t, const struct route_request *request,
                                    slice_t host)
{
    size_t which;

    for (size_t i = 0; i < t->n_candidates; i++) {
        const struct candidate *c = &t->candidates[i];

        if (host_fits(c, host) && first_miss(c->test, request, &which) == ROUTE_PART_NONE)
            return c;
    }
    return NULL;
}

bool route_match(struct route_table *t, const struct route_request *request,
                 struct route_found *out)
{
    const struct candidate *c = find(t, request, name_host_of(request->host));

    if (c == NULL)
        return false;
    out->rule = &t->d->rules[c->rule];
    out->index = c->rule;
    out->match = c->test->match;
    return true;
}

bool route_match_sni(const struct route_table *t, slice_t server_name, struct route_found *out)
{
    slice_t host = name_host_of(server_name); /* without a trailing dot */

    for (size_t i = 0; i < t->n_by_sni; i++) {
        if (!host_fits(&t->by_sni[i], host))
            continue;
        out->index = t->by_sni[i].rule;
        out->rule = &t->d->tls_rules[out->index];
        out->match = NULL;
        return true;
    }
    return false;
}

/* ---- why ---- */

/* Takes the candidate into its rule's verdict if it came further than those before. */
static void note_candidate(const struct route_table *t, const struct candidate *c,
                           const struct candidate *winner, const struct route_request *request,
                           slice_t host, struct route_verdict *v)
{
    size_t which = 0;
    enum route_part missed =
        host_fits(c, host) ? first_miss(c->test, request, &which) : ROUTE_PART_HOST;
    bool is_first = v->rule == SIZE_MAX;

    if (!is_first &&
        (v->missed == ROUTE_PART_NONE || (missed != ROUTE_PART_NONE && missed <= v->missed)))
        return;
    *v = (struct route_verdict){.rule = c->rule,
                                .match = c->test->match,
                                .is_chosen = c == winner,
                                .missed = missed,
                                .which = which};
    if (c->host_rank != HOST_ANY) /* as written: a wildcard with its star */
        v->host = c->host_rank == HOST_EXACT ? c->host : slice(c->host.p - 1, c->host.n + 1);
    if (missed == ROUTE_PART_NONE && winner != NULL && c != winner) {
        if (t->d->in_order)
            v->lost_by = ROUTE_BY_ORDER;
        else
            (void)compare_by(winner, c, &v->lost_by);
    }
}

size_t route_explain(struct route_table *t, const struct route_request *request,
                     struct route_verdict *out, size_t cap)
{
    slice_t host = name_host_of(request->host);
    const struct candidate *winner = find(t, request, host);
    size_t n = t->d->n_rules < cap ? t->d->n_rules : cap;

    for (size_t i = 0; i < n; i++)
        out[i].rule = SIZE_MAX;
    for (size_t i = 0; i < t->n_candidates; i++)
        if (t->candidates[i].rule < n)
            note_candidate(t, &t->candidates[i], winner, request, host,
                           &out[t->candidates[i].rule]);
    return n;
}

const struct wire_weighted *route_pick(const struct wire_rule *rule, uint64_t random,
                                       bool (*may)(void *arg, uint16_t backend), void *arg)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < rule->n_backends; i++)
        if (may == NULL || may(arg, rule->backends[i].backend))
            sum += rule->backends[i].weight;
    if (sum == 0)
        return NULL;
    random %= sum;
    for (size_t i = 0; i < rule->n_backends; i++) {
        const struct wire_weighted *w = &rule->backends[i];

        if (may != NULL && !may(arg, w->backend))
            continue;
        if (random < w->weight)
            return w;
        random -= w->weight;
    }
    return NULL; /* `may` changed its mind between the two loops */
}

/* ---- redirects and rewrites ---- */

/* "/a" replaced by `to` in "/a/b": one slash at the joint, and never an empty path. */
static err_t replace_prefix(slice_t prefix, slice_t to, slice_t path, struct buf *out)
{
    slice_t rest;

    while (prefix.n > 0 && prefix.p[prefix.n - 1] == '/')
        prefix.n--;
    rest = slice_skip(path, prefix.n);
    while (to.n > 0 && to.p[to.n - 1] == '/')
        to.n--;
    if (to.n > 0)
        TRY(buf_add_slice(out, to));
    if (rest.n > 0)
        return buf_add_slice(out, rest);
    return to.n > 0 ? OK : buf_add(out, "/", 1);
}

err_t route_rewrite_path(const struct wire_filter *filter, const struct wire_match *match,
                         slice_t path, struct buf *out)
{
    switch (filter->path_kind) {
    case ROUTE_REWRITE_NOTHING:
        return path.n > 0 ? buf_add_slice(out, path) : OK;
    case ROUTE_REWRITE_WHOLE:
        return filter->path.n > 0 ? buf_add_slice(out, filter->path) : buf_add(out, "/", 1);
    case ROUTE_REWRITE_PREFIX:
        if (match == NULL) /* a rule without matches is the prefix "/" */
            return replace_prefix(SLICE_LIT("/"), filter->path, path, out);
        if (match->path_kind == ROUTE_PATH_PREFIX || match->path_kind == ROUTE_PATH_ANY)
            return replace_prefix(match->path, filter->path, path, out);
        return ERR_OF(MODEL_INVALID);
    default: /* from a newer broker */
        return ERR_OF(MODEL_INVALID);
    }
}

/* The port part of an authority as text, empty if there is none. */
static slice_t port_of(slice_t authority)
{
    for (size_t i = authority.n; i > 0; i--) {
        if (authority.p[i - 1] == ':')
            return slice_skip(authority, i);
        if (authority.p[i - 1] < '0' || authority.p[i - 1] > '9')
            break;
    }
    return slice(NULL, 0);
}

static bool is_default_port(slice_t scheme, uint64_t port)
{
    return slice_is_nocase(scheme, SLICE_LIT("https")) ? port == 443 : port == 80;
}

/* Host and port: the filter's, else the request's; the scheme's own port is left out. */
static err_t put_authority(const struct wire_filter *f, slice_t authority, slice_t scheme,
                           struct buf *out)
{
    slice_t port_text = port_of(authority);
    slice_t host = slice(authority.p, authority.n - (port_text.n > 0 ? port_text.n + 1 : 0));
    uint64_t port = 0;

    if (f->host.n > 0)
        host = f->host;
    if (host.n == 0)
        return ERR_OF(MODEL_INVALID);
    if (f->port != 0)
        port = f->port;
    else if (f->scheme.n == 0 || slice_is_nocase(f->scheme, scheme))
        (void)slice_to_u64(port_text, &port); /* none: stays 0 */
    TRY(buf_add_slice(out, host));
    if (port == 0 || is_default_port(f->scheme.n > 0 ? f->scheme : scheme, port))
        return OK;
    return buf_printf(out, ":%u", (unsigned)port);
}

err_t route_redirect_location(const struct wire_filter *filter, const struct wire_match *match,
                              const struct route_request *request, slice_t scheme,
                              struct buf *out, bool *is_same)
{
    size_t before = buf_len(out), authority_at, path_at;
    slice_t to, authority = request->host;

    if (scheme.n == 0)
        scheme = SLICE_LIT("http");
    TRY(buf_add_slice(out, filter->scheme.n > 0 ? filter->scheme : scheme));
    TRY(buf_add(out, "://", 3));
    authority_at = buf_len(out);
    TRY(put_authority(filter, authority, scheme, out));
    path_at = buf_len(out);
    TRY(route_rewrite_path(filter, match, request->path, out));
    to = buf_slice(out);
    *is_same = slice_is_nocase(slice(to.p + before, authority_at - 3 - before), scheme) &&
               slice_is_nocase(slice(to.p + authority_at, path_at - authority_at), authority) &&
               slice_is(slice_skip(to, path_at), request->path);
    if (filter->path_kind == ROUTE_REWRITE_WHOLE || request->query.n == 0)
        return OK;
    TRY(buf_add(out, "?", 1));
    return buf_add_slice(out, request->query);
}
