/* The parsed head: field tokens, the field list, hop-by-hop stripping. */
#include "proxy/http/head.h"

#include <string.h>

#define HEAD_FIRST_FIELDS 16

static const slice_t names[] = {
    [FIELD_OTHER] = {NULL, 0},
#define FIELD(token, name, flags) [FIELD_##token] = {(const uint8_t *)(name), sizeof(name) - 1},
#include "proxy/http/tbl/fields.h"
#undef FIELD
};

static const uint8_t flags_of[] = {
    [FIELD_OTHER] = 0,
#define FIELD(token, name, flags) [FIELD_##token] = (flags),
#include "proxy/http/tbl/fields.h"
#undef FIELD
};

static uint64_t word_at(const uint8_t *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof(w));
    return w;
}

static uint32_t half_at(const uint8_t *p)
{
    uint32_t w;

    memcpy(&w, p, sizeof(w));
    return w;
}

/* Whether a token is that name of ours, whatever its case. Our names are of small letters, digits and "-"; the only
 * bytes of a token that setting 0x20 makes one of these are their capitals. */
static inline bool is_ours(const uint8_t *name, const uint8_t *ours, size_t n)
{
    const uint64_t low = UINT64_C(0x2020202020202020);

    if (n >= 8) {
        for (size_t i = 0; i + 8 < n; i += 8)
            if ((word_at(name + i) | low) != word_at(ours + i))
                return false;
        return (word_at(name + n - 8) | low) == word_at(ours + n - 8);
    }
    if (n >= 4)
        return (half_at(name) | (uint32_t)low) == half_at(ours) &&
               (half_at(name + n - 4) | (uint32_t)low) == half_at(ours + n - 4);
    for (size_t i = 0; i < n; i++)
        if ((name[i] | 0x20) != ours[i])
            return false;
    return true;
}

static enum field_token one_of(slice_t name, const enum field_token *tokens)
{
    for (; *tokens != FIELD_OTHER; tokens++)
        if (is_ours(name.p, names[*tokens].p, name.n))
            return *tokens;
    return FIELD_OTHER;
}

#define CANDIDATES(...)                                                                        \
    do {                                                                                       \
        static const enum field_token candidates[] = {__VA_ARGS__, FIELD_OTHER};               \
        return one_of(name, candidates);                                                       \
    } while (0)

/* Names by length: at most six are compared. A name added to tbl/fields.h must be added here
 * too; the unit test looks up every line of the table. */
enum field_token field_token_of(slice_t name)
{
    switch (name.n) {
    case 2:
        CANDIDATES(FIELD_TE, FIELD_B3);
    case 4:
        CANDIDATES(FIELD_HOST, FIELD_DATE);
    case 6:
        CANDIDATES(FIELD_EXPECT, FIELD_SERVER);
    case 7:
        CANDIDATES(FIELD_TRAILER, FIELD_UPGRADE);
    case 8:
        CANDIDATES(FIELD_LOCATION);
    case 9:
        CANDIDATES(FIELD_FORWARDED, FIELD_WEFT_CODE, FIELD_WEFT_CASE);
    case 10:
        CANDIDATES(FIELD_CONNECTION, FIELD_KEEP_ALIVE);
    case 11:
        CANDIDATES(FIELD_GRPC_STATUS, FIELD_RETRY_AFTER, FIELD_TRACEPARENT);
    case 12:
        CANDIDATES(FIELD_CONTENT_TYPE, FIELD_PROXY_STATUS, FIELD_GRPC_TIMEOUT,
                          FIELD_GRPC_MESSAGE, FIELD_WEFT_ATTEMPT, FIELD_X_B3_TRACEID);
    case 13:
        CANDIDATES(FIELD_AUTHORIZATION, FIELD_L5D_CLIENT_ID, FIELD_WEFT_DEADLINE);
    case 14:
        CANDIDATES(FIELD_CONTENT_LENGTH, FIELD_L5D_ORIG_PROTO, FIELD_WEFT_DELIVERED,
                          FIELD_HTTP2_SETTINGS, FIELD_L5D_REQUIRE_ID);
    case 15:
        CANDIDATES(FIELD_IDEMPOTENCY_KEY, FIELD_L5D_PROXY_ERROR);
    case 16:
        CANDIDATES(FIELD_PROXY_CONNECTION, FIELD_L5D_DST_OVERRIDE);
    case 17:
        CANDIDATES(FIELD_TRANSFER_ENCODING, FIELD_L5D_DST_CANONICAL);
    case 20:
        CANDIDATES(FIELD_L5D_PROXY_CONNECTION);
    default:
        return FIELD_OTHER;
    }
}

unsigned field_flags(enum field_token token)
{
    return flags_of[token];
}

slice_t field_name_of(enum field_token token)
{
    return names[token];
}

