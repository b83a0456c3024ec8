/* HTTP/1 in the server role: one connection of a client, one request at a time.
 *
 *   IDLE --first byte--> HEAD --head complete--> OPEN --release--> IDLE (or DRAIN, or the end)
 *                         '--refused, timeout--> answer, gentle close
 *
 *   IDLE   no byte of the next request has come; the stream is nobody's
 *   HEAD   a part of a head has come; the timer runs, absolute (slowloris)
 *   OPEN   the exchange has the stream; `in` says what is read, `out` what may be written
 *   DRAIN  the answer is complete, the request's content is read and dropped up to a limit
 *   CUT    the answer was cut short and its framing cannot show it: what is queued of it goes out, then a
 *          reset; what the client sends is dropped
 *
 * Pipelined requests stay in the conn (paused) until the stream is released, so answers are in
 * order by construction. Leaving OPEN is done in server_release, server_reset and stream_fail
 * only.
 */
#include "kit/clock.h"
#include "kit/timer.h"
#include "proxy/http/refusal.h"
#include "proxy/http/stream.h"
#include "proxy/http1/body.h"
#include "proxy/http1/sent.h"
#include "proxy/http1/write.h"
#include "proxy/net/conn.h"

#include <stdlib.h>

#define SERVER_MAGIC 0x68317376u
#define ARENA_MAX    (256 * 1024)
#define DRAIN_MAX                                                                              \
    (64 * 1024) /* unread content that is dropped to keep the connection (H1-31) */
#define READ_MAX        (64 * 1024) /* the conn's largest piece */
#define IDLE_RELEASE_MS 2000
#define CUT_WAIT_MS     2000 /* longest wait for a slow client before its cut answer is reset */

enum server_state { SERVER_IDLE, SERVER_HEAD, SERVER_OPEN, SERVER_DRAIN, SERVER_CUT };

enum out_framing {
    OUT_NOTHING, /* no final head was sent yet, or it has no content */
    OUT_LENGTH,  /* `out_left` bytes are due */
    OUT_CHUNKED,
    OUT_UNTIL_CLOSE,
    OUT_RAW /* a tunnel */
};

struct h1_server {
    uint32_t magic;
    enum server_state state;
    struct stream s;
    struct conn *c;
    struct http_front front;
    struct arena arena;
    struct h1_scan scan;
    struct body in;
    struct buf scratch; /* heads are printed here */
    struct sent sent;
    struct timer timer;
    uint64_t head_deadline_ms; /* HEAD */
    uint64_t idle_since_ms;    /* IDLE */
    bool saw_blank_line;       /* one empty line before a request is forgiven */
    bool is_head_timed;        /* HEAD: the timer stands at the deadline */
    bool is_draining;

    /* of the request in hand */
    struct head head;
    bool is_live;         /* the exchange has the stream */
    bool is_request_done; /* all of the request was delivered */
    bool is_answered;     /* the final head was sent */
    bool is_answer_done;  /* and all that follows it */
    bool said_continue;
    bool saw_content;
    bool is_tunnel;
    bool must_close; /* the connection ends with this request */
    bool is_cut;     /* the answer was cut short: never reuse */
    enum out_framing out;
    uint64_t out_left;
    size_t outstanding; /* delivered content without credit */
    size_t drained;
};

static struct h1_server *server_from(void *arg)
{
    struct h1_server *sv = arg;

    BUG_ON(sv == NULL || sv->magic != SERVER_MAGIC);
    return sv;
}

static struct h1_server *server_of(struct stream *s)
{
    struct h1_server *sv = server_from(CONTAINER_OF(s, struct h1_server, s));

    BUG_ON(!sv->is_live); /* an op after release, reset or on_failed */
    return sv;
}

static void write_bytes(struct h1_server *sv, slice_t bytes)
{
    sv->sent.handed += bytes.n;
    conn_write(sv->c, bytes);
}

static void arm(struct h1_server *sv, uint64_t ms)
{
    if (!timer_is_armed(&sv->timer))
        timer_once(&sv->timer, ms);
}

