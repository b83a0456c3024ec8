#include "model/retry_terms.h"

#include "model/classify.h"
#include "wire/wire.h"

static bool parse_number(slice_t s, uint16_t *out)
{
    uint64_t v;

    if (s.n != 3 || !slice_to_u64(s, &v) || v < 100 || v > 599)
        return false;
    *out = (uint16_t)v;
    return true;
}

bool retry_parse_status(slice_t word, struct wire_status_range *out)
{
    if (slice_is_str(word, "gateway-error")) {
        *out = (struct wire_status_range){502, 504};
        return true;
    }
    if (word.n == 3 && word.p[0] >= '1' && word.p[0] <= '5' && word.p[1] == 'x' &&
        word.p[2] == 'x') {
        uint16_t hundred = (uint16_t)((word.p[0] - '0') * 100);

        *out = (struct wire_status_range){hundred, (uint16_t)(hundred + 99)};
        return true;
    }
    if (word.n == 7 && word.p[3] == '-')
        return parse_number(slice(word.p, 3), &out->low) &&
               parse_number(slice(word.p + 4, 3), &out->high) && out->low <= out->high;
    if (!parse_number(word, &out->low))
        return false;
    out->high = out->low;
    return true;
}

bool retry_parse_grpc(slice_t word, uint32_t *bit)
{
    static const struct {
        const char *name;
        unsigned number;
    } names[] = {{"cancelled", GRPC_CANCELLED},
                 {"deadline-exceeded", GRPC_DEADLINE_EXCEEDED},
                 {"internal", GRPC_INTERNAL},
                 {"resource-exhausted", GRPC_RESOURCE_EXHAUSTED},
                 {"unavailable", GRPC_UNAVAILABLE}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!slice_is_str(word, names[i].name))
            continue;
        *bit = 1u << names[i].number;
        return true;
    }
    return false;
}

/* The next word of a comma list; false: there is none. */
static bool next_word(slice_t *rest, bool *has_more, slice_t *word)
{
    const uint8_t *comma;

    if (!*has_more)
        return false;
    comma = rest->n > 0 ? memchr(rest->p, ',', rest->n) : NULL;
    *has_more = comma != NULL;
    *word = comma != NULL ? slice(rest->p, (size_t)(comma - rest->p)) : *rest;
    if (comma != NULL)
        *rest = slice_skip(*rest, word->n + 1);
    return true;
}

bool retry_parse_statuses(slice_t text, struct wire_status_range out[RETRY_RANGES_MAX], size_t *n)
{
    bool has_more = true;
    slice_t word;

    *n = 0;
    while (next_word(&text, &has_more, &word)) {
        if (*n == RETRY_RANGES_MAX || !retry_parse_status(word, &out[*n]))
            return false;
        (*n)++;
    }
    return true;
}

bool retry_parse_grpcs(slice_t text, uint32_t *bits)
{
    bool has_more = true;
    uint32_t bit;
    slice_t word;

    *bits = 0;
    while (next_word(&text, &has_more, &word)) {
        if (!retry_parse_grpc(word, &bit))
            return false;
        *bits |= bit;
    }
    return true;
}

bool retry_parse_duration(slice_t text, uint32_t *ms)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    uint64_t v = 0;
    size_t n = 0;

    while (n < text.n && text.p[n] >= '0' && text.p[n] <= '9' && n < 10)
        v = v * 10 + (uint64_t)(text.p[n++] - '0');
    if (n == 0)
        return false;
    *ms = 0;
    if (n == text.n)
        return v == 0;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (!slice_is_str(slice_skip(text, n), units[i].unit) || v > UINT32_MAX / units[i].ms)
            continue;
        *ms = (uint32_t)(v * units[i].ms);
        return true;
    }
    return false;
}
