/* The writing half of HTTP/1: see write.h.
 *
 * Room for a whole head is taken first; then every piece is copied once to where it stays. Fields that the codec
 * makes itself (Host, framing, Connection) stand where the peer had them, so that the order of a head survives. */
#include "proxy/http1/write.h"

#include "proxy/http/refusal.h"
#include "proxy/http/spelling.h"
#include "proxy/http/words.h"
#include "proxy/net/conn.h"

#include <string.h>

#define OWN_FIELDS_MAX 320 /* start line, framing, Connection: all that is not copied from the head */

/* The fields that are made here; each is written once. */
enum own {
    OWN_HOST = 1 << 0,
    OWN_FRAMING = 1 << 1,
    OWN_CONNECTION = 1 << 2,
    OWN_UPGRADE = 1 << 3,
    OWN_TE = 1 << 4
};

struct printer {
    const struct write_head *w;
    const struct head *head;
    unsigned due; /* enum own: not written yet */
    bool lists_upgrade, lists_te; /* in Connection */
    bool is_bad;
    uint8_t *at;
};

static void put(struct printer *p, slice_t s)
{
    if (s.n > 0)
        memcpy(p->at, s.p, s.n);
    p->at += s.n;
}

#define PUT_LIT(p, text) put((p), SLICE_LIT(text))

static void put_name(struct printer *p, slice_t name, enum field_spelling how)
{
    p->at = spelling_copy(p->at, name, how);
    *p->at++ = ':';
    *p->at++ = ' ';
}

/* Copies a value and looks at it on the way. False: it may not stand in a line. */
static bool put_value(struct printer *p, slice_t value)
{
    uint64_t guilty, w;
    size_t n = value.n;

    if (LIKELY(n >= 8)) {
        w = word_load(value.p + n - 8, 8); /* the rest, with bytes before it once more */
        word_store(p->at + n - 8, w);
        guilty = word_controls(w);
        for (size_t i = 0; i + 8 < n; i += 8) {
            w = word_load(value.p + i, 8);
            word_store(p->at + i, w);
            guilty |= word_controls(w);
        }
    } else {
        w = word_load(value.p, n);
        word_store(p->at, w);
        guilty = word_controls(w | WORD_EVERY(0x20) << (8 * n));
    }
    p->at += n;
    if (LIKELY(guilty == 0) && (n == 0 || (value.p[0] != ' ' && value.p[n - 1] != ' ')))
        return true;
    return http_is_field_value(value); /* a tab within is fine */
}

/* False: nothing that may be written; what stands at p->at then is not to be used. Names with a token were compared
 * with ours letter by letter; others are looked at again. */
static bool put_line(struct printer *p, const struct field *f)
{
    if (f->token == FIELD_OTHER && f->look == 0 && !http_is_token(f->name))
        return false;
    put_name(p, f->name, f->spelling);
    if (!put_value(p, f->value))
        return false;
    *p->at++ = '\r';
    *p->at++ = '\n';
    return true;
}

/* ---- fields made here ---- */

/* A name of ours: as the peer spelled it, if it did (`like`), else as its other names look. */
static void put_own_name(struct printer *p, const struct field *like, enum field_token token)
{
    if (like != NULL)
        put_name(p, like->name, like->spelling);
    else
        put_name(p, field_name_of(token),
                 p->head->is_canonical ? SPELLED_CANONICAL : SPELLED_AS_IS);
}

static void put_host(struct printer *p, const struct field *like)
{
    p->due &= ~(unsigned)OWN_HOST;
    put_own_name(p, like, FIELD_HOST);
    put(p, p->head->authority);
    PUT_LIT(p, "\r\n");
}

static void put_framing(struct printer *p, const struct field *like)
{
    char digits[SLICE_U64_MAX];
    bool is_length = p->w->framing == WRITE_LENGTH;
    enum field_token token = is_length ? FIELD_CONTENT_LENGTH : FIELD_TRANSFER_ENCODING;

    p->due &= ~(unsigned)OWN_FRAMING;
    put_own_name(p, like != NULL && like->token == token ? like : NULL, token);
    put(p, is_length ? slice_of_u64((uint64_t)p->head->content_length, digits)
                     : SLICE_LIT("chunked"));
    PUT_LIT(p, "\r\n");
}

