/* Ends that nobody wished for, in every state of a stream, in either role: the peer resets, the
 * peer dies, our own side gives up. And who holds us up: windows that stay shut, content that
 * hardly comes. */
#include "tests/unit/proxy/http2/duo.h"

#include "proxy/http2/session.h"

/* Seen from the victim. */
enum at { OPEN, HALF_LOCAL, HALF_REMOTE, RESET, ATS };
enum blow { PEER_RESETS, PEER_DIES, TIMEOUT, BLOWS };

#define NOTHING (-1) /* no last event */

struct cell {
    int victim; /* enum stream_error of its last event */
    int peer;
};

/* by role of the victim (server, client), state, event */
static const struct cell cells[2][ATS][BLOWS] = {
    {
        [OPEN] = {{STREAM_CANCELLED, NOTHING},
                  {STREAM_CANCELLED, STREAM_LOST},
                  {NOTHING, STREAM_CANCELLED}},
        [HALF_LOCAL] = {{STREAM_CANCELLED, NOTHING},
                        {STREAM_CANCELLED, STREAM_LOST},
                        {NOTHING, NOTHING}},
        [HALF_REMOTE] = {{STREAM_CANCELLED, NOTHING},
                         {STREAM_CANCELLED, STREAM_LOST},
                         {NOTHING, STREAM_CANCELLED}},
        [RESET] = {{NOTHING, NOTHING}, {NOTHING, NOTHING}, {NOTHING, NOTHING}},
    },
    {
        [OPEN] = {{STREAM_CANCELLED, NOTHING},
                  {STREAM_LOST, STREAM_LOST},
                  {NOTHING, STREAM_CANCELLED}},
        [HALF_LOCAL] = {{STREAM_CANCELLED, NOTHING},
                        {STREAM_LOST, STREAM_LOST},
                        {NOTHING, STREAM_CANCELLED}},
        /* the answer is complete: a reset says only that the rest of the request is not wanted
         */
        [HALF_REMOTE] = {{NOTHING, NOTHING},
                         {STREAM_LOST, STREAM_LOST},
                         {NOTHING, STREAM_CANCELLED}},
        [RESET] = {{NOTHING, NOTHING}, {NOTHING, NOTHING}, {NOTHING, NOTHING}},
    },
};

/* The request has begun, the answer has begun; who has ended is as the victim sees it. */
static void bring_to(struct duo *d, bool is_client, enum at at)
{
    bool ends_request = at == (is_client ? HALF_LOCAL : HALF_REMOTE);
    bool ends_answer = at == (is_client ? HALF_REMOTE : HALF_LOCAL);
    struct head h;

    duo_start(d);
    (void)ask(d, "POST", "/", ends_request);
    run(d);
    head_init(&h);
    h.status = 200;
    d->f.s->ops->send_head(d->f.s, &h, ends_answer);
    run(d);
    assert_int_equal(d->f.failed + d->b.failed, 0);
}

static void give_up(struct rig *r, enum stream_error why)
{
    if (!r->is_live)
        return;
    r->is_live = false;
    r->s->ops->reset(r->s, why);
}

static void expect(const struct rig *r, unsigned had, int want, const char *who, int client,
                   int at, int event)
{
    unsigned failed = r->failed - had;

    if (failed != (want == NOTHING ? 0u : 1u) ||
        (want != NOTHING && (int)r->failure.error != want))
        fail_msg("%s, victim %s, state %d, event %d: %u events, error %d", who,
                 client ? "client" : "server", at, event, failed, (int)r->failure.error);
}

static void every_state_ends(void **state)
{
    (void)state;
    for (int client = 0; client < 2; client++)
        for (int at = 0; at < ATS; at++)
            for (int event = 0; event < BLOWS; event++) {
                const struct cell *cell = &cells[client][at][event];
                struct duo d;
                struct rig *victim = client ? &d.b : &d.f, *peer = client ? &d.f : &d.b;
                unsigned had;

                bring_to(&d, client, (enum at)at);
                if (at == RESET) {
                    give_up(victim, STREAM_CANCELLED);
                    run(&d);
                }
                had = peer->failed;
                if (event == PEER_RESETS)
                    give_up(peer, STREAM_CANCELLED);
                else if (event == PEER_DIES)
                    conn_abort(peer->c, CLOSE_INTERNAL);
                else
                    give_up(victim, STREAM_TOO_LATE);
                run(&d);
                expect(victim, 0, cell->victim, "victim", client, at, event);
                expect(peer, had, cell->peer, "peer", client, at, event);
                if (event != PEER_DIES) { /* and the connection serves the next one */
                    give_up(victim, STREAM_CANCELLED);
                    give_up(peer, STREAM_CANCELLED);
                    run(&d);
                    assert_int_equal(http_back_running(d.b.b), 0);
                    d.f.on_done = rig_ok;
                    (void)rig_log(&d.b);
                    (void)ask(&d, "GET", "/", true);
                    run(&d);
                    assert_string_equal(rig_log(&d.b), "head 200 end\n");
                }
                duo_done(&d);
            }
}

