/* The broker's state: what is in the store, held in memory, and who is connected.
 *
 * One struct control per process is handed to everything. The rooms:
 *   keys.h      who may connect            sessions.h  pods and their leases
 *   topics.h    what is watched, revisions services.h  services, their addresses, the hosts
 * file views.h     payloads of topics         objects.h   apply and delete learned.h   what ports were seen to speak
 * links.h     messages
 * of links          desk.h      messages of the CLI, waits issuer.h    the broker's side of
 * weft-authority The order of every change: check -> store (commit) -> memory -> topics ->
 * answer. Nothing is told to anybody that is not committed.
 */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include "kit/actor.h"
#include "kit/hash.h"
#include "kit/list.h"
#include "kit/mailbox.h"
#include "kit/timer.h"
#include "model/lesson.h"
#include "store/mesh.h"
#include "wire/wire.h"

#include <stdbool.h>
#include <stdint.h>

#define CONTROL_MAX_SESSIONS  20000u
#define CONTROL_MAX_WATCHES   4096u /* topics per session */
#define CONTROL_MAX_TOPICS    100000u
#define CONTROL_MAX_SERVED    64u /* as wire: hello.serves */
#define CONTROL_MAX_ADDRESSES 8u
#define CONTROL_MAX_ROUTE     255u

struct session;
struct topic;

/* A registered link key and, while its link is connected, the way to answer it. */
struct link_key {
    char public_key[MAILBOX_KEY_TEXT]; /* hash key */
    char ns[64], service_account[254], pod[254];
    struct session *session; /* lent; NULL: none open */
    UT_hash_handle hh;
};

struct join_token {
    char id[17];                       /* hash key of by_id */
    char public_key[MAILBOX_KEY_TEXT]; /* hash key of by_key */
    char ns[64], service_account[254];
    char used_by[MAILBOX_KEY_TEXT]; /* link key that joined with it; "": unused */
    int64_t expires_ms;             /* wall */
    UT_hash_handle by_id, by_key;
};

struct served_port {
    char service[254];
    uint16_t port;
    uint8_t protocol;
};

/* A watched topic of a session: in both lists. */
struct watch {
    struct list of_session, of_topic;
    struct session *session;
    struct topic *topic;
};

/* A pod. States (session_state() in sessions.c is the one function that changes them):
 *   RESUMABLE  read from the store after a restart of the broker, or its link's connection was
 * lost; the endpoints stay until the lease ends LIVE       hello was answered on the connection
 * `route` ENDED      lease over, bye, or key gone; freed in the same turn */
enum session_state { SESSION_RESUMABLE, SESSION_LIVE, SESSION_ENDED };

struct session {
    char name[320]; /* hash key: NS/POD */
    enum session_state state;
    char ns[64], pod[254], workload[254], service_account[254], zone[64], version[33];
    char app_version[129]; /* of the application, as it says itself */
    char identity[254];
    char public_key[MAILBOX_KEY_TEXT];
    uint64_t incarnation;
    unsigned n_addresses, n_serves;
    char addresses[CONTROL_MAX_ADDRESSES][46];
    struct served_port *serves; /* owned */
    uint16_t inbound_port;
    uint32_t processes;
    uint32_t weight; /* of its endpoints; 10000 is normal */
    int64_t ready_ms; /* wall; when it began to serve, 0 not known (before our restart) */
    bool is_serving;
    int64_t opened_ms, skew_ms;       /* wall */
    uint64_t lease_ends_ms, heard_ms; /* monotonic */
    uint8_t route[CONTROL_MAX_ROUTE];
    size_t n_route;

    struct list watches; /* struct watch.of_session */
    unsigned n_watches;
    /* Sums over the watched topics (topic_mix): what is current, and what the link said is in
     * force. Equal: everything this session watches is applied. */
    uint64_t want, have;
    uint64_t acked;     /* mesh revision at which they were equal last */
    bool is_dirty_note; /* acked or heard changed since mesh_note_session */
    UT_hash_handle hh;
};

/* A view that has more endpoints than fit a message (views.h). */
struct view_cut {
    unsigned max;      /* endpoints per backend that fit; 0: not known */
    unsigned left_out; /* of how many others nothing is said */
    uint64_t whole;    /* fingerprint of all of them; 0: nothing is left out */
};

struct topic {
    char name[321]; /* hash key */
    uint64_t hash;
    uint64_t revision;
    uint8_t *payload; /* owned */
    size_t n_payload;
    struct view_cut cut; /* cut.whole != 0: every pod gets a payload of its own */
    bool is_dirty;
    struct list dirty;   /* in control.dirty */
    struct list watches; /* struct watch.of_topic */
    UT_hash_handle hh;
};

