/* Header blocks: from fragments to heads, and what a head begins (RFC
 * 9113 4.3, 6.2, 6.10, 8.1). A block is always decoded to its end, whoever wants it: the table
 * of the decoder is the connection's. */
#include "proxy/http2/session.h"

#include "kit/clock.h"

#include <string.h>

/* ---- heads that are complete ---- */

/* The codec's own answer to a request that did not become one. */
static void answer_refusal(struct h2_stream *st, enum refusal why, bool is_grpc)
{
    slice_t fault = slice(st->of->block.fault, st->of->block.fault_n);
    struct head h;

    head_init(&h);
    if (refusal_fill_for(why, fault, &st->own, &h) != OK ||
        (is_grpc && refusal_make_grpc(why, fault, &st->own, &h) != OK) ||
        !h2_write_head(st, &h, false, true)) {
        h2_stream_break(st, why, H2_INTERNAL_ERROR);
        return;
    }
    st->out.has_head = st->out.is_ended = st->out.is_finished = true;
    h2_stream_end_local(st);
}

/* Limits and meaning are answered; what is malformed is reset (RFC 9113 8.1.1). */
static bool is_answered(enum refusal why)
{
    return refusal_code(why, false)->http != 400 || why == REFUSED_HOST;
}

static void refuse_request(struct h2_stream *st, enum refusal why)
{
    struct h2_session *x = st->of;
    bool is_huge = refusal_code(why, false)->http == 431;
    bool is_grpc = st->in.head != NULL && st->in.head->is_grpc;

    st->in.head = NULL;
    if (is_answered(why)) {
        if (x->front.on_refused != NULL)
            x->front.on_refused(x->front.arg, x->conn, refusal_code(why, false)->name);
        st->broken = why;
        st->in.has_head = true;
        answer_refusal(st, why, is_grpc);
    } else {
        h2_stream_break(st, why, H2_PROTOCOL_ERROR);
    }
    if (is_huge)
        (void)h2_obey(x, flood_spend(&x->flood, FLOOD_HUGE_HEAD, clock_now_ms()));
}

/* With the end of the peer's side, if this is it, told to the stream before anybody acts on the
 * head. */
static void deliver_head(struct h2_stream *st, bool is_end)
{
    struct head *h = st->in.head;

    st->in.head = NULL;
    st->depth++;
    if (is_end)
        h2_stream_end_remote(st);
    st->s.events->on_head(st->s.arg, &st->s, h, is_end);
    st->depth--;
    h2_stream_let_go(st);
}

static void request_complete(struct h2_stream *st, bool is_end)
{
    struct h2_session *x = st->of;
    enum refusal why = h2_finish_request(st, is_end);

    if (why != REFUSED_NOTHING) {
        if (is_end) {
            st->depth++;
            h2_stream_end_remote(st);
            st->depth--;
        }
        refuse_request(st, why);
        return;
    }
    st->in.has_head = true;
    st->is_held = true;
    st->s.events = NULL;
    x->front.on_stream(x->front.arg, &st->s);
    BUG_ON(st->s.events == NULL);
    deliver_head(st, is_end);
}

static void response_complete(struct h2_stream *st, bool is_end)
{
    enum refusal why = h2_finish_response(st, is_end);

    if (why == REFUSED_NOTHING && st->in.head->status < 200 &&
        ++st->in.interims > H2_INTERIM_MAX)
        why = REFUSED_INTERIM; /* H1-32 */
    if (why != REFUSED_NOTHING) {
        h2_stream_break(st, why, H2_PROTOCOL_ERROR);
        return;
    }
    st->in.has_head = st->in.head->status >= 200;
    deliver_head(st, is_end);
}

static void trailers_complete(struct h2_stream *st, bool is_end)
{
    enum refusal why = h2_finish_trailers(st, is_end);
    struct head *t = st->in.head;

    if (why != REFUSED_NOTHING) {
        h2_stream_break(st, why, H2_PROTOCOL_ERROR);
        return;
    }
    st->in.head = NULL;
    st->depth++;
    h2_stream_end_remote(st);
    st->s.events->on_trailers(st->s.arg, &st->s, t->fields, t->n_fields);
    st->depth--;
    h2_stream_let_go(st);
}

