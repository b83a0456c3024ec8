/* One event, one line, made by whoever decides what happens next.
 *
 *   2026-11-23T06:12:44.101Z info  weft-proxy[412] exchange closed reason=IDLE status=200 ms=12
 *
 * Fixed words first, then key=value pairs given as a printf format. No secrets, no payloads. Lines go to
 * stderr with one write(2). The same (level, words) more than 20 times in a second are folded into one
 * line with repeated=N, so that a flood of bad input is not a flood of logs.
 */
#ifndef KIT_LOG_H
#define KIT_LOG_H

#include "kit/attr.h"
#include "kit/slice.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `name` is kept by reference. Level from WEFT_LOG (error|warn|info|debug), default info. */
void log_init(const char *name);
void log_set_level(enum log_level level);
bool log_level_parse(slice_t text, enum log_level *out);
bool log_is_on(enum log_level level);

void log_line(enum log_level level, const char *words, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Writes the repeated=N lines of folded floods that are over. The actor's loop calls it. */
void log_flush(void);

#define log_error(words, ...) log_line(LOG_LEVEL_ERROR, words, __VA_ARGS__)
#define log_warn(words, ...)  log_line(LOG_LEVEL_WARN, words, __VA_ARGS__)
#define log_info(words, ...)  log_line(LOG_LEVEL_INFO, words, __VA_ARGS__)
#define log_debug(words, ...)                                                                      \
    do {                                                                                           \
        if (log_is_on(LOG_LEVEL_DEBUG))                                                            \
            log_line(LOG_LEVEL_DEBUG, words, __VA_ARGS__);                                         \
    } while (0)

#endif
