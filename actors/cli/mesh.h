/* An embedded mesh on this machine: what `weft up` wrote down and everybody else reads.
 *
 *   RUN/mesh.json        root, 0644   this record; its presence says that RUN is ours
 *   RUN/lock             root         held while pods are claimed, swept or the mesh goes up or
 * down RUN/supervisor.pid   root         "PID START" of the control plane's supervisor RUN/next
 * root         the number the next pod tries first RUN/control/         2103, 0700   run
 * directory of the control plane RUN/pods/POD/        2102, 0700   run directory of a pod
 *   RUN/owners/POD.json  root, 0600   who made the pod (pod.h)
 *   STATE/               2103, 0711   databases, keys, hosts
 *   STATE/pods/POD/      2102, 0700   state of a pod
 *   STATE/log/           root, 0700   one log per supervisor
 */
#ifndef CLI_MESH_H
#define CLI_MESH_H

#include "cli/plan.h"
#include "cli/procs.h"

#include <stdbool.h>

#define MESH_CONTROL_UID                                                                       \
    2103 /* a pod's uid (2102) must not be able to touch the issuer's key */
#define MESH_DIR_MAX                                                                           \
    200 /* a socket's path must fit into 107 bytes; state paths may be longer */
#define MESH_RUN_MAX 64

struct mesh {
    char run[MESH_RUN_MAX + 1]; /* absolute, no slash at the end */
    char state[MESH_DIR_MAX + 1];
    char net[PLAN_ADDRESS_TEXT];
    struct plan plan;
    bool ipv6;
    char control_namespace[64];
    char trust_domain[254];
};

/* Checks and stores the two directories (made absolute by the caller's working directory). */
MUST_USE err_t mesh_set_dirs(struct mesh *m, const char *run, const char *state,
                             struct trouble *why);

/* Reads RUN/mesh.json. NO_MESH if there is none. */
MUST_USE err_t mesh_load(struct mesh *m, const char *run, struct trouble *why);
MUST_USE err_t mesh_store(const struct mesh *m, struct trouble *why);

/* Takes RUN/lock, waiting up to 30 s; closing *fd gives it back. What was read of the mesh
 * before may have changed while this waited. NO_MESH: RUN went away (somebody's `weft down`);
 * NOT_READY: another command holds it for too long; OS. *fd is -1 then. */
MUST_USE err_t mesh_lock(const char *run, int *fd, struct trouble *why);

/* For who holds the lock: OK if RUN is still the mesh that `m` was loaded from. NO_MESH |
 * NOT_READY (another one was started there meanwhile) | errors of mesh_load. */
MUST_USE err_t mesh_is_same(const struct mesh *m, struct trouble *why);

/* The control plane's supervisor, if it lives. */
bool mesh_supervisor(const struct mesh *m, struct proc_id *out);

/* OK if the caller is root. */
MUST_USE err_t mesh_need_root(const char *what, struct trouble *why);

#endif
