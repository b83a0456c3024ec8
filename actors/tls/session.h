/* One TLS handshake, as a function of bytes: bytes in, bytes out, and at the end secrets and a
 * peer.
 *
 * What a session may do is fixed by a `tls_context`: one for the server and one for the client
 * side, made from a credential and a set of anchors, and replaced whole when either changes
 * (running sessions keep theirs).
 */
#ifndef TLS_SESSION_H
#define TLS_SESSION_H

#include "tls/credential.h"
#include "tls/identity.h"

#include "kit/buf.h"
#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define SESSION_BYTES_MAX  (64 * 1024) /* each way; above it the handshake fails */
#define SESSION_SECRET_MAX 48

struct tls_context;
struct session;

/* Both sides' settings. Borrows cred and anchors for the call (OpenSSL counts references).
 * TLS_LIBRARY | NOMEM. */
MUST_USE err_t tls_context_make(const struct credential *cred, X509_STORE *anchors,
                                const char *identity, struct tls_context **out);
/* Gives it up; it goes when the last session made from it is freed. */
void tls_context_free(struct tls_context **c);
/* "X25519MLKEM768:X25519:P-256:P-384" or what this OpenSSL knows of it. */
const char *tls_context_groups(const struct tls_context *c);
/* Peers whose certificate was verified a short while ago and needed no second time. */
uint64_t tls_context_hits(const struct tls_context *c);

struct session_conf {
    bool is_client;
    const char *server_name; /* client: SNI and the identity the server must have */
    bool transport_alpn;     /* client: offer transport.l5d.io/v1 */
};
MUST_USE err_t session_new(struct tls_context *c, const struct session_conf *conf,
                           struct session **out);
/* Frees and wipes. */
void session_free(struct session **s);

/* Takes bytes from the peer (may be none) and appends what must be sent to it.
 * STEP_LATER: more is needed. STEP_DONE: session_result. STEP_FAILED: session_code,
 * session_why; `out` may hold an alert. Not to be called again after DONE or FAILED. `out` must
 * have no ceiling. */
enum step session_step(struct session *s, slice_t in, struct buf *out);

/* After STEP_DONE; slices live as long as the session. Wipe what was copied. */
struct session_result {
    uint16_t suite;
    slice_t client_secret, server_secret;
    slice_t peer; /* empty: it gave no certificate */
    slice_t alpn, server_name;
    int64_t peer_not_after_ms;
};
/* Bytes behind the handshake are appended to `leftover`. MALFORMED: secrets are missing (never
 * seen). */
MUST_USE err_t session_take_result(struct session *s, struct session_result *out,
                                   struct buf *leftover);

/* Stable word of handshake_failed, and a sentence. */
const char *session_code(const struct session *s);
const char *session_why(const struct session *s);

/* What the server side says before any session exists (busy, no certificate): alert
 * internal_error. */
slice_t session_plain_alert(void);

#endif
