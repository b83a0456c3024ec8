/* HTTP/1 heads, trailer sections and chunked bodies from arbitrary bytes.
 *
 * The first byte chooses: request, response, trailers, or chunked body; and how the bytes are cut. Checked
 * beyond "no crash": the same bytes in pieces give the same verdict as in one, and what was accepted, written
 * by us and read again is the same message (so nothing ambiguous passes, rule 0). Field lines that we take, llhttp in
 * strict mode takes too, and finds the same names and values in them. */
#include "proxy/http1/body.h"
#include "proxy/http1/write.h"

#include <llhttp.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct http_limits limits = {
    .head_max = 16384, .fields_max = 100, .header_timeout_ms = 1000, .streams_max = 1};

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond))                                                                               \
            abort();                                                                               \
    } while (0)

static void same(slice_t a, slice_t b)
{
    MUST(a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0));
}

/* Whole and in steps must agree. */
static enum step scan(slice_t in, bool has_start_line, size_t step, size_t *n)
{
    struct h1_scan whole = {0}, cut = {0};
    enum refusal why = REFUSED_NOTHING, why_cut = REFUSED_NOTHING;
    size_t n_cut = 0;
    enum step got = h1_scan_section(&whole, in, has_start_line, &limits, n, &why);
    enum step got_cut = STEP_LATER;

    for (size_t have = 0; have < in.n && got_cut == STEP_LATER;) {
        have = have + step < in.n ? have + step : in.n;
        got_cut = h1_scan_section(&cut, slice(in.p, have), has_start_line, &limits, &n_cut, &why_cut);
    }
    MUST(in.n == 0 || got == got_cut);
    MUST(got != STEP_DONE || *n == n_cut);
    return got;
}

/* ---- llhttp's opinion of field lines ---- */

struct opinion {
    const struct head *ours;
    size_t n;
    slice_t name, value;
};

static slice_t joined(slice_t have, const char *at, size_t n)
{
    return have.n > 0 ? slice(have.p, have.n + n) : slice(at, n);
}

static int on_name(llhttp_t *ll, const char *at, size_t n)
{
    struct opinion *o = ll->data;

    o->name = joined(o->name, at, n);
    return 0;
}

static int on_value(llhttp_t *ll, const char *at, size_t n)
{
    struct opinion *o = ll->data;

    o->value = joined(o->value, at, n);
    return 0;
}

static int on_line(llhttp_t *ll)
{
    struct opinion *o = ll->data;
    slice_t v = o->value;

    while (v.n > 0 && (v.p[0] == ' ' || v.p[0] == '\t'))
        v = slice_skip(v, 1);
    while (v.n > 0 && (v.p[v.n - 1] == ' ' || v.p[v.n - 1] == '\t'))
        v.n--;
    MUST(o->n < o->ours->n_fields);
    same(o->name, o->ours->fields[o->n].name);
    same(v, o->ours->fields[o->n].value);
    o->n++;
    o->name = o->value = slice(NULL, 0);
    return 0;
}

static int on_end(llhttp_t *ll)
{
    (void)ll;
    return HPE_PAUSED;
}

/* What means something to llhttp may be refused for what it means (and is by us, elsewhere). */
static bool is_about_meaning(const struct head *h)
{
    for (size_t i = 0; i < h->n_fields; i++)
        if (h->fields[i].token == FIELD_CONTENT_LENGTH || h->fields[i].token == FIELD_TRANSFER_ENCODING)
            return true;
    return false;
}

static void agrees(slice_t lines, const struct head *ours)
{
    static const llhttp_settings_t settings = {.on_header_field = on_name,
                                               .on_header_value = on_value,
                                               .on_header_value_complete = on_line,
                                               .on_headers_complete = on_end};
    static const char start[] = "POST * HTTP/1.1\r\n";
    struct opinion o = {.ours = ours};
    enum llhttp_errno got;
    llhttp_t ll;

    llhttp_init(&ll, HTTP_REQUEST, &settings);
    ll.data = &o;
    MUST(llhttp_execute(&ll, start, sizeof(start) - 1) == HPE_OK);
    got = llhttp_execute(&ll, (const char *)lines.p, lines.n);
    MUST(got == HPE_PAUSED || is_about_meaning(ours));
    MUST(got != HPE_PAUSED || o.n == ours->n_fields);
}

static slice_t behind_start_line(slice_t head)
{
    const uint8_t *lf = memchr(head.p, '\n', head.n);

    return slice_skip(head, (size_t)(lf - head.p) + 1);
}

