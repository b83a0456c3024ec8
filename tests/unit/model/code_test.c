/* The table of codes is sound, and responses are classified as Linkerd's users expect. */
#include "model/classify.h"
#include "model/code.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_codes_are_sound(void **state)
{
    (void)state;
    for (unsigned i = CODE_NONE + 1; i < CODE_COUNT; i++) {
        const struct code_info *c = code_info((enum code)i);

        assert_int_equal(strlen(c->id), 5);
        assert_int_equal(c->id[0], 'W');
        assert_true(c->http == 0 || (c->http >= 300 && c->http <= 599));
        assert_true(c->grpc <= GRPC_UNAUTHENTICATED && c->grpc != GRPC_OK);
        assert_true(c->what[strlen(c->what) - 1] == '.');
        assert_true(c->remedy[strlen(c->remedy) - 1] == '.');
        assert_int_equal(code_find(slice_str(c->id)), i);
        assert_int_equal(code_find(slice_str(c->name)), i);
        assert_int_equal(code_find(slice_str(c->id + 1)), i);
        for (unsigned j = CODE_NONE + 1; j < i; j++)
            assert_string_not_equal(code_info((enum code)j)->id, c->id);
    }
    assert_int_equal(code_find(SLICE_LIT("w1001")), CODE_NO_ENDPOINT);
    assert_int_equal(code_find(SLICE_LIT("")), CODE_NONE);
    assert_int_equal(code_find(SLICE_LIT("W9999")), CODE_NONE);
    assert_ptr_equal(code_info(CODE_NONE), code_info(CODE_INTERNAL));
    assert_ptr_equal(code_info((enum code)12345), code_info(CODE_INTERNAL));
    assert_int_equal(code_of_tls(SLICE_LIT("EXPIRED")), CODE_EXPIRED);
    assert_int_equal(code_of_tls(SLICE_LIT("NOT_TLS13")), CODE_TLS_FAILED);
}

static void test_success(void **state)
{
    static const struct {
        struct classify_end end;
        bool want;
    } cases[] = {
        {{.status = 200}, true},
        {{.status = 404}, true},
        {{.status = 499}, true},
        {{.status = 500}, false},
        {{.status = 599}, false},
        {{.status = 0}, false},
        {{.status = 101}, true},
        {{.status = 200, .was_cut = true}, false},
        {{.status = 200, .is_grpc = true, .has_grpc = true, .grpc_status = GRPC_OK}, true},
        {{.status = 200, .is_grpc = true, .has_grpc = true, .grpc_status = GRPC_NOT_FOUND},
         true},
        {{.status = 200,
          .is_grpc = true,
          .has_grpc = true,
          .grpc_status = GRPC_RESOURCE_EXHAUSTED},
         true},
        {{.status = 200, .is_grpc = true, .has_grpc = true, .grpc_status = GRPC_UNKNOWN},
         false},
        {{.status = 200,
          .is_grpc = true,
          .has_grpc = true,
          .grpc_status = GRPC_DEADLINE_EXCEEDED},
         false},
        {{.status = 200,
          .is_grpc = true,
          .has_grpc = true,
          .grpc_status = GRPC_PERMISSION_DENIED},
         false},
        {{.status = 200, .is_grpc = true, .has_grpc = true, .grpc_status = GRPC_INTERNAL},
         false},
        {{.status = 200, .is_grpc = true, .has_grpc = true, .grpc_status = GRPC_UNAVAILABLE},
         false},
        {{.status = 200, .is_grpc = true, .has_grpc = true, .grpc_status = GRPC_DATA_LOSS},
         false},
        {{.status = 200,
          .is_grpc = true,
          .has_grpc = true,
          .grpc_status = GRPC_UNAUTHENTICATED},
         true},
        {{.status = 200, .is_grpc = true, .has_grpc = true, .grpc_status = 99}, false},
        {{.status = 200, .is_grpc = true}, false},
        {{.status = 404, .is_grpc = true}, true},
        {{.status = 503, .is_grpc = true, .has_grpc = true, .grpc_status = GRPC_OK}, false},
        {{.status = 200, .has_grpc = true, .grpc_status = GRPC_INTERNAL}, true}, /* not gRPC */
    };
    uint32_t v = 77;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(classify_is_success(&cases[i].end), cases[i].want);
    assert_true(classify_is_grpc(SLICE_LIT("application/grpc")));
    assert_true(classify_is_grpc(SLICE_LIT("Application/GRPC+proto")));
    assert_true(classify_is_grpc(SLICE_LIT("application/grpc; x=1")));
    assert_false(classify_is_grpc(SLICE_LIT("application/grpc-web")));
    assert_false(classify_is_grpc(SLICE_LIT("application/json")));
    assert_false(classify_is_grpc(slice(NULL, 0)));
    assert_true(classify_parse_grpc(SLICE_LIT("14"), &v));
    assert_int_equal(v, 14);
    assert_false(classify_parse_grpc(SLICE_LIT("-1"), &v));
    assert_false(classify_parse_grpc(SLICE_LIT(""), &v));
    assert_false(classify_parse_grpc(SLICE_LIT("4294967296"), &v));
    assert_string_equal(classify_grpc_name(14), "UNAVAILABLE");
    assert_string_equal(classify_grpc_name(17), "");
}

