#include "proxy/exchange/ask.h"

#include "kit/log.h"
#include "kit/mailbox.h"
#include "proxy/balance/balance.h"

#include <stdlib.h>

struct asks {
    struct mailbox *retry;
    bool is_linked;
    struct ask *waiting;
    uint64_t next_id;
    struct list settling; /* backends with outcomes to tell */
};

static struct ask *take(struct asks *a, uint64_t id)
{
    struct ask *ask;

    HASH_FIND(hh, a->waiting, &id, sizeof(id), ask);
    if (ask != NULL) {
        HASH_DEL(a->waiting, ask);
        ask->asks = NULL;
    }
    return ask; /* NULL: answered too late */
}

static void on_msg(void *arg, const struct mailbox_msg *msg)
{
    struct asks *a = arg;
    struct wire_msg m;
    const struct wire_retry_go *go;
    const struct wire_retry_stop *stop;
    struct ask *ask;
    err_t why = wire_decode(msg->body, WIRE_ROLE_RETRY, WIRE_ROLE_PROXY, &m);

    if (why != OK) {
        log_warn("message from weft-retry refused", "why=%s at=%s", why->name, m.at);
        return;
    }
    go = wire_as(retry_go, &m);
    stop = wire_as(retry_stop, &m);
    if (go != NULL) {
        ask = take(a, go->id);
        if (ask != NULL)
            ask->go(ask, go->after_ms);
    } else if (stop != NULL) {
        ask = take(a, stop->id);
        if (ask != NULL)
            ask->stop(ask, stop->reason);
    }
    wire_msg_done(&m);
}

static void on_link(void *arg, bool is_up)
{
    struct asks *a = arg;
    struct ask *ask;

    a->is_linked = is_up;
    if (is_up)
        return;
    /* It died with our questions: nobody will answer them. Who is told may call off others, and nobody can ask anew. */
    while ((ask = a->waiting) != NULL) {
        HASH_DEL(a->waiting, ask);
        ask->asks = NULL;
        ask->stop(ask, SLICE_LIT("NO_VERDICT"));
    }
}

err_t asks_new(struct event_base *base, const char *endpoint, struct asks **out)
{
    struct asks *a = calloc(1, sizeof(*a));
    struct mailbox_conf mc = {.kind = MAILBOX_DEALER,
                              .name = "retry",
                              .endpoint = endpoint,
                              .hwm = 10000,
                              .on_msg = on_msg,
                              .on_link = on_link,
                              .arg = a};

    if (a == NULL)
        return ERR_OF(NOMEM);
    list_init(&a->settling);
    if (endpoint != NULL) {
        err_t why = mailbox_open(base, &mc, &a->retry);

        if (why != OK) {
            free(a);
            return why;
        }
    }
    *out = a;
    return OK;
}

void asks_free(struct asks **ap)
{
    struct asks *a = *ap;

    if (a == NULL)
        return;
    HASH_CLEAR(hh, a->waiting);
    while (list_pop(&a->settling) != NULL)
        ;
    mailbox_close(&a->retry);
    free(a);
    *ap = NULL;
}

bool asks_is_linked(const struct asks *a)
{
    return a->is_linked;
}

err_t asks_ask(struct asks *a, struct ask *ask, struct wire_retry_ask *q)
{
    if (a->retry == NULL || !a->is_linked)
        return ERR_OF(PEER_GONE);
    q->id = ++a->next_id;
    TRY(WIRE_SEND(a->retry, SLICE_LIT(""), retry_ask, q));
    ask->asks = a;
    ask->id = q->id;
    HASH_ADD(hh, a->waiting, id, sizeof(ask->id), ask);
    return OK;
}

void ask_cancel(struct ask *ask)
{
    struct asks *a = ask->asks;
    struct wire_retry_cancel m = {.id = ask->id};

    if (a == NULL)
        return;
    HASH_DEL(a->waiting, ask);
    ask->asks = NULL;
    err_ignore(WIRE_SEND(a->retry, SLICE_LIT(""), retry_cancel,
                         &m)); /* away: it has forgotten already */
}

void asks_note(struct asks *a, struct backend *service, bool is_first, bool is_success)
{
    service->requests += is_first;
    service->successes += is_success;
    if (list_is_empty(&service->settling))
        list_push(&a->settling, &service->settling);
}

void asks_tick(struct asks *a)
{
    struct list *node;

    while ((node = list_pop(&a->settling)) != NULL) {
        struct backend *be = CONTAINER_OF(node, struct backend, settling);
        struct wire_retry_settle m = {.service = slice_str(be->key),
                                      .requests = be->requests,
                                      .successes = be->successes};

        if (a->retry != NULL)
            err_ignore(WIRE_SEND(a->retry, SLICE_LIT(""), retry_settle,
                                 &m)); /* lost: the budget is smaller for a while */
        be->requests = be->successes = 0;
    }
}

void asks_hold(struct asks *a, const struct backend *service, uint32_t ms)
{
    struct wire_retry_settle m = {.service = slice_str(service->key), .hold_ms = ms};

    if (a->retry != NULL)
        err_ignore(WIRE_SEND(a->retry, SLICE_LIT(""), retry_settle, &m)); /* away: nobody retries anyhow */
}
