#include "link/link.h"

#include "kit/log.h"

#define ERR(name, cls, text) ERR_DEFINE(name, cls, text)
#include "link/tbl/errors.h"
#undef ERR

err_t link_send(struct mailbox *m, slice_t to, enum wire_code code, const void *body)
{
    return m != NULL ? wire_send(m, to, code, body) : ERR_OF(PEER_GONE);
}

void link_tell(struct mailbox *m, slice_t to, enum wire_code code, const void *body)
{
    err_t e = link_send(m, to, code, body);
    if (e != OK)
        log_debug("not sent", "message=%s error=%s", wire_name(code), e->name);
}
