#include "supervisor/env.h"

#include "kit/buf.h"
#include "kit/lifeline.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PASSED_MAX 512

static bool is_named(const char *item, const char *name)
{
    size_t n = strlen(name);

    return strncmp(item, name, n) == 0 && item[n] == '=';
}

static bool is_any_of(const char *item, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (is_named(item, names[i]))
            return true;
    return false;
}

bool env_is_passed(const char *item, bool test_preload)
{
    static const char *const told[] = {LIFELINE_ENV, "WEFT_FDS", "WEFT_WORKER", "WEFT_INCARNATION"};
    static const char *const plain[] = {"PATH", "LANG", "TZ"};

    if (strchr(item, '=') == NULL || is_any_of(item, told, sizeof(told) / sizeof(told[0])))
        return false;
    if (strncmp(item, "WEFT_", 5) == 0 || is_any_of(item, plain, sizeof(plain) / sizeof(plain[0])))
        return true;
#if WEFT_SANITIZED
    static const char *const sanitizers[] = {"ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"};

    if (is_any_of(item, sanitizers, sizeof(sanitizers) / sizeof(sanitizers[0])))
        return true;
#endif
    return test_preload && (is_named(item, "LD_PRELOAD") || strncmp(item, "FAKETIME", 8) == 0);
}

static char *text_fds(struct arena *a, const struct env_told *told)
{
    struct buf b;
    char *text = NULL;
    err_t err;

    buf_init(&b, 16384);
    err = buf_printf(&b, "WEFT_FDS=");
    for (unsigned i = 0; i < told->n_heirs && err == OK; i++)
        err = buf_printf(&b, "%s%s=%d", i == 0 ? "" : ",", told->heirs[i]->name, told->heirs[i]->fd);
    if (err == OK) /* the arena's copy ends with a NUL, and its memory is ours to give as char * */
        text = arena_alloc(a, buf_len(&b) + 1);
    if (text != NULL)
        memcpy(text, buf_slice(&b).p, buf_len(&b));
    buf_done(&b);
    return text;
}

static char *text_number(struct arena *a, const char *name, uint64_t n)
{
    char *text = arena_alloc(a, strlen(name) + 24);

    if (text != NULL)
        (void)sprintf(text, "%s=%" PRIu64, name, n);
    return text;
}

char **env_build(struct arena *a, char *const *ours, bool test_preload, const struct env_told *told)
{
    char **env = arena_alloc(a, (PASSED_MAX + 5) * sizeof(*env));
    size_t n = 0;

    if (env == NULL)
        return NULL;
    for (size_t i = 0; ours[i] != NULL && n < PASSED_MAX; i++)
        if (env_is_passed(ours[i], test_preload))
            env[n++] = ours[i];
    env[n] = text_number(a, LIFELINE_ENV, (uint64_t)told->lifeline);
    env[n + 1] = text_number(a, "WEFT_WORKER", (uint64_t)told->worker);
    env[n + 2] = text_number(a, "WEFT_INCARNATION", told->incarnation);
    env[n + 3] = text_fds(a, told);
    for (size_t i = n; i < n + 4; i++)
        if (env[i] == NULL)
            return NULL;
    return env;
}
