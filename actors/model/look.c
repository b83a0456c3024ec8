#include "model/look.h"

#include "model/name.h"
#include "model/resource.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { DEPTH = 40 };

static void write_path(const struct look *at, char path[200])
{
    const struct look *steps[DEPTH];
    size_t n = 0, len = 0;

    for (; at->up != NULL && n < DEPTH; at = at->up)
        steps[n++] = at;
    path[0] = '\0';
    while (n-- > 0)
        len = steps[n]->key != NULL ? path_key(path, len, 200, steps[n]->key)
                                    : path_index(path, len, 200, steps[n]->index);
}

err_t look_refuse(const struct look *at, const char *fmt, ...)
{
    struct why *why = at->ctx->why;
    char reason[sizeof(why->reason)];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(reason, sizeof(reason), fmt, args); /* cut if longer: it is for people */
    va_end(args);
    write_path(at, why->path);
    return why_set(why, ERR_OF(MODEL_INVALID), "%s", reason);
}

/* ---- guesses ---- */

/* Edits between two short words, capped: above 3 nobody asks. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[48], n = (unsigned)strlen(b), m = (unsigned)strlen(a);

    if (n >= 47 || m >= 47)
        return strcmp(a, b) == 0 ? 0 : 99;
    for (unsigned j = 0; j <= n; j++)
        row[j] = j;
    for (unsigned i = 1; i <= m; i++) {
        unsigned diagonal = row[0];

        row[0] = i;
        for (unsigned j = 1; j <= n; j++) {
            unsigned up = row[j], best = diagonal + ((a[i - 1] | 0x20) != (b[j - 1] | 0x20));

            if (up + 1 < best)
                best = up + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = up;
            row[j] = best;
        }
    }
    return row[n];
}

const char *look_guess(const char *text, const char *const *words)
{
    const char *best = NULL;
    unsigned least = strlen(text) < 5 ? 2 : 4; /* fewer than this */

    for (; *words != NULL; words++) {
        unsigned d = distance(text, *words);

        if (d < least) {
            least = d;
            best = *words;
        }
    }
    return best;
}

/* ---- objects and lists ---- */

static const char *type_name(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "text";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
        return "nothing";
    }
    return "?";
}

static err_t refuse_unknown(const struct look *at, const char *key, const char *const *known)
{
    struct look field = {at->ctx, at, key, 0, NULL};
    const char *guess = look_guess(key, known);

    if (guess != NULL)
        return look_refuse(&field, "not a known field; did you mean %s?", guess);
    return look_refuse(&field, "not a known field here");
}

err_t look_object(const struct look *at, const char *const *known)
{
    const char *key;
    json_t *value;

    if (!json_is_object(at->v))
        return look_refuse(at, "must be an object, not %s", type_name(at->v));
    /* The iteration macro wants a pointer that is not const; nothing is changed. */
    union {
        const json_t *in;
        json_t *out;
    } object = {.in = at->v};
    json_object_foreach(object.out, key, value)
    {
        const char *const *k = known;

        while (*k != NULL && strcmp(*k, key) != 0)
            k++;
        if (*k == NULL)
            return refuse_unknown(at, key, known);
    }
    return OK;
}

bool look_at(const struct look *at, const char *key, struct look *out)
{
    const json_t *v = json_object_get(at->v, key);

    if (v == NULL || json_is_null(v))
        return false;
    *out = (struct look){at->ctx, at, key, 0, v};
    return true;
}

err_t look_need(const struct look *at, const char *key, struct look *out)
{
    struct look field = {at->ctx, at, key, 0, NULL};

    return look_at(at, key, out) ? OK : look_refuse(&field, "is missing");
}

err_t look_list(const struct look *at, size_t max, size_t *n)
{
    if (!json_is_array(at->v))
        return look_refuse(at, "must be a list, not %s", type_name(at->v));
    if (json_array_size(at->v) > max)
        return look_refuse(at, "has %zu entries, at most %zu", json_array_size(at->v), max);
    *n = json_array_size(at->v);
    return OK;
}

struct look look_item(const struct look *list, size_t i)
{
    return (struct look){list->ctx, list, NULL, i, json_array_get(list->v, i)};
}

/* ---- values ---- */

