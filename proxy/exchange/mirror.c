#include "proxy/exchange/mirror.h"

#include "proxy/exchange/exchange_priv.h"

#include "kit/clock.h"
#include "kit/random.h"
#include "proxy/http/stream.h"

#include <stdlib.h>

struct mirror {
    struct list node;    /* worker->mirrors */
    struct mirror *next; /* x->mirrors */
    struct exchange *x;  /* NULL: the original has ended */
    struct worker *worker;
    struct destination *dest; /* counted: `rule` is in there */
    const struct wire_rule *rule;
    struct backend *parent, *backend; /* in dest */
    struct endpoint *endpoint;        /* a reference */
    struct lend lend;
    struct http_back *back;
    struct stream *bs;
    struct arena arena;
    struct head head;
    struct buf waiting; /* content for which there is no stream yet */
    struct timer timer;
    size_t queued;        /* content given to the stream that has not left */
    bool is_whole;        /* all of the request is here */
    bool is_begun;        /* counted as in flight at the endpoint */
    bool is_answered;
    uint64_t sent_us;
};

/* ---- the end ---- */

static void forget_in_exchange(struct mirror *m)
{
    struct mirror **at;

    if (m->x == NULL)
        return;
    at = &m->x->mirrors;
    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    m->x = NULL;
}

static void mirror_end(struct mirror *m, const char *result)
{
    forget_in_exchange(m);
    tally_mirror(m->worker->tallies, m->parent, m->rule->route, result);
    lend_cancel(&m->lend);
    timer_stop(&m->timer);
    if (m->is_begun)
        endpoint_end(m->endpoint);
    if (m->bs != NULL) {
        if (m->is_answered && m->is_whole && m->queued == 0)
            m->bs->ops->release(m->bs);
        else
            m->bs->ops->reset(m->bs, STREAM_CANCELLED);
    }
    endpoint_unref(&m->endpoint);
    destination_unref(&m->dest);
    list_del(&m->node);
    buf_done(&m->waiting);
    arena_done(&m->arena);
    free(m);
}

void mirror_leave(struct exchange *x)
{
    while (x->mirrors != NULL) {
        struct mirror *m = x->mirrors;

        if (m->is_whole)
            forget_in_exchange(m);
        else
            mirror_end(m, "cut");
    }
}

void mirror_drop_all(struct worker *w)
{
    while (!list_is_empty(&w->mirrors))
        mirror_end(CONTAINER_OF(w->mirrors.next, struct mirror, node), "cut");
}

static void on_timer(void *arg)
{
    mirror_end(arg, "timeout");
}

/* ---- its stream ---- */

static void on_head(void *arg, struct stream *s, struct head *h, bool is_end)
{
    struct mirror *m = arg;

    (void)s;
    if (h->status < 200 && h->status != 101)
        return;
    endpoint_sample(m->endpoint, clock_now_us() - m->sent_us);
    m->is_answered = is_end || h->status == 101;
    if (m->is_answered)
        mirror_end(m, "answered");
}

static void on_body(void *arg, struct stream *s, slice_t bytes, bool is_end)
{
    struct mirror *m = arg;

    if (bytes.n > 0)
        s->ops->credit(s, bytes.n); /* read and dropped */
    if (!is_end)
        return;
    m->is_answered = true;
    mirror_end(m, "answered");
}

static void on_trailers(void *arg, struct stream *s, struct field *fields, size_t n)
{
    (void)fields, (void)n;
    on_body(arg, s, slice(NULL, 0), true);
}

static void on_sent(void *arg, struct stream *s, size_t n)
{
    struct mirror *m = arg;

    (void)s;
    m->queued -= n < m->queued ? n : m->queued;
}

static void on_failed(void *arg, struct stream *s, const struct stream_failure *f)
{
    struct mirror *m = arg;

    (void)s, (void)f;
    m->bs = NULL;
    mirror_end(m, "failed");
}

static const struct stream_events mirror_events = {
    .on_head = on_head,
    .on_body = on_body,
    .on_trailers = on_trailers,
    .on_sent = on_sent,
    .on_failed = on_failed,
};

/* ---- sending ---- */

/* False: it is gone. */
static bool send_waiting(struct mirror *m)
{
    slice_t body = buf_slice(&m->waiting);
    bool is_empty = m->is_whole && body.n == 0;

    m->bs = http_back_open(m->back, &m->arena, &mirror_events, m);
    if (m->bs == NULL) {
        mirror_end(m, "not_ready");
        return false;
    }
    endpoint_begin(m->endpoint);
    m->is_begun = true;
    m->sent_us = clock_now_us();
    m->bs->ops->send_head(m->bs, &m->head, is_empty);
    if (body.n > 0) {
        m->queued = body.n;
        m->bs->ops->send_body(m->bs, body, m->is_whole);
    }
    buf_done(&m->waiting);
    return true;
}

