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
 * to the array, each checked by the broker's own rules. An object with a fault is printed as
 * FILE:LINE: FIELD: REASON, left out and added to *bad: it keeps no other from being sent.
 * MALFORMED if the text is no YAML or JSON at all, so that nobody can tell what is meant. For a
 * delete only kind and name are looked at. */
MUST_USE err_t changes_read(const char *file, const struct changes_conf *conf, json_t *objects,
                            size_t *bad, struct trouble *why);

/* Sends the objects, prints an outcome for each, and waits if asked to. `bad` were left out by
 * changes_read. OK only if all were taken, REFUSED if some were not. */
MUST_USE err_t changes_send(const char *run, const struct changes_conf *conf,
                            const json_t *objects, size_t bad, struct trouble *why);

#endif
