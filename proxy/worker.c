#include "proxy/worker.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "proxy/await.h"
#include "proxy/balance/balance.h"
#include "proxy/content/spill.h"
#include "proxy/detect/witness.h"
#include "proxy/discover/discover.h"
#include "proxy/exchange/admit.h"
#include "proxy/exchange/ask.h"
#include "proxy/exchange/exchange.h"
#include "proxy/exchange/mirror.h"
#include "proxy/front.h"
#include "proxy/handshake/handshake.h"
#include "proxy/limit/limit.h"
#include "proxy/net/address.h"
#include "proxy/opaque/opaque.h"
#include "proxy/passage.h"

#include <inttypes.h>
#include <stdlib.h>

#define LOAD_KEY       0x6c6f6164 /* kind of key in the shared memory: "load" */
#define DRAIN_GRACE_MS 1000
#define WAITING_MAX    100000
#define STREAMS_MAX    250 /* of one HTTP/2 connection, both roles */

/* ---- settings that are lists ---- */

static bool next_item(slice_t *list, slice_t *item)
{
    const uint8_t *comma;

    if (list->n == 0)
        return false;
    comma = memchr(list->p, ',', list->n);
    *item = slice(list->p, comma == NULL ? list->n : (size_t)(comma - list->p));
    *list = slice_skip(*list, comma == NULL ? list->n : item->n + 1);
    while (item->n > 0 && item->p[0] == ' ')
        *item = slice_skip(*item, 1);
    while (item->n > 0 && item->p[item->n - 1] == ' ')
        item->n--;
    return true;
}

/* "80" or "80-90". */
static bool read_range(slice_t item, uint64_t *low, uint64_t *high)
{
    const uint8_t *dash = item.n > 0 ? memchr(item.p, '-', item.n) : NULL;
    size_t n = dash == NULL ? item.n : (size_t)(dash - item.p);

    if (!slice_to_u64(slice(item.p, n), low))
        return false;
    *high = *low;
    if (dash != NULL && !slice_to_u64(slice_skip(item, n + 1), high))
        return false;
    return *low <= *high && *high <= 65535;
}

static err_t read_opaque_ports(struct worker *w)
{
    slice_t list = slice_str(w->settings->opaque_ports), item;

    while (next_item(&list, &item)) {
        uint64_t low, high;

        if (item.n == 0)
            continue;
        if (!read_range(item, &low, &high)) {
            log_error("setting not usable", "name=WEFT_OPAQUE_PORTS item=%.*s",
                      SLICE_FMT(item));
            return ERR_OF(BAD_SETTING);
        }
        for (uint64_t p = low; p <= high; p++)
            w->opaque_ports[p / 8] |= (uint8_t)(1u << (p % 8));
    }
    return OK;
}

static err_t read_pod_ips(struct worker *w)
{
    slice_t list = slice_str(w->settings->pod_ips), item;

    while (next_item(&list, &item)) {
        if (item.n == 0)
            continue;
        if (w->n_pod_ips == WORKER_POD_IPS_MAX ||
            !address_parse(item, 0, &w->pod_ips[w->n_pod_ips])) {
            log_error("setting not usable", "name=WEFT_POD_IPS item=%.*s", SLICE_FMT(item));
            return ERR_OF(BAD_SETTING);
        }
        w->n_pod_ips++;
    }
    return OK;
}

static err_t read_targets(struct worker *w)
{
    const struct settings *s = w->settings;

    w->has_outbound_target = s->outbound_only_for[0] != 0;
    w->outbound_target_is_ip =
        w->has_outbound_target &&
        address_parse_pair(slice_str(s->outbound_only_for), &w->outbound_target);
    w->has_inbound_target = s->inbound_only_for[0] != 0;
    if (w->has_inbound_target &&
        !address_parse_pair(slice_str(s->inbound_only_for), &w->inbound_target)) {
        log_error("setting not usable", "name=WEFT_INBOUND_TARGET value=%s",
                  s->inbound_only_for);
        return ERR_OF(BAD_SETTING);
    }
    return OK;
}

bool worker_is_opaque_port(const struct worker *w, uint16_t port)
{
    return (w->opaque_ports[port / 8] >> (port % 8) & 1) != 0;
}

bool worker_is_local(const struct worker *w, const struct sockaddr_storage *a)
{
    for (size_t i = 0; i < w->n_pod_ips; i++)
        if (address_same_ip(&w->pod_ips[i], a))
            return true;
    return false;
}

