#include "broker/control/desk.h"

#include "broker/control/issuer.h"
#include "broker/control/objects.h"
#include "broker/control/sessions.h"
#include "broker/control/topics.h"
#include "broker/control/views.h"
#include "kit/clock.h"
#include "model/name.h"
#include "wire/dispatch.h"

#include <stdio.h>
#include <stdlib.h>

#define WAITS_MAX    256u
#define LOOK_MS      10u
#define WAIT_MAX_MS  600000u
#define LAGGARDS_MAX 1024u /* as wire: waited.laggards */
#define ANSWER_ARENA (8u << 20)
#define OBJECTS_MAX  64u /* as wire: apply.objects */

struct wait {
    struct list link;
    uint64_t id, revision, ends_ms;
    size_t n_route;
    uint8_t route[CONTROL_MAX_ROUTE];
};

/* ---- apply, delete ---- */

static void answer_applied(struct control *c, slice_t to, uint64_t id,
                           struct wire_outcome *list, size_t n)
{
    const struct wire_applied_objects answer = {
        .id = id, .revision = mesh_revision(c->mesh), .n_outcomes = n, .outcomes = list};
    err_t e = WIRE_SEND(c->cli, to, applied_objects, &answer);
    if (e != OK) /* a reason that is not text, or too much of it: the short form */
        control_refuse(c, c->cli, to, id, e, NULL);
}

static void on_apply(void *arg, const struct wire_call *call)
{
    struct control *c = arg;
    const struct wire_apply *m = WIRE_GOT(apply, call);
    struct wire_outcome list[OBJECTS_MAX] = {0};
    struct arena arena;
    arena_init(&arena, ANSWER_ARENA);
    objects_apply(c, m, &arena, list);
    answer_applied(c, call->mail->from, m->id, list, m->n_objects);
    arena_done(&arena);
}

static void on_delete(void *arg, const struct wire_call *call)
{
    struct control *c = arg;
    const struct wire_delete_ *m = WIRE_GOT(delete_, call);
    struct wire_outcome list[OBJECTS_MAX] = {0};
    struct arena arena;
    arena_init(&arena, ANSWER_ARENA);
    objects_delete(c, m, &arena, list);
    answer_applied(c, call->mail->from, m->id, list, m->n_objects);
    arena_done(&arena);
}

/* ---- wait ---- */

static bool is_laggard(struct control *c, struct session *s, uint64_t revision)
{
    (void)topics_is_caught_up(c, s);
    return s->acked < revision;
}

/* Who has not applied the revision; at most LAGGARDS_MAX are named, all are counted. */
static size_t find_laggards(struct control *c, uint64_t revision, struct wire_laggard *out,
                            unsigned *sessions)
{
    size_t n = 0;
    struct session *s, *next;
    *sessions = 0;
    HASH_ITER(hh, c->sessions, s, next)
    {
        ++*sessions;
        if (!is_laggard(c, s, revision))
            continue;
        if (n < LAGGARDS_MAX)
            out[n++] =
                (struct wire_laggard){.pod = slice_str(s->name),
                                      .revision = s->acked,
                                      .age_ms = (uint32_t)(clock_now_ms() - s->heard_ms)};
    }
    return n;
}

static bool is_over(struct control *c, const struct wait *w)
{
    struct session *s, *next;
    if (clock_now_ms() >= w->ends_ms)
        return true;
    if (c->settled < w->revision)
        return false;
    HASH_ITER(hh, c->sessions, s, next)
    if (is_laggard(c, s, w->revision))
        return false;
    return true;
}

static void answer_wait(struct control *c, struct wait *w)
{
    struct wire_laggard laggards[LAGGARDS_MAX];
    unsigned sessions;
    struct wire_waited answer = {.id = w->id, .laggards = laggards};
    answer.n_laggards = find_laggards(c, w->revision, laggards, &sessions);
    answer.sessions = sessions;
    CONTROL_SEND(c, c->cli, slice(w->route, w->n_route), waited, &answer);
    list_del(&w->link);
    free(w);
    c->n_waits--;
}

