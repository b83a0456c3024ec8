/* Looking into a JSON value field by field, with the path at hand when something is wrong.
 *
 * A look is a value and where it was found; children point at their parent, which must live as
 * long (they are locals of the functions that walk down). null counts as absent. Texts are
 * copied into the arena.
 */
#ifndef MODEL_LOOK_H
#define MODEL_LOOK_H

#include "model/why.h"

#include "kit/arena.h"
#include "kit/slice.h"

#include <jansson.h>

struct look_ctx {
    struct arena *arena;
    struct why *why;
    struct resource *resource; /* whose notes and namespace are meant */
};

struct look {
    struct look_ctx *ctx;
    const struct look *up; /* NULL: the object itself */
    const char *key;       /* in an object; NULL: index in a list */
    size_t index;
    const json_t *v;
};

/* Refuses with this reason at this place: sets why and returns MODEL_INVALID. */
err_t look_refuse(const struct look *at, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* `at` must be an object with no other fields than `known` (NULL at the end); the message for
 * another one guesses what was meant. */
MUST_USE err_t look_object(const struct look *at, const char *const *known);

/* The field, if it is there. */
bool look_at(const struct look *at, const char *key, struct look *out);
/* The same; absent is refused. */
MUST_USE err_t look_need(const struct look *at, const char *key, struct look *out);

/* `at` must be a list of at most `max`; *n its length. look_item does not fail below n. */
MUST_USE err_t look_list(const struct look *at, size_t max, size_t *n);
struct look look_item(const struct look *list, size_t i);

/* Values. */
MUST_USE err_t look_text(const struct look *at, size_t max,
                         slice_t *out); /* any text without control characters */
MUST_USE err_t look_number(const struct look *at, int64_t min, int64_t max, int64_t *out);
MUST_USE err_t look_bool(const struct look *at, bool *out);
MUST_USE err_t look_duration(const struct look *at, uint32_t *ms);

/* One of `words` (NULL at the end), case matters; *out is its index. */
MUST_USE err_t look_word(const struct look *at, const char *const *words, size_t *out);

/* Names, by the kinds of name.h. */
MUST_USE err_t look_label(const struct look *at, slice_t *out);
MUST_USE err_t look_host(const struct look *at, bool may_be_wildcard,
                         slice_t *out); /* lower case */
MUST_USE err_t look_port(const struct look *at, uint16_t *out);

/* n zeroed elements of `size` from the arena. */
MUST_USE err_t look_alloc(const struct look *at, size_t n, size_t size, void **out);

/* The closest of `words` to `text` if it is close, else NULL. */
const char *look_guess(const char *text, const char *const *words);

#endif
