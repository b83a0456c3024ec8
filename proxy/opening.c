#include "proxy/opening.h"

#include "kit/clock.h"
#include "proxy/handshake/handshake.h"
#include "proxy/net/conn.h"
#include "proxy/opaque/opaque.h"

#include <stdlib.h>

struct opening *opening_new(struct front *f, void (*decide)(struct front *f))
{
    struct opening *o = calloc(1, sizeof(*o));

    if (o == NULL)
        return NULL;
    o->front = f;
    o->decide = decide;
    f->opening = o;
    return o;
}

/* ---- detection ---- */

static const char *look_name(const struct detect_result *r)
{
    if (r->is_timeout)
        return "read_timeout";
    switch (r->look) {
    case LOOK_TLS:
        return "tls";
    case LOOK_HTTP1:
        return "http/1";
    case LOOK_HTTP2:
        return "http/2";
    case LOOK_OPAQUE:
    case LOOK_MORE:
        break;
    }
    return "not_http";
}

/* What routes and metrics look at; a name that no host can have is none. */
static void keep_name(struct opening *o, slice_t sni)
{
    o->n_sni = 0;
    if (!look_is_host(sni))
        return;
    if (sni.p[sni.n - 1] == '.')
        sni.n--;
    for (size_t i = 0; i < sni.n; i++)
        o->sni[i] = (char)(sni.p[i] >= 'A' && sni.p[i] <= 'Z' ? sni.p[i] | 0x20 : sni.p[i]);
    o->n_sni = (uint8_t)sni.n;
}

static void on_detected(void *arg, const struct detect_result *r)
{
    struct opening *o = arg;
    struct front *f = o->front;
    struct worker *w = f->worker;

    if (r->is_gone) {
        front_close(f, CLOSE_DETECT_FAILED, false);
        return;
    }
    tally_detected(w->tallies, f->direction, look_name(r), clock_read_us() - f->accepted_us);
    o->is_settled = true;
    o->look = r->look;
    o->is_hello = r->is_hello;
    keep_name(o, r->sni);
    if (r->look == LOOK_TLS && (r->sni.n == 0 || !slice_is_str(r->sni, w->identity)))
        o->look = LOOK_OPAQUE; /* TLS that is not for us passes untouched */
    o->decide(f);
}

static void on_detect_closed(void *arg)
{
    struct opening *o = arg;

    front_closed(o->front);
}

void opening_detect(struct opening *o, bool wants_sni, uint8_t lesson)
{
    struct front *f = o->front;
    struct detect_conf conf = {.base = f->worker->base,
                               .timeout_ms = f->worker->settings->detect_timeout,
                               .wants_sni = wants_sni,
                               .is_hurried = lesson == LESSON_OPAQUE};

    o->lesson = lesson;
    o->is_settled = false;
    o->phase = OPENING_DETECT;
    o->is_hello = false;
    o->n_sni = 0;
    detect_start(&o->detect, f->conn, &conf, on_detected, on_detect_closed, o);
}

void opening_learn(struct opening *o, uint8_t lesson)
{
    o->lesson = lesson;
    if (lesson == LESSON_OPAQUE)
        detect_hurry(&o->detect);
}

/* ---- the server meanwhile ---- */

static void on_server_speaks(struct front *f)
{
    struct opening *o = f->opening;

    if (o->is_settled)
        return;
    detect_stop(&o->detect);
    tally_detected(f->worker->tallies, f->direction, "server_first",
                   clock_read_us() - f->accepted_us);
    o->is_settled = true;
    o->look = LOOK_OPAQUE;
    o->is_hello = o->detect.has_hello;
    o->n_sni = 0;
    o->decide(f);
}

static bool expects_http(const struct opening *o)
{
    switch ((enum lesson)o->lesson) {
    case LESSON_HTTP1:
    case LESSON_HTTP2:
    case LESSON_GRPC:
        return true;
    case LESSON_UNKNOWN:
    case LESSON_OPAQUE:
    case LESSON_SEVERAL:
        break;
    }
    return false;
}

