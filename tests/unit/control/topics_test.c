#include "rig.h"

#include "wire/topic.h"

#include <signal.h>
#include <sys/resource.h>

#define SERVICE(name, port)                                                                    \
    "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"" name               \
    "\"},\"spec\":{\"ports\":[{\"port\":" port "}]}}"

static struct topic *watch(struct rig *r, struct session *s, const char *name)
{
    struct topic *t = NULL;
    assert_null(topics_watch(&r->c, s, slice_str(name), &t));
    return t;
}

static void a_topic_moves_only_when_its_bytes_do(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    assert_null(rig_hello(r, "a-1", "10.0.0.9", "", 0, &s));
    struct topic *api = watch(r, s, "dst/default/api.default.svc.cluster.local:80");
    struct topic *trust = watch(r, s, "trust");
    uint64_t before = api->revision, trust_before = trust->revision;
    assert_true(before > 0);
    assert_int_equal(rig_apply(r, SERVICE("elsewhere", "80")), 0);
    topics_run_dirty(&r->c);
    assert_int_equal(api->revision, before);
    assert_int_equal(rig_apply(r, SERVICE("api", "80")), 0);
    assert_true(api->is_dirty);
    assert_true(r->c.settled < mesh_revision(r->c.mesh)); /* not told before it was computed */
    topics_run_dirty(&r->c);
    assert_int_equal(api->revision, mesh_revision(r->c.mesh));
    assert_int_equal(trust->revision, trust_before);
    assert_int_equal(r->c.settled, mesh_revision(r->c.mesh));
}

/* What has no service of its own says nothing about anybody's view. */
static void a_pod_that_serves_nothing_moves_no_view(void **state)
{
    static const struct {
        const char *pod, *ip, *service;
        uint16_t port;
        bool is_api_touched;
    } cases[] = {
        {"none-1", "10.0.1.1", "", 0, false},        /* serves nothing */
        {"none-2", "10.0.1.2", "", 8080, false},     /* a port of no service */
        {"other-1", "10.0.1.3", "other", 80, false}, /* something else */
        {"api-1", "10.0.1.4", "api", 80, true},
    };
    struct rig *r = *state;
    struct session *s = NULL, *one = NULL;
    assert_null(rig_hello(r, "a-1", "10.0.0.9", "", 0, &s));
    assert_int_equal(rig_apply(r, SERVICE("api", "80")), 0);
    assert_int_equal(rig_apply(r, SERVICE("web", "80")), 0);
    struct topic *api = watch(r, s, "dst/default/api.default.svc.cluster.local:80");
    struct topic *web = watch(r, s, "dst/default/web.default.svc.cluster.local:80");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        topics_run_dirty(&r->c);
        uint64_t computed = r->c.count.topics_computed;
        assert_null(rig_hello(r, cases[i].pod, cases[i].ip, cases[i].service, cases[i].port, &one));
        assert_int_equal(api->is_dirty, cases[i].is_api_touched);
        assert_false(web->is_dirty);
        topics_run_dirty(&r->c);
        assert_int_equal(r->c.count.topics_computed - computed, cases[i].is_api_touched);
    }
}

static void the_sum_tells_who_has_caught_up(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    assert_null(rig_hello(r, "a-1", "10.0.0.9", "", 0, &s));
    assert_true(topics_is_caught_up(&r->c, s)); /* watches nothing */
    struct topic *api = watch(r, s, "dst/default/api.default.svc.cluster.local:80");
    struct topic *trust = watch(r, s, "trust");
    assert_false(topics_is_caught_up(&r->c, s));
    s->have =
        wire_topic_mix(trust->hash, trust->revision) + wire_topic_mix(api->hash, api->revision);
    assert_true(topics_is_caught_up(&r->c, s));
    assert_int_equal(s->acked, r->c.settled);
    uint64_t acked = s->acked;
    assert_int_equal(rig_apply(r, SERVICE("api", "80")), 0);
    topics_run_dirty(&r->c);
    assert_false(topics_is_caught_up(&r->c, s));
    assert_int_equal(s->acked, acked);
    topics_unwatch(&r->c, s, slice_str("dst/default/api.default.svc.cluster.local:80"));
    assert_false(topics_is_caught_up(&r->c, s));
    s->have = wire_topic_mix(trust->hash, trust->revision);
    assert_true(topics_is_caught_up(&r->c, s));
    topics_unwatch_all(&r->c, s);
    assert_int_equal(HASH_COUNT(r->c.topics), 0);
    assert_int_equal(s->want, 0);
}

