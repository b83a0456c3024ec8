/* Landlock by its three system calls; Debian 12's header stops at the second version of the interface,
 * so the numbers are ours (include/uapi/linux/landlock.h of the kernel). */
#include "kit/confine_priv.h"
#include "kit/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NR_CREATE_RULESET 444
#define NR_ADD_RULE       445
#define NR_RESTRICT_SELF  446

#define CREATE_VERSION  (1u << 0)
#define RULE_PATH       1
#define RESTRICT_TSYNC  (1u << 3) /* version 8: all threads at once */

#define FS_EXECUTE     (UINT64_C(1) << 0)
#define FS_WRITE_FILE  (UINT64_C(1) << 1)
#define FS_READ_FILE   (UINT64_C(1) << 2)
#define FS_READ_DIR    (UINT64_C(1) << 3)
#define FS_REMOVE_DIR  (UINT64_C(1) << 4)
#define FS_REMOVE_FILE (UINT64_C(1) << 5)
#define FS_MAKE_CHAR   (UINT64_C(1) << 6)
#define FS_MAKE_DIR    (UINT64_C(1) << 7)
#define FS_MAKE_REG    (UINT64_C(1) << 8)
#define FS_MAKE_SOCK   (UINT64_C(1) << 9)
#define FS_REFER       (UINT64_C(1) << 13) /* version 2 */
#define FS_TRUNCATE    (UINT64_C(1) << 14) /* version 3 */
#define FS_V1          ((UINT64_C(1) << 13) - 1)
#define FS_IOCTL_DEV   (UINT64_C(1) << 15) /* version 5 */
#define NET_BIND       (UINT64_C(1) << 0)  /* version 4 */
#define NET_CONNECT    (UINT64_C(1) << 1)
#define SCOPE_ALL      (UINT64_C(3)) /* version 6: abstract unix sockets, signals */

#define RIGHTS_FILE  (FS_READ_FILE | FS_WRITE_FILE | FS_TRUNCATE | FS_EXECUTE | FS_IOCTL_DEV)
#define RIGHTS_READ  (FS_READ_FILE | FS_READ_DIR)
#define RIGHTS_WRITE                                                                               \
    (RIGHTS_READ | FS_WRITE_FILE | FS_TRUNCATE | FS_REMOVE_DIR | FS_REMOVE_FILE | FS_MAKE_DIR |     \
     FS_MAKE_REG | FS_MAKE_SOCK)
#define RIGHTS_SOCKET_DIR (FS_MAKE_SOCK | FS_REMOVE_FILE)

struct ruleset_attr {
    uint64_t fs, net, scope;
};

struct path_rule {
    uint64_t allowed;
    int32_t parent_fd;
} __attribute__((packed));

static long abi_version(void)
{
    return syscall(NR_CREATE_RULESET, NULL, 0, CREATE_VERSION);
}

static struct ruleset_attr handled(long abi, unsigned needs)
{
    struct ruleset_attr a = {.fs = FS_V1};

    if (abi >= 2)
        a.fs |= FS_REFER;
    if (abi >= 3)
        a.fs |= FS_TRUNCATE;
    if (abi >= 5)
        a.fs |= FS_IOCTL_DEV;
    if (abi >= 4)
        a.net = ((needs & CONFINE_TCP_BIND) == 0 ? NET_BIND : 0) |
                ((needs & CONFINE_TCP_CONNECT) == 0 ? NET_CONNECT : 0);
    if (abi >= 6)
        a.scope = SCOPE_ALL;
    return a;
}

/* Kernels refuse attributes longer than they know. */
static size_t attr_size(long abi)
{
    return abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
}

static err_t allow_path(int ruleset, uint64_t known, const char *path, uint64_t rights, bool must_be)
{
    struct path_rule rule;
    struct stat st;
    int fd = open(path, O_PATH | O_CLOEXEC);
    long rc;

    if (fd < 0 && !must_be)
        return OK;
    if (fd < 0 || fstat(fd, &st) != 0) {
        log_error("confine path", "path=%s errno=%s", path, strerror(errno));
        if (fd >= 0)
            (void)close(fd);
        return ERR_OF(CONFINE);
    }
    if (!S_ISDIR(st.st_mode))
        rights &= RIGHTS_FILE;
    rule = (struct path_rule){.allowed = rights & known, .parent_fd = fd};
    rc = syscall(NR_ADD_RULE, ruleset, RULE_PATH, &rule, 0);
    if (rc != 0)
        log_error("confine path", "path=%s errno=%s", path, strerror(errno));
    (void)close(fd);
    return rc == 0 ? OK : ERR_OF(CONFINE);
}

static err_t allow_names(int ruleset, uint64_t known)
{
    static const char *const files[] = {"/etc/hosts",     "/etc/resolv.conf", "/etc/nsswitch.conf",
                                        "/etc/host.conf", "/etc/gai.conf",    "/etc/services"};

    for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        TRY(allow_path(ruleset, known, files[i], FS_READ_FILE, false));
    return OK;
}

static err_t allow_paths(int ruleset, uint64_t known, const struct confine_spec *spec)
{
    const unsigned most = sizeof(spec->read_paths) / sizeof(spec->read_paths[0]);

    if ((spec->needs & CONFINE_UNIX) != 0 && spec->socket_dir != NULL)
        TRY(allow_path(ruleset, known, spec->socket_dir, RIGHTS_SOCKET_DIR, false));
    if ((spec->needs & CONFINE_NAMES) != 0)
        TRY(allow_names(ruleset, known));
#if WEFT_SANITIZED
    /* The sanitizers read /proc and the program itself when they report. */
    TRY(allow_path(ruleset, known, "/", RIGHTS_READ, true));
#endif
    if ((spec->needs & CONFINE_FILES) == 0)
        return OK;
    for (unsigned i = 0; i < most && spec->read_paths[i] != NULL; i++)
        TRY(allow_path(ruleset, known, spec->read_paths[i], RIGHTS_READ, true));
    for (unsigned i = 0; i < most && spec->write_paths[i] != NULL; i++)
        TRY(allow_path(ruleset, known, spec->write_paths[i], RIGHTS_WRITE, true));
    return OK;
}

err_t confine_landlock_open(const struct confine_spec *spec, int *fd)
{
    long abi = abi_version();
    struct ruleset_attr attr;
    int ruleset;
    err_t err;

    if (abi < 1) {
        log_warn("Landlock is missing", "errno=%s", strerror(errno));
        *fd = -1;
        return OK;
    }
    attr = handled(abi, spec->needs);
    ruleset = (int)syscall(NR_CREATE_RULESET, &attr, attr_size(abi), 0);
    if (ruleset < 0) {
        log_error("Landlock refused", "call=create_ruleset errno=%s", strerror(errno));
        return ERR_OF(CONFINE);
    }
    err = allow_paths(ruleset, attr.fs, spec);
    if (err != OK) {
        (void)close(ruleset);
        return err;
    }
    *fd = ruleset;
    return OK;
}

/* Also run in threads that are not ours: system calls and nothing else. */
err_t confine_landlock_enter(int fd, bool *has_tsync)
{
    *has_tsync = abi_version() >= 8 && syscall(NR_RESTRICT_SELF, fd, RESTRICT_TSYNC) == 0;
    if (*has_tsync || syscall(NR_RESTRICT_SELF, fd, 0) == 0)
        return OK;
    return ERR_OF(CONFINE);
}
