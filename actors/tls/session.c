/* OpenSSL behind memory buffers.
 *
 * Invariants of the hand-over (docs/internals/tls.md):
 *   I1  both sequence numbers are 0: no tickets, no early data, no SSL_read, SSL_write or
 * SSL_shutdown here I4  no result before the peer's certificate was verified and its identity
 * read I5  bytes behind the handshake stay in the read BIO, exactly: read_ahead is off I8
 * secrets are wiped when the session is freed
 */
#include "tls/session.h"

#include "tls/tls_err.h"
#include "tls/verified.h"

#include "kit/clock.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <strings.h>

#define SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define ALPN   "\x13transport.l5d.io/v1"

/* Hybrid post-quantum first where OpenSSL knows it (3.5 and later). */
static const char *const group_lists[] = {"X25519MLKEM768:X25519:P-256:P-384",
                                          "X25519:P-256:P-384"};

struct tls_context {
    unsigned users; /* the maker and every session: the library's callbacks point into it */
    SSL_CTX *server, *client;
    struct verified *clients, *servers; /* verified lately, by what they were */
    char identity[IDENTITY_MAX + 1];
    const char *groups;
};

struct session {
    struct tls_context *context; /* counted */
    SSL *ssl;
    BIO *in, *out; /* owned by ssl */
    bool is_client;
    size_t bytes_in, bytes_out;
    char identity[IDENTITY_MAX + 1]; /* server: ours; client: the one the server must have */
    char peer[IDENTITY_MAX + 1];
    int64_t peer_not_after_ms;
    uint8_t secret[2][SESSION_SECRET_MAX]; /* client's, server's */
    size_t secret_len[2];
    const char *code; /* why it failed, as far as a callback knew better than the library */
    char why[256];
};

_Static_assert(sizeof(ALPN) - 2 == 0x13, "the length byte is right");

static void note(struct session *s, const char *code, const char *why)
{
    s->code = code;
    (void)snprintf(s->why, sizeof(s->why), "%s", why);
}

/* ---- callbacks of the library ---- */

static struct session *session_of(const SSL *ssl)
{
    return SSL_get_app_data(ssl);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "LABEL client_random secret": only the two application traffic secrets are of interest. */
static void on_keylog(const SSL *ssl, const char *line)
{
    static const char *const labels[2] = {"CLIENT_TRAFFIC_SECRET_0 ",
                                          "SERVER_TRAFFIC_SECRET_0 "};
    struct session *s = session_of(ssl);
    const char *hex = strrchr(line, ' ');

    for (unsigned i = 0; i < 2 && hex != NULL; i++) {
        size_t n = strlen(hex + 1) / 2;

        if (strncmp(line, labels[i], strlen(labels[i])) != 0)
            continue;
        if (n > SESSION_SECRET_MAX)
            return;
        for (size_t k = 0; k < n; k++) {
            int hi = hex_digit(hex[1 + 2 * k]), lo = hex_digit(hex[2 + 2 * k]);

            if (hi < 0 || lo < 0)
                return;
            s->secret[i][k] = (uint8_t)(hi << 4 | lo);
        }
        s->secret_len[i] = n;
    }
}

static const char *code_of_verify(int error)
{
    switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "EXPIRED";
    default:
        return "UNKNOWN_ISSUER";
    }
}

static bool read_end(X509 *cert, int64_t *out)
{
    struct tm tm;

    if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1)
        return false;
    *out = (int64_t)timegm(&tm) * 1000;
    return true;
}

/* The whole of it: chain, then identity. */
static bool verify_fully(struct session *s, X509_STORE_CTX *ctx, X509 *leaf,
                         struct verified_peer *out)
{
    int error;