static void what_may_be_watched(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    struct topic *t = NULL;
    static const struct {
        const char *name;
        bool is_good;
    } cases[] = {
        {"trust", true},
        {"pod/default/a-1", true},
        {"dst/default/api.default.svc.cluster.local:80", true},
        {"dst/default/10.0.0.1:80", true},
        {"dst/default/[fd77::1]:80", true},
        {"", false},
        {"trust2", false},
        {"pod/default/a-2", false},
        {"pod/other/a-1", false},
        {"dst/other/api:80", false},
        {"dst/default/", false},
        {"dst/default/api", false},
        {"dst/default/api:0", false},
        {"dst/default/api:99999", false},
        {"dst/", false},
        {"digest", false},
    };
    assert_null(rig_hello(r, "a-1", "10.0.0.9", "", 0, &s));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        err_t e = topics_watch(&r->c, s, slice_str(cases[i].name), &t);
        if ((e == OK) != cases[i].is_good)
            fail_msg("%s: %s", cases[i].name, e != OK ? e->name : "OK");
    }
}

static void watches_are_limited(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    struct topic *t = NULL;
    err_t e = OK;
    unsigned n = 0;
    assert_null(rig_hello(r, "a-1", "10.0.0.9", "", 0, &s));
    for (; e == OK && n < CONTROL_MAX_WATCHES + 10; n++) {
        char name[64];
        (void)snprintf(name, sizeof name, "dst/default/10.%u.%u.1:80", n / 256, n % 256);
        e = topics_watch(&r->c, s, slice_str(name), &t);
    }
    assert_ptr_equal(e, ERR_OF(TOO_MANY_TOPICS));
    assert_int_equal(s->n_watches, CONTROL_MAX_WATCHES);
}

static void revisions_go_on_after_a_restart(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    const char *name = "dst/default/api.default.svc.cluster.local:80";
    assert_null(rig_hello(r, "a-1", "10.0.0.9", "", 0, &s));
    assert_int_equal(rig_apply(r, SERVICE("api", "80")), 0);
    struct topic *t = watch(r, s, name);
    uint64_t held = t->revision, epoch = mesh_epoch(r->c.mesh);
    uint8_t bytes[65536];
    size_t n = t->n_payload;
    assert_true(n <= sizeof bytes);
    memcpy(bytes, t->payload, n);
    rig_restart(r);
    assert_true(mesh_epoch(r->c.mesh) == epoch);
    assert_null(rig_hello(r, "a-1", "10.0.0.9", "", 0, &s));
    t = watch(r, s, name);
    assert_true(t->revision >= held);
    assert_true(slice_is(slice(t->payload, t->n_payload), slice(bytes, n)));
}

/* D-01: nobody is told of a change that was not stored. */
static void a_change_that_is_not_stored_is_not_told(void **state)
{
    struct rig *r = *state;
    struct session *s = NULL;
    struct rlimit old, tight;
    assert_null(rig_hello(r, "a-1", "10.0.0.9", "", 0, &s));
    struct topic *t = watch(r, s, "dst/default/api.default.svc.cluster.local:80");
    uint64_t revision = mesh_revision(r->c.mesh), before = t->revision;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = 4096;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    unsigned result = rig_apply(r, SERVICE("api", "80"));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(result, 4);
    topics_run_dirty(&r->c);
    assert_int_equal(mesh_revision(r->c.mesh), revision);
    assert_int_equal(t->revision, before);
    assert_null(objects_find(&r->c, "Service", "default", "api"));
    assert_null(services_find(&r->c, "default", "api"));
    assert_int_equal(rig_apply(r, SERVICE("api", "80")), 0); /* and there is room again */
    assert_int_equal(mesh_revision(r->c.mesh), revision + 1);
}

/* ---- more endpoints than fit ---- */

#define MANY 2400

static struct buf own_part(struct rig *r, const struct topic *t, const struct session *s)
{
    struct buf b;
    slice_t p = topics_payload(&r->c, t, s, &b);
    assert_true(p.n > 200000 && p.n <= 245760);
    assert_ptr_equal(p.p, buf_slice(&b).p); /* its own, not the shared one */
    return b;
}

