/* Which bytes of the content have left, on a connection that carries heads and chunk framing
 * too.
 *
 * Of the bytes that a conn still holds we assume that they are content: so content is never
 * reported before it has left, and all of it is reported when the conn is empty. */
#ifndef PROXY_HTTP1_SENT_H
#define PROXY_HTTP1_SENT_H

#include <stddef.h>
#include <stdint.h>

struct sent {
    uint64_t handed, left;      /* all bytes: given to the conn, gone to the socket */
    uint64_t content, reported; /* of the current stream */
};

/* `owed`: bytes of others that the conn still holds (conn_owed). */
static inline void sent_start(struct sent *s, size_t owed)
{
    *s = (struct sent){.handed = owed};
}

static inline void sent_new_stream(struct sent *s)
{
    s->content = s->reported = 0;
}

/* `n` bytes have left: how many more bytes of content surely have. */
static inline size_t sent_left(struct sent *s, size_t n)
{
    uint64_t held, sure, more;

    s->left += n;
    held = s->handed > s->left ? s->handed - s->left : 0;
    sure = s->content > held ? s->content - held : 0;
    more = sure > s->reported ? sure - s->reported : 0;
    s->reported += more;
    return (size_t)more;
}

#endif