/* Nobody listens: the exchange has let go, and the peer has not heard of it. */
static void skip_complete(struct h2_stream *st, bool is_end)
{
    if (!is_end && st->in.has_head) /* trailers without END_STREAM */
        h2_stream_break(st, REFUSED_TRAILER, H2_PROTOCOL_ERROR);
    else if (is_end)
        h2_stream_end_remote(st);
}

static void block_complete(struct h2_session *x)
{
    struct h2_stream *st = x->block.st;
    bool is_end = x->block.is_end;

    x->block.st = NULL;
    if (st == NULL)
        return;
    if (is_end)
        h2_recent_end(x, st->id);
    st->in.any = true;
    if (x->block.refuse != H2_NO_ERROR)
        h2_stream_break(st, REFUSED_FRAME, x->block.refuse);
    else if (x->is_server && !st->in.has_head)
        request_complete(st, is_end);
    else if (!st->is_held)
        skip_complete(st, is_end);
    else if (!st->in.has_head)
        response_complete(st, is_end);
    else
        trailers_complete(st, is_end);
}

/* ---- decoding ---- */

/* What the head of most messages needs, from the arena in one piece. */
struct head_memory {
    struct head head;
    struct field fields[16];
    uint8_t room[512];
};

static void begin_head(struct h2_stream *st)
{
    struct head_memory *m;

    bool is_wanted = st->is_held || (st->s.is_front && !st->in.has_head);

    m = is_wanted ? arena_alloc(st->s.arena, sizeof(*m)) : NULL;
    st->in.head = m != NULL ? &m->head : NULL;
    st->in.refused = is_wanted && st->in.head == NULL ? REFUSED_NO_MEMORY : REFUSED_NOTHING;
    st->in.bytes = st->in.cookies = 0;
    st->in.pseudo = 0;
    st->in.has_regular = false;
    st->in.host = slice(NULL, 0);
    st->in.room_n = 0;
    if (st->in.head != NULL) {
        head_init(st->in.head);
        st->in.head->fields = m->fields;
        st->in.head->cap_fields = sizeof(m->fields) / sizeof(m->fields[0]);
        st->in.room = m->room;
        st->in.room_n = sizeof(m->room);
        st->in.head->scheme = slice(NULL, 0);
        st->in.head->version = HTTP_2;
    }
}

/* H2-12, H2-15: decoding on would only serve the sender. */
static bool is_bomb(struct h2_session *x, size_t decoded)
{
    if (decoded <= x->limits.head_max + x->limits.head_max / 2)
        return false;
    h2_flooded(x, flood_name(FLOOD_HUGE_HEAD));
    return true;
}

static void note_fault(struct h2_session *x, slice_t name)
{
    x->block.fault_n = name.n < H2_FAULT_MAX ? name.n : H2_FAULT_MAX;
    memcpy(x->block.fault, name.p, x->block.fault_n);
}

static void take(struct h2_stream *st, const struct hpack_field *f)
{
    if (st->in.refused != REFUSED_NOTHING) {
        h2_skip_field(st, f);
        return;
    }
    st->in.refused = h2_take_field(st, f);
    if (UNLIKELY(st->in.refused != REFUSED_NOTHING))
        note_fault(st->of, f->name);
}

static void decode(struct h2_session *x, slice_t block)
{
    struct h2_stream *st = x->block.st;
    struct hpack_field f;
    size_t decoded = 0;
    enum hpack_got got;

    x->block.is_open = false;
    x->block.fault_n = 0;
    hpack_decode_begin(&x->decoder, block.n);
    if (st != NULL)
        begin_head(st);
    while ((got = hpack_decode(&x->decoder, &block, &f)) == HPACK_FIELD) {
        decoded += f.name.n + f.value.n + HPACK_OVERHEAD;
        if (UNLIKELY(is_bomb(x, decoded)))
            return;
        if (st != NULL && st->in.head != NULL)
            take(st, &f);
    }
    if (got == HPACK_END)
        block_complete(x);
    else if (got == HPACK_BROKEN)
        h2_terminate(x, H2_COMPRESSION_ERROR, CLOSE_BAD_PROTOCOL);
    else
        h2_terminate(x, H2_INTERNAL_ERROR, CLOSE_LIMIT);
}

