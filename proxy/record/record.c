/* The TLS 1.3 record layer behind a handshake (RFC 8446 section 5).
 *
 * The read side:   READING --close_notify--> CLOSED      (RFC: what follows is ignored)
 *                  READING --fatal alert---> ALERTED     (both directions are over)
 *                  READING --not valid-----> BROKEN      (our alert is in the reply; both are
 * over) The write side:  WRITING --close_notify or any alert, either way but the peer's
 * close_notify--> ended
 *
 * Every record that carries nothing for the application (empty, KeyUpdate, ticket,
 * user_canceled) counts as quiet; QUIET_MAX of them in a row break the connection, so a peer
 * cannot keep us busy for nothing.
 *
 * KeyUpdate. The peer's request is answered at once, in `reply`. While we have sent nothing
 * since our last answer, further requests are collected into one that goes out before our next
 * data (RFC 8446 4.6.3), so a peer that does not read cannot make our queue grow. Our own
 * updates say update_not_requested: the limit of the AEAD is per sender, and asking would make
 * a peer that only listens send updates without data for ever, which is what QUIET_MAX forbids.
 */
#include "proxy/record/record.h"

#include "proxy/record/half.h"

#include <openssl/crypto.h>
#include <stdlib.h>

#define REKEY_AFTER    (UINT64_C(1) << 24) /* below 2^24.5, RFC 8446 5.5 */
#define QUIET_MAX      32
#define MESSAGE_MAX    (64 * 1024) /* a handshake message behind the handshake, reassembled */
#define TICKET_MAX     (16 * 1024)
#define TICKETS_MAX    16
#define KEY_UPDATE_LEN (5 + 5 + 1 + 16)

#define ERR(name, cls, text) ERR_DEFINE(name, cls, text)
#include "proxy/record/tbl/errors.h"
#undef ERR

enum content {
    CONTENT_CCS = 20,
    CONTENT_ALERT = 21,
    CONTENT_HANDSHAKE = 22,
    CONTENT_DATA = 23
};
enum message { MESSAGE_TICKET = 4, MESSAGE_KEY_UPDATE = 24 };

enum alert {
    ALERT_CLOSE_NOTIFY = 0,
    ALERT_UNEXPECTED_MESSAGE = 10,
    ALERT_BAD_RECORD_MAC = 20,
    ALERT_RECORD_OVERFLOW = 22,
    ALERT_ILLEGAL_PARAMETER = 47,
    ALERT_DECODE_ERROR = 50,
    ALERT_INTERNAL_ERROR = 80,
    ALERT_USER_CANCELED = 90,
    ALERT_NONE = 255
};

enum reading { READING_ON, READING_CLOSED, READING_ALERTED, READING_BROKEN };

struct record {
    enum record_role role;
    struct half in, out;
    uint64_t rekey_after;
    enum reading reading;
    bool is_write_ended;
    bool answer_due; /* a KeyUpdate must go out before our next data */
    bool is_silent;  /* nothing sealed since our last answer to a KeyUpdate */
    uint8_t alert;
    unsigned quiet;     /* records without data in a row */
    unsigned tickets;   /* seen on this connection */
    struct buf message; /* a handshake message whose rest has not come */
    struct record_counters count;
};

err_t record_start(void)
{
    return half_start();
}

err_t record_new(const struct record_conf *conf, struct record **out)
{
    bool is_server = conf->role == RECORD_SERVER;
    struct record *r = calloc(1, sizeof(*r));
    err_t err;

    if (r == NULL)
        return ERR_OF(NOMEM);
    r->role = conf->role;
    r->rekey_after = conf->rekey_after != 0 ? conf->rekey_after : REKEY_AFTER;
    r->alert = ALERT_NONE;
    buf_init(&r->message, MESSAGE_MAX);
    err = half_init(&r->in, conf->suite, is_server ? conf->client_secret : conf->server_secret,
                    false);
    if (err == OK)
        err = half_init(&r->out, conf->suite,
                        is_server ? conf->server_secret : conf->client_secret, true);
    if (err != OK) {
        record_free(&r);
        return err;
    }
    *out = r;
    return OK;
}

