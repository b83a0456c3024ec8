#include "telemetry/usage.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { FIELD_UTIME = 14, FIELD_STIME = 15, FIELD_RSS = 24 }; /* proc(5), counted from 1 */

bool usage_parse(slice_t text, uint64_t page_kib, uint64_t ticks_per_s, uint64_t *rss_kib,
                 uint64_t *cpu_ms)
{
    const uint8_t *close_paren = text.n != 0 ? memrchr(text.p, ')', text.n) : NULL;
    uint64_t utime = 0, stime = 0, rss = 0;
    unsigned field = 3, found = 0;

    if (close_paren == NULL) /* the name in parentheses may hold anything, spaces too */
        return false;
    text = slice_skip(text, (size_t)(close_paren - text.p) + 2);
    for (; text.n > 0 && field <= FIELD_RSS; field++) {
        const uint8_t *space = memchr(text.p, ' ', text.n);
        slice_t word = slice(text.p, space != NULL ? (size_t)(space - text.p) : text.n);

        if (field == FIELD_UTIME)
            found += slice_to_u64(word, &utime);
        else if (field == FIELD_STIME)
            found += slice_to_u64(word, &stime);
        else if (field == FIELD_RSS)
            found += slice_to_u64(word, &rss);
        text = slice_skip(text, word.n + 1);
    }
    if (found != 3 || ticks_per_s == 0)
        return false;
    *rss_kib = rss * page_kib;
    *cpu_ms = (utime + stime) * 1000 / ticks_per_s;
    return true;
}

static void read_one(struct status_process *p, uint64_t page_kib, uint64_t ticks_per_s)
{
    char path[40], text[1024];
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/%u/stat", p->pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    n = read(fd, text, sizeof(text));
    (void)close(fd);
    if (n > 0 &&
        !usage_parse(slice(text, (size_t)n), page_kib, ticks_per_s, &p->rss_kib, &p->cpu_ms))
        p->rss_kib = p->cpu_ms = 0;
}

void usage_read(struct status *s)
{
    uint64_t page_kib = (uint64_t)sysconf(_SC_PAGESIZE) / 1024;
    uint64_t ticks_per_s = (uint64_t)sysconf(_SC_CLK_TCK);

    for (unsigned i = 0; i < s->n_processes; i++)
        if (s->processes[i].pid != 0)
            read_one(&s->processes[i], page_kib, ticks_per_s);
}

uint64_t usage_rss_kib(const struct status *s)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < s->n_processes; i++)
        n += s->processes[i].rss_kib;
    return n;
}

uint64_t usage_cpu_ms(const struct status *s)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < s->n_processes; i++)
        n += s->processes[i].cpu_ms;
    return n;
}
