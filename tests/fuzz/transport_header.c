/* Fuzz target of the transport header: what is read must print and read back the same. */
#include "proxy/handshake/transport_header.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct transport_header h, again;
    struct buf out;
    size_t used, n;
    err_t why;

    if (transport_header_parse(slice(data, size), &h, &used, &why) != STEP_DONE)
        return 0;
    if (used > size)
        abort();
    buf_init(&out, 0);
    if (transport_header_print(&h, &out) != OK ||
        transport_header_parse(buf_slice(&out), &again, &n, &why) != STEP_DONE ||
        n != buf_len(&out) || again.port != h.port || again.session != h.session ||
        !slice_is(again.name, h.name))
        abort();
    buf_done(&out);
    return 0;
}
