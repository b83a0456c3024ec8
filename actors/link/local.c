#include "link/local.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "link/session.h"
#include "link/view.h"
#include "wire/dispatch.h"

#define PATIENCE_AWAY_MS 1000u
#define PATIENCE_HERE_MS 2500u /* below the proxy's fail-fast time */

static void unresolved(struct link *l, slice_t to, const struct wire_resolve *ask,
                       const char *why)
{
    const struct wire_unresolved out = {
        .id = ask->id, .target = ask->target, .why = slice_str(why)};
    l->count.unresolved++;
    LINK_TELL(l->local, to, unresolved, &out);
}

static void on_resolve(void *arg, const struct wire_call *call)
{
    struct link *l = arg;
    const struct wire_resolve *m = WIRE_GOT(resolve, call);
    slice_t from = call->mail->from;
    char topic[WIRE_TOPIC_MAX + 1], target[LINK_TARGET];
    struct view *v = NULL;
    if (!view_topic_of(l, m->target, topic) ||
        !slice_to_cstr(m->target, target, sizeof target)) {
        unresolved(l, from, m, "not a target: IP:PORT, [IPv6]:PORT or NAME:PORT");
        return;
    }
    err_t e = view_get(l, slice_str(topic), &v);
    struct interest *i = e == OK ? view_add_interest(l, v, from, target) : NULL;
    if (i == NULL) {
        unresolved(l, from, m, ERR_OF(LINK_FULL)->text);
        return;
    }
    i->id = m->id;
    session_watch(l, v);
    if (v->payload != NULL && (v->is_fresh || l->state < LINK_SYNC)) {
        view_tell(l, v, i);
        return;
    }
    /* In SYNC the answer is on its way; what is held is told if it does not come. */
    v->waits_until_ms =
        clock_now_ms() + (l->state >= LINK_SYNC ? PATIENCE_HERE_MS : PATIENCE_AWAY_MS);
    session_hurry(l);
}

static void on_forget(void *arg, const struct wire_call *call)
{
    struct link *l = arg;
    const struct wire_forget *m = WIRE_GOT(forget, call);
    char topic[WIRE_TOPIC_MAX + 1], target[LINK_TARGET];
    struct view *v = view_topic_of(l, m->target, topic) ? view_find(l, slice_str(topic)) : NULL;
    if (v != NULL && slice_to_cstr(m->target, target, sizeof target))
        view_remove_interest(l, v, call->mail->from, target);
}

static void on_listen(void *arg, const struct wire_call *call)
{
    struct link *l = arg;
    const struct wire_listen *m = WIRE_GOT(listen, call);
    bool is_trust = slice_is_str(m->topic, "trust");
    if (!is_trust && !slice_is_str(m->topic, "ports"))
        return;
    struct view *v = view_find(l, is_trust ? SLICE_LIT("trust") : slice_str(l->own_topic));
    struct interest *i =
        v != NULL ? view_add_interest(l, v, call->mail->from, is_trust ? "trust" : "ports")
                  : NULL;
    if (i != NULL)
        view_tell(l, v, i);
}

static void on_applied(void *arg, const struct wire_call *call)
{
    struct link *l = arg;
    const struct wire_applied *m = WIRE_GOT(applied, call);
    char topic[WIRE_TOPIC_MAX + 1], target[LINK_TARGET];
    struct view *v = NULL;
    if (!slice_to_cstr(m->topic, target, sizeof target))
        return;
    if (slice_is_str(m->topic, "trust"))
        v = view_find(l, m->topic);
    else if (slice_is_str(m->topic, "ports"))
        v = view_find(l, slice_str(l->own_topic));
    else if (view_topic_of(l, m->topic, topic))
        v = view_find(l, slice_str(topic));
    if (v != NULL)
        view_applied(l, v, call->mail->from, target, m->revision);
}

static void on_serving(void *arg, const struct wire_call *call)
{
    session_serving(arg, WIRE_GOT(serving, call)->is_serving);
}

static void on_certify(void *arg, const struct wire_call *call)
{
    session_certify(arg, call->mail->from, WIRE_GOT(certify, call));
}

static void on_spoken(void *arg, const struct wire_call *call)
{
    const struct wire_spoken *m = WIRE_GOT(spoken, call);
    session_spoken(arg, m->port, m->protocol);
}

static const struct wire_permit permits[] = {
    {WIRE_resolve, on_resolve, false}, {WIRE_forget, on_forget, false},
    {WIRE_listen, on_listen, false},   {WIRE_applied, on_applied, false},
    {WIRE_serving, on_serving, false}, {WIRE_certify, on_certify, false},
    {WIRE_spoken, on_spoken, false},
};
static struct wire_desk desk = {.name = "link",
                                .me = WIRE_ROLE_LINK,
                                .from = WIRE_ROLE_PROXY | WIRE_ROLE_TLS | WIRE_ROLE_TELEMETRY,
                                .permits = permits,
                                .n_permits = sizeof permits / sizeof permits[0]};

static void on_msg(void *arg, const struct mailbox_msg *m)
{
    struct link *l = arg;
    if (wire_dispatch(&desk, m, NULL, l) != OK)
        l->count.bad_messages++;
}

static void on_telemetry_link(void *arg, bool is_up)
{
    struct link *l = arg;
    if (is_up)
        session_tell_state(l);
}

err_t local_open(struct link *l)
{
    char endpoint[128];
    TRY(actor_ipc(l->actor, "link", endpoint));
    const struct mailbox_conf conf = {.kind = MAILBOX_ROUTER,
                                      .name = "link",
                                      .endpoint = endpoint,
                                      .bind = true,
                                      .hwm = 2 * LINK_MAX_VIEWS,
                                      .allow = mailbox_allow_same_uid,
                                      .on_msg = on_msg,
                                      .arg = l};
    TRY(mailbox_open(l->base, &conf, &l->local));
    TRY(actor_ipc(l->actor, "telemetry", endpoint));
    const struct mailbox_conf up = {.kind = MAILBOX_DEALER,
                                    .name = "telemetry",
                                    .endpoint = endpoint,
                                    .on_link = on_telemetry_link,
                                    .arg = l};
    return mailbox_open(l->base, &up, &l->telemetry);
}

void local_close(struct link *l)
{
    if (l->local != NULL)
        mailbox_close(&l->local);
    if (l->telemetry != NULL)
        mailbox_close(&l->telemetry);
}
