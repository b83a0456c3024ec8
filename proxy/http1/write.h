/* HTTP/1 heads, chunks and trailers: from struct head to bytes on a conn (rule 0: only from the
 * parsed form). Every name and value is checked once more while it is written, so that no path
 * through the proxy can put a line end into a head (hardening H2-29). */
#ifndef PROXY_HTTP1_WRITE_H
#define PROXY_HTTP1_WRITE_H

#include "kit/buf.h"
#include "proxy/http/head.h"

#include <stdbool.h>

struct conn;

enum write_framing {
    WRITE_NONE,   /* no content follows */
    WRITE_LENGTH, /* Content-Length: content_length of the head, which may be 0 */
    WRITE_CHUNKED,
    WRITE_UNTIL_CLOSE /* the end of the connection ends the content */
};

struct write_head {
    const struct head *head;
    enum write_framing framing;
    bool says_close;      /* Connection: close */
    bool says_keep_alive; /* Connection: keep-alive, for HTTP/1.0 peers */
    bool is_tunnel; /* 101, or CONNECT: the upgrade of the head is written, framing is not */
    enum http_version version; /* of the start line */
};

/* Adds the head to *out. False: a name, value or target may not be written (a bug of ours or a
 * hole in a codec), or there is no memory; *out is as before. */
bool h1_print_request(const struct write_head *w, struct buf *out);
bool h1_print_response(const struct write_head *w, struct buf *out);

/* Writes one chunk (n > 0 bytes) / the last chunk with trailers (n = 0: none). Return the
 * number of bytes of framing around the content. Fields that may not be trailers are skipped. `scratch` (empty) is
 * room to print in. */
size_t h1_write_chunk(struct conn *c, slice_t bytes);
size_t h1_write_last_chunk(struct conn *c, struct buf *scratch, const struct field *fields, size_t n);

#endif
