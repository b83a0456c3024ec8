#include "broker/control/issuer.h"

#include "broker/control/keys.h"
#include "broker/control/topics.h"
#include "kit/clock.h"
#include "kit/log.h"
#include "model/name.h"
#include "wire/dispatch.h"
#include "wire/join.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define ERRANDS_MAX      4096u
#define ERRAND_MS        10000u
#define TOKEN_TTL_MS     600000u
#define TOKEN_TTL_MAX_MS 86400000u
#define ANCHORS_KEY      "anchors"

enum errand_kind { ERRAND_SIGN, ERRAND_TOKEN };

struct errand {
    uint64_t id;
    enum errand_kind kind;
    uint64_t asked_id; /* of the request that is answered */
    uint64_t ends_ms;
    char ns[64], name[254]; /* SIGN: pod; TOKEN: service account */
    int64_t expires_ms;     /* TOKEN: wall */
    size_t n_route;
    uint8_t route[CONTROL_MAX_ROUTE];
    UT_hash_handle hh;
};

/* ---- errands ---- */

static struct errand *errand_new(struct control *c, enum errand_kind kind, slice_t route,
                                 uint64_t id)
{
    struct errand *e = c->n_errands < ERRANDS_MAX ? calloc(1, sizeof *e) : NULL;
    if (e == NULL)
        return NULL;
    e->id = ++c->next_errand;
    e->kind = kind;
    e->asked_id = id;
    e->ends_ms = clock_now_ms() + ERRAND_MS;
    e->n_route = route.n <= sizeof e->route ? route.n : 0;
    memcpy(e->route, route.p, e->n_route);
    HASH_ADD(hh, c->errands, id, sizeof e->id, e);
    c->n_errands++;
    return e;
}

static void errand_free(struct control *c, struct errand *e)
{
    HASH_DEL(c->errands, e);
    c->n_errands--;
    free(e);
}

static struct errand *errand_find(struct control *c, uint64_t id, enum errand_kind kind)
{
    struct errand *e;
    HASH_FIND(hh, c->errands, &id, sizeof id, e);
    return e != NULL && e->kind == kind ? e : NULL;
}

static void answer_sign(struct control *c, slice_t route, uint64_t id, slice_t code,
                        slice_t why, slice_t chain)
{
    const struct wire_signed_ answer = {.id = id, .code = code, .why = why, .chain = chain};
    CONTROL_SEND(c, c->links, route, signed_, &answer); /* a link that left asks again */
}

static void give_up(struct control *c, struct errand *e, err_t why)
{
    slice_t route = slice(e->route, e->n_route);
    if (e->kind == ERRAND_SIGN)
        answer_sign(c, route, e->asked_id, SLICE_LIT("UNAVAILABLE"), slice_str(why->text),
                    slice(NULL, 0));
    else
        control_refuse(c, c->cli, route, e->asked_id, why, NULL);
    errand_free(c, e);
}

/* ---- asking ---- */

void issuer_sign(struct control *c, struct session *s, const struct wire_sign *ask)
{
    slice_t route = slice(s->route, s->n_route);
    struct errand *e = errand_new(c, ERRAND_SIGN, route, ask->id);
    if (e == NULL) {
        answer_sign(c, route, ask->id, SLICE_LIT("UNAVAILABLE"), slice_str(ERR_OF(BUSY)->text),
                    slice(NULL, 0));
        return;
    }
    (void)snprintf(e->ns, sizeof e->ns, "%s", s->ns);
    (void)snprintf(e->name, sizeof e->name, "%s", s->pod);
    struct wire_sign out = *ask;
    out.id = e->id;
    out.identity = slice_str(s->identity);
    if (WIRE_SEND(c->authority, slice(NULL, 0), sign, &out) != OK)
        give_up(c, e, ERR_OF(NO_AUTHORITY));
}

