/* Arbitrary bytes as header blocks: our decoder beside nghttp2's. What both take they read
 * alike; a block that one of them refuses ends the connection, so the comparison ends there.
 *
 * The input is blocks, each behind two bytes of length. */
#include "proxy/http2/hpack_decode.h"
#include "kit/err.h"

#include <nghttp2/nghttp2.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MUST(cond)                                                                             \
    do {                                                                                       \
        if (!(cond))                                                                           \
            abort();                                                                           \
    } while (0)

/* The next field of the library. 1: a field, 0: the end, -1: refused. */
static int theirs(nghttp2_hd_inflater *i, slice_t *in, nghttp2_nv *nv)
{
    for (;;) {
        int flags = 0;
        ssize_t used = nghttp2_hd_inflate_hd2(i, nv, &flags, in->p, in->n, 1);

        if (used < 0)
            return -1;
        *in = slice(in->p + used, in->n - (size_t)used);
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0)
            return 1;
        if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0)
            return nghttp2_hd_inflate_end_headers(i) == 0 ? 0 : -1;
        if (used == 0 && in->n == 0)
            return -1;
    }
}

static bool same_block(struct hpack_decoder *d, nghttp2_hd_inflater *i, slice_t block)
{
    slice_t ours = block, other = block;
    struct hpack_field f;
    nghttp2_nv nv;

    hpack_decode_begin(d, block.n);
    for (;;) {
        enum hpack_got got = hpack_decode(d, &ours, &f);
        int their = theirs(i, &other, &nv);

        MUST(d->table.size <= d->table.limit && d->table.limit <= HPACK_TABLE_MAX);
        if (got == HPACK_BROKEN || their < 0)
            return false;
        MUST((got == HPACK_FIELD) == (their == 1));
        if (got == HPACK_END)
            return true;
        MUST(slice_is(f.name, slice(nv.name, nv.namelen)) &&
             slice_is(f.value, slice(nv.value, nv.valuelen)));
        MUST(f.is_sensitive == ((nv.flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0));
        if (f.note != NULL)
            *f.note = (uint16_t)f.name.n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct hpack_decoder d;
    nghttp2_hd_inflater *i = NULL;
    slice_t in = slice(data, n);
    bool goes_on = true;

    MUST(nghttp2_hd_inflate_new(&i) == 0);
    hpack_decoder_init(&d, HPACK_TABLE_MAX);
    while (goes_on && in.n > 2) {
        size_t len = (size_t)(in.p[0] << 8 | in.p[1]);

        in = slice_skip(in, 2);
        if (len > in.n)
            len = in.n;
        /* A copy of its own size, so that a byte read behind it is seen. */
        uint8_t *copy = malloc(len + 1);

        MUST(copy != NULL);
        memcpy(copy, in.p, len);
        uint8_t *exact = realloc(copy, len > 0 ? len : 1);

        MUST(exact != NULL);
        goes_on = same_block(&d, i, slice(exact, len));
        free(exact);
        in = slice_skip(in, len);
    }
    hpack_decoder_done(&d);
    nghttp2_hd_inflate_del(i);
    return 0;
}
