/* HTTP/1 in the client role: one connection to a server, one request at a time.
 *
 *   IDLE --http_back_open--> OPEN --release, all framed and consumed--> IDLE
 *                             '--release otherwise, reset, failure----> the connection ends
 *
 *   IDLE   nobody's; a byte that comes now belongs to nothing and ends the connection (H1-32)
 *   OPEN   an exchange has the stream; `answer` says what is read next
 *
 * Within OPEN, the answer: AWAIT_HEAD --final head--> CONTENT --its end--> DONE; or, after 101
 * or a 2xx to CONNECT, TUNNEL. The request is written as it is sent, independent of this. A
 * connection is used again only if request and answer were both complete and unambiguous.
 */
#include "kit/clock.h"
#include "kit/timer.h"
#include "proxy/http/back.h"
#include "proxy/http/refusal.h"
#include "proxy/http1/body.h"
#include "proxy/http1/sent.h"
#include "proxy/http1/write.h"
#include "proxy/net/conn.h"

#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define CLIENT_MAGIC    0x68316376u
#define INTERIM_MAX     10 /* 1xx heads per answer */
#define READ_MAX        (64 * 1024)
#define IDLE_RELEASE_MS 2000
/* A connection that was idle for less than this is used without a look at its socket: had it ended before, the
 * loop would most likely have said so, and who finds out by writing is told in time (is_unread). */
#define LOOK_AFTER_MS 5

enum answer_state { AWAIT_HEAD, CONTENT, DONE, TUNNEL };

enum out_framing { OUT_NOTHING, OUT_LENGTH, OUT_CHUNKED, OUT_RAW, OUT_HELD };

struct h1_client {
    struct http_back b; /* first */
    uint32_t magic;
    struct stream s;
    struct h1_scan scan;
    struct body in;
    struct buf scratch; /* heads are printed here */
    struct buf held;    /* what is sent behind CONNECT before there is a tunnel (OUT_HELD) */
    struct sent sent;
    struct timer timer; /* IDLE: gives memory back; closes what was found stale */
    bool is_reading;    /* on_bytes is on the stack */
    bool closes_soon;   /* the timer closes the connection with `close_why` */
    int close_why;

    /* of the request in hand */
    bool is_live;
    enum answer_state answer;
    enum out_framing out;
    uint64_t out_left;
    uint64_t began_at; /* sent.handed when the request began */
    uint64_t began_wire;    /* conn_info's bytes_out then */
    uint64_t idle_since_ms; /* IDLE */
    bool began_used;   /* the connection had served a request before */
    bool is_unread;    /* its end proves that no byte of the request was */
    bool is_head_sent, is_request_done;
    bool is_head_method, is_connect, wants_upgrade;
    bool any_received;
    bool may_reuse;
    bool holds_finish; /* OUT_HELD: and then the end */
    unsigned interim;
    size_t outstanding;
};

static struct h1_client *client_from(void *arg)
{
    struct h1_client *cl = arg;

    BUG_ON(cl == NULL || cl->magic != CLIENT_MAGIC);
    return cl;
}

static struct h1_client *client_of(struct stream *s)
{
    struct h1_client *cl = client_from(CONTAINER_OF(s, struct h1_client, s));

    BUG_ON(!cl->is_live); /* an op after release, reset or on_failed */
    return cl;
}

static struct h1_client *client_of_back(struct http_back *b)
{
    return client_from(CONTAINER_OF(b, struct h1_client, b));
}

static void write_bytes(struct h1_client *cl, slice_t bytes)
{
    cl->sent.handed += bytes.n;
    conn_write(cl->b.conn, bytes);
}

/* ---- failing ---- */

/* The server has finished (FIN) and not a byte of the request is acknowledged: it had ended its side before the request
 * reached it, so no application has read or will answer it. (A FIN acknowledges what came before it. A reset proves
 * nothing: its acknowledgement is not looked at, and it also ends connections whose request was read in part.) */
static bool is_unread(const struct h1_client *cl)
{
    uint64_t sent = conn_info(cl->b.conn)->bytes_out - cl->began_wire;
    int unacknowledged = 0;

    return cl->began_used && !cl->any_received &&
           ioctl(conn_fd(cl->b.conn), SIOCOUTQ, &unacknowledged) == 0 && unacknowledged >= 0 &&
           (uint64_t)unacknowledged >= sent;
}

