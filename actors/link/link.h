/* The link's state: the pod's view of the mesh, who uses it, and the session with the broker.
 *
 *   view.h      what is known per topic, who uses it, what is in force
 *   session.h   the connection to the broker and its states
 *   local.h     link.sock: proxies, tls
 *   snapshot.h  the view on disk
 *   creds.h     the link's own key and the join token
 */
#ifndef LINK_LINK_H
#define LINK_LINK_H

#include "kit/actor.h"
#include "kit/hash.h"
#include "kit/list.h"
#include "kit/mailbox.h"
#include "kit/timer.h"
#include "model/lesson.h"
#include "wire/join.h"
#include "wire/topic.h"
#include "wire/wire.h"

#include <stdbool.h>
#include <stdint.h>

#define LINK_MAX_VIEWS 4096u       /* as the broker's topics per session */
#define LINK_MAX_BYTES (64u << 20) /* payloads together */
#define LINK_MAX_INTERESTS                                                                     \
    64u /* users of one topic: proxies' workers times spellings of a target */
#define LINK_MAX_ROUTE 64u
#define LINK_TARGET    301

/* A local process that uses a topic. */
struct interest {
    struct list link;
    size_t n_route;
    uint8_t route[LINK_MAX_ROUTE];
    char
        target[LINK_TARGET]; /* as it was asked for: dst: the target; else "trust" or "ports" */
    uint64_t id;             /* of the resolve that waits for its first answer; 0 answered */
    uint64_t applied;        /* revision it said is in force */
    uint32_t round;          /* view_tell_all */
    bool must_apply; /* its word counts for acks (not for ports, which have no revision) */
};

/* What is known of a topic. */
struct view {
    char topic[WIRE_TOPIC_MAX + 1];
    uint64_t hash;
    uint64_t revision; /* of the payload held; 0 none, or of another epoch */
    uint64_t in_force; /* revision that every user has applied */
    uint8_t *payload;  /* owned; NULL nothing known yet */
    size_t n_payload;
    bool is_fresh; /* heard from the broker in this session; else from the snapshot or before */
    bool is_watched;         /* the broker knows that we use it */
    uint64_t asked_ms;       /* when it was last fetched or watched */
    uint64_t wanted;         /* revision that fetch is for */
    uint64_t waits_until_ms; /* users wait for the first payload; 0 none */
    uint64_t idle_since_ms;  /* 0: used */
    uint32_t digest_round;   /* last digest that named it */
    bool is_permanent;       /* trust and this pod's ports */
    struct list interests;
    UT_hash_handle hh, by_hash;
};

/* See session.c for what is true in each. */
enum link_state { LINK_DOWN, LINK_HELLO, LINK_SYNC, LINK_LIVE };

/* A certificate request of weft-tls that waits for its answer. */
struct errand_sign {
    uint64_t id, asked_id, ends_ms; /* id 0: free */
    uint8_t *held; /* owned: the encoded `sign`, until there is a session; NULL it has left */
    size_t n_held;
    size_t n_route;
    uint8_t route[LINK_MAX_ROUTE];
};

struct link_counters {
    uint64_t hints, hints_old, fetches, digests, repaired, bad_payloads, bad_messages, epochs,
        snapshots_written, unresolved, reconnects;
};

#define LINK_SIGNS_MAX 16u
#define LINK_PORTS_MAX 64u

/* What a port of this pod was found to speak: the proxies' findings together. */
struct spoken_port {
    uint16_t port;
    enum lesson lesson;
};

struct link {
    struct actor *actor;
    struct event_base *base;
    const struct settings *set;
    char version[33];
    uint64_t incarnation;

    /* who this pod is */
    struct wire_address addresses[8];
    size_t n_addresses;
    struct wire_served serves[64];
    size_t n_serves;
    char own_topic[WIRE_TOPIC_MAX + 1]; /* pod/NS/POD */

    /* credentials */
    char public_key[MAILBOX_KEY_TEXT], secret_key[MAILBOX_KEY_TEXT];
    bool has_had_session; /* since this process began */
    bool has_joined;  /* the broker has our own key */
    bool is_by_token; /* the open connection uses the token's key */

    /* session */
    enum link_state state;
    struct mailbox *broker, *updates, *local, *telemetry;
    uint64_t epoch, mesh_revision;
    uint64_t next_id, hello_id;
    uint64_t state_since_ms, heard_ms, digest_heard_ms;
    uint64_t next_try_ms; /* DOWN/HELLO: when to try again */
    unsigned failures;
    bool is_serving, is_draining;
    bool has_said_bye; /* nothing more is said to the broker, and what it says is not heard */
    bool said_serving; /* as the broker was told last */
    int64_t skew_ms;
    struct timer tick, alive, drained;
    bool is_calm; /* the tick is a slow one */
    uint64_t acked_sum;
    bool was_acked;
    bool is_ack_due;
    struct timer ack_turn;
    uint32_t digest_round;
    uint16_t digest_part;
    bool is_digest_whole;

    struct view *views, *views_by_hash;
    size_t bytes; /* of all payloads */
    uint32_t tell_round;

    bool is_snapshot_dirty;
    uint64_t snapshot_ms;

    struct errand_sign signs[LINK_SIGNS_MAX];
    struct spoken_port spoken[LINK_PORTS_MAX];
    unsigned n_spoken;
    struct link_counters count;
};

#define ERR(name, cls, text) ERR_DECLARE(name)
#include "link/tbl/errors.h"
#undef ERR

#define WIRE_GOT(name, call) (&(call)->msg->body.name)

/* LINK_SEND gives the error (PEER_GONE if m is not open); LINK_TELL is for what may be lost,
 * because the receiver asks again or a digest shows it. */
#define LINK_SEND(m, to, name, body) link_send((m), (to), WIRE_##name, WIRE_BODY(name, body))
#define LINK_TELL(m, to, name, body) link_tell((m), (to), WIRE_##name, WIRE_BODY(name, body))
MUST_USE err_t link_send(struct mailbox *m, slice_t to, enum wire_code code, const void *body);
void link_tell(struct mailbox *m, slice_t to, enum wire_code code, const void *body);

#endif
