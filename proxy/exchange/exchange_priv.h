/* The exchange, shared by the files of this room.
 *
 *   AUTHORISE -> ROUTE -> BALANCE -> LEND -> RELAY -> (settled)
 *                            ^         |        |
 *                            |   failed, failed before the answer began
 *                            |         v        v
 *                            '-- PAUSE <-go-- ASK --stop, no verdict--> answered by the mesh
 * (settled)
 *
 *   AUTHORISE  the head is here; what belongs to the mesh is taken from it          (steps.c)
 *   ROUTE      a rule was found, its filters were applied                           (steps.c)
 *   BALANCE    a backend and an endpoint are chosen, or waited for                  (steps.c)
 *   LEND       a connection with a free slot is there, or waited for                (steps.c)
 *   RELAY      the back stream is open; bodies flow by credit in both directions    (relay.c)
 *   ASK        an attempt failed; weft-retry was asked                              (again.c)
 *   PAUSE      it said go; the backoff runs                                         (again.c)
 *
 * Beside an attempt in RELAY hedges may run; one of them may take its place (hedge.h).
 *
 * Always true: fs != NULL until the front stream had its last event or was released; bs != NULL
 * only in RELAY (and in ASK, when a response is held); endpoint != NULL in LEND, RELAY, and ASK
 * with bs; resp_started: a byte of the final response's head was given to the front: no other
 * attempt any more. exchange_enter is the only writer of `state`; exchange_end the only way
 * out. */
#ifndef PROXY_EXCHANGE_EXCHANGE_PRIV_H
#define PROXY_EXCHANGE_EXCHANGE_PRIV_H

#include "model/code.h"
#include "model/route.h"
#include "proxy/answer/answer.h"
#include "proxy/balance/balance.h"
#include "proxy/content/content.h"
#include "proxy/discover/discover.h"
#include "proxy/exchange/ask.h"
#include "proxy/exchange/exchange.h"
#include "proxy/exchange/hedge.h"
#include "proxy/exchange/mirror.h"
#include "proxy/front.h"

#define EXCHANGE_ARENA_MAX (512 * 1024)
#define EXCHANGE_PICKS_MAX                                                                     \
    4 /* endpoints tried because connecting failed, before it counts as a failed attempt */
#define EXCHANGE_RACES_MAX 64 /* idle connections that ended under one request */
#define EXCHANGE_FREE_MAX 1024 /* kept for the next requests */
#define EXCHANGE_INBOUND_REPLAY                                                                \
    (64 * 1024) /* inbound: only the race with an idle connection is repeated */

enum exchange_state {
    EXCHANGE_AUTHORISE,
    EXCHANGE_ROUTE,
    EXCHANGE_BALANCE,
    EXCHANGE_LEND,
    EXCHANGE_RELAY,
    EXCHANGE_ASK,
    EXCHANGE_PAUSE,
    EXCHANGE_STATES
};

/* Who limits the whole exchange: the rule, grpc-timeout, weft-deadline, the trace. */
enum deadline_from { DEADLINE_RULE, DEADLINE_GRPC, DEADLINE_PEER, DEADLINE_TRACE };

enum next { NEXT, WAIT, END }; /* go on; an event will; the exchange is gone */

enum cause {
    CAUSE_CONNECT,
    CAUSE_RESET,
    CAUSE_STATUS,
    CAUSE_PER_TRY,
    CAUSE_REFUSED,
    CAUSE_TLS,
    CAUSE_HEDGE /* no failure: the answer is late */
}; /* as on the wire */

struct exchange {
    struct list node;     /* worker->free_exchanges */
    struct arena arena;   /* of the attempt: response head, copies of the request head */
    struct content content; /* of the request: kept for a replay, or not sent yet */
    struct buf held_body; /* content of a held response */
    struct timer timer;
    bool timer_is_on;
    /* Everything below is zero at the beginning of an exchange. */
    enum exchange_state state;
    struct worker *worker;
    struct front *front;
    struct stream *fs, *bs;
    struct head *req; /* in fs->arena */
    uint64_t begun_us;

    /* route */
    struct destination *dest;     /* counted; outbound */
    const struct wire_rule *rule; /* in dest; NULL: inbound */
    const struct wire_match *match;
    const struct wire_weighted *share;
    struct backend *parent, *backend; /* in dest */
    struct endpoint *endpoint;        /* a reference */
    const struct endpoint *avoid; /* where the last attempt failed; compared, never followed */
    bool is_tunnel_wanted, is_tunnel;
    bool has_orig_proto; /* inbound: the request came as HTTP/1 in HTTP/2 */
    bool has_orig_case;  /* and told how its names were written: the peer is one of ours */
    enum http_version orig_version;

