/* The families of series as telemetry sees them: what a number on the wire is called and how it
 * is read. Made from proxy/series/tbl/families.h, the one table that all counting processes
 * share. */
#ifndef TELEMETRY_FAMILIES_H
#define TELEMETRY_FAMILIES_H

#include <stdint.h>

enum family_kind { FAMILY_COUNTER, FAMILY_GAUGE, FAMILY_HISTOGRAM };

enum family_id {
#define SERIES_COUNTER(id, name, labels, help)   FAMILY_ID_##id,
#define SERIES_GAUGE(id, name, labels, help)     FAMILY_ID_##id,
#define SERIES_HISTOGRAM(id, name, labels, help) FAMILY_ID_##id,
#include "proxy/series/tbl/families.h"
    FAMILIES
};

enum { FAMILY_LES = 26, FAMILY_FINES = 101, FAMILY_NUMBERS = FAMILY_LES + 1 + FAMILY_FINES };

struct family {
    const char *name, *help;
    enum family_kind kind;
};
extern const struct family families[FAMILIES];

/* Upper bounds in ms, inclusive; the last is +Inf (UINT64_MAX). */
extern const uint64_t family_le_ms[FAMILY_LES];

/* First microsecond above fine bucket i; UINT64_MAX for the last. */
uint64_t family_fine_bound_us(unsigned i);

#endif
