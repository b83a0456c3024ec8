/* Receive windows that grow with the path: the measurement with a clock of the test's own. */
#include "tests/unit/proxy/http2/duo.h"

#include "kit/clock.h"
#include "proxy/http2/session.h"

static char content[8 * 1024 * 1024];

static struct h2_session *session_of(struct rig *r)
{
    return h2_session_from(conn_owner(r->c));
}

/* An upload: the server's windows are looked at. `turn_ms` passes between the PING and its
 * acknowledgement, which the loop brings at once: that is played by the test. */
struct upload {
    struct duo d;
    struct http_windows windows;
    struct h2_session *x;
};

static void begin(struct upload *u, size_t max)
{
    struct http_limits limits = rig_limits();

    clock_test_freeze(1000000, 1000000);
    u->windows = (struct http_windows){.max = max};
    limits.windows = &u->windows;
    duo_start_with(&u->d, limits);
    u->x = session_of(&u->d.f);
    (void)ask(&u->d, "POST", "/", false);
    run(&u->d);
}

static void end(struct upload *u)
{
    duo_done(&u->d);
    assert_int_equal(u->windows.used, 0);
    clock_test_thaw();
}

static void acknowledge(struct upload *u, uint64_t seen, uint64_t ms)
{
    static const uint8_t mark[H2_PING_LEN] = {'w', 'e', 'f', 't', 'p', 'a', 't', 'h'};

    u->x->path.is_out = true;
    u->x->path.sent_us = clock_now_us();
    u->x->path.seen = seen;
    clock_test_advance(ms);
    assert_true(h2_path_on_ack(u->x, slice(mark, sizeof(mark))));
}

static void put(struct upload *u, size_t n)
{
    u->d.b.s->ops->send_body(u->d.b.s, slice(content, n), false);
    run(&u->d);
}

static void full_windows_double(void **state)
{
    struct upload u;
    uint32_t stream = STREAM_WINDOW;

    (void)state;
    begin(&u, SIZE_MAX);
    for (int i = 0; i < 8; i++) {
        uint32_t next = stream < H2_STREAM_WINDOW_MAX ? 2 * stream : stream;

        acknowledge(&u, stream, 100);
        assert_int_equal(u.x->window.stream_size, next);
        assert_true(u.x->window.size >= 2 * next || u.x->window.size == H2_CONN_WINDOW);
        stream = next;
    }
    assert_int_equal(u.x->window.size, H2_CONN_WINDOW_MAX);
    assert_int_equal(u.windows.used, H2_CONN_WINDOW_MAX - H2_CONN_WINDOW);
    assert_int_equal(u.windows.grown, 4);
    run(&u.d);
    assert_int_equal(session_of(&u.d.b)->out_window, H2_CONN_WINDOW_MAX); /* it was told */
    end(&u);
}

static void what_does_not_grow_a_window(void **state)
{
    struct upload u;

    (void)state;
    begin(&u, SIZE_MAX);
    acknowledge(&u, STREAM_WINDOW / 2, 100); /* the sender has no more */
    assert_int_equal(u.windows.grown, 0);
    acknowledge(&u, STREAM_WINDOW, 100);
    assert_int_equal(u.windows.grown, 1);
    acknowledge(&u, 2 * STREAM_WINDOW, 200); /* it only waits longer */
    assert_int_equal(u.windows.grown, 1);
    acknowledge(&u, 2 * STREAM_WINDOW, 170);
    assert_int_equal(u.windows.grown, 1);
    u.x->path.is_out = true;
    u.x->path.seen = H2_CONN_WINDOW;
    assert_false(h2_path_on_ack(u.x, slice("\0\0\0\0\0\0\0\0", 8))); /* another PING's */
    assert_false(h2_path_on_ack(u.x, slice("weftpat", 7)));
    u.x->path.is_out = false;
    assert_false(h2_path_on_ack(u.x, slice("weftpath", 8))); /* nobody has asked */
    assert_int_equal(u.windows.grown, 1);
    end(&u);
    begin(&u, 0);
    put(&u, STREAM_WINDOW);
    assert_false(u.x->path.is_out);
    assert_int_equal(u.x->path.next_us, 0);
    end(&u);
}

