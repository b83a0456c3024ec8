/* TLS 1.3 record protection (RFC 8446 section 5) for a connection whose handshake another
 * process made.
 *
 * No socket, no handshake, no certificate: bytes in, bytes out. Handles KeyUpdate both ways,
 * rekeys before the limit of the AEAD, alerts, close_notify, and swallows NewSessionTicket in
 * the client role. One EVP_CIPHER_CTX per direction, the key set once. Secrets are wiped when
 * they have been used.
 */
#ifndef PROXY_RECORD_RECORD_H
#define PROXY_RECORD_RECORD_H

#include "kit/buf.h"
#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct record;

#define RECORD_PLAIN_MAX 16384
#define RECORD_OVERHEAD  (5 + 1 + 16) /* header, inner type, tag */
#define RECORD_WIRE_MAX  (RECORD_PLAIN_MAX + 256 + 5)

enum record_role { RECORD_SERVER, RECORD_CLIENT };

struct record_conf {
    enum record_role role;
    uint16_t suite; /* 0x1301, 0x1302, 0x1303 */
    /* Application traffic secrets 0; 32 or 48 bytes by the suite. */
    slice_t client_secret, server_secret;
    uint64_t rekey_after; /* records per key before our own KeyUpdate; 0 = 2^24 */
};

/* Fetches what every record layer needs from libcrypto; once, at the start of the process, while there is memory. The first
 * record_new does it otherwise. RECORD_CRYPTO. */
MUST_USE err_t record_start(void);

/* Both directions start at sequence number 0. The secrets are copied; the caller wipes its own.
 * RECORD_SUITE | RECORD_SECRET (wrong length) | RECORD_CRYPTO | NOMEM. */
MUST_USE err_t record_new(const struct record_conf *conf, struct record **out);
void record_free(struct record **r);

/* Appends records carrying all of `plain` to `out` (several if it is longer than
 * RECORD_PLAIN_MAX; none if it is empty). A due KeyUpdate goes out before, in order. All or
 * nothing if there is no room (TOO_BIG, NOMEM); RECORD_ENDED behind close_notify or an alert;
 * RECORD_CRYPTO: the connection cannot go on. */
MUST_USE err_t record_seal(struct record *r, slice_t plain, struct buf *out);
/* Room that record_seal will need for n bytes of plaintext, KeyUpdate included. */
size_t record_sealed_len(size_t n);
/* Appends close_notify (once; nothing if an alert has gone out). Nothing may be sealed after
 * it. */
MUST_USE err_t record_seal_close(struct record *r, struct buf *out);

enum record_got {
    RECORD_MORE,   /* *consumed bytes were taken, the rest is not a whole record */
    RECORD_DATA,   /* *plain is application data, in place in `bytes`, until the next call */
    RECORD_QUIET,  /* a record without data for the application (KeyUpdate, ticket); go on */
    RECORD_CLOSED, /* close_notify; what comes behind it is ignored */
    RECORD_ALERT,  /* the peer's fatal alert: record_alert() is its number; close */
    RECORD_BROKEN  /* not valid: the alert to send is in `reply` already; send it, close */
};

/* Looks at one record at the start of bytes[0..n) and opens it in place. *consumed is how many
 * bytes may be forgotten once *plain was used. `reply` gets what must be sent to the peer
 * (KeyUpdate answer, alert), in order behind everything sealed so far. */
enum record_got record_open(struct record *r, uint8_t *bytes, size_t n, size_t *consumed,
                            slice_t *plain, struct buf *reply);
/* The alert received (RECORD_ALERT) or sent (RECORD_BROKEN). */
uint8_t record_alert(const struct record *r);

struct record_counters {
    uint64_t sealed, opened, key_updates_sent, key_updates_received;
};
const struct record_counters *record_count(const struct record *r);

#define ERR(name, cls, text) ERR_DECLARE(name)
#include "proxy/record/tbl/errors.h"
#undef ERR

#endif
