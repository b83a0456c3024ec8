/* weft-tls: holds the pod's private key and makes every TLS handshake; the proxy gets traffic
 * secrets only.
 *
 * ANSWERS   tls.sock: handshake_open, handshake_bytes, handshake_close -> handshake_bytes,
 * handshake_done | handshake_failed. At most handshakes_max at once (BUSY), handshake_timeout
 * each. link.sock: asks certify -> certificate; listens to trust -> applied. telemetry.sock:
 * state "certificate"; events CERTIFICATE_OBTAINED, CERTIFICATE_RENEWED,
 * CERTIFICATE_RENEWAL_FAILED, TRUST_CHANGED.
 * HOLDS     the P-256 key, its certificate chain, the trust anchors: in the vault (memory from
 * the supervisor that outlives this process and is never on disk) and in OpenSSL's secure heap.
 * Until the first certificate the join token's secret. For the time of a handshake its traffic
 * secrets. NEEDS     its mailboxes in the pod's run directory; before confinement the files of
 * the trust anchors and the join token. No TCP socket, no file afterwards. IF IT DIES
 * established connections go on (the proxy owns their keys). Handshakes that were running fail;
 *           new ones wait in the proxy. It serves again at once from the vault, asking nobody.
 * IF SLOW   handshakes queue in the proxy up to their timeout; established traffic notices
 * nothing.
 */
#include "tls/certifier.h"
#include "tls/jobs.h"
#include "tls/tls_err.h"

#include "kit/actor.h"
#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "kit/timer.h"
#include "model/name.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECURE_HEAP (64 * 1024)
#define NICE        10 /* among equals a handshake waits for running traffic, not the other way round */
#define ANCHORS_MAX (128 * 1024)
#define READY_AT_LEAST_MS                                                                      \
    10000 /* without a certificate the pod starts all the same, with plain traffic */

struct tls {
    struct actor *actor;
    char identity[NAME_MAX_HOST + 1];
    struct vault *vault;
    struct certifier *certifier;
    struct jobs *jobs;
    struct mailbox *box, *link, *telemetry;
    struct wire_desk link_desk;
    struct timer ready;
    bool telemetry_is_up;
};

static const slice_t nobody = {NULL, 0};

/* ---- what the certifier wants ---- */

static err_t send_certify(void *arg, const struct wire_certify *q)
{
    struct tls *t = arg;

    return WIRE_SEND(t->link, nobody, certify, q);
}

static void put_in_force(void *arg, struct tls_context **context, int64_t not_after_ms)
{
    struct tls *t = arg;

    log_debug("new handshake context", "groups=%s", tls_context_groups(*context));
    jobs_set_context(t->jobs, context, not_after_ms);
}

static void send_event(void *arg, const char *kind, const char *message)
{
    struct tls *t = arg;
    struct wire_event e = {.at_ms = (int64_t)clock_wall_ms(),
                           .kind = slice_str(kind),
                           .object = slice_str(t->identity),
                           .message = slice_str(message)};

    if (t->telemetry == NULL || WIRE_SEND(t->telemetry, nobody, event, &e) != OK)
        log_debug("event not sent", "kind=%s", kind);
}

static void send_state(void *arg, bool is_good, const char *text, int64_t value)
{
    struct tls *t = arg;
    struct wire_state s = {.key = SLICE_LIT("certificate"),
                           .is_good = is_good,
                           .text = slice_str(text),
                           .value = value};

    actor_note(t->actor, "certificate", "%s", text);
    if (value != 0)
        actor_ready(t->actor);
    /* Sent again when telemetry comes (back). */
    if (t->telemetry_is_up && WIRE_SEND(t->telemetry, nobody, state, &s) != OK)
        log_debug("state not sent", "text=\"%s\"", text);
}

/* ---- mailboxes ---- */

static void on_handshake(void *arg, const struct mailbox_msg *m)
{
    struct tls *t = arg;

    jobs_take(t->jobs, m);
}

static void answer_certificate(void *arg, const struct wire_call *call)
{
    struct tls *t = arg;

    certifier_answer(t->certifier, &call->msg->body.certificate);
}

