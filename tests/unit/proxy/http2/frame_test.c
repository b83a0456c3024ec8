/* Frames as bytes: what a header alone shows to be wrong, padding, settings. */
#include "proxy/http2/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void headers_go_round(void **state)
{
    uint8_t b[H2_FRAME_HEADER];
    struct h2_frame f;

    (void)state;
    assert_ptr_equal(h2_frame_write(b, 0x123456, H2_HEADERS, 0x25, 0x7edcba98), b + 9);
    f = h2_frame_read(b);
    assert_int_equal(f.length, 0x123456);
    assert_int_equal(f.type, H2_HEADERS);
    assert_int_equal(f.flags, 0x25);
    assert_int_equal(f.id, 0x7edcba98);
    b[5] |= 0x80; /* the reserved bit (RFC 9113 4.1) */
    assert_int_equal(h2_frame_read(b).id, 0x7edcba98);
}

static void what_a_header_shows(void **state)
{
    static const struct {
        struct h2_frame f;
        enum h2_error want;
        bool is_stream_error;
    } cases[] = {
        {{16384, H2_DATA, 0, 1}, H2_NO_ERROR, false},
        {{16385, H2_DATA, 0, 1}, H2_FRAME_SIZE_ERROR, false},
        {{16385, 77, 0, 0}, H2_FRAME_SIZE_ERROR, false},
        {{0xffffff, H2_HEADERS, 0, 1}, H2_FRAME_SIZE_ERROR, false},
        {{16384, 77, 0xff, 5}, H2_NO_ERROR, false},
        {{1, H2_DATA, 0, 0}, H2_PROTOCOL_ERROR, false},
        {{1, H2_HEADERS, 0, 0}, H2_PROTOCOL_ERROR, false},
        {{1, H2_CONTINUATION, 0, 0}, H2_PROTOCOL_ERROR, false},
        {{5, H2_PRIORITY, 0, 0}, H2_PROTOCOL_ERROR, false},
        {{5, H2_PRIORITY, 0, 1}, H2_NO_ERROR, false},
        {{4, H2_PRIORITY, 0, 1}, H2_FRAME_SIZE_ERROR, true},
        {{6, H2_PRIORITY, 0, 1}, H2_FRAME_SIZE_ERROR, true},
        {{4, H2_RST_STREAM, 0, 0}, H2_PROTOCOL_ERROR, false},
        {{4, H2_RST_STREAM, 0, 1}, H2_NO_ERROR, false},
        {{3, H2_RST_STREAM, 0, 1}, H2_FRAME_SIZE_ERROR, false},
        {{0, H2_SETTINGS, 0, 0}, H2_NO_ERROR, false},
        {{6, H2_SETTINGS, 0, 1}, H2_PROTOCOL_ERROR, false},
        {{5, H2_SETTINGS, 0, 0}, H2_FRAME_SIZE_ERROR, false},
        {{0, H2_SETTINGS, H2_FLAG_ACK, 0}, H2_NO_ERROR, false},
        {{6, H2_SETTINGS, H2_FLAG_ACK, 0}, H2_FRAME_SIZE_ERROR, false},
        {{8, H2_PING, 0, 0}, H2_NO_ERROR, false},
        {{8, H2_PING, 0, 1}, H2_PROTOCOL_ERROR, false},
        {{7, H2_PING, 0, 0}, H2_FRAME_SIZE_ERROR, false},
        {{7, H2_GOAWAY, 0, 0}, H2_FRAME_SIZE_ERROR, false},
        {{8, H2_GOAWAY, 0, 0}, H2_NO_ERROR, false},
        {{100, H2_GOAWAY, 0, 0}, H2_NO_ERROR, false},
        {{8, H2_GOAWAY, 0, 3}, H2_PROTOCOL_ERROR, false},
        {{4, H2_WINDOW_UPDATE, 0, 0}, H2_NO_ERROR, false},
        {{4, H2_WINDOW_UPDATE, 0, 7}, H2_NO_ERROR, false},
        {{5, H2_WINDOW_UPDATE, 0, 7}, H2_FRAME_SIZE_ERROR, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool is_stream_error = true;
        enum h2_error got = h2_frame_check(&cases[i].f, &is_stream_error);

        if (got != cases[i].want || is_stream_error != cases[i].is_stream_error)
            fail_msg("case %zu: %d", i, (int)got);
    }
}

static void padding_and_priority(void **state)
{
    static const struct {
        uint8_t flags;
        slice_t payload;
        enum h2_error want;
        size_t left;
        uint32_t depends_on;
    } cases[] = {
        {0, {(const uint8_t *)"abc", 3}, H2_NO_ERROR, 3, 0},
        {H2_FLAG_PADDED, {(const uint8_t *)"", 0}, H2_FRAME_SIZE_ERROR, 0, 0},
        {H2_FLAG_PADDED, {(const uint8_t *)"\0", 1}, H2_NO_ERROR, 0, 0},
        {H2_FLAG_PADDED, {(const uint8_t *)"\1a\0", 3}, H2_NO_ERROR, 1, 0},
        {H2_FLAG_PADDED, {(const uint8_t *)"\2ab", 3}, H2_NO_ERROR, 0, 0},
        {H2_FLAG_PADDED, {(const uint8_t *)"\3ab", 3}, H2_PROTOCOL_ERROR, 0, 0},
        {H2_FLAG_PRIORITY,
         {(const uint8_t *)"\x80\0\0\5\x10"
                           "a",
          6},
         H2_NO_ERROR,
         1,
         5},
        {H2_FLAG_PRIORITY, {(const uint8_t *)"\0\0\0\5", 4}, H2_FRAME_SIZE_ERROR, 0, 0},
        {H2_FLAG_PRIORITY | H2_FLAG_PADDED,
         {(const uint8_t *)"\1\0\0\0\5\0ab", 8},
         H2_NO_ERROR,
         1,
         5},
        {H2_FLAG_PRIORITY | H2_FLAG_PADDED,
         {(const uint8_t *)"\3\0\0\0\5\0ab", 8},
         H2_PROTOCOL_ERROR,
         0,
         5},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct h2_frame f = {(uint32_t)cases[i].payload.n, H2_HEADERS, cases[i].flags, 1};
        slice_t payload = cases[i].payload;
        uint32_t depends_on = 9;

        if (h2_frame_unpad(&f, &payload, &depends_on) != cases[i].want)
            fail_msg("case %zu", i);
        if (cases[i].want == H2_NO_ERROR &&
            (payload.n != cases[i].left || depends_on != cases[i].depends_on))
            fail_msg("case %zu: %zu left", i, payload.n);
    }
}

static void settings_have_ranges(void **state)
{
    (void)state;
    assert_int_equal(h2_setting_check(H2_SET_ENABLE_PUSH, 1), H2_NO_ERROR);
    assert_int_equal(h2_setting_check(H2_SET_ENABLE_PUSH, 2), H2_PROTOCOL_ERROR);
    assert_int_equal(h2_setting_check(H2_SET_INITIAL_WINDOW_SIZE, 0x7fffffff), H2_NO_ERROR);
    assert_int_equal(h2_setting_check(H2_SET_INITIAL_WINDOW_SIZE, 0x80000000),
                     H2_FLOW_CONTROL_ERROR);
    assert_int_equal(h2_setting_check(H2_SET_MAX_FRAME_SIZE, 16383), H2_PROTOCOL_ERROR);
    assert_int_equal(h2_setting_check(H2_SET_MAX_FRAME_SIZE, 16384), H2_NO_ERROR);
    assert_int_equal(h2_setting_check(H2_SET_MAX_FRAME_SIZE, 16777215), H2_NO_ERROR);
    assert_int_equal(h2_setting_check(H2_SET_MAX_FRAME_SIZE, 16777216), H2_PROTOCOL_ERROR);
    assert_int_equal(h2_setting_check(H2_SET_HEADER_TABLE_SIZE, 0xffffffff), H2_NO_ERROR);
    assert_int_equal(h2_setting_check(0x7777, 0xffffffff), H2_NO_ERROR);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_go_round),
        cmocka_unit_test(what_a_header_shows),
        cmocka_unit_test(padding_and_priority),
        cmocka_unit_test(settings_have_ranges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
