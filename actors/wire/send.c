/* The one place where a message meets a socket: apart, so that tools that only encode need no
 * ZeroMQ. */
#include "wire/wire.h"

#include "kit/mailbox.h"

err_t wire_send(struct mailbox *m, slice_t to, enum wire_code code, const void *body)
{
    AUTO(buf_done) struct buf bytes;

    buf_init(&bytes, 0);
    TRY(wire_encode(code, body, &bytes));
    return mailbox_send(m, to, buf_slice(&bytes));
}
