/* Writing rows: a current row is ended and a new one begun, in the transaction that is open. */
#include "store/mesh_internal.h"

err_t mesh_put_object(struct mesh *m, const struct mesh_object *o)
{
    TRY(mesh_drop_object(m, o));
    return db_run(&m->db, MS_OBJECT_ADD, "iittttzz", MESH_STAMP(m), o->kind, o->ns, o->name,
                  o->json, m->author, m->reason);
}

err_t mesh_drop_object(struct mesh *m, const struct mesh_object *o)
{
    return db_run(&m->db, MS_OBJECT_END, "iittt", MESH_STAMP(m), o->kind, o->ns, o->name);
}

err_t mesh_put_service(struct mesh *m, const struct mesh_service *s)
{
    TRY(mesh_drop_service(m, s->ns, s->name));
    return db_run(&m->db, MS_SERVICE_ADD, "iitttttt", MESH_STAMP(m), s->ns, s->name, s->ip4,
                  s->ip6, s->owner, s->ports);
}

err_t mesh_drop_service(struct mesh *m, slice_t ns, slice_t name)
{
    return db_run(&m->db, MS_SERVICE_END, "iitt", MESH_STAMP(m), ns, name);
}

err_t mesh_put_endpoint(struct mesh *m, const struct mesh_endpoint *e)
{
    TRY(db_run(&m->db, MS_ENDPOINT_END, "iittitit", MESH_STAMP(m), e->ns, e->service,
               (int64_t)e->port, e->ip, (int64_t)e->target_port, e->source));
    return db_run(&m->db, MS_ENDPOINT_ADD, "iittititittti", MESH_STAMP(m), e->ns, e->service,
                  (int64_t)e->port, e->ip, (int64_t)e->target_port, e->source,
                  (int64_t)e->protocol, e->identity, e->pod, e->zone, (int64_t)e->is_ready);
}

err_t mesh_drop_endpoints_of_pod(struct mesh *m, slice_t pod)
{
    return db_run(&m->db, MS_ENDPOINT_END_POD, "iit", MESH_STAMP(m), pod);
}

err_t mesh_drop_endpoints_of_slices(struct mesh *m, slice_t ns, slice_t service)
{
    return db_run(&m->db, MS_ENDPOINT_END_SLICES, "iitt", MESH_STAMP(m), ns, service);
}

err_t mesh_put_session(struct mesh *m, const struct mesh_session *s)
{
    TRY(mesh_end_session(m, s->ns, s->pod, SLICE_LIT("replaced")));
    return db_run(&m->db, MS_SESSION_ADD,
                  "iitttttttittti"
                  "iiiiiti",
                  MESH_STAMP(m), s->ns, s->pod, s->workload, s->service_account, s->identity,
                  s->zone, s->version, (int64_t)s->incarnation, s->addresses, s->serves,
                  s->public_key, (int64_t)s->inbound_port, (int64_t)s->processes,
                  (int64_t)s->is_serving, s->opened_ms, s->skew_ms, (int64_t)s->acked,
                  s->app_version, (int64_t)s->weight);
}

err_t mesh_end_session(struct mesh *m, slice_t ns, slice_t pod, slice_t why)
{
    return db_run(&m->db, MS_SESSION_END, "iittt", MESH_STAMP(m), why, ns, pod);
}

err_t mesh_note_session(struct mesh *m, slice_t ns, slice_t pod, uint64_t acked,
                        int64_t heard_ms, int64_t skew_ms)
{
    return db_run(&m->db, MS_SESSION_NOTE, "iiitt", (int64_t)acked, heard_ms, skew_ms, ns, pod);
}

err_t mesh_put_link_key(struct mesh *m, const struct mesh_key *k)
{
    TRY(db_run(&m->db, MS_LINK_KEY_END, "iit", MESH_STAMP(m), k->public_key));
    return db_run(&m->db, MS_LINK_KEY_ADD, "iitttt", MESH_STAMP(m), k->public_key, k->ns,
                  k->service_account, k->pod);
}

err_t mesh_drop_link_keys(struct mesh *m, slice_t ns, slice_t pod)
{
    return db_run(&m->db, MS_LINK_KEY_END_POD, "iitt", MESH_STAMP(m), ns, pod);
}

err_t mesh_touch_link_key(struct mesh *m, slice_t public_key, int64_t at_ms)
{
    return db_run(&m->db, MS_LINK_KEY_TOUCH, "ti", public_key, at_ms);
}

err_t mesh_put_feed_key(struct mesh *m, const struct mesh_feed_key *k)
{
    bool was_there;
    TRY(mesh_drop_feed_key(m, k->name, &was_there));
    return db_run(&m->db, MS_FEED_KEY_ADD, "iitt", MESH_STAMP(m), k->name, k->public_key);
}

err_t mesh_drop_feed_key(struct mesh *m, slice_t name, bool *was_there)
{
    TRY(db_run(&m->db, MS_FEED_KEY_END, "iit", MESH_STAMP(m), name));
    *was_there = sqlite3_changes64(m->db.sql) > 0;
    return OK;
}

err_t mesh_put_token(struct mesh *m, const struct mesh_token *t)
{
    return db_run(&m->db, MS_TOKEN_ADD, "tttti", t->id, t->public_key, t->ns,
                  t->service_account, t->expires_ms);
}

err_t mesh_use_token(struct mesh *m, slice_t id, slice_t link_key)
{
    return db_run(&m->db, MS_TOKEN_USE, "tt", id, link_key);
}

err_t mesh_put_certificate(struct mesh *m, const struct mesh_certificate *c)
{
    TRY(db_run(&m->db, MS_CERTIFICATE_END, "iitt", MESH_STAMP(m), c->ns, c->pod));
    return db_run(&m->db, MS_CERTIFICATE_ADD, "iitttttiii", MESH_STAMP(m), c->identity, c->ns,
                  c->pod, c->serial, c->fingerprint, c->issued_ms, c->not_before_ms,
                  c->not_after_ms);
}

err_t mesh_put_learned(struct mesh *m, const struct mesh_learned *l)
{
    TRY(mesh_drop_learned(m, l));
    return db_run(&m->db, MS_LEARNED_ADD, "iittiit", MESH_STAMP(m), l->ns, l->workload,
                  (int64_t)l->port, (int64_t)l->protocol, l->app_version);
}

err_t mesh_drop_learned(struct mesh *m, const struct mesh_learned *l)
{
    return db_run(&m->db, MS_LEARNED_END, "iittit", MESH_STAMP(m), l->ns, l->workload,
                  (int64_t)l->port, l->app_version);
}

/* Cuts at the limit, but never within a UTF-8 character. */
static slice_t cut(slice_t s, size_t max)
{
    if (s.n <= max)
        return s;
    while (max > 0 && (s.p[max] & 0xc0) == 0x80)
        max--;
    return slice(s.p, max);
}

err_t mesh_add_event(struct mesh *m, int64_t at_ms, slice_t kind, slice_t object,
                     slice_t message)
{
    uint64_t revision = m->is_topology ? mesh_next(m) : m->revision;
    return db_run(&m->db, MS_EVENT_ADD, "iittt", (int64_t)revision, at_ms, cut(kind, 48),
                  cut(object, 320), cut(message, 512));
}

err_t mesh_touch(struct mesh *m)
{
    (void)mesh_stamp(m);
    return OK;
}
