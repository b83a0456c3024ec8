/* Handshakes of one proxy worker, made by weft-tls.
 *
 *   WAITING --link is up and there is room--> ASKED <--more bytes / nothing in flight-->
 * READING |                                        |                                          |
 *      '------------------ done, failed, timeout, conn gone, link lost --------------------'-->
 * ENDED
 *
 *   WAITING  in `queue`; weft-tls has not heard of it; the conn is paused
 *   ASKED    in `running`; a message is under way to weft-tls or being worked on; the conn is
 * paused READING  in `running`; weft-tls wants bytes; whatever the socket brings goes to it at
 * once ENDED    in no list; only on the stack of end(), so that a cancel from inside the
 * callback is harmless
 *
 * One message in flight per conn (invariant of the hand-over: nothing can be stranded in
 * weft-tls): the conn is paused while one is, so bytes and the end of the peer stay where they
 * are and reach the record layer or the next owner in order. */
#include "proxy/handshake/handshake.h"

#include "proxy/handshake/transport_header.h"
#include "proxy/net/conn.h"
#include "proxy/record/record.h"

#include "kit/hash.h"
#include "kit/list.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "kit/random.h"
#include "kit/timer.h"
#include "wire/dispatch.h"

#include <openssl/crypto.h>
#include <stdlib.h>

#define PIECE_MAX (16 * 1024) /* bytes of one message to weft-tls */
#define QUEUE_MAX 4096        /* handshakes that wait; beyond, a new one fails at once */
#define AGAIN_MS  20

enum handshake_state { HANDSHAKE_WAITING, HANDSHAKE_ASKED, HANDSHAKE_READING, HANDSHAKE_ENDED };

struct handshake {
    struct handshakes *all;
    uint64_t id;
    enum handshake_state state;
    struct list link;
    UT_hash_handle hh;
    struct conn *conn; /* lent by the caller until the callback */
    bool is_client, transport_alpn;
    char server_name[256];
    struct buf in; /* bytes for weft-tls that came before we owned the conn */
    struct timer timeout;
    handshake_done_fn *done;
    void *arg;
};

struct handshakes {
    struct handshakes_conf conf;
    struct mailbox *tls;
    bool is_up;
    bool is_ending; /* callbacks of the last ones may not start new ones */
    uint64_t next_id;
    struct list queue, running;
    unsigned n_queue, n_running;
    struct handshake *by_id; /* those in `running` */
    struct timer again;      /* a question found no memory */
    struct wire_desk desk;
};

static void start_waiting(struct handshakes *h);

/* ---- state ---- */

static void leave_list(struct handshake *hs)
{
    struct handshakes *h = hs->all;

    switch (hs->state) {
    case HANDSHAKE_WAITING:
        h->n_queue--;
        break;
    case HANDSHAKE_ASKED:
    case HANDSHAKE_READING:
        h->n_running--;
        HASH_DEL(h->by_id, hs);
        break;
    case HANDSHAKE_ENDED:
        break;
    }
    list_del(&hs->link);
}

static void enter(struct handshake *hs, enum handshake_state next)
{
    struct handshakes *h = hs->all;

    switch (next) {
    case HANDSHAKE_WAITING:
        list_push(&h->queue, &hs->link);
        h->n_queue++;
        conn_pause(hs->conn, PAUSE_OWNER);
        break;
    case HANDSHAKE_ASKED:
        if (hs->state == HANDSHAKE_WAITING) {
            leave_list(hs);
            list_push(&h->running, &hs->link);
            h->n_running++;
            HASH_ADD(hh, h->by_id, id, sizeof(hs->id), hs);
        }
        conn_pause(hs->conn, PAUSE_OWNER);
        break;
    case HANDSHAKE_READING:
        conn_resume(hs->conn, PAUSE_OWNER);
        break;
    case HANDSHAKE_ENDED:
        leave_list(hs);
        timer_stop(&hs->timeout);
        break;
    }
    hs->state = next;
}

static void free_one(struct handshake *hs)
{
    timer_stop(&hs->timeout);
    buf_done(&hs->in);
    free(hs);
}

/* Takes the conn out of our hands and tells the caller. */
static void end(struct handshake *hs, const struct handshake_result *result)
{
    struct handshakes *h = hs->all;
    struct conn *c = hs->conn;

    enter(hs, HANDSHAKE_ENDED);
    if (c != NULL)
        conn_own(c, NULL, NULL);
    hs->done(hs->arg, c, result);
    free_one(hs);
    start_waiting(h);
}

