/* Mailboxes: opening, sending, closing. mailbox_pump.c receives, mailbox_zap.c admits. */
#include "kit/mailbox_priv.h"

#include "kit/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_HWM       1000
#define DEFAULT_MAX_BYTES (256 * 1024)
#define TOPIC_MAX_BYTES   1024 /* room above max_bytes for the topic of a published message */
#define BACKLOG           512
#define SOCKETS_MAX       256 /* ZeroMQ sockets of one process, monitors included */
#define SAFETY_MS         1000

struct mailbox_world mailbox_world = {.all = LIST_INIT(mailbox_world.all)};

const struct mailbox_counters *mailbox_count(void)
{
    return &mailbox_world.count;
}

void mailbox_set_int(void *sock, int option, int value)
{
    BUG_ON(zmq_setsockopt(sock, option, &value, sizeof(value)) != 0);
}

/* ---- the context ---- */

err_t mailbox_prepare(struct event_base *base)
{
    struct mailbox_world *w = &mailbox_world;

    if (w->ctx != NULL && w->base != base && list_is_empty(&w->all))
        mailbox_shutdown(); /* a test goes from one loop to the next */
    if (w->ctx != NULL) {
        BUG_ON(w->base != base);
        return OK;
    }
    w->ctx = zmq_ctx_new();
    if (w->ctx == NULL)
        return ERR_OF(NOMEM);
    (void)zmq_ctx_set(w->ctx, ZMQ_IO_THREADS, 1);
    (void)zmq_ctx_set(w->ctx, ZMQ_MAX_SOCKETS, SOCKETS_MAX);
    (void)zmq_ctx_set(w->ctx, ZMQ_BLOCKY, 0);
    w->base = base;
    TRY(mailbox_zap_open());
    mailbox_zap_prove();
    timer_init(&w->safety, base, mailbox_on_safety, NULL);
    return OK;
}

static void on_hang(int sig)
{
    (void)sig;
    _exit(0); /* all is said and done; only libzmq's thread does not end */
}

void mailbox_shutdown(void)
{
    struct mailbox_world *w = &mailbox_world;

    if (w->ctx == NULL)
        return;
    while (!list_is_empty(&w->all)) { /* an owner forgot; its pointer is of no use any more */
        struct mailbox *m = CONTAINER_OF(w->all.next, struct mailbox, node);

        log_warn("mailbox was left open", "mailbox=%s", m->name);
        mailbox_close(&m);
    }
    timer_stop(&w->safety);
    mailbox_zap_close();
    (void)signal(SIGALRM, on_hang);
    (void)alarm(2); /* zmq_ctx_term waits for ever if something lingers */
    while (zmq_ctx_term(w->ctx) != 0 && errno == EINTR) {
    }
    (void)alarm(0);
    w->ctx = NULL;
    w->base = NULL;
    w->is_proven = false;
}

/* ---- opening ---- */

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int socket_type(enum mailbox_kind kind)
{
    switch (kind) {
    case MAILBOX_ROUTER:
        return ZMQ_ROUTER;
    case MAILBOX_DEALER:
        return ZMQ_DEALER;
    case MAILBOX_PUB:
        return ZMQ_PUB;
    case MAILBOX_SUB:
        return ZMQ_SUB;
    case MAILBOX_XPUB:
        return ZMQ_XPUB;
    case MAILBOX_XSUB:
        return ZMQ_XSUB;
    }
    bug("socket_type", __FILE__, __LINE__);
}

static bool is_publishing(enum mailbox_kind kind)
{
    return kind == MAILBOX_PUB || kind == MAILBOX_XPUB;
}

static err_t check_conf(const struct mailbox_conf *conf)
{
    bool is_tcp = starts_with(conf->endpoint, "tcp://");

    if (!is_tcp && !starts_with(conf->endpoint, "ipc:///"))
        return ERR_OF(BAD_SETTING);
    if (strlen(conf->endpoint) >= sizeof(((struct mailbox *)0)->endpoint))
        return ERR_OF(BAD_SETTING);
    if (conf->bind && conf->allow == NULL)
        return ERR_OF(BAD_SETTING);
    if (is_tcp && conf->secret_key == NULL) /* never a byte over the network in the clear */
        return ERR_OF(BAD_SETTING);
    if (is_tcp && !conf->bind && (conf->public_key == NULL || conf->server_key == NULL))
        return ERR_OF(BAD_SETTING);
    return OK;
}

