/* Names, statuses and texts of refusals; reason phrases. */
#include "proxy/http/refusal.h"

#include "kit/err.h"

#include <stdio.h>

static const struct {
    const char *name, *text;
    uint16_t status;
} refusals[REFUSALS] = {
    [REFUSED_NOTHING] = {"", "", 0},
#define REFUSAL(name, status, text) [REFUSED_##name] = {#name, text, status},
#include "proxy/http/tbl/refusals.h"
#undef REFUSAL
};

const char *refusal_name(enum refusal r)
{
    BUG_ON((unsigned)r >= REFUSALS);
    return refusals[r].name;
}

const char *refusal_text(enum refusal r)
{
    BUG_ON((unsigned)r >= REFUSALS);
    return refusals[r].text;
}

uint16_t refusal_status(enum refusal r)
{
    BUG_ON((unsigned)r >= REFUSALS);
    return refusals[r].status;
}

slice_t refusal_proxy_status(enum refusal r, char *dst, size_t cap)
{
    const char *error = r == REFUSED_BAD_REQUEST_TIMEOUT ? "http_request_error"
                        : refusal_status(r) == 503       ? "proxy_internal_error"
                                                         : "http_protocol_error";
    int n = snprintf(dst, cap, "weft; error=%s; details=\"%s: %s\"", error, refusal_name(r),
                     refusal_text(r));

    BUG_ON(n < 0 || (size_t)n >= cap);
    return slice(dst, (size_t)n);
}

slice_t http_reason(uint16_t status)
{
    static const struct {
        uint16_t status;
        slice_t text;
    } reasons[] = {
#define REASON(number, words) {number, {(const uint8_t *)(words), sizeof(words) - 1}},
#include "proxy/http/tbl/reasons.h"
#undef REASON
    };

    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return SLICE_LIT("");
}
