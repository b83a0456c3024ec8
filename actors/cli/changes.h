/* What apply and delete share: batches to the broker, outcomes to the person, waiting for the
 * mesh. */
#ifndef CLI_CHANGES_H
#define CLI_CHANGES_H

#include "cli/client.h"

#include <jansson.h>
#include <stdbool.h>

struct changes_conf {
    const char *reason; /* may be "" */
    const char *ns;     /* for objects that name none */
    bool is_delete, is_dry, is_wait, is_quiet;
    uint64_t wait_ms;
};

/* Reads a manifest from a file or ("-") standard input, at most 4 MiB, and appends its objects
 * to the array, each checked by the broker's own rules. Every fault is printed as FILE:LINE:
 * FIELD: REASON; MALFORMED if there was one, so that nothing of a faulty set is sent. For a
 * delete only kind and name are looked at. */
MUST_USE err_t changes_read(const char *file, const struct changes_conf *conf, json_t *objects,
                            struct trouble *why);

/* Sends the objects, prints an outcome for each, and waits if asked to. OK only if all were
 * taken. */
MUST_USE err_t changes_send(const char *run, const struct changes_conf *conf,
                            const json_t *objects, struct trouble *why);

#endif