static void fail(struct handshake *hs, const char *code, const char *why)
{
    struct handshake_result result = {.code = code, .why = why};

    end(hs, &result);
}

/* ---- to weft-tls ---- */

static void tell_close(const struct handshake *hs)
{
    struct wire_handshake_close msg = {.id = hs->id};

    if (hs->state != HANDSHAKE_ASKED && hs->state != HANDSHAKE_READING)
        return;
    if (WIRE_SEND(hs->all->tls, slice(NULL, 0), handshake_close, &msg) != OK)
        return; /* weft-tls drops the handshake at its own timeout */
}

static slice_t piece_of(slice_t bytes)
{
    return slice(bytes.p, bytes.n < PIECE_MAX ? bytes.n : PIECE_MAX);
}

static err_t send_open(struct handshake *hs)
{
    struct wire_handshake_open msg = {.id = hs->id,
                                      .role = hs->is_client ? 1 : 0,
                                      .server_name = slice_str(hs->server_name),
                                      .transport_alpn = hs->transport_alpn,
                                      .bytes = piece_of(buf_slice(&hs->in))};

    TRY(WIRE_SEND(hs->all->tls, slice(NULL, 0), handshake_open, &msg));
    buf_consume(&hs->in, msg.bytes.n);
    return OK;
}

static err_t send_bytes(struct handshake *hs, slice_t bytes)
{
    struct wire_handshake_bytes msg = {.id = hs->id, .bytes = bytes};

    return WIRE_SEND(hs->all->tls, slice(NULL, 0), handshake_bytes, &msg);
}

/* Begins as many as there is room for. A failed send leaves the rest waiting: the link's return
 * goes on, or the timer, if it was memory that lacked. */
static void on_again(void *arg)
{
    start_waiting(arg);
}

static void start_waiting(struct handshakes *h)
{
    while (h->is_up && h->n_running < h->conf.max && !list_is_empty(&h->queue)) {
        struct handshake *hs = CONTAINER_OF(h->queue.next, struct handshake, link);

        if (send_open(hs) != OK) {
            timer_once(&h->again, AGAIN_MS);
            return;
        }
        enter(hs, HANDSHAKE_ASKED);
    }
}

/* weft-tls wants more: what we hold, else what the socket brings. */
static void more_wanted(struct handshake *hs)
{
    slice_t piece = piece_of(buf_slice(&hs->in));

    if (piece.n == 0) {
        enter(hs, HANDSHAKE_READING);
        return;
    }
    if (send_bytes(hs, piece) != OK) {
        fail(hs, "TLS_GONE", "weft-tls does not take messages");
        return;
    }
    buf_consume(&hs->in, piece.n);
}

/* ---- from weft-tls ---- */

static struct handshake *find(struct handshakes *h, uint64_t id)
{
    struct handshake *hs;

    HASH_FIND(hh, h->by_id, &id, sizeof(id), hs);
    return hs;
}

static void answer_bytes(void *arg, const struct wire_call *call)
{
    const struct wire_handshake_bytes *m = &call->msg->body.handshake_bytes;
    struct handshake *hs = find(arg, m->id);

    if (hs == NULL || hs->state != HANDSHAKE_ASKED) /* given up meanwhile */
        return;
    conn_write_raw(hs->conn, m->bytes);
    more_wanted(hs);
}

/* The words of handshake_failed that callers may compare with; anything else is MALFORMED. */
static const char *known_code(slice_t code)
{
    static const char *const codes[] = {"NO_CERTIFICATE_YET",
                                        "UNKNOWN_ISSUER",
                                        "WRONG_IDENTITY",
                                        "EXPIRED",
                                        "NO_CLIENT_CERTIFICATE",
                                        "NOT_TLS13",
                                        "ALERT",
                                        "BUSY",
                                        "TIMEOUT",
                                        "MALFORMED"};

    if (slice_is_str(code,
                     "UNKNOWN_ID")) /* weft-tls died and is back: it never heard of this one */
        return "TLS_GONE";
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (slice_is_str(code, codes[i]))
            return codes[i];
    }
    return "MALFORMED";
}

