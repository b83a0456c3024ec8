/* A small end of a mesh connection for scenarios: the proxy's conn, handshake and record rooms
 * without the rest of the proxy, beside a running weft-tls.
 *
 *   weft-tls-probe serve RUN_DIR PORT [REKEY_AFTER]             echoes; events on stdout
 *   weft-tls-probe dial RUN_DIR PORT NAME ALPN [REKEY_AFTER]    stdin to the peer, peer to
 * stdout; events on stderr weft-tls-probe storm RUN_DIR PORT NAME COUNT AT_ONCE        that
 * many connections one after the other; a rate
 *
 * Events are lines: listening PORT | established peer=P alpn=A sni=S | failed code=C why=W |
 * closed REASON */
#include "proxy/handshake/handshake.h"
#include "proxy/net/conn.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct probe {
    struct event_base *base;
    struct net *net;
    struct handshakes *handshakes;
    struct event *listener, *input;
    FILE *events;
    bool is_server;
    const char *name;
    bool has_alpn;
    struct conn *conn; /* dial */
    int code;
    unsigned to_begin, running, n_ok, n_failed; /* storm */
    uint16_t port;
};

struct side {
    struct probe *probe;
    struct handshake *handshake;
};

static size_t on_echo_bytes(struct conn *c, slice_t bytes)
{
    if (conn_is_full(c)) {
        conn_pause(c, PAUSE_OWNER);
        return 0;
    }
    conn_write(c, bytes);
    return bytes.n;
}

static void on_drained(struct conn *c)
{
    conn_resume(c, PAUSE_OWNER);
}

static void on_eof(struct conn *c, bool is_clean)
{
    struct side *s = conn_owner(c);

    fprintf(s->probe->events, "eof %s\n", is_clean ? "clean" : "truncated");
    conn_close_gently(c, CLOSE_DONE);
}

static void on_closed(struct conn *c, enum close_reason why)
{
    struct side *s = conn_owner(c);
    struct probe *p = s->probe;

    fprintf(p->events, "closed %s\n", close_name(why));
    if (!p->is_server) {
        p->conn = NULL;
        p->code = close_is_error(why) ? 1 : 0;
        (void)event_base_loopexit(p->base, NULL);
    }
    free(s);
}

static const struct conn_events echo = {.on_bytes = on_echo_bytes,
                                        .on_eof = on_eof,
                                        .on_drained = on_drained,
                                        .on_closed = on_closed};

static size_t on_print_bytes(struct conn *c, slice_t bytes)
{
    (void)c;
    (void)fwrite(bytes.p, 1, bytes.n, stdout);
    return bytes.n;
}

static const struct conn_events print = {.on_bytes = on_print_bytes,
                                         .on_eof = on_eof,
                                         .on_drained = on_drained,
                                         .on_closed = on_closed};

static void on_handshake(void *arg, struct conn *c, const struct handshake_result *r)
{
    struct side *s = arg;
    struct probe *p = s->probe;

    if (!r->is_ok) {
        fprintf(p->events, "failed code=%s why=%s\n", r->code, r->why);
        if (c != NULL)
            conn_close_gently(c, CLOSE_HANDSHAKE_FAILED);
        if (!p->is_server) {
            p->code = 2;
            (void)event_base_loopexit(p->base, &(struct timeval){0, 200000});
        }
        free(s);
        return;
    }
    fprintf(p->events, "established peer=%.*s alpn=%.*s sni=%.*s\n", SLICE_FMT(r->peer),
            SLICE_FMT(r->alpn), SLICE_FMT(r->server_name));
    conn_own(c, p->is_server ? &echo : &print, s);
    if (p->is_server)
        return;
    p->conn = c;
    (void)event_add(p->input, NULL);
}

/* ---- serve ---- */

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    struct probe *p = arg;
    struct conn *c;
    struct side *s;
    int got = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)what;
    if (got < 0 || conn_accepted(p->net, got, &c) != OK)
        return;
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        abort();
    s->probe = p;
    if (handshake_accept(p->handshakes, c, slice(NULL, 0), on_handshake, s, &s->handshake) !=
        OK)
        abort();
}

static int serve(struct probe *p, uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    socklen_t len = sizeof(at);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, 512) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) != 0) {
        perror("listen");
        return 3;
    }
    p->is_server = true;
    p->events = stdout;
    p->listener = event_new(p->base, fd, EV_READ | EV_PERSIST, on_accept, p);
    if (p->listener == NULL || event_add(p->listener, NULL) != 0)
        return 3;
    fprintf(p->events, "listening %d\n", ntohs(at.sin_port));
    return 0;
}

/* ---- dial ---- */

static void on_input(evutil_socket_t fd, short what, void *arg)
{
    struct probe *p = arg;
    char bytes[16384];
    ssize_t n = read(fd, bytes, sizeof(bytes));

    (void)what;
    if (p->conn == NULL)
        return;
    if (n > 0) {
        conn_write(p->conn, slice(bytes, (size_t)n));
    } else {
        (void)event_del(p->input);
        conn_finish(p->conn);
    }
}

static void on_connected(struct conn *c)
{
    struct side *s = conn_owner(c);
    struct probe *p = s->probe;

    if (handshake_connect(p->handshakes, c, slice_str(p->name), p->has_alpn, on_handshake, s,
                          &s->handshake) != OK)
        abort();
}

