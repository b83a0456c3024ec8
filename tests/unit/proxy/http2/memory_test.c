/* nghttp2's memory: pieces come back, contents survive a change of size, sizes that cannot be are refused. */
#include "proxy/http2/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static nghttp2_mem *memory(void)
{
    nghttp2_mem *m = h2_memory();

    if (m == NULL)
        skip(); /* built with sanitizers */
    return m;
}

static void test_reuse(void **state)
{
    nghttp2_mem *m = memory();
    void *a = m->malloc(60, NULL), *b;

    (void)state;
    assert_non_null(a);
    memset(a, 0xaa, 60);
    m->free(a, NULL);
    b = m->calloc(3, 10, NULL);
    assert_ptr_equal(a, b);
    for (int i = 0; i < 30; i++)
        assert_int_equal(((uint8_t *)b)[i], 0);
    m->free(b, NULL);
    m->free(NULL, NULL);
    h2_memory_release();
}

static void test_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 127, 128, 2047, 2048, 2049, 70000};
    nghttp2_mem *m = memory();
    const size_t n = sizeof(sizes) / sizeof(sizes[0]);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = i; k < n; k++) {
            uint8_t *p = m->malloc(sizes[i], NULL);

            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 16, 0);
            memset(p, (int)i + 1, sizes[i]);
            p = m->realloc(p, sizes[k], NULL);
            assert_non_null(p);
            for (size_t j = 0; j < sizes[i]; j++)
                assert_int_equal(p[j], i + 1);
            memset(p, 0x55, sizes[k]);
            p = m->realloc(p, sizes[i], NULL);
            assert_non_null(p);
            m->free(p, NULL);
        }
    }
    h2_memory_release();
}

static void test_refused(void **state)
{
    nghttp2_mem *m = memory();
    volatile size_t huge = SIZE_MAX; /* or the compiler warns of what is meant */

    (void)state;
    assert_null(m->malloc(huge, NULL));
    assert_null(m->malloc(huge - 20, NULL));
    assert_null(m->calloc(huge / 2, 3, NULL));
}

/* More than may wait: the rest is freed at once. */
static void test_bounded(void **state)
{
    enum { N = H2_MEMORY_KEPT / 64 * 2 };
    static void *all[N];
    nghttp2_mem *m = memory();

    (void)state;
    for (size_t i = 0; i < N; i++)
        assert_non_null(all[i] = m->malloc(64, NULL));
    for (size_t i = 0; i < N; i++)
        m->free(all[i], NULL);
    h2_memory_release();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reuse),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
