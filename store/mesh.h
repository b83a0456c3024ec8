/* mesh.db: the topology of the mesh with its history, in STATE/broker/mesh.db. weft-broker is
 * its one writer.
 *
 * Every row of the topology says from which and until which mesh revision (and wall time) it
 * held; nothing of it is overwritten or deleted before mesh_trim finds it too old. A change is
 * made between mesh_begin and mesh_commit; it is durable (fsync) when mesh_commit returns OK,
 * and only then may anybody be told.
 *
 *     TRY(mesh_begin(m, &(struct mesh_author){...}));    the revision it would get:
 * mesh_next(m) e = mesh_put_object(m, &o);  ... e = mesh_commit(m); mesh_revision(m) has grown
 * by one if a row of the topology was written (events do not count) On any error:
 * mesh_rollback. Calls block for the time of a local file write. Slices are borrowed. Published
 * views: docs/sql.md. No secret is ever written here: of keys only public halves.
 */
#ifndef STORE_MESH_H
#define STORE_MESH_H

#include "kit/err.h"
#include "kit/slice.h"
#include "store/store_err.h"

#include <stdbool.h>
#include <stdint.h>

#define MESH_FILE "broker/mesh.db" /* below STATE_DIR */

struct mesh; /* opaque */

struct mesh_author {
    slice_t author, reason; /* who and why, for mesh_changes */
    int64_t at_ms;          /* wall */
};

/* Opens or creates the file (store.md). *was_fresh: a new mesh with a new epoch was begun,
 * because nothing was there or because the file was damaged and has been moved aside. */
MUST_USE err_t mesh_open(const char *state_dir, struct mesh **out, bool *was_fresh);
void mesh_close(struct mesh **m); /* NULL is fine; rolls back */

uint64_t mesh_epoch(const struct mesh *m); /* random, new with the file; never 0, below 2^63 */
uint64_t mesh_revision(const struct mesh *m); /* last committed */
uint64_t mesh_next(const struct mesh *m);     /* of the change being made */

MUST_USE err_t mesh_begin(struct mesh *m, const struct mesh_author *author);
MUST_USE err_t mesh_commit(struct mesh *m);
void mesh_rollback(struct mesh *m); /* also fine when nothing is open */

/* ---- rows. put_ replaces the current row of the same key; drop_ ends it (also fine if absent)
 * ---- */

struct mesh_object {
    slice_t kind, ns, name; /* key */
    slice_t json;
    uint64_t revision; /* read: since when */
    uint64_t
        created; /* read: first revision of an object of this name that history still knows */
};
MUST_USE err_t mesh_put_object(struct mesh *m, const struct mesh_object *o);
MUST_USE err_t mesh_drop_object(struct mesh *m, const struct mesh_object *o);

struct mesh_service {
    slice_t ns, name; /* key */
    slice_t ip4, ip6; /* text; may be empty */
    slice_t owner;    /* "object" or "session" */
    slice_t ports;    /* JSON array of {name, port, protocol} */
};
MUST_USE err_t mesh_put_service(struct mesh *m, const struct mesh_service *s);
MUST_USE err_t mesh_drop_service(struct mesh *m, slice_t ns, slice_t name);

struct mesh_endpoint {
    slice_t ns, service; /* key, with port, ip, target_port and source */
    uint16_t port;
    slice_t ip;
    uint16_t target_port;
    slice_t source; /* "session" or "slice" */
    uint8_t protocol;
    slice_t identity, pod, zone;
    bool is_ready;
};
MUST_USE err_t mesh_put_endpoint(struct mesh *m, const struct mesh_endpoint *e);
/* Ends all current endpoints of a pod (source session), or of a service (source slice). */
MUST_USE err_t mesh_drop_endpoints_of_pod(struct mesh *m, slice_t pod);
MUST_USE err_t mesh_drop_endpoints_of_slices(struct mesh *m, slice_t ns, slice_t service);

struct mesh_session {
    slice_t ns, pod; /* key */
    slice_t workload, service_account, identity, zone, version, app_version;
    uint64_t incarnation;
    slice_t addresses;  /* comma list */
    slice_t serves;     /* SERVICE:PORT/PROTOCOL comma list, PROTOCOL a number */
    slice_t public_key; /* CURVE */
    uint16_t inbound_port;
    uint32_t processes;
    uint32_t weight; /* of its endpoints */
    bool is_serving;
    int64_t opened_ms;
    int64_t skew_ms; /* pod's clock minus ours */
    uint64_t acked;
};
MUST_USE err_t mesh_put_session(struct mesh *m, const struct mesh_session *s);
MUST_USE err_t mesh_end_session(struct mesh *m, slice_t ns, slice_t pod, slice_t why);
/* What changes all the time and makes no revision: overwritten in place. */
MUST_USE err_t mesh_note_session(struct mesh *m, slice_t ns, slice_t pod, uint64_t acked,
                                 int64_t heard_ms, int64_t skew_ms);

