/* Keeps this pod's certificate in force: asks for the first one, renews it with a fresh key,
 * holds the anchors.
 *
 *   EMPTY --first certificate--> HELD --half of its life--> HELD and due --renewed--> HELD
 *
 * Asking is beside that: idle, or a question is out (asked_id != 0). What is in force changes
 * only by install(), whole: vault first, then the context for new handshakes. Nothing here
 * talks to a socket: the owner of the mailboxes gives the functions.
 */
#ifndef TLS_CERTIFIER_H
#define TLS_CERTIFIER_H

#include "tls/session.h"
#include "tls/token.h"
#include "tls/vault.h"

#include "wire/wire.h"

struct certifier;
struct event_base;

struct certifier_conf {
    struct event_base *base;
    const char *identity; /* copied */
    struct vault *vault;  /* lent */
    struct token token;   /* copied; wiped when it has been used. id "" = none */
    slice_t anchors_pem;  /* to start with, unless the vault has newer ones; may be empty */

    /* Sends the question. An error is a failure to be tried again. */
    err_t (*ask)(void *arg, const struct wire_certify *question);
    /* Something new is in force for new handshakes. Takes the context. */
    void (*in_force)(void *arg, struct tls_context **context, int64_t not_after_ms);
    /* Kind is CERTIFICATE_OBTAINED (the first), CERTIFICATE_RENEWED,
     * CERTIFICATE_RENEWAL_FAILED, TRUST_CHANGED. */
    void (*tell)(void *arg, const char *kind, const char *message);
    /* State "certificate" changed. value: not_after in ms, 0 none. */
    void (*state)(void *arg, bool is_good, const char *text, int64_t value);
    void *arg;
};

/* Puts in force what the vault holds (in_force is called before this returns). */
MUST_USE err_t certifier_new(const struct certifier_conf *conf, struct certifier **out);
void certifier_free(struct certifier **c);

/* The way to the authority is open, or not. Open: a due question goes out at once. */
void certifier_link(struct certifier *c, bool is_up);
void certifier_answer(struct certifier *c, const struct wire_certificate *answer);
/* New anchors. OK means they are in force now (also when they were before). BAD_ANCHORS: the
 * old ones stay. */
MUST_USE err_t certifier_trust(struct certifier *c, slice_t pem);

bool certifier_has_certificate(const struct certifier *c);
/* Calls state() again, for a listener that has just come. */
void certifier_say_state(struct certifier *c);

#endif
