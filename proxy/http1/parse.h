/* HTTP/1 heads and trailer sections: from bytes to struct head, strictly.
 *
 * The end of the section is looked for first (h1_scan_section), line by line, which refuses every line
 * end but CR LF, folding, and sections over the limits. Then the start line and the field lines are read, each
 * byte once, and what RFC 9112 or hardening.md does not let through is refused.
 */
#ifndef PROXY_HTTP1_PARSE_H
#define PROXY_HTTP1_PARSE_H

#include "kit/arena.h"
#include "proxy/http/head.h"
#include "proxy/http/refusal.h"
#include "proxy/http/stream.h"

/* Where the scan of one section stands; all zero at its beginning. */
struct h1_scan {
    size_t line;  /* offset of the line not ended yet */
    size_t lines; /* complete ones before it */
};

/* Looks for the empty line that ends the section (`has_start_line`: a head; else a trailer
 * section). Give the same bytes, longer, until it says something else than STEP_LATER.
 * STEP_DONE: *n is the length with the empty line. STEP_FAILED: *why. */
enum step h1_scan_section(struct h1_scan *scan, slice_t bytes, bool has_start_line,
                          const struct http_limits *limits, size_t *n, enum refusal *why);

/* After STEP_FAILED: the name in the line where it failed; empty in the start line and where there is none. */
slice_t h1_scan_culprit(const struct h1_scan *scan, slice_t bytes, bool has_start_line);

/* `bytes` is a whole head that h1_scan_section found, in memory that lives as long as *h (the
 * arena). REFUSED_NOTHING: *h is filled. */
enum refusal h1_parse_request(slice_t bytes, struct arena *a, struct head *h);
/* Field checks of a response; framing that depends on the request is the client's (client.c).
 */
enum refusal h1_parse_response(slice_t bytes, struct arena *a, struct head *h);
/* Fills *h with the fields of a trailer section; those marked FIELD_NOT_TRAILER are removed. */
enum refusal h1_parse_trailers(slice_t bytes, struct arena *a, struct head *h);

#endif
