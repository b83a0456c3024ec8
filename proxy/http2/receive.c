/* What comes in on an HTTP/2 connection: the preface, frames cut out of bytes, DATA. All bytes
 * are taken at once (but for the limit of new streams per turn): DATA goes on as it comes, the
 * beginning of another frame waits. */
#include "proxy/http2/session.h"

#include "kit/clock.h"

/* ---- DATA (RFC 9113 6.1) ---- */

/* Bytes of a DATA frame that the exchange does not see. */
static void drop(struct h2_session *x, size_t n)
{
    struct h2_stream *st = h2_stream_find(x, x->data.id);

    if (n == 0)
        return;
    if (st != NULL && st->is_held)
        h2_stream_credit(st, n);
    else
        h2_credit(x, n);
}

static void deliver(struct h2_stream *st, slice_t bytes, bool is_end)
{
    st->depth++;
    st->in.outstanding += bytes.n;
    if (is_end)
        h2_stream_end_remote(st);
    st->s.events->on_body(st->s.arg, &st->s, bytes, is_end);
    st->depth--;
    h2_stream_let_go(st);
}

/* What is wrong with a DATA frame that has so much content. */
static enum h2_error check_content(const struct h2_stream *st, uint32_t content, bool is_end)
{
    if (st->in.is_ended)
        return H2_STREAM_CLOSED;
    if (!st->in.has_head) /* an answer begins with a head */
        return H2_PROTOCOL_ERROR;
    if (st->in.expected >= 0 &&
        (content > st->in.expected || (is_end && content < st->in.expected)))
        return H2_PROTOCOL_ERROR; /* RFC 9113 8.1.1 */
    return H2_NO_ERROR;
}

/* The length of the content is known. */
static void begin_content(struct h2_session *x)
{
    struct h2_stream *st = h2_stream_find(x, x->data.id);
    enum h2_error wrong;

    x->data.st = NULL;
    if (st == NULL) {
        (void)h2_may_ignore(x, x->data.id);
        return;
    }
    wrong = check_content(st, x->data.left, x->data.is_end);
    if (x->data.is_end)
        h2_recent_end(x, st->id);
    if (wrong != H2_NO_ERROR) {
        h2_stream_break(st, REFUSED_BODY, wrong);
        return;
    }
    st->in.seen += x->data.left;
    if (st->in.expected > 0)
        st->in.expected -= x->data.left;
    if (st->is_held)
        x->data.st = st;
    if (x->data.left == 0 && x->data.is_end) {
        if (st->is_held)
            deliver(st, slice(NULL, 0), true);
        else
            h2_stream_end_remote(st);
    }
}

static void end_data_when_done(struct h2_session *x)
{
    x->data.is_open = x->data.wants_pad || x->data.left > 0 || x->data.pad_left > 0;
}

static void begin_data(struct h2_session *x, const struct h2_frame *f)
{
    struct h2_stream *st = h2_stream_find(x, f->id);

    x->window.left -= f->length;
    if (x->window.left < 0) {
        h2_terminate(x, H2_FLOW_CONTROL_ERROR, CLOSE_BAD_PROTOCOL);
        return;
    }
    h2_path_on_content(x, f->length);
    x->data.id = f->id;
    x->data.left = f->length;
    x->data.pad_left = 0;
    x->data.is_end = h2_frame_has(f, H2_FLAG_END_STREAM);
    x->data.wants_pad = h2_frame_has(f, H2_FLAG_PADDED);
    if (f->length < H2_SMALL_FRAME)
        x->small_in_turn += H2_SMALL_FRAME - f->length;
    if (st != NULL) {
        st->in.window -= f->length;
        if (st->in.window < 0)
            h2_stream_break(st, REFUSED_BODY, H2_FLOW_CONTROL_ERROR);
    }
    if (x->data.wants_pad && f->length == 0)
        h2_terminate(x, H2_FRAME_SIZE_ERROR, CLOSE_BAD_PROTOCOL);
    else if (!x->data.wants_pad)
        begin_content(x);
    end_data_when_done(x);
}

