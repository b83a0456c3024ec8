#include "link/creds.h"
#include "link/pod.h"
#include "link/session.h"
#include "link/snapshot.h"
#include "link/view.h"

#include "../store/store_dir.h"
#include "kit/clock.h"

#include <event2/event.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct rig {
    char dir[64], token[128];
    struct settings set;
    struct link l;
};

static int setup(void **state)
{
    char why[200];
    struct rig *r = calloc(1, sizeof *r);
    *state = r;
    clock_test_freeze(1000000, 1800000000000);
    if (settings_load(&r->set, why) != OK)
        return -1;
    r->set.state_dir = store_dir_make(r->dir);
    (void)snprintf(r->token, sizeof r->token, "%s/token", r->dir);
    r->set.pod = "web-1";
    r->l.set = &r->set;
    r->l.base = event_base_new();
    timer_init(&r->l.ack_turn, r->l.base, NULL, NULL);
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    timer_stop(&r->l.ack_turn);
    view_free_all(&r->l);
    event_base_free(r->l.base);
    store_dir_clear(r->dir);
    free(r);
    clock_test_thaw();
    return 0;
}

/* ---- payloads ---- */

static void payload(const char *ip, struct buf *out)
{
    struct wire_endpoint e = {.ip = slice_str(ip), .port = 80, .weight = 10000};
    struct wire_backend b = {.namespace = SLICE_LIT("default"),
                             .name = SLICE_LIT("web"),
                             .port = 80,
                             .n_endpoints = 1,
                             .endpoints = &e};
    const struct wire_destination d = {
        .target = SLICE_LIT("web:80"), .kind = 1, .n_backends = 1, .backends = &b};
    buf_init(out, WIRE_MESSAGE_MAX);
    assert_null(WIRE_ENCODE(destination, &d, out));
}

static struct view *view_with(struct rig *r, const char *topic, uint64_t revision,
                              const char *ip)
{
    struct view *v = NULL;
    struct buf b;
    payload(ip, &b);
    assert_null(view_get(&r->l, slice_str(topic), &v));
    assert_null(view_take(&r->l, v, revision, buf_slice(&b)));
    buf_done(&b);
    return v;
}

static void a_bad_payload_leaves_the_old_one(void **state)
{
    struct rig *r = *state;
    struct view *v = view_with(r, "dst/default/web:80", 3, "10.0.0.1");
    struct buf b;
    payload("10.0.0.2", &b);
    for (size_t n = 0; n < buf_len(&b); n++) { /* cut anywhere */
        assert_non_null(view_take(&r->l, v, 4, slice(buf_slice(&b).p, n)));
        assert_int_equal(v->revision, 3);
    }
    assert_non_null(view_take(&r->l, v, 4, SLICE_LIT("\xc1")));
    const struct wire_trust trust = {.anchors = SLICE_LIT("PEM")};
    struct buf other;
    buf_init(&other, 0);
    assert_null(WIRE_ENCODE(trust, &trust, &other));
    assert_non_null(
        view_take(&r->l, v, 4, buf_slice(&other))); /* well formed, of another topic */
    buf_done(&other);
    assert_int_equal(v->revision, 3);
    assert_null(view_take(&r->l, v, 4, buf_slice(&b)));
    assert_int_equal(v->revision, 4);
    assert_int_equal(r->l.bytes, buf_len(&b));
    buf_done(&b);
}

