/* Log lines as they arrive at the other end of a pipe. */
#include "kit/log.h"

#include "kit/clock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int pipe_fds[2], real_stderr;

static int setup(void **state)
{
    (void)state;
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
    real_stderr = dup(STDERR_FILENO);
    assert_true(dup2(pipe_fds[1], STDERR_FILENO) >= 0);
    clock_test_freeze(1000000, UINT64_C(1763878364101));
    log_init("test");
    log_set_level(LOG_LEVEL_INFO);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    clock_test_advance(5000);
    log_flush();
    assert_true(dup2(real_stderr, STDERR_FILENO) >= 0);
    (void)close(real_stderr), (void)close(pipe_fds[0]), (void)close(pipe_fds[1]);
    clock_test_thaw();
    return 0;
}

static const char *written(void)
{
    static char text[65536];
    ssize_t n = read(pipe_fds[0], text, sizeof(text) - 1);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static unsigned lines(const char *text)
{
    unsigned n = 0;

    for (; *text != '\0'; text++)
        n += *text == '\n';
    return n;
}

static void test_one_line(void **state)
{
    char want[128];

    (void)state;
    log_info("exchange closed", "reason=%s status=%d", "IDLE", 200);
    (void)snprintf(want, sizeof(want),
                   "2025-11-23T06:12:44.101Z info  test[%d] exchange closed reason=IDLE status=200\n",
                   getpid());
    assert_string_equal(written(), want);
}

static void test_levels(void **state)
{
    enum log_level level = LOG_LEVEL_WARN;

    (void)state;
    log_debug("not on", "%s", "");
    assert_string_equal(written(), "");
    log_set_level(LOG_LEVEL_ERROR);
    log_warn("not on", "%s", "");
    assert_string_equal(written(), "");
    assert_true(log_level_parse(SLICE_LIT("debug"), &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_false(log_level_parse(SLICE_LIT("Debug"), &level));
    assert_false(log_level_parse(SLICE_LIT(""), &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
}

/* Text from outside cannot start a line of its own or move the cursor. */
static void test_stays_one_line(void **state)
{
    const char *text;

    (void)state;
    log_info("name", "value=%s", "a\nb\r\x1b[2Jc\x7f");
    text = written();
    assert_int_equal(lines(text), 1);
    assert_non_null(strstr(text, "value=a?b??[2Jc?"));
}

static void test_long_line_is_cut(void **state)
{
    char big[5000];
    const char *text;

    (void)state;
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    log_info("long", "%s", big);
    text = written();
    assert_true(strlen(text) <= 2048);
    assert_non_null(strstr(text, "x...\n"));
}

static void test_flood_is_folded(void **state)
{
    const char *text;

    (void)state;
    for (unsigned i = 0; i < 500; i++)
        log_warn("bad input", "n=%u", i);
    log_warn("something else", "%s", "x");
    assert_int_equal(lines(written()), 21);
    clock_test_advance(1000);
    log_warn("bad input", "n=%u", 1u);
    text = written();
    assert_int_equal(lines(text), 2);
    assert_non_null(strstr(text, "bad input repeated=480\n"));
    for (unsigned i = 0; i < 30; i++)
        log_warn("bad input", "n=%u", i);
    (void)written();
    log_flush(); /* the second is not over */
    assert_string_equal(written(), "");
    clock_test_advance(1000);
    log_flush();
    assert_non_null(strstr(written(), "repeated=11\n"));
}

/* A reader that has stopped costs lines, not time. */
static void test_full_pipe(void **state)
{
    char words[32];
    unsigned n;

    (void)state;
    for (n = 0; n < 3000; n++) {
        (void)snprintf(words, sizeof(words), "w%u", n);
        log_info(words, "%0100d", 1);
    }
    while (read(pipe_fds[0], words, sizeof(words)) > 0) {
    }
    log_info("after", "%s", "x");
    assert_non_null(strstr(written(), "after x lost="));
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_one_line),      CASE(test_levels),          CASE(test_stays_one_line),
        CASE(test_long_line_is_cut), CASE(test_flood_is_folded), CASE(test_full_pipe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
