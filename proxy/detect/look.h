/* What the first bytes of a connection are: pure functions over the bytes that have come so
 * far. */
#ifndef PROXY_DETECT_LOOK_H
#define PROXY_DETECT_LOOK_H

#include "kit/err.h"
#include "kit/slice.h"

enum look {
    LOOK_MORE,  /* may still become several things */
    LOOK_TLS,   /* begins a TLS handshake record with a ClientHello */
    LOOK_HTTP1, /* a whole request line of HTTP/1, or what can be nothing else */
    LOOK_HTTP2, /* the whole preface of HTTP/2 */
    LOOK_OPAQUE /* none of these */
};

#define LOOK_METHOD_MAX 32
#define LOOK_LINE_MAX   4096 /* a longer first line that began like a request is taken for one \
                              */
#define LOOK_HELLO_MAX 65536 /* a ClientHello; shares of post-quantum groups make some larger than a record */
#define LOOK_BYTES_MAX (2 * LOOK_HELLO_MAX) /* the same with the headers of its records */
#define LOOK_TLS_BYTE  0x16 /* the first of a handshake record */

/* Any number of bytes, the same verdict however they were cut into segments. */
enum look look_at(slice_t bytes);

/* What a server's first bytes are. */
enum answer {
    ANSWER_MORE,  /* may still become several things */
    ANSWER_HTTP1, /* a status line: a server that answers, or has lost its patience */
    ANSWER_HTTP2, /* SETTINGS: a server of HTTP/2 may send them before the client's preface */
    ANSWER_OTHER
};

/* At most 9 bytes decide, the same however they were cut. */
enum answer look_answer(slice_t bytes);

/* How far a ClientHello has come, so that each byte is looked at once however many segments bring them. All zero at the
 * beginning. */
struct hello {
    size_t at;   /* bytes looked at: headers of records, and what is in them */
    size_t left; /* of the record there */
    size_t have; /* bytes of the hello, in all records so far */
    uint8_t head[4];
};

/* `bytes` are all that have come, from the first. STEP_DONE: the whole hello is there. STEP_LATER: not yet. STEP_FAILED:
 * no ClientHello in records of a handshake, or longer than LOOK_HELLO_MAX (LOOK_BYTES_MAX with its records' headers). */
enum step look_hello(struct hello *h, slice_t bytes);

/* The server name in a ClientHello. STEP_LATER: it is not complete. STEP_DONE: *sni is set
 * (empty if it names none). STEP_FAILED: not a well-formed ClientHello, or longer than
 * LOOK_HELLO_MAX. `room` (LOOK_HELLO_MAX bytes) is where a hello that spans records is put
 * together; *sni may point into it. */
enum step look_sni(slice_t bytes, uint8_t *room, slice_t *sni);

/* Whether it is a name that a host may have (letters, digits, '-', '_', dots; at most 253 bytes): what routes and metrics
 * may look at. A trailing dot is not looked at. */
bool look_is_host(slice_t name);

#endif
