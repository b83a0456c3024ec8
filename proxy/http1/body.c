/* Content of HTTP/1 messages: see body.h. Chunk framing is refused for anything a lenient
 * reader before or behind us could see differently (hardening.md H1-23..H1-25). */
#include "proxy/http1/body.h"

#include <string.h>

#define SIZE_DIGITS_MAX 16
#define EXT_CHUNK_MAX   1024  /* bytes of extensions in one chunk-size line */
#define EXT_MESSAGE_MAX 16384 /* and in a message */

void body_start_none(struct body *b)
{
    *b = (struct body){.framing = BODY_NONE};
}

void body_start_length(struct body *b, uint64_t n)
{
    *b = (struct body){.framing = n > 0 ? BODY_LENGTH : BODY_NONE, .left = n};
}

void body_start_chunked(struct body *b)
{
    *b = (struct body){.framing = BODY_CHUNK_SIZE};
}

void body_start_until_close(struct body *b)
{
    *b = (struct body){.framing = BODY_UNTIL_CLOSE};
}

void body_start_raw(struct body *b)
{
    *b = (struct body){.framing = BODY_RAW};
}

static enum body_got broken(struct body *b, enum refusal r, enum refusal *why)
{
    b->framing = BODY_BROKEN;
    *why = r;
    return BODY_BAD;
}

/* Up to `left` bytes of content. */
static slice_t take(struct body *b, slice_t *in)
{
    slice_t out = *in;

    if (out.n > b->left)
        out.n = (size_t)b->left;
    b->left -= out.n;
    *in = slice_skip(*in, out.n);
    return out;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* *( ";" name [ "=" ( token / quoted-string ) ] ), with blanks allowed around the signs but not
 * before the first ";": bytes that a line-oriented reader could take for an end of line never
 * pass. */
static bool is_extension(slice_t ext)
{
    bool is_quoted = false;

    for (size_t i = 0; i < ext.n; i++) {
        uint8_t c = ext.p[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
        if (is_quoted) {
            if (c == '\\' && ++i < ext.n && ext.p[i] < 0x20)
                return false;
            is_quoted = c != '"';
        } else if (c == '"') {
            if (ext.p[i - 1] != '=' && ext.p[i - 1] != ' ')
                return false;
            is_quoted = true;
        } else if (c != ';' && c != '=' && c != ' ' && c != '\t' &&
                   !http_is_token(slice(&c, 1))) {
            return false;
        }
    }
    return !is_quoted;
}

/* `line` without CR LF. False: refused. */
static bool read_size(struct body *b, slice_t line, uint64_t *size)
{
    uint64_t n = 0;
    size_t i = 0;

    for (; i < line.n && hex_digit(line.p[i]) >= 0; i++) {
        if (i == SIZE_DIGITS_MAX)
            return false;
        n = n << 4 | (uint64_t)hex_digit(line.p[i]);
    }
    if (i == 0 || n > INT64_MAX)
        return false;
    line = slice_skip(line, i);
    if (line.n > 0) {
        b->ext_bytes += (uint32_t)line.n;
        if (line.p[0] != ';' || line.n > EXT_CHUNK_MAX || b->ext_bytes > EXT_MESSAGE_MAX ||
            !is_extension(line))
            return false;
    }
    *size = n;
    return true;
}

static enum body_got chunk_size(struct body *b, slice_t *in, enum refusal *why)
{
    const uint8_t *lf = in->n > 0 ? memchr(in->p, '\n', in->n) : NULL;
    uint64_t size;
    size_t len;

    if (lf == NULL) {
        /* Refuse early what can only become bad. */
        if (in->n > SIZE_DIGITS_MAX + EXT_CHUNK_MAX + 2 ||
            (in->n > 0 && hex_digit(in->p[0]) < 0))
            return broken(b, REFUSED_CHUNK, why);
        return BODY_MORE;
    }
    len = (size_t)(lf - in->p) + 1;
    if (len < 3 || lf[-1] != '\r' || !read_size(b, slice(in->p, len - 2), &size))
        return broken(b, REFUSED_CHUNK, why);
    *in = slice_skip(*in, len);
    b->left = size;
    b->framing = size > 0 ? BODY_CHUNK_DATA : BODY_TRAILERS;
    return BODY_DATA; /* of no length: the caller's loop goes on */
}

static enum body_got chunk_end(struct body *b, slice_t *in, enum refusal *why)
{
    if ((in->n > 0 && in->p[0] != '\r') || (in->n > 1 && in->p[1] != '\n'))
        return broken(b, REFUSED_CHUNK, why);
    if (in->n < 2)
        return BODY_MORE;
    *in = slice_skip(*in, 2);
    b->framing = BODY_CHUNK_SIZE;
    return BODY_DATA;
}

static enum body_got trailers(struct body *b, slice_t *in, const struct http_limits *limits,
                              slice_t *out, enum refusal *why)
{
    size_t n = 0;

    switch (h1_scan_section(&b->scan, *in, false, limits, &n, why)) {
    case STEP_DONE:
        break;
    case STEP_LATER:
        return BODY_MORE;
    case STEP_FAILED:
        return broken(b, *why == REFUSED_LINE_END ? REFUSED_TRAILER : *why, why);
    }
    *out = slice(in->p, n);
    *in = slice_skip(*in, n);
    b->framing = BODY_NONE;
    return n > 2 ? BODY_SECTION : BODY_END;
}

enum body_got body_read(struct body *b, slice_t *in, const struct http_limits *limits,
                        slice_t *out, enum refusal *why)
{
    enum body_got got = BODY_DATA;

    while (got == BODY_DATA) {
        switch (b->framing) {
        case BODY_NONE:
            return BODY_END;
        case BODY_BROKEN:
            *why = REFUSED_CHUNK;
            return BODY_BAD;
        case BODY_RAW:
        case BODY_UNTIL_CLOSE:
            b->left = UINT64_MAX;
            *out = take(b, in);
            return out->n > 0 ? BODY_DATA : BODY_MORE;
        case BODY_LENGTH:
        case BODY_CHUNK_DATA:
            if (in->n == 0)
                return BODY_MORE;
            *out = take(b, in);
            if (b->left == 0)
                b->framing = b->framing == BODY_LENGTH ? BODY_NONE : BODY_CHUNK_END;
            return BODY_DATA;
        case BODY_CHUNK_SIZE:
            got = chunk_size(b, in, why);
            break;
        case BODY_CHUNK_END:
            got = chunk_end(b, in, why);
            break;
        case BODY_TRAILERS:
            got = trailers(b, in, limits, out, why);
            break;
        }
    }
    return got;
}