static void answer_trust(void *arg, const struct wire_call *call)
{
    struct tls *t = arg;
    const struct wire_trust *m = &call->msg->body.trust;
    struct wire_applied done = {.topic = SLICE_LIT("trust"), .revision = m->revision};
    err_t err = certifier_trust(t->certifier, m->anchors);

    if (err != OK) {
        log_error("trust anchors refused", "revision=%" PRIu64 " reason=%s", m->revision,
                  err->name);
        return;
    }
    if (WIRE_SEND(t->link, nobody, applied, &done) != OK)
        log_debug("applied not sent", "revision=%" PRIu64, m->revision);
}

static const struct wire_permit link_permits[] = {
    {WIRE_certificate, answer_certificate, false},
    {WIRE_trust, answer_trust, false},
};

static void on_link_msg(void *arg, const struct mailbox_msg *m)
{
    struct tls *t = arg;

    if (wire_dispatch(&t->link_desk, m, NULL, t) != OK)
        return; /* counted and logged by the desk */
}

static void on_link(void *arg, bool is_up)
{
    struct tls *t = arg;
    struct wire_listen listen = {.topic = SLICE_LIT("trust")};

    if (is_up && WIRE_SEND(t->link, nobody, listen, &listen) != OK)
        log_warn("link does not take messages", "topic=%s", "trust");
    certifier_link(t->certifier, is_up);
}

static void on_telemetry(void *arg, bool is_up)
{
    struct tls *t = arg;

    t->telemetry_is_up = is_up;
    if (is_up)
        certifier_say_state(t->certifier);
}

static err_t open_mailboxes(struct tls *t)
{
    char box[128], link[128], telemetry[128];
    struct mailbox_conf in = {.kind = MAILBOX_ROUTER,
                              .name = "tls",
                              .endpoint = box,
                              .bind = true,
                              .hwm = 4096,
                              .allow = mailbox_allow_same_uid,
                              .on_msg = on_handshake,
                              .arg = t};
    struct mailbox_conf up = {.kind = MAILBOX_DEALER,
                              .name = "link",
                              .endpoint = link,
                              .on_msg = on_link_msg,
                              .on_link = on_link,
                              .arg = t};
    struct mailbox_conf tell = {.kind = MAILBOX_DEALER,
                                .name = "telemetry",
                                .endpoint = telemetry,
                                .on_link = on_telemetry,
                                .arg = t};

    TRY(actor_ipc(t->actor, "tls", box));
    TRY(actor_ipc(t->actor, "link", link));
    TRY(actor_ipc(t->actor, "telemetry", telemetry));
    TRY(mailbox_open(t->actor->base, &in, &t->box));
    jobs_set_box(t->jobs, t->box);
    TRY(mailbox_open(t->actor->base, &up, &t->link));
    return mailbox_open(t->actor->base, &tell, &t->telemetry);
}

/* ---- start ---- */

static err_t make_identity(struct tls *t, const struct settings *s)
{
    struct name_identity parts = {.service_account = slice_str(s->service_account),
                                  .namespace = slice_str(s->namespace),
                                  .control_namespace = slice_str(s->control_namespace),
                                  .trust_domain = slice_str(s->trust_domain)};
    err_t err = name_identity_make(&parts, t->identity);

    if (err == OK)
        return OK;
    log_error("no identity", "WEFT_SERVICE_ACCOUNT=\"%s\" WEFT_NAMESPACE=\"%s\" reason=%s",
              s->service_account, s->namespace, err->name);
    return ERR_OF(BAD_SETTING);
}

/* The anchors to start with; the topic brings newer ones. No file is no error: the vault may
 * have some. */
static err_t read_anchors(const char *path, struct buf *out)
{
    struct stat st;
    uint8_t *room;
    ssize_t n;
    int fd;

    if (path[0] == '\0')
        return OK;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size > ANCHORS_MAX) {
        log_error("trust anchors cannot be read", "file=%s errno=%s", path, strerror(errno));
        if (fd >= 0)
            (void)close(fd);
        return ERR_OF(BAD_SETTING);
    }
    room = buf_reserve(out, ANCHORS_MAX);
    n = room != NULL ? read(fd, room, ANCHORS_MAX) : -1;
    (void)close(fd);
    if (n < 0)
        return ERR_OF(OS);
    buf_commit(out, (size_t)n);
    return OK;
}

