/* Rows to text. */
#include "cli/sheet.h"

#include "store/query.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>

#define CELL_MAX  200 /* in a table; JSON has all of it */
#define YAML_DEEP 64

err_t sheet_format_parse(const char *text, enum sheet_format *out, struct trouble *why)
{
    static const char *const names[] = {"table", "json", "yaml"};

    for (int i = 0; i < 3; i++)
        if (strcmp(text != NULL ? text : "table", names[i]) == 0) {
            *out = (enum sheet_format)i;
            return OK;
        }
    return trouble_set(why, ERR_OF(USAGE), "-o %s: table, json or yaml", text);
}

void sheet_init(struct sheet *s)
{
    memset(s, 0, sizeof *s);
    s->rows = json_array();
}

void sheet_done(struct sheet *s)
{
    json_decref(s->rows);
    s->rows = NULL;
}

void sheet_column(struct sheet *s, const char *name)
{
    if (s->n_columns < SHEET_COLUMNS_MAX)
        (void)snprintf(s->columns[s->n_columns++], sizeof s->columns[0], "%s", name);
}

void sheet_add(struct sheet *s, json_t *row)
{
    (void)json_array_append_new(s->rows,
                                row); /* without memory a row is missing, nothing worse */
}

/* A cell as shown in a table: control characters of a stranger's text must not reach a
 * terminal. */
