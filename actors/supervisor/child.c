#include "supervisor/child.h"

#include "kit/clock.h"

#include <string.h>
#include <sys/socket.h>

static const char *const names[CHILD_STATES] = {"waiting", "starting", "ready",
                                                "draining", "killed", "ended"};

/* Who may come before each state. */
#define AFTER(s) (1u << CHILD_##s)
static const unsigned may_follow[CHILD_STATES] = {
    [CHILD_WAITING] = AFTER(STARTING) | AFTER(READY) | AFTER(KILLED) | AFTER(WAITING),
    [CHILD_STARTING] = AFTER(WAITING),
    [CHILD_READY] = AFTER(STARTING),
    [CHILD_DRAINING] = AFTER(STARTING) | AFTER(READY),
    [CHILD_KILLED] = AFTER(STARTING) | AFTER(READY) | AFTER(DRAINING),
    [CHILD_ENDED] = AFTER(WAITING) | AFTER(STARTING) | AFTER(READY) | AFTER(DRAINING) | AFTER(KILLED),
};

const char *child_state_name(enum child_state s)
{
    return names[s];
}

void child_enter(struct child *c, enum child_state next)
{
    BUG_ON((may_follow[next] & (1u << c->state)) == 0);
    c->state = next;
    c->since_ms = clock_wall_ms();
}

void child_say(const struct child *c, const char *line)
{
    if (c->lifeline >= 0)
        (void)send(c->lifeline, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
}
