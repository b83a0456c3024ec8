/* The life of exchanges and the driver of their steps. */
#include "proxy/exchange/exchange_priv.h"

#include "kit/clock.h"
#include "proxy/http/stream.h"

#include <stdlib.h>

static const char *const state_names[EXCHANGE_STATES] = {
    "AUTHORISE", "ROUTE", "BALANCE", "LEND", "RELAY", "ASK", "PAUSE"};

/* Which states may come before each. */
static const unsigned may_follow[EXCHANGE_STATES] = {
    [EXCHANGE_AUTHORISE] = 1u << EXCHANGE_AUTHORISE,
    /* From RELAY, ASK, PAUSE: another attempt; only the backend is chosen anew. */
    [EXCHANGE_ROUTE] = 1u << EXCHANGE_AUTHORISE | 1u << EXCHANGE_LEND | 1u << EXCHANGE_RELAY |
                       1u << EXCHANGE_ASK | 1u << EXCHANGE_PAUSE,
    [EXCHANGE_BALANCE] = 1u << EXCHANGE_ROUTE | 1u << EXCHANGE_LEND,
    [EXCHANGE_LEND] = 1u << EXCHANGE_BALANCE | 1u << EXCHANGE_RELAY,
    /* From BALANCE: a hedge leads. */
    [EXCHANGE_RELAY] = 1u << EXCHANGE_BALANCE | 1u << EXCHANGE_LEND | 1u << EXCHANGE_ASK,
    [EXCHANGE_ASK] = 1u << EXCHANGE_LEND | 1u << EXCHANGE_RELAY,
    [EXCHANGE_PAUSE] = 1u << EXCHANGE_ASK,
};

void exchange_enter(struct exchange *x, enum exchange_state next)
{
    if (UNLIKELY((may_follow[next] & (1u << x->state)) == 0))
        bug(state_names[next], state_names[x->state], (int)next);
    x->state = next;
    x->wait_at = 0;
}

void exchange_run(struct exchange *x)
{
    for (;;) {
        enum next next = WAIT;

        switch (x->state) {
        case EXCHANGE_AUTHORISE:
            next = step_authorise(x);
            break;
        case EXCHANGE_ROUTE:
            next = step_route(x);
            break;
        case EXCHANGE_BALANCE:
            next = step_balance(x);
            break;
        case EXCHANGE_LEND:
            next = step_lend(x);
            break;
        case EXCHANGE_RELAY:
            next = relay_dispatch(x);
            break;
        case EXCHANGE_ASK:
        case EXCHANGE_PAUSE:
        case EXCHANGE_STATES:
            break;
        }
        if (next != NEXT)
            return;
    }
}

static struct exchange *exchange_take(struct worker *w)
{
    struct list *node = list_pop(&w->free_exchanges);
    struct exchange *x;

    if (node != NULL) {
        w->n_free_exchanges--;
        return CONTAINER_OF(node, struct exchange, node);
    }
    x = calloc(1, sizeof(*x));
    if (x == NULL)
        return NULL;
    list_init(&x->node);
    arena_init(&x->arena, EXCHANGE_ARENA_MAX);
    content_init(&x->content);
    buf_init(&x->held_body, 0);
    timer_init(&x->timer, w->base, exchange_on_timer, x);
    return x;
}

/* Without memory for an exchange the stream is given up at its first event. */
static void refuse_head(void *arg, struct stream *s, struct head *h, bool is_end)
{
    (void)arg, (void)h, (void)is_end;
    s->ops->reset(s, STREAM_REFUSED);
}

static void refuse_failed(void *arg, struct stream *s, const struct stream_failure *f)
{
    (void)arg, (void)s, (void)f;
}

static const struct stream_events refuse_events = {.on_head = refuse_head,
                                                   .on_failed = refuse_failed};

void exchange_begin(struct front *f, struct stream *s)
{
    struct worker *w = f->worker;
    struct exchange *x = exchange_take(w);

    if (x == NULL) {
        s->events = &refuse_events;
        return;
    }
    x->worker = w;
    x->front = f;
    x->fs = s;
    x->keeps = true;
    x->grpc_status = -1;
    x->begun_us = clock_now_us();
    s->events = &exchange_front_events;
    s->arg = x;
    w->n_exchanges++;
}

static void exchange_free(struct exchange *x)
{
    arena_done(&x->arena);
    content_done(&x->content);
    buf_done(&x->held_body);
    timer_stop(&x->timer);
    free(x);
}

void exchange_end(struct exchange *x)
{
    struct worker *w = x->worker;
    struct stream *fs = x->fs;

    if (x->is_tallied)
        exchange_tally_end(x, x->resp_started ? x->status : 0, false, CODE_INTERNAL);
    limits_done(x);
    ask_cancel(&x->ask);
    if (x->hedges != NULL)
        hedge_end_all(x);
    if (x->mirrors != NULL)
        mirror_leave(x);
    pick_wait_cancel(&x->pick);
    lend_cancel(&x->lend);
    relay_drop_back(
        x, STREAM_CANCELLED); /* other exchanges may run in here: x is whole until now */
    x->fs = NULL;
    if (x->timer_is_on)
        timer_stop(&x->timer);
    x->timer_is_on = false;
    relay_stop_keeping(x, NULL);
    content_reset(&x->content);
    buf_consume(&x->held_body, buf_len(&x->held_body));
    destination_unref(&x->dest);
    arena_reset(&x->arena);
    memset(&x->state, 0, sizeof(*x) - offsetof(struct exchange, state));
    w->n_exchanges--;
    if (w->n_free_exchanges < EXCHANGE_FREE_MAX) {
        buf_release(&x->content.mem);
        buf_release(&x->held_body);
        list_push_front(&w->free_exchanges, &x->node);
        w->n_free_exchanges++;
    } else {
        exchange_free(x);
    }
    if (fs != NULL)
        fs->ops->release(fs); /* last: the next request may begin in here */
}

void exchange_free_all(struct worker *w)
{
    struct list *node;

    while ((node = list_pop(&w->free_exchanges)) != NULL)
        exchange_free(CONTAINER_OF(node, struct exchange, node));
    w->n_free_exchanges = 0;
}
