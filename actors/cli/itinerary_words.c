#include "cli/itinerary_words.h"

#include "model/classify.h"

#include <stdio.h>
#include <stdlib.h>

#define S(slice) SLICE_FMT(slice)

/* ---- names ---- */

void words_rule_name(const struct wire_rule *rule, char out[400])
{
    if (rule->route.n == 0)
        (void)snprintf(out, 400, "(default)");
    else
        (void)snprintf(out, 400, "%.*s rule %u", S(rule->route), (unsigned)rule->index);
}

void words_backend_name(const struct wire_backend *b, char out[400])
{
    (void)snprintf(out, 400, "%.*s%s%.*s:%u", S(b->namespace), b->namespace.n > 0 ? "/" : "",
                   S(b->name), (unsigned)b->port);
}

const char *words_of_origin(enum destination_origin origin)
{
    static const char *const names[] = {"default", "rule", "route annotation",
                                        "service annotation"};

    return names[origin <= ORIGIN_SERVICE ? origin : 0];
}

/* ---- matches ---- */

static void put_values(FILE *f, const char *what, const struct wire_match_value *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fprintf(f, " %s %.*s%s%.*s", what, S(list[i].name),
                list[i].kind == ROUTE_VALUE_REGEX ? "~" : "=", S(list[i].value));
}

char *words_of_match(const struct wire_rule *rule, slice_t host, const struct wire_match *m)
{
    static const char *const paths[] = {"", "path =", "path prefix ", "path ~"};
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    if (f == NULL)
        return NULL;
    if (host.n > 0)
        fprintf(f, " host %.*s", S(host));
    for (size_t i = 0; host.n == 0 && i < rule->n_hosts; i++)
        fprintf(f, "%s%.*s", i == 0 ? " host " : ",", S(rule->hosts[i].host));
    if (m != NULL && m->method.n > 0)
        fprintf(f, " %.*s", S(m->method));
    if (m != NULL && m->path_kind != ROUTE_PATH_ANY && m->path_kind <= ROUTE_PATH_REGEX)
        fprintf(f, " %s%.*s", paths[m->path_kind], S(m->path));
    if (m != NULL) {
        put_values(f, "header", m->headers, m->n_headers);
        put_values(f, "query", m->query, m->n_query);
    }
    for (size_t i = 0; m != NULL && i < m->n_conditions; i++)
        fprintf(f, "%s %s%s%.*s", i > 0 ? " and" : "", m->conditions[i].is_not ? "not " : "",
                m->conditions[i].what == ROUTE_CONDITION_PATH ? "path ~" : "method ",
                S(m->conditions[i].value));
    fclose(f);
    if (n == 0) {
        free(text);
        return strdup("everything");
    }
    memmove(text, text + 1, n); /* every part begins with a blank */
    return text;
}

/* ---- verdicts ---- */

static void put_header(FILE *f, const struct route_verdict *v,
                       const struct route_request *request)
{
    const struct wire_match_value *wanted = &v->match->headers[v->which];
    slice_t value;

    fprintf(f, "header %.*s: wanted %s%.*s, ", S(wanted->name),
            wanted->kind == ROUTE_VALUE_REGEX ? "~" : "", S(wanted->value));
    if (request->header(request->arg, wanted->name, 0, &value))
        fprintf(f, "the request has %.*s", S(value));
    else
        fprintf(f, "the request has none");
}

static void put_miss(FILE *f, const struct route_verdict *v,
                     const struct route_request *request)
{
    const struct wire_match *m = v->match;

    switch (v->missed) {
    case ROUTE_PART_HOST:
        fprintf(f, "host: %.*s is not %.*s", S(request->host), S(v->host));
        break;
    case ROUTE_PART_METHOD:
        fprintf(f, "method: %.*s is not %.*s", S(request->method), S(m->method));
        break;
    case ROUTE_PART_PATH:
        fprintf(f, "path: %.*s does not fit %s%.*s", S(request->path),
                m->path_kind == ROUTE_PATH_PREFIX  ? "the prefix "
                : m->path_kind == ROUTE_PATH_REGEX ? "~"
                                                   : "",
                S(m->path));
        break;
    case ROUTE_PART_HEADER:
        put_header(f, v, request);
        break;
    case ROUTE_PART_QUERY:
        fprintf(f, "query parameter %.*s: not %s%.*s", S(m->query[v->which].name),
                m->query[v->which].kind == ROUTE_VALUE_REGEX ? "~" : "",
                S(m->query[v->which].value));
        break;
    case ROUTE_PART_CONDITION:
        fprintf(f, "condition: %s%s%.*s", m->conditions[v->which].is_not ? "not " : "",
                m->conditions[v->which].what == ROUTE_CONDITION_PATH ? "path ~" : "method ",
                S(m->conditions[v->which].value));
        break;
    case ROUTE_PART_NONE:
        break;
    }
}

char *words_of_verdict(const struct route_verdict *v, const struct route_request *request)
{
    static const char *const by[] = {"",
                                     "fits, but its host is less exact",
                                     "fits, but its path is less exact",
                                     "fits, but it names no method",
                                     "fits, but it matches fewer headers",
                                     "fits, but it matches fewer query parameters",
                                     "fits, but it comes later"};
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    if (f == NULL)
        return NULL;
    if (v->missed != ROUTE_PART_NONE)
        put_miss(f, v, request);
    else
        fprintf(f, "%s",
                v->is_chosen ? "fits best" : by[v->lost_by <= ROUTE_BY_ORDER ? v->lost_by : 0]);
    fclose(f);
    return text;
}

/* ---- filters ---- */

