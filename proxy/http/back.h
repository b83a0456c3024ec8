/* What both client codecs have in common: the head of struct http_back. For the codecs only;
 * everybody else uses http_back_* of stream.h. */
#ifndef PROXY_HTTP_BACK_H
#define PROXY_HTTP_BACK_H

#include "proxy/http/stream.h"

struct http_back_ops {
    struct stream *(*open)(struct http_back *b, struct arena *arena,
                           const struct stream_events *events, void *arg);
    unsigned (*free_slots)(const struct http_back *b);
    void (*retire)(struct http_back *b, int close_reason);
};

struct http_back {
    const struct http_back_ops *ops;
    struct http_back_conf conf;
    struct conn *conn;
    unsigned running; /* streams that are open */
    bool was_used;    /* a stream was opened on it */
    bool is_retired;  /* no new stream is opened */
    enum http_version version;
};

/* Marks it and tells the owner, once. */
void http_back_set_retired(struct http_back *b);

#endif
