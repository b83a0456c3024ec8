/* Content survives the trip: a client codec, a server codec and an exchange that sends back what it gets, with
 * credit given only for what has left, in pieces and lengths drawn at random. Both HTTP versions. */
#include "tests/unit/proxy/http/rig.h"

#include "kit/random.h"

#define ROUNDS     40
#define LENGTH_MAX 700000

struct echo {
    struct rig f; /* server */
    struct rig b; /* client */
    struct buf out;      /* what was sent */
    size_t received;
    size_t b_sent, f_sent, f_taken;
    size_t owed;         /* credit the client has not given yet */
    bool is_mismatch, is_done;
    size_t to_send;
    size_t unsent;       /* sent and not reported */
};

/* ---- the server's exchange ---- */

static void front_head(void *arg, struct stream *s, struct head *h, bool is_end)
{
    struct head answer;

    (void)arg;
    head_init(&answer);
    answer.status = 200;
    answer.content_length = h->content_length;
    s->ops->send_head(s, &answer, is_end);
    if (is_end)
        s->ops->release(s);
}

static void front_end(struct stream *s)
{
    s->ops->release(s);
}

static void front_body(void *arg, struct stream *s, slice_t bytes, bool is_end)
{
    struct echo *e = arg;

    e->f_taken += bytes.n;
    s->ops->send_body(s, bytes, is_end);
    if (is_end)
        front_end(s);
}

static void front_trailers(void *arg, struct stream *s, struct field *fields, size_t n)
{
    (void)arg;
    s->ops->send_trailers(s, fields, n);
    front_end(s);
}

static void front_sent(void *arg, struct stream *s, size_t n)
{
    ((struct echo *)arg)->f_sent += n;
    s->ops->credit(s, n);
}

static void failed(void *arg, struct stream *s, const struct stream_failure *f)
{
    (void)arg, (void)s;
    fail_msg("failed: %s", f->text);
}

static const struct stream_events front_events = {front_head, front_body, front_trailers, front_sent,
                                                  failed};

static void on_stream(void *arg, struct stream *s)
{
    s->events = &front_events;
    s->arg = arg;
}

/* ---- the client's ---- */

static void back_head(void *arg, struct stream *s, struct head *h, bool is_end)
{
    struct echo *e = arg;

    (void)s;
    assert_int_equal(h->status, 200);
    e->is_done = is_end;
}

static void back_body(void *arg, struct stream *s, slice_t bytes, bool is_end)
{
    struct echo *e = arg;

    (void)s;
    if (e->received + bytes.n > buf_len(&e->out) ||
        (bytes.n > 0 && memcmp(buf_slice(&e->out).p + e->received, bytes.p, bytes.n) != 0))
        e->is_mismatch = true;
    e->received += bytes.n;
    e->owed += bytes.n;
    assert_true(e->owed <= STREAM_WINDOW);
    e->is_done = is_end;
}

static void back_trailers(void *arg, struct stream *s, struct field *fields, size_t n)
{
    struct echo *e = arg;

    (void)s;
    assert_int_equal(n, 1);
    assert_true(slice_is_str(fields[0].value, "yes"));
    e->is_done = true;
}

static void back_sent(void *arg, struct stream *s, size_t n)
{
    struct echo *e = arg;

    (void)s;
    assert_true(n <= e->unsent);
    e->unsent -= n;
}

static const struct stream_events back_events = {back_head, back_body, back_trailers, back_sent, failed};

/* ---- ---- */

static void send_some(struct echo *e, struct stream *s, bool has_trailers)
{
    static uint8_t piece[70000];
    struct field t = {.name = SLICE_LIT("x-whole"), .value = SLICE_LIT("yes")};
    size_t n = 1 + random_below(sizeof(piece) - 1);
    bool is_end;

    if (e->unsent > 300000)
        return; /* as an exchange that stops for lack of credit */
    if (n > e->to_send)
        n = e->to_send;
    for (size_t i = 0; i < n; i++)
        piece[i] = (uint8_t)random_below(256);
    assert_true(buf_add(&e->out, piece, n) == OK);
    e->to_send -= n;
    e->unsent += n;
    is_end = e->to_send == 0;
    s->ops->send_body(s, slice(piece, n), is_end && !has_trailers);
    if (is_end && has_trailers)
        s->ops->send_trailers(s, &t, 1);
}

