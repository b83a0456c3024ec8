/* HPACK, writing (RFC 7541): fields become a block of bytes. Pure: no I/O, no knowledge of
 * HTTP.
 *
 * A head that looks like the last one of its connection costs a comparison per field and a byte
 * each: the encoder remembers which entry stood at each place. A field is put into the table
 * when it is seen for the second time, so that values that never repeat push nothing out; what
 * must not be guessable by its size is never put there (7.1). Strings are written plain: see
 * huffman.h. */
#ifndef PROXY_HTTP2_HPACK_ENCODE_H
#define PROXY_HTTP2_HPACK_ENCODE_H

#include "proxy/http2/hpack_table.h"

#define HPACK_SLOTS  128 /* of the two memories below; powers of two */
#define HPACK_PLACES 32  /* fields of a head whose entry is remembered */

struct hpack_encoder {
    struct hpack_table table;
    uint32_t smallest; /* of the limits since the last block: told first, if it is smaller than
                          the last */
    bool has_resized;
    uint32_t place[HPACK_PLACES]; /* number of the entry that the last head had here */
    struct hpack_slots *m;        /* NULL until the first field that may be indexed */
};

struct hpack_slots {
    uint32_t entry[HPACK_SLOTS]; /* number of the entry with this hash of name and value */
    uint32_t named[HPACK_SLOTS]; /* the last one with this hash of the name */
    uint32_t
        seen[HPACK_SLOTS]; /* hashes of fields that were written and are not in the table */
};

enum hpack_policy {
    HPACK_MAY_INDEX,
    HPACK_NO_INDEX,   /* written as it is: 6.2.2 */
    HPACK_NEVER_INDEX /* and no hop may: 6.2.3 */
};

struct hpack_out {
    slice_t name, value;  /* borrowed until hpack_encode returns */
    uint8_t policy;       /* enum hpack_policy */
    uint8_t static_entry; /* the static entry that says both; 0: none */
    uint8_t static_name;  /* one that says the name; 0: not known */
    bool is_hit;          /* hpack_plan: the table has it, so its bytes were sent before */
    uint32_t number;      /* of the entry */
};

/* What hpack_encode writes beyond the strings themselves. */
#define HPACK_FIELD_ROOM 18
#define HPACK_BLOCK_ROOM 12

void hpack_encoder_init(struct hpack_encoder *e);
void hpack_encoder_done(struct hpack_encoder *e);
/* The peer's SETTINGS_HEADER_TABLE_SIZE. */
void hpack_encoder_resize(struct hpack_encoder *e, uint32_t limit);

/* Looks fields up: sets is_hit and number. Nothing changes; a plan may be dropped. Returns the
 * bytes that hpack_encode needs at most. */
size_t hpack_plan(const struct hpack_encoder *e, struct hpack_out *fields, size_t n);
/* Writes the planned fields; returns the number of bytes. From here on the peer must get them.
 */
size_t hpack_encode(struct hpack_encoder *e, const struct hpack_out *fields, size_t n,
                    uint8_t *out);

#endif
