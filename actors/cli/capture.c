/* One connection, one line. */
#include "cli/capture.h"

#include "cli/files.h"
#include "kit/buf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static uint64_t capture_now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool capture_address(const char *ip, struct sockaddr_storage *out, socklen_t *len)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(CAPTURE_PORT)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(CAPTURE_PORT)};

    if (inet_pton(AF_INET, ip, &v4.sin_addr) == 1) {
        memcpy(out, &v4, sizeof v4);
        *len = sizeof v4;
        return true;
    }
    if (inet_pton(AF_INET6, ip, &v6.sin6_addr) == 1) {
        memcpy(out, &v6, sizeof v6);
        *len = sizeof v6;
        return true;
    }
    return false;
}

/* Waits for `events`; false at the deadline. */
static bool capture_wait(int fd, short events, uint64_t end)
{
    for (;;) {
        struct pollfd p = {fd, events, 0};
        uint64_t now = capture_now_ms();
        int n;

        if (now >= end)
            return false;
        n = poll(&p, 1, (int)(end - now));
        if (n > 0)
            return true;
        if (n < 0 && errno != EINTR)
            return false;
    }
}

static enum capture_result capture_listen(int fd, uint64_t end)
{
    char got[64];
    size_t n = 0;

    for (;;) {
        ssize_t r;

        if (!capture_wait(fd, POLLIN, end))
            return n > 0 ? CAPTURE_STRANGER : CAPTURE_SILENT;
        r = recv(fd, got + n, sizeof got - n, 0);
        if (r < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (r > 0)
            n += (size_t)r;
        if (n == sizeof CAPTURE_ANSWER - 1 && memcmp(got, CAPTURE_ANSWER, n) == 0)
            return CAPTURE_WORKS;
        if (r <= 0 || n >= sizeof CAPTURE_ANSWER - 1)
            return CAPTURE_STRANGER;
    }
}

static enum capture_result capture_connected(int fd, const struct sockaddr *to, socklen_t len,
                                             uint64_t end, struct trouble *why)
{
    int error = 0;
    socklen_t n = sizeof error;

    if (connect(fd, to, len) != 0) {
        if (errno != EINPROGRESS) {
            error = errno;
        } else {
            if (!capture_wait(fd, POLLOUT, end))
                return CAPTURE_SILENT;
            if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0)
                error = errno;
        }
    }
    if (error == ECONNREFUSED)
        return CAPTURE_REFUSED;
    if (error == ETIMEDOUT || error == EHOSTUNREACH || error == ENETUNREACH ||
        error == EACCES ||
        error == EPERM) /* it went to the dead end, or to the shores of the namespace */
        return CAPTURE_SILENT;
    if (error != 0) {
        errno = error;
        (void)trouble_errno(why, "connect");
        return CAPTURE_ERROR;
    }
    return capture_listen(fd, end);
}

/* Inbound the proxy knows the probe by its source port (a program of the pod may listen on
 * 20001 itself). Ending with a reset leaves no TIME_WAIT behind that would stand in the next
 * probe's way. */
static bool capture_bind(int fd, int family)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(CAPTURE_PORT)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(CAPTURE_PORT)};
    struct linger reset = {.l_onoff = 1};
    int on = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) != 0)
        return false;
    return family == AF_INET ? bind(fd, (struct sockaddr *)&v4, sizeof v4) == 0
                             : bind(fd, (struct sockaddr *)&v6, sizeof v6) == 0;
}

enum capture_result capture_probe(const char *ip, uint32_t wait_ms, struct trouble *why)
{
    uint64_t end = capture_now_ms() + wait_ms;
    struct sockaddr_storage to;
    socklen_t len;
    enum capture_result r;
    int fd;

    if (!capture_address(ip, &to, &len)) {
        (void)trouble_set(why, ERR_OF(USAGE), "%s is no address", ip);
        return CAPTURE_ERROR;
    }
    fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        (void)trouble_errno(why, "socket");
        return CAPTURE_ERROR;
    }
    if (!capture_bind(fd, to.ss_family)) {
        (void)trouble_errno(why, "port %d", CAPTURE_PORT);
        close(fd);
        return CAPTURE_ERROR;
    }
    r = capture_connected(fd, (struct sockaddr *)&to, len, end, why);
    close(fd);
    return r;
}

void capture_explain(enum capture_result r, const char *direction, const char *ip,
                     const struct trouble *error, struct trouble *out)
{
    const char *said = "";
    bool is_in = strcmp(direction, "inbound") == 0;

    switch (r) {
    case CAPTURE_WORKS:
        said = "is captured";
        break;
    case CAPTURE_REFUSED:
        said = is_in ? "is not redirected, or weft-proxy does not listen"
                     : "is redirected, but weft-proxy does not listen";
        break;
    case CAPTURE_SILENT:
        said = "is not redirected";
        break;
    case CAPTURE_STRANGER:
        said = "is answered by something that is not weft-proxy";
        break;
    case CAPTURE_ERROR:
        (void)trouble_set(out, OK, "%s traffic cannot be probed (%s): %s", direction, ip,
                          error->text);
        return;
    }
    (void)trouble_set(out, OK, "%s traffic %s (probe of %s:%d)", direction, said, ip,
                      CAPTURE_PORT);
}

err_t capture_write(const char *pod_run_dir, bool is_ok, const char *reason,
                    struct trouble *why)
{
    char text[256];
    int dir = open(pod_run_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fd, n;
    bool good;

    if (dir < 0)
        return trouble_errno(why, "%s", pod_run_dir);
    n = is_ok ? snprintf(text, sizeof text, "ok\n")
              : snprintf(text, sizeof text, "not-protected %.200s\n", reason);
    (void)unlinkat(dir, "capture.new",
                   0); /* one left by a crash, or by whoever owns the directory */
    fd = openat(dir, "capture.new", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    good = fd >= 0 && write(fd, text, (size_t)n) == n &&
           renameat(dir, "capture.new", dir, "capture") == 0;
    if (fd >= 0)
        close(fd);
    close(dir);
    return good ? OK : trouble_errno(why, "%s/capture", pod_run_dir);
}

void capture_read(const char *pod_run_dir, char out[256])
{
    char path[FILES_PATH_MAX];
    struct trouble why;
    struct buf b;

    (void)snprintf(out, 256, "unknown");
    buf_init(&b, 0);
    if (files_path(path, "%s/capture", pod_run_dir) && files_read(path, 255, &b, &why) == OK) {
        slice_t s = buf_slice(&b);

        while (s.n > 0 && s.p[s.n - 1] == '\n')
            s.n--;
        if (!slice_to_cstr(s, out, 256))
            (void)snprintf(out, 256, "unknown");
    }
    buf_done(&b);
}
