/* Starts a supervisor: its own session, user, namespace and log. */
#ifndef CLI_LAUNCH_H
#define CLI_LAUNCH_H

#include "cli/procs.h"
#include "cli/trouble.h"

#include <stdbool.h>
#include <sys/types.h>

#define LAUNCH_ENV_MAX 32

struct launch {
    const char *program;  /* absolute path */
    const char *argument; /* "control" or "pod" */
    uid_t uid;            /* also the gid */
    const char *netns;    /* NULL: stay */
    const char *log;      /* file to append to */
    const char
        *pid_file;     /* "PID START", written by the child before anything else; may be NULL */
    bool dies_with_us; /* SIGKILL when the calling process ends */
    /* "NAME=VALUE": replaces what the environment has. What is inherited: WEFT_* and PATH,
     * LANG, TZ. */
    char env[LAUNCH_ENV_MAX][320];
    size_t n_env;
};

/* Adds NAME=VALUE. A value that is too long is refused with a sentence. */
MUST_USE err_t launch_env(struct launch *l, struct trouble *why, const char *name,
                          const char *fmt, ...) PRINTF_LIKE(4, 5);

/* OK once the program has been executed (exec itself succeeded). */
MUST_USE err_t launch_start(const struct launch *l, struct proc_id *out, struct trouble *why);

/* The last lines of a log, for a person who waits for a reason; at most `cap` bytes. */
void launch_log_tail(const char *log, char *out, size_t cap);

#endif
