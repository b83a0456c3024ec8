/* The handshakes that weft-tls works on, one per (proxy, id), over tls.sock.
 *
 * At most `max` at once, BUSY beyond. Bytes of a running handshake are worked on at once; new
 * ones wait their turn, one per turn of the loop, so that what was begun is finished first.
 * Each ends by done, failed, close or its timeout; a proxy that is gone leaves nothing behind.
 */
#ifndef TLS_JOBS_H
#define TLS_JOBS_H

#include "tls/session.h"

#include "kit/err.h"
#include "wire/dispatch.h"

#include <stdint.h>

struct event_base;
struct mailbox;
struct jobs;

struct jobs_conf {
    struct event_base *base;
    struct mailbox *box; /* answers go here; lent, may be set later by jobs_set_box */
    unsigned max;
    uint64_t timeout_ms;
};
MUST_USE err_t jobs_new(const struct jobs_conf *conf, struct jobs **out);
void jobs_free(struct jobs **j);
void jobs_set_box(struct jobs *j, struct mailbox *box);

/* New sessions are made from this context, which is taken over (NULL: none,
 * NO_CERTIFICATE_YET); running ones keep theirs. `not_after_ms`: our own certificate's end;
 * behind it new ones fail EXPIRED. */
void jobs_set_context(struct jobs *j, struct tls_context **context, int64_t not_after_ms);

/* Messages of proxies. */
void jobs_take(struct jobs *j, const struct mailbox_msg *m);

struct jobs_counters {
    uint64_t opened, done, failed, busy, timed_out, unknown;
    unsigned running; /* now, waiting ones included */
};
const struct jobs_counters *jobs_count(const struct jobs *j);

#endif
