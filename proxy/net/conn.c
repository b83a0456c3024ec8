/* Connections: life, ownership, the end-of-turn work list. Bytes are conn_io.c's. */
#include "proxy/net/conn.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "proxy/net/address.h"
#include "proxy/net/conn_priv.h"

#include <errno.h>
#include <linux/netfilter_ipv4.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#define LINGER_MS      5000 /* conn_close_gently: how often it is looked after, and the time for the peer's end */
#define LINGER_STALLS  6    /* looks without a byte gone, then the rest is given up: 30 s */
#define ACKS_MS        5    /* conn_abort_gently: how often a queue in the socket is looked at */
#define KEEPALIVE_S    10

static const struct {
    const char *name;
    bool is_error;
} reasons[CLOSE_REASONS] = {
#define CLOSE(name, is_error, text) {#name, is_error},
#include "proxy/net/tbl/close_reasons.h"
#undef CLOSE
};

const char *close_name(enum close_reason why)
{
    BUG_ON((unsigned)why >= CLOSE_REASONS);
    return reasons[why].name;
}

bool close_is_error(enum close_reason why)
{
    BUG_ON((unsigned)why >= CLOSE_REASONS);
    return reasons[why].is_error;
}

struct conn *conn_from(void *arg)
{
    struct conn *c = arg;

    BUG_ON(c == NULL || c->magic != CONN_MAGIC);
    return c;
}

/* ---- the end of a turn ---- */

/* Runs once per turn, behind every callback that was active in it: offers kept bytes, then writes. Work that
 * this makes for other conns is done in the same pass; nothing is polled in between. */
static void net_on_turn_end(evutil_socket_t fd, short what, void *arg)
{
    struct net *n = arg;
    struct list *node;

    (void)fd, (void)what;
    n->turn_end_is_active = false;
    while ((node = list_pop(&n->work)) != NULL) {
        struct conn *c = conn_from(CONTAINER_OF(node, struct conn, work));

        conn_enter(c);
        if (c->is_starved)
            conn_end(c, CLOSE_LIMIT);
        if (c->is_gone)
            conn_abort(c, CLOSE_PEER_RESET);
        if (c->wants_offer && c->state == CONN_OPEN)
            conn_offer(c);
        conn_pass_on(c);
        if (c->wants_turn) {
            c->wants_turn = false;
            if (c->state == CONN_OPEN && c->events != NULL && c->events->on_turn != NULL)
                c->events->on_turn(c);
        }
        if (c->state != CONN_DOOMED && c->state != CONN_DIALING)
            conn_flush(c);
        conn_leave(c);
    }
}

void conn_need_work(struct conn *c)
{
    struct net *n = c->net;

    if (list_is_empty(&c->work))
        list_push(&n->work, &c->work);
    if (!n->turn_end_is_active) {
        n->turn_end_is_active = true;
        /* Lands at the tail of the active queue: after everything this turn has already found. */
        event_active(&n->turn_end, EV_TIMEOUT, 0);
    }
}

err_t net_new(const struct net_conf *conf, struct net **out)
{
    struct net *n = calloc(1, sizeof(*n));

    if (n == NULL)
        return ERR_OF(NOMEM);
    n->conf = *conf;
    if (n->conf.linger_ms == 0)
        n->conf.linger_ms = LINGER_MS;
    if (n->conf.peer_ms == 0)
        n->conf.peer_ms = PEER_MS;
    timer_init(&n->look, conf->base, net_look, n);
    list_init(&n->conns);
    list_init(&n->work);
    buf_init(&n->seal, 0);
    n->scratch = malloc(NET_READ_MAX);
    if (n->scratch == NULL || event_assign(&n->turn_end, conf->base, -1, 0, net_on_turn_end, n) != 0) {
        free(n->scratch);
        free(n);
        return ERR_OF(NOMEM);
    }
    *out = n;
    return OK;
}

void net_free(struct net **np)
{
    struct net *n = *np;

    if (n == NULL)
        return;
    while (!list_is_empty(&n->conns))
        conn_close(conn_from(CONTAINER_OF(n->conns.next, struct conn, link)), CLOSE_DRAINING);
    timer_stop(&n->look);
    event_del(&n->turn_end);
    buf_done(&n->seal);
    while (n->n_spare > 0)
        free(n->spare[--n->n_spare].mem);
    free(n->scratch);
    free(n);
    *np = NULL;
}