static void take_pad_length(struct h2_session *x, uint8_t pad)
{
    x->data.wants_pad = false;
    x->data.left--;
    if (pad > x->data.left) {
        h2_terminate(x, H2_PROTOCOL_ERROR, CLOSE_BAD_PROTOCOL);
        return;
    }
    x->data.left -= pad;
    x->data.pad_left = pad;
    drop(x, (size_t)pad + 1);
    begin_content(x);
}

static void take_content(struct h2_session *x, slice_t bytes)
{
    struct h2_stream *st = x->data.st;
    bool is_end;

    x->data.left -= (uint32_t)bytes.n;
    is_end = x->data.left == 0 && x->data.is_end;
    if (st != NULL) {
        deliver(st, bytes, is_end);
        return;
    }
    drop(x, bytes.n);
    st = is_end ? h2_stream_find(x, x->data.id) : NULL;
    if (st != NULL)
        h2_stream_end_remote(st); /* nobody listens */
}

/* Payload of the open DATA frame off `in`, which is not empty. */
static void take_data(struct h2_session *x, slice_t *in)
{
    uint32_t left = x->data.left > 0 ? x->data.left : x->data.pad_left;
    slice_t now = slice(in->p, x->data.wants_pad ? 1 : in->n < left ? in->n : left);

    *in = slice_skip(*in, now.n);
    if (x->data.wants_pad)
        take_pad_length(x, now.p[0]);
    else if (x->data.left > 0)
        take_content(x, now);
    else
        x->data.pad_left -= (uint32_t)now.n;
    end_data_when_done(x);
}

/* ---- frames ---- */

/* More requests in one turn than can run at once, twice over (H2-16), or more small DATA frames
 * than others should wait for (H2-10, H2-11): the rest is looked at in the next turn. */
static bool must_wait(struct h2_session *x, const struct h2_frame *f)
{
    bool is_new = f->type == H2_HEADERS && x->is_server && f->id > x->last_id;

    if (!(is_new && x->new_in_turn >= 2 * x->limits.streams_max) &&
        !(f->type == H2_DATA && x->small_in_turn >= H2_SMALL_TURN))
        return false;
    x->is_held_up = true;
    conn_pause(x->conn, PAUSE_OWNER);
    h2_dirty(x);
    return true;
}

/* A frame header has come; its payload may not have. False: the connection is being ended. */
static bool check_frame(struct h2_session *x, const struct h2_frame *f)
{
    bool has_ack = f->type == H2_SETTINGS || f->type == H2_PING;
    bool is_end = f->type == H2_DATA && h2_frame_has(f, H2_FLAG_END_STREAM);
    bool is_stream_error;
    enum h2_error wrong = h2_frame_check(f, &is_stream_error);

    if (!x->in.has_first && (f->type != H2_SETTINGS || h2_frame_has(f, H2_FLAG_ACK)))
        wrong = H2_PROTOCOL_ERROR; /* RFC 9113 3.4 */
    x->in.has_first = true;
    /* RFC 9113 4.3: nothing comes between the frames of a block. */
    if (x->block.is_open ? f->type != H2_CONTINUATION || f->id != x->block.id
                         : f->type == H2_CONTINUATION)
        wrong = H2_PROTOCOL_ERROR;
    if (f->type == H2_PUSH_PROMISE) /* no client sends it, and ours has forbidden it */
        wrong = H2_PROTOCOL_ERROR;
    if (wrong != H2_NO_ERROR && (!is_stream_error || wrong == H2_PROTOCOL_ERROR)) {
        h2_terminate(x, wrong, CLOSE_BAD_PROTOCOL);
        return false;
    }
    return h2_obey(x, flood_on_frame(&x->flood, f->type, f->length,
                                     has_ack && h2_frame_has(f, H2_FLAG_ACK), is_end,
                                     clock_now_ms()));
}

static void on_frame(struct h2_session *x, const struct h2_frame *f, slice_t payload)
{
    switch (f->type) {
    case H2_HEADERS:
        h2_on_headers(x, f, payload);
        break;
    case H2_CONTINUATION:
        h2_on_continuation(x, f, payload);
        break;
    default:
        h2_on_control(x, f, payload);
        break;
    }
}

