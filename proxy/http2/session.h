/* One HTTP/2 connection, either role: an engine of our own between a conn and its streams.
 * Private to proxy/http2.
 *
 * Who calls whom. Bytes come in by conn's on_bytes, are cut into frames (receive.c) and handled
 * one by one; what they mean for a stream is told to the exchange at once. What the exchange
 * asks for (ops) is written into the conn's output at once, as far as windows allow; the rest
 * waits in the stream. At the end of the turn, before the conn writes, h2_on_turn lets waiting
 * content out in turns (output.c), tells what has left, and ends what has to end: nothing but
 * h2_on_turn, on_bytes, on_eof and the timer closes the conn, so that an op never pulls it away
 * under its caller.
 *
 *   receive.c  bytes -> frames -> handlers; DATA            control.c  SETTINGS, PING, GOAWAY,
 * RST_STREAM, WINDOW_UPDATE blocks.c   header blocks -> heads, trailers             translate.c
 * fields <-> struct head streams.c  states, ops, ends                            output.c
 * frames out, windows
 */
#ifndef PROXY_HTTP2_SESSION_H
#define PROXY_HTTP2_SESSION_H

#include "kit/buf.h"
#include "kit/list.h"
#include "kit/timer.h"
#include "proxy/http/back.h"
#include "proxy/http/refusal.h"
#include "proxy/http/stream.h"
#include "proxy/http2/flood.h"
#include "proxy/http2/frame.h"
#include "proxy/http2/hpack_decode.h"
#include "proxy/http2/hpack_encode.h"
#include "proxy/net/conn.h"

#define H2_INTERIM_MAX 10 /* 1xx heads per answer */
#define H2_CONN_WINDOW (1024 * 1024)
#define H2_CONN_WINDOW_MAX   (8 * 1024 * 1024) /* where the path is long (path.c) */
#define H2_STREAM_WINDOW_MAX (4 * 1024 * 1024)
#define H2_RECENT      256 /* streams whose end is remembered */
#define H2_SLOTS       128 /* of the table of streams by id; a power of two */
#define H2_OUT_MAX                                                                             \
    (1024 *                                                                                    \
     1024) /* bytes of heads and control frames that wait for a peer that does not read */
#define H2_WAITING_MAX                                                                         \
    (1024 * 1024) /* content in streams above which their sources are held back */
#define H2_CONTROL_MAX       1000 /* such control frames */
#define H2_SMALL_FRAME       256  /* what a DATA frame costs us at least, in bytes of content */
#define H2_SMALL_TURN        (64 * 1024) /* that much beyond its content may be spent in a turn */
#define H2_CONTINUATIONS_MAX 8           /* of one block */
#define H2_FAULT_MAX         64          /* bytes of a field name that an answer repeats */
#define H2_TRAILERS_MAX      256

struct h2_session;

/* RFC 9113 5.1, seen from here. h2_stream_enter is the only one who changes it.
 *
 *   IDLE --HEADERS--> OPEN --we end--> HALF_LOCAL --peer ends--> CLOSED
 *                      '---peer ends--> HALF_REMOTE --we end-----^
 *   and from everywhere to CLOSED by RST_STREAM, either way.
 *
 *   IDLE         back only: lent, no head was sent; no id, not found by id
 *   OPEN ..      found by id
 *   CLOSED       not found by id any more; waits for the exchange to let go */
enum h2_state { H2_IDLE, H2_OPEN, H2_HALF_LOCAL, H2_HALF_REMOTE, H2_CLOSED };

/* A stream ends in two steps that come in any order: the exchange lets it go (is_held false)
 * and it is closed. Then it is recycled. */
struct h2_stream {
    struct stream s;       /* first */
    struct list node;      /* session->streams or ->spare */
    struct list send_node; /* session->sending: content waits and the stream's window is open;
                              or alone */
    struct list sent_node; /* session->sent, or alone */
    struct list doom_node; /* session->doomed, or alone */
    struct h2_session *of;
    struct h2_stream *next_in_slot;
    uint32_t id; /* 0: none yet */
    enum h2_state state;
    bool is_held;   /* the exchange has it */
    unsigned depth; /* events of it on the stack */
    uint64_t opened_ms;
    struct arena own; /* front: s.arena */

