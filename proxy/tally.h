/* What the data plane counts, in terms of connections and exchanges; the table itself is
 * proxy/series.
 *
 * A tally is one combination of labels with its slots looked up once. In the steady state
 * counting a request is: find the tally in a short list of its endpoint (or take it from the
 * inbound connection), find the status in a short array, four increments. Labels never carry
 * what a client wrote: cardinality is that of the topology. */
#ifndef PROXY_TALLY_H
#define PROXY_TALLY_H

#include "kit/err.h"
#include "kit/hash.h"
#include "kit/list.h"
#include "kit/slice.h"
#include "proxy/net/conn.h"
#include "proxy/series/series.h"

struct backend;
struct endpoint;
struct tallies;

MUST_USE err_t tallies_new(struct series_table *table,
                           struct tallies **out); /* table is lent */
void tallies_free(struct tallies **t);
/* Once a second: bytes of open connections; slots again if the table took some back. */
void tallies_tick(struct tallies *t);

enum direction { DIRECTION_INBOUND, DIRECTION_OUTBOUND };
const char *direction_name(enum direction d);

/* ---- HTTP ---- */

struct status_tally {
    uint16_t status;     /* 0: no answer */
    int16_t grpc_status; /* -1: none */
    bool is_success, is_abandoned;
    const char *error; /* static text; "" none */
    struct series_slot *response, *latency;
};

struct http_tally {
    UT_hash_handle hh;
    struct list node; /* endpoint->tallies, the last used first */
    char *labels;     /* owned */
    size_t labels_n;
    struct series_slot *request;
    unsigned running; /* requests counted whose response is not */
    bool is_gone;     /* its endpoint is: freed when nothing runs */
    unsigned n_statuses, cap_statuses;
    struct status_tally *statuses; /* owned */
    /* What it is for, outbound. */
    uint64_t parent_serial, backend_serial;
    slice_t route; /* owned */
};

/* Never NULL unless memory is out. `parent` names the authority (may be NULL), `backend` is
 * what was chosen (may be NULL), `ep` where it went (may be NULL). */
struct http_tally *tally_outbound(struct tallies *t, const struct backend *parent,
                                  const struct backend *backend, struct endpoint *ep,
                                  slice_t route);
struct http_tally *tally_inbound(struct tallies *t, const char *target, uint16_t port,
                                 const char *client_id, bool is_tls);
/* An endpoint goes: its tallies are freed, those of running requests with their end. */
void tally_endpoint_gone(struct tallies *t, struct endpoint *ep);

static inline void tally_request(struct http_tally *h)
{
    if (h != NULL) {
        series_add(h->request, 1);
        h->running++;
    }
}
struct tally_end {
    uint16_t status;
    int16_t grpc_status;
    bool is_success;
    bool is_abandoned;   /* by ourselves, for another attempt: neither success nor failure */
    const char *error;   /* static text; "" none */
    uint64_t latency_us; /* to the first byte; UINT64_MAX: there was none */
};
/* Once for each tally_request; *h may be gone afterwards. */
void tally_response(struct tallies *t, struct http_tally *h, const struct tally_end *end);

/* ---- TCP ---- */

struct tcp_labels {
    enum direction direction;
    bool is_src; /* accepted, not dialled */
    const char *target;
    bool is_tls;
    bool is_foreign_tls; /* the application's own */
    const char *sni;     /* of that, bounded (passage.h); NULL or "": none */
    const char *no_tls_reason;
    const char *client_id, *server_id;
    const char *dst_namespace, *dst_service; /* "" none */
    uint16_t dst_port;
    const char *pod;
    uint16_t srv_port;
};

struct tcp_tally;
struct tcp_watch { /* embedded with whoever knows the conn */
    struct list node;
    struct tcp_tally *tally;
    const struct conn *conn;
    uint64_t in, out; /* counted so far */
};
void tally_tcp_open(struct tallies *t, struct tcp_watch *w, const struct conn *c,
                    const struct tcp_labels *l);
/* Before the conn's memory goes, or when interest ends. Fine when never opened. */
void tally_tcp_close(struct tallies *t, struct tcp_watch *w, const char *error);

/* ---- single counters ---- */

void tally_close(struct tallies *t, bool is_src, enum close_reason why);
void tally_detected(struct tallies *t, enum direction d, const char *result, uint64_t delay_us);
/* A server was dialled before it was known who speaks first. after: "lesson", "silence", "long_silence". */
void tally_detect_dial(struct tallies *t, enum direction d, const char *after);
void tally_handshake(struct tallies *t, bool is_server, const char *result);
void tally_mesh_answer(struct tallies *t, enum direction d, const char *code);
/* news: enum breaker_news of proxy/balance. */
void tally_breaker(struct tallies *t, unsigned news, const char *backend, const char *reason);
void tally_endpoints(struct tallies *t, const char *backend, const char *state, int64_t more);
/* more: bytes of receive windows beyond the first; grown: how often one grew. */
void tally_windows(struct tallies *t, int64_t more, uint64_t grown);
void tally_bad_input(struct tallies *t, const char *kind);
/* policy: "KIND/NS/NAME"; scope: static text. */
void tally_rate_limited(struct tallies *t, slice_t policy, const char *scope, uint16_t port);
void tally_fault(struct tallies *t, const struct backend *parent, slice_t route, const char *fault);
/* parent may be NULL. */
void tally_hedge(struct tallies *t, const struct backend *parent, slice_t route, const char *result);
void tally_mirror(struct tallies *t, const struct backend *parent, slice_t route, const char *result);
void tally_retry_refused(struct tallies *t, const struct backend *parent, slice_t route, const char *reason);
/* family: one of SERIES_RETRY_REQUESTS ... SERIES_RETRY_OVERFLOW. route: "KIND/NS/NAME" or
 * empty. */
void tally_retry(struct tallies *t, enum series_family family, const struct backend *parent,
                 slice_t route);

#endif
