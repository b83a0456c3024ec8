/* When to ask for a certificate. */
#include "tls/renewal.h"
#include "tls/tls_err.h"
#include "tls/token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define H (INT64_C(3600) * 1000)

static void due_and_alarming(void **state)
{
    static const struct renewal day = {.not_before_ms = 1000 * H, .not_after_ms = 1024 * H},
                                none = {0};
    static const struct {
        int64_t at;
        bool is_due, is_alarming;
    } cases[] = {{1000 * H, false, false}, {1012 * H - 1, false, false},
                 {1012 * H, true, false},  {1018 * H - 1, true, false},
                 {1018 * H, true, true},   {1024 * H, true, true},
                 {2000 * H, true, true},   {0, false, false}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(renewal_is_due(&day, cases[i].at), cases[i].is_due);
        assert_int_equal(renewal_is_alarming(&day, cases[i].at), cases[i].is_alarming);
    }
    assert_true(renewal_is_due(&none, 5));
    assert_true(renewal_is_alarming(&none, 5));
}

static void waits(void **state)
{
    struct renewal day = {.not_before_ms = 1000 * H, .not_after_ms = 1024 * H}, none = {0};

    (void)state;
    assert_int_equal(renewal_wait_ms(&none, 0, 0.5), 0);
    assert_int_equal(renewal_wait_ms(&day, 1012 * H, 0.5), 0);
    assert_int_equal(renewal_wait_ms(&day, 1012 * H - 5, 0.5), 5);
    assert_int_equal(renewal_wait_ms(&day, 1000 * H, 0.5), H); /* looks again: clocks jump */
}

static void backs_off_with_jitter(void **state)
{
    static const uint64_t joining[] = {200, 400, 800, 1600, 3200, 5000, 5000};
    static const uint64_t renewing[] = {1000, 2000, 4000, 8000, 16000, 32000, 60000};

    (void)state;
    for (unsigned i = 0; i < 7; i++) {
        struct renewal none = {.failures = i + 1};
        struct renewal day = {.not_before_ms = 0, .not_after_ms = 24 * H, .failures = i + 1};

        assert_int_equal(renewal_wait_ms(&none, 0, 0.5), joining[i]);
        assert_int_equal(renewal_wait_ms(&none, 0, 0.0), joining[i] * 3 / 4);
        assert_int_equal(renewal_wait_ms(&day, 13 * H, 0.5), renewing[i]);
        assert_true(renewal_wait_ms(&day, 13 * H, 0.999) < renewing[i] * 5 / 4);
    }
    assert_true(renewal_wait_ms(&(struct renewal){.failures = 4000000000u}, 0, 0.9) < 6300);
}

static void tokens(void **state)
{
#define ID  "0123456789abcdef"
#define S32 "00112233445566778899aabbccddeeff"
    static const struct {
        const char *text;
        bool ok;
    } cases[] = {
        {"weft1." ID "." S32 S32, true},
        {"weft1." ID "." S32 S32 "\n", true},
        {"weft1." ID "." S32 S32 "\r\n", true},
        {"", false},
        {"weft2." ID "." S32 S32, false},
        {"weft1." ID "." S32, false},
        {"weft1." ID "." S32 S32 "0", false},
        {"weft1." ID ":" S32 S32, false},
        {"weft1.0123456789ABCDEF." S32 S32, false},
        {"weft1." ID "." S32 "0011223344556677889xaabbccddeeff", false},
        {" weft1." ID "." S32 S32, false},
    };
    struct token t;
    uint8_t mac[32];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        err_t err = token_parse(slice_str(cases[i].text), &t);

        assert_ptr_equal(err, cases[i].ok ? OK : ERR_OF(BAD_TOKEN_FILE));
        if (cases[i].ok) {
            assert_string_equal(t.id, ID);
            assert_int_equal(t.secret[31], 0xff);
        } else {
            assert_string_equal(t.id, "");
        }
    }
    assert_ptr_equal(token_read("/nonexistent/token", &t), OK);
    assert_string_equal(t.id, "");
    assert_ptr_equal(token_read("/", &t), ERR_OF(OS));
    assert_ptr_equal(token_parse(slice_str("weft1." ID "." S32 S32), &t), OK);
    assert_ptr_equal(token_prove(&t, SLICE_LIT("csr"), mac), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(due_and_alarming),
        cmocka_unit_test(waits),
        cmocka_unit_test(backs_off_with_jitter),
        cmocka_unit_test(tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
