/* The writing half of HTTP/1: see write.h. */
#include "proxy/http1/write.h"

#include "proxy/http/refusal.h"
#include "proxy/net/conn.h"

#include <stdio.h>
#include <string.h>

static bool put(struct buf *out, slice_t s)
{
    return buf_add_slice(out, s) == OK;
}

#define PUT_LIT(out, text) put((out), SLICE_LIT(text))

static bool put_line(struct buf *out, slice_t name, slice_t value)
{
    uint8_t *p = buf_reserve(out, name.n + value.n + 4);
    size_t n = 0;

    if (p == NULL)
        return false;
    memcpy(p, name.p, name.n);
    n += name.n;
    p[n++] = ':';
    p[n++] = ' ';
    if (value.n > 0)
        memcpy(p + n, value.p, value.n);
    n += value.n;
    p[n++] = '\r';
    p[n++] = '\n';
    buf_commit(out, n);
    return true;
}

/* Names with a token were compared with ours letter by letter; others are looked at again. */
static bool is_writable(const struct field *f)
{
    return (f->token != FIELD_OTHER || http_is_token(f->name)) && http_is_field_value(f->value);
}

static bool put_fields(const struct head *h, struct buf *out)
{
    for (size_t i = 0; i < h->n_fields; i++) {
        const struct field *f = &h->fields[i];

        if (f->is_removed || (field_flags(f->token) & (FIELD_IS_HOP | FIELD_IS_FRAMING)) != 0)
            continue;
        if (!is_writable(f) || !put_line(out, f->name, f->value))
            return false;
    }
    return true;
}

/* The name as the peer spelled it, if it did. */
static slice_t spelled(const struct head *h, enum field_token token)
{
    const struct field *f = NULL;

    for (size_t i = 0; i < h->n_fields && f == NULL; i++)
        if (h->fields[i].token == token)
            f = &h->fields[i];
    return f != NULL ? f->name : field_name_of(token);
}

static bool put_connection(const struct write_head *w, bool is_request, struct buf *out)
{
    const struct head *h = w->head;
    bool has_upgrade = h->upgrade.n > 0 && (is_request || w->is_tunnel);
    bool has_te = is_request && h->accepts_trailers && w->version == HTTP_1_1;
    const char *sep = ": ";

    if (has_te && !PUT_LIT(out, "te: trailers\r\n"))
        return false;
    if (has_upgrade && (!http_is_field_value(h->upgrade) ||
                        !put_line(out, spelled(h, FIELD_UPGRADE), h->upgrade)))
        return false;
    if (!w->says_close && !w->says_keep_alive && !has_upgrade && !has_te)
        return true;
    if (!put(out, spelled(h, FIELD_CONNECTION)))
        return false;
    if (w->says_close || w->says_keep_alive) {
        if (!put(out, w->says_close ? SLICE_LIT(": close") : SLICE_LIT(": keep-alive")))
            return false;
        sep = ", ";
    }
    if (has_upgrade) {
        if (!put(out, slice_str(sep)) || !PUT_LIT(out, "Upgrade"))
            return false;
        sep = ", ";
    }
    if (has_te && (!put(out, slice_str(sep)) || !PUT_LIT(out, "te")))
        return false;
    return PUT_LIT(out, "\r\n");
}

static bool put_framing(const struct write_head *w, struct buf *out)
{
    char digits[SLICE_U64_MAX];

    switch (w->framing) {
    case WRITE_NONE:
    case WRITE_UNTIL_CLOSE:
        return true;
    case WRITE_LENGTH:
        BUG_ON(w->head->content_length < 0);
        return put_line(out, spelled(w->head, FIELD_CONTENT_LENGTH),
                        slice_of_u64((uint64_t)w->head->content_length, digits));
    case WRITE_CHUNKED:
        return put_line(out, spelled(w->head, FIELD_TRANSFER_ENCODING), SLICE_LIT("chunked"));
    }
    return false;
}

