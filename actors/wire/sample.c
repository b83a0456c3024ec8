#include "wire/sample.h"

struct sampler {
    uint64_t state;
    const struct wire_sample_how *how;
    struct arena *arena;
};

/* splitmix64: small, good enough, and the same everywhere. */
static uint64_t next(struct sampler *s)
{
    uint64_t z = s->state += 0x9e3779b97f4a7c15U;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

/* Small, middling and large numbers equally often, so that every msgpack format occurs. */
static uint64_t number(struct sampler *s, uint64_t max)
{
    uint64_t v = next(s);

    if (s->how->is_full)
        return max;
    return (v >> (next(s) % 64)) & max;
}

static size_t length(struct sampler *s, size_t ours, size_t table)
{
    size_t max = ours < table ? ours : table;

    return s->how->is_full ? max : (size_t)(next(s) % (max + 1));
}

/* Text of exactly n bytes: letters, now and then a character of more bytes. */
static err_t fill_text(struct sampler *s, size_t n, slice_t *out)
{
    static const char *const wide[] = {"", "", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x90\x8d"};
    uint8_t *p = arena_alloc(s->arena, n + 1);

    if (p == NULL)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < n;) {
        uint64_t r = next(s);
        size_t w = 2 + r % 3;

        if (r % 16 == 15 && n - i >= w) {
            memcpy(p + i, wide[w], w);
            i += w;
        } else {
            p[i++] = (uint8_t)('a' + r % 26);
        }
    }
    *out = slice(p, n);
    return OK;
}

static err_t fill_bytes(struct sampler *s, size_t n, slice_t *out)
{
    uint8_t *p = arena_alloc(s->arena, n + 1);

    if (p == NULL)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)next(s);
    *out = slice(p, n);
    return OK;
}

static err_t fill(struct sampler *s, const struct wire_record *record, void *base);

static err_t fill_list(struct sampler *s, const struct wire_field *f, void *base)
{
    size_t n = length(s, s->how->list_max, f->max);
    char *items = n > 0 ? arena_alloc(s->arena, n * f->record->size) : NULL;

    if (n > 0 && items == NULL)
        return ERR_OF(NOMEM);
    for (size_t i = 0; i < n; i++)
        TRY(fill(s, f->record, items + i * f->record->size));
    memcpy(wire_member(f, base), &items, sizeof(items));
    memcpy((char *)base + f->n_offset, &n, sizeof(n));
    return OK;
}

static err_t fill_field(struct sampler *s, const struct wire_field *f, void *base)
{
    void *m = wire_member(f, base);

    switch (f->kind) {
    case WIRE_KIND_U8:
        *(uint8_t *)m = (uint8_t)number(s, UINT8_MAX);
        return OK;
    case WIRE_KIND_U16:
        *(uint16_t *)m = (uint16_t)number(s, UINT16_MAX);
        return OK;
    case WIRE_KIND_U32:
        *(uint32_t *)m = (uint32_t)number(s, UINT32_MAX);
        return OK;
    case WIRE_KIND_U64:
        *(uint64_t *)m = number(s, UINT64_MAX);
        return OK;
    case WIRE_KIND_I64:
        *(int64_t *)m = (int64_t)number(s, UINT64_MAX);
        return OK;
    case WIRE_KIND_BOOL:
        *(bool *)m = (number(s, UINT64_MAX) & 1) != 0;
        return OK;
    case WIRE_KIND_TEXT:
        return fill_text(s, length(s, s->how->text_max, f->max), m);
    case WIRE_KIND_BYTES:
        return fill_bytes(s, length(s, s->how->text_max, f->max), m);
    case WIRE_KIND_LIST:
        return fill_list(s, f, base);
    }
    bug("a kind that is not in the enum", __FILE__, __LINE__);
}

static err_t fill(struct sampler *s, const struct wire_record *record, void *base)
{
    size_t n;
    const struct wire_field *fields = record->fields(&n);

    for (size_t i = 0; i < n; i++)
        TRY(fill_field(s, &fields[i], base));
    return OK;
}

err_t wire_sample(const struct wire_desc *desc, const struct wire_sample_how *how,
                  struct arena *arena, union wire_body *body)
{
    struct sampler s = {how->seed, how, arena};

    return fill(&s, desc->record, body);
}
