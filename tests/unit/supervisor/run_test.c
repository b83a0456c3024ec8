/* The real supervisor with children that are this program under other names: main() looks at argv[0].
 *
 * The children are actors of the kit that do nothing; the proxy accepts on its inherited socket and
 * writes the counter it keeps in "series", so that a test sees both survive a kill -9. */
#include "supervisor/super.h"

#include "kit/actor.h"
#include "kit/clock.h"
#include "kit/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_US (15 * 1000000ull)

/* ---- the children ---- */

static struct event *on_conn;
static uint64_t *served;

static void answer_conn(evutil_socket_t fd, short what, void *arg)
{
    char text[32];
    int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    int n;

    (void)what, (void)arg;
    if (conn < 0)
        return;
    n = snprintf(text, sizeof(text), "%" PRIu64 "\n", ++*served);
    assert_int_equal(write(conn, text, (size_t)n), n);
    (void)close(conn);
}

static err_t proxy_start(struct actor *a)
{
    int fd = actor_fd(a, "outbound", 0), series = actor_fd(a, "series", 0);
    struct stat st;

    if (fd < 0 || series < 0 || fstat(series, &st) != 0 || actor_fd(a, "vault", 0) >= 0 ||
        actor_fd(a, "series", 1) >= 0 || getenv("HOME") != NULL)
        return ERR_OF(BAD_SETTING);
    served = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, series, 0);
    if (served == MAP_FAILED)
        return ERR_OF(OS);
    on_conn = event_new(a->base, fd, EV_READ | EV_PERSIST, answer_conn, NULL);
    (void)event_add(on_conn, NULL);
    return OK;
}

static void proxy_confine(struct actor *a, struct confine_spec *out)
{
    (void)a;
    out->needs = CONFINE_TCP_ACCEPT;
}

static void proxy_stop(struct actor *a)
{
    (void)a;
    event_free(on_conn);
}

static void telemetry_line(struct actor *a, slice_t line)
{
    (void)a;
    log_info("heard", "line=\"%.*s\"", SLICE_FMT(line));
}

static err_t tls_start(struct actor *a)
{
    int vault = actor_fd(a, "vault", 0);

    if (vault < 0 || actor_fd(a, "outbound", 0) >= 0)
        return ERR_OF(BAD_SETTING);
    actor_note(a, "certificate", "%s", "until tomorrow");
    return OK;
}

static int run_fake(const char *name, int argc, char **argv)
{
    static const struct actor_spec plain = {.name = "fake"};
    static const struct actor_spec tls = {.name = "fake-tls", .start = tls_start};
    static const struct actor_spec telemetry = {.name = "fake-telemetry", .line = telemetry_line};
    static const struct actor_spec proxy = {.name = "fake-proxy", .start = proxy_start,
                                            .confine = proxy_confine, .stop = proxy_stop};

    if (strcmp(name, "weft-proxy") == 0)
        return actor_run(&proxy, argc, argv);
    if (strcmp(name, "weft-tls") == 0)
        return actor_run(&tls, argc, argv);
    return actor_run(strcmp(name, "weft-telemetry") == 0 ? &telemetry : &plain, argc, argv);
}

/* ---- the bench ---- */

struct bench {
    char dir[64], bin[80], run[80], state[80], status[100];
    pid_t supervisor;
    uint16_t port;
};

static const char *const names[] = {"weft-supervisor", "weft-tls", "weft-retry", "weft-telemetry",
                                    "weft-link", "weft-proxy"};
#define NAMES_N (sizeof(names) / sizeof(names[0]))

static uint16_t free_port(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    (void)close(fd);
    return ntohs(sa.sin_port);
}

static void set_port(const char *env, uint16_t port)
{
    char text[8];

    (void)snprintf(text, sizeof(text), "%u", port);
    (void)setenv(env, text, 1);
}

