/* The looks of names across a hop: what is printed for a head, and what applying it to the lower-case head of the
 * other side gives. */
#include "proxy/http/spelling.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void add(struct head *h, struct arena *a, const char *name, size_t n)
{
    assert_true(head_add(h, a, arena_copy(a, slice(name, n)), SLICE_LIT("v")) == OK);
}

/* "Host,Accept" -> fields, as HTTP/1 would read them. */
static void written(struct head *h, struct arena *a, const char *names)
{
    head_init(h);
    h->authority = SLICE_LIT("web");
    while (*names != 0) {
        size_t n = strcspn(names, ",");

        add(h, a, names, n);
        if (h->fields[h->n_fields - 1].token == FIELD_CONTENT_LENGTH)
            h->content_length = 7;
        names += n + (names[n] == ',');
    }
    head_strip_hop_by_hop(h);
}

/* The same behind an HTTP/2 hop: lower case, no Host, Content-Length in front, our own field last. */
static void carried(struct head *out, const struct head *h, struct arena *a)
{
    head_init(out);
    out->authority = h->authority;
    out->content_length = h->content_length;
    if (h->content_length >= 0)
        add(out, a, "content-length", 14);
    if (h->accepts_trailers)
        add(out, a, "te", 2);
    for (size_t i = 0; i < h->n_fields; i++) {
        const struct field *f = &h->fields[i];
        char name[200];

        if (f->is_removed || (field_flags(f->token) & (FIELD_IS_HOP | FIELD_IS_FRAMING)) != 0)
            continue;
        for (size_t k = 0; k < f->name.n; k++)
            name[k] = (char)(f->name.p[k] >= 'A' && f->name.p[k] <= 'Z' ? f->name.p[k] | 0x20 : f->name.p[k]);
        add(out, a, name, f->name.n);
    }
    add(out, a, "l5d-orig-proto", 14);
    head_strip_hop_by_hop(out);
    head_remove(out, FIELD_L5D_ORIG_PROTO);
}

/* As HTTP/1 would write them: Host first and Content-Length last where they have no place. */
static void listed(const struct head *h, char *out)
{
    bool has_host = false, has_length = false;
    char *at = out;

    for (size_t i = 0; i < h->n_fields; i++)
        has_host = has_host || (h->fields[i].token == FIELD_HOST && !h->fields[i].is_removed);
    if (!has_host)
        at += sprintf(at, h->is_canonical ? "Host," : "host,");
    for (size_t i = 0; i < h->n_fields; i++) {
        const struct field *f = &h->fields[i];

        if (f->is_removed)
            continue;
        has_length = has_length || f->token == FIELD_CONTENT_LENGTH;
        at = (char *)spelling_copy((uint8_t *)at, f->name, f->spelling);
        *at++ = ',';
    }
    if (h->content_length >= 0 && !has_length)
        at += sprintf(at, h->is_canonical ? "Content-Length," : "content-length,");
    at[-1] = 0;
}

static const struct {
    const char *names, *text;
} trips[] = {
    {"Host,User-Agent,Accept", "C"},
    {"host,user-agent,accept", "L"},
    {"Host", "C"},
    {"Host,user-agent", "Hcl"},
    {"Host,Accept,Content-Length", "C"},
    {"host,accept,content-length", "L"},
    {"Host,Content-Length,Accept", "HcNcc"},
    {"Accept,Host", "cHc"},
    {"Accept,Content-Length,Host", "cNcHc"},
    {"content-length,HOST,ETag", "NlHuxc"},
    {"HOST,X-B3-TraceId,DNT", "Huxa42u"},
    {"Host,X-B-C,x-b-c,X-b-c", "Hcclx8" "0"},
    {"Host,a", "Hcl"},
    {"Host,A", "C"},
    {"Host,1-2,X", "Hclc"},
    {"Host,Abcdefg-Hijklmno-Pqrstuvw-X", "C"},
    {"Host,Abcdefgh-Ijklmnopqrstuvwxyz-X", "C"},
    {"Host,abcdefgh-ijklmnopqrstuvwxyz-X", "Hcx00000008"},
    {"Host,A_b,A.B,A.Bc", "Hccuxa"},
    {"Host,Cookie,Cookie,Accept", "C"},
    {"Host,cookie,cookie,Accept", "Hclc"},
    {"Host,Cookie,accept,cookie", "Hccll"},
};

static void looks_survive_the_hop(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(trips) / sizeof(trips[0]); i++) {
        struct arena a;
        struct head h, over;
        char text[SPELLING_MAX + 1], got[512];
        size_t n;

        arena_init(&a, 0);
        written(&h, &a, trips[i].names);
        n = spelling_print(h.fields, h.n_fields, text);
        text[n] = 0;
        assert_string_equal(text, trips[i].text);
        carried(&over, &h, &a);
        assert_true(spelling_apply(&over, &a, slice_str(text)));
        listed(&over, got);
        assert_string_equal(got, trips[i].names);
        arena_done(&a);
    }
}

