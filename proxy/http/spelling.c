/* The looks of field names: see spelling.h. Names are tokens, so every byte is below 0x80; they are looked at
 * eight bytes at a time. */
#include "proxy/http/spelling.h"

#include "proxy/http/words.h"

#include <string.h>

struct look {
    uint64_t capitals; /* not 0: there are some */
    uint64_t smalls;   /* the same */
    uint64_t strange;  /* not 0: it is not canonical */
};

static struct look look_at(slice_t name)
{
    struct look l = {0, 0, 0};
    uint64_t carry = 0x80; /* the first byte begins a word */

    for (size_t i = 0; i < name.n; i += 8) {
        uint64_t w = word_load(name.p + i, name.n - i);
        uint64_t capitals = word_between(w, 'A', 'Z'), smalls = word_between(w, 'a', 'z');
        uint64_t dash = word_is(w, '-'), begins = dash << 8 | carry;

        l.capitals |= capitals;
        l.smalls |= smalls;
        l.strange |= (capitals & ~begins) | (smalls & begins);
        carry = dash >> 56;
    }
    return l;
}

static char letter_of(const struct look *l)
{
    return l->capitals == 0 ? 'l' : l->strange == 0 ? 'c' : l->smalls == 0 ? 'u' : 'x';
}

size_t spelling_name_prefix(slice_t line, char *look)
{
    uint64_t capitals = 0, strange = 0, carry = 0x80;
    struct look l;
    size_t n;

    for (size_t i = 0; i + 8 <= line.n; i += 8) {
        uint64_t w = word_load(line.p + i, 8), dash = word_is(w, '-');
        uint64_t letters = word_between(w | WORD_EVERY(0x20), 'a', 'z');
        uint64_t others = ~(letters | dash | word_between(w, '0', '9')) & WORD_HIGH;
        uint64_t mine = letters & (others - 1) & ~others; /* before the first other byte */
        uint64_t big = mine & ~(w << 2);                  /* 0x20 is not set */

        if ((w & WORD_HIGH) != 0)
            break;
        capitals |= big;
        strange |= (big ^ (dash << 8 | carry)) & mine;
        if (others == 0) {
            carry = dash >> 56;
            continue;
        }
        n = i + word_first(others);
        if (line.p[n] != ':' || (capitals != 0 && strange != 0))
            break; /* a rarer byte of a token, or no name; or mixed case */
        *look = capitals == 0 ? 'l' : 'c';
        return n;
    }
    n = http_token_prefix(line);
    l = look_at(slice(line.p, n));
    *look = letter_of(&l);
    return n;
}

/* ---- printing ---- */

struct printer {
    char *out;
    size_t n;
    bool is_full;
};

static void put(struct printer *p, char c)
{
    if (p->n < SPELLING_MAX)
        p->out[p->n++] = c;
    else
        p->is_full = true;
}

static bool is_capital(uint8_t c)
{
    return c >= 'A' && c <= 'Z';
}

static void put_mask(struct printer *p, slice_t name)
{
    put(p, 'x');
    for (size_t i = 0; i < name.n; i += 4) {
        unsigned digit = 0;

        for (size_t k = i; k < i + 4; k++)
            digit = digit << 1 | (k < name.n && is_capital(name.p[k]) ? 1u : 0u);
        put(p, "0123456789abcdef"[digit]);
    }
}

static bool is_cookie(const struct field *f)
{
    return f->token == FIELD_OTHER && slice_is_nocase(f->name, SLICE_LIT("cookie"));
}

/* Names that cross the hop as fields. */
static bool crosses(const struct field *f)
{
    return f->token == FIELD_OTHER ||
           (field_flags(f->token) & (FIELD_IS_HOP | FIELD_IS_FRAMING | FIELD_IS_MESH)) == 0;
}

