/* The settings of a pod and of a control plane: one table (tbl/settings.h), read from the environment.
 *
 * Every process reads the same table and uses what concerns it; the supervisor passes WEFT_* on to its
 * children. No secret is ever a setting: secrets are files named by settings. A value that does not parse
 * stops the process with exit code 64 and a line that names the variable, the value and what is allowed.
 */
#ifndef KIT_SETTINGS_H
#define KIT_SETTINGS_H

#include "kit/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define SETTINGS_WORKERS_MAX 64

/* Types: STR (text), U32 (whole number), BOOL (true|false), MS (duration: number + ms|s|m|h|d, bare 0),
 * BYTES (number with optional Ki|Mi|Gi). Durations are held in milliseconds. */
struct settings {
#define SETTING_STR(name, env, def, doc)   const char *name;
#define SETTING_U32(name, env, def, doc)   uint32_t name;
#define SETTING_BOOL(name, env, def, doc)  bool name;
#define SETTING_MS(name, env, def, doc)    uint64_t name;
#define SETTING_BYTES(name, env, def, doc) uint64_t name;
#include "kit/tbl/settings.h"
};

/* Reads the environment. On failure writes one sentence to why[200] and returns BAD_SETTING. Text
 * values are borrowed from the environment. */
MUST_USE err_t settings_load(struct settings *out, char why[200]);

/* Prints the table for people: name, default, value in force, meaning. */
void settings_print(const struct settings *s, FILE *to);

/* The table as rows, for programs that print it their own way (`weft settings --markdown`). */
struct setting_row {
    const char *field, *env, *type, *fallback, *doc; /* type: "text", "number", "bool", "duration", "bytes" */
};
extern const struct setting_row settings_rows[];
extern const unsigned settings_rows_n;

/* "10s", "250ms", "0" -> milliseconds. "64Ki" -> bytes. False leaves *out untouched. */
bool settings_parse_bool(const char *text, bool *out);
bool settings_parse_u32(const char *text, uint32_t *out);
bool settings_parse_ms(const char *text, uint64_t *out);
bool settings_parse_bytes(const char *text, uint64_t *out);

#endif
