#include "telemetry/families.h"

#include "kit/err.h"

const struct family families[FAMILIES] = {
#define SERIES_COUNTER(id, name, labels, help)   {name, help, FAMILY_COUNTER},
#define SERIES_GAUGE(id, name, labels, help)     {name, help, FAMILY_GAUGE},
#define SERIES_HISTOGRAM(id, name, labels, help) {name, help, FAMILY_HISTOGRAM},
#include "proxy/series/tbl/families.h"
};

const uint64_t family_le_ms[FAMILY_LES] = {
#define SERIES_LE(ms) ms,
#include "proxy/series/tbl/families.h"
    UINT64_MAX,
};

/* 0..3 us have a bucket each, then four per octave: the same rule as series_fine_index. */
uint64_t family_fine_bound_us(unsigned i)
{
    BUG_ON(i >= FAMILY_FINES);
    if (i == FAMILY_FINES - 1)
        return UINT64_MAX;
    if (i < 4)
        return i + 1;
    return (uint64_t)(4 + i % 4 + 1) << (i / 4 - 1);
}
