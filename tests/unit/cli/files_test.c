#include "cli/capture.h"
#include "cli/files.h"
#include "cli/procs.h"
#include "cli/status.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char root[FILES_PATH_MAX];

static int make_root(void **state)
{
    (void)state;
    strcpy(root, "/tmp/weft-cli-XXXXXX");
    return mkdtemp(root) == NULL;
}

static int drop_root(void **state)
{
    struct trouble why;

    (void)state;
    return files_remove_tree(root, &why) != OK;
}

static void put(const char *name, const char *text)
{
    char path[FILES_PATH_MAX];
    struct trouble why;

    assert_true(files_path(path, "%s/%s", root, name));
    assert_null(files_write(path, text, strlen(text), 0644, (uid_t)-1, &why));
}

static void write_replaces_and_read_is_bounded(void **state)
{
    char path[FILES_PATH_MAX], link_path[FILES_PATH_MAX];
    struct trouble why = {{0}};
    struct stat st;
    struct buf b;

    (void)state;
    put("a", "first");
    put("a", "second");
    files_path(path, "%s/a", root);
    buf_init(&b, 0);
    assert_null(files_read(path, 6, &b, &why));
    assert_true(slice_is_str(buf_slice(&b), "second"));
    buf_done(&b);
    assert_ptr_equal(files_read(path, 5, &b, &why), ERR_OF(TOO_BIG));
    buf_done(&b);
    files_path(link_path, "%s/link", root);
    assert_int_equal(symlink(path, link_path), 0);
    assert_ptr_equal(files_read(link_path, 100, &b, &why),
                     ERR_OF(OS)); /* no link is followed */
    assert_null(
        files_write(link_path, "x", 1, 0600, (uid_t)-1, &why)); /* replaced, not followed */
    assert_int_equal(lstat(link_path, &st), 0);
    assert_true(S_ISREG(st.st_mode) && (st.st_mode & 0777) == 0600);
    assert_null(files_read(path, 100, &b, &why));
    assert_true(slice_is_str(buf_slice(&b), "second"));
    buf_done(&b);
}

static void remove_tree_stays_inside(void **state)
{
    char path[FILES_PATH_MAX], precious[FILES_PATH_MAX], deep[FILES_PATH_MAX];
    struct trouble why = {{0}};
    int n;

    (void)state;
    put("precious", "keep");
    files_path(precious, "%s/precious", root);
    files_path(path, "%s/tree/b/c/d", root);
    assert_null(files_mkdir(path, 0700, (uid_t)-1, &why));
    put("tree/b/file", "x");
    files_path(path, "%s/tree/b/out", root);
    assert_int_equal(symlink(root, path), 0);
    files_path(path, "%s/tree", root);
    assert_null(files_remove_tree(path, &why));
    assert_false(files_exists(path));
    assert_true(files_exists(precious));
    assert_null(files_remove_tree(path, &why)); /* gone already */
    /* Deeper than the limit: told, and nothing outside is touched. */
    n = snprintf(deep, sizeof deep, "%s/deep", root);
    for (int i = 0; i < 20; i++)
        n += snprintf(deep + n, sizeof deep - (size_t)n, "/x");
    assert_null(files_mkdir(deep, 0700, (uid_t)-1, &why));
    files_path(path, "%s/deep", root);
    assert_ptr_equal(files_remove_tree(path, &why), ERR_OF(OS));
    files_path(path, "%s/deep/x/x/x/x/x/x/x/x",
               root); /* by hand from the middle, then it fits */
    assert_null(files_remove_tree(path, &why));
    files_path(path, "%s/deep", root);
    assert_null(files_remove_tree(path, &why));
}

static void empty_and_long_paths(void **state)
{
    char path[FILES_PATH_MAX];
    struct trouble why;

    (void)state;
    assert_true(files_is_empty_dir("/no/such/directory"));
    assert_false(files_is_empty_dir("/"));
    assert_false(files_path(path, "%0600d", 1));
    assert_string_equal(path, "");
    assert_null(files_remove_tree(path, &why)); /* "" is nothing */
}