static void enter_idle(struct h1_server *sv)
{
    arena_reset(&sv->arena);
    sv->state = SERVER_IDLE;
    sv->scan = (struct h1_scan){0};
    sv->saw_blank_line = sv->is_head_timed = false;
    sv->idle_since_ms = clock_now_ms();
    arm(sv, IDLE_RELEASE_MS);
}

/* ---- refusing ---- */

/* The codec's own answer. Nothing of an answer may have been sent. The conn closes. */
static void answer_refusal(struct h1_server *sv, enum refusal why, slice_t field)
{
    struct head h;
    struct write_head w = {
        .head = &h, .framing = WRITE_LENGTH, .says_close = true, .version = HTTP_1_1};

    head_init(&h);
    if (refusal_fill_for(why, field, &sv->arena, &h) == OK) {
        buf_consume(&sv->scratch, buf_len(&sv->scratch));
        if (h1_print_response(&w, &sv->scratch))
            write_bytes(sv, buf_slice(&sv->scratch));
        buf_consume(&sv->scratch, buf_len(&sv->scratch));
    }
    conn_close_gently(sv->c, why == REFUSED_TIMEOUT     ? CLOSE_HEAD_TIMEOUT
                             : why == REFUSED_NO_MEMORY ? CLOSE_LIMIT
                                                        : CLOSE_BAD_PROTOCOL);
}

static void refuse_head(struct h1_server *sv, enum refusal why, slice_t field)
{
    if (sv->front.on_refused != NULL)
        sv->front.on_refused(sv->front.arg, sv->c, refusal_code(why, false)->name);
    arena_reset(&sv->arena);
    answer_refusal(sv, why, field);
}

/* Ends the stream with its last event. */
static void stream_fail(struct h1_server *sv, enum stream_error error, const char *code,
                        const char *text)
{
    struct stream_failure f = {.error = error, .code = code, .text = text};

    if (!sv->is_live)
        return;
    sv->is_live = false;
    sv->s.events->on_failed(sv->s.arg, &sv->s, &f);
}

static void refuse_body(struct h1_server *sv, enum refusal why)
{
    bool may_answer = !sv->is_answered;

    stream_fail(sv, STREAM_MALFORMED, refusal_code(why, false)->name, refusal_text(why));
    if (may_answer && sv->state == SERVER_OPEN)
        answer_refusal(sv, why, slice(NULL, 0));
    else
        conn_close(sv->c, CLOSE_BAD_PROTOCOL);
}

/* ---- reading ---- */

static void begin_stream(struct h1_server *sv)
{
    struct head *h = &sv->head;
    bool is_end;

    sv->is_request_done = sv->is_answered = sv->is_answer_done = sv->said_continue = false;
    sv->saw_content = sv->is_tunnel = sv->is_cut = false;
    sv->must_close = !h->is_keep_alive || sv->is_draining;
    sv->out = OUT_NOTHING;
    sv->out_left = 0;
    sv->outstanding = sv->drained = 0;
    sent_new_stream(&sv->sent);
    if (h->is_chunked)
        body_start_chunked(&sv->in);
    else
        body_start_length(&sv->in, h->content_length > 0 ? (uint64_t)h->content_length : 0);
    /* What follows CONNECT is for the other end of the tunnel, so the request has not ended
     * yet; nothing is read until there is a tunnel. */
    is_end = body_is_done(&sv->in) && !h->is_connect;
    sv->is_request_done = body_is_done(&sv->in);
    head_strip_hop_by_hop(h);
    sv->state = SERVER_OPEN;
    sv->is_live = true;
    sv->s.events = NULL;
    sv->front.on_stream(sv->front.arg, &sv->s);
    BUG_ON(sv->s.events == NULL);
    sv->s.events->on_head(sv->s.arg, &sv->s, h, is_end);
}

