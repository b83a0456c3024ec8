/* See certifier.h. The order in install() is what makes a kill at any point harmless: the vault
 * has the new credential before a peer can see it, and the pending key is forgotten only after
 * that. The question's key (and join token) is in the vault before the question leaves, so that
 * a successor asks again with the same key and the authority may answer again. */
#include "tls/certifier.h"

#include "tls/renewal.h"
#include "tls/tls_err.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/random.h"
#include "kit/timer.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <time.h>

#define ANSWER_MS     10000 /* link, broker and authority have this long */
#define ASK_GAP_MS    1000  /* never more often, whatever the dates say */
#define COMPLAIN_MS   (10 * 60 * 1000)
#define RENEW_CONTEXT "weft renew v1"

struct certifier {
    struct certifier_conf conf;
    char identity[IDENTITY_MAX + 1];
    struct credential *held;
    struct renewal schedule;
    X509_STORE *anchors;
    struct buf anchors_pem, chain_pem;
    struct token token;

    EVP_PKEY *new_key; /* of the question that is out or to be repeated; NULL none */
    struct buf csr;
    bool is_token_bound; /* the question is for the join token: it is repeated with this very
                            key */
    uint64_t asked_id;   /* 0 = no question is out */
    uint64_t last_asked_ms;
    uint64_t complained_ms;
    bool has_asked, has_complained;
    bool is_up;
    bool was_alarming;
    struct timer timer;
};

static void look(void *arg);
static void schedule(struct certifier *c);

static int64_t wall(void)
{
    return (int64_t)clock_wall_ms();
}

bool certifier_has_certificate(const struct certifier *c)
{
    return c->held != NULL;
}

/* ---- telling ---- */

static void print_time(int64_t ms, char out[32])
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;

    if (gmtime_r(&t, &tm) == NULL || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        out[0] = '\0';
}

void certifier_say_state(struct certifier *c)
{
    char text[200], end[32];
    bool is_alarming = renewal_is_alarming(&c->schedule, wall());

    c->was_alarming = is_alarming;
    if (c->held == NULL) {
        const char *why = c->anchors == NULL       ? "no trust anchors yet"
                          : c->token.id[0] == '\0' ? "no certificate and no join token"
                                                   : "no certificate yet";

        c->conf.state(c->conf.arg, false, why, 0);
        return;
    }
    print_time(c->held->not_after_ms, end);
    if (wall() >= c->held->not_after_ms)
        (void)snprintf(text, sizeof(text), "expired at %s", end);
    else
        (void)snprintf(text, sizeof(text), "in force until %s%s", end,
                       is_alarming ? ", and its renewal fails" : "");
    c->conf.state(c->conf.arg, !is_alarming, text, c->held->not_after_ms);
}

/* Every failure is logged; the event goes out at the first of a row and then every ten minutes.
 */
static void failed(struct certifier *c, const char *code, const char *why)
{
    char message[400];
    uint64_t now = clock_now_ms();

    c->asked_id = 0;
    c->schedule.failures++;
    log_warn("certificate not issued", "code=%s why=\"%s\" tries=%u", code, why,
             c->schedule.failures);
    if (!c->has_complained || now - c->complained_ms >= COMPLAIN_MS) {
        c->has_complained = true;
        c->complained_ms = now;
        (void)snprintf(message, sizeof(message), "%s: %.300s", code, why);
        c->conf.tell(c->conf.arg, "CERTIFICATE_RENEWAL_FAILED", message);
    }
    certifier_say_state(c);
    schedule(c);
}

/* ---- vault ---- */

static void keep_current(struct certifier *c)
{
    uint8_t der[CREDENTIAL_KEY_MAX];
    slice_t parts[VAULT_PARTS] = {{0}};
    size_t n;
    err_t err = credential_print_key(c->held->key, der, &n);

    if (err == OK) {
        parts[VAULT_KEY] = slice(der, n);
        parts[VAULT_CHAIN] = buf_slice(&c->chain_pem);
        parts[VAULT_ANCHORS] = buf_slice(&c->anchors_pem);
        err = vault_store(c->conf.vault, VAULT_CURRENT, parts);
        if (err == ERR_OF(VAULT_FULL)) { /* a very long list of anchors: the file has some to
                                            start with */
            parts[VAULT_ANCHORS] = slice(NULL, 0);
            err = vault_store(c->conf.vault, VAULT_CURRENT, parts);
        }
    }
    OPENSSL_cleanse(der, sizeof(der));
    if (err != OK)
        log_warn("certificate not in the vault", "reason=%s a restart will ask for a new one",
                 err->name);
}

