/* Start, signals, stages and the end. See child.h for a child's states, super_priv.h for our own. */
#include "supervisor/super.h"

#include "supervisor/cpus.h"
#include "supervisor/super_priv.h"

#include "kit/clock.h"
#include "kit/confine.h"
#include "kit/lifeline.h"
#include "kit/log.h"
#include "kit/random.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_SETTING 64
#define NOTE_WAIT_MS 200 /* notes may be many; the file is written once for all of them */

/* ---- the status file and what others are told ---- */

static const char *phase_name(enum super_phase p)
{
    static const char *const names[] = {"starting", "ready", "draining"};

    return names[p];
}

static err_t print_status(struct super *s, struct buf *out)
{
    struct notes own = {.n = 0};
    char text[32];

    (void)notes_set(&own, SLICE_LIT("kind"), slice_str(table_kind_name(s->kind)));
    (void)snprintf(text, sizeof(text), "%" PRIu64, s->incarnation);
    (void)notes_set(&own, SLICE_LIT("incarnation"), slice_str(text));
    TRY(status_print_head(out));
    TRY(status_print_row(out, &(struct status_row){.name = "weft-supervisor",
                                                   .pid = getpid(),
                                                   .state = phase_name(s->phase),
                                                   .since_ms = s->since_ms,
                                                   .ready_ms = s->ready_ms,
                                                   .notes = &own}));
    for (unsigned i = 0; i < s->n; i++) {
        const struct child *c = &s->children[i];

        TRY(status_print_row(out, &(struct status_row){.name = c->name,
                                                       .pid = c->pid,
                                                       .state = child_state_name(c->state),
                                                       .restarts = c->starts > 1 ? c->starts - 1 : 0,
                                                       .since_ms = c->since_ms,
                                                       .ready_ms = c->ready_ms,
                                                       .notes = &c->notes}));
    }
    return OK;
}

static void status_path(const struct super *s, char out[128])
{
    (void)snprintf(out, 128, "%s/status", s->settings.run_dir);
}

static void on_status(void *arg)
{
    struct super *s = arg;
    char path[128];
    struct buf text;

    status_path(s, path);
    buf_init(&text, 1 << 20);
    if (print_status(s, &text) == OK && status_write(path, buf_slice(&text)) != OK)
        timer_once(&s->status, 1000); /* logged there; a full disk may get better */
    buf_done(&text);
}

static void process_line(const struct child *c, char line[LIFELINE_MAX])
{
    (void)snprintf(line, LIFELINE_MAX, "process %s %d %u %s", c->name, (int)c->pid,
                   c->starts > 1 ? c->starts - 1 : 0, child_state_name(c->state));
}

void super_tell_others(struct super *s, const struct child *c)
{
    char line[LIFELINE_MAX];

    if (!c->row->hears_others)
        return;
    for (unsigned i = 0; i < s->n; i++) {
        process_line(&s->children[i], line);
        child_say(c, line);
    }
}

void super_note_changed(struct super *s)
{
    if (!timer_is_armed(&s->status))
        timer_once(&s->status, NOTE_WAIT_MS);
}

static void enter(struct super *s, enum super_phase next)
{
    BUG_ON(next <= s->phase && s->phase != SUPER_STARTING);
    s->phase = next;
    s->since_ms = clock_wall_ms();
    timer_once(&s->status, 0);
}

/* ---- stages ---- */

static bool stage_was_ready(const struct super *s, unsigned stage)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->children[i].row->start_stage <= stage && !s->children[i].was_ready)
            return false;
    return true;
}

static unsigned last_start_stage(const struct super *s)
{
    unsigned last = 0;

    for (unsigned i = 0; i < s->n; i++)
        if (s->children[i].row->start_stage > last)
            last = s->children[i].row->start_stage;
    return last;
}

static void start_stage(struct super *s, unsigned stage)
{
    s->start_stage = stage;
    timer_once(&s->stage_wait, STAGE_WAIT_MS);
    for (unsigned i = 0; i < s->n; i++)
        if (s->children[i].row->start_stage == stage)
            watch_start(&s->children[i]);
}