void issuer_token(struct control *c, slice_t route, const struct wire_token *ask)
{
    char identity[NAME_MAX_HOST + 1];
    const struct name_identity who = {.service_account = ask->service_account,
                                      .namespace = ask->namespace,
                                      .control_namespace = slice_str(c->set->control_namespace),
                                      .trust_domain = slice_str(c->set->trust_domain)};
    uint32_t ttl = ask->ttl_ms != 0 ? ask->ttl_ms : TOKEN_TTL_MS;
    if (ttl > TOKEN_TTL_MAX_MS || name_identity_make(&who, identity) != OK) {
        control_refuse(
            c, c->cli, route, ask->id, ERR_OF(BAD_REQUEST),
            "namespace or service_account is not a valid name, or ttl is above 24 h");
        return;
    }
    if (c->anchors == NULL) {
        control_refuse(c, c->cli, route, ask->id, ERR_OF(NO_AUTHORITY), NULL);
        return;
    }
    struct errand *e = errand_new(c, ERRAND_TOKEN, route, ask->id);
    if (e == NULL) {
        control_refuse(c, c->cli, route, ask->id, ERR_OF(BUSY), NULL);
        return;
    }
    (void)slice_to_cstr(ask->namespace, e->ns, sizeof e->ns);
    (void)slice_to_cstr(ask->service_account, e->name, sizeof e->name);
    e->expires_ms = (int64_t)clock_wall_ms() + ttl;
    const struct wire_token_make make = {
        .id = e->id, .identity = slice_str(identity), .ttl_ms = ttl};
    if (WIRE_SEND(c->authority, slice(NULL, 0), token_make, &make) != OK)
        give_up(c, e, ERR_OF(NO_AUTHORITY));
}

/* ---- answers ---- */

static err_t store_token(struct control *c, const struct mesh_token *row)
{
    TRY(control_begin(c, SLICE_LIT("broker"), SLICE_LIT("token")));
    err_t e = mesh_put_token(c->mesh, row);
    if (e == OK)
        return control_commit(c);
    mesh_rollback(c->mesh);
    return e;
}

static void on_token_made(void *arg, const struct wire_call *call)
{
    struct control *c = arg;
    const struct wire_token_made *m = WIRE_GOT(token_made, call);
    struct errand *e = errand_find(c, m->id, ERRAND_TOKEN);
    char secret[MAILBOX_KEY_TEXT] = "", public_key[MAILBOX_KEY_TEXT] = "", text[WIRE_JOIN_TEXT];
    struct wire_join join;
    if (e == NULL)
        return;
    /* The secret is passed through and wiped; only the public half is kept. */
    bool is_good = m->secret.n == sizeof join.secret && m->token_id.n == 16 &&
                   slice_to_cstr(m->token_id, join.id, sizeof join.id);
    if (is_good) {
        memcpy(join.secret, m->secret.p, sizeof join.secret);
        wire_join_z85(join.secret, secret);
        is_good = mailbox_public_of(secret, public_key) == OK;
    }
    const struct mesh_token row = {.id = m->token_id,
                                   .public_key = slice_str(public_key),
                                   .ns = slice_str(e->ns),
                                   .service_account = slice_str(e->name),
                                   .expires_ms = e->expires_ms};
    explicit_bzero(secret, sizeof secret);
    err_t why = is_good ? store_token(c, &row) : ERR_OF(TOKEN_NOT_MADE);
    if (why != OK || keys_add_token(c, &row) == NULL) {
        give_up(c, e, why != OK ? why : ERR_OF(NOMEM));
        return;
    }
    wire_join_format(&join, text);
    const struct wire_token_answer answer = {.id = e->asked_id,
                                             .token = slice_str(text),
                                             .broker_key = slice_str(c->public_key),
                                             .anchors = slice(c->anchors, c->n_anchors)};
    CONTROL_SEND(c, c->cli, slice(e->route, e->n_route), token_answer, &answer);
    explicit_bzero(text, sizeof text);
    explicit_bzero(&join, sizeof join);
    errand_free(c, e);
}

static void store_certificate(struct control *c, const struct errand *e,
                              const struct wire_issued *m)
{
    char pod[320];
    const struct mesh_certificate row = {.identity = m->identity,
                                         .ns = slice_str(e->ns),
                                         .pod = slice_str(e->name),
                                         .serial = m->serial,
                                         .fingerprint = m->fingerprint,
                                         .issued_ms = (int64_t)clock_wall_ms(),
                                         .not_before_ms = m->not_before_ms,
                                         .not_after_ms = m->not_after_ms};
    (void)snprintf(pod, sizeof pod, "%s/%s", e->ns, e->name);
    if (control_begin(c, slice_str(pod), SLICE_LIT("certificate")) != OK)
        return;
    err_t err = mesh_put_certificate(c->mesh, &row);
    if (err == OK)
        err = mesh_add_event(c->mesh, row.issued_ms, SLICE_LIT("CERTIFICATE_ISSUED"),
                             slice_str(pod), m->serial);
    if (err == OK)
        err = control_commit(c);
    else
        mesh_rollback(c->mesh);
    /* The certificate exists whether its row does or not: the pod gets it in any case. */
    if (err != OK)
        log_error("certificate not recorded", "pod=%s serial=%.*s error=%s", pod,
                  SLICE_FMT(m->serial), err->name);
    topics_settle(c);
}