static void keep_pending(struct certifier *c)
{
    uint8_t der[CREDENTIAL_KEY_MAX];
    slice_t parts[VAULT_PARTS];
    size_t n;
    err_t err = credential_print_key(c->new_key, der, &n);

    if (err == OK) {
        parts[VAULT_NEW_KEY] = slice(der, n);
        parts[VAULT_CSR] = buf_slice(&c->csr);
        parts[VAULT_TOKEN_ID] = slice_str(c->token.id);
        parts[VAULT_TOKEN_SECRET] = slice(c->token.secret, c->token.id[0] != '\0' ? 32 : 0);
        err = vault_store(c->conf.vault, VAULT_PENDING, parts);
    }
    OPENSSL_cleanse(der, sizeof(der));
    if (err != OK)
        log_warn("pending key not in the vault", "reason=%s", err->name);
}

static void forget_pending(struct certifier *c)
{
    EVP_PKEY_free(c->new_key);
    c->new_key = NULL;
    c->is_token_bound = false;
    buf_consume(&c->csr, buf_len(&c->csr));
    vault_wipe(c->conf.vault, VAULT_PENDING);
}

static err_t replace(struct buf *b, slice_t by)
{
    struct buf fresh;

    buf_init(&fresh, 0);
    TRY(buf_add_slice(&fresh, by));
    buf_done(b);
    *b = fresh;
    return OK;
}

/* A question that was out when our predecessor died is asked again with the same key. */
static void take_pending(struct certifier *c)
{
    slice_t parts[VAULT_PARTS];

    if (!vault_load(c->conf.vault, VAULT_PENDING, parts))
        return;
    if (credential_parse_key(parts[VAULT_NEW_KEY], &c->new_key) != OK ||
        replace(&c->csr, parts[VAULT_CSR]) != OK) {
        forget_pending(c);
        return;
    }
    if (parts[VAULT_TOKEN_ID].n == 16 && parts[VAULT_TOKEN_SECRET].n == 32) {
        struct token had;

        (void)slice_to_cstr(parts[VAULT_TOKEN_ID], had.id, sizeof(had.id));
        memcpy(had.secret, parts[VAULT_TOKEN_SECRET].p, 32);
        if (c->token.id[0] == '\0')
            c->token = had;
        /* A newer token from the file is another story: it begins with a key of its own. */
        c->is_token_bound = strcmp(c->token.id, had.id) == 0;
        if (!c->is_token_bound)
            forget_pending(c);
        token_wipe(&had);
    }
}

/* ---- what is in force ---- */

static err_t put_in_force(struct certifier *c)
{
    struct tls_context *context;

    if (c->held == NULL || c->anchors == NULL)
        return OK;
    TRY(tls_context_make(c->held, c->anchors, c->identity, &context));
    c->conf.in_force(c->conf.arg, &context, c->held->not_after_ms);
    return OK;
}

static void take_current(struct certifier *c)
{
    slice_t parts[VAULT_PARTS];
    EVP_PKEY *key = NULL;
    err_t err;

    if (!vault_load(c->conf.vault, VAULT_CURRENT, parts))
        return;
    if (parts[VAULT_ANCHORS].n > 0 && certifier_trust(c, parts[VAULT_ANCHORS]) != OK)
        log_warn("anchors in the vault not understood", "bytes=%zu", parts[VAULT_ANCHORS].n);
    if (c->anchors == NULL)
        return;
    err = credential_parse_key(parts[VAULT_KEY], &key);
    if (err == OK) /* an expired one too: it proves who we are when we ask for the next */
        err = credential_load(key, parts[VAULT_CHAIN], c->identity, c->anchors, -1, &c->held);
    EVP_PKEY_free(key);
    if (err == OK)
        err = replace(&c->chain_pem, parts[VAULT_CHAIN]);
    if (err == OK) {
        c->schedule.not_before_ms = c->held->not_before_ms;
        c->schedule.not_after_ms = c->held->not_after_ms;
        err = put_in_force(c);
    }
    if (err != OK)
        log_warn("certificate in the vault not usable", "reason=%s", err->name);
    else
        log_info("certificate taken from the vault", "identity=%s", c->identity);
}