size_t net_count(const struct net *n)
{
    return n->count;
}

struct event_base *net_base(const struct net *n)
{
    return n->conf.base;
}

/* ---- the beginning ---- */

/* The reset behind bytes: on its way when the peer's machine has them all. */
static bool may_wait_for_acks(struct conn *c)
{
    if (c->out_is_dead || (conn_out_len(c) == 0 && !conn_has_unacked(c)))
        return false;
    c->linger_stalls = c->info.bytes_out != c->linger_gone ? 0 : c->linger_stalls + 1;
    c->linger_gone = c->info.bytes_out;
    return c->linger_stalls * ACKS_MS <= LINGER_STALLS * c->net->conf.linger_ms;
}

/* Whether a lingering conn gets more time. A slow reader gets all of its bytes as long as it takes some; one that
 * takes none sees a reset, so that what is missing does not look like the end. */
static bool may_linger(struct conn *c)
{
    if (conn_out_len(c) == 0 || c->out_is_dead) {
        bool had_output = c->has_linger_out;

        c->has_linger_out = false;
        return had_output; /* once more for the peer's end */
    }
    c->has_linger_out = true;
    if (c->info.bytes_out != c->linger_gone) {
        c->linger_gone = c->info.bytes_out;
        c->linger_stalls = 0;
    }
    c->reset_on_close = ++c->linger_stalls > LINGER_STALLS && c->why != CLOSE_DONE;
    return !c->reset_on_close;
}

static void on_timer(void *arg)
{
    struct conn *c = conn_from(arg);

    if (c->state == CONN_LINGER && c->reset_waits && may_wait_for_acks(c))
        timer_once(&c->timer, ACKS_MS);
    else if (c->state == CONN_LINGER && !c->reset_waits && may_linger(c))
        timer_once(&c->timer, c->net->conf.linger_ms);
    else
        conn_end(c, c->state == CONN_DIALING ? CLOSE_CONNECT_TIMEOUT : c->why);
}

static void set_options(int fd)
{
    const int on = 1, idle = KEEPALIVE_S, gap = 3, tries = 6; /* an idle peer that is gone: 28 s */

    /* No TCP_USER_TIMEOUT: it cuts readers that take a rest; peer.c does its work. Failures are harmless: the connection works without, and a unix socket in a test has none of them. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &gap, sizeof(gap));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof(tries));
}

/* A connection that cannot leave this machine: to or from the application beside us. Loopback loses nothing and has no
 * path to be measured, so the plain algorithm does; the system's own may be one that models and paces (bbr), for
 * every segment. */
static void set_local_options(struct conn *c)
{
    static const char plain[] = "reno"; /* always there, and allowed to everybody */

    if (address_is_loopback(&c->info.peer) || address_is_loopback(&c->info.local) ||
        address_same_ip(&c->info.peer, &c->info.local))
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_CONGESTION, plain, sizeof(plain) - 1);
}

static struct conn *conn_new(struct net *n, int fd, enum conn_state state)
{
    struct conn *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->magic = CONN_MAGIC;
    c->state = state;
    c->net = n;
    c->fd = fd;
    list_init(&c->link);
    list_init(&c->work);
    buf_init(&c->kept, 0);
    buf_init(&c->wire_in, 0);
    buf_init(&c->plain_out, 0);
    buf_init(&c->wire_out, 0);
    timer_init(&c->timer, n->conf.base, on_timer, c);
    if (event_assign(&c->ev_read, n->conf.base, fd, EV_READ | EV_PERSIST, conn_on_readable, c) != 0 ||
        event_assign(&c->ev_write, n->conf.base, fd, EV_WRITE | EV_PERSIST, conn_on_writable, c) != 0) {
        free(c);
        return NULL;
    }
    c->info.opened_ms = clock_now_ms();
    list_push(&n->conns, &c->link);
    n->count++;
    return c;
}

void conn_note_local(struct conn *c)
{
    socklen_t len = sizeof(c->info.local);

    if (getsockname(c->fd, (struct sockaddr *)&c->info.local, &len) != 0)
        memset(&c->info.local, 0, sizeof(c->info.local));
    set_local_options(c);
}

