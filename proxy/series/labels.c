/* Label text in its one canonical form, so that equal labels are equal bytes.
 *
 * Values may come from a stranger (an authority, a name from a certificate). What leaves here
 * is UTF-8 without control characters, escaped as the Prometheus text format asks (backslash,
 * quote, newline).
 */
#include "proxy/series/series.h"

/* Length of the well-formed UTF-8 sequence at the start of s (RFC 3629), 0 if there is none. */
static size_t utf8_sequence(slice_t s)
{
    static const struct {
        uint8_t low, high;   /* of the first byte */
        uint8_t low2, high2; /* of the second byte */
        uint8_t n;
    } forms[] = {
        {0x00, 0x7f, 0x00, 0xff, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (size_t f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
        if (s.p[0] < forms[f].low || s.p[0] > forms[f].high)
            continue;
        if (s.n < forms[f].n)
            return 0;
        if (forms[f].n > 1 && (s.p[1] < forms[f].low2 || s.p[1] > forms[f].high2))
            return 0;
        for (size_t i = 2; i < forms[f].n; i++)
            if ((s.p[i] & 0xc0) != 0x80)
                return 0;
        return forms[f].n;
    }
    return 0;
}

/* Writes one value escaped to out (room for 2 bytes per byte of input). Returns the bytes
 * written. */
static size_t value_escape(slice_t value, uint8_t *out)
{
    size_t n = 0;

    while (value.n > 0) {
        size_t len = utf8_sequence(value);
        uint8_t c = value.p[0];

        if (len > 1) {
            memcpy(out + n, value.p, len);
            n += len;
        } else if (c == '\\' || c == '"') {
            out[n++] = '\\';
            out[n++] = c;
        } else if (c == '\n') {
            out[n++] = '\\';
            out[n++] = 'n';
        } else {
            out[n++] = len == 0 || c < 0x20 || c == 0x7f ? '?' : c;
        }
        value = slice_skip(value, len > 1 ? len : 1);
    }
    return n;
}

/* The longest prefix of at most SERIES_VALUE_MAX bytes that does not end inside a UTF-8
 * sequence. */
static slice_t value_cut(slice_t value)
{
    if (value.n <= SERIES_VALUE_MAX)
        return value;
    value.n = SERIES_VALUE_MAX;
    while (value.n > SERIES_VALUE_MAX - 4 && (value.p[value.n] & 0xc0) == 0x80)
        value.n--;
    return value;
}

static err_t label_add(struct buf *out, const struct series_label *label)
{
    size_t name_n = strlen(label->name);
    slice_t value = value_cut(label->value);
    size_t n = 0;
    uint8_t *p = buf_reserve(out, name_n + 2 * value.n + 4);

    if (p == NULL)
        return ERR_OF(TOO_BIG);
    if (buf_len(out) > 0)
        p[n++] = ',';
    memcpy(p + n, label->name, name_n);
    n += name_n;
    p[n++] = '=';
    p[n++] = '"';
    n += value_escape(value, p + n);
    p[n++] = '"';
    buf_commit(out, n);
    return buf_len(out) <= SERIES_LABELS_MAX ? OK : ERR_OF(TOO_BIG);
}

err_t series_labels(struct buf *out, const struct series_label *labels, size_t n)
{
    buf_consume(out, buf_len(out));
    for (size_t i = 0; i < n; i++)
        if (labels[i].value.n > 0)
            TRY(label_add(out, &labels[i]));
    return OK;
}

bool series_labels_are_sound(slice_t text)
{
    while (text.n > 0) {
        size_t len = utf8_sequence(text);

        if (len == 0 || text.p[0] < 0x20 || text.p[0] == 0x7f)
            return false;
        text = slice_skip(text, len);
    }
    return true;
}