static void capture_is_written_and_read(void **state)
{
    struct trouble why;
    char said[256];

    (void)state;
    capture_read(root, said);
    assert_string_equal(said, "unknown");
    assert_null(capture_write(root, true, "", &why));
    capture_read(root, said);
    assert_string_equal(said, "ok");
    assert_null(capture_write(root, false, "because", &why));
    capture_read(root, said);
    assert_string_equal(said, "not-protected because");
    put("capture", "");
    capture_read(root, said);
    assert_string_equal(said, "");
}

static void status_of_a_supervisor(void **state)
{
    struct status s;

    (void)state;
    assert_false(status_read(root, &s));
    put("status", "name pid state restarts since_ms ready_ms notes\n"
                  "weft-supervisor 10 ready 0 1763878364101 52 kind=pod\n"
                  "weft-tls 11 ready 2 1763878364150 9 certificate=2026\n"
                  "weft-proxy.0 0 starting 0 1763878364160 -\n");
    assert_true(status_read(root, &s));
    assert_int_equal(s.n, 3);
    assert_int_equal(s.supervisor, 10);
    assert_true(s.at[1].is_ready && s.at[1].restarts == 2 && s.at[1].pid == 11);
    assert_false(s.at[2].is_ready);
    assert_string_equal(s.at[2].state, "starting");
}

/* It is written by an unprivileged process and shown to root's terminal. */
static void status_from_a_liar(void **state)
{
    static const char *const bad[] = {
        "weft-tls -1 ready 0\n",
        "weft-tls 99999999999 ready 0\n",
        "weft-tls 1 ready -1\n",
        "\033[31mweft 1 ready 0\n",
        "weft-tls 1 re\007ady 0\n",
        "weft-tls 1\n",
        "weft-tls\n",
        "\n\n\n",
        " 1 ready 0\n",
        "a-name-that-is-longer-than-thirty-two-bytes 1 ready 0\n",
        "weft-tls 1 a-state-that-is-too-long 0\n",
    };
    char many[64 * 40];
    struct status s;
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put("status", bad[i]);
        assert_false(status_read(root, &s));
    }
    for (int i = 0; i < 40; i++)
        n += (size_t)snprintf(many + n, sizeof many - n, "weft-proxy.%d 1 ready 0 1 1\n", i);
    put("status", many);
    assert_true(status_read(root, &s));
    assert_int_equal(s.n, STATUS_PROCESSES_MAX);
}

static void processes_are_told_apart(void **state)
{
    struct proc_list list = {.n = 1};
    struct proc_id me, child, again;
    char text[PROC_ID_TEXT];
    pid_t pid;

    (void)state;
    assert_true(proc_identify(getpid(), &me));
    proc_print(&me, text);
    assert_true(proc_parse(text, &again));
    assert_true(again.pid == me.pid && again.start == me.start);
    assert_false(proc_parse("", &again));
    assert_false(proc_parse("12", &again));
    assert_false(proc_parse("12 x", &again));
    assert_false(proc_parse("-12 5", &again));
    assert_false(proc_parse("0 5", &again));
    assert_false(proc_parse("99999999999 5", &again));
    pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    assert_true(proc_identify(pid, &child));
    again = child;
    again.start++;
    assert_false(
        proc_signal(&again, SIGKILL)); /* the number is right, the process is another */
    assert_true(proc_is_alive(&child));
    list.at[0] = child;
    assert_int_equal(proc_end_all(&list, 1000), 0);
    assert_false(proc_is_alive(&child)); /* a zombie counts as gone */
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(proc_end_all(&list, 10), 0);
    assert_true(proc_pss_kib(getpid()) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(write_replaces_and_read_is_bounded, make_root,
                                        drop_root),
        cmocka_unit_test_setup_teardown(remove_tree_stays_inside, make_root, drop_root),
        cmocka_unit_test_setup_teardown(empty_and_long_paths, make_root, drop_root),
        cmocka_unit_test_setup_teardown(capture_is_written_and_read, make_root, drop_root),
        cmocka_unit_test_setup_teardown(status_of_a_supervisor, make_root, drop_root),
        cmocka_unit_test_setup_teardown(status_from_a_liar, make_root, drop_root),
        cmocka_unit_test(processes_are_told_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
