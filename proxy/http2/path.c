/* Receive windows that grow with the path (RFC 9113 5.2.3 leaves the algorithm to us).
 *
 * What a path holds is measured: a PING goes out while content comes, and what comes before its
 * acknowledgement is what the path holds, as far as the windows let it. Where that is more than
 * two thirds of a window, and content comes faster than when the window last grew, the window is
 * what holds it up: it is doubled. The second condition is for short paths, on which
 * acknowledgements wait behind content, so that every window looks full.
 *
 * PINGs: one at a time, the next after half a window of content and PATH_FIRST_MS, doubled each
 * time that nothing grew up to PATH_LAST_MS. A connection without streams begins anew.
 *
 * SETTINGS_INITIAL_WINDOW_SIZE stays: a stream begins with STREAM_WINDOW, and gets the rest with
 * credit, if what came has left at its other end; so a reader that is slow has no more of the
 * connection's window than before. */
#include "proxy/http2/session.h"

#include "kit/clock.h"

#include <string.h>

#define PATH_FIRST_MS 100
#define PATH_LAST_MS  10000

static const uint8_t mark[H2_PING_LEN] = {'w', 'e', 'f', 't', 'p', 'a', 't', 'h'};

static bool may_grow(const struct h2_session *x)
{
    return x->limits.windows != NULL && x->limits.windows->max > 0 &&
           x->leaving == H2_SERVING && !h2_is_over(x);
}

static void begin(struct h2_session *x, uint64_t now_us)
{
    x->path.is_out = true;
    x->path.sent_us = now_us;
    x->path.seen = 0;
    h2_write_control(x, H2_PING, 0, 0, mark, sizeof(mark));
    h2_dirty(x);
}

void h2_path_on_content(struct h2_session *x, uint32_t n)
{
    uint64_t now_us;

    x->path.seen += n;
    if (x->path.is_out || x->path.seen < STREAM_WINDOW / 2 || !may_grow(x))
        return;
    now_us = clock_now_us();
    if (now_us >= x->path.next_us)
        begin(x, now_us);
}

static uint32_t twice(uint32_t size, uint32_t max)
{
    return size <= max / 2 ? size * 2 : max;
}

/* The windows that `seen` says; false: they stay, or the worker's ceiling is reached. */
static bool grow(struct h2_session *x, uint64_t seen)
{
    uint32_t stream = x->window.stream_size, all = x->window.size;
    struct http_windows *w = x->limits.windows;

    if (seen > (uint64_t)stream * 2 / 3)
        stream = twice(stream, H2_STREAM_WINDOW_MAX);
    if (seen > (uint64_t)all * 2 / 3)
        all = twice(all, H2_CONN_WINDOW_MAX);
    if (all < 2 * stream)
        all = 2 * stream;
    if ((stream == x->window.stream_size && all == x->window.size) || w->used > w->max ||
        all - x->window.size > w->max - w->used)
        return false;
    w->used += all - x->window.size;
    w->grown++;
    x->window.owed += all - x->window.size;
    x->window.size = x->window.goal = all;
    x->window.stream_size = stream;
    h2_credit(x, 0);
    return true;
}

bool h2_path_on_ack(struct h2_session *x, slice_t payload)
{
    uint64_t now_us = clock_now_us(), took = now_us - x->path.sent_us, rate;
    bool has_grown = false;

    if (!x->path.is_out || payload.n != sizeof(mark) ||
        memcmp(payload.p, mark, sizeof(mark)) != 0)
        return false;
    x->path.is_out = false;
    rate = x->path.seen * 1000000 / (took > 0 ? took : 1);
    if (may_grow(x) && rate > x->path.rate + x->path.rate / 4)
        has_grown = grow(x, x->path.seen);
    if (has_grown)
        x->path.rate = rate;
    if (has_grown || x->path.wait_ms == 0)
        x->path.wait_ms = PATH_FIRST_MS;
    else if (x->path.wait_ms < PATH_LAST_MS)
        x->path.wait_ms *= 2;
    x->path.next_us = now_us + (uint64_t)x->path.wait_ms * 1000;
    x->path.seen = 0;
    return true;
}

void h2_path_forget(struct h2_session *x)
{
    x->path.rate = x->path.seen = x->path.next_us = 0;
    x->path.wait_ms = 0;
    x->window.goal = H2_CONN_WINDOW;
    x->window.stream_size = STREAM_WINDOW;
    h2_path_fit(x);
}

void h2_path_fit(struct h2_session *x)
{
    uint32_t over = x->window.size > x->window.goal ? x->window.size - x->window.goal : 0;

    if (over > x->window.owed)
        over = x->window.owed;
    if (over == 0)
        return;
    x->window.owed -= over;
    x->window.size -= over;
    x->limits.windows->used -= over;
}

void h2_path_fit_stream(struct h2_stream *st)
{
    uint32_t goal = st->of->window.stream_size;

    if (st->s.is_throttled || st->in.outstanding > st->in.size / 2)
        goal = STREAM_WINDOW; /* its reader is behind */
    if (goal >= st->in.size) {
        st->in.owed += goal - st->in.size;
        st->in.size = goal;
    } else {
        uint32_t less = st->in.size - goal < st->in.owed ? st->in.size - goal : st->in.owed;

        st->in.owed -= less;
        st->in.size -= less;
    }
}

void h2_path_done(struct h2_session *x)
{
    if (x->limits.windows != NULL)
        x->limits.windows->used -= x->window.size - H2_CONN_WINDOW;
}