    struct {               /* what the peer sends */
        struct head *head; /* being collected: head or trailers */
        uint8_t *room;     /* free bytes for its strings, of the arena */
        size_t room_n;
        size_t bytes; /* decoded, RFC 9113 6.5.2 */
        size_t cookies;
        slice_t host;
        unsigned pseudo;      /* which have come: bits by enum h2_pseudo */
        bool has_regular;     /* from here no pseudo field may come */
        enum refusal refused; /* the rest of the block is only decoded */
        bool has_head;        /* the (final) head was delivered */
        unsigned interims;    /* heads before it */
        bool is_ended;
        bool any;
        int64_t expected;            /* content that is still to come; -1: not known */
        size_t outstanding;          /* content without credit */
        int64_t window;              /* what the peer may still send */
        uint32_t owed;               /* credit that it has not been told of */
        uint32_t size;               /* window, owed and outstanding are no more than this */
        uint64_t seen;               /* content that has come */
        uint64_t rate_ms, rate_seen; /* when it was last looked at, and what it was then */
    } in;

    struct {                 /* what we send */
        struct buf bytes;    /* content that has not become frames */
        struct buf trailers; /* struct h2_pair + bytes, repeated */
        bool has_head, is_ended, has_trailers;
        bool is_finished; /* a frame with END_STREAM was written */
        bool is_dead;     /* the peer takes no more: content is dropped, reported as sent */
        bool is_head_request, is_connect_request; /* back: what the answer must look like */
        size_t unreported;                        /* became frames, on_sent not called yet */
        int64_t window;   /* what the peer lets us send; SETTINGS can make it negative */
        uint32_t turn;    /* session->turn of `direct` */
        uint32_t direct;  /* bytes that went past the queue in that turn */
        uint64_t head_at; /* session->handed when the head was written */
    } out;

    bool got_reset; /* RST_STREAM came, with: */
    uint32_t reset_code;
    enum refusal broken;    /* what of it we have refused */
    enum stream_error doom; /* in session->doomed: fails with this from the loop */
    size_t weight;          /* of a spare: what it holds */
    bool began_used;        /* back: the connection had served before and was idle */
};

struct h2_pair {
    uint32_t name, value; /* lengths; the bytes follow */
};

struct h2_session {
    uint32_t magic;
    bool is_server;
    bool is_gone;        /* on_closed has begun */
    bool is_terminating; /* GOAWAY with an error is written; input is dropped, h2_on_turn closes
                          */
    bool has_said_bye;   /* client: the last GOAWAY is written */
    bool is_watching;    /* the tick is armed */
    bool is_held_up; /* PAUSE_OWNER is set until the next turn: too much of one kind in this one
                      */
    struct conn *conn;
    struct http_limits limits;
    struct flood flood;
    struct timer tick; /* runs while there is something to watch */
    uint64_t tick_ms;
    struct list streams, spare, sending, sent, doomed;
    unsigned running;
    size_t spare_bytes;
    uint64_t handed, left;       /* bytes given to the conn, gone to the socket */
    enum close_reason close_why; /* of the end that we bring about */
    uint32_t turn;
    struct h2_stream *slots[H2_SLOTS]; /* by id / 2 */

    struct { /* cutting what comes in */
        uint32_t preface_left;
        bool has_first;  /* the first frame, which must be SETTINGS, was seen */
        bool has_header; /* `frame` is checked, and not DATA; its payload is coming */
        uint8_t header_n, header[H2_FRAME_HEADER]; /* the beginning of a frame header */
        struct h2_frame frame;
        struct buf
            part; /* the beginning of its payload, if that comes in more than one piece */
    } in;

    struct {                         /* the DATA frame whose payload is coming */
        uint32_t id, left, pad_left; /* bytes that are still to come */
        bool is_open, wants_pad, is_end;
        struct h2_stream *st; /* NULL: dropped */
    } data;

    struct {          /* the header block that is being received */
        bool is_open; /* CONTINUATION must follow */
        bool is_end;  /* the HEADERS frame had END_STREAM */
        uint32_t id;
        struct h2_stream *st; /* NULL: decoded and dropped */
        struct buf bytes;
        unsigned continuations;
        enum h2_error
            refuse; /* the stream gets RST_STREAM with this when the block is complete */
        uint64_t since_ms;
        uint8_t fault[H2_FAULT_MAX]; /* name of the field for which the head is refused */
        size_t fault_n;
    } block;
    struct hpack_decoder decoder;
    struct hpack_encoder encoder;

    struct { /* what we let the peer send */
        int64_t left;
        uint32_t owed, size, goal; /* size falls to goal as what was granted is used */
        uint32_t stream_size;      /* of streams whose content leaves as it comes */
    } window;
    struct { /* what the path holds (path.c) */
        bool is_out;      /* a PING is; since */
        uint64_t sent_us;
        uint64_t seen;    /* content since then, or since its answer */
        uint64_t rate;    /* bytes a second when a window last grew */
        uint64_t next_us; /* no other PING before */
        uint32_t wait_ms;
    } path;
    int64_t out_window; /* what the peer lets us send, over all streams */