void record_free(struct record **rp)
{
    struct record *r = *rp;

    if (r == NULL)
        return;
    half_done(&r->in);
    half_done(&r->out);
    buf_done(&r->message);
    OPENSSL_cleanse(r, sizeof(*r));
    free(r);
    *rp = NULL;
}

uint8_t record_alert(const struct record *r)
{
    return r->alert;
}

const struct record_counters *record_count(const struct record *r)
{
    return &r->count;
}

/* ---- sealing ---- */

/* One record of n (<= RECORD_PLAIN_MAX) bytes; there is room for it in `out` already, or it is
 * made here. */
static err_t seal_one(struct record *r, enum content type, const uint8_t *p, size_t n,
                      struct buf *out)
{
    uint8_t *rec = buf_reserve(out, n + RECORD_OVERHEAD);

    if (rec == NULL)
        return out->max != 0 ? ERR_OF(TOO_BIG) : ERR_OF(NOMEM);
    memcpy(rec + HALF_HEADER, p, n);
    rec[HALF_HEADER + n] = (uint8_t)type;
    TRY(half_seal(&r->out, rec, n + 1));
    buf_commit(out, n + RECORD_OVERHEAD);
    r->count.sealed++;
    return OK;
}

/* The announcement goes out under the old key, then the write side changes. */
static err_t seal_key_update(struct record *r, struct buf *out)
{
    static const uint8_t message[] = {MESSAGE_KEY_UPDATE, 0, 0, 1, 0};

    TRY(seal_one(r, CONTENT_HANDSHAKE, message, sizeof(message), out));
    r->count.key_updates_sent++;
    r->answer_due = false;
    return half_update(&r->out);
}

static err_t seal_data(struct record *r, slice_t plain, struct buf *out)
{
    while (plain.n > 0) {
        size_t n = plain.n < RECORD_PLAIN_MAX ? plain.n : RECORD_PLAIN_MAX;

        if (UNLIKELY(r->answer_due || r->out.seq >= r->rekey_after))
            TRY(seal_key_update(r, out));
        TRY(seal_one(r, CONTENT_DATA, plain.p, n, out));
        plain = slice_skip(plain, n);
    }
    return OK;
}

size_t record_sealed_len(size_t n)
{
    size_t records = (n + RECORD_PLAIN_MAX - 1) / RECORD_PLAIN_MAX;

    /* With a tiny rekey_after (tests) there may be a KeyUpdate before every record. */
    return n + records * (RECORD_OVERHEAD + KEY_UPDATE_LEN);
}

err_t record_seal(struct record *r, slice_t plain, struct buf *out)
{
    if (r->is_write_ended)
        return ERR_OF(RECORD_ENDED);
    if (plain.n == 0)
        return OK;
    /* All or nothing: a record that was sealed has used its number and must be sent. */
    if (buf_reserve(out, record_sealed_len(plain.n)) == NULL)
        return out->max != 0 ? ERR_OF(TOO_BIG) : ERR_OF(NOMEM);
    r->is_silent = false;
    return seal_data(r, plain, out);
}

static err_t seal_alert(struct record *r, enum alert alert, struct buf *out)
{
    const uint8_t content[2] = {alert == ALERT_CLOSE_NOTIFY ? 1 : 2, (uint8_t)alert};

    if (r->is_write_ended)
        return OK;
    r->is_write_ended = true;
    return seal_one(r, CONTENT_ALERT, content, sizeof(content), out);
}

err_t record_seal_close(struct record *r, struct buf *out)
{
    return seal_alert(r, ALERT_CLOSE_NOTIFY, out);
}

/* ---- opening ---- */

