/* Which bytes of the content have left: never too early, all of it in the end, whoever queued bytes before. */
#include "proxy/http1/sent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void give(struct sent *s, size_t framing, size_t content)
{
    s->handed += framing + content;
    s->content += content;
}

static void test_content_behind_a_head(void **state)
{
    struct sent s;

    (void)state;
    sent_start(&s, 0);
    give(&s, 100, 1000);
    assert_int_equal(sent_left(&s, 100), 0); /* the head */
    assert_int_equal(sent_left(&s, 400), 400);
    assert_int_equal(sent_left(&s, 600), 600);
}

static void test_bytes_of_the_owner_before(void **state)
{
    struct sent s;
    size_t reported = 0;

    (void)state;
    sent_start(&s, 34); /* a transport header waits */
    give(&s, 100, 0);
    assert_int_equal(sent_left(&s, 134), 0);
    for (int i = 0; i < 1000; i++) { /* a tunnel whose conn is empty again and again */
        give(&s, 0, 700);
        reported += sent_left(&s, 300);
        assert_true(reported <= s.content);
        reported += sent_left(&s, 400);
        assert_int_equal(reported, s.content);
    }
}

static void test_bytes_nobody_counted(void **state)
{
    struct sent s;

    (void)state;
    sent_start(&s, 0);
    give(&s, 0, 700);
    assert_int_equal(sent_left(&s, 734), 700); /* more than was handed: all of ours has left */
    give(&s, 0, 700);
    assert_int_equal(sent_left(&s, 700), 700);
}

static void test_streams_one_after_the_other(void **state)
{
    struct sent s;

    (void)state;
    sent_start(&s, 0);
    give(&s, 50, 10);
    assert_int_equal(sent_left(&s, 60), 10);
    sent_new_stream(&s);
    give(&s, 50, 20);
    assert_int_equal(sent_left(&s, 49), 0);
    assert_int_equal(sent_left(&s, 21), 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content_behind_a_head),
        cmocka_unit_test(test_bytes_of_the_owner_before),
        cmocka_unit_test(test_bytes_nobody_counted),
        cmocka_unit_test(test_streams_one_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
