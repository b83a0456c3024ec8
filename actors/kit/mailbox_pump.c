/* The receiving side of a mailbox.
 *
 * ZMQ_FD becomes readable when libzmq has put a command into the socket's mailbox, not when a message
 * can be read, and any call into libzmq may take that command away. From this follows all below:
 *
 *   - a look (pump) ends only when zmq_msg_recv said EAGAIN, which has then handled every command, or
 *     after BURST messages, and then a zero timeout brings it back behind the other sockets (event_active
 *     would not do: libevent empties its queue of active events before it polls again);
 *   - a send outside a look may have taken the command that announced a message: it makes `kick` active,
 *     which runs a look in the same turn of the loop, once however many sends there were;
 *   - once a second every socket that nobody looked at since is asked; work found there was missed.
 */
#include "kit/log.h"
#include "kit/mailbox_priv.h"
#include "kit/random.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#define BURST 256

enum take { TAKE_MESSAGE, TAKE_EMPTY, TAKE_CLOSED };

int mailbox_events(void *sock)
{
    int events = 0;
    size_t size = sizeof(events);

    while (zmq_getsockopt(sock, ZMQ_EVENTS, &events, &size) != 0)
        BUG_ON(errno != EINTR);
    return events;
}

static int socket_fd(void *sock)
{
    int fd = -1;
    size_t size = sizeof(fd);

    BUG_ON(zmq_getsockopt(sock, ZMQ_FD, &fd, &size) != 0);
    return fd;
}

/* The next frame, or EAGAIN as false. */
static bool take_frame(void *sock, zmq_msg_t *frame)
{
    while (zmq_msg_recv(frame, sock, ZMQ_DONTWAIT) < 0) {
        if (errno == EAGAIN)
            return false;
        BUG_ON(errno != EINTR);
    }
    return true;
}

/* The frames of a message come together, so this never waits. */
static void drop_rest(void *sock, zmq_msg_t *frame)
{
    while (zmq_msg_more(frame) && take_frame(sock, frame)) {
    }
}

static bool has_topics(enum mailbox_kind kind)
{
    return kind == MAILBOX_SUB || kind == MAILBOX_XSUB;
}

/* Splits TOPIC NUL BODY. */
static bool split_topic(struct mailbox_msg *msg)
{
    const uint8_t *nul = msg->body.n != 0 ? memchr(msg->body.p, '\0', msg->body.n) : NULL;

    if (nul == NULL)
        return false;
    msg->topic = slice(msg->body.p, (size_t)(nul - msg->body.p));
    msg->body = slice_skip(msg->body, msg->topic.n + 1);
    return true;
}

static void deliver(struct mailbox *m, zmq_msg_t *id, zmq_msg_t *frame)
{
    struct mailbox_msg msg = {.body = slice(zmq_msg_data(frame), zmq_msg_size(frame))};
    const char *user = zmq_msg_gets(frame, "User-Id");

    msg.user = user != NULL ? user : "";
    if (m->kind == MAILBOX_ROUTER)
        msg.from = slice(zmq_msg_data(id), zmq_msg_size(id));
    if (has_topics(m->kind) && !split_topic(&msg)) {
        mailbox_world.count.dropped_malformed++;
        return;
    }
    mailbox_world.count.received++;
    if (m->on_msg != NULL)
        m->on_msg(m->arg, &msg);
}

static enum take take_message(struct mailbox *m)
{
    zmq_msg_t id, frame;
    enum take result = TAKE_MESSAGE;

    (void)zmq_msg_init(&id), (void)zmq_msg_init(&frame);
    if (!take_frame(m->sock, m->kind == MAILBOX_ROUTER ? &id : &frame)) {
        result = TAKE_EMPTY;
    } else if (m->kind == MAILBOX_ROUTER && (!zmq_msg_more(&id) || !take_frame(m->sock, &frame))) {
        mailbox_world.count.dropped_multipart++;
    } else if (zmq_msg_more(&frame)) {
        mailbox_world.count.dropped_multipart++;
        log_warn("mailbox message of several frames dropped", "mailbox=%s", m->name);
        drop_rest(m->sock, &frame);
    } else {
        deliver(m, &id, &frame); /* may close m: only its state may be looked at now */
    }
    (void)zmq_msg_close(&id), (void)zmq_msg_close(&frame);
    return m->state == MAILBOX_CLOSED ? TAKE_CLOSED : result;
}

/* Messages, up to a burst. False if m was closed meanwhile. */
static bool take_messages(struct mailbox *m)
{
    static const struct timeval no_wait = {0, 0};

    if (m->kind == MAILBOX_PUB) { /* cannot be read; this handles its commands */
        (void)mailbox_events(m->sock);
        return true;
    }
    for (unsigned n = 0; n < BURST; n++)
        switch (take_message(m)) {
        case TAKE_MESSAGE:
            break;
        case TAKE_EMPTY:
            return true;
        case TAKE_CLOSED:
            return false;
        }
    (void)evtimer_add(&m->again, &no_wait);
    return true;
}

/* libzmq connects again after a lost connection, but not after a refusal by the peer's ZAP handler nor
 * after a breach of protocol (a message too large, a wrong key): its session just ends. So whenever the
 * link is not up we come back ourselves: soon when libzmq has given up for certain, late (when it should
 * have managed by itself) when it should be trying. */