static void in_force_is_what_every_user_has_applied(void **state)
{
    struct rig *r = *state;
    struct view *v = view_with(r, "dst/default/web:80", 3, "10.0.0.1");
    v->is_fresh = v->is_watched = true;
    view_settle(&r->l, v);
    assert_int_equal(v->in_force, 3); /* nobody uses it */
    assert_non_null(view_add_interest(&r->l, v, SLICE_LIT("p1"), "web:80"));
    assert_non_null(view_add_interest(&r->l, v, SLICE_LIT("p2"), "web:80"));
    assert_ptr_equal(view_add_interest(&r->l, v, SLICE_LIT("p2"), "web:80"),
                     view_add_interest(&r->l, v, SLICE_LIT("p2"), "web:80"));
    struct buf b;
    payload("10.0.0.2", &b);
    assert_null(view_take(&r->l, v, 4, buf_slice(&b)));
    buf_done(&b);
    uint64_t before = view_sum(&r->l);
    view_applied(&r->l, v, SLICE_LIT("p1"), "web:80", 4);
    assert_int_equal(v->in_force, 3);
    view_applied(&r->l, v, SLICE_LIT("p2"), "web:80", 9);  /* never told of 9 */
    view_applied(&r->l, v, SLICE_LIT("p3"), "web:80", 4);  /* not a user */
    view_applied(&r->l, v, SLICE_LIT("p2"), "web2:80", 4); /* not its target */
    assert_int_equal(v->in_force, 3);
    assert_true(view_sum(&r->l) == before);
    view_applied(&r->l, v, SLICE_LIT("p2"), "web:80", 4);
    assert_int_equal(v->in_force, 4);
    assert_true(view_sum(&r->l) == wire_topic_mix(v->hash, 4));
    /* A user that is gone is not waited for. */
    payload("10.0.0.3", &b);
    assert_null(view_take(&r->l, v, 5, buf_slice(&b)));
    buf_done(&b);
    view_applied(&r->l, v, SLICE_LIT("p1"), "web:80", 5);
    view_forget_route(&r->l, SLICE_LIT("p2"));
    assert_int_equal(v->in_force, 5);
}

static void views_and_users_are_limited(void **state)
{
    struct rig *r = *state;
    struct view *v = NULL;
    char name[64], route[8];
    for (unsigned i = 0; i < LINK_MAX_VIEWS; i++) {
        (void)snprintf(name, sizeof name, "dst/default/10.0.%u.%u:80", i / 256, i % 256);
        assert_null(view_get(&r->l, slice_str(name), &v));
        v->idle_since_ms = i < 2 ? i + 1 : 0;
    }
    assert_null(view_get(&r->l, SLICE_LIT("dst/default/a:1"), &v)); /* the idlest made room */
    assert_null(view_find(&r->l, SLICE_LIT("dst/default/10.0.0.0:80")));
    v->idle_since_ms = 0;
    assert_null(view_get(&r->l, SLICE_LIT("dst/default/a:2"), &v));
    v->idle_since_ms = 0;
    struct view *none = NULL;
    assert_ptr_equal(view_get(&r->l, SLICE_LIT("dst/default/a:3"), &none), ERR_OF(LINK_FULL));
    for (unsigned i = 0; i < LINK_MAX_INTERESTS; i++) {
        (void)snprintf(route, sizeof route, "%u", i);
        assert_non_null(view_add_interest(&r->l, v, slice_str(route), "a:2"));
    }
    assert_null(view_add_interest(&r->l, v, SLICE_LIT("more"), "a:2"));
}

/* ---- hints and digests ---- */

static void news_are_fetched_once(void **state)
{
    struct rig *r = *state;
    struct view *v = view_with(r, "dst/default/web:80", 3, "10.0.0.1");
    struct wire_hint h = {.epoch = 7, .topic = SLICE_LIT("dst/default/web:80"), .revision = 4};
    v->is_fresh = v->is_watched = true;
    r->l.epoch = 7;
    session_on_hint(&r->l, &h); /* too early */
    assert_int_equal(r->l.count.fetches, 0);
    r->l.state = LINK_LIVE;
    h.revision = 3;
    session_on_hint(&r->l, &h); /* known */
    h.revision = 4;
    h.epoch = 8;
    session_on_hint(&r->l, &h); /* of another life */
    h.epoch = 7;
    h.topic = SLICE_LIT("dst/default/web:8080");
    session_on_hint(&r->l, &h); /* begins like ours */
    assert_int_equal(r->l.count.fetches, 0);
    h.topic = SLICE_LIT("dst/default/web:80");
    session_on_hint(&r->l, &h);
    session_on_hint(&r->l, &h);
    assert_int_equal(r->l.count.fetches, 1);
    struct wire_topic_digest d[2] = {{.hash = v->hash, .revision = 4},
                                     {.hash = 1, .revision = 9}};
    const struct wire_digest digest = {.epoch = 7, .parts = 1, .n_topics = 2, .topics = d};
    session_on_digest(&r->l, &digest);
    assert_int_equal(r->l.count.fetches, 1); /* it is on its way */
    clock_test_advance(2000);
    session_on_digest(&r->l, &digest); /* it was lost */
    assert_int_equal(r->l.count.fetches, 2);
    assert_true(v->is_watched);
}

