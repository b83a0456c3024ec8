/* One child: start, lifeline, silence, exit, and the next start. */
#include "supervisor/spawn.h"
#include "supervisor/super_priv.h"

#include "kit/clock.h"
#include "kit/lifeline.h"
#include "kit/log.h"
#include "kit/random.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_again(void *arg)
{
    watch_start(arg);
}

void watch_init(struct super *s, struct child *c, const struct process_row *row, int worker, bool is_one)
{
    *c = (struct child){.super = s,
                        .row = row,
                        .worker = worker,
                        .state = CHILD_WAITING,
                        .lifeline = -1,
                        .since_ms = clock_wall_ms(),
                        .ready_ms = -1};
    if (is_one)
        (void)snprintf(c->name, sizeof(c->name), "%s", row->name);
    else
        (void)snprintf(c->name, sizeof(c->name), "%s.%d", row->name, worker);
    timer_init(&c->again, s->base, on_again, c);
}

static void close_lifeline(struct child *c)
{
    if (c->on_lifeline != NULL)
        event_free(c->on_lifeline);
    if (c->lifeline >= 0)
        (void)close(c->lifeline);
    c->on_lifeline = NULL;
    c->lifeline = -1;
}

void watch_done(struct child *c)
{
    timer_stop(&c->again);
    close_lifeline(c);
}

/* ---- what a child says ---- */

static void on_ready(struct child *c)
{
    uint64_t now_us = clock_read_us();
    char text[24];

    if (c->state != CHILD_STARTING)
        return;
    c->ready_ms = (int64_t)((now_us - c->spawned_us) / 1000);
    c->was_ready = true;
    child_enter(c, CHILD_READY);
    if (c->died_us != 0) {
        uint64_t restart_ms = (now_us - c->died_us) / 1000;

        (void)snprintf(text, sizeof(text), "%" PRIu64, restart_ms);
        (void)notes_set(&c->notes, SLICE_LIT("restart_ms"), slice_str(text));
        log_info("process ready again", "name=%s pid=%d restarts=%u restart_ms=%" PRIu64, c->name,
                 (int)c->pid, c->starts - 1, restart_ms);
    } else {
        log_info("process ready", "name=%s pid=%d ms=%" PRId64, c->name, (int)c->pid, c->ready_ms);
    }
    super_changed(c->super, c);
    super_tell_others(c->super, c);
}

static void on_note(struct child *c, slice_t rest)
{
    const uint8_t *blank = rest.n != 0 ? memchr(rest.p, ' ', rest.n) : NULL;
    slice_t key = slice(rest.p, blank != NULL ? (size_t)(blank - rest.p) : rest.n);

    if (notes_set(&c->notes, key, slice_skip(rest, key.n + 1)))
        super_note_changed(c->super);
}

static void on_line(struct child *c, slice_t line)
{
    c->heard_us = clock_read_us();
    if (slice_is_str(line, "alive"))
        return;
    if (slice_is_str(line, "ready"))
        on_ready(c);
    else if (slice_is_str(line, "drained"))
        timer_once(&c->again, DRAINED_MS); /* it exits by itself, and soon */
    else if (slice_starts(line, SLICE_LIT("note ")))
        on_note(c, slice_skip(line, 5));
    else
        log_warn("lifeline line not understood", "name=%s bytes=%zu", c->name, line.n);
}

static void on_lifeline(evutil_socket_t fd, short what, void *arg)
{
    struct child *c = arg;
    char line[LIFELINE_MAX];

    (void)what;
    for (unsigned i = 0; i < 64; i++) {
        ssize_t n = recv(fd, line, sizeof(line), MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) { /* it is dying, or closed it: SIGCHLD tells, or the silence */
            (void)event_del(c->on_lifeline);
            return;
        }
        on_line(c, slice(line, (size_t)n));
    }
}

/* ---- start ---- */

