/* One weft-proxy: the loop's rooms, the accepted connections, and how it ends.
 *
 * The worker owns every room and hands itself down; there are no globals. Rooms know each other
 * only through their headers. Life: worker_new -> worker_listen... -> (worker_drain) ->
 * worker_free. */
#ifndef PROXY_WORKER_H
#define PROXY_WORKER_H

#include "kit/err.h"
#include "kit/list.h"
#include "kit/settings.h"
#include "kit/timer.h"
#include "proxy/breakers.h"
#include "proxy/http/stream.h"
#include "proxy/series/report.h"
#include "proxy/tally.h"

#include <netinet/in.h>

struct admit;
struct asks;
struct await;
struct balance;
struct discover;
struct handshakes;
struct limit_shared;
struct limit_counter;
struct limits;
struct listener;
struct mailbox;
struct names;
struct net;
struct spill;
struct watched;
struct witness;

#define WORKER_POD_IPS_MAX   8
#define WORKER_LISTENERS_MAX 8

struct worker_conf {
    struct event_base *base;
    const struct settings *settings; /* lent */
    /* ipc endpoints; NULL: that process does not exist (run by hand, tests). */
    const char *tls, *link, *retry, *telemetry;
    const char *identity; /* of this pod; "": none, everything is plain text */
    const char *process;  /* "weft-proxy-0"; lent */
    uint64_t incarnation;
    int series_fd;              /* -1: a table of our own */
    int limits_fd;              /* -1: limits of our own, not of the pod */
    unsigned index;             /* of this worker in its pod, below LIMIT_WORKERS_MAX */
    void (*drained)(void *arg); /* after worker_drain: nothing is left. May be NULL */
    /* The application has not listened on this port for long; 0: it does now. May be NULL. */
    void (*waiting)(void *arg, uint16_t port);
    void *arg;
};

enum drain_phase {
    DRAIN_NO,
    DRAIN_GRACE,   /* said, not yet heard by everybody: new arrivals are still served */
    DRAIN_INBOUND, /* inbound arrivals are reset (provably not delivered); outbound is served */
    DRAIN_OUTBOUND, /* inbound is empty: outbound ends too */
    DRAIN_DONE
};

struct worker {
    struct worker_conf conf;
    const struct settings *settings;
    struct event_base *base;
    char identity[254];
    uint8_t opaque_ports[65536 / 8];
    size_t n_pod_ips;
    struct sockaddr_storage pod_ips[WORKER_POD_IPS_MAX];
    bool has_outbound_target, outbound_target_is_ip, has_inbound_target;
    struct sockaddr_storage outbound_target, inbound_target;

    struct net *net;
    struct handshakes *handshakes; /* NULL: no identity */
    struct balance *balance;
    struct discover *discover;
    struct await *await;       /* until the application listens; NULL: it does */
    bool has_begun;            /* to take connections */
    struct witness *witness; /* what the application's ports were seen to speak */
    struct asks *asks;         /* questions to weft-retry */
    struct admit *admit;       /* which further attempts the application gets */
    struct mailbox *telemetry; /* NULL: none */
    struct series_table *series;
    struct series_reporter reporter;
    struct tallies *tallies;
    struct names *names; /* of the application's TLS, in metrics */
    struct limit_shared *limit_shared; /* what the pod's workers count together */
    struct limits *limits;             /* of the application's ports */
    struct watched *watched; /* connections whose bytes are counted */

    struct listener *listeners[WORKER_LISTENERS_MAX];
    unsigned n_listeners;
    struct list fronts[2]; /* struct front by enum direction */
    unsigned n_fronts[2];
    struct limit_counter *load[2]; /* n_fronts as the other workers see it: who accepts next */
    struct list free_exchanges;
    struct list mirrors; /* copies under way (exchange/mirror.h) */
    unsigned n_free_exchanges, n_exchanges;
    struct breakers breakers; /* what was told of them */
    struct http_windows windows; /* of HTTP/2 connections, beyond what they begin with */
    uint64_t windows_told, windows_grown_told;
    uint64_t replay_used; /* bytes of all replay buffers in memory */
    struct spill *spill;  /* those above; NULL: none */

    enum drain_phase drain;
    struct timer drain_timer, drain_limit;
    struct timer second;
};

MUST_USE err_t worker_new(const struct worker_conf *conf, struct worker **out);
void worker_free(struct worker **w);

/* Accepts on a listening socket (borrowed, made non-blocking). */
MUST_USE err_t worker_listen(struct worker *w, int fd, enum direction direction);
/* Finish what runs within ms; conf.drained follows. */
void worker_drain(struct worker *w, uint64_t ms);
/* A front has gone: the drain may be over. */
void worker_front_gone(struct worker *w);

bool worker_is_opaque_port(const struct worker *w, uint16_t port);
bool worker_is_local(const struct worker *w, const struct sockaddr_storage *a);
void worker_limits(struct worker *w, struct http_limits *out);
/* Counts a connection's bytes until it closes. */
void worker_watch(struct worker *w, const struct conn *c, const struct tcp_labels *l);

/* ---- listener.c ---- */

#define LISTENER_PER_TURN 64
#define LISTENER_PAUSE_MS 100

MUST_USE err_t listener_start(struct worker *w, int fd, enum direction direction,
                              struct listener **out);
void listener_stop(struct listener **l);

#endif
