/* The life of a process.
 *
 *   STARTING --actor_ready--> READY --drain line | SIGTERM--> DRAINING --actor_drained--> ENDED
 *       '-------------------------'---- actor_fail | lifeline lost -------------------------^
 *
 *   STARTING   hooks start, confine, confined run; the loop may run already (ready can come late)
 *   READY      "ready" was said on the lifeline, or logged without one
 *   DRAINING   spec->drain was called once; a second drain or SIGTERM changes nothing
 *   ENDED      the loop is told to end; code is the exit code
 */
#include "kit/actor.h"

#include "kit/clock.h"
#include "kit/lifeline.h"
#include "kit/log.h"
#include "kit/mailbox.h"
#include "kit/timer.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define FDS_ENV      "WEFT_FDS"
#define FDS_MAX      32
#define EXIT_SETTING 64
#define EXIT_ORPHAN  70 /* the supervisor is gone */

enum actor_phase { ACTOR_STARTING, ACTOR_READY, ACTOR_DRAINING, ACTOR_ENDED };

struct named_fd {
    char name[24];
    int fd;
};

struct actor_kit {
    enum actor_phase phase;
    int code;
    int lifeline; /* -1 = run by hand */
    struct event *on_lifeline;
    struct event *on_signal[3];
    struct timer alive;
    unsigned n_fds;
    struct named_fd fds[FDS_MAX];
};

/* ---- phases ---- */

static void enter(struct actor *a, enum actor_phase next)
{
    BUG_ON(next <= a->kit->phase); /* only forward */
    a->kit->phase = next;
    if (next == ACTOR_ENDED)
        (void)event_base_loopbreak(a->base);
}

