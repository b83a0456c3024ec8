/* An actor in a child process, under a lifeline that the test holds, and without one. */
#include "kit/actor.h"
#include "kit/clock.h"
#include "kit/lifeline.h"
#include "kit/log.h"
#include "kit/timer.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS 10000

struct bench {
    pid_t pid;
    int lifeline; /* our end */
    bool has_lifeline;
    char dir[64];
};

/* ---- the actor ---- */

static err_t start(struct actor *a)
{
    char ipc[128];

    actor_note(a, "fd", "%d %d", actor_fd(a, "null", 0) >= 3, actor_fd(a, "null", 1));
    return actor_ipc(a, "x", ipc);
}

static err_t start_fails(struct actor *a)
{
    (void)a;
    return ERR_OF(NOMEM);
}

static void drain(struct actor *a, uint64_t ms)
{
    actor_note(a, "drain", "%llu", (unsigned long long)ms);
    if (ms != 7) /* 7: goes on draining */
        actor_drained(a);
}

static void reload(struct actor *a)
{
    actor_note(a, "reload", "%s", "yes");
}

static void line(struct actor *a, slice_t text)
{
    actor_note(a, "line", "%.*s", SLICE_FMT(text));
    if (slice_is_str(text, "fail"))
        actor_fail(a, 3);
}

static const struct actor_spec good = {
    .name = "good", .start = start, .drain = drain, .reload = reload, .line = line};
static const struct actor_spec bad = {.name = "bad", .start = start_fails};

/* ---- the bench ---- */

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));

    b->has_lifeline = true;
    (void)snprintf(b->dir, sizeof(b->dir), "/tmp/weft-actor-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    clearenv();
    (void)setenv("WEFT_RUN_DIR", b->dir, 1);
    (void)setenv("WEFT_DRAIN_TIMEOUT", "9ms", 1);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    if (b->pid > 0) {
        (void)kill(b->pid, SIGKILL);
        (void)waitpid(b->pid, NULL, 0);
    }
    if (b->lifeline > 0)
        (void)close(b->lifeline);
    assert_int_equal(rmdir(b->dir), 0);
    free(b);
    return 0;
}

static void run(struct bench *b, const struct actor_spec *spec, const char *fds)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    b->pid = fork();
    assert_true(b->pid >= 0);
    if (b->pid == 0) {
        char number[8], name[] = "actor", *argv[] = {name, NULL};

        (void)close(pair[0]);
        (void)snprintf(number, sizeof(number), "%d", pair[1]);
        if (b->has_lifeline)
            (void)setenv(LIFELINE_ENV, number, 1);
        if (fds != NULL)
            (void)setenv("WEFT_FDS", fds, 1);
        _exit(actor_run(spec, 1, argv));
    }
    (void)close(pair[1]);
    b->lifeline = pair[0];
}

/* The next line that is not "alive"; "" at the end of file. */
static const char *hear(struct bench *b)
{
    static char text[LIFELINE_MAX + 1];
    struct pollfd pfd = {.fd = b->lifeline, .events = POLLIN};
    ssize_t n;

    do {
        assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
        n = recv(b->lifeline, text, LIFELINE_MAX, 0);
        text[n > 0 ? n : 0] = '\0';
    } while (strcmp(text, "alive") == 0);
    return text;
}

