/* The error table of the kit, and what happens on a bug. */
#include "kit/err.h"

#include "kit/log.h"

#include <stdlib.h>

#define ERR(name, cls, text) ERR_DEFINE(name, cls, text)
#include "kit/tbl/errors.h"
#undef ERR

void bug(const char *what, const char *file, int line)
{
    log_error("bug", "condition=\"%s\" at=%s:%d", what, file, line);
    abort();
}