static void say(struct actor *a, const char *line)
{
    /* The supervisor reads all the time; if its queue is full all the same, a lost "alive" is followed
     * by another one, and a lost "ready" cannot be: nothing was sent before it. */
    if (a->kit->lifeline >= 0)
        (void)send(a->kit->lifeline, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void actor_ready(struct actor *a)
{
    if (a->kit->phase != ACTOR_STARTING)
        return;
    enter(a, ACTOR_READY);
    say(a, "ready");
    if (a->kit->lifeline < 0)
        log_info("ready", "%s", "");
    else
        log_debug("ready", "%s", "");
}

void actor_drained(struct actor *a)
{
    if (a->kit->phase == ACTOR_ENDED)
        return;
    say(a, "drained");
    enter(a, ACTOR_ENDED);
}

void actor_fail(struct actor *a, int code)
{
    if (a->kit->phase == ACTOR_ENDED)
        return;
    a->kit->code = code;
    enter(a, ACTOR_ENDED);
}

static void begin_drain(struct actor *a, uint64_t ms)
{
    if (a->kit->phase >= ACTOR_DRAINING)
        return;
    log_info("draining", "ms=%" PRIu64, ms);
    enter(a, ACTOR_DRAINING);
    if (a->spec->drain != NULL)
        a->spec->drain(a, ms);
    else
        actor_drained(a);
}

static void begin_reload(struct actor *a)
{
    if (a->spec->reload != NULL && a->kit->phase < ACTOR_ENDED)
        a->spec->reload(a);
}

void actor_note(struct actor *a, const char *key, const char *fmt, ...)
{
    char line[LIFELINE_MAX];
    int n = snprintf(line, sizeof(line), "note %s ", key);
    va_list ap;

    if (n < 0 || (size_t)n >= sizeof(line))
        return;
    va_start(ap, fmt);
    (void)vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
    va_end(ap);
    say(a, line);
}

/* ---- lifeline ---- */

static void on_line(struct actor *a, slice_t line)
{
    enum log_level level;
    uint64_t ms;

    if (slice_starts(line, SLICE_LIT("drain ")) && slice_to_u64(slice_skip(line, 6), &ms))
        begin_drain(a, ms);
    else if (slice_is_str(line, "reload"))
        begin_reload(a);
    else if (slice_starts(line, SLICE_LIT("log ")) && log_level_parse(slice_skip(line, 4), &level))
        log_set_level(level);
    else if (a->spec->line != NULL)
        a->spec->line(a, line);
    else
        log_warn("lifeline line not understood", "bytes=%zu", line.n);
}

static void on_lifeline(evutil_socket_t fd, short what, void *arg)
{
    struct actor *a = arg;
    char line[LIFELINE_MAX];
    ssize_t n;

    (void)what;
    while (a->kit->phase != ACTOR_ENDED && (n = recv(fd, line, sizeof(line), MSG_DONTWAIT)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            break;
        on_line(a, slice(line, (size_t)n));
    }
    if (a->kit->phase == ACTOR_ENDED)
        return;
    log_error("supervisor is gone", "%s", "");
    _exit(EXIT_ORPHAN); /* at once: its successor will start ours */
}

static void on_alive(void *arg)
{
    say(arg, "alive");
    log_flush();
}

/* The number of a descriptor that is open, or -1. */
static int parse_fd(slice_t text)
{
    uint64_t n;

    if (!slice_to_u64(text, &n) || n < 3 || n > 65535 || fcntl((int)n, F_GETFD) < 0)
        return -1;
    (void)fcntl((int)n, F_SETFD, FD_CLOEXEC);
    return (int)n;
}

static err_t open_lifeline(struct actor *a)
{
    const char *text = getenv(LIFELINE_ENV);

    if (text == NULL)
        return OK;
    a->kit->lifeline = parse_fd(slice_str(text));
    if (a->kit->lifeline < 0) {
        log_error("bad descriptor", "%s=%.16s", LIFELINE_ENV, text);
        return ERR_OF(BAD_SETTING);
    }
    a->kit->on_lifeline =
        event_new(a->base, a->kit->lifeline, EV_READ | EV_PERSIST, on_lifeline, a);
    if (a->kit->on_lifeline == NULL || event_add(a->kit->on_lifeline, NULL) != 0)
        return ERR_OF(NOMEM);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    return OK;
}

/* ---- inherited descriptors ---- */

static bool add_fd(struct actor_kit *k, slice_t item)
{
    const uint8_t *eq = item.n != 0 ? memchr(item.p, '=', item.n) : NULL;
    struct named_fd *f = &k->fds[k->n_fds];
    size_t n;

    if (eq == NULL || k->n_fds == FDS_MAX)
        return false;
    n = (size_t)(eq - item.p);
    f->fd = parse_fd(slice_skip(item, n + 1));
    if (n == 0 || !slice_to_cstr(slice(item.p, n), f->name, sizeof(f->name)) || f->fd < 0)
        return false;
    k->n_fds++;
    return true;
}

static err_t take_fds(struct actor *a)
{
    slice_t rest = slice_str(getenv(FDS_ENV));

    while (rest.n != 0) {
        const uint8_t *comma = memchr(rest.p, ',', rest.n);
        slice_t item = slice(rest.p, comma != NULL ? (size_t)(comma - rest.p) : rest.n);

        if (!add_fd(a->kit, item)) {
            log_error("bad descriptor", "%s item=%.*s", FDS_ENV, SLICE_FMT(item));
            return ERR_OF(BAD_SETTING);
        }
        rest = slice_skip(rest, item.n + 1);
    }
    return OK;
}

int actor_fd(const struct actor *a, const char *name, unsigned nth)
{
    for (unsigned i = 0; i < a->kit->n_fds; i++)
        if (strcmp(a->kit->fds[i].name, name) == 0 && nth-- == 0)
            return a->kit->fds[i].fd;
    return -1;
}

err_t actor_ipc(const struct actor *a, const char *name, char out[128])
{
    int n = snprintf(out, 128, "ipc://%s/%s.sock", a->settings.run_dir, name);

    /* sun_path holds 108 bytes with its NUL, and a binder needs 4 more for a moment. */
    return n > 0 && (size_t)n < strlen("ipc://") + 104 ? OK : ERR_OF(BAD_SETTING);
}

/* ---- signals ---- */

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    struct actor *a = arg;

    (void)what;
    if (sig == SIGHUP)
        begin_reload(a);
    else if (a->kit->lifeline >= 0)
        /* A Ctrl-C or a kill of the whole group reaches everybody; who drains when is decided by the
         * supervisor, or a proxy would find its neighbours gone. */
        log_debug("signal left to the supervisor", "signal=%d", (int)sig);
    else if (a->kit->phase == ACTOR_DRAINING)
        actor_drained(a); /* asked twice: now */
    else
        begin_drain(a, a->settings.drain_timeout);
}

static err_t watch_signals(struct actor *a)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};

    (void)signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < 3; i++) {
        a->kit->on_signal[i] = evsignal_new(a->base, signals[i], on_signal, a);
        if (a->kit->on_signal[i] == NULL || event_add(a->kit->on_signal[i], NULL) != 0)
            return ERR_OF(NOMEM);
    }
    return OK;
}

