/* Targets and the line to weft-link. */
#include "proxy/discover/discover.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "proxy/balance/balance.h"
#include "proxy/net/address.h"

#include <stdlib.h>

#define AGAIN_MS 1000
#define SWEEP_MS 5000

struct discover {
    struct discover_conf conf;
    struct mailbox *link;
    bool is_linked;
    uint64_t unlinked_since_ms;
    struct target *targets;
    unsigned n_waiting;
    uint64_t next_id;
    bool is_serving, serving_is_known;
    struct timer sweep;
    struct timer again; /* something was lost for lack of memory: everything is asked for again */
    size_t n_ports;
    struct {
        uint16_t port;
        uint8_t protocol, lesson;
    } ports[DISCOVER_PORTS_MAX];
    size_t n_spoken;
    struct {
        uint16_t port;
        uint8_t protocol;
    } spoken[DISCOVER_SPOKEN_MAX];
    struct discover_counters counters;
};

static void target_enter(struct target *t, enum target_state next)
{
    struct list told, *node;

    t->state = next;
    if (next == TARGET_ASKED)
        return;
    timer_stop(&t->timer);
    list_init(&told);
    while ((node = list_pop(&t->waiting)) != NULL)
        list_push(&told, node);
    t->users++; /* a callback may drop the last use */
    while (!list_is_empty(&told)) {
        struct target_wait *w = CONTAINER_OF(told.next, struct target_wait, node);

        target_wait_cancel(w);
        w->done(w);
    }
    if (--t->users == 0)
        t->idle_since_ms = clock_now_ms();
}

static void target_put(struct target *t, struct destination *version, enum target_state state)
{
    struct destination *old = t->now;

    t->now = version;
    destination_unref(&old);
    target_enter(t, state);
}

/* Nobody told us in time. */
static void target_give_up(struct target *t)
{
    struct discover *d = t->discover;
    struct destination *version = NULL;

    if (t->state != TARGET_ASKED)
        return;
    if (t->has_plain &&
        destination_plain(t->text, &t->plain, d->conf.balance, &version) == OK) {
        d->counters.guesses++;
        log_debug("target treated as unknown", "target=%s", t->text);
        target_put(t, version, TARGET_GUESSED);
    } else {
        target_enter(t, TARGET_LOST);
    }
}

static void on_target_timer(void *arg)
{
    target_give_up(arg);
}

/* The link believes that it has told us: unless we ask again, an old view, or none, would stay for ever. */
static void ask_later(struct discover *d)
{
    if (!timer_is_armed(&d->again))
        timer_once(&d->again, AGAIN_MS);
}

static void target_ask(struct target *t)
{
    struct wire_resolve m = {.id = ++t->discover->next_id, .target = slice_str(t->text)};
    err_t why;

    if (t->discover->link == NULL)
        return;
    t->asked_ms = clock_now_ms();
    why = WIRE_SEND(t->discover->link, SLICE_LIT(""), resolve, &m);
    if (why == OK)
        return;
    /* The link is away: on its return every target is asked for again. Or there is no memory. */
    log_debug("resolve not sent", "target=%s why=%s", t->text, why->name);
    if (t->discover->is_linked)
        ask_later(t->discover);
}

static void target_free(struct target *t)
{
    HASH_DEL(t->discover->targets, t);
    timer_stop(&t->timer);
    destination_unref(&t->now);
    free(t->text);
    free(t);
}

static void target_forget(struct target *t)
{
    struct wire_forget m = {.target = slice_str(t->text)};

    if (t->discover->link != NULL)
        err_ignore(WIRE_SEND(t->discover->link, SLICE_LIT(""), forget,
                             &m)); /* away: it has forgotten already */
    target_free(t);
}

static void on_sweep(void *arg)
{
    struct discover *d = arg;
    struct target *t, *next;
    uint64_t now = clock_now_ms();

    HASH_ITER(hh, d->targets, t, next)
    if (t->users == 0 && now - t->idle_since_ms >= DISCOVER_IDLE_MS)
        target_forget(t);
}

/* ---- from the link ---- */

static void on_destination(struct discover *d, const struct wire_destination *m, slice_t bytes)
{
    struct destination *version = NULL;
    struct target *t;
    err_t why;

    HASH_FIND(hh, d->targets, m->target.p, m->target.n, t);
    if (t == NULL)
        return; /* forgotten meanwhile */
    /* A link that has just started tells what was on disk. What is in force is newer; but after
     * a restore of the control plane smaller revisions are the truth, so nothing else is
     * refused for its number. */
    if (t->state == TARGET_KNOWN && m->is_stale && m->revision < t->now->view->revision)
        return;
    why = destination_read(bytes, d->conf.balance, d->conf.is_local, d->conf.arg, &version);
    if (why != OK) {
        d->counters.bad_views++;
        log_warn("view refused", "target=%s why=%s", t->text, why->name);
        if (why == ERR_OF(NOMEM))
            ask_later(d);
        return; /* the version in force stays */
    }
    d->counters.updates++;
    if (t->state != TARGET_KNOWN)
        d->counters.resolved++;
    log_debug("view in force", "target=%s revision=%llu kind=%u backends=%zu", t->text,
              (unsigned long long)m->revision, m->kind, version->n_backends);
    target_put(t, version, TARGET_KNOWN);
    if (d->link != NULL) {
        struct wire_applied done = {.topic = slice_str(t->text), .revision = m->revision};

        err_ignore(WIRE_SEND(d->link, SLICE_LIT(""), applied,
                             &done)); /* away: told anew after its return */
    }
}

