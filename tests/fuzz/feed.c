/* What strangers send to telemetry and the collector: the first byte says to which reader the rest goes. */
#include "broker/collector/parse.h"
#include "telemetry/admin.h"
#include "telemetry/labels.h"
#include "telemetry/status.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_metrics(slice_t body)
{
    struct feed_metrics m;
    struct feed_series s;

    if (parse_metrics(body, &m) != OK)
        return;
    for (uint32_t i = 0; i < m.n_series && parse_series(&m.series, &s) == OK; i++)
        (void)parse_label(&s, "direction");
}

/* What labels_check lets through is printed into /metrics: no line may end in it. */
static void read_labels(slice_t text)
{
    uint8_t plain[4096];
    slice_t name, value;

    if (text.n > sizeof(plain) || !labels_check(text))
        return;
    BUG_ON(text.n > 0 && memchr(text.p, '\n', text.n) != NULL);
    while (labels_next(&text, &name, &value))
        BUG_ON(labels_unescape(value, plain) > value.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slice_t rest = slice_skip(slice(data, size), 1);
    struct feed_event event;
    struct status status = {0};
    slice_t parts[4];
    const char *name;
    bool flag;

    if (size == 0)
        return 0;
    switch (data[0] % 6) {
    case 0:
        read_metrics(rest);
        break;
    case 1:
        (void)(parse_event(rest, &event) == OK);
        break;
    case 2:
        read_labels(rest);
        break;
    case 3:
        (void)admin_parse(rest, &flag);
        break;
    case 4:
        (void)status_take_line(&status, rest, "weft-telemetry", &flag, &name);
        break;
    case 5:
        (void)parse_topic(rest, parts, 4);
        break;
    }
    return 0;
}
