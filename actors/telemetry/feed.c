#include "telemetry/feed.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "telemetry/subs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PART_BYTES                                                                             \
    (160u * 1024u) /* of series in one message; the limit of a message is 256 KiB */
#define PART_SERIES 2000u
#define BEAT_MS     5000u
#define ALL_MS      10000u
#define ALL_IDLE_MS 60000u
#define REOPEN_MS   30000u
#define EVENTS_MAX  256u
#define EVENT_BYTES 2048u /* a packed event; larger ones are dropped */

enum feed_state { FEED_NO_KEY, FEED_DOWN, FEED_UP };

struct queued_event {
    struct buf topic, body;
};

struct feed {
    struct feed_conf conf;
    enum feed_state state;
    uint64_t state_since_ms;
    struct mailbox *mailbox; /* FEED_DOWN, FEED_UP */
    struct subs subs;
    char topic[700]; /* of metrics */
    uint64_t seq, event_seq;

    bool wants_all;           /* somebody has just subscribed */
    uint64_t sent_version;    /* of the book, when it was last looked through */
    uint64_t all_version;     /* of the book, when all was last sent */
    bool was_all_repeated;    /* all was sent once more after the last change */
    uint64_t sent_ms, all_ms; /* when something, everything was last sent; 0 never */

    struct queued_event queue[EVENTS_MAX];
    size_t queue_first, queue_n;
    uint64_t sent, events_dropped;
};

static void feed_enter(struct feed *f, enum feed_state state)
{
    static const char *const names[] = {"NO_KEY", "DOWN", "UP"};

    if (f->state != state)
        log_info("feed", "state=%s", names[state]);
    f->state = state;
    f->state_since_ms = clock_now_ms();
}

/* ---- publishing ---- */

static void publish(struct feed *f, slice_t topic, slice_t body)
{
    err_t err;

    if (f->conf.publish != NULL) {
        f->conf.publish(f->conf.arg, topic, body);
        f->sent++;
        return;
    }
    err = mailbox_send(f->mailbox, topic, body);
    if (err == OK)
        f->sent++;
    else
        log_debug("feed message not sent", "reason=%s bytes=%zu", err->name, body.n);
}

static uint32_t count_connections(const struct feed *f)
{
    uint64_t n = 0;
    struct book_series s;

    for (size_t i = 0; i < book_size(f->conf.book); i++)
        if (book_at(f->conf.book, i, &s) && s.family == FAMILY_ID_TCP_OPEN_NOW)
            n += s.values[0];
    return n > UINT32_MAX ? 0 : (uint32_t)n;
}

static void send_part(struct feed *f, const struct buf *series, size_t n, bool is_all)
{
    struct pack_head head = {.at_ms = (int64_t)clock_wall_ms(),
                             .seq = ++f->seq,
                             .is_all = is_all,
                             .n_series = n,
                             .connections = count_connections(f)};
    struct buf out;

    buf_init(&out, 0);
    if (pack_metrics(&out, &f->conf.who, &head, f->conf.status, buf_slice(series)) == OK) {
        publish(f, slice_str(f->topic), buf_slice(&out));
        f->sent_ms = clock_now_ms();
    }
    buf_done(&out);
}

/* Sends what changed since sent_version, or everything, in as many parts as it takes. */
static void send_series(struct feed *f, bool is_all)
{
    size_t n = 0, parts = 0;
    struct book_series s;
    struct buf series;

    buf_init(&series, 0);
    for (size_t i = 0; i < book_size(f->conf.book); i++) {
        if (!book_at(f->conf.book, i, &s) || (!is_all && s.version <= f->sent_version))
            continue;
        if (pack_series(&series, &s) != OK)
            break; /* no memory: the rest comes with the next complete sending */
        n++;
        if (n == PART_SERIES || buf_len(&series) >= PART_BYTES) {
            send_part(f, &series, n, is_all);
            buf_consume(&series, buf_len(&series));
            n = 0;
            parts++;
        }
    }
    if (n > 0 || parts == 0)
        send_part(f, &series, n, is_all);
    buf_done(&series);
    f->sent_version = book_version(f->conf.book);
}

