/* Regular expressions whose time is bounded by construction.
 *
 * The expressions of routes come from people, the texts from strangers, and a backtracking
 * matcher lets the two together stop a proxy. This one simulates a nondeterministic automaton
 * (Thompson, Pike): a match takes at most (states x bytes of text) steps, states being at most
 * REGEX_STATES and bytes at most REGEX_TEXT. On top, sets of states that were seen are
 * remembered, so that the usual text costs one table look-up per byte.
 *
 * Always the whole text must match; ^ at the start and $ at the end may be written and change
 * nothing. Syntax is the common part of RE2: literals, . (any byte but newline), [a-z] [^a-z]
 * [[:alpha:]], \d \D \w \W \s \S, \t \n \r \f \v \xHH \., groups (x) (?:x) (?P<name>x), |, * +
 * ? {n} {n,} {n,m} (a following ? changes nothing), (?i) at the very start. Bytes, not
 * characters, are matched. Not supported, with an error that says so: back references,
 * look-around, \b, \p, other flags.
 */
#ifndef MODEL_REGEX_H
#define MODEL_REGEX_H

#include "model/errors.h"

#include "kit/slice.h"

#include <stdbool.h>

#define REGEX_PATTERN 1024 /* bytes of an expression */
#define REGEX_STATES  1024 /* after {n,m} was written out */
#define REGEX_TEXT    8192 /* a longer text matches nothing */
#define REGEX_REPEAT  255  /* largest number in braces */
#define REGEX_DEPTH   24   /* groups within groups */

struct regex;

/* MODEL_PATTERN: why[96] says what and where, e.g. "at 4: nothing to repeat before *". NOMEM.
 */
MUST_USE err_t regex_new(slice_t pattern, struct regex **out, char why[96]);
void regex_free(struct regex **re);

/* Whether the whole text matches. Uses memory inside *re, so one match at a time. */
bool regex_matches(struct regex *re, slice_t text);

#endif