static void sheet_cell(const json_t *v, char out[CELL_MAX])
{
    double real;

    out[0] = '\0';
    if (json_is_string(v))
        (void)snprintf(out, CELL_MAX, "%s", json_string_value(v));
    else if (json_is_integer(v))
        (void)snprintf(out, CELL_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v)) {
        real = json_real_value(v);
        (void)snprintf(out, CELL_MAX, fabs(real) < 10 ? "%.3f" : "%.1f", real);
    } else if (json_is_boolean(v))
        (void)snprintf(out, CELL_MAX, "%s", json_is_true(v) ? "yes" : "no");
    else if (v == NULL || json_is_null(v))
        (void)snprintf(out, CELL_MAX, "-");
    for (char *c = out; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

/* Columns on the screen: UTF-8 continuation bytes take none. */
static size_t sheet_width(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void sheet_put(const char *text, size_t width, bool right, bool last, FILE *to)
{
    int pad = (int)(width - sheet_width(text));

    if (right)
        fprintf(to, "%*s%s", pad, "", text);
    else if (last)
        fprintf(to, "%s", text);
    else
        fprintf(to, "%s%*s", text, pad, "");
    fputs(last ? "\n" : "  ", to);
}

bool sheet_is_terminal(FILE *to)
{
    return isatty(fileno(to)) == 1;
}

static void sheet_print_table(const struct sheet *s, bool (*trouble)(const json_t *row),
                              FILE *to)
{
    size_t width[SHEET_COLUMNS_MAX];
    bool right[SHEET_COLUMNS_MAX];
    bool is_terminal = sheet_is_terminal(to);
    char cell[CELL_MAX];
    size_t i;
    json_t *row;

    for (int c = 0; c < s->n_columns; c++) {
        width[c] = strlen(s->columns[c]);
        right[c] = json_array_size(s->rows) > 0;
        json_array_foreach(s->rows, i, row)
        {
            const json_t *v = json_object_get(row, s->columns[c]);

            sheet_cell(v, cell);
            if (sheet_width(cell) > width[c])
                width[c] = sheet_width(cell);
            right[c] = right[c] && (json_is_number(v) || v == NULL || json_is_null(v));
        }
    }
    for (int c = 0; c < s->n_columns; c++) {
        for (i = 0; s->columns[c][i] != '\0' && i < CELL_MAX - 1; i++) {
            char letter = s->columns[c][i];

            cell[i] = letter >= 'a' && letter <= 'z' ? (char)(letter - 'a' + 'A') : letter;
        }
        cell[i] = '\0';
        sheet_put(cell, width[c], right[c], c == s->n_columns - 1, to);
    }
    json_array_foreach(s->rows, i, row)
    {
        bool red = is_terminal && trouble != NULL && trouble(row);

        if (red)
            fputs("\033[31m", to);
        for (int c = 0; c < s->n_columns; c++) {
            sheet_cell(json_object_get(row, s->columns[c]), cell);
            sheet_put(cell, width[c], right[c], c == s->n_columns - 1, to);
        }
        if (red)
            fputs("\033[0m", to);
    }
}

/* ---- YAML: an explicit stack, since the depth of an object is chosen by its author ---- */

static int sheet_yaml_write(void *arg, unsigned char *p, size_t n)
{
    return fwrite(p, 1, n, arg) == n;
}

/* libyaml's events take yaml_char_t *, and copy. */
static void sheet_yaml_scalar(yaml_emitter_t *em, const char *text, bool is_string)
{
    union {
        const char *in;
        yaml_char_t *out;
    } u = {text};
    yaml_scalar_style_t style = is_string ? YAML_ANY_SCALAR_STYLE : YAML_PLAIN_SCALAR_STYLE;
    yaml_event_t ev;

    if (is_string &&
        (text[0] == '\0' || strcspn(text, "0123456789.~-+") == 0 || strcmp(text, "true") == 0 ||
         strcmp(text, "false") == 0 || strcmp(text, "null") == 0 || strcmp(text, "yes") == 0 ||
         strcmp(text, "no") == 0 || strcmp(text, "on") == 0 || strcmp(text, "off") == 0))
        style = YAML_DOUBLE_QUOTED_SCALAR_STYLE; /* would be read back as something else */
    if (yaml_scalar_event_initialize(&ev, NULL, NULL, u.out, (int)strlen(text), 1, 1, style))
        (void)yaml_emitter_emit(em, &ev);
}

struct sheet_level {
    const json_t *value;
    void *iter;   /* of an object */
    size_t index; /* of an array */
};

/* Emits a scalar, or the start of a collection and pushes it. */
static void sheet_yaml_value(yaml_emitter_t *em, const json_t *v, struct sheet_level *stack,
                             unsigned *depth)
{
    char number[64];
    yaml_event_t ev;
    bool is_map = json_is_object(v);

    if ((is_map || json_is_array(v)) && *depth < YAML_DEEP) {
        stack[*depth].value = v;
        stack[*depth].index = 0;
        stack[*depth].iter = NULL;
        if (is_map) { /* jansson's iterators want a non-const object and do not write to it */
            union {
                const json_t *in;
                json_t *out;
            } u = {v};
            stack[*depth].iter = json_object_iter(u.out);
        }
        (*depth)++;
        if (is_map ? yaml_mapping_start_event_initialize(&ev, NULL, NULL, 1,
                                                         YAML_BLOCK_MAPPING_STYLE)
                   : yaml_sequence_start_event_initialize(&ev, NULL, NULL, 1,
                                                          YAML_BLOCK_SEQUENCE_STYLE))
            (void)yaml_emitter_emit(em, &ev);
        return;
    }
    if (json_is_string(v)) {
        sheet_yaml_scalar(em, json_string_value(v), true);
        return;
    }
    if (json_is_integer(v))
        (void)snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v))
        (void)snprintf(number, sizeof number, "%.6g", json_real_value(v));
    else
        (void)snprintf(number, sizeof number, "%s",
                       json_is_true(v)    ? "true"
                       : json_is_false(v) ? "false"
                                          : "null");
    sheet_yaml_scalar(em, number, false);
}

static void sheet_yaml_walk(yaml_emitter_t *em, const json_t *value)
{
    struct sheet_level stack[YAML_DEEP];
    unsigned depth = 0;
    yaml_event_t ev;

    sheet_yaml_value(em, value, stack, &depth);
    while (depth > 0) {
        struct sheet_level *top = &stack[depth - 1];
        union {
            const json_t *in;
            json_t *out;
        } u = {top->value};

        if (json_is_object(top->value) && top->iter != NULL) {
            const char *key = json_object_iter_key(top->iter);
            const json_t *v = json_object_iter_value(top->iter);

            top->iter = json_object_iter_next(u.out, top->iter);
            sheet_yaml_scalar(em, key, true);
            sheet_yaml_value(em, v, stack, &depth);
        } else if (json_is_array(top->value) && top->index < json_array_size(top->value)) {
            sheet_yaml_value(em, json_array_get(top->value, top->index++), stack, &depth);
        } else {
            if (json_is_object(top->value) ? yaml_mapping_end_event_initialize(&ev)
                                           : yaml_sequence_end_event_initialize(&ev))
                (void)yaml_emitter_emit(em, &ev);
            depth--;
        }
    }
}

