/* A length travels with its pointer: borrowed bytes, never owned, not NUL-terminated. */
#ifndef KIT_SLICE_H
#define KIT_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

typedef struct slice {
    const uint8_t *p;
    size_t n;
} slice_t;

/* For printf("%.*s"): SLICE_FMT(s) expands to the two arguments. */
#define SLICE_FMT(s) (int)(s).n, (const char *)(s).p

static inline slice_t slice(const void *p, size_t n)
{
    return (slice_t){(const uint8_t *)p, n};
}

/* `text` may be NULL (an empty slice). */
static inline slice_t slice_str(const char *text)
{
    return (slice_t){(const uint8_t *)text, text != NULL ? strlen(text) : 0};
}

#define SLICE_LIT(text) ((slice_t){(const uint8_t *)("" text), sizeof(text) - 1})

static inline bool slice_is(slice_t a, slice_t b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool slice_is_str(slice_t a, const char *text)
{
    return slice_is(a, slice_str(text));
}

/* ASCII case is ignored. */
static inline bool slice_is_nocase(slice_t a, slice_t b)
{
    return a.n == b.n && (a.n == 0 || strncasecmp((const char *)a.p, (const char *)b.p, a.n) == 0);
}

static inline bool slice_starts(slice_t a, slice_t prefix)
{
    return a.n >= prefix.n && (prefix.n == 0 || memcmp(a.p, prefix.p, prefix.n) == 0);
}

static inline bool slice_ends(slice_t a, slice_t suffix)
{
    return a.n >= suffix.n && (suffix.n == 0 || memcmp(a.p + (a.n - suffix.n), suffix.p, suffix.n) == 0);
}

/* The rest of `a` behind its first `n` bytes (all of it gone if n is larger). */
static inline slice_t slice_skip(slice_t a, size_t n)
{
    size_t k = n < a.n ? n : a.n;

    return (slice_t){k == 0 ? a.p : a.p + k, a.n - k}; /* NULL + 0 is not defined in C */
}

/* Copies into dst (capacity `cap`) with a NUL. False, and dst is "", if it does not fit or holds a NUL. */
bool slice_to_cstr(slice_t a, char *dst, size_t cap);

/* Decimal digits only, nothing else, no overflow, no sign. False leaves *out untouched. */
bool slice_to_u64(slice_t a, uint64_t *out);

#define SLICE_U64_MAX 20 /* digits of the largest number */

/* The decimal digits of v, written into the end of `room`; the slice points in there. What printf does, at a
 * tenth of its price: a number stands in every head. */
slice_t slice_of_u64(uint64_t v, char room[SLICE_U64_MAX]);

#endif