static void on_unresolved(struct discover *d, const struct wire_unresolved *m)
{
    struct target *t;

    HASH_FIND(hh, d->targets, m->target.p, m->target.n, t);
    if (t != NULL)
        target_give_up(t);
}

static void on_ports(struct discover *d, const struct wire_ports *m)
{
    d->n_ports = 0;
    for (size_t i = 0; i < m->n_ports && i < DISCOVER_PORTS_MAX; i++) {
        d->ports[d->n_ports].port = m->ports[i].port;
        d->ports[d->n_ports].lesson = m->ports[i].lesson;
        d->ports[d->n_ports++].protocol = m->ports[i].protocol;
    }
    if (d->conf.on_ports != NULL)
        d->conf.on_ports(d->conf.arg, m);
}

static void on_msg(void *arg, const struct mailbox_msg *msg)
{
    struct discover *d = arg;
    struct wire_msg m;
    err_t why = wire_decode(msg->body, WIRE_ROLE_LINK, WIRE_ROLE_PROXY, &m);

    if (why != OK) {
        d->counters.bad_views++;
        log_warn("message from the link refused", "why=%s at=%s", why->name, m.at);
        if (why == ERR_OF(NOMEM))
            ask_later(d);
        return;
    }
    if (wire_as(destination, &m) != NULL)
        on_destination(d, wire_as(destination, &m), msg->body);
    else if (wire_as(unresolved, &m) != NULL)
        on_unresolved(d, wire_as(unresolved, &m));
    else if (wire_as(ports, &m) != NULL)
        on_ports(d, wire_as(ports, &m));
    wire_msg_done(&m);
}

static void say_serving(struct discover *d)
{
    struct wire_serving m = {.is_serving = d->is_serving};

    if (d->link != NULL && d->serving_is_known)
        err_ignore(WIRE_SEND(d->link, SLICE_LIT(""), serving,
                             &m)); /* away: said again at its return */
}

static void say_spoken(struct discover *d, size_t i)
{
    struct wire_spoken m = {.port = d->spoken[i].port, .protocol = d->spoken[i].protocol};

    if (d->link != NULL && d->is_linked)
        err_ignore(WIRE_SEND(d->link, SLICE_LIT(""), spoken,
                             &m)); /* away: said again at its return */
}

static void ask_all(struct discover *d)
{
    struct wire_listen ports = {.topic = SLICE_LIT("ports")};
    struct target *t, *next;

    if (WIRE_SEND(d->link, SLICE_LIT(""), listen, &ports) != OK)
        ask_later(d);
    say_serving(d);
    for (size_t i = 0; i < d->n_spoken; i++)
        say_spoken(d, i);
    HASH_ITER(hh, d->targets, t, next)
    target_ask(t);
}

static void on_again(void *arg)
{
    struct discover *d = arg;

    if (d->is_linked)
        ask_all(d);
}

static void on_link(void *arg, bool is_up)
{
    struct discover *d = arg;

    d->is_linked = is_up;
    log_info(is_up ? "link is there" : "link is away", "targets=%u", HASH_COUNT(d->targets));
    if (!is_up) {
        d->unlinked_since_ms = clock_now_ms();
        return;
    }
    ask_all(d);
}

/* ---- uses ---- */

static uint64_t wait_ms(const struct discover *d)
{
    uint64_t gone;

    if (d->link == NULL)
        return 0;
    if (d->is_linked)
        return d->conf.wait_ms;
    /* The link has been away for long: nobody waits for it again. */
    gone = clock_now_ms() - d->unlinked_since_ms;
    return gone >= d->conf.wait_ms ? 0 : d->conf.wait_ms - gone;
}

static bool make_room(struct discover *d)
{
    struct target *t, *next;

    if (HASH_COUNT(d->targets) < DISCOVER_TARGETS_MAX)
        return true;
    HASH_ITER(hh, d->targets, t, next)
    if (t->users == 0) {
        target_forget(t);
        return true;
    }
    return false;
}

static err_t target_make(struct discover *d, slice_t text, const struct sockaddr_storage *plain,
                         struct target **out)
{
    struct target *t;
    uint64_t wait;

