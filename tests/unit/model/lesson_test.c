/* Lessons: put together in any order, any number of times, they say the same, and never go back. */
#include "model/lesson.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define ALL (LESSON_SEVERAL + 1)

static void test_what_two_make(void **state)
{
    static const enum lesson made[ALL][ALL] = {
        /*  UNKNOWN         HTTP1           HTTP2           GRPC            OPAQUE          SEVERAL */
        {LESSON_UNKNOWN, LESSON_HTTP1, LESSON_HTTP2, LESSON_GRPC, LESSON_OPAQUE, LESSON_SEVERAL},
        {LESSON_HTTP1, LESSON_HTTP1, LESSON_SEVERAL, LESSON_SEVERAL, LESSON_SEVERAL, LESSON_SEVERAL},
        {LESSON_HTTP2, LESSON_SEVERAL, LESSON_HTTP2, LESSON_HTTP2, LESSON_SEVERAL, LESSON_SEVERAL},
        {LESSON_GRPC, LESSON_SEVERAL, LESSON_HTTP2, LESSON_GRPC, LESSON_SEVERAL, LESSON_SEVERAL},
        {LESSON_OPAQUE, LESSON_SEVERAL, LESSON_SEVERAL, LESSON_SEVERAL, LESSON_OPAQUE, LESSON_SEVERAL},
        {LESSON_SEVERAL, LESSON_SEVERAL, LESSON_SEVERAL, LESSON_SEVERAL, LESSON_SEVERAL, LESSON_SEVERAL},
    };

    (void)state;
    for (int a = 0; a < ALL; a++)
        for (int b = 0; b < ALL; b++)
            assert_int_equal(lesson_join((enum lesson)a, (enum lesson)b), made[a][b]);
}

static void test_order_and_repetition_do_not_matter(void **state)
{
    (void)state;
    for (int a = 0; a < ALL; a++)
        for (int b = 0; b < ALL; b++)
            for (int c = 0; c < ALL; c++) {
                enum lesson x = (enum lesson)a, y = (enum lesson)b, z = (enum lesson)c;
                enum lesson all = lesson_join(lesson_join(x, y), z);

                assert_int_equal(all, lesson_join(x, lesson_join(y, z)));
                assert_int_equal(all, lesson_join(lesson_join(z, y), x));
                assert_int_equal(all, lesson_join(all, y)); /* heard again: no news */
            }
}

static void test_numbers(void **state)
{
    enum lesson l = LESSON_UNKNOWN;

    (void)state;
    assert_true(lesson_read(0, &l));
    assert_int_equal(l, LESSON_SEVERAL);
    for (uint8_t i = 1; i <= 4; i++) {
        assert_true(lesson_read(i, &l));
        assert_int_equal(l, i);
        assert_int_equal(lesson_protocol(l), i);
    }
    for (unsigned i = 5; i < 256; i++)
        assert_false(lesson_read((uint8_t)i, &l));
    assert_int_equal(lesson_protocol(LESSON_SEVERAL), 0);
    assert_int_equal(lesson_protocol(LESSON_UNKNOWN), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_two_make),
        cmocka_unit_test(test_order_and_repetition_do_not_matter),
        cmocka_unit_test(test_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