static void answer_failed(void *arg, const struct wire_call *call)
{
    const struct wire_handshake_failed *m = &call->msg->body.handshake_failed;
    struct handshake *hs = find(arg, m->id);
    char why[257];

    if (hs == NULL)
        return;
    conn_write_raw(hs->conn, m->out);
    if (!slice_to_cstr(m->why, why, sizeof(why)))
        why[0] = '\0';
    fail(hs, known_code(m->code), why);
}

static err_t protect(struct handshake *hs, const struct wire_handshake_done *m)
{
    struct record_conf conf = {.role = hs->is_client ? RECORD_CLIENT : RECORD_SERVER,
                               .suite = m->suite,
                               .client_secret = m->client_secret,
                               .server_secret = m->server_secret,
                               .rekey_after = hs->all->conf.rekey_after};
    struct record *rec = NULL;
    struct buf rest;
    err_t err;

    TRY(record_new(&conf, &rec));
    /* Behind the handshake: what weft-tls did not use, then what it was never given. */
    buf_init(&rest, 0);
    err = buf_add_slice(&rest, m->leftover);
    if (err == OK)
        err = buf_add_slice(&rest, buf_slice(&hs->in));
    if (err == OK)
        err = conn_protect(hs->conn, &rec, buf_slice(&rest));
    buf_done(&rest);
    record_free(&rec);
    return err;
}

/* The bytes lie in a message that is ours until this call returns, so that wiping them is
 * allowed. */
static void wipe(slice_t secret)
{
    OPENSSL_cleanse((void *)(uintptr_t)secret.p, secret.n);
}

static void answer_done(void *arg, const struct wire_call *call)
{
    const struct wire_handshake_done *m = &call->msg->body.handshake_done;
    struct handshake *hs = find(arg, m->id);
    err_t err = OK;

    if (hs != NULL && hs->state == HANDSHAKE_ASKED) {
        conn_write_raw(hs->conn, m->out); /* before anything of ours */
        err = protect(hs, m);
    }
    wipe(m->client_secret);
    wipe(m->server_secret);
    if (hs == NULL || hs->state != HANDSHAKE_ASKED)
        return;
    if (err != OK) {
        log_warn("handshake result refused", "reason=%s", err->name);
        fail(hs, "MALFORMED", err->text);
        return;
    }
    end(hs, &(struct handshake_result){.is_ok = true,
                                       .peer = m->peer,
                                       .alpn = m->alpn,
                                       .server_name = m->server_name,
                                       .peer_not_after_ms = m->peer_not_after_ms});
}

static const struct wire_permit permits[] = {
    {WIRE_handshake_bytes, answer_bytes, false},
    {WIRE_handshake_done, answer_done, false},
    {WIRE_handshake_failed, answer_failed, false},
};

static void on_msg(void *arg, const struct mailbox_msg *m)
{
    struct handshakes *h = arg;

    if (wire_dispatch(&h->desk, m, NULL, h) != OK)
        return; /* counted and logged by the desk; the handshake ends by its timeout */
}

static void on_link(void *arg, bool is_up)
{
    struct handshakes *h = arg;
    struct list gone;

    h->is_up = is_up;
    if (is_up) {
        start_waiting(h);
        return;
    }
    /* What it knew died with it. The list is moved first: callbacks may start new ones. */
    list_init(&gone);
    while (!list_is_empty(&h->running)) {
        struct list *node = h->running.next;

        list_del(node);
        list_push(&gone, node);
    }
    while (!list_is_empty(&gone))
        fail(CONTAINER_OF(gone.next, struct handshake, link), "TLS_GONE", "weft-tls restarted");
}

/* ---- from the conn and the clock ---- */

static size_t on_bytes(struct conn *c, slice_t bytes)
{
    struct handshake *hs = conn_owner(c);
    slice_t piece = piece_of(bytes);

    if (hs->state != HANDSHAKE_READING)
        return 0;
    if (send_bytes(hs, piece) != OK) {
        /* Bytes that are taken by nobody: the conn is given back failed. */
        fail(hs, "TLS_GONE", "weft-tls does not take messages");
        return 0;
    }
    enter(hs, HANDSHAKE_ASKED);
    return piece.n;
}

static void on_closed(struct conn *c, enum close_reason why)
{
    struct handshake *hs = conn_owner(c);

    tell_close(hs);
    hs->conn = NULL;
    fail(hs, "CLOSED", close_name(why));
}

static const struct conn_events events = {.on_bytes = on_bytes, .on_closed = on_closed};

