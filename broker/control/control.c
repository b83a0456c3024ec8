#include "broker/control/control.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "wire/wire.h"

#include <stdarg.h>
#include <stdio.h>

#define ERR(name, cls, text) ERR_DEFINE(name, cls, text)
#include "broker/control/tbl/errors.h"
#undef ERR

err_t control_begin(struct control *c, slice_t author, slice_t reason)
{
    const struct mesh_author who = {
        .author = author, .reason = reason, .at_ms = (int64_t)clock_wall_ms()};
    err_t e = mesh_begin(c->mesh, &who);
    c->count.store_errors += e != OK ? 1 : 0;
    return e;
}

err_t control_commit(struct control *c)
{
    err_t e = mesh_commit(c->mesh);
    c->count.store_errors += e != OK ? 1 : 0;
    return e;
}

void control_event(struct control *c, const char *kind, const char *object, const char *fmt,
                   ...)
{
    char message[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    log_info("event", "kind=%s object=%s message=\"%s\"", kind, object, message);
    if (control_begin(c, SLICE_LIT("broker"), SLICE_LIT("event")) != OK)
        return;
    err_t e = mesh_add_event(c->mesh, (int64_t)clock_wall_ms(), slice_str(kind),
                             slice_str(object), slice_str(message));
    if (e == OK)
        e = control_commit(c);
    else
        mesh_rollback(c->mesh);
    if (e != OK)
        log_warn("event not stored", "error=%s", e->name);
}

void control_send(struct control *c, struct mailbox *m, slice_t to, enum wire_code code,
                  const void *body)
{
    err_t e = m != NULL ? wire_send(m, to, code, body) : ERR_OF(PEER_GONE);
    if (e == OK)
        return;
    c->count.unsent++;
    log_debug("not sent", "message=%s error=%s", wire_name(code), e->name);
}

void control_refuse(struct control *c, struct mailbox *m, slice_t to, uint64_t id, err_t e,
                    const char *why)
{
    char text[512];
    if (why != NULL)
        (void)snprintf(text, sizeof text, "%s (%s)", e->text, why);
    else
        (void)snprintf(text, sizeof text, "%s", e->text);
    const struct wire_refused answer = {
        .id = id, .code = slice_str(e->name), .why = slice_str(text)};
    CONTROL_SEND(c, m, to, refused, &answer); /* who cannot be told is not waited for */
}