static void link_lost(struct mailbox *m, bool has_given_up)
{
    uint64_t first_ms = has_given_up ? (m->is_tcp ? 100 : 20) : (m->is_tcp ? 8000 : 500);
    uint64_t most_ms = has_given_up ? (m->is_tcp ? 5000 : 1000) : (m->is_tcp ? 30000 : 2000);
    uint64_t ms = first_ms << (m->relinks < 10 ? m->relinks : 10);

    ms = ms < most_ms ? ms : most_ms;
    timer_once(&m->relink, ms + random_below((uint32_t)(ms / 4) + 1));
}

/* The only writer of is_up. */
static void link_set(struct mailbox *m, bool is_up)
{
    if (m->is_up && is_up) /* a new peer before the loss of the old one was told */
        link_set(m, false);
    if (m->is_up == is_up || m->state != MAILBOX_OPEN)
        return;
    if (is_up) {
        (void)mailbox_events(m->sock); /* takes the new pipe in: a send in on_link will find it */
        m->relinks = 0;
        timer_stop(&m->relink);
    }
    m->is_up = is_up;
    if (m->on_link != NULL)
        m->on_link(m->arg, is_up);
}

static void link_event(struct mailbox *m, uint16_t event)
{
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        link_set(m, true);
        break;
    case ZMQ_EVENT_DISCONNECTED:
        /* What the peer said before it went is heard before it is gone. */
        if (m->is_up && take_messages(m))
            link_set(m, false);
        if (m->state == MAILBOX_OPEN && !timer_is_armed(&m->relink))
            link_lost(m, false);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        log_warn("mailbox was refused", "mailbox=%s endpoint=%s by=%s", m->name, m->endpoint,
                 event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH ? "peer" : "protocol");
        link_lost(m, true);
        break;
    default:
        break;
    }
}

/* What the monitor has to say. False if m was closed meanwhile. */
static bool take_link_events(struct mailbox *m)
{
    zmq_msg_t frame;

    while (m->state == MAILBOX_OPEN && m->monitor != NULL) {
        uint16_t event = 0;

        (void)zmq_msg_init(&frame);
        if (!take_frame(m->monitor, &frame)) {
            (void)zmq_msg_close(&frame);
            break;
        }
        if (zmq_msg_size(&frame) >= sizeof(event))
            memcpy(&event, zmq_msg_data(&frame), sizeof(event));
        drop_rest(m->monitor, &frame); /* the address */
        (void)zmq_msg_close(&frame);
        link_event(m, event);
    }
    return m->state == MAILBOX_OPEN;
}

/* One look at m: link events first, so that "up" is heard before the first message. */
static void pump(struct mailbox *m)
{
    m->looks++;
    m->running++;
    if (take_link_events(m))
        (void)take_messages(m);
    if (--m->running == 0 && m->state == MAILBOX_CLOSED)
        mailbox_free(m);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    pump(mailbox_from(arg));
}

static void on_relink(void *arg)
{
    struct mailbox *m = mailbox_from(arg);

    m->running++; /* a close in a callback must leave m to us */
    if (take_link_events(m) && !m->is_up) {
        m->relinks++;
        mailbox_reconnect(m);
        link_lost(m, false);
    }
    if (--m->running == 0 && m->state == MAILBOX_CLOSED)
        mailbox_free(m);
}

void mailbox_pump_start(struct mailbox *m)
{
    struct event_base *base = mailbox_world.base;

    BUG_ON(event_assign(&m->on_fd, base, socket_fd(m->sock), EV_READ | EV_PERSIST, on_event, m) != 0);
    BUG_ON(event_assign(&m->kick, base, -1, 0, on_event, m) != 0);
    BUG_ON(evtimer_assign(&m->again, base, on_event, m) != 0);
    BUG_ON(event_add(&m->on_fd, NULL) != 0);
    timer_init(&m->relink, base, on_relink, m);
    if (m->monitor != NULL) {
        BUG_ON(event_assign(&m->on_monitor, base, socket_fd(m->monitor), EV_READ | EV_PERSIST,
                            on_event, m) != 0);
        BUG_ON(event_add(&m->on_monitor, NULL) != 0);
    }
    event_active(&m->kick, EV_TIMEOUT, 0); /* something may have come before the fd was watched */
}

void mailbox_pump_stop(struct mailbox *m)
{
    (void)event_del(&m->on_fd);
    (void)event_del(&m->kick);
    (void)event_del(&m->again);
    timer_stop(&m->relink);
    if (m->monitor != NULL)
        (void)event_del(&m->on_monitor);
}

void mailbox_pump_kick(struct mailbox *m)
{
    if (m->running == 0) /* a look that runs goes on to EAGAIN anyway */
        event_active(&m->kick, EV_TIMEOUT, 0);
}

/* True if the fd will bring us back without help. */
static bool is_announced(const struct mailbox *m)
{
    struct pollfd pfd = {.fd = event_get_fd(&m->on_fd), .events = POLLIN};

    return poll(&pfd, 1, 0) == 1 || evtimer_pending(&m->again, NULL);
}

void mailbox_on_safety(void *arg)
{
    (void)arg;
    LIST_EACH (it, &mailbox_world.all) {
        struct mailbox *m = CONTAINER_OF(it, struct mailbox, node);
        bool was_idle = m->looks == m->looks_seen;

        m->looks_seen = m->looks;
        if (!was_idle || is_announced(m) || (mailbox_events(m->sock) & ZMQ_POLLIN) == 0)
            continue;
        mailbox_world.count.missed_edges++;
        log_error("mailbox missed an edge", "mailbox=%s", m->name);
        event_active(&m->kick, EV_TIMEOUT, 0);
    }
}
