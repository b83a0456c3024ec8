#include "proxy/front.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "proxy/balance/balance.h"
#include "proxy/discover/discover.h"
#include "proxy/exchange/exchange.h"
#include "proxy/limit/shared.h"
#include "proxy/net/address.h"
#include "proxy/opaque/opaque.h"
#include "proxy/opening.h"

#include <stdlib.h>

static void front_free(struct front *f)
{
    struct worker *w = f->worker;

    opening_free(f);
    target_drop(&f->target);
    endpoint_unref(&f->app);
    limit_port_drop(&f->limit);
    list_del(&f->node);
    w->n_fronts[f->direction]--;
    limit_counter_set(w->limit_shared, w->load[f->direction], w->n_fronts[f->direction]);
    free(f->client_id);
    free(f);
    worker_front_gone(w);
}

void front_accept(struct worker *w, struct conn *c, enum direction direction)
{
    struct front *f = calloc(1, sizeof(*f));

    if (f == NULL) {
        conn_close(c, CLOSE_LIMIT);
        return;
    }
    f->worker = w;
    f->conn = c;
    f->direction = direction;
    f->accepted_us = clock_read_us();
    list_push(&w->fronts[direction], &f->node);
    w->n_fronts[direction]++;
    limit_counter_set(w->limit_shared, w->load[direction], w->n_fronts[direction]);
    if (direction == DIRECTION_OUTBOUND)
        outbound_open(f);
    else
        inbound_open(f);
}

void front_close(struct front *f, enum close_reason why, bool is_reset)
{
    struct conn *c = f->conn;

    f->conn = NULL;
    opening_free(f); /* first: it may still own the conn */
    if (c != NULL) {
        conn_own(c, NULL, NULL);
        if (is_reset)
            conn_abort(c, why);
        else
            conn_close_gently(c, why);
    }
    front_free(f);
}

void front_closed(struct front *f)
{
    f->conn = NULL;
    front_free(f);
}

/* ---- counting ---- */

static void front_count(struct front *f, const struct backend *be)
{
    struct tcp_labels l = {.direction = f->direction,
                           .is_src = true,
                           .target = f->dst_text,
                           .is_tls = f->is_tls,
                           .is_foreign_tls = f->is_foreign_tls,
                           .sni = f->sni,
                           .client_id = f->client_id != NULL ? f->client_id : "",
                           .server_id = "",
                           .dst_namespace = "",
                           .dst_service = "",
                           .pod = ""};

    if (f->direction == DIRECTION_OUTBOUND) {
        l.no_tls_reason =
            "loopback"; /* the application and its proxy share a network namespace */
        if (be != NULL && be->namespace[0] != 0) {
            l.dst_namespace = be->namespace;
            l.dst_service = be->name;
            l.dst_port = be->port;
        }
    } else {
        l.no_tls_reason = "no_tls_from_remote";
        l.srv_port = f->port;
        if (f->tally == NULL)
            f->tally =
                tally_inbound(f->worker->tallies, f->dst_text, f->port, l.client_id, f->is_tls);
    }
    worker_watch(f->worker, f->conn, &l);
}

/* ---- HTTP ---- */

static void on_stream(void *arg, struct stream *s)
{
    struct front *f = arg;

    exchange_begin(f, s);
    if (f->drains_at_next) {
        f->drains_at_next = false;
        front_drain(f);
    }
}

static void on_refused(void *arg, struct conn *c, const char *code)
{
    struct front *f = arg;

    (void)c;
    tally_bad_input(f->worker->tallies, code);
    tally_mesh_answer(f->worker->tallies, f->direction, code);
    log_debug("request refused", "direction=%s code=%s", direction_name(f->direction), code);
}

static void on_http_closed(void *arg, struct conn *c, int why)
{
    (void)c, (void)why;
    front_closed(arg);
}

void front_start_http(struct front *f, enum http_version version)
{
    struct http_front hf = {.on_stream = on_stream,
                            .on_refused = on_refused,
                            .on_closed = on_http_closed,
                            .arg = f};
    struct target *t = f->target;
    err_t why;

    worker_limits(f->worker, &hf.limits);
    if (f->is_mesh)
        http_limits_for_mesh(&hf.limits);
    opening_free(f);
    front_count(f, t != NULL && t->now != NULL && t->now->n_backends > 0 ? t->now->backends[0]
                                                                         : NULL);
    f->state = version == HTTP_2 ? FRONT_HTTP2 : FRONT_HTTP1;
    f->drains_at_next = f->worker->drain != DRAIN_NO;
    why =
        version == HTTP_2 ? http2_server_start(f->conn, &hf) : http1_server_start(f->conn, &hf);
    if (why != OK)
        front_close(f, CLOSE_LIMIT, true);
}