void sheet_print_yaml(const json_t *value, FILE *to)
{
    yaml_emitter_t em;
    yaml_event_t ev;

    if (!yaml_emitter_initialize(&em))
        return;
    yaml_emitter_set_output(&em, sheet_yaml_write, to);
    yaml_emitter_set_unicode(&em, 1);
    if (yaml_stream_start_event_initialize(&ev, YAML_UTF8_ENCODING))
        (void)yaml_emitter_emit(&em, &ev);
    if (yaml_document_start_event_initialize(&ev, NULL, NULL, NULL, 1))
        (void)yaml_emitter_emit(&em, &ev);
    sheet_yaml_walk(&em, value);
    if (yaml_document_end_event_initialize(&ev, 1))
        (void)yaml_emitter_emit(&em, &ev);
    if (yaml_stream_end_event_initialize(&ev))
        (void)yaml_emitter_emit(&em, &ev);
    yaml_emitter_delete(&em);
}

void sheet_print(const struct sheet *s, enum sheet_format format,
                 bool (*trouble)(const json_t *row), FILE *to)
{
    switch (format) {
    case SHEET_TABLE:
        sheet_print_table(s, trouble, to);
        break;
    case SHEET_JSON:
        (void)json_dumpf(s->rows, to, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        fputc('\n', to);
        break;
    case SHEET_YAML:
        sheet_print_yaml(s->rows, to);
        break;
    }
}

/* ---- SQL ---- */

static void sheet_on_columns(void *arg, int n, const char *const *names)
{
    struct sheet *s = arg;

    for (int i = 0; i < n; i++)
        sheet_column(s, names[i]);
}

static json_t *sheet_value(const struct store_cell *c)
{
    json_t *v = NULL;

    switch (c->type) {
    case STORE_NULL:
        break;
    case STORE_INTEGER:
        v = json_integer(c->integer);
        break;
    case STORE_REAL:
        v = json_real(c->real);
        break;
    case STORE_TEXT:
        v = json_stringn((const char *)c->text.p, c->text.n);
        break;
    case STORE_BLOB:
        v = json_sprintf("(%zu bytes)", c->text.n);
        break;
    }
    return v != NULL
               ? v
               : json_null(); /* also a text that is not UTF-8, a real that is not finite */
}

static bool sheet_on_row(void *arg, int n, const struct store_cell *cells)
{
    struct sheet *s = arg;
    json_t *row = json_object();

    for (int i = 0; i < n && i < s->n_columns; i++)
        (void)json_object_set_new(row, s->columns[i], sheet_value(&cells[i]));
    sheet_add(s, row);
    return true;
}

err_t sheet_query(struct sheet *s, const char *state, const char *sql, uint64_t max_rows,
                  bool *truncated, struct trouble *why)
{
    struct store_query q = {.state_dir = state,
                            .sql = sql,
                            .max_rows = max_rows,
                            .on_columns = sheet_on_columns,
                            .on_row = sheet_on_row,
                            .arg = s};
    char said[300] = "";
    err_t e = store_query_readonly(&q, truncated, said);

    if (e != OK)
        return trouble_set(why, e, "%s", said[0] != '\0' ? said : e->text);
    return OK;
}

bool sheet_quote(const char *text, char *out, size_t cap)
{
    size_t n = 0;

    if (cap < 3)
        return false;
    out[n++] = '\'';
    for (; *text != '\0'; text++) {
        if (n + 4 > cap)
            return false;
        if (*text == '\'')
            out[n++] = '\'';
        out[n++] = *text;
    }
    out[n++] = '\'';
    out[n] = '\0';
    return true;
}

int sheet_command(const char *run, const char *sql, const char *output,
                  bool (*trouble)(const json_t *row))
{
    enum sheet_format format;
    struct trouble why = {{0}};
    bool truncated = false;
    struct sheet s;
    struct mesh m;
    err_t e;

    sheet_init(&s);
    e = sheet_format_parse(output, &format, &why);
    if (e == OK)
        e = mesh_load(&m, run, &why);
    if (e == OK)
        e = sheet_query(&s, m.state, sql, 0, &truncated, &why);
    if (e == OK)
        sheet_print(&s, format, trouble, stdout);
    if (e == OK && truncated)
        fprintf(stderr, "weft: there are more rows than these\n");
    sheet_done(&s);
    return trouble_exit(&why, e);
}
