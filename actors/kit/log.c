/* Log lines: made in a buffer on the stack, written with one write(2).
 *
 * A reader of the log that has stopped reading must not stop a process, so a line for which stderr has
 * no room at once is dropped and counted; the next line that gets through tells how many were.
 * The same words more than FOLD_LINES times in a second are folded: the lines over that are counted, and
 * the count goes out with the first such line of a later second, or from log_flush().
 */
#include "kit/log.h"

#include "kit/clock.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048
#define FOLD_LINES     20
#define FOLD_SLOTS     64

struct fold {
    uint64_t second; /* of the counts below */
    uint32_t key;    /* hash of (level, words); 0 = the slot is free */
    unsigned seen;   /* lines in that second */
    unsigned folded; /* lines not written yet */
    enum log_level level;
    char words[48];  /* for log_flush, cut if longer */
};

static struct {
    const char *name;
    enum log_level level;
    long pid;
    uint64_t lost; /* lines for which there was no room */
    struct fold folds[FOLD_SLOTS];
} lg = {"weft", LOG_LEVEL_INFO, 0, 0, {{0}}};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

bool log_level_parse(slice_t text, enum log_level *out)
{
    for (unsigned i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++)
        if (slice_is_str(text, level_names[i])) {
            *out = (enum log_level)i;
            return true;
        }
    return false;
}

void log_init(const char *name)
{
    lg.name = name;
    lg.pid = (long)getpid();
    (void)log_level_parse(slice_str(getenv("WEFT_LOG")), &lg.level); /* settings.c reports bad ones */
}

void log_set_level(enum log_level level)
{
    lg.level = level;
}

bool log_is_on(enum log_level level)
{
    return level <= lg.level;
}

/* What came from outside may hold anything; a log line stays one line of printable bytes. */
static void line_clean(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f)
            p[i] = '?';
}

static void line_write(const char *line, size_t n)
{
    struct pollfd pfd = {.fd = STDERR_FILENO, .events = POLLOUT};

    if (poll(&pfd, 1, 0) != 1 || (pfd.revents & POLLOUT) == 0 ||
        write(STDERR_FILENO, line, n) != (ssize_t)n)
        lg.lost++;
    else
        lg.lost = 0;
}

static size_t line_start(char line[LINE_MAX_BYTES], enum log_level level, const char *words)
{
    uint64_t wall_ms = clock_wall_ms();
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    size_t n;
    int more;

    if (gmtime_r(&seconds, &tm) == NULL)
        memset(&tm, 0, sizeof(tm));
    n = strftime(line, LINE_MAX_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
    if (lg.pid == 0)
        lg.pid = (long)getpid();
    more = snprintf(line + n, LINE_MAX_BYTES - n, ".%03uZ %-5s %s[%ld] %s", (unsigned)(wall_ms % 1000),
                    level_names[level], lg.name, lg.pid, words);
    n += more > 0 ? (size_t)more : 0;
    return n < LINE_MAX_BYTES - 64 ? n : LINE_MAX_BYTES - 64;
}

static size_t line_count(char *line, size_t n, const char *key, uint64_t value)
{
    int more = snprintf(line + n, LINE_MAX_BYTES - n, " %s=%llu", key, (unsigned long long)value);

    return more > 0 && (size_t)more < LINE_MAX_BYTES - n ? n + (size_t)more : n;
}

static uint32_t fold_key(enum log_level level, const char *words)
{
    uint32_t h = 2166136261u ^ (uint32_t)level; /* FNV-1a: the words are our own constants */

    for (const char *p = words; *p != '\0'; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    return h != 0 ? h : 1;
}

static void fold_say(struct fold *f)
{
    char line[LINE_MAX_BYTES];
    size_t n;

    if (f->folded == 0)
        return;
    n = line_start(line, f->level, f->words);
    n = line_count(line, n, "repeated", f->folded);
    line[n++] = '\n';
    line_write(line, n);
    f->folded = 0;
}

/* True if this line is to be written. */
static bool fold_admit(enum log_level level, const char *words)
{
    uint32_t key = fold_key(level, words);
    struct fold *f = &lg.folds[key % FOLD_SLOTS];
    uint64_t second = clock_now_ms() / 1000;

    if (f->key != key || f->second != second) {
        fold_say(f);
        f->key = key;
        f->second = second;
        f->seen = 0;
        f->level = level;
        (void)snprintf(f->words, sizeof(f->words), "%s", words);
    }
    if (f->seen++ < FOLD_LINES)
        return true;
    f->folded++;
    return false;
}

void log_flush(void)
{
    uint64_t second = clock_now_ms() / 1000;

    for (unsigned i = 0; i < FOLD_SLOTS; i++)
        if (lg.folds[i].second != second)
            fold_say(&lg.folds[i]);
}

void log_line(enum log_level level, const char *words, const char *fmt, ...)
{
    char line[LINE_MAX_BYTES];
    size_t n, room;
    va_list ap;
    int more;

    if (level > lg.level || !fold_admit(level, words))
        return;
    n = line_start(line, level, words);
    if (fmt[0] != '\0') {
        line[n++] = ' ';
        room = sizeof(line) - n - 48; /* the rest is for "...", lost=N and the newline */
        va_start(ap, fmt);
        more = vsnprintf(line + n, room, fmt, ap);
        va_end(ap);
        if (more > 0 && (size_t)more >= room) {
            n += room - 1;
            memcpy(line + n, "...", 3);
            n += 3;
        } else if (more > 0) {
            n += (size_t)more;
        }
    }
    if (lg.lost != 0)
        n = line_count(line, n, "lost", lg.lost);
    line_clean(line, n);
    line[n++] = '\n';
    line_write(line, n);
}
