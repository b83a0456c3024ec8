/* Running a function in libzmq's own threads.
 *
 * libzmq has no call for it, but the free function of a message runs in the thread that lets go of the
 * message last: the I/O thread for one that was written to an ipc connection, the reaper for one that
 * nobody had read when its socket was closed.
 */
#include "kit/mailbox_priv.h"
#include "kit/random.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 2000

struct job {
    void (*fn)(void *arg);
    void *arg;
    pid_t ran_in; /* thread id; read after is_done */
    atomic_bool is_done;
};

static void run_job(void *data, void *hint)
{
    struct job *job = hint;

    (void)data;
    if (gettid() != getpid()) { /* in the caller's own thread: something failed; is_done stays false */
        job->fn(job->arg);
        job->ran_in = gettid();
        atomic_store(&job->is_done, true);
    }
}

static bool wait_for(struct job *job)
{
    const struct timespec nap = {0, 200000};

    for (unsigned waited_us = 0; !atomic_load(&job->is_done); waited_us += 200) {
        if (waited_us > WAIT_MS * 1000)
            return false;
        (void)nanosleep(&nap, NULL);
    }
    return true;
}

struct pair {
    void *a, *b;
};

static bool pair_open(struct pair *p, const char *endpoint)
{
    const int none = 0;

    p->a = zmq_socket(mailbox_world.ctx, ZMQ_PAIR);
    p->b = zmq_socket(mailbox_world.ctx, ZMQ_PAIR);
    if (p->a == NULL || p->b == NULL)
        return false;
    (void)zmq_setsockopt(p->a, ZMQ_LINGER, &none, sizeof(none));
    (void)zmq_setsockopt(p->b, ZMQ_LINGER, &none, sizeof(none));
    return zmq_bind(p->a, endpoint) == 0 && zmq_connect(p->b, endpoint) == 0;
}

static void pair_close(struct pair *p)
{
    if (p->a != NULL)
        (void)zmq_close(p->a);
    if (p->b != NULL)
        (void)zmq_close(p->b);
    p->a = p->b = NULL;
}

static bool send_job(void *sock, struct job *job)
{
    static char byte; /* what the message points to; never changes */
    zmq_msg_t msg;

    if (zmq_msg_init_data(&msg, &byte, 1, run_job, job) != 0)
        return false;
    if (zmq_msg_send(&msg, sock, ZMQ_DONTWAIT) >= 0)
        return true;
    (void)zmq_msg_close(&msg);
    return false;
}

/* Written to a connection by the I/O thread, and freed there. */
static bool run_in_io(struct job *job)
{
    struct pair p = {NULL, NULL};
    char endpoint[64], salt[17];
    bool is_ok;

    random_hex(salt, 16);
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://@weft-thread-%s", salt);
    is_ok = pair_open(&p, endpoint) && send_job(p.b, job) && wait_for(job);
    pair_close(&p);
    return is_ok;
}

/* Left unread in a socket that is closed: the reaper empties it. */
static bool run_in_reaper(struct job *job)
{
    struct pair p = {NULL, NULL};
    bool is_ok = pair_open(&p, "inproc://weft.thread") && send_job(p.b, job);

    pair_close(&p);
    return is_ok && wait_for(job);
}

err_t mailbox_each_thread(void (*fn)(void *arg), void *arg)
{
    static struct job io, reaper; /* a thread that answers late must find them */

    BUG_ON(mailbox_world.ctx == NULL);
    io = (struct job){.fn = fn, .arg = arg};
    reaper = (struct job){.fn = fn, .arg = arg};
    if (!run_in_io(&io) || !run_in_reaper(&reaper) || io.ran_in == reaper.ran_in)
        return ERR_OF(OS);
    return OK;
}
