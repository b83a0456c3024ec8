#include "proxy/detect/look.h"

#define RECORD_MAX 16384 /* RFC 8446 5.1 */
#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

static bool is_token_byte(uint8_t b)
{
    static const char others[] = "!#$%&'*+-.^_`|~";

    if ((b >= '0' && b <= '9') || (b >= 'A' && b <= 'Z') || (b >= 'a' && b <= 'z'))
        return true;
    return b != 0 && strchr(others, b) != NULL;
}

static enum look look_tls(slice_t b)
{
    /* Handshake record 22, version 3.x, length, handshake type 1. */
    if (b.n >= 2 && b.p[1] != 3)
        return LOOK_OPAQUE;
    if (b.n >= 3 && b.p[2] > 4)
        return LOOK_OPAQUE;
    if (b.n < 6)
        return LOOK_MORE;
    return b.p[5] == 1 ? LOOK_TLS : LOOK_OPAQUE;
}

/* The target behind the method's blank begins with '/' (origin form), '*' (OPTIONS), or a
 * letter, digit or '[' (absolute form, authority form of CONNECT). */
static bool may_begin_target(uint8_t b)
{
    return b == '/' || b == '*' || b == '[' || (b >= '0' && b <= '9') ||
           (b >= 'A' && b <= 'Z') || (b >= 'a' && b <= 'z');
}

/* A complete line: ends with " HTTP/" and a digit before what remains of the version. */
static bool is_request_line(slice_t line)
{
    static const char mark[] = " HTTP/";
    const size_t n = sizeof(mark) - 1;

    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    for (size_t i = line.n; i > n; i--)
        if (memcmp(line.p + i - n - 1, mark, n) == 0)
            return line.p[i - 1] >= '0' && line.p[i - 1] <= '9';
    return false;
}

static enum look look_http1(slice_t b)
{
    const uint8_t *end;
    size_t i = 0;

    while (i < b.n && i <= LOOK_METHOD_MAX && is_token_byte(b.p[i]))
        i++;
    if (i > LOOK_METHOD_MAX || i == 0)
        return LOOK_OPAQUE;
    if (i == b.n)
        return LOOK_MORE;
    if (b.p[i] != ' ')
        return LOOK_OPAQUE;
    if (++i == b.n)
        return LOOK_MORE;
    if (!may_begin_target(b.p[i]))
        return LOOK_OPAQUE;
    end = memchr(b.p + i, '\n', b.n - i);
    if (end != NULL)
        return is_request_line(slice(b.p, (size_t)(end - b.p))) ? LOOK_HTTP1 : LOOK_OPAQUE;
    return b.n > LOOK_LINE_MAX ? LOOK_HTTP1 : LOOK_MORE;
}

enum look look_at(slice_t b)
{
    const size_t preface_n = sizeof(PREFACE) - 1;
    size_t n = b.n < preface_n ? b.n : preface_n;

    if (b.n == 0)
        return LOOK_MORE;
    if (b.p[0] == LOOK_TLS_BYTE)
        return look_tls(b);
    if (memcmp(b.p, PREFACE, n) == 0)
        return n == preface_n ? LOOK_HTTP2 : LOOK_MORE;
    /* "PRI * HTTP/2.0" and something else behind it is not HTTP/1 either. */
    if (n > 14 && memcmp(b.p, PREFACE, 14) == 0)
        return LOOK_OPAQUE;
    return look_http1(b);
}

/* A SETTINGS frame of stream 0 without ACK (RFC 9113 3.4, 6.5): its length is a multiple of 6. */
static enum answer look_settings(slice_t b)
{
    static const uint8_t rest[] = {4, 0, 0, 0, 0, 0};
    size_t n = b.n > 9 ? 6 : b.n < 3 ? 0 : b.n - 3;

    if (b.p[0] != 0 || (n > 0 && memcmp(b.p + 3, rest, n) != 0))
        return ANSWER_OTHER;
    if (b.n >= 3 && ((size_t)b.p[1] << 8 | b.p[2]) % 6 != 0)
        return ANSWER_OTHER;
    return b.n >= 9 ? ANSWER_HTTP2 : ANSWER_MORE;
}

enum answer look_answer(slice_t b)
{
    static const char status[] = "HTTP/";
    size_t n = b.n < sizeof(status) - 1 ? b.n : sizeof(status) - 1;

    if (b.n == 0)
        return ANSWER_MORE;
    if (memcmp(b.p, status, n) == 0)
        return n == sizeof(status) - 1 ? ANSWER_HTTP1 : ANSWER_MORE;
    return look_settings(b);
}

/* ---- ClientHello (RFC 8446 4.1.2) ---- */

