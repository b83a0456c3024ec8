/* The CPU quota: what the files of the control group say, and what they say wrongly. */
#include "supervisor/cpus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void test_cpu_max(void **state)
{
    static const struct {
        const char *text;
        unsigned want;
    } rows[] = {
        {"max 100000", 0},       {"100000 100000", 1000}, {"150000 100000", 1500}, {"1000 100000", 10},
        {"1 1000000", 1},        {"250000 50000", 5000},  {"", 0},                 {"100000", 0},
        {"100000 ", 0},          {" 100000", 0},          {"0 100000", 0},         {"100000 0", 0},
        {"-1 100000", 0},        {"1e5 100000", 0},       {"100000 100000 1", 0},  {"100000\t100000", 0},
        {"18446744073709551615 1", 4096000},              {"18446744073709551616 1", 0},
        {"1 18446744073709551615", 0},                    {"max", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned got = cpus_of_max(slice_str(rows[i].text));

        if (got != rows[i].want)
            fail_msg("\"%s\": %u, not %u", rows[i].text, got, rows[i].want);
    }
    assert_int_equal(cpus_of_quota(SLICE_LIT("-1"), SLICE_LIT("100000")), 0);
    assert_int_equal(cpus_of_quota(SLICE_LIT("50000"), SLICE_LIT("100000")), 500);
}

/* ---- a tree of files ---- */

static char root[64];

static void put(const char *path, const char *text)
{
    char name[512];
    FILE *f;

    (void)snprintf(name, sizeof(name), "%s%s", root, path);
    for (char *at = name + strlen(root) + 1; (at = strchr(at, '/')) != NULL; at++) {
        *at = '\0';
        (void)mkdir(name, 0700);
        *at = '/';
    }
    f = fopen(name, "w");
    assert_non_null(f);
    (void)fputs(text, f);
    (void)fclose(f);
}

static int make_root(void **state)
{
    (void)state;
    (void)strcpy(root, "/tmp/weft-cpus-XXXXXX");
    return mkdtemp(root) == NULL;
}

static int drop_root(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", root);
    return system(command);
}

static void test_groups(void **state)
{
    unsigned all = cpus_allowed("/nowhere");

    (void)state;
    assert_true(all >= 1);
    put("/proc/self/cgroup", "0::/a/b\n");
    assert_int_equal(cpus_allowed(root), all); /* no file: no quota */
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    assert_int_equal(cpus_allowed(root), all);
    put("/sys/fs/cgroup/a/cpu.max", "20000 100000\n"); /* the parent's counts, too */
    assert_int_equal(cpus_allowed(root), 1);
    put("/sys/fs/cgroup/a/cpu.max", "100001 100000\n"); /* rounded up */
    assert_int_equal(cpus_allowed(root), all < 2 ? all : 2);
    put("/sys/fs/cgroup/a/b/cpu.max", "100000 100000\n"); /* the smallest */
    assert_int_equal(cpus_allowed(root), 1);
    put("/sys/fs/cgroup/a/b/cpu.max", "100000000 100000\n");
    put("/sys/fs/cgroup/a/cpu.max", "junk\n");
    assert_int_equal(cpus_allowed(root), all); /* never more than there are */
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "100000 100000\n"); /* of a container: its group is the root */
    assert_int_equal(cpus_allowed(root), 1);
}

static void test_old_groups(void **state)
{
    unsigned all = cpus_allowed("/nowhere");

    (void)state;
    put("/proc/self/cgroup", "12:memory:/x\n4:cpu,cpuacct:/x/y\n1:name=systemd:/\nbad\n:\n::\n");
    assert_int_equal(cpus_allowed(root), all);
    put("/sys/fs/cgroup/cpu/x/y/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/x/y/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus_allowed(root), all);
    put("/sys/fs/cgroup/cpu/x/y/cpu.cfs_quota_us", "50000\n");
    assert_int_equal(cpus_allowed(root), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu_max),
        cmocka_unit_test_setup_teardown(test_groups, make_root, drop_root),
        cmocka_unit_test_setup_teardown(test_old_groups, make_root, drop_root),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
