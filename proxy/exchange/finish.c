/* Answers of the mesh, and what is counted at the end. */
#include "proxy/exchange/exchange_priv.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "proxy/http/stream.h"

#include <stdio.h>

#define CUT_WAIT_MS 2000 /* longest wait for a slow client before its response is cut */

/* ---- answers ---- */

static void send_answer(struct exchange *x, struct answer *a)
{
    struct head h;
    const struct code_info *info = code_info(a->code);
    bool is_inbound = x->front->direction == DIRECTION_INBOUND;

    a->direction = x->front->direction;
    a->is_grpc = x->is_grpc;
    a->next_hop = slice_str(x->hop);
    a->tells_delivered = is_inbound && x->front->is_mesh;
    tally_mesh_answer(x->worker->tallies, a->direction, info->id);
    if (x->fs == NULL) {
        exchange_end(x);
        return;
    }
    if (x->attempt == 0 && !x->raced) {
        /* Nothing was tried, so nothing has counted this request yet. */
        x->tally = is_inbound
                       ? x->front->tally
                       : tally_outbound(x->worker->tallies, x->parent, x->backend, NULL,
                                        x->rule != NULL ? x->rule->route : SLICE_LIT(""));
        tally_request(x->tally);
        x->is_tallied = true;
        exchange_tally_end(x, a->status != 0 ? a->status : info->http, info->http < 500,
                           a->code);
    }
    if (answer_build(a, x->fs->arena, &h) != OK ||
        (x->has_orig_proto && head_add(&h, x->fs->arena, SLICE_LIT("l5d-orig-proto"),
                                       SLICE_LIT("HTTP/1.1")) != OK)) {
        struct stream *fs = x->fs;

        x->fs = NULL;
        fs->ops->reset(fs, STREAM_INTERNAL);
        exchange_end(x);
        return;
    }
    log_debug("answered by the mesh", "direction=%s code=%s status=%u attempts=%u",
              direction_name(a->direction), info->name, h.status, x->attempt);
    x->resp_started = true;
    x->fs->ops->send_head(x->fs, &h, true);
    x->resp_ended = true;
    exchange_end(x);
}

void exchange_answer(struct exchange *x, enum code code, enum delivered delivered,
                     slice_t details)
{
    struct answer a = {.code = code, .delivered = delivered, .details = details};

    BUG_ON(x->resp_started);
    relay_drop_back(x, STREAM_CANCELLED);
    send_answer(x, &a);
}

void exchange_answer_redirect(struct exchange *x, uint16_t status, slice_t location)
{
    struct answer a = {.code = CODE_REDIRECT,
                       .status = status,
                       .location = location,
                       .details = x->rule->route};

    send_answer(x, &a);
}

void exchange_answer_injected(struct exchange *x, uint16_t status, uint8_t grpc_status,
                              slice_t details)
{
    struct answer a = {.code = CODE_INJECTED,
                       .status = x->is_grpc ? 0 : status,
                       .grpc_status = grpc_status,
                       .details = details};

    send_answer(x, &a);
}

void exchange_answer_limited(struct exchange *x, enum code code, uint32_t retry_after_s,
                             slice_t details)
{
    struct answer a = {.code = code,
                       .delivered = DELIVERED_NO,
                       .retry_after_s = retry_after_s,
                       .details = details};

    send_answer(x, &a);
}

void exchange_cut_now(struct exchange *x)
{
    struct stream *fs = x->fs;
    struct field trailers[2];
    size_t n;

    if (fs != NULL && x->is_grpc &&
        (n = answer_grpc_trailers(x->cut_code, slice_str(x->fail_details), fs->arena,
                                  trailers)) > 0) {
        fs->ops->send_trailers(fs, trailers,
                               n); /* the stream ends as gRPC clients understand it */
    } else if (fs != NULL) {
        x->fs = NULL;
        fs->ops->reset(fs, STREAM_LOST);
    }
    exchange_end(x);
}

void exchange_cut(struct exchange *x, enum code code)
{
    exchange_cut_named(x, code, "");
}

void exchange_cut_named(struct exchange *x, enum code code, const char *details)
{
    (void)snprintf(x->fail_details, sizeof(x->fail_details), "%s", details);
    exchange_tally_end(x, x->status, false, code);
    tally_mesh_answer(x->worker->tallies, x->front->direction, code_info(code)->id);
    x->cut_code = code;
    relay_drop_back(x, STREAM_CANCELLED);
    if (x->fs == NULL || x->is_tunnel || x->resp_gone >= x->resp_passed) {
        exchange_cut_now(x);
        return;
    }
    /* A reset overtakes what is queued: first the client gets what came. */
    x->is_cutting = true;
    x->request_at = 0;
    limits_end_attempt(x);
    x->wait_at = clock_now_ms() + CUT_WAIT_MS;
    limits_arm(x);
}

void exchange_tally_abandoned(struct exchange *x)
{
    struct tally_end end = {
        .grpc_status = -1, .is_abandoned = true, .error = "", .latency_us = UINT64_MAX};

    if (!x->is_tallied)
        return;
    x->is_tallied = false;
    tally_response(x->worker->tallies, x->tally, &end);
}

void exchange_tally_end(struct exchange *x, uint16_t status, bool is_success, enum code code)
{
    struct tally_end end = {.status = status,
                            .grpc_status = x->grpc_status,
                            .is_success = is_success,
                            .error = code == CODE_NONE ? "" : code_info(code)->id,
                            .latency_us = UINT64_MAX};

    if (!x->is_tallied)
        return;
    x->is_tallied = false;
    picks_on_end(x, status, is_success, code);
    if (x->first_byte_seen)
        end.latency_us = x->first_byte_us - (x->failures > 0 || x->is_hedge ? x->sent_us : x->begun_us);
    tally_response(x->worker->tallies, x->tally, &end);
    if (!is_success || x->parent == NULL)
        return;
    asks_note(x->worker->asks, x->parent, false, true);
    if (x->failures > 0)
        tally_retry(x->worker->tallies, SERIES_RETRY_SUCCESSES, x->parent, x->rule->route);
}
