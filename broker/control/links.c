/* Every message is judged by the key its connection was admitted with (mailbox_msg.user), in
 * two phases:
 *
 *   no session on this connection    hello only; anything else is answered HELLO_FIRST
 *   session LIVE on this connection  everything in permits[]
 *
 * A connection with a join token may say hello and nothing else: it registers the link's own
 * key and is told to come back with it. */
#include "broker/control/links.h"

#include "broker/control/desk.h"
#include "broker/control/issuer.h"
#include "broker/control/keys.h"
#include "broker/control/learned.h"
#include "broker/control/sessions.h"
#include "broker/control/topics.h"
#include "broker/control/views.h"
#include "kit/clock.h"
#include "kit/log.h"
#include "model/name.h"
#include "wire/dispatch.h"

#include <stdio.h>

#define LINK_HWM                                                                               \
    4000u /* a link that joins with CONTROL_MAX_WATCHES topics gets them in one go */

/* Who is talking: filled in before a message is handed on. */
struct talk {
    struct control *c;
    struct session *session; /* NULL: phase one */
};

static slice_t route_of(const struct session *s)
{
    return slice(s->route, s->n_route);
}

/* ---- hello ---- */

static void welcome(struct control *c, slice_t to, const struct wire_hello *h,
                    const char *identity, bool use_own_key)
{
    const struct wire_welcome answer = {.id = h->id,
                                        .epoch = mesh_epoch(c->mesh),
                                        .revision = c->settled,
                                        .identity = slice_str(identity),
                                        .wall_ms = (int64_t)clock_wall_ms(),
                                        .lease_ms = (uint32_t)c->set->lease,
                                        .use_own_key = use_own_key};
    CONTROL_SEND(c, c->links, to, welcome, &answer);
}

static void hello_with_key(struct control *c, struct link_key *key, slice_t from,
                           const struct wire_hello *h)
{
    struct session *s = NULL;
    const char *why = NULL;
    err_t e = sessions_hello(c, key, from, h, &s, &why);
    if (e != OK) {
        control_refuse(c, c->links, from, h->id, e, why);
        control_event(c, "SESSION_REFUSED", key->pod, "%s %s", e->name, why != NULL ? why : "");
        return;
    }
    sessions_note_clock(c, s, h->wall_ms);
    welcome(c, from, h, s->identity, false);
    log_info("session open", "pod=%s version=%s", s->name, s->version);
}

static err_t store_join(struct control *c, const struct join_token *token,
                        const struct wire_hello *h)
{
    const struct mesh_key row = {.public_key = h->link_key,
                                 .ns = h->namespace,
                                 .service_account = h->service_account,
                                 .pod = h->pod};
    TRY(control_begin(c, h->pod, SLICE_LIT("joined")));
    /* A pod of the same name that came before loses its keys: the token's holder is the pod
     * now. */
    err_t e = mesh_drop_link_keys(c->mesh, h->namespace, h->pod);
    if (e == OK)
        e = mesh_put_link_key(c->mesh, &row);
    if (e == OK)
        e = mesh_use_token(c->mesh, slice_str(token->id), h->link_key);
    if (e == OK)
        return control_commit(c);
    mesh_rollback(c->mesh);
    return e;
}

static void forget_old_keys(struct control *c, const char *ns, const char *pod)
{
    struct link_key *k, *next;
    HASH_ITER(hh, c->keys, k, next)
    if (strcmp(k->ns, ns) == 0 && strcmp(k->pod, pod) == 0) {
        if (k->session != NULL)
            sessions_lost_route(k->session);
        keys_remove(c, k);
    }
}

static err_t join(struct control *c, struct join_token *token, const struct wire_hello *h,
                  const char **why)
{
    char key[MAILBOX_KEY_TEXT], ns[64], pod[254];
    TRY(sessions_check_hello(h, why));
    if (!slice_is_str(h->namespace, token->ns) ||
        !slice_is_str(h->service_account, token->service_account))
        return ERR_OF(WRONG_NAME);
    *why = "link_key";
    if (h->link_key.n != 40 || !slice_to_cstr(h->link_key, key, sizeof key) ||
        !slice_to_cstr(h->namespace, ns, sizeof ns) || !slice_to_cstr(h->pod, pod, sizeof pod))
        return ERR_OF(BAD_HELLO);
    *why = NULL;
    if (token->used_by[0] != '\0') /* the answer to the first hello was lost: say it again */
        return strcmp(token->used_by, key) == 0 && keys_find(c, key) != NULL
                   ? OK
                   : ERR_OF(TOKEN_USED);
    const struct link_key *known = keys_find(c, key);
    if (known != NULL && (strcmp(known->ns, ns) != 0 || strcmp(known->pod, pod) != 0 ||
                          strcmp(known->service_account, token->service_account) != 0))
        return ERR_OF(WRONG_NAME); /* registered for somebody else: a key belongs to one pod */
    TRY(store_join(c, token, h));
    forget_old_keys(c, ns, pod);
    (void)snprintf(token->used_by, sizeof token->used_by, "%s", key);
    topics_settle(c);
    return keys_add(c, key, ns, token->service_account, pod) != NULL ? OK : ERR_OF(NOMEM);
}

