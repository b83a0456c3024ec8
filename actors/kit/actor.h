/* What makes a process an actor: argv, settings, log, loop, lifeline, confinement, signals, exit.
 *
 * A program supplies hooks named by when they run and gets one struct actor. Run by hand without a
 * supervisor (no WEFT_LIFELINE_FD) an actor works too: ready is a log line, SIGTERM drains.
 */
#ifndef KIT_ACTOR_H
#define KIT_ACTOR_H

#include "kit/confine.h"
#include "kit/err.h"
#include "kit/settings.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct actor;

struct actor_spec {
    const char *name; /* "weft-retry"; kept by reference */
    const char *page; /* one sentence for --help: what the process is for; may be NULL */

    /* Opens sockets and files and builds the state; still unconfined. */
    err_t (*start)(struct actor *a);
    /* Fills in what this process needs; NULL = nothing but memory and mailboxes on ipc. Called after
     * start, before confined. */
    void (*confine)(struct actor *a, struct confine_spec *out);
    /* Confined now. NULL, or the rest of the start; most processes call actor_ready at its end, or
     * later when they can really serve. If this hook is NULL the kit calls actor_ready itself. */
    err_t (*confined)(struct actor *a);
    /* Finish what is running within ms, then call actor_drained. NULL = drained at once. */
    void (*drain)(struct actor *a, uint64_t ms);
    void (*reload)(struct actor *a); /* may be NULL */
    /* A lifeline line the kit does not know (may be NULL). */
    void (*line)(struct actor *a, slice_t line);
    /* The loop has ended: free everything (sanitizers look). May be NULL. */
    void (*stop)(struct actor *a);
};

struct actor {
    const struct actor_spec *spec;
    struct event_base *base;
    struct settings settings;
    void *state;   /* the program's own */
    int argc;      /* what was left of the command line */
    char **argv;
    struct actor_kit *kit; /* private to actor.c */
};

/* Runs the process; returns its exit code: 0 after a drain, 64 bad settings, 1 start failed. */
int actor_run(const struct actor_spec *spec, int argc, char **argv);

/* Says ready (once; later calls do nothing). */
void actor_ready(struct actor *a);
/* Ends the loop; exit code 0. */
void actor_drained(struct actor *a);
/* Ends the loop with this exit code (for errors after start). */
void actor_fail(struct actor *a, int code);
/* A "note KEY VALUE" for the status file. */
void actor_note(struct actor *a, const char *key, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* An inherited descriptor by name, from WEFT_FDS ("outbound=3,inbound=4,vault=9"). -1 if absent. The
 * name may repeat ("outbound" for IPv4 and IPv6): `nth` counts from 0. */
int actor_fd(const struct actor *a, const char *name, unsigned nth);

/* "RUN_DIR/NAME.sock" as "ipc://..." into out[]; BAD_SETTING if longer than a socket path may be. */
MUST_USE err_t actor_ipc(const struct actor *a, const char *name, char out[128]);

#endif