static bool take(slice_t *s, size_t n, slice_t *out)
{
    if (s->n < n)
        return false;
    *out = slice(s->p, n);
    *s = slice_skip(*s, n);
    return true;
}

/* A vector whose length takes `width` bytes. */
static bool take_vector(slice_t *s, unsigned width, slice_t *out)
{
    slice_t len;
    size_t n = 0;

    if (!take(s, width, &len))
        return false;
    for (unsigned i = 0; i < width; i++)
        n = n << 8 | len.p[i];
    return take(s, n, out);
}

static bool find_server_name(slice_t extensions, slice_t *sni)
{
    while (extensions.n > 0) {
        slice_t type, body, list, kind, name;

        if (!take(&extensions, 2, &type) || !take_vector(&extensions, 2, &body))
            return false;
        if (type.p[0] != 0 || type.p[1] != 0)
            continue;
        if (!take_vector(&body, 2, &list) || !take(&list, 1, &kind) ||
            !take_vector(&list, 2, &name))
            return false;
        if (kind.p[0] == 0)
            *sni = name;
        return true;
    }
    return true;
}

static enum step read_hello(slice_t hello, slice_t *sni)
{
    slice_t skip, extensions;

    *sni = SLICE_LIT("");
    if (!take(&hello, 2 + 32, &skip) || !take_vector(&hello, 1, &skip) ||
        !take_vector(&hello, 2, &skip) || !take_vector(&hello, 1, &skip))
        return STEP_FAILED;
    if (hello.n == 0)
        return STEP_DONE; /* no extensions */
    if (!take_vector(&hello, 2, &extensions) || !find_server_name(extensions, sni))
        return STEP_FAILED;
    return STEP_DONE;
}

/* The next record's header. */
static enum step next_record(struct hello *h, slice_t b)
{
    const uint8_t *p = b.p + h->at;

    if (h->at < b.n && p[0] != LOOK_TLS_BYTE)
        return STEP_FAILED;
    if (b.n - h->at < 5)
        return STEP_LATER;
    h->left = (size_t)p[3] << 8 | p[4];
    h->at += 5;
    return h->left == 0 || h->left > RECORD_MAX || h->at > LOOK_BYTES_MAX ? STEP_FAILED : STEP_DONE;
}

enum step look_hello(struct hello *h, slice_t b)
{
    for (;;) {
        enum step step = h->left > 0 ? STEP_DONE : next_record(h, b);
        size_t n, want;

        if (step != STEP_DONE)
            return step;
        n = b.n - h->at < h->left ? b.n - h->at : h->left;
        for (size_t i = h->have; i < sizeof(h->head) && i < h->have + n; i++)
            h->head[i] = b.p[h->at + i - h->have];
        h->at += n;
        h->left -= n;
        h->have += n;
        if (h->have > 0 && h->head[0] != 1)
            return STEP_FAILED;
        if (h->have >= sizeof(h->head)) {
            want = (size_t)h->head[1] << 16 | (size_t)h->head[2] << 8 | h->head[3];
            if (want + sizeof(h->head) > LOOK_HELLO_MAX)
                return STEP_FAILED;
            if (h->have >= want + sizeof(h->head))
                return STEP_DONE;
        }
        if (h->left > 0)
            return STEP_LATER;
    }
}

enum step look_sni(slice_t b, uint8_t *room, slice_t *sni)
{
    struct hello h = {0};
    enum step step = look_hello(&h, b);
    size_t have = 0, want;

    if (step != STEP_DONE)
        return step;
    want = ((size_t)h.head[1] << 16 | (size_t)h.head[2] << 8 | h.head[3]) + sizeof(h.head);
    while (have < want) {
        size_t n = (size_t)b.p[3] << 8 | b.p[4];

        n = n < want - have ? n : want - have;
        memcpy(room + have, b.p + 5, n);
        have += n;
        b = slice_skip(b, 5 + n);
    }
    return read_hello(slice(room + sizeof(h.head), want - sizeof(h.head)), sni);
}

bool look_is_host(slice_t name)
{
    if (name.n > 0 && name.p[name.n - 1] == '.')
        name.n--;
    if (name.n == 0 || name.n > 253 || name.p[name.n - 1] == '.')
        return false;
    for (size_t i = 0; i < name.n; i++) {
        uint8_t b = name.p[i];

        if (b == '.' ? i == 0 || name.p[i - 1] == '.'
                     : b != '-' && b != '_' && !(b >= '0' && b <= '9') && !(b >= 'a' && b <= 'z') &&
                           !(b >= 'A' && b <= 'Z'))
            return false;
    }
    return true;
}
