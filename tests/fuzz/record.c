/* Fuzz target of the record layer. Two ways in: raw bytes as they come from a socket, and (the
 * way that gets anywhere) inner plaintexts which the target itself seals with the right key, so
 * that everything behind the authentication is reached. First byte: role, suite, way and size
 * of the pieces. */
#include "proxy/record/record.h"
#include "proxy/record/half.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t secret_c[48] = {1}, secret_s[48] = {2};

/* The input as a list of (length byte, inner plaintext) sealed by the peer. False: no memory.
 */
static bool seal_inners(struct half *peer, const uint8_t *data, size_t size, struct buf *wire)
{
    while (size > 1) {
        size_t n = data[0] < size - 1 ? (size_t)data[0] : size - 1;
        uint8_t *rec = buf_reserve(wire, 5 + n + 1 + 16);

        if (rec == NULL)
            return false;
        memcpy(rec + 5, data + 1, n);
        if (n == 0)
            rec[5 + n++] = 23;
        if (half_seal(peer, rec, n) != OK)
            return false;
        buf_commit(wire, 5 + n + 16);
        /* A peer that keeps the rules changes its key behind a KeyUpdate. */
        if (n == 6 && data[1] == 24 && data[6] == 22 && half_update(peer) != OK)
            return false;
        n = data[0] < size - 1 ? (size_t)data[0] : size - 1;
        data += 1 + n;
        size -= 1 + n;
    }
    return true;
}

static void feed(struct record *r, struct buf *wire, size_t piece, struct buf *reply)
{
    size_t seen = 0;

    while (seen < buf_len(wire) || (seen > 0 && buf_len(wire) > 0)) {
        slice_t plain;
        size_t used;
        enum record_got got;

        if (seen < buf_len(wire))
            seen += piece < buf_len(wire) - seen ? piece : buf_len(wire) - seen;
        got = record_open(r, wire->mem + wire->head, seen, &used, &plain, reply);
        if (got == RECORD_DATA && record_seal(r, plain, reply) != OK) /* echo */
            abort();
        if (got == RECORD_BROKEN || got == RECORD_ALERT || got == RECORD_CLOSED)
            return;
        if (got == RECORD_MORE && seen == buf_len(wire))
            return;
        if (used > seen || (got != RECORD_MORE && used == 0))
            abort();
        buf_consume(wire, used);
        seen -= used;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct record_conf conf = {.rekey_after = 3};
    struct record *r;
    struct half peer;
    struct buf wire, reply;
    size_t secret_len, piece;
    bool is_sealed;

    if (size < 2)
        return 0;
    conf.role = (data[0] & 1) != 0 ? RECORD_CLIENT : RECORD_SERVER;
    conf.suite = (uint16_t)(0x1301 + ((data[0] >> 1) & 3) % 3);
    is_sealed = (data[0] & 8) != 0;
    piece = (size_t)(data[0] >> 4) * 3 + 1;
    secret_len = conf.suite == 0x1302 ? 48 : 32;
    conf.client_secret = slice(secret_c, secret_len);
    conf.server_secret = slice(secret_s, secret_len);
    if (record_new(&conf, &r) != OK)
        return 0;
    if (half_init(&peer, conf.suite,
                  conf.role == RECORD_SERVER ? conf.client_secret : conf.server_secret,
                  true) != OK)
        abort();
    buf_init(&wire, 0);
    buf_init(&reply, 0);
    if (is_sealed ? seal_inners(&peer, data + 1, size - 1, &wire)
                  : buf_add(&wire, data + 1, size - 1) == OK)
        feed(r, &wire, piece, &reply);
    half_done(&peer);
    record_free(&r);
    buf_done(&wire);
    buf_done(&reply);
    return 0;
}
