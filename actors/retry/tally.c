/* Counters per service and verdict, in an array whose index is the series' slot for the life of
 * the process. */
#include "retry/tally.h"

#include "kit/buf.h"
#include "kit/hash.h"
#include "proxy/series/tbl/families.h"

#include <stdlib.h>

enum family {
#define SERIES_COUNTER(id, name, labels, help)   FAMILY_##id,
#define SERIES_GAUGE(id, name, labels, help)     FAMILY_##id,
#define SERIES_HISTOGRAM(id, name, labels, help) FAMILY_##id,
#include "proxy/series/tbl/families.h"
};

#define PART_MAX 512u

struct counter {
    uint64_t value, sent, collected; /* `sent` and `collected` are former values */
};

struct service {
    UT_hash_handle hh;
    size_t index; /* of its first counter */
    size_t name_n;
    char name[];
};

struct tally {
    struct service *by_name;
    struct counter *counters;  /* VERDICTS per service; the first VERDICTS are "other" */
    struct service **services; /* index / VERDICTS - 1 */
    size_t n_services, max;
};

err_t tally_new(size_t max, struct tally **out)
{
    struct tally *t = calloc(1, sizeof(*t));

    BUG_ON(max == 0 || (max + 1) * VERDICTS > UINT16_MAX);
    if (t == NULL)
        return ERR_OF(NOMEM);
    t->counters = calloc((max + 1) * VERDICTS, sizeof(t->counters[0]));
    t->services = calloc(max, sizeof(t->services[0]));
    t->max = max;
    if (t->counters == NULL || t->services == NULL) {
        tally_free(&t);
        return ERR_OF(NOMEM);
    }
    *out = t;
    return OK;
}

void tally_free(struct tally **t)
{
    if (*t == NULL)
        return;
    HASH_CLEAR(hh, (*t)->by_name);
    for (size_t i = 0; i < (*t)->n_services; i++)
        free((*t)->services[i]);
    free((*t)->services);
    free((*t)->counters);
    free(*t);
    *t = NULL;
}

/* Index of the service's first counter; 0 is "other". */
static size_t service_index(struct tally *t, slice_t name)
{
    struct service *s = NULL;

    HASH_FIND(hh, t->by_name, name.p, name.n, s);
    if (s != NULL)
        return s->index;
    if (name.n == 0 || name.n > BUDGET_NAME_MAX || t->n_services >= t->max)
        return 0;
    s = calloc(1, sizeof(*s) + name.n);
    if (s == NULL)
        return 0;
    s->name_n = name.n;
    memcpy(s->name, name.p, name.n);
    s->index = (t->n_services + 1) * VERDICTS;
    t->services[t->n_services++] = s;
    HASH_ADD_KEYPTR(hh, t->by_name, s->name, s->name_n, s);
    return s->index;
}

void tally_count(struct tally *t, slice_t service, enum verdict v)
{
    t->counters[service_index(t, service) + v].value++;
}

static err_t labels_print(struct buf *out, slice_t service, enum verdict v)
{
    TRY(buf_printf(out, "service=\""));
    for (size_t k = 0; k < service.n; k++) {
        const uint8_t c = service.p[k] < 0x20 ? '?' : service.p[k];

        if (c == '"' || c == '\\')
            TRY(buf_add(out, "\\", 1));
        TRY(buf_add(out, &c, 1));
    }
    if (v == VERDICT_GO)
        return buf_printf(out, "\",verdict=\"go\"");
    return buf_printf(out, "\",verdict=\"stop\",reason=\"%s\"", verdict_name(v));
}

/* Label text of counter i. That a service's name is UTF-8 was the decoder's business. Empty: no
 * memory. */
static slice_t counter_labels(const struct tally *t, size_t i, struct arena *arena)
{
    const struct service *s = i < VERDICTS ? NULL : t->services[i / VERDICTS - 1];
    slice_t name = s == NULL ? SLICE_LIT("other") : slice(s->name, s->name_n);
    slice_t labels = {0};
    struct buf text;

    buf_init(&text, 0);
    if (labels_print(&text, name, (enum verdict)(i % VERDICTS)) == OK)
        labels = arena_copy(arena, buf_slice(&text));
    buf_done(&text);
    return labels;
}

bool tally_collect(struct tally *t, bool all, struct arena *arena, struct wire_series *msg)
{
    size_t n_counters = (t->n_services + 1) * VERDICTS;

    if (all)
        tally_mark_all(t);
    msg->n_series = 0;
    msg->series = arena_alloc(arena, PART_MAX * sizeof(msg->series[0]));
    if (msg->series == NULL)
        return false;
    for (size_t i = 0; i < n_counters && msg->n_series < PART_MAX; i++) {
        struct counter *c = &t->counters[i];
        struct wire_number *number;
        slice_t labels;

        if (c->value == c->sent)
            continue;
        number = arena_alloc(arena, sizeof(*number));
        labels = counter_labels(t, i, arena);
        if (number == NULL || labels.n == 0)
            break;
        number->v = c->collected = c->value;
        msg->series[msg->n_series++] =
            (struct wire_series_value){.slot = (uint16_t)i,
                                       .family = FAMILY_RETRY_DECISIONS,
                                       .labels = labels,
                                       .n_values = 1,
                                       .values = number};
    }
    return msg->n_series > 0;
}

void tally_mark_sent(struct tally *t)
{
    for (size_t i = 0; i < (t->n_services + 1) * VERDICTS; i++) {
        struct counter *c = &t->counters[i];

        if (c->collected != 0) {
            c->sent = c->collected;
            c->collected = 0;
        }
    }
}

void tally_mark_all(struct tally *t)
{
    for (size_t i = 0; i < (t->n_services + 1) * VERDICTS; i++)
        t->counters[i].sent = t->counters[i].collected = 0;
}
