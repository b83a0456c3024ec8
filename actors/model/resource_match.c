/* What a rule of an HTTPRoute or GRPCRoute matches. */
#include "model/name.h"
#include "model/regex.h"
#include "model/resource_priv.h"
#include "model/route.h"

#include <stdio.h>

err_t resource_check_regex(const struct look *at, slice_t pattern)
{
    struct regex *re = NULL;
    char why[96];
    err_t e = regex_new(pattern, &re, why);

    if (e == ERR_OF(MODEL_PATTERN))
        return look_refuse(at, "not a regular expression that is supported: %s", why);
    regex_free(&re);
    return e;
}

/* The Gateway API's rule: what a client could write in two ways is no path to match. */
static err_t check_plain_path(const struct look *at, slice_t path)
{
    static const char *const bad[] = {"//", "/./", "/../", "%2f", "%2F", "#", "?", " "};

    if (path.n == 0 || path.p[0] != '/')
        return look_refuse(at, "must begin with /");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (memmem(path.p, path.n, bad[i], strlen(bad[i])) != NULL)
            return look_refuse(at, "must not contain \"%s\"", bad[i]);
    if (slice_ends(path, SLICE_LIT("/.")) || slice_ends(path, SLICE_LIT("/..")))
        return look_refuse(at, "must not end in /. or /..");
    return OK;
}

static err_t check_path_match(const struct look *match, struct wire_match *out)
{
    static const char *const known[] = {"type", "value", NULL};
    static const char *const types[] = {"Exact", "PathPrefix", "RegularExpression", NULL};
    static const uint8_t kinds[] = {ROUTE_PATH_EXACT, ROUTE_PATH_PREFIX, ROUTE_PATH_REGEX};
    struct look path, field;
    size_t type = 1;

    if (!look_at(match, "path", &path))
        return OK;
    TRY(look_object(&path, known));
    if (look_at(&path, "type", &field))
        TRY(look_word(&field, types, &type));
    out->path_kind = kinds[type];
    out->path = SLICE_LIT("/");
    if (!look_at(&path, "value", &field))
        return type == 1 ? OK : look_need(&path, "value", &field);
    TRY(look_text(&field, 1024, &out->path));
    return type == 2 ? resource_check_regex(&field, out->path)
                     : check_plain_path(&field, out->path);
}

static err_t lower_name(const struct look *at, slice_t name, slice_t *out)
{
    void *p;
    uint8_t *lower;

    TRY(look_alloc(at, name.n, 1, &p));
    lower = p;
    for (size_t i = 0; i < name.n; i++)
        lower[i] = name.p[i] >= 'A' && name.p[i] <= 'Z' ? (uint8_t)(name.p[i] + 32) : name.p[i];
    *out = slice(lower, name.n);
    return OK;
}

err_t resource_check_header_name(const struct look *at, slice_t *out)
{
    slice_t name;

    TRY(look_text(at, 256, &name));
    if (!name_is_token(name, 256))
        return look_refuse(at, "\"%.*s\" is not the name of a header field",
                           name.n > 60 ? 60 : (int)name.n, (const char *)name.p);
    return lower_name(at, name, out);
}

static err_t check_value_match(const struct look *at, bool is_header,
                               struct wire_match_value *out)
{
    static const char *const known[] = {"type", "name", "value", NULL};
    static const char *const types[] = {"Exact", "RegularExpression", NULL};
    struct look field;
    size_t type = 0;

    TRY(look_object(at, known));
    if (look_at(at, "type", &field))
        TRY(look_word(&field, types, &type));
    out->kind = (uint8_t)type;
    TRY(look_need(at, "name", &field));
    if (is_header)
        TRY(resource_check_header_name(&field, &out->name));
    else
        TRY(look_text(&field, 256, &out->name));
    if (out->name.n == 0)
        return look_refuse(&field, "must not be empty");
    TRY(look_need(at, "value", &field));
    TRY(look_text(&field, 1024, &out->value));
    return type == 1 ? resource_check_regex(&field, out->value) : OK;
}

static err_t check_value_matches(const struct look *match, const char *key, bool is_header,
                                 struct wire_match_value **out, size_t *n_out)
{
    struct look list;
    void *values;
    size_t n;

    if (!look_at(match, key, &list))
        return OK;
    TRY(look_list(&list, RESOURCE_VALUES, &n));
    TRY(look_alloc(&list, n, sizeof(**out), &values));
    *out = values;
    *n_out = n;
    for (size_t i = 0; i < n; i++) {
        struct look item = look_item(&list, i);

        TRY(check_value_match(&item, is_header, &(*out)[i]));
        for (size_t j = 0; j < i; j++)
            if (slice_is((*out)[j].name, (*out)[i].name))
                return look_refuse(&item, "\"%.*s\" is matched twice",
                                   SLICE_FMT((*out)[i].name));
    }
    return OK;
}

err_t resource_check_method(const struct look *at, slice_t *out)
{
    static const char *const usual[] = {"GET",     "HEAD",    "POST",  "PUT",   "DELETE",
                                        "CONNECT", "OPTIONS", "TRACE", "PATCH", NULL};

    TRY(look_text(at, 256, out));
    if (!name_is_token(*out, 32))
        return look_refuse(at, "is not a method");
    for (size_t i = 0; usual[i] != NULL; i++)
        if (slice_is_nocase(*out, slice_str(usual[i])) && !slice_is_str(*out, usual[i]))
            return look_refuse(at, "\"%.*s\": methods are case sensitive; did you mean %s?",
                               SLICE_FMT(*out), usual[i]);
    return OK;
}

