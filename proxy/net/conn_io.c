/* Connections: bytes in and out, with and without records. */
#include "kit/log.h"
#include "proxy/net/conn_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- memory of buffers ---- */

void net_mem_take(struct net *n, struct buf *b)
{
    if (b->mem != NULL || n->n_spare == 0)
        return;
    n->n_spare--;
    b->mem = n->spare[n->n_spare].mem;
    b->cap = n->spare[n->n_spare].cap;
    b->head = b->tail = 0;
}

void net_mem_give(struct net *n, struct buf *b)
{
    if (b->mem == NULL || buf_len(b) > 0)
        return;
    if (n->n_spare < NET_SPARES && b->cap <= NET_SPARE_CAP) {
        n->spare[n->n_spare].mem = b->mem;
        n->spare[n->n_spare].cap = b->cap;
        n->n_spare++;
        b->mem = NULL;
        b->cap = b->head = b->tail = 0;
    } else {
        buf_release(b);
    }
}

/* Appends, taking spare memory first. A conn that gets no memory ends. */
static void add(struct conn *c, struct buf *b, slice_t bytes)
{
    net_mem_take(c->net, b);
    if (buf_add_slice(b, bytes) != OK) {
        log_warn("connection closed", "reason=LIMIT no memory for %zu bytes", bytes.n);
        conn_end(c, CLOSE_LIMIT);
    }
}

/* ---- in ---- */

void conn_read_on(struct conn *c)
{
    bool is_wanted = c->state == CONN_LINGER ||
                     (c->state == CONN_OPEN && c->paused == 0 && c->events != NULL);

    if (!is_wanted || c->is_reading || c->eof_seen)
        return;
    if (event_add(&c->ev_read, NULL) == 0)
        c->is_reading = true;
    else
        conn_starve(c); /* from the loop: whoever owns or resumes a conn does not see it vanish */
}

static void read_off(struct conn *c)
{
    if (c->is_reading) {
        (void)event_del(&c->ev_read);
        c->is_reading = false;
    }
}

static bool may_offer(const struct conn *c)
{
    return c->state == CONN_OPEN && c->paused == 0 && c->events != NULL;
}

/* Plaintext for the owner, in one piece with what it left before. */
static void deliver(struct conn *c, slice_t bytes)
{
    unsigned owners = c->owners;
    size_t taken;

    if (buf_len(&c->kept) > 0) {
        add(c, &c->kept, bytes);
        bytes = buf_slice(&c->kept);
        if (!may_offer(c))
            return;
        taken = c->events->on_bytes(c, bytes);
        BUG_ON(taken > bytes.n);
        /* The owner may have changed hands or protection meanwhile; kept is still ours. */
        if (taken > 0 && buf_len(&c->kept) >= taken)
            buf_consume(&c->kept, taken);
        net_mem_give(c->net, &c->kept);
        return;
    }
    taken = may_offer(c) ? c->events->on_bytes(c, bytes) : 0;
    BUG_ON(taken > bytes.n);
    if (taken < bytes.n && c->state == CONN_OPEN) {
        add(c, &c->kept, slice_skip(bytes, taken));
        if (c->owners != owners) {
            /* It was handed over in the callback, when nothing was kept yet: the new owner sees the rest. */
            c->wants_offer = true;
            conn_need_work(c);
        }
    }
}

static void tell_eof(struct conn *c)
{
    if (!c->eof_seen || c->eof_told || !may_offer(c))
        return;
    c->eof_told = true;
    if (c->events->on_eof != NULL)
        c->events->on_eof(c, c->eof_is_clean);
    else
        conn_end(c, c->eof_is_clean ? CLOSE_PEER_CLOSED : CLOSE_PEER_TRUNCATED);
}

/* What a record turned out to be, other than data. False: stop reading records. */
static bool on_record(struct conn *c, enum record_got got)
{
    switch (got) {
    case RECORD_DATA:
    case RECORD_QUIET:
        return true;
    case RECORD_MORE:
        return false;
    case RECORD_CLOSED:
        c->eof_seen = true;
        c->eof_is_clean = true;
        return false;
    case RECORD_ALERT:
        log_debug("fatal alert received", "alert=%u", record_alert(c->rec));
        conn_end(c, CLOSE_PEER_ALERT);
        return false;
    case RECORD_BROKEN:
        log_debug("bad record received", "alert=%u", record_alert(c->rec));
        conn_close_gently(c, CLOSE_BAD_RECORD);
        return false;
    }
    return false;
}

/* Opens records in place in bytes[0..n) for as long as the owner takes their content; returns how many bytes
 * are done with. */