err_t conn_accepted(struct net *n, int fd, struct conn **out)
{
    struct conn *c = conn_new(n, fd, CONN_OPEN);
    socklen_t len = sizeof(c->info.peer);

    if (c == NULL) {
        (void)close(fd);
        return ERR_OF(NOMEM);
    }
    set_options(fd);
    if (getpeername(fd, (struct sockaddr *)&c->info.peer, &len) != 0)
        memset(&c->info.peer, 0, sizeof(c->info.peer));
    conn_note_local(c);
    *out = c;
    return OK;
}

err_t conn_dial(struct net *n, const struct sockaddr *to, socklen_t len, uint64_t timeout_ms,
                const struct conn_events *events, void *owner, struct conn **out)
{
    int fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct conn *c;

    BUG_ON(len > sizeof(c->info.peer));
    if (fd < 0) {
        log_warn("no socket for a new connection", "errno=%d (%s)", errno, strerror(errno));
        return ERR_OF(OS);
    }
    c = conn_new(n, fd, CONN_DIALING);
    if (c == NULL) {
        (void)close(fd);
        return ERR_OF(NOMEM);
    }
    set_options(fd);
    memcpy(&c->info.peer, to, len);
    c->info.is_dialled = true;
    c->events = events;
    c->owner = owner;
    /* Done, failed or under way: all three are told from the loop, when the socket turns writable. */
    if (connect(fd, to, len) != 0 && errno != EINPROGRESS)
        event_active(&c->ev_write, EV_WRITE, 0);
    c->is_writing = true;
    if (event_add(&c->ev_write, NULL) != 0) {
        c->events = NULL; /* the error says it */
        conn_end(c, CLOSE_LIMIT);
        return ERR_OF(NOMEM);
    }
    timer_once(&c->timer, timeout_ms);
    *out = c;
    return OK;
}

/* ---- ownership ---- */

void conn_own(struct conn *c, const struct conn_events *events, void *owner)
{
    c->owners++;
    c->events = events;
    c->owner = owner;
    c->eof_told = false; /* the new owner is told, too */
    c->paused &= ~(unsigned)PAUSE_OWNER;
    if (c->state != CONN_OPEN)
        return;
    if (buf_len(&c->kept) > 0 || buf_len(&c->wire_in) > 0 || (c->eof_seen && !c->eof_told)) {
        c->wants_offer = true;
        conn_need_work(c);
    }
    conn_read_on(c);
}

void *conn_owner(const struct conn *c)
{
    return c->owner;
}

err_t conn_protect(struct conn *c, struct record **rec, slice_t leftover)
{
    struct buf in;

    BUG_ON(c->rec != NULL);
    buf_init(&in, 0);
    TRY(buf_add_slice(&in, leftover));
    if (buf_add_slice(&in, buf_slice(&c->kept)) != OK) {
        buf_done(&in);
        return ERR_OF(NOMEM);
    }
    buf_done(&c->kept);
    buf_done(&c->wire_in);
    c->wire_in = in;
    c->rec = *rec;
    *rec = NULL;
    if (buf_len(&c->wire_in) > 0) {
        c->wants_offer = true;
        conn_need_work(c);
    }
    return OK;
}

bool conn_is_protected(const struct conn *c)
{
    return c->rec != NULL;
}

void conn_pause(struct conn *c, enum pause why)
{
    /* Reading itself is switched off lazily, when the socket next turns readable. */
    c->paused |= (unsigned)why;
}

void conn_resume(struct conn *c, enum pause why)
{
    if ((c->paused & (unsigned)why) == 0)
        return;
    c->paused &= ~(unsigned)why;
    if (c->paused != 0 || c->state != CONN_OPEN)
        return;
    if (buf_len(&c->kept) > 0 || buf_len(&c->wire_in) > 0 || (c->eof_seen && !c->eof_told)) {
        c->wants_offer = true;
        conn_need_work(c);
    }
    conn_read_on(c);
}

/* ---- the end ---- */

void conn_enter(struct conn *c)
{
    c->depth++;
}

static void tell_closed(struct conn *c)
{
    const struct conn_events *e = c->events;

    if (c->closed_told)
        return;
    c->closed_told = true;
    c->events = NULL;
    if (e != NULL && e->on_closed != NULL)
        e->on_closed(c, c->why);
}