static bool put_request(const struct write_head *w, struct buf *out)
{
    const struct head *h = w->head;
    bool has_host = h->authority.n > 0 || w->version == HTTP_1_1;

    if (!http_is_token(h->method) || (h->authority.n > 0 && !http_is_authority(h->authority)) ||
        (!h->is_connect && !http_is_path(h->path)) || (h->is_connect && h->authority.n == 0))
        return false;
    if (!put(out, h->method) || !PUT_LIT(out, " "))
        return false;
    if (h->is_connect || (h->is_absolute_form && h->authority.n > 0)) {
        bool is_star = h->path.n == 1 && h->path.p[0] == '*';

        if (!h->is_connect &&
            (!http_is_token(h->scheme) || !put(out, h->scheme) || !PUT_LIT(out, "://")))
            return false;
        if (!put(out, h->authority) || (!h->is_connect && !is_star && !put(out, h->path)))
            return false;
    } else if (!put(out, h->path)) {
        return false;
    }
    if (!put(out,
             w->version == HTTP_1_1 ? SLICE_LIT(" HTTP/1.1\r\n") : SLICE_LIT(" HTTP/1.0\r\n")))
        return false;
    if (has_host && !put_line(out, spelled(h, FIELD_HOST), h->authority))
        return false;
    return put_fields(h, out) && put_framing(w, out) && put_connection(w, true, out) &&
           PUT_LIT(out, "\r\n");
}

static bool put_response(const struct write_head *w, struct buf *out)
{
    const struct head *h = w->head;
    slice_t reason = h->reason.n > 0 ? h->reason : http_reason(h->status);
    char line[] = "HTTP/1.1 000 ";

    if (h->status < 100 || h->status > 999 || !http_is_field_value(reason))
        return false;
    line[7] = w->version == HTTP_1_0 ? '0' : '1';
    line[9] = (char)('0' + h->status / 100);
    line[10] = (char)('0' + h->status / 10 % 10);
    line[11] = (char)('0' + h->status % 10);
    return put(out, slice(line, sizeof(line) - 1)) && put(out, reason) && PUT_LIT(out, "\r\n") &&
           put_fields(h, out) && put_framing(w, out) && put_connection(w, false, out) &&
           PUT_LIT(out, "\r\n");
}

/* A head is written whole or not at all. */
static bool whole(bool is_ok, struct buf *out, size_t had)
{
    if (!is_ok)
        out->tail = out->head + had;
    return is_ok;
}

bool h1_print_request(const struct write_head *w, struct buf *out)
{
    size_t had = buf_len(out);

    return whole(put_request(w, out), out, had);
}

bool h1_print_response(const struct write_head *w, struct buf *out)
{
    size_t had = buf_len(out);

    return whole(put_response(w, out), out, had);
}

size_t h1_write_chunk(struct conn *c, slice_t bytes)
{
    char size[24];
    int n = snprintf(size, sizeof(size), "%zx\r\n", bytes.n);

    conn_write(c, slice(size, (size_t)n));
    conn_write(c, bytes);
    conn_write(c, SLICE_LIT("\r\n"));
    return (size_t)n + 2;
}

size_t h1_write_last_chunk(struct conn *c, const struct field *fields, size_t n)
{
    size_t written = 5;

    conn_write(c, SLICE_LIT("0\r\n"));
    for (size_t i = 0; i < n; i++) {
        const struct field *f = &fields[i];

        if (f->is_removed ||
            (field_flags(f->token) & (FIELD_NOT_TRAILER | FIELD_IS_HOP)) != 0 ||
            !is_writable(f))
            continue;
        conn_write(c, f->name);
        conn_write(c, SLICE_LIT(": "));
        conn_write(c, f->value);
        conn_write(c, SLICE_LIT("\r\n"));
        written += f->name.n + f->value.n + 4;
    }
    conn_write(c, SLICE_LIT("\r\n"));
    return written;
}
