/* One child and its life.
 *
 *              spawned           "ready"           "drain"             exit
 *   WAITING ------------> STARTING -----> READY ----------> DRAINING -------> ENDED
 *      ^                     |              |                  |                ^
 *      |                     '------.-------'                  | too slow       |
 *      |  exit, and it is to        |  silent for 10 s         v                |
 *      '--- run again --------------+---------------------> KILLED ------------'  (when draining)
 *
 *   WAITING   pid 0, lifeline -1; `again` is armed, or its stage has not begun
 *   STARTING  pid and lifeline are set; nothing was heard but "alive"
 *   READY     as STARTING; "ready" was heard
 *   DRAINING  as READY; "drain" was sent, no more starts
 *   KILLED    pid set; SIGKILL was sent, its exit has not been seen
 *   ENDED     pid 0, lifeline -1; never started again
 */
#ifndef SUPERVISOR_CHILD_H
#define SUPERVISOR_CHILD_H

#include "supervisor/backoff.h"
#include "supervisor/status.h"
#include "supervisor/table.h"

#include "kit/timer.h"

#include <stdbool.h>

enum child_state {
    CHILD_WAITING,
    CHILD_STARTING,
    CHILD_READY,
    CHILD_DRAINING,
    CHILD_KILLED,
    CHILD_ENDED
};
#define CHILD_STATES 6

struct super;

struct child {
    struct super *super;
    const struct process_row *row;
    char name[40]; /* "weft-tls", "weft-proxy.0" */
    int worker;    /* index among its equals */
    enum child_state state;
    pid_t pid;
    int lifeline;
    struct event *on_lifeline; /* NULL when lifeline is -1 */
    struct timer again;
    struct backoff backoff;
    struct notes notes;
    unsigned starts;
    bool was_ready;     /* of any generation */
    bool is_to_end;     /* its drain has begun: no more starts */
    uint64_t since_ms;  /* wall */
    uint64_t spawned_us, died_us, heard_us; /* monotonic; died_us 0 = it never died */
    int64_t ready_ms;   /* of the latest generation that got ready; -1 = none */
};

const char *child_state_name(enum child_state s);

/* The only writer of c->state. Stamps the time; what follows from it is the caller's. */
void child_enter(struct child *c, enum child_state next);

static inline bool child_has_process(const struct child *c)
{
    return c->pid != 0;
}

/* Sends a line, if there is a lifeline; a full one loses it (the child is hung, the watchdog will see). */
void child_say(const struct child *c, const char *line);

#endif