static void what_the_broker_forgot_is_watched_again(void **state)
{
    struct rig *r = *state;
    struct view *v = view_with(r, "dst/default/web:80", 3, "10.0.0.1");
    r->l.epoch = 7;
    r->l.state = LINK_LIVE;
    v->is_fresh = v->is_watched = true;
    struct wire_digest first = {.epoch = 7, .part = 0, .parts = 3};
    struct wire_digest last = {.epoch = 7, .part = 2, .parts = 3};
    session_on_digest(&r->l, &first);
    session_on_digest(&r->l, &last); /* the middle is missing: nothing follows */
    assert_int_equal(r->l.count.repaired, 0);
    struct wire_digest whole = {.epoch = 7, .part = 0, .parts = 1};
    session_on_digest(&r->l, &whole);
    assert_int_equal(r->l.count.repaired, 1);
}

/* ---- the snapshot ---- */

static void a_snapshot_is_read_whole_or_not_at_all(void **state)
{
    struct rig *r = *state;
    char path[128];
    uint8_t bytes[4096];
    (void)snprintf(path, sizeof path, "%s/snapshot", r->dir);
    assert_null(snapshot_load(&r->l)); /* none: fine */
    (void)view_with(r, "dst/default/web:80", 3, "10.0.0.1");
    (void)view_with(r, "dst/default/api:80", 9, "10.0.0.2");
    r->l.epoch = 77;
    r->l.incarnation = 5;
    r->l.is_serving = true;
    snapshot_save(&r->l, true);
    view_free_all(&r->l);
    r->l.epoch = 0;
    r->l.incarnation = 6; /* the pod began anew */
    assert_null(snapshot_load(&r->l));
    assert_false(r->l.is_serving);
    view_free_all(&r->l);
    r->l.incarnation = 5;
    assert_null(snapshot_load(&r->l));
    assert_true(r->l.is_serving);
    assert_int_equal(r->l.epoch, 77);
    assert_int_equal(HASH_COUNT(r->l.views), 2);
    struct view *v = view_find(&r->l, SLICE_LIT("dst/default/api:80"));
    assert_int_equal(v->revision, 9);
    assert_false(v->is_fresh);
    view_free_all(&r->l);

    int fd = open(path, O_RDWR);
    ssize_t n = read(fd, bytes, sizeof bytes);
    assert_true(n > 100 && n < (ssize_t)sizeof bytes);
    for (ssize_t at = 0; at < n; at++) { /* any byte changed */
        uint8_t changed = bytes[at] ^ 0x20;
        assert_int_equal(pwrite(fd, &changed, 1, at), 1);
        assert_ptr_equal(snapshot_load(&r->l), ERR_OF(LINK_SNAPSHOT));
        assert_int_equal(HASH_COUNT(r->l.views), 0);
        assert_int_equal(pwrite(fd, &bytes[at], 1, at), 1);
    }
    for (ssize_t len = n - 1; len >= 0; len -= 7) { /* cut anywhere */
        assert_int_equal(ftruncate(fd, len), 0);
        assert_ptr_equal(snapshot_load(&r->l), ERR_OF(LINK_SNAPSHOT));
    }
    (void)close(fd);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_ptr_equal(snapshot_load(&r->l), ERR_OF(LINK_SNAPSHOT));
}

static void a_snapshot_that_lies_is_refused(void **state)
{
    struct rig *r = *state;
    char path[128];
    uint8_t text[80] = "WEFTSNAP\1\0\0\0";
    text[29] = 0xff; /* 255 topics, none there */
    (void)snprintf(path, sizeof path, "%s/snapshot", r->dir);
    (void)SHA256(text, 33, text + 33);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, text, 65), 65);
    (void)close(fd);
    assert_ptr_equal(snapshot_load(&r->l), ERR_OF(LINK_SNAPSHOT));
    text[29] = 0;
    text[8] = 2; /* another version */
    (void)SHA256(text, 33, text + 33);
    fd = open(path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, text, 65), 65);
    (void)close(fd);
    assert_ptr_equal(snapshot_load(&r->l), ERR_OF(LINK_SNAPSHOT));
}

/* ---- keys and tokens ---- */

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
}

