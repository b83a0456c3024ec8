/* Who gets which message, and what becomes of those nobody gets. */
#include "wire/dispatch.h"

#include "kit/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct heard {
    unsigned hellos, alives;
};

static void on_hello(void *arg, const struct wire_call *call)
{
    struct heard *h = arg;

    assert_ptr_equal(wire_as(hello, call->msg), wire_expect(hello, call->msg));
    assert_string_equal(call->mail->user, "pod-1");
    h->hellos++;
}

static void on_alive(void *arg, const struct wire_call *call)
{
    struct heard *h = arg;

    assert_true(wire_expect(alive, call->msg)->wall_ms == 5);
    h->alives++;
}

static const struct wire_permit permits[] = {
    {WIRE_hello, on_hello, true},
    {WIRE_alive, on_alive, false},
};

static struct wire_desk new_desk(void)
{
    return (struct wire_desk){.name = "test",
                              .me = WIRE_ROLE_BROKER,
                              .from = WIRE_ROLE_LINK,
                              .permits = permits,
                              .n_permits = sizeof(permits) / sizeof(permits[0])};
}

static err_t give(struct wire_desk *desk, slice_t bytes, uint64_t *seen, struct heard *heard)
{
    struct mailbox_msg m = {.body = bytes, .user = "pod-1"};

    return wire_dispatch(desk, &m, seen, heard);
}

static err_t give_message(struct wire_desk *desk, enum wire_code code, const void *body,
                          uint64_t *seen, struct heard *heard)
{
    AUTO(buf_done) struct buf b;

    buf_init(&b, 0);
    assert_ptr_equal(wire_encode(code, body, &b), OK);
    return give(desk, buf_slice(&b), seen, heard);
}

static void test_every_reason(void **state)
{
    struct wire_desk desk = new_desk();
    struct heard heard = {0, 0};
    struct wire_hello hello = {.pod = SLICE_LIT("p")};
    struct wire_alive alive = {5};
    struct wire_bye bye = {.why = SLICE_LIT("")};
    struct wire_token token = {.id = 1};
    uint64_t seen = 0, seen_by_another = 0;

    (void)state;
    assert_ptr_equal(give_message(&desk, WIRE_hello, &hello, &seen, &heard), OK);
    assert_ptr_equal(give_message(&desk, WIRE_hello, &hello, &seen, &heard),
                     ERR_OF(WIRE_NOT_NOW));
    assert_ptr_equal(give_message(&desk, WIRE_hello, &hello, &seen_by_another, &heard), OK);
    assert_ptr_equal(give_message(&desk, WIRE_alive, &alive, &seen, &heard), OK);
    assert_ptr_equal(give_message(&desk, WIRE_alive, &alive, NULL, &heard), OK);
    assert_ptr_equal(give_message(&desk, WIRE_bye, &bye, &seen, &heard), ERR_OF(WIRE_NOT_NOW));
    assert_ptr_equal(give_message(&desk, WIRE_token, &token, &seen, &heard), ERR_OF(WIRE_ROLE));
    assert_ptr_equal(give(&desk, SLICE_LIT("\x92\x01\x01"), &seen, &heard),
                     ERR_OF(WIRE_UNKNOWN));
    assert_ptr_equal(give(&desk, SLICE_LIT("hello"), &seen, &heard), ERR_OF(WIRE_TYPE));
    assert_ptr_equal(give(&desk, slice(NULL, 0), &seen, &heard), ERR_OF(WIRE_TRUNCATED));
    assert_int_equal(heard.hellos, 2);
    assert_int_equal(heard.alives, 2);
    assert_int_equal(desk.accepted, 4);
    assert_int_equal(desk.refused[WIRE_REFUSED_REPEATED], 1);
    assert_int_equal(desk.refused[WIRE_REFUSED_UNLISTED], 1);
    assert_int_equal(desk.refused[WIRE_REFUSED_ROLE], 1);
    assert_int_equal(desk.refused[WIRE_REFUSED_UNKNOWN], 1);
    assert_int_equal(desk.refused[WIRE_REFUSED_MALFORMED], 2);
    assert_int_equal(wire_desk_refused(&desk), 6);
}

static void test_log_once_a_minute(void **state)
{
    struct wire_desk desk = new_desk();
    struct heard heard = {0, 0};

    (void)state;
    clock_test_freeze(1000, 1000);
    for (int i = 0; i < 5; i++)
        assert_ptr_equal(give(&desk, SLICE_LIT("x"), NULL, &heard), ERR_OF(WIRE_TYPE));
    assert_int_equal(desk.logged_ms[WIRE_REFUSED_MALFORMED], 1000);
    assert_int_equal(desk.unlogged[WIRE_REFUSED_MALFORMED], 4);
    clock_test_advance(60000);
    assert_ptr_equal(give(&desk, SLICE_LIT("x"), NULL, &heard), ERR_OF(WIRE_TYPE));
    assert_int_equal(desk.logged_ms[WIRE_REFUSED_MALFORMED], 61000);
    assert_int_equal(desk.unlogged[WIRE_REFUSED_MALFORMED], 0);
    clock_test_thaw();
}

static void test_names(void **state)
{
    (void)state;
    for (int i = 0; i < WIRE_REFUSALS; i++)
        assert_string_not_equal(wire_refusal_name((enum wire_refusal)i), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_reason),
        cmocka_unit_test(test_log_once_a_minute),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