static void round_trip(struct echo *e, unsigned i)
{
    bool has_trailers = i % 3 == 0, is_empty = i % 10 == 9;
    struct stream *s = http_back_open(e->b.b, &e->b.arena, &back_events, e);
    struct head h;

    assert_non_null(s);
    e->to_send = is_empty ? 0 : 1 + random_below(i % 2 == 0 ? 500 : LENGTH_MAX);
    e->received = e->owed = e->unsent = 0;
    e->is_done = false;
    buf_consume(&e->out, buf_len(&e->out));
    head_init(&h);
    h.method = SLICE_LIT("POST");
    h.path = SLICE_LIT("/echo");
    h.authority = SLICE_LIT("a");
    h.version = HTTP_1_1;
    h.accepts_trailers = true;
    if (!has_trailers && i % 4 != 0)
        h.content_length = (int64_t)e->to_send;
    s->ops->send_head(s, &h, is_empty);
    for (int turn = 0; turn < 20000 && !e->is_done; turn++) {
        if (e->to_send > 0)
            send_some(e, s, has_trailers);
        assert_true(event_base_loop(e->f.base, EVLOOP_NONBLOCK) >= 0);
        if (e->owed > 0 && random_below(3) == 0) {
            size_t n = 1 + random_below((uint32_t)e->owed);

            if (e->is_done || random_below(4) == 0)
                n = e->owed;
            e->owed -= n;
            s->ops->credit(s, n);
        }
    }
    if (!e->is_done)
        fail_msg("round %u stalled: %zu to send, %zu unsent, %zu of %zu back, %zu owed", i, e->to_send,
                 e->unsent, e->received, buf_len(&e->out), e->owed);
    assert_false(e->is_mismatch);
    assert_int_equal(e->received, buf_len(&e->out));
    assert_int_equal(e->unsent, 0);
    s->ops->release(s);
    for (int turn = 0; turn < 5; turn++)
        assert_true(event_base_loop(e->f.base, EVLOOP_NONBLOCK) >= 0);
    arena_reset(&e->b.arena);
}

static void trips(rig_server_start *server, rig_client_start *client)
{
    static struct echo e;
    struct http_back_conf conf = {.limits = rig_limits(),
                                  .on_retired = rig_on_retired,
                                  .on_closed = rig_on_back_closed,
                                  .arg = &e.b};

    memset(&e, 0, sizeof(e));
    random_test_seed(42);
    buf_init(&e.out, 0);
    rig_pair(&e.f);
    assert_true(conn_accepted(e.f.net, e.f.fd, &e.b.c) == OK);
    e.f.fd = -1;
    arena_init(&e.b.arena, 0);
    assert_true(server(e.f.c, &(struct http_front){.limits = rig_limits(), .on_stream = on_stream, .arg = &e}) == OK);
    assert_true(client(e.b.c, &conf, &e.b.b) == OK);
    for (unsigned i = 0; i < ROUNDS; i++)
        round_trip(&e, i);
    assert_false(e.b.is_retired || e.b.is_closed);
    e.f.is_closed = true; /* nobody told: on_closed is not set */
    rig_done(&e.f);
    arena_done(&e.b.arena);
    buf_done(&e.out);
}

static void over_http1(void **state)
{
    (void)state;
    trips(http1_server_start, http1_client_start);
}

static void over_http2(void **state)
{
    (void)state;
    trips(http2_server_start, http2_client_start);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(over_http1),
        cmocka_unit_test(over_http2),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