/* Ends the stream with its last event; the connection is closed by the caller. */
static void stream_fail(struct h1_client *cl, enum stream_error error, const char *code,
                        const char *text)
{
    struct stream_failure f = {
        .error = error,
        .code = code,
        .text = text,
        .any_sent = cl->sent.left > cl->began_at && !cl->is_unread,
        .any_received = cl->any_received,
        .was_idle_conn = cl->began_used,
    };

    if (!cl->is_live)
        return;
    cl->is_live = false;
    cl->b.running = 0;
    cl->s.events->on_failed(cl->s.arg, &cl->s, &f);
}

/* `field` is at fault (may be empty). */
static void answer_is_bad(struct h1_client *cl, enum refusal why, slice_t field)
{
    http_back_set_retired(&cl->b);
    stream_fail(cl, why == REFUSED_NO_MEMORY ? STREAM_INTERNAL : STREAM_MALFORMED,
                refusal_code(why, true)->name,
                cl->is_live ? refusal_text_for(why, field, cl->s.arena) : refusal_text(why));
    conn_close(cl->b.conn, CLOSE_BAD_PROTOCOL);
}

/* ---- reading ---- */

/* The answer ends here; `rest` came behind it in the same piece and belongs to nothing. Decided
 * before the exchange hears of the end: it may lend the connection again inside of that call,
 * and the next request must never be answered by these bytes (H1-32). A complete answer stays
 * valid. */
static void answer_ends(struct h1_client *cl, slice_t rest)
{
    cl->answer = DONE;
    if (rest.n == 0)
        return;
    cl->may_reuse = false;
    cl->closes_soon = true;
    cl->close_why = CLOSE_BAD_PROTOCOL;
    http_back_set_retired(&cl->b);
}

/* How the content of a final answer is framed, RFC 9112 6.3. */
static enum refusal start_content(struct h1_client *cl, struct head *h)
{
    bool is_empty = cl->is_head_method || h->status == 204 || h->status == 304;

    cl->answer = CONTENT;
    cl->may_reuse = h->is_keep_alive && cl->may_reuse;
    if (h->status == 204 && (h->is_chunked || h->content_length > 0))
        return REFUSED_FRAMING;
    if (is_empty)
        body_start_none(&cl->in);
    else if (h->is_chunked)
        body_start_chunked(&cl->in);
    else if (h->content_length >= 0)
        body_start_length(&cl->in, (uint64_t)h->content_length);
    else
        body_start_until_close(&cl->in);
    if (cl->in.framing == BODY_UNTIL_CLOSE)
        cl->may_reuse = false;
    if (h->status == 204)
        h->content_length = -1;
    return REFUSED_NOTHING;
}

static void start_tunnel(struct h1_client *cl, struct head *h)
{
    slice_t held = buf_slice(&cl->held);

    cl->answer = TUNNEL;
    cl->out = OUT_RAW;
    cl->is_request_done = false;
    cl->may_reuse = false;
    h->content_length = -1; /* RFC 9110 9.3.6: framing fields of this answer mean nothing */
    h->is_chunked = false;
    body_start_raw(&cl->in);
    http_back_set_retired(&cl->b);
    write_bytes(cl, held);
    cl->sent.content += held.n;
    buf_done(&cl->held);
    if (cl->holds_finish)
        conn_finish(cl->b.conn);
}

/* Decides what a head means. REFUSED_NOTHING: it goes to the exchange. */
static enum refusal take_head(struct h1_client *cl, struct head *h, bool *is_end)
{
    *is_end = false;
    if (h->status == 101) {
        if (!cl->wants_upgrade || h->upgrade.n == 0)
            return REFUSED_INTERIM;
        start_tunnel(cl, h);
        return REFUSED_NOTHING;
    }
    if (h->status < 200) {
        /* RFC 9110 15.2: no content, whatever the fields say; but who states some is lying. */
        if (++cl->interim > INTERIM_MAX || h->version == HTTP_1_0)
            return REFUSED_INTERIM;
        if (h->is_chunked || h->content_length > 0)
            return REFUSED_FRAMING;
        return REFUSED_NOTHING;
    }
    if (cl->is_connect && h->status < 300) {
        start_tunnel(cl, h);
        return REFUSED_NOTHING;
    }
    if (start_content(cl, h) != REFUSED_NOTHING)
        return REFUSED_FRAMING;
    *is_end = body_is_done(&cl->in);
    return REFUSED_NOTHING;
}

