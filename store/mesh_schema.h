/* The SQL of mesh.db: migrations and statements. Private to store/. */
#ifndef STORE_MESH_SCHEMA_H
#define STORE_MESH_SCHEMA_H

#define MESH_APPLICATION_ID 0x5766746d /* "Wftm" */

extern const char *const *const mesh_migrations[];

/* What can be asked of the file: STATEMENT(NAME, "SQL"). In every statement that writes a row of the
 * topology ?1 is the revision and ?2 the wall time. */
#define MESH_STATEMENTS                                                                            \
    STATEMENT(META_GET, "SELECT value FROM meta WHERE key=?1")                                     \
    STATEMENT(META_PUT, "INSERT INTO meta(key,value) VALUES(?1,?2)"                                \
                        " ON CONFLICT DO UPDATE SET value=excluded.value")                         \
    STATEMENT(REVISION_LAST, "SELECT max(revision) FROM revisions")                                \
    STATEMENT(REVISION_ADD, "INSERT INTO revisions(revision,at_ms,author,reason)"                  \
                            " VALUES(?1,?2,?3,?4)")                                                \
    STATEMENT(OBJECT_END, "UPDATE objects SET valid_to_rev=?1,to_ms=?2"                            \
                          " WHERE kind=?3 AND ns=?4 AND name=?5 AND valid_to_rev IS NULL")         \
    STATEMENT(OBJECT_ADD, "INSERT INTO objects(valid_from_rev,from_ms,kind,ns,name,json,author,"   \
                          "reason) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)")                               \
    STATEMENT(OBJECT_EACH, "SELECT kind,ns,name,json,valid_from_rev,(SELECT min(p.valid_from_rev)" \
                           " FROM objects p WHERE p.kind=o.kind AND p.ns=o.ns AND p.name=o.name)"  \
                           " FROM objects o WHERE valid_to_rev IS NULL")                           \
    STATEMENT(SERVICE_END, "UPDATE services SET valid_to_rev=?1,to_ms=?2"                          \
                           " WHERE ns=?3 AND name=?4 AND valid_to_rev IS NULL")                    \
    STATEMENT(SERVICE_ADD, "INSERT INTO services(valid_from_rev,from_ms,ns,name,ip4,ip6,owner,"    \
                           "ports) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)")                               \
    STATEMENT(SERVICE_EACH, "SELECT ns,name,ip4,ip6,owner,ports FROM services"                     \
                            " WHERE valid_to_rev IS NULL")                                         \
    STATEMENT(ENDPOINT_END, "UPDATE endpoints SET valid_to_rev=?1,to_ms=?2"                        \
                            " WHERE ns=?3 AND service=?4 AND port=?5 AND ip=?6 AND target_port=?7" \
                            " AND source=?8 AND valid_to_rev IS NULL")                             \
    STATEMENT(ENDPOINT_ADD, "INSERT INTO endpoints(valid_from_rev,from_ms,ns,service,port,ip,"     \
                            "target_port,source,protocol,identity,pod,zone,is_ready)"              \
                            " VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)")                 \
    STATEMENT(ENDPOINT_END_POD, "UPDATE endpoints SET valid_to_rev=?1,to_ms=?2"                    \
                                " WHERE pod=?3 AND source='session' AND valid_to_rev IS NULL")     \
    STATEMENT(ENDPOINT_END_SLICES, "UPDATE endpoints SET valid_to_rev=?1,to_ms=?2"                 \
                                   " WHERE ns=?3 AND service=?4 AND source='slice'"                \
                                   " AND valid_to_rev IS NULL")                                    \
    STATEMENT(SESSION_END, "UPDATE sessions SET valid_to_rev=?1,to_ms=?2,ended_why=?3"             \
                           " WHERE ns=?4 AND pod=?5 AND valid_to_rev IS NULL")                     \
    STATEMENT(SESSION_ADD, "INSERT INTO sessions(valid_from_rev,from_ms,ns,pod,workload,"          \
                           "service_account,identity,zone,version,incarnation,addresses,serves,"   \
                           "public_key,inbound_port,processes,is_serving,opened_ms,skew_ms,acked," \
                           "heard_ms,app_version,weight) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,"   \
                           "?11,?12,?13,?14,?15,?16,?17,?18,?19,?2,?20,?21)")                      \
    STATEMENT(SESSION_NOTE, "UPDATE sessions SET acked=?1,heard_ms=?2,skew_ms=?3"                  \
                            " WHERE ns=?4 AND pod=?5 AND valid_to_rev IS NULL")                    \
    STATEMENT(SESSION_EACH, "SELECT ns,pod,workload,service_account,identity,zone,version,"        \
                            "incarnation,addresses,serves,public_key,inbound_port,processes,"      \
                            "is_serving,opened_ms,skew_ms,acked,app_version,weight FROM sessions"  \
                            " WHERE valid_to_rev IS NULL")                                         \
    STATEMENT(LINK_KEY_ADD, "INSERT INTO curve_keys(valid_from_rev,from_ms,public_key,ns,"         \
                            "service_account,pod,used_ms) VALUES(?1,?2,?3,?4,?5,?6,?2)")           \
    STATEMENT(LINK_KEY_END, "UPDATE curve_keys SET valid_to_rev=?1,to_ms=?2"                       \
                            " WHERE public_key=?3 AND valid_to_rev IS NULL")                       \
    STATEMENT(LINK_KEY_END_POD, "UPDATE curve_keys SET valid_to_rev=?1,to_ms=?2"                   \
                                " WHERE ns=?3 AND pod=?4 AND valid_to_rev IS NULL")                \
    STATEMENT(LINK_KEY_TOUCH, "UPDATE curve_keys SET used_ms=?2"                                   \
                              " WHERE public_key=?1 AND valid_to_rev IS NULL")                     \
    STATEMENT(LINK_KEY_EACH, "SELECT public_key,ns,service_account,pod FROM curve_keys"            \
                             " WHERE valid_to_rev IS NULL")                                        \
    STATEMENT(FEED_KEY_ADD, "INSERT INTO feed_keys(valid_from_rev,from_ms,name,public_key)"        \
                            " VALUES(?1,?2,?3,?4)")                                                \
    STATEMENT(FEED_KEY_END, "UPDATE feed_keys SET valid_to_rev=?1,to_ms=?2"                        \
                            " WHERE name=?3 AND valid_to_rev IS NULL")                             \
    STATEMENT(TOKEN_ADD, "INSERT OR REPLACE INTO join_tokens(id,public_key,ns,service_account,"    \
                         "expires_ms,used_by) VALUES(?1,?2,?3,?4,?5,'')")                          \
    STATEMENT(TOKEN_USE, "UPDATE join_tokens SET used_by=?2 WHERE id=?1")                          \
    STATEMENT(TOKEN_EACH, "SELECT id,public_key,ns,service_account,expires_ms,used_by"             \
                          " FROM join_tokens WHERE expires_ms>?1")                                 \
    STATEMENT(CERTIFICATE_END, "UPDATE certificates SET valid_to_rev=?1,to_ms=?2"                  \
                               " WHERE ns=?3 AND pod=?4 AND valid_to_rev IS NULL")                 \
    STATEMENT(CERTIFICATE_ADD, "INSERT INTO certificates(valid_from_rev,from_ms,identity,ns,pod,"  \
                               "serial,fingerprint,issued_ms,not_before_ms,not_after_ms)"          \
                               " VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)")                          \
    STATEMENT(LEARNED_END, "UPDATE learned SET valid_to_rev=?1,to_ms=?2"                           \
                           " WHERE ns=?3 AND workload=?4 AND port=?5 AND app_version=?6"           \
                           " AND valid_to_rev IS NULL")                                            \
    STATEMENT(LEARNED_ADD, "INSERT INTO learned(valid_from_rev,from_ms,ns,workload,port,protocol," \
                           "app_version) VALUES(?1,?2,?3,?4,?5,?6,?7)")                            \
    STATEMENT(LEARNED_EACH, "SELECT ns,workload,port,protocol,app_version FROM learned"            \
                            " WHERE valid_to_rev IS NULL")                                         \
    STATEMENT(EVENT_ADD, "INSERT INTO events(revision,at_ms,kind,object,message)"                  \
                         " VALUES(?1,?2,?3,?4,?5)")                                                \
    STATEMENT(KEY_FIND, "SELECT 1,ns,pod FROM curve_keys"                                          \
                        " WHERE public_key=?1 AND valid_to_rev IS NULL"                            \
                        " UNION ALL SELECT 2,'',name FROM feed_keys"                               \
                        " WHERE public_key=?1 AND valid_to_rev IS NULL LIMIT 1")

