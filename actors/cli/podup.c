/* The order matters: the redirect is in force before anything runs in the namespace, and the
 * program is started (by the caller) only when the pod serves. */
#include "cli/podup.h"

#include "cli/capture.h"
#include "cli/client.h"
#include "cli/files.h"
#include "cli/launch.h"
#include "cli/netns.h"
#include "cli/redirect.h"
#include "cli/status.h"
#include "cli/tool.h"
#include "kit/random.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ADMIN_PORT 4191

struct podup {
    const struct mesh *mesh;
    struct pod *pod;
    const struct podup_conf *conf;
    struct proc_id *supervisor;
    char netns[256], run_dir[512], state_dir[512], log[512];
    char token_file[560], anchors_file[560];
    char broker_key[48];
    char ip4[PLAN_ADDRESS_TEXT], ip6[PLAN_ADDRESS_TEXT];
};

err_t podup_add_port(const char *as, const char *port, char *serves, size_t cap,
                     struct trouble *why)
{
    static const char *const protocols[] = {"http1", "http2", "grpc", "opaque"};
    const char *slash = strchr(port, '/');
    size_t used = strlen(serves);
    uint64_t number;
    bool known = slash == NULL;
    int n;

    if (!slice_to_u64(slice(port, slash != NULL ? (size_t)(slash - port) : strlen(port)),
                      &number) ||
        number == 0 || number > UINT16_MAX)
        return trouble_set(why, ERR_OF(USAGE), "--port %s: no port", port);
    for (size_t i = 0; i < 4 && !known; i++)
        known = strcmp(slash + 1, protocols[i]) == 0;
    if (!known)
        return trouble_set(why, ERR_OF(USAGE),
                           "--port %s: the protocol is http1, http2, grpc or opaque", port);
    n = snprintf(serves + used, cap - used, "%s%s:%" PRIu64 "%s", used > 0 ? "," : "", as,
                 number, slash != NULL ? slash : "");
    if (n < 0 || (size_t)n >= cap - used)
        return trouble_set(why, ERR_OF(USAGE), "too many ports");
    return OK;
}

static uint64_t podup_now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* weft run has its signals blocked, for its loop: while the pod is being made they are seen
 * here. */
int podup_signal(void)
{
    static const int ends[] = {SIGTERM, SIGINT, SIGHUP};
    sigset_t pending;

    if (sigpending(&pending) == 0)
        for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
            if (sigismember(&pending, ends[i]) == 1)
                return ends[i];
    return 0;
}

static err_t podup_interrupted(struct trouble *why)
{
    int number = podup_signal();

    return number == 0 ? OK
                       : trouble_set(why, ERR_OF(NOT_READY), "ended by signal %d (%s)", number,
                                     sigabbrev_np(number));
}

/* ---- steps, in this order ---- */

static err_t podup_claim(struct podup *u, struct trouble *why)
{
    int lock;
    err_t e;

    TRY(mesh_lock(u->mesh->run, &lock, why));
    e = mesh_is_same(u->mesh, why);
    if (e == OK) {
        (void)pod_sweep(u->mesh);
        e = pod_claim(u->mesh, u->pod, why);
    }
    close(lock);
    return e;
}

static err_t podup_network(struct podup *u, struct trouble *why)
{
    plan_pod(&u->mesh->plan, u->pod->number, u->ip4);
    plan_pod6(&u->mesh->plan, u->pod->number, u->ip6);
    return netns_add(&u->mesh->plan, u->netns, u->pod->number, u->conf->ipv6, why);
}

static err_t podup_redirect(struct podup *u, struct trouble *why)
{
    struct redirect_conf r;

    redirect_conf_default(&r);
    return redirect_apply(&r, u->netns, why);
}

static err_t podup_dirs(struct podup *u, struct trouble *why)
{
    TRY(files_mkdir(u->run_dir, 0700, POD_UID, why));
    return files_mkdir(u->state_dir, 0700, POD_UID, why);
}

static err_t podup_token(struct podup *u, struct trouble *why)
{
    struct wire_token ask = {.namespace = slice_str(u->pod->ns),
                             .service_account = slice_str(u->conf->service_account)};
    const struct wire_token_answer *got;
    const struct wire_msg *answer;
    struct client *c = NULL;
    err_t e = client_open(u->mesh, &c, why);

    if (e == OK)
        e = client_ask(c, WIRE_token, &ask, WIRE_token_answer, CLIENT_WAIT_MS, &answer, why);
    if (e == OK) {
        got = &answer->body.token_answer;
        e = files_write(u->token_file, got->token.p, got->token.n, 0600, POD_UID, why);
        if (e == OK)
            e = files_write(u->anchors_file, got->anchors.p, got->anchors.n, 0600, POD_UID,
                            why);
        if (e == OK && !slice_to_cstr(got->broker_key, u->broker_key, sizeof u->broker_key))
            e = trouble_set(why, ERR_OF(MALFORMED), "the broker's key is too long");
    }
    client_close(&c);
    return e;
}