/* Only with no callback on the stack. */
static void conn_free(struct conn *c)
{
    struct net *n = c->net;

    c->depth++; /* on_closed may call back into this conn; nothing happens then */
    tell_closed(c);
    if (n->conf.on_close != NULL)
        n->conf.on_close(n->conf.arg, c, c->why);
    if (c->reset_on_close) {
        const struct linger reset = {.l_onoff = 1, .l_linger = 0};

        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    }
    (void)event_del(&c->ev_read);
    (void)event_del(&c->ev_write);
    timer_stop(&c->timer);
    (void)close(c->fd);
    record_free(&c->rec);
    buf_done(&c->kept);
    buf_done(&c->wire_in);
    buf_done(&c->plain_out);
    buf_done(&c->wire_out);
    list_del(&c->link);
    list_del(&c->work);
    if (n->passed == c)
        n->passed = NULL;
    n->count--;
    c->magic = 0;
    free(c);
}

void conn_leave(struct conn *c)
{
    BUG_ON(c->depth == 0);
    if (--c->depth > 0)
        return;
    if (c->state == CONN_DOOMED)
        conn_free(c);
    else if (c->state == CONN_LINGER)
        tell_closed(c);
}

void conn_end(struct conn *c, enum close_reason why)
{
    if (c->state == CONN_DOOMED)
        return;
    if (c->state != CONN_LINGER)
        c->why = why;
    c->state = CONN_DOOMED;
    if (c->depth == 0)
        conn_free(c);
}

void conn_close(struct conn *c, enum close_reason why)
{
    conn_end(c, why);
}

void conn_abort(struct conn *c, enum close_reason why)
{
    c->reset_on_close = true;
    conn_end(c, why);
}

void conn_close_gently(struct conn *c, enum close_reason why)
{
    if (c->state == CONN_LINGER || c->state == CONN_DOOMED)
        return;
    if (c->state == CONN_DIALING || c->out_is_dead) {
        conn_end(c, why);
        return;
    }
    c->why = why;
    c->state = CONN_LINGER;
    c->paused = 0;
    c->finish_wanted = !c->reset_waits || c->finish_wanted;
    c->linger_gone = c->info.bytes_out;
    net_mem_give(c->net, &c->kept);
    buf_done(&c->kept);
    timer_once(&c->timer, c->reset_waits ? ACKS_MS : c->net->conf.linger_ms);
    conn_read_on(c);
    conn_need_work(c);
    if (c->depth == 0)
        tell_closed(c);
}

void conn_abort_gently(struct conn *c, enum close_reason why)
{
    if (c->state == CONN_LINGER || c->state == CONN_DOOMED)
        return;
    c->reset_on_close = true;
    if (c->state == CONN_DIALING || c->out_is_dead || (conn_out_len(c) == 0 && !conn_has_unacked(c))) {
        conn_end(c, why);
        return;
    }
    c->reset_waits = true;
    conn_close_gently(c, why);
}

bool conn_is_closing(const struct conn *c)
{
    return c->state == CONN_LINGER || c->state == CONN_DOOMED;
}

void conn_finish(struct conn *c)
{
    if (c->finish_wanted || c->state != CONN_OPEN)
        return;
    c->finish_wanted = true;
    conn_need_work(c);
}

/* ---- facts ---- */

const struct conn_info *conn_info(const struct conn *c)
{
    return &c->info;
}

int conn_fd(const struct conn *c)
{
    return c->fd;
}

struct net *conn_net(const struct conn *c)
{
    return c->net;
}

bool conn_is_stale(const struct conn *c)
{
    uint8_t byte;
    ssize_t got;

    if (c->state != CONN_OPEN || c->eof_seen || c->out_is_dead || buf_len(&c->kept) > 0)
        return true;
    got = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    /* Bytes waiting are fine on TLS (a ticket, a KeyUpdate), and wrong on plain text. */
    if (got > 0)
        return c->rec == NULL;
    return got == 0 || errno != EAGAIN;
}

bool conn_original_dst(const struct conn *c, struct sockaddr_storage *out)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof(a);
    bool is_v6 = c->info.local.ss_family == AF_INET6;

    memset(&a, 0, sizeof(a));
    /* IP6T_SO_ORIGINAL_DST has the same number (80); its header cannot be included beside netinet/in.h. */
    if (getsockopt(c->fd, is_v6 ? IPPROTO_IPV6 : IPPROTO_IP, SO_ORIGINAL_DST, &a, &len) == 0 &&
        !(address_same_ip(&a, &c->info.local) && address_port(&a) == address_port(&c->info.local))) {
        *out = a;
        return true;
    }
    *out = c->info.local;
    return false;
}
