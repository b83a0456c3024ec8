/* What conn.c (life and ownership) and conn_io.c (bytes) share. Nobody else includes this. */
#ifndef PROXY_NET_CONN_PRIV_H
#define PROXY_NET_CONN_PRIV_H

#include "proxy/net/conn.h"
#include "proxy/record/record.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CONN_MAGIC 0x636f6e6eu

#define PEER_MS       30000       /* net_conf.peer_ms by default */

#define NET_READ_MAX  (64 * 1024) /* one read per readable conn and turn */
#define NET_SEAL_STEP (32 * 1024) /* two full records per write: the fastest size measured */
#define NET_WRITE_MAX (256 * 1024) /* per conn and turn */
#define NET_SPARES    64           /* buffers kept for the next conn that needs one */
#define NET_SPARE_CAP (64 * 1024)

/* Where a conn is in its life.
 *
 *   DIALING --connected--> OPEN --conn_close*--> (LINGER) --> DOOMED --> memory gone
 *
 *   DIALING  connect() is under way, timer armed, nothing is read
 *   OPEN     owned; events flow
 *   LINGER   the owner was told on_closed; what is queued goes out, input is dropped, timer armed
 *   DOOMED   waits for the outermost callback to return; nothing is read or written any more
 */
enum conn_state { CONN_DIALING, CONN_OPEN, CONN_LINGER, CONN_DOOMED };

struct net {
    struct net_conf conf;
    struct list conns;
    struct list work; /* conns with something to do at the end of this turn (conn.work) */
    size_t count;
    struct timer look; /* peer.c: armed while a conn has written what may not be acknowledged yet */
    struct conn *passed; /* got bytes by conn_pass in the event under way: written when it has been dealt with */
    struct event turn_end;
    bool turn_end_is_active;
    struct buf seal;               /* records on their way from plain_out to the socket */
    struct {
        uint8_t *mem;
        size_t cap;
    } spare[NET_SPARES];
    unsigned n_spare;
    uint8_t *scratch; /* NET_READ_MAX bytes */
};

struct conn {
    uint32_t magic;
    enum conn_state state;
    struct net *net;
    struct list link; /* net->conns */
    struct list work; /* net->work, or alone */
    int fd;
    struct event ev_read, ev_write;
    bool is_reading;      /* ev_read is added */
    bool is_writing;      /* ev_write is added: the socket refused bytes */
    bool wants_offer;     /* kept bytes (or records in wire_in) are to be offered at the end of the turn */
    bool wants_turn;      /* on_turn is due at the end of the turn */
    bool is_starved;      /* a write found no memory: ends with LIMIT at the end of the turn */
    bool was_full;        /* output has been above CONN_OUT_HIGH and on_drained is due */
    bool eof_seen;        /* the peer will send nothing more */
    bool eof_is_clean;
    bool eof_told;
    bool finish_wanted;   /* conn_finish was called */
    bool finish_sealed;   /* close_notify is queued (or not needed) */
    bool finish_done;     /* FIN was sent */
    bool out_is_dead;     /* the peer takes no bytes any more: output is dropped */
    bool reset_on_close;
    bool reset_waits;     /* LINGER: the reset follows what is queued, when the peer has acknowledged that */
    bool is_gone;         /* peer.c: ends with a reset at the end of the turn */
    bool drains_whole;    /* was_full: by conn_pass, on_drained is due when nothing is left */
    bool closed_told;
    bool has_linger_out;    /* LINGER: output was left when it was last looked after */
    unsigned linger_stalls; /* LINGER: looks in a row at which no byte had gone */
    uint64_t linger_gone;   /* LINGER: info.bytes_out at the last of them */
    unsigned paused;      /* enum pause bits */
    unsigned depth;       /* callbacks of this conn on the stack */
    enum close_reason why;
    const struct conn_events *events;
    void *owner;
    unsigned owners; /* how often it changed hands: an owner's address may be that of one before it */
    struct record *rec;
    struct buf kept;      /* plaintext the owner has not taken */
    struct buf wire_in;   /* TLS: bytes of records not opened yet */
    struct buf plain_out; /* TLS: plaintext not sealed yet */
    struct buf wire_out;  /* bytes for the socket as they are */
    size_t sealed;        /* plaintext sealed and not reported by on_sent yet */
    struct timer timer;   /* DIALING: connect timeout; LINGER: looks after it */
    struct conn_info info;
    struct {
        uint64_t acked;    /* info.bytes_out when everything was acknowledged at the last look */
        uint64_t since_ms; /* nothing was acknowledged since; 0: nothing waits */
        uint64_t heard_ms; /* the last acknowledgement, as of the last look */
        uint32_t tries;    /* retransmissions until then */
    } peer;
};

struct conn *conn_from(void *arg);

/* recv and send without the C library's cancellation point (two locked instructions each in a process that has ZeroMQ's
 * threads; nobody here cancels threads), and without read's way through the file system layer. */
static inline ssize_t conn_sys_recv(int fd, void *to, size_t n)
{
    return (ssize_t)syscall(SYS_recvfrom, fd, to, n, 0, NULL, NULL);
}

static inline ssize_t conn_sys_send(int fd, slice_t bytes)
{
    return (ssize_t)syscall(SYS_sendto, fd, bytes.p, bytes.n, MSG_NOSIGNAL, NULL, 0);
}

/* conn.c */
void conn_enter(struct conn *c);
void conn_leave(struct conn *c); /* may free the conn: the last thing a callback does */
void conn_need_work(struct conn *c); /* at the end of this turn conn_work(c) runs */
void conn_end(struct conn *c, enum close_reason why);
void conn_note_local(struct conn *c); /* the peer is known: our own address, and what follows from both */

/* peer.c */
void net_expect(struct net *n); /* something was written */
void net_look(void *arg);
bool conn_has_unacked(const struct conn *c); /* bytes wait in the socket for the peer's acknowledgement */

/* conn_io.c */
void conn_pass_on(struct conn *from); /* the event of `from` has been dealt with: writes what conn_pass queued */
void conn_on_readable(evutil_socket_t fd, short what, void *arg);
void conn_on_writable(evutil_socket_t fd, short what, void *arg);
void conn_read_on(struct conn *c);  /* (re)arms reading if nothing forbids it */
void conn_offer(struct conn *c);    /* gives the owner what is kept and opens waiting records */
void conn_flush(struct conn *c);    /* seals and writes what is queued */
void net_mem_take(struct net *n, struct buf *b); /* gives an empty buf spare memory */
void net_mem_give(struct net *n, struct buf *b); /* takes an empty buf's memory back */

#endif