    if (X509_verify_cert(ctx) != 1) {
        error = X509_STORE_CTX_get_error(ctx);
        note(s, code_of_verify(error), X509_verify_cert_error_string(error));
        return false;
    }
    if (identity_of(leaf, out->identity) != OK || !read_end(leaf, &out->not_after_ms)) {
        note(s, "WRONG_IDENTITY", "the peer's certificate does not carry exactly one identity");
        X509_STORE_CTX_set_error(ctx, X509_V_ERR_CERT_REJECTED); /* leaves as bad_certificate */
        return false;
    }
    return true;
}

/* Inside the handshake, so that the peer hears of a refusal by an alert. `arg` is the side's
 * table of verified leaves; who may be whom is judged each time. */
static int on_verify(X509_STORE_CTX *ctx, void *arg)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct session *s = session_of(ssl);
    X509 *leaf = X509_STORE_CTX_get0_cert(ctx);
    int64_t now = (int64_t)clock_wall_ms();
    struct verified_peer peer;

    if (!verified_find(arg, leaf, now, &peer)) {
        if (!verify_fully(s, ctx, leaf, &peer))
            return 0;
        verified_add(arg, leaf, X509_STORE_CTX_get0_chain(ctx), now, &peer);
    }
    if (s->is_client && strcmp(peer.identity, s->identity) != 0) {
        (void)snprintf(s->why, sizeof(s->why), "the server is %.120s", peer.identity);
        s->code = "WRONG_IDENTITY";
        X509_STORE_CTX_set_error(ctx, X509_V_ERR_CERT_REJECTED);
        return 0;
    }
    memcpy(s->peer, peer.identity, sizeof(s->peer));
    s->peer_not_after_ms = peer.not_after_ms;
    return 1;
}

/* Only a handshake for our own name is ours to make; anything else was not meant for the mesh.
 */
static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    struct session *s = session_of(ssl);
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    (void)arg;
    if (name != NULL && strcasecmp(name, s->identity) == 0)
        return SSL_TLSEXT_ERR_OK;
    note(s, "WRONG_IDENTITY", "the client asked for another server name");
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *in, unsigned in_len, void *arg)
{
    static const unsigned char ours[] = ALPN;

    (void)ssl, (void)arg;
    for (unsigned at = 0; at < in_len; at += 1u + in[at]) {
        if (in_len - at >= sizeof(ours) - 1 && memcmp(in + at, ours, sizeof(ours) - 1) == 0) {
            *out = in + at + 1;
            *out_len = ours[0];
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_NOACK;
}

/* ---- contexts ---- */

static SSL_CTX *make_side(struct tls_context *c, const struct credential *cred,
                          X509_STORE *anchors, bool is_client)
{
    SSL_CTX *ctx = SSL_CTX_new(is_client ? TLS_client_method() : TLS_server_method());
    bool ok = ctx != NULL && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
              SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
              SSL_CTX_set_ciphersuites(ctx, SUITES) == 1 &&
              SSL_CTX_set_num_tickets(ctx, 0) == 1 &&
              SSL_CTX_use_cert_and_key(ctx, cred->leaf, cred->key, cred->rest, 1) == 1;
    bool has_groups = false;

    for (size_t i = 0; ok && !has_groups && i < sizeof(group_lists) / sizeof(group_lists[0]);
         i++) {
        has_groups = SSL_CTX_set1_groups_list(ctx, (uintptr_t)group_lists[i]) == 1;
        if (has_groups)
            c->groups = group_lists[i];
    }
    if (!ok || !has_groups) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set1_cert_store(ctx, anchors);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, on_verify, is_client ? c->servers : c->clients);
    SSL_CTX_set_verify_depth(ctx, 3);
    SSL_CTX_set_max_cert_list(ctx, SESSION_BYTES_MAX);
    SSL_CTX_set_security_level(ctx, 2);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
                                       SSL_OP_CIPHER_SERVER_PREFERENCE);
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    (void)SSL_CTX_set_read_ahead(ctx, 0);
    SSL_CTX_set_keylog_callback(ctx, on_keylog);
    if (!is_client) {
        (void)SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
        SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    }
    return ctx;
}

