/* weft-broker: the topology of the mesh.
 *
 *   FOR       keeps resources, sessions and keys in mesh.db, computes what each pod must know,
 * tells it ANSWERS   links on tcp 8086 (hello, watch, fetch, ack, sign, ...), the CLI on
 * broker.sock (apply, delete, wait, token, feed_key, status) PUBLISHES hints and digests on tcp
 * 8087; STATE/hosts with the services' names HOLDS     mesh.db (its one writer), its CURVE key;
 * no signing key, no certificate key NEEDS     weft-authority for certificates and tokens only
 *   IF IT DIES pods go on with what they know; its restart finds every acknowledged change,
 * sessions resume within their lease, revisions go on from where they were IF SLOW   changes
 * arrive late; no request of the mesh waits for it
 */
#include "broker/control/control.h"
#include "broker/control/desk.h"
#include "broker/control/issuer.h"
#include "broker/control/keys.h"
#include "broker/control/learned.h"
#include "broker/control/links.h"
#include "broker/control/objects.h"
#include "broker/control/services.h"
#include "broker/control/sessions.h"
#include "broker/control/topics.h"
#include "broker/control/views.h"
#include "kit/clock.h"
#include "kit/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define KEEP_HISTORY_MS (30ll * 86400000)
#define TRIM_EVERY_S    60u
#define TRIM_ROWS       500u

static void on_second(void *arg)
{
    struct control *c = arg;
    static const char *const key = "sessions";
    unsigned before = HASH_COUNT(c->sessions);
    sessions_tick(c);
    issuer_tick(c);
    keys_tick(c);
    desk_look_at_waits(c);
    services_write_hosts(c);
    if (clock_now_ms() / 1000 % TRIM_EVERY_S == 0) {
        bool left;
        err_t e =
            mesh_trim(c->mesh, (int64_t)clock_wall_ms() - KEEP_HISTORY_MS, TRIM_ROWS, &left);
        if (e != OK)
            log_warn("history not trimmed", "error=%s", e->name);
    }
    if (before != HASH_COUNT(c->sessions) || clock_now_ms() / 1000 % 10 == 0)
        actor_note(c->actor, key, "%u", HASH_COUNT(c->sessions));
}

static err_t load(struct control *c)
{
    bool was_fresh = false;
    TRY(mesh_open(c->set->state_dir, &c->mesh, &was_fresh));
    TRY(keys_load_own(c));
    TRY(keys_load(c));
    TRY(services_load(c));
    TRY(objects_load(c));
    TRY(learned_load(c));
    TRY(sessions_load(c));
    topics_init(c);
    log_info("store open", "epoch=%016" PRIx64 " revision=%" PRIu64 " fresh=%d sessions=%u",
             mesh_epoch(c->mesh), mesh_revision(c->mesh), was_fresh, HASH_COUNT(c->sessions));
    if (was_fresh)
        control_event(c, "MESH_BEGUN", "mesh", "a new epoch; pods fetch everything again");
    return OK;
}

static err_t start(struct actor *a)
{
    struct control *c = calloc(1, sizeof *c);
    if (c == NULL)
        return ERR_OF(NOMEM);
    a->state = c;
    c->actor = a;
    c->base = a->base;
    c->set = &a->settings;
    c->started_ms = clock_now_ms();
    list_init(&c->staged);
    list_init(&c->waits);
    list_init(&c->dirty);
    TRY(load(c));
    services_write_hosts(c);
    TRY(links_open(c));
    TRY(issuer_open(c));
    TRY(desk_open(c));
    timer_init(&c->second_tick, c->base, on_second, c);
    timer_every(&c->second_tick, 1000);
    return OK;
}

static void confine(struct actor *a, struct confine_spec *out)
{
    struct control *c = a->state;
    static char broker_dir[512], hosts[512];
    (void)snprintf(broker_dir, sizeof broker_dir, "%s/broker", c->set->state_dir);
    (void)snprintf(hosts, sizeof hosts, "%s/hosts", c->set->state_dir);
    out->needs = CONFINE_UNIX | CONFINE_TCP_BIND | CONFINE_FILES;
    out->write_paths[0] = broker_dir;
    out->write_paths[1] = hosts;
    out->write_paths[2] = c->set->run_dir;
    out->max_files = 65536;
    out->max_memory = 4ull << 30;
}

static void stop(struct actor *a)
{
    struct control *c = a->state;
    if (c == NULL)
        return;
    timer_stop(&c->second_tick);
    links_close(c);
    desk_close(c);
    issuer_close(c);
    if (c->mesh != NULL) {
        sessions_free(c); /* and what they watched */
        topics_free(c);
        objects_free(c);
    }
    learned_free(c);
    services_free(c);
    keys_free(c);
    mesh_close(&c->mesh);
    mailbox_shutdown();
    free(c);
    a->state = NULL;
}

int main(int argc, char **argv)
{
    static const struct actor_spec spec = {
        .name = "weft-broker", .start = start, .confine = confine, .stop = stop};
    return actor_run(&spec, argc, argv);
}
