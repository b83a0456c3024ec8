#include "telemetry/status.h"

#include "kit/clock.h"
#include "kit/log.h"

#include <stdio.h>

static bool key_is_plain(slice_t key)
{
    for (size_t i = 0; i < key.n; i++)
        if (!((key.p[i] >= 'a' && key.p[i] <= 'z') || (key.p[i] >= '0' && key.p[i] <= '9') ||
              key.p[i] == '_' || key.p[i] == '-'))
            return false;
    return key.n > 0;
}

static struct status_state *state_get(struct status *s, slice_t key)
{
    struct status_state *one;

    for (unsigned i = 0; i < s->n_states; i++)
        if (slice_is_str(key, s->states[i].key))
            return &s->states[i];
    if (s->n_states == STATUS_KEYS_MAX || !key_is_plain(key))
        return NULL;
    one = &s->states[s->n_states];
    *one = (struct status_state){0};
    if (!slice_to_cstr(key, one->key, sizeof(one->key)))
        return NULL;
    s->n_states++;
    return one;
}

void status_take_state(struct status *s, const struct wire_state *msg)
{
    struct status_state *one = state_get(s, msg->key);

    if (one == NULL) {
        s->refused++;
        return;
    }
    if (one->is_good != msg->is_good)
        log_info("state changed", "key=%s good=%d text=\"%.*s\"", one->key, msg->is_good,
                 SLICE_FMT(msg->text));
    one->is_good = msg->is_good;
    one->value = msg->value;
    if (!slice_to_cstr(msg->text, one->text, sizeof(one->text)))
        one->text[0] = '\0';
    for (char *c = one->text; *c != '\0'; c++) /* it is printed in lines */
        if ((unsigned char)*c < 0x20)
            *c = ' ';
}

const struct status_state *status_find(const struct status *s, const char *key)
{
    for (unsigned i = 0; i < s->n_states; i++)
        if (strcmp(s->states[i].key, key) == 0)
            return &s->states[i];
    return NULL;
}

bool status_is_good(const struct status *s, const char *key)
{
    const struct status_state *one = status_find(s, key);

    return one != NULL && one->is_good;
}

/* ---- processes ---- */

static slice_t word_next(slice_t *rest)
{
    slice_t word = *rest;
    const uint8_t *space = word.n != 0 ? memchr(word.p, ' ', word.n) : NULL;

    if (space != NULL)
        word.n = (size_t)(space - word.p);
    *rest = slice_skip(*rest, word.n + 1);
    return word;
}

static struct status_process *process_get(struct status *s, slice_t name)
{
    struct status_process *one;

    for (unsigned i = 0; i < s->n_processes; i++)
        if (slice_is_str(name, s->processes[i].name))
            return &s->processes[i];
    if (s->n_processes == STATUS_PROCESSES_MAX || !key_is_plain(name))
        return NULL;
    one = &s->processes[s->n_processes];
    *one = (struct status_process){0};
    if (!slice_to_cstr(name, one->name, sizeof(one->name)))
        return NULL;
    s->n_processes++;
    return one;
}

static bool line_fill(struct status_process *one, slice_t pid, slice_t restarts, slice_t state)
{
    uint64_t pid_n, restarts_n;

    if (!slice_to_u64(pid, &pid_n) || !slice_to_u64(restarts, &restarts_n) ||
        pid_n > INT32_MAX || restarts_n > UINT32_MAX || !key_is_plain(state) ||
        !slice_to_cstr(state, one->state, sizeof(one->state)))
        return false;
    one->pid = (uint32_t)pid_n;
    one->restarts = (uint32_t)restarts_n;
    return true;
}

bool status_take_line(struct status *s, slice_t line, const char *self, bool *has_restarted,
                      const char **name)
{
    slice_t verb = word_next(&line), who = word_next(&line), pid = word_next(&line);
    slice_t restarts = word_next(&line), state = word_next(&line);
    unsigned known = s->n_processes;
    struct status_process *one;
    uint32_t before;

    *has_restarted = false;
    if (!slice_is_str(verb, "process"))
        return false;
    one = process_get(s, who);
    if (one == NULL) {
        s->refused++;
        return true;
    }
    before = one->restarts;
    if (!line_fill(one, pid, restarts, state)) {
        s->refused++;
        return true;
    }
    *name = one->name;
    *has_restarted =
        one->restarts > before && (s->n_processes == known || strcmp(one->name, self) == 0);
    return true;
}

uint32_t status_restarts(const struct status *s)
{
    uint32_t n = 0;

    for (unsigned i = 0; i < s->n_processes; i++)
        n += s->processes[i].restarts;
    return n;
}

/* ---- ready ---- */

/* The proxy says so itself, or the supervisor says that it is ready. */
static bool proxy_is_there(const struct status *s)
{
    if (status_is_good(s, STATE_PROXY))
        return true;
    for (unsigned i = 0; i < s->n_processes; i++)
        if (strncmp(s->processes[i].name, "weft-proxy", 10) == 0 &&
            strcmp(s->processes[i].state, "ready") == 0)
            return true;
    return false;
}

static void say_missing(const struct status *s, struct buf *why, const char *key,
                        const char *what)
{
    const struct status_state *one = status_find(s, key);
    const char *text = one != NULL ? one->text : "";

    if (why != NULL &&
        buf_printf(why, "%s: %s%s%s\n", key, what, text[0] != '\0' ? ": " : "", text) != OK)
        return; /* the status code says it too */
}

/* One that is in force serves, however badly its renewal goes: that is told elsewhere, and taking
 * every pod out of service while the authority is away would be the outage itself. */
static bool has_certificate(const struct status *s)
{
    const struct status_state *one = status_find(s, STATE_CERTIFICATE);

    return one != NULL && (one->is_good || one->value > (int64_t)clock_wall_ms());
}

bool status_is_ready(const struct status *s, struct buf *why)
{
    bool is_ready = true;

    if (!has_certificate(s)) {
        say_missing(s, why, STATE_CERTIFICATE, "there is no valid certificate yet");
        is_ready = false;
    }
    if (!status_is_good(s, STATE_BROKER) && !status_is_good(s, STATE_SNAPSHOT)) {
        say_missing(s, why, STATE_BROKER,
                    "not connected, and there is no snapshot to go on with");
        is_ready = false;
    }
    if (!proxy_is_there(s)) {
        say_missing(s, why, STATE_PROXY, "not accepting connections yet");
        is_ready = false;
    }
    return is_ready;
}
