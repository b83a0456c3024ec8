/* YAML events to jansson values, without recursion: a stack of open containers, MANIFEST_DEPTH
 * high. Beside the values a list of places is kept (path, line), so that an error found later
 * can point. */
#include "model/manifest.h"

#include "kit/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <yaml.h>

enum { PATH = 200, MAX_NAMES = 8 * 1024 * 1024 };

struct manifest_place {
    unsigned line;
    size_t name; /* offset of the path in manifest.names */
};

struct frame {
    json_t *json; /* borrowed: owned by its parent, or by the document */
    char *key;    /* owned: read, its value not yet; NULL else. Objects only */
    size_t path_len;
};

struct loader {
    yaml_parser_t yaml;
    struct manifest *m; /* owned until it is handed over */
    struct why *why;
    struct frame stack[MANIFEST_DEPTH];
    size_t depth, nodes;
    char path[PATH];
    json_t *root; /* owned: the document being read */
    unsigned root_line;
    size_t first_place, cap_objects, cap_places, cap_names;
};

static err_t refuse(struct loader *l, const yaml_event_t *at, const char *reason)
{
    l->why->line = (unsigned)at->start_mark.line + 1;
    (void)snprintf(l->why->path, sizeof(l->why->path), "%s", l->path);
    return why_set(l->why, ERR_OF(MODEL_SYNTAX), "%s", reason);
}

/* Makes room for one more element of `size` in an array that doubles. */
static err_t grow(void **p, size_t n, size_t *cap, size_t size)
{
    void *bigger;

    if (n < *cap)
        return OK;
    bigger = reallocarray(*p, *cap > 0 ? 2 * *cap : 16, size);
    if (bigger == NULL)
        return ERR_OF(NOMEM);
    *p = bigger;
    *cap = *cap > 0 ? 2 * *cap : 16;
    return OK;
}

static err_t note_place(struct loader *l, unsigned line)
{
    size_t n = strlen(l->path) + 1;
    struct manifest *m = l->m;
    void *p = m->places;

    if (m->n_names > MAX_NAMES)
        return OK; /* lines get less exact, nothing else */
    TRY(grow(&p, m->n_places, &l->cap_places, sizeof(*m->places)));
    m->places = p;
    while (m->n_names + n > l->cap_names) {
        size_t cap = l->cap_names > 0 ? 2 * l->cap_names : 4096;
        char *bigger = realloc(m->names, cap);

        if (bigger == NULL)
            return ERR_OF(NOMEM);
        m->names = bigger;
        l->cap_names = cap;
    }
    memcpy(m->names + m->n_names, l->path, n);
    m->places[m->n_places++] = (struct manifest_place){line, m->n_names};
    m->n_names += n;
    return OK;
}

/* ---- scalars ---- */

static bool is_any(const char *s, const char *a, const char *b, const char *c)
{
    return strcmp(s, a) == 0 || strcmp(s, b) == 0 || strcmp(s, c) == 0;
}

/* Plain integers and decimals of JSON's form; anything odder is text. NULL: not a number. */
static json_t *number_of(const char *s)
{
    const char *digits = s + (*s == '-' || *s == '+');
    size_t n = strspn(digits, "0123456789"), all = strlen(digits);
    char *end;

    if (n == 0 || (n > 1 && digits[0] == '0'))
        return NULL;
    errno = 0;
    if (n == all) {
        long long v = strtoll(s, &end, 10);

        return errno == 0 ? json_integer(v) : NULL;
    }
    if (digits[n] != '.' && digits[n] != 'e' && digits[n] != 'E')
        return NULL;
    if (strspn(digits, "0123456789.eE+-") != all)
        return NULL;
    double d = strtod(s, &end);
    return *end == '\0' && errno == 0 ? json_real(d) : NULL;
}

static json_t *plain_scalar(const char *s)
{
    json_t *number;

    if (*s == '\0' || strcmp(s, "~") == 0 || is_any(s, "null", "Null", "NULL"))
        return json_null();
    if (is_any(s, "true", "True", "TRUE"))
        return json_true();
    if (is_any(s, "false", "False", "FALSE"))
        return json_false();
    number = number_of(s);
    return number != NULL ? number : json_string(s);
}