static bool is_local(void *arg, const struct sockaddr_storage *a)
{
    return worker_is_local(arg, a);
}

void worker_limits(struct worker *w, struct http_limits *out)
{
    *out = (struct http_limits){.head_max = (uint32_t)w->settings->head_max,
                                .fields_max = w->settings->fields_max,
                                .line_max = (uint32_t)w->settings->line_max,
                                .field_max = (uint32_t)w->settings->field_max,
                                .header_timeout_ms = w->settings->header_timeout,
                                .streams_max = STREAMS_MAX,
                                .stall_ms = w->settings->stall_timeout,
                                .body_rate_min = w->settings->body_rate_min,
                                .windows = &w->windows};
}

/* ---- counted connections ---- */

struct watched {
    UT_hash_handle hh;
    const struct conn *conn;
    struct tcp_watch watch;
};

void worker_watch(struct worker *w, const struct conn *c, const struct tcp_labels *l)
{
    struct watched *x = calloc(1, sizeof(*x));

    if (x == NULL)
        return; /* not counted */
    x->conn = c;
    tally_tcp_open(w->tallies, &x->watch, c, l);
    HASH_ADD_PTR(w->watched, conn, x);
}

static void on_conn_close(void *arg, const struct conn *c, enum close_reason why)
{
    struct worker *w = arg;
    struct watched *x;

    tally_close(w->tallies, !conn_info(c)->is_dialled, why);
    if (conn_info(c)->is_dialled && w->balance != NULL)
        balance_conn_closed(w->balance, c);
    HASH_FIND_PTR(w->watched, &c, x);
    if (x == NULL)
        return;
    tally_tcp_close(w->tallies, &x->watch, close_is_error(why) ? close_name(why) : "");
    HASH_DEL(w->watched, x);
    free(x);
}

static void on_dialled(void *arg, struct endpoint *ep, struct conn *c)
{
    struct worker *w = arg;
    bool is_meshed = endpoint_is_meshed(ep);
    struct tcp_labels l = {
        .direction = ep->is_inbound ? DIRECTION_INBOUND : DIRECTION_OUTBOUND,
        .target = ep->text,
        .is_tls = is_meshed,
        .no_tls_reason = ep->is_inbound ? "loopback" : "not_provided_by_service_discovery",
        .client_id = "",
        .server_id = ep->identity,
        .dst_namespace = ep->service_namespace,
        .dst_service = ep->service,
        .dst_port = ep->service_port,
        .pod = ep->pod,
        .srv_port = ep->is_inbound ? ep->port : 0};

    worker_watch(w, c, &l);
}

static void on_endpoint_free(void *arg, struct endpoint *ep)
{
    struct worker *w = arg;

    tally_endpoint_gone(w->tallies, ep);
}

static void on_handshake(void *arg, const char *result)
{
    struct worker *w = arg;

    tally_handshake(w->tallies, false, result);
}

/* ---- telemetry ---- */

static void on_telemetry(void *arg, const struct mailbox_msg *msg)
{
    struct worker *w = arg;
    struct wire_msg m;

    if (wire_decode(msg->body, WIRE_ROLE_TELEMETRY, WIRE_ROLE_PROXY, &m) != OK)
        return;
    if (m.code == WIRE_series_all)
        series_report_all(&w->reporter);
    wire_msg_done(&m);
}

static void say_state(struct worker *w)
{
    bool is_serving = w->drain == DRAIN_NO;
    struct wire_state m = {.key = SLICE_LIT("proxy"),
                           .is_good = is_serving,
                           .text = is_serving ? SLICE_LIT("serving") : SLICE_LIT("draining")};

    if (w->telemetry != NULL)
        err_ignore(WIRE_SEND(w->telemetry, SLICE_LIT(""), state,
                             &m)); /* said again when telemetry is back */
}

static void on_telemetry_link(void *arg, bool is_up)
{
    struct worker *w = arg;

    if (!is_up)
        return;
    say_state(w);
    series_report_all(&w->reporter);
}

static void check_idle(struct worker *w, enum direction d)
{
    LIST_EACH_SAFE (it, &w->fronts[d])
        front_check_idle(CONTAINER_OF(it, struct front, node));
}

static void tell_windows(struct worker *w)
{
    tally_windows(w->tallies, (int64_t)w->windows.used - (int64_t)w->windows_told,
                  w->windows.grown - w->windows_grown_told);
    w->windows_told = w->windows.used;
    w->windows_grown_told = w->windows.grown;
}

