/* Heads of HTTP/1: see parse.h. The rules are those of hardening.md 2.1; numbers H1-xx name the
 * cases. */
#include "proxy/http1/parse.h"

#include "proxy/http/spelling.h"

#include <string.h>

#define METHOD_MAX 32

/* ---- the end of a section ---- */

/* The limit that a line of so many bytes breaks, if any. */
static enum refusal over_limit(const struct h1_scan *scan, size_t len, bool has_start_line,
                               const struct http_limits *limits)
{
    bool is_start = has_start_line && scan->lines == 0;
    size_t line_max = limits->line_max != 0 ? limits->line_max : HTTP_LINE_MAX;
    size_t field_max = limits->field_max != 0 ? limits->field_max : HTTP_FIELD_MAX;

    if (is_start && len > line_max + 2)
        return REFUSED_LINE_SIZE;
    if (!is_start && len > field_max + 4)
        return REFUSED_FIELD_SIZE;
    if (scan->line + len > limits->head_max)
        return is_start ? REFUSED_LINE_SIZE : REFUSED_HEAD_SIZE;
    if (len > 2 && scan->lines == (size_t)limits->fields_max + (has_start_line ? 1 : 0))
        return REFUSED_FIELD_COUNT;
    return REFUSED_NOTHING;
}

enum step h1_scan_section(struct h1_scan *scan, slice_t bytes, bool has_start_line,
                          const struct http_limits *limits, size_t *n, enum refusal *why)
{
    for (;;) {
        const uint8_t *line = bytes.p + scan->line;
        size_t rest = bytes.n - scan->line;
        const uint8_t *lf = rest > 0 ? memchr(line, '\n', rest) : NULL;
        size_t len = lf != NULL ? (size_t)(lf - line) + 1 : rest;

        *why = over_limit(scan, len, has_start_line, limits);
        if (*why != REFUSED_NOTHING)
            return STEP_FAILED;
        if (lf == NULL)
            return STEP_LATER;
        *why = REFUSED_LINE_END;
        if (len < 2 || line[len - 2] != '\r') /* H1-12 */
            return STEP_FAILED;
        if (len == 2 && (scan->lines > 0 || !has_start_line)) {
            *n = scan->line + 2;
            return STEP_DONE;
        }
        if (line[0] == ' ' || line[0] == '\t') /* H1-10, H1-14 */
            return STEP_FAILED;
        scan->line += len;
        scan->lines++;
    }
}

slice_t h1_scan_culprit(const struct h1_scan *scan, slice_t bytes, bool has_start_line)
{
    slice_t line = slice_skip(bytes, scan->line);
    const uint8_t *colon = line.n > 0 ? memchr(line.p, ':', line.n) : NULL;

    if (colon == NULL || (has_start_line && scan->lines == 0))
        return slice(NULL, 0);
    return slice(line.p, (size_t)(colon - line.p));
}

/* ---- field lines ---- */

