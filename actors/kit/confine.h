/* Confinement: after start-up a process can do what its page says and nothing else.
 *
 * Order inside confine_enter: resource limits; in every thread no_new_privs, capabilities dropped and
 * Landlock (files; TCP where the kernel knows it; signals and abstract sockets scoped); dumpable off;
 * seccomp with TSYNC last. Where the kernel lacks Landlock the process runs without it and says so once (warn).
 * seccomp kills the process on a forbidden call (EACCES for path calls: glibc probes). In sanitizer
 * builds seccomp and RLIMIT_AS are skipped, since the sanitizers need more calls than we allow.
 */
#ifndef KIT_CONFINE_H
#define KIT_CONFINE_H

#include "kit/err.h"

#include <stdbool.h>
#include <stdint.h>

/* What a process needs besides memory, time, its loop and its mailboxes. */
enum confine_need {
    CONFINE_TCP_ACCEPT = 1 << 0,  /* accept on inherited listeners */
    CONFINE_TCP_CONNECT = 1 << 1, /* socket(AF_INET|AF_INET6, SOCK_STREAM), connect */
    CONFINE_UNIX = 1 << 2,        /* AF_UNIX sockets: mailboxes on ipc:// */
    CONFINE_TCP_BIND = 1 << 3,    /* bind, listen: mailboxes on tcp:// */
    CONFINE_FILES = 1 << 4,       /* open files, but only below read_paths and write_paths */
    CONFINE_SPAWN = 1 << 5,       /* fork and exec: the supervisor alone */
    CONFINE_KEYS = 1 << 6,        /* mlock, memory that is not dumped: weft-tls and the authority */
    CONFINE_NAMES = 1 << 7        /* look host names up: /etc/hosts, /etc/resolv.conf, datagrams: weft-link */
};

struct confine_spec {
    unsigned needs;
    const char *read_paths[8];  /* NULL-terminated; directories or files, absolute */
    const char *write_paths[8];
    uint64_t max_files;  /* RLIMIT_NOFILE; 0 = leave */
    uint64_t max_memory; /* RLIMIT_AS in bytes; 0 = leave */
    const char *socket_dir; /* CONFINE_UNIX: where ipc sockets are made and removed; actor_run fills in
                             * the run directory when it is NULL */
    /* Runs fn in every other thread of the process and waits for it; actor_run gives libzmq's. Needed
     * because capabilities and Landlock belong to a thread. NULL = there is no other thread. */
    err_t (*each_thread)(void (*fn)(void *arg), void *arg);
};

/* CONFINE_SPAWN is for a process whose children do something else and confine themselves: what is
 * entered here would be inherited, so it gets a short list of forbidden calls only (tracing, mounting,
 * modules, io_uring ...), and keeps its capabilities. */
MUST_USE err_t confine_enter(const struct confine_spec *spec);

/* Whether Landlock is in force (for `weft check`). */
bool confine_has_landlock(void);

#endif