static void start_supervisor(struct bench *b)
{
    char path[120];

    (void)snprintf(path, sizeof(path), "%s/weft-supervisor", b->bin);
    b->supervisor = fork();
    assert_true(b->supervisor >= 0);
    if (b->supervisor == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that is killed leaves nothing behind */
        (void)execl(path, path, "pod", (char *)NULL);
        _exit(126);
    }
}

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));
    char path[120];

    (void)snprintf(b->dir, sizeof(b->dir), "/tmp/weft-super-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    (void)snprintf(b->bin, sizeof(b->bin), "%s/bin", b->dir);
    (void)snprintf(b->run, sizeof(b->run), "%s/run", b->dir);
    (void)snprintf(b->state, sizeof(b->state), "%s/state", b->dir);
    (void)snprintf(b->status, sizeof(b->status), "%s/status", b->run);
    assert_int_equal(mkdir(b->bin, 0755), 0);
    for (unsigned i = 0; i < NAMES_N; i++) {
        char self[256];
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

        assert_true(n > 0);
        self[n] = '\0';
        (void)snprintf(path, sizeof(path), "%s/%s", b->bin, names[i]);
        assert_int_equal(symlink(self, path), 0);
    }
    b->port = free_port();
    (void)setenv("WEFT_BIN_DIR", b->bin, 1);
    (void)setenv("WEFT_RUN_DIR", b->run, 1);
    (void)setenv("WEFT_STATE_DIR", b->state, 1);
    (void)setenv("WEFT_DRAIN_TIMEOUT", "5s", 1);
    (void)setenv("WEFT_WORKERS", "2", 1);
    set_port("WEFT_OUTBOUND_PORT", b->port);
    set_port("WEFT_INBOUND_PORT", free_port());
    set_port("WEFT_ADMIN_PORT", free_port());
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;
    char path[120];

    if (b->supervisor > 0) {
        (void)kill(b->supervisor, SIGKILL);
        (void)waitpid(b->supervisor, NULL, 0);
    }
    for (unsigned i = 0; i < NAMES_N; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", b->bin, names[i]);
        (void)unlink(path);
    }
    (void)snprintf(path, sizeof(path), "%s/lock", b->run);
    (void)unlink(path);
    (void)unlink(b->status);
    (void)snprintf(path, sizeof(path), "%s.new", b->status); /* killed between write and rename */
    (void)unlink(path);
    (void)rmdir(b->bin), (void)rmdir(b->run), (void)rmdir(b->state);
    assert_int_equal(rmdir(b->dir), 0);
    free(b);
    return 0;
}

struct row {
    int pid;
    char state[16], notes[256];
    unsigned restarts;
};

/* The row of `name` in the status file. */
static bool read_row(struct bench *b, const char *name, struct row *out)
{
    FILE *f = fopen(b->status, "r");
    char line[512], got[64];
    bool found = false;

    memset(out, 0, sizeof(*out));
    while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL)
        found = sscanf(line, "%63s %d %15s %u %*s %*s %255[^\n]", got, &out->pid, out->state,
                       &out->restarts, out->notes) >= 4 &&
                strcmp(got, name) == 0;
    if (f != NULL)
        (void)fclose(f);
    return found;
}

static void nap(void)
{
    (void)usleep(5000); /* between two looks at a file of another process; bounded by the deadline */
}

static void wait_for(struct bench *b, const char *name, const char *want_state, unsigned restarts,
                     struct row *out)
{
    uint64_t end = clock_read_us() + DEADLINE_US;

    while (!read_row(b, name, out) || strcmp(out->state, want_state) != 0 || out->restarts < restarts) {
        assert_true(clock_read_us() < end);
        nap();
    }
}

/* Connects and reads the number that the proxy says. */
static unsigned ask(struct bench *b)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons(b->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char text[32] = "";

    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    (void)close(fd);
    return (unsigned)atoi(text);
}