static err_t podup_settings(struct podup *u, struct launch *l, struct trouble *why)
{
    const struct podup_conf *c = u->conf;
    char broker[PLAN_ADDRESS_TEXT];
    const char *user_drain = getenv("WEFT_DRAIN_TIMEOUT");

    plan_bridge(&u->mesh->plan, broker);
    TRY(launch_env(l, why, "WEFT_RUN_DIR", "%s", u->run_dir));
    TRY(launch_env(l, why, "WEFT_STATE_DIR", "%s", u->state_dir));
    TRY(launch_env(l, why, "WEFT_POD", "%s", u->pod->name));
    TRY(launch_env(l, why, "WEFT_NAMESPACE", "%s", u->pod->ns));
    TRY(launch_env(l, why, "WEFT_WORKLOAD", "%s", c->service));
    TRY(launch_env(l, why, "WEFT_SERVICE_ACCOUNT", "%s", c->service_account));
    TRY(launch_env(l, why, "WEFT_CONTROL_NAMESPACE", "%s", u->mesh->control_namespace));
    TRY(launch_env(l, why, "WEFT_TRUST_DOMAIN", "%s", u->mesh->trust_domain));
    TRY(launch_env(l, why, "WEFT_POD_IPS", "%s%s%s", u->ip4, c->ipv6 ? "," : "",
                   c->ipv6 ? u->ip6 : ""));
    TRY(launch_env(l, why, "WEFT_IPV6", "%s", c->ipv6 ? "true" : "false"));
    TRY(launch_env(l, why, "WEFT_SERVES", "%s", c->serves));
    /* What the command does not say the environment may. */
    if (c->zone[0] != '\0')
        TRY(launch_env(l, why, "WEFT_ZONE", "%s", c->zone));
    if (c->version[0] != '\0')
        TRY(launch_env(l, why, "WEFT_APP_VERSION", "%s", c->version));
    if (c->workers != NULL && c->workers[0] != '\0')
        TRY(launch_env(l, why, "WEFT_WORKERS", "%s", c->workers));
    TRY(launch_env(l, why, "WEFT_BROKER", "%s:8086", broker));
    TRY(launch_env(l, why, "WEFT_BROKER_UPDATES", "%s:8087", broker));
    TRY(launch_env(l, why, "WEFT_COLLECTOR", "%s:8089", broker));
    TRY(launch_env(l, why, "WEFT_BROKER_KEY", "%s", u->broker_key));
    TRY(launch_env(l, why, "WEFT_JOIN_TOKEN_FILE", "%s", u->token_file));
    TRY(launch_env(l, why, "WEFT_TRUST_ANCHORS_FILE", "%s", u->anchors_file));
    TRY(launch_env(l, why, "WEFT_INCARNATION", "%" PRIu64, random_u64() >> 1));
    /* The program is started behind the pod: it listens some time later. */
    if (c->serves[0] != '\0' && getenv("WEFT_AWAIT_APP") == NULL)
        TRY(launch_env(l, why, "WEFT_AWAIT_APP", "true"));
    /* The pod drains when its program has ended, so nobody profits from a long wait. */
    if (user_drain == NULL)
        TRY(launch_env(l, why, "WEFT_DRAIN_TIMEOUT", "%" PRIu64 "ms", c->drain_ms));
    return OK;
}

static err_t podup_supervisor(struct podup *u, struct trouble *why)
{
    struct launch *l = calloc(1, sizeof *l);
    char program[512];
    err_t e;

    if (l == NULL)
        return trouble_set(why, ERR_OF(NOMEM), "out of memory");
    l->program = program;
    l->argument = "pod";
    l->uid = POD_UID;
    l->netns = u->netns;
    l->log = u->log;
    l->dies_with_us = true;
    e = tool_own("weft-supervisor", program, why);
    if (e == OK)
        e = podup_settings(u, l, why);
    if (e == OK)
        e = launch_start(l, u->supervisor, why);
    free(l);
    return e;
}

/* GET /ready at the pod's admin port, from the bridge: true for 200. */
static bool podup_is_ready(const char *ip)
{
    static const char ask[] = "GET /ready HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n";
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(ADMIN_PORT)};
    struct timeval limit = {.tv_sec = 1};
    char answer[32] = "";
    size_t n = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return false;
    (void)inet_pton(AF_INET, ip, &to.sin_addr);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
        send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL) == (ssize_t)sizeof ask - 1) {
        while (n < sizeof "HTTP/1.1 200" - 1) {
            ssize_t r = recv(fd, answer + n, sizeof answer - 1 - n, 0);

            if (r <= 0)
                break;
            n += (size_t)r;
        }
    }
    close(fd);
    return strncmp(answer, "HTTP/1.1 200", sizeof "HTTP/1.1 200" - 1) == 0;
}