static bool read_head(struct h1_server *sv, slice_t *in)
{
    enum refusal why = REFUSED_NOTHING;
    slice_t copy;
    size_t n = 0;

    if (sv->state == SERVER_IDLE && !sv->saw_blank_line && in->n >= 2 && in->p[0] == '\r' &&
        in->p[1] == '\n') {
        sv->saw_blank_line = true; /* RFC 9112 2.2 */
        *in = slice_skip(*in, 2);
        return true;
    }
    if (sv->state == SERVER_IDLE && !(in->n == 1 && in->p[0] == '\r')) {
        sv->state = SERVER_HEAD;
        sv->head_deadline_ms = clock_now_ms() + sv->front.limits.header_timeout_ms;
    }
    switch (h1_scan_section(&sv->scan, *in, true, &sv->front.limits, &n, &why)) {
    case STEP_DONE:
        break;
    case STEP_LATER:
        if (sv->state == SERVER_IDLE) /* half an empty line: nothing has begun */
            sv->scan = (struct h1_scan){0};
        else if (!sv->is_head_timed)
            timer_once(&sv->timer, sv->front.limits.header_timeout_ms);
        sv->is_head_timed = sv->state == SERVER_HEAD;
        return false;
    case STEP_FAILED:
        refuse_head(sv, why, h1_scan_culprit(&sv->scan, *in, true));
        return false;
    }
    copy = arena_copy(&sv->arena, slice(in->p, n));
    why = copy.p == NULL ? REFUSED_NO_MEMORY
                         : h1_parse_request(copy, &sv->arena, &sv->head);
    if (why != REFUSED_NOTHING) {
        refuse_head(sv, why, slice(NULL, 0));
        return false;
    }
    *in = slice_skip(*in, n);
    begin_stream(sv);
    return true;
}

static void deliver(struct h1_server *sv, slice_t bytes)
{
    if (sv->state == SERVER_DRAIN) {
        sv->drained += bytes.n;
        if (sv->drained > DRAIN_MAX)
            conn_close_gently(sv->c, CLOSE_DONE);
        return;
    }
    sv->saw_content = true;
    sv->outstanding += bytes.n;
    sv->is_request_done = body_is_done(&sv->in);
    if (sv->outstanding > STREAM_WINDOW - READ_MAX)
        conn_pause(sv->c, PAUSE_PEER_FULL);
    sv->s.events->on_body(sv->s.arg, &sv->s, bytes, sv->is_request_done);
}

static void deliver_trailers(struct h1_server *sv, slice_t section)
{
    slice_t copy = arena_copy(&sv->arena, section);
    struct head t;
    enum refusal why = copy.p == NULL ? REFUSED_NO_MEMORY
                                      : h1_parse_trailers(copy, &sv->arena, &t);

    if (why != REFUSED_NOTHING)
        refuse_body(sv, why);
    else
        sv->s.events->on_trailers(sv->s.arg, &sv->s, t.fields, t.n_fields);
}

/* One piece of what follows a head. False: nothing more can be done with these bytes now. */
static bool read_body(struct h1_server *sv, slice_t *in)
{
    enum refusal why = REFUSED_NOTHING;
    slice_t out = {NULL, 0};

    if (sv->is_request_done) {
        /* The next request, or bytes meant for a tunnel that does not exist yet: they wait. */
        conn_pause(sv->c, PAUSE_OWNER);
        return false;
    }
    switch (body_read(&sv->in, in, &sv->front.limits, &out, &why)) {
    case BODY_MORE:
        return false;
    case BODY_DATA:
        deliver(sv, out);
        break;
    case BODY_SECTION:
        sv->is_request_done = true;
        if (sv->state == SERVER_OPEN)
            deliver_trailers(sv, out);
        break;
    case BODY_END:
        sv->is_request_done = true;
        if (sv->state == SERVER_OPEN)
            sv->s.events->on_body(sv->s.arg, &sv->s, slice(NULL, 0), true);
        break;
    case BODY_BAD:
        refuse_body(sv, why);
        return false;
    }
    if (sv->state == SERVER_DRAIN && body_is_done(&sv->in) && !conn_is_closing(sv->c))
        enter_idle(sv);
    return true;
}

