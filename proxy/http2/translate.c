/* Heads between struct head and field blocks: the rules of RFC 9113 8.2 and 8.3, and what is
 * stricter here (hardening.md appendix B): Host against :authority, '#' and bytes above 0x7f in
 * the path, userinfo, sizes and counts, cookie crumbs.
 *
 * Whether name and value are legal and what the name means is found out once and noted with the
 * entry of the decoder's table: a field that is sent by its index costs a look at the note and
 * a copy. */
#include "proxy/http2/session.h"

#include "kit/attr.h"

#include <string.h>

#define METHOD_MAX 32
#define ROOM_FIRST 512 /* of a head's strings, taken from the arena at once */
#define FIELDS_MAX 256 /* of a head that is written */
#define LIT(text)                                                                              \
    {                                                                                          \
        (const uint8_t *)("" text), sizeof(text) - 1                                           \
    }

enum note {
    NOTE_KNOWN = 0x8000,  /* looked at */
    NOTE_BAD = 0x4000,    /* the name or the value is not allowed */
    NOTE_PSEUDO = 0x2000, /* the low bits are enum h2_pseudo, else enum field_token */
    NOTE_COOKIE = 0x1000,
    NOTE_WHAT = 0x00ff
};

/* ---- reading: one field ---- */

static unsigned note_pseudo(slice_t name)
{
    static const struct {
        slice_t name;
        enum h2_pseudo what;
    } known[] = {{LIT(":path"), H2_PATH},
                 {LIT(":method"), H2_METHOD},
                 {LIT(":scheme"), H2_SCHEME},
                 {LIT(":authority"), H2_AUTHORITY},
                 {LIT(":status"), H2_STATUS}};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (slice_is(name, known[i].name))
            return NOTE_PSEUDO | known[i].what;
    return NOTE_PSEUDO | H2_UNKNOWN_PSEUDO;
}

static bool has_capital(slice_t name)
{
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] >= 'A' && name.p[i] <= 'Z')
            return true;
    return false;
}

static unsigned note_name(slice_t name)
{
    enum field_token token;

    if (name.n > 0 && name.p[0] == ':')
        return note_pseudo(name);
    /* A twin is harmless here, but the next hop may be HTTP/1. */
    if (!http_is_token(name) || has_capital(name) || http_is_framing_twin(name))
        return NOTE_BAD;
    token = field_token_of(name);
    switch (token) {
    case FIELD_CONNECTION: /* RFC 9113 8.2.2 */
    case FIELD_KEEP_ALIVE:
    case FIELD_PROXY_CONNECTION:
    case FIELD_TRANSFER_ENCODING:
    case FIELD_UPGRADE:
        return NOTE_BAD;
    default:
        return token | (slice_is(name, SLICE_LIT("cookie")) ? NOTE_COOKIE : 0u);
    }
}

static unsigned note_of(const struct hpack_field *f)
{
    unsigned note = f->note != NULL ? *f->note : 0;

    if (LIKELY((note & NOTE_KNOWN) != 0))
        return note;
    if ((f->name_note & NOTE_KNOWN) != 0 && (f->name_note & NOTE_BAD) == 0)
        note = f->name_note;
    else
        note = note_name(f->name);
    if (!http_is_field_value(f->value))
        note |= NOTE_BAD;
    note |= NOTE_KNOWN;
    if (f->note != NULL)
        *f->note = (uint16_t)note;
    return note;
}

/* A copy of s (with a NUL behind it) that lives as long as the stream. */
static slice_t keep(struct h2_stream *st, slice_t s)
{
    uint8_t *to = st->in.room;

    if (s.n >= st->in.room_n) {
        size_t n = s.n < ROOM_FIRST ? ROOM_FIRST : s.n + 1;

        to = arena_alloc(st->s.arena, n);
        if (to == NULL)
            return slice(NULL, 0);
        st->in.room_n = n;
    }
    if (s.n > 0)
        memcpy(to, s.p, s.n);
    to[s.n] = '\0';
    st->in.room = to + s.n + 1;
    st->in.room_n -= s.n + 1;
    return slice(to, s.n);
}

static enum refusal take_status(struct head *h, slice_t v)
{
    if (v.n != 3 || v.p[0] < '1' || v.p[0] > '9' || v.p[1] < '0' || v.p[1] > '9' ||
        v.p[2] < '0' || v.p[2] > '9')
        return REFUSED_STATUS_LINE;
    h->status = (uint16_t)((v.p[0] - '0') * 100 + (v.p[1] - '0') * 10 + (v.p[2] - '0'));
    return REFUSED_NOTHING;
}