static err_t scalar_value(struct loader *l, const yaml_event_t *e, json_t **out)
{
    const char *text = (const char *)e->data.scalar.value;

    if (strlen(text) != e->data.scalar.length)
        return refuse(l, e, "a NUL byte");
    if (e->data.scalar.anchor != NULL)
        return refuse(l, e, "anchors (&name) are not supported; write the value out");
    if (e->data.scalar.tag != NULL)
        return refuse(l, e, "tags (!name) are not supported");
    *out = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? plain_scalar(text)
                                                           : json_string(text);
    return *out != NULL ? OK : refuse(l, e, "text that is not valid UTF-8");
}

/* ---- values into containers ---- */

/* Puts a value (its reference is taken, also on failure) where the document is now. */
static err_t place_value(struct loader *l, const yaml_event_t *e, json_t *value)
{
    struct frame *f = l->depth > 0 ? &l->stack[l->depth - 1] : NULL;
    unsigned line = (unsigned)e->start_mark.line + 1;
    int failed;

    if (++l->nodes > MANIFEST_NODES) {
        json_decref(value);
        l->why->line = line;
        return why_set(l->why, ERR_OF(MODEL_LIMIT), "more than %d values", MANIFEST_NODES);
    }
    if (f == NULL) {
        l->root = value;
        l->root_line = line;
        return OK;
    }
    if (json_is_array(f->json)) {
        (void)path_index(l->path, f->path_len, PATH, json_array_size(f->json));
        failed = json_array_append_new(f->json, value);
    } else {
        (void)path_key(l->path, f->path_len, PATH, f->key);
        failed = json_object_set_new(f->json, f->key, value);
        free(f->key);
        f->key = NULL;
    }
    return failed != 0 ? ERR_OF(NOMEM) : note_place(l, line);
}

/* In an object where a key is due: takes the scalar as the key. */
static err_t take_key(struct loader *l, struct frame *f, const yaml_event_t *e)
{
    const char *text = (const char *)e->data.scalar.value;

    l->path[f->path_len] = '\0';
    if (strlen(text) != e->data.scalar.length)
        return refuse(l, e, "a NUL byte");
    if (e->data.scalar.anchor != NULL || e->data.scalar.tag != NULL)
        return refuse(l, e, "a key with an anchor or a tag");
    if (json_object_get(f->json, text) != NULL) {
        (void)path_key(l->path, f->path_len, PATH, text);
        return refuse(l, e, "given twice");
    }
    f->key = strdup(text);
    return f->key != NULL ? OK : ERR_OF(NOMEM);
}

static bool is_key_due(const struct loader *l)
{
    const struct frame *f = l->depth > 0 ? &l->stack[l->depth - 1] : NULL;

    return f != NULL && json_is_object(f->json) && f->key == NULL;
}

static err_t on_scalar(struct loader *l, const yaml_event_t *e)
{
    json_t *value;

    if (is_key_due(l))
        return take_key(l, &l->stack[l->depth - 1], e);
    TRY(scalar_value(l, e, &value));
    return place_value(l, e, value);
}

static err_t on_open(struct loader *l, const yaml_event_t *e, bool is_object, bool is_marked)
{
    json_t *value;

    if (is_key_due(l))
        return refuse(l, e, "a key must be plain text");
    if (is_marked)
        return refuse(
            l, e, "anchors (&name) and tags (!name) are not supported; write the value out");
    if (l->depth == MANIFEST_DEPTH)
        return refuse(l, e, "nested too deep");
    value = is_object ? json_object() : json_array();
    if (value == NULL)
        return ERR_OF(NOMEM);
    TRY(place_value(l, e, value));
    l->stack[l->depth] = (struct frame){value, NULL, strlen(l->path)};
    l->depth++;
    return OK;
}

static void on_close(struct loader *l)
{
    l->depth--;
    l->path[l->depth > 0 ? l->stack[l->depth - 1].path_len : 0] = '\0';
}

/* ---- documents into objects ---- */