void desk_look_at_waits(struct control *c)
{
    LIST_EACH_SAFE (it, &c->waits) {
        struct wait *w = CONTAINER_OF(it, struct wait, link);
        if (is_over(c, w))
            answer_wait(c, w);
    }
}

static void on_wait_turn(void *arg)
{
    desk_look_at_waits(arg);
}

void desk_look_soon(struct control *c)
{
    if (!list_is_empty(&c->waits) && !timer_is_armed(&c->wait_turn))
        timer_once(&c->wait_turn, LOOK_MS);
}

static void on_wait(void *arg, const struct wire_call *call)
{
    struct control *c = arg;
    const struct wire_wait *m = WIRE_GOT(wait, call);
    slice_t from = call->mail->from;
    if (m->revision > mesh_revision(c->mesh)) {
        control_refuse(c, c->cli, from, m->id, ERR_OF(BAD_REQUEST),
                       "revision: the mesh has not come to this revision");
        return;
    }
    struct wait *w =
        c->n_waits < WAITS_MAX && from.n <= CONTROL_MAX_ROUTE ? calloc(1, sizeof *w) : NULL;
    if (w == NULL) {
        control_refuse(c, c->cli, from, m->id, ERR_OF(BUSY), NULL);
        return;
    }
    w->id = m->id;
    w->revision = m->revision;
    w->ends_ms = clock_now_ms() + (m->wait_ms < WAIT_MAX_MS ? m->wait_ms : WAIT_MAX_MS);
    w->n_route = from.n;
    memcpy(w->route, from.p, from.n);
    list_push(&c->waits, &w->link);
    c->n_waits++;
    desk_look_at_waits(c);
}

/* ---- tokens, feed keys, status ---- */

static void on_token(void *arg, const struct wire_call *call)
{
    issuer_token(arg, call->mail->from, WIRE_GOT(token, call));
}

static err_t store_feed_key(struct control *c, slice_t name, const char *public_key,
                            bool *was_there)
{
    const struct mesh_feed_key row = {.name = name, .public_key = slice_str(public_key)};
    *was_there = true;
    TRY(control_begin(c, SLICE_LIT("cli"), SLICE_LIT("feed key")));
    err_t e = public_key[0] != '\0' ? mesh_put_feed_key(c->mesh, &row)
                                    : mesh_drop_feed_key(c->mesh, name, was_there);
    if (e == OK)
        e = mesh_add_event(
            c->mesh, (int64_t)clock_wall_ms(),
            slice_str(public_key[0] != '\0' ? "FEED_KEY_MADE" : "FEED_KEY_REVOKED"), name,
            slice(NULL, 0));
    if (e == OK)
        return control_commit(c);
    mesh_rollback(c->mesh);
    return e;
}

static void on_feed_key(void *arg, const struct wire_call *call)
{
    struct control *c = arg;
    const struct wire_feed_key *m = WIRE_GOT(feed_key, call);
    char public_key[MAILBOX_KEY_TEXT] = "", secret_key[MAILBOX_KEY_TEXT] = "";
    bool was_there = false;
    err_t e = name_is_host(m->name) ? OK : ERR_OF(BAD_REQUEST);
    if (e == OK && !m->is_revoke)
        e = mailbox_keypair(public_key, secret_key);
    if (e == OK)
        e = store_feed_key(c, m->name, public_key, &was_there);
    if (e == OK && !was_there)
        e = ERR_OF(BAD_REQUEST);
    topics_settle(c);
    if (e != OK) {
        control_refuse(c, c->cli, call->mail->from, m->id, e,
                       e == ERR_OF(BAD_REQUEST) ? "name: no such key, or not a valid name"
                                                : NULL);
        return;
    }
    const struct wire_feed_key_answer answer = {.id = m->id,
                                                .public_key = slice_str(public_key),
                                                .secret_key = slice_str(secret_key),
                                                .server_key = slice_str(c->public_key)};
    CONTROL_SEND(c, c->cli, call->mail->from, feed_key_answer, &answer);
    explicit_bzero(secret_key, sizeof secret_key);
}