static slice_t trimmed(slice_t s)
{
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = slice_skip(s, 1);
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* `lines` are the field lines and the empty line, each ending with CR LF (h1_scan_section). Every line is
 *      token ":" *( SP / HTAB ) value *( SP / HTAB ) CR LF
 * where a value has no control byte but HTAB: so the first CR is the line's end, or the line is refused. */
static enum refusal read_fields(slice_t lines, struct arena *a, struct head *h)
{
    while (lines.n > 2) {
        char look;
        slice_t name = slice(lines.p, spelling_name_prefix(lines, &look)), value;

        lines = slice_skip(lines, name.n);
        if (name.n == 0 || lines.p[0] != ':' || http_is_framing_twin(name)) /* H1-09, 13..16 */
            return REFUSED_FIELD;
        lines = slice_skip(lines, 1);
        value = slice(lines.p, http_value_prefix(lines));
        lines = slice_skip(lines, value.n);
        if (lines.n < 2 || lines.p[0] != '\r' || lines.p[1] != '\n') /* H1-11 */
            return REFUSED_FIELD;
        lines = slice_skip(lines, 2);
        if (head_add(h, a, name, trimmed(value)) != OK)
            return REFUSED_NO_MEMORY;
        h->fields[h->n_fields - 1].look = look;
    }
    return lines.n == 2 && lines.p[0] == '\r' && lines.p[1] == '\n' ? REFUSED_NOTHING : REFUSED_LINE_END;
}

/* ---- what the fields mean ---- */

static enum refusal read_length(struct head *h, slice_t v)
{
    uint64_t n;

    /* One plain number of at most 19 digits; a second one, even if equal, is refused
     * (H1-02..05). */
    if (h->content_length >= 0 || v.n == 0 || v.n > 19 || !slice_to_u64(v, &n) || n > INT64_MAX)
        return REFUSED_LENGTH;
    h->content_length = (int64_t)n;
    return REFUSED_NOTHING;
}

/* Takes the next element of a comma list. False: there is none. An empty element is an element.
 */
static bool next_element(slice_t *list, bool *is_more, slice_t *out)
{
    const uint8_t *comma;
    size_t n;

    if (!*is_more)
        return false;
    comma = list->n > 0 ? memchr(list->p, ',', list->n) : NULL;
    n = comma != NULL ? (size_t)(comma - list->p) : list->n;
    *out = trimmed(slice(list->p, n));
    *is_more = comma != NULL;
    *list = slice_skip(*list, n + 1);
    return true;
}

static bool is_known_coding(slice_t s)
{
    static const char *const codings[] = {"gzip",    "x-gzip", "compress", "x-compress",
                                          "deflate", "br",     "zstd"};

    for (size_t i = 0; i < sizeof(codings) / sizeof(codings[0]); i++)
        if (slice_is_nocase(s, slice_str(codings[i])))
            return true;
    return false;
}

/* Exactly `chunked`, once (H1-06, H1-07). Real codings before it are understood and not
 * supported. */
static enum refusal read_coding(struct head *h, slice_t v)
{
    bool is_more = true, is_chunked_last = false;
    slice_t one;

    if (slice_is_nocase(v, SLICE_LIT("chunked")) && !h->is_chunked) {
        h->is_chunked = true;
        return REFUSED_NOTHING;
    }
    while (next_element(&v, &is_more, &one)) {
        if (is_chunked_last)
            return REFUSED_CODING;
        is_chunked_last = slice_is_nocase(one, SLICE_LIT("chunked"));
        if (!is_chunked_last && !is_known_coding(one))
            return REFUSED_CODING;
    }
    return h->is_chunked ? REFUSED_CODING : REFUSED_CODING_UNKNOWN;
}

struct connection_words {
    bool is_close, is_keep_alive, is_upgrade;
};

static void read_connection(slice_t v, struct connection_words *w)
{
    bool is_more = true;
    slice_t one;

    while (next_element(&v, &is_more, &one)) {
        if (slice_is_nocase(one, SLICE_LIT("close")))
            w->is_close = true;
        else if (slice_is_nocase(one, SLICE_LIT("keep-alive")))
            w->is_keep_alive = true;
        else if (slice_is_nocase(one, SLICE_LIT("upgrade")))
            w->is_upgrade = true;
    }
}

/* An Upgrade we may pass on: HTTP/1.1, asked for by Connection, and not to HTTP/2 (H1-36). */
static slice_t passable_upgrade(const struct head *h, const struct connection_words *w)
{
    const struct field *f = head_find(h, FIELD_UPGRADE);
    bool is_more = true;
    slice_t list, one;

    if (f == NULL || !w->is_upgrade || h->version != HTTP_1_1 || f->value.n == 0)
        return slice(NULL, 0);
    list = f->value;
    while (next_element(&list, &is_more, &one))
        if (one.n >= 2 && slice_is_nocase(slice(one.p, 2), SLICE_LIT("h2")))
            return slice(NULL, 0);
    for (const struct field *g = f + 1; g < h->fields + h->n_fields; g++)
        if (g->token == FIELD_UPGRADE)
            return slice(NULL, 0);
    return f->value;
}

/* What both roles need from the fields. */
static enum refusal read_meaning(struct head *h)
{
    struct connection_words w = {0};
    enum refusal r = REFUSED_NOTHING;
    bool has_coding = false;

    for (size_t i = 0; i < h->n_fields && r == REFUSED_NOTHING; i++) {
        slice_t v = h->fields[i].value;

        switch (h->fields[i].token) {
        case FIELD_CONTENT_LENGTH:
            r = read_length(h, v);
            break;
        case FIELD_TRANSFER_ENCODING:
            has_coding = true;
            r = read_coding(h, v);
            break;
        case FIELD_CONNECTION:
            read_connection(v, &w);
            break;
        case FIELD_TE:
            if (slice_is_nocase(v, SLICE_LIT("trailers")))
                h->accepts_trailers = true;
            break;
        case FIELD_CONTENT_TYPE:
            h->is_grpc =
                v.n >= 16 && slice_is_nocase(slice(v.p, 16), SLICE_LIT("application/grpc"));
            break;
        default:
            break;
        }
    }
    if (r != REFUSED_NOTHING)
        return r;
    if (has_coding && h->content_length >= 0) /* H1-01 */
        return REFUSED_FRAMING;
    if (has_coding && h->version == HTTP_1_0) /* H1-08 */
        return REFUSED_FRAMING;
    h->is_keep_alive = !w.is_close && (h->version == HTTP_1_1 || w.is_keep_alive);
    h->upgrade = passable_upgrade(h, &w);
    return REFUSED_NOTHING;
}

/* ---- start lines ---- */

/* HTTP/1.0 or HTTP/1.1, in capitals; another well-formed version is 505, anything else is not
 * HTTP. */
static enum refusal read_version(slice_t s, enum http_version *out)
{
    if (s.n != 8 || memcmp(s.p, "HTTP/", 5) != 0 || s.p[6] != '.' || s.p[5] < '0' ||
        s.p[5] > '9' || s.p[7] < '0' || s.p[7] > '9' || s.p[5] == '0')
        return REFUSED_LINE;
    if (s.p[5] != '1' || s.p[7] > '1')
        return REFUSED_VERSION;
    *out = s.p[7] == '1' ? HTTP_1_1 : HTTP_1_0;
    return REFUSED_NOTHING;
}

static bool is_idempotent_method(slice_t m)
{
    static const char *const methods[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"};

    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (slice_is_str(m, methods[i]))
            return true;
    return false;
}

/* scheme "://" authority [path] ["?" query], RFC 9112 3.2.2. */
static enum refusal read_absolute_form(struct head *h, struct arena *a, slice_t t)
{
    slice_t rest;
    size_t n = 0;

    if (t.n > 7 && slice_is_nocase(slice(t.p, 7), SLICE_LIT("http://")))
        h->scheme = SLICE_LIT("http");
    else if (t.n > 8 && slice_is_nocase(slice(t.p, 8), SLICE_LIT("https://")))
        h->scheme = SLICE_LIT("https");
    else
        return REFUSED_TARGET;
    rest = slice_skip(t, h->scheme.n + 3);
    while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
        n++;
    h->is_absolute_form = true;
    h->authority = slice(rest.p, n);
    if (!http_is_authority(h->authority))
        return REFUSED_TARGET;
    rest = slice_skip(rest, n);
    if (rest.n == 0) {
        h->path = slice_is_str(h->method, "OPTIONS") ? SLICE_LIT("*") : SLICE_LIT("/");
    } else if (rest.p[0] == '?') {
        uint8_t *p = arena_alloc(a, rest.n + 1);

        if (p == NULL)
            return REFUSED_NO_MEMORY;
        p[0] = '/';
        memcpy(p + 1, rest.p, rest.n);
        h->path = slice(p, rest.n + 1);
    } else {
        h->path = rest;
    }
    return http_is_path(h->path) ? REFUSED_NOTHING : REFUSED_TARGET;
}

static enum refusal read_target(struct head *h, struct arena *a, slice_t t)
{
    if (h->is_connect) {
        /* RFC 9112 3.2.3: host and port, both. */
        const uint8_t *colon = memrchr(t.p, ':', t.n);

        if (!http_is_authority(t) || colon == NULL ||
            memchr(colon, ']', t.n - (size_t)(colon - t.p)))
            return REFUSED_CONNECT;
        h->authority = t;
        return REFUSED_NOTHING;
    }
    if (t.p[0] == '*') {
        h->path = t;
        return t.n == 1 && slice_is_str(h->method, "OPTIONS") ? REFUSED_NOTHING
                                                              : REFUSED_TARGET;
    }
    if (t.p[0] != '/')
        return read_absolute_form(h, a, t);
    h->path = t;
    return http_is_path(t) ? REFUSED_NOTHING : REFUSED_TARGET;
}

static enum refusal read_request_line(struct head *h, struct arena *a, slice_t line)
{
    const uint8_t *sp = memchr(line.p, ' ', line.n);
    enum refusal r;
    slice_t rest;

    if (sp == NULL)
        return REFUSED_LINE;
    h->method = slice(line.p, (size_t)(sp - line.p));
    if (!http_is_token(h->method))
        return REFUSED_LINE;
    rest = slice_skip(line, h->method.n + 1);
    sp = rest.n > 0 ? memchr(rest.p, ' ', rest.n) : NULL;
    if (sp == NULL || sp == rest.p)
        return REFUSED_LINE;
    r = read_version(slice_skip(rest, (size_t)(sp - rest.p) + 1), &h->version);
    if (r != REFUSED_NOTHING)
        return r;
    if (h->method.n > METHOD_MAX)
        return REFUSED_METHOD;
    h->is_connect = slice_is_str(h->method, "CONNECT");
    h->is_idempotent = is_idempotent_method(h->method);
    return read_target(h, a, slice(rest.p, (size_t)(sp - rest.p)));
}

/* The authority without the default port of its scheme. */
static slice_t bare_authority(const struct head *h, slice_t authority)
{
    slice_t port = slice_is_str(h->scheme, "https") ? SLICE_LIT(":443") : SLICE_LIT(":80");

    if (!h->is_connect && slice_ends(authority, port))
        authority.n -= port.n;
    return authority;
}

static enum refusal read_host(struct head *h)
{
    const struct field *host = head_find(h, FIELD_HOST);

    if (host == NULL)
        return h->version == HTTP_1_1 ? REFUSED_HOST : REFUSED_NOTHING;
    for (const struct field *f = host + 1; f < h->fields + h->n_fields; f++)
        if (f->token == FIELD_HOST)
            return REFUSED_HOST;
    if (host->value.n > 0 && !http_is_authority(host->value))
        return REFUSED_HOST;
    if (h->authority.n == 0)
        h->authority = host->value;
    else if (!slice_is_nocase(bare_authority(h, h->authority), bare_authority(h, host->value)))
        return REFUSED_HOST; /* H1-17, H1-18 */
    return REFUSED_NOTHING;
}

static enum refusal read_expect(struct head *h)
{
    for (size_t i = 0; i < h->n_fields; i++) {
        if (h->fields[i].token != FIELD_EXPECT)
            continue;
        if (!slice_is_nocase(h->fields[i].value, SLICE_LIT("100-continue")))
            return REFUSED_EXPECT;
        h->expects_continue = h->version == HTTP_1_1; /* RFC 9110 10.1.1: 1.0 is not answered */
    }
    return REFUSED_NOTHING;
}

static slice_t first_line(slice_t bytes)
{
    const uint8_t *lf = memchr(bytes.p, '\n', bytes.n);

    BUG_ON(lf == NULL || lf == bytes.p); /* h1_scan_section was not asked */
    return slice(bytes.p, (size_t)(lf - bytes.p) - 1);
}

enum refusal h1_parse_request(slice_t bytes, struct arena *a, struct head *h)
{
    slice_t line = first_line(bytes);
    enum refusal r;

    head_init(h);
    r = read_request_line(h, a, line);
    if (r == REFUSED_NOTHING)
        r = read_fields(slice_skip(bytes, line.n + 2), a, h);
    if (r == REFUSED_NOTHING)
        r = read_meaning(h);
    if (r == REFUSED_NOTHING)
        r = read_host(h);
    if (r == REFUSED_NOTHING)
        r = read_expect(h);
    if (r != REFUSED_NOTHING)
        return r;
    if (h->is_connect && (h->version != HTTP_1_1 || h->content_length >= 0 || h->is_chunked))
        return REFUSED_CONNECT; /* H1-29 */
    if (!h->is_idempotent && head_find(h, FIELD_IDEMPOTENCY_KEY) != NULL)
        h->is_idempotent = true;
    return REFUSED_NOTHING;
}

static enum refusal read_status_line(struct head *h, slice_t line)
{
    uint64_t status;

    if (line.n < 12 || line.p[8] != ' ' ||
        read_version(slice(line.p, 8), &h->version) != REFUSED_NOTHING ||
        !slice_to_u64(slice(line.p + 9, 3), &status) || status < 100 || status > 999)
        return REFUSED_STATUS_LINE;
    h->status = (uint16_t)status;
    /* The space before an empty reason is often forgotten; without a reason nothing is
     * ambiguous. */
    if (line.n > 12 && line.p[12] != ' ')
        return REFUSED_STATUS_LINE;
    h->reason = trimmed(slice_skip(line, 13));
    return http_is_field_value(h->reason) ? REFUSED_NOTHING : REFUSED_STATUS_LINE;
}

enum refusal h1_parse_response(slice_t bytes, struct arena *a, struct head *h)
{
    slice_t line = first_line(bytes);
    enum refusal r;

    head_init(h);
    r = read_status_line(h, line);
    if (r == REFUSED_NOTHING)
        r = read_fields(slice_skip(bytes, line.n + 2), a, h);
    return r == REFUSED_NOTHING ? read_meaning(h) : r;
}

enum refusal h1_parse_trailers(slice_t bytes, struct arena *a, struct head *h)
{
    enum refusal r;

    head_init(h);
    r = read_fields(bytes, a, h);
    if (r == REFUSED_NO_MEMORY)
        return r;
    if (r != REFUSED_NOTHING)
        return REFUSED_TRAILER;
    for (size_t i = 0; i < h->n_fields; i++)
        if ((field_flags(h->fields[i].token) & FIELD_NOT_TRAILER) != 0)
            h->fields[i].is_removed = true; /* H1-26 */
    return REFUSED_NOTHING;
}
