/* A ZeroMQ socket under libevent. This file and mailbox.c are the only place that knows ZeroMQ.
 *
 * ZMQ_FD is edge-triggered, and a send may swallow the edge of an arriving message, so: input is always
 * drained to EAGAIN (in bursts of 256, then the other sockets have their turn), and every send outside a
 * drain schedules one more look in the same turn of the loop. Nobody else needs to know.
 *
 * A connector comes back by itself after a loss, a refusal (the binder may admit it later) and a breach
 * of protocol, each with a growing delay.
 *
 * One message is one frame. A message of several frames is dropped and counted. Every option that bounds
 * something is set here: LINGER 0, high-water marks, MAXMSGSIZE, HANDSHAKE_IVL 2 s, heartbeats 1 s / 3 s
 * on tcp, RECONNECT_IVL 20 to 200 ms (ipc) or 100 ms to 5 s (tcp), ROUTER_MANDATORY, IMMEDIATE on DEALER.
 *
 * Whoever binds says who may connect (`allow`). The ZAP handler runs inside this file, is bound before
 * any socket, and the first mailbox_open that binds proves that a refused peer is refused (ZAP fails
 * open when nobody answers); if that proof fails the process aborts.
 */
#ifndef KIT_MAILBOX_H
#define KIT_MAILBOX_H

#include "kit/err.h"
#include "kit/slice.h"

struct event_base;
struct mailbox;

enum mailbox_kind {
    MAILBOX_ROUTER,
    MAILBOX_DEALER,
    MAILBOX_PUB,
    MAILBOX_SUB,
    MAILBOX_XPUB, /* on_msg gets subscriptions: first byte 1 (start) or 0 (stop), then the topic */
    MAILBOX_XSUB  /* mailbox_send of such a message subscribes */
};

#define MAILBOX_KEY_TEXT 41 /* a CURVE key as Z85 text with its NUL */

struct mailbox_msg {
    slice_t from;      /* ROUTER: the routing id to answer to; else empty. Valid during the call. */
    slice_t topic;     /* PUB/SUB family: the bytes before the first NUL of the frame; else empty */
    slice_t body;      /* the message (behind topic and NUL, if any). Valid during the call. */
    const char *user;  /* what `allow` called this peer, "" if nothing. Valid during the call. */
};

/* Who is knocking. On ipc:// uid and pid come from the kernel; on tcp:// key is the peer's CURVE key. */
struct mailbox_peer {
    bool is_ipc;
    uint32_t uid, pid;         /* ipc */
    char key[MAILBOX_KEY_TEXT]; /* tcp: Z85 */
    const char *address;       /* tcp: text address of the peer */
};

/* True admits; write the peer's name (what messages will carry as `user`) to user[64]. Called from the
 * loop, never re-entrantly; must not block. */
typedef bool mailbox_allow_fn(void *arg, const struct mailbox_peer *peer, char user[64]);

/* Admits processes of our own uid (and root), user = "". For the sockets inside a pod. */
mailbox_allow_fn mailbox_allow_same_uid;

struct mailbox_conf {
    enum mailbox_kind kind;
    const char *name;     /* for logs and counters; kept by reference */
    const char *endpoint; /* "ipc:///run/weft/x.sock" or "tcp://10.0.0.1:8086" (IPv6 in brackets) */
    bool bind;
    unsigned hwm;         /* messages per peer and direction; 0 = 1000 */
    size_t max_bytes;     /* of one message; 0 = 256 KiB */

    /* CURVE, required on tcp://. Z85 text; copied, and wiped from our copy after use. */
    const char *secret_key; /* our own secret key */
    const char *public_key; /* our own public key (connecting side) */
    const char *server_key; /* the binder's public key (connecting side) */
    mailbox_allow_fn *allow; /* required when bind is set */

    void (*on_msg)(void *arg, const struct mailbox_msg *msg); /* may be NULL (send only) */
    /* The connecting side's link went up or down (handshake done / peer lost). May be NULL. Never
     * called before mailbox_open has returned. "Up" comes before the first message of a peer, "down"
     * after its last, unless it is back before we looked. */
    void (*on_link)(void *arg, bool is_up);
    void *arg;
};

/* Makes the ZeroMQ context with its one thread, the ZAP handler and its self-test, for a process that
 * opens its mailboxes after it is confined (no thread can be made then). actor_run calls it; harmless
 * when called twice. All mailboxes of a process live on one base. */
MUST_USE err_t mailbox_prepare(struct event_base *base);

/* Opens and binds or connects. The strings of conf may go after the call, except where noted. */
MUST_USE err_t mailbox_open(struct event_base *base, const struct mailbox_conf *conf,
                            struct mailbox **out);

/* Closes at once (unsent messages are dropped). May be called from the mailbox's own on_msg. */
void mailbox_close(struct mailbox **m);

/* Sends one message; `to` is the routing id on a ROUTER and the topic on PUB/XPUB (may be empty), else
 * empty. Copies. Never blocks.
 * OK | QUEUE_FULL (the peer is slow, nothing sent) | PEER_GONE (ROUTER: it left; DEALER: on_link has not
 * said "up", nothing is kept for a coming connection) | TOO_BIG (above max_bytes: the peer would hang up) |
 * MALFORMED (a topic with a NUL in it) | NOMEM. PUB and XPUB drop in silence for a subscriber that is
 * slow: publish hints, not truth. */
MUST_USE err_t mailbox_send(struct mailbox *m, slice_t to, slice_t body);

/* SUB: topic prefix. */
MUST_USE err_t mailbox_subscribe(struct mailbox *m, slice_t prefix);
MUST_USE err_t mailbox_unsubscribe(struct mailbox *m, slice_t prefix);

/* After binding to port 0 or "*": the endpoint that resulted. Valid as long as m. */
const char *mailbox_endpoint(const struct mailbox *m);

/* Counters since the start of the process, over all mailboxes, for telemetry and tests. */
struct mailbox_counters {
    uint64_t received, sent, dropped_multipart, dropped_full, dropped_gone, refused_peers;
    uint64_t dropped_malformed; /* SUB, XSUB: a frame without the NUL behind the topic */
    uint64_t missed_edges; /* found by the safety timer; anything but 0 is a bug in mailbox.c */
};
const struct mailbox_counters *mailbox_count(void);

/* A fresh CURVE pair as Z85 text. */
MUST_USE err_t mailbox_keypair(char public_key[MAILBOX_KEY_TEXT], char secret_key[MAILBOX_KEY_TEXT]);

/* The public half of a secret key. */
MUST_USE err_t mailbox_public_of(const char *secret_key, char public_key[MAILBOX_KEY_TEXT]);

/* Runs fn(arg) once in each of libzmq's threads (I/O and reaper), one after the other, and returns when
 * that is done. For confinement: capabilities and Landlock are set by a thread for itself. OS if it could
 * not be done within two seconds. Needs mailbox_prepare. fn must not call libzmq. */
MUST_USE err_t mailbox_each_thread(void (*fn)(void *arg), void *arg);

/* Ends the ZeroMQ context at the end of the process. Every mailbox should be closed; one that is not is
 * logged and closed. actor_run calls it after the stop hook. */
void mailbox_shutdown(void);

#endif
