/* Where requests go: endpoints with their load, readiness and pools, and backends that choose
 * among them. docs/internals/balancing.md tells the whole of it.
 *
 *   backend   a service port (or a plain address); its set of endpoints is replaced as a whole
 * when a newer view is in force. Keyed by name, so that it outlives the versions of the view
 * that point at it. endpoint  an address with the identity it must prove. Keyed by both, so
 * that its load, backoff and connections outlive every change of a view that still has it.
 *
 *   seat      an endpoint as one backend sees it: weight, zone, circuit breaker. Between views
 * it lives as long as both sets have the endpoint.
 *
 * Choice (choose.h): by default two random ready endpoints, the one with the lower load, which
 * is the peak EWMA of the time to the response head x (requests in flight + 1). An endpoint
 * that cannot be reached is out of the choice until a dial in the background has succeeded (100
 * ms to 60 s, jitter 0.1); one whose breaker is open is out of the choice of that backend. Who
 * finds no ready endpoint waits in the backend's queue (bounded) and is woken when one is.
 *
 * One balance per worker. Nothing here blocks; callbacks come from the loop unless stated.
 */
#ifndef PROXY_BALANCE_BALANCE_H
#define PROXY_BALANCE_BALANCE_H

#include "kit/err.h"
#include "kit/hash.h"
#include "kit/list.h"
#include "kit/slice.h"
#include "kit/timer.h"
#include "proxy/balance/breaker.h"
#include "proxy/handshake/transport_header.h"
#include "proxy/http/stream.h"
#include "wire/wire.h"

#include <netinet/in.h>

struct conn;
struct dial;
struct handshakes;
struct limit_port;
struct net;

#define BALANCE_MUX_MAX        4       /* HTTP/2 connections to one endpoint */
#define BALANCE_IDLE_MAX       1024    /* idle HTTP/1 connections to one endpoint */
#define BALANCE_RTT_US         30000.0 /* load of an endpoint that nothing is known of */
#define BALANCE_DECAY_US       10e6
#define BALANCE_SPILL_PERMILLE 1500
#define BALANCE_PENALTY_MS     5000u
#define BALANCE_BACKOFF_MIN_MS 100
#define BALANCE_BACKOFF_MAX_MS 60000

struct backend;
struct balance;
struct endpoint;
struct limit_counter;
struct limit_shared;
struct seat;

/* Something an operator may want to know about a seat's breaker. */
enum breaker_news {
    BREAKER_NEWS_EJECTED,  /* out, for out_ms */
    BREAKER_NEWS_KEPT,     /* would be out but for the floor (max_ejected_permille) */
    BREAKER_NEWS_RETURNED, /* the probe did not fail */
    BREAKER_NEWS_KINDS
};
struct breaker_event {
    enum breaker_news news;
    const struct backend *backend;
    const struct endpoint *endpoint;
    enum breaker_reason reason; /* of the trip */
    uint32_t row;               /* failures in a row */
    uint32_t all, good;         /* in the window */
    uint32_t out_ms;            /* EJECTED: for how long; RETURNED: how long it was */
};

struct balance_conf {
    struct event_base *base;
    struct net *net;
    struct handshakes *handshakes; /* NULL: meshed endpoints are reached in plain text (no
                                      identity of our own) */
    struct http_limits limits;
    uint64_t outbound_connect_ms, inbound_connect_ms;
    uint64_t pool_idle_ms;
    uint64_t failfast_ms;
    unsigned queue_capacity; /* waiting requests of one backend */
    /* A dialled connection is established (TLS included); its bytes are the endpoint's. May be
     * NULL. */
    void (*on_open)(void *arg, struct endpoint *ep, struct conn *c);
    /* An endpoint's memory goes. May be NULL. */
    void (*on_endpoint_free)(void *arg, struct endpoint *ep);
    /* Result of a client handshake: "ok" or the stable code. May be NULL. */
    void (*on_handshake)(void *arg, const char *result);
    /* A breaker took an endpoint out, or let it in again. May be NULL. */
    void (*on_breaker)(void *arg, const struct breaker_event *e);
    /* A backend goes. May be NULL. */
    void (*on_backend_free)(void *arg, struct backend *be);
    const char *zone; /* of this pod (copied); NULL or "": unknown, zones are not looked at */
    struct limit_shared *shared; /* what all workers of the pod count together; NULL: this
                                    one is alone */
    void *arg;
};