static enum refusal take_pseudo(struct h2_stream *st, enum h2_pseudo what,
                                const struct hpack_field *f)
{
    size_t line_max = st->of->limits.line_max;
    struct head *h = st->in.head;
    slice_t *to = NULL;

    /* RFC 9113 8.3: each once, before the others, those of a request in requests; none in
     * trailers. */
    if (st->in.has_head || st->in.has_regular || (st->in.pseudo & what) != 0 ||
        what == H2_UNKNOWN_PSEUDO || (what == H2_STATUS) == st->s.is_front)
        return REFUSED_PSEUDO;
    st->in.pseudo |= what;
    switch (what) {
    case H2_METHOD:
        to = &h->method;
        break;
    case H2_SCHEME:
        to = &h->scheme;
        break;
    case H2_PATH:
        if (f->value.n > (line_max != 0 ? line_max : HTTP_LINE_MAX))
            return REFUSED_LINE_SIZE;
        to = &h->path;
        break;
    case H2_AUTHORITY:
        to = &h->authority;
        break;
    case H2_STATUS:
        return take_status(h, f->value);
    case H2_UNKNOWN_PSEUDO:
    default:
        return REFUSED_PSEUDO;
    }
    *to = f->is_static ? f->value : keep(st, f->value);
    return to->p != NULL ? REFUSED_NOTHING : REFUSED_NO_MEMORY;
}

static enum refusal take_meaning(struct h2_stream *st, enum field_token token, slice_t v)
{
    struct head *h = st->in.head;
    uint64_t n;

