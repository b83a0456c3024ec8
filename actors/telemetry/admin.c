/* A connection is READING (until the head is complete) -> WRITING (pieces of the page) ->
 * ENDING -> closed.
 *
 *   READING  in readable; nothing in `out`
 *   WRITING  out writable; `cursor` says what is still to be printed, if `has_more`
 *   ENDING   all was written and our side is shut; what still comes is thrown away until the
 *            client closes: a close with unread bytes would be a reset that can take the answer
 *            with it
 *
 * Whatever the client does, conn_close is the one way out; it is called by the end of the
 * answer, by an error, by the deadline, or by a newer connection that needs the place.
 */
#include "telemetry/admin.h"

#include "kit/clock.h"
#include "kit/list.h"
#include "kit/log.h"
#include "kit/timer.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTENERS_MAX 4u
#define PIECE         (64u * 1024u)
#define ACCEPTS       16u /* per turn */

enum conn_state { CONN_READING, CONN_WRITING, CONN_ENDING };

struct conn {
    struct list by_age;
    struct admin *admin;
    enum conn_state state;
    int fd;
    struct event ev;
    struct timer deadline;
    struct buf in, out;
    struct metrics_cursor cursor;
    bool has_more; /* the page goes on at cursor */
};

struct admin {
    struct event_base *base;
    const struct metrics_source *src;
    admin_refresh_fn *refresh;
    void *arg;
    struct {
        int fd;
        struct event ev;
    } listeners[LISTENERS_MAX];
    unsigned n_listeners;
    struct list conns; /* the oldest first */
    unsigned n_conns;
    struct admin_counters count;
};

/* ---- the request ---- */

/* The word up to a space. */
static slice_t word_next(slice_t *rest)
{
    slice_t word = *rest;
    const uint8_t *space = word.n != 0 ? memchr(word.p, ' ', word.n) : NULL;

    if (space != NULL)
        word.n = (size_t)(space - word.p);
    *rest = slice_skip(*rest, word.n + 1);
    return word;
}

enum admin_page admin_parse(slice_t head, bool *is_head)
{
    const uint8_t *end = head.n != 0 ? memchr(head.p, '\n', head.n) : NULL;
    slice_t line, method, path;
    const uint8_t *query;

    *is_head = false;
    if (end == NULL || end == head.p || end[-1] != '\r')
        return ADMIN_BAD;
    line = slice(head.p, (size_t)(end - head.p) - 1);
    for (size_t i = 0; i < line.n; i++)
        if (line.p[i] < 0x20 || line.p[i] >= 0x7f)
            return ADMIN_BAD;
    method = word_next(&line);
    path = word_next(&line);
    if (!slice_is_str(line, "HTTP/1.1") && !slice_is_str(line, "HTTP/1.0"))
        return ADMIN_BAD;
    if (path.n == 0 || path.p[0] != '/')
        return ADMIN_BAD;
    *is_head = slice_is_str(method, "HEAD");
    if (!*is_head && !slice_is_str(method, "GET"))
        return ADMIN_METHOD;
    query = memchr(path.p, '?', path.n);
    if (query != NULL)
        path.n = (size_t)(query - path.p);
    if (slice_is_str(path, "/live"))
        return ADMIN_LIVE;
    if (slice_is_str(path, "/ready"))
        return ADMIN_READY;
    return slice_is_str(path, "/metrics") ? ADMIN_METRICS : ADMIN_NOT_FOUND;
}

/* Whether the head is complete. */
static bool head_is_whole(slice_t bytes)
{
    return bytes.n >= 4 && memmem(bytes.p, bytes.n, "\r\n\r\n", 4) != NULL;
}

/* ---- connections ---- */

static void conn_close(struct conn *c)
{
    (void)event_del(&c->ev);
    timer_stop(&c->deadline);
    list_del(&c->by_age);
    c->admin->n_conns--;
    (void)close(c->fd);
    buf_done(&c->in);
    buf_done(&c->out);
    free(c);
}

