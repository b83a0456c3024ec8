/* The memory of the pod's proxies: two of them on one file, a killed one, and a damaged one. */
#include "proxy/limit/shared.h"

#include "kit/clock.h"
#include "proxy/limit/gcra.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW 100000000000ull

static int memory(size_t bytes)
{
    int fd = memfd_create("limits", MFD_CLOEXEC);

    assert_true(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    return fd;
}

static struct limit_shared *open_as(int fd, unsigned worker)
{
    struct limit_shared *s = NULL;

    assert_true(limit_shared_open(fd, worker, &s) == OK);
    assert_int_equal(limit_shared_is_shared(s), fd >= 0);
    return s;
}

static uint64_t key(const struct limit_shared *s, unsigned kind, const char *text)
{
    return limit_shared_key(s, kind, slice_str(text), SLICE_LIT(""));
}

static void test_keys(void **state)
{
    int fd = memory(LIMIT_SHARED_BYTES);
    struct limit_shared *a = open_as(fd, 0), *b = open_as(fd, 1), *c = open_as(-1, 0);

    (void)state;
    assert_true(key(a, 1, "x") == key(b, 1, "x"));
    assert_true(key(a, 1, "x") != key(a, 2, "x"));
    assert_true(key(a, 1, "x") != key(a, 1, "y"));
    assert_true(key(a, 1, "x") != key(c, 1, "x")); /* of another pod */
    assert_true(limit_shared_key(a, 1, SLICE_LIT("ab"), SLICE_LIT("c")) !=
                limit_shared_key(a, 1, SLICE_LIT("a"), SLICE_LIT("bc")));
    limit_shared_close(&a);
    limit_shared_close(&b);
    limit_shared_close(&c);
    limit_shared_close(&c); /* fine */
    close(fd);
}

/* Two processes take from one rate: together as much as one alone, to the request. */
static void test_two_processes_one_rate(void **state)
{
    int fd = memory(LIMIT_SHARED_BYTES), result[2];
    struct limit_shared *first = open_as(fd, 0);
    unsigned total = 0;

    (void)state;
    assert_int_equal(pipe(result), 0);
    for (unsigned w = 1; w <= 2; w++) {
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
            struct limit_shared *s = NULL;
            uint64_t wait;
            unsigned n = 0;

            if (limit_shared_open(fd, w, &s) != OK)
                _exit(1);
            for (unsigned i = 0; i < 5000; i++)
                n += gcra_take(limit_shared_cell(s, key(s, 1, "total"), NOW),
                               gcra_interval(1000), NOW, &wait);
            _exit(write(result[1], &n, sizeof(n)) == (ssize_t)sizeof(n) ? 0 : 1);
        }
    }
    for (unsigned w = 1; w <= 2; w++) {
        unsigned n = 0;
        int status = 0;

        assert_int_equal(read(result[0], &n, sizeof(n)), sizeof(n));
        total += n;
        assert_true(wait(&status) > 0 && status == 0);
    }
    assert_int_equal(total, 1000);
    limit_shared_close(&first);
    close(result[0]);
    close(result[1]);
    close(fd);
}

/* A full set gives up what was due first, never a bucket that was just used. */
static void test_cells_are_given_up(void **state)
{
    struct limit_shared *s = open_as(-1, 0);
    uint64_t same_set[9], found = 0, k = 77;

    (void)state;
    for (; found < 9; k += 2048)
        same_set[found++] = k;
    for (unsigned i = 0; i < 8; i++)
        atomic_store(limit_shared_cell(s, same_set[i], NOW), NOW + 8 - i);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(atomic_load(limit_shared_cell(s, same_set[i], NOW)), NOW + 8 - i);
    assert_int_equal(atomic_load(limit_shared_cell(s, same_set[8], NOW)), 0);
    atomic_store(limit_shared_cell(s, same_set[8], NOW), NOW + 100);
    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(atomic_load(limit_shared_cell(s, same_set[i], NOW)), NOW + 8 - i);
    assert_int_equal(atomic_load(limit_shared_cell(s, same_set[8], NOW)), NOW + 100);
    /* A value that cannot be a time goes first. */
    atomic_store(limit_shared_cell(s, same_set[3], NOW), UINT64_MAX);
    (void)limit_shared_cell(s, same_set[7], NOW);
    assert_int_equal(atomic_load(limit_shared_cell(s, same_set[2], NOW)), NOW + 6);
    limit_shared_close(&s);
}