/* ---- frames ---- */

/* A request that is not taken: no slot is free, or there is no memory. */
static void refuse_new(struct h2_session *x, uint32_t id)
{
    enum flood_verdict v = flood_spend(&x->flood, FLOOD_EARLY_RESET, clock_now_ms());

    h2_write_u32(x, H2_RST_STREAM, id, H2_REFUSED_STREAM);
    (void)h2_obey(x, v);
}

static struct h2_stream *open_front(struct h2_session *x, uint32_t id, bool is_end)
{
    struct h2_stream *st;

    h2_recent_open(x, id);
    if (is_end)
        h2_recent_end(x, id);
    if (x->leaving == H2_LEAVING) /* said with the GOAWAY that is on its way */
        return NULL;
    x->flood.streams++;
    x->new_in_turn++;
    /* H2-17: also before our SETTINGS were seen */
    st = x->running < x->limits.streams_max ? h2_stream_new(x) : NULL;
    if (st == NULL)
        refuse_new(x, id);
    else
        h2_stream_open(st, id);
    return st;
}

void h2_on_headers(struct h2_session *x, const struct h2_frame *f, slice_t payload)
{
    bool is_end = h2_frame_has(f, H2_FLAG_END_STREAM);
    struct h2_stream *st = h2_stream_find(x, f->id);
    uint32_t depends_on;
    enum h2_error wrong = h2_frame_unpad(f, &payload, &depends_on);

    if (wrong != H2_NO_ERROR) {
        h2_terminate(x, wrong, CLOSE_BAD_PROTOCOL);
        return;
    }
    x->block.refuse =
        depends_on == f->id ? H2_PROTOCOL_ERROR : H2_NO_ERROR; /* RFC 7540 5.3.1 */
    if (st == NULL && x->is_server && f->id % 2 == 1 && f->id > x->last_id)
        st = open_front(x, f->id, is_end);
    else if (st == NULL && !h2_may_ignore(x, f->id))
        return;
    else if (st != NULL && st->in.is_ended)
        x->block.refuse = H2_STREAM_CLOSED;
    if (h2_is_over(x))
        return;
    x->block.st = st;
    x->block.id = f->id;
    x->block.is_end = is_end;
    if (h2_frame_has(f, H2_FLAG_END_HEADERS)) {
        decode(x, payload);
        return;
    }
    x->block.is_open = true;
    x->block.continuations = 0;
    x->block.since_ms = clock_now_ms();
    h2_watch(x);
    if (buf_add_slice(&x->block.bytes, payload) != OK)
        h2_terminate(x, H2_INTERNAL_ERROR, CLOSE_LIMIT);
}

void h2_on_continuation(struct h2_session *x, const struct h2_frame *f, slice_t payload)
{
    if (++x->block.continuations > H2_CONTINUATIONS_MAX) { /* H2-03 */
        h2_flooded(x, "CONTINUATION");
        return;
    }
    /* Strings may be longer on the wire than decoded, but not so long and still within the
     * limit. */
    if (is_bomb(x, (buf_len(&x->block.bytes) + payload.n) / 4))
        return;
    if (buf_add_slice(&x->block.bytes, payload) != OK) {
        h2_terminate(x, H2_INTERNAL_ERROR, CLOSE_LIMIT);
        return;
    }
    if (!h2_frame_has(f, H2_FLAG_END_HEADERS))
        return;
    decode(x, buf_slice(&x->block.bytes));
    buf_consume(&x->block.bytes, buf_len(&x->block.bytes));
    buf_release(&x->block.bytes);
}
