/* Reader and writer of Linkerd's transport header: three protobuf fields, read by a bounded
 * cursor.
 *
 * A message of this size needs no protobuf library. What the reader does with odd input is what
 * Linkerd's does: the last of a repeated field wins, unknown fields are skipped, a known field
 * of the wrong wire type is an error. Groups (wire types 3 and 4), which nobody has sent for
 * years, are refused. */
#include "proxy/handshake/transport_header.h"

#include <string.h>

#define PREFACE      TRANSPORT_ALPN "\r\n\r\n"
#define PREFACE_LEN  (sizeof(PREFACE) - 1)
#define LENGTH_LEN   4
#define NAME_MAX_LEN 255

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
enum field { FIELD_PORT = 1, FIELD_NAME = 2, FIELD_SESSION = 3 };
enum kind { KIND_HTTP1 = 1, KIND_HTTP2 = 2 };

_Static_assert(PREFACE_LEN == 23, "the preface of the wire");

/* ---- writing ---- */

static size_t put_varint(uint8_t *p, uint32_t v)
{
    size_t n = 0;

    while (v >= 0x80) {
        p[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    p[n++] = (uint8_t)v;
    return n;
}

err_t transport_header_print(const struct transport_header *h, struct buf *out)
{
    uint8_t before[16], after[8];
    size_t nb = 0, na = 0, n;
    uint8_t *p;

    if (h->port == 0)
        return ERR_OF(MALFORMED);
    if (h->name.n > NAME_MAX_LEN)
        return ERR_OF(TOO_BIG);
    before[nb++] = FIELD_PORT << 3 | WIRE_VARINT;
    nb += put_varint(before + nb, h->port);
    if (h->name.n > 0) {
        before[nb++] = FIELD_NAME << 3 | WIRE_BYTES;
        nb += put_varint(before + nb, (uint32_t)h->name.n);
    }
    if (h->session != SESSION_OPAQUE) {
        after[na++] = FIELD_SESSION << 3 | WIRE_BYTES;
        after[na++] = 2;
        after[na++] = (uint8_t)((h->session == SESSION_HTTP1 ? KIND_HTTP1 : KIND_HTTP2) << 3 |
                                WIRE_BYTES);
        after[na++] = 0;
    }
    n = nb + h->name.n + na;
    p = buf_reserve(out, PREFACE_LEN + LENGTH_LEN + n);
    if (p == NULL)
        return out->max != 0 ? ERR_OF(TOO_BIG) : ERR_OF(NOMEM);
    memcpy(p, PREFACE, PREFACE_LEN);
    p += PREFACE_LEN;
    p[0] = p[1] = 0; /* n < 64 Ki */
    p[2] = (uint8_t)(n >> 8);
    p[3] = (uint8_t)n;
    p += LENGTH_LEN;
    memcpy(p, before, nb);
    if (h->name.n > 0)
        memcpy(p + nb, h->name.p, h->name.n);
    memcpy(p + nb + h->name.n, after, na);
    buf_commit(out, PREFACE_LEN + LENGTH_LEN + n);
    return OK;
}

/* ---- reading ---- */

static bool take_varint(slice_t *in, uint64_t *out)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < 10 && i < in->n; i++) {
        uint8_t b = in->p[i];

        if (i == 9 && b > 1) /* more than 64 bits */
            return false;
        v |= (uint64_t)(b & 0x7f) << (7 * i);
        if ((b & 0x80) == 0) {
            *in = slice_skip(*in, i + 1);
            *out = v;
            return true;
        }
    }
    return false;
}

/* A field: its number, and its value as a number or as bytes. */
struct value {
    uint64_t field;
    enum wire_type type;
    uint64_t number;
    slice_t bytes;
};

static bool take_bytes(slice_t *in, uint64_t n, slice_t *out)
{
    if (n > in->n)
        return false;
    *out = slice(in->p, (size_t)n);
    *in = slice_skip(*in, (size_t)n);
    return true;
}

static bool take_value(slice_t *in, struct value *v)
{
    uint64_t key, n;

    if (!take_varint(in, &key) || key >> 3 == 0 || key >> 3 > 536870911)
        return false;
    v->field = key >> 3;
    v->number = 0;
    v->bytes = slice(NULL, 0);
    switch (key & 7) {
    case WIRE_VARINT:
        v->type = WIRE_VARINT;
        return take_varint(in, &v->number);
    case WIRE_FIXED64:
        v->type = WIRE_FIXED64;
        return take_bytes(in, 8, &v->bytes);
    case WIRE_BYTES:
        v->type = WIRE_BYTES;
        return take_varint(in, &n) && take_bytes(in, n, &v->bytes);
    case WIRE_FIXED32:
        v->type = WIRE_FIXED32;
        return take_bytes(in, 4, &v->bytes);
    default:
        return false;
    }
}

/* It becomes a label, a log word and a name to look up: visible ASCII only. */
static bool name_is_sane(slice_t name)
{
    if (name.n > NAME_MAX_LEN)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] <= 0x20 || name.p[i] >= 0x7f)
            return false;
    }
    return true;
}

static bool take_session(slice_t in, enum session_protocol *out)
{
    struct value v;

    while (in.n > 0) {
        if (!take_value(&in, &v))
            return false;
        if (v.field != KIND_HTTP1 && v.field != KIND_HTTP2)
            continue;
        if (v.type != WIRE_BYTES)
            return false;
        *out = v.field == KIND_HTTP1 ? SESSION_HTTP1 : SESSION_HTTP2;
    }
    return true;
}

static bool take_message(slice_t in, struct transport_header *out)
{
    struct value v;

    *out = (struct transport_header){.session = SESSION_OPAQUE};
    while (in.n > 0) {
        if (!take_value(&in, &v))
            return false;
        switch (v.field) {
        case FIELD_PORT:
            if (v.type != WIRE_VARINT || v.number == 0 || v.number > 65535)
                return false;
            out->port = (uint16_t)v.number;
            break;
        case FIELD_NAME:
            if (v.type != WIRE_BYTES || !name_is_sane(v.bytes))
                return false;
            out->name = v.bytes;
            break;
        case FIELD_SESSION:
            if (v.type != WIRE_BYTES || !take_session(v.bytes, &out->session))
                return false;
            break;
        default:
            break;
        }
    }
    return out->port != 0;
}

enum step transport_header_parse(slice_t bytes, struct transport_header *out, size_t *used,
                                 err_t *why)
{
    size_t seen = bytes.n < PREFACE_LEN ? bytes.n : PREFACE_LEN;
    const uint8_t *p;
    size_t n;

    *why = ERR_OF(MALFORMED);
    if (seen > 0 && memcmp(bytes.p, PREFACE, seen) != 0)
        return STEP_FAILED;
    if (bytes.n < PREFACE_LEN + LENGTH_LEN)
        return STEP_LATER;
    p = bytes.p + PREFACE_LEN;
    n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
    if (n > TRANSPORT_HEADER_MAX) {
        *why = ERR_OF(TOO_BIG);
        return STEP_FAILED;
    }
    if (bytes.n - PREFACE_LEN - LENGTH_LEN < n)
        return STEP_LATER;
    if (!take_message(slice(p + LENGTH_LEN, n), out))
        return STEP_FAILED;
    *used = PREFACE_LEN + LENGTH_LEN + n;
    return STEP_DONE;
}