    struct { /* content that waits in streams, and whether the peer lets any of it go */
        size_t bytes;
        uint64_t since_ms; /* when it was first seen to be shut in; 0: it is not */
        uint64_t sent;     /* out_sent at that time */
    } waiting;
    uint64_t out_sent; /* content that became frames */

    struct { /* the peer's SETTINGS */
        bool has_come;
        uint32_t streams_max, window;
    } peer;

    struct { /* control frames that may not have left yet: those behind `mark`, and before it */
        unsigned before, behind;
        uint64_t mark;
    } control;

    uint32_t last_id;          /* server: highest the peer has used; client: highest we have */
    uint8_t recent[H2_RECENT]; /* enum h2_recent, by id / 2 */
    unsigned new_in_turn;      /* streams that the peer has opened */
    uint32_t small_in_turn;    /* what its small DATA frames cost beyond their content */

    uint64_t started_ms, last_in_ms, ping_sent_ms; /* ping_sent_ms 0: none is out */
    enum {
        H2_SERVING,
        H2_NOTICE,
        H2_LEAVING
    } leaving; /* drain: NOTICE = shutdown notice is out */
    uint64_t notice_ms;
    uint32_t peer_last_id; /* client: of the peer's GOAWAY */

    struct http_front front; /* server */
    struct http_back back;   /* client */
    uint64_t ping_every_ms, ping_wait_ms;
};

static inline bool h2_is_crowded(const struct h2_session *x)
{
    return x->waiting.bytes > H2_WAITING_MAX;
}

static inline bool h2_is_over(const struct h2_session *x)
{
    return x->is_terminating || x->is_gone || conn_is_closing(x->conn);
}

/* session.c */
MUST_USE err_t h2_session_start(struct h2_session *x, struct conn *c);
struct h2_session *h2_session_from(void *arg);
static inline void h2_dirty(struct h2_session *x)
{
    if (!x->is_gone)
        conn_want_turn(x->conn);
}
/* GOAWAY with this code now, closed for this reason at the end of the turn. */
void h2_terminate(struct h2_session *x, enum h2_error code, enum close_reason why);
/* The same for a limit: ENHANCE_YOUR_CALM, FLOOD, and the name of what ran out. */
void h2_flooded(struct h2_session *x, const char *over);
/* Acts on what an account says. False: the connection is being ended. */
bool h2_obey(struct h2_session *x, enum flood_verdict verdict);
void h2_watch(struct h2_session *x); /* arms the tick */
/* The client's part of the tick (client.c); may close the connection. */
void h2_client_tick(struct h2_session *x, uint64_t now_ms);
/* A drain's first and last word. */
void h2_notice(struct h2_session *x);
void h2_leave(struct h2_session *x);

enum h2_recent { H2_RECENT_UNKNOWN, H2_RECENT_NEVER, H2_RECENT_OPENED, H2_RECENT_ENDED };
void h2_recent_open(struct h2_session *x, uint32_t id);
void h2_recent_end(struct h2_session *x, uint32_t id); /* the peer will send no more on it */
enum h2_recent h2_recent_get(const struct h2_session *x, uint32_t id);

/* streams.c */
extern const struct stream_ops h2_stream_ops;
struct h2_stream *h2_stream_new(struct h2_session *x); /* NULL: no memory */
/* Gives it its id: OPEN. */
void h2_stream_open(struct h2_stream *st, uint32_t id);
struct h2_stream *h2_stream_find(const struct h2_session *x, uint32_t id);
void h2_stream_enter(struct h2_stream *st, enum h2_state next);
void h2_stream_let_go(struct h2_stream *st); /* recycles it when both steps are done */
void h2_stream_free_spares(struct h2_session *x);
/* The last event of a stream that the exchange has. */
void h2_stream_fail(struct h2_stream *st, enum stream_error error, uint32_t http2_error,
                    const char *code, const char *text);
/* A frame with END_STREAM was written, or came. What follows from it is done; the stream may be
 * gone. */
