/* Sentences and exit codes. */
#include "cli/trouble.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ERR(name, cls, text) ERR_DEFINE(name, cls, text)
#include "cli/tbl/errors.h"
#undef ERR

err_t trouble_set(struct trouble *w, err_t e, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(w->text, sizeof w->text, fmt, ap); /* a cut sentence is still a sentence */
    va_end(ap);
    return e;
}

err_t trouble_errno(struct trouble *w, const char *fmt, ...)
{
    int saved = errno;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(w->text, sizeof w->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof w->text)
        (void)snprintf(w->text + n, sizeof w->text - (size_t)n, ": %s", strerror(saved));
    errno = saved;
    return ERR_OF(OS);
}

err_t trouble_prefix(struct trouble *w, err_t e, const char *fmt, ...)
{
    char old[sizeof w->text];
    va_list ap;
    int n;

    memcpy(old, w->text, sizeof old);
    va_start(ap, fmt);
    n = vsnprintf(w->text, sizeof w->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof w->text)
        (void)snprintf(w->text + n, sizeof w->text - (size_t)n, "%s", old);
    return e;
}

int trouble_exit(const struct trouble *w, err_t e)
{
    if (e == OK)
        return CLI_OK;
    fprintf(stderr, "weft: %s\n", w->text[0] != '\0' ? w->text : e->text);
    if (e == ERR_OF(USAGE))
        return CLI_USAGE;
    if (e == ERR_OF(NOT_READY) || e == ERR_OF(NO_MESH))
        return CLI_NOT_READY;
    return CLI_FAILED;
}
