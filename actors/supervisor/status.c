#include "supervisor/status.h"

#include "kit/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool is_key(slice_t key)
{
    if (key.n == 0 || key.n >= NOTE_KEY_BYTES)
        return false;
    for (size_t i = 0; i < key.n; i++)
        if (strchr("abcdefghijklmnopqrstuvwxyz0123456789_-", key.p[i]) == NULL || key.p[i] == '\0')
            return false;
    return true;
}

static struct note *note_for(struct notes *n, slice_t key)
{
    for (unsigned i = 0; i < n->n; i++)
        if (slice_is_str(key, n->list[i].key))
            return &n->list[i];
    if (n->n == NOTES_MAX)
        return NULL;
    n->list[n->n] = (struct note){.key = ""};
    (void)slice_to_cstr(key, n->list[n->n].key, NOTE_KEY_BYTES);
    return &n->list[n->n++];
}

bool notes_set(struct notes *n, slice_t key, slice_t value)
{
    struct note fresh = {.key = ""}, *note;
    size_t len = value.n < NOTE_TEXT_BYTES - 1 ? value.n : NOTE_TEXT_BYTES - 1;

    if (!is_key(key))
        return false;
    for (size_t i = 0; i < len; i++)
        fresh.text[i] = (char)(value.p[i] <= ' ' || value.p[i] == 0x7f ? '_' : value.p[i]);
    note = note_for(n, key);
    if (note == NULL || strcmp(note->text, fresh.text) == 0)
        return false;
    memcpy(note->text, fresh.text, sizeof(note->text));
    return true;
}

err_t status_print_head(struct buf *out)
{
    return buf_printf(out, "name pid state restarts since_ms ready_ms notes\n");
}

err_t status_print_row(struct buf *out, const struct status_row *row)
{
    TRY(buf_printf(out, "%s %d %s %u %" PRIu64, row->name, (int)row->pid, row->state, row->restarts,
                   row->since_ms));
    if (row->ready_ms < 0)
        TRY(buf_printf(out, " -"));
    else
        TRY(buf_printf(out, " %" PRId64, row->ready_ms));
    for (unsigned i = 0; i < row->notes->n; i++)
        TRY(buf_printf(out, " %s=%s", row->notes->list[i].key, row->notes->list[i].text));
    return buf_add(out, "\n", 1);
}

err_t status_write(const char *path, slice_t text)
{
    char tmp[160];
    int n = snprintf(tmp, sizeof(tmp), "%s.new", path);
    bool is_written = false;
    int fd;

    if (n < 0 || (size_t)n >= sizeof(tmp))
        return ERR_OF(TOO_BIG);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd >= 0) {
        is_written = write(fd, text.p, text.n) == (ssize_t)text.n;
        (void)close(fd);
    }
    if (is_written && rename(tmp, path) == 0)
        return OK;
    log_warn("status not written", "path=%s errno=%s", path, strerror(errno));
    (void)unlink(tmp);
    return ERR_OF(OS);
}
