/* One HTTP/2 connection, either role: nghttp2 between a conn and its streams. Private to
 * proxy/http2.
 *
 * Who calls whom. Bytes come in by conn's on_bytes and go through nghttp2_session_mem_recv,
 * whose callbacks deliver events to the exchange. What the exchange asks for (ops) only queues:
 * nghttp2_submit_*, bytes in the stream's buffer; then the session is dirty. Once per turn,
 * from an event of its own and never from a callback of nghttp2, h2_flush takes frames out
 * (nghttp2_session_mem_send) and gives them to the conn until that is full; the conn writes at
 * the end of the turn.
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
#include "proxy/net/conn.h"

#include <nghttp2/nghttp2.h>

#define H2_INTERIM_MAX 10 /* 1xx heads per answer */
#define H2_CONN_WINDOW (1024 * 1024)
#define H2_RECENT      256 /* peer-opened streams whose end is remembered */

struct h2_session;

/* A stream ends in two steps that come in any order: the exchange lets it go (is_held false)
 * and nghttp2 closes it (is_open false). Then it is recycled. */
struct h2_stream {
    struct stream s;       /* first */
    struct list node;      /* session->streams or ->spare */
    struct list sent_node; /* session->sent, or alone */
    struct list doom_node; /* session->doomed, or alone */
    struct h2_session *of;
    int32_t id;     /* -1: back, nothing was submitted yet */
    bool is_open;   /* nghttp2 knows it (or will: a request that was submitted) */
    bool is_held;   /* the exchange has it */
    unsigned depth; /* events of it on the stack */
    uint64_t opened_ms;
    struct arena own; /* front: s.arena */

    struct {               /* what the peer sends */
        struct head *head; /* being collected: head or trailers */
        size_t bytes;      /* decoded, RFC 9113 6.5.2 */
        size_t cookies;
        slice_t host;
        enum refusal refused; /* the rest of the block is only decoded */
        bool has_head;        /* the (final) head was delivered */
        unsigned interims;    /* heads before it */
        bool is_ended;
        bool any;
        size_t outstanding; /* content without credit */
    } in;

    struct {                 /* what we send */
        struct buf bytes;    /* content that nghttp2 has not taken */
        struct buf trailers; /* struct h2_pair + bytes, repeated */
        bool has_head, is_ended, has_trailers;
        bool is_finished;  /* a frame with END_STREAM was handed over */
        bool is_dead;      /* the peer takes no more: content is dropped, reported as sent */
        size_t unreported; /* left, on_sent not called yet */
        uint64_t head_at;  /* session->handed when the head was handed over */
        bool head_handed;
        unsigned heads_queued;   /* front: heads that were submitted and not handed over yet */
        bool is_cut_behind_head; /* reset with cut_code as soon as the last of them is */
        uint32_t cut_code;
    } out;

    bool got_reset; /* RST_STREAM came, with: */
    uint32_t reset_code;
    enum refusal broken;    /* the library or we refused a frame of it */
    enum stream_error doom; /* in session->doomed: fails with this from the loop */
    bool began_used;        /* back: the connection had served before and was idle */
};

struct h2_pair {
    uint32_t name, value; /* lengths; the bytes follow */
};

struct h2_session {
    uint32_t magic;
    bool is_server;
    bool is_dirty;       /* the flush event is active */
    bool is_gone;        /* on_closed has begun */
    bool is_terminating; /* GOAWAY with an error is queued; input is dropped */
    bool is_broken;      /* the library ran out of memory half-way */
    bool has_said_bye;   /* client: the last GOAWAY is queued */
    unsigned depth;      /* flush on the stack: the memory must stay */
    struct { /* our own look at frame headers: the library keeps those it ignores to itself */
        uint32_t preface_left, payload_left;
        uint8_t header[9];
        unsigned have;
    } frame;
    size_t block_bytes; /* decoded size of the open header block */
    nghttp2_session *ng;
    struct conn *conn;
    struct http_limits limits;
    struct flood flood;
    struct event flush;
    struct timer tick; /* runs while there is something to watch */
    uint64_t tick_ms;
    struct list streams, spare, sent, doomed;
    unsigned running, n_spare;
    uint64_t handed, left;       /* bytes given to the conn, gone to the socket */
    enum close_reason close_why; /* of the end that we bring about */

