/* docs/messages.md is what the table says. */
#include "wire/document.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_page_in_docs_is_current(void **state)
{
    static char file[512 * 1024];
    AUTO(buf_done) struct buf page;
    FILE *f = fopen(WEFT_SOURCE_DIR "/docs/messages.md", "rb");
    size_t n;

    (void)state;
    assert_non_null(f);
    n = fread(file, 1, sizeof(file), f);
    assert_int_equal(fclose(f), 0);
    buf_init(&page, 0);
    assert_ptr_equal(wire_document(&page), OK);
    if (!slice_is(buf_slice(&page), slice(file, n)))
        fail_msg("docs/messages.md is not what the table says; make it again: "
                 "bin/weft-wire-doc > docs/messages.md");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_in_docs_is_current),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
