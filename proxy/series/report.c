/* From slots to `series` messages: parts of at most PART_SERIES series and PART_BYTES bytes. */
#include "proxy/series/report.h"

#include "kit/arena.h"
#include "kit/log.h"

#define PART_SERIES 512u
#define PART_BYTES  (192u * 1024u) /* estimated from above; a message may have 256 KiB */
#define PART_MEMORY (2u * 1024u * 1024u)

struct part {
    struct series_reporter *r;
    struct arena arena;
    struct wire_series_value *values; /* PART_SERIES of them, in the arena */
    size_t n, bytes, sent;
    bool has_failed;
};

static err_t send_to_mailbox(void *arg, const struct wire_series *msg)
{
    return WIRE_SEND(arg, (slice_t){0}, series, msg);
}

void series_reporter_init(struct series_reporter *r, struct series_table *table,
                          const char *process, uint64_t incarnation, series_send_fn *send,
                          void *arg)
{
    *r = (struct series_reporter){.table = table,
                                  .process = process,
                                  .incarnation = incarnation,
                                  .wants_all = true,
                                  .send = send != NULL ? send : send_to_mailbox,
                                  .arg = arg};
}

void series_report_all(struct series_reporter *r)
{
    r->wants_all = true;
}

static bool part_start(struct part *p)
{
    arena_reset(&p->arena);
    p->n = p->bytes = 0;
    p->values = arena_alloc(&p->arena, PART_SERIES * sizeof(p->values[0]));
    return p->values != NULL;
}

static void part_send(struct part *p, bool is_all)
{
    struct wire_series msg = {.process = slice_str(p->r->process),
                              .incarnation = p->r->incarnation,
                              .is_all = is_all,
                              .n_series = p->n,
                              .series = p->values};
    err_t err;

    if (p->n == 0)
        return;
    err = p->r->send(p->r->arg, &msg);
    if (err != OK) {
        p->has_failed = true;
        p->r->failed++;
        log_debug("series not sent", "reason=%s n=%zu", err->name, p->n);
        return;
    }
    p->r->sent++;
    p->sent += p->n;
}

/* Copies one series into the part. Numbers are copied, since the view's are gone after the
 * call. */
static bool part_add(struct part *p, const struct series_view *view)
{
    struct wire_series_value *v = &p->values[p->n];
    struct wire_number *numbers =
        arena_alloc(&p->arena, view->n_values * sizeof(struct wire_number));

    if (numbers == NULL)
        return false;
    for (size_t i = 0; i < view->n_values; i++)
        numbers[i].v = view->values[i];
    *v = (struct wire_series_value){.slot = view->slot,
                                    .family = (uint8_t)view->family,
                                    .labels = view->labels, /* stays where it is in the table */
                                    .n_values = view->n_values,
                                    .values = numbers};
    p->bytes += view->labels.n + 10 * view->n_values + 24;
    p->n++;
    return true;
}

static bool on_series(void *arg, const struct series_view *view)
{
    struct part *p = arg;

    if (!part_add(p, view))
        return false;
    if (p->n < PART_SERIES && p->bytes < PART_BYTES)
        return true;
    part_send(p, p->r->wants_all);
    return part_start(p) && !p->has_failed;
}

size_t series_report(struct series_reporter *r)
{
    struct part p = {.r = r};

    arena_init(&p.arena, PART_MEMORY);
    if (part_start(&p)) {
        (void)series_collect(r->table, r->wants_all, on_series, &p);
        part_send(&p, r->wants_all);
    } else {
        p.has_failed = true;
    }
    arena_done(&p.arena);
    /* What was marked as shown but did not leave is only found again by showing everything. */
    r->wants_all = p.has_failed;
    return p.sent;
}
