/* Changes of heads: what belongs to the mesh, and what routes ask for. */
#include "proxy/exchange/exchange_priv.h"

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

/* ---- l5d-orig-proto ---- */

err_t edit_write_orig_proto(struct exchange *x, struct head *h, struct arena *a)
{
    bool is_old = x->req->version == HTTP_1_0;
    slice_t value;

    if (x->req->is_absolute_form)
        value = is_old ? SLICE_LIT("HTTP/1.0; absolute-form")
                       : SLICE_LIT("HTTP/1.1; absolute-form");
    else
        value = is_old ? SLICE_LIT("HTTP/1.0") : SLICE_LIT("HTTP/1.1");
    return head_add(h, a, SLICE_LIT("l5d-orig-proto"), value);
}

bool edit_read_orig_proto(struct exchange *x, struct head *h)
{
    struct field *f = head_find(h, FIELD_L5D_ORIG_PROTO);
    slice_t value, version;

    if (f == NULL || x->fs->version != HTTP_2)
        return false;
    value = f->value;
    version = slice(value.p, value.n < 8 ? value.n : 8);
    if (slice_is_str(version, "HTTP/1.0"))
        x->orig_version = HTTP_1_0;
    else if (slice_is_str(version, "HTTP/1.1"))
        x->orig_version = HTTP_1_1;
    else
        return false;
    h->version = x->orig_version;
    h->is_keep_alive = true; /* between the application and its own proxy */
    h->is_absolute_form = slice_ends(value, SLICE_LIT("; absolute-form"));
    return true;
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

err_t edit_response(struct exchange *x, struct head *h)
{
    strip_response(h, endpoint_is_meshed(x->endpoint));
    if (x->has_orig_proto)
        TRY(head_add(h, &x->arena, SLICE_LIT("l5d-orig-proto"),
                     h->version == HTTP_1_0 ? SLICE_LIT("HTTP/1.0") : SLICE_LIT("HTTP/1.1")));
    if (x->rule != NULL && x->rule->n_filters > 0)
        TRY(apply_response_filters(x->rule->filters, x->rule->n_filters, h, &x->arena));
    if (x->share != NULL && x->share->n_filters > 0)
        TRY(apply_response_filters(x->share->filters, x->share->n_filters, h, &x->arena));
    return OK;
}