static void hello_with_token(struct control *c, struct join_token *token, slice_t from,
                             const struct wire_hello *h)
{
    const char *why = NULL;
    err_t e = join(c, token, h, &why);
    if (e == OK) {
        welcome(c, from, h, "", true);
        return;
    }
    control_refuse(c, c->links, from, h->id, e, why);
    control_event(c, "JOIN_REFUSED", token->id, "%s %s", e->name, why != NULL ? why : "");
}

static void on_hello(void *arg, const struct wire_call *call)
{
    struct control *c = ((struct talk *)arg)->c;
    const struct wire_hello *h = WIRE_GOT(hello, call);
    struct link_key *key = keys_of_user(c, call->mail->user);
    struct join_token *token = keys_token_of_user(c, call->mail->user);
    if (key != NULL)
        hello_with_key(c, key, call->mail->from, h);
    else if (token != NULL)
        hello_with_token(c, token, call->mail->from, h);
    else
        control_refuse(c, c->links, call->mail->from, h->id, ERR_OF(TOKEN_EXPIRED), NULL);
}

/* ---- topics ---- */

static void send_topic(struct control *c, const struct session *s, const struct topic *t)
{
    struct buf own;
    const struct wire_topic out = {.epoch = mesh_epoch(c->mesh),
                                   .mesh_revision = c->settled,
                                   .topic = slice_str(t->name),
                                   .revision = t->revision,
                                   .payload = topics_payload(c, t, s, &own)};
    c->count.topics_sent++;
    /* A full queue: the link asks again when the next digest shows what it lacks. */
    CONTROL_SEND(c, c->links, route_of(s), topic, &out);
    buf_done(&own);
}

static void on_watch(void *arg, const struct wire_call *call)
{
    struct talk *talk = arg;
    struct control *c = talk->c;
    const struct wire_watch *m = WIRE_GOT(watch, call);
    struct wire_topic_state same[256];
    struct wire_topic_same answer = {.epoch = mesh_epoch(c->mesh), .topics = same};
    for (size_t i = 0; i < m->n_topics; i++) {
        struct topic *t = NULL;
        err_t e = topics_watch(c, talk->session, m->topics[i].topic, &t);
        if (e != OK) {
            char why[400];
            (void)snprintf(why, sizeof why, "%.*s: %s", SLICE_FMT(m->topics[i].topic), e->text);
            control_refuse(c, c->links, route_of(talk->session), 0, e, why);
        } else if (t->payload != NULL && t->revision == m->topics[i].revision &&
                   t->revision != 0) {
            same[answer.n_topics++] =
                (struct wire_topic_state){.topic = slice_str(t->name), .revision = t->revision};
        } else if (t->payload != NULL) {
            send_topic(c, talk->session, t);
        }
    }
    answer.mesh_revision = c->settled;
    if (answer.n_topics != 0)
        CONTROL_SEND(c, c->links, route_of(talk->session), topic_same, &answer);
}

static void on_unwatch(void *arg, const struct wire_call *call)
{
    struct talk *talk = arg;
    const struct wire_unwatch *m = WIRE_GOT(unwatch, call);
    for (size_t i = 0; i < m->n_topics; i++)
        topics_unwatch(talk->c, talk->session, m->topics[i].topic);
}

static void on_fetch(void *arg, const struct wire_call *call)
{
    struct talk *talk = arg;
    const struct wire_fetch *m = WIRE_GOT(fetch, call);
    for (size_t i = 0; i < m->n_topics; i++) {
        struct topic *t = topics_of(talk->c, talk->session, m->topics[i].topic);
        if (t == NULL && topics_watch(talk->c, talk->session, m->topics[i].topic, &t) != OK)
            continue;
        if (t->payload != NULL)
            send_topic(talk->c, talk->session, t);
    }
}

static void on_ack(void *arg, const struct wire_call *call)
{
    struct talk *talk = arg;
    struct session *s = talk->session;
    const struct wire_ack *m = WIRE_GOT(ack, call);
    if (m->epoch != mesh_epoch(talk->c->mesh))
        return; /* of another life of the mesh: its hello is on the way */
    s->have = m->applied;
    if (topics_is_caught_up(talk->c, s))
        desk_look_soon(talk->c);
}

/* ---- the rest ---- */

