/* The pod's end of the feed: an XPUB that connects to the collector.
 *
 *   NO_KEY --link.key readable--> DOWN --handshake--> UP
 *     ^                            ^ |
 *     |                            | '--handshake lost-- (UP -> DOWN)
 *     '--REOPEN_MS in DOWN: the socket is closed and the key read again
 *   NO_KEY  no socket; STATE_DIR/link.key is looked for once a second (the pod is joining)
 *   DOWN    the socket is open and connects again and again; the collector may not know our key
 *           yet. If that lasts, the key on disk may be another one by now: hence REOPEN
 *   UP      subscriptions come in; what somebody wants is sent
 *
 * Metrics: once a second the series that changed; all of them after a new subscription and,
 * while something changes, every 10 s (every 60 s when idle); a heartbeat without series every
 * 5 s. Nobody subscribed: nothing is made. Events that nobody can hear yet wait in a ring of
 * EVENTS_MAX, the oldest gives way and is counted.
 */
#ifndef TELEMETRY_FEED_H
#define TELEMETRY_FEED_H

#include "kit/err.h"
#include "telemetry/book.h"
#include "telemetry/pack.h"
#include "telemetry/status.h"
#include "wire/wire.h"

#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct feed;

struct feed_conf {
    struct event_base *base;
    const char *collector;  /* host:port; empty: no feed, everything below does nothing */
    const char *server_key; /* Z85 */
    const char *state_dir;  /* of link.key */
    struct pack_who who;
    const struct book *book;     /* lent */
    const struct status *status; /* lent */

    /* For tests: takes what would be published, instead of a socket. */
    void (*publish)(void *arg, slice_t topic, slice_t body);
    void *arg;
};

MUST_USE err_t feed_new(const struct feed_conf *conf, struct feed **out);
void feed_free(struct feed **f);

/* Once a second. */
void feed_tick(struct feed *f);

/* Publishes an event, now or when somebody hears. */
void feed_event(struct feed *f, const struct wire_event *event);

/* A message of the XPUB (subscription); public for tests. */
void feed_on_subscription(struct feed *f, slice_t body);

struct feed_counters {
    uint64_t sent, events_dropped;
    bool is_up;
};
void feed_count(const struct feed *f, struct feed_counters *out);

/* The secret key in the text of link.key: one line, the secret key in Z85, or two, the pair.
 * False: not of the form, or no pair. */
bool feed_parse_key(slice_t text, char secret[41]);

#endif
