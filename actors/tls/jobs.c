/* A job:
 *
 *   WAITING --its turn--> RUNNING --> gone (done, failed, closed, timed out)
 *
 *   WAITING  in `waiting`; `first` holds what the client sent
 *   RUNNING  has a session, which is waiting for the next handshake_bytes
 *
 * All jobs are in `by_age` too: they have the same time to live, so the oldest is always the
 * next to die. */
#include "tls/jobs.h"

#include "kit/clock.h"
#include "kit/hash.h"
#include "kit/list.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "kit/timer.h"

#include <inttypes.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <stdlib.h>

#define PEER_MAX 47 /* bytes of a routing id (libzmq makes 5) */
#define STORM    32 /* above so many at once memory is given back when the last one is gone */

struct job_key {
    uint64_t id;
    uint8_t peer_len;
    uint8_t peer[PEER_MAX];
};

_Static_assert(sizeof(struct job_key) == 8 + 1 + PEER_MAX,
               "no padding: the key is hashed as bytes");

enum job_state { JOB_WAITING, JOB_RUNNING };

struct job {
    struct job_key key; /* all bytes of it count */
    UT_hash_handle hh;
    enum job_state state;
    struct list link; /* jobs.waiting, or alone */
    struct list by_age;
    uint64_t dies_ms;
    bool is_client, transport_alpn;
    char server_name[IDENTITY_MAX + 1];
    struct buf first;
    struct session *session;
};

struct jobs {
    struct jobs_conf conf;
    struct tls_context *context;
    int64_t not_after_ms;
    struct job *all;
    struct list waiting, by_age;
    struct timer turn;    /* begins the next waiting one */
    struct timer timeout; /* of the oldest */
    struct buf out;       /* reused; wiped where it held secrets */
    unsigned peak;
    struct wire_desk desk;
    struct jobs_counters count;
};

static void on_turn(void *arg);
static void on_timeout(void *arg);

static slice_t peer_of(const struct job_key *k)
{
    return slice(k->peer, k->peer_len);
}

/* ---- answers ---- */

static void sent(const char *what, err_t err)
{
    if (err !=
        OK) /* the proxy is gone or does not read; its handshake ends by its own timeout */
        log_debug("answer not sent", "message=%s reason=%s", what, err->name);
}

static void answer_failed(struct jobs *j, const struct job_key *k, const char *code,
                          const char *why, slice_t out)
{
    struct wire_handshake_failed m = {
        .id = k->id, .code = slice_str(code), .why = slice_str(why), .out = out};

    j->count.failed++;
    sent("handshake_failed", WIRE_SEND(j->conf.box, peer_of(k), handshake_failed, &m));
}

static void answer_bytes(struct jobs *j, const struct job_key *k, slice_t out)
{
    struct wire_handshake_bytes m = {.id = k->id, .bytes = out};

    sent("handshake_bytes", WIRE_SEND(j->conf.box, peer_of(k), handshake_bytes, &m));
}

/* The only message with secrets in it: encoded into a buffer of ours, which is wiped. */
static void answer_done(struct jobs *j, struct job *job, slice_t out)
{
    struct session_result r;
    struct buf leftover, message;
    err_t err;

    buf_init(&leftover, 0);
    buf_init(&message, 0);
    err = session_take_result(job->session, &r, &leftover);
    if (err == OK) {
        struct wire_handshake_done m = {.id = job->key.id,
                                        .suite = r.suite,
                                        .client_secret = r.client_secret,
                                        .server_secret = r.server_secret,
                                        .peer = r.peer,
                                        .alpn = r.alpn,
                                        .server_name = r.server_name,
                                        .peer_not_after_ms = r.peer_not_after_ms,
                                        .out = out,
                                        .leftover = buf_slice(&leftover)};

        err = WIRE_ENCODE(handshake_done, &m, &message);
    }
    if (err == OK) {
        j->count.done++;
        sent("handshake_done",
             mailbox_send(j->conf.box, peer_of(&job->key), buf_slice(&message)));
    } else {
        answer_failed(j, &job->key, "MALFORMED", err->text, slice(NULL, 0));
    }
    buf_wipe(&message);
    buf_done(&message);
    buf_done(&leftover);
}

/* ---- life of a job ---- */

static void watch_oldest(struct jobs *j)
{
    uint64_t now = clock_now_ms();
    const struct job *oldest;

    if (list_is_empty(&j->by_age)) {
        timer_stop(&j->timeout);
        return;
    }
    oldest = CONTAINER_OF(j->by_age.next, struct job, by_age);
    timer_once(&j->timeout, oldest->dies_ms > now ? oldest->dies_ms - now : 1);
}

