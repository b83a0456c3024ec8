/* Deadlines as they travel, and the trace they travel on: texts in, numbers out. Pure. */
#ifndef PROXY_LIMIT_DEADLINE_H
#define PROXY_LIMIT_DEADLINE_H

#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define DEADLINE_TEXT 12 /* bytes that the printers need, NUL included */

/* grpc-timeout (gRPC over HTTP/2, "Requests"): 1 to 8 digits and one of H M S m u n. Parts of a
 * microsecond are rounded up. */
bool deadline_parse_grpc(slice_t text, uint64_t *us);
/* The same in the finest unit that 8 digits can hold, rounded down; at most 99999999S. */
slice_t deadline_print_grpc(uint64_t us, char out[DEADLINE_TEXT]);

/* weft-deadline: milliseconds left, decimal digits, below 2^32. */
bool deadline_parse_ms(slice_t text, uint32_t *ms);
slice_t deadline_print_ms(uint64_t ms, char out[DEADLINE_TEXT]); /* above 2^32 - 1: that */

/* The trace id in a field's value. traceparent (W3C Trace Context, any version): the second
 * part; b3 (single): the first part; x-b3-traceid: all of it. Ids of 8 bytes are filled up with
 * zeros in front. False: malformed, or all zeros. */
enum deadline_trace { DEADLINE_TRACEPARENT, DEADLINE_B3, DEADLINE_B3_TRACEID };
bool deadline_parse_trace(enum deadline_trace kind, slice_t value, uint8_t id[16]);

#endif
