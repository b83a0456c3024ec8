#include "store/telemetry_schema.h"

#include <stddef.h>

/* The three rollup tables have one form. A row with src_workload = '*' is the sum over all sources; it
 * is written beside the edge's own row, so that a service's quantiles need no merging of histograms. */
#define ROLLUP_TABLE(name)                                                                         \
    "CREATE TABLE rollup_" #name "("                                                               \
    " start_s INTEGER NOT NULL,"                                                                   \
    " dst_ns TEXT NOT NULL, dst_service TEXT NOT NULL,"                                            \
    " src_ns TEXT NOT NULL, src_workload TEXT NOT NULL,"                                           \
    " direction INTEGER NOT NULL," /* 0 outbound, 1 inbound */                                     \
    " requests INTEGER NOT NULL, successes INTEGER NOT NULL, failures INTEGER NOT NULL,"           \
    " retries INTEGER NOT NULL, mtls_requests INTEGER NOT NULL, mesh_errors INTEGER NOT NULL,"     \
    " status_1xx INTEGER NOT NULL, status_2xx INTEGER NOT NULL, status_3xx INTEGER NOT NULL,"      \
    " status_4xx INTEGER NOT NULL, status_5xx INTEGER NOT NULL,"                                   \
    " bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, connections INTEGER NOT NULL,"        \
    " mtls_connections INTEGER NOT NULL,"                                                          \
    " latency_sum_ms INTEGER NOT NULL,"                                                            \
    " latency TEXT NOT NULL,"       /* JSON array: responses per bucket of latency_buckets */      \
    " latency_fine TEXT NOT NULL,"  /* the same, buckets of telemetry_fine_bound_us (docs/feed.md) */ \
    " p50_ms REAL, p95_ms REAL, p99_ms REAL,"                                                      \
    " PRIMARY KEY(start_s,dst_ns,dst_service,src_ns,src_workload,direction)) WITHOUT ROWID;"

#define UNION_OF(columns, where)                                                                   \
    "SELECT 10 AS width_s," columns " FROM rollup_10s WHERE " where                                \
    " UNION ALL SELECT 60 AS width_s," columns " FROM rollup_1m WHERE " where                      \
    " UNION ALL SELECT 3600 AS width_s," columns " FROM rollup_1h WHERE " where

#define COUNTS                                                                                     \
    "requests,successes,failures,retries,mtls_requests,mesh_errors,"                               \
    "CASE WHEN successes+failures>0 THEN 1.0*successes/(successes+failures) END AS success_rate,"  \
    "status_1xx,status_2xx,status_3xx,status_4xx,status_5xx,p50_ms,p95_ms,p99_ms,"                 \
    "bytes_in,bytes_out,connections,latency,latency_fine,mtls_connections,"                        \
    "CASE WHEN requests>0 THEN 1.0*mtls_requests/requests"                                         \
    " WHEN connections>0 THEN 1.0*mtls_connections/connections END AS mtls_share"

#define START                                                                                      \
    "start_s*1000 AS start_ms,strftime('%Y-%m-%dT%H:%M:%SZ',start_s,'unixepoch') AS start,"        \
    "CASE direction WHEN 0 THEN 'outbound' ELSE 'inbound' END AS direction,"

