/* What a command prints: rows with named columns, as a table for people or as JSON or YAML for
 * programs.
 *
 * The names are the SQL columns' in all three forms. In the table the header is in capitals,
 * numbers are on the right; colour marks trouble only, and only on a terminal.
 */
#ifndef CLI_SHEET_H
#define CLI_SHEET_H

#include "cli/mesh.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#define SHEET_COLUMNS_MAX 64

enum sheet_format { SHEET_TABLE, SHEET_JSON, SHEET_YAML };

/* "table", "json", "yaml", NULL = table. USAGE. */
MUST_USE err_t sheet_format_parse(const char *text, enum sheet_format *out,
                                  struct trouble *why);

struct sheet {
    char columns[SHEET_COLUMNS_MAX][64];
    int n_columns;
    json_t *rows; /* array of objects; owned */
};

void sheet_init(struct sheet *s);
void sheet_done(struct sheet *s);
void sheet_column(struct sheet *s, const char *name);

/* Takes over `row` (an object); its keys should be columns. */
void sheet_add(struct sheet *s, json_t *row);

/* Prints everything. In a table only the columns are shown; `trouble` (may be NULL) says which
 * rows are red on a terminal. JSON and YAML are an array with one object per row. */
void sheet_print(const struct sheet *s, enum sheet_format format,
                 bool (*trouble)(const json_t *row), FILE *to);

/* Any JSON value as a YAML document. */
void sheet_print_yaml(const json_t *value, FILE *to);

/* Runs one statement on the databases in `state` and fills the sheet with columns and rows. */
MUST_USE err_t sheet_query(struct sheet *s, const char *state, const char *sql,
                           uint64_t max_rows, bool *truncated, struct trouble *why);

/* 'it''s' : a quoted SQL text appended to out[cap]; false if it does not fit. */
bool sheet_quote(const char *text, char *out, size_t cap);

/* Loads the mesh of `run`, runs the statement, prints: most commands that only look are this.
 */
int sheet_command(const char *run, const char *sql, const char *output,
                  bool (*trouble)(const json_t *row));

bool sheet_is_terminal(FILE *to);

#endif
