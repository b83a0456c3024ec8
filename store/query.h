/* SQL for people (`weft sql`): one statement, read-only, over both databases, with limits.
 *
 * mesh.db is the main database, telemetry.db is attached as "telemetry" (the mesh_ views of
 * both are found without a prefix); a file that does not exist yet is left out. The writers are
 * never waited for and never made to wait: the log grows for as long as the statement runs,
 * which is why it has a time limit.
 */
#ifndef STORE_QUERY_H
#define STORE_QUERY_H

#include "kit/err.h"
#include "kit/slice.h"
#include "store/store_err.h"

#include <stdbool.h>
#include <stdint.h>

enum store_type { STORE_NULL, STORE_INTEGER, STORE_REAL, STORE_TEXT, STORE_BLOB };

struct store_cell {
    enum store_type type;
    int64_t integer;
    double real;
    slice_t text; /* TEXT and BLOB: the bytes; else empty */
};

struct store_query {
    const char *state_dir; /* STATE_DIR of the control plane */
    const char *sql;       /* one statement; a second one is refused */
    uint32_t time_ms;      /* 0: 5000 */
    uint64_t max_rows;     /* 0: 10000 */

    /* Called once before the rows (also when there are none); may be NULL. */
    void (*on_columns)(void *arg, int n, const char *const *names);
    /* One row; what it is given is valid during the call. False ends the query without an
     * error. */
    bool (*on_row)(void *arg, int n, const struct store_cell *cells);
    void *arg;
};

/* Runs it in the caller's process and blocks until the end or the time limit. *truncated: there
 * were more rows than max_rows. On an error why[] holds a sentence for the person. OK |
 * STORE_ABSENT | STORE_QUERY | STORE_NOT_READ | STORE_SLOW | STORE_BUSY | STORE_IO |
 * STORE_CORRUPT */
MUST_USE err_t store_query_readonly(const struct store_query *q, bool *truncated,
                                    char why[300]);

#endif