static void put_connection(struct printer *p, const struct field *like)
{
    const struct write_head *w = p->w;
    const char *sep = "";

    p->due &= ~(unsigned)OWN_CONNECTION;
    put_own_name(p, like, FIELD_CONNECTION);
    if (w->says_close || w->says_keep_alive) {
        put(p, w->says_close ? SLICE_LIT("close") : SLICE_LIT("keep-alive"));
        sep = ", ";
    }
    if (p->lists_upgrade) {
        put(p, slice_str(sep));
        PUT_LIT(p, "Upgrade");
        sep = ", ";
    }
    if (p->lists_te) {
        put(p, slice_str(sep));
        PUT_LIT(p, "te");
    }
    PUT_LIT(p, "\r\n");
}

static void put_upgrade(struct printer *p, const struct field *like)
{
    p->due &= ~(unsigned)OWN_UPGRADE;
    put_own_name(p, like, FIELD_UPGRADE);
    put(p, p->head->upgrade);
    PUT_LIT(p, "\r\n");
}

static void put_te(struct printer *p, const struct field *like)
{
    p->due &= ~(unsigned)OWN_TE;
    put_own_name(p, like, FIELD_TE);
    PUT_LIT(p, "trailers\r\n");
}

/* A field of the head that is not copied: what stands in its place? */
static void put_in_place_of(struct printer *p, const struct field *f)
{
    switch (f->token) {
    case FIELD_HOST:
        if (!f->is_removed && (p->due & OWN_HOST) != 0)
            put_host(p, f);
        break;
    case FIELD_CONTENT_LENGTH:
    case FIELD_TRANSFER_ENCODING:
        if ((p->due & OWN_FRAMING) != 0 && (f->token == FIELD_TRANSFER_ENCODING || !f->is_removed))
            put_framing(p, f);
        break;
    case FIELD_CONNECTION:
        if ((p->due & OWN_CONNECTION) != 0)
            put_connection(p, f);
        break;
    case FIELD_UPGRADE:
        if ((p->due & OWN_UPGRADE) != 0)
            put_upgrade(p, f);
        break;
    case FIELD_TE:
        if ((p->due & OWN_TE) != 0)
            put_te(p, f);
        break;
    default:
        break;
    }
}

static void put_fields(struct printer *p)
{
    const struct head *h = p->head;

    for (size_t i = 0; i < h->n_fields; i++) {
        const struct field *f = &h->fields[i];

        if (f->token != FIELD_OTHER && (field_flags(f->token) & (FIELD_IS_HOP | FIELD_IS_FRAMING)) != 0) {
            put_in_place_of(p, f);
            continue;
        }
        if (f->is_removed)
            continue;
        if (!put_line(p, f)) {
            p->is_bad = true;
            return;
        }
    }
    if ((p->due & OWN_FRAMING) != 0)
        put_framing(p, NULL);
    if ((p->due & OWN_TE) != 0)
        put_te(p, NULL);
    if ((p->due & OWN_UPGRADE) != 0)
        put_upgrade(p, NULL);
    if ((p->due & OWN_CONNECTION) != 0)
        put_connection(p, NULL);
    PUT_LIT(p, "\r\n");
}

/* ---- start lines ---- */

static bool has_field_host(const struct head *h)
{
    for (size_t i = 0; i < h->n_fields; i++)
        if (h->fields[i].token == FIELD_HOST && !h->fields[i].is_removed)
            return true;
    return false;
}

static bool is_request_writable(const struct head *h)
{
    return http_is_token(h->method) && (h->authority.n == 0 || http_is_authority(h->authority)) &&
           (h->is_connect ? h->authority.n > 0 : http_is_path(h->path)) &&
           (h->is_connect || !h->is_absolute_form || http_is_token(h->scheme));
}

static void put_request(struct printer *p)
{
    const struct head *h = p->head;

    if (!is_request_writable(h)) {
        p->is_bad = true;
        return;
    }
    put(p, h->method);
    *p->at++ = ' ';
    if (h->is_connect) {
        put(p, h->authority);
    } else if (h->is_absolute_form && h->authority.n > 0) {
        bool is_star = h->path.n == 1 && h->path.p[0] == '*';

        put(p, h->scheme);
        PUT_LIT(p, "://");
        put(p, h->authority);
        put(p, is_star ? SLICE_LIT("") : h->path);
    } else {
        put(p, h->path);
    }
    put(p, p->w->version == HTTP_1_1 ? SLICE_LIT(" HTTP/1.1\r\n") : SLICE_LIT(" HTTP/1.0\r\n"));
    if ((p->due & OWN_HOST) != 0 && !has_field_host(h))
        put_host(p, NULL);
    put_fields(p);
}

