/* The parts of the supervisor that are pure: backoff, table, environment, status text. */
#include "supervisor/backoff.h"
#include "supervisor/env.h"
#include "supervisor/status.h"
#include "supervisor/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void test_backoff(void **state)
{
    struct backoff b = {0};
    static const uint64_t want[] = {10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 20480,
                                    30000, 30000, 30000};

    (void)state;
    assert_int_equal(backoff_next(&b, BACKOFF_LIVED_MS + 1, 0.5), 0);
    for (unsigned i = 0; i < sizeof(want) / sizeof(want[0]); i++)
        assert_int_equal(backoff_next(&b, i % 2 == 0 ? 0 : BACKOFF_LIVED_MS, 0.5), want[i]);
    assert_int_equal(backoff_next(&b, BACKOFF_LIVED_MS + 1, 0.5), 0); /* a long life clears it */
    assert_int_equal(backoff_next(&b, 5, 0.0), 7);
    assert_int_equal(backoff_next(&b, 5, 0.999), 24);
    for (unsigned i = 0; i < 40; i++)
        assert_true(backoff_next(&b, 0, 0.999) <= BACKOFF_MOST_MS);
}

static void test_table(void **state)
{
    enum table_kind kind = TABLE_CONTROL;
    unsigned pods = 0, controls = 0, hearers[2] = {0, 0};

    (void)state;
    assert_true(table_parse_kind("pod", &kind));
    assert_int_equal(kind, TABLE_POD);
    assert_true(table_parse_kind("control", &kind));
    assert_false(table_parse_kind("", &kind));
    assert_false(table_parse_kind("pods", &kind));
    assert_int_equal(kind, TABLE_CONTROL);
    for (unsigned i = 0; i < process_rows_n; i++) {
        const struct process_row *row = &process_rows[i];

        *(row->kind == TABLE_POD ? &pods : &controls) += 1;
        hearers[row->kind] += row->hears_others;
        /* Who holds the key has no socket, and who has the sockets has no key. */
        assert_false(process_inherits(row, "vault") && strcmp(row->name, "weft-tls") != 0);
        assert_false(process_inherits(row, "inbound") && strcmp(row->name, "weft-proxy") != 0);
        assert_false(process_inherits(row, ""));
        assert_false(process_inherits(row, "out"));
    }
    assert_int_equal(pods, 5);
    assert_int_equal(controls, 3);
    assert_int_equal(hearers[0], 1);
    assert_int_equal(hearers[1], 1);
}

static void test_heritage_for(void **state)
{
    struct heritage h = {.n = 6,
                         .heirs = {{"outbound", 5, HERITAGE_ANY},
                                   {"outbound", 6, HERITAGE_ANY},
                                   {"admin", 7, HERITAGE_ANY},
                                   {"vault", 8, HERITAGE_ANY},
                                   {"series", 9, 0},
                                   {"series", 10, 1}}};
    const struct process_row proxy = {TABLE_POD, "weft-proxy", 1, 0, true, "outbound inbound series", false};
    const struct heir *out[HERITAGE_MAX];

    (void)state;
    assert_int_equal(heritage_for(&h, &proxy, 1, out), 3);
    assert_int_equal(out[0]->fd, 5);
    assert_int_equal(out[1]->fd, 6);
    assert_int_equal(out[2]->fd, 10);
}

static void test_env_is_passed(void **state)
{
    static const struct {
        const char *item;
        bool plain, preload;
    } cases[] = {
        {"WEFT_RUN_DIR=/x", true, true},
        {"WEFT_LOG=debug", true, true},
        {"PATH=/bin", true, true},
        {"LANG=C", true, true},
        {"TZ=UTC", true, true},
        {"PATHX=/bin", false, false},
        {"PAT=/bin", false, false},
        {"HOME=/root", false, false},
        {"AWS_SECRET_ACCESS_KEY=x", false, false},
        {"LD_PRELOAD=/x.so", false, true},
        {"LD_LIBRARY_PATH=/x", false, false},
        {"FAKETIME=+1d", false, true},
        {"FAKETIME_DONT_RESET=1", false, true},
        {"WEFT_FDS=a=1", false, false},
        {"WEFT_LIFELINE_FD=3", false, false},
        {"WEFT_INCARNATION=3", false, false},
        {"WEFT_WORKER=3", false, false},
        {"WEFT_NOVALUE", false, false},
        {"", false, false},
        {"=x", false, false},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(env_is_passed(cases[i].item, false), cases[i].plain);
        assert_int_equal(env_is_passed(cases[i].item, true), cases[i].preload);
    }
}

