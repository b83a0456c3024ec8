/* weft-retry: decides whether and when a failed attempt is tried again.
 *
 * ANSWERS   retry.sock: retry_ask -> retry_go{after_ms} | retry_stop{reason}, at once;
 *           retry_settle feeds the service's budget; retry_cancel needs nothing (an answer was
 *           given already).
 *           telemetry.sock: sends its own series once a second when they changed; series_all ->
 *           all of them.
 * HOLDS     a budget per service (at most BUDGETS_MAX, the longest unused is forgotten),
 *           counters of verdicts. Nothing on disk, no memory of questions.
 * NEEDS     its mailboxes in the pod's run directory. No network, no files, no keys.
 * IF IT DIES  nothing is lost but the budgets' windows: it comes back with fresh budgets.
 *           Meanwhile the proxy gets no answers and does not retry.
 * IF SLOW   the proxy waits retry_ask_timeout (250 ms) at most, then does not retry.
 */
#include "retry/budget.h"
#include "retry/tally.h"
#include "retry/verdict.h"

#include "kit/actor.h"
#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "kit/random.h"
#include "kit/timer.h"
#include "wire/dispatch.h"

#include <inttypes.h>
#include <stdlib.h>

#define BUDGETS_MAX  1024u
#define SERVICES_MAX 512u /* with series of their own */
#define REPORT_MS    1000u
#define PARTS_MAX    8u /* of a report in one turn */

struct retry {
    struct actor *actor;
    struct budgets *budgets;
    struct tally *tally;
    struct mailbox *in, *telemetry;
    struct wire_desk in_desk, telemetry_desk;
    struct timer report;
    uint64_t incarnation;
    uint64_t
        unanswered; /* answers that could not be sent: the asker is gone or does not read */
};

static void send_answer(struct retry *r, const struct wire_call *call, err_t err)
{
    if (err == OK)
        return;
    r->unanswered++;
    log_debug("answer not sent", "reason=%s from_n=%zu", err->name, call->mail->from.n);
}

static void answer_ask(void *arg, const struct wire_call *call)
{
    struct retry *r = arg;
    const struct wire_retry_ask *ask = &call->msg->body.retry_ask;
    uint32_t after_ms;
    enum verdict v = verdict_decide(r->budgets, ask, clock_now_ms(), random_unit(), &after_ms);

    tally_count(r->tally, ask->service, v);
    if (v == VERDICT_GO) {
        struct wire_retry_go go = {.id = ask->id, .after_ms = after_ms};

        send_answer(r, call, WIRE_SEND(r->in, call->mail->from, retry_go, &go));
    } else {
        struct wire_retry_stop stop = {.id = ask->id, .reason = slice_str(verdict_name(v))};

        send_answer(r, call, WIRE_SEND(r->in, call->mail->from, retry_stop, &stop));
    }
}

static void answer_settle(void *arg, const struct wire_call *call)
{
    struct retry *r = arg;
    const struct wire_retry_settle *s = &call->msg->body.retry_settle;

    budgets_feed(r->budgets, s->service, clock_now_ms(), s->requests);
    if (s->hold_ms > 0)
        budgets_hold(r->budgets, s->service, clock_now_ms(), s->hold_ms);
}

/* Verdicts are given at once, so that there is never anything to call off. */
static void answer_cancel(void *arg, const struct wire_call *call)
{
    (void)arg;
    (void)call;
}

static const struct wire_permit in_permits[] = {
    {WIRE_retry_ask, answer_ask, false},
    {WIRE_retry_settle, answer_settle, false},
    {WIRE_retry_cancel, answer_cancel, false},
};

static void answer_series_all(void *arg, const struct wire_call *call)
{
    struct retry *r = arg;

    (void)call;
    tally_mark_all(r->tally);
}

static const struct wire_permit telemetry_permits[] = {
    {WIRE_series_all, answer_series_all, false},
};

static void on_ask(void *arg, const struct mailbox_msg *m)
{
    struct retry *r = arg;

    if (wire_dispatch(&r->in_desk, m, NULL, r) != OK)
        return; /* counted and logged by the desk; a bad peer gets no answer */
}

