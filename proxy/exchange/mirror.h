/* Copies of requests for a mirror: head and content go to another backend as well, its answers are read and dropped.
 *
 * A copy never delays, fails or repeats the original. Its content flows beside the original's through a buffer of
 * MIRROR_QUEUE bytes; a mirror that does not keep up loses the copy (slow), and so does one whose copies have not ended
 * when running_max of them are under way (limit). When the original ends before all of its request is here, the copy
 * is cut; else it goes on alone until it is answered or its time is over. It is not counted in request_total; what
 * became of each copy is in weft_mirror_total. */
#ifndef PROXY_EXCHANGE_MIRROR_H
#define PROXY_EXCHANGE_MIRROR_H

#include "kit/slice.h"

#include <stdbool.h>

struct exchange;
struct wire_filter;
struct worker;

#define MIRROR_QUEUE       (256 * 1024)
#define MIRROR_RUNNING_MAX 100u   /* where the filter names none */
#define MIRROR_MS          10000u /* for all of a copy, where the rule has no limit for the request */

/* The filter fits this request: perhaps a copy begins. Not for requests that become tunnels. */
void mirror_begin(struct exchange *x, const struct wire_filter *f);
/* More of the request's content, or its end. Only when x->mirrors. */
void mirror_feed(struct exchange *x, slice_t bytes, bool is_end);
/* The exchange ends. Only when x->mirrors. */
void mirror_leave(struct exchange *x);
/* Of a worker that ends. */
void mirror_drop_all(struct worker *w);

#endif