/* Which of the MANY endpoints are in it. */
static unsigned read_part(struct buf *b, bool has[MANY])
{
    struct wire_msg m;
    unsigned n;
    memset(has, 0, MANY);
    assert_null(wire_decode(buf_slice(b), WIRE_ROLE_LINK, WIRE_ROLE_PROXY, &m));
    assert_int_equal(m.code, WIRE_destination);
    assert_int_equal(m.body.destination.n_backends, 1);
    const struct wire_backend *be = &m.body.destination.backends[0];
    n = (unsigned)be->n_endpoints;
    for (size_t i = 0; i < n; i++) {
        char ip[46];
        unsigned x, y;
        assert_true(slice_to_cstr(be->endpoints[i].ip, ip, sizeof ip));
        assert_int_equal(sscanf(ip, "10.2.%u.%u", &x, &y), 2);
        assert_true(x * 100 + y < MANY && !has[x * 100 + y]);
        has[x * 100 + y] = true;
    }
    wire_msg_done(&m);
    buf_done(b);
    return n;
}

static unsigned same(const bool a[MANY], const bool b[MANY])
{
    unsigned n = 0;
    for (unsigned i = 0; i < MANY; i++)
        n += a[i] && b[i] ? 1 : 0;
    return n;
}

static void a_view_too_large_is_a_part_per_pod(void **state)
{
    static bool a[MANY], b[MANY], again[MANY];
    struct rig *r = *state;
    struct session *s = NULL, *other = NULL, *one = NULL;
    char pod[34], name[64], ip[32];
    for (unsigned i = 0; i < MANY; i++) {
        (void)snprintf(pod, sizeof pod, "a-rather-long-pod-name-%u", i);
        (void)snprintf(ip, sizeof ip, "10.2.%u.%u", i / 100, i % 100);
        assert_null(rig_hello(r, pod, ip, "big", 80, &one));
    }
    assert_null(rig_hello(r, "client-a", "10.3.0.1", "", 0, &s));
    assert_null(rig_hello(r, "client-b", "10.3.0.2", "", 0, &other));
    struct topic *t = watch(r, s, "dst/default/big.default.svc.cluster.local:80");
    assert_ptr_equal(watch(r, other, t->name), t);
    assert_true(t->payload != NULL && t->cut.whole != 0);
    assert_int_equal(r->c.count.topics_cut, 1);
    struct buf part = own_part(r, t, s);
    unsigned n = read_part(&part, a);
    assert_true(n >= 1000 && n + t->cut.left_out <= MANY + MANY / 8);
    part = own_part(r, t, s);
    assert_int_equal(read_part(&part, again), n);
    assert_int_equal(same(a, again), n); /* stable */
    part = own_part(r, t, other);
    (void)read_part(&part, b);
    assert_true(same(a, b) < n * 9 / 10); /* and another pod's is another */

    /* One that leaves moves the revision, whether or not it is in the shared payload, and takes
     * only its own place. */
    for (unsigned i = 0; i < 3; i++) {
        uint64_t before = t->revision;
        (void)snprintf(name, sizeof name, "default/a-rather-long-pod-name-%u", i);
        struct session *gone = NULL;
        HASH_FIND_STR(r->c.sessions, name, gone);
        assert_non_null(gone);
        assert_null(sessions_set_serving(&r->c, gone, false));
        topics_run_dirty(&r->c);
        assert_true(t->revision > before);
        part = own_part(r, t, s);
        assert_true(read_part(&part, again) >= n - 1);
        assert_false(again[i]);
        assert_true(same(a, again) >= n - 1 - i);
    }
    assert_int_equal(r->c.count.topics_cut, 1); /* told once */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_topic_moves_only_when_its_bytes_do),
        TEST(a_pod_that_serves_nothing_moves_no_view),
        TEST(the_sum_tells_who_has_caught_up),
        TEST(what_may_be_watched),
        TEST(watches_are_limited),
        TEST(revisions_go_on_after_a_restart),
        TEST(a_change_that_is_not_stored_is_not_told),
        TEST(a_view_too_large_is_a_part_per_pod),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