/* ---- who holds us up ---- */

static struct h2_session *session_of(struct rig *r)
{
    return h2_session_from(conn_owner(r->c));
}

static void shut_windows_end_the_connection(void **state)
{
    static char big[2 * STREAM_WINDOW];
    struct http_limits limits = rig_limits();
    struct duo d;
    struct head h;
    uint64_t now = 1000000;

    (void)state;
    for (int is_slow = 0; is_slow < 2; is_slow++) {
        limits.stall_ms = 10000;
        duo_start_with(&d, limits);
        d.b.credits = false;
        (void)ask(&d, "GET", "/", true);
        run(&d);
        h2_look_for_stalls(session_of(&d.f), now); /* silence is no stall */
        h2_look_for_stalls(session_of(&d.f), now + 100000);
        now += 100000;
        head_init(&h);
        h.status = 200;
        d.f.s->ops->send_head(d.f.s, &h, false);
        d.f.s->ops->send_body(d.f.s, slice(big, sizeof(big)), false);
        run(&d);
        assert_int_equal(buf_len(&d.b.body), STREAM_WINDOW);
        for (int i = 0; i < 12; i++) {
            h2_look_for_stalls(session_of(&d.f), now += 1000);
            if (is_slow && i == 5) { /* a slow reader is not a dead one */
                d.b.s->ops->credit(d.b.s, STREAM_WINDOW / 2);
                run(&d);
            }
        }
        run(&d);
        assert_true(d.f.is_closed == !is_slow);
        if (!is_slow)
            assert_int_equal(d.f.close_reason, CLOSE_STALLED);
        duo_done(&d);
    }
}

static void content_must_come(void **state)
{
    struct http_limits limits = rig_limits();
    uint64_t now = 1000000;

    (void)state;
    limits.body_rate_min = 240;
    /* 0: announced and not sent; 1: announced, sent fast enough; 2: a stream of messages; 3: we
     * keep the window shut */
    for (int kind = 0; kind < 4; kind++) {
        static char bytes[STREAM_WINDOW];
        struct duo d;
        struct head h;

        duo_start_with(&d, limits);
        d.f.credits = kind != 3;
        d.b.s = http_back_open(d.b.b, &d.b.arena, &rig_events, &d.b);
        d.b.is_live = true;
        head_init(&h);
        h.method = SLICE_LIT("POST");
        h.path = SLICE_LIT("/");
        h.authority = SLICE_LIT("a");
        h.content_length = kind == 2 ? -1 : 10 * STREAM_WINDOW;
        d.b.s->ops->send_head(d.b.s, &h, false);
        if (kind == 3)
            d.b.s->ops->send_body(d.b.s, slice(bytes, sizeof(bytes)), false);
        run(&d);
        for (int i = 0; i < 12 && d.f.failed == 0; i++) {
            h2_look_for_stalls(session_of(&d.f), now += 1000);
            if (kind == 1) {
                d.b.s->ops->send_body(d.b.s, slice(bytes, 300), false);
                run(&d);
            }
        }
        run(&d);
        assert_int_equal(d.f.failed, kind == 0);
        if (kind == 0) {
            assert_int_equal(d.f.failure.error, STREAM_TOO_LATE);
            assert_int_equal(d.b.failure.http2_error, H2_ENHANCE_YOUR_CALM);
        }
        assert_false(d.f.is_closed);
        duo_done(&d);
    }
}

/* A connection that holds much says so, and says when it does not any more. */
static void what_waits_is_told(void **state)
{
    static char big[STREAM_WINDOW];
    struct stream *front[16], *back[16];
    struct duo d;
    struct head h;

    (void)state;
    duo_start(&d);
    d.f.is_crowd = d.b.is_crowd = true;
    d.b.credits = false;
    head_init(&h);
    h.status = 200;
    for (int i = 0; i < 16; i++) {
        back[i] = ask(&d, "GET", "/", true);
        run(&d);
        front[i] = d.f.s;
        front[i]->ops->send_head(front[i], &h, false);
        assert_true(front[i]->is_crowded == (i > 8));
        front[i]->ops->send_body(front[i], slice(big, sizeof(big)), false);
        run(&d);
        assert_true(front[i]->is_crowded == (i > 7)); /* a window of four went, four wait */
    }
    for (int i = 0; i < 16; i++)
        back[i]->ops->reset(back[i], STREAM_CANCELLED);
    run(&d);
    assert_int_equal(session_of(&d.f)->waiting.bytes, 0);
    duo_done(&d);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_ends),
        cmocka_unit_test(shut_windows_end_the_connection),
        cmocka_unit_test(content_must_come),
        cmocka_unit_test(what_waits_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
