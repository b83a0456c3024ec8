/* Who may connect: the handler of ZeroMQ's authentication protocol (ZAP, RFC 27 of ZeroMQ).
 *
 * libzmq asks at inproc://zeromq.zap.01 about every peer of a socket that has a ZAP domain, and admits
 * everybody if nobody is bound there. So the handler is bound before any other socket, lives as long as
 * the context, and has to prove at the start that a peer without a domain of ours is refused.
 * The domain of a request is "weft.ID" and leads to the mailbox, whose `allow` decides.
 */
#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox_priv.h"
#include "kit/random.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ZAP_ENDPOINT  "inproc://zeromq.zap.01"
#define ZAP_FRAMES    8
#define PROOF_MS      2000
#define REFUSED_DOMAIN "weft.selftest" /* no mailbox has it */

bool mailbox_allow_same_uid(void *arg, const struct mailbox_peer *peer, char user[64])
{
    (void)arg;
    user[0] = '\0';
    return peer->is_ipc && (peer->uid == 0 || peer->uid == (uint32_t)geteuid());
}

/* The frames of a request. */
enum { ZAP_VERSION, ZAP_ID, ZAP_DOMAIN, ZAP_ADDRESS, ZAP_IDENTITY, ZAP_MECHANISM, ZAP_CREDENTIAL };

struct zap_request {
    zmq_msg_t frames[ZAP_FRAMES];
    unsigned n;
};

static slice_t request_field(struct zap_request *r, unsigned i)
{
    return i < r->n ? slice(zmq_msg_data(&r->frames[i]), zmq_msg_size(&r->frames[i])) : slice(NULL, 0);
}

static void request_done(struct zap_request *r)
{
    for (unsigned i = 0; i < r->n; i++)
        (void)zmq_msg_close(&r->frames[i]);
    r->n = 0;
}

/* False when no request waits. A request of too many frames keeps the first ones. */
static bool request_take(void *zap, struct zap_request *r)
{
    bool has_more = true;

    r->n = 0;
    while (has_more) {
        zmq_msg_t frame;

        (void)zmq_msg_init(&frame);
        while (zmq_msg_recv(&frame, zap, ZMQ_DONTWAIT) < 0) {
            if (errno == EINTR)
                continue;
            BUG_ON(errno != EAGAIN || r->n != 0);
            (void)zmq_msg_close(&frame);
            return false;
        }
        has_more = zmq_msg_more(&frame) != 0;
        if (r->n < ZAP_FRAMES)
            r->frames[r->n++] = frame;
        else
            (void)zmq_msg_close(&frame);
    }
    return true;
}

static struct mailbox *find_mailbox(slice_t domain)
{
    uint64_t id;

    if (!slice_starts(domain, SLICE_LIT("weft.")) || !slice_to_u64(slice_skip(domain, 5), &id))
        return NULL;
    LIST_EACH (it, &mailbox_world.all) {
        struct mailbox *m = CONTAINER_OF(it, struct mailbox, node);

        if (m->id == id)
            return m;
    }
    return NULL;
}

/* The kernel's word on an ipc peer: "localhost:UID:GID:PID". */
static bool parse_ipc_address(slice_t address, struct mailbox_peer *peer)
{
    uint64_t v[3];
    slice_t rest = address;

    if (!slice_starts(rest, SLICE_LIT("localhost:")))
        return false;
    rest = slice_skip(rest, strlen("localhost:"));
    for (unsigned i = 0; i < 3; i++) {
        const uint8_t *end = rest.n != 0 ? memchr(rest.p, ':', rest.n) : NULL;
        slice_t part = slice(rest.p, end != NULL ? (size_t)(end - rest.p) : rest.n);

        if ((end == NULL) != (i == 2) || !slice_to_u64(part, &v[i]) || v[i] > UINT32_MAX)
            return false;
        rest = slice_skip(rest, part.n + 1);
    }
    peer->is_ipc = true;
    peer->uid = (uint32_t)v[0];
    peer->pid = (uint32_t)v[2];
    return true;
}

static bool describe_peer(struct zap_request *r, struct mailbox_peer *peer, char address[64])
{
    slice_t mechanism = request_field(r, ZAP_MECHANISM);
    slice_t credential = request_field(r, ZAP_CREDENTIAL);

    *peer = (struct mailbox_peer){.address = address};
    if (!slice_to_cstr(request_field(r, ZAP_ADDRESS), address, 64))
        return false;
    if (slice_is_str(mechanism, "NULL")) /* only ipc comes without CURVE, see check_conf */
        return parse_ipc_address(request_field(r, ZAP_ADDRESS), peer);
    return slice_is_str(mechanism, "CURVE") && credential.n == 32 &&
           zmq_z85_encode(peer->key, credential.p, 32) != NULL;
}

static bool admit(struct zap_request *r, char user[64])
{
    struct mailbox *m = find_mailbox(request_field(r, ZAP_DOMAIN));
    struct mailbox_peer peer;
    char address[64] = "";

    if (!slice_is_str(request_field(r, ZAP_VERSION), "1.0") || m == NULL || m->allow == NULL)
        return false;
    if (describe_peer(r, &peer, address) && m->allow(m->arg, &peer, user)) {
        user[63] = '\0';
        return true;
    }
    mailbox_world.count.refused_peers++;
    log_warn("mailbox refused a peer", "mailbox=%s address=%s key=%.8s", m->name, address, peer.key);
    return false;
}

