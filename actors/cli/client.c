/* A small event loop that lives for the length of one question. */
#include "cli/client.h"

#include "kit/clock.h"
#include "kit/mailbox.h"
#include "kit/random.h"
#include "kit/timer.h"

#include <event2/event.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEND_AGAIN_MS 20

struct client {
    struct event_base *base;
    struct mailbox *mailbox;
    struct timer again, deadline;
    struct buf question, bytes; /* encoded; the answer's bytes, which `answer` points into */
    struct wire_msg answer;
    uint64_t id;
    enum {
        CLIENT_IDLE,    /* nothing asked; answer may be held */
        CLIENT_SENDING, /* question is encoded, not sent: the broker's end is not there yet */
        CLIENT_WAITING, /* sent; deadline armed */
        CLIENT_HEARD,   /* answer is decoded and has our id */
        CLIENT_LATE     /* deadline passed */
    } state;
};

static void client_end(struct client *c, int state)
{
    timer_stop(&c->again);
    timer_stop(&c->deadline);
    c->state = state == CLIENT_HEARD ? CLIENT_HEARD : CLIENT_LATE;
    (void)event_base_loopbreak(c->base);
}

static void client_on_deadline(void *arg)
{
    client_end(arg, CLIENT_LATE);
}

static void client_on_again(void *arg)
{
    struct client *c = arg;

    if (c->state != CLIENT_SENDING)
        return;
    if (mailbox_send(c->mailbox, slice(NULL, 0), buf_slice(&c->question)) == OK)
        c->state = CLIENT_WAITING;
    else
        timer_once(&c->again, SEND_AGAIN_MS);
}

/* Every answer to the CLI begins with its id, so the first field of any body is it. */
static uint64_t client_id_of(const struct wire_msg *msg)
{
    uint64_t id;

    memcpy(&id, &msg->body, sizeof id);
    return id;
}

static void client_on_msg(void *arg, const struct mailbox_msg *msg)
{
    struct client *c = arg;

    if (c->state != CLIENT_WAITING)
        return;
    buf_consume(&c->bytes, buf_len(&c->bytes));
    if (buf_add_slice(&c->bytes, msg->body) != OK)
        return;
    if (wire_decode(buf_slice(&c->bytes), WIRE_ROLE_BROKER, WIRE_ROLE_CLI, &c->answer) != OK)
        return; /* counted by nobody: we live for one question, and the deadline ends it */
    if (client_id_of(&c->answer) != c->id) {
        wire_msg_done(&c->answer);
        return;
    }
    client_end(c, CLIENT_HEARD);
}

err_t client_open(const struct mesh *m, struct client **out, struct trouble *why)
{
    struct mailbox_conf conf = {.kind = MAILBOX_DEALER,
                                .name = "broker",
                                .max_bytes = WIRE_MESSAGE_MAX,
                                .on_msg = client_on_msg};
    struct proc_id supervisor;
    struct client *c;
    char endpoint[128];
    err_t e;

    if (!mesh_supervisor(m, &supervisor))
        return trouble_set(why, ERR_OF(NO_MESH),
                           "the control plane of %s does not run: weft up", m->run);
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return trouble_set(why, ERR_OF(NOMEM), "out of memory");
    c->base = event_base_new();
    if (c->base == NULL) {
        free(c);
        return trouble_set(why, ERR_OF(NOMEM), "out of memory");
    }
    buf_init(&c->question, WIRE_MESSAGE_MAX);
    buf_init(&c->bytes, WIRE_MESSAGE_MAX);
    timer_init(&c->again, c->base, client_on_again, c);
    timer_init(&c->deadline, c->base, client_on_deadline, c);
    (void)snprintf(endpoint, sizeof endpoint, "ipc://%s/control/broker.sock", m->run);
    conf.endpoint = endpoint;
    conf.arg = c;
    e = mailbox_open(c->base, &conf, &c->mailbox);
    if (e != OK) {
        client_close(&c);
        return trouble_set(why, e, "%s: %s", endpoint, e->text);
    }
    *out = c;
    return OK;
}

void client_close(struct client **c)
{
    if (*c == NULL)
        return;
    timer_stop(&(*c)->again);
    timer_stop(&(*c)->deadline);
    if ((*c)->mailbox != NULL)
        mailbox_close(&(*c)->mailbox);
    mailbox_shutdown();
    if ((*c)->state == CLIENT_HEARD)
        wire_msg_done(&(*c)->answer);
    buf_done(&(*c)->question);
    buf_done(&(*c)->bytes);
    event_base_free((*c)->base);
    free(*c);
    *c = NULL;
}

err_t client_ask(struct client *c, enum wire_code code, void *body, enum wire_code want,
                 uint32_t wait_ms, const struct wire_msg **answer, struct trouble *why)
{
    const struct wire_refused *no;
    err_t e;

    if (c->state == CLIENT_HEARD)
        wire_msg_done(&c->answer);
    c->state = CLIENT_IDLE;
    c->id = random_u64() >> 1;
    memcpy(body, &c->id, sizeof c->id);
    buf_consume(&c->question, buf_len(&c->question));
    e = wire_encode(code, body, &c->question);
    if (e != OK)
        return trouble_set(why, e, "the request %s cannot be sent: %s", wire_name(code),
                           e->text);
    clock_tick();
    c->state = CLIENT_SENDING;
    timer_once(&c->deadline, wait_ms);
    client_on_again(c);
    (void)event_base_dispatch(c->base);
    if (c->state != CLIENT_HEARD)
        return trouble_set(why, ERR_OF(NOT_READY), "weft-broker did not answer within %u.%u s",
                           wait_ms / 1000, wait_ms % 1000 / 100);
    no = wire_as(refused, &c->answer);
    if (no != NULL)
        return trouble_set(why, ERR_OF(REFUSED), "the broker refused (%.*s): %.*s",
                           SLICE_FMT(no->code), SLICE_FMT(no->why));
    if (c->answer.code != want)
        return trouble_set(why, ERR_OF(MALFORMED), "the broker answered %s with %s",
                           wire_name(code), wire_name(c->answer.code));
    *answer = &c->answer;
    return OK;
}

err_t client_begin(const char *run, struct mesh *m, struct client **out, struct trouble *why)
{
    TRY(mesh_load(m, run, why));
    return client_open(m, out, why);
}

void client_author(char out[128])
{
    const char *sudo = getenv("SUDO_USER");
    const struct passwd *pw = getpwuid(getuid());
    char number[32];

    (void)snprintf(number, sizeof number, "uid %u", (unsigned)getuid());
    if (sudo != NULL && sudo[0] != '\0')
        (void)snprintf(out, 128, "%.100s", sudo);
    else
        (void)snprintf(out, 128, "%.100s", pw != NULL ? pw->pw_name : number);
}
