/* HPACK, reading (RFC 7541): a block of bytes becomes fields, one per call. Pure: no I/O, no
 * knowledge of HTTP. */
#ifndef PROXY_HTTP2_HPACK_DECODE_H
#define PROXY_HTTP2_HPACK_DECODE_H

#include "proxy/http2/hpack_table.h"

struct hpack_decoder {
    struct hpack_table table;
    uint32_t limit;   /* what our SETTINGS allow the peer */
    unsigned resizes; /* table size updates of this block */
    bool has_field;   /* of this block: from here no update may come (RFC 7541 4.2) */
    size_t block_n;
    uint8_t *scratch; /* strings that came in Huffman's code */
    size_t scratch_n;
};

/* A field of a block. Name and value are valid until the next call for the decoder. */
struct hpack_field {
    slice_t name, value;
    uint16_t *note;     /* of the table's entry that this is now; NULL: it is none */
    uint16_t name_note; /* of the entry whose name it has; 0: none, or nothing was noted */
    bool is_static_name, is_static; /* the name, or both: bytes that stay for ever */
    bool is_sensitive; /* came as "never indexed" and has to be passed on so (RFC 7541 7.1.3) */
};

enum hpack_got {
    HPACK_FIELD,
    HPACK_END,      /* of the block */
    HPACK_BROKEN,   /* not HPACK: a connection error COMPRESSION_ERROR; the decoder is of no use
                       any more */
    HPACK_NO_MEMORY /* the same for us */
};

void hpack_decoder_init(struct hpack_decoder *d, uint32_t limit);
void hpack_decoder_done(struct hpack_decoder *d);
/* Gives back memory that the next block can do without. */
void hpack_decoder_release(struct hpack_decoder *d);

/* A block of n bytes follows. */
void hpack_decode_begin(struct hpack_decoder *d, size_t n);
/* Takes the next field off the block. *out is set with HPACK_FIELD only. */
MUST_USE enum hpack_got hpack_decode(struct hpack_decoder *d, slice_t *block,
                                     struct hpack_field *out);

#endif