/* Everything that bounds something. */
static void set_bounds(struct mailbox *m, const struct mailbox_conf *conf, bool is_tcp)
{
    int hwm = conf->hwm != 0 ? (int)conf->hwm : DEFAULT_HWM;
    int64_t max = (int64_t)m->max_bytes + TOPIC_MAX_BYTES;
    void *s = m->sock;

    mailbox_set_int(s, ZMQ_LINGER, 0);
    mailbox_set_int(s, ZMQ_SNDHWM, hwm);
    mailbox_set_int(s, ZMQ_RCVHWM, hwm);
    BUG_ON(zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &max, sizeof(max)) != 0);
    mailbox_set_int(s, ZMQ_HANDSHAKE_IVL, 2000);
    mailbox_set_int(s, ZMQ_RECONNECT_IVL, is_tcp ? 100 : 20);
    /* ipc is a restart of a neighbour, which takes milliseconds: waiting 5 s for it would be felt. */
    mailbox_set_int(s, ZMQ_RECONNECT_IVL_MAX, is_tcp ? 5000 : 200);
    mailbox_set_int(s, ZMQ_BACKLOG, BACKLOG);
    mailbox_set_int(s, ZMQ_SNDTIMEO, 0);
    mailbox_set_int(s, ZMQ_RCVTIMEO, 0);
    if (is_tcp) {
        mailbox_set_int(s, ZMQ_HEARTBEAT_IVL, 1000);
        mailbox_set_int(s, ZMQ_HEARTBEAT_TIMEOUT, 3000);
        mailbox_set_int(s, ZMQ_HEARTBEAT_TTL, 3000);
        mailbox_set_int(s, ZMQ_CONNECT_TIMEOUT, 5000);
        mailbox_set_int(s, ZMQ_IPV6, strchr(conf->endpoint, '[') != NULL);
    }
    if (m->kind == MAILBOX_ROUTER)
        mailbox_set_int(s, ZMQ_ROUTER_MANDATORY, 1);
    if (m->kind == MAILBOX_DEALER)
        mailbox_set_int(s, ZMQ_IMMEDIATE, 1);
}

static err_t set_key(void *sock, int option, const char *text)
{
    if (strlen(text) != MAILBOX_KEY_TEXT - 1 || zmq_setsockopt(sock, option, text, MAILBOX_KEY_TEXT) != 0)
        return ERR_OF(BAD_SETTING);
    return OK;
}

static err_t set_keys(void *sock, const struct mailbox_conf *conf)
{
    if (conf->bind)
        mailbox_set_int(sock, ZMQ_CURVE_SERVER, 1);
    else
        TRY(set_key(sock, ZMQ_CURVE_SERVERKEY, conf->server_key));
    if (!conf->bind)
        TRY(set_key(sock, ZMQ_CURVE_PUBLICKEY, conf->public_key));
    return set_key(sock, ZMQ_CURVE_SECRETKEY, conf->secret_key);
}

static void set_domain(struct mailbox *m)
{
    char domain[32];
    int n = snprintf(domain, sizeof(domain), "weft.%u", m->id);

    BUG_ON(zmq_setsockopt(m->sock, ZMQ_ZAP_DOMAIN, domain, (size_t)n) != 0);
}

static err_t os_error(const char *what, const struct mailbox *m)
{
    log_error("mailbox failed", "call=%s mailbox=%s endpoint=%s errno=%s", what, m->name, m->endpoint,
              zmq_strerror(errno));
    return errno == ENOMEM ? ERR_OF(NOMEM) : ERR_OF(OS);
}

/* A listening socket at path, mode 0600 from its first moment. Bound under another name and renamed, so
 * that a file left by a killed predecessor is replaced in one step and clients never find nothing. We do
 * this, not libzmq, because its listener removes the file from its own thread some time after the
 * close, and would remove its successor's. */