static void on_lent(struct lend *l, struct http_back *back, const struct lend_failure *why)
{
    struct mirror *m = CONTAINER_OF(l, struct mirror, lend);

    (void)why;
    m->back = back;
    if (back == NULL)
        mirror_end(m, "failed");
    else
        (void)send_waiting(m);
}

static void feed_one(struct mirror *m, slice_t bytes, bool is_end)
{
    m->is_whole = m->is_whole || is_end;
    if (m->bs == NULL) {
        if (bytes.n > 0 && buf_add_slice(&m->waiting, bytes) != OK)
            mirror_end(m, "slow");
        return;
    }
    if (m->queued + bytes.n > MIRROR_QUEUE) {
        mirror_end(m, "slow");
        return;
    }
    m->queued += bytes.n;
    m->bs->ops->send_body(m->bs, bytes, is_end);
}

void mirror_feed(struct exchange *x, slice_t bytes, bool is_end)
{
    struct mirror *m, *next;

    for (m = x->mirrors; m != NULL; m = next) { /* one that ends leaves the others where they are */
        next = m->next;
        feed_one(m, bytes, is_end);
    }
}

/* ---- the beginning ---- */

static unsigned running(const struct worker *w, const struct backend *be)
{
    unsigned n = 0;

    LIST_EACH (node, &w->mirrors)
        n += CONTAINER_OF(node, struct mirror, node)->backend == be;
    return n;
}

static struct mirror *mirror_new(struct exchange *x, struct backend *be, struct endpoint *ep)
{
    struct mirror *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    m->x = x;
    m->worker = x->worker;
    m->dest = x->dest;
    destination_ref(m->dest);
    m->rule = x->rule;
    m->parent = x->parent;
    m->backend = be;
    m->endpoint = ep;
    endpoint_ref(ep);
    arena_init(&m->arena, EXCHANGE_ARENA_MAX);
    buf_init(&m->waiting, MIRROR_QUEUE);
    timer_init(&m->timer, x->worker->base, on_timer, m);
    m->next = x->mirrors;
    x->mirrors = m;
    list_push(&x->worker->mirrors, &m->node);
    return m;
}

/* The head as the filters so far have left it, without what is between this client and us alone; and the content that
 * came before. */
static err_t copy(struct mirror *m, struct exchange *x)
{
    TRY(head_copy(x->req, &m->arena, &m->head));
    head_remove_name(&m->head, SLICE_LIT("expect"));
    m->head.expects_continue = false;
    if (x->fs->version != HTTP_2 && endpoint_is_meshed(m->endpoint)) {
        TRY(edit_write_orig_proto(x, &m->head, &m->arena));
        if (m->head.authority.n == 0)
            m->head.authority = arena_copy(&m->arena, slice_str(x->front->dst_text));
    }
    m->is_whole = x->req_ended;
    if (x->content.spilled > 0)
        return ERR_OF(TOO_BIG);
    return buf_add_slice(&m->waiting, buf_slice(&x->content.mem));
}

/* "": under way. */
static const char *try_begin(struct exchange *x, const struct wire_filter *f)
{
    struct backend *be = f->backend < x->dest->n_backends ? x->dest->backends[f->backend] : NULL;
    uint32_t most = f->running_max != 0 ? f->running_max : MIRROR_RUNNING_MAX;
    /* Nobody waits for a copy's answer, and no breaker hears of it: it is never the probe. */
    const struct pick mute = {.is_mute = true};
    struct endpoint *ep;
    struct mirror *m;

    if (be == NULL || be->is_missing)
        return "not_ready";
    if (running(x->worker, be) >= most)
        return "limit";
    ep = backend_pick_by(be, &mute);
    if (ep == NULL)
        return "not_ready";
    m = mirror_new(x, be, ep);
    if (m == NULL)
        return "failed";
    if (copy(m, x) != OK) {
        mirror_end(m, "failed");
        return "";
    }
    timer_once(&m->timer, x->rule->request_ms > 0 ? x->rule->request_ms : MIRROR_MS);
    m->lend.done = on_lent;
    switch (endpoint_lend(ep, exchange_pool_of(x, ep), &m->lend, &m->back)) {
    case STEP_DONE:
        (void)send_waiting(m);
        return "";
    case STEP_LATER:
        return "";
    case STEP_FAILED:
        break;
    }
    mirror_end(m, "failed");
    return "";
}

void mirror_begin(struct exchange *x, const struct wire_filter *f)
{
    const char *why;

    if (x->is_tunnel_wanted || (f->share_ppm != 0 && random_below(1000000) >= f->share_ppm))
        return;
    why = try_begin(x, f);
    if (why[0] != 0)
        tally_mirror(x->worker->tallies, x->parent, x->rule->route, why);
}