err_t tls_context_make(const struct credential *cred, X509_STORE *anchors, const char *identity,
                       struct tls_context **out)
{
    struct tls_context *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return ERR_OF(NOMEM);
    c->users = 1;
    (void)snprintf(c->identity, sizeof(c->identity), "%s", identity);
    c->clients = verified_new(); /* NULL does no harm */
    c->servers = verified_new();
    c->server = make_side(c, cred, anchors, false);
    c->client = make_side(c, cred, anchors, true);
    ERR_clear_error(); /* of the groups this OpenSSL does not know */
    if (c->server == NULL || c->client == NULL) {
        tls_context_free(&c);
        return ERR_OF(TLS_LIBRARY);
    }
    *out = c;
    return OK;
}

void tls_context_free(struct tls_context **cp)
{
    struct tls_context *c = *cp;

    *cp = NULL;
    if (c == NULL || --c->users > 0)
        return;
    SSL_CTX_free(c->server);
    SSL_CTX_free(c->client);
    verified_free(&c->clients);
    verified_free(&c->servers);
    free(c);
}

uint64_t tls_context_hits(const struct tls_context *c)
{
    return (c->clients != NULL ? verified_hits(c->clients) : 0) +
           (c->servers != NULL ? verified_hits(c->servers) : 0);
}

const char *tls_context_groups(const struct tls_context *c)
{
    return c->groups;
}

/* ---- sessions ---- */

static bool set_up(struct session *s, const struct session_conf *conf)
{
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());

    if (in == NULL || out == NULL) {
        BIO_free(in);
        BIO_free(out);
        return false;
    }
    (void)BIO_set_mem_eof_return(in, -1); /* empty means "not yet", not "the end" */
    (void)BIO_set_mem_eof_return(out, -1);
    SSL_set_bio(s->ssl, in, out);
    s->in = in;
    s->out = out;
    if (SSL_set_app_data(s->ssl, s) != 1)
        return false;
    if (!conf->is_client) {
        SSL_set_accept_state(s->ssl);
        return true;
    }
    SSL_set_connect_state(s->ssl);
    /* ALPN's setter returns 0 for success. The uintptr_t: this macro of OpenSSL casts const
     * away, which is refused here, and means no harm. */
    return SSL_set_tlsext_host_name(s->ssl, (uintptr_t)conf->server_name) == 1 &&
           (!conf->transport_alpn ||
            SSL_set_alpn_protos(s->ssl, (const unsigned char *)ALPN, sizeof(ALPN) - 1) == 0);
}

err_t session_new(struct tls_context *c, const struct session_conf *conf, struct session **out)
{
    struct session *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return ERR_OF(NOMEM);
    s->context = c;
    c->users++;
    s->is_client = conf->is_client;
    (void)snprintf(s->identity, sizeof(s->identity), "%s",
                   conf->is_client ? conf->server_name : c->identity);
    s->ssl = SSL_new(conf->is_client ? c->client : c->server);
    if (s->ssl == NULL || !set_up(s, conf)) {
        session_free(&s);
        ERR_clear_error();
        return ERR_OF(TLS_LIBRARY);
    }
    *out = s;
    return OK;
}

void session_free(struct session **sp)
{
    struct session *s = *sp;

    if (s == NULL)
        return;
    SSL_free(s->ssl);
    tls_context_free(&s->context);
    OPENSSL_cleanse(s, sizeof(*s));
    free(s);
    *sp = NULL;
}

/* Everything that waits in a memory BIO. False: no memory. */
static bool drain_bio(BIO *bio, struct buf *to)
{
    size_t n = BIO_ctrl_pending(bio);
    uint8_t *room;
    int got;

    if (n == 0)
        return true;
    room = buf_reserve(to, n);
    if (room == NULL)
        return false;
    got = BIO_read(bio, room, (int)n);
    if (got > 0)
        buf_commit(to, (size_t)got);
    return got == (int)n;
}

