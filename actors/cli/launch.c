/* fork, the steps of the child in order, exec; a pipe tells which step failed. */
#include "cli/launch.h"

#include "cli/files.h"
#include "cli/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define LAUNCH_BIN_FD 100 /* far above what is open; see launch_fds */

extern char **environ;

err_t launch_env(struct launch *l, struct trouble *why, const char *name, const char *fmt, ...)
{
    char *at = l->env[l->n_env];
    size_t cap = sizeof l->env[0];
    int head, n;
    va_list ap;

    if (l->n_env == LAUNCH_ENV_MAX)
        return trouble_set(why, ERR_OF(TOO_BIG), "too many settings");
    head = snprintf(at, cap, "%s=", name);
    va_start(ap, fmt);
    n = vsnprintf(at + head, cap - (size_t)head, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)head + (size_t)n >= cap)
        return trouble_set(why, ERR_OF(TOO_BIG), "%s is too long", name);
    l->n_env++;
    return OK;
}

/* Another clock for a pod, in tests (the supervisor asks the same question again). */
static bool launch_is_for_tests(const char *pair)
{
    const char *wish = getenv("WEFT_TEST_PRELOAD");

    return wish != NULL && strcmp(wish, "true") == 0 &&
           (strncmp(pair, "LD_PRELOAD=", 11) == 0 || strncmp(pair, "FAKETIME", 8) == 0);
}

/* Whether an inherited variable goes to the supervisor: settings do, the rest of a shell does
 * not. */
static bool launch_inherits(const struct launch *l, const char *pair)
{
    static const char *const keep[] = {
        "WEFT_", "PATH=",         "LANG=",          "LC_",
        "TZ=",   "ASAN_OPTIONS=", "UBSAN_OPTIONS=", "LSAN_OPTIONS="};
    size_t name = strcspn(pair, "=") + 1;
    bool kept = launch_is_for_tests(pair);

    if (strncmp(pair, "WEFT_FDS=", 9) == 0)
        return false;
    for (size_t i = 0; i < sizeof keep / sizeof keep[0]; i++)
        kept = kept || strncmp(pair, keep[i], strlen(keep[i])) == 0;
    for (size_t i = 0; i < l->n_env && kept; i++)
        kept = strncmp(pair, l->env[i], name) != 0;
    return kept;
}

static char launch_fds[] = "WEFT_FDS=bin=100"; /* LAUNCH_BIN_FD */

static char **launch_environment(const struct launch *l)
{
    size_t count = 0, n = 0;
    char **env;

    while (environ[count] != NULL)
        count++;
    env = calloc(count + l->n_env + 2, sizeof *env);
    if (env == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++)
        if (launch_inherits(l, environ[i]))
            env[n++] = environ[i];
    env[n++] = launch_fds;
    for (size_t i = 0; i < l->n_env; i++) {
        union {
            const char *in;
            char *out;
        } pair = {l->env[i]}; /* execve takes char *const[]; nobody writes there */
        env[n++] = pair.out;
    }
    return env;
}

/* A pod may have 100,000 connections and keeps its key in locked memory; the kit lowers both
 * again. */
static void launch_limits(void)
{
    struct rlimit files = {262144, 262144}, locked = {64u << 20, 64u << 20};
    struct rlimit now;

    if (getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_max < files.rlim_max)
        (void)setrlimit(RLIMIT_NOFILE, &files); /* fails above fs.nr_open: then what there is */
    if (getrlimit(RLIMIT_NOFILE, &now) == 0) {
        now.rlim_cur = now.rlim_max < 262144 ? now.rlim_max : 262144;
        (void)setrlimit(RLIMIT_NOFILE, &now);
    }
    (void)setrlimit(RLIMIT_MEMLOCK, &locked);
}

static bool launch_pid_file(const char *path)
{
    char text[PROC_ID_TEXT];
    struct proc_id me;
    struct trouble why;

    if (!proc_identify(getpid(), &me))
        return false;
    proc_print(&me, text);
    return files_write(path, text, strlen(text), 0644, (uid_t)-1, &why) == OK;
}

