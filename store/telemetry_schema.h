/* The SQL of telemetry.db: migrations and statements. Private to store/. */
#ifndef STORE_TELEMETRY_SCHEMA_H
#define STORE_TELEMETRY_SCHEMA_H

#define TELEMETRY_APPLICATION_ID 0x57667431 /* "Wft1" */

extern const char *const *const telemetry_migrations[];

/* Statements, one X per line; those of the three rollup tables come as a block of TS_PER_WIDTH. */
#define TELEMETRY_ROLLUPS(X) X(10s, 10) X(1m, 60) X(1h, 3600)

enum telemetry_per_width { TS_GET, TS_PUT, TS_TRIM_OLD, TS_TRIM_FIRST, TS_COUNT, TS_PER_WIDTH };
#define TELEMETRY_WIDTHS 3

enum telemetry_stmt {
    TS_LAST_PUT = TS_PER_WIDTH * TELEMETRY_WIDTHS,
    TS_LAST_GET,
    TS_LAST_EACH,
    TS_LAST_DROP,
    TS_LAST_TRIM,
    TS_LAST_COUNT,
    TS_POD_PUT,
    TS_POD_TRIM,
    TS_EVENT_ADD,
    TS_EVENT_TRIM_OLD,
    TS_EVENT_TRIM_FIRST,
    TS_EVENT_COUNT,
    TS_DECISION_ADD,
    TS_DECISION_TRIM_OLD,
    TS_DECISION_TRIM_FIRST,
    TS_DECISION_COUNT,
    TS_N
};
extern const char *const telemetry_sql[TS_N];

#endif
