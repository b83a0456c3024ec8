/* One TCP connection of the proxy: socket, buffers, and (when it is TLS) the record layer.
 *
 * A conn belongs to one owner at a time (detection, a codec, a relay), which it tells what happens through
 * struct conn_events. Bytes are given to the owner where they lie; what the owner does not take is kept
 * and given again, in one piece with what came behind it. Output is queued and written once per
 * connection and turn of the loop, in full TLS records.
 *
 * Life: conn_accepted or conn_dial -> (handshake, conn_protect) -> conn_own -> ... -> conn_close, after
 * which on_closed is the last call; memory goes when no callback of the conn is on the stack.
 */
#ifndef PROXY_NET_CONN_H
#define PROXY_NET_CONN_H

#include "kit/buf.h"
#include "kit/err.h"
#include "kit/list.h"
#include "kit/slice.h"
#include "kit/timer.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct conn;
struct event_base;
struct net;
struct record;

enum close_reason {
#define CLOSE(name, is_error, text) CLOSE_##name,
#include "proxy/net/tbl/close_reasons.h"
#undef CLOSE
    CLOSE_REASONS
};
const char *close_name(enum close_reason why);
bool close_is_error(enum close_reason why);

/* Who stopped reading; each party sets and clears only its own bit. */
enum pause {
    PAUSE_OWNER = 1 << 0,     /* the owner has no use for bytes now (e.g. a pipelined request waits) */
    PAUSE_PEER_FULL = 1 << 1, /* the other end of the exchange or relay is slow */
    PAUSE_MEMORY = 1 << 2     /* the worker's ceiling */
};

struct conn_events {
    /* Plaintext arrived. Returns how many bytes were taken (0..bytes.n); the rest is kept and offered again
     * with the next bytes, or after conn_resume. Offering stops while any pause bit is set. */
    size_t (*on_bytes)(struct conn *c, slice_t bytes);
    /* The peer has finished sending (FIN; on TLS close_notify). Called once, after all bytes were taken or
     * the kept rest was offered a last time. is_clean = false: TLS ended without close_notify. Writing is still
     * possible. NULL = the conn closes itself with PEER_CLOSED. */
    void (*on_eof)(struct conn *c, bool is_clean);
    /* Output went from above CONN_OUT_HIGH to below CONN_OUT_LOW. May be NULL. */
    void (*on_drained)(struct conn *c);
    /* `n` more plaintext bytes have left for the socket (sum over the life of the owner is exact). NULL = not
     * of interest. */
    void (*on_sent)(struct conn *c, size_t n);
    /* At the end of the turn in which conn_want_turn was called, before what is queued is written: the place to add to it.
     * NULL = not of interest. */
    void (*on_turn)(struct conn *c);
    /* Dialled conns: connected (TLS not included). Before it nothing else is called but on_closed. */
    void (*on_connected)(struct conn *c);
    /* The last call. The conn must not be used after it returns. */
    void (*on_closed)(struct conn *c, enum close_reason why);
};

#define CONN_OUT_HIGH (256 * 1024)
#define CONN_OUT_LOW  (64 * 1024)

/* The part of the worker that connections need: loop, scratch memory, the list of conns, end-of-turn flush. */
struct net_conf {
    struct event_base *base;
    uint64_t idle_release_ms; /* unused; buffers are given back as soon as they are empty */
    uint64_t linger_ms;       /* between two looks at a conn that closes gently; 0: 5 s */
    uint64_t peer_ms;         /* a peer that owes acknowledgements and sends none for so long is gone; 0: 30 s */
    /* Counts every close: side "src" for accepted, "dst" for dialled conns. May be NULL. */
    void (*on_close)(void *arg, const struct conn *c, enum close_reason why);
    void *arg;
};
MUST_USE err_t net_new(const struct net_conf *conf, struct net **out);
void net_free(struct net **n); /* closes every conn that is left (CLOSE_DRAINING) */
size_t net_count(const struct net *n);
struct event_base *net_base(const struct net *n); /* for the owners' timers */

/* Takes over an accepted, non-blocking socket (closed by the conn from now on, also on failure). Sets
 * TCP_NODELAY and keep-alive. The owner comes with conn_own. */
MUST_USE err_t conn_accepted(struct net *n, int fd, struct conn **out);

/* Begins to connect. on_connected or on_closed(CONNECT_FAILED / CONNECT_TIMEOUT) follows from the loop, never
 * before this returns. */
MUST_USE err_t conn_dial(struct net *n, const struct sockaddr *to, socklen_t len, uint64_t timeout_ms,
                         const struct conn_events *events, void *owner, struct conn **out);

