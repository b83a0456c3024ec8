/* weft run: an unmodified program as a meshed service.
 *
 *     MAKING --pod ready--> RUNNING --program ended--> DRAINING --supervisor ended--> gone
 *        '--a step failed--> gone      '--supervisor ended: program is told to end--'
 *
 * MAKING   podup.c; a failure undoes what was made
 * RUNNING  the program is a child in our process group; signals sent to us by kill(2) are
 * passed on, those of the terminal reach it by themselves DRAINING the program is gone; the
 * supervisor has SIGTERM and a short limit, then SIGKILL gone     pod_remove(): every process
 * left in the namespace, the namespace, the directories, the record
 */
#include "cli/app.h"
#include "cli/command.h"
#include "cli/files.h"
#include "cli/podup.h"
#include "kit/random.h"
#include "kit/settings.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK_EVERY_MS 30000
#define DRAIN_MS       2000
#define DRAIN_EXTRA_MS 2000 /* the supervisor's own end, behind the drain */
#define APP_GRACE_MS   5000 /* when the pod is gone and the program does not end */

struct run {
    struct mesh mesh;
    struct pod pod;
    struct podup_conf conf;
    struct app_conf app;
    struct proc_id supervisor;
    pid_t app_pid, check_pid; /* 0: none */
    int signals;              /* signalfd */
    enum { RUN_RUNNING, RUN_DRAINING, RUN_GONE } state;
    bool pod_died;
    int exit_code;
    uint64_t deadline_ms; /* 0: none; then SIGKILL for what is waited for */
    uint64_t check_ms;    /* next probe */
};

static const int run_passed_on[] = {SIGTERM, SIGINT,  SIGHUP, SIGQUIT,
                                    SIGUSR1, SIGUSR2, SIGCONT};

static uint64_t run_now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool run_block_signals(struct run *r)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    for (size_t i = 0; i < sizeof run_passed_on / sizeof run_passed_on[0]; i++)
        (void)sigaddset(&set, run_passed_on[i]);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGTTOU, SIG_IGN); /* a shell in front leaves us in the background */
    (void)signal(SIGPIPE, SIG_IGN);
    r->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return r->signals >= 0;
}

static void run_enter_draining(struct run *r)
{
    r->state = RUN_DRAINING;
    r->deadline_ms = run_now_ms() + r->conf.drain_ms + DRAIN_EXTRA_MS;
    if (r->pod_died || !proc_signal(&r->supervisor, SIGTERM))
        r->state = RUN_GONE;
}

static void run_on_app_end(struct run *r, int status)
{
    r->app_pid = 0;
    r->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (r->pod_died)
        r->exit_code = CLI_FAILED;
    run_enter_draining(r);
}

/* Without its pod the program's connections go nowhere (the redirect stays): end it. */
static void run_on_pod_end(struct run *r)
{
    char log[512];

    r->supervisor.pid = 0;
    if (r->state == RUN_DRAINING) {
        r->state = RUN_GONE;
        return;
    }
    pod_log(&r->mesh, &r->pod, log);
    fprintf(stderr, "weft: the pod's supervisor ended, so the program is ended too; see %s\n",
            log);
    r->pod_died = true;
    r->deadline_ms = run_now_ms() + APP_GRACE_MS;
    if (r->app_pid > 0)
        (void)kill(r->app_pid, SIGTERM);
}

static void run_reap(struct run *r)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);

        if (pid <= 0)
            return;
        if (pid == r->app_pid)
            run_on_app_end(r, status);
        else if (pid == r->supervisor.pid)
            run_on_pod_end(r);
        else if (pid == r->check_pid)
            r->check_pid = 0;
    }
}

static void run_on_signal(struct run *r)
{
    struct signalfd_siginfo si;

    while (read(r->signals, &si, sizeof si) == (ssize_t)sizeof si) {
        if (si.ssi_signo == SIGCHLD)
            run_reap(r);
        else if (r->app_pid > 0 && si.ssi_code != SI_KERNEL)
            (void)kill(r->app_pid, (int)si.ssi_signo);
    }
}

