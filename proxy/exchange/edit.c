/* Changes of heads: what belongs to the mesh, and what routes ask for. */
#include "proxy/exchange/exchange_priv.h"

#include "proxy/http/spelling.h"
#include "proxy/http/stream.h"

#include <ctype.h>
#include <stdio.h>

/* l5d-*, weft-*, and the spellings that an application server may take for them: CGI knows only letters,
 * digits and "_", so that every other sign may stand for "-". */
static bool is_mesh_name(slice_t name)
{
    slice_t rest;

    if (name.n > 4 && strncasecmp((const char *)name.p, "l5d", 3) == 0)
        rest = slice_skip(name, 3);
    else if (name.n > 5 && strncasecmp((const char *)name.p, "weft", 4) == 0)
        rest = slice_skip(name, 4);
    else
        return false;
    return !isalnum(rest.p[0]);
}

void edit_strip_mesh(struct head *h)
{
    for (size_t i = 0; i < h->n_fields; i++) {
        struct field *f = &h->fields[i];

        if ((f->name.p[0] | 0x20) != 'l' && (f->name.p[0] | 0x20) != 'w')
            continue;
        if (is_mesh_name(f->name))
            f->is_removed = true;
    }
}

slice_t edit_path_only(slice_t path)
{
    const uint8_t *q = path.n > 0 ? memchr(path.p, '?', path.n) : NULL;

    return q == NULL ? path : slice(path.p, (size_t)(q - path.p));
}

err_t edit_apply(const struct wire_filter *f, struct head *h, struct arena *a)
{
    for (size_t i = 0; i < f->n_edits; i++) {
        const struct wire_field_edit *e = &f->edits[i];

        switch (e->verb) {
        case ROUTE_EDIT_ADD:
            TRY(head_add(h, a, e->name, e->value));
            break;
        case ROUTE_EDIT_SET:
            /* Host is not a field like others: it is what the request is for. */
            if (slice_is_nocase(e->name, SLICE_LIT("host")))
                h->authority = e->value;
            else
                TRY(head_set(h, a, e->name, e->value));
            break;
        case ROUTE_EDIT_REMOVE:
            head_remove_name(h, e->name);
            break;
        default: /* refused with the view */
            break;
        }
    }
    return OK;
}

/* ---- l5d-orig-proto ----
 *
 * HTTP/1 inside of HTTP/2 says what it was: VERSION [ "; absolute-form" ] [ "; case=" looks of the names ]. The last
 * part (proxy/http/spelling.h) is Weft's; a peer that knows only the first two reads them where they always stood.
 * An answer carries it only if its request did. */

#define ORIG_PROTO_MAX (sizeof("HTTP/1.1; absolute-form; case=") - 1 + SPELLING_MAX)

static err_t write_orig_proto(enum http_version version, bool is_absolute, bool tells_case, struct head *h,
                              struct arena *a)
{
    char text[ORIG_PROTO_MAX];
    size_t n = 8, more;
    slice_t value;

    memcpy(text, version == HTTP_1_0 ? "HTTP/1.0" : "HTTP/1.1", 8);
    if (is_absolute) {
        memcpy(text + n, "; absolute-form", 15);
        n += 15;
    }
    more = tells_case ? spelling_print(h->fields, h->n_fields, text + n + 7) : 0;
    if (more > 0) {
        memcpy(text + n, "; case=", 7);
        n += 7 + more;
    }
    value = arena_copy(a, slice(text, n));
    return value.p != NULL ? head_add(h, a, field_name_of(FIELD_L5D_ORIG_PROTO), value) : ERR_OF(NOMEM);
}

err_t edit_write_orig_proto(struct exchange *x, struct head *h, struct arena *a)
{
    return write_orig_proto(x->req->version, x->req->is_absolute_form, true, h, a);
}

/* Takes what a peer of the mesh says from the head. False: nothing, or nothing that is understood. */
static bool read_orig_proto(struct exchange *x, struct head *h, struct arena *a, enum http_version *version,
                            bool *is_absolute, bool *has_case)
{
    const slice_t absolute = SLICE_LIT("; absolute-form"), looks = SLICE_LIT("; case=");
    struct field *f = head_find(h, FIELD_L5D_ORIG_PROTO);
    slice_t v;

    if (f == NULL)
        return false;
    v = f->value;
    f->is_removed = true;
    if (slice_starts(v, SLICE_LIT("HTTP/1.1")))
        *version = HTTP_1_1;
    else if (slice_starts(v, SLICE_LIT("HTTP/1.0")))
        *version = HTTP_1_0;
    else
        return false;
    v = slice_skip(v, 8);
    *is_absolute = slice_starts(v, absolute);
    if (*is_absolute)
        v = slice_skip(v, absolute.n);
    *has_case = slice_starts(v, looks);
    if (*has_case && !spelling_apply(h, a, slice_skip(v, looks.n)))
        tally_bad_input(x->worker->tallies, "case");
    return true;
}

