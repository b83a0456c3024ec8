#include "proxy/await.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/timer.h"
#include "proxy/net/address.h"
#include "proxy/net/conn.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct await {
    struct await_conf conf;
    struct net *net;
    struct conn *conn;  /* DIALLING */
    struct timer timer; /* PAUSE; also the next step after a connection, out of its callbacks */
    uint16_t ports[AWAIT_PORTS_MAX];
    unsigned n_ports, port; /* the one that is tried */
    struct sockaddr_storage loopback;
    unsigned address; /* tried in this round */
    uint64_t pause_ms, begun_ms;
    bool has_accepted, has_told;
    uint16_t told; /* the port that `waiting` knows of */
};

/* ---- what is tried ---- */

static bool read_port(slice_t item, uint16_t *out)
{
    const uint8_t *colon = memchr(item.p, ':', item.n), *slash;
    uint64_t n = 0;

    if (colon == NULL)
        return false;
    item = slice_skip(item, (size_t)(colon - item.p) + 1);
    slash = item.n > 0 ? memchr(item.p, '/', item.n) : NULL;
    if (slash != NULL)
        item.n = (size_t)(slash - item.p);
    if (!slice_to_u64(item, &n) || n == 0 || n > UINT16_MAX)
        return false;
    *out = (uint16_t)n;
    return true;
}

static err_t read_ports(struct await *a)
{
    slice_t rest = a->conf.serves;

    while (rest.n > 0) {
        const uint8_t *comma = memchr(rest.p, ',', rest.n);
        slice_t item = slice(rest.p, comma != NULL ? (size_t)(comma - rest.p) : rest.n);

        rest = slice_skip(rest, item.n + (comma != NULL ? 1 : 0));
        while (item.n > 0 && item.p[0] == ' ')
            item = slice_skip(item, 1);
        while (item.n > 0 && item.p[item.n - 1] == ' ')
            item.n--;
        if (item.n == 0)
            continue;
        if (a->n_ports == AWAIT_PORTS_MAX || !read_port(item, &a->ports[a->n_ports])) {
            log_error("setting not usable", "name=WEFT_SERVES item=%.*s", SLICE_FMT(item));
            return ERR_OF(BAD_SETTING);
        }
        a->n_ports++;
    }
    return OK;
}

/* ---- trying ---- */

static size_t take_all(struct conn *c, slice_t bytes)
{
    (void)c;
    return bytes.n;
}

static void on_connected(struct conn *c)
{
    struct await *a = conn_owner(c);

    a->has_accepted = true;
    conn_close(c, CLOSE_DONE);
}

static void on_closed(struct conn *c, enum close_reason why)
{
    struct await *a = conn_owner(c);

    (void)why;
    a->conn = NULL;
    timer_once(&a->timer, 0);
}

static const struct conn_events events = {
    .on_bytes = take_all, .on_connected = on_connected, .on_closed = on_closed};

static void await_dial(struct await *a)
{
    struct sockaddr_storage to = a->conf.addresses[a->address];

    if (a->conf.target == NULL)
        address_set_port(&to, a->ports[a->port]);
    if (conn_dial(a->net, (const struct sockaddr *)&to, address_len(&to), a->conf.connect_ms,
                  &events, a, &a->conn) != OK) {
        a->conn = NULL;
        timer_once(&a->timer, a->pause_ms);
    }
}

static void await_tell(struct await *a, uint16_t port)
{
    if (a->told == port)
        return;
    a->told = port;
    if (a->conf.waiting != NULL)
        a->conf.waiting(a->conf.arg, port);
}

static void await_look_late(struct await *a)
{
    uint64_t ms = clock_now_ms() - a->begun_ms;

    if (ms < AWAIT_TELL_MS)
        return;
    if (!a->has_told)
        log_warn("waiting for the application", "port=%u ms=%" PRIu64, a->ports[a->port], ms);
    a->has_told = true;
    await_tell(a, a->ports[a->port]);
}

static void await_finish(struct await *a)
{
    log_info("the application listens", "ports=%u ms=%" PRIu64, a->n_ports,
             clock_now_ms() - a->begun_ms);
    await_tell(a, 0);
    a->conf.done(a->conf.arg); /* may free it */
}

/* A connection has ended, or a pause. */
static void on_timer(void *arg)
{
    struct await *a = arg;

    if (a->has_accepted) {
        a->has_accepted = false;
        a->port++;
        a->address = 0;
        a->pause_ms = AWAIT_FIRST_MS;
    } else if (++a->address >= a->conf.n_addresses) { /* refused at every address */
        uint64_t pause = a->pause_ms;

        a->address = UINT32_MAX; /* the next one is the first */
        a->pause_ms += a->pause_ms / 4;
        if (a->pause_ms > AWAIT_LAST_MS)
            a->pause_ms = AWAIT_LAST_MS;
        await_look_late(a);
        timer_once(&a->timer, pause);
        return;
    }
    if (a->port >= a->n_ports)
        await_finish(a);
    else
        await_dial(a);
}

/* ---- life ---- */

err_t await_start(const struct await_conf *conf, struct await **out)
{
    struct await *a = calloc(1, sizeof(*a));
    struct net_conf nc = {.base = conf->base};
    err_t why;

    if (a == NULL)
        return ERR_OF(NOMEM);
    a->conf = *conf;
    a->begun_ms = clock_now_ms();
    a->pause_ms = AWAIT_FIRST_MS;
    a->address = UINT32_MAX;
    if (conf->target != NULL) {
        a->conf.addresses = conf->target;
        a->conf.n_addresses = 1;
        a->ports[a->n_ports++] = address_port(conf->target);
    } else if (conf->n_addresses == 0) {
        (void)address_parse(SLICE_LIT("127.0.0.1"), 0, &a->loopback);
        a->conf.addresses = &a->loopback;
        a->conf.n_addresses = 1;
    }
    timer_init(&a->timer, conf->base, on_timer, a);
    why = conf->target != NULL ? OK : read_ports(a);
    if (why == OK)
        why = net_new(&nc, &a->net);
    if (why != OK) {
        free(a);
        return why;
    }
    timer_once(&a->timer, 0);
    *out = a;
    return OK;
}

void await_stop(struct await **ap)
{
    struct await *a = *ap;

    if (a == NULL)
        return;
    *ap = NULL;
    if (a->conn != NULL) {
        conn_own(a->conn, NULL, NULL);
        conn_close(a->conn, CLOSE_SUPERSEDED);
    }
    timer_stop(&a->timer);
    net_free(&a->net);
    free(a);
}
