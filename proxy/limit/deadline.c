#include "proxy/limit/deadline.h"

#include <stdio.h>
#include <string.h>

#define GRPC_DIGITS 8
#define GRPC_MAX    99999999ull

/* ---- grpc-timeout ---- */

/* Nanoseconds of a unit; 0: it is none. */
static uint64_t unit_ns(uint8_t unit)
{
    switch (unit) {
    case 'H':
        return 3600ull * 1000000000ull;
    case 'M':
        return 60ull * 1000000000ull;
    case 'S':
        return 1000000000ull;
    case 'm':
        return 1000000ull;
    case 'u':
        return 1000ull;
    case 'n':
        return 1ull;
    default:
        return 0;
    }
}

static bool parse_digits(slice_t text, size_t most, uint64_t *out)
{
    uint64_t n = 0;

    if (text.n == 0 || text.n > most)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(text.p[i] - '0');
    }
    *out = n;
    return true;
}

bool deadline_parse_grpc(slice_t text, uint64_t *us)
{
    uint64_t n, ns;

    if (text.n < 2 || !parse_digits(slice(text.p, text.n - 1), GRPC_DIGITS, &n))
        return false;
    ns = unit_ns(text.p[text.n - 1]);
    if (ns == 0)
        return false;
    *us = ns >= 1000 ? n * (ns / 1000) : (n + 999) / 1000;
    return true;
}

slice_t deadline_print_grpc(uint64_t us, char out[DEADLINE_TEXT])
{
    static const struct {
        uint64_t us;
        char unit;
    } units[] = {{1, 'u'}, {1000, 'm'}, {1000000, 'S'}};
    uint64_t n = GRPC_MAX;
    char unit = 'S';

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (us / units[i].us <= GRPC_MAX) {
            n = us / units[i].us;
            unit = units[i].unit;
            break;
        }
    (void)snprintf(out, DEADLINE_TEXT, "%u%c", (unsigned)n, unit);
    return slice_str(out);
}

/* ---- weft-deadline ---- */

bool deadline_parse_ms(slice_t text, uint32_t *ms)
{
    uint64_t n;

    if (!parse_digits(text, 10, &n) || n > UINT32_MAX)
        return false;
    *ms = (uint32_t)n;
    return true;
}

slice_t deadline_print_ms(uint64_t ms, char out[DEADLINE_TEXT])
{
    (void)snprintf(out, DEADLINE_TEXT, "%u", ms > UINT32_MAX ? UINT32_MAX : (unsigned)ms);
    return slice_str(out);
}

/* ---- trace ids ---- */

static int nibble(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_id(slice_t hex, uint8_t id[16])
{
    uint8_t any = 0;

    if (hex.n != 32 && hex.n != 16)
        return false;
    memset(id, 0, 16);
    for (size_t i = 0; i < hex.n; i++) {
        int v = nibble(hex.p[i]);
        size_t at = 32 - hex.n + i;

        if (v < 0)
            return false;
        id[at / 2] = (uint8_t)(id[at / 2] | (at % 2 == 0 ? v << 4 : v));
        any |= (uint8_t)v;
    }
    return any != 0;
}

static slice_t until_dash(slice_t s)
{
    const uint8_t *dash = s.n > 0 ? memchr(s.p, '-', s.n) : NULL;

    return dash == NULL ? s : slice(s.p, (size_t)(dash - s.p));
}

bool deadline_parse_trace(enum deadline_trace kind, slice_t value, uint8_t id[16])
{
    switch (kind) {
    case DEADLINE_TRACEPARENT:
        /* version "-" trace-id "-" parent-id "-" flags; version ff is forbidden */
        if (value.n < 55 || value.p[2] != '-' || value.p[35] != '-' || value.p[52] != '-' ||
            nibble(value.p[0]) < 0 || nibble(value.p[1]) < 0 ||
            (nibble(value.p[0]) == 15 && nibble(value.p[1]) == 15))
            return false;
        return parse_id(slice(value.p + 3, 32), id);
    case DEADLINE_B3:
        return parse_id(until_dash(value), id);
    case DEADLINE_B3_TRACEID:
        return parse_id(value, id);
    }
    return false;
}