static int listen_ipc(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int n = snprintf(un.sun_path, sizeof(un.sun_path), "%s.new", path);
    int fd;

    if (n < 0 || (size_t)n >= sizeof(un.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    (void)unlink(un.sun_path);
    if (fchmod(fd, 0600) != 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) != 0 ||
        listen(fd, BACKLOG) != 0 || rename(un.sun_path, path) != 0) {
        int why = errno;

        (void)close(fd);
        (void)unlink(un.sun_path);
        errno = why;
        return -1;
    }
    return fd;
}

static err_t bind_ipc(struct mailbox *m)
{
    const char *path = m->endpoint + strlen("ipc://");
    int fd = listen_ipc(path);

    if (fd < 0)
        return os_error("listen", m);
    (void)snprintf(m->path, sizeof(m->path), "%s", path); /* from here on it is ours to remove */
    mailbox_set_int(m->sock, ZMQ_USE_FD, fd);
    if (zmq_bind(m->sock, m->endpoint) != 0)
        return os_error("bind", m);
    return OK;
}

static err_t bind_tcp(struct mailbox *m)
{
    size_t size = sizeof(m->endpoint);

    if (zmq_bind(m->sock, m->endpoint) != 0)
        return os_error("bind", m);
    BUG_ON(zmq_getsockopt(m->sock, ZMQ_LAST_ENDPOINT, m->endpoint, &size) != 0);
    return OK;
}

/* A socket that reads what happens to m's connection. */
static err_t watch_link(struct mailbox *m)
{
    char name[48];

    (void)snprintf(name, sizeof(name), "inproc://weft.link.%u", m->id);
    if (zmq_socket_monitor(m->sock, name,
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                               ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                               ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) != 0)
        return os_error("monitor", m);
    m->monitor = zmq_socket(mailbox_world.ctx, ZMQ_PAIR);
    if (m->monitor == NULL)
        return os_error("socket", m);
    mailbox_set_int(m->monitor, ZMQ_LINGER, 0);
    mailbox_set_int(m->monitor, ZMQ_RCVHWM, DEFAULT_HWM);
    if (zmq_connect(m->monitor, name) != 0)
        return os_error("connect", m);
    return OK;
}

static err_t connect_peer(struct mailbox *m)
{
    m->is_connector = true;
    TRY(watch_link(m)); /* before the connect, else its first event could be missed */
    if (zmq_connect(m->sock, m->endpoint) != 0)
        return os_error("connect", m);
    return OK;
}

void mailbox_reconnect(struct mailbox *m)
{
    (void)zmq_disconnect(m->sock, m->endpoint); /* may be gone already */
    if (zmq_connect(m->sock, m->endpoint) != 0)
        log_error("mailbox failed", "call=connect mailbox=%s endpoint=%s errno=%s", m->name, m->endpoint,
                  zmq_strerror(errno));
}

static err_t open_socket(struct mailbox *m, const struct mailbox_conf *conf)
{
    bool is_tcp = m->is_tcp = starts_with(conf->endpoint, "tcp://");

    m->sock = zmq_socket(mailbox_world.ctx, socket_type(conf->kind));
    if (m->sock == NULL)
        return os_error("socket", m);
    set_bounds(m, conf, is_tcp);
    if (is_tcp)
        TRY(set_keys(m->sock, conf));
    if (!conf->bind)
        return connect_peer(m);
    set_domain(m);
    return is_tcp ? bind_tcp(m) : bind_ipc(m);
}

static void close_sockets(struct mailbox *m)
{
    if (m->monitor != NULL) {
        if (m->sock != NULL)
            (void)zmq_socket_monitor(m->sock, NULL, 0);
        (void)zmq_close(m->monitor);
    }
    if (m->sock != NULL)
        (void)zmq_close(m->sock);
    if (m->path[0] != '\0')
        (void)unlink(m->path);
    m->monitor = m->sock = NULL;
}

void mailbox_free(struct mailbox *m)
{
    m->magic = 0;
    free(m);
}

err_t mailbox_open(struct event_base *base, const struct mailbox_conf *conf, struct mailbox **out)
{
    struct mailbox *m;
    err_t err;

    TRY(check_conf(conf));
    TRY(mailbox_prepare(base));
    m = calloc(1, sizeof(*m));
    if (m == NULL)
        return ERR_OF(NOMEM);
    *m = (struct mailbox){
        .magic = MAILBOX_MAGIC,
        .state = MAILBOX_OPEN,
        .id = ++mailbox_world.next_id,
        .kind = conf->kind,
        .name = conf->name,
        .max_bytes = conf->max_bytes != 0 ? conf->max_bytes : DEFAULT_MAX_BYTES,
        .allow = conf->allow,
        .on_msg = conf->on_msg,
        .on_link = conf->on_link,
        .arg = conf->arg,
    };
    (void)snprintf(m->endpoint, sizeof(m->endpoint), "%s", conf->endpoint);
    if (list_is_empty(&mailbox_world.all))
        timer_every(&mailbox_world.safety, SAFETY_MS);
    list_push(&mailbox_world.all, &m->node); /* the ZAP handler must find it */
    err = open_socket(m, conf);
    if (err != OK) {
        list_del(&m->node);
        close_sockets(m);
        mailbox_free(m);
        return err;
    }
    mailbox_pump_start(m);
    *out = m;
    return OK;
}

void mailbox_close(struct mailbox **mp)
{
    struct mailbox *m = *mp;

    if (m == NULL)
        return;
    (void)mailbox_from(m);
    *mp = NULL;
    BUG_ON(m->state != MAILBOX_OPEN);
    mailbox_pump_stop(m);
    close_sockets(m);
    list_del(&m->node);
    if (list_is_empty(&mailbox_world.all))
        timer_stop(&mailbox_world.safety);
    m->state = MAILBOX_CLOSED;
    if (m->running == 0)
        mailbox_free(m);
}

const char *mailbox_endpoint(const struct mailbox *m)
{
    return m->endpoint;
}

/* ---- sending ---- */

/* Sends the frames; errno says why not. The body is built before the first frame goes, so that nothing
 * can fail between the two. */
static int send_frames(struct mailbox *m, slice_t to, zmq_msg_t *body)
{
    int rc;

    if (m->kind == MAILBOX_ROUTER &&
        zmq_send(m->sock, to.p, to.n, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
        return -1;
    do {
        rc = zmq_msg_send(body, m->sock, ZMQ_DONTWAIT);
    } while (rc < 0 && errno == EINTR);
    BUG_ON(rc < 0 && m->kind == MAILBOX_ROUTER); /* libzmq drops the rest of a routed message itself */
    return rc < 0 ? -1 : 0;
}

static err_t build_frame(struct mailbox *m, slice_t to, slice_t body, zmq_msg_t *frame)
{
    size_t head = is_publishing(m->kind) ? to.n + 1 : 0;
    uint8_t *p;

    if (body.n > m->max_bytes || head > TOPIC_MAX_BYTES)
        return ERR_OF(TOO_BIG);
    if (head > 1 && memchr(to.p, '\0', to.n) != NULL)
        return ERR_OF(MALFORMED);
    if (zmq_msg_init_size(frame, head + body.n) != 0)
        return ERR_OF(NOMEM);
    p = zmq_msg_data(frame);
    if (head > 1)
        memcpy(p, to.p, to.n);
    if (head != 0)
        p[to.n] = '\0';
    if (body.n != 0)
        memcpy(p + head, body.p, body.n);
    return OK;
}

static err_t send_refused(void)
{
    switch (errno) {
    case EHOSTUNREACH:
        break;
    case EAGAIN:
        mailbox_world.count.dropped_full++;
        return ERR_OF(QUEUE_FULL);
    default:
        bug(zmq_strerror(errno), __FILE__, __LINE__);
    }
    mailbox_world.count.dropped_gone++;
    return ERR_OF(PEER_GONE);
}

err_t mailbox_send(struct mailbox *m, slice_t to, slice_t body)
{
    zmq_msg_t frame;
    err_t err = OK;

    (void)mailbox_from(m);
    if (m->state != MAILBOX_OPEN || (m->kind == MAILBOX_ROUTER && to.n == 0))
        return ERR_OF(PEER_GONE);
    if (m->kind == MAILBOX_DEALER && m->is_connector && !m->is_up) {
        /* The pipe of a lost connection takes messages for a moment longer, and loses them. */
        mailbox_world.count.dropped_gone++;
        return ERR_OF(PEER_GONE);
    }
    TRY(build_frame(m, to, body, &frame));
    if (send_frames(m, to, &frame) != 0) {
        /* A send looks for commands once in a millisecond only: a connection that is up, or credit
         * that came back, may be waiting to be seen. */
        if (errno == EAGAIN || errno == EHOSTUNREACH)
            (void)mailbox_events(m->sock);
        if (send_frames(m, to, &frame) != 0) {
            err = send_refused();
            (void)zmq_msg_close(&frame);
        }
    }
    if (err == OK)
        mailbox_world.count.sent++;
    mailbox_pump_kick(m);
    return err;
}

static err_t subscribe(struct mailbox *m, int option, slice_t prefix)
{
    BUG_ON(m->kind != MAILBOX_SUB);
    if (zmq_setsockopt(m->sock, option, prefix.n != 0 ? prefix.p : (const uint8_t *)"", prefix.n) != 0)
        return errno == EINVAL ? ERR_OF(MALFORMED) : ERR_OF(NOMEM);
    mailbox_pump_kick(m);
    return OK;
}

err_t mailbox_subscribe(struct mailbox *m, slice_t prefix)
{
    return subscribe(m, ZMQ_SUBSCRIBE, prefix);
}

err_t mailbox_unsubscribe(struct mailbox *m, slice_t prefix)
{
    return subscribe(m, ZMQ_UNSUBSCRIBE, prefix);
}

/* ---- keys ---- */

err_t mailbox_keypair(char public_key[MAILBOX_KEY_TEXT], char secret_key[MAILBOX_KEY_TEXT])
{
    return zmq_curve_keypair(public_key, secret_key) == 0 ? OK : ERR_OF(OS);
}

err_t mailbox_public_of(const char *secret_key, char public_key[MAILBOX_KEY_TEXT])
{
    char text[MAILBOX_KEY_TEXT];

    if (!slice_to_cstr(slice_str(secret_key), text, sizeof(text)) ||
        strlen(text) != MAILBOX_KEY_TEXT - 1)
        return ERR_OF(MALFORMED);
    return zmq_curve_public(public_key, text) == 0 ? OK : ERR_OF(MALFORMED);
}
