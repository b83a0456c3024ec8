/* Reading back what is current, at the start of the broker. */
#include "store/mesh_internal.h"

static err_t each_first(struct mesh *m, unsigned id, sqlite3_stmt **s, bool *more)
{
    *more = false;
    *s = db_stmt(&m->db, id);
    return *s != NULL ? db_step(&m->db, *s, more) : ERR_OF(STORE_IO);
}

err_t mesh_each_object(struct mesh *m, void (*fn)(void *, const struct mesh_object *),
                       void *arg)
{
    sqlite3_stmt *s;
    bool more;
    err_t e = each_first(m, MS_OBJECT_EACH, &s, &more);
    for (; more; e = db_step(&m->db, s, &more)) {
        const struct mesh_object row = {.kind = db_text(s, 0),
                                        .ns = db_text(s, 1),
                                        .name = db_text(s, 2),
                                        .json = db_text(s, 3),
                                        .revision = (uint64_t)db_i64(s, 4),
                                        .created = (uint64_t)db_i64(s, 5)};
        fn(arg, &row);
    }
    return e;
}

err_t mesh_each_service(struct mesh *m, void (*fn)(void *, const struct mesh_service *),
                        void *arg)
{
    sqlite3_stmt *s;
    bool more;
    err_t e = each_first(m, MS_SERVICE_EACH, &s, &more);
    for (; more; e = db_step(&m->db, s, &more)) {
        const struct mesh_service row = {.ns = db_text(s, 0),
                                         .name = db_text(s, 1),
                                         .ip4 = db_text(s, 2),
                                         .ip6 = db_text(s, 3),
                                         .owner = db_text(s, 4),
                                         .ports = db_text(s, 5)};
        fn(arg, &row);
    }
    return e;
}

err_t mesh_each_session(struct mesh *m, void (*fn)(void *, const struct mesh_session *),
                        void *arg)
{
    sqlite3_stmt *s;
    bool more;
    err_t e = each_first(m, MS_SESSION_EACH, &s, &more);
    for (; more; e = db_step(&m->db, s, &more)) {
        const struct mesh_session row = {.ns = db_text(s, 0),
                                         .pod = db_text(s, 1),
                                         .workload = db_text(s, 2),
                                         .service_account = db_text(s, 3),
                                         .identity = db_text(s, 4),
                                         .zone = db_text(s, 5),
                                         .version = db_text(s, 6),
                                         .incarnation = (uint64_t)db_i64(s, 7),
                                         .addresses = db_text(s, 8),
                                         .serves = db_text(s, 9),
                                         .public_key = db_text(s, 10),
                                         .inbound_port = (uint16_t)db_i64(s, 11),
                                         .processes = (uint32_t)db_i64(s, 12),
                                         .is_serving = db_i64(s, 13) != 0,
                                         .opened_ms = db_i64(s, 14),
                                         .skew_ms = db_i64(s, 15),
                                         .acked = (uint64_t)db_i64(s, 16),
                                        .app_version = db_text(s, 17),
                                         .weight = (uint32_t)db_i64(s, 18)};
        fn(arg, &row);
    }
    return e;
}

err_t mesh_each_link_key(struct mesh *m, void (*fn)(void *, const struct mesh_key *), void *arg)
{
    sqlite3_stmt *s;
    bool more;
    err_t e = each_first(m, MS_LINK_KEY_EACH, &s, &more);
    for (; more; e = db_step(&m->db, s, &more)) {
        const struct mesh_key row = {.public_key = db_text(s, 0),
                                     .ns = db_text(s, 1),
                                     .service_account = db_text(s, 2),
                                     .pod = db_text(s, 3)};
        fn(arg, &row);
    }
    return e;
}

err_t mesh_each_token(struct mesh *m, int64_t now_ms,
                      void (*fn)(void *, const struct mesh_token *), void *arg)
{
    bool more = false;
    sqlite3_stmt *s = db_stmt(&m->db, MS_TOKEN_EACH);
    if (s == NULL)
        return ERR_OF(STORE_IO);
    db_bind(s, "i", now_ms);
    err_t e = db_step(&m->db, s, &more);
    for (; more; e = db_step(&m->db, s, &more)) {
        const struct mesh_token row = {.id = db_text(s, 0),
                                       .public_key = db_text(s, 1),
                                       .ns = db_text(s, 2),
                                       .service_account = db_text(s, 3),
                                       .expires_ms = db_i64(s, 4),
                                       .used_by = db_text(s, 5)};
        fn(arg, &row);
    }
    return e;
}

err_t mesh_each_learned(struct mesh *m, void (*fn)(void *, const struct mesh_learned *),
                        void *arg)
{
    sqlite3_stmt *s;
    bool more;
    err_t e = each_first(m, MS_LEARNED_EACH, &s, &more);
    for (; more; e = db_step(&m->db, s, &more)) {
        const struct mesh_learned row = {.ns = db_text(s, 0),
                                         .workload = db_text(s, 1),
                                         .port = (uint16_t)db_i64(s, 2),
                                         .protocol = (uint8_t)db_i64(s, 3),
                                         .app_version = db_text(s, 4)};
        fn(arg, &row);
    }
    return e;
}
