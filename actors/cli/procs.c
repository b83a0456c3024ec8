/* /proc, read bounded, and pidfds. */
#include "cli/procs.h"

#include "kit/slice.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ENVIRON_MAX (128u << 10)

/* Reads a file of /proc into buf (NUL-terminated); the length, or -1. */
static ssize_t proc_read(pid_t pid, const char *what, char *buf, size_t cap)
{
    char path[64];
    size_t got = 0;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, what);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    while (got < cap - 1) {
        ssize_t n = read(fd, buf + got, cap - 1 - got);

        if (n <= 0)
            break;
        got += (size_t)n;
    }
    close(fd);
    buf[got] = '\0';
    return (ssize_t)got;
}

bool proc_identify(pid_t pid, struct proc_id *out)
{
    char stat[1024];
    char *p;

    if (pid <= 0 || proc_read(pid, "stat", stat, sizeof stat) <= 0)
        return false;
    p = strrchr(stat, ')'); /* the name may hold anything, also ')' and blanks */
    if (p == NULL || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X')
        return false;
    p += 2; /* field 3 */
    for (unsigned field = 3; field < 22; field++) {
        p = strchr(p, ' ');
        if (p == NULL)
            return false;
        p++;
    }
    out->pid = pid;
    out->start = strtoull(p, NULL, 10);
    return true;
}

bool proc_is_alive(const struct proc_id *id)
{
    struct proc_id now;

    return proc_identify(id->pid, &now) && now.start == id->start;
}

bool proc_signal(const struct proc_id *id, int sig)
{
    int fd = pidfd_open(id->pid, 0);
    bool sent = false;

    if (fd < 0)
        return false;
    if (proc_is_alive(
            id)) /* checked behind the open: the pidfd cannot be somebody else's now */
        sent = pidfd_send_signal(fd, sig, NULL, 0) == 0;
    close(fd);
    return sent;
}

static uint64_t procs_now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Waits until all are gone or `end` is reached; returns how many are left. */
static size_t procs_wait_all(const struct proc_list *list, uint64_t end)
{
    for (;;) {
        size_t left = 0;

        for (size_t i = 0; i < list->n; i++)
            left += proc_is_alive(&list->at[i]) ? 1 : 0;
        if (left == 0 || procs_now_ms() >= end)
            return left;
        (void)poll(NULL, 0, 10);
    }
}

size_t proc_end_all(const struct proc_list *list, uint64_t grace_ms)
{
    if (grace_ms > 0) {
        for (size_t i = 0; i < list->n; i++)
            (void)proc_signal(&list->at[i], SIGTERM);
        if (procs_wait_all(list, procs_now_ms() + grace_ms) == 0)
            return 0;
    }
    for (size_t i = 0; i < list->n; i++)
        (void)proc_signal(&list->at[i], SIGKILL);
    return procs_wait_all(list, procs_now_ms() + 2000);
}

/* Calls fn for every process; fn says whether it belongs into the list. */
static void procs_select(bool (*fn)(pid_t pid, const void *arg), const void *arg,
                         struct proc_list *out)
{
    DIR *dir = opendir("/proc");

    out->n = 0;
    if (dir == NULL)
        return;
    for (struct dirent *d = readdir(dir); d != NULL && out->n < PROCS_MAX; d = readdir(dir)) {
        pid_t pid = isdigit((unsigned char)d->d_name[0]) ? (pid_t)atoi(d->d_name) : 0;
        struct proc_id id;

        if (pid <= 0 || pid == getpid() || !proc_identify(pid, &id) || !fn(pid, arg))
            continue;
        if (proc_is_alive(&id)) /* what fn looked at was still this process */
            out->at[out->n++] = id;
    }
    closedir(dir);
}

static bool procs_has_netns(pid_t pid, const void *arg)
{
    const struct stat *want = arg;
    struct stat st;
    char path[64];

    (void)snprintf(path, sizeof path, "/proc/%d/ns/net", (int)pid);
    return stat(path, &st) == 0 && st.st_dev == want->st_dev && st.st_ino == want->st_ino;
}

void proc_in_netns(const char *netns_path, struct proc_list *out)
{
    struct stat want, ours;

    out->n = 0;
    if (stat(netns_path, &want) != 0 || stat("/proc/self/ns/net", &ours) != 0)
        return;
    if (want.st_dev != ours.st_dev || want.st_ino == ours.st_ino)
        return; /* not a mounted namespace (a crash before the mount), or our own: nobody to
                   find */
    procs_select(procs_has_netns, &want, out);
}

static bool procs_has_run_dir(pid_t pid, const void *arg)
{
    const char *run_dir = arg;
    size_t len = strlen(run_dir);
    char exe[64];
    char *env;
    ssize_t n;
    bool found = false;

    proc_exe_name(pid, exe);
    if (strncmp(exe, "weft-", 5) != 0)
        return false;
    env = malloc(ENVIRON_MAX);
    n = env != NULL ? proc_read(pid, "environ", env, ENVIRON_MAX) : -1;
    for (ssize_t at = 0; at < n && !found; at += (ssize_t)strlen(env + at) + 1) {
        const char *value = env + at + sizeof "WEFT_RUN_DIR=" - 1;

        found = strncmp(env + at, "WEFT_RUN_DIR=", sizeof "WEFT_RUN_DIR=" - 1) == 0 &&
                strncmp(value, run_dir, len) == 0 && (value[len] == '\0' || value[len] == '/');
    }
    free(env);
    return found;
}

void proc_of_run_dir(const char *run_dir, struct proc_list *out)
{
    procs_select(procs_has_run_dir, run_dir, out);
}

void proc_exe_name(pid_t pid, char out[64])
{
    char path[64], target[512];
    char *name, *deleted;
    ssize_t n;

    out[0] = '\0';
    (void)snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    n = readlink(path, target, sizeof target - 1);
    if (n <= 0)
        return;
    target[n] = '\0';
    deleted = strstr(target, " (deleted)");
    if (deleted != NULL)
        *deleted = '\0';
    name = strrchr(target, '/');
    (void)snprintf(out, 64, "%.63s", name != NULL ? name + 1 : target);
}

uint64_t proc_pss_kib(pid_t pid)
{
    char text[2048];
    const char *line;

    if (proc_read(pid, "smaps_rollup", text, sizeof text) <= 0)
        return 0;
    line = strstr(text, "\nPss:");
    return line != NULL ? strtoull(line + 5, NULL, 10) : 0;
}

void proc_print(const struct proc_id *id, char out[PROC_ID_TEXT])
{
    (void)snprintf(out, PROC_ID_TEXT, "%d %" PRIu64, (int)id->pid, id->start);
}

bool proc_parse(const char *text, struct proc_id *out)
{
    const char *blank = strchr(text, ' ');
    uint64_t pid, start;
    size_t n;

    if (blank == NULL || !slice_to_u64(slice(text, (size_t)(blank - text)), &pid))
        return false;
    n = strcspn(blank + 1, "\n");
    if (!slice_to_u64(slice(blank + 1, n), &start) || pid == 0 || pid > INT32_MAX)
        return false;
    out->pid = (pid_t)pid;
    out->start = start;
    return true;
}