static void test_counters(void **state)
{
    int fd = memory(LIMIT_SHARED_BYTES);
    struct limit_shared *a = open_as(fd, 0), *b = open_as(fd, 5);
    struct limit_counter *ca = limit_shared_counter(a, key(a, 1, "web"));
    struct limit_counter *cb = limit_shared_counter(b, key(b, 1, "web"));

    (void)state;
    assert_non_null(ca);
    assert_ptr_equal(limit_shared_counter(a, key(a, 1, "web")), ca);
    assert_true(limit_counter_take(a, ca, 3));
    assert_true(limit_counter_take(b, cb, 3));
    assert_true(limit_counter_take(b, cb, 3));
    assert_false(limit_counter_take(a, ca, 3));
    assert_false(limit_counter_take(b, cb, 3));
    assert_int_equal(limit_counter_sum(a, ca), 3);
    limit_counter_give(b, cb);
    assert_true(limit_counter_take(a, ca, 3));
    assert_false(limit_counter_take(a, ca, 0));
    /* Never below zero, whatever happens. */
    for (unsigned i = 0; i < 9; i++)
        limit_counter_give(a, ca);
    assert_int_equal(limit_counter_sum(b, cb), 1);
    assert_true(limit_counter_take(a, NULL, 0));
    limit_counter_give(a, NULL);
    assert_int_equal(limit_counter_sum(a, NULL), 0);
    limit_shared_close(&b);
    assert_int_equal(limit_counter_sum(a, ca), 0);
    limit_shared_close(&a);
    close(fd);
}