    /* the attempt */
    struct pick_wait pick;
    struct lend lend;
    struct http_back *back;
    unsigned failures; /* attempts that failed, those that found no connection included */
    unsigned attempt;  /* 1: the first that was sent */
    unsigned picks;    /* endpoints tried for this attempt */
    bool is_begun;     /* counted as in flight at the endpoint */
    bool raced;        /* repeated because an idle connection was closed under it */
    bool risked;       /* and once although the request may have been read */
    unsigned races;    /* how often */
    uint64_t sent_us;  /* when the head was given to the back */
    struct http_tally *tally;
    bool is_tallied; /* the attempt's request is counted and waits for its response */
    bool is_excused; /* its end says nothing about the endpoint: it raced with an idle connection's */
    uint32_t retry_after_ms; /* what its answer asked for; 0 nothing */

    uint8_t asked_as; /* inbound: the number of this attempt at the client's proxy; 0: it says none */

    /* request content */
    bool req_ended; /* the front has delivered all of it */
    struct field *req_trailers;
    size_t n_req_trailers;
    bool keeps;            /* content is kept from the first byte for a replay */
    size_t replay_counted; /* of worker->replay_used */
    size_t body_out;       /* content given to this attempt's stream */
    size_t back_gone;      /* of that, what has left */
    bool req_end_sent;     /* and its end */
    struct mirror *mirrors; /* copies that want the rest of it (mirror.h) */
    size_t credited;       /* to the front, over all attempts */
    const char *not_kept;  /* why a replay is not possible: counted when it matters */

    /* response */
    struct head *held; /* a response that waits for a verdict, in `arena` */
    bool held_ended;
    struct field *held_trailers;
    size_t n_held_trailers;
    bool holds_for_grpc; /* waits for the trailers of a gRPC answer without content */
    bool resp_started, resp_ended, first_byte_seen;
    bool is_success; /* of the final answer */
    enum code
        peer_code; /* the response is a mesh peer's own, not its application's: its code */
    uint16_t status;
    int16_t grpc_status; /* -1: none */
    bool is_grpc;
    uint64_t first_byte_us;
    size_t resp_passed, resp_gone; /* content given to the front, and how much of it has left */
    bool is_cutting;               /* the response is cut as soon as what came has left */
    enum code cut_code;

    /* whether there is another attempt */
    struct wire_retry_policy *own_policy; /* what the application asked for, in fs->arena; or NULL */
    bool is_noted;                        /* counted for the budget */
    bool is_hedge;                        /* the attempt that leads began as a hedge */
    bool was_hedge_refused;               /* and that was counted */
    unsigned n_hedged;                    /* hedges that were sent */
    struct hedge *hedges;                 /* attempts beside this one (hedge.h) */
    uint64_t hedge_at;                    /* when there will be another; 0 none */
    struct ask ask;
    enum code fail_code;
    enum delivered fail_delivered;
    char fail_details[160];
    char hop[56]; /* the endpoint tried last, for answers */

    /* limits (limits.c draws them): absolute times in ms, 0 none */
    uint64_t request_at;                  /* the whole exchange */
    uint64_t attempt_at, head_at, try_at; /* this attempt: all of it, its response's head, likewise */
    uint64_t wait_at, last_ms;            /* of the state's own wait; when a byte moved last */
    bool has_limits_of_head;              /* the request has left: head_at and try_at were set */
    enum deadline_from deadline_from;     /* whose request_at is */
    uint32_t deadline_ms;                 /* what was left when it was set */
    uint64_t trace_key;
    struct limit_deadline *trace; /* inbound: what is noted for the trace's outbound requests */
    size_t filter_at;             /* the next filter of the rule */
};

void exchange_enter(struct exchange *x, enum exchange_state next);
/* Runs the steps from the present state until one waits or the exchange is gone. */
void exchange_run(struct exchange *x);

/* ---- steps.c: one function per step ---- */
enum next step_authorise(struct exchange *x);
enum next step_route(struct exchange *x);
enum next step_balance(struct exchange *x);
enum next step_lend(struct exchange *x);

/* ---- fault.c: what is refused or disturbed on purpose ---- */
/* The rate of the application's port lets the request pass. False: refused, x is gone. Only where
 * front->limit has a rate. */
