/* HTTP/2 in the server role: start and drain. Requests are received in blocks.c.
 *
 *   SERVING --drain--> NOTICE --PING answered, or a second--> LEAVING --last stream ended-->
 * closed
 *
 * The notice (GOAWAY with the highest id) lets requests that are already on the way arrive; the
 * GOAWAY that follows names the last one. */
#include "proxy/http2/session.h"

#include <stdlib.h>

err_t http2_server_start(struct conn *c, const struct http_front *front)
{
    struct h2_session *x = calloc(1, sizeof(*x));
    err_t e;

    if (x == NULL)
        return ERR_OF(NOMEM);
    x->is_server = true;
    x->front = *front;
    x->limits = front->limits;
    e = h2_session_start(x, c);
    if (e != OK)
        free(x);
    return e;
}

void http2_server_drain(struct conn *c)
{
    struct h2_session *x = h2_session_from(conn_owner(c));

    x->close_why = x->is_terminating ? x->close_why : CLOSE_DRAINING;
    h2_notice(x);
}