/* HTTP/2 may join cookies or split them into crumbs; hop-by-hop fields are not carried. */
static void what_the_hop_changes_does_not_shift_the_rest(void **state)
{
    struct arena a;
    struct head h, over;
    char text[SPELLING_MAX], got[512];
    size_t n;

    (void)state;
    arena_init(&a, 0);
    written(&h, &a, "Host,Connection,Cookie,Keep-Alive,X-ONE,Te,x-two,Upgrade");
    n = spelling_print(h.fields, h.n_fields, text);
    assert_int_equal(n, 5); /* Hccul */
    head_init(&over);
    add(&over, &a, "te", 2);
    add(&over, &a, "cookie", 6);
    add(&over, &a, "cookie", 6);
    over.fields[2].is_removed = true;
    add(&over, &a, "x-one", 5);
    add(&over, &a, "x-two", 5);
    head_strip_hop_by_hop(&over);
    assert_true(spelling_apply(&over, &a, slice(text, n)));
    listed(&over, got);
    assert_string_equal(got, "Host,Cookie,X-ONE,x-two");
    arena_done(&a);
}

static const char *const bad_texts[] = {
    "", "X", "c", "CC", "LL", "HcHc", "HcNcNc", "H", "N", "Hccccc", "Hccx", "Hccxg0", "HccxA0", "Hcc ",
    "\x80", "Hcccccccccccccccccccccccccccc", "xx", "xc0xc0xc0xc0",
};

static void what_does_not_fit_changes_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_texts) / sizeof(bad_texts[0]); i++) {
        struct arena a;
        struct head h, before;
        char got[512];
        slice_t text = slice_str(bad_texts[i]);
        bool is_partial = text.n == 1 && text.p[0] == 'c';

        arena_init(&a, 0);
        head_init(&h);
        h.authority = SLICE_LIT("web");
        add(&h, &a, "accept", 6);
        add(&h, &a, "x-a", 3);
        add(&h, &a, "etag-1", 6);
        before = h;
        if (is_partial) { /* fewer lines than fields: the rest stays as it is */
            assert_true(spelling_apply(&h, &a, text));
            listed(&h, got);
            assert_string_equal(got, "Host,Accept,x-a,etag-1");
        } else {
            if (spelling_apply(&h, &a, text))
                fail_msg("%s is taken", bad_texts[i]);
            assert_memory_equal(&h, &before, sizeof(h));
            listed(&h, got);
            assert_string_equal(got, "host,accept,x-a,etag-1");
        }
        arena_done(&a);
    }
}

static void it_is_bounded(void **state)
{
    struct arena a;
    struct head h;
    char text[SPELLING_MAX], *huge = malloc(SPELLING_MAX + 2);

    (void)state;
    arena_init(&a, 0);
    head_init(&h);
    for (int i = 0; i < SPELLING_MAX; i++)
        add(&h, &a, i % 2 == 0 ? "x-a" : "X-A", 3);
    assert_int_equal(spelling_print(h.fields, h.n_fields, text), SPELLING_MAX);
    add(&h, &a, "x-a", 3);
    assert_int_equal(spelling_print(h.fields, h.n_fields, text), 0);
    assert_non_null(huge);
    memset(huge, 'c', SPELLING_MAX + 1);
    assert_false(spelling_apply(&h, &a, slice(huge, SPELLING_MAX + 1)));
    assert_int_equal(spelling_print(NULL, 0, text), 0);
    free(huge);
    arena_done(&a);
}

/* Every name up to three letters of these, against the definition of the form. */
static void canonical_names_exhaustively(void **state)
{
    static const char letters[] = "aAzZ-_0@"; /* '@' is next to 'A' */
    char name[24];

    (void)state;
    for (unsigned i = 0; i < 8 * 8 * 8 * 8; i++) {
        struct field f = {.name = slice(name, 0)};
        char text[SPELLING_MAX], want[24], got[24 + SPELLING_SLACK];
        bool begins = true, is_canonical = true, has_capital = false;
        size_t pad = i % 9, n = pad + 4;

        memset(name, 'b', pad);
        for (size_t k = 0; k < 4; k++)
            name[pad + k] = letters[i >> (3 * k) & 7];
        for (size_t k = 0; k < n; k++) {
            bool is_small = name[k] >= 'a' && name[k] <= 'z', is_big = name[k] >= 'A' && name[k] <= 'Z';

            is_canonical = is_canonical && !(begins ? is_small : is_big);
            has_capital = has_capital || is_big;
            want[k] = (char)(begins && is_small ? name[k] & ~0x20 : name[k]);
            begins = name[k] == '-';
        }
        f.name = slice(name, n);
        assert_true(spelling_print(&f, 1, text) > 0);
        if (!has_capital)
            assert_int_equal(text[0], 'L');
        else if (is_canonical)
            assert_int_equal(text[0], 'C');
        else
            assert_true(text[0] == 'u' || text[0] == 'x');
        for (size_t rest = 1; rest < 12; rest++) { /* read from a line, with more or less behind it */
            char line[40], look = 0, expected = text[0] == 'C' ? 'c' : text[0] == 'L' ? 'l' : text[0];
            size_t whole = n;

            memcpy(line, name, n);
            memset(line + n, ' ', sizeof(line) - n);
            line[n] = ':';
            if (memchr(name, '@', n) != NULL)
                whole = (size_t)((char *)memchr(name, '@', n) - name);
            assert_int_equal(spelling_name_prefix(slice(line, n + rest), &look), whole);
            if (whole == n)
                assert_int_equal(look, expected);
        }
        assert_ptr_equal(spelling_copy((uint8_t *)got, f.name, SPELLED_CANONICAL), got + n);
        assert_memory_equal(got, want, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(looks_survive_the_hop),
        cmocka_unit_test(what_the_hop_changes_does_not_shift_the_rest),
        cmocka_unit_test(what_does_not_fit_changes_nothing),
        cmocka_unit_test(it_is_bounded),
        cmocka_unit_test(canonical_names_exhaustively),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
