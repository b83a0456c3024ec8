/* The same heads through both pairs: our encoder into nghttp2's inflater, nghttp2's deflater
 * into our decoder. Everything that goes in comes out, in order.
 *
 * The input is a program: a byte says what follows.
 *   0xff          the head is complete
 *   0xfe b        the table gets b * 16 bytes (b * 17 for the odd ones)
 *   otherwise     a field: bits 0..1 the policy, bits 2..4 where its name is from, then lengths
 * and bytes */
#include "kit/err.h"
#include "proxy/http2/hpack_decode.h"
#include "proxy/http2/hpack_encode.h"

#include <nghttp2/nghttp2.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MUST(cond)                                                                             \
    do {                                                                                       \
        if (!(cond))                                                                           \
            abort();                                                                           \
    } while (0)
#define FIELDS 40

struct run {
    struct hpack_encoder e;
    struct hpack_decoder d;
    nghttp2_hd_deflater *deflater;
    nghttp2_hd_inflater *inflater;
    struct hpack_out fields[FIELDS];
    size_t n;
};

static void into_nghttp2(struct run *r)
{
    size_t room = hpack_plan(&r->e, r->fields, r->n), got;
    uint8_t *block = malloc(room);
    slice_t in;

    MUST(block != NULL);
    got = hpack_encode(&r->e, r->fields, r->n, block);
    MUST(got <= room);
    in = slice(block, got);
    for (size_t i = 0;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t used = nghttp2_hd_inflate_hd2(r->inflater, &nv, &flags, in.p, in.n, 1);

        MUST(used >= 0);
        in = slice(in.p + used, in.n - (size_t)used);
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0) {
            MUST(i < r->n && slice_is(slice(nv.name, nv.namelen), r->fields[i].name) &&
                 slice_is(slice(nv.value, nv.valuelen), r->fields[i].value));
            MUST(((nv.flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0) ==
                 (r->fields[i].policy == HPACK_NEVER_INDEX));
            i++;
        }
        if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
            MUST(i == r->n && nghttp2_hd_inflate_end_headers(r->inflater) == 0);
            break;
        }
    }
    free(block);
}

static void from_nghttp2(struct run *r)
{
    nghttp2_nv nv[FIELDS];
    uint8_t *block;
    size_t room;
    ssize_t got;
    struct hpack_field f;
    slice_t in;

    for (size_t i = 0; i < r->n; i++)
        nv[i] = (nghttp2_nv){
            .name = (uint8_t *)(uintptr_t)r->fields[i].name.p,
            .value = (uint8_t *)(uintptr_t)r->fields[i].value.p,
            .namelen = r->fields[i].name.n,
            .valuelen = r->fields[i].value.n,
            .flags = r->fields[i].policy == HPACK_NEVER_INDEX ? NGHTTP2_NV_FLAG_NO_INDEX : 0};
    room = nghttp2_hd_deflate_bound(r->deflater, nv, r->n);
    block = malloc(room + 1);
    MUST(block != NULL);
    got = nghttp2_hd_deflate_hd(r->deflater, block, room, nv, r->n);
    MUST(got >= 0);
    in = slice(block, (size_t)got);
    hpack_decode_begin(&r->d, in.n);
    for (size_t i = 0; i < r->n; i++) {
        MUST(hpack_decode(&r->d, &in, &f) == HPACK_FIELD);
        MUST(slice_is(f.name, r->fields[i].name) && slice_is(f.value, r->fields[i].value));
    }
    MUST(hpack_decode(&r->d, &in, &f) == HPACK_END);
    free(block);
}

static void resize(struct run *r, uint8_t by)
{
    uint32_t limit = (uint32_t)by * (by % 2 == 0 ? 16 : 17);

    if (limit > HPACK_TABLE_MAX)
        limit = HPACK_TABLE_MAX;
    hpack_encoder_resize(&r->e, limit);
    MUST(nghttp2_hd_inflate_change_table_size(r->inflater, limit) == 0);
    MUST(nghttp2_hd_deflate_change_table_size(r->deflater, limit) == 0);
}

static slice_t take(slice_t *in, size_t n)
{
    slice_t s = slice(in->p, n < in->n ? n : in->n);

    *in = slice_skip(*in, n);
    return s;
}

static void add(struct run *r, uint8_t op, slice_t *in)
{
    static const char *const names[] = {":path", "content-type", "x-a",    "authorization",
                                        "x-b",   "cookie",       ":status"};
    struct hpack_out *f = &r->fields[r->n++];
    size_t len = in->n > 0 ? take(in, 1).p[0] : 0;

    *f = (struct hpack_out){.policy = (op & 3) % 3};
    if ((op >> 2 & 7) < 7)
        f->name = slice_str(names[op >> 2 & 7]);
    else
        f->name = take(in, len % 16);
    f->value = take(in, len >> 4 == 15 ? len * 16 : len >> 4);
    if (f->value.p == NULL)
        f->value = SLICE_LIT("");
    if (f->name.n == 0)
        f->name = SLICE_LIT("x");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct run r = {.n = 0};
    slice_t in = slice(data, n);

    MUST(nghttp2_hd_inflate_new(&r.inflater) == 0);
    MUST(nghttp2_hd_deflate_new(&r.deflater, HPACK_TABLE_MAX) == 0);
    hpack_encoder_init(&r.e);
    hpack_decoder_init(&r.d, HPACK_TABLE_MAX);
    while (in.n > 0) {
        uint8_t op = take(&in, 1).p[0];

        if (op == 0xfe && in.n > 0) {
            if (r.n == 0)
                resize(&r, take(&in, 1).p[0]);
        } else if (op != 0xff && r.n < FIELDS) {
            add(&r, op, &in);
            continue;
        }
        if (r.n == 0)
            continue;
        into_nghttp2(&r);
        from_nghttp2(&r);
        r.n = 0;
    }
    hpack_encoder_done(&r.e);
    hpack_decoder_done(&r.d);
    nghttp2_hd_inflate_del(r.inflater);
    nghttp2_hd_deflate_del(r.deflater);
    return 0;
}
