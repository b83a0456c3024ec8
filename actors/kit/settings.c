/* Settings from the environment: the table expanded four times (defaults and parsing, printing, rows,
 * and the struct in the header). */
#include "kit/settings.h"

#include "kit/log.h"
#include "kit/slice.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PORT_MAX    65535

/* The leading decimal digits of text; *rest is what follows. False without digits or on overflow. */
static bool parse_digits(const char *text, uint64_t *out, const char **rest)
{
    size_t n = strspn(text, "0123456789");

    if (!slice_to_u64(slice(text, n), out))
        return false;
    *rest = text + n;
    return true;
}

struct unit {
    const char *name;
    uint64_t factor;
};

static bool parse_with_unit(const char *text, const struct unit *units, size_t count, uint64_t *out)
{
    const char *rest;
    uint64_t n;

    if (text == NULL || !parse_digits(text, &n, &rest))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rest, units[i].name) != 0)
            continue;
        if (n > UINT64_MAX / units[i].factor)
            return false;
        *out = n * units[i].factor;
        return true;
    }
    return false;
}

bool settings_parse_ms(const char *text, uint64_t *out)
{
    static const struct unit units[] = {
        {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    uint64_t ms;

    if (text != NULL && strcmp(text, "0") == 0) {
        *out = 0;
        return true;
    }
    /* A hundred years is enough for everybody, and far from any overflow of sums. */
    if (!parse_with_unit(text, units, sizeof(units) / sizeof(units[0]), &ms) ||
        ms > UINT64_C(36525) * 86400000)
        return false;
    *out = ms;
    return true;
}

bool settings_parse_bytes(const char *text, uint64_t *out)
{
    static const struct unit units[] = {
        {"", 1}, {"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}};

    return parse_with_unit(text, units, sizeof(units) / sizeof(units[0]), out);
}

bool settings_parse_u32(const char *text, uint32_t *out)
{
    uint64_t n;

    if (text == NULL || !slice_to_u64(slice_str(text), &n) || n > UINT32_MAX)
        return false;
    *out = (uint32_t)n;
    return true;
}

bool settings_parse_bool(const char *text, bool *out)
{
    if (text == NULL || (strcmp(text, "true") != 0 && strcmp(text, "false") != 0))
        return false;
    *out = text[0] == 't';
    return true;
}

static err_t refuse(char why[200], const char *env, const char *value, const char *allowed)
{
    size_t n;

    (void)snprintf(why, 200, "%s=%.60s is not allowed: it must be %s", env, value, allowed);
    n = strlen(why);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)why[i] < 0x20 || why[i] == 0x7f)
            why[i] = '?';
    return ERR_OF(BAD_SETTING);
}

/* The value in force; STR may be empty on purpose, so only "not set" means the default. */
static const char *value_of(const char *env, const char *fallback)
{
    const char *v = getenv(env);

    return v != NULL ? v : fallback;
}

static err_t check_port(char why[200], const char *env, uint32_t port)
{
    char text[16];

    if (port <= PORT_MAX)
        return OK;
    (void)snprintf(text, sizeof(text), "%" PRIu32, port);
    return refuse(why, env, text, "a port (0 to 65535)");
}

static err_t check_directory(char why[200], const char *env, const char *path)
{
    /* 60 bytes are left for the names of the sockets in it: sun_path has 108. */
    if (path[0] != '/' || strlen(path) > 90)
        return refuse(why, env, path, "an absolute path of at most 90 bytes");
    return OK;
}

/* What a type cannot say. */
static err_t check(const struct settings *s, char why[200])
{
    enum log_level level;

    TRY(check_port(why, "WEFT_OUTBOUND_PORT", s->outbound_port));
    TRY(check_port(why, "WEFT_INBOUND_PORT", s->inbound_port));
    TRY(check_port(why, "WEFT_ADMIN_PORT", s->admin_port));
    TRY(check_port(why, "WEFT_BROKER_PORT", s->broker_port));
    TRY(check_port(why, "WEFT_UPDATES_PORT", s->updates_port));
    TRY(check_port(why, "WEFT_FEED_PORT", s->feed_port));
    TRY(check_port(why, "WEFT_PODS_PORT", s->pods_port));
    TRY(check_directory(why, "WEFT_RUN_DIR", s->run_dir));
    TRY(check_directory(why, "WEFT_STATE_DIR", s->state_dir));
    if (s->workers > SETTINGS_WORKERS_MAX)
        return refuse(why, "WEFT_WORKERS", value_of("WEFT_WORKERS", ""), "0 to 64");
    if (!log_level_parse(slice_str(s->log), &level))
        return refuse(why, "WEFT_LOG", s->log, "error, warn, info or debug");
    return OK;
}

err_t settings_load(struct settings *out, char why[200])
{
    struct settings s;

    memset(&s, 0, sizeof(s));
#define SETTING_STR(name, env, def, doc) s.name = value_of(env, def);
#define SETTING_U32(name, env, def, doc)                                                           \
    if (!settings_parse_u32(value_of(env, def), &s.name))                                          \
        return refuse(why, env, value_of(env, def), "a whole number (0 to 4294967295)");
#define SETTING_BOOL(name, env, def, doc)                                                          \
    if (!settings_parse_bool(value_of(env, def), &s.name))                                         \
        return refuse(why, env, value_of(env, def), "true or false");
#define SETTING_MS(name, env, def, doc)                                                            \
    if (!settings_parse_ms(value_of(env, def), &s.name))                                           \
        return refuse(why, env, value_of(env, def),                                                \
                      "a duration: a number with ms, s, m, h or d, or 0");
#define SETTING_BYTES(name, env, def, doc)                                                         \
    if (!settings_parse_bytes(value_of(env, def), &s.name))                                        \
        return refuse(why, env, value_of(env, def), "a number of bytes, with Ki, Mi or Gi if wanted");
#include "kit/tbl/settings.h"
    TRY(check(&s, why));
    *out = s;
    return OK;
}

static void print_ms(char out[32], uint64_t ms)
{
    static const struct unit units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}};

    for (unsigned i = 0; ms != 0 && i < sizeof(units) / sizeof(units[0]); i++)
        if (ms % units[i].factor == 0) {
            (void)snprintf(out, 32, "%" PRIu64 "%s", ms / units[i].factor, units[i].name);
            return;
        }
    (void)snprintf(out, 32, "%" PRIu64 "%s", ms, ms == 0 ? "" : "ms");
}