static size_t on_bytes(struct conn *c, slice_t bytes)
{
    struct h1_server *sv = server_from(conn_owner(c));
    slice_t in = bytes;
    bool goes_on = true;

    if (sv->state == SERVER_CUT)
        return bytes.n;
    /* A zero-length chunk piece may end a body without bytes, hence the look at `in` first. */
    while (goes_on && in.n > 0 && !conn_is_closing(c) && sv->state != SERVER_CUT) {
        goes_on = sv->state == SERVER_IDLE || sv->state == SERVER_HEAD ? read_head(sv, &in)
                                                                       : read_body(sv, &in);
        if (sv->outstanding > STREAM_WINDOW - READ_MAX && sv->state == SERVER_OPEN)
            break;
    }
    return conn_is_closing(c) || sv->state == SERVER_CUT ? bytes.n : bytes.n - in.n;
}

static void on_eof(struct conn *c, bool is_clean)
{
    struct h1_server *sv = server_from(conn_owner(c));

    if (sv->state == SERVER_CUT)
        return;
    if (sv->state != SERVER_OPEN) {
        conn_close_gently(c, sv->state == SERVER_DRAIN ? CLOSE_DONE : CLOSE_PEER_CLOSED);
    } else if (sv->is_tunnel && is_clean) {
        sv->is_request_done = true;
        body_start_none(&sv->in);
        sv->s.events->on_body(sv->s.arg, &sv->s, slice(NULL, 0), true);
    } else if (!sv->is_request_done || sv->head.is_connect || !is_clean) {
        stream_fail(sv, STREAM_CANCELLED, NULL,
                    "the client went away before its request was complete");
        conn_close(c, is_clean ? CLOSE_PEER_CLOSED : CLOSE_PEER_TRUNCATED);
    } else {
        sv->must_close =
            true; /* half-closed: it gets its answer, and there is no next request */
    }
}

static void on_sent(struct conn *c, size_t n)
{
    struct h1_server *sv = server_from(conn_owner(c));
    size_t content = sent_left(&sv->sent, n);

    if (content > 0 && sv->is_live)
        sv->s.events->on_sent(sv->s.arg, &sv->s, content);
    if (sv->state == SERVER_CUT && sv->sent.left >= sv->sent.handed)
        conn_abort(c, CLOSE_OTHER_SIDE);
}

static void on_closed(struct conn *c, enum close_reason why)
{
    struct h1_server *sv = server_from(conn_owner(c));
    bool is_peer = why == CLOSE_PEER_CLOSED || why == CLOSE_PEER_RESET;

    timer_stop(&sv->timer);
    stream_fail(sv, is_peer ? STREAM_CANCELLED : STREAM_LOST, NULL, close_name(why));
    if (sv->front.on_closed != NULL)
        sv->front.on_closed(sv->front.arg, c, (int)why);
    arena_done(&sv->arena);
    buf_done(&sv->scratch);
    sv->magic = 0;
    free(sv);
}

static const struct conn_events events = {
    .on_bytes = on_bytes,
    .on_eof = on_eof,
    .on_sent = on_sent,
    .on_closed = on_closed,
};

static void on_timer(void *arg)
{
    struct h1_server *sv = server_from(arg);
    uint64_t now = clock_now_ms();

    if (sv->state == SERVER_CUT) {
        conn_abort(sv->c, CLOSE_OTHER_SIDE);
    } else if (sv->state == SERVER_HEAD) {
        if (now >= sv->head_deadline_ms)
            refuse_head(sv, REFUSED_TIMEOUT, slice(NULL, 0));
        else
            timer_once(&sv->timer, sv->head_deadline_ms - now);
    } else if (sv->state == SERVER_IDLE && now - sv->idle_since_ms + 1 >= IDLE_RELEASE_MS) {
        /* An idle connection costs its structs and no more. */
        arena_done(&sv->arena);
        buf_done(&sv->scratch);
    } else {
        timer_once(&sv->timer, IDLE_RELEASE_MS);
    }
}

/* ---- writing ---- */

static bool has_no_content(const struct h1_server *sv, uint16_t status)
{
    return slice_is_str(sv->head.method, "HEAD") || status == 204 || status == 304;
}

