/* fork, three pipes, one poll loop. */
#include "cli/tool.h"

#include "cli/files.h"
#include "kit/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOOL_WAIT_MS 20000
#define TOOL_SAID    (16u << 10)

struct tool {
    pid_t pid;
    int in, out, err; /* our ends; -1 closed */
    slice_t input;
    struct buf *want;
    struct buf said; /* standard error */
};

/* A tool dies with us: one that went on after `weft up` was killed would make things behind the
 * back of the `weft down` that follows. */
static void tool_child(const char *const argv[], const int fds[6], pid_t parent)
{
    char path[1024];
    const char *old = getenv("PATH");
    sigset_t none;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(127);
    (void)dup2(fds[0], 0);
    (void)dup2(fds[3], 1);
    (void)dup2(fds[5], 2);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)snprintf(path, sizeof path, "%s%s/usr/sbin:/sbin:/usr/bin:/bin",
                   old != NULL ? old : "", old != NULL && old[0] != '\0' ? ":" : "");
    (void)setenv("PATH", path, 1);
    (void)setenv("LC_ALL", "C", 1);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static void tool_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static err_t tool_spawn(struct tool *t, const char *const argv[], struct trouble *why)
{
    int fds[6] = {-1, -1, -1, -1, -1, -1};
    pid_t parent = getpid();
    bool good = pipe2(fds, O_CLOEXEC) == 0 && pipe2(fds + 2, O_CLOEXEC) == 0 &&
                pipe2(fds + 4, O_CLOEXEC) == 0;

    t->pid = good ? fork() : -1;
    if (t->pid == 0)
        tool_child(argv, fds, parent);
    if (t->pid < 0) {
        err_t e = trouble_errno(why, "cannot start %s", argv[0]);

        for (unsigned i = 0; i < 6; i++)
            tool_close(&fds[i]);
        return e;
    }
    tool_close(&fds[0]);
    tool_close(&fds[3]);
    tool_close(&fds[5]);
    t->in = fds[1];
    t->out = fds[2];
    t->err = fds[4];
    (void)fcntl(t->in, F_SETFL, O_NONBLOCK);
    return OK;
}

static void tool_feed(struct tool *t)
{
    ssize_t n = t->input.n > 0 ? write(t->in, t->input.p, t->input.n) : 0;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    t->input = n < 0 ? slice(NULL, 0) : slice_skip(t->input, (size_t)n);
    if (t->input.n == 0)
        tool_close(&t->in);
}

/* What does not fit is read and forgotten, so that the program can end. */
static void tool_drink(int *fd, struct buf *into)
{
    char chunk[4096];
    ssize_t n = read(*fd, chunk, sizeof chunk);

    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0)
        tool_close(fd);
    else if (into != NULL && buf_add(into, chunk, (size_t)n) != OK)
        return;
}

static bool tool_talk(struct tool *t)
{
    uint64_t end;

    clock_tick();
    end = clock_now_ms() + TOOL_WAIT_MS;
    while (t->out >= 0 || t->err >= 0) {
        struct pollfd p[3] = {{t->in, POLLOUT, 0}, {t->out, POLLIN, 0}, {t->err, POLLIN, 0}};

        clock_tick();
        if (clock_now_ms() >= end)
            return false;
        if (poll(p, 3, (int)(end - clock_now_ms())) < 0 && errno != EINTR)
            return false;
        if (p[0].revents != 0)
            tool_feed(t);
        if (p[1].revents != 0)
            tool_drink(&t->out, t->want);
        if (p[2].revents != 0)
            tool_drink(&t->err, &t->said);
    }
    return true;
}

static slice_t tool_first_line(const struct buf *b)
{
    slice_t all = buf_slice(b);
    const uint8_t *nl = all.n > 0 ? memchr(all.p, '\n', all.n) : NULL;

    return nl != NULL ? slice(all.p, (size_t)(nl - all.p)) : all;
}

err_t tool_run(const char *const argv[], slice_t input, struct buf *out, struct trouble *why)
{
    struct tool t = {.in = -1, .out = -1, .err = -1, .input = input, .want = out};
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    err_t e;
    int status = 0;

    buf_init(&t.said, TOOL_SAID);
    (void)sigaction(SIGPIPE, &ignore, &old);
    e = tool_spawn(&t, argv, why);
    if (e == OK && !tool_talk(&t)) {
        (void)kill(t.pid, SIGKILL);
        e = trouble_set(why, ERR_OF(PROGRAM_FAILED), "%s did not end within %d s", argv[0],
                        TOOL_WAIT_MS / 1000);
    }
    tool_close(&t.in);
    tool_close(&t.out);
    tool_close(&t.err);
    while (t.pid > 0 && waitpid(t.pid, &status, 0) < 0 && errno == EINTR)
        ;
    (void)sigaction(SIGPIPE, &old, NULL);
    if (e == OK && status != 0) {
        slice_t line = tool_first_line(&t.said);

        if (line.n > 400)
            line.n = 400;
        e = trouble_set(why, ERR_OF(PROGRAM_FAILED), "%s: %.*s", argv[0], SLICE_FMT(line));
    }
    buf_done(&t.said);
    return e;
}

err_t tool_own(const char *name, char path[512], struct trouble *why)
{
    const char *set = getenv("WEFT_BIN_DIR");
    char self[400];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash;

    if (set != NULL && set[0] != '\0') {
        if (files_path(path, "%s/%s", set, name) && access(path, X_OK) == 0)
            return OK;
        return trouble_set(why, ERR_OF(OS), "%s is not in WEFT_BIN_DIR (%s)", name, set);
    }
    if (n <= 0)
        return trouble_errno(why, "/proc/self/exe");
    self[n] = '\0';
    slash = strrchr(self, '/');
    if (slash != NULL)
        *slash = '\0';
    if (files_path(path, "%s/%s", self, name) && access(path, X_OK) == 0)
        return OK;
    if (files_path(path, "%s/../libexec/weft/%s", self, name) && access(path, X_OK) == 0)
        return OK;
    return trouble_set(why, ERR_OF(OS), "%s is neither in %s nor in %s/../libexec/weft", name,
                       self, self);
}