static const char *const first_form[] = {
    "CREATE TABLE latency_buckets(i INTEGER PRIMARY KEY, le_ms INTEGER);" /* le_ms NULL: +Inf */
    "INSERT INTO latency_buckets VALUES(0,1),(1,2),(2,3),(3,4),(4,5),(5,10),(6,20),(7,30),(8,40),"
    "(9,50),(10,100),(11,200),(12,300),(13,400),(14,500),(15,1000),(16,2000),(17,3000),(18,4000),"
    "(19,5000),(20,10000),(21,20000),(22,30000),(23,40000),(24,50000),(25,NULL);",
    ROLLUP_TABLE(10s), ROLLUP_TABLE(1m), ROLLUP_TABLE(1h),
    /* Cumulative values as the pods last said them; vals: little-endian u64 each. */
    "CREATE TABLE counter_last("
    " pod TEXT NOT NULL, series TEXT NOT NULL, incarnation INTEGER NOT NULL, at_ms INTEGER NOT NULL,"
    " vals BLOB NOT NULL, PRIMARY KEY(pod,series)) WITHOUT ROWID;"
    "CREATE INDEX counter_last_at ON counter_last(at_ms);"
    "CREATE TABLE pods("
    " pod TEXT PRIMARY KEY, ns TEXT NOT NULL, workload TEXT NOT NULL, version TEXT NOT NULL,"
    " incarnation INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,"
    " processes INTEGER NOT NULL, restarts INTEGER NOT NULL, pss_kib INTEGER NOT NULL,"
    " rss_kib INTEGER NOT NULL, cpu_ms INTEGER NOT NULL, connections INTEGER NOT NULL,"
    " is_ready INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE events("
    " id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, pod TEXT NOT NULL, kind TEXT NOT NULL,"
    " object TEXT NOT NULL, message TEXT NOT NULL);"
    "CREATE INDEX events_at ON events(at_ms);",
    /* Published views. Choose one width_s in a query, else every request is counted three times. */
    "CREATE VIEW mesh_edges AS /* traffic between a workload and a service, per span of time */ "
    UNION_OF(START "src_ns AS source_namespace,src_workload AS source,"
                   "dst_ns AS namespace,dst_service AS service," COUNTS, "src_workload<>'*'") ";",
    "CREATE VIEW mesh_golden AS /* a service's traffic from everybody, per span of time */ "
    UNION_OF(START "dst_ns AS namespace,dst_service AS service," COUNTS, "src_workload='*'") ";",
    "CREATE VIEW mesh_pods AS /* pods as last heard by the collector */ "
    "SELECT pod,ns AS namespace,workload,version,printf('%016x',incarnation) AS incarnation,"
    "strftime('%Y-%m-%dT%H:%M:%SZ',first_ms/1000,'unixepoch') AS since,"
    "strftime('%Y-%m-%dT%H:%M:%SZ',last_ms/1000,'unixepoch') AS last_heard,last_ms,"
    "processes,restarts,pss_kib,rss_kib,cpu_ms,connections,is_ready FROM pods;"
    "CREATE VIEW mesh_pod_events AS /* what pods reported */ "
    "SELECT id,at_ms,strftime('%Y-%m-%dT%H:%M:%fZ',at_ms/1000.0,'unixepoch') AS at,pod,kind,object,"
    "message FROM events;",
    NULL,
};

/* What the mesh decided about traffic: few kinds, few reasons, so one narrow table for all widths. */
static const char *const second_form[] = {
    "CREATE TABLE decisions("
    " width_s INTEGER NOT NULL, start_s INTEGER NOT NULL,"
    " dst_ns TEXT NOT NULL, dst_service TEXT NOT NULL,"
    " src_ns TEXT NOT NULL, src_workload TEXT NOT NULL,"
    " direction INTEGER NOT NULL, what TEXT NOT NULL, reason TEXT NOT NULL, n INTEGER NOT NULL,"
    " PRIMARY KEY(width_s,start_s,dst_ns,dst_service,src_ns,src_workload,direction,what,reason))"
    " WITHOUT ROWID;"
    "CREATE VIEW mesh_decisions AS /* what was not retried, hedged, mirrored, limited, ejected, and why */ "
    "SELECT width_s," START "src_ns AS source_namespace,src_workload AS source,"
    "dst_ns AS namespace,dst_service AS service,what,reason,n AS count FROM decisions;",
    NULL,
};

const char *const *const telemetry_migrations[] = {first_form, second_form, NULL};

#define DECISION_KEY "width_s,start_s,dst_ns,dst_service,src_ns,src_workload,direction,what,reason"

#define ROLLUP_SQL(name, seconds)                                                                  \
    "SELECT latency,latency_fine FROM rollup_" #name                                             \
    " WHERE start_s=?1 AND dst_ns=?2 AND dst_service=?3 AND src_ns=?4 AND src_workload=?5"         \
    " AND direction=?6",                                                                           \
    "INSERT INTO rollup_" #name                                                                    \
    "(start_s,dst_ns,dst_service,src_ns,src_workload,direction,latency,p50_ms,p95_ms,p99_ms,"      \
    "requests,successes,failures,retries,mtls_requests,mesh_errors,status_1xx,status_2xx,"         \
    "status_3xx,status_4xx,status_5xx,bytes_in,bytes_out,connections,latency_sum_ms,"             \
    "mtls_connections,latency_fine)"                                                               \
    " VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,"  \
    "?24,?25,?26,?27) ON CONFLICT DO UPDATE SET latency=excluded.latency,"                             \
    "latency_fine=excluded.latency_fine,p50_ms=excluded.p50_ms,"                                   \
    "p95_ms=excluded.p95_ms,p99_ms=excluded.p99_ms,requests=requests+excluded.requests,"           \
    "successes=successes+excluded.successes,failures=failures+excluded.failures,"                  \
    "retries=retries+excluded.retries,mtls_requests=mtls_requests+excluded.mtls_requests,"         \
    "mesh_errors=mesh_errors+excluded.mesh_errors,status_1xx=status_1xx+excluded.status_1xx,"      \
    "status_2xx=status_2xx+excluded.status_2xx,status_3xx=status_3xx+excluded.status_3xx,"         \
    "status_4xx=status_4xx+excluded.status_4xx,status_5xx=status_5xx+excluded.status_5xx,"         \
    "bytes_in=bytes_in+excluded.bytes_in,bytes_out=bytes_out+excluded.bytes_out,"                  \
    "connections=connections+excluded.connections,"                                                \
    "mtls_connections=mtls_connections+excluded.mtls_connections,"                                 \
    "latency_sum_ms=latency_sum_ms+excluded.latency_sum_ms",                                       \
    "DELETE FROM rollup_" #name                                                                    \
    " WHERE (start_s,dst_ns,dst_service,src_ns,src_workload,direction) IN (SELECT start_s,dst_ns," \
    "dst_service,src_ns,src_workload,direction FROM rollup_" #name                                 \
    " WHERE start_s<?1 ORDER BY start_s LIMIT ?2)",                                                \
    "DELETE FROM rollup_" #name                                                                    \
    " WHERE (start_s,dst_ns,dst_service,src_ns,src_workload,direction) IN (SELECT start_s,dst_ns," \
    "dst_service,src_ns,src_workload,direction FROM rollup_" #name                                 \
    " ORDER BY start_s LIMIT ?1)",                                                                 \
    "SELECT count(*) FROM rollup_" #name,