static void job_free(struct jobs *j, struct job *job)
{
    bool was_oldest = j->by_age.next == &job->by_age;

    HASH_DEL(j->all, job);
    list_del(&job->link);
    list_del(&job->by_age);
    session_free(&job->session);
    buf_done(&job->first);
    free(job);
    j->count.running--;
    if (was_oldest)
        watch_oldest(j);
    if (j->count.running == 0 && j->peak > STORM) {
        (void)malloc_trim(0); /* 50 kB per handshake at once come back */
        j->peak = 0;
    }
}

static void job_step(struct jobs *j, struct job *job, slice_t in)
{
    buf_consume(&j->out, buf_len(&j->out));
    switch (session_step(job->session, in, &j->out)) {
    case STEP_LATER:
        answer_bytes(j, &job->key, buf_slice(&j->out));
        return;
    case STEP_DONE:
        answer_done(j, job, buf_slice(&j->out));
        break;
    case STEP_FAILED:
        answer_failed(j, &job->key, session_code(job->session), session_why(job->session),
                      buf_slice(&j->out));
        break;
    }
    job_free(j, job);
}

/* Why no handshake can begin now, or NULL. */
static const char *refusal(const struct jobs *j, const char **code)
{
    if (j->context == NULL) {
        *code = "NO_CERTIFICATE_YET";
        return "this pod has no certificate yet";
    }
    if ((int64_t)clock_wall_ms() >= j->not_after_ms) {
        *code = "EXPIRED";
        return "this pod's own certificate has expired";
    }
    return NULL;
}

static void job_begin(struct jobs *j, struct job *job)
{
    struct session_conf conf = {.is_client = job->is_client,
                                .server_name = job->server_name,
                                .transport_alpn = job->transport_alpn};
    const char *code = "MALFORMED", *why = refusal(j, &code);
    struct buf first = job->first;
    err_t err;

    list_del(&job->link);
    job->state = JOB_RUNNING;
    buf_init(&job->first, 0);
    if (why == NULL) {
        err = session_new(j->context, &conf, &job->session);
        if (err != OK)
            why = err->text;
    }
    if (why == NULL) {
        job_step(j, job, buf_slice(&first));
    } else {
        answer_failed(j, &job->key, code, why,
                      job->is_client ? slice(NULL, 0) : session_plain_alert());
        job_free(j, job);
    }
    buf_done(&first);
}

/* One per turn: between two of them the mailbox brings the bytes of those that run. */
static void on_turn(void *arg)
{
    struct jobs *j = arg;

    if (list_is_empty(&j->waiting))
        return;
    job_begin(j, CONTAINER_OF(j->waiting.next, struct job, link));
    if (!list_is_empty(&j->waiting))
        timer_once(&j->turn, 0);
}

static void on_timeout(void *arg)
{
    struct jobs *j = arg;
    uint64_t now = clock_now_ms();

    while (!list_is_empty(&j->by_age)) {
        struct job *job = CONTAINER_OF(j->by_age.next, struct job, by_age);

        if (job->dies_ms > now)
            break;
        j->count.timed_out++;
        answer_failed(j, &job->key, "TIMEOUT", "the handshake took too long", slice(NULL, 0));
        job_free(j, job);
    }
    watch_oldest(j);
}

/* ---- messages ---- */

static bool key_make(struct job_key *k, slice_t from, uint64_t id)
{
    memset(k, 0, sizeof(*k));
    if (from.n == 0 || from.n > PEER_MAX)
        return false;
    k->id = id;
    k->peer_len = (uint8_t)from.n;
    memcpy(k->peer, from.p, from.n);
    return true;
}

static struct job *find(struct jobs *j, const struct job_key *k)
{
    struct job *job;

    HASH_FIND(hh, j->all, k, sizeof(*k), job);
    return job;
}

static struct job *job_new(struct jobs *j, const struct job_key *k,
                           const struct wire_handshake_open *m)
{
    struct job *job = calloc(1, sizeof(*job));

    if (job == NULL)
        return NULL;
    job->key = *k;
    buf_init(&job->first, 0);
    if (buf_add_slice(&job->first, m->bytes) != OK ||
        !slice_to_cstr(m->server_name, job->server_name, sizeof(job->server_name))) {
        buf_done(&job->first);
        free(job);
        return NULL;
    }
    job->is_client = m->role == 1;
    job->transport_alpn = m->transport_alpn;
    job->dies_ms = clock_now_ms() + j->conf.timeout_ms;
    HASH_ADD(hh, j->all, key, sizeof(job->key), job);
    list_push(&j->waiting, &job->link);
    list_push(&j->by_age, &job->by_age);
    j->count.running++;
    if (j->count.running > j->peak)
        j->peak = j->count.running;
    return job;
}

