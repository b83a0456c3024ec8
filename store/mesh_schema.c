#include "store/mesh_schema.h"

#include <stddef.h>

/* The time a row held: from a revision until (not including) another; NULL = it still holds. */
#define HELD                                                                                       \
    " id INTEGER PRIMARY KEY,"                                                                     \
    " valid_from_rev INTEGER NOT NULL, valid_to_rev INTEGER,"                                      \
    " from_ms INTEGER NOT NULL, to_ms INTEGER,"

/* At most one current row per key, and a way to the ended ones for mesh_trim. */
#define HELD_INDEXES(table, key)                                                                   \
    "CREATE UNIQUE INDEX " #table "_now ON " #table "(" key ") WHERE valid_to_rev IS NULL;"        \
    "CREATE INDEX " #table "_ended ON " #table "(to_ms) WHERE to_ms IS NOT NULL;"

#define TIME_OF(ms) "strftime('%Y-%m-%dT%H:%M:%fZ'," ms "/1000.0,'unixepoch')"
#define SINCE       TIME_OF("from_ms") " AS since,valid_from_rev AS revision"
#define NOW         " WHERE valid_to_rev IS NULL"

static const char *const first_form[] = {
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
    /* One row per committed change of the topology. */
    "CREATE TABLE revisions("
    " revision INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, author TEXT NOT NULL,"
    " reason TEXT NOT NULL);",

    /* Resources as people wrote them. */
    "CREATE TABLE objects(" HELD
    " kind TEXT NOT NULL, ns TEXT NOT NULL, name TEXT NOT NULL, json TEXT NOT NULL,"
    " author TEXT NOT NULL, reason TEXT NOT NULL);" HELD_INDEXES(objects, "kind,ns,name")
    "CREATE INDEX objects_history ON objects(kind,ns,name,valid_from_rev);"
    "CREATE INDEX objects_from ON objects(valid_from_rev);"
    "CREATE INDEX objects_to ON objects(valid_to_rev);",

    /* Services and the addresses they were given. */
    "CREATE TABLE services(" HELD
    " ns TEXT NOT NULL, name TEXT NOT NULL, ip4 TEXT NOT NULL, ip6 TEXT NOT NULL,"
    " owner TEXT NOT NULL, ports TEXT NOT NULL);" HELD_INDEXES(services, "ns,name"),

    "CREATE TABLE endpoints(" HELD
    " ns TEXT NOT NULL, service TEXT NOT NULL, port INTEGER NOT NULL, ip TEXT NOT NULL,"
    " target_port INTEGER NOT NULL, source TEXT NOT NULL, protocol INTEGER NOT NULL,"
    " identity TEXT NOT NULL, pod TEXT NOT NULL, zone TEXT NOT NULL, is_ready INTEGER NOT NULL);"
    HELD_INDEXES(endpoints, "ns,service,port,ip,target_port,source")
    "CREATE INDEX endpoints_pod ON endpoints(pod) WHERE valid_to_rev IS NULL;",

    "CREATE TABLE sessions(" HELD
    " ns TEXT NOT NULL, pod TEXT NOT NULL, workload TEXT NOT NULL, service_account TEXT NOT NULL,"
    " identity TEXT NOT NULL, zone TEXT NOT NULL, version TEXT NOT NULL,"
    " incarnation INTEGER NOT NULL, addresses TEXT NOT NULL, serves TEXT NOT NULL,"
    " public_key TEXT NOT NULL, inbound_port INTEGER NOT NULL, processes INTEGER NOT NULL,"
    " is_serving INTEGER NOT NULL, opened_ms INTEGER NOT NULL, skew_ms INTEGER NOT NULL,"
    " acked INTEGER NOT NULL, heard_ms INTEGER NOT NULL, ended_why TEXT);"
    HELD_INDEXES(sessions, "ns,pod"),

    "CREATE TABLE certificates(" HELD
    " identity TEXT NOT NULL, ns TEXT NOT NULL, pod TEXT NOT NULL, serial TEXT NOT NULL,"
    " fingerprint TEXT NOT NULL, issued_ms INTEGER NOT NULL, not_before_ms INTEGER NOT NULL,"
    " not_after_ms INTEGER NOT NULL);" HELD_INDEXES(certificates, "ns,pod"),

    /* Public halves only. */
    "CREATE TABLE curve_keys(" HELD
    " public_key TEXT NOT NULL, ns TEXT NOT NULL, service_account TEXT NOT NULL, pod TEXT NOT NULL,"
    " used_ms INTEGER NOT NULL);" HELD_INDEXES(curve_keys, "public_key")
    "CREATE INDEX curve_keys_pod ON curve_keys(ns,pod) WHERE valid_to_rev IS NULL;"
    "CREATE TABLE feed_keys(" HELD " name TEXT NOT NULL, public_key TEXT NOT NULL);"
    HELD_INDEXES(feed_keys, "name")
    "CREATE INDEX feed_keys_key ON feed_keys(public_key) WHERE valid_to_rev IS NULL;"
    "CREATE TABLE join_tokens("
    " id TEXT PRIMARY KEY, public_key TEXT NOT NULL, ns TEXT NOT NULL,"
    " service_account TEXT NOT NULL, expires_ms INTEGER NOT NULL, used_by TEXT NOT NULL);"
    "CREATE INDEX join_tokens_expires ON join_tokens(expires_ms);",

    /* What ports were seen to speak. */
    "CREATE TABLE learned(" HELD
    " ns TEXT NOT NULL, workload TEXT NOT NULL, port INTEGER NOT NULL, protocol INTEGER NOT NULL);"
    HELD_INDEXES(learned, "ns,workload,port"),

    "CREATE TABLE events("
    " id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, at_ms INTEGER NOT NULL,"
    " kind TEXT NOT NULL, object TEXT NOT NULL, message TEXT NOT NULL);"
    "CREATE INDEX events_at ON events(at_ms);",

    /* The published views (docs/sql.md). Columns are added at the end, never renamed or removed. */
    "CREATE VIEW mesh_services AS /* services and their addresses */ "
    "SELECT ns AS namespace,name,ip4 AS address,ip6 AS address6,ports,owner," SINCE
    " FROM services" NOW ";"
    "CREATE VIEW mesh_endpoints AS /* addresses that serve a service's port */ "
    "SELECT ns AS namespace,service,port,ip,target_port,"
    "CASE protocol WHEN 1 THEN 'http1' WHEN 2 THEN 'http2' WHEN 3 THEN 'grpc' WHEN 4 THEN 'opaque'"
    " ELSE 'detect' END AS protocol,identity,pod,zone,is_ready AS ready,source," SINCE
    " FROM endpoints" NOW ";"
    "CREATE VIEW mesh_sessions AS /* pods connected to the broker */ "
    "SELECT ns AS namespace,pod,workload,service_account,identity,zone,version,addresses,serves,"
    "inbound_port,is_serving AS serving,processes,printf('%016x',incarnation) AS incarnation,"
    "acked AS acked_revision,skew_ms AS clock_skew_ms," TIME_OF("opened_ms") " AS opened,"
    TIME_OF("heard_ms") " AS last_heard," SINCE " FROM sessions" NOW ";",

    "CREATE VIEW mesh_certificates AS /* certificates issued; the newest of a pod is current */ "
    "SELECT identity,ns AS namespace,pod,serial,fingerprint," TIME_OF("issued_ms") " AS issued,"
    TIME_OF("not_before_ms") " AS not_before," TIME_OF("not_after_ms") " AS not_after,"
    "not_after_ms,valid_to_rev IS NULL AS current FROM certificates;"
    "CREATE VIEW mesh_events AS /* what happened */ "
    "SELECT id,at_ms," TIME_OF("at_ms") " AS at,revision,kind,object,message FROM events;"
    "CREATE VIEW mesh_objects AS /* resources in force */ "
    "SELECT kind,ns AS namespace,name,json,author,reason," SINCE " FROM objects" NOW ";"
    "CREATE VIEW mesh_changes AS /* every change of a resource, with who and why */ "
    "SELECT r.revision,r.at_ms," TIME_OF("r.at_ms") " AS at,r.author,r.reason,"
    "CASE WHEN EXISTS(SELECT 1 FROM objects p WHERE p.kind=o.kind AND p.ns=o.ns AND p.name=o.name"
    " AND p.valid_to_rev=o.valid_from_rev) THEN 'changed' ELSE 'created' END AS change,"
    "o.kind,o.ns AS namespace,o.name,o.json"
    " FROM objects o JOIN revisions r ON r.revision=o.valid_from_rev"
    " UNION ALL SELECT r.revision,r.at_ms," TIME_OF("r.at_ms") ",r.author,r.reason,'deleted',"
    "o.kind,o.ns,o.name,NULL FROM objects o JOIN revisions r ON r.revision=o.valid_to_rev"
    " WHERE NOT EXISTS(SELECT 1 FROM objects n WHERE n.kind=o.kind AND n.ns=o.ns AND n.name=o.name"
    " AND n.valid_from_rev=o.valid_to_rev);",
    NULL,
};

