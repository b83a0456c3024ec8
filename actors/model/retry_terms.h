/* The words that retry.linkerd.io/http and /grpc (and l5d-retry-http, -grpc) consist of. */
#ifndef MODEL_RETRY_TERMS_H
#define MODEL_RETRY_TERMS_H

#include "kit/slice.h"
#include "wire/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RETRY_RANGES_MAX 16

/* One word: "5xx", "gateway-error" (502-504), "NNN" or "NNN-NNN", of 100 to 599. */
bool retry_parse_status(slice_t word, struct wire_status_range *out);
/* "cancelled", "deadline-exceeded", "internal", "resource-exhausted" or "unavailable"; *bit is its number's. */
bool retry_parse_grpc(slice_t word, uint32_t *bit);

/* Comma lists without spaces; at least one word. False: a word that is none, an empty one, too many. */
bool retry_parse_statuses(slice_t text, struct wire_status_range out[RETRY_RANGES_MAX], size_t *n);
bool retry_parse_grpcs(slice_t text, uint32_t *bits);
/* One integer with ms, s, m, h or d, as Linkerd reads them; a bare 0 is 0. */
bool retry_parse_duration(slice_t text, uint32_t *ms);

#endif
