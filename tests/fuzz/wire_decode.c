/* Any bytes as a message from anybody to anybody. What decodes must encode, and to bytes that
 * decode to the same again. Seeds: weft-wire-doc --seeds DIR. */
#include "wire/wire.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(wire_msg_done) struct wire_msg msg;
    AUTO(wire_msg_done) struct wire_msg again = {.at = ""};
    AUTO(buf_done) struct buf first;
    AUTO(buf_done) struct buf second;
    err_t why;

    buf_init(&first, 0);
    buf_init(&second, 0);
    if (wire_decode(slice(data, size), WIRE_ROLE_ANY, WIRE_ROLE_ANY, &msg) != OK)
        return 0;
    why = wire_encode(msg.code, &msg.body, &first);
    if (why == ERR_OF(WIRE_LIMIT) && size > WIRE_MESSAGE_MAX / 2)
        return 0; /* an older peer's message may grow by its missing fields */
    BUG_ON(why != OK);
    BUG_ON(wire_decode(buf_slice(&first), WIRE_ROLE_ANY, WIRE_ROLE_ANY, &again) != OK);
    BUG_ON(wire_encode(again.code, &again.body, &second) != OK);
    BUG_ON(!slice_is(buf_slice(&first), buf_slice(&second)));
    return 0;
}