static void test_classes_of_a_profile(void **state)
{
    static const struct wire_response_class classes[] = {
        {404, 404, true}, {500, 501, false}, {400, 599, true}, {200, 200, false}};
    static const struct {
        struct classify_end end;
        size_t n;
        bool want;
        enum classify_head head;
    } cases[] = {
        {{.status = 404}, 4, false, CLASSIFY_FAILURE},
        {{.status = 403}, 4, false, CLASSIFY_FAILURE},
        {{.status = 500}, 4, true, CLASSIFY_SUCCESS},
        {{.status = 502}, 4, false, CLASSIFY_FAILURE},
        {{.status = 201}, 4, true, CLASSIFY_SUCCESS},
        {{.status = 201}, 0, true, CLASSIFY_SUCCESS},
        {{.status = 500}, 0, false, CLASSIFY_FAILURE},
        {{.status = 403}, 2, true, CLASSIFY_SUCCESS},
        {{.status = 500, .was_cut = true}, 4, false, CLASSIFY_FAILURE},
        {{.status = 0}, 4, false, CLASSIFY_FAILURE},
        /* the class decides, not the grpc-status */
        {{.status = 200, .is_grpc = true, .has_grpc = true, .grpc_status = GRPC_INTERNAL},
         4,
         true,
         CLASSIFY_SUCCESS},
        {{.status = 200, .is_grpc = true, .has_grpc = true, .grpc_status = GRPC_INTERNAL},
         3,
         false,
         CLASSIFY_FAILURE},
        {{.status = 200, .is_grpc = true}, 0, false, CLASSIFY_OPEN},
        {{.status = 200, .is_grpc = true}, 4, true, CLASSIFY_SUCCESS},
        {{.status = 503, .is_grpc = true}, 0, false, CLASSIFY_FAILURE},
        {{.status = 200, .is_grpc = true, .was_cut = true}, 0, false, CLASSIFY_FAILURE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(classify_is_success_by(&cases[i].end, classes, cases[i].n),
                         cases[i].want);
        assert_int_equal(classify_head(&cases[i].end, classes, cases[i].n), cases[i].head);
    }
}

static void test_buckets(void **state)
{
    (void)state;
    for (unsigned i = 0; i + 1 < CLASSIFY_BUCKETS; i++) {
        assert_int_equal(classify_bucket((uint64_t)classify_bucket_ms[i] * 1000), i);
        assert_int_equal(classify_bucket((uint64_t)classify_bucket_ms[i] * 1000 + 1), i + 1);
    }
    assert_int_equal(classify_bucket(0), 0);
    assert_int_equal(classify_bucket(UINT64_MAX), CLASSIFY_BUCKETS - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes_are_sound),
        cmocka_unit_test(test_success),
        cmocka_unit_test(test_classes_of_a_profile),
        cmocka_unit_test(test_buckets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
