/* Makes the n-th allocation, read, write or opening of a socket of a running weft-proxy fail
 * (test_nth.py).
 *
 * Loaded with LD_PRELOAD into every process of a pod; does nothing but in weft-proxy, and there
 * nothing before the control file (FAKETIME_WEFT_FAULTS/POD, mapped at start, before the
 * process is confined; the prefix is what the supervisor passes on in tests) says so. What
 * counts:
 *   - allocations of the loop's thread, except those of libzmq and libstdc++, which abort
 * without memory by design (hardening.md section 3): a pod survives that by restart, which is
 * another test;
 *   - reads and writes of TCP sockets;
 *   - openings: socket() and accept4() without a free descriptor.
 * It also keeps the number and size of living allocations of weft-proxy, whoever made them. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FAULT_NONE, FAULT_ALLOC, FAULT_READ, FAULT_WRITE, FAULT_OPEN };
enum { MODE_SHORT, MODE_AGAIN, MODE_RESET, MODE_END };

struct control {
    _Atomic uint32_t kind, mode; /* kind NONE: only the living are counted */
    _Atomic uint64_t fail_at;    /* 1: the next */
    _Atomic uint64_t calls, hits;
    _Atomic int64_t living, living_bytes;
    uint64_t where[12]; /* who asked for the memory that was refused: addresses in weft-proxy's
                           file (addr2line) */
};

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t each);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);
extern void __libc_free(void *p);

static struct control *control;
static pid_t loop_thread;
static struct {
    uintptr_t from, to;
} spared[8];
static size_t n_spared;
static uintptr_t program; /* where weft-proxy is loaded */

static int spare_library(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size, (void)arg;
    if (info->dlpi_name[0] == 0)
        program = info->dlpi_addr;
    if (strstr(info->dlpi_name, "libzmq") == NULL &&
        strstr(info->dlpi_name, "libstdc++") == NULL)
        return 0;
    for (int i = 0; i < info->dlpi_phnum && n_spared < 8; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];

        if (h->p_type != PT_LOAD || (h->p_flags & PF_X) == 0)
            continue;
        spared[n_spared].from = info->dlpi_addr + h->p_vaddr;
        spared[n_spared].to = spared[n_spared].from + h->p_memsz;
        n_spared++;
    }
    return 0;
}

/* A process without a core says where it was: addresses in weft-proxy's file. */
static void on_crash(int number)
{
    void *frames[24];
    int n = backtrace(frames, 24);
    char line[600];
    size_t at =
        (size_t)snprintf(line, sizeof line, "crash signal=%d addr2line weft-proxy", number);

    for (int i = 0; i < n && at < sizeof line - 24; i++)
        at += (size_t)snprintf(line + at, sizeof line - at, " %#lx",
                               (unsigned long)((uintptr_t)frames[i] - program));
    line[at++] = '\n';
    if (syscall(SYS_write, STDERR_FILENO, line, at) < 0)
        number = 0;
    (void)signal(SIGSEGV, SIG_DFL);
}

__attribute__((constructor)) static void fault_start(void)
{
    const char *dir = getenv("FAKETIME_WEFT_FAULTS"), *pod = getenv("WEFT_POD");
    char path[4096], exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    void *at, *at_start;
    int fd;

    if (dir == NULL || pod == NULL || n <= 0)
        return;
    exe[n] = 0;
    if (strstr(exe, "/weft-proxy") == NULL)
        return;
    (void)snprintf(path, sizeof path, "%s/%s", dir, pod);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (at == MAP_FAILED)
        return;
    (void)dl_iterate_phdr(spare_library, NULL);
    (void)backtrace(&at_start, 1); /* loads what it needs, while files may be opened */
    loop_thread = (pid_t)syscall(SYS_gettid);
    (void)signal(SIGSEGV, on_crash);
    control = at;
    atomic_store(&control->living, 0);
    atomic_store(&control->living_bytes, 0);
}

static bool is_ours(uintptr_t caller)
{
    for (size_t i = 0; i < n_spared; i++)
        if (caller >= spared[i].from && caller < spared[i].to)
            return false;
    return true;
}

/* Counts a call of this kind; true if it is the one that fails. */
static bool is_the_one(uint32_t kind)
{
    uint64_t n;

    if (control == NULL || atomic_load_explicit(&control->kind, memory_order_relaxed) != kind ||
        (pid_t)syscall(SYS_gettid) != loop_thread)
        return false;
    n = atomic_fetch_add(&control->calls, 1) + 1;
    if (n != atomic_load(&control->fail_at))
        return false;
    atomic_fetch_add(&control->hits, 1);
    return true;
}

/* ---- allocations ---- */

#define CALLER ((uintptr_t)__builtin_return_address(0))

static void *born(void *p)
{
    if (control != NULL && p != NULL) {
        atomic_fetch_add_explicit(&control->living, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&control->living_bytes, (int64_t)malloc_usable_size(p),
                                  memory_order_relaxed);
    }
    return p;
}

static void died(void *p)
{
    if (control != NULL && p != NULL) {
        atomic_fetch_sub_explicit(&control->living, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&control->living_bytes, (int64_t)malloc_usable_size(p),
                                  memory_order_relaxed);
    }
}

static void note_where(void)
{
    void *frames[24];
    int n = backtrace(frames, 24);
    size_t k = 0;

    memset(control->where, 0, sizeof control->where);
    for (int i = 0; i < n && k < 12; i++) {
        uintptr_t at = (uintptr_t)frames[i] - program;

        if (at < 0x10000000)
            control->where[k++] = at;
    }
}