static err_t check_http_match(const struct look *at, struct wire_match *out)
{
    static const char *const known[] = {"path", "headers", "queryParams", "method", NULL};
    struct look field;

    TRY(look_object(at, known));
    TRY(check_path_match(at, out));
    TRY(check_value_matches(at, "headers", true, &out->headers, &out->n_headers));
    TRY(check_value_matches(at, "queryParams", false, &out->query, &out->n_query));
    return look_at(at, "method", &field) ? resource_check_method(&field, &out->method) : OK;
}

/* ---- gRPC: service and method become a path ---- */

/* "helloworld.Greeter" or "SayHello"; dots only in services. */
static bool is_grpc_name(slice_t s, bool may_have_dots)
{
    bool is_start = true;

    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i], low = c | 0x20;
        bool is_letter = (low >= 'a' && low <= 'z') || c == '_';

        if (c == '.' && may_have_dots && !is_start) {
            is_start = true;
            continue;
        }
        if (!is_letter && (is_start || c < '0' || c > '9'))
            return false;
        is_start = false;
    }
    return !is_start;
}

/* One of the two; an empty text counts as absent. */
static err_t check_grpc_name(const struct look *method, const char *key, bool is_regex,
                             slice_t *out)
{
    struct look field;

    if (!look_at(method, key, &field))
        return OK;
    TRY(look_text(&field, 1024, out));
    if (out->n == 0)
        return OK;
    if (is_regex)
        return resource_check_regex(&field, *out);
    if (!is_grpc_name(*out, key[0] == 's'))
        return look_refuse(&field, "\"%.*s\" is not the name of a gRPC %s%s",
                           out->n > 60 ? 60 : (int)out->n, (const char *)out->p, key,
                           key[0] == 's' ? " (package.Service)" : "");
    return OK;
}

/* A name as a part of an expression, its dots being meant as dots. */
static void put_part(char *out, size_t cap, slice_t name, bool is_regex)
{
    size_t n = strlen(out);

    if (name.n == 0) {
        (void)snprintf(out + n, cap - n, "/[^/]+");
        return;
    }
    if (is_regex) {
        (void)snprintf(out + n, cap - n, "/(?:%.*s)", SLICE_FMT(name));
        return;
    }
    out[n++] = '/';
    for (size_t i = 0; i < name.n && n + 3 < cap; i++) {
        if (name.p[i] == '.')
            out[n++] = '\\';
        out[n++] = (char)name.p[i];
        out[n] = '\0';
    }
}

static err_t check_grpc_method(const struct look *match, struct wire_match *out)
{
    static const char *const known[] = {"type", "service", "method", NULL};
    static const char *const types[] = {"Exact", "RegularExpression", NULL};
    struct look at, field;
    slice_t service = {NULL, 0}, method = {NULL, 0};
    char path[2200] = "";
    size_t type = 0;

    if (!look_at(match, "method", &at))
        return OK;
    TRY(look_object(&at, known));
    if (look_at(&at, "type", &field))
        TRY(look_word(&field, types, &type));
    TRY(check_grpc_name(&at, "service", type == 1, &service));
    TRY(check_grpc_name(&at, "method", type == 1, &method));
    if (service.n == 0 && method.n == 0)
        return look_refuse(&at, "must name a service or a method");
    if (type == 0 && service.n > 0) {
        out->path_kind = method.n > 0 ? ROUTE_PATH_EXACT : ROUTE_PATH_PREFIX;
        (void)snprintf(path, sizeof(path), "/%.*s%s%.*s", SLICE_FMT(service),
                       method.n > 0 ? "/" : "", method.n > 0 ? (int)method.n : 0,
                       method.n > 0 ? (const char *)method.p : "");
    } else {
        out->path_kind = ROUTE_PATH_REGEX;
        put_part(path, sizeof(path), service, type == 1);
        put_part(path, sizeof(path), method, type == 1);
    }
    if (strlen(path) > 1024)
        return look_refuse(&at, "service and method are %zu bytes as a path, at most 1024",
                           strlen(path));
    out->path = arena_copy(at.ctx->arena, slice_str(path));
    if (out->path.p == NULL)
        return ERR_OF(NOMEM);
    /* Two expressions that are fine alone may be too large together. */
    return out->path_kind == ROUTE_PATH_REGEX ? resource_check_regex(&at, out->path) : OK;
}

static err_t check_grpc_match(const struct look *at, struct wire_match *out)
{
    static const char *const known[] = {"method", "headers", NULL};

    TRY(look_object(at, known));
    TRY(check_grpc_method(at, out));
    return check_value_matches(at, "headers", true, &out->headers, &out->n_headers);
}

/* ---- the list ---- */

err_t resource_check_matches(const struct look *rule, struct route_rule *out)
{
    bool is_grpc = rule->ctx->resource->kind == RESOURCE_GRPC_ROUTE;
    struct look list;
    void *matches;

    if (!look_at(rule, "matches", &list))
        return OK;
    TRY(look_list(&list, RESOURCE_MATCHES, &out->n_matches));
    TRY(look_alloc(&list, out->n_matches, sizeof(*out->matches), &matches));
    out->matches = matches;
    for (size_t i = 0; i < out->n_matches; i++) {
        struct look item = look_item(&list, i);

        if (is_grpc)
            TRY(check_grpc_match(&item, &out->matches[i]));
        else
            TRY(check_http_match(&item, &out->matches[i]));
    }
    return OK;
}