static void run_on_time(struct run *r)
{
    uint64_t now = run_now_ms();

    if (r->deadline_ms != 0 && now >= r->deadline_ms) {
        r->deadline_ms = 0;
        if (r->app_pid > 0)
            (void)kill(r->app_pid, SIGKILL);
        else
            r->state = RUN_GONE; /* pod_remove kills what is left */
    }
    if (r->state == RUN_RUNNING && now >= r->check_ms) {
        r->check_ms = now + CHECK_EVERY_MS;
        if (r->check_pid == 0)
            r->check_pid = podup_check_capture(&r->mesh, &r->pod, &r->conf);
        if (r->check_pid < 0)
            r->check_pid = 0;
    }
}

static void run_loop(struct run *r)
{
    while (r->state != RUN_GONE) {
        struct pollfd p = {r->signals, POLLIN, 0};
        uint64_t now = run_now_ms();
        uint64_t next =
            r->deadline_ms != 0 && r->deadline_ms < r->check_ms ? r->deadline_ms : r->check_ms;

        if (poll(&p, 1, next > now ? (int)(next - now) : 0) > 0)
            run_on_signal(r);
        run_on_time(r);
    }
}

static err_t run_app(struct run *r, struct trouble *why)
{
    char netns[256], hosts[FILES_PATH_MAX];

    pod_netns(&r->mesh, &r->pod, netns);
    files_path(hosts, "%s/hosts", r->mesh.state);
    r->app.netns = netns;
    r->app.hosts = hosts;
    if (!files_exists(hosts))
        return trouble_set(why, ERR_OF(NOT_READY), "%s is not there: the broker writes it",
                           hosts);
    r->app_pid = app_start(&r->app, why);
    return r->app_pid < 0 ? ERR_OF(OS) : OK;
}

static int run_all(struct run *r)
{
    struct trouble why = {{0}};
    err_t e;

    if (!run_block_signals(r))
        return trouble_exit(&why, trouble_errno(&why, "signalfd"));
    e = podup_make(&r->mesh, &r->pod, &r->conf, &r->supervisor, &why);
    if (e != OK) {
        int code = trouble_exit(&why, e), number = podup_signal();

        return number != 0 ? 128 + number : code;
    }
    r->check_ms = run_now_ms() + CHECK_EVERY_MS;
    e = run_app(r, &why);
    if (e == OK)
        run_loop(r);
    else
        r->exit_code = trouble_exit(&why, e);
    e = pod_remove(&r->mesh, &r->pod, 0, &why);
    if (e != OK)
        (void)trouble_exit(&why, e); /* the program's own exit code is what the caller wants */
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    close(r->signals);
    return r->exit_code;
}

struct run_args {
    const char *run, *as, *ns, *account, *pod, *replica, *user, *zone, *version, *workers;
    struct opt_list ports;
    uint64_t ready_ms;
    char serves[1024];
};

static err_t run_name(struct run *r, const struct run_args *a, struct trouble *why)
{
    char tag[6];
    int n;

    random_hex(tag, 5);
    if (a->pod != NULL)
        n = snprintf(r->pod.name, sizeof r->pod.name, "%s", a->pod);
    else
        n = snprintf(r->pod.name, sizeof r->pod.name, "%s-%s", a->as,
                     a->replica != NULL ? a->replica : tag);
    if ((size_t)n >= sizeof r->pod.name || !pod_name_ok(r->pod.name))
        return trouble_set(why, ERR_OF(USAGE),
                           "pod %s: small letters, digits and '-', up to 63 of them",
                           r->pod.name);
    if (!pod_name_ok(a->ns))
        return trouble_set(why, ERR_OF(USAGE), "namespace %s: small letters, digits and '-'",
                           a->ns);
    (void)snprintf(r->pod.ns, sizeof r->pod.ns, "%s", a->ns);
    return OK;
}

/* "auto" is the setting's 0. */
static err_t check_workers(struct run_args *a, struct trouble *why)
{
    uint64_t n;

    if (strcmp(a->workers, "auto") == 0)
        a->workers = "0";
    else if (a->workers[0] != '\0' &&
             (!slice_to_u64(slice_str(a->workers), &n) || n < 1 || n > SETTINGS_WORKERS_MAX))
        return trouble_set(why, ERR_OF(USAGE), "--workers %s: 1 to %d, or auto", a->workers, SETTINGS_WORKERS_MAX);
    return OK;
}