static bool read_head(struct h1_client *cl, slice_t *in)
{
    enum refusal why = REFUSED_NOTHING;
    struct arena *a = cl->s.arena;
    struct head *h;
    slice_t copy;
    size_t n = 0;
    bool is_end;

    switch (h1_scan_section(&cl->scan, *in, true, &cl->b.conf.limits, &n, &why)) {
    case STEP_DONE:
        break;
    case STEP_LATER:
        return false;
    case STEP_FAILED:
        answer_is_bad(cl, why, h1_scan_culprit(&cl->scan, *in, true));
        return false;
    }
    cl->scan = (struct h1_scan){0};
    copy = arena_copy(a, slice(in->p, n));
    h = arena_alloc(a, sizeof(*h));
    why = copy.p == NULL || h == NULL ? REFUSED_NO_MEMORY
                                      : h1_parse_response(copy, a, h);
    if (why == REFUSED_NOTHING)
        why = take_head(cl, h, &is_end);
    if (why != REFUSED_NOTHING) {
        answer_is_bad(cl, why, slice(NULL, 0));
        return false;
    }
    head_strip_hop_by_hop(h);
    *in = slice_skip(*in, n);
    if (is_end)
        answer_ends(cl, *in);
    cl->s.events->on_head(cl->s.arg, &cl->s, h, is_end);
    return true;
}

static void deliver_trailers(struct h1_client *cl, slice_t section, slice_t rest)
{
    slice_t copy = arena_copy(cl->s.arena, section);
    struct head t;
    enum refusal why = copy.p == NULL ? REFUSED_NO_MEMORY
                                      : h1_parse_trailers(copy, cl->s.arena, &t);

    if (why != REFUSED_NOTHING) {
        answer_is_bad(cl, why, slice(NULL, 0));
        return;
    }
    answer_ends(cl, rest);
    cl->s.events->on_trailers(cl->s.arg, &cl->s, t.fields, t.n_fields);
}

/* Content without credit above which nothing more is read. */
static size_t may_be_ahead(const struct h1_client *cl)
{
    return cl->s.is_throttled ? 0 : STREAM_WINDOW - READ_MAX;
}

static void deliver(struct h1_client *cl, slice_t bytes, slice_t rest)
{
    bool is_end = body_is_done(&cl->in);

    cl->outstanding += bytes.n;
    if (is_end)
        answer_ends(cl, rest);
    if (cl->outstanding > may_be_ahead(cl))
        conn_pause(cl->b.conn, PAUSE_PEER_FULL);
    cl->s.events->on_body(cl->s.arg, &cl->s, bytes, is_end);
}

static bool read_content(struct h1_client *cl, slice_t *in)
{
    enum refusal why = REFUSED_NOTHING;
    slice_t out = {NULL, 0};

    switch (body_read(&cl->in, in, &cl->b.conf.limits, &out, &why)) {
    case BODY_MORE:
        return false;
    case BODY_DATA:
        deliver(cl, out, *in);
        return true;
    case BODY_SECTION:
        deliver_trailers(cl, out, *in);
        return true;
    case BODY_END:
        answer_ends(cl, *in);
        cl->s.events->on_body(cl->s.arg, &cl->s, slice(NULL, 0), true);
        return true;
    case BODY_BAD:
        answer_is_bad(cl, why, slice(NULL, 0));
        return false;
    }
    return false;
}

/* Bytes while nothing was asked, or behind a complete answer. */
static void on_stray(struct h1_client *cl)
{
    if (!cl->is_live) {
        http_back_set_retired(&cl->b);
        conn_close(cl->b.conn, CLOSE_BAD_PROTOCOL);
    } else if (!cl->is_head_sent) {
        answer_is_bad(cl, REFUSED_STRAY, slice(NULL, 0));
    } else {
        answer_ends(cl, SLICE_LIT("?"));
    }
}

static size_t on_bytes(struct conn *c, slice_t bytes)
{
    struct h1_client *cl = client_from(conn_owner(c));
    slice_t in = bytes;
    bool goes_on = true;

    cl->any_received = true;
    cl->is_reading = true;
    while (goes_on && in.n > 0 && !conn_is_closing(c)) {
        if (!cl->is_live || cl->answer == DONE || !cl->is_head_sent) {
            on_stray(cl);
            in.n = 0;
            break;
        }
        goes_on = cl->answer == AWAIT_HEAD ? read_head(cl, &in) : read_content(cl, &in);
        if (cl->outstanding > may_be_ahead(cl) && cl->is_live)
            break;
        if (cl->closes_soon && cl->close_why == CLOSE_BAD_PROTOCOL)
            in.n = 0; /* stray */
    }
    cl->is_reading = false;
    return conn_is_closing(c) || (!cl->is_live && cl->b.is_retired) ? bytes.n : bytes.n - in.n;
}