static void the_worker_has_a_ceiling(void **state)
{
    struct upload u;

    (void)state;
    begin(&u, 2 * H2_CONN_WINDOW);
    for (uint32_t seen = STREAM_WINDOW; seen <= 8 * STREAM_WINDOW; seen *= 2)
        acknowledge(&u, seen, 100);
    assert_int_equal(u.x->window.size, 2 * H2_CONN_WINDOW);
    assert_int_equal(u.x->window.stream_size, H2_CONN_WINDOW);
    assert_int_equal(u.windows.used, H2_CONN_WINDOW);
    end(&u);
}

/* One PING while content comes, the next not before its time, fewer when nothing grows. */
static void pings_are_few(void **state)
{
    struct upload u;

    (void)state;
    begin(&u, SIZE_MAX);
    put(&u, STREAM_WINDOW / 4);
    assert_int_equal(u.x->path.wait_ms, 0); /* none yet */
    put(&u, STREAM_WINDOW);
    assert_int_equal(u.x->path.wait_ms, 100);
    assert_false(u.x->path.is_out);
    for (uint32_t wait = 100; wait < 10000; wait *= 2) {
        u.x->path.rate = UINT64_MAX / 2; /* nothing grows from here */
        clock_test_advance(wait - 1);
        put(&u, STREAM_WINDOW);
        assert_int_equal(u.x->path.wait_ms, wait);
        clock_test_advance(1);
        put(&u, STREAM_WINDOW);
        assert_int_equal(u.x->path.wait_ms, 2 * wait);
    }
    assert_false(session_of(&u.d.b)->flood.over != NULL);
    end(&u);
}

/* A stream gets more with its credit, if what came has left; a slow one does not. */
static void slow_readers_get_no_more(void **state)
{
    struct upload u;
    size_t had;

    (void)state;
    begin(&u, SIZE_MAX);
    u.d.f.credits = false;
    u.x->window.stream_size = 4 * STREAM_WINDOW;
    put(&u, sizeof(content));
    assert_int_equal(buf_len(&u.d.f.body), STREAM_WINDOW); /* nothing was credited */
    u.d.f.s->ops->credit(u.d.f.s, STREAM_WINDOW / 8);
    run(&u.d);
    assert_int_equal(buf_len(&u.d.f.body), STREAM_WINDOW); /* too little has left */
    u.d.f.s->ops->credit(u.d.f.s, 5 * STREAM_WINDOW / 8);
    run(&u.d);
    had = buf_len(&u.d.f.body);
    assert_int_equal(had - 3 * STREAM_WINDOW / 4, 4 * STREAM_WINDOW);
    /* It falls back: what is given back is not granted again before it fits. */
    for (int i = 0; i < 12; i++) {
        u.d.f.s->ops->credit(u.d.f.s, STREAM_WINDOW / 8);
        run(&u.d);
    }
    assert_int_equal(buf_len(&u.d.f.body), had);
    end(&u);
}

static void idle_connections_begin_anew(void **state)
{
    struct upload u;

    (void)state;
    begin(&u, SIZE_MAX);
    acknowledge(&u, STREAM_WINDOW, 100);
    acknowledge(&u, 2 * STREAM_WINDOW, 100);
    assert_int_equal(u.x->window.size, 2 * H2_CONN_WINDOW);
    h2_path_forget(u.x);
    assert_int_equal(u.x->window.stream_size, STREAM_WINDOW);
    assert_int_equal(u.windows.used, H2_CONN_WINDOW); /* granted: not to be taken back */
    for (int i = 0; i < 8; i++)
        put(&u, STREAM_WINDOW / 2);
    assert_int_equal(u.windows.used, 0); /* used up */
    assert_int_equal(u.x->window.size, H2_CONN_WINDOW);
    assert_int_equal(buf_len(&u.d.f.body), 4 * STREAM_WINDOW);
    end(&u);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_windows_double),
        cmocka_unit_test(what_does_not_grow_a_window),
        cmocka_unit_test(the_worker_has_a_ceiling),
        cmocka_unit_test(pings_are_few),
        cmocka_unit_test(slow_readers_get_no_more),
        cmocka_unit_test(idle_connections_begin_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
