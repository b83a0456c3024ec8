/* Fuzz target of protocol detection and the server name: cut into any segments, the same verdict; the first one that is
 * not LOOK_MORE stays. */
#include "proxy/detect/look.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_look(slice_t all)
{
    enum look last = look_at(all);
    enum answer answer = look_answer(all);

    for (size_t n = 0; n < all.n; n++) {
        enum look now = look_at(slice(all.p, n));
        enum answer said = look_answer(slice(all.p, n));

        if ((now != LOOK_MORE && now != last) || (said != ANSWER_MORE && said != answer))
            abort();
    }
}

/* One that goes on with each segment (the first byte says how large) says what one that sees all at once says. */
static void check_hello(slice_t all, size_t segment)
{
    static uint8_t room[LOOK_HELLO_MAX];
    struct hello whole = {0}, parts = {0};
    enum step at_once = look_hello(&whole, all), step = STEP_LATER;
    slice_t sni;

    for (size_t n = 0; step == STEP_LATER && n < all.n;) {
        n = all.n - n < segment ? all.n : n + segment;
        step = look_hello(&parts, slice(all.p, n));
    }
    if (step != at_once)
        abort();
    step = look_sni(all, room, &sni);
    if ((step == STEP_LATER) != (at_once == STEP_LATER) || (step == STEP_DONE && at_once != STEP_DONE))
        abort();
    if (step == STEP_DONE && look_is_host(sni) && (sni.n == 0 || sni.n > 254))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    check_look(slice(data + 1, size - 1 < 512 ? size - 1 : 512));
    check_hello(slice(data + 1, size - 1), 1 + data[0] % 64);
    return 0;
}