static bool take_preface(struct h2_session *x, slice_t *in)
{
    size_t n = in->n < x->in.preface_left ? in->n : x->in.preface_left;

    if (memcmp(in->p, &H2_PREFACE[H2_PREFACE_LEN - x->in.preface_left], n) != 0) {
        h2_terminate(x, H2_PROTOCOL_ERROR, CLOSE_BAD_PROTOCOL); /* H2-22 */
        return false;
    }
    x->in.preface_left -= (uint32_t)n;
    *in = slice_skip(*in, n);
    return true;
}

/* The header of the next frame off `in`. True: there is one, it is checked, and it was not
 * DATA. */
static bool take_header(struct h2_session *x, slice_t *in)
{
    size_t n = H2_FRAME_HEADER - x->in.header_n;

    if (LIKELY(in->n >= n && x->in.header_n == 0)) {
        x->in.frame = h2_frame_read(in->p);
        if (must_wait(x, &x->in.frame))
            return false;
        *in = slice(in->p + H2_FRAME_HEADER, in->n - H2_FRAME_HEADER);
    } else {
        n = in->n < n ? in->n : n;
        if (n > 0)
            memcpy(x->in.header + x->in.header_n, in->p, n);
        x->in.header_n += (uint8_t)n;
        *in = slice_skip(*in, n);
        if (x->in.header_n < H2_FRAME_HEADER)
            return false;
        x->in.frame = h2_frame_read(x->in.header);
        if (must_wait(x, &x->in.frame)) /* the header stays where it is */
            return false;
        x->in.header_n = 0;
    }
    if (!check_frame(x, &x->in.frame))
        return false;
    if (x->in.frame.type == H2_DATA) {
        begin_data(x, &x->in.frame);
        return false;
    }
    x->in.has_header = true;
    return true;
}

/* The payload of the frame whose header is there, in one piece: where it lies in `in`, or put
 * together from more than one read. Copies no more than it must. */
static bool take_payload(struct h2_session *x, slice_t *in, slice_t *out)
{
    size_t have = buf_len(&x->in.part), n = x->in.frame.length - have;

    if (LIKELY(have == 0 && in->n >= n)) {
        *out = slice(in->p, n);
        *in = slice(in->p + n, in->n - n);
        return true;
    }
    n = in->n < n ? in->n : n;
    if (buf_add_slice(&x->in.part, slice(in->p, n)) != OK) {
        h2_terminate(x, H2_INTERNAL_ERROR, CLOSE_LIMIT);
        return false;
    }
    *in = slice_skip(*in, n);
    *out = buf_slice(&x->in.part);
    return out->n == x->in.frame.length;
}

static void take_frame(struct h2_session *x, slice_t *in)
{
    slice_t payload;

    if (!x->in.has_header && !take_header(x, in))
        return;
    if (!take_payload(x, in, &payload))
        return;
    x->in.has_header = false;
    on_frame(x, &x->in.frame, payload);
    if (buf_len(&x->in.part) > 0) {
        buf_consume(&x->in.part, buf_len(&x->in.part));
        buf_release(&x->in.part);
    }
}

size_t h2_on_bytes(struct conn *c, slice_t bytes)
{
    struct h2_session *x = h2_session_from(conn_owner(c));
    slice_t in = bytes;

    x->last_in_ms = clock_now_ms();
    x->ping_sent_ms = 0; /* whatever came shows that the peer lives */
    while (in.n > 0 && !x->is_held_up && !h2_is_over(x)) {
        if (x->data.is_open)
            take_data(x, &in);
        else if (UNLIKELY(x->in.preface_left > 0))
            (void)take_preface(x, &in);
        else
            take_frame(x, &in);
    }
    return h2_is_over(x) ? bytes.n : bytes.n - in.n;
}

void h2_take_held_up(struct h2_session *x)
{
    slice_t none = {NULL, 0};

    x->is_held_up = false;
    if (!h2_is_over(x) && x->in.header_n == H2_FRAME_HEADER)
        take_frame(x, &none);
    if (!x->is_held_up)
        conn_resume(x->conn, PAUSE_OWNER);
}