static void on_open(void *arg, const struct wire_call *call)
{
    struct jobs *j = arg;
    const struct wire_handshake_open *m = &call->msg->body.handshake_open;
    slice_t alert = m->role == 1 ? slice(NULL, 0) : session_plain_alert();
    struct job_key k;
    const struct job *job;

    if (!key_make(&k, call->mail->from, m->id))
        return;
    j->count.opened++;
    if (find(j, &k) != NULL || m->role > 1 || (m->role == 1) != (m->server_name.n > 0)) {
        answer_failed(j, &k, "MALFORMED", "the request for a handshake is not well formed",
                      alert);
        return;
    }
    if (j->count.running >= j->conf.max) {
        j->count.busy++;
        answer_failed(j, &k, "BUSY", "too many handshakes at once", alert);
        return;
    }
    job = job_new(j, &k, m);
    if (job == NULL) {
        answer_failed(j, &k, "BUSY", "out of memory", alert);
        return;
    }
    if (j->by_age.next == &job->by_age)
        watch_oldest(j);
    if (!timer_is_armed(&j->turn))
        timer_once(&j->turn, 0);
}

static void on_bytes(void *arg, const struct wire_call *call)
{
    struct jobs *j = arg;
    const struct wire_handshake_bytes *m = &call->msg->body.handshake_bytes;
    struct job_key k;
    struct job *job;

    if (!key_make(&k, call->mail->from, m->id))
        return;
    job = find(j, &k);
    if (job == NULL) {
        j->count.unknown++; /* of our former life, or timed out */
        answer_failed(j, &k, "UNKNOWN_ID", "no such handshake", slice(NULL, 0));
        return;
    }
    if (job->state == JOB_WAITING) { /* nothing was asked for: one message in flight */
        answer_failed(j, &k, "MALFORMED", "bytes before they were asked for", slice(NULL, 0));
        job_free(j, job);
        return;
    }
    job_step(j, job, m->bytes);
}

static void on_close(void *arg, const struct wire_call *call)
{
    struct jobs *j = arg;
    struct job_key k;
    struct job *job;

    if (!key_make(&k, call->mail->from, call->msg->body.handshake_close.id))
        return;
    job = find(j, &k);
    if (job != NULL)
        job_free(j, job);
}

static const struct wire_permit permits[] = {
    {WIRE_handshake_open, on_open, false},
    {WIRE_handshake_bytes, on_bytes, false},
    {WIRE_handshake_close, on_close, false},
};

void jobs_take(struct jobs *j, const struct mailbox_msg *m)
{
    if (wire_dispatch(&j->desk, m, NULL, j) != OK)
        return; /* counted and logged by the desk */
}

/* ---- public ---- */

err_t jobs_new(const struct jobs_conf *conf, struct jobs **out)
{
    struct jobs *j = calloc(1, sizeof(*j));

    if (j == NULL)
        return ERR_OF(NOMEM);
    j->conf = *conf;
    list_init(&j->waiting);
    list_init(&j->by_age);
    buf_init(&j->out, 0);
    timer_init(&j->turn, conf->base, on_turn, j);
    timer_init(&j->timeout, conf->base, on_timeout, j);
    j->desk = (struct wire_desk){.name = "tls",
                                 .me = WIRE_ROLE_TLS,
                                 .from = WIRE_ROLE_PROXY,
                                 .permits = permits,
                                 .n_permits = sizeof(permits) / sizeof(permits[0])};
    *out = j;
    return OK;
}

void jobs_free(struct jobs **jp)
{
    struct jobs *j = *jp;

    if (j == NULL)
        return;
    while (!list_is_empty(&j->by_age))
        job_free(j, CONTAINER_OF(j->by_age.next, struct job, by_age));
    timer_stop(&j->turn);
    timer_stop(&j->timeout);
    tls_context_free(&j->context);
    buf_done(&j->out);
    free(j);
    *jp = NULL;
}

void jobs_set_box(struct jobs *j, struct mailbox *box)
{
    j->conf.box = box;
}

void jobs_set_context(struct jobs *j, struct tls_context **context, int64_t not_after_ms)
{
    tls_context_free(&j->context);
    j->context = context != NULL ? *context : NULL;
    if (context != NULL)
        *context = NULL;
    j->not_after_ms = not_after_ms;
}

const struct jobs_counters *jobs_count(const struct jobs *j)
{
    return &j->count;
}
