/* Opening what outlives the children. Everything is close-on-exec here; spawn.c lifts that for what the
 * child's row names. */
#include "supervisor/heritage.h"

#include "kit/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447 /* newer than some C libraries */
#endif

static err_t add(struct heritage *h, const char *name, int fd, int worker)
{
    BUG_ON(h->n == HERITAGE_MAX);
    h->heirs[h->n++] = (struct heir){name, fd, worker};
    return OK;
}

static err_t failed(const char *what, const char *name)
{
    log_error("start failed", "call=%s for=%s errno=%s", what, name, strerror(errno));
    return ERR_OF(OS);
}

/* ---- sockets ---- */

static bool bind_and_listen(int fd, const struct sockaddr *sa, socklen_t len)
{
    const int on = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0)
        return false;
    if (sa->sa_family == AF_INET6 &&
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) != 0)
        return false;
    return bind(fd, sa, len) == 0 && listen(fd, LISTEN_BACKLOG) == 0;
}

static err_t listen_on(struct heritage *h, const char *name, const struct sockaddr *sa, socklen_t len)
{
    bool is_v6 = sa->sa_family == AF_INET6;
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd >= 0 && bind_and_listen(fd, sa, len))
        return add(h, name, fd, HERITAGE_ANY);
    if (fd >= 0) {
        int why = errno;

        (void)close(fd);
        errno = why;
    }
    /* A machine (or a network namespace) without IPv6 is a normal thing. */
    if (is_v6 && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL || errno == EPROTONOSUPPORT)) {
        log_info("no IPv6 here", "for=%s errno=%s", name, strerror(errno));
        return OK;
    }
    return failed(is_v6 ? "listen on IPv6" : "listen", name);
}

static err_t listen_both(struct heritage *h, const char *name, uint32_t port, bool is_local, bool has_v6)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};

    v4.sin_addr.s_addr = htonl(is_local ? INADDR_LOOPBACK : INADDR_ANY);
    v6.sin6_addr = is_local ? in6addr_loopback : in6addr_any;
    TRY(listen_on(h, name, (const struct sockaddr *)&v4, sizeof(v4)));
    if (has_v6)
        TRY(listen_on(h, name, (const struct sockaddr *)&v6, sizeof(v6)));
    return OK;
}

/* ---- memory ---- */

/* A memfd whose size is fixed, so that no holder can make another's mapping fault. */
static err_t make_memfd(struct heritage *h, const char *name, size_t bytes, int worker)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return failed("memfd_create", name);
    if (ftruncate(fd, (off_t)bytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        err_t err = failed("seal", name);

        (void)close(fd);
        return err;
    }
    return add(h, name, fd, worker);
}

/* Memory that not even the kernel can read by its own map, if it can be had. */
static err_t make_vault(struct heritage *h)
{
    int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);

    if (fd >= 0 && ftruncate(fd, VAULT_BYTES) == 0)
        return add(h, "vault", fd, HERITAGE_ANY);
    log_warn("no secret memory here", "errno=%s instead=memfd", strerror(errno));
    if (fd >= 0)
        (void)close(fd);
    return make_memfd(h, "vault", VAULT_BYTES, HERITAGE_ANY);
}

err_t heritage_open(struct heritage *h, enum table_kind kind, const struct settings *s)
{
    *h = (struct heritage){.n = 0};
    if (kind == TABLE_CONTROL)
        return OK; /* its ports are ZeroMQ's */
    TRY(listen_both(h, "outbound", s->outbound_port, true, s->ipv6));
    TRY(listen_both(h, "inbound", s->inbound_port, false, s->ipv6));
    TRY(listen_both(h, "admin", s->admin_port, false, s->ipv6));
    TRY(make_vault(h));
    TRY(make_memfd(h, "limits", LIMITS_BYTES, HERITAGE_ANY));
    for (uint32_t i = 0; i < s->workers; i++)
        TRY(make_memfd(h, "series", SERIES_BYTES, (int)i));
    return OK;
}

void heritage_done(struct heritage *h)
{
    while (h->n != 0)
        (void)close(h->heirs[--h->n].fd);
}

unsigned heritage_for(const struct heritage *h, const struct process_row *row, int worker,
                      const struct heir *out[HERITAGE_MAX])
{
    unsigned n = 0;

    for (unsigned i = 0; i < h->n; i++) {
        const struct heir *heir = &h->heirs[i];

        if (process_inherits(row, heir->name) &&
            (heir->worker == HERITAGE_ANY || heir->worker == worker))
            out[n++] = heir;
    }
    return n;
}