const char *const telemetry_sql[TS_N] = {
    TELEMETRY_ROLLUPS(ROLLUP_SQL)
    [TS_LAST_PUT] = "INSERT INTO counter_last(pod,series,incarnation,at_ms,vals)"
                    " VALUES(?1,?2,?3,?4,?5) ON CONFLICT DO UPDATE SET"
                    " incarnation=excluded.incarnation,at_ms=excluded.at_ms,vals=excluded.vals",
    [TS_LAST_GET] = "SELECT incarnation,vals FROM counter_last WHERE pod=?1 AND series=?2",
    [TS_LAST_EACH] = "SELECT pod,series,incarnation,at_ms,vals FROM counter_last",
    [TS_LAST_DROP] = "DELETE FROM counter_last WHERE pod=?1 AND incarnation<>?2",
    [TS_LAST_TRIM] = "DELETE FROM counter_last WHERE (pod,series) IN"
                     " (SELECT pod,series FROM counter_last WHERE at_ms<?1 ORDER BY at_ms LIMIT ?2)",
    [TS_LAST_COUNT] = "SELECT count(*) FROM counter_last",
    [TS_POD_PUT] = "INSERT INTO pods(pod,ns,workload,version,incarnation,first_ms,last_ms,processes,"
                   "restarts,pss_kib,rss_kib,cpu_ms,connections,is_ready)"
                   " VALUES(?1,?2,?3,?4,?5,?6,?6,?7,?8,?9,?10,?11,?12,?13) ON CONFLICT DO UPDATE SET"
                   " ns=excluded.ns,workload=excluded.workload,version=excluded.version,"
                   "first_ms=CASE WHEN incarnation=excluded.incarnation THEN first_ms"
                   " ELSE excluded.first_ms END,incarnation=excluded.incarnation,"
                   "last_ms=excluded.last_ms,processes=excluded.processes,"
                   "restarts=excluded.restarts,pss_kib=excluded.pss_kib,rss_kib=excluded.rss_kib,"
                   "cpu_ms=excluded.cpu_ms,connections=excluded.connections,"
                   "is_ready=excluded.is_ready",
    [TS_POD_TRIM] = "DELETE FROM pods WHERE pod IN"
                    " (SELECT pod FROM pods WHERE last_ms<?1 LIMIT ?2)",
    [TS_EVENT_ADD] = "INSERT INTO events(at_ms,pod,kind,object,message) VALUES(?1,?2,?3,?4,?5)",
    [TS_EVENT_TRIM_OLD] = "DELETE FROM events WHERE id IN"
                          " (SELECT id FROM events WHERE at_ms<?1 ORDER BY at_ms LIMIT ?2)",
    [TS_EVENT_TRIM_FIRST] = "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id LIMIT ?1)",
    [TS_EVENT_COUNT] = "SELECT count(*) FROM events",
    [TS_DECISION_ADD] = "INSERT INTO decisions(" DECISION_KEY ",n) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)"
                        " ON CONFLICT DO UPDATE SET n=n+excluded.n",
    [TS_DECISION_TRIM_OLD] = "DELETE FROM decisions WHERE (" DECISION_KEY ") IN (SELECT " DECISION_KEY
                             " FROM decisions WHERE width_s=?3 AND start_s<?1 ORDER BY start_s LIMIT ?2)",
    [TS_DECISION_TRIM_FIRST] = "DELETE FROM decisions WHERE (" DECISION_KEY ") IN (SELECT " DECISION_KEY
                               " FROM decisions ORDER BY width_s,start_s LIMIT ?1)",
    [TS_DECISION_COUNT] = "SELECT count(*) FROM decisions",
};