/* Losses are made good by sending everything now and then: often while there is traffic. */
static bool all_is_due(const struct feed *f, uint64_t now_ms)
{
    bool is_idle = f->all_version == book_version(f->conf.book) && f->was_all_repeated;

    return f->wants_all || f->all_ms == 0 ||
           now_ms - f->all_ms >= (is_idle ? ALL_IDLE_MS : ALL_MS);
}

static void tick_metrics(struct feed *f)
{
    uint64_t now_ms = clock_now_ms(), version = book_version(f->conf.book);

    if (!subs_want(&f->subs, slice_str(f->topic)))
        return;
    if (all_is_due(f, now_ms)) {
        f->was_all_repeated = f->all_version == version;
        f->all_version = version;
        f->all_ms = now_ms;
        f->wants_all = false;
        send_series(f, true);
    } else if (version != f->sent_version || now_ms - f->sent_ms >= BEAT_MS) {
        send_series(f, false);
    }
}

/* ---- events ---- */

static void queue_drop_first(struct feed *f)
{
    struct queued_event *e = &f->queue[f->queue_first];

    buf_done(&e->topic);
    buf_done(&e->body);
    f->queue_first = (f->queue_first + 1) % EVENTS_MAX;
    f->queue_n--;
}

/* The first event goes as soon as somebody listens to events; one that nobody wants is dropped
 * then. */
static void send_events(struct feed *f)
{
    if (!subs_want(&f->subs, SLICE_LIT("event/")))
        return;
    while (f->queue_n > 0) {
        struct queued_event *e = &f->queue[f->queue_first];

        publish(f, buf_slice(&e->topic), buf_slice(&e->body));
        queue_drop_first(f);
    }
}

static bool kind_is_plain(slice_t kind)
{
    for (size_t i = 0; i < kind.n; i++)
        if (!((kind.p[i] >= 'A' && kind.p[i] <= 'Z') ||
              (kind.p[i] >= '0' && kind.p[i] <= '9') || kind.p[i] == '_'))
            return false;
    return kind.n > 0;
}

void feed_event(struct feed *f, const struct wire_event *event)
{
    struct queued_event *e;

    if (!kind_is_plain(event->kind)) {
        f->events_dropped++;
        return;
    }
    if (f->queue_n == EVENTS_MAX) {
        queue_drop_first(f);
        f->events_dropped++;
    }
    e = &f->queue[(f->queue_first + f->queue_n) % EVENTS_MAX];
    buf_init(&e->topic, 0);
    buf_init(&e->body, EVENT_BYTES);
    if (buf_printf(&e->topic, "event/%.*s/%s/%s", SLICE_FMT(event->kind), f->conf.who.ns,
                   f->conf.who.pod) != OK ||
        pack_event(&e->body, &f->conf.who, ++f->event_seq, event) != OK) {
        buf_done(&e->topic);
        buf_done(&e->body);
        f->events_dropped++;
        return;
    }
    f->queue_n++;
    if (f->state == FEED_UP)
        send_events(f);
}

/* ---- the socket ---- */

/* The next word of 40 characters, NUL-terminated in word. False: there is none, or one of
 * another length. */
static bool key_word(slice_t *rest, char word[41])
{
    size_t n = 0;

    while (rest->n > 0 && (rest->p[0] == '\n' || rest->p[0] == '\r' || rest->p[0] == ' '))
        *rest = slice_skip(*rest, 1);
    while (n < rest->n && rest->p[n] > ' ' && rest->p[n] < 0x7f)
        n++;
    if (n != 40 || !slice_to_cstr(slice(rest->p, n), word, 41))
        return false;
    *rest = slice_skip(*rest, n);
    return true;
}

bool feed_parse_key(slice_t text, char secret[41])
{
    char first[41], second[41], derived[MAILBOX_KEY_TEXT];
    bool is_pair;

    if (!key_word(&text, first))
        return false;
    is_pair = key_word(&text, second);
    if (!is_pair) {
        memcpy(secret, first, sizeof(first));
        return mailbox_public_of(first, derived) == OK;
    }
    /* Two lines are a pair; which half is which is said by the mathematics. */
    if (mailbox_public_of(second, derived) == OK && strcmp(derived, first) == 0)
        memcpy(secret, second, sizeof(second));
    else if (mailbox_public_of(first, derived) == OK && strcmp(derived, second) == 0)
        memcpy(secret, first, sizeof(first));
    else
        is_pair = false;
    explicit_bzero(first, sizeof(first));
    explicit_bzero(second, sizeof(second));
    return is_pair;
}

