/* What pods say of their ports: kept per version of the application, published, forgotten. */
#include "rig.h"

#include "wire/wire.h"

static struct session *hello(struct rig *r, const char *pod, const char *ip, const char *version)
{
    struct wire_address address = {.ip = slice_str(ip)};
    struct wire_served served = {.service = SLICE_LIT("db"), .port = 3306};
    const struct wire_hello h = {.namespace = SLICE_LIT("default"),
                                 .pod = slice_str(pod),
                                 .service_account = SLICE_LIT("sa"),
                                 .workload = SLICE_LIT("db"),
                                 .incarnation = 7,
                                 .n_addresses = 1,
                                 .addresses = &address,
                                 .inbound_port = 4143,
                                 .n_serves = 1,
                                 .serves = &served,
                                 .is_serving = true,
                                 .app_version = slice_str(version)};
    struct session *s = NULL;
    const char *why = NULL;
    char name[MAILBOX_KEY_TEXT];

    (void)snprintf(name, sizeof name, "key-of-%s", pod);
    struct link_key *key = keys_find(&r->c, name);
    if (key == NULL)
        key = keys_add(&r->c, name, "default", "sa", pod);
    assert_null(sessions_hello(&r->c, key, slice_str(pod), &h, &s, &why));
    return s;
}

/* What the view of the service tells a client: its protocol and the lesson. */
static void look(struct rig *r, uint8_t *protocol, uint8_t *lesson)
{
    struct view_cut cut = {0};
    struct wire_msg m;
    struct buf b;

    buf_init(&b, 0);
    assert_null(views_compute(&r->c, SLICE_LIT("dst/default/db.default.svc.cluster.local:3306"),
                              SLICE_LIT(""), &cut, &b));
    assert_null(wire_decode(buf_slice(&b), WIRE_ROLE_LINK, WIRE_ROLE_PROXY, &m));
    const struct wire_destination *d = wire_as(destination, &m);
    if (d == NULL) {
        fail();
    } else {
        *protocol = d->protocol;
        *lesson = d->lesson;
    }
    wire_msg_done(&m);
    buf_done(&b);
}

static uint8_t lesson(struct rig *r)
{
    uint8_t p, l;

    look(r, &p, &l);
    return l;
}

static void a_lesson_is_published_and_survives_a_restart(void **state)
{
    struct rig *r = *state;
    struct session *s = hello(r, "db-1", "10.0.0.1", "1");
    uint64_t before;

    assert_int_equal(lesson(r), 0);
    assert_null(learned_add(&r->c, s, 3306, 4));
    assert_int_equal(lesson(r), 4);
    before = mesh_revision(r->c.mesh);
    assert_null(learned_add(&r->c, s, 3306, 4)); /* no news: no revision */
    assert_int_equal(mesh_revision(r->c.mesh), before);
    (void)hello(r, "db-2", "10.0.0.2", "1"); /* a further replica knows it, too */
    assert_int_equal(lesson(r), 4);
    rig_restart(r);
    assert_int_equal(lesson(r), 4);
}

static void what_differs_is_several_for_ever(void **state)
{
    struct rig *r = *state;
    struct session *a = hello(r, "db-1", "10.0.0.1", "1"), *b = hello(r, "db-2", "10.0.0.2", "1");

    assert_null(learned_add(&r->c, a, 3306, 1));
    assert_null(learned_add(&r->c, b, 3306, 4));
    assert_int_equal(lesson(r), 0);
    for (uint8_t p = 0; p <= 4; p++)
        assert_null(learned_add(&r->c, a, 3306, p));
    assert_int_equal(lesson(r), 0);
    rig_restart(r);
    assert_int_equal(lesson(r), 0);
}

static void a_new_version_is_learned_anew(void **state)
{
    struct rig *r = *state;
    struct session *old = hello(r, "db-1", "10.0.0.1", "1");

    assert_null(learned_add(&r->c, old, 3306, 4));
    struct session *new = hello(r, "db-2", "10.0.0.2", "2");
    assert_int_equal(lesson(r), 0); /* of one of them nothing is known */
    assert_null(learned_add(&r->c, new, 3306, 4));
    assert_int_equal(lesson(r), 4);
    assert_int_equal(HASH_COUNT(r->c.learned), 2);
    sessions_end(&r->c, old, "bye");
    assert_int_equal(HASH_COUNT(r->c.learned), 1);
    /* The same pod with another version. */
    (void)hello(r, "db-2", "10.0.0.2", "3");
    assert_int_equal(HASH_COUNT(r->c.learned), 0);
    assert_int_equal(lesson(r), 0);
    rig_restart(r);
    assert_int_equal(HASH_COUNT(r->c.learned), 0);
}

static void without_pods_a_named_version_is_remembered(void **state)
{
    struct rig *r = *state;
    struct session *s = hello(r, "db-1", "10.0.0.1", "1");

    assert_null(learned_add(&r->c, s, 3306, 4));
    sessions_end(&r->c, s, "bye");
    s = hello(r, "db-3", "10.0.0.3", "1");
    assert_int_equal(lesson(r), 4);
    sessions_end(&r->c, s, "bye");
    s = hello(r, "db-4", "10.0.0.4", "");
    assert_int_equal(HASH_COUNT(r->c.learned), 0);
    assert_null(learned_add(&r->c, s, 3306, 4));
    sessions_end(&r->c, s, "lease");
    assert_int_equal(HASH_COUNT(r->c.learned), 0); /* no version: nothing says it is the same */
}

static void who_says_something_wins(void **state)
{
    struct rig *r = *state;
    struct session *s = hello(r, "db-1", "10.0.0.1", "1");
    uint8_t p, l;

    assert_null(learned_add(&r->c, s, 3306, 4));
    assert_int_equal(rig_apply(r, "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{"
                                  "\"name\":\"db\"},\"spec\":{\"ports\":[{\"port\":3306,"
                                  "\"appProtocol\":\"http\"}]}}"),
                     1);
    look(r, &p, &l);
    assert_int_equal(p, 1);
    assert_int_equal(l, 0);
}

static void nonsense_is_refused(void **state)
{
    struct rig *r = *state;
    struct session *s = hello(r, "db-1", "10.0.0.1", "1");

    assert_ptr_equal(learned_add(&r->c, s, 0, 4), ERR_OF(BAD_REQUEST));
    assert_ptr_equal(learned_add(&r->c, s, 3306, 5), ERR_OF(BAD_REQUEST));
    assert_ptr_equal(learned_add(&r->c, s, 3306, 255), ERR_OF(BAD_REQUEST));
    for (uint16_t port = 1; port <= LEARNED_PORTS_MAX; port++)
        assert_null(learned_add(&r->c, s, port, 4));
    assert_ptr_equal(learned_add(&r->c, s, 3306, 4), ERR_OF(BUSY));
    assert_null(learned_add(&r->c, s, 1, 1)); /* what is known may change */
    assert_int_equal(HASH_COUNT(r->c.learned), LEARNED_PORTS_MAX);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_lesson_is_published_and_survives_a_restart),
        TEST(what_differs_is_several_for_ever),
        TEST(a_new_version_is_learned_anew),
        TEST(without_pods_a_named_version_is_remembered),
        TEST(who_says_something_wins),
        TEST(nonsense_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
