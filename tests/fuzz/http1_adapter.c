/* The HTTP/1 codec, either role, fed arbitrary bytes over a socket pair.
 *
 * Byte 0: bit 0 role (server, client); bit 1: the peer half-closes at the end; bits 2..4 what the exchange
 * does (http_world.h); bits 5..7 how the bytes are cut. */
#include "tests/fuzz/http_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct world w = {0};
    size_t step;

    if (n < 2 || n > 32768)
        return 0;
    w.habit = (data[0] >> 2) & 7;
    step = data[0] >> 5 == 0 ? n : (size_t)1 << (data[0] >> 5);
    start(&w, (data[0] & 1) == 0, http1_server_start, http1_client_start);
    for (size_t at = 1; at < n && w.conn != NULL; at += step)
        say(&w, data + at, at + step < n ? step : n - at);
    if ((data[0] & 2) != 0) {
        (void)shutdown(w.fd, SHUT_WR);
        turn(&w);
    }
    finish(&w);
    return 0;
}
