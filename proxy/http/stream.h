/* A request slot on a connection: the same verbs for every protocol and both roles.
 *
 * A front stream (server role) is made by a codec when a request arrives; a back stream (client role) is made by
 * http_back_open. Codecs know nothing of routing; the exchange knows nothing of framing.
 *
 *      exchange -> codec: struct stream_ops          codec -> exchange: struct stream_events
 *
 * Order in each direction: head [informational heads before a response head] body* (trailers | end), or reset at
 * any time. Body bytes are lent for the call. Flow control is by credit: whoever delivers body bytes
 * may have at most STREAM_WINDOW of them outstanding, and gets them back by credit() when they have left at
 * the other end; without credit an HTTP/1 connection is paused, an HTTP/2 stream's window stays shut.
 * An HTTP/2 stream on a long path may have more, but only after it was credited: until the first credit nobody has
 * more than STREAM_WINDOW to keep.
 */
#ifndef PROXY_HTTP_STREAM_H
#define PROXY_HTTP_STREAM_H

#include "kit/arena.h"
#include "kit/err.h"
#include "kit/slice.h"
#include "proxy/http/head.h"

#include <stdbool.h>
#include <stdint.h>

struct conn;
struct stream;

#define STREAM_WINDOW (256 * 1024)

/* Why a stream ended before its end, as the codec saw it. */
enum stream_error {
    STREAM_CANCELLED,   /* the peer does not want it any more (RST CANCEL, client went away) */
    STREAM_REFUSED,     /* provably not processed (REFUSED_STREAM, GOAWAY below, connection never used) */
    STREAM_MALFORMED,   /* the peer broke the protocol; `code` names what (model/code.h) */
    STREAM_LOST,        /* the connection died: reset, truncated, flood */
    STREAM_TOO_LATE,    /* a limit of time of the codec (head timeout) */
    STREAM_INTERNAL,    /* an error of ours (memory) */
    STREAM_PROTOCOL,    /* RST with another code: http2_error has it */
};

struct stream_failure {
    enum stream_error error;
    uint32_t http2_error; /* RFC 9113 section 7; 0 if none */
    const char *text;     /* a few fixed words for a person */
    bool any_sent;        /* back: a byte of the request may have been read by the peer's application */
    bool any_received;    /* back: a byte of the response was seen */
    bool was_idle_conn;   /* back: it was lent an already used connection (the idle race) */
    const char *code;     /* STREAM_MALFORMED: name of the code (model/code.h); `text` names the fault; else NULL */
};

struct stream_ops {
    /* Front: response head (status 1xx: more heads follow, is_end false). Back: request head. The head is
     * borrowed for the call. Written: framing and hop-by-hop fields by the codec; removed fields skipped. */
    void (*send_head)(struct stream *s, const struct head *h, bool is_end);
    /* Takes all bytes. (0 bytes with is_end ends.) */
    void (*send_body)(struct stream *s, slice_t bytes, bool is_end);
    /* Ends with trailers (fields with FIELD_NOT_TRAILER are skipped). Codecs without trailers just end. */
    void (*send_trailers)(struct stream *s, const struct field *fields, size_t n);
    /* Gives up both directions: HTTP/2 RST_STREAM with the code that fits, HTTP/1 closes the connection (so that an answer that
     * was begun is visibly cut). The stream is gone after this call; no event follows. */
    void (*reset)(struct stream *s, enum stream_error why);
    /* n body bytes that this stream delivered have left at the other end. */
    void (*credit)(struct stream *s, size_t n);
    /* The exchange needs the stream no more (both directions ended, or it does not care for the rest). The codec frees
     * it; on a front HTTP/1 this lets the next pipelined request in; unread request body is read and dropped up to a limit
     * or the connection closed. No event follows. */
    void (*release)(struct stream *s);
};

struct stream_events {
    /* Front: a request. Back: a response (1xx included). The head lives in s->arena. */
    void (*on_head)(void *arg, struct stream *s, struct head *h, bool is_end);
    void (*on_body)(void *arg, struct stream *s, slice_t bytes, bool is_end);
    void (*on_trailers)(void *arg, struct stream *s, struct field *fields, size_t n);
    /* n bytes of what was sent with send_body have left. */
    void (*on_sent)(void *arg, struct stream *s, size_t n);
    /* The last event; the codec has freed its part when it returns, do not call ops any more. */
    void (*on_failed)(void *arg, struct stream *s, const struct stream_failure *f);
    /* After send_head(101) on a front / on_head(101 or CONNECT 2xx) on a back the stream is a tunnel: body bytes are raw, is_end is
     * half-close. No event of its own. A request with an upgrade comes (and is sent) with is_end = true when it has no
     * content; the tunnel opens both directions again. CONNECT comes and is sent with is_end = false; on HTTP/1
     * nothing is read or written behind it before there is a tunnel. */
};