MUST_USE err_t balance_new(const struct balance_conf *conf, struct balance **out);
void balance_free(struct balance **b); /* after every connection of net is closed */
size_t balance_endpoints(const struct balance *b);

/* ---- endpoints ---- */

enum endpoint_state {
    ENDPOINT_READY,   /* may be chosen */
    ENDPOINT_BACKOFF, /* the last dial failed; waits */
    ENDPOINT_PROBING  /* a dial in the background is under way */
};

enum pool_kind { POOL_HTTP1, POOL_HTTP2, POOL_KINDS };

struct endpoint {
    UT_hash_handle hh;
    struct balance *balance;
    char *key;                       /* owned */
    unsigned refs;                   /* sets, exchanges, relays, fronts */
    struct sockaddr_storage address; /* to dial: the application's, or the pod's inbound port */
    uint16_t port;                   /* the application's */
    char text[56];                   /* "ip:port" of the application, for labels and answers */
    char identity[254];              /* "": plain text */
    char pod[254];                   /* "NS/POD" or "" */
    /* The service it was first seen behind, for counting connections (they are shared by all):
     * "" none. */
    char service_namespace[64], service[254];
    uint16_t service_port;
    bool is_inbound;        /* our own application: no backoff, other connect timeout */
    struct list tallies;    /* the counting room's */
    unsigned n_connections; /* open, or being made */
    struct list held;       /* struct held: those that are open */
    struct limit_port *app; /* inbound: a reference; how many connections the port takes. May be NULL */
    unsigned n_published;   /* of n_connections, in app's counter of all workers */
    struct list starving;   /* in balance while who waits may not dial */
    struct list seats; /* struct seat: one for each backend that has it, the last asked first */
    uint64_t hash_id;  /* model/ring.h */

    double rtt_us; /* peak EWMA */
    uint64_t rtt_at_us;
    unsigned inflight;

    enum endpoint_state state;
    uint32_t backoff_ms;
    enum pool_kind last_kind;
    bool last_was_opaque;
    struct timer timer;
    struct dial *probe;

    struct list idle;    /* pooled HTTP/1 connections, the last used first */
    struct list busy;    /* pooled HTTP/1 connections that are lent */
    struct list mux;     /* pooled HTTP/2 connections */
    struct list retired; /* pooled ones that take no new request */
    unsigned n_idle, n_mux;
    /* HTTP/1: the server's last end of an idle connection: after how long, and when
     * (learn_idle_limit). */
    uint64_t idle_end_ms, idle_ended_at_ms, idle_learned_at_ms;
    bool keeps_alive; /* HTTP/1: a connection has served a second request since one last ended
                         without a word */
    uint64_t idle_limit_ms; /* learned: the server closes its idle connections after a little
                               more; 0 not seen */
    struct list waiting[POOL_KINDS]; /* struct lend */
    unsigned n_waiting[POOL_KINDS], n_dialing[POOL_KINDS];
};

struct endpoint_spec {
    struct sockaddr_storage address; /* of the application */
    slice_t identity;                /* empty: plain text */
    uint16_t inbound_port;           /* of its pod; 0: not meshed */
    slice_t pod;
    bool is_inbound;
};

/* The endpoint of that key, made if it is new; a reference is the caller's. */
MUST_USE err_t endpoint_get(struct balance *b, const struct endpoint_spec *spec,
                            struct endpoint **out);
void endpoint_ref(struct endpoint *ep);
void endpoint_unref(struct endpoint **ep);
bool endpoint_is_meshed(const struct endpoint *ep);

/* A request was given to it / has ended. rtt_us: from dispatch to the response head (0: none
 * came). */
void endpoint_begin(struct endpoint *ep);
void endpoint_sample(struct endpoint *ep, uint64_t rtt_us);
void endpoint_end(struct endpoint *ep);
/* The estimate is at least this: what an answer asked for (penalty.h). Never makes it better.
 */
void endpoint_penalise(struct endpoint *ep, uint64_t rtt_us);
/* The estimate now (us), and that x (requests in flight + 1). */
double endpoint_rtt(const struct endpoint *ep);
double endpoint_load(const struct endpoint *ep);
/* A dial for a connection outside the pools failed / worked. */
void endpoint_failed(struct endpoint *ep);
void endpoint_worked(struct endpoint *ep);

/* ---- backends ---- */

/* What the endpoints of a backend are doing, for gauges. */
#define BACKEND_STATES(X)                                                                      \
    X(ready)                                                                                   \
    X(pending)                                                                                 \
    X(ejected)
