/* The status file, line by line. The format is the supervisor's (supervisor/status.h). */
#include "cli/status.h"

#include "cli/files.h"
#include "cli/trouble.h"
#include "kit/buf.h"
#include "kit/slice.h"

#include <string.h>

#define STATUS_BYTES_MAX (64u << 10)

/* The next blank-separated word of *line, cut off it. */
static slice_t status_word(slice_t *line)
{
    size_t n = 0;
    slice_t word;

    while (n < line->n && line->p[n] != ' ')
        n++;
    word = slice(line->p, n);
    *line = slice_skip(*line, n < line->n ? n + 1 : n);
    return word;
}

static bool status_name_ok(slice_t name)
{
    for (size_t i = 0; i < name.n; i++)
        if ((name.p[i] < 'a' || name.p[i] > 'z') && (name.p[i] < '0' || name.p[i] > '9') &&
            name.p[i] != '-' && name.p[i] != '.' && name.p[i] != '_')
            return false;
    return name.n > 0;
}

static bool status_line(slice_t line, struct status_process *out)
{
    slice_t name = status_word(&line);
    slice_t pid = status_word(&line);
    slice_t state = status_word(&line);
    slice_t restarts = status_word(&line);
    uint64_t number, times;

    if (!status_name_ok(name) || !slice_to_cstr(name, out->name, sizeof out->name) ||
        !status_name_ok(state) || !slice_to_cstr(state, out->state, sizeof out->state) ||
        !slice_to_u64(pid, &number) || number > INT32_MAX || !slice_to_u64(restarts, &times) ||
        times > UINT32_MAX)
        return false;
    out->pid = (pid_t)number;
    out->restarts = (uint32_t)times;
    out->is_ready = slice_is_str(state, "ready");
    out->waits_for_port = 0;
    for (slice_t word = status_word(&line); word.n > 0; word = status_word(&line))
        if (slice_starts(word, SLICE_LIT("app=waiting:")) &&
            slice_to_u64(slice_skip(word, sizeof "app=waiting:" - 1), &number) &&
            number <= UINT16_MAX)
            out->waits_for_port = (uint16_t)number;
    return true;
}

bool status_read(const char *run_dir, struct status *out)
{
    char path[FILES_PATH_MAX];
    struct trouble why;
    struct buf b;
    slice_t rest;

    memset(out, 0, sizeof *out);
    buf_init(&b, 0);
    if (!files_path(path, "%s/status", run_dir) ||
        files_read(path, STATUS_BYTES_MAX, &b, &why) != OK) {
        buf_done(&b);
        return false;
    }
    for (rest = buf_slice(&b); rest.n > 0 && out->n < STATUS_PROCESSES_MAX;) {
        const uint8_t *nl = memchr(rest.p, '\n', rest.n);
        size_t n = nl != NULL ? (size_t)(nl - rest.p) : rest.n;

        if (status_line(slice(rest.p, n), &out->at[out->n])) {
            if (strcmp(out->at[out->n].name, "weft-supervisor") == 0)
                out->supervisor = out->at[out->n].pid;
            out->n++;
        }
        rest = slice_skip(rest, n + 1);
    }
    buf_done(&b);
    return out->n > 0;
}
