/* Starting a child: its own process group, a clean environment, the descriptors its row names and
 * nothing else, and death when the supervisor dies. */
#ifndef SUPERVISOR_SPAWN_H
#define SUPERVISOR_SPAWN_H

#include "supervisor/env.h"

#include <sys/types.h>

struct spawn_ask {
    int bin_fd;       /* directory of the executable */
    const char *name; /* of the executable, and argv[0] */
    const struct process_row *row;
    const struct heritage *heritage;
    int worker;
    uint64_t incarnation;
    bool test_preload;
};

/* Starts it. *pid is its process, *lifeline our end of its lifeline (non-blocking, close-on-exec). That
 * the executable cannot be run shows as an exit with code 127. */
MUST_USE err_t spawn_child(const struct spawn_ask *ask, pid_t *pid, int *lifeline);

#endif
