/* Hands decoded messages to handlers. A process has one permit table per socket: what is not
 * listed is refused, counted by reason, and logged (the first of each reason, then at most one
 * line a minute).
 *
 *     static const struct wire_permit permits[] = {
 *         {WIRE_hello, answer_hello, true},     once per peer
 *         {WIRE_watch, answer_watch, false},
 *     };
 *     struct wire_desk desk = {.name = "links", .me = WIRE_ROLE_BROKER, .from = WIRE_ROLE_LINK,
 *                              .permits = permits, .n_permits = sizeof(permits) /
 * sizeof(*permits)}; static void answer_hello(void *arg, const struct wire_call *call) { const
 * struct wire_hello *h = wire_expect(hello, call->msg); ... }
 *     ...
 *     static void on_msg(void *arg, const struct mailbox_msg *m)
 *     { (void)wire_dispatch(&desk, m, &peer->seen, arg); }
 */
#ifndef WIRE_DISPATCH_H
#define WIRE_DISPATCH_H

#include "wire/wire.h"

#include "kit/mailbox.h"

/* What a handler gets. Everything in it is valid during the call only. */
struct wire_call {
    const struct wire_msg *msg;
    const struct mailbox_msg
        *mail; /* from (routing id), topic, user, and the bytes as they came */
};

struct wire_permit {
    enum wire_code code;
    void (*handler)(void *arg, const struct wire_call *call);
    bool once; /* a second one from the same peer is refused */
};

/* Why messages were refused, counted. */
enum wire_refusal {
    WIRE_REFUSED_UNKNOWN,   /* code not in messages.def */
    WIRE_REFUSED_ROLE,      /* sender or receiver has the wrong role */
    WIRE_REFUSED_MALFORMED, /* did not decode */
    WIRE_REFUSED_UNLISTED,  /* not in this process's permit table */
    WIRE_REFUSED_REPEATED,  /* a second one where one is permitted */
    WIRE_REFUSALS
};

#define WIRE_PERMITS_MAX 64 /* `seen` has a bit for each */

struct wire_desk {
    const char *name; /* of the socket, for the log; kept by reference */
    enum wire_role me;
    enum wire_role from; /* who may be at the other end (a mask) */
    const struct wire_permit *permits;
    size_t n_permits;

    /* Kept by wire_dispatch; start with zeros. */
    uint64_t accepted;
    uint64_t refused[WIRE_REFUSALS];
    uint64_t
        logged_ms[WIRE_REFUSALS]; /* when the last line of this reason was written; 0 never */
    uint64_t unlogged[WIRE_REFUSALS]; /* refused since */
};

/* Decodes m->body and calls its handler. `seen` holds what this peer has sent already (start
 * with 0); it may be NULL if no permit says once. Returns OK after the handler ran, else why it
 * did not (the message was counted and perhaps logged); a caller may close the peer or ignore
 * that. */
MUST_USE err_t wire_dispatch(struct wire_desk *desk, const struct mailbox_msg *m,
                             uint64_t *seen, void *arg);

/* "unknown", "role", "malformed", "unlisted", "repeated": for logs and metrics. */
const char *wire_refusal_name(enum wire_refusal reason);

/* All refusals of the desk together. */
uint64_t wire_desk_refused(const struct wire_desk *desk);

#endif