static const struct conn_events dialled = {.on_connected = on_connected,
                                           .on_closed = on_closed};

static int dial(struct probe *p, uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct side *s = calloc(1, sizeof(*s));
    struct conn *c;

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    p->events = stderr;
    if (s == NULL)
        abort();
    s->probe = p;
    p->input = event_new(p->base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, p);
    if (p->input == NULL ||
        conn_dial(p->net, (struct sockaddr *)&to, sizeof(to), 2000, &dialled, s, &c) != OK)
        return 3;
    return 0;
}

/* ---- storm ---- */

static void storm_more(struct probe *p);

static void storm_over(struct side *s, bool is_ok)
{
    struct probe *p = s->probe;

    p->running--;
    *(is_ok ? &p->n_ok : &p->n_failed) += 1;
    free(s);
    storm_more(p);
    if (p->running == 0 && p->to_begin == 0)
        (void)event_base_loopexit(p->base, NULL);
}

static size_t on_storm_echo(struct conn *c, slice_t bytes)
{
    conn_close_gently(c, CLOSE_DONE);
    return bytes.n;
}

static void on_storm_closed(struct conn *c, enum close_reason why)
{
    storm_over(conn_owner(c), why == CLOSE_DONE);
}

static const struct conn_events storm_echo = {.on_bytes = on_storm_echo,
                                              .on_closed = on_storm_closed};

static void on_storm_handshake(void *arg, struct conn *c, const struct handshake_result *r)
{
    if (r->is_ok) {
        conn_own(c, &storm_echo, arg);
        conn_write(
            c, SLICE_LIT("sixty-four bytes of something that is echoed by the other side.\n"));
        return;
    }
    if (c != NULL)
        conn_close_gently(c, CLOSE_HANDSHAKE_FAILED);
    storm_over(arg, false);
}

static void on_storm_connected(struct conn *c)
{
    struct side *s = conn_owner(c);

    if (handshake_connect(s->probe->handshakes, c, slice_str(s->probe->name), true,
                          on_storm_handshake, s, &s->handshake) != OK)
        abort();
}

static const struct conn_events storm_dialled = {.on_connected = on_storm_connected,
                                                 .on_closed = on_storm_closed};

static void storm_more(struct probe *p)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(p->port)};

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    while (p->running < 64 && p->to_begin > 0) {
        struct side *s = calloc(1, sizeof(*s));
        struct conn *c;

        if (s == NULL)
            abort();
        s->probe = p;
        p->to_begin--;
        p->running++;
        if (conn_dial(p->net, (struct sockaddr *)&to, sizeof(to), 2000, &storm_dialled, s,
                      &c) != OK)
            abort();
        if (p->running >= (unsigned)p->code)
            return;
    }
}

static int storm(struct probe *p, uint16_t port, unsigned count, int at_once)
{
    uint64_t begin = clock_read_us(), us;

    p->events = stderr;
    p->port = port;
    p->to_begin = count;
    p->code = at_once;
    storm_more(p);
    (void)event_base_dispatch(p->base);
    us = clock_read_us() - begin;
    printf("storm ok=%u failed=%u per_second=%.0f\n", p->n_ok, p->n_failed,
           (double)p->n_ok * 1e6 / (double)us);
    p->code = p->n_failed == 0 ? 0 : 1;
    return 0;
}

int main(int argc, char **argv)
{
    struct probe p = {.events = stderr};
    char endpoint[200];
    struct handshakes_conf conf = {.max = 64, .timeout_ms = 10000, .endpoint = endpoint};
    bool is_serve = argc >= 4 && strcmp(argv[1], "serve") == 0;
    bool is_dial = argc >= 6 && strcmp(argv[1], "dial") == 0;
    bool is_storm = argc == 7 && strcmp(argv[1], "storm") == 0;
    int at = is_serve ? 4 : 6, code;

    if (!is_serve && !is_dial && !is_storm) {
        fprintf(stderr, "usage: see the head of tls_probe.c\n");
        return 64;
    }
    log_init("weft-tls-probe");
    (void)setvbuf(stdout, NULL, is_serve ? _IOLBF : _IONBF, 0);
    p.base = event_base_new();
    if (p.base == NULL || net_new(&(struct net_conf){.base = p.base}, &p.net) != OK)
        return 3;
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/tls.sock", argv[2]);
    conf.base = p.base;
    conf.rekey_after = argc > at && !is_storm ? strtoull(argv[at], NULL, 10) : 0;
    if (handshakes_new(&conf, &p.handshakes) != OK)
        return 3;
    p.name = is_serve ? NULL : argv[4];
    p.has_alpn = is_dial && strcmp(argv[5], "1") == 0;
    if (is_storm)
        code = storm(&p, (uint16_t)atoi(argv[3]), (unsigned)atoi(argv[5]), atoi(argv[6]));
    else
        code =
            is_serve ? serve(&p, (uint16_t)atoi(argv[3])) : dial(&p, (uint16_t)atoi(argv[3]));
    if (code != 0)
        return code;
    if (!is_storm)
        (void)event_base_dispatch(p.base);
    handshakes_free(&p.handshakes);
    net_free(&p.net);
    if (p.input != NULL)
        event_free(p.input);
    mailbox_shutdown();
    event_base_free(p.base);
    return p.code;
}
