/* The parts of confinement, for confine.c only. */
#ifndef KIT_CONFINE_PRIV_H
#define KIT_CONFINE_PRIV_H

#include "kit/confine.h"

/* Makes the Landlock ruleset of spec. *fd is -1 where the kernel has no Landlock. */
MUST_USE err_t confine_landlock_open(const struct confine_spec *spec, int *fd);

/* Puts the calling thread (all threads where *has_tsync comes back true) under the ruleset. */
MUST_USE err_t confine_landlock_enter(int fd, bool *has_tsync);

/* Loads the filter into all threads. */
MUST_USE err_t confine_seccomp_enter(const struct confine_spec *spec);

#endif
