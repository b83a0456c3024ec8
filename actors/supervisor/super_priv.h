/* Shared by super.c (start, signals, drain) and watch.c (one child's life). */
#ifndef SUPERVISOR_SUPER_PRIV_H
#define SUPERVISOR_SUPER_PRIV_H

#include "supervisor/child.h"
#include "supervisor/heritage.h"

#include "kit/settings.h"

#define CHILDREN_MAX   80
#define STAGE_WAIT_MS  5000 /* a stage that is not ready by then does not hold up the next */
#define DRAINED_MS     2000 /* from a child's "drained" to its exit */
#define WATCH_EVERY_MS 2000

/* STARTING: stages are being started. RUNNING: all are, and each child was ready once. DRAINING: stages
 * are being drained, no way back. */
enum super_phase { SUPER_STARTING, SUPER_RUNNING, SUPER_DRAINING };

struct super {
    enum super_phase phase;
    enum table_kind kind;
    struct settings settings;
    struct event_base *base;
    struct heritage heritage;
    char bin_dir[192]; /* for messages */
    int bin_fd;        /* the same directory */
    int lock;
    uint64_t incarnation;
    unsigned n;
    struct child children[CHILDREN_MAX];
    unsigned start_stage; /* children of stages up to this may run */
    unsigned drain_stage; /* in DRAINING: stages up to this have been told */
    uint64_t drain_end_us;
    uint64_t started_us, since_ms;
    int64_t ready_ms;
    struct timer stage_wait, watch, status, deadline;
    struct event *on_signal[4];
    bool is_done;
};

/* super.c */
void super_changed(struct super *s, const struct child *c); /* a child's state changed */
void super_note_changed(struct super *s);
void super_tell_others(struct super *s, const struct child *c); /* c has just become ready */

/* watch.c */
void watch_init(struct super *s, struct child *c, const struct process_row *row, int worker, bool is_one);
void watch_start(struct child *c);                /* WAITING -> STARTING */
void watch_drain(struct child *c, uint64_t ms);   /* -> DRAINING, or ENDED if there is no process */
void watch_kill(struct child *c, const char *why); /* -> KILLED */
void watch_exited(struct child *c, int status);   /* waitpid saw it go */
void watch_silence(struct child *c);              /* kills it if nothing was heard for too long */
void watch_done(struct child *c);

#endif