/* A field of framing that has a line, or one that crosses the hop? Others have none. */
static bool has_line(struct printer *p, const struct field *f, bool *is_usual, bool *was_length)
{
    if (f->token == FIELD_HOST || f->token == FIELD_CONTENT_LENGTH) {
        *is_usual = *is_usual && !*was_length && (f->token != FIELD_HOST || p->n == 0);
        *was_length = *was_length || f->token == FIELD_CONTENT_LENGTH;
        put(p, f->token == FIELD_HOST ? 'H' : 'N');
        return true;
    }
    *is_usual = *is_usual && !*was_length;
    return f->token == FIELD_OTHER || crosses(f);
}

size_t spelling_print(const struct field *fields, size_t n, char out[SPELLING_MAX])
{
    struct printer p = {.out = out};
    bool is_usual = true, was_length = false, was_cookie = false, has_l = false, has_c = false, has_others = false;

    for (size_t i = 0; i < n; i++) {
        const struct field *f = &fields[i];
        char letter = f->look;

        if (f->is_removed || !has_line(&p, f, &is_usual, &was_length))
            continue;
        if (UNLIKELY(f->name.n == 6) && is_cookie(f)) {
            if (was_cookie)
                continue;
            was_cookie = true;
        } else {
            was_cookie = false;
        }
        if (letter == 0) {
            struct look l = look_at(f->name);

            letter = letter_of(&l);
        }
        has_l = has_l || letter == 'l';
        has_c = has_c || letter == 'c';
        if (LIKELY(letter != 'x'))
            put(&p, letter);
        else
            put_mask(&p, f->name);
        has_others = has_others || letter == 'x' || letter == 'u';
    }
    if (p.n > 0 && is_usual && !has_others && has_l != has_c) {
        out[0] = has_l ? 'L' : 'C';
        return 1;
    }
    return p.is_full ? 0 : p.n;
}

/* ---- applying ---- */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static uint8_t to_capital(uint8_t c)
{
    return c >= 'a' && c <= 'z' ? (uint8_t)(c & ~0x20u) : c;
}

/* The name as the mask at the front of *text says, which is taken. */
static bool read_mask(slice_t *text, slice_t name, struct arena *a, slice_t *out)
{
    slice_t copy = arena_copy(a, name);
    uint8_t *p = (uint8_t *)(uintptr_t)copy.p; /* ours, just made */

    if (p == NULL || text->n < (name.n + 3) / 4)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        int digit = hex_digit(text->p[i / 4]);

        if (digit < 0)
            return false;
        if (((unsigned)digit >> (3 - i % 4) & 1) != 0)
            p[i] = to_capital(p[i]);
    }
    *text = slice_skip(*text, (name.n + 3) / 4);
    *out = copy;
    return true;
}

/* Takes a look from the front of *text and gives it to the field. */
static bool read_look(slice_t *text, struct field *f, struct arena *a)
{
    uint8_t *p;
    uint8_t letter;

    if (text->n == 0)
        return false;
    letter = text->p[0];
    *text = slice_skip(*text, 1);
    switch (letter) {
    case 'l':
        f->spelling = SPELLED_AS_IS;
        return true;
    case 'c':
        f->spelling = SPELLED_CANONICAL;
        return true;
    case 'u':
        f->name = arena_copy(a, f->name);
        p = (uint8_t *)(uintptr_t)f->name.p; /* ours, just made */
        for (size_t i = 0; i < f->name.n; i++)
            p[i] = to_capital(p[i]);
        return p != NULL;
    case 'x':
        return read_mask(text, f->name, a, &f->name);
    default:
        return false;
    }
}

/* "C" and "L": Host is first and Content-Length last of themselves when they have no place. */
static void apply_usual(struct head *h, enum field_spelling how)
{
    for (size_t i = 0; i < h->n_fields; i++) {
        struct field *f = &h->fields[i];

        f->spelling = (uint8_t)how;
        if (f->token == FIELD_CONTENT_LENGTH)
            f->is_removed = true;
    }
    h->is_canonical = how == SPELLED_CANONICAL;
}

