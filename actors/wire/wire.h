/* Every message that crosses a process boundary, as C structs, with one encoder and one
 * decoder.
 *
 * messages.def is the table; this header makes from it
 *     enum wire_code {WIRE_hello = 0x0401, ...}
 *     struct wire_endpoint {slice_t ip; uint16_t port; ...}         for each RECORD
 *     struct wire_hello {uint64_t id; ... size_t n_serves; struct wire_served *serves; ...}
 *                                                                   for each MESSAGE
 * A list field NAME is the pointer NAME and the count n_NAME. TEXT and BYTES are slices.
 *
 * On the wire a message is one msgpack array [code, version, field, field, ...];
 * docs/messages.md says it all. Bytes from a peer are read only by the bounded cursor of
 * wire/reader.h.
 */
#ifndef WIRE_WIRE_H
#define WIRE_WIRE_H

#include "kit/arena.h"
#include "kit/buf.h"
#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mailbox;

/* The largest message, encoded. Larger sets are sent in several messages. */
#define WIRE_MESSAGE_MAX (256U * 1024U)

/* Who sends and who receives: bits, so that a socket that several processes share has a mask.
 */
enum wire_role {
    WIRE_ROLE_PROXY = 1 << 0,
    WIRE_ROLE_TLS = 1 << 1,
    WIRE_ROLE_RETRY = 1 << 2,
    WIRE_ROLE_TELEMETRY = 1 << 3,
    WIRE_ROLE_LINK = 1 << 4,
    WIRE_ROLE_BROKER = 1 << 5,
    WIRE_ROLE_AUTHORITY = 1 << 6,
    WIRE_ROLE_COLLECTOR = 1 << 7,
    WIRE_ROLE_CLI = 1 << 8,

    WIRE_ROLE_ANY = (1 << 9) - 1,
    WIRE_ROLE_BOTH_PROXY_TLS = WIRE_ROLE_PROXY | WIRE_ROLE_TLS,
    WIRE_ROLE_BOTH_PROXY_LINK = WIRE_ROLE_PROXY | WIRE_ROLE_LINK,
    WIRE_ROLE_BOTH_PROXY_RETRY = WIRE_ROLE_PROXY | WIRE_ROLE_RETRY,
    WIRE_ROLE_BOTH_LINK_BROKER = WIRE_ROLE_LINK | WIRE_ROLE_BROKER,
    WIRE_ROLE_BOTH_BROKER_AUTHORITY = WIRE_ROLE_BROKER | WIRE_ROLE_AUTHORITY
};

enum wire_code {
#define MESSAGE(name, code, version, from, to, doc) WIRE_##name = code,
#include "wire/messages.def"
};

/* clang-format off */
#define RECORD(name, doc)                           struct wire_##name;
#define MESSAGE(name, code, version, from, to, doc) struct wire_##name;
#include "wire/messages.def"

#define RECORD(name, doc)                           struct wire_##name {
#define MESSAGE(name, code, version, from, to, doc) struct wire_##name {
#define END(name)                                   };
#define U8(name, doc)                               uint8_t name;
#define U16(name, doc)                              uint16_t name;
#define U32(name, doc)                              uint32_t name;
#define U64(name, doc)                              uint64_t name;
#define I64(name, doc)                              int64_t name;
#define BOOL(name, doc)                             bool name;
#define TEXT(name, max, doc)                        slice_t name;
#define BYTES(name, max, doc)                       slice_t name;
#define LIST(name, record, max, doc)                size_t n_##name; struct wire_##record *name;
#include "wire/messages.def"
/* clang-format on */

union wire_body {
#define MESSAGE(name, code, version, from, to, doc) struct wire_##name name;
#include "wire/messages.def"
};

/* One decoded message. Slices point into the bytes that were decoded; lists live in `arena`. */
struct wire_msg {
    enum wire_code code;
    unsigned version; /* the sender's */
    union wire_body body;
    struct arena arena;
    /* After a failure: the name of the field that was refused, "" if it was none in particular.
     */
    const char *at;
};

/* The body of `msg` if it is a NAME, else NULL:  const struct wire_hello *h = wire_as(hello,
 * &msg); */
#define wire_as(name, msg) ((msg)->code == WIRE_##name ? &(msg)->body.name : NULL)

/* The same where the code is known (in a handler of wire/dispatch.h): never NULL; another code
 * aborts. */
#define wire_expect(name, msg) (wire_check_code((msg), WIRE_##name), &(msg)->body.name)

static inline void wire_check_code(const struct wire_msg *msg, enum wire_code code)
{
    BUG_ON(msg->code != code);
}

/* Appends the encoded message to `out`; `body` is the message's struct. Checks what the peer's
 * decoder will check, so that nothing is sent which it would refuse. On failure `out` is as
 * before. OK | WIRE_LIMIT (text, list or whole message too long) | WIRE_TEXT | WIRE_UNKNOWN |
 * NOMEM, TOO_BIG. */
MUST_USE err_t wire_encode(enum wire_code code, const void *body, struct buf *out);

/* Decodes one message that came from a peer whose role is (one of) `from`, for a process whose
 * role is `me`. `bytes` must stay where they are as long as *out is used. On success the caller
 * calls wire_msg_done; after a failure nothing is held, and only out->at and, as far as they
 * were read, code and version are set (0 before). */
MUST_USE err_t wire_decode(slice_t bytes, enum wire_role from, enum wire_role me,
                           struct wire_msg *out);

/* Frees the lists. Fine on a message that failed to decode. */
void wire_msg_done(struct wire_msg *msg);

/* Encodes and sends in one go; `to` as in mailbox_send. Errors of wire_encode and of
 * mailbox_send. */
MUST_USE err_t wire_send(struct mailbox *m, slice_t to, enum wire_code code, const void *body);

/* The same two, with the compiler looking whether the pointer fits the message:
 *     TRY(WIRE_SEND(link, to, hello, &h));  */
#define WIRE_BODY(name, body)        (1 ? (body) : (const struct wire_##name *)NULL)
#define WIRE_SEND(m, to, name, body) wire_send((m), (to), WIRE_##name, WIRE_BODY(name, body))
#define WIRE_ENCODE(name, body, out) wire_encode(WIRE_##name, WIRE_BODY(name, body), (out))

/* "hello"; "unknown" for a code that is not in the table. */
const char *wire_name(enum wire_code code);

/* The code of an encoded message without decoding it; 0 if that cannot be read. */
unsigned wire_peek_code(slice_t bytes);

#define ERR(name, cls, text) ERR_DECLARE(name)
#include "wire/tbl/errors.h"
#undef ERR

#endif