static err_t open_library(void)
{
    /* No configuration file: what handshakes may do is said in session.c and nowhere else. */
    if (OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS |
                             OPENSSL_INIT_LOAD_CRYPTO_STRINGS,
                         NULL) != 1)
        return ERR_OF(TLS_LIBRARY);
    if (CRYPTO_secure_malloc_init(SECURE_HEAP, 32) != 1)
        log_warn("secure heap not locked", "bytes=%d RLIMIT_MEMLOCK may be too low",
                 SECURE_HEAP);
    return OK;
}

/* Before the library of the mailboxes has threads: they inherit it. Refused by some sandbox: then at the usual one. */
static void step_back(void)
{
    if (setpriority(PRIO_PROCESS, 0, NICE) != 0)
        log_debug("priority not lowered", "errno=%s", strerror(errno));
}

static err_t make_certifier(struct tls *t, const struct settings *s)
{
    struct certifier_conf conf = {.base = t->actor->base,
                                  .identity = t->identity,
                                  .vault = t->vault,
                                  .ask = send_certify,
                                  .in_force = put_in_force,
                                  .tell = send_event,
                                  .state = send_state,
                                  .arg = t};
    AUTO(buf_done) struct buf anchors;
    err_t err;

    buf_init(&anchors, 0);
    TRY(read_anchors(s->trust_anchors_file, &anchors));
    if (s->join_token_file[0] != '\0')
        TRY(token_read(s->join_token_file, &conf.token));
    conf.anchors_pem = buf_slice(&anchors);
    err = certifier_new(&conf, &t->certifier);
    token_wipe(&conf.token);
    return err;
}

static err_t start(struct actor *a)
{
    struct tls *t = calloc(1, sizeof(*t));
    /* Every worker of the proxy asks for its share, rounded up: none of them is to hear BUSY. */
    struct jobs_conf jobs = {.base = a->base,
                             .max = a->settings.handshakes_max + a->settings.workers + 1,
                             .timeout_ms = a->settings.handshake_timeout};

    if (t == NULL)
        return ERR_OF(NOMEM);
    a->state = t;
    t->actor = a;
    t->link_desk =
        (struct wire_desk){.name = "link",
                           .me = WIRE_ROLE_TLS,
                           .from = WIRE_ROLE_LINK,
                           .permits = link_permits,
                           .n_permits = sizeof(link_permits) / sizeof(link_permits[0])};
    step_back();
    TRY(make_identity(t, &a->settings));
    TRY(open_library());
    TRY(vault_open(actor_fd(a, "vault", 0), &t->vault));
    if (!vault_survives(t->vault))
        log_warn("no vault", "%s", "a restart of weft-tls will need a new certificate");
    TRY(jobs_new(&jobs, &t->jobs));
    return make_certifier(t, &a->settings);
}

static void confine(struct actor *a, struct confine_spec *out)
{
    (void)a;
    out->needs = CONFINE_UNIX | CONFINE_KEYS;
}

static void on_ready(void *arg)
{
    struct tls *t = arg;

    actor_ready(t->actor);
}

static err_t confined(struct actor *a)
{
    struct tls *t = a->state;

    TRY(open_mailboxes(t));
    certifier_say_state(t->certifier); /* ready at once when the vault had a certificate */
    timer_init(&t->ready, a->base, on_ready, t);
    timer_once(&t->ready, READY_AT_LEAST_MS);
    return OK;
}

static void stop(struct actor *a)
{
    struct tls *t = a->state;

    timer_stop(&t->ready);
    mailbox_close(&t->telemetry);
    mailbox_close(&t->link);
    mailbox_close(&t->box);
    certifier_free(&t->certifier);
    jobs_free(&t->jobs);
    vault_close(&t->vault);
    free(t);
}

int main(int argc, char **argv)
{
    static const struct actor_spec spec = {
        .name = "weft-tls",
        .page = "holds the pod's key and makes every TLS handshake",
        .start = start,
        .confine = confine,
        .confined = confined,
        .stop = stop};

    return actor_run(&spec, argc, argv);
}
