/* Makes a pod, step by step. Whatever step fails, pod_remove() undoes all of them. */
#ifndef CLI_PODUP_H
#define CLI_PODUP_H

#include "cli/pod.h"

#include <stdbool.h>
#include <stdint.h>

struct podup_conf {
    const char *service; /* --as: also the workload */
    const char *service_account;
    const char *zone;
    const char *version; /* of the program, "" */
    const char *workers; /* of the proxy; NULL or "": as WEFT_WORKERS says */
    const char *serves; /* "web:8080/http1,web:9090", may be "" */
    bool ipv6;
    uint64_t ready_ms;
    uint64_t drain_ms;
};

/* "8080" or "8080/http1" for service `as` -> "as:8080/http1" appended to serves[cap] with a
 * comma. USAGE. */
MUST_USE err_t podup_add_port(const char *as, const char *port, char *serves, size_t cap,
                              struct trouble *why);

/* The caller holds no lock (podup takes it for the claim) and has filled p->ns and p->name. On
 * success the pod is ready and *supervisor is its supervisor, a child of the caller that dies
 * with it. On failure everything is undone already. */
MUST_USE err_t podup_make(const struct mesh *m, struct pod *p, const struct podup_conf *conf,
                          struct proc_id *supervisor, struct trouble *why);

/* SIGTERM, SIGINT or SIGHUP, if one waits to be taken by the caller, which has blocked them;
 * else 0. podup_make ends with NOT_READY when it sees one. */
int podup_signal(void);

/* Starts `weft redirect check` for the pod, reporting into its run directory and to its
 * telemetry; the child's pid, or -1. Its exit code is CLI_OK or CLI_FAILED. */
pid_t podup_check_capture(const struct mesh *m, const struct pod *p,
                          const struct podup_conf *conf);

#endif