/* The server is not to be had for a client that has said nothing yet. What it said would have been passed on; so is
 * this: it would otherwise wait for the end of the detection. A client of HTTP may still come to speak: a request waits
 * for its server in other ways. */
static void opening_refuse(struct opening *o, enum close_reason why)
{
    if (!o->is_settled && o->phase == OPENING_DETECT && !expects_http(o) && !o->detect.has_bytes)
        front_close(o->front, why, true);
}

/* The early connection was cut. Another endpoint may have a place. */
static void on_early_lost(struct opening *o)
{
    unsigned tries = o->early_be != NULL && !o->early_be->is_single ? OPAQUE_TRIES : 2;

    if (o->early_be != NULL)
        endpoint_unref(&o->early_ep);
    if (o->is_settled || o->phase != OPENING_DETECT)
        return;
    if (++o->n_lost < tries) /* before the last one a client of HTTP has time to begin */
        timer_once(&o->early_timer,
                   o->n_lost + 1 == tries ? OPENING_DIAL_HTTP_MS : OPENING_DIAL_AFTER_MS);
    else
        opening_refuse(o, CLOSE_OTHER_SIDE);
}

static size_t on_early_bytes(struct conn *c, slice_t bytes)
{
    struct opening *o = conn_owner(c);

    switch (look_answer(bytes)) {
    case ANSWER_MORE:
        break;
    case ANSWER_HTTP2:
        /* Settings, which a server of HTTP/2 may send at once: it waits for the client's preface, and so do we. */
        conn_pause(c, PAUSE_OWNER);
        break;
    case ANSWER_HTTP1: /* it has lost its patience: the client is told, as it would be without us */
    case ANSWER_OTHER:
        conn_pause(c, PAUSE_OWNER); /* they stay in the conn for whoever owns it next */
        on_server_speaks(o->front);
        break;
    }
    return 0;
}

static void on_early_eof(struct conn *c, bool is_clean)
{
    struct opening *o = conn_owner(c);

    if (is_clean) {
        on_server_speaks(o->front); /* it has nothing to say: the client hears that at once */
        return;
    }
    o->early = NULL;
    conn_own(c, NULL, NULL);
    conn_close(c, CLOSE_PEER_TRUNCATED);
    on_early_lost(o);
}

static void on_early_closed(struct conn *c, enum close_reason why)
{
    struct opening *o = conn_owner(c);

    (void)why;
    o->early = NULL; /* detection goes on; whoever needs a connection dials again */
    on_early_lost(o);
}

static const struct conn_events early_events = {
    .on_bytes = on_early_bytes, .on_eof = on_early_eof, .on_closed = on_early_closed};

static void on_early_dialled(void *arg, const struct dial_result *r)
{
    struct opening *o = arg;

    o->dial = NULL;
    if (r->conn == NULL) {
        endpoint_unref(&o->early_ep);
        if (o->early_be != NULL)
            timer_once(&o->early_timer, OPENING_DIAL_AFTER_MS); /* another one, if one is ready */
        return;
    }
    o->early = r->conn;
    conn_own(o->early, &early_events, o);
}

static const char *dial_after(const struct opening *o)
{
    switch ((enum lesson)o->lesson) {
    case LESSON_OPAQUE:
        return "lesson";
    case LESSON_HTTP1:
    case LESSON_HTTP2:
    case LESSON_GRPC:
        return "long_silence";
    case LESSON_UNKNOWN:
    case LESSON_SEVERAL:
        break;
    }
    return "silence";
}

static void early_dial(struct opening *o)
{
    struct worker *w = o->front->worker;

    if (endpoint_app_is_full(o->early_ep)) {
        if (o->has_met_full) {
            opening_refuse(o, CLOSE_LIMIT);
            return;
        }
        o->has_met_full = true; /* it may get a place yet, or begin to speak HTTP, which waits in line */
        timer_once(&o->early_timer, OPENING_DIAL_HTTP_MS);
        return;
    }
    tally_detect_dial(w->tallies, o->front->direction, dial_after(o));
    if (dial_start(o->early_ep, SESSION_OPAQUE, on_early_dialled, o, &o->dial) != OK)
        endpoint_unref(&o->early_ep);
}

