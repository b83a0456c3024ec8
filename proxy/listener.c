/* One listening socket: accepts in bounded bursts, pauses when the process is full. */
#include "kit/log.h"
#include "proxy/front.h"
#include "proxy/net/conn.h"
#include "proxy/worker.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct listener {
    struct worker *worker;
    int fd;
    enum direction direction;
    struct event ev;
    struct timer pause;
};

static void pause_listener(struct listener *l, const char *why)
{
    log_warn("accepting paused", "direction=%s why=%s connections=%zu",
             direction_name(l->direction), why, net_count(l->worker->net));
    tally_bad_input(l->worker->tallies, "accept_paused");
    (void)event_del(&l->ev);
    timer_once(&l->pause, LISTENER_PAUSE_MS);
}

static void on_pause_end(void *arg)
{
    struct listener *l = arg;

    if (event_add(&l->ev, NULL) != 0)
        timer_once(&l->pause, LISTENER_PAUSE_MS);
}

static void take(struct listener *l, int fd)
{
    struct worker *w = l->worker;
    struct conn *c;

    if (w->drain >= DRAIN_INBOUND &&
        (l->direction == DIRECTION_INBOUND || w->drain >= DRAIN_OUTBOUND)) {
        /* Leaving: a reset before the first byte proves that nothing was delivered. */
        const struct linger reset = {.l_onoff = 1, .l_linger = 0};

        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        (void)close(fd);
        return;
    }
    if (conn_accepted(w->net, fd, &c) != OK)
        return; /* it has closed the socket */
    front_accept(w, c, l->direction);
}

static void on_acceptable(evutil_socket_t lfd, short what, void *arg)
{
    struct listener *l = arg;

    (void)what;
    for (unsigned i = 0; i < LISTENER_PER_TURN; i++) {
        int fd;

        if (net_count(l->worker->net) >= l->worker->settings->max_connections) {
            pause_listener(l, "WEFT_MAX_CONNECTIONS");
            return;
        }
        fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take(l, fd);
            continue;
        }
        switch (errno) {
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            pause_listener(l, "no file descriptor or memory");
            return;
        case EINTR:
        case ECONNABORTED: /* gone before we took it */
            continue;
        default: /* EAGAIN: all taken (perhaps by another worker) */
            return;
        }
    }
}

err_t listener_start(struct worker *w, int fd, enum direction direction, struct listener **out)
{
    struct listener *l = calloc(1, sizeof(*l));
    int flags = fcntl(fd, F_GETFL);

    if (l == NULL)
        return ERR_OF(NOMEM);
    l->worker = w;
    l->fd = fd;
    l->direction = direction;
    timer_init(&l->pause, w->base, on_pause_end, l);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
        event_assign(&l->ev, w->base, fd, EV_READ | EV_PERSIST, on_acceptable, l) != 0 ||
        event_add(&l->ev, NULL) != 0) {
        free(l);
        return ERR_OF(OS);
    }
    *out = l;
    return OK;
}

void listener_stop(struct listener **lp)
{
    struct listener *l = *lp;

    if (l == NULL)
        return;
    *lp = NULL;
    (void)event_del(&l->ev);
    timer_stop(&l->pause);
    free(l);
}
