/* HTTP/1 message bodies: from bytes to pieces of content, strictly (RFC 9112 6 and 7).
 *
 * The current framing is the state; reading it never copies. Lines of chunk framing and the
 * trailer section are taken only when they are complete, so the reader holds no bytes of its
 * own.
 */
#ifndef PROXY_HTTP1_BODY_H
#define PROXY_HTTP1_BODY_H

#include "proxy/http1/parse.h"

enum body_framing {
    BODY_NONE,        /* the message has no content, or all of it was read */
    BODY_LENGTH,      /* `left` bytes remain, at least one */
    BODY_CHUNK_SIZE,  /* a chunk-size line comes */
    BODY_CHUNK_DATA,  /* `left` bytes of the chunk remain, at least one */
    BODY_CHUNK_END,   /* CR LF behind the data of a chunk comes */
    BODY_TRAILERS,    /* the trailer section comes */
    BODY_UNTIL_CLOSE, /* everything until the peer finishes (responses) */
    BODY_RAW,         /* a tunnel: everything, for ever */
    BODY_BROKEN       /* it was refused: nothing more is read */
};

struct body {
    enum body_framing framing;
    uint64_t left;
    uint32_t ext_bytes;  /* of chunk extensions of this message so far */
    struct h1_scan scan; /* BODY_TRAILERS */
};

enum body_got {
    BODY_MORE,    /* come back with more bytes (what was not taken, and more) */
    BODY_DATA,    /* *out is content */
    BODY_SECTION, /* *out is a trailer section with at least one field; the message ends with it
                   */
    BODY_END,     /* the message has ended */
    BODY_BAD      /* *why */
};

void body_start_none(struct body *b);
void body_start_length(struct body *b, uint64_t n);
void body_start_chunked(struct body *b);
void body_start_until_close(struct body *b);
void body_start_raw(struct body *b);

static inline bool body_is_done(const struct body *b)
{
    return b->framing == BODY_NONE;
}

/* Takes the next piece from the front of *in. Call again until BODY_MORE, BODY_END or
 * BODY_SECTION; after these two the framing is BODY_NONE. */
enum body_got body_read(struct body *b, slice_t *in, const struct http_limits *limits,
                        slice_t *out, enum refusal *why);

#endif