static void answer(void *zap, struct zap_request *r, bool is_admitted, const char *user)
{
    slice_t id = request_field(r, ZAP_ID);
    const slice_t frames[] = {SLICE_LIT("1.0"),
                              id,
                              slice_str(is_admitted ? "200" : "400"),
                              slice_str(is_admitted ? "OK" : "refused"),
                              slice_str(is_admitted ? user : ""),
                              SLICE_LIT("")};
    const unsigned n = sizeof(frames) / sizeof(frames[0]);

    for (unsigned i = 0; i < n; i++) {
        int flags = ZMQ_DONTWAIT | (i + 1 < n ? ZMQ_SNDMORE : 0);

        /* The asker may have gone; REP then forgets the answer. */
        if (zmq_send(zap, frames[i].p, frames[i].n, flags) < 0)
            return;
    }
}

/* Answers all that wait. They are as many as connections come; each costs microseconds. */
static void serve(void)
{
    struct zap_request r;

    while (mailbox_world.zap != NULL && request_take(mailbox_world.zap, &r)) {
        char user[64] = "";
        bool is_admitted = admit(&r, user);

        answer(mailbox_world.zap, &r, is_admitted, user);
        request_done(&r);
    }
}

static void on_zap(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    /* The answer's send may take the command that announces the next request, and REP can do one at a
     * time, so look until there is really nothing. */
    do {
        serve();
    } while ((mailbox_events(mailbox_world.zap) & ZMQ_POLLIN) != 0);
}

err_t mailbox_zap_open(void)
{
    struct mailbox_world *w = &mailbox_world;
    int fd = -1;
    size_t size = sizeof(fd);

    w->zap = zmq_socket(w->ctx, ZMQ_REP);
    if (w->zap == NULL)
        return ERR_OF(OS);
    mailbox_set_int(w->zap, ZMQ_LINGER, 0);
    if (zmq_bind(w->zap, ZAP_ENDPOINT) != 0)
        return ERR_OF(OS);
    BUG_ON(zmq_getsockopt(w->zap, ZMQ_FD, &fd, &size) != 0);
    BUG_ON(event_assign(&w->on_zap, w->base, fd, EV_READ | EV_PERSIST, on_zap, NULL) != 0);
    BUG_ON(event_add(&w->on_zap, NULL) != 0);
    event_active(&w->on_zap, EV_TIMEOUT, 0);
    return OK;
}

void mailbox_zap_close(void)
{
    (void)event_del(&mailbox_world.on_zap);
    (void)zmq_close(mailbox_world.zap);
    mailbox_world.zap = NULL;
}

/* ---- the proof ---- */

struct proof {
    void *server, *client, *monitor;
    char endpoint[64], watch[64];
};

/* A server with a domain nobody knows, and a client that connects to it. Abstract address: no file. */
static void proof_start(struct proof *p)
{
    char salt[17];

    random_hex(salt, 16);
    (void)snprintf(p->endpoint, sizeof(p->endpoint), "ipc://@weft-selftest-%s", salt);
    (void)snprintf(p->watch, sizeof(p->watch), "inproc://weft.selftest.%s", salt);
    p->server = zmq_socket(mailbox_world.ctx, ZMQ_PAIR);
    p->client = zmq_socket(mailbox_world.ctx, ZMQ_PAIR);
    p->monitor = zmq_socket(mailbox_world.ctx, ZMQ_PAIR);
    BUG_ON(p->server == NULL || p->client == NULL || p->monitor == NULL);
    mailbox_set_int(p->server, ZMQ_LINGER, 0);
    mailbox_set_int(p->client, ZMQ_LINGER, 0);
    mailbox_set_int(p->monitor, ZMQ_LINGER, 0);
    BUG_ON(zmq_setsockopt(p->server, ZMQ_ZAP_DOMAIN, REFUSED_DOMAIN, strlen(REFUSED_DOMAIN)) != 0);
    BUG_ON(zmq_bind(p->server, p->endpoint) != 0);
    BUG_ON(zmq_socket_monitor(p->client, p->watch,
                              ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) != 0);
    BUG_ON(zmq_connect(p->monitor, p->watch) != 0);
    BUG_ON(zmq_connect(p->client, p->endpoint) != 0);
}

static void proof_end(struct proof *p)
{
    (void)zmq_socket_monitor(p->client, NULL, 0);
    (void)zmq_close(p->monitor);
    (void)zmq_close(p->client);
    (void)zmq_close(p->server);
}

/* The client's fate, or 0 when it is not known yet. */
static unsigned proof_event(struct proof *p)
{
    uint8_t frame[16];
    uint16_t event = 0;

    if (zmq_recv(p->monitor, frame, sizeof(frame), ZMQ_DONTWAIT) >= (int)sizeof(event))
        memcpy(&event, frame, sizeof(event));
    return event;
}

void mailbox_zap_prove(void)
{
    struct mailbox_world *w = &mailbox_world;
    uint64_t end_us = clock_read_us() + PROOF_MS * UINT64_C(1000);
    struct proof p;
    unsigned event;

    proof_start(&p);
    /* The loop does not run yet (this is a start-up step that ends in a millisecond or aborts), so the
     * two sockets are waited for here. */
    while ((event = proof_event(&p)) == 0) {
        zmq_pollitem_t items[] = {{.socket = w->zap, .events = ZMQ_POLLIN},
                                  {.socket = p.monitor, .events = ZMQ_POLLIN}};

        BUG_ON(clock_read_us() > end_us); /* nobody could say whether strangers are refused */
        (void)zmq_poll(items, 2, 100);
        serve();
    }
    BUG_ON(event != ZMQ_EVENT_HANDSHAKE_FAILED_AUTH); /* the ZAP handler does not refuse */
    proof_end(&p);
    w->is_proven = true;
}