static void put_response(struct printer *p)
{
    const struct head *h = p->head;
    slice_t reason = h->reason.n > 0 ? h->reason : http_reason(h->status);

    if (h->status < 100 || h->status > 999 || !http_is_field_value(reason)) {
        p->is_bad = true;
        return;
    }
    put(p, p->w->version == HTTP_1_0 ? SLICE_LIT("HTTP/1.0 ") : SLICE_LIT("HTTP/1.1 "));
    *p->at++ = (uint8_t)('0' + h->status / 100);
    *p->at++ = (uint8_t)('0' + h->status / 10 % 10);
    *p->at++ = (uint8_t)('0' + h->status % 10);
    *p->at++ = ' ';
    put(p, reason);
    PUT_LIT(p, "\r\n");
    put_fields(p);
}

/* ---- whole heads ---- */

static size_t room_for(const struct head *h)
{
    size_t n = OWN_FIELDS_MAX + h->method.n + h->scheme.n + 2 * h->authority.n + h->path.n + h->reason.n +
               h->upgrade.n;

    for (size_t i = 0; i < h->n_fields; i++)
        n += h->fields[i].name.n + h->fields[i].value.n + 4;
    return n;
}

/* A head is written whole or not at all. */
static bool print(const struct write_head *w, bool is_request, struct buf *out)
{
    const struct head *h = w->head;
    struct printer p = {.w = w,
                        .head = h,
                        .lists_upgrade = h->upgrade.n > 0 && (is_request || w->is_tunnel),
                        .lists_te =
                            is_request && h->accepts_trailers && w->version == HTTP_1_1};

    if (p.lists_upgrade && !http_is_field_value(h->upgrade))
        return false;
    BUG_ON(w->framing == WRITE_LENGTH && h->content_length < 0);
    if (is_request && (h->authority.n > 0 || w->version == HTTP_1_1))
        p.due |= OWN_HOST;
    if (w->framing == WRITE_LENGTH || w->framing == WRITE_CHUNKED)
        p.due |= OWN_FRAMING;
    if (p.lists_upgrade)
        p.due |= OWN_UPGRADE;
    if (p.lists_te)
        p.due |= OWN_TE;
    if (w->says_close || w->says_keep_alive || p.lists_upgrade || p.lists_te)
        p.due |= OWN_CONNECTION;
    p.at = buf_reserve(out, room_for(h));
    if (p.at == NULL)
        return false;
    if (is_request)
        put_request(&p);
    else
        put_response(&p);
    if (p.is_bad)
        return false;
    buf_commit(out, (size_t)(p.at - (out->mem + out->tail)));
    return true;
}

bool h1_print_request(const struct write_head *w, struct buf *out)
{
    return print(w, true, out);
}

bool h1_print_response(const struct write_head *w, struct buf *out)
{
    return print(w, false, out);
}

/* ---- chunks ---- */

size_t h1_write_chunk(struct conn *c, slice_t bytes)
{
    char line[18];
    size_t at = sizeof(line);
    uint64_t left = bytes.n;

    line[--at] = '\n';
    line[--at] = '\r';
    do
        line[--at] = "0123456789abcdef"[left & 15];
    while ((left >>= 4) != 0);
    conn_write(c, slice(line + at, sizeof(line) - at));
    conn_write(c, bytes);
    conn_write(c, SLICE_LIT("\r\n"));
    return sizeof(line) - at + 2;
}

static bool is_trailer(const struct field *f)
{
    return !f->is_removed && (field_flags(f->token) & (FIELD_NOT_TRAILER | FIELD_IS_HOP)) == 0;
}

size_t h1_write_last_chunk(struct conn *c, struct buf *scratch, const struct field *fields, size_t n)
{
    size_t room = SPELLING_SLACK, written = 5;
    uint8_t *from;
    struct printer p = {0};

    if (n == 0) {
        conn_write(c, SLICE_LIT("0\r\n\r\n"));
        return written;
    }
    for (size_t i = 0; i < n; i++)
        room += fields[i].name.n + fields[i].value.n + 4;
    conn_write(c, SLICE_LIT("0\r\n"));
    from = p.at = buf_reserve(scratch, room);
    if (from != NULL) { /* without memory the trailers are left out: they may always be */
        for (size_t i = 0; i < n; i++) {
            uint8_t *had = p.at;

            if (is_trailer(&fields[i]) && !put_line(&p, &fields[i]))
                p.at = had;
        }
        conn_write(c, slice(from, (size_t)(p.at - from)));
        written += (size_t)(p.at - from);
    }
    conn_write(c, SLICE_LIT("\r\n"));
    return written;
}
