/* weft route: where a request would go, and why the other rules and endpoints would not be
 * taken. */
#include "cli/client.h"
#include "cli/command.h"
#include "cli/itinerary.h"
#include "cli/sheet.h"
#include "model/name.h"
#include "model/resource.h"

#include <stdlib.h>
#include <string.h>

enum { RESOURCES = 8 };

struct route_args {
    const char *run, *output, *from, *ns;
    bool json;
    struct opt_list headers;
};

/* What was asked, taken apart. */
struct asked {
    struct itinerary_ask ask;
    char authority[320], path[4096], query[4096], host[320];
    char ns[64], zone[64], pod[330], source[64];
    char target[NAME_TARGET_TEXT];
    const char *state; /* directory of the databases */
    struct resource *found[RESOURCES];
    char keys[RESOURCES][400];
    size_t n_found;
};

/* ---- the URL ---- */

static err_t read_url(struct asked *a, const char *url, struct trouble *why)
{
    const char *rest = url, *slash, *query;

    if (strncmp(url, "https://", 8) == 0)
        return trouble_set(
            why, ERR_OF(USAGE),
            "what is in TLS of the application's own is not looked into: weft route "
            "tls HOST:PORT");
    if (strncmp(url, "http://", 7) == 0)
        rest = url + 7;
    slash = strpbrk(rest, "/?");
    if (slash == NULL)
        slash = rest + strlen(rest);
    if (slash == rest ||
        !slice_to_cstr(slice(rest, (size_t)(slash - rest)), a->authority, sizeof(a->authority)))
        return trouble_set(why, ERR_OF(USAGE), "%s has no host, or one that is too long", url);
    query = strchr(slash, '?');
    if (query == NULL)
        query = slash + strlen(slash);
    if (!slice_to_cstr(slice(slash, (size_t)(query - slash)), a->path, sizeof(a->path)) ||
        !slice_to_cstr(slice_str(*query != '\0' ? query + 1 : ""), a->query, sizeof(a->query)))
        return trouble_set(why, ERR_OF(USAGE), "%.100s...: too long", url);
    if (a->path[0] == '\0')
        memcpy(a->path, "/", 2);
    return OK;
}

static err_t read_what(struct asked *a, const struct route_args *args, const char *what,
                       const char *where, struct trouble *why)
{
    a->ask.kind = strcmp(what, "tcp") == 0   ? ITINERARY_TCP
                  : strcmp(what, "tls") == 0 ? ITINERARY_TLS
                                             : ITINERARY_HTTP;
    if (a->ask.kind == ITINERARY_HTTP && !name_is_token(slice_str(what), 32))
        return trouble_set(why, ERR_OF(USAGE), "%s is neither a method nor tcp or tls", what);
    TRY(read_url(a, where, why));
    for (size_t i = 0; i < args->headers.n; i++)
        if (strchr(args->headers.at[i], ':') == NULL)
            return trouble_set(why, ERR_OF(USAGE), "-H %s: 'Name: value' is wanted",
                               args->headers.at[i]);
    slice_t host = name_host_of(slice_str(a->authority));
    (void)slice_to_cstr(a->ask.kind == ITINERARY_HTTP ? slice_str(a->authority) : host, a->host,
                        sizeof(a->host));
    for (size_t i = 0; i < args->headers.n; i++) /* a Host given is the request's */
        if (strncasecmp(args->headers.at[i], "host:", 5) == 0)
            (void)snprintf(a->host, sizeof(a->host), "%s",
                           args->headers.at[i] + 5 + strspn(args->headers.at[i] + 5, " "));
    a->ask.method = what;
    a->ask.host = a->host;
    a->ask.path = a->path;
    a->ask.query = a->query;
    a->ask.headers = &args->headers;
    a->ask.zone = a->zone;
    a->ask.source = a->source;
    a->ask.arg = a;
    return OK;
}

/* ---- who asks ---- */

static const char *column(const struct sheet *s, const char *name)
{
    const char *text = json_string_value(json_object_get(json_array_get(s->rows, 0), name));

    return text != NULL ? text : "";
}