static bool is_refused(uintptr_t caller)
{
    if (control == NULL || !is_ours(caller) || !is_the_one(FAULT_ALLOC))
        return false;
    note_where();
    errno = ENOMEM;
    return true;
}

void *malloc(size_t n)
{
    return is_refused(CALLER) ? NULL : born(__libc_malloc(n));
}

void *calloc(size_t n, size_t each)
{
    return is_refused(CALLER) ? NULL : born(__libc_calloc(n, each));
}

void *realloc(void *p, size_t n)
{
    void *q;
    size_t had;

    if (n > 0 && is_refused(CALLER))
        return NULL;
    had = p != NULL ? malloc_usable_size(p) : 0;
    q = __libc_realloc(p, n);
    if (control != NULL && p != NULL && (q != NULL || n == 0)) {
        atomic_fetch_sub_explicit(&control->living, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&control->living_bytes, (int64_t)had, memory_order_relaxed);
    }
    return born(q);
}

int posix_memalign(void **out, size_t align, size_t n)
{
    void *p = is_refused(CALLER) ? NULL : born(__libc_memalign(align, n));

    if (p == NULL)
        return ENOMEM;
    *out = p;
    return 0;
}

void *aligned_alloc(size_t align, size_t n)
{
    return is_refused(CALLER) ? NULL : born(__libc_memalign(align, n));
}

void free(void *p)
{
    died(p);
    __libc_free(p);
}

/* ---- sockets ---- */

static bool is_tcp(int fd)
{
    int domain = 0, saved = errno;
    socklen_t n = sizeof domain;
    bool is = getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 &&
              (domain == AF_INET || domain == AF_INET6);

    errno = saved;
    return is;
}

static bool is_watched(uint32_t kind, int fd)
{
    return control != NULL &&
           atomic_load_explicit(&control->kind, memory_order_relaxed) == kind && is_tcp(fd);
}

/* What the chosen call does instead. True: *out is its result; false: it goes on with *n (at
 * most 1) bytes. */
static bool fail(uint32_t kind, size_t *n, ssize_t *out)
{
    switch (atomic_load(&control->mode)) {
    case MODE_SHORT:
        *n = *n > 0 ? 1 : 0;
        return false;
    case MODE_AGAIN:
        errno = EAGAIN;
        break;
    case MODE_RESET:
        errno = kind == FAULT_WRITE ? EPIPE : ECONNRESET;
        break;
    case MODE_END:
        *out = 0;
        return true;
    }
    *out = -1;
    return true;
}

static ssize_t result(long r)
{
    return (ssize_t)r; /* syscall() has set errno */
}

ssize_t read(int fd, void *p, size_t n)
{
    ssize_t r;

    if (is_watched(FAULT_READ, fd) && is_the_one(FAULT_READ) && fail(FAULT_READ, &n, &r))
        return r;
    return result(syscall(SYS_read, fd, p, n));
}

ssize_t recv(int fd, void *p, size_t n, int flags)
{
    ssize_t r;

    if (is_watched(FAULT_READ, fd) && is_the_one(FAULT_READ) && fail(FAULT_READ, &n, &r))
        return r;
    return result(syscall(SYS_recvfrom, fd, p, n, flags, NULL, NULL));
}

ssize_t readv(int fd, const struct iovec *v, int count)
{
    struct iovec one = *v;
    ssize_t r;

    if (is_watched(FAULT_READ, fd) && is_the_one(FAULT_READ)) {
        if (fail(FAULT_READ, &one.iov_len, &r))
            return r;
        return result(syscall(SYS_readv, fd, &one, 1));
    }
    return result(syscall(SYS_readv, fd, v, count));
}

ssize_t write(int fd, const void *p, size_t n)
{
    ssize_t r;

    if (is_watched(FAULT_WRITE, fd) && is_the_one(FAULT_WRITE) && fail(FAULT_WRITE, &n, &r))
        return r;
    return result(syscall(SYS_write, fd, p, n));
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
    ssize_t r;

    if (is_watched(FAULT_WRITE, fd) && is_the_one(FAULT_WRITE) && fail(FAULT_WRITE, &n, &r))
        return r;
    return result(syscall(SYS_sendto, fd, p, n, flags, NULL, 0));
}

ssize_t writev(int fd, const struct iovec *v, int count)
{
    struct iovec one = *v;
    ssize_t r;

    if (is_watched(FAULT_WRITE, fd) && is_the_one(FAULT_WRITE)) {
        if (fail(FAULT_WRITE, &one.iov_len, &r))
            return r;
        return result(syscall(SYS_writev, fd, &one, 1));
    }
    return result(syscall(SYS_writev, fd, v, count));
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    struct msghdr less = *m;
    struct iovec one;
    ssize_t r;

    if (is_watched(FAULT_WRITE, fd) && is_the_one(FAULT_WRITE)) {
        one = m->msg_iov[0];
        if (fail(FAULT_WRITE, &one.iov_len, &r))
            return r;
        less.msg_iov = &one;
        less.msg_iovlen = 1;
        return result(syscall(SYS_sendmsg, fd, &less, flags));
    }
    return result(syscall(SYS_sendmsg, fd, m, flags));
}

int socket(int domain, int type, int protocol)
{
    if ((domain == AF_INET || domain == AF_INET6) && is_the_one(FAULT_OPEN)) {
        errno = EMFILE;
        return -1;
    }
    return (int)syscall(SYS_socket, domain, type, protocol);
}

int accept4(int fd, struct sockaddr *a, socklen_t *n, int flags)
{
    if (is_watched(FAULT_OPEN, fd) && is_the_one(FAULT_OPEN)) {
        errno = EMFILE;
        return -1;
    }
    return (int)syscall(SYS_accept4, fd, a, n, flags);
}