static void request_again(const struct head *h, struct arena *a)
{
    struct write_head w = {.head = h, .version = h->version};
    struct head again;
    struct buf out;
    size_t n = 0;

    w.framing = h->is_connect             ? WRITE_NONE
                : h->is_chunked           ? WRITE_CHUNKED
                : h->content_length >= 0  ? WRITE_LENGTH
                                          : WRITE_NONE;
    buf_init(&out, 0);
    MUST(h1_print_request(&w, &out));
    /* Our spelling may be longer than the limits allow; then there is nothing to compare. */
    if (scan(buf_slice(&out), true, out.tail, &n) == STEP_DONE) {
        MUST(n == buf_len(&out));
        MUST(h1_parse_request(buf_slice(&out), a, &again) == REFUSED_NOTHING);
        same(again.method, h->method);
        same(again.path, h->path);
        same(again.authority, h->authority);
        MUST(again.content_length == h->content_length);
        MUST(again.is_chunked == h->is_chunked);
    }
    buf_done(&out);
}

static void response_again(const struct head *h, struct arena *a)
{
    struct write_head w = {.head = h, .version = h->version};
    struct head again;
    struct buf out;
    size_t n = 0;

    w.framing = h->is_chunked ? WRITE_CHUNKED : h->content_length >= 0 ? WRITE_LENGTH : WRITE_NONE;
    buf_init(&out, 0);
    MUST(h1_print_response(&w, &out));
    if (scan(buf_slice(&out), true, out.tail, &n) == STEP_DONE) {
        MUST(n == buf_len(&out));
        MUST(h1_parse_response(buf_slice(&out), a, &again) == REFUSED_NOTHING);
        MUST(again.status == h->status && again.content_length == h->content_length);
        MUST(again.is_chunked == h->is_chunked);
    }
    buf_done(&out);
}

static void head_from(slice_t in, bool is_request, size_t step)
{
    struct arena a;
    struct head h;
    size_t n = 0;

    if (scan(in, true, step, &n) != STEP_DONE)
        return;
    MUST(n <= in.n);
    arena_init(&a, 0);
    if (is_request) {
        if (h1_parse_request(slice(in.p, n), &a, &h) == REFUSED_NOTHING) {
            agrees(behind_start_line(slice(in.p, n)), &h);
            head_strip_hop_by_hop(&h);
            request_again(&h, &a);
        }
    } else if (h1_parse_response(slice(in.p, n), &a, &h) == REFUSED_NOTHING) {
        agrees(behind_start_line(slice(in.p, n)), &h);
        head_strip_hop_by_hop(&h);
        response_again(&h, &a);
    }
    arena_done(&a);
}

/* Reads a body; returns the verdict and what it was made of. */
static enum body_got read_all(slice_t in, size_t step, size_t *content, size_t *used)
{
    struct body b;
    enum refusal why = REFUSED_NOTHING;
    enum body_got got = BODY_MORE;
    size_t have = 0, taken = 0;

    body_start_chunked(&b);
    *content = 0;
    do {
        slice_t rest, out = {NULL, 0};

        have = have + step < in.n ? have + step : in.n;
        rest = slice(in.p + taken, have - taken);
        do {
            got = body_read(&b, &rest, &limits, &out, &why);
            if (got == BODY_DATA)
                *content += out.n;
        } while (got == BODY_DATA && rest.n > 0);
        taken = have - rest.n;
    } while ((got == BODY_MORE || got == BODY_DATA) && have < in.n);
    *used = taken;
    return got == BODY_DATA ? BODY_MORE : got;
}

static void body_from(slice_t in, size_t step)
{
    size_t content, used, content_cut, used_cut;
    enum body_got got = read_all(in, in.n + 1, &content, &used);
    enum body_got got_cut = read_all(in, step, &content_cut, &used_cut);

    MUST(got == got_cut);
    if (got == BODY_END || got == BODY_SECTION)
        MUST(content == content_cut && used == used_cut);
}

static void trailers_from(slice_t in, size_t step)
{
    struct arena a;
    struct head t;
    size_t n = 0;

    if (scan(in, false, step, &n) != STEP_DONE || n <= 2)
        return;
    arena_init(&a, 0);
    if (h1_parse_trailers(slice(in.p, n), &a, &t) == REFUSED_NOTHING) {
        agrees(slice(in.p, n), &t);
        for (size_t i = 0; i < t.n_fields; i++)
            MUST(http_is_token(t.fields[i].name) && http_is_field_value(t.fields[i].value));
    }
    arena_done(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    slice_t in;
    size_t step;

    if (n < 1 || n > 65536)
        return 0;
    step = (size_t)(data[0] >> 2) + 1;
    in = slice(data + 1, n - 1);
    if (in.n == 0)
        return 0;
    switch (data[0] & 3) {
    case 0:
        head_from(in, true, step);
        break;
    case 1:
        head_from(in, false, step);
        break;
    case 2:
        trailers_from(in, step);
        break;
    default:
        body_from(in, step);
        break;
    }
    return 0;
}
