/* The CPU quota of this process from the files of its control group. Whatever cannot be read is no quota. */
#include "supervisor/cpus.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#define TEXT_MAX 4096
#define PATH_LEN 1024

/* The file's content without the end of its line; "" if there is none. */
static slice_t read_text(const char *root, const char *path, char room[TEXT_MAX])
{
    char name[PATH_LEN * 2];
    ssize_t n = -1;
    int fd, len = snprintf(name, sizeof(name), "%s%s", root, path);

    if (len <= 0 || (size_t)len >= sizeof(name))
        return slice(NULL, 0);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, room, TEXT_MAX);
        (void)close(fd);
    }
    while (n > 0 && (room[n - 1] == '\n' || room[n - 1] == ' '))
        n--;
    return n > 0 ? slice(room, (size_t)n) : slice(NULL, 0);
}

static unsigned thousandths(uint64_t quota, uint64_t period)
{
    const uint64_t most = 4096; /* processors: beyond it nobody's quota matters */

    if (quota == 0 || period == 0)
        return 0;
    return quota / period >= most ? (unsigned)(most * 1000) : (unsigned)((quota * 1000 + period - 1) / period);
}

unsigned cpus_of_quota(slice_t quota_us, slice_t period_us)
{
    uint64_t quota, period;

    /* "-1" is no number: no quota. */
    if (!slice_to_u64(quota_us, &quota) || !slice_to_u64(period_us, &period) || period > UINT32_MAX)
        return 0;
    return thousandths(quota < UINT64_MAX / 1000 - UINT32_MAX ? quota : UINT64_MAX / 1000 - UINT32_MAX, period);
}

unsigned cpus_of_max(slice_t cpu_max)
{
    const uint8_t *blank = cpu_max.n > 0 ? memchr(cpu_max.p, ' ', cpu_max.n) : NULL;
    size_t n;

    if (blank == NULL)
        return 0;
    n = (size_t)(blank - cpu_max.p);
    return cpus_of_quota(slice(cpu_max.p, n), slice_skip(cpu_max, n + 1));
}

static unsigned smaller(unsigned a, unsigned b)
{
    return b != 0 && (a == 0 || b < a) ? b : a;
}

static unsigned quota_at(const char *root, const char *dir, size_t n, bool is_v2)
{
    char path[PATH_LEN + 64], one[TEXT_MAX], two[TEXT_MAX];
    slice_t quota;

    if (is_v2) {
        (void)snprintf(path, sizeof(path), "/sys/fs/cgroup%.*s/cpu.max", (int)n, dir);
        return cpus_of_max(read_text(root, path, one));
    }
    (void)snprintf(path, sizeof(path), "/sys/fs/cgroup/cpu%.*s/cpu.cfs_quota_us", (int)n, dir);
    quota = read_text(root, path, one);
    (void)snprintf(path, sizeof(path), "/sys/fs/cgroup/cpu%.*s/cpu.cfs_period_us", (int)n, dir);
    return cpus_of_quota(quota, read_text(root, path, two));
}

/* The group at dir and every one above it. */
static unsigned quota_of_group(const char *root, slice_t dir, bool is_v2)
{
    char path[PATH_LEN];
    unsigned least = 0;

    if (!slice_to_cstr(dir, path, sizeof(path)))
        return 0;
    for (size_t n = dir.n; n > 0; n--)
        if (n == dir.n || path[n] == '/')
            least = smaller(least, quota_at(root, path, n, is_v2));
    return smaller(least, quota_at(root, path, 0, is_v2));
}

/* "0::/PATH" of v2; "N:...cpu...:/PATH" of v1. */
static unsigned quota_of_line(const char *root, slice_t line)
{
    const uint8_t *first = line.n > 0 ? memchr(line.p, ':', line.n) : NULL, *second;
    slice_t rest, names;

    if (first == NULL)
        return 0;
    rest = slice_skip(line, (size_t)(first - line.p) + 1);
    second = rest.n > 0 ? memchr(rest.p, ':', rest.n) : NULL;
    if (second == NULL)
        return 0;
    names = slice(rest.p, (size_t)(second - rest.p));
    rest = slice_skip(rest, names.n + 1);
    if (slice_is_str(rest, "/"))
        rest.n = 0;
    if (names.n == 0)
        return quota_of_group(root, rest, true);
    if (slice_is_str(names, "cpu") || slice_is_str(names, "cpu,cpuacct") || slice_is_str(names, "cpuacct,cpu"))
        return quota_of_group(root, rest, false);
    return 0;
}

static unsigned processors(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
        return (unsigned)CPU_COUNT(&set);
    return sysconf(_SC_NPROCESSORS_ONLN) > 0 ? (unsigned)sysconf(_SC_NPROCESSORS_ONLN) : 1;
}

unsigned cpus_allowed(const char *root)
{
    char room[TEXT_MAX];
    slice_t text = read_text(root, "/proc/self/cgroup", room);
    unsigned least = 0, all = processors();

    while (text.n > 0) {
        const uint8_t *end = memchr(text.p, '\n', text.n);
        size_t n = end != NULL ? (size_t)(end - text.p) : text.n;

        least = smaller(least, quota_of_line(root, slice(text.p, n)));
        text = slice_skip(text, n + 1);
    }
    if (least == 0 || (least + 999) / 1000 > all)
        return all;
    return (least + 999) / 1000;
}
