#include "rig.h"

#include <sys/stat.h>

static unsigned count(struct rig *r)
{
    return HASH_COUNT(r->c.sessions);
}

static void a_session_lives_as_long_as_its_lease(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    assert_null(rig_hello(r, "web-1", "10.0.0.2", "web", 80, &s));
    assert_int_equal(s->state, SESSION_LIVE);
    assert_string_equal(s->identity, "sa.default.serviceaccount.identity.weft.cluster.local");
    clock_test_advance(r->set.lease - 1);
    sessions_tick(&r->c);
    assert_int_equal(count(r), 1);
    sessions_heard(&r->c, s);
    clock_test_advance(r->set.lease - 1);
    sessions_tick(&r->c);
    assert_int_equal(count(r), 1);
    clock_test_advance(1);
    sessions_tick(&r->c);
    assert_int_equal(count(r), 0);
    assert_int_equal(r->c.count.sessions_lost, 1);
    assert_non_null(services_find(&r->c, "default", "web")); /* its address is kept */
}

static void a_restart_resumes_without_a_change(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    assert_null(rig_hello(r, "web-1", "10.0.0.2", "web", 80, &s));
    uint64_t revision = mesh_revision(r->c.mesh);
    rig_restart(r);
    assert_int_equal(count(r), 1);
    assert_int_equal(r->c.sessions->state, SESSION_RESUMABLE);
    assert_int_equal(r->c.sessions->n_serves, 1);
    assert_string_equal(r->c.sessions->serves[0].service, "web");
    clock_test_advance(r->set.lease + SESSIONS_RESUME_EXTRA_MS - 1);
    sessions_tick(&r->c);
    assert_int_equal(count(r), 1); /* links need a while to come back */
    assert_null(rig_hello(r, "web-1", "10.0.0.2", "web", 80, &s));
    assert_int_equal(s->state, SESSION_LIVE);
    assert_int_equal(mesh_revision(r->c.mesh), revision);
}