static void put_edits(FILE *f, const struct wire_filter *filter, const char *whose)
{
    static const char *const verbs[] = {"add", "set", "remove"};

    fprintf(f, "%s headers:", whose);
    for (size_t i = 0; i < filter->n_edits; i++) {
        const struct wire_field_edit *e = &filter->edits[i];

        fprintf(f, "%s %s %.*s", i > 0 ? "," : "", verbs[e->verb <= 2 ? e->verb : 0],
                S(e->name));
        if (e->verb != ROUTE_EDIT_REMOVE)
            fprintf(f, ": %.*s", S(e->value));
    }
}

static void put_share(FILE *f, const struct wire_filter *filter)
{
    if (filter->share_ppm == 0)
        fprintf(f, " (every request)");
    else
        fprintf(f, " (%g%% of the requests)", filter->share_ppm / 10000.0);
}

static void put_target(FILE *f, const struct wire_filter *filter)
{
    static const char *const kinds[] = {"", " path ", " prefix "};

    if (filter->scheme.n > 0)
        fprintf(f, " scheme %.*s", S(filter->scheme));
    if (filter->host.n > 0)
        fprintf(f, " host %.*s", S(filter->host));
    if (filter->port != 0)
        fprintf(f, " port %u", (unsigned)filter->port);
    if (filter->path_kind != 0 && filter->path_kind <= 2)
        fprintf(f, "%s%.*s", kinds[filter->path_kind], S(filter->path));
}

char *words_of_filter(const struct wire_destination *view, const struct wire_filter *filter)
{
    char *text = NULL, name[400];
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    if (f == NULL)
        return NULL;
    switch (filter->kind) {
    case ROUTE_FILTER_REQUEST_HEADERS:
        put_edits(f, filter, "request");
        break;
    case ROUTE_FILTER_RESPONSE_HEADERS:
        put_edits(f, filter, "response");
        break;
    case ROUTE_FILTER_REDIRECT:
        fprintf(f, "redirect %u:", (unsigned)filter->status);
        put_target(f, filter);
        break;
    case ROUTE_FILTER_REWRITE:
        fprintf(f, "rewrite:");
        put_target(f, filter);
        break;
    case ROUTE_FILTER_FAIL:
        if (filter->grpc_status != 0)
            fprintf(f, "fault: answer gRPC %s", classify_grpc_name(filter->grpc_status));
        else
            fprintf(f, "fault: answer %u", (unsigned)filter->status);
        put_share(f, filter);
        break;
    case ROUTE_FILTER_MIRROR:
        words_backend_name(&view->backends[filter->backend], name);
        fprintf(f, "mirror to %s", name);
        put_share(f, filter);
        break;
    case ROUTE_FILTER_DELAY:
        fprintf(f, "fault: delay %ums", (unsigned)filter->delay_ms);
        if (filter->jitter_ms != 0)
            fprintf(f, " + up to %ums", (unsigned)filter->jitter_ms);
        put_share(f, filter);
        break;
    default: /* route_table_new refuses others */
        break;
    }
    fclose(f);
    return text;
}

/* ---- retries, balancing ---- */

char *words_of_retry(const struct wire_rule *rule)
{
    const struct wire_retry_policy *p = rule->n_retry > 0 ? &rule->retry[0] : NULL;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    bool has_any = false;

    if (f == NULL)
        return NULL;
    if (p == NULL) {
        fprintf(f, "only what was not delivered, or was lost and may be repeated");
    } else if (rule->retries_failures) {
        fprintf(f, "every failure, as long as the budget allows");
    } else {
        fprintf(f, "%u more on", (unsigned)p->limit);
        for (size_t i = 0; i < p->n_statuses; i++, has_any = true)
            fprintf(f, p->statuses[i].low == p->statuses[i].high ? "%s%u" : "%s%u-%u",
                    has_any ? "," : " ", (unsigned)p->statuses[i].low,
                    (unsigned)p->statuses[i].high);
        for (uint32_t i = 0; i < GRPC_STATUSES; i++)
            if ((p->grpc_statuses >> i & 1) != 0) {
                fprintf(f, "%s%s", has_any ? "," : " ", classify_grpc_name(i));
                has_any = true;
            }
        if (!has_any)
            fprintf(f, " what was not delivered, or was lost and may be repeated");
    }
    if (p != NULL && p->per_try_ms != 0)
        fprintf(f, "; %ums for a response head", (unsigned)p->per_try_ms);
    if (p != NULL && p->hedge_ms != 0)
        fprintf(f, "; another beside it after %ums, at most %u at once", (unsigned)p->hedge_ms,
                p->hedge_max != 0 ? (unsigned)p->hedge_max : 2);
    fclose(f);
    return text;
}

void words_balancing(const struct wire_balancing *w, size_t n, char out[200])
{
    static const char *const kinds[] = {"by P2C over peak EWMA", "by P2C over least requests",
                                        "in turn (round robin)",
                                        "at random: the request has nothing to hash"};

    (void)snprintf(out, 200, "one of %zu ready, chosen %s", n,
                   kinds[w != NULL && w->kind <= BALANCING_HASH ? w->kind : 0]);
}

bool words_find_cookie(slice_t field, slice_t name, slice_t *value)
{
    while (field.n > 0) {
        const uint8_t *end = memchr(field.p, ';', field.n);
        slice_t pair = slice(field.p, end != NULL ? (size_t)(end - field.p) : field.n);

        field = slice_skip(field, pair.n + 1);
        while (pair.n > 0 && pair.p[0] == ' ')
            pair = slice_skip(pair, 1);
        if (pair.n > name.n && slice_starts(pair, name) && pair.p[name.n] == '=') {
            *value = slice_skip(pair, name.n + 1);
            return true;
        }
    }
    return false;
}
