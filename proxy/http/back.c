/* Connections in the client role, whatever the HTTP version. */
#include "proxy/http/back.h"

struct stream *http_back_open(struct http_back *b, struct arena *arena,
                              const struct stream_events *events, void *arg)
{
    return b->is_retired ? NULL : b->ops->open(b, arena, events, arg);
}

unsigned http_back_free_slots(const struct http_back *b)
{
    return b->is_retired ? 0 : b->ops->free_slots(b);
}

unsigned http_back_running(const struct http_back *b)
{
    return b->running;
}

bool http_back_was_used(const struct http_back *b)
{
    return b->was_used;
}

struct conn *http_back_conn(const struct http_back *b)
{
    return b->conn;
}

enum http_version http_back_version(const struct http_back *b)
{
    return b->version;
}

void http_back_retire(struct http_back *b, int close_reason)
{
    b->ops->retire(b, close_reason);
}

void http_back_set_retired(struct http_back *b)
{
    if (b->is_retired)
        return;
    b->is_retired = true;
    if (b->conf.on_retired != NULL)
        b->conf.on_retired(b->conf.arg, b);
}