static void on_status(void *arg, const struct wire_call *call)
{
    struct control *c = arg;
    const struct wire_status answer = {.id = WIRE_GOT(status_ask, call)->id,
                                       .version = SLICE_LIT(WEFT_VERSION),
                                       .epoch = mesh_epoch(c->mesh),
                                       .revision = mesh_revision(c->mesh),
                                       .sessions = sessions_live(c),
                                       .up_ms = clock_now_ms() - c->started_ms,
                                       .issuer_not_after_ms = c->issuer_not_after_ms,
                                       .root_not_after_ms = c->root_not_after_ms,
                                       .has_authority = c->has_authority};
    CONTROL_SEND(c, c->cli, call->mail->from, status, &answer);
}

/* ---- looking at views ---- */

static void on_peek(void *arg, const struct wire_call *call)
{
    struct control *c = arg;
    const struct wire_peek *m = WIRE_GOT(peek, call);
    struct view_cut cut = {0};
    struct buf out;
    buf_init(&out, WIRE_MESSAGE_MAX);
    err_t e = slice_starts(m->topic, SLICE_LIT("dst/")) || slice_starts(m->topic, SLICE_LIT("pod/"))
                  ? views_compute(c, m->topic, m->pod, &cut, &out)
                  : ERR_OF(BAD_TOPIC);
    if (e == OK) {
        const struct wire_peeked answer = {.id = m->id,
                                           .mesh_revision = mesh_revision(c->mesh),
                                           .payload = buf_slice(&out)};
        CONTROL_SEND(c, c->cli, call->mail->from, peeked, &answer);
    } else {
        control_refuse(c, c->cli, call->mail->from, m->id, e, NULL);
    }
    buf_done(&out);
}

/* ---- the mailbox ---- */

static const struct wire_permit permits[] = {
    {WIRE_apply, on_apply, false},       {WIRE_delete_, on_delete, false},
    {WIRE_wait, on_wait, false},         {WIRE_token, on_token, false},
    {WIRE_feed_key, on_feed_key, false}, {WIRE_status_ask, on_status, false},
    {WIRE_peek, on_peek, false},
};

static struct wire_desk cli_desk = {.name = "cli",
                                    .me = WIRE_ROLE_BROKER,
                                    .from = WIRE_ROLE_CLI,
                                    .permits = permits,
                                    .n_permits = sizeof permits / sizeof permits[0]};

static void on_msg(void *arg, const struct mailbox_msg *m)
{
    struct control *c = arg;
    err_t e = wire_dispatch(&cli_desk, m, NULL, arg);
    if (e != OK) {
        c->count.bad_messages++;
        control_refuse(c, c->cli, m->from, 0, e, NULL);
    }
}

err_t desk_open(struct control *c)
{
    char endpoint[128];
    list_init(&c->waits);
    timer_init(&c->wait_turn, c->base, on_wait_turn, c);
    TRY(actor_ipc(c->actor, "broker", endpoint));
    const struct mailbox_conf conf = {.kind = MAILBOX_ROUTER,
                                      .name = "cli",
                                      .endpoint = endpoint,
                                      .bind = true,
                                      .allow = mailbox_allow_same_uid,
                                      .on_msg = on_msg,
                                      .arg = c};
    return mailbox_open(c->base, &conf, &c->cli);
}

void desk_close(struct control *c)
{
    timer_stop(&c->wait_turn);
    LIST_EACH_SAFE (it, &c->waits) {
        struct wait *w = CONTAINER_OF(it, struct wait, link);
        list_del(&w->link);
        free(w);
    }
    if (c->cli != NULL)
        mailbox_close(&c->cli);
}