static void on_eof(struct conn *c, bool is_clean)
{
    struct h1_client *cl = client_from(conn_owner(c));

    if (cl->is_live && cl->answer == TUNNEL && is_clean) {
        cl->answer = DONE;
        cl->s.events->on_body(cl->s.arg, &cl->s, slice(NULL, 0), true);
        return;
    }
    http_back_set_retired(&cl->b);
    cl->may_reuse = false;
    if (cl->is_live && cl->in.framing == BODY_UNTIL_CLOSE && cl->answer == CONTENT &&
        is_clean) {
        body_start_none(&cl->in);
        cl->answer = DONE;
        cl->s.events->on_body(cl->s.arg, &cl->s, slice(NULL, 0), true);
        return;
    }
    if (cl->is_live && cl->answer == DONE)
        return; /* all of the answer is here; release closes */
    cl->is_unread = cl->is_live && is_clean && is_unread(cl);
    stream_fail(cl, STREAM_LOST, NULL,
                is_clean ? "the server closed before its answer was complete"
                         : "TLS ended without close_notify");
    conn_close(c, is_clean ? CLOSE_PEER_CLOSED : CLOSE_PEER_TRUNCATED);
}

static void on_sent(struct conn *c, size_t n)
{
    struct h1_client *cl = client_from(conn_owner(c));
    size_t content = sent_left(&cl->sent, n);

    if (content > 0 && cl->is_live)
        cl->s.events->on_sent(cl->s.arg, &cl->s, content);
}

static void on_closed(struct conn *c, enum close_reason why)
{
    struct h1_client *cl = client_from(conn_owner(c));

    timer_stop(&cl->timer);
    cl->b.is_retired = true; /* on_closed says it */
    stream_fail(cl, STREAM_LOST, NULL, close_name(why));
    if (cl->b.conf.on_closed != NULL)
        cl->b.conf.on_closed(cl->b.conf.arg, &cl->b, (int)why);
    buf_done(&cl->scratch);
    buf_done(&cl->held);
    cl->magic = 0;
    free(cl);
}

static const struct conn_events events = {
    .on_bytes = on_bytes,
    .on_eof = on_eof,
    .on_sent = on_sent,
    .on_closed = on_closed,
};

static void on_timer(void *arg)
{
    struct h1_client *cl = client_from(arg);

    if (cl->closes_soon && cl->is_live && cl->close_why == CLOSE_LIMIT) {
        stream_fail(cl, STREAM_INTERNAL, NULL, "the request head could not be written");
        conn_close(cl->b.conn, CLOSE_LIMIT);
    } else if (cl->closes_soon && !cl->is_live)
        conn_close_gently(cl->b.conn, (enum close_reason)cl->close_why);
    else if (!cl->is_live)
        buf_done(&cl->scratch);
}

/* ---- writing ---- */

static enum write_framing choose_framing(struct h1_client *cl, struct head *h, bool is_end)
{
    static const char *const with_content[] = {"POST", "PUT", "PATCH"};

    cl->out = OUT_NOTHING;
    if (h->is_connect) {
        cl->out = OUT_HELD; /* nothing is written behind CONNECT before there is a tunnel */
        return WRITE_NONE;
    }
    if (is_end && h->content_length < 0) {
        for (size_t i = 0; i < sizeof(with_content) / sizeof(with_content[0]); i++)
            if (slice_is_str(h->method, with_content[i]))
                h->content_length = 0; /* RFC 9110 8.6 */
        if (h->content_length < 0)
            return WRITE_NONE;
    }
    if (h->content_length >= 0) {
        cl->out = OUT_LENGTH;
        cl->out_left = (uint64_t)h->content_length;
        return WRITE_LENGTH;
    }
    cl->out = OUT_CHUNKED;
    return WRITE_CHUNKED;
}

static void end_request(struct h1_client *cl)
{
    cl->is_request_done = true;
    if (cl->out == OUT_LENGTH && cl->out_left > 0)
        cl->may_reuse = false; /* the server waits for the rest; release closes */
}