static bool read_key(const char *state_dir, char secret[41])
{
    char path[512], text[512];
    ssize_t n = -1;
    int fd;

    if (snprintf(path, sizeof(path), "%s/link.key", state_dir) >= (int)sizeof(path))
        return false;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        n = read(fd, text, sizeof(text));
        (void)close(fd);
    }
    if (n > 0 && !feed_parse_key(slice(text, (size_t)n), secret)) {
        log_warn("link.key not understood", "bytes=%zd", n);
        n = -1;
    }
    explicit_bzero(text, sizeof(text));
    return n > 0;
}

static void on_subscription_msg(void *arg, const struct mailbox_msg *m)
{
    feed_on_subscription(arg, m->body);
}

static void on_link(void *arg, bool is_up)
{
    struct feed *f = arg;

    /* libzmq keeps the subscriptions of a connection that it restores, and tells only of new
     * ones: ours are kept as well. The other side may have forgotten everything else. */
    feed_enter(f, is_up ? FEED_UP : FEED_DOWN);
    if (is_up) {
        f->wants_all = true;
        send_events(f);
    }
}

static err_t open_mailbox(struct feed *f, const char *secret)
{
    char public_key[MAILBOX_KEY_TEXT], endpoint[300];

    if (snprintf(endpoint, sizeof(endpoint), "tcp://%s", f->conf.collector) >=
        (int)sizeof(endpoint))
        return ERR_OF(BAD_SETTING);
    TRY(mailbox_public_of(secret, public_key));
    return mailbox_open(f->conf.base,
                        &(struct mailbox_conf){.kind = MAILBOX_XPUB,
                                               .name = "feed",
                                               .endpoint = endpoint,
                                               .secret_key = secret,
                                               .public_key = public_key,
                                               .server_key = f->conf.server_key,
                                               .on_msg = on_subscription_msg,
                                               .on_link = on_link,
                                               .arg = f},
                        &f->mailbox);
}

static void tick_socket(struct feed *f)
{
    char secret[41];
    err_t err;

    if (f->state == FEED_UP ||
        (f->state == FEED_DOWN && clock_now_ms() - f->state_since_ms < REOPEN_MS))
        return;
    mailbox_close(&f->mailbox);
    subs_done(&f->subs);
    if (!read_key(f->conf.state_dir, secret)) {
        feed_enter(f, FEED_NO_KEY);
        return;
    }
    err = open_mailbox(f, secret);
    explicit_bzero(secret, sizeof(secret));
    if (err != OK)
        log_warn("feed not opened", "collector=%s reason=%s", f->conf.collector, err->name);
    feed_enter(f, err == OK ? FEED_DOWN : FEED_NO_KEY);
}

/* ---- life ---- */

err_t feed_new(const struct feed_conf *conf, struct feed **out)
{
    struct feed *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return ERR_OF(NOMEM);
    f->conf = *conf;
    if (snprintf(f->topic, sizeof(f->topic), "metrics/%s/%s/%s", conf->who.ns,
                 conf->who.workload, conf->who.pod) >= (int)sizeof(f->topic)) {
        free(f);
        return ERR_OF(BAD_SETTING);
    }
    f->state = conf->publish != NULL ? FEED_UP : FEED_NO_KEY;
    *out = f;
    return OK;
}

void feed_free(struct feed **f)
{
    if (*f == NULL)
        return;
    mailbox_close(&(*f)->mailbox);
    subs_done(&(*f)->subs);
    while ((*f)->queue_n > 0)
        queue_drop_first(*f);
    free(*f);
    *f = NULL;
}

void feed_on_subscription(struct feed *f, slice_t body)
{
    if (!subs_take(&f->subs, body))
        return;
    f->wants_all = true;
    send_events(f);
}

void feed_tick(struct feed *f)
{
    if (f->conf.collector[0] == '\0')
        return;
    if (f->conf.publish == NULL)
        tick_socket(f);
    if (f->state == FEED_UP)
        tick_metrics(f);
}

void feed_count(const struct feed *f, struct feed_counters *out)
{
    *out = (struct feed_counters){
        .sent = f->sent, .events_dropped = f->events_dropped, .is_up = f->state == FEED_UP};
}