static void on_early_timer(void *arg);

static void on_endpoint_ready(struct pick_wait *wait)
{
    on_early_timer(CONTAINER_OF(wait, struct opening, early_wait));
}

static void on_early_timer(void *arg)
{
    struct opening *o = arg;

    if (o->is_settled || o->phase == OPENING_HANDSHAKE)
        return;
    if (o->early_be != NULL && o->detect.has_hello)
        return; /* its server name will say where to */
    if (o->early_be != NULL) {
        bool is_full; /* somebody else's end wakes us as well as an endpoint that is ready */
        struct endpoint *ep = backend_pick_opaque(o->early_be, o->front->conn, &is_full);

        if (ep == NULL) {
            o->early_wait.wake = on_endpoint_ready;
            err_ignore(backend_wait(o->early_be, &o->early_wait)); /* too many wait: the client's bytes decide */
            return;
        }
        endpoint_ref(ep);
        o->early_ep = ep;
    }
    early_dial(o);
}

void opening_dial_early(struct opening *o, struct backend *be, struct endpoint *ep)
{
    if (o->early_be != NULL || o->early_ep != NULL || o->is_settled)
        return;
    o->early_be = be;
    if (be != NULL) {
        be->refs++;
    } else {
        endpoint_ref(ep);
        o->early_ep = ep;
    }
    timer_init(&o->early_timer, o->front->worker->base, on_early_timer, o);
    switch ((enum lesson)o->lesson) {
    case LESSON_OPAQUE:
        timer_once(&o->early_timer, 0);
        break;
    case LESSON_HTTP1:
    case LESSON_HTTP2:
    case LESSON_GRPC:
        timer_once(&o->early_timer, OPENING_DIAL_HTTP_MS);
        break;
    case LESSON_UNKNOWN:
    case LESSON_SEVERAL:
        timer_once(&o->early_timer, OPENING_DIAL_AFTER_MS);
        break;
    }
}

static void early_stop(struct opening *o)
{
    struct conn *c = o->early;

    if (o->early_be == NULL && o->early_ep == NULL)
        return;
    timer_stop(&o->early_timer);
    pick_wait_cancel(&o->early_wait);
    backend_unref(&o->early_be);
    dial_cancel(&o->dial);
    o->early = NULL;
    if (c != NULL) {
        conn_own(c, NULL, NULL);
        conn_close(c, CLOSE_SUPERSEDED);
    }
    endpoint_unref(&o->early_ep);
}

void opening_give_early(struct opening *o, enum pool_kind kind)
{
    if (o->early != NULL && !endpoint_is_meshed(o->early_ep) && !conn_is_closing(o->early)) {
        struct conn *c = o->early;

        o->early = NULL;
        conn_own(c, NULL, NULL);
        endpoint_donate(o->early_ep, kind, c);
    }
    early_stop(o);
}

struct conn *opening_take_early(struct opening *o, struct endpoint **ep)
{
    struct conn *c = o->early;

    *ep = NULL;
    if (c == NULL) {
        early_stop(o); /* a dial that is under way is begun anew by whoever takes over */
        return NULL;
    }
    o->early = NULL;
    conn_own(c, NULL, NULL);
    *ep = o->early_ep;
    o->early_ep = NULL;
    early_stop(o);
    return c;
}

void opening_free(struct front *f)
{
    struct opening *o = f->opening;

    if (o == NULL)
        return;
    f->opening = NULL;
    detect_stop(&o->detect);
    target_wait_cancel(&o->wait);
    early_stop(o);
    handshake_cancel(&o->hs);
    timer_stop(&o->limit_timer);
    free(o);
}
