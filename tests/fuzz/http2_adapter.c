/* The HTTP/2 codec, either role, fed arbitrary bytes over a socket pair, with an exchange that answers,
 * resets or ignores as the first byte says.
 *
 * Byte 0: bit 0 role (server, client); bit 1: a server is given the preface and SETTINGS first; bits 2..4
 * what the exchange does; bits 5..7 how the bytes are cut. Checked beyond "no crash" (run with
 * sanitizers): no event comes after the last one of a stream, and every stream gets its last event. */
#include "tests/fuzz/http_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const uint8_t hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    static const uint8_t settings[] = "\0\0\0\x04\0\0\0\0\0";
    struct world w = {0};
    bool is_server;
    size_t step;

    if (n < 2 || n > 32768)
        return 0;
    is_server = (data[0] & 1) == 0;
    w.habit = (data[0] >> 2) & 7;
    step = data[0] >> 5 == 0 ? n : (size_t)1 << (data[0] >> 5);
    start(&w, is_server, http2_server_start, http2_client_start);
    if ((data[0] & 2) == 0)
        say(&w, is_server ? hello : settings, is_server ? sizeof(hello) - 1 : sizeof(settings) - 1);
    for (size_t at = 1; at < n && w.conn != NULL; at += step)
        say(&w, data + at, at + step < n ? step : n - at);
    finish(&w);
    return 0;
}
