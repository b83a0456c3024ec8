/* Confinement: each case forks a child that enters it and does one thing. */
#include "kit/confine.h"

#include "kit/attr.h"
#include "kit/mailbox.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

/* What a child does. 0 = it worked, an errno = it was refused; to be killed is the third way. */
typedef int act_fn(void);

static char dir[64], other[80];

static int result(long rc)
{
    return rc >= 0 ? 0 : errno;
}

static int do_nothing(void)
{
    void *p = malloc(1 << 20);

    free(p);
    return getpid() > 0 ? 0 : 1;
}

static int do_exec(void)
{
    char path[] = "/bin/true", *argv[] = {path, NULL};

    return result(execv(path, argv));
}

static int do_fork(void)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    return result(pid);
}

static void *run_thread(void *arg)
{
    return arg;
}

static int do_thread(void)
{
    pthread_t t;

    return pthread_create(&t, NULL, run_thread, NULL);
}

static int do_open(void)
{
    return result(open("/etc/hostname", O_RDONLY | O_CLOEXEC));
}

static int do_open_passwd(void)
{
    return result(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
}

static int do_stat(void)
{
    struct stat st;

    return result(stat("/etc/passwd", &st));
}

static int do_write_inside(void)
{
    char path[100];

    (void)snprintf(path, sizeof(path), "%s/file", dir);
    return result(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static int do_write_outside(void)
{
    return result(open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static int do_socket(int family, int type)
{
    return result(socket(family, type | SOCK_CLOEXEC, 0));
}

static int do_tcp(void)
{
    return do_socket(AF_INET, SOCK_STREAM);
}

static int do_udp(void)
{
    return do_socket(AF_INET, SOCK_DGRAM);
}

static int do_unix(void)
{
    return do_socket(AF_UNIX, SOCK_STREAM);
}

static int do_raw(void)
{
    return do_socket(AF_PACKET, SOCK_RAW);
}

static int do_bind(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    return result(bind(fd, (struct sockaddr *)&sa, sizeof(sa)));
}

static int do_kill_parent(void)
{
    return result(kill(getppid(), 0));
}

static int do_ptrace(void)
{
    return result(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
}

static int do_code(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? errno : 0;
}

static int do_code_later(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return result(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

static int do_mount(void)
{
    return result(syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, NULL));
}

static int do_unshare(void)
{
    return result(syscall(SYS_unshare, 0x10000000 /* CLONE_NEWUSER */));
}

static int do_mlock(void)
{
    static char page[4096];

    return result(mlock(page, 1));
}

static int do_limit(void)
{
    const uint64_t limit[2] = {100, 100};

    return result(syscall(SYS_prlimit64, 0, 7, limit, NULL));
}

static int do_has_capability(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct caps[2];

    memset(caps, 0xff, sizeof(caps));
    /* read before the filter forbids it: see enter_and_do */
    if (syscall(SYS_capget, &head, caps) != 0)
        return errno;
    return caps[0].effective == 0 && caps[1].effective == 0 && caps[0].permitted == 0 ? 0 : 1;
}

static struct confine_spec spec_of(unsigned needs)
{
    struct confine_spec spec = {.needs = needs, .socket_dir = dir};

    if ((needs & CONFINE_FILES) != 0) {
        spec.read_paths[0] = "/etc/passwd";
        spec.write_paths[0] = dir;
    }
    return spec;
}

/* Exit status of the child: 0..125 result of act, 126 it could not be confined, 256 + signal. */
static int enter_and_do(unsigned needs, act_fn *act)
{
    struct confine_spec spec = spec_of(needs);
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        if (confine_enter(&spec) != OK)
            _exit(126);
        _exit(act());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

#define DIES (256 + SIGSYS)
#define ALL_BUT_SPAWN                                                                              \
    (CONFINE_TCP_ACCEPT | CONFINE_TCP_CONNECT | CONFINE_UNIX | CONFINE_TCP_BIND | CONFINE_FILES |  \
     CONFINE_KEYS | CONFINE_NAMES)

struct confine_case {
    const char *name;
    unsigned needs;
    act_fn *act;
    int want;
    bool is_landlock; /* refused by Landlock, so also in sanitizer builds */
};

static const struct confine_case cases[] = {
    {"memory and time", 0, do_nothing, 0, false},
    {"exec", 0, do_exec, DIES, false},
    {"exec with everything", ALL_BUT_SPAWN, do_exec, DIES, false},
    {"fork", 0, do_fork, DIES, false},
    {"thread", ALL_BUT_SPAWN, do_thread, DIES, false},
    {"open", 0, do_open, EACCES, false},
    {"open with sockets", CONFINE_UNIX | CONFINE_TCP_CONNECT, do_open, EACCES, false},
    {"stat", 0, do_stat, EACCES, false},
    {"read what is named", CONFINE_FILES, do_open_passwd, 0, true},
    {"read what is not", CONFINE_FILES, do_open, EACCES, false},
    {"names do not open other files", CONFINE_NAMES, do_open_passwd, EACCES, false},
    {"write inside", CONFINE_FILES, do_write_inside, 0, true},
    {"write outside", CONFINE_FILES, do_write_outside, EACCES, true},
    {"tcp", 0, do_tcp, DIES, false},
    {"tcp with unix only", CONFINE_UNIX, do_tcp, DIES, false},
    {"tcp allowed", CONFINE_TCP_CONNECT, do_tcp, 0, true},
    {"udp with tcp", CONFINE_TCP_CONNECT, do_udp, DIES, false},
    {"udp for names", CONFINE_NAMES, do_udp, 0, true},
    {"unix", CONFINE_TCP_CONNECT, do_unix, DIES, false},
    {"unix allowed", CONFINE_UNIX, do_unix, 0, true},
    {"packet", ALL_BUT_SPAWN, do_raw, DIES, false},
    {"bind without leave", CONFINE_TCP_CONNECT | CONFINE_UNIX, do_bind, EACCES, true},
    {"bind allowed", CONFINE_TCP_BIND, do_bind, 0, true},
    {"signal another", ALL_BUT_SPAWN, do_kill_parent, DIES, false},
    {"trace", ALL_BUT_SPAWN, do_ptrace, DIES, false},
    {"code in memory", ALL_BUT_SPAWN, do_code, DIES, false},
    {"memory becomes code", ALL_BUT_SPAWN, do_code_later, DIES, false},
    {"mount", ALL_BUT_SPAWN, do_mount, DIES, false},
    {"namespace", ALL_BUT_SPAWN, do_unshare, DIES, false},
    {"mlock", CONFINE_UNIX | CONFINE_FILES, do_mlock, DIES, false},
    {"mlock for keys", CONFINE_KEYS, do_mlock, 0, true},
    {"raise a limit", ALL_BUT_SPAWN, do_limit, DIES, false},
    {"spawner may fork", CONFINE_SPAWN, do_fork, 0, false},
    {"spawner may exec", CONFINE_SPAWN, do_exec, 0, false},
    {"spawner may not mount", CONFINE_SPAWN, do_mount, EPERM, false},
    {"spawner may not trace", CONFINE_SPAWN, do_ptrace, EPERM, false},
};

static void test_acts(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int got;

#if WEFT_SANITIZED
        if (!cases[i].is_landlock)
            continue;
#endif
        got = enter_and_do(cases[i].needs, cases[i].act);
        if (got != cases[i].want)
            print_message("case \"%s\": got %d, want %d\n", cases[i].name, got, cases[i].want);
        assert_int_equal(got, cases[i].want);
    }
}

#if !WEFT_SANITIZED
/* Every number that the table does not name kills, whatever else is allowed. */
static bool is_in_table(long nr)
{
    static const long named[] = {
#define CALL(name, needs) SYS_##name,
#define FILECALL(name)    SYS_##name,
#include "kit/tbl/syscalls.h"
        SYS_mmap, SYS_mprotect, SYS_tgkill, SYS_prlimit64, SYS_newfstatat, SYS_ioctl, SYS_prctl,
        SYS_socket, SYS_clone3, SYS_openat2};

    for (unsigned i = 0; i < sizeof(named) / sizeof(named[0]); i++)
        if (named[i] == nr)
            return true;
    return false;
}

static long number;

static int do_number(void)
{
    (void)syscall(number, -1, -1, -1, -1, -1, -1);
    return 0;
}

static void test_every_other_call_dies(void **state)
{
    static const unsigned masks[] = {0, ALL_BUT_SPAWN, CONFINE_UNIX | CONFINE_TCP_CONNECT,
                                     CONFINE_TCP_BIND | CONFINE_FILES};

    (void)state;
    for (unsigned m = 0; m < sizeof(masks) / sizeof(masks[0]); m++)
        for (number = 0; number < 480; number++) {
            int got;

            if (is_in_table(number) || number == 335 || number == 336)
                continue; /* uretprobe and uprobe: the kernel exempts them, and they fault or fail */
            got = enter_and_do(masks[m], do_number);
            if (got != DIES)
                print_message("call %ld with needs %#x: got %d\n", number, masks[m], got);
            assert_int_equal(got, DIES);
        }
}
#endif

static void test_missing_path_is_an_error(void **state)
{
    struct confine_spec spec = {.needs = CONFINE_FILES, .read_paths = {"/nonexistent/weft"}};
    pid_t pid = fork();
    int status;

    (void)state;
    if (pid == 0)
        _exit(confine_enter(&spec) == ERR_OF(CONFINE) ? 0 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* libzmq's threads are confined too: no capabilities, no new privileges, filter on. The parent reads it
 * from /proc, where the child cannot look any more. */
static void check_threads(pid_t pid)
{
    char path[64], line[256];
    unsigned threads = 0;

    for (int i = 0; i < 64; i++) { /* thread ids of a fresh process lie close behind its pid */
        unsigned seen = 0;
        FILE *f;

        (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, pid + i);
        f = fopen(path, "r");
        if (f == NULL)
            continue;
        threads++;
        while (fgets(line, sizeof(line), f) != NULL) {
            char key[32];
            unsigned long long v;

            if (sscanf(line, "%31[^:]: %llx", key, &v) != 2)
                continue;
            if (strcmp(key, "CapEff") == 0 || strcmp(key, "CapPrm") == 0) {
                assert_int_equal(v, 0);
                seen++;
            } else if (strcmp(key, "NoNewPrivs") == 0) {
                assert_int_equal(v, 1);
                seen++;
            } else if (strcmp(key, "Seccomp") == 0) {
                assert_int_equal(v, WEFT_SANITIZED ? 0 : 2);
                seen++;
            }
        }
        (void)fclose(f);
        assert_int_equal(seen, 4);
    }
    assert_true(threads >= 3);
}

static void test_threads_are_confined(void **state)
{
    int to_parent[2], to_child[2], status;
    char c = 0;
    pid_t pid;

    (void)state;
    assert_int_equal(pipe(to_parent), 0);
    assert_int_equal(pipe(to_child), 0);
    pid = fork();
    if (pid == 0) {
        struct confine_spec spec = spec_of(CONFINE_UNIX | CONFINE_FILES);
        struct event_base *base = event_base_new();

        spec.each_thread = mailbox_each_thread;
        if (mailbox_prepare(base) != OK || confine_enter(&spec) != OK)
            _exit(1);
        if (write(to_parent[1], "r", 1) != 1 || read(to_child[0], &c, 1) != 1)
            _exit(2);
        _exit(0);
    }
    assert_int_equal(read(to_parent[0], &c, 1), 1);
    check_threads(pid);
    assert_int_equal(write(to_child[1], "x", 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    for (unsigned i = 0; i < 2; i++)
        (void)close(to_parent[i]), (void)close(to_child[i]);
}

/* Mailboxes on ipc and on tcp opened after confinement, and a round trip over both. */
static unsigned heard;

static void on_msg(void *arg, const struct mailbox_msg *msg)
{
    (void)arg, (void)msg;
    heard++;
}

static void on_up(void *arg, bool is_up)
{
    struct mailbox **m = arg;

    if (is_up && mailbox_send(*m, SLICE_LIT(""), SLICE_LIT("x")) != OK)
        _exit(20);
}

static bool allow_all(void *arg, const struct mailbox_peer *peer, char user[64])
{
    (void)arg, (void)peer, (void)user;
    return true;
}

static int talk(struct event_base *base, const char *endpoint)
{
    char pub[MAILBOX_KEY_TEXT], sec[MAILBOX_KEY_TEXT];
    struct mailbox *r = NULL, *d = NULL;
    struct mailbox_conf conf = {.kind = MAILBOX_ROUTER, .name = "r", .endpoint = endpoint, .bind = true,
                                .allow = allow_all, .on_msg = on_msg};
    unsigned before = heard;

    if (mailbox_keypair(pub, sec) != OK)
        return 10;
    conf.secret_key = sec;
    if (mailbox_open(base, &conf, &r) != OK)
        return 11;
    conf = (struct mailbox_conf){.kind = MAILBOX_DEALER, .name = "d", .endpoint = mailbox_endpoint(r),
                                 .secret_key = sec, .public_key = pub, .server_key = pub,
                                 .on_link = on_up, .arg = &d};
    if (mailbox_open(base, &conf, &d) != OK)
        return 12;
    for (unsigned i = 0; i < 500 && heard == before; i++)
        if (event_base_loop(base, EVLOOP_ONCE) != 0)
            return 13;
    mailbox_close(&d);
    mailbox_close(&r);
    return heard != before ? 0 : 14;
}

static void test_mailboxes_after_confinement(void **state)
{
    pid_t pid = fork();
    int status, rc;

    (void)state;
    if (pid == 0) {
        struct confine_spec spec = spec_of(CONFINE_UNIX | CONFINE_TCP_CONNECT | CONFINE_TCP_BIND);
        struct event_base *base = event_base_new();
        char ipc[100];

        (void)alarm(20);
        spec.each_thread = mailbox_each_thread;
        (void)snprintf(ipc, sizeof(ipc), "ipc://%s/m.sock", dir);
        if (mailbox_prepare(base) != OK || confine_enter(&spec) != OK)
            _exit(1);
        rc = talk(base, ipc);
        if (rc == 0)
            rc = talk(base, "tcp://127.0.0.1:*");
        if (rc == 0)
            mailbox_shutdown();
        _exit(rc);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* Capabilities as the process itself sees them, where no filter forbids the question. */
static void test_capabilities(void **state)
{
#if WEFT_SANITIZED
    (void)state;
    assert_int_equal(enter_and_do(0, do_has_capability), 0);
#else
    (void)state;
    assert_int_equal(enter_and_do(0, do_has_capability), DIES);
#endif
}

static int make_dir(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/weft-confine-XXXXXX");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(other, sizeof(other), "%s-outside", dir);
    return 0;
}

static int remove_dir(void **state)
{
    char path[100];

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/file", dir);
    (void)unlink(path);
    (void)unlink(other);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acts),
#if !WEFT_SANITIZED
        cmocka_unit_test(test_every_other_call_dies),
#endif
        cmocka_unit_test(test_missing_path_is_an_error),
        cmocka_unit_test(test_threads_are_confined),
        cmocka_unit_test(test_mailboxes_after_confinement),
        cmocka_unit_test(test_capabilities),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
