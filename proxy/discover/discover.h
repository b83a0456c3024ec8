/* What is behind a target: asked from weft-link once, kept, and replaced when a newer view
 * comes.
 *
 * A target is a text, "IP:PORT" of an original destination or "NAME:PORT". Its view is an
 * immutable, counted `struct destination`: whoever began with one keeps it, new requests take
 * the newest. While the link is away everything goes on with what is known. A target that
 * nobody can tell about in time is LOST, and its users are told so: plain text to an address
 * that may be a pod's would be a leak. Only for an address that the settings name (`plain`) it
 * is a good guess (kind 0).
 *
 * States of a target:  ASKED --destination--> KNOWN (for ever; later views replace the version
 * in force) ASKED --out of time, unresolved--> GUESSED (`plain`) or LOST
 * --destination--> KNOWN
 * A LOST target is asked for again when it is used, once a second: LOST --destination--> KNOWN
 */
#ifndef PROXY_DISCOVER_DISCOVER_H
#define PROXY_DISCOVER_DISCOVER_H

#include "kit/err.h"
#include "kit/hash.h"
#include "kit/list.h"
#include "kit/slice.h"
#include "kit/timer.h"
#include "wire/wire.h"

#include <netinet/in.h>

#define DISCOVER_TARGETS_MAX 8192
#define DISCOVER_IDLE_MS     60000 /* a target nobody used for so long is forgotten */
#define DISCOVER_PORTS_MAX   256
#define DISCOVER_SPOKEN_MAX  64

struct backend;
struct balance;
struct discover;
struct route_table;

enum destination_kind { DESTINATION_PLAIN, DESTINATION_SERVICE, DESTINATION_ENDPOINT };
enum protocol {
    PROTOCOL_DETECT,
    PROTOCOL_HTTP1,
    PROTOCOL_HTTP2,
    PROTOCOL_GRPC,
    PROTOCOL_OPAQUE
};

/* A version of a view. Never changed once it is in force. */
struct destination {
    unsigned refs;
    struct wire_msg msg;                 /* the decoded view; owned */
    uint8_t *bytes;                      /* what msg points into; owned */
    const struct wire_destination *view; /* in msg */
    struct route_table *routes;          /* owned */
    size_t n_backends;
    struct backend **backends; /* owned array of references, by the indices of the view */
    bool is_guess;             /* made up here: nobody told us */
};
void destination_ref(struct destination *d);
void destination_unref(struct destination **d);

enum target_state { TARGET_ASKED, TARGET_KNOWN, TARGET_GUESSED, TARGET_LOST };

struct target {
    UT_hash_handle hh;
    struct discover *discover;
    char *text; /* owned */
    enum target_state state;
    unsigned users;
    uint64_t idle_since_ms, asked_ms;
    bool has_plain;
    struct sockaddr_storage plain; /* where to go when nobody tells */
    struct destination *now;       /* counted; NULL while ASKED or LOST */
    struct list waiting;           /* struct target_wait */
    struct timer timer;
};

struct discover_conf {
    struct event_base *base;
    const char
        *endpoint; /* ipc of weft-link; NULL: there is none, everything is plain at once */
    struct balance *balance;
    uint64_t wait_ms;     /* longest wait for a first answer */
    unsigned waiting_max; /* who may wait for answers, over all targets */
    bool (*is_local)(void *arg,
                     const struct sockaddr_storage *a); /* one of the pod's own addresses */
    /* What the control plane says of this pod's own ports has changed. `m` is lent for the call. May
     * be NULL. */
    void (*on_ports)(void *arg, const struct wire_ports *m);
    void *arg;
};
MUST_USE err_t discover_new(const struct discover_conf *conf, struct discover **out);
void discover_free(struct discover **d); /* before the balance */

/* A use of the target (its text is copied); ends with target_drop. `plain` may be NULL.
 * QUEUE_FULL: too many targets are in use. */
MUST_USE err_t discover_use(struct discover *d, slice_t text,
                            const struct sockaddr_storage *plain, struct target **out);
void target_drop(struct target **t);

struct target_wait {
    struct list node;
    struct target *target;               /* while it waits */
    void (*done)(struct target_wait *w); /* t->state is not ASKED any more */
};
/* True: it is known (or given up) now. False: done will run once, from the loop; or, with *why
 * set, refused. */
bool target_wait(struct target *t, struct target_wait *w, err_t *why);
void target_wait_cancel(struct target_wait *w); /* also fine when not waiting */

/* What a port of this pod speaks (enum protocol), by what the control plane says. */
uint8_t discover_port(const struct discover *d, uint16_t port);

/* What it was seen to speak, of which every pod of the workload knows; PROTOCOL_DETECT: nothing, or it is declared. */
uint8_t discover_lesson(const struct discover *d, uint16_t port);

/* Tell the link what a port was found to speak (0: several). Repeated by itself when the link returns. */
void discover_spoken(struct discover *d, uint16_t port, uint8_t protocol);

/* Tell the link that the pod takes, or no longer takes, traffic. Repeated by itself when the
 * link returns. */
void discover_serving(struct discover *d, bool is_serving);

struct discover_counters {
    uint64_t resolved, updates, bad_views, guesses, refused;
};
const struct discover_counters *discover_count(const struct discover *d);
bool discover_is_linked(const struct discover *d);

/* ---- destination.c: for this room and its tests ---- */

/* Builds a version from an encoded `destination` message. Errors of the wire, or MALFORMED. */
MUST_USE err_t destination_read(slice_t bytes, struct balance *balance,
                                bool (*is_local)(void *arg, const struct sockaddr_storage *a),
                                void *arg, struct destination **out);
/* The version of an address that the mesh does not know. */
MUST_USE err_t destination_plain(const char *text, const struct sockaddr_storage *address,
                                 struct balance *balance, struct destination **out);

#endif
