/* Label text as it comes over the wire: name="escaped value",... */
#ifndef TELEMETRY_LABELS_H
#define TELEMETRY_LABELS_H

#include "kit/slice.h"

#include <stdbool.h>

/* Takes the first label off *rest. False at the end, and when the text is not of the form (then
 * *rest is not empty). `value` is still escaped. */
bool labels_next(slice_t *rest, slice_t *name, slice_t *value);

/* Whether all of the text is of the form. The empty text is. */
bool labels_check(slice_t text);

/* Writes the value without its escapes to out (room for value.n bytes); returns the bytes
 * written. */
size_t labels_unescape(slice_t value, uint8_t *out);

#endif