static void bad_hellos_are_refused_by_field(void **state)
{
    struct rig *r = *state;
    struct wire_address good_ip = {.ip = SLICE_LIT("10.0.0.1")},
                        bad_ip = {.ip = SLICE_LIT("10.0.0")};
    struct wire_served good = {.service = SLICE_LIT("web"), .port = 80};
    struct wire_served no_port = {.service = SLICE_LIT("web")};
    struct wire_served bad_name = {.service = SLICE_LIT("We b"), .port = 80};
    struct wire_served bad_protocol = {.service = SLICE_LIT("web"), .port = 80, .protocol = 5};
    const struct wire_hello base = {.namespace = SLICE_LIT("default"),
                                    .pod = SLICE_LIT("p"),
                                    .service_account = SLICE_LIT("sa"),
                                    .n_addresses = 1,
                                    .addresses = &good_ip,
                                    .n_serves = 1,
                                    .serves = &good};
    const struct {
        const char *field;
        slice_t text;
        struct wire_address *address;
        struct wire_served *served;
        size_t n_addresses;
    } cases[] = {
        {NULL, {0}, &good_ip, &good, 1},
        {"namespace", SLICE_LIT(""), &good_ip, &good, 1},
        {"namespace", SLICE_LIT("a/b"), &good_ip, &good, 1},
        {"pod", SLICE_LIT(""), &good_ip, &good, 1},
        {"pod", SLICE_LIT("../x"), &good_ip, &good, 1},
        {"service_account", SLICE_LIT("A B"), &good_ip, &good, 1},
        {"workload", SLICE_LIT("a b"), &good_ip, &good, 1},
        {"zone", SLICE_LIT("a\nb"), &good_ip, &good, 1},
        {"addresses", {0}, &good_ip, &good, 0},
        {"addresses", {0}, &bad_ip, &good, 1},
        {"serves", {0}, &good_ip, &no_port, 1},
        {"serves", {0}, &good_ip, &bad_name, 1},
        {"serves", {0}, &good_ip, &bad_protocol, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct wire_hello h = base;
        const char *field = cases[i].field, *why = NULL;
        if (field != NULL && strcmp(field, "namespace") == 0)
            h.namespace = cases[i].text;
        else if (field != NULL && strcmp(field, "pod") == 0)
            h.pod = cases[i].text;
        else if (field != NULL && strcmp(field, "service_account") == 0)
            h.service_account = cases[i].text;
        else if (field != NULL && strcmp(field, "workload") == 0)
            h.workload = cases[i].text;
        else if (field != NULL && strcmp(field, "zone") == 0)
            h.zone = cases[i].text;
        h.addresses = cases[i].address;
        h.n_addresses = cases[i].n_addresses;
        h.serves = cases[i].served;
        err_t e = sessions_check_hello(&h, &why);
        if (field == NULL) {
            assert_null(e);
        } else {
            assert_ptr_equal(e, ERR_OF(BAD_HELLO));
            assert_string_equal(why, field);
        }
    }
    assert_int_equal(count(r), 0);
}

static void a_key_speaks_for_its_pod_only(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    struct wire_address ip = {.ip = SLICE_LIT("10.0.0.1")};
    struct wire_hello h = {.namespace = SLICE_LIT("default"),
                           .pod = SLICE_LIT("other"),
                           .service_account = SLICE_LIT("sa"),
                           .n_addresses = 1,
                           .addresses = &ip};
    struct link_key *key = keys_add(&r->c, "K", "default", "sa", "mine");
    const char *why;
    assert_ptr_equal(sessions_hello(&r->c, key, SLICE_LIT("r"), &h, &s, &why),
                     ERR_OF(WRONG_NAME));
    h.pod = SLICE_LIT("mine");
    h.service_account = SLICE_LIT("root");
    assert_ptr_equal(sessions_hello(&r->c, key, SLICE_LIT("r"), &h, &s, &why),
                     ERR_OF(WRONG_NAME));
    h.service_account = SLICE_LIT("sa");
    assert_null(sessions_hello(&r->c, key, SLICE_LIT("r"), &h, &s, &why));
}

static void a_wrong_clock_is_one_event(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    struct mesh_stats before, after;
    assert_null(rig_hello(r, "web-1", "10.0.0.2", "", 0, &s));
    int64_t now = (int64_t)clock_wall_ms();
    mesh_stats(r->c.mesh, &before);
    sessions_note_clock(&r->c, s, now + 29000);
    mesh_stats(r->c.mesh, &after);
    assert_int_equal(after.commits, before.commits);
    sessions_note_clock(&r->c, s, now - 40000);
    sessions_note_clock(&r->c, s, now - 41000);
    sessions_note_clock(&r->c, s, INT64_MIN);
    sessions_note_clock(&r->c, s, INT64_MAX);
    mesh_stats(r->c.mesh, &after);
    assert_int_equal(after.commits, before.commits + 1);
}

static void services_keep_their_addresses(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    char ip4[46], ip6[46], hosts[128], text[4096];
    assert_null(rig_hello(r, "web-1", "10.0.0.2", "web", 80, &s));
    assert_null(rig_hello(r, "api-1", "10.0.0.3", "api", 80, &s));
    struct service_entry *e = services_find(&r->c, "default", "web");
    assert_string_equal(e->ip4, "10.214.128.1");
    assert_string_equal(e->ip6, "fd77:6566:7400:8000::1");
    assert_ptr_equal(services_by_address(&r->c, "fd77:6566:7400:8000::1"), e);
    (void)snprintf(ip4, sizeof ip4, "%s", e->ip4);
    (void)snprintf(ip6, sizeof ip6, "%s", e->ip6);
    rig_restart(r);
    e = services_find(&r->c, "default", "web");
    assert_string_equal(e->ip4, ip4);
    assert_string_equal(e->ip6, ip6);
    services_write_hosts(&r->c);
    (void)snprintf(hosts, sizeof hosts, "%s/hosts", r->dir);
    FILE *f = fopen(hosts, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    (void)fclose(f);
    assert_non_null(strstr(
        text, "10.214.128.1 web.default.svc.cluster.local web.default.svc web.default web\n"));
    assert_non_null(strstr(text, "fd77:6566:7400:8000::2 api.default.svc.cluster.local"));
}

static void an_exhausted_network_refuses(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    r->set.service_cidr = "10.9.0.0/30"; /* three numbers, the last one is broadcast */
    rig_restart(r);
    assert_null(rig_hello(r, "a-1", "10.0.0.2", "a", 80, &s));
    assert_null(rig_hello(r, "b-1", "10.0.0.3", "b", 80, &s));
    assert_ptr_equal(rig_hello(r, "c-1", "10.0.0.4", "c", 80, &s), ERR_OF(NO_FREE_ADDRESS));
    assert_null(objects_find(&r->c, "Service", "default", "c"));
    assert_int_equal(count(r), 2);
    assert_null(rig_hello(r, "a-2", "10.0.0.5", "a", 80, &s)); /* no new service: it is fine */
}

static void a_bad_network_is_refused(void **state)
{
    struct rig *r = *state;
    static const char *const cases[] = {"",           "10.0.0.0", "10.0.0.0/",    "10.0.0.0/33",
                                        "10.0.0.0/7", "x/16",     "10.0.0.0/16x", "fd00::/64",
                                        "10.0.0.0/-1"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct control c = {.set = &r->set, .mesh = r->c.mesh};
        r->set.service_cidr = cases[i];
        assert_ptr_equal(services_load(&c), ERR_OF(BAD_SETTING));
    }
}

static void our_key_is_made_once_and_guarded(void **state)
{
    struct rig *r = *state;
    char path[128], first[MAILBOX_KEY_TEXT];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/broker/curve.key", r->dir);
    assert_null(keys_load_own(&r->c));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    (void)snprintf(first, sizeof first, "%s", r->c.public_key);
    assert_null(keys_load_own(&r->c));
    assert_string_equal(first, r->c.public_key);
    assert_int_equal(chmod(path, 0640), 0);
    assert_non_null(keys_load_own(&r->c));
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, 50), 0);
    assert_non_null(keys_load_own(&r->c));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 50); /* never overwritten */
}

