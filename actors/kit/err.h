/* Three kinds of "no".
 *
 * A bug aborts (BUG_ON): the supervisor restarts the process. The world says no with an err_t, a pointer
 * to a named constant, OK (NULL) being success. "Not yet" is an enum step and never an error.
 *
 * Each layer lists its errors once, in its own tbl/errors.h, as ERR(NAME, CLASS, "text"); the lines
 * below turn that table into declarations (in the layer's header) and definitions (in one .c):
 *
 *     #define ERR(name, cls, text) ERR_DECLARE(name)
 *     #include "kit/tbl/errors.h"
 */
#ifndef KIT_ERR_H
#define KIT_ERR_H

#include "kit/attr.h"

#include <stddef.h>

enum err_class {
    ERR_CLASS_HERE, /* this process or machine: memory, files, limits */
    ERR_CLASS_PEER, /* who is at the other end sent something wrong, or went away */
    ERR_CLASS_FLEET /* the control plane: not reachable, or it refused */
};

struct err {
    const char *name; /* stable; crosses the wire and appears in logs, e.g. "BAD_FRAME" */
    enum err_class cls;
    const char *text; /* one sentence for an operator */
};
typedef const struct err *err_t;

#define OK ((err_t)NULL)

#define ERR_DECLARE(n)      extern const struct err err_##n;
#define ERR_DEFINE(n, c, t)      const struct err err_##n = {#n, ERR_CLASS_##c, t};
#define ERR_OF(n)                (&err_##n)

/* Returns the error of `expr` from the calling function, if it is one. The only macro that returns. */
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        err_t try_err_ = (expr);                                                                   \
        if (UNLIKELY(try_err_ != OK))                                                              \
            return try_err_;                                                                       \
    } while (0)

/* For a result that is ignored on purpose; the reason stands beside the call. */
static inline void err_ignore(err_t why)
{
    (void)why;
}

/* The three answers of something that may have to wait. */
enum step {
    STEP_DONE,  /* finished */
    STEP_LATER, /* nothing is wrong; come back on the event the function's contract names */
    STEP_FAILED /* an err_t out-parameter says why */
};

/* Aborts with the place and the text of the condition. For what only a bug of ours can cause. */
#define BUG_ON(cond)                                                                               \
    do {                                                                                           \
        if (UNLIKELY(cond))                                                                        \
            bug(#cond, __FILE__, __LINE__);                                                        \
    } while (0)

NORETURN COLD void bug(const char *what, const char *file, int line);

#define ERR(name, cls, text) ERR_DECLARE(name)
#include "kit/tbl/errors.h"
#undef ERR

#endif
