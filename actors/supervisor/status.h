/* RUN_DIR/status: what runs here, as text for people and for `weft check`.
 *
 *   name pid state restarts since_ms ready_ms notes
 *   weft-supervisor 4711 ready 0 1763878364101 52 kind=pod incarnation=1234
 *   weft-tls 4712 ready 1 1763878364150 9 restart_ms=14 certificate=2026-11-24T06:00:00Z
 *   weft-proxy.0 4716 starting 0 1763878364160 -
 *
 * One line per process, fields split by one space. The first line names the fields.
 *   pid       0 when there is no process
 *   state     waiting | starting | ready | draining | killed | ended (children);
 *             starting | ready | draining (weft-supervisor: ready when every child has been ready)
 *   restarts  starts after the first one
 *   since_ms  wall time (ms since 1970) at which it entered the state
 *   ready_ms  time from its start to its "ready", of the latest start that got there; - if none
 *   notes     KEY=VALUE..., what the process said of itself by "note"; restart_ms is the supervisor's own:
 *             time from the death of the process to its successor's "ready"
 * The file is replaced by rename, so a reader sees a whole one. It is removed at the end; if it is there
 * and the supervisor's pid is not, the supervisor was killed.
 */
#ifndef SUPERVISOR_STATUS_H
#define SUPERVISOR_STATUS_H

#include "kit/buf.h"
#include "kit/err.h"

#include <stdint.h>
#include <sys/types.h>

#define NOTES_MAX       8
#define NOTE_KEY_BYTES  25
#define NOTE_TEXT_BYTES 161

struct note {
    char key[NOTE_KEY_BYTES];
    char text[NOTE_TEXT_BYTES];
};

struct notes {
    unsigned n;
    struct note list[NOTES_MAX];
};

struct status_row {
    const char *name;
    pid_t pid;
    const char *state;
    unsigned restarts;
    uint64_t since_ms;
    int64_t ready_ms; /* below 0 = none */
    const struct notes *notes;
};

/* Keeps KEY VALUE, replacing an older value. True if that changed something. Keys are of a-z 0-9 _ - (at
 * most 24), values are cut at 160 bytes, blanks and control characters become "_"; a bad key or a ninth
 * one is refused. */
bool notes_set(struct notes *n, slice_t key, slice_t value);

MUST_USE err_t status_print_head(struct buf *out);
MUST_USE err_t status_print_row(struct buf *out, const struct status_row *row);

/* Replaces the file. Logs what failed. */
MUST_USE err_t status_write(const char *path, slice_t text);

#endif
