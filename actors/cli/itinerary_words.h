/* Views in words. Texts that are returned are the caller's to free; NULL without memory. */
#ifndef CLI_ITINERARY_WORDS_H
#define CLI_ITINERARY_WORDS_H

#include "model/destination.h"
#include "model/route.h"

char *words_of_match(const struct wire_rule *rule, slice_t host,
                     const struct wire_match *match);
char *words_of_verdict(const struct route_verdict *v, const struct route_request *request);
char *words_of_filter(const struct wire_destination *view, const struct wire_filter *f);
char *words_of_retry(const struct wire_rule *rule);
const char *words_of_origin(enum destination_origin origin);
void words_rule_name(const struct wire_rule *rule, char out[400]);
void words_backend_name(const struct wire_backend *b, char out[400]);
void words_balancing(const struct wire_balancing *w, size_t n, char out[200]);

/* The value of a cookie in a Cookie field. */
bool words_find_cookie(slice_t field, slice_t name, slice_t *value);

#endif
