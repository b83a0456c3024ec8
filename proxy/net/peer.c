/* Peers that are gone, and peers that only do not read.
 *
 * A dead machine and a program that reads nothing for minutes look alike to TCP_USER_TIMEOUT: since Linux 5.11 (9d9b1ee0b2d1,
 * "tcp: fix TCP_USER_TIMEOUT with zero window") it ends a connection whose window stays shut, although every window probe is
 * acknowledged, against RFC 1122 4.2.2.17 (and RFC 6429: only the application may give up on a live peer). Without it the
 * kernel tells them apart, but takes a quarter of an hour (tcp_retries2) for the dead one. Keep-alive covers idle
 * connections only: it is silent while anything is queued. (All of it: blog.cloudflare.com/when-tcp-sockets-refuse-to-die.)
 *
 * So the rule is ours: a peer is gone if something waits for its acknowledgement, it has acknowledged nothing at all, not
 * even a window probe, for peer_ms, and the kernel has tried PEER_TRIES times since. The tries are for the probes of a
 * window long shut, which are up to 2 minutes apart: there a dead peer is found after 3 of them.
 *
 * Only connections that have written since everything was last acknowledged are asked (one getsockopt per look); with none
 * of them no timer runs. */
#include "proxy/net/conn_priv.h"

#include "kit/clock.h"
#include "kit/log.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <stddef.h>
#include <sys/ioctl.h>

#define PEER_TRIES 3
#define LOOKS      6 /* per peer_ms */

void net_expect(struct net *n)
{
    if (!timer_is_armed(&n->look))
        timer_once(&n->look, n->conf.peer_ms / LOOKS + 1);
}

/* False: nothing waits for the peer (or this is no TCP). */
static bool peer_owes(const struct conn *c, struct tcp_info *info)
{
    socklen_t len = sizeof(*info);

    memset(info, 0, sizeof(*info));
    if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, info, &len) != 0 ||
        len < offsetof(struct tcp_info, tcpi_notsent_bytes) + sizeof(info->tcpi_notsent_bytes))
        return false;
    return info->tcpi_unacked > 0 || info->tcpi_notsent_bytes > 0;
}

/* True: it is gone. */
static bool look_at_peer(struct conn *c, uint64_t now_ms)
{
    struct tcp_info info;
    uint64_t heard_ms;

    if (!peer_owes(c, &info)) {
        c->peer.acked = c->info.bytes_out;
        c->peer.since_ms = 0;
        return false;
    }
    heard_ms = now_ms > info.tcpi_last_ack_recv ? now_ms - info.tcpi_last_ack_recv : 0;
    /* Millisecond clocks of two kinds: the same acknowledgement may seem to move by one. */
    if (c->peer.since_ms == 0 || heard_ms > c->peer.heard_ms + 2) {
        c->peer.since_ms = c->peer.since_ms == 0 ? now_ms : heard_ms;
        c->peer.heard_ms = heard_ms;
        c->peer.tries = info.tcpi_total_retrans;
        return false;
    }
    return now_ms - c->peer.since_ms >= c->net->conf.peer_ms &&
           info.tcpi_total_retrans - c->peer.tries + info.tcpi_probes >= PEER_TRIES;
}

void net_look(void *arg)
{
    struct net *n = arg;
    uint64_t now_ms = clock_now_ms();
    bool is_expecting = false;

    LIST_EACH (node, &n->conns) {
        struct conn *c = conn_from(CONTAINER_OF(node, struct conn, link));

        if ((c->state != CONN_OPEN && c->state != CONN_LINGER) || c->peer.acked == c->info.bytes_out)
            continue;
        if (look_at_peer(c, now_ms)) {
            log_debug("peer acknowledges nothing", "ms=%llu",
                      (unsigned long long)(now_ms - c->peer.since_ms));
            c->is_gone = true; /* its end may take others of the list along: at the end of the turn */
            conn_need_work(c);
        }
        is_expecting = true;
    }
    if (is_expecting)
        net_expect(n);
}

bool conn_has_unacked(const struct conn *c)
{
    int left = 0;

    return ioctl(c->fd, SIOCOUTQ, &left) == 0 && left > 0;
}
