#include "proxy/balance/penalty.h"

#include "model/classify.h"

#include <time.h>

static uint32_t capped(uint64_t ms)
{
    return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT"; the obsolete forms are not read: nobody writes them. */
static bool read_date(slice_t value, int64_t *seconds)
{
    char text[32];
    struct tm tm = {.tm_sec = 0};
    const char *end;

    if (value.n != 29 || !slice_to_cstr(value, text, sizeof(text)))
        return false;
    end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (end == NULL || *end != '\0')
        return false;
    *seconds = timegm(&tm);
    return true;
}

uint32_t penalty_retry_after(slice_t value, uint64_t wall_ms)
{
    uint64_t seconds;
    int64_t date;

    if (slice_to_u64(value, &seconds))
        return seconds > UINT32_MAX / 1000 ? UINT32_MAX : (uint32_t)(seconds * 1000);
    if (!read_date(value, &date) || date <= (int64_t)(wall_ms / 1000))
        return 0;
    return capped((uint64_t)date * 1000 - wall_ms);
}

uint32_t penalty_pushback(slice_t value)
{
    uint64_t ms;

    return slice_to_u64(value, &ms) ? capped(ms) : 0;
}

bool penalty_is_due(uint16_t status, int grpc_status)
{
    switch (grpc_status) {
    case GRPC_UNKNOWN:
    case GRPC_DEADLINE_EXCEEDED:
    case GRPC_RESOURCE_EXHAUSTED:
    case GRPC_INTERNAL:
    case GRPC_UNAVAILABLE:
    case GRPC_DATA_LOSS:
        return true;
    default:
        return status == 429 || status >= 500;
    }
}

bool penalty_may_ask(uint16_t status, int grpc_status)
{
    return status == 429 || status == 503 || grpc_status == GRPC_RESOURCE_EXHAUSTED ||
           grpc_status == GRPC_UNAVAILABLE;
}