static void client_send_head(struct stream *s, const struct head *from, bool is_end)
{
    struct h1_client *cl = client_of(s);
    struct head h = *from;
    struct write_head w = {.head = &h};

    BUG_ON(cl->is_head_sent);
    cl->is_head_sent = true;
    cl->is_connect = h.is_connect;
    cl->is_head_method = slice_is_str(h.method, "HEAD");
    cl->wants_upgrade = h.upgrade.n > 0;
    w.framing = choose_framing(cl, &h, is_end);
    /* Content of unknown length cannot be sent in HTTP/1.0. */
    w.version = h.version == HTTP_1_0 && w.framing != WRITE_CHUNKED ? HTTP_1_0 : HTTP_1_1;
    w.says_keep_alive = w.version == HTTP_1_0 && h.is_keep_alive;
    cl->may_reuse = w.version == HTTP_1_1 || w.says_keep_alive;
    buf_consume(&cl->scratch, buf_len(&cl->scratch));
    cl->began_at = cl->sent.handed;
    if (h1_print_request(&w, &cl->scratch)) {
        write_bytes(cl, buf_slice(&cl->scratch));
    } else {
        /* Nothing was written. The end comes from the loop, not inside of this call. */
        cl->may_reuse = false;
        cl->closes_soon = true;
        cl->close_why = CLOSE_LIMIT;
        cl->out = OUT_NOTHING;
        timer_once(&cl->timer, 0);
    }
    buf_consume(&cl->scratch, buf_len(&cl->scratch));
    if (is_end)
        end_request(cl);
}

static void hold(struct h1_client *cl, slice_t bytes, bool is_end)
{
    if (buf_add_slice(&cl->held, bytes) != OK) { /* more than any credit allows */
        cl->may_reuse = false;
        cl->closes_soon = true;
        cl->close_why = CLOSE_LIMIT;
        timer_once(&cl->timer, 0);
    }
    cl->holds_finish = cl->holds_finish || is_end;
}

static void client_send_body(struct stream *s, slice_t bytes, bool is_end)
{
    struct h1_client *cl = client_of(s);

    if (cl->out == OUT_HELD) {
        hold(cl, bytes, is_end);
        return;
    }
    if (cl->out == OUT_LENGTH && bytes.n > cl->out_left) {
        cl->may_reuse = false;
        bytes.n = (size_t)cl->out_left; /* never more than was promised */
    }
    if (bytes.n > 0 && cl->out != OUT_NOTHING) {
        cl->sent.content += bytes.n;
        cl->sent.handed += bytes.n;
        if (cl->out == OUT_CHUNKED)
            cl->sent.handed += h1_write_chunk(cl->b.conn, bytes);
        else
            conn_write(cl->b.conn, bytes);
        if (cl->out == OUT_LENGTH)
            cl->out_left -= bytes.n;
    }
    if (!is_end)
        return;
    if (cl->out == OUT_CHUNKED)
        cl->sent.handed += h1_write_last_chunk(cl->b.conn, &cl->scratch, NULL, 0);
    else if (cl->out == OUT_RAW)
        conn_finish(cl->b.conn);
    end_request(cl);
}

static void client_send_trailers(struct stream *s, const struct field *fields, size_t n)
{
    struct h1_client *cl = client_of(s);

    if (cl->out == OUT_CHUNKED) {
        cl->sent.handed += h1_write_last_chunk(cl->b.conn, &cl->scratch, fields, n);
        end_request(cl);
    } else {
        client_send_body(s, slice(NULL, 0), true);
    }
}

static void client_credit(struct stream *s, size_t n)
{
    struct h1_client *cl = client_of(s);

    cl->outstanding -= n < cl->outstanding ? n : cl->outstanding;
    if (cl->outstanding <= may_be_ahead(cl) / 2)
        conn_resume(cl->b.conn, PAUSE_PEER_FULL);
}

static void client_reset(struct stream *s, enum stream_error why)
{
    struct h1_client *cl = client_of(s);

    (void)why;
    cl->is_live = false;
    cl->b.running = 0;
    http_back_set_retired(&cl->b);
    conn_close(cl->b.conn, CLOSE_OTHER_SIDE);
}