/* What is held of a service beyond its object. */
struct service_entry {
    char name[320]; /* hash key: NS/NAME */
    char ip4[46], ip6[46];
    bool is_of_session; /* no object was applied: made by the first session that serves it */
    bool is_staged;     /* allotted by a change that is not committed */
    bool is_dropped;    /* a change that is not committed deletes it */
    UT_hash_handle hh, by_ip4, by_ip6;
};

/* What a port of a workload speaks (learned.h). */
#define LEARNED_KEY 460
struct learned_port {
    char key[LEARNED_KEY]; /* hash key: NS/WORKLOAD:PORT@VERSION */
    char ns[64], workload[254], version[129];
    uint16_t port;
    enum lesson lesson;
    UT_hash_handle hh;
};

/* A resource in force. */
struct object {
    char key[400]; /* hash key: KIND/NS/NAME */
    char kind[65], ns[64], name[254];
    char *json; /* owned, canonical */
    size_t n_json;
    uint64_t revision;
    struct resource *parsed; /* owned; model/resource.h */
    UT_hash_handle hh;
};

/* A row written in the open transaction that memory does not know yet (objects.h). */
struct staged {
    struct list link;
    bool is_drop;
    struct object *object; /* owned; put: the new one. drop: key only */
};

struct resource;
struct attached;
struct wait;   /* desk.c */
struct errand; /* issuer.c */

struct control_counters {
    uint64_t bad_messages, refused_keys, sessions_opened, sessions_lost, applied,
        refused_objects;
    uint64_t topics_computed, hints, digests, topics_sent, topics_cut, store_errors, unsent;
};

struct control {
    struct actor *actor;
    struct event_base *base;
    const struct settings *set;
    struct mesh *mesh;
    uint64_t started_ms;

    char public_key[MAILBOX_KEY_TEXT], secret_key[MAILBOX_KEY_TEXT];
    struct mailbox *links, *updates, *authority, *cli;

    struct link_key *keys;
    struct join_token *tokens_by_id, *tokens_by_key;
    uint64_t refused_logged_ms, refused_since; /* KEY_REFUSED events are one a minute at most */
    char refused_last[MAILBOX_KEY_TEXT + 48];

    struct session *sessions;

    struct topic *topics;
    struct list dirty; /* topics to compute again */
    uint64_t settled;  /* revision up to which no topic is dirty */
    struct timer dirty_turn, digest_tick, second_tick, wait_turn, hosts_turn;

    struct service_entry *services, *services_by_ip4, *services_by_ip6;
    uint32_t cidr_base, cidr_mask; /* host order */
    uint32_t next_address;
    bool is_hosts_dirty;
    struct object *objects;
    struct attached *attached; /* attached.h */
    struct list staged;
    struct learned_port *learned;

    struct list waits;
    unsigned n_waits;
    struct errand *errands;
    unsigned n_errands;
    uint64_t next_errand;
    bool has_authority;
    uint8_t *anchors; /* owned PEM; NULL before the authority was heard once */
    size_t n_anchors;
    int64_t issuer_not_after_ms, root_not_after_ms;

    struct control_counters count;
};

#define ERR(name, cls, text) ERR_DECLARE(name)
#include "broker/control/tbl/errors.h"
#undef ERR

/* Begins a change in the name of `author`; a store error is logged and counted. */
MUST_USE err_t control_begin(struct control *c, slice_t author, slice_t reason);
MUST_USE err_t control_commit(struct control *c);

/* An event row in a transaction of its own; a failure is logged only. */
void control_event(struct control *c, const char *kind, const char *object, const char *fmt,
                   ...) PRINTF_LIKE(4, 5);

/* The body of a message that the permit table has already found to be a NAME. */
#define WIRE_GOT(name, call) (&(call)->msg->body.name)

/* Sends what may be lost: the receiver asks again, or a digest shows it. Losses are counted. */
#define CONTROL_SEND(c, m, to, name, body)                                                     \
    control_send((c), (m), (to), WIRE_##name, WIRE_BODY(name, body))
void control_send(struct control *c, struct mailbox *m, slice_t to, enum wire_code code,
                  const void *body);

/* "refused" with the error's name and text, or `why` if not NULL. */
void control_refuse(struct control *c, struct mailbox *m, slice_t to, uint64_t id, err_t e,
                    const char *why);

#endif
