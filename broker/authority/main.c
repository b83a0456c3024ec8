/* weft-authority: holds the issuer's key and signs workload certificates; nothing else.
 *
 * ANSWERS   authority.sock, to the broker only: token_make -> token_made (token_id empty:
 * refused), sign -> issued (code: BAD_CSR, BAD_TOKEN, BAD_PROOF, REFUSED, UNAVAILABLE),
 * anchors_ask -> anchors, which is also sent by itself when the issuer was renewed. HOLDS
 * STATE/authority (0700), files 0600: root.crt, root.key (used only to make the next issuer;
 * may be kept elsewhere), issuer.crt, issuer.key, former.crt (issuers before), tokens (open and
 * used join tokens until they expire). The same in memory. No list of what was issued: that is
 * the broker's. NEEDS     that directory; its mailbox. No network. IF IT DIES  nobody gets a
 * new certificate until it is back; pods renew at half of their lifetime, so 12 hours go by
 * before anybody notices. Open tokens and used ones are on disk before anybody hears of them.
 * IF SLOW   pods wait for their first certificate; renewals are asked again.
 */
#include "broker/authority/authority.h"
#include "broker/authority/request.h"

#include "kit/actor.h"
#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "kit/timer.h"
#include "wire/dispatch.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_MS     (60 * 1000)
#define SECURE_HEAP (64 * 1024)
#define BROKER_ID   64

struct authority {
    struct actor *actor;
    struct folder folder;
    struct authority_parts parts;
    struct mailbox *box;
    struct wire_desk desk;
    struct timer look;
    uint8_t broker[BROKER_ID]; /* routing id of who asked for the anchors last; told when they
                                  change */
    size_t broker_len;
    uint64_t issued, refused;
};

static int64_t now(void)
{
    return (int64_t)clock_wall_ms();
}

static void sent(const char *what, err_t err)
{
    if (err != OK)
        log_warn("answer not sent", "message=%s reason=%s", what, err->name);
}

/* ---- answers ---- */

static void answer_token(void *arg, const struct wire_call *call)
{
    struct authority *a = arg;
    const struct wire_token_make *m = &call->msg->body.token_make;
    struct wire_token_made made = {.id = m->id};
    char id[TOKEN_ID + 1];
    uint8_t secret[TOKEN_SECRET];
    err_t err = tokens_make(a->parts.tokens, m->identity, m->ttl_ms, now(), id, secret);

    if (err == OK) {
        made.token_id = slice_str(id);
        made.secret = slice(secret, sizeof(secret));
        log_info("join token made", "id=%s identity=%.*s", id, SLICE_FMT(m->identity));
    } else {
        log_warn("join token refused", "identity=%.*s reason=%s", SLICE_FMT(m->identity),
                 err->name);
    }
    sent("token_made", WIRE_SEND(a->box, call->mail->from, token_made, &made));
    OPENSSL_cleanse(secret, sizeof(secret));
}

static void answer_sign(void *arg, const struct wire_call *call)
{
    struct authority *a = arg;
    const struct wire_sign *m = &call->msg->body.sign;
    struct ca_issued what;
    struct wire_issued answer = {.id = m->id};
    const char *why;
    struct buf chain;
    err_t err;

    buf_init(&chain, 0);
    err = request_answer(&a->parts, m, now(), &chain, &what, &why);
    if (err == OK) {
        answer.chain = buf_slice(&chain);
        answer.identity = m->identity;
        answer.serial = slice_str(what.serial);
        answer.fingerprint = slice_str(what.fingerprint);
        answer.not_before_ms = what.not_before_ms;
        answer.not_after_ms = what.not_after_ms;
        a->issued++;
        log_info("certificate issued", "identity=%.*s serial=%s proof=%s",
                 SLICE_FMT(m->identity), what.serial, m->token_id.n > 0 ? "token" : "renewal");
    } else {
        answer.code = slice_str(request_code(err));
        answer.why = slice_str(why);
        a->refused++;
        log_warn("certificate refused", "identity=%.*s code=%s why=\"%s\"",
                 SLICE_FMT(m->identity), request_code(err), why);
    }
    sent("issued", WIRE_SEND(a->box, call->mail->from, issued, &answer));
    buf_done(&chain);
}

static void send_anchors(struct authority *a, slice_t to, uint64_t id)
{
    struct wire_anchors m = {.id = id,
                             .pem = ca_anchors(a->parts.ca),
                             .issuer_not_after_ms = ca_issuer_end(a->parts.ca),
                             .root_not_after_ms = ca_root_end(a->parts.ca)};

    sent("anchors", WIRE_SEND(a->box, to, anchors, &m));
}

