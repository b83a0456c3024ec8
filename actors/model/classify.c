#include "model/classify.h"

const uint32_t classify_bucket_ms[CLASSIFY_BUCKETS - 1] = {
    1,   2,   3,    4,    5,    10,   20,   30,    40,    50,    100,   200,   300,
    400, 500, 1000, 2000, 3000, 4000, 5000, 10000, 20000, 30000, 40000, 50000,
};

static const char *const grpc_names[GRPC_STATUSES] = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

#define GRPC_FAILURES                                                                          \
    (1U << GRPC_UNKNOWN | 1U << GRPC_DEADLINE_EXCEEDED | 1U << GRPC_PERMISSION_DENIED |        \
     1U << GRPC_INTERNAL | 1U << GRPC_UNAVAILABLE | 1U << GRPC_DATA_LOSS)

bool classify_is_success(const struct classify_end *end)
{
    if (end->status == 0 || end->was_cut)
        return false;
    if (end->status >= 500)
        return false;
    if (!end->is_grpc)
        return true;
    if (!end->has_grpc)
        return end->status != 200; /* a proxy's or server's plain 4xx: as HTTP */
    return end->grpc_status < GRPC_STATUSES && (GRPC_FAILURES >> end->grpc_status & 1) == 0;
}

/* The class that decides, or NULL. */
static const struct wire_response_class *class_of(uint16_t status,
                                                  const struct wire_response_class *classes,
                                                  size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (status >= classes[i].low && status <= classes[i].high)
            return &classes[i];
    return NULL;
}

bool classify_is_success_by(const struct classify_end *end,
                            const struct wire_response_class *classes, size_t n)
{
    const struct wire_response_class *c = class_of(end->status, classes, n);

    if (end->status == 0 || end->was_cut)
        return false;
    return c != NULL ? !c->is_failure : classify_is_success(end);
}

enum classify_head classify_head(const struct classify_end *end,
                                 const struct wire_response_class *classes, size_t n)
{
    bool is_open = end->is_grpc && !end->has_grpc && end->status == 200 && !end->was_cut &&
                   class_of(end->status, classes, n) == NULL;

    if (is_open)
        return CLASSIFY_OPEN;
    return classify_is_success_by(end, classes, n) ? CLASSIFY_SUCCESS : CLASSIFY_FAILURE;
}

bool classify_is_grpc(slice_t content_type)
{
    slice_t prefix = SLICE_LIT("application/grpc");

    if (content_type.n < prefix.n || !slice_is_nocase(slice(content_type.p, prefix.n), prefix))
        return false;
    if (content_type.n == prefix.n)
        return true;
    switch (content_type.p[prefix.n]) {
    case '+':
    case ';':
    case ' ':
    case '\t':
        return true;
    default: /* a byte from a peer */
        return false;
    }
}

bool classify_parse_grpc(slice_t text, uint32_t *out)
{
    uint64_t v;

    if (!slice_to_u64(text, &v) || v > INT32_MAX)
        return false;
    *out = (uint32_t)v;
    return true;
}

const char *classify_grpc_name(uint32_t status)
{
    return status < GRPC_STATUSES ? grpc_names[status] : "";
}

unsigned classify_bucket(uint64_t latency_us)
{
    unsigned low = 0, high = CLASSIFY_BUCKETS - 1;

    while (low < high) { /* the first bucket whose bound is not below the latency */
        unsigned mid = (low + high) / 2;

        if ((uint64_t)classify_bucket_ms[mid] * 1000 >= latency_us)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}