bool rate_admit(struct exchange *x);
bool fault_fail(struct exchange *x, const struct wire_filter *f);  /* true: answered, x is gone */
bool fault_delay(struct exchange *x, const struct wire_filter *f); /* true: x waits in ROUTE */

/* ---- picks.c: what the exchange and the balance tell each other ---- */
/* An endpoint of x->backend, or NULL: nobody is ready. */
struct endpoint *picks_choose(const struct exchange *x, const struct endpoint *avoid);
/* The attempt's response begins (x->status and x->grpc_status are set); its trailers came. */
void picks_on_head(struct exchange *x, const struct head *h);
void picks_on_trailers(struct exchange *x, const struct field *fields, size_t n);
/* An attempt that was sent has ended; while x->endpoint is there. */
void picks_on_end(struct exchange *x, uint16_t status, bool is_success, enum code code);
/* x->endpoint is let go without a request having been sent. */
void picks_unsent(const struct exchange *x);

/* ---- edit.c: heads ---- */
/* Takes from a head what an application may not say. */
void edit_strip_mesh(struct head *h);
err_t edit_apply(const struct wire_filter *f, struct head *h, struct arena *a);
/* l5d-orig-proto: written for a peer, read from one. */
err_t edit_write_orig_proto(struct exchange *x, struct head *h, struct arena *a);
bool edit_read_orig_proto(struct exchange *x, struct head *h);
/* The case of trailer names: told to a peer of the mesh (NOMEM), taken from what one told. May replace the array. */
err_t edit_send_trailers_case(struct arena *a, struct field **fields, size_t *n);
void edit_read_trailers_case(struct exchange *x, struct arena *a, struct field **fields, size_t *n);
slice_t edit_path_only(slice_t path); /* without the query */
/* The final response's head for the front: mesh fields, orig-proto, filters. */
err_t edit_response(struct exchange *x, struct head *h);

/* The pool of connections to `ep` that this request is for. */
enum pool_kind exchange_pool_of(const struct exchange *x, const struct endpoint *ep);

/* ---- relay.c: the two streams ---- */
extern const struct stream_events exchange_front_events, exchange_back_events;
/* The request's head as one attempt sends it: a copy that may be added to; the fields are shared. */
struct relay_sending {
    const struct stream *bs;
    const struct endpoint *endpoint;
    struct arena *arena;
    unsigned number; /* of the attempt, from 1 */
};
MUST_USE err_t relay_make_head(struct exchange *x, const struct relay_sending *s, struct head *out);
/* The side of the server made this answer itself (weft-delivered, of mesh peers only): its code; NONE: the
 * application's answer. Notes what it asks for. */
enum code relay_read_peer(struct exchange *x, const struct endpoint *ep, const struct head *h, enum delivered *out);
int16_t relay_read_grpc_status(const struct field *fields, size_t n); /* -1: none */
enum next relay_dispatch(struct exchange *x);
/* The attempt is over: its stream is released or reset, its endpoint let go. */
void relay_drop_back(struct exchange *x, enum stream_error why);
/* Gives a held response to the front after all. */
void relay_unhold(struct exchange *x);
/* Forgets a held response, whole: the next attempt's may be held, too. */
void relay_drop_held(struct exchange *x);

/* ---- body.c: request content ---- */
/* No other attempt will be made: content is not kept any more. */
void relay_stop_keeping(struct exchange *x, const char *why);
/* More content, or its end. False: no memory for bytes that have to wait; nothing was done with them. */
bool body_take(struct exchange *x, slice_t bytes, bool is_end);
void body_take_trailers(struct exchange *x, struct field *fields, size_t n); /* lent until the exchange ends */
/* An attempt begins. True: there is no content and no trailers: the head is the end. */
bool body_begin(struct exchange *x);
/* Gives the attempt what its window takes of what is kept, and the end behind the last of it. */
void body_pump(struct exchange *x);
void body_on_sent(struct exchange *x, size_t n); /* the back stream's */

/* ---- again.c: failed attempts ---- */
struct attempt_failure {
    enum cause cause;
    enum code code;
    enum delivered delivered;
    uint16_t status; /* of a response, gRPC + 1000; 0 none */
    slice_t details; /* copied */
};
/* An attempt failed before its response was passed on. Asks for another one, or answers.
 * Returns END. */
enum next again_or_answer(struct exchange *x, const struct attempt_failure *f);
/* A response whose status is retryable came; it is held. */
void again_ask_held(struct exchange *x, const struct attempt_failure *f);
/* Asks weft-retry; `attempt`: how many there were. */
MUST_USE err_t again_send_question(struct exchange *x, struct ask *a, const struct attempt_failure *f,
                                   unsigned attempt, bool is_replayable);
