/* Heads between struct head and HTTP/2 field blocks, and what the library does not check
 * (hardening.md appendix B): Host against :authority, '#' and bytes above 0x7f in the path,
 * userinfo, sizes and counts, cookie crumbs. Names and values were checked by the library
 * (illegal ones arrive at the callback for invalid fields, which refuses the stream). */
#include "proxy/http2/session.h"

#include <string.h>

#define FIELD_OVERHEAD 32 /* RFC 9113 6.5.2 */
#define METHOD_MAX     32

static enum refusal copy_to(struct h2_stream *st, slice_t from, slice_t *to)
{
    if (to->p != NULL && to->n > 0)
        return REFUSED_PSEUDO; /* twice; the library refuses it too */
    *to = arena_copy(st->s.arena, from);
    return to->p != NULL ? REFUSED_NOTHING : REFUSED_NO_MEMORY;
}

static enum refusal take_pseudo(struct h2_stream *st, slice_t name, slice_t value)
{
    struct head *h = st->in.head;
    uint64_t status;

    if (slice_is_str(name, ":path"))
        return copy_to(st, value, &h->path);
    if (slice_is_str(name, ":method"))
        return copy_to(st, value, &h->method);
    if (slice_is_str(name, ":authority"))
        return copy_to(st, value, &h->authority);
    if (slice_is_str(name, ":scheme")) {
        h->scheme = arena_copy(st->s.arena, value);
        return h->scheme.p != NULL ? REFUSED_NOTHING : REFUSED_NO_MEMORY;
    }
    if (slice_is_str(name, ":status") && value.n == 3 && slice_to_u64(value, &status) &&
        status >= 100) {
        h->status = (uint16_t)status;
        return REFUSED_NOTHING;
    }
    return REFUSED_PSEUDO;
}

static enum refusal take_meaning(struct h2_stream *st, const struct field *f)
{
    struct head *h = st->in.head;
    slice_t v = f->value;
    uint64_t n;

    switch (f->token) {
    case FIELD_CONTENT_LENGTH:
        if (v.n > 19 || !slice_to_u64(v, &n) || n > INT64_MAX)
            return REFUSED_LENGTH;
        h->content_length = (int64_t)n;
        break;
    case FIELD_HOST:
        if (st->in.host.p != NULL && !slice_is(st->in.host, v))
            return REFUSED_HOST;
        st->in.host = v;
        break;
    case FIELD_TE:
        h->accepts_trailers = slice_is_nocase(v, SLICE_LIT("trailers"));
        break;
    case FIELD_EXPECT:
        if (!slice_is_nocase(v, SLICE_LIT("100-continue")))
            return REFUSED_EXPECT;
        h->expects_continue = true;
        break;
    case FIELD_CONTENT_TYPE:
        h->is_grpc =
            v.n >= 16 && slice_is_nocase(slice(v.p, 16), SLICE_LIT("application/grpc"));
        break;
    case FIELD_IDEMPOTENCY_KEY:
        h->is_idempotent = true;
        break;
    default:
        break;
    }
    return REFUSED_NOTHING;
}

enum refusal h2_take_field(struct h2_stream *st, slice_t name, slice_t value)
{
    const struct http_limits *limits = &st->of->limits;
    struct head *h = st->in.head;
    slice_t both, n, v;

    st->in.bytes += name.n + value.n + FIELD_OVERHEAD;
    if (st->in.bytes > limits->head_max)
        return REFUSED_HEAD_SIZE;
    if (name.n > 0 && name.p[0] == ':')
        return take_pseudo(st, name, value);
    if (h->n_fields >= limits->fields_max)
        return REFUSED_FIELD_COUNT;
    if (http_is_framing_twin(name)) /* harmless here, but the next hop may be HTTP/1 */
        return REFUSED_FIELD;
    both = arena_copy_two(st->s.arena, name, value);
    if (both.p == NULL)
        return REFUSED_NO_MEMORY;
    n = slice(both.p, name.n);
    v = slice(both.p + name.n, value.n);
    if (head_add(h, st->s.arena, n, v) != OK)
        return REFUSED_NO_MEMORY;
    if (n.n == 6 && memcmp(n.p, "cookie", 6) == 0)
        st->in.cookies++;
    return take_meaning(st, &h->fields[h->n_fields - 1]);
}

/* RFC 9113 8.2.3: crumbs become one field again, in one pass. Empty ones add nothing: a value must not end
 * with the blank of a separator. */
static enum refusal join_cookies(struct h2_stream *st)
{
    struct head *h = st->in.head;
    struct field *first = NULL;
    uint8_t *all, *at;
    size_t n = 0;