/* What the library says, in our words, unless a callback has said it better. */
static void judge_failure(struct session *s)
{
    unsigned long e = ERR_peek_error();
    int reason = ERR_GET_REASON(e);
    const char *text = ERR_reason_error_string(e);

    if (s->code != NULL)
        return;
    note(s, "MALFORMED", text != NULL ? text : "the handshake ended without a reason");
    if (ERR_GET_LIB(e) != ERR_LIB_SSL)
        return;
    if (reason >= SSL_AD_REASON_OFFSET)
        s->code = "ALERT";
    else if (reason == SSL_R_UNSUPPORTED_PROTOCOL || reason == SSL_R_WRONG_VERSION_NUMBER ||
             reason == SSL_R_VERSION_TOO_LOW || reason == SSL_R_HTTP_REQUEST ||
             reason == SSL_R_HTTPS_PROXY_REQUEST || reason == SSL_R_WRONG_SSL_VERSION)
        s->code = "NOT_TLS13";
}

static enum step fail(struct session *s, const char *code, const char *why)
{
    if (s->code == NULL)
        note(s, code, why);
    return STEP_FAILED;
}

enum step session_step(struct session *s, slice_t in, struct buf *out)
{
    size_t before = buf_len(out);
    int r;

    if (in.n > 0 && BIO_write(s->in, in.p, (int)in.n) != (int)in.n)
        return fail(s, "MALFORMED", "out of memory");
    s->bytes_in += in.n;
    ERR_clear_error();
    r = SSL_do_handshake(s->ssl);
    if (r != 1 && SSL_get_error(s->ssl, r) != SSL_ERROR_WANT_READ) {
        judge_failure(s);
        (void)drain_bio(s->out, out); /* the alert, if there is memory for it */
        ERR_clear_error();
        return STEP_FAILED;
    }
    if (!drain_bio(s->out, out))
        return fail(s, "MALFORMED", "out of memory");
    s->bytes_out += buf_len(out) - before;
    if (r == 1)
        return STEP_DONE;
    if (s->bytes_in > SESSION_BYTES_MAX || s->bytes_out > SESSION_BYTES_MAX)
        return fail(s, "MALFORMED", "the handshake is larger than 64 KiB");
    return STEP_LATER;
}

err_t session_take_result(struct session *s, struct session_result *r, struct buf *leftover)
{
    const unsigned char *alpn;
    unsigned alpn_len;
    const char *name = SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name);
    bool has_cert = SSL_get0_peer_certificate(s->ssl) != NULL;

    /* I4, once more at the door. */
    if (SSL_is_init_finished(s->ssl) != 1 || SSL_get_verify_result(s->ssl) != X509_V_OK ||
        s->secret_len[0] == 0 || s->secret_len[1] == 0 || has_cert != (s->peer[0] != '\0') ||
        (s->is_client && !has_cert))
        return ERR_OF(MALFORMED);
    SSL_get0_alpn_selected(s->ssl, &alpn, &alpn_len);
    *r = (struct session_result){
        .suite = SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(s->ssl)),
        .client_secret = slice(s->secret[0], s->secret_len[0]),
        .server_secret = slice(s->secret[1], s->secret_len[1]),
        .peer = slice_str(s->peer),
        .alpn = slice(alpn, alpn_len),
        .server_name = s->is_client ? slice_str(s->identity) : slice_str(name),
        .peer_not_after_ms = s->peer_not_after_ms,
    };
    return drain_bio(s->in, leftover) ? OK : ERR_OF(NOMEM);
}

const char *session_code(const struct session *s)
{
    return s->code != NULL ? s->code : "MALFORMED";
}

const char *session_why(const struct session *s)
{
    return s->why;
}

slice_t session_plain_alert(void)
{
    return SLICE_LIT("\x15\x03\x03\x00\x02\x02\x50");
}