static void advance_start(struct super *s)
{
    if (s->phase != SUPER_STARTING || !stage_was_ready(s, s->start_stage))
        return;
    if (s->start_stage < last_start_stage(s)) {
        start_stage(s, s->start_stage + 1);
        return;
    }
    timer_stop(&s->stage_wait);
    s->ready_ms = (int64_t)((clock_read_us() - s->started_us) / 1000);
    enter(s, SUPER_RUNNING);
    log_info("all processes ready", "kind=%s processes=%u ms=%" PRId64, table_kind_name(s->kind), s->n,
             s->ready_ms);
}

/* A process that does not get ready must not keep the pod from serving with the others. */
static void on_stage_wait(void *arg)
{
    struct super *s = arg;

    if (s->phase != SUPER_STARTING || s->start_stage >= last_start_stage(s))
        return;
    log_warn("stage not ready, going on", "stage=%u ms=%d", s->start_stage, STAGE_WAIT_MS);
    start_stage(s, s->start_stage + 1);
}

/* ---- drain ---- */

static uint64_t drain_left_ms(const struct super *s)
{
    uint64_t now = clock_read_us();

    return now < s->drain_end_us ? (s->drain_end_us - now) / 1000 : 0;
}

static void drain_stage(struct super *s, unsigned stage)
{
    s->drain_stage = stage;
    for (unsigned i = 0; i < s->n; i++)
        if (s->children[i].row->drain_stage == stage)
            watch_drain(&s->children[i], drain_left_ms(s));
}

static void advance_drain(struct super *s)
{
    unsigned left = 0;

    for (unsigned i = 0; i < s->n; i++) {
        if (s->children[i].state == CHILD_ENDED)
            continue;
        left++;
        if (s->children[i].row->drain_stage <= s->drain_stage)
            return; /* this stage is not over */
    }
    if (left != 0) {
        drain_stage(s, s->drain_stage + 1); /* comes back here by super_changed */
        return;
    }
    s->is_done = true;
    (void)event_base_loopbreak(s->base);
}

static void kill_all(struct super *s, const char *why)
{
    s->drain_end_us = 0;
    for (unsigned i = 0; i < s->n; i++) {
        struct child *c = &s->children[i];

        c->is_to_end = true;
        if (c->state == CHILD_WAITING)
            watch_drain(c, 0);
        else
            watch_kill(c, why);
    }
}

static void on_deadline(void *arg)
{
    kill_all(arg, "drain timeout");
}

static void begin_drain(struct super *s)
{
    uint64_t ms = s->settings.drain_timeout;

    log_info("draining", "ms=%" PRIu64, ms);
    s->drain_end_us = clock_read_us() + ms * 1000;
    timer_stop(&s->stage_wait);
    timer_once(&s->deadline, ms);
    enter(s, SUPER_DRAINING);
    drain_stage(s, 0);
    advance_drain(s);
}

void super_changed(struct super *s, const struct child *c)
{
    char line[LIFELINE_MAX];

    process_line(c, line);
    for (unsigned i = 0; i < s->n; i++)
        if (s->children[i].row->hears_others && s->children[i].state == CHILD_READY)
            child_say(&s->children[i], line);
    timer_once(&s->status, 0);
    if (s->phase == SUPER_STARTING && c->state == CHILD_READY)
        advance_start(s);
    else if (s->phase == SUPER_DRAINING && c->state == CHILD_ENDED)
        advance_drain(s);
}

/* ---- signals and time ---- */

static struct child *find_child(struct super *s, pid_t pid)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->children[i].pid == pid)
            return &s->children[i];
    return NULL;
}

static void reap(struct super *s)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct child *c = find_child(s, pid);

        if (c != NULL)
            watch_exited(c, status);
        else /* as PID 1 we inherit the orphans of others */
            log_debug("stranger reaped", "pid=%d", (int)pid);
    }
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    struct super *s = arg;

    (void)what;
    if (sig == SIGCHLD) {
        reap(s);
    } else if (sig == SIGHUP) {
        log_info("reload", "processes=%u", s->n);
        for (unsigned i = 0; i < s->n; i++)
            child_say(&s->children[i], "reload");
    } else if (s->phase == SUPER_DRAINING) {
        kill_all(s, "second signal");
    } else {
        begin_drain(s);
    }
}

static void on_watch(void *arg)
{
    struct super *s = arg;

    for (unsigned i = 0; i < s->n; i++)
        watch_silence(&s->children[i]);
    log_flush();
}