static void client_release(struct stream *s)
{
    struct h1_client *cl = client_of(s);
    bool is_whole = cl->answer == DONE && cl->is_request_done && !cl->is_connect &&
                    (cl->out != OUT_LENGTH || cl->out_left == 0);

    cl->is_live = false;
    cl->b.running = 0;
    if (!is_whole || !cl->may_reuse || cl->b.is_retired) {
        http_back_set_retired(&cl->b);
        if (cl->closes_soon && cl->close_why == CLOSE_BAD_PROTOCOL)
            conn_close(cl->b.conn, CLOSE_BAD_PROTOCOL);
        else if (is_whole || cl->out == OUT_RAW)
            conn_close_gently(cl->b.conn,
                              cl->closes_soon ? (enum close_reason)cl->close_why : CLOSE_DONE);
        else
            conn_close(cl->b.conn, CLOSE_OTHER_SIDE);
        return;
    }
    cl->idle_since_ms = clock_now_ms();
    conn_resume(cl->b.conn, PAUSE_PEER_FULL);
    if (!timer_is_armed(&cl->timer))
        timer_once(&cl->timer, IDLE_RELEASE_MS);
    if (cl->b.conf.on_ready != NULL)
        cl->b.conf.on_ready(cl->b.conf.arg, &cl->b);
}

static const struct stream_ops ops = {
    .send_head = client_send_head,
    .send_body = client_send_body,
    .send_trailers = client_send_trailers,
    .reset = client_reset,
    .credit = client_credit,
    .release = client_release,
};

/* ---- slots ---- */

static unsigned client_free_slots(const struct http_back *b)
{
    return b->running == 0 ? 1 : 0;
}

static struct stream *client_open(struct http_back *b, struct arena *arena,
                                  const struct stream_events *stream_events, void *arg)
{
    struct h1_client *cl = client_of_back(b);

    if (cl->is_live || conn_is_closing(b->conn))
        return NULL;
    /* In the middle of reading, what came was looked at byte by byte. */
    if (b->was_used && !cl->is_reading && clock_now_ms() - cl->idle_since_ms >= LOOK_AFTER_MS &&
        conn_is_stale(b->conn)) {
        /* Closed from the loop: the caller is in the middle of choosing a connection. */
        cl->closes_soon = true;
        cl->close_why = CLOSE_PEER_CLOSED;
        timer_once(&cl->timer, 0);
        http_back_set_retired(b);
        return NULL;
    }
    cl->is_live = true;
    cl->began_used = b->was_used;
    cl->began_at = cl->sent.handed;
    cl->began_wire = conn_info(b->conn)->bytes_out;
    cl->is_unread = false;
    cl->answer = AWAIT_HEAD;
    cl->out = OUT_NOTHING;
    cl->out_left = 0;
    cl->scan = (struct h1_scan){0};
    cl->is_head_sent = cl->is_request_done = cl->any_received = cl->may_reuse = false;
    cl->is_head_method = cl->is_connect = cl->wants_upgrade = cl->holds_finish = false;
    cl->interim = 0;
    cl->outstanding = 0;
    sent_new_stream(&cl->sent);
    b->running = 1;
    b->was_used = true;
    cl->s = (struct stream){.ops = &ops,
                            .events = stream_events,
                            .arg = arg,
                            .conn = b->conn,
                            .arena = arena,
                            .version = HTTP_1_1};
    return &cl->s;
}

static void client_retire(struct http_back *b, int close_reason)
{
    struct h1_client *cl = client_of_back(b);

    cl->may_reuse = false;
    http_back_set_retired(b);
    if (!cl->is_live)
        conn_close_gently(b->conn, (enum close_reason)close_reason);
    else if (!cl->closes_soon) {
        cl->closes_soon = true;
        cl->close_why = close_reason;
    }
}

static const struct http_back_ops back_ops = {
    .open = client_open,
    .free_slots = client_free_slots,
    .retire = client_retire,
};

err_t http1_client_start(struct conn *c, const struct http_back_conf *conf,
                         struct http_back **out)
{
    struct h1_client *cl = calloc(1, sizeof(*cl));

    if (cl == NULL)
        return ERR_OF(NOMEM);
    cl->magic = CLIENT_MAGIC;
    cl->b = (struct http_back){.ops = &back_ops, .conf = *conf, .conn = c, .version = HTTP_1_1};
    buf_init(&cl->scratch, 0);
    buf_init(&cl->held, 2 * STREAM_WINDOW);
    timer_init(&cl->timer, net_base(conn_net(c)), on_timer, cl);
    sent_start(&cl->sent, conn_owed(c));
    conn_own(c, &events, cl);
    *out = &cl->b;
    return OK;
}