static void tokens_open_the_door_until_they_expire(void **state)
{
    struct rig *r = *state;
    struct mailbox_peer peer = {.key = "TOKENKEY", .address = "10.0.0.1"};
    char user[64];
    const struct mesh_token row = {.id = SLICE_LIT("0123456789abcdef"),
                                   .public_key = SLICE_LIT("TOKENKEY"),
                                   .ns = SLICE_LIT("default"),
                                   .service_account = SLICE_LIT("sa"),
                                   .expires_ms = (int64_t)clock_wall_ms() + 1000};
    assert_false(keys_allow(&r->c, &peer, user));
    assert_non_null(keys_add_token(&r->c, &row));
    assert_true(keys_allow(&r->c, &peer, user));
    assert_string_equal(user, "T0123456789abcdef");
    assert_non_null(keys_token_of_user(&r->c, user));
    assert_null(keys_of_user(&r->c, user));
    clock_test_advance(1000);
    assert_false(keys_allow(&r->c, &peer, user));
    assert_null(keys_token_of_user(&r->c, "T0123456789abcdef"));
    keys_tick(&r->c);
    assert_int_equal(HASH_CNT(by_id, r->c.tokens_by_id), 0);
    peer.is_ipc = true;
    assert_false(keys_allow(&r->c, &peer, user));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_session_lives_as_long_as_its_lease),
        TEST(a_restart_resumes_without_a_change),
        TEST(bad_hellos_are_refused_by_field),
        TEST(a_key_speaks_for_its_pod_only),
        TEST(a_wrong_clock_is_one_event),
        TEST(services_keep_their_addresses),
        TEST(an_exhausted_network_refuses),
        TEST(a_bad_network_is_refused),
        TEST(our_key_is_made_once_and_guarded),
        TEST(tokens_open_the_door_until_they_expire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