    switch (token) {
    case FIELD_CONTENT_LENGTH:
        if (v.n > 19 || !slice_to_u64(v, &n) || n > INT64_MAX || h->content_length >= 0)
            return REFUSED_LENGTH;
        h->content_length = (int64_t)n;
        break;
    case FIELD_HOST:
        if (st->in.host.p != NULL)
            return REFUSED_PSEUDO;
        st->in.host = v;
        break;
    case FIELD_TE: /* RFC 9113 8.2.2 */
        if (!slice_is_nocase(v, SLICE_LIT("trailers")))
            return REFUSED_FIELD;
        h->accepts_trailers = true;
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

static err_t add_field(struct head *h, struct arena *a, slice_t name, slice_t value,
                       enum field_token token)
{
    if (h->n_fields == h->cap_fields)
        return head_add(h, a, name, value);
    h->fields[h->n_fields++] =
        (struct field){.name = name, .value = value, .token = (uint16_t)token};
    return OK;
}

enum refusal h2_take_field(struct h2_stream *st, const struct hpack_field *f)
{
    const struct http_limits *limits = &st->of->limits;
    unsigned note = note_of(f);
    struct head *h = st->in.head;
    enum field_token token;
    slice_t name, value;

    st->in.bytes += f->name.n + f->value.n + HPACK_OVERHEAD;
    if (st->in.bytes > limits->head_max)
        return REFUSED_HEAD_SIZE;
    if (f->name.n + f->value.n > (limits->field_max != 0 ? limits->field_max : HTTP_FIELD_MAX))
        return REFUSED_FIELD_SIZE;
    if ((note & NOTE_BAD) != 0)
        return REFUSED_FIELD;
    if ((note & NOTE_PSEUDO) != 0)
        return take_pseudo(st, (enum h2_pseudo)(note & NOTE_WHAT), f);
    st->in.has_regular = true;
    if (h->n_fields >= limits->fields_max)
        return REFUSED_FIELD_COUNT;
    token = (enum field_token)(note & NOTE_WHAT);
    name = token != FIELD_OTHER ? field_name_of(token)
           : f->is_static_name  ? f->name
                                : keep(st, f->name);
    value = f->is_static ? f->value : keep(st, f->value);
    if (name.p == NULL || value.p == NULL ||
        add_field(h, st->s.arena, name, value, token) != OK)
        return REFUSED_NO_MEMORY;
    h->fields[h->n_fields - 1].is_sensitive = f->is_sensitive;
    if ((note & NOTE_COOKIE) != 0)
        st->in.cookies++;
    return token != FIELD_OTHER ? take_meaning(st, token, value) : REFUSED_NOTHING;
}

void h2_skip_field(struct h2_stream *st, const struct hpack_field *f)
{
    if (field_token_of(f->name) == FIELD_CONTENT_TYPE)
        (void)take_meaning(st, FIELD_CONTENT_TYPE, f->value);
}

/* ---- reading: across fields ---- */

/* RFC 9113 8.2.3: crumbs become one field again, in one pass. Empty ones add nothing: a value
 * must not end with the blank of a separator. */
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
    static const slice_t methods[] = {LIT("GET"),    LIT("HEAD"),    LIT("PUT"),
                                      LIT("DELETE"), LIT("OPTIONS"), LIT("TRACE")};

    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (slice_is(m, methods[i]))
            return true;
    return false;
}

/* RFC 3986 3.1. */
static bool is_scheme(slice_t s)
{
    if (s.n == 0 || !((s.p[0] | 0x20) >= 'a' && (s.p[0] | 0x20) <= 'z'))
        return false;
    for (size_t i = 1; i < s.n; i++) {
        uint8_t c = s.p[i];

        if (!((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && !(c >= '0' && c <= '9') && c != '+' &&
            c != '-' && c != '.')
            return false;
    }
    return true;
}

static enum refusal finish(struct h2_stream *st, bool is_end)
{
    struct head *h = st->in.head;

    h->version = HTTP_2;
    h->is_keep_alive = true;
    st->in.expected = h->content_length;
    if (is_end && h->content_length > 0 && !st->out.is_head_request && h->status != 204 &&
        h->status != 304)
        return REFUSED_BODY;
    head_strip_hop_by_hop(h); /* te, http2-settings */
    return join_cookies(st);
}

static enum refusal finish_connect(struct h2_stream *st)
{
    struct head *h = st->in.head;

    h->is_connect = true;
    h->content_length = -1;
    if (!http_is_authority(h->authority) ||
        memchr(h->authority.p, ':', h->authority.n) == NULL ||
        (st->in.pseudo & (H2_SCHEME | H2_PATH)) != 0)
        return REFUSED_CONNECT;
    return REFUSED_NOTHING;
}

static enum refusal check_target(struct h2_stream *st)
{
    struct head *h = st->in.head;
    const unsigned needed = H2_METHOD | H2_SCHEME | H2_PATH;

    if (slice_is(h->method, SLICE_LIT("CONNECT")))
        return finish_connect(st);
    if ((st->in.pseudo & needed) != needed || !is_scheme(h->scheme))
        return REFUSED_PSEUDO;
    if (!http_is_path(h->path) ||
        (h->path.p[0] == '*' && !slice_is(h->method, SLICE_LIT("OPTIONS"))))
        return REFUSED_TARGET;
    if ((st->in.pseudo & H2_AUTHORITY) != 0 ? h->authority.n == 0 : st->in.host.p == NULL)
        return REFUSED_PSEUDO;
    return REFUSED_NOTHING;
}

enum refusal h2_finish_request(struct h2_stream *st, bool is_end)
{
    struct head *h = st->in.head;
    enum refusal why = st->in.refused;

    if (why != REFUSED_NOTHING)
        return why;
    if (!http_is_token(h->method))
        return REFUSED_PSEUDO;
    if (h->method.n > METHOD_MAX)
        return REFUSED_METHOD;
    why = check_target(st);
    if (why != REFUSED_NOTHING)
        return why;
    if (h->authority.n == 0)
        h->authority = st->in.host;
    else if (st->in.host.n > 0 && !slice_is_nocase(st->in.host, h->authority))
        return REFUSED_HOST; /* H2-25 */
    if (!http_is_authority(h->authority))
        return REFUSED_HOST;
    if (h->scheme.n == 0)
        h->scheme = SLICE_LIT("http");
    h->is_idempotent = h->is_idempotent || is_idempotent_method(h->method);
    return finish(st, is_end);
}

enum refusal h2_finish_response(struct h2_stream *st, bool is_end)
{
    struct head *h = st->in.head;
    enum refusal why = st->in.refused;

    if (why != REFUSED_NOTHING)
        return why;
    if ((st->in.pseudo & H2_STATUS) == 0)
        return REFUSED_STATUS_LINE;
    if (h->status < 200 && (is_end || h->status == 101)) /* RFC 9113 8.1 and 8.6 */
        return REFUSED_INTERIM;
    why = finish(st, is_end);
    if (st->out.is_head_request || h->status == 204 || h->status == 304)
        st->in.expected = 0;
    else if (st->out.is_connect_request && h->status < 300)
        st->in.expected = -1;
    return why;
}

enum refusal h2_finish_trailers(struct h2_stream *st, bool is_end)
{
    struct head *t = st->in.head;

    if (!is_end)
        return REFUSED_TRAILER;
    if (st->in.refused != REFUSED_NOTHING)
        return st->in.refused;
    if (t->content_length >= 0)
        return REFUSED_TRAILER;
    if (st->in.expected > 0)
        return REFUSED_BODY;
    for (size_t i = 0; i < t->n_fields; i++)
        if ((field_flags((enum field_token)t->fields[i].token) & FIELD_NOT_TRAILER) != 0)
            t->fields[i].is_removed = true;
    return REFUSED_NOTHING;
}

/* ---- writing ---- */

struct draft {
    struct hpack_out fields[FIELDS_MAX];
    size_t n;
    uint8_t *room; /* for names in lower case */
    size_t room_n;
    uint8_t names[2048];
    char status[4], length[SLICE_U64_MAX];
};

static struct hpack_out *put(struct draft *d, slice_t name, slice_t value, uint8_t static_name)
{
    struct hpack_out *f = &d->fields[d->n++];

    *f = (struct hpack_out){.name = name, .value = value, .static_name = static_name};
    return f;
}

/* What must not be guessed by its size, and what is different every time (RFC 7541 7.1). */
static enum hpack_policy policy_of(enum field_token token, slice_t name)
{
    switch (token) {
    case FIELD_AUTHORIZATION:
        return HPACK_NEVER_INDEX;
    case FIELD_CONTENT_LENGTH:
    case FIELD_DATE:
    case FIELD_GRPC_MESSAGE:
    case FIELD_GRPC_TIMEOUT:
    case FIELD_IDEMPOTENCY_KEY:
        return HPACK_NO_INDEX;
    case FIELD_OTHER:
        return (name.n == 6 && memcmp(name.p, "cookie", 6) == 0) ||
                       (name.n == 10 && memcmp(name.p, "set-cookie", 10) == 0)
                   ? HPACK_NO_INDEX
                   : HPACK_MAY_INDEX;
    default:
        return HPACK_MAY_INDEX;
    }
}

/* Eight at a time: for bytes that are not ASCII nothing sensible, which is refused by then or
 * soon. */
static uint64_t lower_word(uint64_t w)
{
    const uint64_t every = UINT64_C(0x0101010101010101);
    uint64_t low = w & (every * 0x7f);
    uint64_t is_capital =
        (low + every * (0x80 - 'A')) & ~(low + every * (0x80 - 'Z' - 1)) & ~w & (every * 0x80);

    return w | is_capital >> 2;
}

/* The name in lower case, in the draft's room or the arena. */
static slice_t lower(struct draft *d, struct arena *a, slice_t name)
{
    size_t need = (name.n + 7) / 8 * 8;
    uint8_t *to = d->room;
    uint64_t w = 0;
    size_t i = 0;

    if (need > d->room_n) {
        d->room_n = need > sizeof(d->names) ? need : sizeof(d->names);
        to = arena_alloc(a, d->room_n);
        if (to == NULL)
            return slice(NULL, 0);
    }
    for (; i + 8 <= name.n; i += 8) {
        memcpy(&w, name.p + i, 8);
        w = lower_word(w);
        memcpy(to + i, &w, 8);
    }
    if (i < name.n) {
        w = 0;
        memcpy(&w, name.p + i, name.n - i);
        w = lower_word(w);
        memcpy(to + i, &w, 8);
    }
    d->room = to + need;
    d->room_n -= need;
    return slice(to, name.n);
}

/* What there is to know about a name that has a token, found once. */
struct known {
    slice_t name;
    uint8_t flags, policy, static_name;
};

static const struct known *known_of(enum field_token token)
{
    static struct known all[FIELD_TOKENS];
    static bool is_made;

    if (UNLIKELY(!is_made)) {
        for (int t = FIELD_OTHER + 1; t < FIELD_TOKENS; t++) {
            slice_t name = field_name_of((enum field_token)t);

            all[t] = (struct known){.name = name,
                                    .flags = (uint8_t)field_flags((enum field_token)t),
                                    .policy = (uint8_t)policy_of((enum field_token)t, name),
                                    .static_name = (uint8_t)hpack_static_find(name)};
        }
        is_made = true;
    }
    return &all[token];
}

static bool put_fields(struct draft *d, struct arena *a, const struct field *fields, size_t n,
                       unsigned but_flags)
{
    for (size_t i = 0; i < n; i++) {
        const struct field *f = &fields[i];
        const struct known *k = known_of((enum field_token)f->token);
        slice_t name;

        if (f->is_removed || (k->flags & but_flags) != 0)
            continue;
        name = f->token != FIELD_OTHER ? k->name : lower(d, a, f->name);
        if (d->n >= FIELDS_MAX || name.p == NULL)
            return false;
        put(d, name, f->value, k->static_name)->policy =
            f->is_sensitive           ? HPACK_NEVER_INDEX
            : f->token != FIELD_OTHER ? k->policy
                                      : (uint8_t)policy_of(FIELD_OTHER, name);
    }
    return true;
}

/* What the table has was checked when it was put there. */
static bool is_sendable(const struct draft *d)
{
    for (size_t i = 0; i < d->n; i++) {
        const struct hpack_out *f = &d->fields[i];

        if (f->is_hit || f->static_entry != 0)
            continue;
        if (!http_is_field_value(f->value) || (f->static_name == 0 && !http_is_token(f->name)))
            return false;
    }
    return true;
}

static void draft_init(struct draft *d)
{
    d->n = 0;
    d->room = d->names;
    d->room_n = sizeof(d->names);
}

static bool write_draft(struct h2_stream *st, struct draft *d, bool is_end)
{
    size_t room = hpack_plan(&st->of->encoder, d->fields, d->n);

    return is_sendable(d) && h2_write_block(st, d->fields, d->n, room, is_end);
}

/* Pseudo fields that the static table has whole. */
static void put_pseudo(struct draft *d, slice_t name, slice_t value, uint8_t entry,
                       uint8_t other)
{
    struct hpack_out *f = put(d, name, value, entry);

    if (slice_is(value, hpack_static_value(entry)))
        f->static_entry = entry;
    else if (other != 0 && slice_is(value, hpack_static_value(other)))
        f->static_entry = other;
}

static bool put_request(struct draft *d, const struct head *h)
{
    put_pseudo(d, SLICE_LIT(":method"), h->method, 2, 3);
    if (!h->is_connect) {
        put_pseudo(d, SLICE_LIT(":scheme"), h->scheme, 6, 7);
        put_pseudo(d, SLICE_LIT(":path"), h->path, 4, 0);
        /* Queries and long paths hardly repeat, or carry what should not be guessed. */
        if (h->path.n > 64 || (h->path.n > 0 && memchr(h->path.p, '?', h->path.n) != NULL))
            d->fields[d->n - 1].policy = HPACK_NO_INDEX;
    }
    if (h->authority.n > 0)
        (void)put(d, SLICE_LIT(":authority"), h->authority, 1);
    return true;
}

/* The grammars of pseudo fields that are not in the table yet. */
static bool is_request_sendable(const struct head *h)
{
    return http_is_token(h->method) &&
           (h->is_connect || (http_is_path(h->path) && is_scheme(h->scheme))) &&
           (h->authority.n == 0 || http_is_authority(h->authority));
}

static bool put_status(struct draft *d, uint16_t status)
{
    static const uint16_t in_table[] = {200, 204, 206, 304,
                                        400, 404, 500}; /* entries 8 to 14 */
    struct hpack_out *f;

    if (status < 100 || status > 999)
        return false;
    d->status[0] = (char)('0' + status / 100);
    d->status[1] = (char)('0' + status / 10 % 10);
    d->status[2] = (char)('0' + status % 10);
    f = put(d, SLICE_LIT(":status"), slice(d->status, 3), 8);
    for (uint8_t i = 0; i < 7; i++)
        if (status == in_table[i])
            f->static_entry = (uint8_t)(8 + i);
    return true;
}

bool h2_write_head(struct h2_stream *st, const struct head *h, bool is_request, bool is_end)
{
    struct draft d;

    draft_init(&d);
    if (is_request ? !is_request_sendable(h) || !put_request(&d, h)
                   : !put_status(&d, h->status))
        return false;
    if (h->content_length >= 0 && !h->is_connect)
        put(&d, SLICE_LIT("content-length"),
            slice_of_u64((uint64_t)h->content_length, d.length), 28)
            ->policy = HPACK_NO_INDEX;
    if (is_request && h->accepts_trailers)
        (void)put(&d, SLICE_LIT("te"), SLICE_LIT("trailers"), 0);
    return put_fields(&d, st->s.arena, h->fields, h->n_fields,
                      FIELD_IS_HOP | FIELD_IS_FRAMING) &&
           write_draft(st, &d, is_end);
}

bool h2_write_trailers(struct h2_stream *st, const struct field *fields, size_t n)
{
    struct draft d;

    draft_init(&d);
    return put_fields(&d, st->s.arena, fields, n,
                      FIELD_IS_HOP | FIELD_IS_FRAMING | FIELD_NOT_TRAILER) &&
           d.n > 0 && write_draft(st, &d, true);
}
