/* What telemetry knows of the pod besides its series: states that the processes report, the
 * process table that the supervisor reports, and whether the pod is ready. */
#ifndef TELEMETRY_STATUS_H
#define TELEMETRY_STATUS_H

#include "kit/buf.h"
#include "kit/err.h"
#include "kit/slice.h"
#include "wire/wire.h"

#include <stdbool.h>
#include <stdint.h>

#define STATUS_KEYS_MAX      32u
#define STATUS_PROCESSES_MAX 32u

/* Keys of `state` messages that telemetry acts on; others are kept and shown. */
#define STATE_CERTIFICATE "certificate" /* value: its end, wall ms */
#define STATE_BROKER      "broker"      /* the session with the broker is open */
#define STATE_SNAPSHOT    "snapshot"    /* the link serves from its snapshot */
#define STATE_PROXY       "proxy"       /* the proxy accepts connections */

struct status_state {
    char key[49];
    char text[257];
    bool is_good;
    int64_t value;
};

struct status_process {
    char name[33];
    char state[17];
    uint32_t pid;
    uint32_t restarts;
    /* filled in by usage.c */
    uint64_t rss_kib, cpu_ms;
};

struct status {
    struct status_state states[STATUS_KEYS_MAX];
    unsigned n_states;
    struct status_process processes[STATUS_PROCESSES_MAX];
    unsigned n_processes;
    uint64_t refused; /* states and lines that were not understood, or one too many */
};

void status_take_state(struct status *s, const struct wire_state *msg);

/* A lifeline line "process NAME PID RESTARTS STATE". False: it is not one. *has_restarted: the
 * process has been started again since its last line (or, with no line before: it is `self`,
 * which learns of its own restarts that way); *name is its name then. */
bool status_take_line(struct status *s, slice_t line, const char *self, bool *has_restarted,
                      const char **name);

const struct status_state *status_find(const struct status *s, const char *key);
bool status_is_good(const struct status *s, const char *key);

/* Whether the pod can take traffic; appends one line per missing thing to `why` (or NULL). */
bool status_is_ready(const struct status *s, struct buf *why);

uint32_t status_restarts(const struct status *s); /* of all processes together */

#endif