static void on_second(void *arg)
{
    struct worker *w = arg;

    if (w->settings->idle_timeout > 0) {
        check_idle(w, DIRECTION_INBOUND);
        check_idle(w, DIRECTION_OUTBOUND);
    }
    limit_shared_tick(w->limit_shared);
    breakers_tick(w);
    tell_windows(w);
    tallies_tick(w->tallies);
    asks_tick(w->asks);
    if (w->telemetry != NULL)
        (void)series_report(&w->reporter);
}

/* ---- life ---- */

static void on_ports(void *arg, const struct wire_ports *m)
{
    struct worker *w = arg;

    limits_set_ports(w->limits, m);
}

static void on_pressure(void *arg, uint16_t port)
{
    struct worker *w = arg;
    char object[16], message[160];
    struct wire_event m = {.at_ms = (int64_t)clock_wall_ms(), .kind = SLICE_LIT("ATTEMPTS_REFUSED")};

    (void)snprintf(object, sizeof(object), "port %u", port);
    (void)snprintf(message, sizeof(message),
                   "further attempts are above %u %% of the requests of all clients together (WEFT_RETRY_PRESSURE)",
                   w->settings->retry_pressure);
    m.object = slice_str(object);
    m.message = slice_str(message);
    log_warn("further attempts are refused", "port=%u pressure=%u", port, w->settings->retry_pressure);
    if (w->telemetry != NULL)
        err_ignore(WIRE_SEND(w->telemetry, SLICE_LIT(""), event, &m)); /* said in the log, too */
}

static err_t open_telemetry(struct worker *w)
{
    struct mailbox_conf mc = {.kind = MAILBOX_DEALER,
                              .name = "telemetry",
                              .endpoint = w->conf.telemetry,
                              .on_msg = on_telemetry,
                              .on_link = on_telemetry_link,
                              .arg = w};

    if (w->conf.telemetry == NULL)
        return OK;
    TRY(mailbox_open(w->base, &mc, &w->telemetry));
    series_reporter_init(&w->reporter, w->series, w->conf.process, w->conf.incarnation, NULL,
                         w->telemetry);
    return OK;
}

static void on_lesson(void *arg, uint16_t port, enum lesson lesson)
{
    struct worker *w = arg;

    log_info("port learned", "port=%u protocol=%u", port, lesson_protocol(lesson));
    discover_spoken(w->discover, port, lesson_protocol(lesson));
}

static err_t open_rooms(struct worker *w)
{
    const struct settings *s = w->settings;
    struct net_conf nc = {.base = w->base,
                          .peer_ms = s->peer_timeout,
                          .on_close = on_conn_close,
                          .arg = w};
    struct handshakes_conf hc = {.base = w->base,
                                 .endpoint = w->conf.tls,
                                 .max =
                                     s->handshakes_max / (s->workers > 0 ? s->workers : 1) + 1,
                                 .timeout_ms = s->handshake_timeout,
                                 .rekey_after = s->rekey_after};
    struct balance_conf bc = {.base = w->base,
                              .outbound_connect_ms = s->outbound_connect_timeout,
                              .inbound_connect_ms = s->inbound_connect_timeout,
                              .pool_idle_ms = s->pool_idle_timeout,
                              .failfast_ms = s->failfast_timeout,
                              .queue_capacity = s->queue_capacity,
                              .on_open = on_dialled,
                              .on_endpoint_free = on_endpoint_free,
                              .on_handshake = on_handshake,
                              .on_breaker = breakers_on_event,
                              .on_backend_free = breakers_on_backend_free,
                              .zone = s->zone,
                              .arg = w};
    struct admit_conf ac = {.percent = s->retry_pressure,
                            .workers = s->workers > 0 ? s->workers : 1,
                            .on_pressure = on_pressure,
                            .arg = w};
    struct discover_conf dc = {.base = w->base,
                               .endpoint = w->conf.link,
                               .wait_ms = s->failfast_timeout,
                               .waiting_max = WAITING_MAX,
                               .is_local = is_local,
                               .on_ports = on_ports,
                               .arg = w};

    TRY(series_open(w->conf.series_fd, w->conf.incarnation, &w->series));
    TRY(limit_shared_open(w->conf.limits_fd, w->conf.index, &w->limit_shared));
    for (unsigned d = 0; d < 2; d++) {
        slice_t name = slice_str(direction_name((enum direction)d));

        w->load[d] = limit_shared_counter(
            w->limit_shared, limit_shared_key(w->limit_shared, LOAD_KEY, name, slice(NULL, 0)));
    }
    TRY(limits_new(w->limit_shared, &w->limits));
    TRY(tallies_new(w->series, &w->tallies));
    TRY(names_new(&w->names));
    TRY(net_new(&nc, &w->net));
    if (w->conf.tls != NULL && w->identity[0] != 0)
        TRY(handshakes_new(&hc, &w->handshakes));
    bc.net = w->net;
    bc.shared = w->limit_shared;
    bc.handshakes = w->handshakes;
    worker_limits(w, &bc.limits);
    TRY(balance_new(&bc, &w->balance));
    dc.balance = w->balance;
    TRY(discover_new(&dc, &w->discover));
    w->witness = witness_new(on_lesson, w);
    if (w->witness == NULL)
        return ERR_OF(NOMEM);
    TRY(asks_new(w->base, w->conf.retry, &w->asks));
    TRY(admit_new(&ac, &w->admit));
    if (s->replay_spill > 0 && spill_new(s->replay_spill, &w->spill) != OK)
        log_warn("no memory file for request bodies: those above WEFT_REPLAY_MAX are not kept", "spill=%" PRIu64,
                 s->replay_spill);
    return open_telemetry(w);
}

