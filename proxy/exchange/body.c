/* Request content: front -> (kept for a replay) -> back.
 *
 * While there may be another attempt all of it is kept from the first byte: in memory up to WEFT_REPLAY_MAX per
 * request and WEFT_REPLAY_TOTAL per worker, above that in the worker's spill, if the request is one that a route or its
 * method allows to be made again after it was delivered. What fits nowhere is not kept, and the reason is counted
 * should a retry have been wanted. A first attempt gets bytes as they come; a further one gets what is kept, at most a
 * window of it at a time, and then what comes. */
#include "proxy/exchange/exchange_priv.h"

#include "proxy/content/spill.h"
#include "proxy/http/stream.h"

#define SPILL_SHARE 4 /* one request gets at most this part of the spill */

/* ---- keeping ---- */

void relay_stop_keeping(struct exchange *x, const char *why)
{
    if (!x->keeps)
        return;
    x->keeps = false;
    x->not_kept = why;
    x->worker->replay_used -= x->replay_counted;
    x->replay_counted = 0;
    /* What this attempt has been given needs no copy any more; what it has not is still to be
     * sent. */
    content_forget(&x->content);
}

/* Where content above the limit of memory goes; NULL: nowhere. */
static struct spill *spill_for(const struct exchange *x)
{
    if (x->front->direction == DIRECTION_INBOUND)
        return NULL; /* only the race with an idle connection is repeated */
    return x->req->is_idempotent || again_policy(x) != NULL ? x->worker->spill : NULL;
}

static size_t less(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* The limits of this request, all in all and in memory. */
static void find_limits(const struct exchange *x, const struct spill *spill, size_t *all, size_t *memory)
{
    const struct settings *s = x->worker->settings;
    const struct wire_retry_policy *p = again_policy(x);
    size_t have = content_in_memory(&x->content), used = x->worker->replay_used;

    *memory = x->front->direction == DIRECTION_INBOUND ? EXCHANGE_INBOUND_REPLAY : s->replay_max;
    *all = *memory + (spill != NULL ? s->replay_spill / SPILL_SHARE : 0);
    if (p != NULL && p->body_max != 0)
        *all = less(*all, p->body_max);
    *memory = less(*memory, have + (s->replay_total > used ? s->replay_total - used : 0));
    *memory = less(*memory, *all);
}

/* NULL: kept. Else why not. */
static const char *keep(struct exchange *x, slice_t bytes)
{
    struct spill *spill = spill_for(x);
    size_t all, memory, have;

    find_limits(x, spill, &all, &memory);
    have = content_len(&x->content);
    if (bytes.n > all - less(have, all) ||
        (x->req->content_length > 0 && (uint64_t)x->req->content_length > all))
        return "TOO_LARGE"; /* what is sure not to fit is not even begun */
    if (content_add(&x->content, bytes, memory, spill) != OK)
        return have + bytes.n > x->worker->settings->replay_max && spill == NULL ? "TOO_LARGE"
                                                                                 : "BUFFERS_FULL";
    x->worker->replay_used += content_in_memory(&x->content) - x->replay_counted;
    x->replay_counted = content_in_memory(&x->content);
    return NULL;
}

/* ---- sending ---- */

static void send_trailers(struct exchange *x)
{
    struct field *fields = x->req_trailers;
    size_t n = x->n_req_trailers;

    /* Without memory the names go in lower case. */
    if (x->fs->version != HTTP_2 && x->bs->version == HTTP_2 && endpoint_is_meshed(x->endpoint))
        (void)edit_send_trailers_case(&x->arena, &fields, &n);
    x->req_end_sent = true;
    x->bs->ops->send_trailers(x->bs, fields, n);
}

static void send_piece(struct exchange *x, slice_t bytes, bool is_end)
{
    x->body_out += bytes.n;
    x->req_end_sent = is_end;
    x->bs->ops->send_body(x->bs, bytes, is_end);
}

void body_pump(struct exchange *x)
{
    size_t left;

    while ((left = content_left(&x->content)) > 0) {
        size_t out = x->body_out - x->back_gone;
        slice_t s;

        if (out >= STREAM_WINDOW)
            return; /* body_on_sent goes on */
        s = content_next(&x->content, STREAM_WINDOW - out);
        send_piece(x, s, x->req_ended && x->req_trailers == NULL && s.n == left);
        content_gave(&x->content, s.n);
        if (!x->keeps)
            content_forget(&x->content);
    }
    if (!x->req_ended || x->req_end_sent)
        return;
    if (x->req_trailers != NULL)
        send_trailers(x);
    else
        send_piece(x, slice(NULL, 0), true);
}

bool body_begin(struct exchange *x)
{
    if (x->keeps)
        content_rewind(&x->content);
    x->back_gone = x->body_out = 0;
    x->req_end_sent =
        x->req_ended && content_len(&x->content) == 0 && x->req_trailers == NULL;
    return x->req_end_sent;
}

bool body_take(struct exchange *x, slice_t bytes, bool is_end)
{
    bool lags = content_left(&x->content) > 0, is_kept = false;

    if (is_end)
        x->req_ended = true;
    if (x->keeps && bytes.n > 0) {
        const char *why = keep(x, bytes);

        is_kept = why == NULL;
        if (!is_kept)
            relay_stop_keeping(x, why);
    }
    if (x->bs == NULL || lags) {
        /* It has to wait for its turn, kept for later or not. The front's window bounds it. */
        if (!is_kept && bytes.n > 0 &&
            content_add(&x->content, bytes, SIZE_MAX, x->content.spill) != OK)
            return false;
        if (x->bs != NULL)
            body_pump(x);
        return true;
    }
    if (is_kept)
        content_gave(&x->content, bytes.n);
    send_piece(x, bytes, is_end);
    return true;
}

void body_take_trailers(struct exchange *x, struct field *fields, size_t n)
{
    x->req_ended = true;
    x->req_trailers = fields;
    x->n_req_trailers = n;
    if (x->bs != NULL)
        body_pump(x);
}

void body_on_sent(struct exchange *x, size_t n)
{
    x->back_gone += n;
    /* A replay sends again what was credited before. */
    if (x->back_gone > x->credited && x->fs != NULL) {
        size_t more = x->back_gone - x->credited;

        x->credited = x->back_gone;
        x->fs->ops->credit(x->fs, more);
    }
    if (x->bs != NULL && content_left(&x->content) > 0)
        body_pump(x);
}
