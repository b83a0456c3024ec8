/* weft get: resources as they are in force, and the views that go with their names.
 *
 *   services, endpoints, sessions   the views mesh_services, mesh_endpoints, mesh_sessions
 *   ports                           the view mesh_ports
 *   any other kind                  mesh_objects of that kind ("all": of every kind)
 *   -o yaml                         the resources as they were applied, one document each
 */
#include "cli/command.h"
#include "cli/sheet.h"
#include "model/resource.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct get_args {
    const char *run, *output, *ns;
    const char *kind, *name;
};

static const struct {
    const char *word, *kind, *columns, *view, *name_column;
} get_views[] = {
    {"service", "Service", "namespace,name,address,address6,ports,owner,since,revision",
     "mesh_services", "name"},
    {"svc", "Service", "namespace,name,address,address6,ports,owner,since,revision",
     "mesh_services", "name"},
    {"endpoint", "EndpointSlice",
     "namespace,service,port,ip,target_port,protocol,identity,pod,zone,ready,source",
     "mesh_endpoints", "service"},
    {"session", NULL,
     "namespace,pod,workload,identity,addresses,serves,serving,acked_revision,last_heard",
     "mesh_sessions", "pod"},
    {"pod", NULL,
     "namespace,pod,workload,identity,addresses,serves,serving,acked_revision,last_heard",
     "mesh_sessions", "pod"},
    {"port", NULL, "namespace,workload,port,protocol,source,app_version,since", "mesh_ports",
     "workload"},
};

/* "Services" -> "service", "httproutes" -> "httproute" */
static void get_word(const char *kind, char out[64])
{
    size_t n = 0;

    for (; kind[n] != '\0' && n < 63; n++)
        out[n] = (char)tolower((unsigned char)kind[n]);
    out[n] = '\0';
    if (n > 3 && out[n - 1] == 's' && strcmp(out, "meshtls") != 0 && out[n - 2] != 's')
        out[n - 1] = '\0';
}

static bool get_where(const struct get_args *a, const char *name_column, char *out, size_t cap)
{
    char ns[160] = "", name[560] = "";
    int n;

    if ((a->ns != NULL && !sheet_quote(a->ns, ns, sizeof ns)) ||
        (a->name != NULL && !sheet_quote(a->name, name, sizeof name)))
        return false;
    n = snprintf(out, cap, "%s%s%s%s%s%s", a->ns != NULL ? " and namespace=" : "", ns,
                 a->name != NULL ? " and " : "", a->name != NULL ? name_column : "",
                 a->name != NULL ? "=" : "", name);
    return n > 0 ? (size_t)n < cap : true;
}

/* Replaces the text in column json by the object it spells. */
static void get_unfold(struct sheet *s)
{
    size_t i;
    json_t *row;

    json_array_foreach(s->rows, i, row)
    {
        const char *text = json_string_value(json_object_get(row, "json"));
        json_t *o = text != NULL ? json_loads(text, 0, NULL) : NULL;

        if (o != NULL)
            (void)json_object_set_new(row, "json", o);
    }
}

static void get_print_documents(const struct sheet *s)
{
    size_t i;
    json_t *row;

    json_array_foreach(s->rows, i, row)
    {
        printf("---\n");
        sheet_print_yaml(json_object_get(row, "json"), stdout);
    }
}

static err_t get_query(const struct get_args *a, const char *word, enum sheet_format format,
                       struct sheet *s, const struct mesh *m, struct trouble *why)
{
    char where[800], kind[80], quoted[160], sql[1600];
    enum resource_kind known;
    bool truncated;

    for (size_t i = 0; i < sizeof get_views / sizeof get_views[0]; i++) {
        if (strcmp(word, get_views[i].word) != 0)
            continue;
        if (format == SHEET_YAML && get_views[i].kind != NULL) {
            get_word(get_views[i].kind, kind);
            word = kind;
            break;
        }
        if (!get_where(a, get_views[i].name_column, where, sizeof where))
            return trouble_set(why, ERR_OF(USAGE), "a name is too long");
        (void)snprintf(sql, sizeof sql, "select %s from %s where 1%s order by 1,2,3",
                       get_views[i].columns, get_views[i].view, where);
        return sheet_query(s, m->state, sql, 0, &truncated, why);
    }
    if (!get_where(a, "name", where, sizeof where))
        return trouble_set(why, ERR_OF(USAGE), "a name is too long");
    if ((strcmp(word, "all") != 0 && !resource_kind_find(slice_str(a->kind), &known) &&
         !resource_kind_find(slice_str(word), &known)) ||
        !sheet_quote(word, quoted, sizeof quoted))
        return trouble_set(
            why, ERR_OF(USAGE),
            "%s is no kind of resource, nor services, endpoints, sessions or all", a->kind);
    if (strcmp(word, "all") != 0) /* a short name may stand for the kind */
        (void)sheet_quote(resource_kind_name(known), quoted, sizeof quoted);
    (void)snprintf(
        sql, sizeof sql,
        "select kind,namespace,name,revision,since,author,reason%s from mesh_objects "
        "where (lower(kind)=lower(%s) or %s='all')%s order by 1,2,3",
        format == SHEET_TABLE ? "" : ",json", quoted, quoted, where);
    return sheet_query(s, m->state, sql, 0, &truncated, why);
}

int command_get(const struct command *self, int argc, char **argv)
{
    struct get_args a = {.run = NULL};
    const struct opt table[] = {
        {OPT_TEXT, 'n', "namespace", "NS", "only this namespace (all)", &a.ns},
        OPT_OUTPUT(&a.output),
        OPT_RUN(&a.run),
        OPT_TABLE_END,
    };
    enum sheet_format format;
    struct trouble why = {{0}};
    char word[64];
    struct sheet s;
    struct mesh m;
    int code;
    err_t e;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 1, 2);
    if (code != 0)
        return code;
    if (sheet_format_parse(a.output, &format, &why) != OK)
        return command_usage(self, "%s", why.text);
    a.kind = argv[1];
    a.name = argc == 3 ? argv[2] : NULL;
    get_word(argv[1], word);
    sheet_init(&s);
    e = mesh_load(&m, command_run_dir(a.run), &why);
    if (e == OK)
        e = get_query(&a, word, format, &s, &m, &why);
    if (e == OK && a.name != NULL && json_array_size(s.rows) == 0)
        e = trouble_set(&why, ERR_OF(MALFORMED), "there is no %s %s", argv[1], a.name);
    if (e == OK) {
        get_unfold(&s);
        if (format == SHEET_YAML && json_array_size(s.rows) > 0 &&
            json_object_get(json_array_get(s.rows, 0), "json") != NULL)
            get_print_documents(&s);
        else
            sheet_print(&s, format, NULL, stdout);
    }
    sheet_done(&s);
    return trouble_exit(&why, e);
}