static void on_drain_timer(void *arg);
static void on_drain_limit(void *arg);

err_t worker_new(const struct worker_conf *conf, struct worker **out)
{
    struct worker *w = calloc(1, sizeof(*w));
    err_t why;

    if (w == NULL)
        return ERR_OF(NOMEM);
    w->conf = *conf;
    w->settings = conf->settings;
    w->windows.max = conf->settings->window_total;
    w->base = conf->base;
    list_init(&w->fronts[0]);
    list_init(&w->fronts[1]);
    list_init(&w->free_exchanges);
    list_init(&w->mirrors);
    timer_init(&w->second, w->base, on_second, w);
    timer_init(&w->drain_timer, w->base, on_drain_timer, w);
    timer_init(&w->drain_limit, w->base, on_drain_limit, w);
    why = slice_to_cstr(slice_str(conf->identity), w->identity, sizeof(w->identity))
              ? OK
              : ERR_OF(BAD_SETTING);
    if (why == OK)
        why = read_opaque_ports(w);
    if (why == OK)
        why = read_pod_ips(w);
    if (why == OK)
        why = read_targets(w);
    if (why == OK)
        why = open_rooms(w);
    if (why != OK) {
        worker_free(&w);
        return why;
    }
    timer_every(&w->second, 1000);
    *out = w;
    return OK;
}

static void on_app_listens(void *arg)
{
    struct worker *w = arg;

    await_stop(&w->await);
    if (w->drain == DRAIN_NO)
        discover_serving(w->discover, true);
}

static void on_app_is_late(void *arg, uint16_t port)
{
    struct worker *w = arg;

    if (w->conf.waiting != NULL)
        w->conf.waiting(w->conf.arg, port);
}

/* Says that the pod takes traffic, now or when its application listens. Nothing is said before:
 * a proxy that is the successor of another must not take a pod out of service that is in it. */
static err_t serve(struct worker *w)
{
    const struct await_conf ac = {.base = w->base,
                                  .serves = slice_str(w->settings->serves),
                                  .addresses = w->pod_ips,
                                  .n_addresses = w->n_pod_ips,
                                  .target = w->has_inbound_target ? &w->inbound_target : NULL,
                                  .connect_ms = w->settings->inbound_connect_timeout,
                                  .waiting = on_app_is_late,
                                  .done = on_app_listens,
                                  .arg = w};

    if (w->settings->await_app && w->settings->serves[0] != '\0')
        return await_start(&ac, &w->await);
    discover_serving(w->discover, true);
    return OK;
}

err_t worker_listen(struct worker *w, int fd, enum direction direction)
{
    if (w->n_listeners == WORKER_LISTENERS_MAX)
        return ERR_OF(TOO_BIG);
    TRY(listener_start(w, fd, direction, &w->listeners[w->n_listeners]));
    w->n_listeners++;
    if (w->has_begun)
        return OK;
    w->has_begun = true;
    return serve(w);
}

static void close_front(struct front *f)
{
    if (f->opaque != NULL)
        opaque_end(f->opaque, CLOSE_DRAINING);
    else if (f->state == FRONT_OPENING)
        front_close(f, CLOSE_DRAINING, false);
    else
        conn_close(f->conn, CLOSE_DRAINING); /* the codec tells its streams, and us */
}

