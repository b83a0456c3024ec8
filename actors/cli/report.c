/* Two messages and a short life. */
#include "cli/report.h"

#include "cli/files.h"
#include "kit/clock.h"
#include "kit/mailbox.h"
#include "kit/timer.h"
#include "wire/wire.h"

#include <event2/event.h>
#include <stdio.h>

#define REPORT_TRIES    50
#define REPORT_AGAIN_MS 20
#define REPORT_LINGER   2 /* rounds of the loop for ZeroMQ to write what it took: LINGER is 0 */

struct report {
    struct event_base *base;
    struct mailbox *mailbox;
    struct timer again;
    struct wire_state state;
    struct wire_event event;
    bool is_ok;
    unsigned tries, sent; /* sent: 0 nothing, 1 state, 2 both; then counts the rounds */
};

static void report_on_again(void *arg)
{
    struct report *r = arg;

    if (r->sent == 0 && WIRE_SEND(r->mailbox, slice(NULL, 0), state, &r->state) == OK)
        r->sent = 1;
    if (r->sent == 1 &&
        (r->is_ok || WIRE_SEND(r->mailbox, slice(NULL, 0), event, &r->event) == OK))
        r->sent = 2;
    else if (r->sent >= 2)
        r->sent++;
    if (++r->tries == REPORT_TRIES || r->sent > 2 + REPORT_LINGER)
        (void)event_base_loopbreak(r->base);
    else
        timer_once(&r->again, REPORT_AGAIN_MS);
}

void report_capture(const char *pod_run_dir, const char *pod, bool is_ok, const char *reason)
{
    struct report r = {.is_ok = is_ok};
    struct mailbox_conf conf = {.kind = MAILBOX_DEALER, .name = "telemetry", .arg = &r};
    char path[FILES_PATH_MAX], endpoint[FILES_PATH_MAX];

    if (!files_path(path, "%s/telemetry.sock", pod_run_dir) ||
        !files_path(endpoint, "ipc://%s", path) || !files_exists(path))
        return;
    r.base = event_base_new();
    if (r.base == NULL)
        return;
    clock_tick();
    r.state = (struct wire_state){.key = SLICE_LIT("capture"),
                                  .is_good = is_ok,
                                  .text = is_ok ? SLICE_LIT("ok") : slice_str(reason)};
    r.event = (struct wire_event){.at_ms = (int64_t)clock_wall_ms(),
                                  .kind = SLICE_LIT("NOT_PROTECTED"),
                                  .object = slice_str(pod),
                                  .message = slice_str(reason)};
    if (r.state.text.n > 256)
        r.state.text.n = 256;
    conf.endpoint = endpoint;
    timer_init(&r.again, r.base, report_on_again, &r);
    if (mailbox_open(r.base, &conf, &r.mailbox) == OK) {
        timer_once(&r.again, REPORT_AGAIN_MS);
        (void)event_base_dispatch(r.base);
        timer_stop(&r.again);
        mailbox_close(&r.mailbox);
    }
    mailbox_shutdown();
    event_base_free(r.base);
}