bool edit_read_orig_proto(struct exchange *x, struct head *h)
{
    if (x->fs->version != HTTP_2 ||
        !read_orig_proto(x, h, x->fs->arena, &x->orig_version, &h->is_absolute_form, &x->has_orig_case))
        return false;
    h->version = x->orig_version;
    /* Between the application and its own proxy. In HTTP/1.0 a connection that is not asked to be kept ends with the
     * answer, and some servers need that to tell where it ends. */
    h->is_keep_alive = x->orig_version != HTTP_1_0;
    return true;
}

/* ---- trailers ---- */

/* The names of the sections that go to a peer of the mesh in HTTP/2 and are not all in lower case are told in a field
 * of their own, which is the last. */
err_t edit_send_trailers_case(struct arena *a, struct field **fields, size_t *n)
{
    char text[SPELLING_MAX];
    size_t len = spelling_print(*fields, *n, text);
    struct field *more;
    slice_t value;

    if (len == 0 || (len == 1 && text[0] == 'L'))
        return OK;
    more = arena_alloc(a, (*n + 1) * sizeof(*more));
    value = arena_copy(a, slice(text, len));
    if (more == NULL || value.p == NULL)
        return ERR_OF(NOMEM);
    memcpy(more, *fields, *n * sizeof(*more));
    more[*n] = (struct field){
        .name = field_name_of(FIELD_WEFT_CASE), .value = value, .token = FIELD_WEFT_CASE};
    *fields = more;
    ++*n;
    return OK;
}

void edit_read_trailers_case(struct exchange *x, struct arena *a, struct field **fields, size_t *n)
{
    struct head h = {.fields = *fields, .n_fields = *n, .content_length = -1};
    struct field *f = head_find(&h, FIELD_WEFT_CASE);

    if (f == NULL)
        return;
    if (!spelling_apply(&h, a, f->value))
        tally_bad_input(x->worker->tallies, "case");
    *fields = h.fields;
    *n = h.n_fields;
}

/* ---- responses ---- */

/* Fields of a mesh peer's own answer that the application is meant to see. */
static bool explains(const struct field *f)
{
    return f->token == FIELD_L5D_PROXY_ERROR || f->token == FIELD_WEFT_CODE;
}

static void strip_response(struct head *h, bool is_from_mesh)
{
    for (size_t i = 0; i < h->n_fields; i++) {
        struct field *f = &h->fields[i];

        if ((f->name.p[0] | 0x20) != 'l' && (f->name.p[0] | 0x20) != 'w')
            continue;
        if (is_mesh_name(f->name) && !(is_from_mesh && explains(f)))
            f->is_removed = true;
    }
}

static err_t apply_response_filters(const struct wire_filter *f, size_t n, struct head *h,
                                    struct arena *a)
{
    for (size_t i = 0; i < n; i++)
        if (f[i].kind == ROUTE_FILTER_RESPONSE_HEADERS)
            TRY(edit_apply(&f[i], h, a));
    return OK;
}

/* The version of the application behind the peer is not looked at: HTTP/1 answers are written in the version of
 * their request. */
static void read_answer_proto(struct exchange *x, struct head *h)
{
    enum http_version version;
    bool is_absolute, has_case;

    (void)read_orig_proto(x, h, &x->arena, &version, &is_absolute, &has_case);
}

err_t edit_response(struct exchange *x, struct head *h)
{
    if (h->version == HTTP_2 && x->fs->version != HTTP_2 && endpoint_is_meshed(x->endpoint))
        read_answer_proto(x, h);
    strip_response(h, endpoint_is_meshed(x->endpoint));
    if (x->has_orig_proto)
        TRY(write_orig_proto(h->version, false, x->has_orig_case, h, &x->arena));
    if (x->rule != NULL && x->rule->n_filters > 0)
        TRY(apply_response_filters(x->rule->filters, x->rule->n_filters, h, &x->arena));
    if (x->share != NULL && x->share->n_filters > 0)
        TRY(apply_response_filters(x->share->filters, x->share->n_filters, h, &x->arena));
    return OK;
}