static void test_env_build(void **state)
{
    char a[] = "HOME=/root", b[] = "WEFT_POD=p", c[] = "WEFT_FDS=evil=1";
    char *ours[] = {a, b, c, NULL};
    const struct heir x = {"outbound", 5, HERITAGE_ANY}, y = {"series", 9, 0};
    const struct heir *heirs[] = {&x, &y};
    struct env_told told = {.lifeline = 4, .heirs = heirs, .n_heirs = 2, .worker = 1,
                            .incarnation = UINT64_MAX};
    struct arena arena;
    char **env;

    (void)state;
    arena_init(&arena, 0);
    env = env_build(&arena, ours, false, &told);
    assert_non_null(env);
    assert_string_equal(env[0], "WEFT_POD=p");
    assert_string_equal(env[1], "WEFT_LIFELINE_FD=4");
    assert_string_equal(env[2], "WEFT_WORKER=1");
    assert_string_equal(env[3], "WEFT_INCARNATION=18446744073709551615");
    assert_string_equal(env[4], "WEFT_FDS=outbound=5,series=9");
    assert_null(env[5]);
    arena_done(&arena);
    arena_init(&arena, 64);
    assert_null(env_build(&arena, ours, false, &told));
    arena_done(&arena);
}

static void test_notes(void **state)
{
    struct notes n = {.n = 0};
    char big[400], key[3] = "k0";

    (void)state;
    assert_true(notes_set(&n, SLICE_LIT("certificate"), SLICE_LIT("a b\nc\x7f")));
    assert_string_equal(n.list[0].text, "a_b_c_");
    assert_false(notes_set(&n, SLICE_LIT("certificate"), SLICE_LIT("a b\nc\x7f"))); /* same again */
    assert_true(notes_set(&n, SLICE_LIT("certificate"), SLICE_LIT("")));
    assert_int_equal(n.n, 1);
    memset(big, 'x', sizeof(big));
    assert_true(notes_set(&n, SLICE_LIT("big"), slice(big, sizeof(big))));
    assert_int_equal(strlen(n.list[1].text), NOTE_TEXT_BYTES - 1);
    assert_false(notes_set(&n, slice(big, 25), SLICE_LIT("x")));
    assert_false(notes_set(&n, SLICE_LIT(""), SLICE_LIT("x")));
    assert_false(notes_set(&n, SLICE_LIT("a=b"), SLICE_LIT("x")));
    assert_false(notes_set(&n, SLICE_LIT("Key"), SLICE_LIT("x")));
    assert_false(notes_set(&n, slice("a\0", 2), SLICE_LIT("x")));
    for (unsigned i = 0; i < 6; i++, key[1]++)
        assert_true(notes_set(&n, slice_str(key), SLICE_LIT("v")));
    assert_false(notes_set(&n, SLICE_LIT("ninth"), SLICE_LIT("v")));
    assert_int_equal(n.n, NOTES_MAX);
}

static void test_status_text(void **state)
{
    struct notes n = {.n = 2, .list = {{"restart_ms", "14"}, {"x", "y"}}}, none = {.n = 0};
    struct buf b;

    (void)state;
    buf_init(&b, 4096);
    assert_null(status_print_head(&b));
    assert_null(status_print_row(&b, &(struct status_row){"weft-tls", 12, "ready", 1, 1763878364150, 9, &n}));
    assert_null(status_print_row(&b, &(struct status_row){"weft-proxy.0", 0, "waiting", 0, 5, -1, &none}));
    assert_true(slice_is_str(buf_slice(&b), "name pid state restarts since_ms ready_ms notes\n"
                                            "weft-tls 12 ready 1 1763878364150 9 restart_ms=14 x=y\n"
                                            "weft-proxy.0 0 waiting 0 5 -\n"));
    buf_done(&b);
}

static void test_status_write(void **state)
{
    char dir[] = "/tmp/weft-status-XXXXXX", path[64], got[16] = "";
    FILE *f;

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/status", dir);
    assert_null(status_write(path, SLICE_LIT("one\n")));
    assert_null(status_write(path, SLICE_LIT("two\n")));
    f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(got, sizeof(got), f));
    assert_string_equal(got, "two\n");
    (void)fclose(f);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0); /* and no .new beside it */
    assert_ptr_equal(status_write("/nonexistent/status", SLICE_LIT("x")), ERR_OF(OS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backoff),       cmocka_unit_test(test_table),
        cmocka_unit_test(test_heritage_for),  cmocka_unit_test(test_env_is_passed),
        cmocka_unit_test(test_env_build),     cmocka_unit_test(test_notes),
        cmocka_unit_test(test_status_text),   cmocka_unit_test(test_status_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
