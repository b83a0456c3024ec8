/* Shared by mailbox*.c and nobody else: the parts of a mailbox and of the one ZeroMQ context. */
#ifndef KIT_MAILBOX_PRIV_H
#define KIT_MAILBOX_PRIV_H

#include "kit/list.h"
#include "kit/mailbox.h"
#include "kit/timer.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/un.h>
#include <zmq.h>

#define MAILBOX_MAGIC 0x4d424f58u

/* Life of a mailbox: mailbox_open -> OPEN -> mailbox_close -> (freed at once, or, when its own pump is
 * running, CLOSED until that pump returns). */
enum mailbox_state {
    MAILBOX_OPEN,  /* sock and events are set; linked in mailbox_world.all */
    MAILBOX_CLOSED /* sock == NULL, no event pending, not linked; the pump that runs frees it */
};

struct mailbox {
    unsigned magic;
    enum mailbox_state state;
    unsigned id;      /* never used twice; names its ZAP domain and its monitor */
    unsigned running; /* depth of callbacks on the stack */
    struct list node;
    enum mailbox_kind kind;
    const char *name;
    void *sock;
    void *monitor;     /* PAIR that reads the link's events, or NULL */
    struct event on_fd; /* ZMQ_FD, persistent */
    struct event kick;  /* made active by a send: one more look in this turn */
    struct event again; /* zero timeout: the burst was full, look again after the other sockets */
    struct event on_monitor;
    bool is_up;         /* the connecting side's handshake is done and the peer not lost */
    bool is_connector;  /* is_up is kept: a monitor runs */
    bool is_tcp;
    struct timer relink; /* a link that is down and that libzmq does not try again: see link_lost */
    unsigned relinks;    /* since it was up */
    size_t max_bytes;
    uint64_t looks, looks_seen; /* pumps run; value at the last safety check */
    mailbox_allow_fn *allow;
    void (*on_msg)(void *arg, const struct mailbox_msg *msg);
    void (*on_link)(void *arg, bool is_up);
    void *arg;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* ipc, bound by us: removed at close */
    char endpoint[160];
};

/* The one context of the process, and what must live as long as it. */
struct mailbox_world {
    void *ctx;
    void *zap; /* REP at inproc://zeromq.zap.01; lives from before the first socket to the end */
    struct event on_zap;
    struct event_base *base;
    struct list all;
    struct timer safety;
    unsigned next_id;
    bool is_proven; /* the self-test of the ZAP handler was passed */
    struct mailbox_counters count;
};
extern struct mailbox_world mailbox_world;

static inline struct mailbox *mailbox_from(void *arg)
{
    struct mailbox *m = arg;

    BUG_ON(m == NULL || m->magic != MAILBOX_MAGIC);
    return m;
}

/* mailbox.c */
void mailbox_set_int(void *sock, int option, int value); /* a refusal is a bug */
void mailbox_free(struct mailbox *m);
void mailbox_reconnect(struct mailbox *m); /* drops what there is of a connection and starts a new one */

/* mailbox_pump.c */
void mailbox_pump_start(struct mailbox *m); /* sets up the events of m->sock and m->monitor */
void mailbox_pump_stop(struct mailbox *m);
void mailbox_pump_kick(struct mailbox *m); /* after a send */
void mailbox_on_safety(void *arg);
int mailbox_events(void *sock); /* ZMQ_EVENTS; handles every command that is waiting */

/* mailbox_zap.c */
err_t mailbox_zap_open(void);
void mailbox_zap_close(void);
void mailbox_zap_prove(void); /* aborts if a peer that must be refused is not */

#endif