enum mesh_stmt {
#define STATEMENT(name, sql) MS_##name,
    MESH_STATEMENTS
#undef STATEMENT
    MS_N
};
extern const char *const mesh_sql[MS_N];

/* The tables mesh_trim shortens: TRIM(table, "what is old"), ?1 the wall time, ?2 the row limit. */
#define MESH_TRIMS                                                                                 \
    TRIM(objects, "to_ms<?1")                                                                      \
    TRIM(services, "to_ms<?1")                                                                     \
    TRIM(endpoints, "to_ms<?1")                                                                    \
    TRIM(sessions, "to_ms<?1")                                                                     \
    TRIM(certificates, "to_ms<?1")                                                                 \
    TRIM(curve_keys, "to_ms<?1")                                                                   \
    TRIM(feed_keys, "to_ms<?1")                                                                    \
    TRIM(learned, "to_ms<?1")                                                                      \
    TRIM(join_tokens, "expires_ms<?1")                                                             \
    TRIM(revisions, "at_ms<?1 AND revision<(SELECT max(revision) FROM revisions) AND NOT EXISTS("  \
                    "SELECT 1 FROM objects o WHERE o.valid_from_rev=revisions.revision) AND NOT "  \
                    "EXISTS(SELECT 1 FROM objects o WHERE o.valid_to_rev=revisions.revision)")     \
    TRIM(events, "at_ms<?1")

#endif