static void on_issued(void *arg, const struct wire_call *call)
{
    struct control *c = arg;
    const struct wire_issued *m = WIRE_GOT(issued, call);
    struct errand *e = errand_find(c, m->id, ERRAND_SIGN);
    if (e == NULL)
        return;
    if (m->code.n == 0) {
        store_certificate(c, e, m);
    } else {
        char pod[320], why[257];
        (void)snprintf(pod, sizeof pod, "%s/%s", e->ns, e->name);
        (void)slice_to_cstr(m->why, why, sizeof why);
        control_event(c, "CERTIFICATE_REFUSED", pod, "%.*s: %s", SLICE_FMT(m->code), why);
    }
    answer_sign(c, slice(e->route, e->n_route), e->asked_id, m->code, m->why, m->chain);
    errand_free(c, e);
}

static err_t store_anchors(struct control *c, slice_t pem)
{
    TRY(control_begin(c, SLICE_LIT("authority"), SLICE_LIT("trust anchors")));
    err_t e = mesh_put_value(c->mesh, ANCHORS_KEY, pem);
    if (e == OK)
        e = mesh_touch(c->mesh);
    if (e == OK)
        e = mesh_add_event(c->mesh, (int64_t)clock_wall_ms(), SLICE_LIT("TRUST_CHANGED"),
                           SLICE_LIT("trust"), SLICE_LIT("the set of trust anchors is new"));
    if (e == OK)
        return control_commit(c);
    mesh_rollback(c->mesh);
    return e;
}

static void keep_anchors(void *arg, slice_t pem)
{
    struct control *c = arg;
    uint8_t *copy = malloc(pem.n + 1);
    if (copy == NULL)
        return;
    memcpy(copy, pem.p, pem.n);
    free(c->anchors);
    c->anchors = copy;
    c->n_anchors = pem.n;
}

static void on_anchors(void *arg, const struct wire_call *call)
{
    struct control *c = arg;
    const struct wire_anchors *m = WIRE_GOT(anchors, call);
    c->issuer_not_after_ms = m->issuer_not_after_ms;
    c->root_not_after_ms = m->root_not_after_ms;
    if (m->pem.n == 0 || slice_is(m->pem, slice(c->anchors, c->n_anchors)))
        return;
    if (store_anchors(c, m->pem) != OK)
        return; /* asked for again with the next tick */
    keep_anchors(c, m->pem);
    topics_mark(c, "trust");
    topics_settle(c);
}

/* ---- the mailbox ---- */

static const struct wire_permit permits[] = {
    {WIRE_token_made, on_token_made, false},
    {WIRE_issued, on_issued, false},
    {WIRE_anchors, on_anchors, false},
};

static struct wire_desk desk = {.name = "authority",
                                .me = WIRE_ROLE_BROKER,
                                .from = WIRE_ROLE_AUTHORITY,
                                .permits = permits,
                                .n_permits = sizeof permits / sizeof permits[0]};

static void on_msg(void *arg, const struct mailbox_msg *m)
{
    struct control *c = arg;
    if (wire_dispatch(&desk, m, NULL, arg) != OK)
        c->count.bad_messages++;
}

static void ask_anchors(struct control *c)
{
    const struct wire_anchors_ask ask = {.id = ++c->next_errand};
    CONTROL_SEND(c, c->authority, slice(NULL, 0), anchors_ask, &ask);
}

static void on_link(void *arg, bool is_up)
{
    struct control *c = arg;
    c->has_authority = is_up;
    if (is_up)
        ask_anchors(c);
    log_info("authority", "state=%s", is_up ? "connected" : "gone");
}

err_t issuer_open(struct control *c)
{
    char endpoint[128];
    TRY(mesh_get_value(c->mesh, ANCHORS_KEY, keep_anchors, c));
    TRY(actor_ipc(c->actor, "authority", endpoint));
    const struct mailbox_conf conf = {.kind = MAILBOX_DEALER,
                                      .name = "authority",
                                      .endpoint = endpoint,
                                      .on_msg = on_msg,
                                      .on_link = on_link,
                                      .arg = c};
    return mailbox_open(c->base, &conf, &c->authority);
}

void issuer_close(struct control *c)
{
    struct errand *e, *next;
    HASH_ITER(hh, c->errands, e, next)
    errand_free(c, e);
    if (c->authority != NULL)
        mailbox_close(&c->authority);
    free(c->anchors);
    c->anchors = NULL;
}

void issuer_tick(struct control *c)
{
    struct errand *e, *next;
    HASH_ITER(hh, c->errands, e, next)
    if (clock_now_ms() >= e->ends_ms)
        give_up(c, e, ERR_OF(NO_AUTHORITY));
    if (c->has_authority && c->issuer_not_after_ms == 0)
        ask_anchors(c);
}
