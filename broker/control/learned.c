#include "broker/control/learned.h"

#include "broker/control/topics.h"
#include "kit/log.h"

#include <stdio.h>
#include <stdlib.h>

static const char *workload_of(const struct session *s)
{
    return s->workload[0] != '\0' ? s->workload : s->pod;
}

static struct learned_port *find(struct control *c, const char *ns, const char *workload,
                                 uint16_t port, const char *version)
{
    char key[LEARNED_KEY];
    struct learned_port *l;
    (void)snprintf(key, sizeof key, "%s/%s:%u@%s", ns, workload, port, version);
    HASH_FIND_STR(c->learned, key, l);
    return l;
}

enum lesson learned_find(struct control *c, const struct session *s, uint16_t port)
{
    const struct learned_port *l = find(c, s->ns, workload_of(s), port, s->app_version);
    return l != NULL ? l->lesson : LESSON_UNKNOWN;
}

static bool is_of(const struct learned_port *l, const char *ns, const char *workload)
{
    return strcmp(l->ns, ns) == 0 && strcmp(l->workload, workload) == 0;
}

static bool has_room(struct control *c, const struct session *s)
{
    struct learned_port *l, *next;
    unsigned n = 0;
    if (HASH_COUNT(c->learned) >= LEARNED_MAX)
        return false;
    HASH_ITER(hh, c->learned, l, next)
    n += is_of(l, s->ns, workload_of(s)) && strcmp(l->version, s->app_version) == 0 ? 1 : 0;
    return n < LEARNED_PORTS_MAX;
}

static struct learned_port *put(struct control *c, const char *ns, const char *workload,
                                uint16_t port, const char *version)
{
    struct learned_port *l = find(c, ns, workload, port, version);
    if (l == NULL)
        l = calloc(1, sizeof *l);
    if (l == NULL || l->key[0] != '\0')
        return l;
    (void)snprintf(l->key, sizeof l->key, "%s/%s:%u@%s", ns, workload, port, version);
    (void)snprintf(l->ns, sizeof l->ns, "%s", ns);
    (void)snprintf(l->workload, sizeof l->workload, "%s", workload);
    (void)snprintf(l->version, sizeof l->version, "%s", version);
    l->port = port;
    HASH_ADD_STR(c->learned, key, l);
    return l;
}

static void mark(struct control *c, const struct session *s)
{
    char own[330];
    for (unsigned i = 0; i < s->n_serves; i++)
        if (s->serves[i].service[0] != '\0')
            topics_mark_text(c, s->serves[i].service);
    for (unsigned i = 0; i < s->n_addresses; i++)
        topics_mark_text(c, s->addresses[i]);
    (void)snprintf(own, sizeof own, "pod/%s", s->name);
    topics_mark(c, own);
}

/* All pods of the workload: the lesson is theirs, too. */
static void mark_workload(struct control *c, const char *ns, const char *workload)
{
    struct session *s, *next;
    HASH_ITER(hh, c->sessions, s, next)
    if (strcmp(s->ns, ns) == 0 && strcmp(workload_of(s), workload) == 0)
        mark(c, s);
}

err_t learned_add(struct control *c, const struct session *s, uint16_t port, uint8_t protocol)
{
    enum lesson news, old = learned_find(c, s, port);
    if (!lesson_read(protocol, &news) || port == 0)
        return ERR_OF(BAD_REQUEST);
    news = lesson_join(old, news);
    if (news == old)
        return OK;
    if (old == LESSON_UNKNOWN && !has_room(c, s))
        return ERR_OF(BUSY);
    struct learned_port *l = put(c, s->ns, workload_of(s), port, s->app_version);
    if (l == NULL)
        return ERR_OF(NOMEM);
    const struct mesh_learned row = {.ns = slice_str(s->ns),
                                     .workload = slice_str(workload_of(s)),
                                     .port = port,
                                     .app_version = slice_str(s->app_version),
                                     .protocol = lesson_protocol(news)};
    err_t e = control_begin(c, slice_str(s->name), SLICE_LIT("learned"));
    if (e == OK) {
        e = mesh_put_learned(c->mesh, &row);
        if (e == OK)
            e = control_commit(c);
        else
            mesh_rollback(c->mesh);
    }
    if (e == OK)
        l->lesson = news; /* an entry that stays UNKNOWN says nothing */
    mark_workload(c, s->ns, workload_of(s));
    topics_settle(c);
    return e;
}

/* ---- forgetting ---- */

/* Whether it holds for no session any more. */
static bool is_over(struct control *c, const struct learned_port *l)
{
    struct session *s, *next;
    bool is_any = false;
    HASH_ITER(hh, c->sessions, s, next)
    {
        if (!is_of(l, s->ns, workload_of(s)))
            continue;
        if (strcmp(s->app_version, l->version) == 0)
            return false;
        is_any = true;
    }
    return is_any || l->version[0] == '\0';
}

static err_t forget(struct control *c, struct learned_port *l)
{
    const struct mesh_learned row = {.ns = slice_str(l->ns),
                                     .workload = slice_str(l->workload),
                                     .port = l->port,
                                     .app_version = slice_str(l->version)};
    TRY(control_begin(c, slice_str(l->workload), SLICE_LIT("version is gone")));
    err_t e = mesh_drop_learned(c->mesh, &row);
    if (e == OK)
        return control_commit(c);
    mesh_rollback(c->mesh);
    return e;
}

void learned_expire(struct control *c, const struct session *s)
{
    char ns[64], workload[254];
    struct learned_port *l, *next;
    bool is_any = false;
    (void)snprintf(ns, sizeof ns, "%s", s->ns);
    (void)snprintf(workload, sizeof workload, "%s", workload_of(s));
    HASH_ITER(hh, c->learned, l, next)
    {
        if (!is_of(l, ns, workload) || !is_over(c, l) || forget(c, l) != OK)
            continue;
        log_info("lesson forgotten", "workload=%s/%s port=%u version=\"%s\"", ns, workload,
                 l->port, l->version);
        HASH_DEL(c->learned, l);
        free(l);
        is_any = true;
    }
    if (is_any) {
        mark_workload(c, ns, workload);
        topics_settle(c);
    }
}

/* ---- the start and the end ---- */

static void load_one(void *arg, const struct mesh_learned *row)
{
    char ns[64], workload[254], version[129];
    struct learned_port *l;
    enum lesson lesson;
    if (!slice_to_cstr(row->ns, ns, sizeof ns) ||
        !slice_to_cstr(row->workload, workload, sizeof workload) ||
        !slice_to_cstr(row->app_version, version, sizeof version) ||
        !lesson_read(row->protocol, &lesson))
        return;
    l = put(arg, ns, workload, row->port, version);
    if (l != NULL)
        l->lesson = lesson;
}

err_t learned_load(struct control *c)
{
    return mesh_each_learned(c->mesh, load_one, c);
}

void learned_free(struct control *c)
{
    struct learned_port *l, *next;
    HASH_ITER(hh, c->learned, l, next)
    {
        HASH_DEL(c->learned, l);
        free(l);
    }
}