static int wait_exit(struct bench *b)
{
    uint64_t end = clock_read_us() + DEADLINE_US;
    int status;

    while (waitpid(b->supervisor, &status, WNOHANG) == 0) {
        assert_true(clock_read_us() < end);
        nap();
    }
    b->supervisor = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* ---- tests ---- */

static void test_life_of_a_pod(void **state)
{
    struct bench *b = *state;
    struct row super, tls, proxy;
    struct stat st;
    unsigned first;

    start_supervisor(b);
    wait_for(b, "weft-supervisor", "ready", 0, &super);
    assert_int_equal(super.pid, b->supervisor);
    assert_int_equal(stat(b->run, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_true(read_row(b, "weft-proxy.1", &proxy));
    assert_true(read_row(b, "weft-tls", &tls));
    assert_string_equal(tls.state, "ready");
    assert_non_null(strstr(tls.notes, "certificate=until_tomorrow"));

    /* A killed proxy: a connection made while it is away waits, and both workers' counters go on. */
    first = ask(b);
    assert_true(first == 1);
    assert_true(read_row(b, "weft-proxy.0", &proxy));
    assert_int_equal(kill(proxy.pid, SIGKILL), 0);
    assert_true(ask(b) >= 1);
    wait_for(b, "weft-proxy.0", "ready", 1, &proxy);
    assert_non_null(strstr(proxy.notes, "restart_ms="));
    print_message("proxy restarted: %s\n", proxy.notes);

    /* One of the others. */
    assert_int_equal(kill(tls.pid, SIGKILL), 0);
    wait_for(b, "weft-tls", "ready", 1, &tls);
    print_message("tls restarted: %s\n", tls.notes);

    assert_int_equal(kill(b->supervisor, SIGTERM), 0);
    assert_int_equal(wait_exit(b), 0);
    assert_int_equal(access(b->status, F_OK), -1);
    assert_int_equal(kill(proxy.pid, 0), -1);
    assert_int_equal(kill(tls.pid, 0), -1);
}

/* The memory of a worker is its successor's. */
static void test_series_survive(void **state)
{
    struct bench *b = *state;
    struct row proxy;
    unsigned last = 0;

    (void)setenv("WEFT_WORKERS", "1", 1);
    start_supervisor(b);
    wait_for(b, "weft-supervisor", "ready", 0, &proxy);
    for (unsigned round = 0; round < 3; round++) {
        wait_for(b, "weft-proxy.0", "ready", round, &proxy);
        assert_int_equal(ask(b), last + 1);
        assert_int_equal(ask(b), last + 2);
        last += 2;
        assert_int_equal(kill(proxy.pid, SIGKILL), 0);
    }
    assert_int_equal(ask(b), last + 1); /* waited in the queue of the socket */
}

static void test_children_die_with_it(void **state)
{
    struct bench *b = *state;
    struct row super, link;
    uint64_t end;

    start_supervisor(b);
    wait_for(b, "weft-supervisor", "ready", 0, &super);
    assert_true(read_row(b, "weft-link", &link));
    assert_int_equal(kill(b->supervisor, SIGKILL), 0);
    assert_int_equal(wait_exit(b), -SIGKILL);
    for (end = clock_read_us() + DEADLINE_US; kill(link.pid, 0) == 0; nap()) {
        char path[64], stat_line[256] = "";
        FILE *f;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", link.pid);
        f = fopen(path, "r");
        if (f == NULL || fgets(stat_line, sizeof(stat_line), f) == NULL || strstr(stat_line, ") Z") != NULL)
            end = 0; /* gone, or dead and waiting for whoever inherited it */
        if (f != NULL)
            (void)fclose(f);
        if (end == 0)
            break;
        assert_true(clock_read_us() < end);
    }
}

static void test_stopped_child_is_replaced_at_drain(void **state)
{
    struct bench *b = *state;
    struct row super, retry;
    uint64_t begin;

    (void)setenv("WEFT_DRAIN_TIMEOUT", "300ms", 1);
    start_supervisor(b);
    wait_for(b, "weft-supervisor", "ready", 0, &super);
    assert_true(read_row(b, "weft-retry", &retry));
    assert_int_equal(kill(retry.pid, SIGSTOP), 0); /* will not answer the drain */
    begin = clock_read_us();
    assert_int_equal(kill(b->supervisor, SIGTERM), 0);
    assert_int_equal(wait_exit(b), 0);
    assert_true(clock_read_us() - begin >= 250000);
    assert_int_equal(kill(retry.pid, 0), -1);
}

static void test_second_signal_kills(void **state)
{
    struct bench *b = *state;
    struct row super, retry;

    (void)setenv("WEFT_DRAIN_TIMEOUT", "1h", 1);
    start_supervisor(b);
    wait_for(b, "weft-supervisor", "ready", 0, &super);
    assert_true(read_row(b, "weft-retry", &retry));
    assert_int_equal(kill(retry.pid, SIGSTOP), 0);
    assert_int_equal(kill(b->supervisor, SIGTERM), 0);
    wait_for(b, "weft-supervisor", "draining", 0, &super);
    assert_int_equal(kill(b->supervisor, SIGTERM), 0);
    assert_int_equal(wait_exit(b), 0);
}

static void test_missing_executable(void **state)
{
    struct bench *b = *state;
    char path[120];

    (void)snprintf(path, sizeof(path), "%s/weft-link", b->bin);
    assert_int_equal(unlink(path), 0);
    start_supervisor(b);
    assert_int_equal(wait_exit(b), 1);
    assert_int_equal(access(b->run, F_OK), -1); /* found out before anything was made */
}

static void test_two_in_one_directory(void **state)
{
    struct bench *b = *state;
    struct row super;
    pid_t first;

    start_supervisor(b);
    wait_for(b, "weft-supervisor", "ready", 0, &super);
    first = b->supervisor;
    set_port("WEFT_OUTBOUND_PORT", free_port());
    start_supervisor(b);
    assert_int_equal(wait_exit(b), 1);
    assert_int_equal(access(b->status, F_OK), 0); /* the first one's is left alone */
    b->supervisor = first;
    assert_int_equal(kill(first, SIGTERM), 0);
    assert_int_equal(wait_exit(b), 0);
}

static void test_port_taken_and_bad_settings(void **state)
{
    struct bench *b = *state;
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons(b->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 1), 0);
    start_supervisor(b);
    assert_int_equal(wait_exit(b), 1);
    (void)close(fd);
    (void)setenv("WEFT_WORKERS", "many", 1);
    start_supervisor(b);
    assert_int_equal(wait_exit(b), 64);
}

int main(int argc, char **argv)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_life_of_a_pod),
        CASE(test_series_survive),
        CASE(test_children_die_with_it),
        CASE(test_stopped_child_is_replaced_at_drain),
        CASE(test_second_signal_kills),
        CASE(test_missing_executable),
        CASE(test_two_in_one_directory),
        CASE(test_port_taken_and_bad_settings),
    };
    const char *slash = strrchr(argv[0], '/'), *name = slash != NULL ? slash + 1 : argv[0];

    if (strcmp(name, "weft-supervisor") == 0)
        return supervisor_main(argc, argv);
    if (strncmp(name, "weft-", 5) == 0)
        return run_fake(name, argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
