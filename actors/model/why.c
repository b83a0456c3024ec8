#include "model/why.h"

#include "kit/slice.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Cuts an incomplete UTF-8 sequence off the end. */
static void trim_utf8(char *s)
{
    size_t n = strlen(s), start = n;

    while (start > 0 && ((unsigned char)s[start - 1] & 0xc0) == 0x80)
        start--;
    if (start == 0 || (unsigned char)s[start - 1] < 0xc0)
        return; /* ASCII at the end, or not UTF-8 at all */
    unsigned char lead = (unsigned char)s[start - 1];
    size_t want = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (n - (start - 1) < want)
        s[start - 1] = '\0';
}

void why_text(const struct why *why, char out[WHY_TEXT])
{
    (void)snprintf(out, WHY_TEXT, "%s%s%s", why->path, why->path[0] != '\0' ? ": " : "",
                   why->reason);
    for (char *c = out; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    trim_utf8(out);
}

err_t why_set(struct why *why, err_t e, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(why->reason, sizeof(why->reason), fmt,
                    args); /* cut if longer: it is for people */
    va_end(args);
    trim_utf8(why->reason);
    return e;
}

static bool is_word(const char *key)
{
    if (*key == '\0')
        return false;
    for (; *key != '\0'; key++)
        if (!isalnum((unsigned char)*key) && *key != '_' && *key != '-' && *key != '$')
            return false;
    return true;
}

static size_t take(char *path, size_t n, size_t cap, int wrote)
{
    if (wrote < 0 || (size_t)wrote >= cap - n) {
        path[n] = '\0';
        return n;
    }
    return n + (size_t)wrote;
}

size_t path_key(char *path, size_t n, size_t cap, const char *key)
{
    if (is_word(key))
        return take(path, n, cap, snprintf(path + n, cap - n, "%s%s", n > 0 ? "." : "", key));
    return take(path, n, cap, snprintf(path + n, cap - n, "[\"%s\"]", key));
}

size_t path_index(char *path, size_t n, size_t cap, size_t i)
{
    return take(path, n, cap, snprintf(path + n, cap - n, "[%zu]", i));
}