static void on_alive(void *arg, const struct wire_call *call)
{
    struct talk *talk = arg;
    sessions_note_clock(talk->c, talk->session, WIRE_GOT(alive, call)->wall_ms);
}

static void on_serving(void *arg, const struct wire_call *call)
{
    struct talk *talk = arg;
    err_t e = sessions_set_serving(talk->c, talk->session, WIRE_GOT(serving, call)->is_serving);
    if (e != OK) /* the link says it again with its next hello */
        control_refuse(talk->c, talk->c->links, route_of(talk->session), 0, e, NULL);
}

static void on_learn(void *arg, const struct wire_call *call)
{
    struct talk *talk = arg;
    const struct wire_learn *m = WIRE_GOT(learn, call);
    err_t e = learned_add(talk->c, talk->session, m->port, m->protocol);
    if (e != OK)
        control_refuse(talk->c, talk->c->links, route_of(talk->session), 0, e,
                       "port or protocol");
}

static void on_sign(void *arg, const struct wire_call *call)
{
    struct talk *talk = arg;
    issuer_sign(talk->c, talk->session, WIRE_GOT(sign, call));
}

static void on_bye(void *arg, const struct wire_call *call)
{
    struct talk *talk = arg;
    (void)call;
    sessions_end(talk->c, talk->session, "bye");
    talk->session = NULL;
    desk_look_at_waits(talk->c);
}

static const struct wire_permit first_permits[] = {{WIRE_hello, on_hello, false}};
static const struct wire_permit permits[] = {
    {WIRE_hello, on_hello, false},     {WIRE_alive, on_alive, false},
    {WIRE_watch, on_watch, false},     {WIRE_unwatch, on_unwatch, false},
    {WIRE_fetch, on_fetch, false},     {WIRE_ack, on_ack, false},
    {WIRE_serving, on_serving, false}, {WIRE_learn, on_learn, false},
    {WIRE_sign, on_sign, false},       {WIRE_bye, on_bye, false},
};

static struct wire_desk first_desk = {.name = "links",
                                      .me = WIRE_ROLE_BROKER,
                                      .from = WIRE_ROLE_LINK,
                                      .permits = first_permits,
                                      .n_permits = 1};
static struct wire_desk session_desk = {.name = "sessions",
                                        .me = WIRE_ROLE_BROKER,
                                        .from = WIRE_ROLE_LINK,
                                        .permits = permits,
                                        .n_permits = sizeof permits / sizeof permits[0]};

static void on_msg(void *arg, const struct mailbox_msg *m)
{
    struct talk talk = {.c = arg};
    struct link_key *key = keys_of_user(arg, m->user);
    if (key != NULL && key->session != NULL && key->session->state == SESSION_LIVE &&
        slice_is(route_of(key->session), m->from))
        talk.session = key->session;
    if (talk.session != NULL)
        sessions_heard(talk.c, talk.session);
    err_t e = wire_dispatch(talk.session != NULL ? &session_desk : &first_desk, m, NULL, &talk);
    if (e == OK)
        return;
    talk.c->count.bad_messages++;
    bool is_early = talk.session == NULL && e == ERR_OF(WIRE_NOT_NOW);
    control_refuse(talk.c, talk.c->links, m->from, 0, is_early ? ERR_OF(HELLO_FIRST) : e, NULL);
}

/* ---- the mailboxes ---- */

static err_t open_one(struct control *c, const struct mailbox_conf *proto, uint32_t port,
                      struct mailbox **out)
{
    char endpoint[128];
    bool is_ipv6 = strchr(c->set->listen_address, ':') != NULL;
    struct mailbox_conf conf = *proto;
    (void)snprintf(endpoint, sizeof endpoint, is_ipv6 ? "tcp://[%s]:%u" : "tcp://%s:%u",
                   c->set->listen_address, port);
    conf.endpoint = endpoint;
    conf.bind = true;
    conf.secret_key = c->secret_key;
    conf.public_key = c->public_key;
    conf.allow = keys_allow;
    conf.arg = c;
    err_t e = mailbox_open(c->base, &conf, out);
    if (e != OK)
        log_error("socket not bound", "endpoint=%s error=%s", endpoint, e->name);
    return e;
}

err_t links_open(struct control *c)
{
    const struct mailbox_conf requests = {
        .kind = MAILBOX_ROUTER, .name = "links", .hwm = LINK_HWM, .on_msg = on_msg};
    const struct mailbox_conf updates = {
        .kind = MAILBOX_PUB, .name = "updates", .hwm = LINK_HWM};
    TRY(open_one(c, &requests, c->set->broker_port, &c->links));
    return open_one(c, &updates, c->set->updates_port, &c->updates);
}

void links_close(struct control *c)
{
    if (c->links != NULL)
        mailbox_close(&c->links);
    if (c->updates != NULL)
        mailbox_close(&c->updates);
}