/* Every failed attempt that is not made again has a reason, counted for its route. */
void again_count_refusal(struct exchange *x, slice_t reason);
/* The exchange's request counts for the budget of its service, once. */
void again_note_request(struct exchange *x);
/* The wait in ASK or PAUSE is over. */
void again_on_wait_end(struct exchange *x);

/* ---- policy.c: what the request's retry policy says ---- */
/* Conditions and terms, or NULL: what was lost and may be repeated is made again all the same. */
const struct wire_retry_policy *again_policy(const struct exchange *x);
/* The same as weft-retry is told it, with the limit of a profile filled in. False: there is none. */
bool again_terms(const struct exchange *x, struct wire_retry_policy *out);
/* The attempt that runs, or is about to, is the last that the policy allows: it has no per-try limit. */
bool again_is_last(const struct exchange *x);
/* l5d-retry-* of the application, before the head is stripped of them; then, when the rule is known. */
void again_read_asked(struct exchange *x);
void again_begin(struct exchange *x);
/* Of x->status and x->grpc_status, which are set: whether another attempt is wanted instead of this answer. */
enum again_look { AGAIN_PASS, AGAIN_WANTED, AGAIN_AFTER_TRAILERS /* a gRPC status may come without content */ };
enum again_look again_look_at_head(const struct exchange *x, bool is_end);
bool again_wants_trailers(const struct exchange *x);
uint16_t again_failure_status(const struct exchange *x); /* for struct attempt_failure */
bool again_is_success(const struct exchange *x); /* by the rule's classes */
/* Whether repeating is allowed even if the application may have seen the request. */
bool again_is_replayable(const struct exchange *x, const struct attempt_failure *f);

/* ---- finish.c: answers of the mesh, the end ---- */
void exchange_answer(struct exchange *x, enum code code, enum delivered delivered,
                     slice_t details);
void exchange_answer_redirect(struct exchange *x, uint16_t status, slice_t location);
void exchange_answer_injected(struct exchange *x, uint16_t status, uint8_t grpc_status,
                              slice_t details);
/* With Retry-After. */
void exchange_answer_limited(struct exchange *x, enum code code, uint32_t retry_after_s,
                             slice_t details);
/* The response is cut after its head, as soon as what came of it has left. */
void exchange_cut(struct exchange *x, enum code code);
void exchange_cut_named(struct exchange *x, enum code code, const char *details);
void exchange_cut_now(struct exchange *x);
/* Counts the attempt's outcome; `code` is the mesh's, if it was its doing (CODE_NONE: the
 * application's). */
void exchange_tally_end(struct exchange *x, uint16_t status, bool is_success, enum code code);
/* We gave the attempt up ourselves, for another one: neither success nor failure. */
void exchange_tally_abandoned(struct exchange *x);
/* Everything goes; fs is released if it is still there. */
void exchange_end(struct exchange *x);

/* ---- limits.c: limits of time ---- */
/* weft-deadline of a proxy of the mesh, before the head is stripped. */
void limits_read_peer(struct exchange *x);
/* The rule is known (inbound: there is none): the request's own limit begins. False: nothing is
 * left of it, x is answered and gone. */
bool limits_begin(struct exchange *x);
/* What is left goes into the head of an attempt: grpc-timeout, weft-deadline. */
MUST_USE err_t limits_write(struct exchange *x, bool to_mesh, struct head *h, struct arena *a);
void limits_begin_attempt(struct exchange *x); /* its head and what there is of content was given away */
void limits_on_sent(struct exchange *x);       /* content of the request, or its end, has left */
void limits_on_head(struct exchange *x);       /* a final response head came */
void limits_end_attempt(struct exchange *x);
void limits_begin_tunnel(struct exchange *x);
void limits_done(struct exchange *x); /* the exchange ends */
/* The time is over: answered, or cut. x is gone, or cutting. */
void limits_expire(struct exchange *x);
/* A peer that was told of our deadline has just found it over, a moment before us. */
bool limits_is_peers_cut(const struct exchange *x);
/* The response broke off: cut with the code, or for the deadline if it was that. */
void limits_cut(struct exchange *x, enum code code);
void limits_touch(struct exchange *x); /* a byte moved */
void limits_arm(struct exchange *x);   /* after a change of any of the times */
void exchange_on_timer(void *arg);

#endif