static void answer_anchors(void *arg, const struct wire_call *call)
{
    struct authority *a = arg;

    if (call->mail->from.n <= sizeof(a->broker)) {
        memcpy(a->broker, call->mail->from.p, call->mail->from.n);
        a->broker_len = call->mail->from.n;
    }
    send_anchors(a, call->mail->from, call->msg->body.anchors_ask.id);
}

static const struct wire_permit permits[] = {
    {WIRE_token_make, answer_token, false},
    {WIRE_sign, answer_sign, false},
    {WIRE_anchors_ask, answer_anchors, false},
};

static void on_msg(void *arg, const struct mailbox_msg *m)
{
    struct authority *a = arg;

    if (wire_dispatch(&a->desk, m, NULL, a) != OK)
        return; /* counted and logged by the desk */
}

/* Once a minute: is the issuer past half of its life? */
static void on_look(void *arg)
{
    struct authority *a = arg;
    bool renewed;
    err_t err = ca_look(a->parts.ca, now(), &renewed);

    if (err != OK)
        log_warn("issuer not renewed", "reason=%s text=\"%s\" ends_ms=%" PRId64, err->name,
                 err->text, ca_issuer_end(a->parts.ca));
    if (renewed && a->broker_len > 0)
        send_anchors(a, slice(a->broker, a->broker_len), 0);
}

/* ---- life ---- */

static err_t open_state(struct authority *a, const struct settings *s)
{
    struct ca_conf conf = {.root_lifetime_ms = s->root_lifetime,
                           .issuer_lifetime_ms = s->issuer_lifetime,
                           .leaf_lifetime_ms = s->certificate_lifetime,
                           .trust_domain = s->trust_domain};
    char path[512];

    if (snprintf(path, sizeof(path), "%s/authority", s->state_dir) >= (int)sizeof(path))
        return ERR_OF(BAD_SETTING);
    TRY(folder_open(path, &a->folder));
    TRY(ca_open(&a->folder, &conf, now(), &a->parts.ca));
    return tokens_open(&a->folder, now(), &a->parts.tokens);
}

static err_t start(struct actor *actor)
{
    struct authority *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return ERR_OF(NOMEM);
    actor->state = a;
    a->actor = actor;
    a->folder.fd = -1;
    a->desk = (struct wire_desk){.name = "authority",
                                 .me = WIRE_ROLE_AUTHORITY,
                                 .from = WIRE_ROLE_BROKER,
                                 .permits = permits,
                                 .n_permits = sizeof(permits) / sizeof(permits[0])};
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_CRYPTO_STRINGS,
                            NULL) != 1)
        return ERR_OF(SIGN_FAILED);
    if (CRYPTO_secure_malloc_init(SECURE_HEAP, 32) != 1)
        log_warn("secure heap not locked", "bytes=%d RLIMIT_MEMLOCK may be too low",
                 SECURE_HEAP);
    return open_state(a, &actor->settings);
}

static void confine(struct actor *actor, struct confine_spec *out)
{
    struct authority *a = actor->state;

    out->needs = CONFINE_UNIX | CONFINE_FILES | CONFINE_KEYS;
    out->write_paths[0] = folder_path(&a->folder);
}

static err_t confined(struct actor *actor)
{
    struct authority *a = actor->state;
    char endpoint[128];
    struct mailbox_conf conf = {.kind = MAILBOX_ROUTER,
                                .name = "authority",
                                .endpoint = endpoint,
                                .bind = true,
                                .allow = mailbox_allow_same_uid,
                                .on_msg = on_msg,
                                .arg = a};

    TRY(actor_ipc(actor, "authority", endpoint));
    TRY(mailbox_open(actor->base, &conf, &a->box));
    timer_init(&a->look, actor->base, on_look, a);
    timer_every(&a->look, LOOK_MS);
    actor_ready(actor);
    return OK;
}

static void stop(struct actor *actor)
{
    struct authority *a = actor->state;

    timer_stop(&a->look);
    mailbox_close(&a->box);
    tokens_free(&a->parts.tokens);
    ca_free(&a->parts.ca);
    folder_close(&a->folder);
    free(a);
}

int main(int argc, char **argv)
{
    static const struct actor_spec spec = {
        .name = "weft-authority",
        .page = "holds the issuer's key and signs workload certificates",
        .start = start,
        .confine = confine,
        .confined = confined,
        .stop = stop};

    return actor_run(&spec, argc, argv);
}
