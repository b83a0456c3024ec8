/* RFC 9110 and 3986 byte classes in one table, and the few grammars that decide whether bytes
 * of a peer may be believed. Everything here looks at every byte once and allocates nothing. */
#include "proxy/http/head.h"

#include "proxy/http/words.h"

#include <string.h>

enum byte_class {
    T = 1 << 0, /* tchar, RFC 9110 5.6.2 */
    U = 1 << 1, /* may stand in a request target: visible ASCII but '#' */
    H = 1 << 2, /* reg-name of a host: unreserved, sub-delims, '%' */
    D = 1 << 3, /* DIGIT */
    I = 1 << 4  /* inside the brackets of an IP literal */
};

/* clang-format off */
static const uint8_t class_of[256] = {
    ['!'] = T | U | H, ['"'] = U,         ['$'] = T | U | H, ['%'] = T | U | H, ['&'] = T | U | H,
    ['\''] = T | U | H, ['('] = U | H,    [')'] = U | H,     ['*'] = T | U | H, ['+'] = T | U | H,
    [','] = U | H,     ['-'] = T | U | H, ['.'] = T | U | H | I, ['/'] = U,     [':'] = U | I,
    [';'] = U | H,     ['<'] = U,         ['='] = U | H,     ['>'] = U,         ['?'] = U,
    ['@'] = U,         ['['] = U,         ['\\'] = U,        [']'] = U,         ['^'] = T | U,
    ['_'] = T | U | H, ['`'] = T | U,     ['{'] = U,         ['|'] = T | U,     ['}'] = U,
    ['~'] = T | U | H, ['#'] = T,
    ['0'] = T | U | H | D | I, ['1'] = T | U | H | D | I, ['2'] = T | U | H | D | I,
    ['3'] = T | U | H | D | I, ['4'] = T | U | H | D | I, ['5'] = T | U | H | D | I,
    ['6'] = T | U | H | D | I, ['7'] = T | U | H | D | I, ['8'] = T | U | H | D | I,
    ['9'] = T | U | H | D | I,
    ['A'] = T | U | H | I, ['B'] = T | U | H | I, ['C'] = T | U | H | I, ['D'] = T | U | H | I,
    ['E'] = T | U | H | I, ['F'] = T | U | H | I, ['G'] = T | U | H, ['H'] = T | U | H,
    ['I'] = T | U | H, ['J'] = T | U | H, ['K'] = T | U | H, ['L'] = T | U | H, ['M'] = T | U | H,
    ['N'] = T | U | H, ['O'] = T | U | H, ['P'] = T | U | H, ['Q'] = T | U | H, ['R'] = T | U | H,
    ['S'] = T | U | H, ['T'] = T | U | H, ['U'] = T | U | H, ['V'] = T | U | H, ['W'] = T | U | H,
    ['X'] = T | U | H, ['Y'] = T | U | H, ['Z'] = T | U | H,
    ['a'] = T | U | H | I, ['b'] = T | U | H | I, ['c'] = T | U | H | I, ['d'] = T | U | H | I,
    ['e'] = T | U | H | I, ['f'] = T | U | H | I, ['g'] = T | U | H, ['h'] = T | U | H,
    ['i'] = T | U | H, ['j'] = T | U | H, ['k'] = T | U | H, ['l'] = T | U | H, ['m'] = T | U | H,
    ['n'] = T | U | H, ['o'] = T | U | H, ['p'] = T | U | H, ['q'] = T | U | H, ['r'] = T | U | H,
    ['s'] = T | U | H, ['t'] = T | U | H, ['u'] = T | U | H, ['v'] = T | U | H, ['w'] = T | U | H,
    ['x'] = T | U | H, ['y'] = T | U | H, ['z'] = T | U | H,
};
/* clang-format on */

static bool all_of(slice_t s, unsigned wanted)
{
    unsigned seen = wanted;

    for (size_t i = 0; i < s.n; i++)
        seen &= class_of[s.p[i]];
    return seen == wanted;
}

bool http_is_token(slice_t s)
{
    return s.n > 0 && all_of(s, T);
}

size_t http_token_prefix(slice_t s)
{
    size_t i = 0;

    while (i < s.n && (class_of[s.p[i]] & T) != 0)
        i++;
    return i;
}

static bool is_ctl_but_tab(uint8_t c)
{
    return (c < 0x20 && c != '\t') || c == 0x7f;
}

static bool has_ctl_but_tab(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (is_ctl_but_tab(p[i]))
            return true;
    return false;
}

bool http_is_field_value(slice_t s)
{
    uint64_t guilty = 0;
    size_t i = 0;

    if (s.n == 0)
        return true;
    if (s.p[0] == ' ' || s.p[0] == '\t' || s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')
        return false;
    if (s.n < 8)
        return !has_ctl_but_tab(s.p, s.n);
    for (; i + 8 <= s.n; i += 8)
        guilty |= word_controls(word_load(s.p + i, 8));
    guilty |= word_controls(word_load(s.p + s.n - 8, 8)); /* the rest, with bytes before it once more */
    return LIKELY(guilty == 0) || !has_ctl_but_tab(s.p, s.n);
}

size_t http_value_prefix(slice_t s)
{
    size_t i = 0;

    while (i < s.n) {
        if (i + 8 <= s.n) {
            uint64_t guilty = word_controls(word_load(s.p + i, 8));

            if (guilty == 0) {
                i += 8;
                continue;
            }
            i += word_first(guilty); /* of the guilty ones the first is never wrong */
        }
        if (is_ctl_but_tab(s.p[i]))
            break;
        i++;
    }
    return i;
}

static bool is_port(slice_t s)
{
    uint64_t v;

    return s.n >= 1 && s.n <= 5 && slice_to_u64(s, &v) && v <= 65535;
}

bool http_is_authority(slice_t s)
{
    const uint8_t *colon;
    slice_t host;

    if (s.n == 0 || s.n > 261) /* a name of 255 bytes and a port */
        return false;
    if (s.p[0] == '[') {
        const uint8_t *end = memchr(s.p, ']', s.n);

        if (end == NULL)
            return false;
        host = slice(s.p + 1, (size_t)(end - s.p) - 1);
        if (host.n < 2 || !all_of(host, I) || memchr(host.p, ':', host.n) == NULL)
            return false;
        s = slice_skip(s, host.n + 2);
        return s.n == 0 || (s.p[0] == ':' && is_port(slice_skip(s, 1)));
    }
    colon = memchr(s.p, ':', s.n);
    if (colon == NULL)
        return all_of(s, H);
    host = slice(s.p, (size_t)(colon - s.p));
    return host.n > 0 && all_of(host, H) && is_port(slice_skip(s, host.n + 1));
}

bool http_is_path(slice_t s)
{
    if (s.n == 1 && s.p[0] == '*')
        return true;
    return s.n > 0 && s.p[0] == '/' && all_of(s, U);
}

bool http_is_framing_twin(slice_t name)
{
    static const slice_t twins[] = {
        {(const uint8_t *)"content-length", 14},
        {(const uint8_t *)"transfer-encoding", 17},
    };

    if (name.n != 14 && name.n != 17)
        return false;
    for (size_t t = 0; t < 2; t++) {
        size_t i = 0;

        if (name.n != twins[t].n || memchr(name.p, '_', name.n) == NULL)
            continue;
        while (i < name.n && (name.p[i] == '_' ? '-' : name.p[i] | 0x20) == twins[t].p[i])
            i++;
        if (i == name.n)
            return true;
    }
    return false;
}
