#include "supervisor/spawn.h"

#include "kit/lifeline.h"
#include "kit/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

extern char **environ;

static bool keep_over_exec(int fd)
{
    return fcntl(fd, F_SETFD, 0) == 0;
}

/* In the child, between fork and exec: system calls only. Returns what failed. */
static const char *become(pid_t parent, int lifeline, const struct heir *const *heirs, unsigned n)
{
    static const int handled[] = {SIGPIPE, SIGCHLD, SIGTERM, SIGINT, SIGHUP};
    sigset_t none;
    int null = open("/dev/null", O_RDONLY);

    (void)setpgid(0, 0); /* a Ctrl-C on the terminal is the supervisor's business */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return "prctl";
    if (getppid() != parent) /* it died between the fork and the line above */
        return "parent";
    /* Our handlers write to a socket that is still the supervisor's: away with them before a signal can
     * come through. */
    for (unsigned i = 0; i < sizeof(handled) / sizeof(handled[0]); i++)
        (void)signal(handled[i], SIG_DFL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        return "stdin";
    /* What we were given by our own parent, and did not mark, goes no further either. */
    if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0 && errno != ENOSYS && errno != EINVAL)
        return "close_range";
    if (!keep_over_exec(lifeline))
        return "lifeline";
    for (unsigned i = 0; i < n; i++)
        if (!keep_over_exec(heirs[i]->fd))
            return "heritage";
    return NULL;
}

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return; /* nowhere to say it */
}

NORETURN static void run_child(const struct spawn_ask *ask, pid_t parent, int lifeline,
                               const struct heir *const *heirs, unsigned n, char **env)
{
    char name[64];
    char *argv[] = {name, NULL};
    const char *step;

    (void)slice_to_cstr(slice_str(ask->name), name, sizeof(name));
    step = become(parent, lifeline, heirs, n);
    if (step == NULL) {
        (void)execveat(ask->bin_fd, name, argv, env, 0);
        step = "execveat";
    }
    say("weft-supervisor: cannot run ");
    say(ask->name);
    say(": ");
    say(step);
    say("\n");
    _exit(127);
}

err_t spawn_child(const struct spawn_ask *ask, pid_t *pid, int *lifeline)
{
    const struct heir *heirs[HERITAGE_MAX];
    struct env_told told = {.worker = ask->worker, .incarnation = ask->incarnation};
    struct arena arena;
    pid_t parent = getpid(), child = -1;
    sigset_t all, before;
    int pair[2];
    char **env;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        return ERR_OF(OS);
    arena_init(&arena, 0);
    told.lifeline = pair[1];
    told.heirs = heirs;
    told.n_heirs = heritage_for(ask->heritage, ask->row, ask->worker, heirs);
    env = env_build(&arena, environ, ask->test_preload, &told);
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &before);
    if (env != NULL)
        child = fork();
    if (child == 0)
        run_child(ask, parent, pair[1], heirs, told.n_heirs, env);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    arena_done(&arena);
    (void)close(pair[1]);
    if (child < 0) {
        log_error("process not started", "name=%s errno=%s", ask->name, strerror(errno));
        (void)close(pair[0]);
        return ERR_OF(OS);
    }
    (void)setpgid(child, child); /* both sides do it: whoever is first */
    *pid = child;
    *lifeline = pair[0];
    return OK;
}