err_t look_text(const struct look *at, size_t max, slice_t *out)
{
    slice_t s;

    if (!json_is_string(at->v))
        return look_refuse(
            at, "must be text, not %s%s", type_name(at->v),
            json_is_number(at->v) || json_is_boolean(at->v) ? " (put it into quotes)" : "");
    s = slice(json_string_value(at->v), json_string_length(at->v));
    if (s.n > max)
        return look_refuse(at, "is %zu bytes long, at most %zu", s.n, max);
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x20 || s.p[i] == 0x7f)
            return look_refuse(at, "holds a control character");
    s = arena_copy(at->ctx->arena, s);
    if (s.p == NULL)
        return ERR_OF(NOMEM);
    *out = s;
    return OK;
}

err_t look_number(const struct look *at, int64_t min, int64_t max, int64_t *out)
{
    json_int_t v;

    if (!json_is_integer(at->v))
        return look_refuse(at, "must be a whole number, not %s",
                           json_is_real(at->v) ? "a fraction" : type_name(at->v));
    v = json_integer_value(at->v);
    if (v < min || v > max)
        return look_refuse(at, "%" PRId64 " is not in %" PRId64 "..%" PRId64, (int64_t)v, min,
                           max);
    *out = v;
    return OK;
}

err_t look_bool(const struct look *at, bool *out)
{
    if (!json_is_boolean(at->v))
        return look_refuse(at, "must be true or false, not %s", type_name(at->v));
    *out = json_is_true(at->v);
    return OK;
}

err_t look_duration(const struct look *at, uint32_t *ms)
{
    slice_t s;

    if (json_is_integer(at->v) && json_integer_value(at->v) == 0) {
        *ms = 0;
        return OK;
    }
    TRY(look_text(at, 64, &s));
    if (!duration_parse(s, ms))
        return look_refuse(at, "\"%.*s\" is not a duration (number and unit: 10s, 250ms)",
                           SLICE_FMT(s));
    return OK;
}

err_t look_word(const struct look *at, const char *const *words, size_t *out)
{
    char list[160] = "";
    const char *guess;
    slice_t s;

    TRY(look_text(at, 256, &s));
    for (size_t i = 0; words[i] != NULL; i++) {
        if (slice_is_str(s, words[i])) {
            *out = i;
            return OK;
        }
        size_t n = strlen(list);
        (void)snprintf(list + n, sizeof(list) - n, "%s%s", n > 0 ? ", " : "", words[i]);
    }
    guess = look_guess((const char *)s.p, words);
    if (guess != NULL)
        return look_refuse(at, "\"%.*s\" is not known; did you mean %s?",
                           s.n > 60 ? 60 : (int)s.n, (const char *)s.p, guess);
    return look_refuse(at, "\"%.*s\" is not one of: %s", s.n > 60 ? 60 : (int)s.n,
                       (const char *)s.p, list);
}

err_t look_label(const struct look *at, slice_t *out)
{
    slice_t s;

    TRY(look_text(at, 1024, &s));
    if (!name_is_label(s))
        return look_refuse(at,
                           "\"%.*s\" is not a name (a-z, 0-9 and -, at most 63, letters or "
                           "digits at both ends)",
                           s.n > 80 ? 80 : (int)s.n, (const char *)s.p);
    *out = s;
    return OK;
}

err_t look_host(const struct look *at, bool may_be_wildcard, slice_t *out)
{
    slice_t s;
    uint8_t *lower;

    TRY(look_text(at, 1024, &s));
    lower = arena_alloc(at->ctx->arena, s.n + 1);
    if (lower == NULL)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < s.n; i++)
        lower[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (uint8_t)(s.p[i] + 32) : s.p[i];
    if (may_be_wildcard ? !name_is_host_or_wildcard(slice(lower, s.n))
                        : !name_is_host(slice(lower, s.n)))
        return look_refuse(at, "\"%.*s\" is not a host name%s", s.n > 80 ? 80 : (int)s.n,
                           (const char *)s.p, may_be_wildcard ? " or *.name" : "");
    *out = slice(lower, s.n);
    return OK;
}

err_t look_port(const struct look *at, uint16_t *out)
{
    int64_t v;

    TRY(look_number(at, 1, 65535, &v));
    *out = (uint16_t)v;
    return OK;
}

err_t look_alloc(const struct look *at, size_t n, size_t size, void **out)
{
    *out = arena_alloc(at->ctx->arena, n * size + 1);
    return *out != NULL ? OK : ERR_OF(NOMEM);
}
