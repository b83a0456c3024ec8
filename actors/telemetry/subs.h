/* What the other side of the feed has subscribed to: prefixes, as XPUB tells them. */
#ifndef TELEMETRY_SUBS_H
#define TELEMETRY_SUBS_H

#include "kit/slice.h"

#include <stdbool.h>
#include <stddef.h>

#define SUBS_MAX      256u
#define SUBS_TEXT_MAX 1024u

struct subs {
    char *prefixes[SUBS_MAX]; /* owned, NUL-terminated */
    size_t sizes[SUBS_MAX];
    size_t n;
    bool is_overfull; /* one did not fit: everything is taken to be wanted until all are gone */
};

void subs_done(struct subs *s);

/* A message of XPUB: first byte 1 or 0, then the prefix. True: something new was subscribed to.
 * Others are ignored. */
bool subs_take(struct subs *s, slice_t body);

/* Whether anybody wants a message of this topic. */
bool subs_want(const struct subs *s, slice_t topic);

#endif
