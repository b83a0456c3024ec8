/* Watches the first bytes of a connection until it is known what it speaks.
 *
 *   WATCHING --first bytes decide--> SETTLED
 *   WATCHING --settings.detect_timeout, half-close--> SETTLED (opaque)
 *   WATCHING --detect_settle (the server spoke first, the view knows)--> SETTLED
 *
 * Nothing is taken from the conn: whoever owns it next is offered all bytes from the first. */
#ifndef PROXY_DETECT_DETECT_H
#define PROXY_DETECT_DETECT_H

#include "kit/timer.h"
#include "proxy/detect/look.h"

struct conn;

struct detect_conf {
    struct event_base *base;
    uint64_t timeout_ms;
    bool wants_sni; /* on TLS, wait for the whole ClientHello and tell its server name */
    bool is_hurried; /* the port is known to speak no HTTP: what may still become HTTP is not waited for */
};

struct detect_result {
    enum look look; /* never LOOK_MORE */
    slice_t sni;    /* TLS and wants_sni; valid during the call. Empty: none, or the hello is not well-formed */
    bool is_hello;  /* begins with a ClientHello, whatever `look` says: it may not have come to its end */
    bool is_timeout;
    bool is_gone; /* the peer was cut off; the conn is to be closed */
};

struct detect {
    struct conn *conn; /* lent while WATCHING */
    struct detect_conf conf;
    struct timer timer;
    struct hello hello;
    bool has_hello; /* a ClientHello has begun */
    bool has_bytes; /* the client has said something */
    void (*done)(void *arg, const struct detect_result *r);
    /* The conn closed by itself meanwhile: the conn must not be used any more. */
    void (*closed)(void *arg);
    void *arg;
};

/* Owns the conn from now on. `done` or `closed` comes once, from the loop, never before this
 * returns. After `done` the conn has no owner: give it one, or close it. */
void detect_start(struct detect *d, struct conn *c, const struct detect_conf *conf,
                  void (*done)(void *arg, const struct detect_result *r),
                  void (*closed)(void *arg), void *arg);

/* The port is known to speak no HTTP (detect_conf.is_hurried): bytes that have come already are looked at again, from
 * the loop. */
void detect_hurry(struct detect *d);

/* Stops watching without a result; the conn has no owner then. Fine when it is settled already.
 */
void detect_stop(struct detect *d);

#endif