static err_t add_object(struct loader *l, json_t *json, unsigned line, size_t item)
{
    void *p = l->m->objects;

    if (l->m->n == MANIFEST_OBJECTS) {
        l->why->line = line;
        return why_set(l->why, ERR_OF(MODEL_LIMIT), "more than %d objects", MANIFEST_OBJECTS);
    }
    TRY(grow(&p, l->m->n, &l->cap_objects, sizeof(*l->m->objects)));
    l->m->objects = p;
    l->m->objects[l->m->n++] = (struct manifest_object){json_incref(json), line, l->first_place,
                                                        l->m->n_places - l->first_place, item};
    return OK;
}

static err_t not_an_object(struct loader *l, unsigned line)
{
    l->why->line = line;
    return why_set(l->why, ERR_OF(MODEL_SYNTAX),
                   "not an object with apiVersion, kind and metadata");
}

/* The document is complete: one object, or the items of a List. */
static err_t end_document(struct loader *l)
{
    const char *kind = json_string_value(json_object_get(l->root, "kind"));
    json_t *items = json_object_get(l->root, "items");
    err_t e = OK;

    if (l->root == NULL || json_is_null(l->root)) {
        e = OK; /* nothing between two lines of --- */
    } else if (!json_is_object(l->root)) {
        e = not_an_object(l, l->root_line);
    } else if (kind != NULL && strcmp(kind, "List") == 0 && json_is_array(items)) {
        for (size_t i = 0; e == OK && i < json_array_size(items); i++) {
            json_t *item = json_array_get(items, i);

            e = json_is_object(item) ? add_object(l, item, 0, i + 1)
                                     : not_an_object(l, l->root_line);
        }
    } else {
        e = add_object(l, l->root, l->root_line, 0);
    }
    json_decref(l->root);
    l->root = NULL;
    l->first_place = l->m->n_places;
    return e;
}

static err_t on_event(struct loader *l, const yaml_event_t *e, bool *is_end)
{
    switch (e->type) {
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_START_EVENT:
        return OK;
    case YAML_STREAM_END_EVENT:
        *is_end = true;
        return OK;
    case YAML_DOCUMENT_END_EVENT:
        return end_document(l);
    case YAML_ALIAS_EVENT:
        return refuse(l, e, "aliases (*name) are not supported; write the value out");
    case YAML_SCALAR_EVENT:
        return on_scalar(l, e);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(l, e, false,
                       e->data.sequence_start.anchor != NULL ||
                           e->data.sequence_start.tag != NULL);
    case YAML_MAPPING_START_EVENT:
        return on_open(l, e, true,
                       e->data.mapping_start.anchor != NULL ||
                           e->data.mapping_start.tag != NULL);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        on_close(l);
        return OK;
    }
    return refuse(l, e, "not understood");
}

static err_t load_yaml(struct loader *l)
{
    bool is_end = false;

    while (!is_end) {
        yaml_event_t e;
        err_t why;

        if (yaml_parser_parse(&l->yaml, &e) == 0) {
            bool has_mark = l->yaml.problem_mark.line != 0 || l->yaml.problem_mark.column != 0;

            l->why->line =
                (unsigned)(has_mark ? l->yaml.problem_mark.line : l->yaml.mark.line) + 1;
            return why_set(l->why, ERR_OF(MODEL_SYNTAX), "not valid YAML: %s",
                           l->yaml.problem != NULL ? l->yaml.problem : "cannot be read");
        }
        why = on_event(l, &e, &is_end);
        yaml_event_delete(&e);
        TRY(why);
    }
    return OK;
}

/* ---- JSON ---- */