static void on_telemetry(void *arg, const struct mailbox_msg *m)
{
    struct retry *r = arg;

    if (wire_dispatch(&r->telemetry_desk, m, NULL, r) != OK)
        return; /* counted and logged by the desk */
}

static void on_telemetry_link(void *arg, bool is_up)
{
    struct retry *r = arg;

    if (is_up)
        tally_mark_all(r->tally); /* a telemetry that has just started knows nothing */
}

static void on_report(void *arg)
{
    struct retry *r = arg;
    struct arena arena;

    arena_init(&arena, 1024u * 1024u);
    for (unsigned i = 0; i < PARTS_MAX; i++) {
        struct wire_series msg = {.process = SLICE_LIT("weft-retry"),
                                  .incarnation = r->incarnation};

        arena_reset(&arena);
        if (!tally_collect(r->tally, false, &arena, &msg) ||
            WIRE_SEND(r->telemetry, (slice_t){0}, series, &msg) != OK)
            break; /* telemetry is away: the values are cumulative, the next report has them */
        tally_mark_sent(r->tally);
    }
    arena_done(&arena);
}

static err_t open_mailboxes(struct retry *r)
{
    char in[128], telemetry[128];

    TRY(actor_ipc(r->actor, "retry", in));
    TRY(actor_ipc(r->actor, "telemetry", telemetry));
    TRY(mailbox_open(r->actor->base,
                     &(struct mailbox_conf){.kind = MAILBOX_ROUTER,
                                            .name = "retry",
                                            .endpoint = in,
                                            .bind = true,
                                            .allow = mailbox_allow_same_uid,
                                            .on_msg = on_ask,
                                            .arg = r},
                     &r->in));
    return mailbox_open(r->actor->base,
                        &(struct mailbox_conf){.kind = MAILBOX_DEALER,
                                               .name = "telemetry",
                                               .endpoint = telemetry,
                                               .on_msg = on_telemetry,
                                               .on_link = on_telemetry_link,
                                               .arg = r},
                        &r->telemetry);
}

static err_t start(struct actor *a)
{
    struct retry *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return ERR_OF(NOMEM);
    a->state = r;
    r->actor = a;
    (void)slice_to_u64(slice_str(getenv("WEFT_INCARNATION")), &r->incarnation);
    r->in_desk = (struct wire_desk){.name = "retry",
                                    .me = WIRE_ROLE_RETRY,
                                    .from = WIRE_ROLE_PROXY,
                                    .permits = in_permits,
                                    .n_permits = sizeof(in_permits) / sizeof(in_permits[0])};
    r->telemetry_desk = (struct wire_desk){.name = "telemetry",
                                           .me = WIRE_ROLE_RETRY,
                                           .from = WIRE_ROLE_TELEMETRY,
                                           .permits = telemetry_permits,
                                           .n_permits = 1};
    TRY(budgets_new(BUDGETS_MAX, &r->budgets));
    TRY(tally_new(SERVICES_MAX, &r->tally));
    timer_init(&r->report, a->base, on_report, r);
    TRY(open_mailboxes(r));
    timer_every(&r->report, REPORT_MS);
    return OK;
}

static void stop(struct actor *a)
{
    struct retry *r = a->state;

    if (r == NULL)
        return;
    if (r->in != NULL)
        timer_stop(&r->report);
    log_info("retry ends", "asks=%" PRIu64 " refused_messages=%" PRIu64 " unanswered=%" PRIu64,
             r->in_desk.accepted, wire_desk_refused(&r->in_desk), r->unanswered);
    mailbox_close(&r->in);
    mailbox_close(&r->telemetry);
    tally_free(&r->tally);
    budgets_free(&r->budgets);
    free(r);
    a->state = NULL;
}

int main(int argc, char **argv)
{
    static const struct actor_spec spec = {.name = "weft-retry",
                                           .page = "decides whether a failed attempt is retried",
                                           .start = start,
                                           .stop = stop};

    return actor_run(&spec, argc, argv);
}