static err_t spawn(struct child *c)
{
    struct super *s = c->super;
    struct spawn_ask ask = {.bin_fd = s->bin_fd,
                            .name = c->row->name,
                            .row = c->row,
                            .heritage = &s->heritage,
                            .worker = c->worker,
                            .incarnation = s->incarnation,
                            .test_preload = s->settings.test_preload};
    pid_t pid;
    int lifeline;

    TRY(spawn_child(&ask, &pid, &lifeline));
    c->pid = pid;
    c->lifeline = lifeline;
    c->on_lifeline = event_new(s->base, lifeline, EV_READ | EV_PERSIST, on_lifeline, c);
    BUG_ON(c->on_lifeline == NULL || event_add(c->on_lifeline, NULL) != 0);
    return OK;
}

void watch_start(struct child *c)
{
    if (c->state == CHILD_DRAINING) { /* the same timer: it said "drained" and did not go */
        watch_kill(c, "drained and still there");
        return;
    }
    if (c->state != CHILD_WAITING || c->is_to_end)
        return;
    c->spawned_us = c->heard_us = clock_read_us();
    c->starts++;
    c->notes.n = 0; /* they were its predecessor's */
    if (spawn(c) != OK) {
        timer_once(&c->again, backoff_next(&c->backoff, 0, random_unit()));
        return;
    }
    child_enter(c, CHILD_STARTING);
    super_changed(c->super, c);
}

/* ---- end ---- */

void watch_kill(struct child *c, const char *why)
{
    if (!child_has_process(c) || c->state == CHILD_KILLED)
        return;
    log_warn("process killed", "name=%s pid=%d state=%s why=\"%s\"", c->name, (int)c->pid,
             child_state_name(c->state), why);
    (void)kill(-c->pid, SIGKILL); /* the group: what it may have started goes too */
    child_enter(c, CHILD_KILLED);
    super_changed(c->super, c);
}

void watch_drain(struct child *c, uint64_t ms)
{
    char line[LIFELINE_MAX];

    c->is_to_end = true;
    if (c->state == CHILD_WAITING) {
        timer_stop(&c->again);
        child_enter(c, CHILD_ENDED);
    } else if (c->state == CHILD_STARTING || c->state == CHILD_READY) {
        (void)snprintf(line, sizeof(line), "drain %" PRIu64, ms);
        child_say(c, line);
        child_enter(c, CHILD_DRAINING);
    } else {
        return;
    }
    super_changed(c->super, c);
}

static void log_exit(const struct child *c, int status, uint64_t lived_ms)
{
    enum log_level level = c->state == CHILD_DRAINING && status == 0 ? LOG_LEVEL_INFO : LOG_LEVEL_WARN;

    if (WIFSIGNALED(status))
        log_line(level, "process ended", "name=%s pid=%d state=%s signal=%d lived_ms=%" PRIu64, c->name,
                 (int)c->pid, child_state_name(c->state), WTERMSIG(status), lived_ms);
    else
        log_line(level, "process ended", "name=%s pid=%d state=%s code=%d lived_ms=%" PRIu64, c->name,
                 (int)c->pid, child_state_name(c->state), WEXITSTATUS(status), lived_ms);
}

void watch_exited(struct child *c, int status)
{
    uint64_t now_us = clock_read_us();
    uint64_t lived_ms = (now_us - c->spawned_us) / 1000, wait_ms;

    log_exit(c, status, lived_ms);
    (void)kill(-c->pid, SIGKILL); /* what is left of its group */
    c->pid = 0;
    close_lifeline(c);
    timer_stop(&c->again);
    if (c->is_to_end) {
        child_enter(c, CHILD_ENDED);
        super_changed(c->super, c);
        return;
    }
    c->died_us = now_us;
    child_enter(c, CHILD_WAITING);
    wait_ms = backoff_next(&c->backoff, lived_ms, random_unit());
    super_changed(c->super, c);
    if (wait_ms == 0) {
        watch_start(c);
        return;
    }
    log_info("process waits for its next start", "name=%s ms=%" PRIu64, c->name, wait_ms);
    timer_once(&c->again, wait_ms);
}

void watch_silence(struct child *c)
{
    if (child_has_process(c) && c->state != CHILD_KILLED &&
        clock_read_us() - c->heard_us > LIFELINE_LOST_MS * UINT64_C(1000))
        watch_kill(c, "silent");
}