/* Brackets outside of texts; what is wrong otherwise jansson says better. */
static bool is_too_deep(slice_t text)
{
    size_t depth = 0;
    bool in_text = false;

    for (size_t i = 0; i < text.n; i++) {
        uint8_t c = text.p[i];

        if (in_text) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_text = false;
        } else if (c == '"') {
            in_text = true;
        } else if (c == '{' || c == '[') {
            if (++depth > MANIFEST_DEPTH)
                return true;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

err_t manifest_parse_json(slice_t text, json_t **out, struct why *why)
{
    json_error_t error;
    json_t *json;

    memset(why, 0, sizeof(*why));
    if (text.n > MANIFEST_TEXT)
        return why_set(why, ERR_OF(MODEL_LIMIT), "larger than %u bytes", MANIFEST_TEXT);
    if (is_too_deep(text))
        return why_set(why, ERR_OF(MODEL_SYNTAX), "nested too deep");
    json = json_loadb(text.n > 0 ? (const char *)text.p : "", text.n, JSON_REJECT_DUPLICATES,
                      &error);
    if (json == NULL) {
        why->line = error.line > 0 ? (unsigned)error.line : 0;
        return why_set(why, ERR_OF(MODEL_SYNTAX), "not valid JSON: %s", error.text);
    }
    *out = json;
    return OK;
}

static err_t load_json(struct loader *l, slice_t text)
{
    TRY(manifest_parse_json(text, &l->root, l->why));
    if (json_is_array(l->root)) { /* a bare array of objects: what some tools print */
        json_t *list = json_pack("{s:s,s:O}", "kind", "List", "items", l->root);

        json_decref(l->root);
        l->root = list;
        if (list == NULL)
            return ERR_OF(NOMEM);
    }
    return end_document(l);
}

/* JSON begins with a bracket and closes it at the very end. */
static bool looks_like_json(slice_t text)
{
    size_t from = 0, to = text.n;

    while (from < to && memchr(" \t\r\n", text.p[from], 4) != NULL)
        from++;
    while (to > from && memchr(" \t\r\n", text.p[to - 1], 4) != NULL)
        to--;
    return to - from >= 2 && ((text.p[from] == '{' && text.p[to - 1] == '}') ||
                              (text.p[from] == '[' && text.p[to - 1] == ']'));
}

static void loader_done(struct loader *l)
{
    for (size_t i = 0; i < l->depth; i++)
        free(l->stack[i].key);
    json_decref(l->root);
    manifest_free(&l->m);
}

err_t manifest_parse(slice_t text, struct manifest **out, struct why *why)
{
    struct loader l;
    err_t e;

    memset(&l, 0, sizeof(l));
    memset(why, 0, sizeof(*why));
    if (text.n > MANIFEST_TEXT)
        return why_set(why, ERR_OF(MODEL_LIMIT), "larger than %u bytes", MANIFEST_TEXT);
    l.why = why;
    l.m = calloc(1, sizeof(*l.m));
    if (l.m == NULL)
        return ERR_OF(NOMEM);
    if (looks_like_json(text)) {
        e = load_json(&l, text);
    } else {
        if (yaml_parser_initialize(&l.yaml) == 0) {
            loader_done(&l);
            return ERR_OF(NOMEM);
        }
        yaml_parser_set_encoding(&l.yaml, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&l.yaml, text.n > 0 ? text.p : (const uint8_t *)"",
                                     text.n);
        e = load_yaml(&l);
        yaml_parser_delete(&l.yaml);
    }
    if (e == OK) {
        *out = l.m;
        l.m = NULL;
    }
    loader_done(&l);
    return e;
}

void manifest_free(struct manifest **m)
{
    if (*m == NULL)
        return;
    for (size_t i = 0; i < (*m)->n; i++)
        json_decref((*m)->objects[i].json);
    free((*m)->objects);
    free((*m)->places);
    free((*m)->names);
    free(*m);
    *m = NULL;
}

/* ---- lines ---- */

/* Whether `outer` is `path` or a place around it. */
static bool is_around(const char *outer, const char *path)
{
    size_t n = strlen(outer);

    return strncmp(outer, path, n) == 0 &&
           (path[n] == '\0' || path[n] == '.' || path[n] == '[');
}

unsigned manifest_line(const struct manifest *m, size_t object, const char *path)
{
    const struct manifest_object *o = &m->objects[object];
    char full[2 * PATH];
    size_t best = 0;
    unsigned line = o->line;

    if (o->item > 0)
        (void)snprintf(full, sizeof(full), "items[%zu]%s%s", o->item - 1,
                       *path != '\0' && *path != '[' ? "." : "", path);
    else
        (void)snprintf(full, sizeof(full), "%s", path);
    for (size_t i = o->first_place; i < o->first_place + o->n_places; i++) {
        const char *name = m->names + m->places[i].name;

        if (strlen(name) >= best && is_around(name, full)) {
            best = strlen(name);
            line = m->places[i].line;
        }
    }
    return line;
}