static size_t open_records(struct conn *c, uint8_t *bytes, size_t n)
{
    size_t done = 0;

    while (done < n && c->state == CONN_OPEN && !c->eof_seen && (c->paused == 0 || c->events == NULL)) {
        slice_t plain = {NULL, 0};
        size_t used = 0;
        size_t had = buf_len(&c->wire_out);
        enum record_got got = record_open(c->rec, bytes + done, n - done, &used, &plain, &c->wire_out);

        done += used;
        if (buf_len(&c->wire_out) > had)
            conn_need_work(c);
        if (got == RECORD_DATA)
            deliver(c, plain);
        if (!on_record(c, got))
            break;
    }
    return c->eof_seen ? n : done;
}

/* Records that wait in wire_in. */
static void open_waiting(struct conn *c)
{
    slice_t in = buf_slice(&c->wire_in);
    size_t done;

    if (in.n == 0)
        return;
    done = open_records(c, c->wire_in.mem + c->wire_in.head, in.n);
    buf_consume(&c->wire_in, done);
    net_mem_give(c->net, &c->wire_in);
}

void conn_offer(struct conn *c)
{
    c->wants_offer = false;
    if (!may_offer(c))
        return;
    if (buf_len(&c->kept) > 0) {
        slice_t bytes = buf_slice(&c->kept);
        size_t taken = c->events->on_bytes(c, bytes);

        BUG_ON(taken > bytes.n);
        if (taken > 0 && buf_len(&c->kept) >= taken)
            buf_consume(&c->kept, taken);
        net_mem_give(c->net, &c->kept);
    }
    if (c->rec != NULL)
        open_waiting(c);
    if (c->eof_seen)
        read_off(c);
    tell_eof(c);
}

static void on_read_failed(struct conn *c, int error)
{
    if (error == EAGAIN || error == EINTR)
        return;
    if (error == ECONNRESET || error == EPIPE || error == ETIMEDOUT)
        conn_end(c, CLOSE_PEER_RESET);
    else
        conn_end(c, CLOSE_INTERNAL);
}

static void on_fin(struct conn *c)
{
    if (!c->eof_seen) /* behind close_notify a FIN says nothing new */
        c->eof_is_clean = c->rec == NULL;
    c->eof_seen = true;
    read_off(c);
    if (c->state == CONN_LINGER) {
        conn_need_work(c); /* what is queued still goes out; then it ends */
        return;
    }
    if (c->out_is_dead) {
        conn_end(c, CLOSE_PEER_RESET);
        return;
    }
    tell_eof(c);
}

static void read_plain(struct conn *c)
{
    ssize_t got = conn_sys_recv(c->fd, c->net->scratch, NET_READ_MAX);

    if (got < 0) {
        on_read_failed(c, errno);
    } else if (got == 0) {
        on_fin(c);
    } else {
        c->info.bytes_in += (uint64_t)got;
        deliver(c, slice(c->net->scratch, (size_t)got));
    }
}

/* With nothing waiting, records are opened in the scratch memory and only a partial one is kept. */
static void read_records(struct conn *c)
{
    bool direct = buf_len(&c->wire_in) == 0;
    uint8_t *to = c->net->scratch;
    ssize_t got;
    size_t done;

    if (!direct) {
        to = buf_reserve(&c->wire_in, NET_READ_MAX);
        if (to == NULL) {
            conn_end(c, CLOSE_LIMIT);
            return;
        }
    }
    got = conn_sys_recv(c->fd, to, NET_READ_MAX);
    if (got <= 0) {
        if (got < 0)
            on_read_failed(c, errno);
        else
            on_fin(c);
        return;
    }
    c->info.bytes_in += (uint64_t)got;
    if (!direct) {
        buf_commit(&c->wire_in, (size_t)got);
        open_waiting(c);
        return;
    }
    done = open_records(c, to, (size_t)got);
    if (done < (size_t)got && c->state == CONN_OPEN)
        add(c, &c->wire_in, slice(to + done, (size_t)got - done));
}

void conn_on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = conn_from(arg);

    (void)fd, (void)what;
    conn_enter(c);
    if (c->state == CONN_LINGER) {
        ssize_t got = conn_sys_recv(c->fd, c->net->scratch, NET_READ_MAX);

        if (got == 0)
            on_fin(c);
        else if (got < 0)
            on_read_failed(c, errno);
    } else if (c->paused != 0 || c->events == NULL) {
        read_off(c);
    } else if (c->wants_offer) {
        /* Resumed in this very turn: what waits goes first, or an end would overtake it. The socket stays
         * readable and is asked again. */
    } else if (c->rec == NULL) {
        read_plain(c);
    } else {
        read_records(c);
        if (c->eof_seen) {
            read_off(c);
            tell_eof(c);
        }
    }
    conn_pass_on(c);
    conn_leave(c);
}