void head_init(struct head *h)
{
    *h =
        (struct head){.content_length = -1, .scheme = SLICE_LIT("http"), .is_keep_alive = true};
}

static err_t head_grow(struct head *h, struct arena *a)
{
    size_t cap = h->cap_fields == 0 ? HEAD_FIRST_FIELDS : h->cap_fields * 2;
    struct field *more = arena_alloc(a, cap * sizeof(*more));

    if (more == NULL)
        return ERR_OF(NOMEM);
    if (h->n_fields != 0)
        memcpy(more, h->fields, h->n_fields * sizeof(*more));
    h->fields = more;
    h->cap_fields = cap;
    return OK;
}

err_t head_add(struct head *h, struct arena *a, slice_t name, slice_t value)
{
    if (h->n_fields == h->cap_fields)
        TRY(head_grow(h, a));
    h->fields[h->n_fields++] =
        (struct field){.name = name, .value = value, .token = (uint16_t)field_token_of(name)};
    return OK;
}

struct field *head_find(const struct head *h, enum field_token token)
{
    for (size_t i = 0; i < h->n_fields; i++)
        if (h->fields[i].token == token && !h->fields[i].is_removed)
            return &h->fields[i];
    return NULL;
}

struct field *head_find_name(const struct head *h, slice_t name)
{
    for (size_t i = 0; i < h->n_fields; i++)
        if (!h->fields[i].is_removed && slice_is_nocase(h->fields[i].name, name))
            return &h->fields[i];
    return NULL;
}

void head_remove(struct head *h, enum field_token token)
{
    for (size_t i = 0; i < h->n_fields; i++)
        if (h->fields[i].token == token)
            h->fields[i].is_removed = true;
}

void head_remove_name(struct head *h, slice_t name)
{
    for (size_t i = 0; i < h->n_fields; i++)
        if (slice_is_nocase(h->fields[i].name, name))
            h->fields[i].is_removed = true;
}

err_t head_set(struct head *h, struct arena *a, slice_t name, slice_t value)
{
    struct field *f = head_find_name(h, name);

    if (f == NULL)
        return head_add(h, a, name, value);
    head_remove_name(h, name);
    f->value = value;
    f->is_removed = false;
    return OK;
}

/* Removes what one Connection value names, except what the mesh or the framing depends on
 * (H1-34). */
static void strip_named(struct head *h, slice_t list)
{
    while (list.n > 0) {
        const uint8_t *comma = memchr(list.p, ',', list.n);
        size_t n = comma != NULL ? (size_t)(comma - list.p) : list.n;
        slice_t name = slice(list.p, n);

        list = slice_skip(list, n + 1);
        while (name.n > 0 && (name.p[0] == ' ' || name.p[0] == '\t'))
            name = slice_skip(name, 1);
        while (name.n > 0 && (name.p[name.n - 1] == ' ' || name.p[name.n - 1] == '\t'))
            name.n--;
        if (name.n > 0 && (field_flags(field_token_of(name)) & FIELD_PROTECTED) == 0)
            head_remove_name(h, name);
    }
}

void head_strip_hop_by_hop(struct head *h)
{
    for (size_t i = 0; i < h->n_fields; i++) {
        struct field *f = &h->fields[i];

        if (f->token == FIELD_OTHER || (field_flags(f->token) & FIELD_IS_HOP) == 0)
            continue;
        if (f->token == FIELD_CONNECTION && !f->is_removed)
            strip_named(h, f->value);
        if (f->token == FIELD_TE && slice_is_nocase(f->value, SLICE_LIT("trailers")))
            h->accepts_trailers = true;
        f->is_removed = true;
    }
}

static err_t copy_slice(struct arena *a, slice_t from, slice_t *out)
{
    slice_t s = arena_copy(a, from);

    if (s.p == NULL)
        return ERR_OF(NOMEM);
    *out = s;
    return OK;
}

err_t head_copy(const struct head *from, struct arena *a, struct head *out)
{
    struct head h = *from;

    TRY(copy_slice(a, from->method, &h.method));
    TRY(copy_slice(a, from->scheme, &h.scheme));
    TRY(copy_slice(a, from->authority, &h.authority));
    TRY(copy_slice(a, from->path, &h.path));
    TRY(copy_slice(a, from->reason, &h.reason));
    TRY(copy_slice(a, from->upgrade, &h.upgrade));
    h.cap_fields = from->n_fields;
    h.fields = arena_alloc(a, (from->n_fields + 1) * sizeof(*h.fields));
    if (h.fields == NULL)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < from->n_fields; i++) {
        h.fields[i] = from->fields[i];
        TRY(copy_slice(a, from->fields[i].name, &h.fields[i].name));
        TRY(copy_slice(a, from->fields[i].value, &h.fields[i].value));
    }
    *out = h;
    return OK;
}
