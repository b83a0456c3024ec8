/* The seccomp filter: tbl/syscalls.h plus the calls whose arguments matter.
 *
 * Arguments are compared as 64-bit values but most of these are ints: masks keep the upper half, which
 * the kernel ignores, out of it. */
#include "kit/confine_priv.h"
#include "kit/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <seccomp.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define INT_MASK    UINT64_C(0xffffffff)
#define SOCKET_TYPE UINT64_C(0xf) /* without SOCK_CLOEXEC and SOCK_NONBLOCK */

/* Collects the first failure, so that rules read as a list. */
struct filter {
    scmp_filter_ctx ctx;
    int rc;
};

static void add(struct filter *f, uint32_t action, const char *name, unsigned n,
                const struct scmp_arg_cmp *args)
{
    int nr = seccomp_syscall_resolve_name(name);
    int rc;

    if (nr == __NR_SCMP_ERROR || f->rc != 0) /* unknown to this libseccomp: stays forbidden */
        return;
    rc = seccomp_rule_add_array(f->ctx, action, nr, n, args);
    if (rc != 0) {
        log_error("seccomp rule", "call=%s errno=%s", name, strerror(-rc));
        f->rc = rc;
    }
}

static void allow(struct filter *f, const char *name)
{
    add(f, SCMP_ACT_ALLOW, name, 0, NULL);
}

/* Allows `name` when argument `arg`, masked, is `value`. */
static void allow_if(struct filter *f, const char *name, unsigned arg, uint64_t mask, uint64_t value)
{
    const struct scmp_arg_cmp cmp = SCMP_CMP(arg, SCMP_CMP_MASKED_EQ, mask, value);

    add(f, SCMP_ACT_ALLOW, name, 1, &cmp);
}

static void allow_socket(struct filter *f, int family, int type)
{
    const struct scmp_arg_cmp cmp[] = {
        SCMP_CMP(0, SCMP_CMP_MASKED_EQ, INT_MASK, (scmp_datum_t)family),
        SCMP_CMP(1, SCMP_CMP_MASKED_EQ, SOCKET_TYPE, (scmp_datum_t)type)};

    add(f, SCMP_ACT_ALLOW, "socket", 2, cmp);
}

static void allow_sockets(struct filter *f, unsigned needs)
{
    if ((needs & CONFINE_UNIX) != 0)
        allow_socket(f, AF_UNIX, SOCK_STREAM);
    if ((needs & (CONFINE_TCP_CONNECT | CONFINE_TCP_BIND)) != 0) {
        allow_socket(f, AF_INET, SOCK_STREAM);
        allow_socket(f, AF_INET6, SOCK_STREAM);
    }
    if ((needs & CONFINE_NAMES) != 0) {
        allow_socket(f, AF_INET, SOCK_DGRAM);
        allow_socket(f, AF_INET6, SOCK_DGRAM);
    }
    /* getaddrinfo() asks for the addresses of this machine, and so does libzmq before a bind. */
    if ((needs & (CONFINE_NAMES | CONFINE_TCP_BIND | CONFINE_TCP_CONNECT)) != 0)
        allow_socket(f, AF_NETLINK, SOCK_RAW);
}

static void allow_by_arguments(struct filter *f)
{
    static const uint64_t ioctls[] = {FIONREAD, FIONBIO, SIOCOUTQ};
    static const uint64_t prctls[] = {PR_SET_NAME, PR_GET_NAME};

    /* W^X: no memory becomes code after the start. */
    allow_if(f, "mmap", 2, PROT_EXEC, 0);
    allow_if(f, "mprotect", 2, PROT_EXEC, 0);
    /* Signals to ourselves only: abort(). */
    allow_if(f, "tgkill", 0, INT_MASK, (uint64_t)getpid());
    /* Reading limits, not setting them. */
    allow_if(f, "prlimit64", 2, UINT64_MAX, 0);
    /* fstat() of today's glibc. */
    allow_if(f, "newfstatat", 3, AT_EMPTY_PATH, AT_EMPTY_PATH);
    for (unsigned i = 0; i < sizeof(ioctls) / sizeof(ioctls[0]); i++)
        allow_if(f, "ioctl", 1, INT_MASK, ioctls[i]);
    for (unsigned i = 0; i < sizeof(prctls) / sizeof(prctls[0]); i++)
        allow_if(f, "prctl", 0, INT_MASK, prctls[i]);
}

static void allow_all_of(struct filter *f, unsigned needs)
{
    const struct scmp_arg_cmp by_name = SCMP_CMP(3, SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, 0);
    bool has_files = (needs & (CONFINE_FILES | CONFINE_NAMES)) != 0;

#define CALL(name, need)                                                                           \
    if ((need) == 0 || (needs & (unsigned)(need)) != 0)                                            \
        allow(f, #name);
#define FILECALL(name) add(f, has_files ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EACCES), #name, 0, NULL);
#include "kit/tbl/syscalls.h"
    allow_by_arguments(f);
    /* One rule per condition: libseccomp refuses a second one with another action. */
    add(f, has_files ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EACCES), "newfstatat", 1, &by_name);
    allow_sockets(f, needs);
    /* glibc tries this and then clone(), which is forbidden. */
    add(f, SCMP_ACT_ERRNO(ENOSYS), "clone3", 0, NULL);
    add(f, SCMP_ACT_ERRNO(ENOSYS), "openat2", 0, NULL);
}

/* For the supervisor and, since a filter is inherited, for all its children. */
static void forbid_always(struct filter *f)
{
    static const char *const names[] = {
        "ptrace",          "process_vm_readv", "process_vm_writev", "bpf",
        "userfaultfd",     "perf_event_open",  "add_key",           "request_key",
        "keyctl",          "mount",            "umount2",           "pivot_root",
        "move_mount",      "fsopen",           "open_tree",         "unshare",
        "setns",           "init_module",      "finit_module",      "delete_module",
        "kexec_load",      "kexec_file_load",  "io_uring_setup",    "io_uring_enter",
        "io_uring_register", "reboot",         "swapon",            "swapoff",
        "acct",            "iopl",             "ioperm",            "settimeofday",
        "clock_settime",   "adjtimex",         "clock_adjtime",     "personality"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        add(f, SCMP_ACT_ERRNO(EPERM), names[i], 0, NULL);
}

err_t confine_seccomp_enter(const struct confine_spec *spec)
{
    bool is_spawner = (spec->needs & CONFINE_SPAWN) != 0;
    struct filter f = {.rc = 0};

    f.ctx = seccomp_init(is_spawner ? SCMP_ACT_ALLOW : SCMP_ACT_KILL_PROCESS);
    if (f.ctx == NULL)
        return ERR_OF(NOMEM);
    f.rc = seccomp_attr_set(f.ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    if (f.rc == 0) /* a binary tree of calls instead of a list: fewer steps per call */
        f.rc = seccomp_attr_set(f.ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (is_spawner)
        forbid_always(&f);
    else
        allow_all_of(&f, spec->needs);
    if (f.rc == 0)
        f.rc = seccomp_load(f.ctx);
    seccomp_release(f.ctx);
    if (f.rc == 0)
        return OK;
    log_error("seccomp refused", "errno=%s", strerror(-f.rc));
    return ERR_OF(CONFINE);
}
