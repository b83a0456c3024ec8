#include "link/snapshot.h"

#include "kit/clock.h"
#include "kit/log.h"
#include "link/view.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC      "WEFTSNAP"
#define VERSION    1u
#define MAX_BYTES  (80u << 20)
#define EVERY_MS   2000u
#define HEAD_BYTES (8u + 4u + 8u + 8u + 1u + 4u)

/* ---- writing ---- */

static err_t put_number(struct buf *b, uint64_t v, size_t bytes)
{
    uint8_t raw[8];
    for (size_t i = 0; i < bytes; i++)
        raw[i] = (uint8_t)(v >> (8 * i));
    return buf_add(b, raw, bytes);
}

static err_t print(struct link *l, struct buf *b)
{
    uint8_t sum[SHA256_DIGEST_LENGTH];
    uint32_t count = 0;
    struct view *v, *next;
    HASH_ITER(hh, l->views, v, next)
    count += v->payload != NULL ? 1 : 0;
    TRY(buf_add(b, MAGIC, 8));
    TRY(put_number(b, VERSION, 4));
    TRY(put_number(b, l->epoch, 8));
    TRY(put_number(b, l->incarnation, 8));
    TRY(put_number(b, l->is_serving ? 1 : 0, 1));
    TRY(put_number(b, count, 4));
    HASH_ITER(hh, l->views, v, next)
    {
        if (v->payload == NULL)
            continue;
        TRY(put_number(b, strlen(v->topic), 2));
        TRY(buf_add_slice(b, slice_str(v->topic)));
        TRY(put_number(b, v->revision, 8));
        TRY(put_number(b, v->n_payload, 4));
        TRY(buf_add(b, v->payload, v->n_payload));
    }
    (void)SHA256(buf_slice(b).p, buf_len(b), sum);
    return buf_add(b, sum, sizeof sum);
}

static bool write_file(const struct link *l, slice_t text)
{
    char path[560], temp[570];
    if (snprintf(path, sizeof path, "%s/snapshot", l->set->state_dir) >= (int)sizeof path)
        return false;
    (void)snprintf(temp, sizeof temp, "%s.new", path);
    (void)unlink(temp);
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    bool is_good = true;
    while (is_good && text.n > 0) {
        ssize_t n = write(fd, text.p, text.n);
        is_good = n > 0;
        text = slice_skip(text, n > 0 ? (size_t)n : 0);
    }
    is_good = is_good && fdatasync(fd) == 0;
    return close(fd) == 0 && is_good && rename(temp, path) == 0;
}

void snapshot_save(struct link *l, bool now)
{
    if (!l->is_snapshot_dirty || (!now && clock_now_ms() - l->snapshot_ms < EVERY_MS))
        return;
    struct buf b;
    buf_init(&b, MAX_BYTES);
    l->snapshot_ms = clock_now_ms();
    if (print(l, &b) == OK && write_file(l, buf_slice(&b))) {
        l->is_snapshot_dirty = false;
        l->count.snapshots_written++;
    } else {
        log_warn("snapshot not written", "state_dir=%s errno=%d", l->set->state_dir, errno);
    }
    buf_done(&b);
}

/* ---- reading ---- */

static bool get_number(slice_t *s, size_t bytes, uint64_t *out)
{
    if (s->n < bytes)
        return false;
    *out = 0;
    for (size_t i = 0; i < bytes; i++)
        *out |= (uint64_t)s->p[i] << (8 * i);
    *s = slice_skip(*s, bytes);
    return true;
}

static bool get_bytes(slice_t *s, uint64_t n, slice_t *out)
{
    if (s->n < n)
        return false;
    *out = slice(s->p, (size_t)n);
    *s = slice_skip(*s, (size_t)n);
    return true;
}

static err_t take_views(struct link *l, slice_t rest, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t n, revision;
        slice_t topic, payload;
        struct view *v = NULL;
        if (!get_number(&rest, 2, &n) || !get_bytes(&rest, n, &topic) ||
            !get_number(&rest, 8, &revision) || !get_number(&rest, 4, &n) ||
            !get_bytes(&rest, n, &payload))
            return ERR_OF(LINK_SNAPSHOT);
        bool is_ours = slice_is_str(topic, "trust") || slice_is_str(topic, l->own_topic) ||
                       slice_starts(topic, SLICE_LIT("dst/"));
        /* The checksum says that we wrote it; a payload that is refused all the same is of
         * another version of Weft and is fetched again. */
        if (is_ours && view_get(l, topic, &v) == OK && view_take(l, v, revision, payload) != OK)
            view_drop(l, v);
    }
    return rest.n == 0 ? OK : ERR_OF(LINK_SNAPSHOT);
}

static err_t parse(struct link *l, slice_t text)
{
    uint8_t sum[SHA256_DIGEST_LENGTH];
    uint64_t version, count, incarnation, serving;
    if (text.n < HEAD_BYTES + sizeof sum || memcmp(text.p, MAGIC, 8) != 0)
        return ERR_OF(LINK_SNAPSHOT);
    slice_t rest = slice(text.p, text.n - sizeof sum);
    (void)SHA256(rest.p, rest.n, sum);
    if (memcmp(sum, text.p + rest.n, sizeof sum) != 0)
        return ERR_OF(LINK_SNAPSHOT);
    rest = slice_skip(rest, 8);
    if (!get_number(&rest, 4, &version) || version != VERSION ||
        !get_number(&rest, 8, &l->epoch) || !get_number(&rest, 8, &incarnation) ||
        !get_number(&rest, 1, &serving) || !get_number(&rest, 4, &count) ||
        count > LINK_MAX_VIEWS)
        return ERR_OF(LINK_SNAPSHOT);
    TRY(take_views(l, rest, count));
    l->is_serving = serving == 1 && incarnation == l->incarnation;
    return OK;
}

static err_t read_file(int fd, struct buf *b)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)MAX_BYTES)
        return ERR_OF(LINK_SNAPSHOT);
    for (;;) {
        uint8_t *room = buf_reserve(b, 65536);
        if (room == NULL)
            return ERR_OF(LINK_SNAPSHOT);
        ssize_t n = read(fd, room, 65536);
        if (n < 0)
            return ERR_OF(LINK_SNAPSHOT);
        if (n == 0)
            return OK;
        buf_commit(b, (size_t)n);
    }
}

err_t snapshot_load(struct link *l)
{
    char path[560];
    struct buf b;
    if (snprintf(path, sizeof path, "%s/snapshot", l->set->state_dir) >= (int)sizeof path)
        return ERR_OF(BAD_SETTING);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? OK : ERR_OF(LINK_SNAPSHOT);
    buf_init(&b, MAX_BYTES + 65536);
    err_t e = read_file(fd, &b);
    (void)close(fd);
    if (e == OK)
        e = parse(l, buf_slice(&b));
    buf_done(&b);
    if (e != OK) {
        view_free_all(l);
        l->epoch = 0;
    }
    l->is_snapshot_dirty = false;
    return e;
}