static enum record_got broken(struct record *r, enum alert alert, struct buf *reply)
{
    r->reading = READING_BROKEN;
    r->alert = (uint8_t)alert;
    /* Without room for the alert the connection ends without one. */
    (void)seal_alert(r, alert, reply);
    r->is_write_ended = true;
    return RECORD_BROKEN;
}

static enum record_got quiet(struct record *r, struct buf *reply)
{
    if (++r->quiet > QUIET_MAX)
        return broken(r, ALERT_UNEXPECTED_MESSAGE, reply);
    return RECORD_QUIET;
}

static enum record_got open_alert(struct record *r, slice_t inner, struct buf *reply)
{
    if (inner.n != 2)
        return broken(r, ALERT_DECODE_ERROR, reply);
    if (inner.p[1] == ALERT_USER_CANCELED)
        return quiet(r, reply);
    if (inner.p[1] == ALERT_CLOSE_NOTIFY) {
        r->reading = READING_CLOSED;
        return RECORD_CLOSED;
    }
    /* RFC 8446 6: whatever the level byte says. */
    r->reading = READING_ALERTED;
    r->alert = inner.p[1];
    r->is_write_ended = true;
    return RECORD_ALERT;
}

/* The alert to break with, or ALERT_NONE. */
static enum alert take_key_update(struct record *r, slice_t body, bool is_last,
                                  struct buf *reply)
{
    if (body.n != 1)
        return ALERT_DECODE_ERROR;
    if (body.p[0] > 1)
        return ALERT_ILLEGAL_PARAMETER;
    if (!is_last) /* RFC 8446 5.1: no message may straddle a change of keys */
        return ALERT_UNEXPECTED_MESSAGE;
    r->count.key_updates_received++;
    if (half_update(&r->in) != OK)
        return ALERT_INTERNAL_ERROR;
    if (body.p[0] == 0 || r->is_write_ended)
        return ALERT_NONE;
    if (r->is_silent) {
        r->answer_due = true;
        return ALERT_NONE;
    }
    r->is_silent = true;
    return seal_key_update(r, reply) == OK ? ALERT_NONE : ALERT_INTERNAL_ERROR;
}

static enum alert take_ticket(struct record *r, size_t n)
{
    if (r->role == RECORD_SERVER || n > TICKET_MAX || ++r->tickets > TICKETS_MAX)
        return ALERT_UNEXPECTED_MESSAGE;
    return ALERT_NONE;
}

/* Every whole message at the start of `bytes`; *taken is their length. */
static enum alert take_messages(struct record *r, slice_t bytes, size_t *taken,
                                struct buf *reply)
{
    *taken = 0;
    while (bytes.n >= 4) {
        size_t n = (size_t)bytes.p[1] << 16 | (size_t)bytes.p[2] << 8 | bytes.p[3];
        enum alert alert;

        /* Refused by the header alone, before any of it is kept. */
        if (bytes.p[0] == MESSAGE_KEY_UPDATE && n != 1)
            return ALERT_DECODE_ERROR;
        if (bytes.p[0] != MESSAGE_KEY_UPDATE && bytes.p[0] != MESSAGE_TICKET)
            return ALERT_UNEXPECTED_MESSAGE;
        if (bytes.p[0] == MESSAGE_TICKET && (r->role == RECORD_SERVER || n > TICKET_MAX))
            return ALERT_UNEXPECTED_MESSAGE;
        if (bytes.n - 4 < n)
            return ALERT_NONE;
        if (bytes.p[0] == MESSAGE_KEY_UPDATE)
            alert = take_key_update(r, slice(bytes.p + 4, n), bytes.n == 4 + n, reply);
        else
            alert = take_ticket(r, n);
        if (alert != ALERT_NONE)
            return alert;
        bytes = slice_skip(bytes, 4 + n);
        *taken += 4 + n;
    }
    return ALERT_NONE;
}

static enum record_got open_handshake(struct record *r, slice_t inner, struct buf *reply)
{
    size_t taken = 0;
    enum alert alert;

