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
#define LOOK_HELLO_MAX 16384
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

/* The server name in a ClientHello. STEP_LATER: it is not complete. STEP_DONE: *sni is set
 * (empty if it names none). STEP_FAILED: not a well-formed ClientHello, or longer than
 * LOOK_HELLO_MAX. `room` (LOOK_HELLO_MAX bytes) is where a hello that spans records is put
 * together; *sni may point into it. */
enum step look_sni(slice_t bytes, uint8_t *room, slice_t *sni);

#endif