/* ---- out ---- */

size_t conn_out_len(const struct conn *c)
{
    return buf_len(&c->plain_out) + buf_len(&c->wire_out);
}

bool conn_is_full(const struct conn *c)
{
    return conn_out_len(c) > CONN_OUT_HIGH;
}

static bool takes_output(const struct conn *c)
{
    return c->state != CONN_DOOMED && !c->finish_sealed && !c->out_is_dead && !c->is_starved;
}

void conn_starve(struct conn *c)
{
    c->is_starved = true;
    conn_need_work(c);
}

static void queue(struct conn *c, struct buf *b, slice_t bytes)
{
    if (bytes.n == 0 || !takes_output(c))
        return;
    net_mem_take(c->net, b);
    /* The caller must not see the conn vanish under it: a failure ends it at the end of the turn. */
    if (buf_add_slice(b, bytes) != OK)
        c->is_starved = true;
    else if (conn_is_full(c))
        c->was_full = true;
    conn_need_work(c);
}

uint8_t *conn_reserve(struct conn *c, size_t n)
{
    struct buf *b = c->rec != NULL ? &c->plain_out : &c->wire_out;
    uint8_t *room;

    if (!takes_output(c))
        return NULL;
    net_mem_take(c->net, b);
    room = buf_reserve(b, n);
    if (room == NULL)
        conn_starve(c);
    return room;
}

void conn_commit(struct conn *c, size_t n)
{
    buf_commit(c->rec != NULL ? &c->plain_out : &c->wire_out, n);
    if (conn_is_full(c))
        c->was_full = true;
    conn_need_work(c);
}

size_t conn_owed(const struct conn *c)
{
    return c->rec != NULL ? buf_len(&c->plain_out) + c->sealed : buf_len(&c->wire_out);
}

void conn_want_turn(struct conn *c)
{
    c->wants_turn = true;
    conn_need_work(c);
}

void conn_write(struct conn *c, slice_t bytes)
{
    queue(c, c->rec != NULL ? &c->plain_out : &c->wire_out, bytes);
}

void conn_write_raw(struct conn *c, slice_t bytes)
{
    queue(c, &c->wire_out, bytes);
}

static void report_sent(struct conn *c, size_t n)
{
    if (n > 0 && c->state == CONN_OPEN && c->events != NULL && c->events->on_sent != NULL)
        c->events->on_sent(c, n);
}

/* The peer takes nothing any more. It may have said something before (an early answer): that is still read,
 * and the end of it closes the conn. */
static void on_write_failed(struct conn *c)
{
    c->out_is_dead = true;
    buf_done(&c->plain_out);
    buf_done(&c->wire_out);
    if (c->is_writing) {
        (void)event_del(&c->ev_write);
        c->is_writing = false;
    }
    if (c->eof_seen || c->state == CONN_LINGER)
        conn_end(c, CLOSE_PEER_RESET);
    else
        conn_read_on(c);
}

static void write_on(struct conn *c)
{
    if (c->is_writing)
        return;
    if (event_add(&c->ev_write, NULL) == 0)
        c->is_writing = true;
    else
        conn_end(c, CLOSE_LIMIT);
}

static void write_off(struct conn *c)
{
    if (c->is_writing) {
        (void)event_del(&c->ev_write);
        c->is_writing = false;
    }
}

/* Writes bytes; returns how many went, or -1 if the conn takes no more for ever. */
static ssize_t write_some(struct conn *c, slice_t bytes)
{
    ssize_t put = conn_sys_send(c->fd, bytes);

    if (put >= 0) {
        c->info.bytes_out += (uint64_t)put;
        net_expect(c->net);
        return put;
    }
    if (errno == EAGAIN || errno == EINTR)
        return 0;
    on_write_failed(c);
    return -1;
}

/* What is queued for the socket as it is. True: all of it went. */
static bool flush_wire(struct conn *c)
{
    while (buf_len(&c->wire_out) > 0) {
        slice_t bytes = buf_slice(&c->wire_out);
        ssize_t put = write_some(c, bytes);
        size_t reported = c->rec == NULL && put > 0 ? (size_t)put : 0;

        if (put < 0)
            return false;
        buf_consume(&c->wire_out, (size_t)put);
        if (put > 0 && c->sealed > 0) {
            reported += c->sealed;
            c->sealed = 0;
        }
        report_sent(c, reported);
        if (c->state == CONN_DOOMED || c->out_is_dead)
            return false;
        if ((size_t)put < bytes.n) {
            write_on(c);
            return false;
        }
    }
    net_mem_give(c->net, &c->wire_out);
    return true;
}