static err_t watch_signals(struct super *s)
{
    static const int signals[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP};

    (void)signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < 4; i++) {
        s->on_signal[i] = evsignal_new(s->base, signals[i], on_signal, s);
        if (s->on_signal[i] == NULL || event_add(s->on_signal[i], NULL) != 0)
            return ERR_OF(NOMEM);
    }
    return OK;
}

/* ---- start ---- */

static err_t failed(const char *call, const char *on)
{
    log_error("start failed", "call=%s on=%s errno=%s", call, on, strerror(errno));
    return ERR_OF(OS);
}

/* Makes the directory and its parents; the last one is ours alone, and the children's. */
static err_t make_dir(const struct super *s, const char *path)
{
    char part[128];
    struct stat st;
    size_t n = strlen(path);

    for (size_t i = 1; i <= n && n < sizeof(part); i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, i == n ? 0700 : 0755) != 0 && errno != EEXIST)
            return failed("mkdir", part);
    }
    if (lstat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return failed("lstat", path);
    }
    if (geteuid() == 0 && chown(path, s->settings.uid != 0 ? s->settings.uid : (uid_t)-1,
                                s->settings.gid != 0 ? s->settings.gid : (gid_t)-1) != 0)
        return failed("chown", path);
    /* Who made it may have let others pass through (x): the state directory of an embedded control plane
     * holds the pods' too. Nobody else may list or write it. */
    if (chmod(path, 0700 | (st.st_mode & 0011)) != 0)
        return failed("chmod", path);
    return OK;
}

static err_t lock_run_dir(struct super *s)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/lock", s->settings.run_dir);
    s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock < 0)
        return failed("open", path);
    if (flock(s->lock, LOCK_EX | LOCK_NB) != 0) {
        log_error("start failed", "another supervisor holds %s", path);
        (void)close(s->lock);
        s->lock = -1; /* what is in the directory is the other's */
        return ERR_OF(OS);
    }
    return OK;
}

static err_t name_bin_dir(struct super *s)
{
    ssize_t n;
    char *slash;

    if (s->settings.bin_dir[0] != '\0') {
        if (slice_to_cstr(slice_str(s->settings.bin_dir), s->bin_dir, sizeof(s->bin_dir)))
            return OK;
        errno = ENAMETOOLONG;
        return failed("bin_dir", s->settings.bin_dir);
    }
    n = readlink("/proc/self/exe", s->bin_dir, sizeof(s->bin_dir) - 1);
    if (n <= 0)
        return failed("readlink", "/proc/self/exe");
    s->bin_dir[n] = '\0';
    slash = strrchr(s->bin_dir, '/');
    if (slash != NULL)
        *slash = '\0';
    return OK;
}

/* Children are run relative to a descriptor of the directory: who started us as another user opened it for us
 * (WEFT_FDS=bin=N), since that user need not be able to walk there (a build below /root). */