/* "NS/WORKLOAD", "WORKLOAD" or a pod's name, of the sessions. */
static err_t read_from(struct asked *a, const struct route_args *args, struct trouble *why)
{
    const char *name = args->from, *slash = name != NULL ? strchr(name, '/') : NULL;
    char quoted[560] = "", quoted_ns[160] = "", sql[1600];
    struct sheet s;
    bool truncated;
    err_t e;

    (void)snprintf(a->ns, sizeof(a->ns), "%s", args->ns != NULL ? args->ns : "default");
    if (slash != NULL) {
        (void)snprintf(a->ns, sizeof(a->ns), "%.*s", (int)(slash - name), name);
        name = slash + 1;
    }
    if (!name_is_label(slice_str(a->ns)))
        return trouble_set(why, ERR_OF(USAGE), "%s is not the name of a namespace", a->ns);
    if (name == NULL)
        return OK;
    if (!sheet_quote(name, quoted, sizeof(quoted)) ||
        !sheet_quote(a->ns, quoted_ns, sizeof(quoted_ns)))
        return trouble_set(why, ERR_OF(USAGE), "--from: too long");
    (void)snprintf(sql, sizeof(sql),
                   "select pod,zone,addresses from mesh_sessions where namespace=%s and "
                   "(workload=%s or pod=%s) order by pod limit 1",
                   quoted_ns, quoted, quoted);
    sheet_init(&s);
    e = sheet_query(&s, a->state, sql, 0, &truncated, why);
    if (e == OK && json_array_size(s.rows) == 0)
        e = trouble_set(
            why, ERR_OF(MALFORMED),
            "no pod of a workload %s in namespace %s is connected (weft get sessions)", name,
            a->ns);
    if (e == OK) {
        (void)snprintf(a->pod, sizeof(a->pod), "%s/%s", a->ns, column(&s, "pod"));
        (void)snprintf(a->zone, sizeof(a->zone), "%s", column(&s, "zone"));
        (void)snprintf(a->source, sizeof(a->source), "%.*s",
                       (int)strcspn(column(&s, "addresses"), ","), column(&s, "addresses"));
    }
    sheet_done(&s);
    return e;
}

/* ---- resources behind the view ---- */

static const struct resource *find_resource(void *arg, const char *key)
{
    struct asked *a = arg;
    char kind[65], quoted[2][600], sql[1600];
    const char *slash = strchr(key, '/'), *name = slash != NULL ? strchr(slash + 1, '/') : NULL;
    struct trouble ignored;
    struct why why;
    struct sheet s;
    bool truncated;

    for (size_t i = 0; i < a->n_found; i++)
        if (strcmp(a->keys[i], key) == 0)
            return a->found[i];
    if (name == NULL || a->n_found == RESOURCES || (size_t)(slash - key) >= sizeof(kind))
        return NULL;
    (void)snprintf(kind, sizeof(kind), "%.*s", (int)(slash - key), key);
    char ns[64];
    (void)snprintf(ns, sizeof(ns), "%.*s", (int)(name - slash - 1), slash + 1);
    quoted[0][0] = quoted[1][0] = '\0';
    if (!sheet_quote(ns, quoted[0], sizeof(quoted[0])) ||
        !sheet_quote(name + 1, quoted[1], sizeof(quoted[1])))
        return NULL;
    (void)snprintf(sql, sizeof(sql),
                   "select json from mesh_objects where kind='%s' and namespace=%s and name=%s",
                   kind, quoted[0], quoted[1]);
    sheet_init(&s);
    if (sheet_query(&s, a->state, sql, 0, &truncated, &ignored) == OK &&
        json_array_size(s.rows) == 1 &&
        resource_parse_text(slice_str(column(&s, "json")), slice_str(ns), &a->found[a->n_found],
                            &why) == OK) {
        (void)snprintf(a->keys[a->n_found], sizeof(a->keys[0]), "%s", key);
        a->n_found++;
    }
    sheet_done(&s);
    return a->n_found > 0 && strcmp(a->keys[a->n_found - 1], key) == 0
               ? a->found[a->n_found - 1]
               : NULL;
}

/* ---- the broker's views ---- */

static err_t peek(struct client *c, const char *topic, const char *pod, enum wire_code want,
                  struct wire_msg *out, struct buf *bytes, struct trouble *why)
{
    struct wire_peek ask = {.topic = slice_str(topic), .pod = slice_str(pod)};
    const struct wire_msg *answer;

    TRY(client_ask(c, WIRE_peek, &ask, WIRE_peeked, CLIENT_WAIT_MS, &answer, why));
    TRY(buf_add_slice(bytes,
                      answer->body.peeked.payload)); /* the answer is gone with the next */
    TRY(wire_decode(buf_slice(bytes), WIRE_ROLE_LINK, WIRE_ROLE_PROXY, out));
    if (out->code == want)
        return OK;
    wire_msg_done(out);
    return trouble_set(why, ERR_OF(MALFORMED), "%s: the broker's view is of another kind",
                       topic);
}

/* The rate limit in front of the first endpoint that has one. */
static err_t add_rate_limit(struct client *c, const struct wire_destination *view, json_t *out,
                            struct trouble *why)
{
    const struct wire_backend *b = view->n_backends > 0 ? &view->backends[0] : NULL;
    const struct wire_endpoint *e = b != NULL && b->n_endpoints > 0 ? &b->endpoints[0] : NULL;
    char topic[330];
    struct wire_msg msg;
    struct buf bytes;
    err_t err;