struct mesh_key {
    slice_t public_key; /* key; Z85 */
    slice_t ns, service_account, pod;
};
MUST_USE err_t mesh_put_link_key(struct mesh *m, const struct mesh_key *k);
MUST_USE err_t mesh_drop_link_keys(struct mesh *m, slice_t ns,
                                   slice_t pod); /* all of this pod */
/* Notes when a key was last used, so that mesh_trim can tell the forgotten ones. */
MUST_USE err_t mesh_touch_link_key(struct mesh *m, slice_t public_key, int64_t at_ms);

struct mesh_feed_key {
    slice_t name; /* key */
    slice_t public_key;
};
MUST_USE err_t mesh_put_feed_key(struct mesh *m, const struct mesh_feed_key *k);
MUST_USE err_t mesh_drop_feed_key(struct mesh *m, slice_t name, bool *was_there);

struct mesh_token {
    slice_t id;         /* key; 16 hex digits */
    slice_t public_key; /* of the token's CURVE pair */
    slice_t ns, service_account;
    int64_t expires_ms; /* wall */
    slice_t used_by;    /* link key that joined with it; empty: unused */
};
MUST_USE err_t mesh_put_token(struct mesh *m, const struct mesh_token *t);
MUST_USE err_t mesh_use_token(struct mesh *m, slice_t id, slice_t link_key);

struct mesh_certificate {
    slice_t identity, ns, pod, serial, fingerprint;
    int64_t issued_ms, not_before_ms, not_after_ms;
};
MUST_USE err_t mesh_put_certificate(struct mesh *m, const struct mesh_certificate *c);

struct mesh_learned {
    slice_t ns, workload; /* key, with port and app_version */
    uint16_t port;
    slice_t app_version;
    uint8_t protocol; /* PROTOCOL_*; 0: several */
};
MUST_USE err_t mesh_put_learned(struct mesh *m, const struct mesh_learned *l);
MUST_USE err_t mesh_drop_learned(struct mesh *m, const struct mesh_learned *l);

/* kind: stable, upper case. At most 320 and 512 bytes of object and message are kept. */
MUST_USE err_t mesh_add_event(struct mesh *m, int64_t at_ms, slice_t kind, slice_t object,
                              slice_t message);

/* Makes the open change a revision although no row of the topology changes (new trust anchors).
 */
MUST_USE err_t mesh_touch(struct mesh *m);

/* A value the broker keeps for itself, e.g. the anchors last seen (PEM). */
MUST_USE err_t mesh_put_value(struct mesh *m, const char *key, slice_t value);
/* Calls fn once with the value if it is there. */
MUST_USE err_t mesh_get_value(struct mesh *m, const char *key,
                              void (*fn)(void *arg, slice_t value), void *arg);

/* ---- reading back at the start: every current row; slices are valid during the call ---- */

MUST_USE err_t mesh_each_object(struct mesh *m, void (*fn)(void *, const struct mesh_object *),
                                void *);
MUST_USE err_t mesh_each_service(struct mesh *m,
                                 void (*fn)(void *, const struct mesh_service *), void *);
MUST_USE err_t mesh_each_session(struct mesh *m,
                                 void (*fn)(void *, const struct mesh_session *), void *);
MUST_USE err_t mesh_each_link_key(struct mesh *m, void (*fn)(void *, const struct mesh_key *),
                                  void *);
MUST_USE err_t mesh_each_token(struct mesh *m, int64_t now_ms,
                               void (*fn)(void *, const struct mesh_token *),
                               void *); /* unexpired */
MUST_USE err_t mesh_each_learned(struct mesh *m,
                                 void (*fn)(void *, const struct mesh_learned *), void *);

/* Deletes history that ended before `before_ms`, old events and expired tokens: at most
 * max_rows rows. A transaction of its own. *left: there is more. */
MUST_USE err_t mesh_trim(struct mesh *m, int64_t before_ms, unsigned max_rows, bool *left);

struct mesh_stats {
    uint64_t commits, failed_commits, file_bytes, wal_bytes;
};
void mesh_stats(struct mesh *m, struct mesh_stats *out);

#endif