void h2_stream_end_local(struct h2_stream *st);
void h2_stream_end_remote(struct h2_stream *st);
/* The peer broke the rules on it: RST_STREAM, and the exchange is told. */
void h2_stream_break(struct h2_stream *st, enum refusal why, enum h2_error code);
/* Its content comes too slowly. */
void h2_stream_cut_slow(struct h2_stream *st);
void h2_stream_on_reset(struct h2_stream *st, uint32_t code);       /* RST_STREAM came */
void h2_stream_doom(struct h2_stream *st, enum stream_error error); /* fails from the loop */
/* What should be sent cannot be: RST_STREAM now, the exchange is told from the loop. */
void h2_stream_give_up(struct h2_stream *st);
void h2_stream_fail_doomed(struct h2_session *x);
void h2_stream_report_sent(struct h2_session *x);

/* receive.c */
size_t h2_on_bytes(struct conn *c, slice_t bytes);
void h2_take_held_up(
    struct h2_session *x); /* a new turn: goes on where there was too much of something */

/* path.c: windows for the peer that grow with the path */
void h2_path_on_content(struct h2_session *x, uint32_t n); /* a DATA frame of n bytes begins */
/* False: it does not acknowledge the PING of the path. */
bool h2_path_on_ack(struct h2_session *x, slice_t payload);
void h2_path_forget(struct h2_session *x); /* no stream runs: as it began */
void h2_path_done(struct h2_session *x);   /* the connection goes */
/* Before credit is told: the window moves towards what it should be. */
void h2_path_fit(struct h2_session *x);
void h2_path_fit_stream(struct h2_stream *st);

/* stall.c: who holds us up. Looked at with every tick; may end streams and the connection. */
void h2_look_for_stalls(struct h2_session *x, uint64_t now_ms);

/* control.c */
void h2_on_control(struct h2_session *x, const struct h2_frame *f, slice_t payload);
/* A frame on a stream that is no more, or never was (RFC 9113 5.1): false if that ends the
 * connection. */
bool h2_may_ignore(struct h2_session *x, uint32_t id);

/* blocks.c */
void h2_on_headers(struct h2_session *x, const struct h2_frame *f, slice_t payload);
void h2_on_continuation(struct h2_session *x, const struct h2_frame *f, slice_t payload);

/* output.c */
void h2_write_control(struct h2_session *x, uint8_t type, uint8_t flags, uint32_t id,
                      const void *payload, size_t n);
void h2_write_u32(struct h2_session *x, uint8_t type, uint32_t id,
                  uint32_t value); /* RST, WINDOW_UPDATE */
void h2_write_goaway(struct h2_session *x, uint32_t last_id, enum h2_error code);
/* HEADERS and, over 16 KiB, CONTINUATION. False: no memory (the conn ends by itself). */
bool h2_write_block(struct h2_stream *st, struct hpack_out *fields, size_t n, size_t room,
                    bool is_end);
/* Content; is_end: it is the last. The stream may be gone afterwards if it was not held. */
void h2_send_content(struct h2_stream *st, slice_t bytes, bool is_end);
/* Lets waiting content out, in turns, until the conn is full or nothing may go. */
void h2_pump(struct h2_session *x);
/* n bytes of content wait no more. */
void h2_drop_waiting(struct h2_stream *st, size_t n);
/* The stream can go on: its window was opened, or its end was said. */
void h2_want_send(struct h2_stream *st);
/* Content that has gone on its way: room in the windows. */
void h2_credit(struct h2_session *x, size_t n);
void h2_stream_credit(struct h2_stream *st, size_t n);
bool h2_control_is_full(struct h2_session *x);

/* translate.c */
enum h2_pseudo {
    H2_METHOD = 1 << 0,
    H2_SCHEME = 1 << 1,
    H2_PATH = 1 << 2,
    H2_AUTHORITY = 1 << 3,
    H2_STATUS = 1 << 4,
    H2_UNKNOWN_PSEUDO = 1 << 5
};
/* Adds a field of an open block to the stream's head. REFUSED_NOTHING, or why the block is
 * refused. */
enum refusal h2_take_field(struct h2_stream *st, const struct hpack_field *f);
/* A field behind the one for which the head is refused: only what its answer depends on. */
void h2_skip_field(struct h2_stream *st, const struct hpack_field *f);
/* The block is complete: checks across fields. */
enum refusal h2_finish_request(struct h2_stream *st, bool is_end);
enum refusal h2_finish_response(struct h2_stream *st, bool is_end);
enum refusal h2_finish_trailers(struct h2_stream *st, bool is_end);
/* Writes a head, or trailers. False: a byte that may not be sent, too many fields, or no
 * memory: nothing was written. */
bool h2_write_head(struct h2_stream *st, const struct head *h, bool is_request, bool is_end);
bool h2_write_trailers(struct h2_stream *st, const struct field *fields, size_t n);

#endif
