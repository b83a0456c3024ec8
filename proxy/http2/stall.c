/* Peers that hold us up: windows that stay shut while content waits, and content of a request
 * that hardly comes.
 *
 * Neither is about silence: a stream on which nobody has anything to say may live for ever. */
#include "proxy/http2/session.h"

#define RATE_MS 5000 /* content is counted over so long: the grace of its beginning, too */

/* Something waits, and the peer's windows are what it waits for. */
static bool is_shut_in(const struct h2_session *x)
{
    return x->waiting.bytes > 0 && !conn_is_full(x->conn) &&
           (x->out_window <= 0 || list_is_empty(&x->sending));
}

/* H2-09, H2-10: no byte of content could go for so long, on any stream. */
static void look_at_windows(struct h2_session *x, uint64_t now_ms)
{
    if (!is_shut_in(x) || x->out_sent != x->waiting.sent) {
        x->waiting.since_ms = is_shut_in(x) ? now_ms : 0;
        x->waiting.sent = x->out_sent;
    } else if (x->waiting.since_ms == 0) {
        x->waiting.since_ms = now_ms;
    } else if (now_ms - x->waiting.since_ms >= x->limits.stall_ms) {
        h2_terminate(x, H2_ENHANCE_YOUR_CALM, CLOSE_STALLED);
    }
}

/* Whether the peer owes content that it could send: it has said how much, and its windows are
 * open. A stream of messages says no length. */
static bool owes_content(const struct h2_session *x, const struct h2_stream *st)
{
    return st->in.expected > 0 && st->is_held && !st->in.is_ended && st->in.window > 0 &&
           x->window.left > 0;
}

static bool is_too_slow(struct h2_session *x, struct h2_stream *st, uint64_t now_ms)
{
    uint64_t seen = st->in.seen - st->in.rate_seen;
    uint64_t passed = now_ms - st->in.rate_ms;

    if (!owes_content(x, st) || st->in.rate_ms == 0) {
        st->in.rate_ms = now_ms;
        st->in.rate_seen = st->in.seen;
        return false;
    }
    if (passed < RATE_MS)
        return false;
    st->in.rate_ms = now_ms;
    st->in.rate_seen = st->in.seen;
    return seen < passed * x->limits.body_rate_min / 1000;
}

/* One stream of a pass: what its end sets off may change the list. */
static bool cut_one_slow(struct h2_session *x, uint64_t now_ms)
{
    LIST_EACH (node, &x->streams) {
        struct h2_stream *st = CONTAINER_OF(node, struct h2_stream, node);

        if ((st->state == H2_OPEN || st->state == H2_HALF_LOCAL) &&
            is_too_slow(x, st, now_ms)) {
            h2_stream_cut_slow(st);
            return true;
        }
    }
    return false;
}

void h2_look_for_stalls(struct h2_session *x, uint64_t now_ms)
{
    /* Between proxies shut windows are a reader behind the other one that rests, which it may, and an application that keeps
     * its own shut is seen by the proxy beside it. A proxy that is gone is proxy/net/peer.c's. */
    if (x->limits.stall_ms != 0 && !conn_is_protected(x->conn))
        look_at_windows(x, now_ms);
    if (!x->is_server || x->limits.body_rate_min == 0)
        return;
    for (unsigned i = 0; i < x->limits.streams_max && cut_one_slow(x, now_ms); i++)
        ;
}
