/* One listening socket: accepts in bounded bursts, pauses when the process is full.
 *
 * Several workers share the socket, so that what waits in it never waits for one of them alone. Each is told of every new
 * connection (once: edge-triggered) and takes it unless it is ahead: it has more connections of this direction than the
 * worker with the fewest, by more than listener_slack. Whoever is ahead looks again a millisecond later, and takes what
 * still waits then for LISTENER_PATIENCE looks: the other one is stuck in a long turn, or dead.
 *
 *   WATCHING --one waits, we are ahead--> YIELDING --nothing waits any more, or we take it--> WATCHING
 *   either   --no descriptor, no room---> PAUSED   --100 ms--> WATCHING
 */
#include "kit/log.h"
#include "proxy/front.h"
#include "proxy/limit/shared.h"
#include "proxy/net/conn.h"
#include "proxy/worker.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct listener {
    struct worker *worker;
    int fd;
    enum direction direction;
    struct event ev;
    struct timer pause;
    bool is_shared; /* with other workers */
    unsigned looks; /* YIELDING: how often we have let the others go first; 0: WATCHING */
    struct timer yield;
};

#define LISTENER_YIELD_MS 1
#define LISTENER_PATIENCE 4

static void pause_listener(struct listener *l, const char *why)
{
    log_warn("accepting paused", "direction=%s why=%s connections=%zu",
             direction_name(l->direction), why, net_count(l->worker->net));
    tally_bad_input(l->worker->tallies, "accept_paused");
    (void)event_del(&l->ev);
    timer_stop(&l->yield);
    l->looks = 0;
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

/* How far ahead of the others a worker may be: none of few connections, an eighth of many, so that a burst of new ones
 * is not taken one by one. */
static uint32_t slack(uint32_t least)
{
    return least / 8;
}

static bool is_ahead(const struct listener *l)
{
    const struct worker *w = l->worker;
    uint32_t least, own = limit_counter_own(w->limit_shared, w->load[l->direction], &least);

    return least != UINT32_MAX && own > least + slack(least);
}

static bool has_waiting(const struct listener *l)
{
    struct pollfd p = {.fd = l->fd, .events = POLLIN};

    return poll(&p, 1, 0) > 0;
}

/* True: another one is to take what waits. */
static bool yields(struct listener *l)
{
    if (!l->is_shared || !is_ahead(l))
        return false;
    if (l->looks >= LISTENER_PATIENCE) {
        l->looks = 1; /* one is taken; for the next one the others get their time again */
        return false;
    }
    l->looks++;
    timer_once(&l->yield, LISTENER_YIELD_MS);
    return true;
}

static void on_acceptable(evutil_socket_t lfd, short what, void *arg)
{
    struct listener *l = arg;

    (void)what;
    for (unsigned i = 0; i < LISTENER_PER_TURN; i++) {
        int fd;

        if (yields(l))
            return;
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
            l->looks = 0;
            return;
        }
    }
    if (l->is_shared) /* more may wait, and nobody says it again */
        event_active(&l->ev, EV_READ, 0);
}

static void on_yield_end(void *arg)
{
    struct listener *l = arg;

    if (has_waiting(l))
        on_acceptable(l->fd, EV_READ, l);
    else
        l->looks = 0;
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
    l->is_shared = w->settings->workers > 1;
    timer_init(&l->pause, w->base, on_pause_end, l);
    timer_init(&l->yield, w->base, on_yield_end, l);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
        event_assign(&l->ev, w->base, fd, (short)(EV_READ | EV_PERSIST | (l->is_shared ? EV_ET : 0)),
                     on_acceptable, l) != 0 ||
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
    timer_stop(&l->yield);
    free(l);
}