static void keys_take_turns_while_there_is_a_token(void **state)
{
    struct rig *r = *state;
    struct creds_pair pair;
    char first[MAILBOX_KEY_TEXT], path[128];
    struct stat st;
    assert_null(creds_load(&r->l));
    (void)snprintf(path, sizeof path, "%s/link.key", r->dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    (void)snprintf(first, sizeof first, "%s", r->l.public_key);
    creds_choose(&r->l, 0, &pair);
    assert_false(pair.is_token); /* there is none */
    r->set.join_token_file = r->token;
    write_text(r->token, "weft1.0123456789abcdef."
                         "77076d0a7318a57d3c16c17251b26645df4cdf5c0f66a8f8d3b9a2c1e0f00102\n");
    creds_choose(&r->l, 0, &pair);
    assert_true(pair.is_token);
    creds_choose(&r->l, 1, &pair);
    assert_false(pair.is_token);
    assert_string_equal(pair.public_key, first);
    creds_joined(&r->l);
    creds_choose(&r->l, 0, &pair);
    assert_false(pair.is_token); /* its own key first, now */
    memset(r->l.public_key, 0, sizeof r->l.public_key);
    r->l.has_joined = false;
    assert_null(creds_load(&r->l));
    assert_string_equal(r->l.public_key, first);
    assert_true(r->l.has_joined);
    creds_forget_token(&r->l);
    assert_false(creds_has_token(&r->l));
    assert_int_equal(chmod(path, 0644), 0);
    assert_ptr_equal(creds_load(&r->l), ERR_OF(LINK_NO_KEY));
    assert_int_equal(chmod(path, 0600), 0);
    write_text(path, "nonsense");
    assert_ptr_equal(creds_load(&r->l), ERR_OF(LINK_NO_KEY));
}

static void tokens_are_read_strictly(void **state)
{
    (void)state;
#define ID  "0123456789abcdef"
#define KEY "77076d0a7318a57d3c16c17251b26645df4cdf5c0f66a8f8d3b9a2c1e0f00102"
    static const struct {
        const char *text;
        bool is_good;
    } cases[] = {
        {"weft1." ID "." KEY, true},
        {"weft1." ID "." KEY "\n", true},
        {"weft1." ID "." KEY "\r\n", true},
        {"", false},
        {"weft1.", false},
        {"weft2." ID "." KEY, false},
        {"weft1." ID "." KEY "0", false},
        {"weft1." ID ":" KEY, false},
        {" weft1." ID "." KEY, false},
        {"weft1.0123456789ABCDEF." KEY, false},
        {"weft1." ID ".7707zd0a7318a57d3c16c17251b26645df4cdf5c0f66a8f8d3b9a2c1e0f00102",
         false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct wire_join join;
        char back[WIRE_JOIN_TEXT];
        if (wire_join_parse(slice_str(cases[i].text), &join) != cases[i].is_good)
            fail_msg("%s", cases[i].text);
        if (cases[i].is_good) {
            wire_join_format(&join, back);
            assert_memory_equal(back, cases[i].text, WIRE_JOIN_TEXT - 1);
        }
    }
    /* The example of ZeroMQ's RFC 32, four times. */
    static const uint8_t hello[8] = {0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B};
    uint8_t key[32];
    char text[41];
    for (int i = 0; i < 4; i++)
        memcpy(key + 8 * i, hello, 8);
    wire_join_z85(key, text);
    assert_string_equal(text, "HelloWorldHelloWorldHelloWorldHelloWorld");
}

/* ---- certificates ---- */

static unsigned held(const struct rig *r)
{
    unsigned n = 0;
    for (unsigned i = 0; i < LINK_SIGNS_MAX; i++)
        n += r->l.signs[i].id != 0 && r->l.signs[i].held != NULL;
    return n;
}

static void a_request_before_the_first_session_is_kept(void **state)
{
    struct rig *r = *state;
    struct wire_certify ask = {.id = 1, .csr = SLICE_LIT("csr"), .token_id = SLICE_LIT("t")};
    r->set.broker = "";
    for (unsigned i = 0; i < LINK_SIGNS_MAX + 3; i++) { /* bounded in number */
        ask.id = i + 1;
        session_certify(&r->l, SLICE_LIT("tls"), &ask);
        assert_int_equal(held(r), i < LINK_SIGNS_MAX ? i + 1 : LINK_SIGNS_MAX);
    }
    clock_test_advance(5900);
    session_tick(&r->l);
    assert_int_equal(held(r), LINK_SIGNS_MAX);
    clock_test_advance(200); /* and in time, before weft-tls gives it up itself */
    session_tick(&r->l);
    assert_int_equal(held(r), 0);
    assert_int_equal(r->l.signs[0].id, 0);
    ask.token_id = SLICE_LIT(""); /* a renewal is not kept */
    session_certify(&r->l, SLICE_LIT("tls"), &ask);
    assert_int_equal(held(r), 0);
    ask.token_id = SLICE_LIT("t");
    r->l.has_had_session = true; /* from then on an absent broker is told at once */
    session_certify(&r->l, SLICE_LIT("tls"), &ask);
    assert_int_equal(held(r), 0);
    assert_int_equal(r->l.signs[0].id, 0);
}

/* ---- who the pod is ---- */

static void served_ports_are_read_strictly(void **state)
{
    struct rig *r = *state;
    static const struct {
        const char *serves, *ips;
        unsigned n;
        bool is_good;
    } cases[] = {
        {"", "", 0, true},
        {"web:80", "10.0.0.1", 1, true},
        {"web:80/http1, web:90/grpc,:25/opaque", "10.0.0.1, fd77::1", 3, true},
        {"web", "", 0, false},
        {"web:", "", 0, false},
        {"web:0", "", 0, false},
        {"web:65536", "", 0, false},
        {"web:80/", "", 0, false},
        {"web:80/http9", "", 0, false},
        {"We b:80", "", 0, false},
        {"web:80;api:90", "", 0, false},
        {"web:80", "10.0.0", 0, false},
        {"web:80", "10.0.0.1/24", 0, false},
        {"web:80", "1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5,1.1.1.6,1.1.1.7,1.1.1.8,1.1.1.9", 0,
         false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        r->set.serves = cases[i].serves;
        r->set.pod_ips = cases[i].ips;
        r->l.n_serves = r->l.n_addresses = 0;
        err_t e = pod_load(&r->l);
        if ((e == OK) != cases[i].is_good)
            fail_msg("%s %s", cases[i].serves, cases[i].ips);
        if (e == OK)
            assert_int_equal(r->l.n_serves, cases[i].n);
    }
    assert_string_equal(r->l.own_topic, "pod/default/web-1");
    r->set.pod = "";
    assert_ptr_equal(pod_load(&r->l), ERR_OF(BAD_SETTING));
}

static void a_target_has_one_topic_however_it_is_spelt(void **state)
{
    struct rig *r = *state;
    static const struct {
        const char *target, *topic;
    } cases[] = {
        {"web:80", "dst/default/web.default.svc.cluster.local:80"},
        {"web.default:80", "dst/default/web.default.svc.cluster.local:80"},
        {"WEB.default.svc.cluster.local:80", "dst/default/web.default.svc.cluster.local:80"},
        {"10.0.0.1:80", "dst/default/10.0.0.1:80"},
        {"[fd77:0:0::1]:80", "dst/default/[fd77::1]:80"},
        {"web", NULL},
        {"", NULL},
        {":80", NULL},
        {"a/b:80", NULL},
        {"web:80:80", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char topic[WIRE_TOPIC_MAX + 1];
        bool is_good = view_topic_of(&r->l, slice_str(cases[i].target), topic);
        assert_int_equal(is_good, cases[i].topic != NULL);
        if (is_good)
            assert_string_equal(topic, cases[i].topic);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_bad_payload_leaves_the_old_one),
        TEST(in_force_is_what_every_user_has_applied),
        TEST(views_and_users_are_limited),
        TEST(news_are_fetched_once),
        TEST(what_the_broker_forgot_is_watched_again),
        TEST(a_snapshot_is_read_whole_or_not_at_all),
        TEST(a_snapshot_that_lies_is_refused),
        TEST(keys_take_turns_while_there_is_a_token),
        TEST(tokens_are_read_strictly),
        TEST(a_request_before_the_first_session_is_kept),
        TEST(served_ports_are_read_strictly),
        TEST(a_target_has_one_topic_however_it_is_spelt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
