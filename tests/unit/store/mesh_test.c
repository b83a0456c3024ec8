#include "store/mesh.h"

#include "store/db.h"
#include "store/keys.h"
#include "store/mesh_schema.h"
#include "store_dir.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static char dir[64], file[128];

static int setup(void **state)
{
    (void)state;
    store_dir_make(dir);
    (void)snprintf(file, sizeof file, "%s/%s", dir, MESH_FILE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_dir_clear(dir);
    return 0;
}

static struct mesh *open_it(bool want_fresh)
{
    struct mesh *m = NULL;
    bool fresh = !want_fresh;
    assert_null(mesh_open(dir, &m, &fresh));
    assert_int_equal(fresh, want_fresh);
    return m;
}

static void begin(struct mesh *m, int64_t at_ms)
{
    struct mesh_author who = {
        .author = SLICE_LIT("anna"), .reason = SLICE_LIT("test"), .at_ms = at_ms};
    assert_null(mesh_begin(m, &who));
}

#define LIT(text)                                                                              \
    {                                                                                          \
        (const uint8_t *)("" text), sizeof(text) - 1                                           \
    }
static const struct mesh_object route = {
    .kind = LIT("HTTPRoute"), .ns = LIT("default"), .name = LIT("r"), .json = LIT("{\"a\":1}")};

static void put(struct mesh *m, const char *json, int64_t at_ms)
{
    struct mesh_object o = route;
    o.json = slice_str(json);
    begin(m, at_ms);
    assert_null(mesh_put_object(m, &o));
    assert_null(mesh_commit(m));
}

static int64_t ask(const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;
    assert_null(db_open_reader(dir, MESH_FILE, MESH_APPLICATION_ID, &db));
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    int64_t v = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return v;
}

static void rows_keep_the_time_they_held(void **state)
{
    (void)state;
    struct mesh *m = open_it(true);
    put(m, "{\"v\":1}", 1000);
    put(m, "{\"v\":2}", 2000);
    begin(m, 3000);
    assert_null(mesh_drop_object(m, &route));
    assert_null(mesh_commit(m));
    assert_int_equal(mesh_revision(m), 3);
    assert_int_equal(ask("SELECT count(*) FROM mesh_objects"), 0);
    assert_int_equal(
        ask("SELECT json_extract(json,'$.v') FROM objects"
            " WHERE valid_from_rev<=2 AND (valid_to_rev IS NULL OR valid_to_rev>2)"),
        2);
    assert_int_equal(ask("SELECT count(*) FROM mesh_changes WHERE author='anna'"), 3);
    assert_int_equal(ask("SELECT revision FROM mesh_changes WHERE change='created'"), 1);
    assert_int_equal(ask("SELECT revision FROM mesh_changes WHERE change='changed'"), 2);
    assert_int_equal(ask("SELECT revision FROM mesh_changes WHERE change='deleted'"), 3);
    mesh_close(&m);
}

static void events_make_no_revision(void **state)
{
    (void)state;
    struct mesh *m = open_it(true);
    begin(m, 1);
    assert_null(mesh_add_event(m, 1, SLICE_LIT("KEY_REFUSED"), SLICE_LIT("x"), SLICE_LIT("y")));
    assert_null(mesh_commit(m));
    assert_int_equal(mesh_revision(m), 0);
    assert_int_equal(ask("SELECT count(*) FROM mesh_events"), 1);
    mesh_close(&m);
}

static void every_table_takes_its_row(void **state)
{
    (void)state;
    struct mesh *m = open_it(true);
    struct mesh_service sv = {.ns = SLICE_LIT("d"),
                              .name = SLICE_LIT("web"),
                              .ip4 = SLICE_LIT("10.0.0.1"),
                              .owner = SLICE_LIT("object"),
                              .ports = SLICE_LIT("[]")};
    struct mesh_endpoint ep = {.ns = sv.ns,
                               .service = sv.name,
                               .port = 80,
                               .ip = SLICE_LIT("10.0.0.2"),
                               .target_port = 8080,
                               .source = SLICE_LIT("session"),
                               .protocol = 2,
                               .pod = SLICE_LIT("d/web-1"),
                               .is_ready = true};
    struct mesh_session se = {.ns = sv.ns,
                              .pod = SLICE_LIT("web-1"),
                              .incarnation = UINT64_MAX,
                              .acked = 7,
                              .is_serving = true,
                              .serves = SLICE_LIT("web:80/2"),
                              .app_version = SLICE_LIT("v7")};
    struct mesh_key key = {.public_key = SLICE_LIT("K1"), .ns = sv.ns, .pod = se.pod};
    struct mesh_feed_key feed = {.name = SLICE_LIT("grafana"), .public_key = SLICE_LIT("K2")};
    struct mesh_token token = {
        .id = SLICE_LIT("00"), .public_key = SLICE_LIT("K3"), .expires_ms = 500};
    struct mesh_certificate cert = {.ns = sv.ns, .pod = se.pod, .serial = SLICE_LIT("01")};
    struct mesh_learned learned = {
        .ns = sv.ns, .workload = SLICE_LIT("web"), .port = 80, .protocol = 2};
    struct mesh_learned other = learned;
    bool was_there;

    other.app_version = SLICE_LIT("v8");
    other.protocol = 0;
    for (int round = 0; round < 2; round++) {
        begin(m, 1000 + round);
        assert_null(mesh_put_service(m, &sv));
        assert_null(mesh_put_endpoint(m, &ep));
        assert_null(mesh_put_session(m, &se));
        assert_null(mesh_note_session(m, sv.ns, se.pod, 9, 5, 40000));
        assert_null(mesh_put_link_key(m, &key));
        assert_null(mesh_touch_link_key(m, key.public_key, 1));
        assert_null(mesh_put_feed_key(m, &feed));
        assert_null(mesh_put_token(m, &token));
        assert_null(mesh_use_token(m, token.id, key.public_key));
        assert_null(mesh_put_certificate(m, &cert));
        assert_null(mesh_put_learned(m, &learned));
        assert_null(mesh_put_learned(m, &other));
        assert_null(mesh_put_value(m, "anchors", SLICE_LIT("PEM")));
        assert_null(mesh_commit(m));
    }
    assert_int_equal(mesh_revision(m), 2);
    assert_int_equal(ask("SELECT count(*) FROM mesh_services"), 1);
    assert_int_equal(
        ask("SELECT count(*) FROM mesh_endpoints WHERE protocol='http2' AND ready"), 1);
    assert_int_equal(ask("SELECT acked_revision FROM mesh_sessions"), 9);
    assert_int_equal(ask("SELECT count(*) FROM mesh_certificates"), 2);
    assert_int_equal(ask("SELECT count(*) FROM mesh_certificates WHERE current"), 1);
    assert_int_equal(ask("SELECT count(*) FROM learned WHERE valid_to_rev IS NULL"), 2);
    assert_int_equal(ask("SELECT count(*) FROM mesh_sessions WHERE app_version='v7'"), 1);
    assert_int_equal(ask("SELECT count(*) FROM mesh_ports WHERE source='learned' AND"
                         " (protocol='http2' AND app_version='' OR"
                         " protocol='several' AND app_version='v8')"),
                     2);
    assert_int_equal(ask("SELECT count(*) FROM mesh_ports WHERE source='declared' AND"
                         " workload='web-1' AND protocol='http2'"),
                     1);
    begin(m, 1500);
    assert_null(mesh_drop_learned(m, &other));
    assert_null(mesh_commit(m));
    assert_int_equal(ask("SELECT count(*) FROM mesh_ports WHERE source='learned'"), 1);

    struct keys *keys = NULL;
    struct key_owner who;
    assert_null(keys_open(dir, &keys));
    assert_true(keys_find(keys, "K1", &who));
    assert_int_equal(who.kind, KEY_LINK);
    assert_string_equal(who.name, "web-1");
    assert_true(keys_find(keys, "K2", &who));
    assert_int_equal(who.kind, KEY_FEED);
    assert_false(keys_find(keys, "K3", &who)); /* a join token opens no feed */
    begin(m, 2000);
    assert_null(mesh_drop_feed_key(m, feed.name, &was_there));
    assert_true(was_there);
    assert_null(mesh_drop_feed_key(m, feed.name, &was_there));
    assert_false(was_there);
    assert_null(mesh_drop_endpoints_of_pod(m, ep.pod));
    assert_null(mesh_end_session(m, sv.ns, se.pod, SLICE_LIT("lost")));
    assert_null(mesh_drop_link_keys(m, sv.ns, se.pod));
    assert_null(mesh_drop_service(m, sv.ns, sv.name));
    assert_null(mesh_commit(m));
    assert_false(keys_find(keys, "K2", &who));
    assert_false(keys_find(keys, "K1", &who));
    keys_close(&keys);
    assert_int_equal(ask("SELECT (SELECT count(*) FROM mesh_services)+"
                         "(SELECT count(*) FROM mesh_endpoints)+"
                         "(SELECT count(*) FROM mesh_sessions)"),
                     0);
    mesh_close(&m);
}

static void count_object(void *arg, const struct mesh_object *o)
{
    assert_true(slice_is(o->kind, route.kind));
    assert_int_equal(o->revision, 1);
    *(int *)arg += 1;
}

static void a_restart_finds_the_same_mesh(void **state)
{
    (void)state;
    struct mesh *m = open_it(true);
    uint64_t epoch = mesh_epoch(m);
    int n = 0;
    put(m, "{}", 1);
    mesh_close(&m);
    m = open_it(false);
    assert_true(mesh_epoch(m) == epoch && epoch != 0);
    assert_int_equal(mesh_revision(m), 1);
    assert_null(mesh_each_object(m, count_object, &n));
    assert_int_equal(n, 1);
    mesh_close(&m);
}

/* D-03: what was acknowledged before a kill is there, what was not is not, revisions go on. */
static void a_kill_loses_nothing_acknowledged(void **state)
{
    (void)state;
    for (int kill_after = 0; kill_after < 12; kill_after++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct mesh *m = NULL;
            bool fresh;
            if (mesh_open(dir, &m, &fresh) != OK)
                _exit(1);
            for (int i = 0;; i++) {
                struct mesh_author who = {.at_ms = i};
                if (mesh_begin(m, &who) != OK || mesh_put_object(m, &route) != OK ||
                    mesh_commit(m) != OK)
                    _exit(2);
                uint64_t rev = mesh_revision(m);
                if (write(pipes[1], &rev, sizeof rev) != (ssize_t)sizeof rev)
                    _exit(3);
            }
        }
        (void)close(pipes[1]);
        uint64_t acked = 0, rev;
        for (int i = 0; i <= kill_after; i++)
            if (read(pipes[0], &rev, sizeof rev) == (ssize_t)sizeof rev)
                acked = rev;
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, NULL, 0), child);
        while (read(pipes[0], &rev, sizeof rev) == (ssize_t)sizeof rev)
            acked = rev;
        (void)close(pipes[0]);
        struct mesh *m = open_it(false);
        assert_true(acked > 0 && mesh_revision(m) >= acked && mesh_revision(m) <= acked + 1);
        assert_int_equal(ask("SELECT count(*) FROM mesh_objects"), 1);
        assert_true(ask("SELECT max(revision) FROM revisions") ==
                    ask("SELECT max(valid_from_rev) FROM objects"));
        mesh_close(&m);
    }
}