/* Seals and writes a step at a time, so that a slow socket never makes us seal much more than it takes. */
static bool flush_records(struct conn *c)
{
    size_t done = 0;

    while (buf_len(&c->plain_out) > 0 && done < NET_WRITE_MAX) {
        slice_t plain = buf_slice(&c->plain_out);
        struct buf *out = &c->net->seal;
        ssize_t put;
        err_t why;

        if (plain.n > NET_SEAL_STEP)
            plain.n = NET_SEAL_STEP;
        buf_consume(out, buf_len(out));
        why = record_seal(c->rec, plain, out);
        if (why != OK) {
            conn_end(c, why == ERR_OF(NOMEM) ? CLOSE_LIMIT : CLOSE_INTERNAL);
            return false;
        }
        put = write_some(c, buf_slice(out));
        if (put < 0)
            return false;
        buf_consume(&c->plain_out, plain.n);
        done += plain.n;
        c->sealed += plain.n;
        if (put > 0) {
            size_t n = c->sealed;

            c->sealed = 0;
            buf_consume(out, (size_t)put);
            /* What did not go must be safe before the owner hears of it and writes more. */
            if (buf_len(out) > 0)
                add(c, &c->wire_out, buf_slice(out));
            report_sent(c, n);
        } else {
            add(c, &c->wire_out, buf_slice(out));
        }
        if (c->state == CONN_DOOMED || c->out_is_dead)
            return false;
        if (buf_len(&c->wire_out) > 0) {
            write_on(c);
            return false;
        }
    }
    net_mem_give(c->net, &c->plain_out);
    if (buf_len(&c->plain_out) > 0)
        write_on(c); /* the rest in the next turn: others have theirs */
    return buf_len(&c->plain_out) == 0;
}

static void send_finish(struct conn *c)
{
    if (!c->finish_sealed) {
        c->finish_sealed = true;
        if (c->rec != NULL && record_seal_close(c->rec, &c->wire_out) == OK && !flush_wire(c))
            return;
    }
    if (!c->finish_done) {
        c->finish_done = true;
        (void)shutdown(c->fd, SHUT_WR);
    }
}

static void tell_drained(struct conn *c)
{
    if (!c->was_full || conn_out_len(c) >= (c->drains_whole ? 1 : CONN_OUT_LOW))
        return;
    c->was_full = c->drains_whole = false;
    if (c->state == CONN_OPEN && c->events != NULL && c->events->on_drained != NULL)
        c->events->on_drained(c);
}

void conn_flush(struct conn *c)
{
    bool all_gone;

    if (c->out_is_dead) {
        if (c->eof_seen)
            conn_end(c, CLOSE_PEER_RESET);
        return;
    }
    if (c->is_writing && conn_out_len(c) > 0)
        return; /* the socket is full: its event comes */
    all_gone = flush_wire(c) && (c->rec == NULL || flush_records(c));
    if (c->state == CONN_DOOMED || c->out_is_dead)
        return;
    if (all_gone) {
        write_off(c);
        if (c->finish_wanted)
            send_finish(c);
    }
    tell_drained(c);
    if (c->state == CONN_LINGER && c->finish_done && c->eof_seen)
        conn_end(c, c->why);
}

void conn_pass(struct conn *from, struct conn *to, slice_t bytes)
{
    conn_write(to, bytes);
    from->net->passed = to;
}

void conn_pass_on(struct conn *from)
{
    struct conn *to = from->net->passed;

    from->net->passed = NULL;
    if (to == NULL || to->state != CONN_OPEN)
        return;
    conn_enter(to);
    conn_flush(to);
    if (to->state == CONN_OPEN && conn_out_len(to) > 0) {
        to->was_full = to->drains_whole = true;
        conn_pause(from, PAUSE_PEER_FULL);
    }
    conn_leave(to);
}

/* A dialled socket is connected, or is not. */
static void on_dialled(struct conn *c)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (error == 0) {
        struct sockaddr_storage peer;

        len = sizeof(peer);
        if (getpeername(c->fd, (struct sockaddr *)&peer, &len) != 0)
            error = errno;
    }
    if (error != 0) {
        conn_end(c, CLOSE_CONNECT_FAILED);
        return;
    }
    conn_note_local(c);
    timer_stop(&c->timer);
    c->state = CONN_OPEN;
    write_off(c);
    if (c->events->on_connected != NULL)
        c->events->on_connected(c);
    if (c->state == CONN_OPEN)
        conn_read_on(c);
}

void conn_on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = conn_from(arg);

    (void)fd, (void)what;
    conn_enter(c);
    if (c->state == CONN_DIALING) {
        on_dialled(c);
    } else if (c->state != CONN_DOOMED) {
        write_off(c);
        conn_flush(c);
    }
    conn_leave(c);
}