enum backend_state {
#define X(name) BACKEND_STATE_##name,
    BACKEND_STATES(X)
#undef X
        BACKEND_STATE_COUNT
};

struct backend {
    UT_hash_handle hh;
    struct balance *balance;
    char *key; /* "NS/NAME:PORT", or "IP:PORT" of a plain address; owned */
    unsigned refs;
    uint64_t serial; /* unique for the life of the worker */
    uint64_t revision;
    char namespace[64], name[254];
    uint16_t port;
    bool is_missing;
    bool is_single; /* a plain address or a pod's own: nothing to choose */
    uint8_t protocol;

    /* What its view says; in force as soon as the view is. */
    uint8_t balancing; /* BALANCING_EWMA... (model/route.h) */
    uint8_t hash_by;   /* HASH_BY_... */
    char hash_name[257];
    bool uses_zones, penalises, has_breaker;
    uint32_t slow_start_ms, spill_permille, share_cap_permille;
    uint32_t penalty_ms, retry_after_max_ms;
    uint32_t connections_max, waiting_max; /* 0: none; 0: the proxy's */
    struct breaker_conf breaker;

    /* Its endpoints: those of the own zone first while zones are looked at. */
    struct endpoint **set;  /* owned array; the seats have the references */
    struct seat **seats;    /* owned, in the same order */
    size_t n_set, n_own;    /* n_own: of the own zone; 0 while zones are not looked at */
    size_t n_ready;         /* may be chosen */
    size_t n_out;           /* taken out by their breakers, probes included */
    unsigned n_probation;   /* of those that are ready: whose next request is the probe */
    uint64_t running;       /* requests at its endpoints, other backends' included */
    unsigned n_connections; /* likewise */
    struct limit_counter *connections; /* of all workers; NULL: no limit, or no room to count */
    unsigned n_published;              /* of n_connections, in there */
    struct choice *choice;             /* owned: what the choice needs (choose.h) */

    struct list waiting; /* struct pick_wait */
    unsigned n_waiting;
    struct list hungry;        /* in balance while somebody waits */
    uint64_t unready_since_ms; /* 0: a ready endpoint was seen last */
    uint32_t shown[BACKEND_STATE_COUNT]; /* in the gauges; the worker's */
    /* Since the last settle to weft-retry; the exchange's. */
    uint32_t requests, successes;
    struct list settling;
};

/* The backend of that name with the set of this view, if the view is newer than what it has. A
 * reference is the caller's. is_local(arg, ip) says whether an address is this pod's own: such
 * endpoints are dialled in plain text, straight to the application. Endpoints with an address
 * that does not parse are left out. */
struct backend_spec {
    const struct wire_backend *view;
    uint64_t revision;
    bool is_stale;
    bool is_single;
    bool (*is_local)(void *arg, const struct sockaddr_storage *a);
    void *arg;
};
MUST_USE err_t backend_get(struct balance *b, const struct backend_spec *spec,
                           struct backend **out);
void backend_unref(struct backend **be);

/* What a choice may look at. */
struct pick {
    /* Only compared; may be NULL. Taken only if no other is ready: where an attempt has just
     * failed. */
    const struct endpoint *avoid;
    bool has_key; /* consistent hash: without a key the choice is that of EWMA */
    bool is_mute; /* no breaker will hear how it goes (opaque bytes): never the probe */
    uint64_t key; /* ring_key() of the value backend->hash_by means */
};
/* The key of whoever is at the other end of `client` (its address, without the port). NULL: no
 * key. */
void pick_source_key(struct pick *p, const struct conn *client);
/* A ready endpoint (borrowed: endpoint_ref it to keep it), or NULL. Whoever was given one tells
 * how it went: backend_note when a request that was sent has ended, or backend_unpick when none
 * was sent. */
struct endpoint *backend_pick_by(struct backend *be, const struct pick *p);
struct endpoint *backend_pick(struct backend *be, const struct endpoint *avoid);
/* For a connection of opaque bytes from `client`: nothing is to be told of how it goes, and the
 * key is the client's address where the settings hash by it. *is_full: somebody is ready, but
 * the backend has as many connections as it may (connections_max); NULL then. */
struct endpoint *backend_pick_opaque(struct backend *be, const struct conn *client,
                                     bool *is_full);