/* A certificate for new_key has come. */
static err_t install(struct certifier *c, slice_t chain_pem)
{
    struct credential *fresh = NULL, *old = c->held;
    char end[32];
    err_t err;

    TRY(credential_load(c->new_key, chain_pem, c->identity, c->anchors, wall(), &fresh));
    err = replace(&c->chain_pem, chain_pem);
    if (err == OK) {
        c->held = fresh;
        keep_current(c);
        err = put_in_force(c);
    }
    if (err != OK) {
        c->held = old;
        credential_free(&fresh);
        if (old != NULL)
            log_error("certificate not put in force", "reason=%s", err->name);
        return err;
    }
    credential_free(&old);
    forget_pending(c);
    token_wipe(&c->token);
    /* Half of the life is counted from now: not_before lies back, to forgive clocks that are
     * late. */
    c->schedule =
        (struct renewal){.not_before_ms = wall(), .not_after_ms = fresh->not_after_ms};
    c->has_complained = false;
    print_time(fresh->not_after_ms, end);
    log_info("certificate in force", "identity=%s until=%s", c->identity, end);
    return OK;
}

err_t certifier_trust(struct certifier *c, slice_t pem)
{
    X509_STORE *store = NULL;
    unsigned n;
    err_t err;

    if (c->anchors != NULL && slice_is(pem, buf_slice(&c->anchors_pem)))
        return OK;
    TRY(anchors_load(pem, &store, &n));
    err = replace(&c->anchors_pem, pem);
    if (err != OK) {
        X509_STORE_free(store);
        return err;
    }
    X509_STORE_free(c->anchors);
    c->anchors = store;
    log_info("trust anchors in force", "certificates=%u", n);
    if (c->held != NULL) {
        char message[64];

        TRY(put_in_force(c));
        keep_current(c);
        (void)snprintf(message, sizeof(message), "%u trust anchors are in force", n);
        c->conf.tell(c->conf.arg, "TRUST_CHANGED", message);
        if (credential_check(c->held, c->anchors, wall()) != OK)
            log_warn("own certificate does not lead to the new anchors", "identity=%s",
                     c->identity);
    }
    schedule(c);
    return OK;
}

/* ---- asking ---- */

/* The token serves for the first certificate, and when the last one is past proving anything.
 */
static bool wants_token(const struct certifier *c)
{
    return c->token.id[0] != '\0' && (c->held == NULL || wall() >= c->held->not_after_ms);
}

static err_t make_question(struct certifier *c)
{
    if (c->new_key != NULL && c->is_token_bound == wants_token(c))
        return OK;
    forget_pending(c);
    TRY(credential_make_key(&c->new_key));
    TRY(credential_request(c->new_key, c->identity, &c->csr));
    c->is_token_bound = wants_token(c);
    keep_pending(c);
    return OK;
}

static err_t prove_by_certificate(struct certifier *c, struct wire_certify *q, struct buf *leaf,
                                  uint8_t sig[CREDENTIAL_SIG_MAX])
{
    struct buf what;
    size_t n = 0;
    err_t err;

    buf_init(&what, 0);
    err = buf_add(&what, RENEW_CONTEXT, sizeof(RENEW_CONTEXT) - 1);
    if (err == OK)
        err = buf_add_slice(&what, q->csr);
    if (err == OK)
        err = credential_sign(c->held->key, buf_slice(&what), sig, &n);
    if (err == OK)
        err = credential_print_leaf(c->held, leaf);
    buf_done(&what);
    q->signature = slice(sig, n);
    q->old_cert = buf_slice(leaf);
    return err;
}

static err_t send_question(struct certifier *c)
{
    struct wire_certify q = {.id = random_u64() | 1, .csr = buf_slice(&c->csr)};
    uint8_t mac[32], sig[CREDENTIAL_SIG_MAX];
    struct buf leaf;
    err_t err;

    buf_init(&leaf, 0);
    if (c->is_token_bound) {
        err = token_prove(&c->token, q.csr, mac);
        q.token_id = slice_str(c->token.id);
        q.token_mac = slice(mac, sizeof(mac));
    } else {
        err = prove_by_certificate(c, &q, &leaf, sig);
    }
    if (err == OK)
        err = c->conf.ask(c->conf.arg, &q);
    if (err == OK)
        c->asked_id = q.id;
    buf_done(&leaf);
    return err;
}