    if (inner.n == 0)
        return broken(r, ALERT_UNEXPECTED_MESSAGE, reply);
    if (buf_len(&r->message) == 0) {
        alert = take_messages(r, inner, &taken, reply);
        if (alert == ALERT_NONE && taken < inner.n &&
            buf_add_slice(&r->message, slice_skip(inner, taken)) != OK)
            alert = ALERT_INTERNAL_ERROR;
    } else if (buf_add_slice(&r->message, inner) != OK) {
        alert = ALERT_INTERNAL_ERROR;
    } else {
        alert = take_messages(r, buf_slice(&r->message), &taken, reply);
        buf_consume(&r->message, taken);
        buf_release(&r->message);
    }
    if (alert != ALERT_NONE)
        return broken(r, alert, reply);
    return quiet(r, reply);
}

/* The content of an opened record of n bytes behind the header, by its inner type. */
static enum record_got open_inner(struct record *r, uint8_t *p, size_t n, slice_t *plain,
                                  struct buf *reply)
{
    slice_t inner;
    uint8_t type;

    if (n > RECORD_PLAIN_MAX + 1)
        return broken(r, ALERT_RECORD_OVERFLOW, reply);
    while (n > 0 && p[n - 1] == 0) /* padding */
        n--;
    if (n == 0)
        return broken(r, ALERT_UNEXPECTED_MESSAGE, reply);
    type = p[n - 1];
    inner = slice(p, n - 1);
    if (type != CONTENT_HANDSHAKE && buf_len(&r->message) != 0)
        return broken(r, ALERT_UNEXPECTED_MESSAGE, reply);
    switch (type) {
    case CONTENT_DATA:
        if (inner.n == 0)
            return quiet(r, reply);
        r->quiet = 0;
        *plain = inner;
        return RECORD_DATA;
    case CONTENT_ALERT:
        return open_alert(r, inner, reply);
    case CONTENT_HANDSHAKE:
        return open_handshake(r, inner, reply);
    default:
        return broken(r, ALERT_UNEXPECTED_MESSAGE, reply);
    }
}

/* What is over stays over, however often it is asked. */
static enum record_got over(const struct record *r)
{
    switch (r->reading) {
    case READING_CLOSED:
        return RECORD_CLOSED;
    case READING_ALERTED:
        return RECORD_ALERT;
    case READING_BROKEN:
    case READING_ON:
        break;
    }
    return RECORD_BROKEN;
}

HOT enum record_got record_open(struct record *r, uint8_t *bytes, size_t n, size_t *consumed,
                                slice_t *plain, struct buf *reply)
{
    size_t len;

    *consumed = 0;
    *plain = slice(NULL, 0);
    if (UNLIKELY(r->reading != READING_ON)) {
        *consumed = n;
        return over(r);
    }
    if (n == 0)
        return RECORD_MORE;
    *consumed = n; /* of what is broken nothing is looked at again */
    /* Each byte of the header is judged as soon as it is there: garbage does not wait for a
     * fifth one. */
    if (bytes[0] != CONTENT_DATA)
        return broken(r, ALERT_UNEXPECTED_MESSAGE, reply);
    if (n < HALF_HEADER) {
        *consumed = 0;
        return RECORD_MORE;
    }
    len = (size_t)bytes[3] << 8 | bytes[4];
    if (len > RECORD_PLAIN_MAX + 256)
        return broken(r, ALERT_RECORD_OVERFLOW, reply);
    if (len < HALF_TAG + 1)
        return broken(r, ALERT_BAD_RECORD_MAC, reply);
    if (n - HALF_HEADER < len) {
        *consumed = 0;
        return RECORD_MORE;
    }
    *consumed = HALF_HEADER + len;
    if (!half_open(&r->in, bytes, len))
        return broken(r, ALERT_BAD_RECORD_MAC, reply);
    r->count.opened++;
    return open_inner(r, bytes + HALF_HEADER, len - HALF_TAG, plain, reply);
}