static inline bool backend_has_ready(const struct backend *be)
{
    return be->n_ready > 0;
}
/* Nothing was ready for longer than the failfast timeout: refuse at once. */
bool backend_is_failfast(struct backend *be);
/* "default/web:80: 3 ejected, 1 connecting", for answers. */
#define BACKEND_TEXT 160
void backend_describe(const struct backend *be, char out[BACKEND_TEXT]);

/* How a request went that was sent to `ep` at sent_us. */
struct outcome {
    enum breaker_result result;
    uint64_t sent_us;
    uint32_t retry_after_ms; /* what the answer asked for; 0 nothing */
};
/* For the breaker. Fine when the backend has none, or does not have `ep` any more. */
void backend_note(struct backend *be, struct endpoint *ep, const struct outcome *o);
/* Nothing was sent to `ep`: if it was to be a probe, another request may be one. */
void backend_unpick(struct backend *be, struct endpoint *ep);
/* An answer's head came: a plea for less makes the endpoint look slower, if the backend's
 * settings say so. retry_after_ms: of the answer, 0 none. */
void backend_hear(struct backend *be, struct endpoint *ep, uint16_t status, int grpc_status,
                  uint32_t retry_after_ms);

void backend_count(const struct backend *be, uint32_t out[BACKEND_STATE_COUNT]);
void balance_each_backend(struct balance *b, void (*each)(void *arg, struct backend *be),
                          void *arg);

struct pick_wait {
    struct list node;
    struct backend *backend; /* while it waits */
    void (*wake)(struct pick_wait *w);
};
/* Joins the queue (waiting_max of the backend, or else queue_capacity). wake runs once, from
 * the loop, when an endpoint may be ready. QUEUE_FULL. */
MUST_USE err_t backend_wait(struct backend *be, struct pick_wait *w);
void pick_wait_cancel(struct pick_wait *w); /* also fine when not waiting */

/* ---- connections to endpoints ---- */

/* Whether another connection may be made now (connections_max of every backend that has the
 * endpoint). True: dial_start follows in this turn, the place is kept for it. */
bool endpoint_may_dial(struct endpoint *ep);
/* Whether it is our own application's and has as many connections as its port takes. */
bool endpoint_app_is_full(struct endpoint *ep);
/* Whether who waits for a connection of this kind waits for the TLS of the endpoint's first one. */
bool endpoint_is_shaking(const struct endpoint *ep, enum pool_kind kind);
/* Whether the backend has as many connections as it may (connections_max). */
bool backend_has_no_place(const struct backend *be);
/* Tells the balance that a connection has closed: to be called for every one of the net. */
void balance_conn_closed(struct balance *b, const struct conn *c);

struct dial_result {
    struct conn
        *conn; /* NULL: failed. Else the callee owns it (conn_own or close) before it returns */
    bool is_tls, is_timeout,
        is_local;     /* of a failure; is_local: an error of ours, not the endpoint's */
    const char *code; /* of a failure: stable word of the handshake, or "" */
};
typedef void dial_done_fn(void *arg, const struct dial_result *r);

/* Connects, in outbound_connect_ms (inbound_connect_ms: to the application); to a meshed endpoint with TLS, which has the
 * time of its room behind that, and the transport header. `done` comes once, from the
 * loop, never before this returns: forget *out when it comes. Counts for readiness. */
MUST_USE err_t dial_start(struct endpoint *ep, enum session_protocol session,
                          dial_done_fn *done, void *arg, struct dial **out);
void dial_cancel(struct dial **d);

struct lend_failure {
    bool is_tls, is_timeout, is_local;
    const char *code;
};

struct lend {
    struct list node;
    struct endpoint *endpoint; /* while it waits */
    enum pool_kind kind;
    bool is_once; /* set by the caller: the request may not be sent twice, so that only a
                     connection that was used a moment ago will do */
    /* Either a connection with a free slot (take the slot before returning) or a failure. */
    void (*done)(struct lend *l, struct http_back *back, const struct lend_failure *why);
};

/* Lends a connection with a free slot: one that is open, now (STEP_DONE, *out), or a new one
 * soon (STEP_LATER: l->done runs once, from the loop, never before this returns). STEP_FAILED:
 * no memory. */
enum step endpoint_lend(struct endpoint *ep, enum pool_kind kind, struct lend *l,
                        struct http_back **out);
void lend_cancel(struct lend *l); /* also fine when not waiting */

/* A connection to a plain endpoint that was dialled before the protocol was known becomes one
 * of its pool. */
void endpoint_donate(struct endpoint *ep, enum pool_kind kind, struct conn *c);

#endif