static void spoil(off_t at, const char *bytes, size_t n)
{
    int fd = open(file, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, n, at), (ssize_t)n);
    (void)close(fd);
}

/* D-04 and D-05: whatever is in the file, the broker starts, and with a new epoch. */
static void a_damaged_file_is_moved_aside(void **state)
{
    (void)state;
    static char junk[8192];
    memset(junk, 'x', sizeof junk);
    for (int kind = 0; kind < 5; kind++) {
        struct mesh *m = NULL;
        bool fresh;
        assert_null(mesh_open(dir, &m, &fresh));
        uint64_t epoch = mesh_epoch(m);
        put(m, "{}", 1);
        mesh_close(&m);
        switch (kind) {
        case 0:
            spoil(0, junk, 100); /* header */
            break;
        case 1:
            spoil(4096, junk, sizeof junk); /* pages */
            break;
        case 2:
            assert_int_equal(truncate(file, 5000), 0);
            break;
        case 3:
            spoil(68, "\1\2\3\4", 4); /* application_id */
            break;
        default:
            assert_int_equal(truncate(file, 0), 0);
            break;
        }
        m = open_it(true);
        assert_true(mesh_epoch(m) != epoch);
        assert_int_equal(mesh_revision(m), 0);
        put(m, "{}", 2);
        mesh_close(&m);
    }
    char broker[80];
    (void)snprintf(broker, sizeof broker, "%s/broker", dir);
    assert_true(store_dir_count(broker, "mesh.db.damaged-") >= 1);
}

