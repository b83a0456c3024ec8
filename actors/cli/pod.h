/* One pod made by `weft run`: the record that finds it again, and its removal.
 *
 * The record RUN/owners/POD.json is written before anything else is made and removed after
 * everything else is gone, so whatever a crash left behind has a record; pod_remove() needs
 * nothing but the record and may be called at any stage of making or removing.
 */
#ifndef CLI_POD_H
#define CLI_POD_H

#include "cli/mesh.h"
#include "cli/procs.h"

#include <stdbool.h>
#include <stdint.h>

#define POD_UID      2102
#define POD_NAME_MAX 63

struct pod {
    char ns[64];
    char name[POD_NAME_MAX + 1]; /* unique on this machine */
    uint32_t number;             /* gives its addresses (plan.h) */
    struct proc_id owner;        /* the `weft run` that made it */
};

/* "web-1": a DNS label. */
bool pod_name_ok(const char *name);

void pod_netns(const struct mesh *m, const struct pod *p, char out[256]);
/* RUN/pods/POD and STATE/pods/POD and STATE/log/POD.log; each out[512]. */
void pod_run_dir(const struct mesh *m, const struct pod *p, char out[512]);
void pod_state_dir(const struct mesh *m, const struct pod *p, char out[512]);
void pod_log(const struct mesh *m, const struct pod *p, char out[512]);

/* Takes a free number and writes the record, owned by this process. The caller holds the mesh's
 * lock. p->ns and p->name are set by the caller. */
MUST_USE err_t pod_claim(const struct mesh *m, struct pod *p, struct trouble *why);

/* Ends every process in the pod's namespace (grace_ms for SIGTERM, 0: SIGKILL at once), removes
 * namespace, directories and record. Goes on past failures; the first one is told. */
MUST_USE err_t pod_remove(const struct mesh *m, const struct pod *p, uint64_t grace_ms,
                          struct trouble *why);

/* Calls fn for each record; unreadable ones are skipped. fn may remove the pod. Returns how
 * many. */
unsigned pod_each(const struct mesh *m, void (*fn)(void *arg, const struct pod *p), void *arg);

/* Removes the pods whose `weft run` is gone. The caller holds the lock. Returns how many there
 * were. */
unsigned pod_sweep(const struct mesh *m);

#endif