static err_t run_configure(struct run *r, struct run_args *a, struct trouble *why)
{
    if (!pod_name_ok(a->as))
        return trouble_set(why, ERR_OF(USAGE), "--as %s: small letters, digits and '-'", a->as);
    if (!pod_name_ok(a->account != NULL ? a->account : a->as))
        return trouble_set(why, ERR_OF(USAGE),
                           "--service-account %s: small letters, digits and '-'", a->account);
    if (strlen(a->zone) > 63)
        return trouble_set(why, ERR_OF(USAGE), "--zone: more than 63 characters");
    if (strlen(a->version) > 128)
        return trouble_set(why, ERR_OF(USAGE), "--version: more than 128 characters");
    TRY(check_workers(a, why));
    TRY(run_name(r, a, why));
    for (size_t i = 0; i < a->ports.n; i++)
        TRY(podup_add_port(a->as, a->ports.at[i], a->serves, 300, why));
    TRY(app_user(&r->app, a->user, why));
    TRY(mesh_need_root("weft run", why));
    TRY(mesh_load(&r->mesh, command_run_dir(a->run), why));
    r->conf = (struct podup_conf){
        .service = a->as,
        .service_account = a->account != NULL ? a->account : a->as,
        .zone = a->zone,
        .version = a->version,
        .workers = a->workers,
        .serves = a->serves,
        .ipv6 = r->mesh.ipv6,
        .ready_ms = a->ready_ms,
        .drain_ms = DRAIN_MS,
    };
    return OK;
}

int command_run(const struct command *self, int argc, char **argv)
{
    struct run_args a = {.ns = "default", .zone = "", .version = "", .workers = "", .ready_ms = 30000};
    struct run r = {.state = RUN_RUNNING};
    struct trouble why = {{0}};
    const struct opt table[] = {
        {OPT_TEXT, 0, "as", "NAME", "service and workload this program is (required)", &a.as},
        {OPT_MANY, 'p', "port", "PORT[/PROTOCOL]",
         "a port it listens on; http1, http2, grpc, opaque", &a.ports},
        {OPT_TEXT, 'n', "namespace", "NS", "namespace (default)", &a.ns},
        {OPT_TEXT, 0, "service-account", "NAME", "first part of the identity (as --as)",
         &a.account},
        {OPT_TEXT, 0, "replica", "NAME", "pod is called SERVICE-NAME (five random digits)",
         &a.replica},
        {OPT_TEXT, 0, "pod", "NAME", "whole name of the pod instead", &a.pod},
        {OPT_TEXT, 0, "user", "USER",
         "run it as this user (who calls; behind sudo: who called sudo)", &a.user},
        {OPT_TEXT, 0, "zone", "ZONE", "zone of this pod", &a.zone},
        {OPT_TEXT, 0, "version", "TEXT",
         "version of the program: what was learned of another's ports is forgotten", &a.version},
        {OPT_TEXT, 0, "workers", "N|auto", "proxies of the pod; auto: by the CPU quota (1)", &a.workers},
        {OPT_MS, 0, "ready-timeout", "TIME", "longest wait for the pod (30s)", &a.ready_ms},
        OPT_RUN(&a.run),
        OPT_TABLE_END,
    };
    const char *shell = getenv("SHELL");
    char shell_path[256];
    char *shell_argv[2] = {shell_path, NULL};
    int rest, code;
    err_t e;

    if (!command_options(self, table, &argc, argv, &rest, &code))
        return code;
    if (argc > 1)
        return command_usage(self, "the program stands behind \"--\": ... -- %s", argv[1]);
    if (a.as == NULL)
        return command_usage(self, "--as is missing");
    (void)snprintf(shell_path, sizeof shell_path, "%s",
                   shell != NULL && shell[0] == '/' ? shell : "/bin/bash");
    r.app.argv = rest > 0 && argv[rest] != NULL ? argv + rest : shell_argv;
    e = run_configure(&r, &a, &why);
    if (e == ERR_OF(USAGE))
        return command_usage(self, "%s", why.text);
    return e == OK ? run_all(&r) : trouble_exit(&why, e);
}
