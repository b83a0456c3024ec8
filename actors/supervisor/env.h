/* The environment of a child: what it may know of ours, and what we tell it. */
#ifndef SUPERVISOR_ENV_H
#define SUPERVISOR_ENV_H

#include "supervisor/heritage.h"

#include "kit/arena.h"

/* Told to each child beside the passed-on variables:
 *   WEFT_LIFELINE_FD  see kit/lifeline.h
 *   WEFT_FDS          "outbound=5,outbound=6,series=9": what it inherited
 *   WEFT_WORKER       its index among its equals, from 0
 *   WEFT_INCARNATION  a random number of this start of the pod, decimal */
struct env_told {
    int lifeline;
    const struct heir *const *heirs;
    unsigned n_heirs;
    int worker;
    uint64_t incarnation;
};

/* Whether NAME=VALUE of our environment goes to children: WEFT_* (but not what is told above), PATH,
 * LANG, TZ; for tests LD_PRELOAD and FAKETIME*; in sanitizer builds their options. */
bool env_is_passed(const char *item, bool test_preload);

/* The NULL-terminated environment, all of it in `a`; NULL without memory. */
MUST_USE char **env_build(struct arena *a, char *const *ours, bool test_preload,
                          const struct env_told *told);

#endif