/* Gives the conn to an owner (again): kept bytes are offered to it, and an end that came before is told, from the
 * loop, not before this returns. */
void conn_own(struct conn *c, const struct conn_events *events, void *owner);
void *conn_owner(const struct conn *c);

/* From now on everything is TLS 1.3 records. Not to be called from on_bytes. Takes the record layer (freed with the conn); `leftover` are
 * bytes of records that had come already. Output queued before this call goes out as it is. Bytes kept so
 * far are treated as records too (behind leftover). */
MUST_USE err_t conn_protect(struct conn *c, struct record **rec, slice_t leftover);
bool conn_is_protected(const struct conn *c);

/* Queues plaintext; never writes before the end of the turn. Fails only for lack of memory, which closes the
 * conn (on_closed comes from the loop). Never refuses for being full: look at conn_out_len. */
void conn_write(struct conn *c, slice_t bytes);
/* For a relay, in on_bytes of `from`: like conn_write to `to`, but written as soon as the event of `from` has been dealt
 * with, while the bytes are in the cache: nothing is gained by waiting for more, as much as could be was read. When the
 * socket of `to` takes no more, `from` is paused (PEER_FULL) until on_drained of `to`, which then comes when all is gone. */
void conn_pass(struct conn *from, struct conn *to, slice_t bytes);
/* Room for n bytes where queued output lies: write there, then conn_commit what was written before anything else is asked of the
 * conn. NULL: the conn takes no output any more (it is over, or there is no memory, which ends it as conn_write does). */
uint8_t *conn_reserve(struct conn *c, size_t n);
void conn_commit(struct conn *c, size_t n);
/* There was no memory for something that had to be written: nothing more is, not even what this turn has queued, and the conn
 * ends (LIMIT) at the end of the turn. */
void conn_starve(struct conn *c);
/* on_turn is called once at the end of this turn. */
void conn_want_turn(struct conn *c);
size_t conn_out_len(const struct conn *c); /* plaintext queued and not sealed yet + sealed and not written */
/* Plaintext that is queued and that on_sent has not told of: what an owner that counts begins with (a transport header of whoever
 * had the conn before). */
size_t conn_owed(const struct conn *c);
bool conn_is_full(const struct conn *c);   /* above CONN_OUT_HIGH */

void conn_pause(struct conn *c, enum pause why);
void conn_resume(struct conn *c, enum pause why);

/* Finish sending: what is queued goes out, then close_notify (TLS) and FIN. Reading goes on. */
void conn_finish(struct conn *c);
/* The socket closes when everything queued has gone out and the peer has finished (at most 10 s later), reading
 * and dropping meanwhile so that the peer sees the end rather than a reset. A peer that takes no byte of what is
 * queued for 30 s gets a reset, unless `why` is DONE: who reads a complete answer may take a rest of any length while its
 * machine is there (peer.c). For the owner it is over now: on_closed is called as by conn_close. */
void conn_close_gently(struct conn *c, enum close_reason why);
/* Close now; what is queued is lost. on_closed is called before this returns unless the conn's callback is
 * on the stack, in which case right after the outermost one. */
void conn_close(struct conn *c, enum close_reason why);
/* Like conn_close, with a TCP reset. */
void conn_abort(struct conn *c, enum close_reason why);
/* Like conn_close_gently, but what follows the queued bytes is a reset and no end. It waits until the peer's machine has
 * acknowledged them (a reset overtakes what it has not), at most 30 s without progress. */
void conn_abort_gently(struct conn *c, enum close_reason why);
bool conn_is_closing(const struct conn *c);

/* Bytes the peer may read before TLS begins / raw access for the handshake: written as they are. */
void conn_write_raw(struct conn *c, slice_t bytes);

/* Whether the peer has closed or sent bytes while nobody expected any (for pooled connections): a look at
 * the socket, one system call. */
bool conn_is_stale(const struct conn *c);

/* Facts. Addresses are those of the socket; v4-mapped IPv6 is reported as IPv4. */
struct conn_info {
    bool is_dialled;
    struct sockaddr_storage peer, local;
    uint64_t opened_ms;
    uint64_t bytes_in, bytes_out; /* on the wire */
};
const struct conn_info *conn_info(const struct conn *c);
int conn_fd(const struct conn *c);
struct net *conn_net(const struct conn *c);

/* The original destination of a redirected connection (SO_ORIGINAL_DST, IPv4 and IPv6). False if the
 * connection was not redirected: then *out is the socket's own local address. */
bool conn_original_dst(const struct conn *c, struct sockaddr_storage *out);

#endif