    if (st->in.cookies < 2)
        return REFUSED_NOTHING;
    for (size_t i = 0; i < h->n_fields; i++)
        if (slice_is_str(h->fields[i].name, "cookie"))
            n += h->fields[i].value.n + 2;
    all = at = arena_alloc(st->s.arena, n);
    if (all == NULL)
        return REFUSED_NO_MEMORY;
    for (size_t i = 0; i < h->n_fields; i++) {
        struct field *f = &h->fields[i];

        if (!slice_is_str(f->name, "cookie"))
            continue;
        if (first != NULL)
            f->is_removed = true;
        else
            first = f;
        if (f->value.n == 0)
            continue;
        if (at != all) {
            *at++ = ';';
            *at++ = ' ';
        }
        memcpy(at, f->value.p, f->value.n);
        at += f->value.n;
    }
    if (first != NULL)
        first->value = slice(all, (size_t)(at - all));
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

static enum refusal finish(struct h2_stream *st)
{
    struct head *h = st->in.head;

    h->version = HTTP_2;
    h->is_keep_alive = true;
    head_strip_hop_by_hop(h); /* http2-settings and what else the library lets pass */
    return join_cookies(st);
}

enum refusal h2_finish_request(struct h2_stream *st)
{
    struct head *h = st->in.head;

    if (!http_is_token(h->method))
        return REFUSED_PSEUDO;
    if (h->method.n > METHOD_MAX)
        return REFUSED_METHOD;
    h->is_connect = slice_is_str(h->method, "CONNECT");
    if (h->is_connect) {
        if (!http_is_authority(h->authority) ||
            memchr(h->authority.p, ':', h->authority.n) == NULL || h->path.n > 0)
            return REFUSED_CONNECT;
        h->content_length = -1;
    } else if (!http_is_path(h->path) ||
               (h->path.p[0] == '*' && !slice_is_str(h->method, "OPTIONS"))) {
        return REFUSED_TARGET;
    }
    if (h->authority.n == 0)
        h->authority = st->in.host;
    else if (st->in.host.n > 0 && !slice_is_nocase(st->in.host, h->authority))
        return REFUSED_HOST; /* H2-25 */
    if (h->authority.n > 0 && !http_is_authority(h->authority))
        return REFUSED_HOST;
    if (h->scheme.n == 0)
        h->scheme = SLICE_LIT("http");
    h->is_idempotent = h->is_idempotent || is_idempotent_method(h->method);
    return finish(st);
}

enum refusal h2_finish_response(struct h2_stream *st)
{
    return st->in.head->status >= 100 ? finish(st) : REFUSED_STATUS_LINE;
}

/* ---- writing ---- */

static void put(struct h2_nv *out, slice_t name, slice_t value)
{
    /* nghttp2 copies both and lowers the case of names; it never writes through these pointers.
     */
    out->nv[out->n++] = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.p,
                                     .value = (uint8_t *)(uintptr_t)value.p,
                                     .namelen = name.n,
                                     .valuelen = value.n};
}

static bool put_fields(const struct head *h, struct h2_nv *out)
{
    for (size_t i = 0; i < h->n_fields; i++) {
        const struct field *f = &h->fields[i];

        if (f->is_removed || (field_flags(f->token) & (FIELD_IS_HOP | FIELD_IS_FRAMING)) != 0)
            continue;
        if (out->n >= H2_NV_MAX || (f->token == FIELD_OTHER && !http_is_token(f->name)) ||
            !http_is_field_value(f->value))
            return false;
        put(out, f->name, f->value);
    }
    return true;
}

bool h2_print_head(const struct head *h, bool is_request, struct h2_nv *out)
{
    out->n = 0;
    if (is_request) {
        put(out, SLICE_LIT(":method"), h->method);
        if (!h->is_connect) {
            put(out, SLICE_LIT(":scheme"), h->scheme);
            put(out, SLICE_LIT(":path"), h->path);
        }
        if (h->authority.n > 0)
            put(out, SLICE_LIT(":authority"), h->authority);
        if (!http_is_token(h->method) || (!h->is_connect && !http_is_path(h->path)) ||
            (h->authority.n > 0 && !http_is_authority(h->authority)))
            return false;
    } else {
        if (h->status < 100 || h->status > 999)
            return false;
        out->status[0] = (char)('0' + h->status / 100);
        out->status[1] = (char)('0' + h->status / 10 % 10);
        out->status[2] = (char)('0' + h->status % 10);
        put(out, SLICE_LIT(":status"), slice(out->status, 3));
    }
    if (h->content_length >= 0 && !h->is_connect)
        put(out, SLICE_LIT("content-length"),
            slice_of_u64((uint64_t)h->content_length, out->length));
    if (is_request && h->accepts_trailers)
        put(out, SLICE_LIT("te"), SLICE_LIT("trailers"));
    return put_fields(h, out);
}