static void close_fronts(struct worker *w, enum direction d)
{
    while (!list_is_empty(&w->fronts[d]))
        close_front(CONTAINER_OF(w->fronts[d].next, struct front, node));
}

void worker_free(struct worker **wp)
{
    struct worker *w = *wp;

    if (w == NULL)
        return;
    w->drain = DRAIN_DONE;
    for (unsigned i = 0; i < w->n_listeners; i++)
        listener_stop(&w->listeners[i]);
    close_fronts(w, DIRECTION_INBOUND);
    close_fronts(w, DIRECTION_OUTBOUND);
    await_stop(&w->await);
    timer_stop(&w->second);
    timer_stop(&w->drain_timer);
    timer_stop(&w->drain_limit);
    if (w->tallies != NULL)
        on_second(w);
    mirror_drop_all(w);
    discover_free(&w->discover); /* lets the endpoints go, and their connections with them */
    net_free(&w->net);
    handshakes_free(&w->handshakes);
    asks_free(&w->asks);
    admit_free(&w->admit);
    balance_free(&w->balance);
    exchange_free_all(w);
    spill_free(&w->spill);
    witness_free(&w->witness);
    mailbox_close(&w->telemetry);
    names_free(&w->names);
    tallies_free(&w->tallies);
    series_close(&w->series);
    limits_free(&w->limits);
    limit_shared_close(&w->limit_shared);
    free(w);
    *wp = NULL;
}

/* ---- drain ---- */

static void drain_fronts(struct worker *w, enum direction d)
{
    LIST_EACH_SAFE (it, &w->fronts[d])
        front_drain(CONTAINER_OF(it, struct front, node));
}

static void drain_enter(struct worker *w, enum drain_phase next)
{
    w->drain = next;
    log_info("draining", "phase=%d inbound=%u outbound=%u", (int)next,
             w->n_fronts[DIRECTION_INBOUND], w->n_fronts[DIRECTION_OUTBOUND]);
    switch (next) {
    case DRAIN_NO:
    case DRAIN_GRACE:
        break;
    case DRAIN_INBOUND:
        if (w->n_fronts[DIRECTION_INBOUND] == 0)
            timer_once(&w->drain_timer, 0);
        break;
    case DRAIN_OUTBOUND:
        drain_fronts(w, DIRECTION_OUTBOUND);
        if (w->n_fronts[DIRECTION_OUTBOUND] == 0)
            timer_once(&w->drain_timer, 0);
        break;
    case DRAIN_DONE:
        timer_stop(&w->drain_timer);
        timer_stop(&w->drain_limit);
        if (w->conf.drained != NULL)
            w->conf.drained(w->conf.arg);
        break;
    }
}

static void on_drain_timer(void *arg)
{
    struct worker *w = arg;

    if (w->drain == DRAIN_GRACE)
        drain_enter(w, DRAIN_INBOUND);
    else if (w->drain == DRAIN_INBOUND && w->n_fronts[DIRECTION_INBOUND] == 0)
        drain_enter(w, DRAIN_OUTBOUND);
    else if (w->drain == DRAIN_OUTBOUND && w->n_fronts[DIRECTION_OUTBOUND] == 0)
        drain_enter(w, DRAIN_DONE);
}

static void on_drain_limit(void *arg)
{
    struct worker *w = arg;

    log_warn("drain limit met", "inbound=%u outbound=%u", w->n_fronts[DIRECTION_INBOUND],
             w->n_fronts[DIRECTION_OUTBOUND]);
    drain_enter(w, DRAIN_DONE);
}

void worker_front_gone(struct worker *w)
{
    if (w->drain == DRAIN_INBOUND || w->drain == DRAIN_OUTBOUND)
        timer_once(&w->drain_timer,
                   0); /* looked at from the loop: callbacks are on the stack */
}

void worker_drain(struct worker *w, uint64_t ms)
{
    if (w->drain != DRAIN_NO)
        return;
    timer_once(&w->drain_limit, ms);
    await_stop(&w->await);
    discover_serving(w->discover, false);
    drain_fronts(w, DIRECTION_INBOUND);
    w->drain = DRAIN_GRACE;
    say_state(w);
    /* Without a control plane nobody has to hear of it first. */
    timer_once(&w->drain_timer, discover_is_linked(w->discover)
                                    ? (ms / 4 < DRAIN_GRACE_MS ? ms / 4 : DRAIN_GRACE_MS)
                                    : 0);
}
