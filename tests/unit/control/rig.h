/* A broker's state in a temporary directory, without sockets, with the clock in the test's
 * hand. */
#ifndef TEST_CONTROL_RIG_H
#define TEST_CONTROL_RIG_H

#include "broker/control/keys.h"
#include "broker/control/learned.h"
#include "broker/control/objects.h"
#include "broker/control/services.h"
#include "broker/control/sessions.h"
#include "broker/control/topics.h"
#include "broker/control/views.h"

#include "../store/store_dir.h"
#include "kit/clock.h"

#include <event2/event.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct rig {
    char dir[64];
    struct settings set;
    struct control c;
};

static inline void rig_open(struct rig *r)
{
    bool fresh;
    memset(&r->c, 0, sizeof r->c);
    r->c.set = &r->set;
    r->c.base = event_base_new();
    list_init(&r->c.staged);
    list_init(&r->c.waits);
    list_init(&r->c.dirty);
    assert_null(mesh_open(r->dir, &r->c.mesh, &fresh));
    assert_null(keys_load(&r->c));
    assert_null(services_load(&r->c));
    assert_null(objects_load(&r->c));
    assert_null(learned_load(&r->c));
    assert_null(sessions_load(&r->c));
    topics_init(&r->c);
}

static inline void rig_close(struct rig *r)
{
    sessions_free(&r->c);
    topics_free(&r->c);
    objects_free(&r->c);
    learned_free(&r->c);
    services_free(&r->c);
    keys_free(&r->c);
    mesh_close(&r->c.mesh);
    event_base_free(r->c.base);
}

static inline int rig_setup(void **state)
{
    char why[200];
    struct rig *r = calloc(1, sizeof *r);
    *state = r;
    clock_test_freeze(1000000, 1800000000000);
    if (settings_load(&r->set, why) != OK)
        return -1;
    r->set.state_dir = store_dir_make(r->dir);
    rig_open(r);
    return 0;
}

static inline int rig_teardown(void **state)
{
    struct rig *r = *state;
    rig_close(r);
    store_dir_clear(r->dir);
    free(r);
    clock_test_thaw();
    return 0;
}

static inline void rig_restart(struct rig *r)
{
    rig_close(r);
    rig_open(r);
}

/* hello of a pod with one address that serves one port (service "" and port 0: nothing). */
static inline err_t rig_hello(struct rig *r, const char *pod, const char *ip,
                              const char *service, uint16_t port, struct session **out)
{
    struct wire_address address = {.ip = slice_str(ip)};
    struct wire_served served = {.service = slice_str(service), .port = port};
    const struct wire_hello h = {.namespace = SLICE_LIT("default"),
                                 .pod = slice_str(pod),
                                 .service_account = SLICE_LIT("sa"),
                                 .workload = SLICE_LIT("work"),
                                 .incarnation = 7,
                                 .n_addresses = 1,
                                 .addresses = &address,
                                 .inbound_port = 4143,
                                 .n_serves = port != 0 ? 1 : 0,
                                 .serves = &served,
                                 .is_serving = true};
    const char *why = NULL;
    char name[MAILBOX_KEY_TEXT];
    (void)snprintf(name, sizeof name, "key-of-%s", pod);
    struct link_key *key = keys_add(&r->c, name, "default", "sa", pod);
    return sessions_hello(&r->c, key, slice_str(pod), &h, out, &why);
}

/* One object applied; its result. */
static inline unsigned rig_apply(struct rig *r, const char *json)
{
    struct wire_object o = {.json = slice_str(json)};
    const struct wire_apply ask = {.author = SLICE_LIT("test"), .n_objects = 1, .objects = &o};
    struct wire_outcome out[64] = {0};
    struct arena arena;
    arena_init(&arena, 0);
    objects_apply(&r->c, &ask, &arena, out);
    unsigned result = out[0].result;
    arena_done(&arena);
    return result;
}

#endif