    if (e == NULL || e->pod.n == 0)
        return OK;
    (void)snprintf(topic, sizeof(topic), "pod/%.*s", SLICE_FMT(e->pod));
    buf_init(&bytes, 0);
    err = peek(c, topic, "", WIRE_ports, &msg, &bytes, why);
    if (err == OK) {
        for (size_t i = 0; i < msg.body.ports.n_ports; i++) {
            const struct wire_served *s = &msg.body.ports.ports[i];

            if (s->port == e->port && slice_is(s->service, view->name) && s->n_rate_limits > 0)
                (void)json_object_set_new(
                    out, "rate_limit",
                    json_pack("{s:s%,s:I,s:I}", "policy",
                              (const char *)s->rate_limits->policy.p, s->rate_limits->policy.n,
                              "total_per_s", (json_int_t)s->rate_limits->total_per_s,
                              "identity_per_s", (json_int_t)s->rate_limits->identity_per_s));
        }
        wire_msg_done(&msg);
    }
    buf_done(&bytes);
    return err;
}

static err_t name_topic(struct asked *a, char topic[400], struct trouble *why)
{
    struct name_target target;

    if (name_target_parse(slice_str(a->authority), slice_str(a->ns),
                          a->ask.kind == ITINERARY_HTTP ? 80 : 0, &target) != OK)
        return trouble_set(why, ERR_OF(USAGE), "%s is not HOST:PORT", a->authority);
    name_target_format(&target, a->target);
    (void)snprintf(topic, 400, "dst/%s/%s", a->ns, a->target);
    return OK;
}

static err_t make(struct asked *a, struct client *c, json_t **out, struct trouble *why)
{
    char topic[400], reason[160] = "";
    struct wire_msg msg;
    struct buf bytes;
    err_t e;

    TRY(name_topic(a, topic, why));
    buf_init(&bytes, 0);
    e = peek(c, topic, a->pod, WIRE_destination, &msg, &bytes, why);
    if (e == OK) {
        *out = itinerary_make(&msg.body.destination, &a->ask, reason);
        if (*out == NULL)
            e = trouble_set(why, ERR_OF(MALFORMED), "the view cannot be used: %s", reason);
        else
            e = add_rate_limit(c, &msg.body.destination, *out, why);
        wire_msg_done(&msg);
    }
    buf_done(&bytes);
    if (*out != NULL)
        (void)json_object_set_new(
            *out, "request",
            json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "method", a->ask.method, "host", a->host,
                      "path", a->path, "target", a->target, "namespace", a->ns, "pod", a->pod));
    return e;
}

static void print(const json_t *itinerary, enum sheet_format format)
{
    if (format == SHEET_TABLE)
        itinerary_print(itinerary, stdout);
    else if (format == SHEET_YAML)
        sheet_print_yaml(itinerary, stdout);
    else {
        (void)json_dumpf(itinerary, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
        printf("\n");
    }
}

int command_route(const struct command *self, int argc, char **argv)
{
    struct route_args args = {.run = NULL};
    const struct opt table[] = {
        {OPT_TEXT, 0, "from", "WORKLOAD", "who sends it: [NS/]WORKLOAD or a pod's name",
         &args.from},
        {OPT_TEXT, 'n', "namespace", "NS", "namespace of who sends it (default)", &args.ns},
        {OPT_MANY, 'H', "header", "NAME: VALUE", "a header of the request; may be repeated",
         &args.headers},
        {OPT_FLAG, 0, "json", NULL, "as -o json", &args.json},
        OPT_OUTPUT(&args.output),
        OPT_RUN(&args.run),
        OPT_TABLE_END,
    };
    struct trouble why = {{0}};
    enum sheet_format format;
    struct asked a = {.ns = ""};
    struct client *client = NULL;
    json_t *itinerary = NULL;
    struct mesh m;
    int code;
    err_t e;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 2, 2);
    if (code != 0)
        return code;
    if (sheet_format_parse(args.json ? "json" : args.output, &format, &why) != OK ||
        read_what(&a, &args, argv[1], argv[2], &why) != OK)
        return command_usage(self, "%s", why.text);
    a.ask.find = find_resource;
    e = client_begin(command_run_dir(args.run), &m, &client, &why);
    a.state = m.state;
    if (e == OK)
        e = read_from(&a, &args, &why);
    if (e == OK)
        e = make(&a, client, &itinerary, &why);
    if (e == OK)
        print(itinerary, format);
    for (size_t i = 0; i < a.n_found; i++)
        resource_free(&a.found[i]);
    json_decref(itinerary);
    if (client != NULL)
        client_close(&client);
    return trouble_exit(&why, e);
}