void front_drain(struct front *f)
{
    if (f->state == FRONT_HTTP1)
        http1_server_drain(f->conn);
    else if (f->state == FRONT_HTTP2)
        http2_server_drain(f->conn);
}

void front_check_idle(struct front *f)
{
    uint64_t now = clock_now_ms(), bytes;

    if (f->state != FRONT_HTTP1 && f->state != FRONT_HTTP2)
        return;
    bytes = conn_info(f->conn)->bytes_in + conn_info(f->conn)->bytes_out;
    if (bytes != f->moved_bytes || f->moved_ms == 0) {
        f->moved_bytes = bytes;
        f->moved_ms = now;
    } else if (now - f->moved_ms >= f->worker->settings->idle_timeout) {
        conn_close_gently(f->conn, CLOSE_IDLE); /* the codec tells its streams, and us */
    }
}

/* ---- what the port speaks ---- */

void front_note(struct front *f, enum evidence e)
{
    f->heard |= 1u << e;
    witness_saw(f->worker->witness, f->port, e);
}

static bool on_said(void *arg, bool is_server, slice_t bytes)
{
    struct front *f = arg;
    enum evidence e;
    bool goes_on = talk_hears(&f->talk, is_server, bytes, &e);

    if (e != EVIDENCE_NONE)
        front_note(f, e);
    return goes_on;
}

/* ---- opaque ---- */

static void on_opaque_refused(void *arg, enum code code)
{
    struct front *f = arg;

    tally_mesh_answer(f->worker->tallies, f->direction, code_info(code)->id);
}

static void on_opaque_end(void *arg, enum close_reason why)
{
    struct front *f = arg;

    (void)why;
    f->opaque = NULL;
    front_closed(f);
}

void front_start_opaque(struct front *f, struct backend *backend, struct conn *early,
                        struct endpoint *early_ep)
{
    const struct settings *s = f->worker->settings;
    struct opaque_conf conf = {.base = f->worker->base,
                               .backend = early == NULL ? backend : NULL,
                               .endpoint = early != NULL ? early_ep : f->app,
                               .early = early,
                               .idle_ms = s->idle_timeout,
                               .wait_ms = s->failfast_timeout,
                               .on_said = f->direction == DIRECTION_INBOUND ? on_said : NULL,
                               .on_refused = on_opaque_refused,
                               .on_end = on_opaque_end,
                               .arg = f};

    opening_free(f);
    front_count(f, backend);
    f->state = FRONT_OPAQUE;
    if (opaque_start(f->conn, &conf, &f->opaque) == OK)
        return;
    if (early != NULL)
        conn_close(early, CLOSE_LIMIT);
    front_close(f, CLOSE_LIMIT, true);
}

/* ---- the capture probe ---- */

#define PROBE_PORT 20001

/* Outbound the reserved address alone tells it. Inbound the destination is the pod's own
 * address, so the source port tells it: a program that listens on 20001 keeps its port for
 * everybody else. */
static bool is_probe(const struct front *f, const struct sockaddr_storage *dst)
{
    struct sockaddr_storage probe4, probe6;

    if (address_port(dst) != PROBE_PORT)
        return false;
    if (f->direction == DIRECTION_INBOUND)
        return worker_is_local(f->worker, dst) &&
               address_port(&conn_info(f->conn)->peer) == PROBE_PORT;
    return address_parse(SLICE_LIT("192.0.2.1"), PROBE_PORT, &probe4) &&
           address_parse(SLICE_LIT("2001:db8::1"), PROBE_PORT, &probe6) &&
           (address_same_ip(dst, &probe4) || address_same_ip(dst, &probe6));
}

bool front_answer_probe(struct front *f, const struct sockaddr_storage *dst)
{
    if (!is_probe(f, dst))
        return false;
    conn_write(f->conn, SLICE_LIT("weft-capture-ok\n"));
    front_close(f, CLOSE_DONE, false);
    return true;
}