struct lines {
    struct head *from;
    size_t next; /* of from->fields */
    struct field *fields;
    size_t n;
    bool has_host, has_length;
};

static bool add_framing(struct lines *l, slice_t *text, struct arena *a)
{
    bool is_host = text->p[0] == 'H';
    enum field_token token = is_host ? FIELD_HOST : FIELD_CONTENT_LENGTH;
    struct field f = {.name = field_name_of(token), .token = (uint16_t)token};

    if (is_host ? l->has_host : l->has_length)
        return false;
    *text = slice_skip(*text, 1);
    if (!read_look(text, &f, a))
        return false;
    if (is_host) {
        f.value = l->from->authority;
        l->has_host = true;
        l->from->is_canonical = f.spelling == SPELLED_CANONICAL;
    } else {
        l->has_length = true;
        f.is_removed = l->from->content_length < 0;
    }
    l->fields[l->n++] = f;
    return true;
}

/* The next field that has a line, and those before it that have none. */
static bool add_line(struct lines *l, slice_t *text, struct arena *a)
{
    struct head *h = l->from;
    struct field *f;

    for (;;) {
        if (l->next == h->n_fields)
            return false;
        f = &l->fields[l->n++];
        *f = h->fields[l->next++];
        if (f->token == FIELD_CONTENT_LENGTH)
            l->n--; /* it has a line of its own, or goes last */
        else if (crosses(f))
            break;
    }
    if (!read_look(text, f, a))
        return false;
    if (f->name.n != 6 || !is_cookie(f))
        return true;
    for (; l->next < h->n_fields && is_cookie(&h->fields[l->next]); l->n++) {
        l->fields[l->n] = h->fields[l->next++];
        l->fields[l->n].name = f->name;
        l->fields[l->n].spelling = f->spelling;
    }
    return true;
}

static bool apply_lines(struct head *h, struct arena *a, slice_t text)
{
    struct head was = *h;
    struct lines l = {.from = &was};
    bool is_ok = true;

    l.fields = arena_alloc(a, (h->n_fields + 4) * sizeof(*l.fields)); /* two more, and some to add */
    if (l.fields == NULL)
        return false;
    while (is_ok && text.n > 0)
        is_ok = text.p[0] == 'H' || text.p[0] == 'N' ? add_framing(&l, &text, a)
                                                     : add_line(&l, &text, a);
    if (!is_ok)
        return false;
    for (; l.next < h->n_fields; l.next++)
        if (h->fields[l.next].token != FIELD_CONTENT_LENGTH)
            l.fields[l.n++] = h->fields[l.next];
    h->fields = l.fields;
    h->n_fields = l.n;
    h->cap_fields = was.n_fields + 4;
    h->is_canonical = l.has_host ? was.is_canonical : l.n > 0 && l.fields[0].spelling == SPELLED_CANONICAL;
    return true;
}

bool spelling_apply(struct head *h, struct arena *a, slice_t text)
{
    if (text.n == 0 || text.n > SPELLING_MAX)
        return false;
    if (text.n > 1)
        return apply_lines(h, a, text);
    if (text.p[0] == 'C')
        apply_usual(h, SPELLED_CANONICAL);
    else if (text.p[0] == 'L')
        apply_usual(h, SPELLED_AS_IS);
    else
        return apply_lines(h, a, text);
    return true;
}

/* ---- writing ---- */

uint8_t *spelling_copy(uint8_t *to, slice_t name, enum field_spelling how)
{
    uint64_t carry = 0x80;

    if (how == SPELLED_AS_IS) {
        memcpy(to, name.p, name.n);
        return to + name.n;
    }
    for (size_t i = 0; i < name.n; i += 8) {
        uint64_t w = word_load(name.p + i, name.n - i), dash = word_is(w, '-');

        w ^= (word_between(w, 'a', 'z') & (dash << 8 | carry)) >> 2; /* 0x20 */
        carry = dash >> 56;
        word_store(to + i, w);
    }
    return to + name.n;
}