static err_t podup_late(struct podup *u, const char *what, struct trouble *why)
{
    char tail[320], waiting[160] = "";
    struct status s;

    if (status_read(u->run_dir, &s))
        for (size_t i = 0; i < s.n; i++)
            if (!s.at[i].is_ready) {
                size_t n = strlen(waiting);

                (void)snprintf(waiting + n, sizeof waiting - n, " %s=%s", s.at[i].name,
                               s.at[i].state);
            }
    launch_log_tail(u->log, tail, sizeof tail);
    return trouble_set(why, ERR_OF(NOT_READY), "%s%s. End of %s:\n%s", what, waiting, u->log,
                       tail);
}

static err_t podup_ready(struct podup *u, struct trouble *why)
{
    uint64_t end = podup_now_ms() + u->conf->ready_ms;

    while (!podup_is_ready(u->ip4)) {
        TRY(podup_interrupted(why));
        if (!proc_is_alive(u->supervisor))
            return podup_late(u, "weft-supervisor ended", why);
        if (podup_now_ms() >= end)
            return podup_late(u, "the pod is not ready in time", why);
        (void)poll(NULL, 0, 20);
    }
    return OK;
}

pid_t podup_check_capture(const struct mesh *m, const struct pod *p,
                          const struct podup_conf *conf)
{
    char ip4[PLAN_ADDRESS_TEXT], ip6[PLAN_ADDRESS_TEXT], netns[256], run_dir[512], who[136];
    const char *argv[] = {"weft",          "redirect", "check",         "--quiet", "--netns",
                          netns,           "--report", run_dir,         "--pod",   who,
                          "--pod-address", ip4,        "--pod-address", ip6,       NULL};
    pid_t pid;

    plan_pod(&m->plan, p->number, ip4);
    plan_pod6(&m->plan, p->number, ip6);
    pod_netns(m, p, netns);
    pod_run_dir(m, p, run_dir);
    (void)snprintf(who, sizeof who, "%s/%s", p->ns, p->name);
    if (!conf->ipv6) { /* instead of the second --pod-address and its value */
        argv[12] = "--no-ipv6";
        argv[13] = NULL;
    }
    pid = fork();
    if (pid == 0) {
        sigset_t none;

        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
        _exit(CLI_FAILED);
    }
    return pid;
}

/* The first probe is waited for: a program must not start in a pod that would send it in plain
 * text. */
static err_t podup_protected(struct podup *u, struct trouble *why)
{
    pid_t pid = podup_check_capture(u->mesh, u->pod, u->conf);
    char said[256];
    int status = -1;

    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (status == 0)
        return OK;
    capture_read(u->run_dir, said);
    return trouble_set(why, ERR_OF(PROGRAM_FAILED), "the pod's traffic is not captured: %s",
                       said);
}

/* ---- all of them ---- */

static const struct {
    const char *name;
    err_t (*make)(struct podup *u, struct trouble *why);
} steps[] = {
    {"network namespace", podup_network}, {"redirect", podup_redirect},
    {"directories", podup_dirs},          {"join token", podup_token},
    {"supervisor", podup_supervisor},     {"ready", podup_ready},
    {"capture", podup_protected},
};

err_t podup_make(const struct mesh *m, struct pod *p, const struct podup_conf *conf,
                 struct proc_id *supervisor, struct trouble *why)
{
    struct podup u = {.mesh = m, .pod = p, .conf = conf, .supervisor = supervisor};
    struct trouble undo = {{0}};
    err_t e;

    supervisor->pid = 0;
    TRY(podup_claim(&u, why));
    pod_netns(m, p, u.netns);
    pod_run_dir(m, p, u.run_dir);
    pod_state_dir(m, p, u.state_dir);
    pod_log(m, p, u.log);
    (void)snprintf(u.token_file, sizeof u.token_file, "%s/token", u.state_dir);
    (void)snprintf(u.anchors_file, sizeof u.anchors_file, "%s/anchors.pem", u.state_dir);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        e = podup_interrupted(why);
        if (e == OK)
            e = steps[i].make(&u, why);
        if (e == OK)
            continue;
        if (podup_signal() != 0) /* Ctrl-C ends the tools we call, too: that is the reason */
            e = podup_interrupted(why);
        (void)trouble_prefix(why, e, "pod %s, %s: ", p->name, steps[i].name);
        if (pod_remove(m, p, 0, &undo) != OK)
            fprintf(stderr, "weft: %s\n", undo.text);
        if (supervisor->pid > 0)
            (void)waitpid(supervisor->pid, NULL, 0);
        return e;
    }
    return OK;
}