    int32_t last_id;           /* server: highest the peer has used */
    uint8_t recent[H2_RECENT]; /* enum h2_recent, by id / 2 */

    bool got_settings;
    struct h2_stream *block; /* whose header block is open */
    uint64_t block_since_ms;
    uint64_t started_ms, last_in_ms, ping_sent_ms; /* ping_sent_ms 0: none is out */
    enum {
        H2_SERVING,
        H2_NOTICE,
        H2_LEAVING
    } leaving; /* drain: NOTICE = shutdown notice is out */
    uint64_t notice_ms;

    struct http_front front; /* server */
    struct http_back back;   /* client */
    uint64_t ping_every_ms, ping_wait_ms;
};

/* session.c */
MUST_USE err_t h2_session_start(struct h2_session *x, struct conn *c);
struct h2_session *h2_session_from(void *arg);
void h2_dirty(struct h2_session *x);
/* GOAWAY with this code, then close for this reason. Safe inside nghttp2's callbacks. */
void h2_terminate(struct h2_session *x, uint32_t http2_error, enum close_reason why);
void h2_watch(struct h2_session *x); /* arms the tick */
/* The client's part of the tick (client.c); may close the connection. */
void h2_client_tick(struct h2_session *x, uint64_t now_ms);
/* Says the final GOAWAY of a drain. */
void h2_leave(struct h2_session *x);

/* streams.c */
extern const struct stream_ops h2_stream_ops;
struct h2_stream *h2_stream_new(struct h2_session *x); /* NULL: no memory */
struct h2_stream *h2_stream_find(struct h2_session *x, int32_t id);
void h2_stream_let_go(struct h2_stream *st); /* recycles it when both steps are done */
void h2_stream_free_spares(struct h2_session *x);
void h2_stream_fail(struct h2_stream *st, enum stream_error error, uint32_t http2_error,
                    const char *code, const char *text);
void h2_stream_on_close(struct h2_stream *st, uint32_t http2_error);
void h2_stream_report_sent(struct h2_session *x);
void h2_stream_fail_doomed(struct h2_session *x);
void h2_stream_doom(struct h2_stream *st, enum stream_error error); /* fails from the loop */
ssize_t h2_stream_read(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t n, uint32_t *flags,
                       nghttp2_data_source *source, void *arg);
int h2_stream_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *framehd,
                        size_t n, nghttp2_data_source *source, void *arg);

void h2_recent_open(struct h2_session *x, int32_t id);
void h2_recent_end(struct h2_session *x, int32_t id);
enum h2_recent { H2_RECENT_UNKNOWN, H2_RECENT_NEVER, H2_RECENT_OPENED, H2_RECENT_ENDED };
enum h2_recent h2_recent_get(const struct h2_session *x, int32_t id);

/* receive.c */
/* A frame header has come; the library sees it after this. False: the connection is being
 * ended. */
bool h2_on_frame_header(struct h2_session *x, const nghttp2_frame_hd *hd);
/* nghttp2's callbacks for what comes in. */
void h2_receive_callbacks(nghttp2_session_callbacks *cb);

/* translate.c */
/* Adds a field of an open block to the stream's head. REFUSED_NOTHING, or why the block is
 * refused. */
enum refusal h2_take_field(struct h2_stream *st, slice_t name, slice_t value);
/* The block is complete: checks across fields. */
enum refusal h2_finish_request(struct h2_stream *st);
enum refusal h2_finish_response(struct h2_stream *st);

#define H2_NV_MAX 256
struct h2_nv {
    nghttp2_nv nv[H2_NV_MAX];
    size_t n;
    char status[4], length[24];
};
/* False: more fields than fit, or a byte that may not be sent. Borrows from the head. */
bool h2_print_head(const struct head *h, bool is_request, struct h2_nv *out);

#endif
