/* A process that parses strangers' bytes sent this text: it is read as carefully as theirs,
 * since it is printed into /metrics as it is. */
#include "telemetry/labels.h"

static bool is_name_byte(uint8_t c, bool is_first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (!is_first && c >= '0' && c <= '9');
}

static size_t name_length(slice_t s)
{
    size_t n = 0;

    while (n < s.n && is_name_byte(s.p[n], n == 0))
        n++;
    return n;
}

/* Bytes up to the closing quote. False: none, a bad escape, or a control character. */
static bool value_length(slice_t s, size_t *out)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"') {
            *out = i;
            return true;
        }
        if (s.p[i] < 0x20 || s.p[i] == 0x7f)
            return false;
        if (s.p[i] != '\\')
            continue;
        i++;
        if (i == s.n || (s.p[i] != '\\' && s.p[i] != '"' && s.p[i] != 'n'))
            return false;
    }
    return false;
}

bool labels_next(slice_t *rest, slice_t *name, slice_t *value)
{
    slice_t s = *rest;
    size_t name_n = name_length(s), value_n = 0;

    if (name_n == 0 || s.n < name_n + 2 || s.p[name_n] != '=' || s.p[name_n + 1] != '"')
        return false;
    if (!value_length(slice_skip(s, name_n + 2), &value_n))
        return false;
    *name = slice(s.p, name_n);
    *value = slice(s.p + name_n + 2, value_n);
    s = slice_skip(s, name_n + 2 + value_n + 1);
    if (s.n > 0) {
        if (s.p[0] != ',' || s.n == 1)
            return false;
        s = slice_skip(s, 1);
    }
    *rest = s;
    return true;
}

bool labels_check(slice_t text)
{
    slice_t name, value;

    while (labels_next(&text, &name, &value)) {
    }
    return text.n == 0;
}

size_t labels_unescape(slice_t value, uint8_t *out)
{
    size_t n = 0;

    for (size_t i = 0; i < value.n; i++) {
        uint8_t c = value.p[i];

        if (c == '\\' && i + 1 < value.n) {
            c = value.p[++i];
            c = c == 'n' ? '\n' : c;
        }
        out[n++] = c;
    }
    return n;
}