    if (text.n == 0 || text.n > 300)
        return ERR_OF(TOO_BIG);
    if (!make_room(d))
        return ERR_OF(QUEUE_FULL);
    t = calloc(1, sizeof(*t));
    if (t == NULL)
        return ERR_OF(NOMEM);
    t->text = strndup((const char *)text.p, text.n);
    if (t->text == NULL) {
        free(t);
        return ERR_OF(NOMEM);
    }
    t->discover = d;
    list_init(&t->waiting);
    timer_init(&t->timer, d->conf.base, on_target_timer, t);
    if (plain != NULL) {
        t->plain = *plain;
        t->has_plain = true;
    }
    HASH_ADD_KEYPTR(hh, d->targets, t->text, text.n, t);
    target_ask(t);
    wait = wait_ms(d);
    if (wait == 0)
        target_give_up(t);
    else
        timer_once(&t->timer, wait);
    *out = t;
    return OK;
}

err_t discover_use(struct discover *d, slice_t text, const struct sockaddr_storage *plain,
                   struct target **out)
{
    struct target *t;

    HASH_FIND(hh, d->targets, text.p, text.n, t);
    if (t == NULL) {
        err_t why = target_make(d, text, plain, &t);

        if (why != OK) {
            d->counters.refused++;
            return why;
        }
    }
    /* Question or answer may have been lost. Nobody waits for it a second time: who comes after the answer is served. */
    if (t->state == TARGET_LOST && d->is_linked && clock_now_ms() - t->asked_ms >= AGAIN_MS)
        target_ask(t);
    t->users++;
    *out = t;
    return OK;
}

void target_drop(struct target **tp)
{
    struct target *t = *tp;

    if (t == NULL)
        return;
    *tp = NULL;
    BUG_ON(t->users == 0);
    if (--t->users == 0)
        t->idle_since_ms = clock_now_ms();
}

bool target_wait(struct target *t, struct target_wait *w, err_t *why)
{
    struct discover *d = t->discover;

    *why = OK;
    w->target = NULL;
    if (t->state != TARGET_ASKED)
        return true;
    if (d->n_waiting >= d->conf.waiting_max) {
        d->counters.refused++;
        *why = ERR_OF(QUEUE_FULL);
        return false;
    }
    d->n_waiting++;
    w->target = t;
    list_push(&t->waiting, &w->node);
    return false;
}

void target_wait_cancel(struct target_wait *w)
{
    if (w->target == NULL)
        return;
    w->target->discover->n_waiting--;
    w->target = NULL;
    list_del(&w->node);
}

uint8_t discover_port(const struct discover *d, uint16_t port)
{
    for (size_t i = 0; i < d->n_ports; i++)
        if (d->ports[i].port == port)
            return d->ports[i].protocol;
    return PROTOCOL_DETECT;
}

uint8_t discover_lesson(const struct discover *d, uint16_t port)
{
    for (size_t i = 0; i < d->n_ports; i++)
        if (d->ports[i].port == port)
            return d->ports[i].protocol == PROTOCOL_DETECT ? d->ports[i].lesson
                                                           : PROTOCOL_DETECT;
    return PROTOCOL_DETECT;
}

void discover_spoken(struct discover *d, uint16_t port, uint8_t protocol)
{
    size_t i = 0;

    while (i < d->n_spoken && d->spoken[i].port != port)
        i++;
    if (i == DISCOVER_SPOKEN_MAX)
        return; /* more ports than are learned of */
    d->spoken[i].port = port;
    d->spoken[i].protocol = protocol;
    if (i == d->n_spoken)
        d->n_spoken++;
    say_spoken(d, i);
}

void discover_serving(struct discover *d, bool is_serving)
{
    d->is_serving = is_serving;
    d->serving_is_known = true;
    if (d->is_linked)
        say_serving(d);
}

const struct discover_counters *discover_count(const struct discover *d)
{
    return &d->counters;
}

bool discover_is_linked(const struct discover *d)
{
    return d->is_linked;
}

err_t discover_new(const struct discover_conf *conf, struct discover **out)
{
    struct discover *d = calloc(1, sizeof(*d));
    struct mailbox_conf mc = {.kind = MAILBOX_DEALER,
                              .name = "link",
                              .endpoint = conf->endpoint,
                              .hwm = 10000,
                              .on_msg = on_msg,
                              .on_link = on_link,
                              .arg = d};
    err_t why;

    if (d == NULL)
        return ERR_OF(NOMEM);
    d->conf = *conf;
    d->unlinked_since_ms = clock_now_ms();
    timer_init(&d->sweep, conf->base, on_sweep, d);
    timer_init(&d->again, conf->base, on_again, d);
    if (conf->endpoint != NULL) {
        why = mailbox_open(conf->base, &mc, &d->link);
        if (why != OK) {
            free(d);
            return why;
        }
    }
    timer_every(&d->sweep, SWEEP_MS);
    *out = d;
    return OK;
}

void discover_free(struct discover **dp)
{
    struct discover *d = *dp;
    struct target *t, *next;

    if (d == NULL)
        return;
    HASH_ITER(hh, d->targets, t, next)
    target_free(t);
    timer_stop(&d->sweep);
    timer_stop(&d->again);
    mailbox_close(&d->link);
    free(d);
    *dp = NULL;
}
