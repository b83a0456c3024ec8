/* Why an object was refused, for the person who wrote it: a place, a reason, a line. */
#ifndef MODEL_WHY_H
#define MODEL_WHY_H

#include "model/errors.h"

struct why {
    char path[200];   /* spec.rules[0].matches[1].path.value; "" for the whole text */
    char reason[300]; /* "10 s" is not a duration (number and unit: 10s, 250ms) */
    unsigned line;    /* in the text it came from, from 1; 0 unknown */
};

#define WHY_TEXT 512

/* "path: reason" as one line of valid UTF-8 without control characters; cut to what fits. */
void why_text(const struct why *why, char out[WHY_TEXT]);

/* Sets reason (path and line stay) and returns `e`, for: return why_set(why, ERR_OF(X), "...",
 * ...); */
err_t why_set(struct why *why, err_t e, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Appends one step to a path of `n` bytes in path[cap] and returns its new length: ".key", or
 * ["key"] if the key is no plain word; path_index appends [i]. A path that does not fit stays
 * as it is. */
size_t path_key(char *path, size_t n, size_t cap, const char *key);
size_t path_index(char *path, size_t n, size_t cap, size_t i);

#endif