static void on_deadline(void *arg)
{
    struct conn *c = arg;

    c->admin->count.timed_out++;
    conn_close(c);
}

static err_t print_plain(struct conn *c, const char *status, slice_t body, bool is_head)
{
    TRY(buf_printf(&c->out,
                   "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
                   "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                   status, body.n));
    return is_head ? OK : buf_add_slice(&c->out, body);
}

static err_t print_ready(struct conn *c, bool is_head)
{
    struct buf why;
    bool is_ready;
    err_t err;

    buf_init(&why, 16384);
    is_ready = status_is_ready(c->admin->src->status, &why);
    err = is_ready ? print_plain(c, "200 OK", SLICE_LIT("ready\n"), is_head)
                   : print_plain(c, "503 Service Unavailable", buf_slice(&why), is_head);
    buf_done(&why);
    return err;
}

/* The page's length is not known before it was printed: its end is the end of the connection. */
static err_t print_metrics_head(struct conn *c, bool is_head)
{
    c->has_more = !is_head;
    if (c->admin->refresh != NULL)
        c->admin->refresh(c->admin->arg);
    return buf_printf(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; "
                               "charset=utf-8\r\nConnection: close\r\n\r\n");
}

static err_t conn_answer(struct conn *c)
{
    bool is_head;

    switch (admin_parse(buf_slice(&c->in), &is_head)) {
    case ADMIN_LIVE:
        return print_plain(c, "200 OK", SLICE_LIT("live\n"), is_head);
    case ADMIN_READY:
        return print_ready(c, is_head);
    case ADMIN_METRICS:
        return print_metrics_head(c, is_head);
    case ADMIN_NOT_FOUND:
        return print_plain(c, "404 Not Found", SLICE_LIT("try /metrics, /ready or /live\n"),
                           is_head);
    case ADMIN_METHOD:
        c->admin->count.bad++;
        return print_plain(c, "405 Method Not Allowed", SLICE_LIT("GET and HEAD only\n"),
                           false);
    case ADMIN_BAD:
        c->admin->count.bad++;
        return print_plain(c, "400 Bad Request", SLICE_LIT("not an HTTP/1.x request\n"), false);
    }
    bug("conn_answer", __FILE__, __LINE__);
}

static void on_conn(evutil_socket_t fd, short what, void *arg);

/* The one place that changes the state after the start. */
static void conn_enter(struct conn *c, enum conn_state state)
{
    short what = state == CONN_WRITING ? EV_WRITE : EV_READ;

    (void)event_del(&c->ev);
    c->state = state;
    if (event_assign(&c->ev, c->admin->base, c->fd, (short)(what | EV_PERSIST), on_conn, c) !=
            0 ||
        event_add(&c->ev, NULL) != 0)
        conn_close(c);
}

/* Everything was written. */
static void conn_end(struct conn *c)
{
    c->admin->count.answered++;
    if (shutdown(c->fd, SHUT_WR) != 0)
        conn_close(c);
    else
        conn_enter(c, CONN_ENDING);
}

/* Writes what there is and prints more of the page as long as the socket takes it, a bounded
 * part per turn. */
static void conn_write(struct conn *c)
{
    for (unsigned pieces = 0; pieces < 4; pieces++) {
        ssize_t n;

        if (buf_len(&c->out) == 0 && c->has_more) {
            if (metrics_print(c->admin->src, &c->cursor, PIECE, &c->out) != OK) {
                conn_close(c);
                return;
            }
            c->has_more = !c->cursor.is_done;
        }
        if (buf_len(&c->out) == 0) {
            conn_end(c);
            return;
        }
        n = send(c->fd, buf_slice(&c->out).p, buf_len(&c->out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) {
            conn_close(c);
            return;
        }
        buf_consume(&c->out, (size_t)n);
    }
}

static void conn_ignore(struct conn *c)
{
    uint8_t waste[4096];
    ssize_t n = recv(c->fd, waste, sizeof(waste), MSG_DONTWAIT);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        conn_close(c);
}

static void conn_read(struct conn *c)
{
    uint8_t *room = buf_reserve(&c->in, 1024);
    ssize_t n;
    err_t err;

    if (room == NULL) { /* the head is too long */
        c->admin->count.bad++;
        err = print_plain(c, "431 Request Header Fields Too Large",
                          SLICE_LIT("head too large\n"), false);
        if (err == OK)
            conn_enter(c, CONN_WRITING);
        else
            conn_close(c);
        return;
    }
    n = recv(c->fd, room, 1024, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        conn_close(c);
        return;
    }
    buf_commit(&c->in, (size_t)n);
    if (!head_is_whole(buf_slice(&c->in)))
        return;
    err = conn_answer(c);
    if (err == OK)
        conn_enter(c, CONN_WRITING);
    else
        conn_close(c);
}

static void on_conn(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;

    (void)fd;
    (void)what;
    switch (c->state) {
    case CONN_READING:
        conn_read(c);
        return;
    case CONN_WRITING:
        conn_write(c);
        return;
    case CONN_ENDING:
        conn_ignore(c);
        return;
    }
}

static void conn_new(struct admin *a, int fd)
{
    struct conn *c;

    if (a->n_conns >= ADMIN_CONNS) {
        a->count.displaced++;
        conn_close(CONTAINER_OF(a->conns.next, struct conn, by_age));
    }
    c = calloc(1, sizeof(*c));
    if (c == NULL) {
        (void)close(fd);
        return;
    }
    *c = (struct conn){.admin = a, .fd = fd, .state = CONN_READING};
    buf_init(&c->in, ADMIN_HEAD_MAX);
    buf_init(&c->out, 0);
    list_init(&c->by_age);
    list_push(&a->conns, &c->by_age);
    a->n_conns++;
    timer_init(&c->deadline, a->base, on_deadline, c);
    timer_once(&c->deadline, ADMIN_LIFE_MS);
    if (event_assign(&c->ev, a->base, fd, EV_READ | EV_PERSIST, on_conn, c) != 0 ||
        event_add(&c->ev, NULL) != 0)
        conn_close(c);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    struct admin *a = arg;

    (void)what;
    for (unsigned i = 0; i < ACCEPTS; i++) {
        int conn_fd = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (conn_fd < 0) {
            if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
                log_warn("admin accept failed", "errno=%d", errno);
            return;
        }
        a->count.accepted++;
        conn_new(a, conn_fd);
    }
}

/* ---- life ---- */

err_t admin_new(struct event_base *base, const struct metrics_source *src,
                admin_refresh_fn *refresh, void *arg, struct admin **out)
{
    struct admin *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return ERR_OF(NOMEM);
    *a = (struct admin){.base = base, .src = src, .refresh = refresh, .arg = arg};
    list_init(&a->conns);
    *out = a;
    return OK;
}

err_t admin_listen(struct admin *a, int fd)
{
    unsigned i = a->n_listeners;

    if (i == LISTENERS_MAX)
        return ERR_OF(TOO_BIG);
    if (evutil_make_socket_nonblocking(fd) != 0 ||
        event_assign(&a->listeners[i].ev, a->base, fd, EV_READ | EV_PERSIST, on_accept, a) !=
            0 ||
        event_add(&a->listeners[i].ev, NULL) != 0)
        return ERR_OF(OS);
    a->listeners[i].fd = fd;
    a->n_listeners++;
    return OK;
}

void admin_stop(struct admin *a)
{
    for (unsigned i = 0; i < a->n_listeners; i++) {
        (void)event_del(&a->listeners[i].ev);
        (void)close(a->listeners[i].fd);
    }
    a->n_listeners = 0;
}

void admin_free(struct admin **a)
{
    if (*a == NULL)
        return;
    admin_stop(*a);
    while (!list_is_empty(&(*a)->conns))
        conn_close(CONTAINER_OF((*a)->conns.next, struct conn, by_age));
    free(*a);
    *a = NULL;
}

const struct admin_counters *admin_count(const struct admin *a)
{
    return &a->count;
}