struct stream {
    const struct stream_ops *ops;
    const struct stream_events *events; /* set by the exchange */
    void *arg;                          /* of the events */
    struct conn *conn;                  /* lent: the connection it is a slot of */
    struct arena *arena;                /* front: owned by the codec's stream; back: given by the exchange at open */
    enum http_version version;          /* of the codec */
    bool is_front;
    /* Front, by the codec: more content waits on this connection than it wants to hold. Looked at after send_body and in
     * on_sent. */
    bool is_crowded;
    /* Back, by the exchange: bring no more than a read's worth of content ahead of its credit, whatever STREAM_WINDOW
     * allows, because the other end is crowded. HTTP/2 need not: its connection's window bounds what it brings. */
    bool is_throttled;
    uint32_t http2_error; /* set by the exchange before reset(STREAM_PROTOCOL): the code to pass on; 0 = ours */
};

/* ---- codecs, server role ---- */

#define HTTP_LINE_MAX  8192
#define HTTP_FIELD_MAX 16384

/* What HTTP/2 connections of a worker let their peers send beyond what a connection begins with. */
struct http_windows {
    size_t max, used; /* bytes; with max 0 windows stay as they begin */
    uint64_t grown;   /* how often one grew */
};

struct http_limits {
    uint32_t head_max, fields_max;
    uint32_t line_max, field_max; /* bytes of a start line, of a field; 0: HTTP_LINE_MAX, HTTP_FIELD_MAX */
    uint64_t header_timeout_ms;
    uint32_t streams_max; /* HTTP/2 concurrent streams */
    /* HTTP/2, 0: no limit. The connection ends when its peer's windows let no byte of what waits go for stall_ms; a request
     * whose content-length says that content is to come is cut when it brings fewer bytes a second, over 5 s. */
    uint64_t stall_ms, body_rate_min;
    struct http_windows *windows; /* lent, of the worker; NULL: windows stay as they begin */
};

/* What proxies of the mesh add to a head between themselves does not count: an application's head that one side takes
 * the other takes, too. */
static inline void http_limits_for_mesh(struct http_limits *l)
{
    l->fields_max += 10;
    l->head_max += 4096;
}

struct http_front {
    struct http_limits limits;
    /* A request begins: set s->events and s->arg before returning. */
    void (*on_stream)(void *arg, struct stream *s);
    /* Bad input was refused before it became a request (e.g. a malformed head): counted by the owner. `code` is a
     * name of model/code.h. The codec has answered it itself (400/431/501/505...). May be NULL. */
    void (*on_refused)(void *arg, struct conn *c, const char *code);
    /* The connection is gone; every stream of it has had on_failed before. */
    void (*on_closed)(void *arg, struct conn *c, int close_reason);
    void *arg;
};

/* Take over the conn (conn_own). `front` is copied. Failure leaves the conn without owner: close it. */
MUST_USE err_t http1_server_start(struct conn *c, const struct http_front *front);
MUST_USE err_t http2_server_start(struct conn *c, const struct http_front *front);
/* Say that no new request is wanted: GOAWAY, or Connection: close with the next response; idle ones close now. */
void http1_server_drain(struct conn *c);
void http2_server_drain(struct conn *c);

/* ---- codecs, client role ---- */

struct http_back; /* a connection in the client role */

struct http_back_conf {
    struct http_limits limits;
    /* HTTP/2 keep-alive: a PING after ping_every_ms without input (0: never), the connection ends (STALLED) if nothing
     * comes within ping_wait_ms (0: 3 s). While streams run; with ping_when_idle always. For mesh peers: gRPC servers
     * count PINGs of clients they do not know as abuse. */
    uint64_t ping_every_ms, ping_wait_ms;
    bool ping_when_idle;
    /* Slots became free / the number of free slots changed. May be NULL. */
    void (*on_ready)(void *arg, struct http_back *b);
    /* No new stream may be opened (GOAWAY, Connection: close, drained); running ones go on. */
    void (*on_retired)(void *arg, struct http_back *b);
    /* Gone; every stream has had its last event. Do not use b after this returns. */
    void (*on_closed)(void *arg, struct http_back *b, int close_reason);
    void *arg;
};

MUST_USE err_t http1_client_start(struct conn *c, const struct http_back_conf *conf, struct http_back **out);
MUST_USE err_t http2_client_start(struct conn *c, const struct http_back_conf *conf, struct http_back **out);

/* A new stream, or NULL if no slot is free now. The arena is lent until the stream's last event or release. */
struct stream *http_back_open(struct http_back *b, struct arena *arena, const struct stream_events *events,
                              void *arg);
unsigned http_back_free_slots(const struct http_back *b);
unsigned http_back_running(const struct http_back *b);
bool http_back_was_used(const struct http_back *b);
struct conn *http_back_conn(const struct http_back *b);
enum http_version http_back_version(const struct http_back *b);
/* Closes when the running streams have ended (GOAWAY on HTTP/2); at once if there are none. */
void http_back_retire(struct http_back *b, int close_reason);

#endif