/* A worker is killed: its successor starts from nothing; until then it stops counting. */
static void test_a_killed_worker(void **state)
{
    int fd = memory(LIMIT_SHARED_BYTES), status, ready[2];
    struct limit_shared *a, *b;
    struct limit_counter *c;
    pid_t pid;
    char byte;

    (void)state;
    clock_test_freeze(1000000, 0);
    a = open_as(fd, 0);
    c = limit_shared_counter(a, key(a, 1, "web"));
    assert_true(limit_counter_take(a, c, 10));
    assert_int_equal(pipe(ready), 0);
    pid = fork();
    if (pid == 0) {
        struct limit_shared *s = NULL;

        if (limit_shared_open(fd, 1, &s) != OK)
            _exit(1);
        for (unsigned i = 0; i < 9; i++)
            (void)limit_counter_take(s, limit_shared_counter(s, key(s, 1, "web")), 10);
        (void)limit_deadline_put(s, key(s, 3, "trace"), LIMIT_NO_DEADLINE, 1000000);
        if (write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(limit_counter_sum(a, c), 10);
    assert_false(limit_counter_take(a, c, 10));
    clock_test_advance(LIMIT_STALE_MS); /* nobody took its place: it is forgotten */
    limit_shared_tick(a);
    assert_int_equal(limit_counter_sum(a, c), 1);
    b = open_as(fd, 1);
    assert_int_equal(limit_counter_sum(a, c), 1);
    assert_true(limit_deadline_get(a, key(a, 3, "trace")) == LIMIT_NO_DEADLINE);
    assert_non_null(limit_deadline_put(a, key(a, 3, "trace"), 1000500, 1000000));
    assert_int_equal(limit_deadline_get(b, key(b, 3, "trace")), 1000500);
    limit_shared_close(&b);
    limit_shared_close(&a);
    close(ready[0]);
    close(ready[1]);
    close(fd);
    clock_test_thaw();
}

static void test_counters_have_a_limit(void **state)
{
    struct limit_shared *s = open_as(-1, 0);
    struct limit_counter *c[9];

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        c[i] = limit_shared_counter(s, 5 + 64 * (i + 1));
        assert_non_null(c[i]);
        assert_true(limit_counter_take(s, c[i], 1));
    }
    assert_null(limit_shared_counter(s, 5 + 64 * 9));
    limit_counter_give(s, c[4]); /* it counts nothing: its place is free */
    c[8] = limit_shared_counter(s, 5 + 64 * 9);
    assert_ptr_equal(c[8], c[4]);
    assert_ptr_equal(limit_shared_counter(s, 5 + 64 * 1), c[0]);
    limit_shared_close(&s);
}

static void test_deadlines(void **state)
{
    struct limit_shared *s = open_as(-1, 7);
    struct limit_deadline *one, *two, *three;

    (void)state;
    assert_false(limit_deadline_is_used(s));
    assert_true(limit_deadline_get(s, 9) == LIMIT_NO_DEADLINE);
    one = limit_deadline_put(s, 9, 5000, 1000);
    assert_true(limit_deadline_is_used(s));
    assert_int_equal(limit_deadline_get(s, 9), 5000);
    /* Of several requests of a trace the one with the most time decides. */
    two = limit_deadline_put(s, 9, 4000, 1000);
    assert_int_equal(limit_deadline_get(s, 9), 5000);
    three = limit_deadline_put(s, 9, LIMIT_NO_DEADLINE, 1000);
    assert_true(limit_deadline_get(s, 9) == LIMIT_NO_DEADLINE);
    limit_deadline_drop(&three, 9);
    assert_null(three);
    limit_deadline_drop(&three, 9);
    limit_deadline_drop(&one, 9);
    assert_int_equal(limit_deadline_get(s, 9), 4000);
    limit_deadline_drop(&two, 9);
    assert_true(limit_deadline_get(s, 9) == LIMIT_NO_DEADLINE);
    assert_true(limit_deadline_get(s, 9 + 512) == LIMIT_NO_DEADLINE);
    limit_shared_close(&s);
}

static void test_deadlines_have_a_limit(void **state)
{
    struct limit_shared *s = open_as(-1, 0);
    struct limit_deadline *d[17], *more;

    (void)state;
    for (unsigned i = 0; i < 16; i++) {
        d[i] = limit_deadline_put(s, 3 + 512 * (uint64_t)(i + 1), 2000 + i, 1000);
        assert_non_null(d[i]);
    }
    assert_null(limit_deadline_put(s, 3 + 512 * 17, 9000, 1000));
    /* No room for another request of a trace that is there: the entry becomes as long. */
    assert_null(limit_deadline_put(s, 3 + 512 * 4, 9000, 1000));
    assert_int_equal(limit_deadline_get(s, 3 + 512 * 4), 9000);
    /* What is over (its worker was killed) gives its place. */
    more = limit_deadline_put(s, 3 + 512 * 17, 9000, 2001);
    assert_ptr_equal(more, d[0]);
    assert_int_equal(limit_deadline_get(s, 3 + 512 * 17), 9000);
    limit_deadline_drop(&d[0], 3 + 512 * 1); /* not its any more: nothing happens */
    assert_int_equal(limit_deadline_get(s, 3 + 512 * 17), 9000);
    limit_shared_close(&s);
}

/* Another layout, another size, no memory file at all: limits of one's own, and no harm to the
 * file. */
static void test_foreign_memory(void **state)
{
    int foreign = memory(LIMIT_SHARED_BYTES), small = memory(4096);
    uint64_t layout = 0x39394d494c544657ull, seen = 0;
    struct limit_shared *s = NULL;
    int fds[] = {foreign, small, open("/dev/null", O_RDWR | O_CLOEXEC)};

    (void)state;
    assert_int_equal(pwrite(foreign, &layout, sizeof(layout), 0), sizeof(layout));
    for (size_t i = 0; i < 3; i++) {
        assert_true(limit_shared_open(fds[i], 0, &s) == OK);
        assert_false(limit_shared_is_shared(s));
        assert_true(limit_counter_take(s, limit_shared_counter(s, 1), 1));
        limit_shared_close(&s);
    }
    assert_int_equal(pread(foreign, &seen, sizeof(seen), 0), sizeof(seen));
    assert_true(seen == layout);
    for (size_t i = 0; i < 3; i++)
        close(fds[i]);
}

/* Every byte of the memory is written by a stranger while it is used. */
static void test_damage(void **state)
{
    int fd = memory(LIMIT_SHARED_BYTES);
    struct limit_shared *s = open_as(fd, 3);
    uint8_t *raw = mmap(NULL, LIMIT_SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint64_t wait, x = 88172645463325252ull;

    (void)state;
    assert_true(raw != MAP_FAILED);
    for (unsigned round = 0; round < 200; round++) {
        struct limit_counter *c = limit_shared_counter(s, round + 1);
        struct limit_deadline *d;

        for (unsigned i = 0; i < LIMIT_SHARED_BYTES; i += 8) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            if (round % 3 == 0)
                memcpy(raw + i, &x, 8);
            else
                memset(raw + i, round % 3 == 1 ? 0xff : 0, 8);
            i += (unsigned)(x % 512) & ~7u;
        }
        d = limit_deadline_put(s, x | 1, x % 5000, 1000);
        (void)limit_deadline_get(s, x | 1);
        limit_deadline_drop(&d, x | 1);
        (void)gcra_take(limit_shared_cell(s, x | 1, NOW), gcra_interval(5), NOW, &wait);
        (void)limit_counter_take(s, c, 5);
        (void)limit_counter_sum(s, c);
        limit_counter_give(s, c);
        (void)limit_shared_counter(s, x | 1);
        limit_shared_tick(s);
    }
    (void)munmap(raw, LIMIT_SHARED_BYTES);
    limit_shared_close(&s);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_two_processes_one_rate),
        cmocka_unit_test(test_cells_are_given_up),
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_a_killed_worker),
        cmocka_unit_test(test_counters_have_a_limit),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_deadlines_have_a_limit),
        cmocka_unit_test(test_foreign_memory),
        cmocka_unit_test(test_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