static err_t find_bin_dir(struct super *s)
{
    const char *fds = getenv("WEFT_FDS");
    struct stat st;

    TRY(name_bin_dir(s));
    if (fds == NULL || sscanf(fds, "bin=%d", &s->bin_fd) != 1 || fstat(s->bin_fd, &st) != 0 ||
        !S_ISDIR(st.st_mode))
        s->bin_fd = open(s->bin_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (s->bin_fd < 0)
        return failed("open", s->bin_dir);
    (void)fcntl(s->bin_fd, F_SETFD, FD_CLOEXEC);
    return OK;
}

/* What cannot be run is found out now, by name, and not by a restart loop. */
static err_t check_executables(struct super *s)
{
    for (unsigned i = 0; i < s->n; i++)
        if (faccessat(s->bin_fd, s->children[i].row->name, X_OK, AT_EACCESS) != 0) {
            char path[256];

            (void)snprintf(path, sizeof(path), "%s/%s", s->bin_dir, s->children[i].row->name);
            return failed("access", path);
        }
    return OK;
}

static err_t change_user(const struct super *s)
{
    if (s->settings.gid != 0 &&
        (setgroups(0, NULL) != 0 || setresgid(s->settings.gid, s->settings.gid, s->settings.gid) != 0))
        return failed("setresgid", "WEFT_GID");
    if (s->settings.uid != 0 && s->settings.uid != geteuid() &&
        setresuid(s->settings.uid, s->settings.uid, s->settings.uid) != 0)
        return failed("setresuid", "WEFT_UID");
    return OK;
}

/* 0 is "as many as there are processors for": found out once, and told to the children as the number. */
static err_t count_workers(struct super *s)
{
    unsigned n = s->settings.workers;
    char text[16];

    if (n == 0) {
        n = cpus_allowed("");
        s->settings.workers = n < SETTINGS_WORKERS_MAX ? n : SETTINGS_WORKERS_MAX;
        log_info("workers by processors", "processors=%u workers=%u", n, s->settings.workers);
    }
    (void)snprintf(text, sizeof(text), "%u", s->settings.workers);
    return setenv("WEFT_WORKERS", text, 1) == 0 ? OK : ERR_OF(NOMEM);
}

static void list_children(struct super *s)
{
    for (unsigned i = 0; i < process_rows_n; i++) {
        const struct process_row *row = &process_rows[i];
        unsigned count = row->is_worker ? s->settings.workers : 1;

        if (row->kind != s->kind)
            continue;
        for (unsigned w = 0; w < count; w++) {
            BUG_ON(s->n == CHILDREN_MAX);
            watch_init(s, &s->children[s->n++], row, (int)w, !row->is_worker);
        }
    }
}

static err_t start(struct super *s)
{
    struct confine_spec confine = {.needs = CONFINE_SPAWN};

    s->started_us = clock_read_us();
    s->since_ms = clock_wall_ms();
    s->ready_ms = -1;
    s->incarnation = random_u64();
    TRY(count_workers(s));
    list_children(s);
    TRY(find_bin_dir(s));
    TRY(check_executables(s));
    TRY(make_dir(s, s->settings.run_dir));
    TRY(make_dir(s, s->settings.state_dir));
    TRY(lock_run_dir(s));
    TRY(heritage_open(&s->heritage, s->kind, &s->settings));
    TRY(change_user(s));
    if (s->settings.confine)
        TRY(confine_enter(&confine));
    TRY(watch_signals(s));
    timer_every(&s->watch, WATCH_EVERY_MS);
    start_stage(s, 0);
    return OK;
}

static void run_loop(struct super *s)
{
    while (!s->is_done) {
        clock_turn();
        BUG_ON(event_base_loop(s->base, EVLOOP_ONCE) != 0);
    }
}

static void stop(struct super *s)
{
    char path[128];

    for (unsigned i = 0; i < s->n; i++)
        watch_done(&s->children[i]);
    timer_stop(&s->watch);
    timer_stop(&s->status);
    timer_stop(&s->deadline);
    timer_stop(&s->stage_wait);
    for (unsigned i = 0; i < 4; i++)
        if (s->on_signal[i] != NULL)
            event_free(s->on_signal[i]);
    heritage_done(&s->heritage);
    status_path(s, path);
    if (s->lock >= 0) { /* the run directory is ours */
        (void)unlink(path);
        (void)close(s->lock);
    }
    event_base_free(s->base);
}

static int usage(FILE *to, int code)
{
    (void)fprintf(to, "weft-supervisor %s: starts, watches and restarts the processes of a pod or of a "
                      "control plane\nusage: weft-supervisor pod|control|--help|--settings\n",
                  WEFT_VERSION);
    return code;
}

static int print_settings(void)
{
    struct settings s;
    char why[200];

    if (settings_load(&s, why) != OK) {
        (void)fprintf(stderr, "%s\n", why);
        return EXIT_SETTING;
    }
    settings_print(&s, stdout);
    return 0;
}

int supervisor_main(int argc, char **argv)
{
    static struct super s; /* one process, one supervisor; too large for a stack */
    char why[200];
    err_t err;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, 0);
    if (argc == 2 && strcmp(argv[1], "--settings") == 0)
        return print_settings();
    if (argc != 2 || !table_parse_kind(argv[1], &s.kind))
        return usage(stderr, EXIT_SETTING);
    log_init("weft-supervisor");
    s.lock = -1;
    if (settings_load(&s.settings, why) != OK) {
        log_error("bad setting", "%s", why);
        return EXIT_SETTING;
    }
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    s.base = event_base_new();
    if (s.base == NULL)
        return 1;
    timer_init(&s.stage_wait, s.base, on_stage_wait, &s);
    timer_init(&s.watch, s.base, on_watch, &s);
    timer_init(&s.status, s.base, on_status, &s);
    timer_init(&s.deadline, s.base, on_deadline, &s);
    err = start(&s);
    if (err == OK)
        run_loop(&s);
    stop(&s);
    log_flush();
    return err == OK ? 0 : 1;
}