#define PROTOCOL_OF(column)                                                                        \
    "CASE " column " WHEN 1 THEN 'http1' WHEN 2 THEN 'http2' WHEN 3 THEN 'grpc' WHEN 4 THEN 'opaque'"

/* What ports speak belongs to a version of the application. */
static const char *const second_form[] = {
    "ALTER TABLE sessions ADD COLUMN app_version TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE learned ADD COLUMN app_version TEXT NOT NULL DEFAULT '';"
    "DROP INDEX learned_now;"
    "CREATE UNIQUE INDEX learned_now ON learned(ns,workload,port,app_version)"
    " WHERE valid_to_rev IS NULL;",

    "DROP VIEW mesh_sessions;"
    "CREATE VIEW mesh_sessions AS /* pods connected to the broker */ "
    "SELECT ns AS namespace,pod,workload,service_account,identity,zone,version,addresses,serves,"
    "inbound_port,is_serving AS serving,processes,printf('%016x',incarnation) AS incarnation,"
    "acked AS acked_revision,skew_ms AS clock_skew_ms," TIME_OF("opened_ms") " AS opened,"
    TIME_OF("heard_ms") " AS last_heard," SINCE ",app_version FROM sessions" NOW ";",

    "CREATE VIEW mesh_ports AS /* what ports speak: as declared, and as seen */ "
    "SELECT s.ns AS namespace,iif(s.workload='',s.pod,s.workload) AS workload,e.port AS port,"
    PROTOCOL_OF("max(e.protocol)") " END AS protocol,'declared' AS source,"
    "s.app_version AS app_version," TIME_OF("min(e.from_ms)") " AS since,"
    "min(e.valid_from_rev) AS revision"
    " FROM endpoints e JOIN sessions s ON e.pod=s.ns||'/'||s.pod AND s.valid_to_rev IS NULL"
    " WHERE e.valid_to_rev IS NULL AND e.source='session' AND e.protocol<>0"
    " GROUP BY 1,2,3,s.app_version"
    /* A view may not use json_extract (trusted_schema is off); the text is the broker's own. */
    " UNION ALL SELECT ns,workload,port,substr(rest,1,instr(rest,'\"')-1),'declared',app_version,"
    TIME_OF("min(from_ms)") ",min(valid_from_rev) FROM("
    "SELECT s.ns,iif(s.workload='',s.pod,s.workload) AS workload,e.port,s.app_version,v.from_ms,"
    "v.valid_from_rev,substr(v.ports,instr(v.ports,mark)+length(mark)) AS rest FROM("
    "SELECT *,'\"port\":'||port||',\"protocol\":\"' AS mark FROM endpoints"
    " WHERE valid_to_rev IS NULL AND source='session' AND protocol=0) e"
    " JOIN services v ON e.ns=v.ns AND e.service=v.name AND v.valid_to_rev IS NULL"
    " JOIN sessions s ON e.pod=s.ns||'/'||s.pod AND s.valid_to_rev IS NULL"
    " WHERE instr(v.ports,mark)>0) WHERE rest NOT LIKE 'detect\"%' GROUP BY 1,2,3,app_version"
    " UNION ALL SELECT ns,workload,port," PROTOCOL_OF("protocol") " ELSE 'several' END,'learned',"
    "app_version," TIME_OF("from_ms") ",valid_from_rev FROM learned" NOW ";",
    NULL,
};

/* The weight of a pod's endpoints. */
static const char *const third_form[] = {
    "ALTER TABLE sessions ADD COLUMN weight INTEGER NOT NULL DEFAULT 10000;",
    "DROP VIEW mesh_sessions;"
    "CREATE VIEW mesh_sessions AS /* pods connected to the broker */ "
    "SELECT ns AS namespace,pod,workload,service_account,identity,zone,version,addresses,serves,"
    "inbound_port,is_serving AS serving,processes,printf('%016x',incarnation) AS incarnation,"
    "acked AS acked_revision,skew_ms AS clock_skew_ms," TIME_OF("opened_ms") " AS opened,"
    TIME_OF("heard_ms") " AS last_heard," SINCE ",app_version,weight FROM sessions" NOW ";",
    NULL,
};

const char *const *const mesh_migrations[] = {first_form, second_form, third_form, NULL};

const char *const mesh_sql[MS_N] = {
#define STATEMENT(name, sql) [MS_##name] = sql,
    MESH_STATEMENTS
#undef STATEMENT
};