/* ---- start and end ---- */

static err_t make_base(struct actor *a)
{
    struct event_config *conf = event_config_new();

    if (conf == NULL)
        return ERR_OF(NOMEM);
    /* Timers of a millisecond, not of a kernel tick. */
    (void)event_config_set_flag(conf, EVENT_BASE_FLAG_PRECISE_TIMER);
    (void)event_config_set_flag(conf, EVENT_BASE_FLAG_NOLOCK);
    a->base = event_base_new_with_config(conf);
    event_config_free(conf);
    return a->base != NULL ? OK : ERR_OF(NOMEM);
}

static err_t confine(struct actor *a)
{
    struct confine_spec spec = {.needs = CONFINE_UNIX};

    if (a->spec->confine != NULL) {
        spec.needs = 0;
        a->spec->confine(a, &spec);
    }
    if (spec.socket_dir == NULL)
        spec.socket_dir = a->settings.run_dir;
    spec.each_thread = mailbox_each_thread;
    if (!a->settings.confine) {
        log_warn("not confined", "%s", "WEFT_CONFINE=false");
        return OK;
    }
    return confine_enter(&spec);
}

static err_t start(struct actor *a)
{
    TRY(make_base(a));
    TRY(open_lifeline(a));
    TRY(take_fds(a));
    TRY(watch_signals(a));
    TRY(mailbox_prepare(a->base));
    timer_init(&a->kit->alive, a->base, on_alive, a);
    timer_every(&a->kit->alive, LIFELINE_ALIVE_MS);
    if (a->spec->start != NULL)
        TRY(a->spec->start(a));
    TRY(confine(a));
    if (a->spec->confined != NULL)
        return a->spec->confined(a);
    actor_ready(a);
    return OK;
}

static void run_loop(struct actor *a)
{
    while (a->kit->phase != ACTOR_ENDED) {
        clock_turn(); /* the time of the coming turn is read when somebody asks for it */
        if (event_base_loop(a->base, EVLOOP_ONCE) != 0 && a->kit->phase != ACTOR_ENDED)
            BUG_ON(true); /* no event is left, or epoll failed: neither can be with our timer armed */
    }
}

static void stop(struct actor *a)
{
    if (a->spec->stop != NULL)
        a->spec->stop(a);
    timer_stop(&a->kit->alive);
    mailbox_shutdown();
    for (unsigned i = 0; i < 3; i++)
        if (a->kit->on_signal[i] != NULL)
            event_free(a->kit->on_signal[i]);
    if (a->kit->on_lifeline != NULL)
        event_free(a->kit->on_lifeline);
    if (a->base != NULL)
        event_base_free(a->base);
}

/* True when the command line asked for text only. */
static bool answer_argv(const struct actor_spec *spec, int argc, char **argv)
{
    struct settings s;
    char why[200];

    if (argc < 2)
        return false;
    if (strcmp(argv[1], "--help") == 0) {
        (void)printf("%s %s: %s\n", spec->name, WEFT_VERSION,
                     spec->page != NULL ? spec->page : "a process of Weft");
        (void)printf("Started by weft-supervisor. --settings prints the settings and their values.\n");
        return true;
    }
    if (strcmp(argv[1], "--settings") != 0)
        return false;
    if (settings_load(&s, why) != OK)
        (void)printf("%s\n", why);
    else
        settings_print(&s, stdout);
    return true;
}

int actor_run(const struct actor_spec *spec, int argc, char **argv)
{
    static struct actor_kit kit; /* one process, one actor */
    struct actor a = {.spec = spec, .argc = argc - 1, .argv = argv + 1, .kit = &kit};
    char why[200];
    err_t err;

    kit = (struct actor_kit){.lifeline = -1};
    if (answer_argv(spec, argc, argv))
        return 0;
    (void)mallopt(M_ARENA_MAX, 1); /* libzmq's thread shares ours: a second arena is memory, not speed */
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    log_init(spec->name);
    if (settings_load(&a.settings, why) != OK) {
        log_error("bad setting", "%s", why);
        return EXIT_SETTING;
    }
    err = start(&a);
    if (err != OK) {
        log_error("start failed", "why=%s text=\"%s\"", err->name, err->text);
        kit.code = err == ERR_OF(BAD_SETTING) ? EXIT_SETTING : 1;
        /* What start() half built is given back by the exit: stop hooks need not cope with it. */
        _exit(kit.code);
    }
    run_loop(&a);
    stop(&a);
    log_flush();
    return kit.code;
}