static void print_bytes(char out[32], uint64_t n)
{
    static const struct unit units[] = {{"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}};

    for (unsigned i = 0; n != 0 && i < sizeof(units) / sizeof(units[0]); i++)
        if (n % units[i].factor == 0) {
            (void)snprintf(out, 32, "%" PRIu64 "%s", n / units[i].factor, units[i].name);
            return;
        }
    (void)snprintf(out, 32, "%" PRIu64, n);
}

static void print_row(FILE *to, const char *env, const char *def, const char *value, const char *doc)
{
    (void)fprintf(to, "%-30s %-16s %-16s %s\n", env, def[0] != '\0' ? def : "-",
                  value[0] != '\0' ? value : "-", doc);
}

void settings_print(const struct settings *s, FILE *to)
{
    char text[32];

    print_row(to, "SETTING", "DEFAULT", "IN FORCE", "MEANING");
#define SETTING_STR(name, env, def, doc) print_row(to, env, def, s->name, doc);
#define SETTING_U32(name, env, def, doc)                                                           \
    (void)snprintf(text, sizeof(text), "%" PRIu32, s->name);                                       \
    print_row(to, env, def, text, doc);
#define SETTING_BOOL(name, env, def, doc) print_row(to, env, def, s->name ? "true" : "false", doc);
#define SETTING_MS(name, env, def, doc)                                                            \
    print_ms(text, s->name);                                                                       \
    print_row(to, env, def, text, doc);
#define SETTING_BYTES(name, env, def, doc)                                                         \
    print_bytes(text, s->name);                                                                    \
    print_row(to, env, def, text, doc);
#include "kit/tbl/settings.h"
}

const struct setting_row settings_rows[] = {
#define SETTING_STR(name, env, def, doc)   {#name, env, "text", def, doc},
#define SETTING_U32(name, env, def, doc)   {#name, env, "number", def, doc},
#define SETTING_BOOL(name, env, def, doc)  {#name, env, "bool", def, doc},
#define SETTING_MS(name, env, def, doc)    {#name, env, "duration", def, doc},
#define SETTING_BYTES(name, env, def, doc) {#name, env, "bytes", def, doc},
#include "kit/tbl/settings.h"
};
const unsigned settings_rows_n = sizeof(settings_rows) / sizeof(settings_rows[0]);