static bool launch_stdio(const char *log)
{
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);

    return in >= 0 && out >= 0 && dup2(in, 0) == 0 && dup2(out, 1) == 1 && dup2(out, 2) == 2;
}

/* Opens the executable's directory as descriptor LAUNCH_BIN_FD while we are still root, since the supervisor's
 * user need not be able to walk there. The executable's name in it, or NULL. */
static const char *launch_open(const struct launch *l)
{
    char dir[FILES_PATH_MAX];
    const char *slash = strrchr(l->program, '/');
    int bin;

    if (slash == NULL)
        return NULL;
    files_path(dir, "%.*s", (int)(slash - l->program), l->program);
    bin = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return bin >= 0 && dup2(bin, LAUNCH_BIN_FD) == LAUNCH_BIN_FD ? slash + 1 : NULL;
}

/* The name of the step that failed (errno says how), or it does not return. */
static const char *launch_child(const struct launch *l, char **env, pid_t parent)
{
    const char *argv[] = {l->program, l->argument, NULL};
    const char *program = launch_open(l);
    sigset_t none;
    struct trouble why;

    if (program == NULL)
        return "executable";

    (void)setsid(); /* a fresh child leads no group: cannot fail */
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGTTOU, SIG_DFL);
    if (l->pid_file != NULL && !launch_pid_file(l->pid_file))
        return "pid file";
    if (l->netns != NULL && netns_enter(l->netns, &why) != OK)
        return "network namespace";
    if (!launch_stdio(l->log))
        return "log file";
    launch_limits();
    (void)umask(022);
    if (chdir("/") != 0)
        return "chdir";
    if (l->uid != geteuid() &&
        (setgroups(0, NULL) != 0 || setresgid(l->uid, l->uid, l->uid) != 0 ||
         setresuid(l->uid, l->uid, l->uid) != 0))
        return "user";
    if (l->dies_with_us) { /* behind setresuid, which forgets it */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
            return "prctl";
        if (getppid() != parent)
            _exit(1);
    }
    (void)execveat(LAUNCH_BIN_FD, program, (char *const *)(uintptr_t)argv, env, 0);
    return "exec";
}

err_t launch_start(const struct launch *l, struct proc_id *out, struct trouble *why)
{
    char **env = launch_environment(l);
    pid_t parent = getpid();
    char said[160] = "";
    int p[2];
    pid_t pid;
    ssize_t n;

    if (env == NULL || pipe2(p, O_CLOEXEC) != 0) {
        free(env);
        return trouble_errno(why, "cannot start %s", l->program);
    }
    pid = fork();
    if (pid == 0) {
        const char *step = launch_child(l, env, parent);

        n = snprintf(said, sizeof said, "%s: %s", step, strerror(errno));
        if (write(p[1], said, (size_t)n) < 0)
            _exit(126);
        _exit(127);
    }
    close(p[1]);
    free(env);
    n = pid > 0 ? read(p[0], said, sizeof said - 1) : 0;
    close(p[0]);
    if (pid < 0)
        return trouble_errno(why, "cannot start %s", l->program);
    if (n > 0) {
        said[n] = '\0';
        return trouble_set(why, ERR_OF(OS), "cannot start %s: %s", l->program, said);
    }
    if (!proc_identify(pid, out))
        return trouble_set(why, ERR_OF(OS), "%s ended at once; its log is %s", l->program,
                           l->log);
    return OK;
}

void launch_log_tail(const char *log, char *out, size_t cap)
{
    int fd = open(log, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    off_t from = size > (off_t)cap - 1 ? size - ((off_t)cap - 1) : 0;
    ssize_t n = fd >= 0 ? pread(fd, out, cap - 1, from) : 0;
    char *nl;

    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = '\0';
    nl = from > 0 ? strchr(out, '\n') : NULL;
    if (nl != NULL) /* begin with a whole line */
        memmove(out, nl + 1, strlen(nl + 1) + 1);
}
