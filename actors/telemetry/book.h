/* The last cumulative value of every series of every process of the pod.
 *
 * A series is (process, family, labels). What a dead process counted stays. The book is
 * bounded; when it is full, the series that has not changed for longest, at least IDLE, makes
 * room; else the new one is refused and counted. Series have an index that is stable as long as
 * they are in the book, so that a reader may go on where it stopped (book_at).
 */
#ifndef TELEMETRY_BOOK_H
#define TELEMETRY_BOOK_H

#include "kit/err.h"
#include "kit/slice.h"
#include "telemetry/families.h"
#include "wire/wire.h"

#include <stdbool.h>
#include <stdint.h>

#define BOOK_IDLE_MS       600000u
#define BOOK_PROCESSES_MAX 64u
#define BOOK_PROCESS_TEXT  33u

struct book;

struct book_series {
    enum family_id family;
    const char *process;    /* "weft-proxy-0"; lives as long as the book */
    unsigned worker;        /* the number behind the name's last dash; 0 if there is none */
    slice_t labels;         /* well-formed, see labels.h */
    const uint64_t *values; /* 1, or FAMILY_NUMBERS for a histogram */
    uint64_t version;       /* of the book when it changed last */
};

MUST_USE err_t book_new(size_t max_series, struct book **out);
void book_free(struct book **b);

/* Takes a message in. Each series is checked (family, number of values, label text); bad ones
 * are refused one by one and counted. *is_stranger: nothing was known of this process, and the
 * message is not complete: ask it for everything. */
void book_take(struct book *b, const struct wire_series *msg, uint64_t now_ms,
               bool *is_stranger);

/* Rises with every change. */
uint64_t book_version(const struct book *b);

/* One more than the largest index in use. */
size_t book_size(const struct book *b);
/* The series at an index; false: none there. Slices and pointers are valid until the next
 * book_take. */
bool book_at(const struct book *b, size_t i, struct book_series *out);

struct book_counters {
    uint64_t taken, refused, no_room, evicted;
};
const struct book_counters *book_count(const struct book *b);

#endif
