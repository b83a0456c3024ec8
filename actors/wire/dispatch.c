#include "wire/dispatch.h"

#include "kit/clock.h"
#include "kit/log.h"

#include <inttypes.h>

#define LOG_EVERY_MS 60000

const char *wire_refusal_name(enum wire_refusal reason)
{
    switch (reason) {
    case WIRE_REFUSED_UNKNOWN:
        return "unknown";
    case WIRE_REFUSED_ROLE:
        return "role";
    case WIRE_REFUSED_MALFORMED:
        return "malformed";
    case WIRE_REFUSED_UNLISTED:
        return "unlisted";
    case WIRE_REFUSED_REPEATED:
        return "repeated";
    case WIRE_REFUSALS:
        break;
    }
    return "?";
}

uint64_t wire_desk_refused(const struct wire_desk *desk)
{
    uint64_t n = 0;

    for (size_t i = 0; i < WIRE_REFUSALS; i++)
        n += desk->refused[i];
    return n;
}

static void refuse(struct wire_desk *desk, enum wire_refusal reason, err_t why,
                   const struct wire_call *call)
{
    uint64_t now = clock_now_ms();
    const struct wire_msg *msg = call->msg;

    desk->refused[reason]++;
    desk->unlogged[reason]++;
    if (desk->logged_ms[reason] != 0 && now - desk->logged_ms[reason] < LOG_EVERY_MS)
        return;
    log_warn(
        "message refused",
        "socket=%s reason=%s error=%s message=%s code=0x%04x version=%u field=%s bytes=%zu "
        "from=\"%s\" refused=%" PRIu64,
        desk->name, wire_refusal_name(reason), why->name, wire_name(msg->code),
        wire_peek_code(call->mail->body), msg->version, msg->at, call->mail->body.n,
        call->mail->user != NULL ? call->mail->user : "", desk->unlogged[reason]);
    desk->logged_ms[reason] = now != 0 ? now : 1;
    desk->unlogged[reason] = 0;
}

static const struct wire_permit *permit_of(const struct wire_desk *desk, enum wire_code code,
                                           size_t *index)
{
    BUG_ON(desk->n_permits > WIRE_PERMITS_MAX);
    for (size_t i = 0; i < desk->n_permits; i++) {
        if (desk->permits[i].code == code) {
            *index = i;
            return &desk->permits[i];
        }
    }
    return NULL;
}

static enum wire_refusal refusal_of(err_t why)
{
    if (why == ERR_OF(WIRE_UNKNOWN))
        return WIRE_REFUSED_UNKNOWN;
    if (why == ERR_OF(WIRE_ROLE))
        return WIRE_REFUSED_ROLE;
    return WIRE_REFUSED_MALFORMED;
}

err_t wire_dispatch(struct wire_desk *desk, const struct mailbox_msg *m, uint64_t *seen,
                    void *arg)
{
    AUTO(wire_msg_done) struct wire_msg msg;
    struct wire_call call = {&msg, m};
    const struct wire_permit *permit;
    size_t index = 0;
    err_t why = wire_decode(m->body, desk->from, desk->me, &msg);

    if (why != OK) {
        refuse(desk, refusal_of(why), why, &call);
        return why;
    }
    permit = permit_of(desk, msg.code, &index);
    if (permit == NULL) {
        refuse(desk, WIRE_REFUSED_UNLISTED, ERR_OF(WIRE_NOT_NOW), &call);
        return ERR_OF(WIRE_NOT_NOW);
    }
    if (permit->once) {
        BUG_ON(seen == NULL);
        if ((*seen >> index & 1) != 0) {
            refuse(desk, WIRE_REFUSED_REPEATED, ERR_OF(WIRE_NOT_NOW), &call);
            return ERR_OF(WIRE_NOT_NOW);
        }
        *seen |= (uint64_t)1 << index;
    }
    desk->accepted++;
    permit->handler(arg, &call);
    return OK;
}
