/* How the names of a head were written: kept across a hop that knows lower case only.
 *
 * Between two pods HTTP/1 travels as HTTP/2, whose names are lower-case, whose Host is a pseudo field and
 * whose Content-Length has lost its place. A short text beside `l5d-orig-proto` says what the names looked
 * like, so that the application behind the other proxy sees what was written:
 *
 *      text   = "C"      every name in Canonical-Dash-Case, Host first, Content-Length last (or none of them)
 *             | "L"      the same in lower case
 *             | 1*line   one for each field line, in order
 *      line   = [ "H" | "N" ] look      H: this line was Host; N: this line was Content-Length
 *      look   = "c" | "l" | "u"         canonical, lower, UPPER
 *             | "x" 1*HEXDIG            others: a bit per byte, set for a capital, the first byte's highest
 *
 * Neighbouring cookie lines count as one (HTTP/2 may join or split them). Fields of a hop, of framing and of the
 * mesh have no line. A text that does not fit the head it came with changes nothing: only looks depend on it.
 */
#ifndef PROXY_HTTP_SPELLING_H
#define PROXY_HTTP_SPELLING_H

#include "proxy/http/head.h"

#define SPELLING_MAX 512

/* How many bytes at the front of a line are a token, and how they look: 'c', 'l', 'u' or 'x' as above. */
size_t spelling_name_prefix(slice_t line, char *look);

/* The text for these fields, removed ones left out, without a NUL. Returns its length; 0: there is nothing to
 * say (no fields), or it would be longer than SPELLING_MAX. */
size_t spelling_print(const struct field *fields, size_t n, char out[SPELLING_MAX]);

/* Makes the head's fields look as `text` says: their spelling, Host and Content-Length in their places. False: it
 * is malformed, does not fit, or there is no memory; the head is as before. */
MUST_USE bool spelling_apply(struct head *h, struct arena *a, slice_t text);

/* Room that spelling_copy may use behind a name; what stands there afterwards is not defined. */
#define SPELLING_SLACK 8
/* Copies a name (a token) to `to` as it is to be written; returns the end of it. */
uint8_t *spelling_copy(uint8_t *to, slice_t name, enum field_spelling how);

#endif
