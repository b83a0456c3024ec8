#include "broker/authority/folder.h"

#include "broker/authority/authority.h"

#include "kit/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static err_t os_error(const char *what, const struct folder *f, const char *name)
{
    log_error(what, "file=%s/%s errno=%s", f->path, name, strerror(errno));
    return ERR_OF(OS);
}

static err_t check_mode(const struct folder *f, const char *name, const struct stat *st,
                        unsigned want)
{
    if ((st->st_mode & 077) == 0 && st->st_uid == geteuid())
        return OK;
    log_error("others can reach the authority's files",
              "file=%s/%s mode=%o uid=%u want_mode=%o want_uid=%u (chmod and chown it, then "
              "look who has read it)",
              f->path, name, (unsigned)(st->st_mode & 07777), (unsigned)st->st_uid, want,
              (unsigned)geteuid());
    return ERR_OF(FILE_MODE);
}

err_t folder_open(const char *path, struct folder *out)
{
    struct stat st;
    err_t err;

    out->fd = -1;
    if (snprintf(out->path, sizeof(out->path), "%s", path) >= (int)sizeof(out->path))
        return ERR_OF(TOO_BIG);
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return os_error("directory cannot be made", out, "");
    out->fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (out->fd < 0 || fstat(out->fd, &st) != 0)
        return os_error("directory cannot be opened", out, "");
    err = check_mode(out, "", &st, 0700);
    if (err != OK)
        folder_close(out);
    return err;
}

void folder_close(struct folder *f)
{
    if (f->fd >= 0)
        (void)close(f->fd);
    f->fd = -1;
}

const char *folder_path(const struct folder *f)
{
    return f->path;
}

static err_t read_all(const struct folder *f, const char *name, int fd, struct buf *out)
{
    for (;;) {
        uint8_t *room = buf_reserve(out, 64 * 1024);
        ssize_t n;

        if (room == NULL)
            return ERR_OF(NOMEM);
        n = read(fd, room, 64 * 1024);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return os_error("file cannot be read", f, name);
        if (n == 0)
            return OK;
        buf_commit(out, (size_t)n);
        if (buf_len(out) > FOLDER_FILE_MAX)
            return ERR_OF(FILE_BROKEN);
    }
}

err_t folder_read(const struct folder *f, const char *name, struct buf *out, bool *is_there)
{
    struct stat st;
    err_t err;
    int fd = openat(f->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

    *is_there = fd >= 0;
    if (fd < 0)
        return errno == ENOENT ? OK : os_error("file cannot be opened", f, name);
    if (fstat(fd, &st) != 0)
        err = os_error("file cannot be looked at", f, name);
    else if (!S_ISREG(st.st_mode))
        err = ERR_OF(FILE_BROKEN);
    else
        err = check_mode(f, name, &st, 0600);
    if (err == OK)
        err = read_all(f, name, fd, out);
    (void)close(fd);
    return err;
}

static err_t write_all(const struct folder *f, const char *name, int fd, slice_t bytes)
{
    while (bytes.n > 0) {
        ssize_t n = write(fd, bytes.p, bytes.n);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return os_error("file cannot be written", f, name);
        bytes = slice_skip(bytes, (size_t)n);
    }
    if (fsync(fd) != 0)
        return os_error("file cannot be synced", f, name);
    return OK;
}

err_t folder_write(const struct folder *f, const char *name, slice_t bytes)
{
    char beside[64];
    err_t err;
    int fd;

    BUG_ON(snprintf(beside, sizeof(beside), "%s.new", name) >= (int)sizeof(beside));
    if (unlinkat(f->fd, beside, 0) != 0 && errno != ENOENT)
        return os_error("old file cannot be removed", f, beside);
    fd = openat(f->fd, beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return os_error("file cannot be made", f, beside);
    err = write_all(f, beside, fd, bytes);
    (void)close(fd);
    if (err == OK && renameat(f->fd, beside, f->fd, name) != 0)
        err = os_error("file cannot be renamed", f, beside);
    if (err == OK && fsync(f->fd) != 0)
        err = os_error("directory cannot be synced", f, "");
    if (err != OK)
        (void)unlinkat(f->fd, beside, 0);
    return err;
}

err_t folder_put_aside(const struct folder *f, const char *name)
{
    char aside[64];

    BUG_ON(snprintf(aside, sizeof(aside), "%s.bad", name) >= (int)sizeof(aside));
    if (renameat(f->fd, name, f->fd, aside) != 0)
        return os_error("file cannot be put aside", f, name);
    return OK;
}