static void on_timeout(void *arg)
{
    struct handshake *hs = arg;

    tell_close(hs);
    fail(hs, "TIMEOUT",
         hs->state == HANDSHAKE_WAITING ? "weft-tls had no time for it" : "took too long");
}

/* ---- public ---- */

err_t handshakes_new(const struct handshakes_conf *conf, struct handshakes **out)
{
    struct handshakes *h = calloc(1, sizeof(*h));
    struct mailbox_conf mail = {.kind = MAILBOX_DEALER,
                                .name = "tls",
                                .endpoint = conf->endpoint,
                                .max_bytes = WIRE_MESSAGE_MAX,
                                .on_msg = on_msg,
                                .on_link = on_link};
    err_t err;

    if (h == NULL)
        return ERR_OF(NOMEM);
    h->conf = *conf;
    h->conf.endpoint = NULL; /* lent for the call */
    if (h->conf.max == 0)
        h->conf.max = 1;
    list_init(&h->queue);
    list_init(&h->running);
    h->next_id = random_u64(); /* so that a message for a former life of ours meets nobody */
    h->desk = (struct wire_desk){.name = "tls",
                                 .me = WIRE_ROLE_PROXY,
                                 .from = WIRE_ROLE_TLS,
                                 .permits = permits,
                                 .n_permits = sizeof(permits) / sizeof(permits[0])};
    timer_init(&h->again, conf->base, on_again, h);
    mail.arg = h;
    err = mailbox_open(conf->base, &mail, &h->tls);
    if (err != OK) {
        free(h);
        return err;
    }
    *out = h;
    return OK;
}

void handshakes_free(struct handshakes **hp)
{
    struct handshakes *h = *hp;

    if (h == NULL)
        return;
    h->is_up = false;
    h->is_ending = true;
    while (!list_is_empty(&h->running))
        fail(CONTAINER_OF(h->running.next, struct handshake, link), "TLS_GONE",
             "the worker ends");
    while (!list_is_empty(&h->queue))
        fail(CONTAINER_OF(h->queue.next, struct handshake, link), "TLS_GONE",
             "the worker ends");
    timer_stop(&h->again);
    mailbox_close(&h->tls);
    free(h);
    *hp = NULL;
}

static err_t begin(struct handshakes *h, const struct handshake *from, slice_t first,
                   struct handshake **out)
{
    struct handshake *hs;

    if (h->is_ending || h->n_queue >= QUEUE_MAX)
        return ERR_OF(QUEUE_FULL);
    hs = malloc(sizeof(*hs));
    if (hs == NULL)
        return ERR_OF(NOMEM);
    *hs = *from;
    hs->all = h;
    hs->id = h->next_id++;
    list_init(&hs->link);
    buf_init(&hs->in, 0);
    if (buf_add_slice(&hs->in, first) != OK) {
        free(hs);
        return ERR_OF(NOMEM);
    }
    timer_init(&hs->timeout, h->conf.base, on_timeout, hs);
    timer_once(&hs->timeout, h->conf.timeout_ms);
    *out = hs; /* before anything can call back */
    conn_own(hs->conn, &events, hs);
    enter(hs, HANDSHAKE_WAITING);
    start_waiting(h);
    return OK;
}

err_t handshake_accept(struct handshakes *h, struct conn *c, slice_t first,
                       handshake_done_fn *done, void *arg, struct handshake **out)
{
    struct handshake from = {.conn = c, .done = done, .arg = arg};

    return begin(h, &from, first, out);
}

err_t handshake_connect(struct handshakes *h, struct conn *c, slice_t server_name,
                        bool transport_alpn, handshake_done_fn *done, void *arg,
                        struct handshake **out)
{
    struct handshake from = {.conn = c,
                             .is_client = true,
                             .transport_alpn = transport_alpn,
                             .done = done,
                             .arg = arg};

    if (server_name.n == 0 || server_name.n > 253 ||
        !slice_to_cstr(server_name, from.server_name, sizeof(from.server_name)))
        return ERR_OF(MALFORMED);
    return begin(h, &from, slice(NULL, 0), out);
}

void handshake_cancel(struct handshake **hsp)
{
    struct handshake *hs = *hsp;
    struct handshakes *h;

    *hsp = NULL;
    if (hs == NULL || hs->state == HANDSHAKE_ENDED)
        return;
    h = hs->all;
    tell_close(hs);
    enter(hs, HANDSHAKE_ENDED);
    conn_own(hs->conn, NULL, NULL);
    free_one(hs);
    start_waiting(h);
}
