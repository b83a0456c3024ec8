/* What a command says when it fails, and the exit codes that scripts may rely on (docs/cli.md).
 */
#ifndef CLI_TROUBLE_H
#define CLI_TROUBLE_H

#include "kit/attr.h"
#include "kit/err.h"

#define ERR(name, cls, text) ERR_DECLARE(name)
#include "cli/tbl/errors.h"
#undef ERR

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1, /* asked for something that could not be done, or a check found trouble */
    CLI_USAGE = 2,  /* the command line is wrong; nothing was done */
    CLI_NOT_READY = 3, /* not ready, or not in time; trying again later may help */
};

/* One sentence for a person, filled in by whoever knows most about the failure. */
struct trouble {
    char text[640];
};

/* Writes the sentence and returns `e`, so that a failing function ends in one line. */
err_t trouble_set(struct trouble *w, err_t e, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The same with ": " and strerror(errno) behind it; returns ERR_OF(OS). */
err_t trouble_errno(struct trouble *w, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Puts words in front of the sentence that is there: "pod web-1: " + text. */
err_t trouble_prefix(struct trouble *w, err_t e, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Prints "weft: SENTENCE" to stderr and returns the exit code that goes with the error. */
int trouble_exit(const struct trouble *w, err_t e);

#endif