/* Framing of a final answer. `h` is a copy that may be completed. */
static enum write_framing choose_framing(struct h1_server *sv, struct head *h, bool is_end)
{
    if (has_no_content(sv, h->status)) {
        sv->out = OUT_NOTHING;
        return h->content_length >= 0 && h->status != 204 ? WRITE_LENGTH : WRITE_NONE;
    }
    if (is_end && h->content_length < 0)
        h->content_length = 0;
    if (h->content_length >= 0) {
        sv->out = OUT_LENGTH;
        sv->out_left = (uint64_t)h->content_length;
        return WRITE_LENGTH;
    }
    if (sv->head.version == HTTP_1_1) {
        sv->out = OUT_CHUNKED;
        return WRITE_CHUNKED;
    }
    sv->out = OUT_UNTIL_CLOSE;
    sv->must_close = true;
    return WRITE_UNTIL_CLOSE;
}

/* Whether the request's unread content forbids to go on after an early answer (H1-30, H1-31).
 */
static bool has_too_much_unread(const struct h1_server *sv, bool is_end)
{
    if (sv->is_request_done)
        return false;
    if (sv->head.expects_continue && !sv->said_continue && !sv->saw_content)
        return true; /* nobody can tell whether the content will come */
    /* An answer that goes on may well be made of the content that is still to come. */
    return is_end && sv->in.framing == BODY_LENGTH && sv->in.left > DRAIN_MAX;
}

static void begin_tunnel(struct h1_server *sv)
{
    sv->is_tunnel = true;
    sv->must_close = true;
    sv->out = OUT_RAW;
    sv->is_request_done = false;
    body_start_raw(&sv->in);
    conn_resume(sv->c, PAUSE_OWNER);
}

static void end_answer(struct h1_server *sv)
{
    sv->is_answer_done = true;
    if (sv->out == OUT_LENGTH && sv->out_left > 0)
        sv->is_cut = true; /* less than was promised: the client must see it */
}

static void print_head(struct h1_server *sv, const struct write_head *w)
{
    buf_consume(&sv->scratch, buf_len(&sv->scratch));
    if (h1_print_response(w, &sv->scratch)) {
        write_bytes(sv, buf_slice(&sv->scratch));
    } else {
        /* An answer without a head must not be seen. */
        sv->is_cut = true;
        conn_starve(sv->c);
    }
    buf_consume(&sv->scratch, buf_len(&sv->scratch));
}

static void server_send_head(struct stream *s, const struct head *from, bool is_end)
{
    struct h1_server *sv = server_of(s);
    struct head h = *from;
    struct write_head w = {.head = &h, .framing = WRITE_NONE, .version = sv->head.version};

    BUG_ON(sv->is_answered);
    if (h.status < 200 && h.status != 101) {
        if (sv->head.version == HTTP_1_0)
            return; /* RFC 9110 15.2 */
        sv->said_continue = sv->said_continue || h.status == 100;
        print_head(sv, &w);
        return;
    }
    sv->is_answered = true;
    w.is_tunnel = h.status == 101 || (sv->head.is_connect && h.status < 300);
    if (w.is_tunnel) {
        if (h.status == 101 && h.upgrade.n == 0)
            h.upgrade = sv->head.upgrade;
        print_head(sv, &w);
        begin_tunnel(sv);
        return;
    }
    w.framing = choose_framing(sv, &h, is_end);
    if (has_too_much_unread(sv, is_end) || sv->is_draining || !h.is_keep_alive)
        sv->must_close = true;
    w.says_close = sv->must_close;
    w.says_keep_alive = !sv->must_close && sv->head.version == HTTP_1_0;
    print_head(sv, &w);
    if (is_end)
        end_answer(sv);
}

static void server_send_body(struct stream *s, slice_t bytes, bool is_end)
{
    struct h1_server *sv = server_of(s);

    if (sv->out == OUT_LENGTH && bytes.n > sv->out_left) {
        sv->is_cut = true; /* more than was promised is never written */
        bytes.n = (size_t)sv->out_left;
    }
    if (bytes.n > 0 && sv->out != OUT_NOTHING) {
        sv->sent.content += bytes.n;
        sv->sent.handed += bytes.n;
        if (sv->out == OUT_CHUNKED)
            sv->sent.handed += h1_write_chunk(sv->c, bytes);
        else
            conn_write(sv->c, bytes);
        if (sv->out == OUT_LENGTH)
            sv->out_left -= bytes.n;
    }
    if (!is_end)
        return;
    if (sv->out == OUT_CHUNKED)
        sv->sent.handed += h1_write_last_chunk(sv->c, &sv->scratch, NULL, 0);
    else if (sv->out == OUT_RAW)
        conn_finish(sv->c);
    end_answer(sv);
}