static void ask(struct certifier *c)
{
    err_t err;

    c->has_asked = true;
    c->last_asked_ms = clock_now_ms();
    err = make_question(c);
    if (err == OK)
        err = send_question(c);
    if (err != OK)
        failed(c, err->name, err->text);
    else
        timer_once(&c->timer, ANSWER_MS);
}

/* Whether there is any way to prove who we are. */
static bool can_ask(const struct certifier *c)
{
    return c->is_up && c->anchors != NULL && (c->held != NULL || c->token.id[0] != '\0');
}

static void schedule(struct certifier *c)
{
    uint64_t now = clock_now_ms(), wait = renewal_wait_ms(&c->schedule, wall(), random_unit());

    if (c->asked_id != 0)
        return; /* the timer is for the answer */
    if (c->has_asked && c->last_asked_ms + ASK_GAP_MS > now + wait && c->held != NULL)
        wait = c->last_asked_ms + ASK_GAP_MS - now;
    timer_once(&c->timer, wait);
}

/* The timer: an answer did not come, or it may be time to ask. */
static void look(void *arg)
{
    struct certifier *c = arg;

    if (c->asked_id != 0) {
        failed(c, "UNAVAILABLE", "no answer came");
        return;
    }
    if (renewal_is_alarming(&c->schedule, wall()) != c->was_alarming)
        certifier_say_state(c);
    if (!renewal_is_due(&c->schedule, wall())) {
        schedule(c);
        return;
    }
    if (can_ask(c))
        ask(c);
    else if (c->schedule.failures == 0 && c->held != NULL && !c->is_up)
        failed(c, "UNAVAILABLE", "no way to the control plane");
    else
        timer_once(&c->timer, ASK_GAP_MS * 5);
}

void certifier_link(struct certifier *c, bool is_up)
{
    c->is_up = is_up;
    if (is_up && c->asked_id == 0)
        schedule(c);
    if (!is_up && c->asked_id != 0)
        failed(c, "UNAVAILABLE", "weft-link is gone");
}

void certifier_answer(struct certifier *c, const struct wire_certificate *a)
{
    char code[33], why[257], message[320], end[32];
    bool is_first = c->held == NULL;
    err_t err;

    if (c->asked_id == 0 || a->id != c->asked_id)
        return; /* late: asked again meanwhile */
    if (a->code.n > 0) {
        if (!slice_to_cstr(a->code, code, sizeof(code)) ||
            !slice_to_cstr(a->why, why, sizeof(why)))
            code[0] = why[0] = '\0';
        /* What was refused is not asked again in the same words, unless the token is bound to
         * them. */
        if (!c->is_token_bound && strcmp(code, "UNAVAILABLE") != 0)
            forget_pending(c);
        failed(c, code, why);
        return;
    }
    err = install(c, a->chain);
    if (err != OK) {
        failed(c, err->name, err->text);
        return;
    }
    c->asked_id = 0;
    print_time(c->held->not_after_ms, end);
    (void)snprintf(message, sizeof(message), "%s until %s", c->identity, end);
    c->conf.tell(c->conf.arg, is_first ? "CERTIFICATE_OBTAINED" : "CERTIFICATE_RENEWED",
                 message);
    certifier_say_state(c);
    schedule(c);
}

/* ---- life ---- */

err_t certifier_new(const struct certifier_conf *conf, struct certifier **out)
{
    struct certifier *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return ERR_OF(NOMEM);
    c->conf = *conf;
    c->token = conf->token;
    token_wipe(&c->conf.token);
    c->was_alarming = true;
    (void)snprintf(c->identity, sizeof(c->identity), "%s", conf->identity);
    buf_init(&c->anchors_pem, 0);
    buf_init(&c->chain_pem, 0);
    buf_init(&c->csr, 0);
    timer_init(&c->timer, conf->base, look, c);
    if (conf->anchors_pem.n > 0 && certifier_trust(c, conf->anchors_pem) != OK)
        log_error("trust anchors not understood", "bytes=%zu", conf->anchors_pem.n);
    take_current(c);
    take_pending(c);
    *out = c;
    schedule(c);
    return OK;
}

void certifier_free(struct certifier **cp)
{
    struct certifier *c = *cp;

    if (c == NULL)
        return;
    timer_stop(&c->timer);
    credential_free(&c->held);
    EVP_PKEY_free(c->new_key);
    X509_STORE_free(c->anchors);
    token_wipe(&c->token);
    buf_done(&c->anchors_pem);
    buf_done(&c->chain_pem);
    buf_done(&c->csr);
    free(c);
    *cp = NULL;
}
