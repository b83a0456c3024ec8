/* Which rule of a destination a request follows. The proxy, the broker and the CLI ask this
 * file.
 *
 * Precedence, as in the Gateway API: of all alternatives (a rule's host with one of its
 * matches) that fit, the first by
 *   1. host      exact, then wildcards by length, then none
 *   2. path      exact, then prefixes by length, then regular expressions, then "everything"
 * (no path, or the prefix "/", so that a catch-all rule never hides an expression)
 *   3. method    given before not given
 *   4. headers   more before fewer
 *   5. query     more before fewer
 *   6. order     of the rules in the destination, then of the matches in the rule
 * None of that depends on the request, so a table is sorted once and the first fit decides. A
 * destination that is `in_order` (a ServiceProfile's) is not sorted: the first rule that fits.
 *
 * Connections of TLS follow tls_rules by their server name alone: exact before wildcards,
 * longer wildcards first, rules without hosts last, then the order. Opaque ones follow
 * tcp_rules[0].
 */
#ifndef MODEL_ROUTE_H
#define MODEL_ROUTE_H

#include "model/errors.h"

#include "wire/wire.h"

#include "kit/slice.h"

struct route_table;

/* Values of the records' kind fields. */
enum { ROUTE_VALUE_EXACT, ROUTE_VALUE_REGEX };
enum { ROUTE_PATH_ANY, ROUTE_PATH_EXACT, ROUTE_PATH_PREFIX, ROUTE_PATH_REGEX };
enum {
    ROUTE_FILTER_REQUEST_HEADERS = 1,
    ROUTE_FILTER_RESPONSE_HEADERS = 2,
    ROUTE_FILTER_REDIRECT = 3,
    ROUTE_FILTER_REWRITE = 4,
    ROUTE_FILTER_FAIL = 5,
    ROUTE_FILTER_MIRROR = 6,
    ROUTE_FILTER_DELAY = 7
};
enum { BALANCING_EWMA, BALANCING_LEAST_REQUESTS, BALANCING_ROUND_ROBIN, BALANCING_HASH };
enum { HASH_BY_NOTHING, HASH_BY_HEADER, HASH_BY_COOKIE, HASH_BY_SOURCE };
enum { ROUTE_CONDITION_PATH, ROUTE_CONDITION_METHOD };
enum { ROUTE_EDIT_ADD, ROUTE_EDIT_SET, ROUTE_EDIT_REMOVE };
enum { ROUTE_REWRITE_NOTHING, ROUTE_REWRITE_WHOLE, ROUTE_REWRITE_PREFIX };
enum { ROUTE_BACKEND_EXISTS, ROUTE_BACKEND_MISSING };

/* A request as far as routing looks at it. */
struct route_request {
    slice_t host;  /* authority; a port and a trailing dot are not looked at */
    slice_t path;  /* without the query */
    slice_t query; /* behind the ?, may be empty */
    slice_t method;
    /* The nth (from 0) value of the header with this lower-case name; false if there are not so
     * many. */
    bool (*header)(void *arg, slice_t name, size_t nth, slice_t *value);
    void *arg;
};

struct route_found {
    const struct wire_rule *rule;
    size_t index;                   /* of the rule in the destination */
    const struct wire_match *match; /* NULL if the rule has no matches */
};

/* Compiles the rules (of HTTP and of TLS). `d` is borrowed: it must live, unchanged, as long as
 * the table. MODEL_PATTERN, MODEL_LIMIT, MODEL_INVALID (a kind or a backend's index that makes
 * no sense): the view is not usable and why[160] says which rule. NOMEM. */
MUST_USE err_t route_table_new(const struct wire_destination *d, struct route_table **out,
                               char why[160]);
void route_table_free(struct route_table **t);

/* False: no rule fits (answer CODE_NO_ROUTE). */
bool route_match(struct route_table *t, const struct route_request *request,
                 struct route_found *out);

/* The rule of tls_rules for a server name (empty: none was sent; only rules without hosts fit).
 * False: no rule fits, to be refused, unless the destination has no tls_rules at all.
 * found->match is NULL. */
bool route_match_sni(const struct route_table *t, slice_t server_name, struct route_found *out);

/* ---- why: what `weft route` prints. Not for the hot path. ---- */

/* The part of a rule that a request does not fit; in the order in which they are looked at. */
enum route_part {
    ROUTE_PART_NONE, /* it fits */
    ROUTE_PART_HOST,
    ROUTE_PART_METHOD,
    ROUTE_PART_PATH,
    ROUTE_PART_HEADER,
    ROUTE_PART_QUERY,
    ROUTE_PART_CONDITION
};

/* What made a rule that fits come after the one that won. */
enum route_by {
    ROUTE_BY_NOTHING, /* it won, or did not fit */
    ROUTE_BY_HOST,
    ROUTE_BY_PATH,
    ROUTE_BY_METHOD,
    ROUTE_BY_HEADERS,
    ROUTE_BY_QUERY,
    ROUTE_BY_ORDER
};

struct route_verdict {
    size_t rule;                    /* index in the destination */
    const struct wire_match *match; /* the alternative that came furthest; NULL: it has none */
    slice_t host;                   /* the host looked at, as in the rule; empty: every host */
    bool is_chosen;
    enum route_part missed;
    size_t which; /* of the match's headers, query or conditions: the one missed */
    enum route_by lost_by;
};

/* One verdict per rule, in the order of the destination's rules; at most cap. */
size_t route_explain(struct route_table *t, const struct route_request *request,
                     struct route_verdict *out, size_t cap);

/* A backend by weight among those that `may` lets through (NULL: all); `random` is a random
 * number. NULL: none has a weight, or none is let through. */
const struct wire_weighted *route_pick(const struct wire_rule *rule, uint64_t random,
                                       bool (*may)(void *arg, uint16_t backend), void *arg);

/* Whether `prefix` matches `path` by segments: /a fits /a, /a/ and /a/b, not /ab. */
bool route_prefix_fits(slice_t prefix, slice_t path);

/* The path after a redirect's or rewrite's change, appended to `out`; `match` is the one that
 * led here (may be NULL). MODEL_INVALID if a prefix is to be replaced and no prefix matched;
 * errors of buf_add. */
MUST_USE err_t route_rewrite_path(const struct wire_filter *filter,
                                  const struct wire_match *match, slice_t path,
                                  struct buf *out);

/* The Location of a redirect, appended to `out`. `scheme` and `authority` are the request's.
 * MODEL_INVALID: no host is known, or as above. *is_same is set if it is the request's own URI,
 * in which case there is no redirect (the request goes on). */
MUST_USE err_t route_redirect_location(const struct wire_filter *filter,
                                       const struct wire_match *match,
                                       const struct route_request *request, slice_t scheme,
                                       struct buf *out, bool *is_same);

#endif