static void server_send_trailers(struct stream *s, const struct field *fields, size_t n)
{
    struct h1_server *sv = server_of(s);

    if (sv->out == OUT_CHUNKED) {
        sv->sent.handed += h1_write_last_chunk(sv->c, &sv->scratch, fields, n);
        end_answer(sv);
    } else {
        server_send_body(s, slice(NULL, 0), true);
    }
}

static void server_credit(struct stream *s, size_t n)
{
    struct h1_server *sv = server_of(s);

    sv->outstanding -= n < sv->outstanding ? n : sv->outstanding;
    if (sv->outstanding <= STREAM_WINDOW / 2)
        conn_resume(sv->c, PAUSE_PEER_FULL);
}

/* The client gets what came of the answer, at least its head, and sees that it is not whole. One that ends with
 * the connection must not look complete: reset. */
static void cut(struct h1_server *sv)
{
    if (!sv->is_answered) {
        conn_close(sv->c, CLOSE_OTHER_SIDE);
    } else if (sv->out == OUT_LENGTH || sv->out == OUT_CHUNKED) {
        conn_close_gently(sv->c, CLOSE_OTHER_SIDE);
    } else if (sv->sent.left >= sv->sent.handed) {
        conn_abort(sv->c, CLOSE_OTHER_SIDE);
    } else {
        sv->state = SERVER_CUT;
        timer_once(&sv->timer, CUT_WAIT_MS);
        conn_resume(sv->c, PAUSE_PEER_FULL);
        conn_resume(sv->c, PAUSE_OWNER);
    }
}

static void server_reset(struct stream *s, enum stream_error why)
{
    struct h1_server *sv = server_of(s);

    (void)why; /* HTTP/1 has one way to say it */
    sv->is_live = false;
    cut(sv);
}

static void server_release(struct stream *s)
{
    struct h1_server *sv = server_of(s);

    sv->is_live = false;
    sv->outstanding = 0;
    if (!sv->is_answer_done) {
        cut(sv);
    } else if (sv->is_cut) {
        conn_close_gently(sv->c, CLOSE_OTHER_SIDE);
    } else if (sv->must_close || sv->is_draining) {
        conn_close_gently(sv->c, sv->is_draining ? CLOSE_DRAINING : CLOSE_DONE);
    } else {
        if (sv->is_request_done || sv->head.is_connect)
            enter_idle(sv);
        else
            sv->state = SERVER_DRAIN;
        conn_resume(sv->c, PAUSE_PEER_FULL);
        conn_resume(sv->c, PAUSE_OWNER);
    }
}

static const struct stream_ops ops = {
    .send_head = server_send_head,
    .send_body = server_send_body,
    .send_trailers = server_send_trailers,
    .reset = server_reset,
    .credit = server_credit,
    .release = server_release,
};

/* ---- life ---- */

err_t http1_server_start(struct conn *c, const struct http_front *front)
{
    struct h1_server *sv = calloc(1, sizeof(*sv));

    if (sv == NULL)
        return ERR_OF(NOMEM);
    sv->magic = SERVER_MAGIC;
    sv->c = c;
    sv->front = *front;
    arena_init(&sv->arena, ARENA_MAX);
    buf_init(&sv->scratch, 0);
    timer_init(&sv->timer, net_base(conn_net(c)), on_timer, sv);
    sv->s = (struct stream){
        .ops = &ops, .conn = c, .arena = &sv->arena, .version = HTTP_1_1, .is_front = true};
    sent_start(&sv->sent, conn_owed(c));
    enter_idle(sv);
    conn_own(c, &events, sv);
    return OK;
}

void http1_server_drain(struct conn *c)
{
    struct h1_server *sv = server_from(conn_owner(c));

    sv->is_draining = true;
    sv->must_close = true;
    if (sv->state == SERVER_IDLE)
        conn_close_gently(c, CLOSE_DRAINING);
}