static void a_newer_schema_is_left_alone(void **state)
{
    (void)state;
    struct mesh *m = open_it(true);
    bool fresh;
    mesh_close(&m);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(file, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_ptr_equal(mesh_open(dir, &m, &fresh), ERR_OF(STORE_NEWER));
    assert_null(m);
    assert_int_equal(ask("PRAGMA user_version"), 99);
}

static void a_wrong_place_is_refused(void **state)
{
    (void)state;
    struct mesh *m = open_it(true), *other = NULL;
    bool fresh;
    char real[160];
    assert_ptr_equal(mesh_open(dir, &other, &fresh), ERR_OF(STORE_LOCKED)); /* D-06 */
    mesh_close(&m);
    assert_int_equal(chmod(file, 0666), 0);
    assert_ptr_equal(mesh_open(dir, &m, &fresh), ERR_OF(STORE_PLACE));
    assert_int_equal(chmod(file, 0600), 0);
    (void)snprintf(real, sizeof real, "%s.real", file);
    assert_int_equal(rename(file, real), 0);
    assert_int_equal(symlink(real, file), 0);
    assert_ptr_equal(mesh_open(dir, &m, &fresh), ERR_OF(STORE_PLACE)); /* D-11 */
    assert_int_equal(unlink(file), 0);
    assert_int_equal(mkdir(file, 0700), 0);
    assert_ptr_equal(mesh_open(dir, &m, &fresh), ERR_OF(STORE_PLACE));
}

/* D-01: a full disk refuses the change whole, and the next one works when there is room. */
static void a_full_disk_refuses_the_change(void **state)
{
    (void)state;
    struct mesh *m = open_it(true);
    struct rlimit old, tight;
    static char big[300000];
    struct mesh_object o = route;
    memset(big, 'y', sizeof big);
    o.json = slice(big, sizeof big);
    put(m, "{\"v\":1}", 1);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = 200000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    begin(m, 2);
    err_t e = mesh_put_object(m, &o);
    if (e == OK)
        e = mesh_commit(m);
    mesh_rollback(m);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_non_null(e);
    assert_int_equal(mesh_revision(m), 1);
    assert_int_equal(ask("SELECT length(json) FROM mesh_objects"), 7);
    put(m, "{\"v\":2}", 3);
    assert_int_equal(mesh_revision(m), 2);
    mesh_close(&m);
}

/* The journal decision of store.md: a reader in the middle of a long read neither stops a
 * commit nor is stopped by it. */
static void a_reader_does_not_hold_up_the_writer(void **state)
{
    (void)state;
    struct mesh *m = open_it(true);
    sqlite3 *reader;
    sqlite3_stmt *s;
    put(m, "{}", 1);
    assert_int_equal(sqlite3_open_v2(file, &reader, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(reader, "SELECT * FROM mesh_changes,revisions", -1, &s, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    for (int i = 0; i < 50; i++)
        put(m, "{\"n\":1}", 2 + i);
    assert_int_equal(mesh_revision(m), 51);
    assert_int_equal(sqlite3_step(s), SQLITE_DONE); /* it saw its own moment */
    sqlite3_finalize(s);
    sqlite3_close(reader);
    assert_int_equal(ask("SELECT count(*) FROM mesh_changes"), 51);
    mesh_close(&m);
}

/* `sqlite3 FILE` without -readonly that only reads: it is not the last connection, so that it
 * must not checkpoint when it ends (section 0, fact 11 of the hardening notes). */
static void a_writable_shell_that_reads_never_checkpoints(void **state)
{
    (void)state;
    struct mesh *m = open_it(true);
    sqlite3 *shell;
    char wal[160];
    struct stat before, after;
    (void)snprintf(wal, sizeof wal, "%s-wal", file);
    put(m, "{}", 1);
    assert_int_equal(stat(wal, &before), 0);
    assert_true(before.st_size > 0);
    assert_int_equal(sqlite3_open(file, &shell), SQLITE_OK);
    assert_int_equal(sqlite3_exec(shell, "SELECT * FROM mesh_changes", NULL, NULL, NULL),
                     SQLITE_OK);
    struct stat db_before, db_after;
    assert_int_equal(stat(file, &db_before), 0);
    sqlite3_close(shell);
    assert_int_equal(stat(wal, &after), 0);
    assert_int_equal(stat(file, &db_after), 0);
    assert_true(after.st_size == before.st_size &&
                db_after.st_mtim.tv_nsec == db_before.st_mtim.tv_nsec);
    mesh_close(&m);
}

static void history_is_trimmed_in_bounded_steps(void **state)
{
    (void)state;
    struct mesh *m = open_it(true);
    bool left = true;
    int calls = 0;
    for (int i = 0; i < 30; i++)
        put(m, "{}", 1000 + i);
    while (left) {
        assert_null(mesh_trim(m, 1020, 7, &left));
        assert_true(++calls < 20);
    }
    assert_true(calls >= 5);
    assert_int_equal(ask("SELECT count(*) FROM objects"),
                     11); /* 10 that ended later, 1 current */
    assert_int_equal(ask("SELECT max(revision) FROM revisions"), 30);
    assert_int_equal(mesh_revision(m), 30);
    mesh_close(&m);
    m = open_it(false);
    assert_int_equal(mesh_revision(m), 30);
    mesh_close(&m);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(rows_keep_the_time_they_held),
        TEST(events_make_no_revision),
        TEST(every_table_takes_its_row),
        TEST(a_restart_finds_the_same_mesh),
        TEST(a_kill_loses_nothing_acknowledged),
        TEST(a_damaged_file_is_moved_aside),
        TEST(a_newer_schema_is_left_alone),
        TEST(a_wrong_place_is_refused),
        TEST(a_full_disk_refuses_the_change),
        TEST(a_reader_does_not_hold_up_the_writer),
        TEST(a_writable_shell_that_reads_never_checkpoints),
        TEST(history_is_trimmed_in_bounded_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