static void tell(struct bench *b, const char *text)
{
    assert_int_equal(send(b->lifeline, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static int exit_code(struct bench *b)
{
    int status;

    assert_int_equal(waitpid(b->pid, &status, 0), b->pid);
    b->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* ---- tests ---- */

static void test_life(void **state)
{
    struct bench *b = *state;

    run(b, &good, NULL);
    assert_string_equal(hear(b), "note fd 0 -1");
    assert_string_equal(hear(b), "ready");
    tell(b, "reload");
    assert_string_equal(hear(b), "note reload yes");
    assert_int_equal(kill(b->pid, SIGHUP), 0);
    assert_string_equal(hear(b), "note reload yes");
    tell(b, "log debug");
    tell(b, "process weft-tls 1 0 ready");
    assert_string_equal(hear(b), "note line process weft-tls 1 0 ready");
    assert_int_equal(kill(b->pid, SIGTERM), 0); /* the supervisor decides */
    tell(b, "drain x");
    assert_string_equal(hear(b), "note line drain x");
    tell(b, "drain 1234");
    assert_string_equal(hear(b), "note drain 1234");
    assert_string_equal(hear(b), "drained");
    assert_int_equal(exit_code(b), 0);
}

static void test_slow_drain_is_told_once(void **state)
{
    struct bench *b = *state;

    run(b, &good, NULL);
    (void)hear(b);
    assert_string_equal(hear(b), "ready");
    tell(b, "drain 7");
    tell(b, "drain 8");
    tell(b, "still here");
    assert_string_equal(hear(b), "note drain 7");
    assert_string_equal(hear(b), "note line still here");
}

static void test_fail(void **state)
{
    struct bench *b = *state;

    run(b, &good, NULL);
    (void)hear(b);
    assert_string_equal(hear(b), "ready");
    tell(b, "fail");
    assert_int_equal(exit_code(b), 3);
}

static void test_start_fails(void **state)
{
    struct bench *b = *state;

    run(b, &bad, NULL);
    assert_int_equal(exit_code(b), 1);
    assert_string_equal(hear(b), "");
}

static void test_supervisor_gone(void **state)
{
    struct bench *b = *state;

    run(b, &good, NULL);
    (void)hear(b);
    assert_string_equal(hear(b), "ready");
    (void)close(b->lifeline);
    b->lifeline = 0;
    assert_int_equal(exit_code(b), 70);
}

static void test_by_hand(void **state)
{
    struct bench *b = *state;

    b->has_lifeline = false;
    run(b, &good, NULL);
    /* No word tells when it is ready; a SIGTERM before its handler is there ends it by itself. */
    for (unsigned i = 0; i < 100; i++) {
        char path[64], text[2048] = "";
        unsigned long long caught = 0;
        char *at;
        FILE *f;

        (void)snprintf(path, sizeof(path), "/proc/%d/status", b->pid);
        f = fopen(path, "r");
        if (f != NULL) {
            text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
            (void)fclose(f);
        }
        at = strstr(text, "SigCgt:");
        if (at != NULL)
            caught = strtoull(at + 7, NULL, 16);
        if ((caught & (1ull << (SIGTERM - 1))) != 0)
            break;
        (void)usleep(10000);
    }
    assert_int_equal(kill(b->pid, SIGTERM), 0);
    assert_int_equal(exit_code(b), 0);
}

static void test_descriptors(void **state)
{
    static const char *const bad_fds[] = {"null", "null=", "=4", "null=x", "null=2", "null=900",
                                          "null=4,", "a=4,,b=4", "name-that-is-much-too-long=4",
                                          "null=99999999999999999999"};
    struct bench *b = *state;
    char fds[32];
    int null = open("/dev/null", 0);

    (void)snprintf(fds, sizeof(fds), "null=%d,null=%d", null, null);
    run(b, &good, fds);
    assert_non_null(strstr(hear(b), "note fd 1 "));
    assert_string_equal(hear(b), "ready");
    tell(b, "drain 1");
    assert_int_equal(exit_code(b), 0);
    for (unsigned i = 0; i < sizeof(bad_fds) / sizeof(bad_fds[0]); i++) {
        if (i == 6) /* a comma at the end is no item: allowed */
            continue;
        (void)close(b->lifeline);
        run(b, &good, bad_fds[i]);
        assert_int_equal(exit_code(b), 64);
    }
    (void)close(null);
}

static void test_bad_settings(void **state)
{
    struct bench *b = *state;

    (void)setenv("WEFT_WORKERS", "-1", 1);
    run(b, &good, NULL);
    assert_int_equal(exit_code(b), 64);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_life),      CASE(test_slow_drain_is_told_once), CASE(test_fail),
        CASE(test_start_fails), CASE(test_supervisor_gone),       CASE(test_by_hand),
        CASE(test_descriptors), CASE(test_bad_settings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
